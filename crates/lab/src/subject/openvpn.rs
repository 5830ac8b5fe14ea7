//! OpenVPN, of which one process on each gateway makes one tunnel: certificates, the two of which know each other by their fingerprints, and a file each.
//!
//! In userspace it comes with either cipher that it has for itself. With a module (DCO) the kernel moves the packets, and the process only shakes hands. There are two such modules: `ovpn`, which
//! is Linux's own from 6.16 on and which OpenVPN knows from 2.7 on, and `ovpn-dco-v2`, which is compiled on its own (DKMS) and which OpenVPN 2.6 knows.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{Meter, Missing, Place, Protocol, Subject, Versions, Works, find, missing};
use crate::topology::{Side, Topology, Way};
use crate::{Counters, LabError, Namespace, Process, run, wait_for};

/// The UDP port of tunnel 1; each has one of its own.
const FIRST_PORT: u32 = 1194;

/// How long a process may take to make its interface.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A module that moves OpenVPN's packets: the kind of its interfaces, and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Module {
    kind: &'static str,
    name: &'static str,
}

/// Linux's own, from 6.16 on.
const OWN: Module = Module { kind: "ovpn", name: "ovpn" };
/// The one that OpenVPN's authors had before.
const DKMS: Module = Module { kind: "ovpn-dco", name: "ovpn_dco_v2" };

/// The module that a version of OpenVPN asks for: `OpenVPN 2.6.14 x86_64-…`.
fn module_of(version: &str) -> Module {
    if numbers(version.trim_start_matches("OpenVPN ")) >= (2, 7) { OWN } else { DKMS }
}

/// The first two numbers of a version; 0 for what is none.
fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// What is missing where a kernel has no interface of a module, and what helps there: the older module cannot be compiled for kernels that have
/// their own.
fn no_module(module: Module, release: &str) -> Missing {
    let own = numbers(release) >= (6, 16);
    let (what, install) = match (module == OWN, own) {
        (true, true) => ("has no module ovpn", "a kernel with CONFIG_OVPN, which Debian's have"),
        (true, false) => ("has no module ovpn", "Linux 6.16 or newer, with CONFIG_OVPN"),
        (false, true) => (
            "has no module ovpn-dco-v2, which OpenVPN 2.6 asks for",
            "OpenVPN 2.7 or newer, and a kernel with CONFIG_OVPN",
        ),
        (false, false) => (
            "has no module ovpn-dco-v2",
            "apt-get install openvpn-dco-dkms linux-headers-$(uname -r), where the kernel takes modules",
        ),
    };
    Missing { what: format!("Linux {release} {what}"), install: install.to_owned() }
}

/// Whether an interface is of a kind, by what `ip -d link show` says: the kind is a word of its own, and the interface's name none.
fn is_of_kind(said: &str, kind: &str) -> bool {
    said.split_whitespace().any(|word| word == kind)
}

/// OpenVPN in one of its ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenVpn {
    /// Its process, with AES-256-GCM.
    Aes,
    /// Its process, with ChaCha20-Poly1305.
    ChaCha,
    /// Its module, with AES-256-GCM.
    Dco,
}

impl OpenVpn {
    /// All of them.
    pub const ALL: [OpenVpn; 3] = [OpenVpn::Aes, OpenVpn::ChaCha, OpenVpn::Dco];

