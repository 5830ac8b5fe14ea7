//! Being called as wireguard-go is.
//!
//! wg-quick and many a script call their daemon as `PROGRAM IFACE` or `PROGRAM -f IFACE`, and some through a link of its usual
//! name. Such an argument list becomes that of `run`. A link called `wg` is taken for that program: there, a word is a command.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::cli::is_command;

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

#[cfg(test)]
mod tests {
    use super::*;

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
