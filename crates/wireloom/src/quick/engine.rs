//! Which WireGuard an interface runs on: the kernel's, or ours.

use std::{env, fmt};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::QuickError;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wish {
    /// The kernel's where it has one, else ours
    Auto,
    /// Ours
    Userspace,
    /// Ours, with programs in the kernel that take what they can
    Ebpf,
    /// The kernel's
    Kernel,
}

impl Wish {
    /// What the variable WIRELOOM_ENGINE asks for, if it is there and not empty.
    ///
    /// # Errors
    /// [`QuickError::Environment`] where that is no engine.
    pub fn of_environment() -> Result<Option<Wish>, QuickError> {
        let Some(value) = env::var_os("WIRELOOM_ENGINE").filter(|value| !value.is_empty()) else { return Ok(None) };
        let value = value.to_string_lossy().into_owned();
        Wish::from_str(&value, false).map(Some).map_err(|_| QuickError::Environment(value))
    }
}

impl From<config::quick::Engine> for Wish {
    fn from(engine: config::quick::Engine) -> Wish {
        match engine {
            config::quick::Engine::Auto => Wish::Auto,
            config::quick::Engine::Userspace => Wish::Userspace,
            config::quick::Engine::Ebpf => Wish::Ebpf,
            config::quick::Engine::Kernel => Wish::Kernel,
        }
    }
}

/// What moves the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// A daemon of ours.
    Userspace,
    /// Programs of ours in the kernel, and the daemon behind them.
    Ebpf,
    /// The kernel's module.
    Kernel,
}

impl Engine {
    /// What `wireloom run` is told for it.
    pub fn arguments(self) -> &'static [&'static str] {
        if self == Engine::Ebpf { &["--engine", "ebpf"] } else { &[] }
    }
}

/// An engine, and why it was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The engine.
    pub engine: Engine,
    because: &'static str,
}

impl Choice {
    /// Chooses, ours where nothing was wished; `kernel` says whether the kernel has a WireGuard, and is only asked where it matters.
    ///
    /// # Errors
    /// [`QuickError::NoKernelEngine`] where nothing else was wished.
    pub fn make(wish: Option<Wish>, kernel: impl Fn() -> bool) -> Result<Choice, QuickError> {
        let (engine, because) = match wish {
            None => (Engine::Userspace, "the default; --engine auto takes the kernel's where there is one"),
            Some(Wish::Userspace) => (Engine::Userspace, "engine userspace"),
            Some(Wish::Ebpf) => (Engine::Ebpf, "engine ebpf"),
            Some(Wish::Auto) if kernel() => (Engine::Kernel, "engine auto, and it is there"),
            Some(Wish::Auto) => (Engine::Userspace, "engine auto, and this kernel has none of its own"),
            Some(Wish::Kernel) if kernel() => (Engine::Kernel, "engine kernel"),
            Some(Wish::Kernel) => return Err(QuickError::NoKernelEngine),
        };
        Ok(Choice { engine, because })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = match self.engine {
            Engine::Userspace => "Wireloom's own WireGuard",
            Engine::Ebpf => "Wireloom's own WireGuard, with eBPF programs in front",
            Engine::Kernel => "the kernel's WireGuard",
        };
        write!(f, "{whose} ({})", self.because)
    }
}

/// Whether the kernel has a WireGuard, after loading its module if need be.
pub fn kernel_has_one() -> bool {
    linux::netlink::Connection::generic().and_then(|mut generic| generic.family("wireguard")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_is_taken_only_where_it_is_and_was_wished() {
        let choose = |wish, there| Choice::make(wish, || there).ok().map(|choice| choice.engine);
        assert_eq!(choose(Some(Wish::Auto), true), Some(Engine::Kernel));
        assert_eq!(choose(Some(Wish::Auto), false), Some(Engine::Userspace));
        assert_eq!(choose(Some(Wish::Kernel), true), Some(Engine::Kernel));
        assert_eq!(choose(Some(Wish::Kernel), false), None);
        for there in [true, false] {
            for wish in [None, Some(Wish::Userspace)] {
                assert_eq!(choose(wish, there), Some(Engine::Userspace));
            }
        }
    }
}
