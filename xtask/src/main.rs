//! The developer's commands: `cargo xtask setup|demo|test|soak|bench|bpf|fuzz|dist|deb`.
//!
//! Each is a file here. What they have in common: they say what they do before they do it, every wait has an end, and Ctrl-C
//! ends them the way an error does, so that nothing stays behind.
#![forbid(unsafe_code)]

mod bench;
mod bpf;
mod cargo;
mod deb;
mod demo;
mod dist;
mod error;
mod fuzz;
mod package;
mod setup;
mod soak;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Wireloom's commands for its developers.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the other commands use: Debian packages, and the peers that we compare ourselves with
    Setup(setup::Options),
    /// Bring up a tunnel between two network namespaces and send real traffic through it
    Demo(demo::Options),
    /// Run every test there is, end to end ones included
    Test(test::Options),
    /// Look for what must never happen while everything happens at once
    Soak(soak::Options),
    /// Measure: ourselves and each peer in turn, or one of the questions below
    Bench(bench::Options),
    /// Make the programs that run inside the kernel of their C sources
    Bpf(bpf::Options),
    /// Build what is installed: the program, its manual pages and the completions of shells, into target/dist
    Dist(dist::Options),
    /// Build the Debian package: the same with the service, documents and a dashboard, into target/deb
    Deb(deb::Options),
    /// Let every parser and the data path loose on inputs that nobody thought of
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The flag is all that a handler may touch; the lab's waits look at it.
        if let Err(error) = signal_hook::flag::register(signal, lab::interrupt_flag()) {
            eprintln!("xtask: cannot listen for signals: {error}");
            return ExitCode::FAILURE;
        }
    }
    let outcome = match arguments.command {
        Task::Setup(options) => setup::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Bpf(options) => bpf::run(&options),
        Task::Dist(options) => dist::run(&options),
        Task::Deb(options) => deb::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if lab::interrupted() => {
            eprintln!("xtask: interrupted; everything is cleaned up");
            ExitCode::from(130)
        }
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_are_checked() {
        // A word may have blanks in it, which are written as ones that do not break.
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ').map(|word| word.replace('\u{a0}', " ")));
        for good in [
            "xtask demo",
            "xtask demo --seconds 5",
            "xtask bench --systems wireloom,none --runs 1",
            "xtask bench --quick",
            "xtask bench net --link gso --out x/y --ours-workers 2",
            "xtask bench --systems wireloom-ring --impl a=sh\u{a0}{ifname} --impl b=env\u{a0}{ifname}",
            "xtask bench aead",
            "xtask bench bpf",
            "xtask bench scale --workers 4 --quick",
            "xtask bench peers --quick --peers 50000",
            "xtask bench flood --rate 100000 --link gso",
            "xtask setup --no-peers",
            "xtask test",
            "xtask bpf",
            "xtask bpf --check",
            "xtask dist",
            "xtask deb --check --program x",
            "xtask soak",
            "xtask soak --minutes 0.5 --engine userspace",
            "xtask fuzz",
            "xtask fuzz cut join --seconds 5 --jobs 1 --merge",
            "xtask fuzz --hours 8",
            "xtask fuzz cut --reproduce fuzz/artifacts/cut/crash-0",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "xtask",
            "xtask fly",
            "xtask demo --seconds 0",
            "xtask demo --seconds 1000",
            "xtask demo --second 5",
            "xtask bench --systems openvpn",
            "xtask bench --runs 0",
            "xtask bench fly",
            "xtask bench --ours-workers 0",
            "xtask bench --impl sh\u{a0}{ifname}",
            "xtask bench --impl a=sh",
            "xtask bench --impl a=no-such-program\u{a0}{ifname}",
            "xtask bench peers --impl a=sh\u{a0}{ifname}",
            "xtask bench --rate 100000",
            "xtask bench --quick peers",
            "xtask bench peers --systems none",
            "xtask bench peers --peers 10",
            "xtask bench scale --workers 0",
            "xtask bench --seconds x",
            "xtask test extra",
            "xtask soak --minutes 0",
            "xtask fuzz --seconds 0",
            "xtask fuzz --hours 1 --seconds 1",
            "xtask fuzz cut --reproduce x --merge",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
