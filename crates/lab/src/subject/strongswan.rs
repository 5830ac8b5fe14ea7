//! strongSwan: on each gateway one `charon` with IKEv2 and a preshared key, and for each tunnel a pair of ESP security associations.
//!
//! The packets are moved by the kernel (XFRM), where it has ESP, or by charon itself (libipsec, ESP in UDP through a TUN). Charon is started with its own
//! `strongswan.conf`, socket and `/run`, so that it meets neither another nor one that this machine may run as a service. The TUN of libipsec takes packets
//! of 1400 bytes at most, whatever one would like: charon gives it that MTU (`kernel_libipsec_plugin.c`, without an option for it), remembers it, and reads
//! into a buffer of so many bytes (`tun_device.c`), so that what is longer is cut off even where somebody has raised the interface's MTU since.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Meter, Missing, Place, Protocol, Subject, Versions, Works, find, missing, place_of};
use crate::topology::{Side, Topology};
use crate::{LabError, Namespace, run, run_checked, wait_for};

/// Where Debian keeps what charon loads.
const PLUGINS: &str = "/usr/lib/ipsec/plugins";

/// What installs all of it.
const INSTALL: &str = "apt-get install --no-install-recommends charon-systemd strongswan-swanctl libcharon-extra-plugins libstrongswan-standard-plugins openssl";

/// The interface that libipsec makes, and the most that it takes, in bytes.
const INTERFACE: &str = "ipsec0";
const MTU_MAX: u32 = 1400;

/// How long charon may take until it can be configured.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-256-GCM with 16 bytes of tag.
    Aes,
    /// ChaCha20-Poly1305.
    ChaCha,
}

/// Who moves the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Esp {
    /// The kernel.
    Kernel,
    /// Charon.
    Library,
}

/// strongSwan in one of its ways.
#[derive(Clone, Copy, Debug)]
pub struct StrongSwan {
    /// Who moves the packets.
    pub esp: Esp,
    /// What seals them.
    pub cipher: Cipher,
}

impl StrongSwan {
    /// All of them.
    pub fn all() -> Vec<StrongSwan> {
        let of = |esp| [Cipher::Aes, Cipher::ChaCha].map(|cipher| StrongSwan { esp, cipher });
        [of(Esp::Kernel), of(Esp::Library)].concat()
    }

    fn proposal(self) -> &'static str {
        match self.cipher {
            Cipher::Aes => "aes256gcm16",
            Cipher::ChaCha => "chacha20poly1305",
        }
    }

    /// What tells charon to be nobody's but ours.
    fn settings(self, folder: &Path, side: Side) -> String {
        let (library, also) = match self.esp {
            Esp::Kernel => ("", ""),
            // What is not to go through the tunnel, charon marks.
            Esp::Library => (
                "kernel-libipsec ",
                "    kernel-libipsec { allow_peer_ts = yes }\n    kernel-netlink { fwmark = !0x42 }\n    socket-default { fwmark = 0x42 }\n",
            ),
        };
        format!(
            "charon-systemd {{\n  load = random nonce openssl kdf {library}kernel-netlink socket-default vici\n  \
             journal {{\n    default = -1\n  }}\n  filelog {{\n    stderr {{\n      default = 1\n    }}\n  }}\n  plugins {{\n    vici {{\n      \
             socket = {}\n    }}\n{also}  }}\n}}\n",
            uri(folder, side)
        )
    }

    /// What a person writes: `swanctl.conf`.
    fn configuration(self, topology: &Topology, side: Side) -> String {
        let far = side.other();
        let mut text = format!(
            "connections {{\n  gateway {{\n    version = 2\n    local_addrs = {}\n    remote_addrs = {}\n    \
             proposals = aes256gcm16-prfsha256-x25519\n    local {{\n      auth = psk\n      id = {}\n    }}\n    remote {{\n      \
             auth = psk\n      id = {}\n    }}\n    children {{\n",
            topology.port(side).v4,
            topology.port(far).v4,
            side.name(),
            far.name(),
        );
        let start = if side == Side::Left { "        start_action = start\n" } else { "" };
        for way in &topology.ways {
            text += &format!(
                "      {} {{\n        local_ts = {}\n        remote_ts = {}\n        esp_proposals = {}\n{start}      }}\n",
                child(way.number),
                way.prefix(side),
                way.prefix(far),
                self.proposal(),
            );
        }
        text += "    }\n  }\n}\nsecrets {\n  ike-gateways {\n    id-1 = left\n    id-2 = right\n    ";
        text
    }

    /// Asks the kernel to take a security association of this kind.
    fn ask_kernel(self) -> Result<(), LabError> {
        let (algorithm, key) = match self.cipher {
            Cipher::Aes => ("rfc4106(gcm(aes))", "00".repeat(36)),
            Cipher::ChaCha => ("rfc7539esp(chacha20,poly1305)", "00".repeat(36)),
        };
        let namespace = Namespace::new()?;
        let ends = ["xfrm", "state", "add", "src", "10.77.0.1", "dst", "10.77.0.2", "proto", "esp", "spi", "1"];
        let rest = ["mode", "tunnel", "aead", algorithm, &format!("0x{key}"), "128"];
        namespace.ip(&[&ends[..], &rest[..]].concat()).map(drop)
    }
}

