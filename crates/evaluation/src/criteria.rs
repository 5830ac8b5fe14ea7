//! What no stopwatch measures: what is trusted, how it is updated, where it runs, what was found in it, what is proved of it.
//!
//! Each row names the document in which it was looked up on [`COLLECTED`], and says no more than stands there; what could not be
//! looked up is not here. The tables do not claim to be complete; of weaknesses above all: the number that was found says how hard
//! people looked, too, and is no measure of safety.

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
        memory: "C for BPF, whose accesses to memory the kernel's verifier checks before it runs; Rust beside it",
        update: "The package, then the unit's restart; sessions are kept as long as the maps are the same; no reboot, no module",
        platforms: "Linux 6.1 or newer with BTF, where `wireloom doctor` approves",
        source: "this project: docs/ebpf.md, docs/service.md; Linux: Documentation/bpf/verifier.rst",
    },
    Way {
        name: "Linux WireGuard, module",
        memory: "C in the kernel",
        update: "The kernel's package and a reboot, or the module unloaded, which removes all its interfaces",
        platforms: "Linux 5.6 and later; a backport for 3.10 to 5.5",
        source: "Linux: drivers/net/wireguard/device.c, net/core/rtnetlink.c; wireguard-linux-compat, README",
    },
    Way {
        name: "Linux WireGuard, built in",
        memory: "As the module",
        update: "The kernel's package and a reboot, always",
        platforms: "Linux 5.6 and later, configured with CONFIG_WIREGUARD=y",
        source: "Linux: drivers/net/Kconfig; wireguard-linux-compat, README",
    },
    Way {
        name: "wireguard-go",
        memory: "Go: an index out of range stops the program, memory is garbage-collected; on x86-64 the cipher is in assembly",
        update: "The program's restart, after which the interface is configured again; no reboot",
        platforms: "Linux, macOS, Windows, FreeBSD, OpenBSD",
        source: "wireguard-go, README and go.mod; Go, language specification; golang.org/x/crypto, chacha20poly1305",
    },
    Way {
        name: "boringtun",
        memory: "Rust; for cryptography also ring, which has C and assembly",
        update: "The program's restart, after which the interface is configured again; no reboot",
        platforms: "Linux, macOS; as a library also iOS, Android, Windows",
        source: "cloudflare/boringtun, README and boringtun/Cargo.toml; ring, README",
    },
    Way {
        name: "OpenVPN, userspace",
        memory: "C, with OpenSSL or mbed TLS",
        update: "The program's restart, which closes its connections; no reboot",
        platforms: "Linux, Windows, FreeBSD, macOS; less tested OpenBSD, NetBSD, DragonFly BSD, Solaris, AIX; Android",
        source: "OpenVPN, INSTALL, PORTS, Changes.rst (2.4), manual (signals)",
    },
    Way {
        name: "OpenVPN, data channel in the kernel",
        memory: "C in the kernel and outside",
        update: "As OpenVPN; the kernel's part with the kernel, or as a module of its own (ovpn-backports)",
        platforms: "Linux 6.16 and later with OpenVPN 2.7, backports for older kernels; Windows; FreeBSD 14",
        source: "OpenVPN, Changes.md (2.7), README.dco.md, INSTALL; Linux: drivers/net/ovpn",
    },
    Way {
        name: "strongSwan with the kernel's XFRM",
        memory: "C in the kernel, and C in the daemon that negotiates",
        update: "The daemon's restart, which terminates its connections; the kernel's part with the kernel",
        platforms: "Linux; the daemon also on FreeBSD, macOS, Windows and Android",
        source: "strongSwan, ipsec(8), NEWS (4.3.4, 5.2.0), src/frontends/android; Linux: net/xfrm",
    },
];

