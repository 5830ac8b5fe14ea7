//! OpenVPN, of which one process on each gateway makes one tunnel: certificates, the two of which know each other by their fingerprints, and a file each.
//!
//! In userspace it comes with either cipher that it has for itself. With its module (DCO) the kernel moves the packets, and the process only shakes hands.

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
            OpenVpn::Dco => super::place_of("ovpn_dco_v2").unwrap_or(Place::Module),
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
            let attempt = || Namespace::new()?.ip(&["link", "add", "dco", "type", "ovpn-dco"]).map(drop);
            attempt().map_err(|error| match error {
                LabError::NotRoot => missing(error, "sudo"),
                _ => Missing {
                    what: "this kernel has no module ovpn-dco-v2".to_owned(),
                    install: "apt-get install openvpn-dco-dkms, with the headers of a kernel that takes modules"
                        .to_owned(),
                },
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
                if !text.contains("ovpn-dco") {
                    return Err(LabError::Unreadable { what: "an interface of the module", text });
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
