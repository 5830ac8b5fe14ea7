//! What no stopwatch measures: what is trusted, how it is updated, where it runs, what was found in it, what is proved of it.
//!
//! Each row names its source, and nothing stands here without one. The tables were collected on [`COLLECTED`] and do not claim to
//! be complete; of weaknesses above all: the number that was found says how hard people looked, too, and is no measure of safety.

/// When the tables were collected.
pub const COLLECTED: &str = "22 November 2026";

/// A way to carry packets, by what does not depend on the machine.
#[derive(Debug)]
pub struct Way {
    /// Its name.
    pub name: &'static str,
    /// What language the parts that meet packets are in, and what that rules out.
    pub memory: &'static str,
    /// What a new version takes.
    pub update: &'static str,
    /// Where it runs.
    pub platforms: &'static str,
    /// Where these are from.
    pub source: &'static str,
}

/// The ways.
pub const WAYS: [Way; 9] = [
    Way {
        name: "Wireloom, userspace",
        memory: "Rust; unsafe code in few crates, each block with its reason; outside the kernel, so a fault ends one process",
        update: "The package, then the unit's restart; sessions are made anew in one round trip, no reboot",
        platforms: "Linux with TUN",
        source: "this project: docs/service.md, the lints in each crate",
    },
    Way {
        name: "Wireloom, eBPF",
        memory: "C for BPF, which the kernel's verifier checks for every access before it runs; Rust beside it",
        update: "The package, then the unit's restart; no reboot, no module",
        platforms: "Kernels that `wireloom doctor` approves; table in docs/ebpf.md",
        source: "this project: docs/ebpf.md; Linux: Documentation/bpf/verifier.rst",
    },
    Way {
        name: "Linux WireGuard, module",
        memory: "C in the kernel, where a fault is the whole system's",
        update: "The kernel's package and a reboot, or the module unloaded, which ends all tunnels",
        platforms: "Linux 5.6 and later; a backport for 3.10 to 5.5",
        source: "kernelnewbies.org/Linux_5.6; git.zx2c4.com/wireguard-linux-compat",
    },
    Way {
        name: "Linux WireGuard, built in",
        memory: "As the module",
        update: "The kernel's package and a reboot, always",
        platforms: "Kernels configured with CONFIG_WIREGUARD=y, 5.6 and later",
        source: "Linux: drivers/net/Kconfig",
    },
    Way {
        name: "wireguard-go",
        memory: "Go: checked accesses and a garbage collector; ciphers in assembly",
        update: "The program's restart, which ends its tunnels; no reboot",
        platforms: "Linux, macOS, Windows, FreeBSD, OpenBSD",
        source: "git.zx2c4.com/wireguard-go, README",
    },
    Way {
        name: "boringtun",
        memory: "Rust; ciphers by ring, which has C and assembly",
        update: "The program's restart, which ends its tunnels; no reboot",
        platforms: "Linux, macOS; libraries for iOS and Android",
        source: "github.com/cloudflare/boringtun, README",
    },
    Way {
        name: "OpenVPN, userspace",
        memory: "C, with OpenSSL or mbed TLS in C and assembly",
        update: "The program's restart, which ends its tunnels; no reboot",
        platforms: "Linux, the BSDs, macOS, Windows, Android, iOS",
        source: "github.com/OpenVPN/openvpn, README",
    },
    Way {
        name: "OpenVPN, data channel in the kernel",
        memory: "C in the kernel and outside",
        update: "As OpenVPN, and as a module for the kernel's part",
        platforms: "Linux 6.16 and later with OpenVPN 2.7; backports for older kernels; Windows, FreeBSD",
        source: "github.com/OpenVPN/openvpn, README.dco.md",
    },
    Way {
        name: "strongSwan with the kernel's XFRM",
        memory: "C in the kernel, and C in the daemon that negotiates",
        update: "The daemon's restart, after which it negotiates anew; the kernel's part with the kernel",
        platforms: "Linux; the daemon also on FreeBSD, macOS, Windows and Android",
        source: "docs.strongswan.org; Linux: net/xfrm",
    },
];