    fn data_cipher(self) -> &'static str {
        match self {
            OpenVpn::ChaCha => "CHACHA20-POLY1305",
            OpenVpn::Aes | OpenVpn::Dco => "AES-256-GCM",
        }
    }

    fn file(self, works: &Works, way: &Way, side: Side, fingerprint: &str) -> String {
        let (name, far) = (side.name(), side.other());
        let topology = works.topology();
        let folder = works.folder().display();
        let role = match side {
            Side::Left => "tls-client",
            Side::Right => "tls-server\ndh none",
        };
        let route = match way.end(far) == way.gateway(far) {
            true => String::new(),
            false => format!("route {} 255.255.255.0\n", way.network(far).0),
        };
        let offload = if self == OpenVpn::Dco { "" } else { "disable-dco\n" };
        format!(
            "dev {}\ndev-type tun\nproto udp4\nlocal {}\nremote {}\nport {}\nifconfig {} {}\n{route}{role}\n\
             key {folder}/{name}.key\ncert {folder}/{name}.crt\npeer-fingerprint {fingerprint}\ndata-ciphers {}\ntun-mtu {}\n{offload}",
            interface(way),
            topology.port(side).v4,
            topology.port(far).v4,
            FIRST_PORT + way.number - 1,
            way.gateway(side),
            way.gateway(far),
            self.data_cipher(),
            topology.spec.mtu,
        )
    }
}

/// The interface of a tunnel, on both gateways.
fn interface(way: &Way) -> String {
    format!("ovpn{}", way.number)
}

impl Subject for OpenVpn {
    fn slug(&self) -> &str {
        match self {
            OpenVpn::Aes => "openvpn-aes",
            OpenVpn::ChaCha => "openvpn-chacha",
            OpenVpn::Dco => "openvpn-dco",
        }
    }

    fn name(&self) -> &str {
        match self {
            OpenVpn::Aes => "OpenVPN, AES-GCM",
            OpenVpn::ChaCha => "OpenVPN, ChaCha20",
            OpenVpn::Dco => "OpenVPN, DCO",
        }
    }

    fn protocol(&self) -> Protocol {
        Protocol::OpenVpn
    }

    fn place(&self) -> Place {
        match self {
            OpenVpn::Dco => [OWN, DKMS].iter().find_map(|it| super::place_of(it.name)).unwrap_or(Place::Module),
            _ => Place::Userspace,
        }
    }

    fn cipher(&self) -> &str {
        match self {
            OpenVpn::Aes => "AES-256-GCM of OpenSSL",
            OpenVpn::ChaCha => "ChaCha20-Poly1305 of OpenSSL",
            OpenVpn::Dco => "AES-256-GCM of the kernel",
        }
    }

    fn available(&self) -> Result<Versions, Missing> {
        let absent = |error| missing(error, "apt-get install --no-install-recommends openvpn openssl");
        let openvpn = find("openvpn").map_err(absent)?;
        let openssl = find("openssl").map_err(absent)?;
        let first = |command: &mut Command| -> Result<String, Missing> {
            Ok(run(command, LIMIT).map_err(absent)?.log().lines().next().unwrap_or_default().to_owned())
        };
        let mut versions = Versions::of("openvpn", first(Command::new(openvpn).arg("--version"))?);
        versions.0.push(("openssl".to_owned(), first(Command::new(openssl).arg("version"))?));
        if *self == OpenVpn::Dco {
            let module = module_of(&versions.0[0].1);
            let attempt = || Namespace::new()?.ip(&["link", "add", "dco", "type", module.kind]).map(drop);
            attempt().map_err(|error| match error {
                LabError::NotRoot => missing(error, "sudo"),
                _ => {
                    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
                    no_module(module, release.trim())
                }
            })?;
        }
        Ok(versions)
    }

