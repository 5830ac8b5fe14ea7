//! What can be typed.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use config::show::{FIELDS, Field};

use crate::attend::AttendArgs;
use crate::capture::CaptureArgs;
use crate::complete::{self, Shell};
use crate::doctor::DoctorArgs;
use crate::exchange::{ExportArgs, ImportArgs};
use crate::interface::InterfaceName;
#[cfg(feature = "lab")]
use crate::laboratory::LabArgs;
use crate::manual;
use crate::policy::PolicyArgs;
use crate::quick::{DownArgs, ReloadArgs, UpArgs};
use crate::run::RunArgs;
use crate::top::TopArgs;

const ABOUT: &str = "WireGuard for Linux at line rate, with no kernel module";

const LONG_ABOUT: &str = "\
Wireloom runs WireGuard interfaces and configures them. It speaks the stock protocol, and its
commands are those of wg(8).

A tunnel from the file of wg-quick(8), /etc/wireguard/wg0.conf:

  wireloom up wg0                                # or at each boot: systemctl enable --now wireloom@wg0
  wireloom down wg0

A tunnel by hand:

  umask 077
  wireloom genkey > private                      # and send `wireloom pubkey < private` to the other side
  wireloom run wg0                               # creates the interface; goes on in the background
  wireloom set wg0 listen-port 51820 private-key private \\
      peer PUBLIC-KEY-OF-THE-OTHER endpoint vpn.example.com:51820 allowed-ips 10.0.0.2/32
  ip address add 10.0.0.1/24 dev wg0
  ip link set wg0 up
  wireloom show wg0
  ip link delete wg0                             # ends it

With wg-quick(8) itself:

  WG_QUICK_USERSPACE_IMPLEMENTATION=wireloom wg-quick up wg0";

/// The command line.
#[derive(Parser)]
#[command(name = "wireloom", version, about = ABOUT, long_about = LONG_ABOUT)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Create an interface and run it, in the background once it is ready
    Run(RunArgs),
    /// Bring an interface up with all that its file says, or print what that would take
    Up(UpArgs),
    /// Take an interface down, and with it all that belongs to it
    Down(DownArgs),
    /// Show interfaces: all of them, or one, or one field of it
    Show(ShowArgs),
    /// Watch interfaces: their peers, what moves and what is lost, and how busy the workers are
    Top(TopArgs),
    /// Print the configuration of an interface as a file that setconf takes
    Showconf {
        /// The interface
        #[arg(add = ArgValueCompleter::new(complete::interface))]
        interface: InterfaceName,
    },
    /// Change an interface: its keys, port and mark, and its peers
    #[command(override_usage = SET_USAGE)]
    Set {
        /// The interface
        #[arg(add = ArgValueCompleter::new(complete::interface))]
        interface: InterfaceName,
        /// The settings
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        #[arg(add = ArgValueCompleter::new(complete::setting))]
        settings: Vec<String>,
    },
    /// Configure an interface as a file says, and nothing else
    Setconf(ConfArgs),
    /// Add what a file says to the configuration of an interface
    Addconf(ConfArgs),
    /// Configure an interface as a file says, without disturbing the peers that stay
    Syncconf(ConfArgs),
    /// Attend to an interface while it is there: resolve the names of endpoints again, wipe keys before suspend
    Attend(AttendArgs),
    /// Write the packets of an interface into a file, for a while
    Capture(CaptureArgs),
    /// Print the part of a file that setconf takes
    Strip {
        /// The interface, whose file is /etc/wireguard/NAME.conf, or a file
        #[arg(value_name = "NAME|FILE")]
        what: String,
    },
    /// Make an interface that is up what its file says now, without disturbing what stays
    Reload(ReloadArgs),
    /// Put the rules of a file in force, which say what may pass an interface, or show those that are
    Policy(PolicyArgs),
    /// Write what runs into the interface's file
    Save {
        /// The interface, whose file is /etc/wireguard/NAME.conf, or a file
        #[arg(value_name = "NAME|FILE")]
        what: String,
    },
    /// Write the files of systemd-networkd or NetworkManager for an interface
    Export(ExportArgs),
    /// Read the files of systemd-networkd or NetworkManager and print one of wg-quick's
    Import(ImportArgs),
    /// Print a new private key
    Genkey,
    /// Print a new preshared key
    Genpsk,
    /// Read a private key from standard input and print its public key
    Pubkey,
    /// Look for what is wrong with this machine, an interface or a file, and say what to do
    Doctor(DoctorArgs),
    /// Measure this and other tunnels on this machine, and tell how they compare
    #[cfg(feature = "lab")]
    Lab(LabArgs),
    /// Print a script that teaches a shell to complete our command lines
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages
    #[command(hide = true)]
    ManPages {
        /// The folder for them, which is made
        folder: PathBuf,
    },
}

const SET_USAGE: &str = "wireloom set INTERFACE [listen-port PORT] [fwmark MARK] [private-key FILE] \
    [peer KEY [remove] [preshared-key FILE] [endpoint HOST:PORT] [persistent-keepalive SECONDS] [allowed-ips [+|-]IP/LEN,...]]...";

/// What `show` shows.
#[derive(Args)]
pub struct ShowArgs {
    /// An interface, or `all` of them, or `interfaces` for their names alone
    #[arg(value_name = "INTERFACE|all|interfaces", default_value = "all")]
    #[arg(add = ArgValueCompleter::new(complete::shown))]
    pub what: String,
    /// One field, for scripts
    #[arg(value_parser = field_parser())]
    pub field: Option<Shown>,
    /// Print all that is known, as JSON
    #[arg(long, conflicts_with = "field")]
    pub json: bool,
}

/// One field of `show`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// One that `wg` has, too.
    Field(Field),
    /// What was dropped, by reason (docs/drops.md).
    Drops,
    /// The rules that say what may pass, and what each has taken.
    Policy,
}

const DROPS: &str = "drops";
const POLICY: &str = "policy";

fn field_parser() -> impl clap::builder::TypedValueParser<Value = Shown> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(FIELDS.map(|(name, _)| name).into_iter().chain([DROPS, POLICY])).try_map(|name| {
        match &*name {
            DROPS => Ok(Shown::Drops),
            POLICY => Ok(Shown::Policy),
            name => name.parse().map(Shown::Field),
        }
    })
}

/// An interface and a file.
#[derive(Args)]
pub struct ConfArgs {
    /// The interface
    #[arg(add = ArgValueCompleter::new(complete::interface))]
    pub interface: InterfaceName,
    /// The file, as described in wg(8)
    pub file: PathBuf,
}

/// The command line with all that its help says.
pub fn command() -> clap::Command {
    manual::with_help(Cli::command())
}

/// The names of the commands that anybody types.
pub fn commands() -> Vec<String> {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|command| command.get_name().to_owned()).collect()
}

/// Whether `word` is one of the commands.
pub fn is_command(word: &str) -> bool {
    Cli::command().get_subcommands().any(|command| command.get_name() == word)
}
