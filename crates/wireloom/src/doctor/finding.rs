//! What was found: a [`Finding`] is one sentence on what it is and one on what to do, and a [`Kind`] that scripts know it by.
//!
//! Kinds, and how grave each is, stay as they are from version to version; sentences may change. `docs/doctor.md` lists all of them.

use std::fmt::{self, Write};

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// Good to know.
    Note,
    /// It may go wrong, or part of it does.
    Warning,
    /// It does not work.
    Fault,
}

impl Level {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Fault => "fault",
        }
    }
}

macro_rules! kinds {
    ($($level:ident { $($name:ident = $id:literal,)* })*) => {
        /// Which finding it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // docs/doctor.md says what each is
        pub enum Kind {
            $($($name,)*)*
        }

        impl Kind {
            /// All of them.
            #[cfg(test)]
            pub const ALL: &[Kind] = &[$($(Kind::$name,)*)*];

            /// Its name, for scripts.
            pub fn id(self) -> &'static str {
                match self {
                    $($(Kind::$name => $id,)*)*
                }
            }

            /// How grave it is.
            pub fn level(self) -> Level {
                match self {
                    $($(Kind::$name => Level::$level,)*)*
                }
            }
        }
    };
}

kinds! {
    Ok {
        Clock = "clock",
        Ebpf = "ebpf",
        EbpfEngine = "ebpf-engine",
        EndpointWay = "endpoint-way",
        Handshake = "handshake",
        Kernel = "kernel",
        PathInside = "path-inside",
        Processor = "processor",
        Tun = "tun",
        UdpOffloads = "udp-offloads",
    }
    Note {
        AllowedIpWithin = "allowed-ip-within",
        BpfJitHardened = "bpf-jit-hardened",
        BpfUnprivileged = "bpf-unprivileged",
        BuffersSmall = "buffers-small",
        ClockUnsynchronised = "clock-unsynchronised",
        ConntrackTimeout = "conntrack-timeout",
        DnsNoProgram = "dns-no-program",
        Drops = "drops",
        EbpfEngineMissing = "ebpf-engine-missing",
        EbpfNoTcx = "ebpf-no-tcx",
        EbpfNoXdp = "ebpf-no-xdp",
        EbpfPassesFirewall = "ebpf-passes-firewall",
        ForwardingOff = "forwarding-off",
        HandshakeIdle = "handshake-idle",
        KeepaliveMissing = "keepalive-missing",
        KernelWireguard = "kernel-wireguard",
        PathInsideUnknown = "path-inside-unknown",
        PortPrivileged = "port-privileged",
        SubnetUnreachable = "subnet-unreachable",
        TunOffloadsMissing = "tun-offloads-missing",
        UdpOffloadsMissing = "udp-offloads-missing",
        Unseen = "unseen",
    }
    Warning {
        AddressFamilyMissing = "address-family-missing",
        AllowedIpNotRouted = "allowed-ip-not-routed",
        AllowedIpsMissing = "allowed-ips-missing",
        BpfJitOff = "bpf-jit-off",
        ConntrackFull = "conntrack-full",
        EbpfRefused = "ebpf-refused",
        EndpointHere = "endpoint-here",
        FileReadable = "file-readable",
        HostBits = "host-bits",
        Ipv4Leak = "ipv4-leak",
        Ipv6Disabled = "ipv6-disabled",
        Ipv6Leak = "ipv6-leak",
        KernelOld = "kernel-old",
        MtuTooLarge = "mtu-too-large",
        NetworkClash = "network-clash",
        NoAddress = "no-address",
        NoPeers = "no-peers",
        PeerTwice = "peer-twice",
        PresharedKeyZero = "preshared-key-zero",
        PrivateKeyShared = "private-key-shared",
        ResolverNone = "resolver-none",
    }
    Fault {
        AddressIsPeers = "address-is-peers",
        AllowedIpTwice = "allowed-ip-twice",
        ClockBehind = "clock-behind",
        ClockWentBack = "clock-went-back",
        EndpointBlocked = "endpoint-blocked",
        EndpointCovered = "endpoint-covered",
        EndpointLoop = "endpoint-loop",
        EndpointNoRoute = "endpoint-no-route",
        EndpointUnreachable = "endpoint-unreachable",
        EndpointUnresolved = "endpoint-unresolved",
        FileInvalid = "file-invalid",
        HandshakeNone = "handshake-none",
        HandshakeOld = "handshake-old",
        InterfaceDown = "interface-down",
        KeyIsOurs = "key-is-ours",
        KeyUnusable = "key-unusable",
        MtuBlackHole = "mtu-black-hole",
        PrivateKeyMissing = "private-key-missing",
        RpFilter = "rp-filter",
        TunMissing = "tun-missing",
        TunRefused = "tun-refused",
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which it is.
    pub kind: Kind,
    /// What it is.
    pub what: String,
    /// What to do; nothing where all is well.
    pub remedy: String,
}

/// No more findings of a kind are told than this: there may be 100,000 peers.
const MOST: usize = 10;

/// All that was found, in the order in which it was looked for.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
    /// Those that are not told, by kind.
    more: Vec<(Kind, usize)>,
}