/// A weakness that was found and published.
#[derive(Debug)]
pub struct Weakness {
    /// Its number.
    pub id: &'static str,
    /// In what.
    pub system: &'static str,
    /// When its record was published, year and month.
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

/// The record of the CVE Program, as it stands in github.com/CVEProject/cvelistV5.
const CVE: &str = "CVE Program (cvelistV5)";

/// The record, and what the project itself says.
const CHANGES: &str = "CVE Program (cvelistV5); OpenVPN, Changes.rst (2.6)";

/// Those that the tables have, by system and then by date.
pub const WEAKNESSES: [Weakness; 21] = [
    found(
        "CVE-2021-46873",
        "WireGuard, the protocol",
        "2023-01",
        "whoever sets a victim's clock to the future, as by NTP without authentication, can make its static key useless for good",
        CVE,
    ),
    found(
        "CVE-2024-26861",
        "Linux WireGuard",
        "2024-04",
        "data race on the receiving counter; the fix marks it as intended",
        CVE,
    ),
    found(
        "CVE-2024-26950",
        "Linux WireGuard",
        "2024-05",
        "a read over netlink reaches the device by way of a peer that may be gone; null pointer",
        CVE,
    ),
    found(
        "CVE-2024-26951",
        "Linux WireGuard",
        "2024-05",
        "use after free: a read over netlink goes on with a peer that was removed",
        CVE,
    ),
    found(
        "CVE-2024-42247",
        "Linux WireGuard",
        "2024-08",
        "unaligned 64-bit accesses in allowed IPs; the kernel warns of them on parisc",
        CVE,
    ),
    found(
        "CVE-2017-7478",
        "OpenVPN",
        "2017-05",
        "a control packet that is too big ends the server; from 2.3.12, fixed in 2.3.15 and 2.4.2; tls-auth and tls-crypt protect it",
        "CVE Program; FreeBSD VuXML, 04cc7bd2-3686-11e7-aa64-080027ef73ec",
    ),
    found(
        "CVE-2022-0547",
        "OpenVPN",
        "2022-03",
        "with several plug-ins that defer their answer, credentials that are right in part are enough; 2.1 until 2.4.12 and 2.5.6",
        CVE,
    ),
    found("CVE-2023-46849", "OpenVPN", "2023-11", "division by zero with --fragment; 2.6.0 to 2.6.6", CHANGES),
    found(
        "CVE-2023-46850",
        "OpenVPN",
        "2023-11",
        "use after free with TLS, freed memory may be sent to the peer; 2.6.0 to 2.6.6",
        CHANGES,
    ),
    found(
        "CVE-2024-28882",
        "OpenVPN",
        "2024-07",
        "authenticated clients can keep a session that the server ends; 2.6.0 to 2.6.10",
        CHANGES,
    ),
    found(
        "CVE-2026-43254",
        "Linux ovpn",
        "2026-05",
        "over TCP, packets that arrive together are taken apart wrongly and dropped; from 6.16, fixed in 6.18.16, 6.19.6, 7.0",
        CVE,
    ),
    found(
        "CVE-2026-45929",
        "Linux ovpn",
        "2026-05",
        "use after free when a packet that is shared is split and sent; from 6.16, fixed in 6.18.14, 6.19.4, 7.0",
        CVE,
    ),
    found(
        "CVE-2021-41991",
        "strongSwan",
        "2021-10",
        "integer overflow in the certificate cache, from remote; before 5.9.4",
        CVE,
    ),
    found(
        "CVE-2021-45079",
        "strongSwan",
        "2022-01",
        "a responder's early EAP-Success skips the client's authentication, with some methods its own, too; before 5.9.5",
        CVE,
    ),
    found(
        "CVE-2023-41913",
        "strongSwan",
        "2023-12",
        "buffer overflow in charon-tkm, without authentication; 5.3.0 to 5.9.11",
        CVE,
    ),
    found(
        "CVE-2026-25075",
        "strongSwan",
        "2026-03",
        "integer underflow in EAP-TTLS ends the daemon, without authentication; 4.5.0 to 6.0.4",
        CVE,
    ),
    found(
        "CVE-2017-16939",
        "Linux XFRM",
        "2017-11",
        "use after free while policies are dumped, local privilege escalation; before 4.13.11",
        CVE,
    ),
    found("CVE-2022-27666", "Linux XFRM", "2022-03", "heap buffer overflow in ESP, local privilege escalation", CVE),
    found(
        "CVE-2026-43091",
        "Linux XFRM",
        "2026-05",
        "when a network namespace ends, policy tables are freed while they may still be read",
        CVE,
    ),
    found("CVE-2026-46116", "Linux XFRM", "2026-05", "use after free when a state is deleted", CVE),
    found(
        "CVE-2021-3490",
        "Linux eBPF verifier",
        "2021-05",
        "wrong bounds of 32-bit operations: a local user's program may read and write outside; from 5.7, fixed in 5.10.37, 5.11.21, 5.12.4",
        CVE,
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
        what: "computational, in the eCK model, of a variant: the key's confirmation is a message of its own there (Dowling, Paterson)",
        source: "wireguard.com/formal-verification; A Cryptographic Analysis of the WireGuard Protocol, abstract",
    },
    Proof {
        protocol: "WireGuard",
        what: "computational, by CryptoVerif, transport messages included (Lipp, Blanchet, Bhargavan)",
        source: "wireguard.com/formal-verification; EuroS&P 2019, abstract",
    },
    Proof {
        protocol: "WireGuard",
        what: "symbolic, by SAPIC+, ProVerif and Tamarin, cookies included; confirms a flaw of anonymity (Lafourcade, Mahmoud, Ruhault)",
        source: "NDSS 2024: A Unified Symbolic Analysis of WireGuard, abstract",
    },
    Proof {
        protocol: "IKEv1, IKEv2",
        what: "formal analysis: no significant weakness of the keys' secrecy, several of authentication (Cremers)",
        source: "ESORICS 2011: Key Exchange in IPsec Revisited, abstract",
    },
    Proof {
        protocol: "IKEv2",
        what: "by Tamarin, of the handshake's core with its extension IKE_INTERMEDIATE, against quantum computers",
        source: "ACSAC 2021: A Formal Analysis of IKEv2's Post-Quantum Extension, abstract",
    },
    Proof {
        protocol: "TLS 1.3, which OpenVPN can use",
        what: "symbolic, by Tamarin, of draft 21 with all modes of the handshake, and not of OpenVPN around it",
        source: "CCS 2017: A Comprehensive Symbolic Analysis of TLS 1.3, abstract; OpenVPN, Changes.rst (2.5)",
    },
];

/// Whether something takes as long whatever the secret.
#[derive(Debug)]
pub struct Timing {
    /// Of what.
    pub of: &'static str,
    /// What is known of it.
    pub evidence: &'static str,
    /// Where that stands.
    pub source: &'static str,
}

/// What speaks for constant time, and what against it.
pub const TIMINGS: [Timing; 4] = [
    Timing {
        of: "ChaCha20, the algorithm",
        evidence: "additions, exclusive ors and fixed rotations alone; neither an offset nor the number of operations depends on the key",
        source: "RFC 8439, section 4",
    },
    Timing {
        of: "Poly1305, the algorithm",
        evidence: "can be done in constant time, but not with a library for big numbers of any size; tags must be compared so, too",
        source: "RFC 8439, sections 3 and 4",
    },
    Timing {
        of: "AES without instructions for it",
        evidence: "many implementations leak by their timing what they find in the cache",
        source: "RFC 8439, section 1 (Bonneau, Mironov: Cache-Collision Timing Attacks Against AES)",
    },
    Timing {
        of: "Curve25519 in Linux, the C for 64-bit machines",
        evidence: "generated by machine from HACL*, which is verified in F* for independence of secrets, then adapted to the kernel",
        source: "Linux: lib/crypto/curve25519-hacl64.c; HACL*, README",
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
