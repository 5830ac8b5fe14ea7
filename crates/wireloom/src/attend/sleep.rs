//! Keys wiped before the machine sleeps.
//!
//! logind tells by a signal that the machine is about to sleep (`PrepareForSleep`), and waits, for some seconds, for those who hold a delay inhibitor.
//! So we hold one: *awake* → (the signal) → the device wipes its sessions and keeps still → only then the inhibitor is let go → *asleep* → (the signal
//! that it is over) → the device is let go, and sessions begin anew as there is something to send → another inhibitor → *awake*.
//!
//! The device is kept still by a connection that stays open ([`client::wipe`]). Should this process end, it is let go, and the worst that can come of it
//! are new keys before the sleep. The private key stays: without it the device could not begin anew without whoever has it. What was recorded of
//! its traffic it does not open.
//!
//! Everybody on the bus can send a signal of any name to anybody, so the one that counts is logind's: it comes from whoever owns its name, which the
//! bus itself tells. A logind that comes in place of another has heard of no inhibitor yet, and is asked for one.
//!
//! All this happens in a thread of its own, which sleeps in between.

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use config::value::Quoted;
use nix::sys::socket::UnixAddr;
use rustbus::connection::ll_conn::force_finish_on_error;
use rustbus::connection::{self, Timeout};
use rustbus::message_builder::MarshalledMessage;
use rustbus::wire::UnixFd;
use rustbus::wire::errors::{MarshalError, UnmarshalError};
use rustbus::{MessageBuilder, MessageType, RpcConn, standard_messages};

use crate::client;

/// Where the system's bus is, unless DBUS_SYSTEM_BUS_ADDRESS says otherwise.
const BUS: &str = "/run/dbus/system_bus_socket";
const NAME: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SIGNAL: &str = "PrepareForSleep";
/// The bus itself. Nobody else can send by this name.
const BUS_NAME: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
const OWNER_CHANGED: &str = "NameOwnerChanged";

/// How long an answer of the bus may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to the next attempt, when the bus is lost.
const PAUSE: Duration = Duration::from_secs(30);

