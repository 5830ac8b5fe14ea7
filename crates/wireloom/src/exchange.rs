//! `export` and `import`: the files of systemd-networkd and NetworkManager.
//!
//! What they say of an interface is told in the words of wg-quick, or the other way round; what the other side has no words for is told on
//! standard error, one line each, and is no failure. Without `--output` the files go to standard output, keys and all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use config::foreign::{ExportedFile, ImportError, Imported, Lost};
use config::networkd::{self, Network};
use config::{nm, print};

use crate::conf;
use crate::error::Error;
use crate::files::{self, Readers};
use crate::quick::place::Place;
use crate::quick::tables::SystemTables;
use crate::resolve::SystemServices;

/// The group that systemd-networkd reads its files as.
const NETWORKD: &str = "systemd-network";

/// Whose files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A .netdev and a .network of systemd-networkd
    Networkd,
    /// A .nmconnection of NetworkManager
    Networkmanager,
}

/// What is exported, and where to.
#[derive(Args)]
pub struct ExportArgs {
    /// Whose files to write
    #[arg(long, value_enum)]
    format: Format,
    /// The interface, whose file is /etc/wireguard/NAME.conf, or a file
    #[arg(value_name = "NAME|FILE")]
    what: String,
    /// The folder to write them into, which is made if it is not there; standard output if it is not given
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Replace files that are there already
    #[arg(long)]
    force: bool,
}

/// What is imported, and where to.
#[derive(Args)]
pub struct ImportArgs {
    /// A .netdev, and its .network unless that lies beside it by the same name, or a .nmconnection
    #[arg(required = true, num_args = 1..=2, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The file to write, or a folder to write NAME.conf into; standard output if it is not given
    #[arg(long, value_name = "FILE|FOLDER")]
    output: Option<PathBuf>,
    /// Replace a file that is there already
    #[arg(long)]
    force: bool,
}

/// Why nothing was exported or imported.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ExchangeError {
    #[error("{}:{source}", path.display())]
    Import { path: PathBuf, source: ImportError },
    #[error("{} is there already, expected another place or --force", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is not to be imported, expected a .netdev with its .network, or a .nmconnection", .0.display())]
    Kind(PathBuf),
}

/// Writes another program's files.
pub fn export(args: &ExportArgs) -> Result<(), Error> {
    let place = Place::find(&args.what)?;
    let quick = place.read()?;
    let exported = match args.format {
        Format::Networkd => networkd::export(place.interface.as_str(), &quick),
        Format::Networkmanager => nm::export(place.interface.as_str(), &quick),
    };
    tell(&place.file, &exported.lost);
    let Some(folder) = &args.output else {
        let mut out = io::stdout().lock();
        let many = exported.files.len() > 1;
        for file in &exported.files {
            // What both dialects take for a comment.
            let head = if many { format!("# {}\n", file.name) } else { String::new() };
            out.write_all(head.as_bytes()).and_then(|()| out.write_all(file.text.as_bytes())).map_err(Error::Output)?;
        }
        return out.flush().map_err(Error::Output);
    };
    let failed = |path: &Path, source| ExchangeError::Write { path: path.to_owned(), source };
    files::make_folder(folder).map_err(|source| failed(folder, source))?;
    let paths: Vec<PathBuf> = exported.files.iter().map(|file| folder.join(&file.name)).collect();
    // All of them or none, as far as can be told beforehand.
    if let Some(there) = paths.iter().find(|path| !args.force && path.symlink_metadata().is_ok()) {
        return Err(ExchangeError::Exists(there.clone()).into());
    }
    for (file, path) in exported.files.iter().zip(&paths) {
        put(path, file.text.as_bytes(), readers(file, args.format), args.force)?;
        writeln!(io::stdout(), "{}", path.display()).map_err(Error::Output)?;
    }
    Ok(())
}

fn readers(file: &ExportedFile, format: Format) -> Readers {
    match (file.secret, format) {
        (false, _) => Readers::All,
        (true, Format::Networkd) => files::group(NETWORKD).map_or(Readers::Owner, Readers::Group),
        (true, Format::Networkmanager) => Readers::Owner,
    }
}

/// Prints or writes a file of wg-quick's.
pub fn import(args: &ImportArgs) -> Result<(), Error> {
    let imported = match &args.files[..] {
        [file] if has_ending(file, "nmconnection") => {
            nm::import(&conf::read(file)?, &SystemServices).map_err(|error| wrong(file, error))?
        }
        [netdev] if has_ending(netdev, "netdev") => {
            let beside = netdev.with_extension("network");
            if beside.exists() {
                eprintln!("wireloom: {}: read as well", beside.display());
                from_networkd(netdev, Some(&beside))?
            } else {
                let imported = from_networkd(netdev, None)?;
                eprintln!(
                    "wireloom: {}: without its .network there are no addresses, expected that as another argument",
                    netdev.display()
                );
                imported
            }
        }
        [netdev, network] if has_ending(netdev, "netdev") && has_ending(network, "network") => {
            from_networkd(netdev, Some(network))?
        }
        [network, netdev] if has_ending(netdev, "netdev") && has_ending(network, "network") => {
            from_networkd(netdev, Some(network))?
        }
        files => {
            let known =
                |file: &&PathBuf| !["netdev", "network", "nmconnection"].iter().any(|end| has_ending(file, end));
            let odd = files.iter().find(known).or(files.first());
            return Err(ExchangeError::Kind(odd.cloned().unwrap_or_default()).into());
        }
    };
    tell(&args.files.iter().find(|file| !has_ending(file, "network")).cloned().unwrap_or_default(), &imported.lost);
    let text = print::whole(&imported.quick);
    let Some(output) = &args.output else {
        let mut out = io::stdout().lock();
        return out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::Output);
    };
    let path = if output.is_dir() { output.join(format!("{}.conf", imported.interface)) } else { output.clone() };
    put(&path, text.as_bytes(), Readers::Owner, args.force)?;
    writeln!(io::stdout(), "{}", path.display()).map_err(Error::Output)
}

fn from_networkd(netdev: &Path, network: Option<&PathBuf>) -> Result<Imported, Error> {
    let mut parsed = None;
    if let Some(path) = network {
        let network = Network::parse(&conf::read(path)?, &SystemTables).map_err(|error| wrong(path, error))?;
        tell(path, network.lost());
        parsed = Some(network);
    }
    let text = conf::read(netdev)?;
    Ok(networkd::import(&text, parsed, &SystemServices, &SystemTables).map_err(|error| wrong(netdev, error))?)
}

fn wrong(path: &Path, source: ImportError) -> ExchangeError {
    ExchangeError::Import { path: path.to_owned(), source }
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|extension| extension == ending)
}

/// Tells what the other side has no words for.
fn tell(path: &Path, lost: &[Lost]) {
    for lost in lost {
        let space = if lost.has_line() { "" } else { " " };
        eprintln!("wireloom: {}:{space}{lost}", path.display());
    }
}

fn put(path: &Path, text: &[u8], readers: Readers, force: bool) -> Result<(), ExchangeError> {
    let put = if force { files::replace(path, text, readers) } else { files::create(path, text, readers) };
    put.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => ExchangeError::Exists(path.to_owned()),
        _ => ExchangeError::Write { path: path.to_owned(), source },
    })
}
