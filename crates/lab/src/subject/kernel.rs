//! The kernel's own WireGuard, be it a module or a part of its image.
//!
//! Which of the two it is, the kernel tells: a module has a folder in `/sys/module` whose `initstate` says that it was loaded; what is built in has
//! none, or a folder without; and `modules.builtin` lists it. Whether there is one at all shows when an interface is asked for, which loads a module that is there.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Meter, Missing, Place, Protocol, Subject, Versions, Works, missing, wireguard};
use crate::{LabError, Namespace, run, unique_interface};

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// WireGuard of the kernel that runs here.
#[derive(Clone, Copy, Debug)]
pub struct KernelWireGuard;

/// Whether a part of the kernel of this name is a module or built in, if it is there and loaded at all.
pub fn place_of(module: &str) -> Option<Place> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let folder = Path::new("/lib/modules").join(release.trim());
    let built_in = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    place_by(&Path::new("/sys/module").join(module), module, &built_in)
}

/// The same by the module's folder in `/sys` and the list of what is built in.
fn place_by(folder: &Path, module: &str, built_in: &str) -> Option<Place> {
    if folder.join("initstate").exists() {
        return Some(Place::Module);
    }
    let names = built_in.lines().filter_map(|line| line.rsplit('/').next()?.split('.').next());
    if folder.is_dir() || names.into_iter().any(|name| name.replace('-', "_") == module) {
        return Some(Place::BuiltIn);
    }
    None
}

impl KernelWireGuard {
    /// Asks for an interface and takes it away again.
    fn attempt() -> Result<(), LabError> {
        let namespace = Namespace::new()?;
        let name = unique_interface();
        namespace.ip(&["link", "add", &name, "type", "wireguard"]).map(drop)
    }
}

impl Subject for KernelWireGuard {
    fn slug(&self) -> &str {
        "kernel"
    }

    fn name(&self) -> &str {
        match self.place() {
            Place::BuiltIn => "kernel WireGuard, built in",
            _ => "kernel WireGuard, module",
        }
    }

    fn protocol(&self) -> Protocol {
        Protocol::WireGuard
    }

    fn place(&self) -> Place {
        // One that answers without any trace of a module has to be a part of the image.
        place_of("wireguard").unwrap_or(Place::Module)
    }

    fn cipher(&self) -> &str {
        "ChaCha20-Poly1305 of the kernel"
    }

    fn available(&self) -> Result<Versions, Missing> {
        let release = run(Command::new("uname").arg("-r"), LIMIT).and_then(crate::Finished::checked);
        let release = release.map_err(|error| missing(error, "apt-get install coreutils"))?.stdout.trim().to_owned();
        KernelWireGuard::attempt().map_err(|error| match error {
            LabError::NotRoot => missing(error, "sudo"),
            _ => Missing {
                what: format!("Linux {release} has no WireGuard, neither as a module nor built in"),
                install: "apt-get install linux-image-amd64, then reboot; or see it in a guest".to_owned(),
            },
        })?;
        Ok(Versions::of("Linux", format!("{release}, {}", self.place().name())))
    }

    fn build(&self, works: &mut Works) -> Result<Box<dyn Meter>, LabError> {
        wireguard::build(works, |works, side| {
            let name = unique_interface();
            works.ip(side, &["link", "add", &name, "type", "wireguard"])?;
            Ok(name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_module_from_what_is_built_in() {
        let sys = tempfile::tempdir().unwrap();
        let module = sys.path().join("wireguard");
        let list = "kernel/lib/crypto/libchacha.ko\nkernel/drivers/net/wireguard/wireguard.ko\n";
        assert_eq!(place_by(&module, "wireguard", ""), None);
        assert_eq!(place_by(&module, "wireguard", list), Some(Place::BuiltIn));
        assert_eq!(place_by(&module, "chacha", list), None, "part of a name");
        fs::create_dir(&module).unwrap();
        assert_eq!(place_by(&module, "wireguard", ""), Some(Place::BuiltIn));
        fs::write(module.join("initstate"), "live\n").unwrap();
        assert_eq!(place_by(&module, "wireguard", ""), Some(Place::Module));
        let dashed = "kernel/arch/x86/crypto/curve25519-x86_64.ko\n";
        assert_eq!(place_by(&sys.path().join("no"), "curve25519_x86_64", dashed), Some(Place::BuiltIn));
    }
}
