//! What is compared: ourselves in more than one way, the peers, any other daemon by its command, and no tunnel at all.

use std::collections::BTreeSet;

use clap::ValueEnum;
use lab::{Engine, IFNAME, System};

use crate::error::Failure;

/// The subjects that have a name of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Known {
    /// Ours
    Wireloom,
    /// Ours, with programs in the kernel
    WireloomEbpf,
    /// Ours, with `ring` for all cryptography
    WireloomRing,
    /// Debian's wireguard-go
    WireguardGo,
    /// boringtun-cli
    Boringtun,
    /// gotatun-cli
    Gotatun,
    /// No tunnel: what the link itself can do
    None,
}

/// One column of the comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The name in tables.
    pub name: String,
    /// What is started at both ends; nothing without a tunnel.
    pub system: Option<System>,
    /// Whether a measurement of it that fails is a failure of ours.
    pub ours: bool,
}

/// The name of ours in tables.
pub const OURS: &str = "wireloom";
/// That of ours with programs in the kernel.
pub const EBPF: &str = "wireloom, eBPF";
/// The name of the peer to which published figures relate.
pub const BORINGTUN: &str = "boringtun";
/// That without a tunnel.
pub const NO_TUNNEL: &str = "no tunnel";

impl Known {
    fn subject(self, ours: &System, workers: Option<u32>) -> Subject {
        let own = |variables: &[&str]| -> System {
            let System::Wireloom(path, _) = ours else { return ours.clone() };
            if variables.is_empty() && workers.is_none() {
                return ours.clone();
            }
            let mut words: Vec<String> = Vec::new();
            if !variables.is_empty() {
                words.push("env".to_owned());
                words.extend(variables.iter().map(|&variable| variable.to_owned()));
            }
            words.extend([path.display().to_string(), "run".to_owned(), "-f".to_owned()]);
            words.extend(workers.iter().flat_map(|count| ["--workers".to_owned(), count.to_string()]));
            words.push(IFNAME.to_owned());
            System::Command(words)
        };
        let (name, system) = match self {
            Known::Wireloom => (OURS, Some(own(&[]))),
            Known::WireloomEbpf => (EBPF, Some(ours.clone().with(Engine::Ebpf))),
            Known::WireloomRing => ("wireloom, ring", Some(own(&["WIRELOOM_AEAD=ring"]))),
            Known::WireguardGo => ("wireguard-go", Some(System::WireguardGo)),
            Known::Boringtun => (BORINGTUN, Some(System::Boringtun)),
            Known::Gotatun => ("gotatun", Some(System::Gotatun)),
            Known::None => (NO_TUNNEL, None),
        };
        Subject {
            name: name.to_owned(),
            system,
            ours: matches!(self, Known::Wireloom | Known::WireloomEbpf | Known::WireloomRing),
        }
    }
}

/// Reads `NAME=COMMAND` as `--impl` takes it.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn parse_impl(text: &str) -> Result<Subject, String> {
    let form = "NAME='COMMAND {ifname}', such as old='/opt/old/wireloom run -f {ifname}'";
    let (name, command) = text.split_once('=').ok_or(format!("it is to be {form}"))?;
    if name.is_empty() || name.len() > 30 || name.contains(|c: char| c.is_control() || "|<>&\"".contains(c)) {
        return Err(format!("{name:?} is no name for a column of a table; it is to be {form}"));
    }
    let words = shlex::split(command).ok_or("the quotes of the command do not match")?;
    if !words.iter().skip(1).any(|word| word.contains(IFNAME)) {
        return Err(format!(
            "the command lacks {IFNAME}, which stands for the name of the interface that it is to make"
        ));
    }
    let system = System::Command(words);
    system.program().map_err(|error| error.to_string())?;
    Ok(Subject { name: name.to_owned(), system: Some(system), ours: false })
}

