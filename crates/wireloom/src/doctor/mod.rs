//! `doctor`: what is wrong with this machine, an interface or a file, and what to do about it.
//!
//! Everything is looked at in turn, from the machine ([`machine`], [`mod@ebpf`]) to what is special to one device ([`subject`]): its keys ([`keys`]), its
//! addresses and allowed IPs ([`networks`]), the ways to its endpoints and into it ([`routing`]), the path inside it ([`inside`]) and what
//! it says of itself ([`device`]). Each adds what it finds to a [`finding::Report`]. Nothing on the machine is changed; what is sent are a byte to
//! each endpoint and pings through the tunnel.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use linux::rt::Rt;

use crate::error::Error;
use crate::interface::InterfaceName;
use crate::{client, complete};
use finding::{Level, Report};
use subject::Subject;

mod device;
mod ebpf;
mod finding;
mod inside;
mod keys;
mod machine;
mod networks;
mod routing;
mod subject;

/// The exit code where it could not look.
pub const COULD_NOT_LOOK: u8 = 2;

/// Where files are that are called by the name of their interface.
const FOLDER: &str = "/etc/wireguard";

/// What `doctor` is to look at.
#[derive(Args)]
pub struct DoctorArgs {
    /// An interface that runs, or a file as wg-quick(8) takes it, or the name of one in /etc/wireguard; only the machine if there is none
    #[arg(value_name = "INTERFACE|FILE", add = ArgValueCompleter::new(complete::interface_or_file))]
    subject: Option<String>,
    /// Print all that was found as JSON
    #[arg(long)]
    json: bool,
}

/// Looks, and tells. [`Error::Faults`] where there are any.
pub fn doctor(args: &DoctorArgs) -> Result<(), Error> {
    let progress = |what: &str| {
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K{}{}", if what.is_empty() { "" } else { "looking at " }, what);
        }
    };
    let mut report = Report::default();
    // What is no subject is told before anything takes its time.
    let which = args.subject.as_deref().map(Which::find).transpose()?;
    progress("the machine");
    machine::examine(&mut report);
    if let Some(which) = which {
        let mut rt = Rt::open().map_err(Error::Links)?;
        let subject = match &which {
            Which::Device(name) => Some(Subject::device(name, &mut rt)?),
            Which::Closed(name) => {
                device::unseen(name, &mut report);
                None
            }
            Which::File(path) => Subject::of_file(path, &mut rt, &mut report)?,
        };
        if let Some(subject) = subject {
            examine(subject, &mut rt, &mut report, &progress)?;
        }
    }
    progress("");
    let mut out = io::stdout().lock();
    if args.json { writeln!(out, "{}", report.json()) } else { out.write_all(report.text(colour()).as_bytes()) }
        .map_err(Error::Output)?;
    if report.count(Level::Fault) == 0 { Ok(()) } else { Err(Error::Faults) }
}

fn examine(
    mut subject: Subject,
    rt: &mut Rt,
    report: &mut Report,
    progress: routing::Progress<'_>,
) -> Result<(), Error> {
    if !subject.is_file() {
        device::state(&subject, report);
    }
    keys::examine(&subject, report);
    networks::examine(&subject, report);
    routing::examine(&mut subject, rt, report, progress);
    if subject.is_file() {
        return Ok(());
    }
    ebpf::bypassed(&subject, report);
    inside::examine(&subject, report, progress);
    // What came of being tried.
    let now = Subject::device(&subject.name, rt)?;
    device::handshakes(&now, report);
    device::drops(&now, report);
    Ok(())
}

/// What the argument stands for.
enum Which {
    Device(String),
    /// One that runs, and tells others only.
    Closed(String),
    File(PathBuf),
}

impl Which {
    fn find(text: &str) -> Result<Which, Error> {
        if text.contains('/') || text.ends_with(".conf") {
            return Ok(Which::File(text.into()));
        }
        let name: InterfaceName = text.parse().map_err(|error| Error::Name(config::value::Quoted::new(text), error))?;
        match client::get(name.as_str()) {
            Ok(_) => Ok(Which::Device(text.to_owned())),
            Err(Error::NoRight { .. } | Error::NoRightOfKernel(_)) => Ok(Which::Closed(text.to_owned())),
            Err(error @ (Error::NoInterface(_) | Error::NotOurs(_))) => {
                let path = Path::new(FOLDER).join(format!("{text}.conf"));
                if path.exists() { Ok(Which::File(path)) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether to use colours: as `WG_COLOR_MODE` says, or else when somebody sees them.
fn colour() -> bool {
    match std::env::var("WG_COLOR_MODE").as_deref() {
        Ok("always") => true,
        Ok("never") => false,
        _ => io::stdout().is_terminal(),
    }
}
