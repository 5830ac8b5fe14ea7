//! The life of an attendant.
//!
//! *Start*: it takes its place, finds the interface, makes its duties ready, and gives up its privileges; until then whoever started it
//! waits, and hears of what is wrong. *Attending*: one thread waits for descriptors and deadlines, and hands each to the duty that it belongs to.
//! *End*: the interface has gone, another attendant takes the place, or a signal came. There is no tick: without a deadline, it sleeps.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use linux::capabilities::{self, CapabilitySet};
use linux::link::{LinkEvent, Monitor};
use linux::poll::{BootTimer, Epoll, Event, Interest, Signal, SignalFd};
use linux::process::{self, Output};
use linux::unix::Listener;
use linux::{clock, memory, sandbox};

use super::names::Names;
use super::scrapes::Scrapes;
use super::sleep::Sleep;
use super::{AttendError, Duties, Name, os, take_place};
use crate::client;
use crate::interface::InterfaceName;
use crate::metrics::Metrics;
use crate::run;
use crate::zones::SystemZones;
use config::address::Zones;
use config::key;
use config::uapi::{EventReader, PeerEvent};
use noise::PublicKey;

/// What the attendant itself waits for.
mod token {
    pub(super) const LINK: u64 = 0;
    pub(super) const SIGNAL: u64 = 1;
    pub(super) const PLACE: u64 = 2;
    pub(super) const TIMER: u64 = 3;
}