/// The name of a tunnel's pair of associations.
fn child(number: u32) -> String {
    format!("t{number}")
}

fn socket(folder: &Path, side: Side) -> PathBuf {
    folder.join(format!("{}.vici", side.name()))
}

/// The socket as strongSwan writes it.
fn uri(folder: &Path, side: Side) -> String {
    format!("unix://{}", socket(folder, side).display())
}

impl Subject for StrongSwan {
    fn slug(&self) -> &str {
        match (self.esp, self.cipher) {
            (Esp::Kernel, Cipher::Aes) => "strongswan-aes",
            (Esp::Kernel, Cipher::ChaCha) => "strongswan-chacha",
            (Esp::Library, Cipher::Aes) => "strongswan-libipsec-aes",
            (Esp::Library, Cipher::ChaCha) => "strongswan-libipsec-chacha",
        }
    }

    fn name(&self) -> &str {
        match (self.esp, self.cipher) {
            (Esp::Kernel, Cipher::Aes) => "strongSwan, AES-GCM",
            (Esp::Kernel, Cipher::ChaCha) => "strongSwan, ChaCha20",
            (Esp::Library, Cipher::Aes) => "strongSwan libipsec, AES-GCM",
            (Esp::Library, Cipher::ChaCha) => "strongSwan libipsec, ChaCha20",
        }
    }

    fn protocol(&self) -> Protocol {
        Protocol::Ipsec
    }

    fn place(&self) -> Place {
        match self.esp {
            Esp::Kernel => place_of("esp4").unwrap_or(Place::Module),
            Esp::Library => Place::Userspace,
        }
    }

    fn cipher(&self) -> &str {
        match (self.esp, self.cipher) {
            (Esp::Kernel, Cipher::Aes) => "AES-256-GCM of the kernel",
            (Esp::Kernel, Cipher::ChaCha) => "ChaCha20-Poly1305 of the kernel",
            (Esp::Library, Cipher::Aes) => "AES-256-GCM of OpenSSL",
            (Esp::Library, Cipher::ChaCha) => "ChaCha20-Poly1305 of OpenSSL",
        }
    }

    fn available(&self) -> Result<Versions, Missing> {
        let absent = |error| missing(error, INSTALL);
        find("charon-systemd").map_err(absent)?;
        let swanctl = find("swanctl").map_err(absent)?;
        // It makes the secret.
        find("openssl").map_err(absent)?;
        for plugin in ["kernel-libipsec", "kernel-netlink", "openssl", "vici"] {
            let path = Path::new(PLUGINS).join(format!("libstrongswan-{plugin}.so"));
            if !path.exists() {
                return Err(Missing {
                    what: format!("{} is not installed", path.display()),
                    install: INSTALL.to_owned(),
                });
            }
        }
        if self.esp == Esp::Kernel {
            self.ask_kernel().map_err(|error| match error {
                LabError::NotRoot => missing(error, "sudo"),
                _ => Missing {
                    what: format!("this kernel has no ESP with {} (XFRM)", self.cipher()),
                    install: "apt-get install linux-image-amd64, then reboot; libipsec does without".to_owned(),
                },
            })?;
        }
        // The daemon takes no such question: it would start.
        let said = run(Command::new(swanctl).arg("--help"), LIMIT).map_err(absent)?.log();
        let version = said.lines().find(|line| line.starts_with("strongSwan")).unwrap_or_default();
        Ok(Versions::of("strongswan", version.trim_end_matches(" swanctl")))
    }