/// A weakness that was found and published.
#[derive(Debug)]
pub struct Weakness {
    /// Its number.
    pub id: &'static str,
    /// In what.
    pub system: &'static str,
    /// When it was published, year and month.
    pub published: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Where that stands.
    pub source: &'static str,
}

const fn found(
    id: &'static str,
    system: &'static str,
    published: &'static str,
    what: &'static str,
    source: &'static str,
) -> Weakness {
    Weakness { id, system, published, what, source }
}

const NVD: &str = "nvd.nist.gov";

/// Those that the tables have, by system and then by date.
pub const WEAKNESSES: [Weakness; 19] = [
    found(
        "CVE-2021-46873",
        "WireGuard, the protocol",
        "2023-01",
        "whoever can set a victim's clock ahead can keep it from connecting later",
        NVD,
    ),
    found("CVE-2024-26861", "Linux WireGuard", "2024-04", "data race on the receiving counter; 4.7", NVD),
    found("CVE-2024-26950", "Linux WireGuard", "2024-05", "null pointer while a device is read over netlink", NVD),
    found("CVE-2024-26951", "Linux WireGuard", "2024-05", "use of a peer that is being removed, over netlink", NVD),
    found("CVE-2024-42247", "Linux WireGuard", "2024-08", "unaligned accesses in allowed IPs", NVD),
    found(
        "CVE-2017-7478",
        "OpenVPN",
        "2017-05",
        "a payload that is too big ends the server; tls-auth and tls-crypt protect it",
        "vuxml.freebsd.org, the audit of OpenVPN 2.4.0 by QuarksLab",
    ),
    found(
        "CVE-2022-0547",
        "OpenVPN",
        "2022-03",
        "with several deferring plug-ins half a proof is enough; up to 2.5.5",
        "community.openvpn.net",
    ),
    found("CVE-2023-46849", "OpenVPN", "2023-11", "division by zero with fragmentation on; 2.6.0 to 2.6.6", NVD),
    found(
        "CVE-2023-46850",
        "OpenVPN",
        "2023-11",
        "use after free, memory may be sent to the peer; 2.6.0 to 2.6.6",
        NVD,
    ),
    found("CVE-2024-28882", "OpenVPN", "2024-07", "clients can keep a session that is to end; 2.6.0 to 2.6.10", NVD),
    found("CVE-2021-41991", "strongSwan", "2021-10", "integer overflow in the certificate cache; before 5.9.4", NVD),
    found(
        "CVE-2021-45079",
        "strongSwan",
        "2022-01",
        "a server's early success message skips a client's EAP; before 5.9.5",
        "strongswan.org/blog",
    ),
    found(
        "CVE-2023-41913",
        "strongSwan",
        "2023-12",
        "buffer overflow in charon-tkm; 5.3.0 to 5.9.11",
        "strongswan.org/blog",
    ),
    found(
        "CVE-2026-25075",
        "strongSwan",
        "2026-03",
        "integer underflow in EAP-TTLS ends the daemon, without authentication; 4.5.0 to 6.0.4",
        NVD,
    ),
    found(
        "CVE-2017-16939",
        "Linux XFRM",
        "2017-11",
        "use after free while policies are dumped, local privilege escalation",
        NVD,
    ),
    found("CVE-2022-27666", "Linux XFRM", "2022-03", "buffer overflow in ESP, local privilege escalation", NVD),
    found("CVE-2026-43091", "Linux XFRM", "2026-05", "use after free when a network namespace ends; 7.8", NVD),
    found("CVE-2026-46116", "Linux XFRM", "2026-05", "use after free when a state is deleted", NVD),
    found(
        "CVE-2021-3490",
        "Linux eBPF verifier",
        "2021-06",
        "wrong bounds of 32-bit operations; programs of others may write anywhere",
        NVD,
    ),
];