/// Why suspend cannot be waited for.
#[derive(Debug, thiserror::Error)]
pub enum NoLogind {
    /// There is no bus, or it is lost.
    #[error("{}", said(.0))]
    Bus(#[from] connection::Error),
    /// What the bus was told, or tells, is no message.
    #[error("{0}")]
    Question(#[from] MarshalError),
    /// What it tells is something else than was asked for.
    #[error("its answer is not understood: {0:?}")]
    Answer(#[from] UnmarshalError),
    /// It refuses, and says why.
    #[error("{0}")]
    Refused(String),
    /// The environment names a bus that we cannot take.
    #[error("DBUS_SYSTEM_BUS_ADDRESS is {0}, expected unix:path=…")]
    Address(Quoted),
}

/// What has happened, without the names of whose errors they are.
fn said(error: &connection::Error) -> String {
    match error {
        connection::Error::IoError(error) => error.to_string(),
        connection::Error::NixError(errno) => errno.desc().to_owned(),
        error => error.to_string(),
    }
}

/// The duty, taken up: it holds an inhibitor.
pub(super) struct Sleep {
    interface: String,
    bus: RpcConn,
    /// The connection that is logind's, by the name that the bus gave it; empty while there is none.
    logind: String,
    inhibitor: Option<UnixFd>,
    /// While this is open the device keeps still.
    still: Option<UnixStream>,
}

impl Sleep {
    /// Asks logind to be waited for.
    pub(super) fn new(interface: &str) -> Result<Sleep, NoLogind> {
        let mut bus = RpcConn::connect_to_path(address()?, Timeout::Duration(PATIENCE))?;
        // Before the inhibitor is had, so that no signal is missed that it delays.
        for rule in [
            format!("type='signal',sender='{NAME}',path='{PATH}',interface='{MANAGER}',member='{SIGNAL}'"),
            format!("type='signal',sender='{BUS_NAME}',path='{BUS_PATH}',member='{OWNER_CHANGED}',arg0='{NAME}'"),
        ] {
            call(&mut bus, &mut standard_messages::add_match(&rule))?;
        }
        // It also starts logind, if that has not been needed yet.
        let inhibitor = Some(inhibit(&mut bus, interface)?);
        let mut whose =
            MessageBuilder::new().call("GetNameOwner").on(BUS_PATH).with_interface(BUS_NAME).at(BUS_NAME).build();
        whose.body.push_param(NAME)?;
        let logind = call(&mut bus, &mut whose)?.body.parser().get()?;
        Ok(Sleep { interface: interface.to_owned(), bus, logind, inhibitor, still: None })
    }

    /// Waits in a thread for the machine to sleep, and again, until the process ends.
    pub(super) fn spawn(mut self) -> std::io::Result<()> {
        thread::Builder::new().name("sleep".into()).spawn(move || {
            loop {
                let error = self.serve();
                // Nobody would tell that the sleep is over.
                self.still = None;
                log::error!(
                    "{}: keys are not wiped before suspend until there is logind again: {error}",
                    self.interface
                );
                self = loop {
                    thread::sleep(PAUSE);
                    if let Ok(again) = Sleep::new(&self.interface) {
                        break again;
                    }
                };
            }
        })?;
        Ok(())
    }

    /// Follows the signals until the bus is lost.
    fn serve(&mut self) -> NoLogind {
        loop {
            let signal = match self.bus.wait_signal(Timeout::Infinite) {
                Ok(signal) => signal,
                Err(error) => return error.into(),
            };
            let done = match Heard::of(&signal, &self.logind) {
                Some(Heard::Sleep(true)) => {
                    self.fall_asleep();
                    Ok(())
                }
                Some(Heard::Sleep(false)) => self.wake_up(),
                Some(Heard::Logind(owner)) => self.follow(owner),
                None => Ok(()),
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    fn fall_asleep(&mut self) {
        match client::wipe(&self.interface) {
            Ok(connection) => {
                self.still = Some(connection);
                log::debug!("keys are wiped: the machine is about to sleep");
            }
            Err(error) => log::error!("keys are not wiped before suspend: {error}"),
        }
        self.inhibitor = None;
    }

    fn wake_up(&mut self) -> Result<(), NoLogind> {
        self.still = None;
        if self.inhibitor.is_none() {
            self.inhibitor = Some(inhibit(&mut self.bus, &self.interface)?);
        }
        Ok(())
    }

    /// Another is logind, or nobody is for now: what was announced by the one that has gone is over.
    fn follow(&mut self, owner: String) -> Result<(), NoLogind> {
        self.logind = owner;
        self.inhibitor = None;
        self.still = None;
        if self.logind.is_empty() { Ok(()) } else { self.wake_up() }
    }
}

/// What a signal tells.
enum Heard {
    /// The machine is about to sleep, or no longer.
    Sleep(bool),
    /// Which connection is logind's from now on; empty for none.
    Logind(String),
}

impl Heard {
    /// `None` for what does not come from whom it would have to, whatever it says.
    fn of(signal: &MarshalledMessage, logind: &str) -> Option<Heard> {
        let head = &signal.dynheader;
        let word = |word: &Option<String>| word.clone().unwrap_or_default();
        let (sender, path) = (word(&head.sender), word(&head.object));
        match (word(&head.interface).as_str(), word(&head.member).as_str()) {
            (MANAGER, SIGNAL) if path == PATH && sender == logind && !logind.is_empty() => {
                Some(Heard::Sleep(signal.body.parser().get().ok()?))
            }
            (BUS_NAME, OWNER_CHANGED) if sender == BUS_NAME => {
                let (name, _, owner) = signal.body.parser().get3::<&str, &str, String>().ok()?;
                (name == NAME).then_some(Heard::Logind(owner))
            }
            _ => None,
        }
    }
}

/// A delay inhibitor: as long as it is open, logind waits with what it has announced.
fn inhibit(bus: &mut RpcConn, interface: &str) -> Result<UnixFd, NoLogind> {
    let mut request = MessageBuilder::new().call("Inhibit").on(PATH).with_interface(MANAGER).at(NAME).build();
    let who = format!("Wireloom ({interface})");
    request.body.push_param4("sleep", who.as_str(), "Session keys are wiped", "delay")?;
    let answer = call(bus, &mut request)?;
    Ok(answer.body.parser().get()?)
}

fn call(bus: &mut RpcConn, request: &mut MarshalledMessage) -> Result<MarshalledMessage, NoLogind> {
    let patience = Timeout::Duration(PATIENCE);
    let serial = bus.send_message(request)?.write(patience).map_err(force_finish_on_error)?;
    let answer = bus.wait_response(serial, patience)?;
    if answer.typ == MessageType::Error {
        let text = answer.body.parser().get::<String>().ok();
        let why = text.or(answer.dynheader.error_name).unwrap_or_else(|| "it refuses".to_owned());
        return Err(NoLogind::Refused(Quoted::new(&why).to_string()));
    }
    Ok(answer)
}

/// The address of the system's bus: a path, or an abstract name.
fn address() -> Result<UnixAddr, NoLogind> {
    let Ok(address) = std::env::var("DBUS_SYSTEM_BUS_ADDRESS") else {
        return Ok(UnixAddr::new(BUS).map_err(connection::Error::from)?);
    };
    // A list of addresses, of which the first that we can take.
    let mut options = address.split(';').filter_map(|one| one.strip_prefix("unix:")).flat_map(|one| one.split(','));
    let found = options.find_map(|option| match option.split_once('=')? {
        ("path", path) => Some(UnixAddr::new(path)),
        ("abstract", name) => Some(UnixAddr::new_abstract(name.as_bytes())),
        _ => None,
    });
    Ok(found.ok_or_else(|| NoLogind::Address(Quoted::new(&address)))?.map_err(connection::Error::from)?)
}
