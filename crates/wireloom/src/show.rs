//! `show` and `showconf`.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::SystemTime;

use config::show::{self, FIELDS, Style};
use config::value::Quoted;

use crate::cli::{ShowArgs, Shown};
use crate::client;
use crate::error::Error;
use crate::interface::InterfaceName;
use crate::json;
use crate::policy;
use crate::zones::SystemZones;

/// Shows one interface, all, or their names.
pub fn show(args: &ShowArgs) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        return show_json(&mut out, &args.what);
    }
    match (args.what.as_str(), args.field) {
        ("interfaces", None) => {
            let names = client::interfaces()?;
            if !names.is_empty() {
                writeln!(out, "{}", names.join(" ")).map_err(Error::Output)?;
            }
        }
        ("interfaces", Some(field)) => {
            let known = |(_, known): &&(_, _)| Shown::Field(*known) == field;
            let ours = if field == Shown::Policy { "policy" } else { "drops" };
            let name = FIELDS.iter().find(known).map_or(ours, |(name, _)| name);
            return Err(Error::FieldOfInterfaces(name));
        }
        ("all", _) => show_all(&mut out, args)?,
        (name, _) => {
            let name: InterfaceName = name.parse().map_err(|error| Error::Name(Quoted::new(name), error))?;
            show_one(&mut out, args, name.as_str(), None)?;
        }
    }
    out.flush().map_err(Error::Output)
}

/// Shows all interfaces. One that cannot be shown is told of and passed over; that is a failure only if it is so with all.
fn show_all(out: &mut impl Write, args: &ShowArgs) -> Result<(), Error> {
    let names = client::interfaces()?;
    let mut shown = names.is_empty();
    for (at, name) in names.iter().enumerate() {
        match show_one(out, args, name, Some(name)) {
            Ok(()) => shown = true,
            Err(error @ Error::Output(_)) => return Err(error),
            Err(error) => {
                eprintln!("wireloom: {error}");
                continue;
            }
        }
        if args.field.is_none() && at + 1 < names.len() {
            writeln!(out).map_err(Error::Output)?;
        }
    }
    if shown { Ok(()) } else { Err(Error::NothingShown) }
}

/// Shows one interface, or all, as JSON.
fn show_json(out: &mut impl Write, what: &str) -> Result<(), Error> {
    let names = match what {
        "interfaces" => return Err(Error::JsonOfInterfaces),
        "all" => client::interfaces()?,
        name => {
            let name: InterfaceName = name.parse().map_err(|error| Error::Name(Quoted::new(name), error))?;
            vec![name.as_str().to_owned()]
        }
    };
    let (mut told, mut failed) = (Vec::new(), None);
    for name in &names {
        match json::Told::ask(name, show_keys()) {
            Ok(interface) => told.push(interface),
            Err(error) if what == "all" => {
                eprintln!("wireloom: {error}");
                failed = Some(Error::NothingShown);
            }
            Err(error) => return Err(error),
        }
    }
    match failed.filter(|_| told.is_empty()) {
        Some(error) => Err(error),
        None => json::write(out, &told).and_then(|()| out.flush()).map_err(Error::Output),
    }
}

/// Whether private and preshared keys are shown also where people look.
fn show_keys() -> bool {
    std::env::var_os("WG_HIDE_KEYS").is_some_and(|mode| mode == "never")
}

fn show_one(out: &mut impl Write, args: &ShowArgs, name: &str, prefix: Option<&str>) -> Result<(), Error> {
    match args.field {
        Some(Shown::Drops) => return show_drops(out, name, prefix),
        Some(Shown::Policy) => return policy::show(out, name, prefix),
        _ => {}
    }
    let device = client::get(name)?;
    let zones = SystemZones::open();
    match args.field {
        Some(Shown::Field(field)) => show::field(out, prefix, &device, field, &zones),
        _ => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            show::pretty(out, name, &device, &Style { colour: colour(), show_keys: show_keys(), now, zones: &zones })
        }
    }
    .map_err(Error::Output)
}

/// Shows what was dropped, each reason in a line: those that have not come up too, so that a script finds them.
fn show_drops(out: &mut impl Write, name: &str, prefix: Option<&str>) -> Result<(), Error> {
    for (reason, packets) in client::drops(name)? {
        if let Some(prefix) = prefix {
            write!(out, "{prefix}\t").map_err(Error::Output)?;
        }
        writeln!(out, "{reason}\t{packets}").map_err(Error::Output)?;
    }
    Ok(())
}

/// Whether to use colours: as `WG_COLOR_MODE` says, or else when somebody sees them.
fn colour() -> bool {
    match std::env::var("WG_COLOR_MODE").as_deref() {
        Ok("always") => true,
        Ok("never") => false,
        _ => io::stdout().is_terminal(),
    }
}

/// Prints an interface's configuration as a file.
pub fn showconf(interface: &InterfaceName) -> Result<(), Error> {
    let device = client::get(interface.as_str())?;
    let mut out = BufWriter::new(io::stdout().lock());
    show::conf(&mut out, &device, &SystemZones::open()).and_then(|()| out.flush()).map_err(Error::Output)
}
