//! Being called as wireguard-go is.
//!
//! wg-quick and many a script call their daemon as `PROGRAM IFACE` or `PROGRAM -f IFACE`, and some through a link of its usual
//! name. Such an argument list becomes that of `run`. A link called `wg` is taken for that program: there, a word is a command.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use config::value::Quoted;

use crate::cli::{commands, is_command};
use crate::error::Error;
use crate::quick::QuickError;
use crate::quick::place::Place;

/// What wg-quick finds its daemon by. Who has it in the environment was called by wg-quick, with the name of an interface, whatever that is like.
const CALLED_BY_WG_QUICK: &str = "WG_QUICK_USERSPACE_IMPLEMENTATION";

/// The argument list with the command that it means.
pub fn normalised(mut argv: Vec<OsString>) -> Vec<OsString> {
    let name = argv.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    let args: Vec<&OsStr> = argv.iter().skip(1).map(OsString::as_os_str).collect();
    let command = if name == "wg" {
        match args[..] {
            // As wg(8): without a command it shows all.
            [] => Some("show"),
            [one] if one == "-v" || one == "version" => {
                argv[1] = "--version".into();
                None
            }
            _ => None,
        }
    } else if name == "wireloom" {
        means_run(&args).then_some("run")
    } else {
        // Under another's name everything is for the daemon, but for what asks who we are.
        let asks = matches!(args[..], [one] if one == "--version" || one == "-V");
        (!asks).then_some("run")
    };
    if let Some(command) = command {
        argv.insert(1.min(argv.len()), command.into());
    }
    if let [_, show, help] = &mut argv[..]
        && show == "show"
        && help == "help"
    {
        // As in wg(8): this asks how to show.
        *help = "--help".into();
    }
    argv
}

/// Whether these arguments, after our own name, are those of wireguard-go.
fn means_run(args: &[&OsStr]) -> bool {
    let is_interface = |word: &OsStr| !word.as_encoded_bytes().starts_with(b"-");
    match args {
        [word] => is_interface(word) && !word.to_str().is_some_and(|word| is_command(word) || word == "help"),
        [flag, word] => (*flag == "-f" || *flag == "--foreground") && is_interface(word),
        _ => false,
    }
}

/// Fails where the only word is no command of ours, but so near to one that it is hardly the name of an interface: it would become one's, made
/// for nobody. It is the name where `/etc/wireguard` has its file, with `run`, and from wg-quick.
pub fn refuse_a_slip(argv: &[OsString]) -> Result<(), Error> {
    let [program, word] = argv else { return Ok(()) };
    let (Some(word), true) = (word.to_str(), Path::new(program).file_name() == Some(OsStr::new("wireloom"))) else {
        return Ok(());
    };
    if word.starts_with('-') || std::env::var_os(CALLED_BY_WG_QUICK).is_some() {
        return Ok(());
    }
    let commands = commands();
    let Some(meant) = meant_by(word, commands.iter().map(String::as_str)) else { return Ok(()) };
    match Place::find(word) {
        Err(Error::Quick(QuickError::NoFile { .. })) => {
            Err(Error::Slip { word: Quoted::new(word), meant: meant.to_owned() })
        }
        _ => Ok(()),
    }
}

/// The command that a word was probably meant to be, if it is none itself. Names with a digit, as nearly all interfaces have them, are never meant so.
fn meant_by<'a>(word: &str, commands: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word == "help" || word.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let near = commands.map(|command| (slips(word, command), command)).min_by_key(|(slips, _)| *slips);
    // Short words are near to everything: of them two letters may have changed places, and no more.
    let (slips, command) = near?;
    let is_near = match command.len() {
        ..=3 => slips == 1 && word.len() == command.len() && sorted(word) == sorted(command),
        4..=6 => slips == 1,
        _ => (1..=2).contains(&slips),
    };
    is_near.then_some(command)
}

fn sorted(word: &str) -> Vec<u8> {
    let mut bytes = word.as_bytes().to_vec();
    bytes.sort_unstable();
    bytes
}

/// How many slips make one word of the other: a letter more, one less, another one, or two that have changed places.
fn slips(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let same = usize::from(one[i - 1] != other[j - 1]);
            let mut least = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_from_a_name() {
        let commands = commands();
        let meant = |word: &str| meant_by(word, commands.iter().map(String::as_str)).map(str::to_owned);
        for (word, command) in [
            ("hsow", "show"),
            ("shwo", "show"),
            ("shw", "show"),
            ("shoow", "show"),
            ("dwon", "down"),
            ("rnu", "run"),
            ("pu", "up"),
            ("reolad", "reload"),
            ("genkeys", "genkey"),
            ("synconf", "syncconf"),
            ("docter", "doctor"),
            ("complitons", "completions"),
        ] {
            assert_eq!(meant(word).as_deref(), Some(command), "{word}");
        }
        for name in [
            "wg0",
            "wg",
            "tun",
            "tun0",
            "show1",
            "us",
            "vpn",
            "home",
            "office",
            "wireguard",
            "set0",
            "lo",
            "help",
            "u",
            "",
        ] {
            assert_eq!(meant(name), None, "{name}");
        }
        for command in &commands {
            assert_eq!(meant(command), None, "{command}");
        }
    }

    #[test]
    fn slips_are_counted() {
        for (one, other, count) in
            [("", "", 0), ("", "ab", 2), ("ab", "ba", 1), ("abc", "abd", 1), ("abcd", "bcd", 1), ("up", "run", 2)]
        {
            assert_eq!((slips(one, other), slips(other, one)), (count, count), "{one} {other}");
        }
    }

    fn argv(line: &str) -> String {
        let words = normalised(line.split(' ').map(OsString::from).collect());
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_callers_of_wireguard_go_type_is_run() {
        assert_eq!(argv("wireloom wg0"), "wireloom run wg0");
        assert_eq!(argv("/usr/bin/wireloom -f wg0"), "/usr/bin/wireloom run -f wg0");
        assert_eq!(argv("wireloom --foreground wg0"), "wireloom run --foreground wg0");
        assert_eq!(argv("/usr/bin/wireguard-go wg0"), "/usr/bin/wireguard-go run wg0");
        assert_eq!(argv("wireguard-go -f show"), "wireguard-go run -f show");
        assert_eq!(argv("wireguard-go show"), "wireguard-go run show");
        assert_eq!(argv("wireguard-go"), "wireguard-go run");
    }

    #[test]
    fn everything_else_is_as_it_was_typed() {
        for line in [
            "wireloom",
            "wireloom show",
            "wireloom genkey",
            "wireloom show wg0",
            "wireloom run wg0",
            "wireloom --version",
            "wireloom --help",
            "wireloom help",
            "wireloom -f",
            "wireloom -f -f",
            "wireguard-go --version",
            "wg show",
            "wg shwo",
        ] {
            assert_eq!(argv(line), line);
        }
        assert_eq!(argv("wg"), "wg show");
        assert_eq!(argv("wg show help"), "wg show --help");
        assert_eq!(argv("wg version"), "wg --version");
        assert_eq!(argv("wg -v"), "wg --version");
    }
}