    fn build(&self, works: &mut Works) -> Result<Box<dyn Meter>, LabError> {
        let folder = works.folder().to_owned();
        let secret = works.command(Side::Left, "openssl", &["rand", "-base64", "32"])?;
        let mut files = Vec::new();
        for side in [Side::Right, Side::Left] {
            works.lab_file(&settings_name(side), &self.settings(&folder, side))?;
            let text =
                self.configuration(works.topology(), side) + &format!("secret = \"{}\"\n  }}\n}}\n", secret.trim());
            files.push((side, works.file(&format!("{}.swanctl.conf", side.name()), &text)?));
            for way in works.topology().ways.clone() {
                works.ip(side, &["addr", "add", &format!("{}/32", way.gateway(side)), "dev", "lo"])?;
            }
        }
        works.go();
        for (side, _) in &files {
            let mut command = works.gateway(*side).command("sh");
            command.args(["-c", "mount -t tmpfs tmpfs /run && exec charon-systemd"]);
            command.env("STRONGSWAN_CONF", folder.join(settings_name(*side)));
            let process = works.start(&mut command)?;
            wait_for("charon to listen on its socket", START_LIMIT, || match process.status() {
                Some(status) => Err(process.died(status)),
                None => Ok(UnixStream::connect(socket(&folder, *side)).ok()),
            })?;
        }
        if self.esp == Esp::Library {
            let mtu = works.topology().spec.mtu.min(MTU_MAX);
            for side in Side::BOTH {
                works.ip(side, &["link", "set", "dev", INTERFACE, "mtu", &mtu.to_string()])?;
            }
            works.mtu_is(mtu);
        }
        for (side, file) in &files {
            works.typed()?;
            let mut command = swanctl(&folder, *side, "--load-all");
            run_checked(command.arg("--file").arg(file), LIMIT)?;
        }
        Ok(Box::new(Associations { folder }))
    }
}

fn settings_name(side: Side) -> String {
    format!("{}.strongswan.conf", side.name())
}

/// `swanctl` for the charon of one gateway.
fn swanctl(folder: &Path, side: Side, what: &str) -> Command {
    let mut command = Command::new("swanctl");
    command.args([what, "--uri", &uri(folder, side)]);
    command.env("STRONGSWAN_CONF", folder.join(settings_name(side)));
    command
}

/// By charon's own account.
struct Associations {
    folder: PathBuf,
}

impl Meter for Associations {
    fn carried(&self, _topology: &Topology, number: u32) -> Result<u64, LabError> {
        let text = run_checked(swanctl(&self.folder, Side::Right, "--list-sas").arg("--raw"), LIMIT)?;
        bytes_in(&text, &child(number)).ok_or(LabError::Unreadable { what: "security associations", text })
    }
}

/// What has come in by all associations of a name: while keys are changed, there are two.
fn bytes_in(raw: &str, name: &str) -> Option<u64> {
    let wanted = format!("name={name} ");
    let found: Option<Vec<u64>> = raw
        .split('{')
        .filter(|child| child.starts_with(&wanted))
        .map(|child| child.split_once("bytes-in=")?.1.split(' ').next()?.parse().ok())
        .collect();
    found.filter(|all| !all.is_empty()).map(|all| all.into_iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_associations_have_carried() {
        let raw = "list-sa event {gw {uniqueid=1 child-sas {t1-4 {name=t1 uniqueid=4 bytes-in=252 packets-in=3 bytes-out=9} \
                   t10-5 {name=t10 uniqueid=5 bytes-in=7 packets-in=3} t1-6 {name=t1 bytes-in=10 packets-in=1}}}}\nlist-sas reply {}";
        assert_eq!(bytes_in(raw, "t1"), Some(262));
        assert_eq!(bytes_in(raw, "t10"), Some(7));
        assert_eq!(bytes_in(raw, "t2"), None);
    }
}
