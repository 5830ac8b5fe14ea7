//! `policy`, and `--policy` of `run` and `up`: the rules that say what may pass an interface, from a file.
//!
//! The file is read and checked here, whoever is to have its rules, so that what is wrong in it is told with its line before anything is done.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use config::policy::{Rule, parse};

use crate::error::Error;
use crate::interface::InterfaceName;
use crate::{client, complete, conf};

/// Whose rules, and which.
#[derive(Args)]
pub struct PolicyArgs {
    /// The interface
    #[arg(add = ArgValueCompleter::new(complete::interface))]
    interface: InterfaceName,
    /// The file with the rules, which take the place of all that are in force; `/dev/null` has none
    #[arg(conflicts_with = "show")]
    file: Option<PathBuf>,
    /// Print the rules in force and what each has taken, which is done too if no file is given
    #[arg(long)]
    show: bool,
}

/// The rules of a file.
pub fn read(path: &Path) -> Result<Vec<Rule>, Error> {
    parse(&conf::read(path)?).map_err(|source| Error::Policy { path: path.to_owned(), source })
}

/// Sets the rules of an interface, or shows them.
pub fn policy(args: &PolicyArgs) -> Result<(), Error> {
    match &args.file {
        Some(file) => client::set_policy(args.interface.as_str(), &read(file)?),
        None => {
            let mut out = BufWriter::new(io::stdout().lock());
            show(&mut out, args.interface.as_str(), None)?;
            out.flush().map_err(Error::Output)
        }
    }
}

/// Shows the rules in force in their order, each in a line: the packets that it took, their bytes, how many it dropped of the packets, the rule.
pub fn show(out: &mut impl Write, interface: &str, prefix: Option<&str>) -> Result<(), Error> {
    for (rule, count) in client::policy(interface)? {
        if let Some(prefix) = prefix {
            write!(out, "{prefix}\t").map_err(Error::Output)?;
        }
        writeln!(out, "{}\t{}\t{}\t{rule}", count.packets, count.bytes, count.dropped).map_err(Error::Output)?;
    }
    Ok(())
}