impl Report {
    /// Adds a finding.
    pub fn add(&mut self, kind: Kind, what: impl Into<String>, remedy: impl Into<String>) {
        if self.count_told(kind) < MOST {
            self.findings.push(Finding { kind, what: what.into(), remedy: remedy.into() });
            return;
        }
        match self.more.iter_mut().find(|(of, _)| *of == kind) {
            Some((_, count)) => *count += 1,
            None => self.more.push((kind, 1)),
        }
    }

    /// Adds that something is well.
    pub fn ok(&mut self, kind: Kind, what: impl Into<String>) {
        self.add(kind, what, "");
    }

    /// How many findings are so grave.
    pub fn count(&self, level: Level) -> usize {
        let told = self.findings.iter().filter(|finding| finding.kind.level() == level).count();
        told + self.more.iter().filter(|(kind, _)| kind.level() == level).map(|(_, count)| count).sum::<usize>()
    }

    /// Which were found.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.findings.iter().map(|finding| finding.kind)
    }

    fn count_told(&self, kind: Kind) -> usize {
        self.findings.iter().filter(|finding| finding.kind == kind).count()
    }

    /// For people: each finding with its remedy below, and the sum of it.
    pub fn text(&self, colour: bool) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            line(&mut text, finding.kind, &finding.what, &finding.remedy, colour);
        }
        for (kind, count) in &self.more {
            line(&mut text, *kind, &format!("{count} more of this kind are not told one by one."), "", colour);
        }
        let counts = [Level::Fault, Level::Warning, Level::Note].map(|level| (self.count(level), level.name()));
        let [faults, warnings, notes] = counts.map(|(count, name)| match count {
            0 => format!("no {name}s"),
            1 => format!("1 {name}"),
            count => format!("{count} {name}s"),
        });
        let _ = writeln!(text, "{faults}, {warnings}, {notes}");
        text
    }

    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        let one = |finding: &Finding| {
            serde_json::json!({
                "id": finding.kind.id(),
                "level": finding.kind.level().name(),
                "what": finding.what,
                "remedy": finding.remedy,
            })
        };
        let counts = [Level::Fault, Level::Warning, Level::Note, Level::Ok].map(|level| self.count(level));
        serde_json::json!({
            "findings": self.findings.iter().map(one).collect::<Vec<_>>(),
            "faults": counts[0],
            "warnings": counts[1],
            "notes": counts[2],
            "ok": counts[3],
        })
    }
}

fn line(text: &mut String, kind: Kind, what: &str, remedy: &str, colour: bool) {
    let level = kind.level();
    let code = match level {
        Level::Ok => "32",
        Level::Note => "36",
        Level::Warning => "33",
        Level::Fault => "1;31",
    };
    let (on, off) = if colour { (format!("\x1b[{code}m"), "\x1b[0m") } else { (String::new(), "") };
    // Writing to a text cannot fail.
    let _ = writeln!(text, "{on}{:<8}{off}{}: {what}", level.name(), kind.id());
    if !remedy.is_empty() {
        let _ = writeln!(text, "        {remedy}");
    }
}

/// Text from elsewhere, such as a device's name of a resolver's error, in one line.
pub struct OneLine<T>(pub T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(&text.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_in_the_manual_with_its_level_and_a_remedy() {
        let text = include_str!("../../../../docs/doctor.md");
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        for kind in Kind::ALL {
            let row = rows.iter().find(|row| row[0] == format!("`{}`", kind.id()));
            let row = row.unwrap_or_else(|| panic!("docs/doctor.md does not tell of {}", kind.id()));
            assert_eq!(row[1], kind.level().name(), "{}", kind.id());
            assert!(row.len() == 4 && row[2].ends_with('.'), "{}", kind.id());
            assert!(row[3].ends_with('.') || kind.level() == Level::Ok, "{}", kind.id());
        }
        assert_eq!(rows.len(), Kind::ALL.len());
    }

    #[test]
    fn a_report_says_what_and_how_many() {
        let mut report = Report::default();
        report.ok(Kind::Tun, "A TUN can be made.");
        for at in 0..13 {
            report.add(Kind::HostBits, format!("Network {at}."), "Do something.");
        }
        report.add(Kind::EndpointLoop, "It goes round.", "Cut it.");
        assert_eq!([report.count(Level::Fault), report.count(Level::Warning), report.count(Level::Note)], [1, 13, 0]);
        let text = report.text(false);
        assert_eq!(text.lines().next(), Some("ok      tun: A TUN can be made."));
        assert!(text.contains("fault   endpoint-loop: It goes round.\n        Cut it.\n"));
        assert!(text.contains("host-bits: 3 more of this kind"));
        assert!(text.ends_with("\n1 fault, 13 warnings, no notes\n"));
        assert!(report.text(true).contains("\x1b[1;31mfault   \x1b[0m"));
        let json = report.json();
        assert_eq!((&json["faults"], &json["findings"][0]["id"]), (&1.into(), &"tun".into()));
    }
}
