//! `cargo xtask bench size`: what it takes to set up, show and take down a device with 100,000 peers, and one with a peer that has 130,560
//! networks, with routes to all of them and without.
//!
//! `wireloom up` stands beside Debian's `wg-quick` on the same file, with our daemon as its user-space implementation, so that what differs
//! is the work around the device. `wg-quick` joins lines in bash, which takes time by the square, and starts processes for each peer and route:
//! it gets a tenth of the peers and a hundredth of the routes, which the table says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use lab::crowd;
use lab::{LabError, Namespace, run_checked, unique_interface, usage};

use super::figures::{Figures, mib, seconds};
use crate::error::Failure;

/// A tool that takes longer is ended.
const LIMIT: Duration = Duration::from_secs(300);
/// A private key, base64: any will do.
const KEY: &str = "QEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEA=";

/// What `bench size` may be told.
#[derive(Args, Debug)]
pub struct Options {
    /// How many peers
    #[arg(long, value_parser = clap::value_parser!(u32).range(1000..=100_000))]
    peers: Option<u32>,
    /// A tenth of everything: to see that it works, not to quote
    #[arg(long)]
    quick: bool,
}

/// Who sets the device up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    Ours,
    WgQuick,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Tool::Ours => "wireloom",
            Tool::WgQuick => "wg-quick",
        }
    }
}

/// Measures, prints and saves.
pub fn run(options: &Options) -> Result<(), Failure> {
    let ours = super::prepare()?;
    let program = ours.program()?;
    let peers = options.peers.unwrap_or(if options.quick { 10_000 } else { 100_000 });
    // Of the 255 halves of a network's number.
    let halves = if options.quick { 25 } else { 255 };
    let mut figures = Figures::default();
    for tool in [Tool::Ours, Tool::WgQuick] {
        println!("{}", tool.name());
        for count in if tool == Tool::Ours { vec![peers, peers / 10] } else { vec![peers / 10] } {
            measure(&program, tool, &with_peers(count), &format!("{count} peers"), Some(count), &mut figures)?;
        }
        measure(&program, tool, &with_networks(halves, "Table = off\n"), &networks(halves), None, &mut figures)?;
        for count in if tool == Tool::Ours { vec![halves, halves.min(2)] } else { vec![halves.min(2)] } {
            let what = format!("{}, a route to each", networks(count));
            measure(&program, tool, &with_networks(count, ""), &what, None, &mut figures)?;
        }
    }
    println!("\n{}", figures.markdown(&[Tool::Ours, Tool::WgQuick].map(Tool::name)));
    figures.save("size", peers)
}

fn networks(halves: u32) -> String {
    format!("one peer with {} networks", halves * 512)
}

/// A file with peers that are nowhere, and no routes to them.
fn with_peers(count: u32) -> String {
    let peers = crowd::peers(0..count, |_| "Endpoint = 192.0.2.1:1000\n".to_owned());
    format!(
        "[Interface]\nPrivateKey = {KEY}\nListenPort = 50031\nAddress = 10.9.0.1/24, fd09::1/64\nTable = off\n{peers}"
    )
}

/// A file with one peer that has networks of both families.
fn with_networks(halves: u32, more: &str) -> String {
    let pairs = (0..halves).flat_map(|a| (0..256).map(move |b| (a, b)));
    let list: Vec<_> = pairs.map(|(a, b)| format!("{a}.{b}.0.0/24, {a:x}:{b:x}::/64")).collect();
    let key = crowd::key_text(&crowd::private_key(0).public());
    let networks = list.join(", ");
    format!(
        "[Interface]\nPrivateKey = {KEY}\nAddress = 10.9.0.1/32\n{more}\n[Peer]\nPublicKey = {key}\nAllowedIPs = {networks}\n"
    )
}

/// Up, shown, and down, in a namespace of its own.
fn measure(
    program: &Path,
    tool: Tool,
    text: &str,
    what: &str,
    peers: Option<u32>,
    figures: &mut Figures,
) -> Result<(), LabError> {
    let failed = |source| LabError::Io { what: "a configuration file".to_owned(), source };
    let namespace = Namespace::new()?;
    let folder = tempfile::tempdir().map_err(failed)?;
    let interface = unique_interface();
    let file = folder.path().join(format!("{interface}.conf"));
    fs::write(&file, text).map_err(failed)?;
    let quick = |verb: &str| -> Result<Duration, LabError> {
        let mut command = match tool {
            Tool::Ours => namespace.command(program),
            Tool::WgQuick => namespace.command("wg-quick"),
        };
        // What there is here is to be measured, and not a kernel's module.
        command.arg(verb).arg(&file).env("WG_QUICK_USERSPACE_IMPLEMENTATION", program);
        if tool == Tool::Ours && verb == "up" {
            command.args(["--engine", "userspace"]);
        }
        timed(&mut command)
    };
    let name = tool.name();
    figures.enter(name, format!("{what}: `up`"), seconds(quick("up")?));
    let daemon = daemon(&namespace, program)?;
    let resident = usage::memory(daemon)?.resident;
    let each = peers.map(|peers| format!("; {} B each", resident * 1024 / u64::from(peers))).unwrap_or_default();
    figures.enter(name, format!("{what}: memory of the daemon"), mib(resident) + &each);
    for words in [&["show", &interface][..], &["show", &interface, "dump"]] {
        let shown = match tool {
            Tool::Ours => namespace.command(program),
            Tool::WgQuick => namespace.command("wg"),
        };
        let words_shown = words.join(" ").replace(&interface, "IF");
        let mut shown = shown;
        figures.enter(name, format!("{what}: `{words_shown}`"), seconds(timed(shown.args(words))?));
    }
    figures.enter(name, format!("{what}: `down`"), seconds(quick("down")?));
    Ok(())
}

fn timed(command: &mut Command) -> Result<Duration, LabError> {
    let start = Instant::now();
    run_checked(command, LIMIT)?;
    Ok(start.elapsed())
}

/// The process that holds the peers: of those of our program in the namespace, the one with the most memory.
fn daemon(namespace: &Namespace, program: &Path) -> Result<u32, LabError> {
    let is_ours = |pid: &u32| fs::read_link(PathBuf::from(format!("/proc/{pid}/exe"))).is_ok_and(|exe| exe == program);
    let ours = namespace.pids().into_iter().filter(is_ours);
    ours.max_by_key(|pid| usage::memory(*pid).map_or(0, |memory| memory.resident))
        .ok_or(LabError::Missing { program: "the daemon".to_owned(), hint: "nothing of ours runs in the namespace" })
}
