//! What in ours moves the packets.

/// An engine of ours. Whatever the engine, the same daemon does all that is not moving packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// The daemon's own threads.
    #[default]
    Userspace,
    /// Programs in the kernel, and the daemon's threads for what those leave to them.
    Ebpf,
}

impl Engine {
    /// Its name, as `--engine` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Userspace => "userspace",
            Engine::Ebpf => "ebpf",
        }
    }

    /// What `wireloom run` and `wireloom up` are told for it: nothing, where it is what they take by themselves.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Engine::Userspace => &[],
            Engine::Ebpf => &["--engine", "ebpf"],
        }
    }
}