/// All of them in the order of the table: those that are named (or else each that is known), and those that were given.
///
/// # Errors
/// Two have one name.
pub fn list(known: &[Known], given: &[Subject], ours: &System, workers: Option<u32>) -> Result<Vec<Subject>, Failure> {
    let known = if known.is_empty() { Known::value_variants() } else { known };
    // No tunnel comes last: it is no competitor.
    let (last, first): (Vec<Known>, Vec<Known>) = known.iter().copied().partition(|known| *known == Known::None);
    let make = |known: Known| known.subject(ours, workers);
    let all: Vec<Subject> =
        first.into_iter().map(make).chain(given.iter().cloned()).chain(last.into_iter().map(make)).collect();
    let mut names = BTreeSet::new();
    match all.iter().find(|subject| !names.insert(&subject.name)) {
        Some(twice) => Err(Failure::Twice(twice.name.clone())),
        None => Ok(all),
    }
}

/// The order of a round: each begins elsewhere, so that over the rounds everybody comes early and late.
pub fn order(count: usize, round: u32, rounds: u32) -> Vec<usize> {
    let first = count * (round as usize % rounds.max(1) as usize) / rounds.max(1) as usize;
    (0..count).map(|place| (place + first) % count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(known: &[Known], given: &[Subject]) -> Result<Vec<String>, Failure> {
        let all = list(known, given, &System::Wireloom("/x/wireloom".into(), Engine::Userspace), None)?;
        Ok(all.into_iter().map(|subject| subject.name).collect())
    }

    #[test]
    fn reads_commands() {
        let subject = parse_impl("old build=sh -c 'exec x --on {ifname}'").unwrap();
        assert_eq!((subject.name.as_str(), subject.ours), ("old build", false));
        let words = ["sh", "-c", "exec x --on {ifname}"].map(str::to_owned).to_vec();
        assert_eq!(subject.system, Some(System::Command(words)));
        for (bad, said) in [
            ("old", "NAME="),
            ("=sh {ifname}", "no name"),
            ("a|b=sh {ifname}", "no name"),
            ("old=sh '{ifname}", "quotes"),
            ("old=sh wg0", "lacks {ifname}"),
            ("old={ifname}", "lacks {ifname}"),
            ("old=", "lacks {ifname}"),
            ("old=no-such-program {ifname}", "no-such-program is missing"),
            ("old=/no/such/program {ifname}", "/no/such/program is missing"),
        ] {
            let error = parse_impl(bad).unwrap_err();
            assert!(error.contains(said) && !error.contains('\n'), "{bad}: {error}");
        }
    }

    #[test]
    fn each_has_its_place_and_a_name_of_its_own() {
        let other = parse_impl("other=sh {ifname}").unwrap();
        let all = names(&[], std::slice::from_ref(&other)).unwrap();
        assert_eq!(
            all,
            [
                "wireloom",
                "wireloom, eBPF",
                "wireloom, ring",
                "wireguard-go",
                "boringtun",
                "gotatun",
                "other",
                "no tunnel"
            ]
        );
        assert_eq!(names(&[Known::None, Known::Wireloom], &[]).unwrap(), ["wireloom", "no tunnel"]);
        assert!(names(&[Known::Gotatun, Known::Gotatun], &[]).is_err());
        let named = Subject { name: "gotatun".to_owned(), ..other };
        assert!(names(&[], &[named]).is_err());
    }

    #[test]
    fn ours_takes_workers_and_ring() {
        let ours = System::Wireloom("/x/wireloom".into(), Engine::Userspace);
        let command = |known: Known, workers| match known.subject(&ours, workers).system {
            Some(System::Command(words)) => words.join(" "),
            other => format!("{other:?}"),
        };
        assert_eq!(Known::Wireloom.subject(&ours, None).system, Some(ours.clone()));
        assert_eq!(command(Known::Wireloom, Some(3)), "/x/wireloom run -f --workers 3 {ifname}");
        assert_eq!(command(Known::WireloomRing, None), "env WIRELOOM_AEAD=ring /x/wireloom run -f {ifname}");
        assert_eq!(Known::None.subject(&ours, Some(3)).system, None);
    }

    #[test]
    fn everybody_comes_early_and_late() {
        assert_eq!(order(3, 0, 3), [0, 1, 2]);
        assert_eq!(order(3, 1, 3), [1, 2, 0]);
        assert_eq!(order(6, 2, 3), [4, 5, 0, 1, 2, 3]);
        assert_eq!(order(1, 2, 3), [0]);
        for (count, rounds) in [(6, 3), (7, 3), (2, 5), (1, 1)] {
            for round in 0..rounds {
                let mut all = order(count, round, rounds);
                all.sort_unstable();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
            }
        }
    }
}