    fn build(&self, works: &mut Works) -> Result<Box<dyn Meter>, LabError> {
        let mut fingerprints = Vec::new();
        for side in Side::BOTH {
            let path = |kind: &str| works.folder().join(format!("{}.{kind}", side.name())).display().to_string();
            let (key, certificate) = (path("key"), path("crt"));
            let subject = format!("/CN={}", side.name());
            let make =
                ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"];
            let make: Vec<&str> =
                make.into_iter().chain(["-subj", &subject, "-keyout", &key, "-out", &certificate]).collect();
            works.command(side, "openssl", &make)?;
            let said =
                works.command(side, "openssl", &["x509", "-in", &certificate, "-noout", "-sha256", "-fingerprint"])?;
            let (_, fingerprint) = said
                .trim()
                .split_once('=')
                .ok_or_else(|| LabError::Unreadable { what: "a fingerprint", text: said.clone() })?;
            fingerprints.push(fingerprint.to_owned());
        }
        let ways = works.topology().ways.clone();
        // The right ones first: they wait, and the left ones begin.
        let mut commands = Vec::new();
        for (side, fingerprint) in [(Side::Right, &fingerprints[0]), (Side::Left, &fingerprints[1])] {
            for way in &ways {
                let text = self.file(works, way, side, fingerprint);
                let file = works.file(&format!("{}-{}.ovpn", side.name(), way.number), &text)?;
                let mut command = works.gateway(side).command("openvpn");
                command.arg("--config").arg(file);
                commands.push((side, *way, command));
            }
        }
        works.go();
        for (side, way, mut command) in commands {
            let namespace = works.gateway(side);
            let process = works.start(&mut command)?;
            wait_for_interface(process, &namespace, &interface(&way))?;
            if *self == OpenVpn::Dco {
                let text = namespace.ip(&["-d", "link", "show", "dev", &interface(&way)])?;
                if ![OWN, DKMS].iter().any(|module| is_of_kind(&text, module.kind)) {
                    let expected = "a module of OpenVPN (DCO)";
                    return Err(LabError::NotOffloaded { interface: interface(&way), expected, text });
                }
            }
        }
        Ok(Box::new(Tunnels))
    }
}

/// Waits until a process has made its interface and brought it up.
fn wait_for_interface(process: &mut Process, namespace: &Namespace, interface: &str) -> Result<(), LabError> {
    wait_for(&format!("`{}` to make {interface}", process.name()), START_LIMIT, || {
        if let Some(status) = process.status() {
            return Err(process.died(status));
        }
        let addresses = namespace.ip(&["-o", "addr", "show", "dev", interface, "up"]).unwrap_or_default();
        Ok(addresses.contains("inet ").then_some(()))
    })
}

/// By their interfaces.
struct Tunnels;

impl Meter for Tunnels {
    fn carried(&self, topology: &Topology, number: u32) -> Result<u64, LabError> {
        let way = topology.ways[number as usize - 1];
        Ok(Counters::of(topology.gateway(Side::Right), &interface(&way))?.received_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_asks_for_its_own_module() {
        assert_eq!(module_of("OpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)] [DCO]"), DKMS);
        assert_eq!(module_of("OpenVPN 2.7_beta1 x86_64-pc-linux-gnu"), OWN);
        assert_eq!(module_of("OpenVPN 3.0"), OWN);
        assert_eq!(module_of(""), DKMS);
    }

    #[test]
    fn advice_is_what_can_work_on_this_kernel() {
        for (module, release, what, install) in [
            (DKMS, "6.12.30+deb13-amd64", "ovpn-dco-v2", "apt-get install openvpn-dco-dkms"),
            (DKMS, "6.18.5", "ovpn-dco-v2, which OpenVPN 2.6 asks for", "OpenVPN 2.7"),
            (OWN, "6.16.0-rc1", "ovpn", "CONFIG_OVPN"),
            (OWN, "6.12.0", "ovpn", "Linux 6.16"),
        ] {
            let missing = no_module(module, release);
            assert!(missing.what.ends_with(&format!("Linux {release} has no module {what}")), "{missing}");
            assert!(
                missing.install.contains(install) && (install.contains("dkms") || !missing.install.contains("dkms")),
                "{missing}"
            );
        }
    }

    #[test]
    fn the_kind_of_an_interface_is_a_word() {
        let of = |kind: &str| {
            format!(
                "3: ovpn1: <POINTOPOINT,UP> mtu 1420 qdisc noqueue\n    link/none promiscuity 0\n    {kind} addrgenmode random\n"
            )
        };
        assert!(is_of_kind(&of("ovpn"), "ovpn") && is_of_kind(&of("ovpn-dco"), "ovpn-dco"));
        assert!(!is_of_kind(&of("tun type tun"), "ovpn") && !is_of_kind(&of("ovpn-dco"), "ovpn"));
    }
}