/// One of the things that the attendant does. It waits for nothing itself: it says what is to be waited for, by a [`Watch`] and its deadline,
/// and is called when that has come. No call may take long.
pub(super) trait Duty {
    /// A descriptor that it watches is ready.
    fn ready(&mut self, which: u32, event: Event, watch: &Watch<'_>);

    /// The device tells what has happened to a peer.
    fn heard(&mut self, _event: &PeerEvent, _watch: &Watch<'_>) {}

    /// When [`Duty::due`] is to be called, in nanoseconds of boot time. Asked after each call.
    fn deadline(&self) -> Option<u64> {
        None
    }

    /// The deadline has passed.
    fn due(&mut self, _now: u64, _watch: &Watch<'_>) {}
}

/// By which a duty says which descriptors are to be watched for it, each with a number of its own.
pub(super) struct Watch<'a> {
    epoll: &'a Epoll,
    duty: u32,
}

impl<'a> Watch<'a> {
    /// For the duty of this number.
    pub(super) fn over(epoll: &'a Epoll, duty: u32) -> Watch<'a> {
        Watch { epoll, duty }
    }

    fn token(&self, which: u32) -> u64 {
        u64::from(self.duty + 1) << 32 | u64::from(which)
    }

    /// Watches a descriptor. It is watched no longer when it is closed.
    pub(super) fn add(&self, fd: impl AsFd, which: u32, interest: Interest) -> std::io::Result<()> {
        self.epoll.add(fd, self.token(which), interest)
    }
}

/// How it is heard that the interface has gone.
enum Link {
    /// By the connection on which the process that runs it tells what happens. Another program's device, that does not, is followed as the kernel's are.
    Told(Box<EventReader<UnixStream>>),
    /// By the kernel.
    Followed(Box<Monitor>),
}

impl Link {
    /// Finds the interface, and watches these peers of it.
    fn open(interface: &str, peers: &[Name]) -> Result<Link, AttendError> {
        let mut keys: Vec<PublicKey> =
            peers.iter().filter_map(|name| key::from_base64(name.public_key.as_bytes()).ok()).collect();
        if keys.is_empty() {
            // To name nobody is to watch all. This is nobody's.
            keys.push(PublicKey::from_bytes([0; 32]));
        }
        match client::watch(interface, &keys) {
            Ok(Some(events)) => {
                events.stream().set_nonblocking(true).map_err(os("connecting to the interface"))?;
                return Ok(Link::Told(Box::new(events)));
            }
            Ok(None) => {}
            Err(error) => return Err(AttendError::Refused(error.to_string())),
        }
        let index = SystemZones::open().index(interface);
        let index = index.ok_or_else(|| AttendError::NoInterface(interface.to_owned()))?;
        Ok(Link::Followed(Box::new(Monitor::open(index).map_err(os("following the interface"))?)))
    }

    /// What waits for the machine to sleep.
    fn wiping(&self, interface: &str) -> Result<Sleep, AttendError> {
        match self {
            Link::Told(_) => Ok(Sleep::new(interface)?),
            Link::Followed(_) => Err(AttendError::CannotWipe(interface.to_owned())),
        }
    }

    /// What it takes a privilege for.
    fn privileges(&self) -> CapabilitySet {
        match self {
            Link::Told(_) => CapabilitySet::empty(),
            Link::Followed(_) => CapabilitySet::NET_ADMIN,
        }
    }

    /// What else has happened to a peer; `None` when there is nothing for now.
    ///
    /// # Errors
    /// Why it is heard no more: the interface has gone, or we were cut off.
    fn next(&mut self) -> Result<Option<PeerEvent>, &'static str> {
        match self {
            Link::Told(events) => events.event().map_err(|_| "the device has hung up"),
            Link::Followed(monitor) => match monitor.any(|event| event == LinkEvent::Removed) {
                true => Err("the interface has gone"),
                false => Ok(None),
            },
        }
    }
}

/// Attends to an interface, in the background, until it has gone.
pub(super) fn run(interface: &str, duties: Duties) -> Result<(), AttendError> {
    let readiness = process::daemonise()?;
    let attendant = match Attendant::start(interface, duties) {
        Ok(attendant) => attendant,
        Err(error) => {
            readiness.fail(&error.to_string());
            std::process::exit(1);
        }
    };
    // What is logged goes to where standard output leads, which is where whoever started us wants it.
    rustix::stdio::dup2_stderr(rustix::stdio::stdout()).map_err(|error| os("going to the background")(error.into()))?;
    readiness.ready(Output::Keep).map_err(os("going to the background"))?;
    attendant.run()
}

struct Attendant {
    interface: String,
    epoll: Epoll,
    timer: BootTimer,
    link: Link,
    signals: SignalFd,
    place: Listener,
    duties: Vec<Box<dyn Duty>>,
    sleep: Option<Sleep>,
    /// Whom the device is watched for.
    names: Vec<Name>,
}

impl Attendant {
    fn start(interface: &str, duties: Duties) -> Result<Attendant, AttendError> {
        let name = |_| AttendError::NoInterface(interface.to_owned());
        run::log_to_stderr(&interface.parse::<InterfaceName>().map_err(name)?, run::log_level());
        rustix::thread::set_name(c"wl-attendant").map_err(|error| os("naming the process")(error.into()))?;
        memory::hide().map_err(os("keeping the memory out of core dumps"))?;
        let signals = SignalFd::new(&[Signal::Interrupt, Signal::Terminate]).map_err(os("taking over signals"))?;
        let place = take_place(interface)?;
        let link = Link::open(interface, &duties.names)?;
        let (epoll, timer) = (Epoll::new().map_err(os("waiting"))?, BootTimer::new().map_err(os("waiting"))?);
        let add = |fd: std::os::fd::BorrowedFd<'_>, token| epoll.add(fd, token, Interest::READ).map_err(os("waiting"));
        match &link {
            Link::Told(events) => add(events.stream().as_fd(), token::LINK)?,
            Link::Followed(monitor) => add(monitor.as_fd(), token::LINK)?,
        }
        add(signals.as_fd(), token::SIGNAL)?;
        add(place.as_fd(), token::PLACE)?;
        add(timer.as_fd(), token::TIMER)?;
        let sleep = duties.wipe_on_suspend.then(|| link.wiping(interface)).transpose()?;
        let names = duties.names.clone();
        let duties = taken_up(interface, duties, matches!(link, Link::Told(_)), &epoll)?;
        process::no_dump().map_err(os("making the process undumpable"))?;
        capabilities::keep_only(link.privileges()).map_err(os("giving up privileges"))?;
        sandbox::enter(sandbox::Role::Attendant);
        Ok(Attendant { interface: interface.to_owned(), epoll, timer, link, signals, place, duties, sleep, names })
    }

    /// Hands on what the device tells.
    ///
    /// # Errors
    /// As [`Link::next`].
    fn hear(&mut self) -> Result<(), &'static str> {
        while let Some(event) = self.link.next()? {
            for (number, duty) in self.duties.iter_mut().enumerate() {
                duty.heard(&event, &Watch::over(&self.epoll, number as u32));
            }
        }
        Ok(())
    }

    /// Watches the device again, if it is there: who was busy for too long is cut off, and so is everybody when a daemon hands over to another.
    fn listens_again(&mut self) -> bool {
        let Link::Told(_) = &self.link else { return false };
        match Link::open(&self.interface, &self.names) {
            Ok(Link::Told(events)) if self.epoll.add(events.stream(), token::LINK, Interest::READ).is_ok() => {
                self.link = Link::Told(events);
                true
            }
            _ => false,
        }
    }

    fn run(mut self) -> Result<(), AttendError> {
        // Here and not at the start, since it has a thread: that must be as unprivileged as this one.
        self.sleep.take().map(Sleep::spawn).transpose().map_err(os("starting a thread"))?;
        let mut events = [Event::EMPTY; 16];
        loop {
            let deadline = self.duties.iter().filter_map(|duty| duty.deadline()).min();
            self.timer.set(deadline).map_err(os("waiting"))?;
            let happened = self.epoll.wait(&mut events, None).map_err(os("waiting"))?;
            // First of all: whoever acts must not act on a peer that has just come back.
            if let Err(why) = self.hear()
                && !self.listens_again()
            {
                log::debug!("the attendant of {} ends: {why}", self.interface);
                return Ok(());
            }
            for &event in happened {
                let end = match event.token() {
                    // Heard already.
                    token::LINK => None,
                    token::SIGNAL => self.signals.next().map(|_| "a signal came"),
                    token::PLACE => self.place.accept().ok().map(|next| {
                        // Whoever asks for the place waits until this closes, with the process.
                        std::mem::forget(next);
                        "another takes the place"
                    }),
                    token::TIMER => {
                        self.timer.drain();
                        None
                    }
                    token => {
                        let (duty, which) = ((token >> 32) as u32 - 1, token as u32);
                        if let Some(it) = self.duties.get_mut(duty as usize) {
                            it.ready(which, event, &Watch::over(&self.epoll, duty));
                        }
                        None
                    }
                };
                if let Some(why) = end {
                    log::debug!("the attendant of {} ends: {why}", self.interface);
                    return Ok(());
                }
            }
            let now = clock::boot_nanos();
            for (number, duty) in self.duties.iter_mut().enumerate() {
                if duty.deadline().is_some_and(|deadline| deadline <= now) {
                    duty.due(now, &Watch::over(&self.epoll, number as u32));
                }
            }
        }
    }
}

/// Makes the duties ready, for a device that tells what happens to its peers, or does not.
fn taken_up(interface: &str, duties: Duties, tells: bool, epoll: &Epoll) -> Result<Vec<Box<dyn Duty>>, AttendError> {
    let mut all: Vec<Box<dyn Duty>> = Vec::new();
    let Duties { names, wipe_on_suspend: _, metrics } = duties;
    if !names.is_empty() {
        let watch = Watch::over(epoll, all.len() as u32);
        all.push(Box::new(Names::new(interface, names, tells, &watch)?));
    }
    if !metrics.is_empty() {
        let watch = Watch::over(epoll, all.len() as u32);
        all.push(Box::new(Scrapes::new(Metrics::open(interface, &metrics)?, &watch)?));
    }
    Ok(all)
}
