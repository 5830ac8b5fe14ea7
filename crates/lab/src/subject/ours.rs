//! Ours, in each of the ways that it can move packets.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use blake2::{Blake2s256, Digest};

use super::{Meter, Missing, Place, Protocol, Subject, Versions, Works, missing, wireguard};
use crate::{Engine, LabError, System};

/// Who seals and opens packets, where that is not left to ours.
const AEAD: &str = "WIRELOOM_AEAD";

/// One way to run ours.
#[derive(Clone, Debug)]
pub struct Ours {
    slug: String,
    name: String,
    cipher: String,
    engine: Engine,
    backend: Option<aead::Backend>,
    arguments: &'static [&'static str],
}

impl Ours {
    /// All that this processor can do: as it comes; with packets handled only by the thread that they come to; with each AEAD that would not have been
    /// chosen anyway; and with programs in the kernel.
    pub fn all() -> Vec<Ours> {
        let best = aead::Backend::best();
        let way = |suffix: &str, name: &str| Ours {
            slug: format!("wireloom{suffix}"),
            name: format!("wireloom{name}"),
            cipher: cipher(best),
            engine: Engine::Userspace,
            backend: None,
            arguments: &[],
        };
        let mut all = vec![
            way("", ""),
            Ours { arguments: &["--helping", "never"], ..way("-inline", ", inline only") },
            Ours {
                engine: Engine::Ebpf,
                cipher: "ChaCha20-Poly1305 of the kernel and of ours".into(),
                ..way("-ebpf", ", eBPF")
            },
        ];
        for backend in aead::Backend::all_available().filter(|backend| *backend != best) {
            all.push(Ours {
                cipher: cipher(backend),
                backend: Some(backend),
                ..way(&format!("-{}", backend.name()), &format!(", {}", backend.name()))
            });
        }
        all
    }

    fn system(&self) -> Result<System, LabError> {
        Ok(System::wireloom()?.with(self.engine))
    }
}

/// What tells a build from any other: the beginning of a hash of the program's file. It is read once.
fn build_of(program: &Path) -> Result<String, LabError> {
    static KNOWN: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(build) = known.get(program) {
        return Ok(build.clone());
    }
    let build = hash(program).map_err(LabError::io(program.display().to_string()))?;
    known.insert(program.to_owned(), build.clone());
    Ok(build)
}

fn hash(path: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut chunk) = (File::open(path)?, Blake2s256::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            n => hash.update(&chunk[..n]),
        }
    }
    Ok(hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}

fn cipher(backend: aead::Backend) -> String {
    format!("ChaCha20-Poly1305, {}", backend.name())
}

impl Subject for Ours {
    fn slug(&self) -> &str {
        &self.slug
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn is_variant(&self) -> bool {
        self.backend.is_some() || !self.arguments.is_empty()
    }

    fn protocol(&self) -> Protocol {
        Protocol::WireGuard
    }

    fn place(&self) -> Place {
        match self.engine {
            Engine::Userspace => Place::Userspace,
            Engine::Ebpf => Place::Ebpf,
        }
    }

    fn cipher(&self) -> &str {
        &self.cipher
    }

    fn available(&self) -> Result<Versions, Missing> {
        let version = || -> Result<String, LabError> {
            let system = self.system()?;
            // While it is worked on, its version tells nothing of it.
            Ok(format!("{}, build {}", system.version()?, build_of(&system.program()?)?))
        };
        Ok(Versions::of("wireloom", version().map_err(|error| missing(error, "cargo build --release -p wireloom"))?))
    }

    fn build(&self, works: &mut Works) -> Result<Box<dyn Meter>, LabError> {
        let system = self.system()?;
        let adjust = |command: &mut Command| {
            command.args(self.arguments);
            match self.backend {
                Some(backend) => command.env(AEAD, backend.name()),
                // Whatever this process has been started with.
                None => command.env_remove(AEAD),
            };
        };
        wireguard::build(works, |works, side| works.daemon(side, &system, adjust))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_build_has_a_name_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            build_of(&path).unwrap()
        };
        let (one, other, same) = (at("one", "a program"), at("other", "a program."), at("same", "a program"));
        assert_eq!((one.len(), &one), (12, &same));
        assert_ne!(one, other);
        assert!(build_of(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