/// What is proved, and of what.
#[derive(Debug)]
pub struct Proof {
    /// Of which protocol.
    pub protocol: &'static str,
    /// What was done, by what.
    pub what: &'static str,
    /// Where it was published.
    pub source: &'static str,
}

/// Models that exist.
pub const PROOFS: [Proof; 7] = [
    Proof {
        protocol: "WireGuard",
        what: "symbolic, by Tamarin: agreement, secrecy, forward secrecy, identity hiding (Donenfeld, Milner)",
        source: "wireguard.com/formal-verification",
    },
    Proof {
        protocol: "WireGuard",
        what: "computational, by hand, of a variant in the eCK model (Dowling, Paterson)",
        source: "wireguard.com/formal-verification; ACNS 2018",
    },
    Proof {
        protocol: "WireGuard",
        what: "computational, by CryptoVerif, transport messages included (Lipp, Blanchet, Bhargavan)",
        source: "wireguard.com/formal-verification; EuroS&P 2019",
    },
    Proof {
        protocol: "WireGuard",
        what: "symbolic, by SAPIC+, ProVerif and Tamarin, cookies included (Lafourcade, Mahmoud, Ruhault)",
        source: "NDSS 2024",
    },
    Proof {
        protocol: "IKEv1, IKEv2",
        what: "symbolic, by Scyther: weaknesses of authentication in some modes (Cremers)",
        source: "ESORICS 2011",
    },
    Proof {
        protocol: "IKEv2",
        what: "symbolic, by Tamarin, with its post-quantum extension (Gazdag and others)",
        source: "ACSAC 2021",
    },
    Proof {
        protocol: "TLS 1.3, which OpenVPN can use",
        what: "symbolic, by Tamarin, of the handshake and not of OpenVPN around it (Cremers and others)",
        source: "CCS 2017",
    },
];

/// A cipher's part in constant time.
#[derive(Debug)]
pub struct Timing {
    /// Of what.
    pub of: &'static str,
    /// What speaks for it.
    pub evidence: &'static str,
    /// Where that stands.
    pub source: &'static str,
}

/// What speaks for constant time.
pub const TIMINGS: [Timing; 3] = [
    Timing {
        of: "ChaCha20-Poly1305, wherever it is used",
        evidence: "additions, rotations and exclusive ors alone: neither a table nor a branch depends on a secret",
        source: "RFC 8439, section 4",
    },
    Timing {
        of: "AES without instructions for it",
        evidence: "tables leak through the cache unless it is bitsliced",
        source: "D. Bernstein, Cache-timing attacks on AES, 2005",
    },
    Timing {
        of: "Curve25519 in Linux on 64-bit machines",
        evidence: "generated from a proof in F* (HACL*), secret independence included",
        source: "wireguard.com/formal-verification",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_has_its_source_and_its_date() {
        let ids: BTreeSet<_> = WEAKNESSES.iter().map(|it| it.id).collect();
        assert_eq!(ids.len(), WEAKNESSES.len());
        for it in &WEAKNESSES {
            let (year, number) = it.id.strip_prefix("CVE-").and_then(|id| id.split_once('-')).unwrap();
            assert!(number.len() >= 4 && number.bytes().all(|byte| byte.is_ascii_digit()), "{}", it.id);
            let (published, month) = it.published.split_once('-').unwrap();
            assert!(published >= year && (1..=12).contains(&month.parse::<u32>().unwrap()), "{}", it.id);
            assert!(!it.source.is_empty() && !it.what.is_empty());
        }
        assert!(WAYS.iter().all(|it| !it.source.is_empty()));
        assert!(PROOFS.iter().all(|it| !it.source.is_empty()));
        assert!(TIMINGS.iter().all(|it| !it.source.is_empty()));
    }
}
