//! The manual pages are well-formed and say what the help says; the shells complete our command lines.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod common;

use std::fs;
use std::process::{Command, Output};

use common::{Host, WIRELOOM, said};
use tempfile::TempDir;

/// The commands, as the help lists them.
fn commands() -> Vec<String> {
    let (_, help) = said(&run(WIRELOOM, &["--help"]));
    let listed = help.split_once("\nCommands:\n").unwrap().1.lines().take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let names: Vec<String> = names.map(str::to_owned).collect();
    assert!(names.len() > 10, "{names:?}");
    names
}

fn run(program: &str, args: &[&str]) -> Output {
    let missing = |error| panic!("{program}: {error}; `cargo xtask setup` installs it");
    Command::new(program).args(args).env("MANWIDTH", "500").env("LC_ALL", "C.UTF-8").output().unwrap_or_else(missing)
}

#[test]
fn every_command_has_a_page_without_faults() {
    let folder = TempDir::new().unwrap();
    let into = folder.path().join("made/man");
    assert!(run(WIRELOOM, &["man-pages", into.to_str().unwrap()]).status.success());
    let mut names: Vec<String> = commands().iter().map(|command| format!("wireloom-{command}.1")).collect();
    names.push("wireloom.1".to_owned());
    assert_eq!(fs::read_dir(&into).unwrap().count(), names.len());
    for name in &names {
        let path = into.join(name);
        let path = path.to_str().unwrap();
        let lint = run("mandoc", &["-Tlint", "-W", "warning", path]);
        assert!(
            lint.status.success(),
            "{}{}",
            String::from_utf8_lossy(&lint.stdout),
            String::from_utf8_lossy(&lint.stderr)
        );
        let page = run("man", &["--warnings", "-P", "cat", "-l", path]);
        assert_eq!((page.status.code(), String::from_utf8_lossy(&page.stderr).as_ref()), (Some(0), ""), "{name}");
        let text = String::from_utf8(page.stdout).unwrap();
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "EXIT STATUS", "SEE ALSO"] {
            assert!(text.lines().any(|line| line == section), "{name} has no {section}:\n{text}");
        }
        // Every page that is named is there.
        for word in text.split([' ', ',', '\n']).filter_map(|word| word.strip_suffix("(1)")) {
            assert!(names.contains(&format!("{word}.1")), "{name} names {word}(1)");
        }
    }
}

#[test]
fn the_page_of_a_command_says_what_its_help_says() {
    let folder = TempDir::new().unwrap();
    assert!(run(WIRELOOM, &["man-pages", folder.path().to_str().unwrap()]).status.success());
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for command in &commands() {
        let command = command.as_str();
        let help = said(&run(WIRELOOM, &[command, "--help"]));
        assert_eq!(said(&run(WIRELOOM, &["help", command])), help, "{command}");
        let path = folder.path().join(format!("wireloom-{command}.1"));
        let source = squeeze(&fs::read_to_string(&path).unwrap().replace("\\-", "-").replace("\\*(Aq", "'"));
        let (_, extra) = help.1.split_once("Examples:").unwrap();
        for line in extra.lines().filter(|line| line.starts_with("  ")) {
            assert!(source.contains(&squeeze(line)), "{command}: {line}");
        }
    }
    let variables = [
        ("run", "LOG_LEVEL"),
        ("run", "WG_TUN_FD"),
        ("run", "WIRELOOM_AEAD"),
        ("show", "WG_COLOR_MODE"),
        ("show", "WG_HIDE_KEYS"),
        ("set", "WG_ENDPOINT_RESOLUTION_RETRIES"),
    ];
    for (command, variable) in variables {
        let page = fs::read_to_string(folder.path().join(format!("wireloom-{command}.1"))).unwrap();
        assert!(page.contains(variable) && said(&run(WIRELOOM, &[command, "--help"])).1.contains(variable));
    }
}

/// What bash offers for the last of these words, on a host with two devices.
fn offered(host: &Host, words: &[&str]) -> Vec<String> {
    // As readline calls it: the words, which of them, and the word itself.
    let script = r#"
        source <("$W" completions bash)
        wireloom() { "$W" "$@"; }
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
        _clap_complete_wireloom wireloom "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        [ ${#COMPREPLY[@]} = 0 ] || printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let command = [&["bash", "-c", script, "bash", "wireloom"], words].concat();
    let (code, text) = said(&host.run(&[("W", WIRELOOM)], &command, ""));
    assert_eq!(code, Some(0), "{words:?}");
    text.lines().map(str::to_owned).collect()
}

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

#[test]
fn bash_completes_interfaces_peers_and_settings() {
    let host = Host::new();
    let device = "listen_port=1\npublic_key=c53201039adba14be71f886da1d8dbe9eebded08cb111b75340078999aa9f038\n\
        endpoint=[2001:db8::1]:5\nallowed_ip=10.0.0.0/8\nallowed_ip=::/0\nerrno=0\n\n";
    host.serve("wg0", device, "");
    host.serve("other", "errno=0\n\n", "");
    let sorted = |mut words: Vec<String>| {
        words.sort();
        words
    };
    let check = |words: &[&str], expected: &[&str]| assert_eq!(sorted(offered(&host, words)), expected, "{words:?}");
    check(&["sh"], &["show", "showconf"]);
    check(&["show", "w"], &["wg0"]);
    check(&["show", "all", "la"], &["latest-handshakes"]);
    check(&["showconf", "o"], &["other"]);
    check(&["setconf", "wg"], &["wg0"]);
    check(&["completions", ""], &["--help", "bash", "fish", "zsh"]);
    check(&["set", "w"], &["wg0"]);
    check(&["set", "wg0", "p"], &["peer", "private-key"]);
    check(&["set", "wg0", "fwmark", "o"], &["off"]);
    check(&["set", "wg0", "peer", ""], &["--help", KEY]);
    check(&["set", "other", "peer", "x"], &[]);
    check(&["set", "wg0", "peer", KEY, "p"], &["peer", "persistent-keepalive", "preshared-key"]);
    check(&["set", "wg0", "peer", KEY, "endpoint", "["], &["[2001:db8::1]:5"]);
    check(&["set", "wg0", "peer", KEY, "allowed-ips", "1"], &["10.0.0.0/8,::/0"]);
    let file = host.folder().join("a-key");
    fs::write(&file, "").unwrap();
    let typed = format!("{}/a-", host.folder().display());
    check(&["set", "wg0", "private-key", &typed], &[file.to_str().unwrap()]);
    check(&["setconf", "wg0", &typed], &[file.to_str().unwrap()]);
}

#[test]
fn the_scripts_are_sound_in_each_shell() {
    let folder = TempDir::new().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = said(&run(WIRELOOM, &["completions", shell]));
        assert_eq!(script.0, Some(0));
        let path = folder.path().join(shell);
        fs::write(&path, &script.1).unwrap();
        let checked = run(shell, &["-n", path.to_str().unwrap()]);
        assert!(
            checked.status.success() && checked.stderr.is_empty(),
            "{shell}: {}",
            String::from_utf8_lossy(&checked.stderr)
        );
    }
    // Fish tells what it would offer.
    let line = format!(
        "function wireloom; {WIRELOOM} $argv; end; source {}/fish; complete -C 'wireloom showc'",
        folder.path().display()
    );
    let path =
        format!("{}:{}", std::path::Path::new(WIRELOOM).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let told = Command::new("fish").args(["-c", &line]).env("PATH", path).env("HOME", folder.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stdout).starts_with("showconf"), "{told:?}");
}
