//! Kernels that the machine does not run, looked at in guests: whether their WireGuard works, how it comes to be there, what it weighs, and what exchanging it costs.
//!
//! Guests are emulated. So a kernel stands here and not among the systems: nothing of it is a figure of speed, no verdict is drawn from it, and where
//! times are told they are the emulator's.

use serde::{Deserialize, Serialize};

/// What is known of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestKernel {
    /// What `uname -r` says in it.
    pub release: String,
    /// Where its WireGuard is: `kernel module` or `built into the kernel`.
    pub place: String,
    /// Bytes that went through a tunnel of two of its namespaces and came back right: none where it does not work.
    pub carried: u64,
    /// The module's file in bytes, unpacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<u64>,
    /// The memory that the module takes, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The same with all modules that it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_with_needed: Option<u64>,
    /// How many those are.
    #[serde(default)]
    pub needed: u32,
    /// Seconds that loading it took in the emulator, each time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<f64>,
    /// What building it in adds to a kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// Whether interfaces outlive its exchange in a running system; not known where it cannot be exchanged in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interfaces_survive: Option<bool>,
    /// Whether the processor that it ran on was emulated.
    pub emulated: bool,
    /// When it was looked at, in seconds since 1970.
    pub when: u64,
    /// Why nothing is known of it, if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Bytes by which a kernel with WireGuard built in is bigger than one of the same configuration without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    /// The compressed image.
    pub image: u64,
    /// Code and constants in memory.
    pub text: u64,
    /// Data with values.
    pub data: u64,
    /// Data that begins as zeros.
    pub bss: u64,
}

impl GuestKernel {
    /// What is wrong with it, if anything is.
    pub(crate) fn fault(&self) -> Option<String> {
        if let Some(seconds) = self.loads.iter().find(|seconds| !seconds.is_finite() || **seconds < 0.0) {
            return Some(format!("a load that took {seconds} s, which is no time"));
        }
        if self.failure.is_none() && self.carried == 0 {
            return Some("neither bytes that it carried nor a failure".to_owned());
        }
        None
    }

    /// The middle one of the times of loading, in seconds.
    pub fn load(&self) -> Option<f64> {
        let mut loads = self.loads.clone();
        loads.sort_by(f64::total_cmp);
        loads.get(loads.len() / 2).copied()
    }

    /// What a new version of it costs whoever uses it.
    pub fn update(&self) -> &'static str {
        match self.interfaces_survive {
            Some(true) => "the module is exchanged, and interfaces stay",
            Some(false) => "the module is exchanged, and all interfaces go with it",
            None => "a new kernel and a reboot",
        }
    }
}

impl Growth {
    /// In memory.
    pub fn memory(&self) -> u64 {
        self.text.saturating_add(self.data).saturating_add(self.bss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_all_loads_is_told() {
        let of = |loads: &[f64]| GuestKernel { loads: loads.to_vec(), ..GuestKernel::default() }.load();
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[0.3, 0.1, 0.2]), Some(0.2));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let works = GuestKernel { carried: 1, ..GuestKernel::default() };
        assert_eq!(works.fault(), None);
        assert!(GuestKernel::default().fault().unwrap().starts_with("neither bytes"));
        assert_eq!(GuestKernel { failure: Some("no".to_owned()), ..GuestKernel::default() }.fault(), None);
        for bad in [-1.0, f64::NAN] {
            assert!(GuestKernel { loads: vec![0.1, bad], ..works.clone() }.fault().unwrap().contains("no time"));
        }
    }
}
