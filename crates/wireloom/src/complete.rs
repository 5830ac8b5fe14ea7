//! Completing what is typed in a shell: the names of interfaces, the keys of their peers, and the words of `set`.
//!
//! The shell runs `wireloom` with what was typed so far ([`answer`]); the script that makes it do so is [`script`]. Nothing here may fail
//! loudly: who presses Tab gets what there is, and no message.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};

use clap::ValueEnum;
use clap_complete::CompletionCandidate;
use clap_complete::engine::{PathCompleter, ValueCompleter};
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Zsh};
use config::address::EndpointText;
use config::device::{Device, Peer};
use config::key;

use crate::error::Error;
use crate::zones::SystemZones;
use crate::{cli, client};

/// What a shell sets when it asks, to its own name.
const VARIABLE: &str = "WIRELOOM_COMPLETE";

/// The shells that can be helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// Answers a shell that asks for completions, and ends; returns where none does.
pub fn answer() {
    CompleteEnv::with_factory(cli::command).var(VARIABLE).bin("wireloom").complete();
}

/// Prints the script that a shell is to read.
pub fn script(shell: Shell) -> Result<(), Error> {
    let shell: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut text = Vec::new();
    shell.write_registration(VARIABLE, "wireloom", "wireloom", "wireloom", &mut text).map_err(Error::Output)?;
    io::stdout().write_all(&text).map_err(Error::Output)
}

/// The interfaces that there are.
pub fn interface(typed: &OsStr) -> Vec<CompletionCandidate> {
    matching(typed, client::interfaces().unwrap_or_default())
}

/// The interfaces that there are, and files.
pub fn interface_or_file(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut all = interface(typed);
    all.extend(PathCompleter::file().complete(typed));
    all
}

/// The interfaces, and the words that `show` has in their place.
pub fn shown(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut names = client::interfaces().unwrap_or_default();
    names.extend(["all", "interfaces"].map(str::to_owned));
    matching(typed, names)
}

/// The next word of `set`: which, depends on those before it.
pub fn setting(typed: &OsStr) -> Vec<CompletionCandidate> {
    let words = words_of_set();
    let Some((interface, words)) = words.split_first() else { return Vec::new() };
    let device = || client::get(interface).unwrap_or_default();
    let peer = words.iter().rposition(|word| word == "peer").and_then(|at| words.get(at + 1));
    let told = match expected(words) {
        Expected::File => return PathCompleter::any().complete(typed),
        Expected::Peer => device().peers.iter().map(|peer| key::to_base64(&peer.public_key).to_string()).collect(),
        Expected::ValueOf("fwmark") => vec!["off".to_owned()],
        Expected::ValueOf("persistent-keepalive") => vec!["off".to_owned(), "25".to_owned()],
        Expected::ValueOf(name) => peer.and_then(|key| present_value(&device(), key, name)).into_iter().collect(),
        Expected::Setting => {
            let names: &[&str] = if peer.is_some() {
                &["remove", "preshared-key", "endpoint", "persistent-keepalive", "allowed-ips", "peer"]
            } else {
                &["listen-port", "fwmark", "private-key", "peer"]
            };
            names.iter().map(|&name| name.to_owned()).collect()
        }
    };
    matching(typed, told)
}

/// What may stand next in the words of `set`.
#[derive(Debug, PartialEq, Eq)]
enum Expected<'a> {
    /// The name of a setting.
    Setting,
    /// A public key.
    Peer,
    /// A file with a key.
    File,
    /// What this setting is to be.
    ValueOf(&'a str),
}

fn expected(words: &[String]) -> Expected<'_> {
    let mut expected = Expected::Setting;
    for word in words {
        expected = match (expected, word.as_str()) {
            (Expected::Setting, "peer") => Expected::Peer,
            (Expected::Setting, "private-key" | "preshared-key") => Expected::File,
            (Expected::Setting, "remove") => Expected::Setting,
            (Expected::Setting, name) => Expected::ValueOf(name),
            _ => Expected::Setting,
        };
    }
    expected
}

/// What `name` is at the moment, to be changed.
fn present_value(device: &Device, key: &str, name: &str) -> Option<String> {
    let is_it = |peer: &&Peer| key::to_base64(&peer.public_key).as_str() == key;
    let peer = device.peers.iter().find(is_it)?;
    match name {
        "endpoint" => Some(EndpointText(peer.endpoint?, &SystemZones::open()).to_string()),
        "allowed-ips" => {
            let networks = peer.allowed_ips.iter().map(|&network| config::address::CidrText(network).to_string());
            Some(networks.collect::<Vec<_>>().join(",")).filter(|list| !list.is_empty())
        }
        _ => None,
    }
}

/// The words after `set`, up to the one that is being typed: the shell's question is `wireloom -- WORDS`, and where it does not say which
/// word it is about, it is the last.
fn words_of_set() -> Vec<String> {
    let typed: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let at = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|at| at.parse().ok());
    let before = typed.iter().take(at.unwrap_or(typed.len().saturating_sub(1)));
    before.skip_while(|word| *word != "set").skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

fn matching(typed: &OsStr, told: Vec<String>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    told.into_iter().filter(|one| one.starts_with(&*typed)).map(CompletionCandidate::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_stand_next_follows_from_what_stands_before() {
        for (line, next) in [
            ("", Expected::Setting),
            ("listen-port", Expected::ValueOf("listen-port")),
            ("listen-port peer", Expected::Setting),
            ("private-key", Expected::File),
            ("peer", Expected::Peer),
            ("peer KEY", Expected::Setting),
            ("peer KEY remove", Expected::Setting),
            ("peer KEY endpoint", Expected::ValueOf("endpoint")),
            ("peer KEY preshared-key", Expected::File),
        ] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(expected(&words), next, "{line}");
        }
    }
}
