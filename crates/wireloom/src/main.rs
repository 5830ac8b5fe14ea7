//! The `wireloom` command.
//!
//! [`cli`] says what can be typed, [`argv`] makes what wireguard-go's callers type the same. Each command is a module that does it
//! and returns; this file calls it and turns an [`error::Error`] into one line on standard error and exit code 1.
//!
//! `genkey genpsk pubkey` ([`keys`]) touch no device; `show showconf` ([`show`]), `set` ([`set`]) and `setconf addconf syncconf`
//! ([`conf`]) speak to one ([`client`]) through its socket, or by netlink where it is the kernel's ([`kernel`]), as `wg` does;
//! `run` ([`run`]) is one. `up down` ([`quick`]) do all that wg-quick(8) does. What the help and the man pages say beyond the arguments is in [`manual`], and shells are helped by
//! [`complete`]. `lab` ([`laboratory`]) compares us with others.

#![forbid(unsafe_code)]

// First: its macros are for all that come after it.
#[macro_use]
mod tell;

mod argv;
mod attend;
mod capture;
mod cli;
mod client;
mod complete;
mod conf;
mod difference;
mod doctor;
mod error;
mod exchange;
mod files;
mod interface;
mod json;
mod kernel;
mod keys;
#[cfg(feature = "lab")]
mod laboratory;
mod manual;
mod metrics;
mod policy;
mod quick;
mod resolve;
mod run;
mod service;
mod set;
mod show;
mod top;
mod watch;
mod zones;

use std::process::ExitCode;

use clap::FromArgMatches;

use cli::{Cli, Command};
use error::Error;

/// Keys pass through it, and core dumps leave it out.
#[global_allocator]
static HEAP: linux::memory::Hidden = linux::memory::Hidden::new();

fn main() -> ExitCode {
    #[cfg(feature = "lab")]
    if called_by(lab::helper::NAME) {
        return lab::helper::main();
    }
    complete::answer();
    let typed: Vec<_> = std::env::args_os().collect();
    if let Err(error) = argv::refuse_a_slip(&typed) {
        eprintln!("wireloom: {error}");
        return ExitCode::FAILURE;
    }
    let argv = argv::normalised(typed);
    let parsed = cli::command().try_get_matches_from(argv);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let looks = matches!(cli.command, Command::Doctor(_));
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(Error::Faults) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("wireloom: {error}");
            if looks { ExitCode::from(doctor::COULD_NOT_LOOK) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether this is the name that the program was called by: `wireloom lab` calls it so inside the namespaces that it makes.
#[cfg(feature = "lab")]
fn called_by(name: &str) -> bool {
    let program = std::env::args_os().next();
    program.is_some_and(|program| std::path::Path::new(&program).file_name() == Some(name.as_ref()))
}

fn execute(command: Command) -> Result<(), Error> {
    match command {
        Command::Run(args) => Ok(run::run(args)?),
        Command::Up(args) => quick::up(&args),
        Command::Down(args) => quick::down(&args),
        Command::Attend(args) => attend::attend(&args),
        Command::Show(args) => show::show(&args),
        Command::Top(args) => Ok(top::top(&args)?),
        Command::Showconf { interface } => show::showconf(&interface),
        Command::Set { interface, settings } => set::set(&interface, &settings),
        Command::Setconf(args) => conf::apply(&args, conf::Mode::Set),
        Command::Addconf(args) => conf::apply(&args, conf::Mode::Add),
        Command::Syncconf(args) => conf::apply(&args, conf::Mode::Sync),
        Command::Capture(args) => capture::capture(&args),
        Command::Strip { what } => quick::strip(&what),
        Command::Reload(args) => quick::reload(&args),
        Command::Policy(args) => policy::policy(&args),
        Command::Save { what } => quick::save(&what),
        Command::Export(args) => exchange::export(&args),
        Command::Import(args) => exchange::import(&args),
        Command::Genkey => keys::genkey(),
        Command::Genpsk => keys::genpsk(),
        Command::Doctor(args) => doctor::doctor(&args),
        #[cfg(feature = "lab")]
        Command::Lab(args) => laboratory::laboratory(args),
        Command::Pubkey => keys::pubkey(),
        Command::Completions { shell } => complete::script(shell),
        Command::ManPages { folder } => {
            manual::write(&cli::command(), &folder).map_err(|source| Error::Manual { folder, source })
        }
    }
}

/// Prints help or the version where they were asked for, and otherwise what was typed wrongly, in one line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nobody can be told that standard output is closed.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::FAILURE;
    }
    eprintln!("wireloom: {}", one_line(&error.render().to_string()));
    ExitCode::FAILURE
}

/// The first paragraph of what clap says, and how the command is used.
fn one_line(text: &str) -> String {
    let words = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
    let what = words(text.split("\n\n").next().unwrap_or_default());
    let what = what.strip_prefix("error: ").unwrap_or(&what);
    match text.lines().find_map(|line| line.strip_prefix("Usage: ")) {
        Some(usage) => format!("{what}; expected: {}", words(usage)),
        None => format!("{what}; see wireloom --help"),
    }
}
