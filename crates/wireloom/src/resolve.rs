//! Endpoints to addresses, and the names of services to ports.
//!
//! A name that cannot be resolved *now* is tried again, after 1 second and then ever longer, up to 20; one that does not exist is not. How
//! often is told by `WG_ENDPOINT_RESOLUTION_RETRIES`: a number, 15 if it is not set, or `infinity`. What else it says is refused as
//! soon as there is an endpoint, be it an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use config::value::{HostPort, Quoted, Services};
use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind, SockType, getaddrinfo};

use crate::error::Error;

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(20);
const DEFAULT_RETRIES: u32 = 15;

/// Resolves the endpoints of one command.
#[derive(Default)]
pub struct Resolver {
    /// What the environment says; read with the first endpoint.
    retries: Option<Retries>,
    /// Whether somebody has interrupted, so that no name is waited for any longer.
    interrupted: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retries {
    Endless,
    Times(u32),
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    /// Whether asking again is of no use.
    permanent: bool,
    reason: String,
}

impl Resolver {
    /// One that gives up when the flag is set.
    pub fn stopped_by(interrupted: Arc<AtomicBool>) -> Resolver {
        Resolver { retries: None, interrupted }
    }

    /// The address of an endpoint that is written as one.
    pub fn literal(endpoint: &HostPort) -> Option<SocketAddr> {
        Some(SocketAddr::new(endpoint.host.parse::<IpAddr>().ok()?, endpoint.port))
    }

    /// The first address of `endpoint`.
    pub fn resolve(&mut self, endpoint: &HostPort) -> Result<SocketAddr, Error> {
        let retries = match self.retries {
            Some(retries) => retries,
            None => *self.retries.insert(Retries::from_environment()?),
        };
        if let Some(address) = Resolver::literal(endpoint) {
            return Ok(address);
        }
        insist(
            retries,
            || lookup(endpoint),
            |failure, delay| {
                eprintln!(
                    "wireloom: {}: '{endpoint}'; trying again in {:.2} seconds",
                    failure.reason,
                    delay.as_secs_f64()
                );
                pause(delay, &self.interrupted)
            },
        )
        .map_err(|failure| Error::Resolve { endpoint: endpoint.to_string(), reason: failure.reason })
    }
}

/// The address of an endpoint, if it can be told at the first attempt.
pub fn resolve_once(endpoint: &HostPort) -> Option<SocketAddr> {
    Resolver::literal(endpoint).or_else(|| lookup(endpoint).ok())
}

/// Sleeps for so long; false once somebody has interrupted.
fn pause(delay: Duration, interrupted: &AtomicBool) -> bool {
    let until = Instant::now() + delay;
    while !interrupted.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(Duration::from_millis(100)));
    }
    false
}

/// Asks until there is an answer, or no hope of one; `wait` is called in between, and says whether to go on.
fn insist<T>(
    retries: Retries,
    mut ask: impl FnMut() -> Result<T, Failure>,
    mut wait: impl FnMut(&Failure, Duration) -> bool,
) -> Result<T, Failure> {
    let mut delay = FIRST_DELAY;
    let mut left = retries;
    loop {
        let failure = match ask() {
            Err(failure) if !failure.permanent => failure,
            settled => return settled,
        };
        match &mut left {
            Retries::Times(0) => return Err(failure),
            Retries::Times(times) => *times -= 1,
            Retries::Endless => {}
        }
        if !wait(&failure, delay) {
            return Err(failure);
        }
        delay = (delay * 6 / 5).min(LONGEST_DELAY);
    }
}

/// The first address, which is one that can be reached if any can: the C library puts those without a route last (RFC 6724, rule 1).
fn lookup(endpoint: &HostPort) -> Result<SocketAddr, Failure> {
    let address = ask(endpoint)?.into_iter().next();
    address.ok_or_else(|| Failure { permanent: true, reason: "the name has no address".to_owned() })
}

fn ask(endpoint: &HostPort) -> Result<Vec<SocketAddr>, Failure> {
    let hints = AddrInfoHints { socktype: SockType::DGram.into(), ..AddrInfoHints::default() };
    let found =
        getaddrinfo(Some(&endpoint.host), Some(&endpoint.port.to_string()), Some(hints)).map_err(Failure::from)?;
    Ok(found.filter_map(Result::ok).map(|info| info.sockaddr).collect())
}

/// All addresses of an endpoint to which there is a route, or all of them if there is none to any, in the order of the C library. Asks once; may take
/// as long as the system's resolver likes.
///
/// # Errors
/// Why there is none, in words.
pub fn addresses(endpoint: &HostPort) -> Result<Vec<SocketAddr>, String> {
    let found = ask(endpoint).map_err(|failure| failure.reason)?;
    let (with, without): (Vec<_>, Vec<_>) = found.into_iter().partition(has_route);
    Ok(if with.is_empty() { without } else { with })
}

/// Whether the kernel would send there. Connecting a socket asks it, and sends nothing.
fn has_route(address: &SocketAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(address)).is_ok()
}

impl From<LookupError> for Failure {
    /// Those that the C library calls permanent; all others may pass.
    fn from(error: LookupError) -> Failure {
        let permanent =
            matches!(error.kind(), LookupErrorKind::NoName | LookupErrorKind::NoData | LookupErrorKind::Fail);
        let reason = error.to_string();
        let reason = reason.strip_prefix("failed to lookup address information: ").unwrap_or(&reason).to_owned();
        Failure { permanent, reason }
    }
}

impl Retries {
    fn from_environment() -> Result<Retries, Error> {
        match std::env::var_os("WG_ENDPOINT_RESOLUTION_RETRIES") {
            None => Ok(Retries::Times(DEFAULT_RETRIES)),
            Some(text) => {
                let text = text.to_string_lossy();
                Retries::parse(&text).ok_or_else(|| Error::Retries(Quoted::new(&text)))
            }
        }
    }

    /// An empty text is no retry at all, and the largest number is that of a C `int`: as `wg` has it.
    fn parse(text: &str) -> Option<Retries> {
        match text {
            "infinity" => Some(Retries::Endless),
            "" => Some(Retries::Times(0)),
            _ => text.parse().ok().filter(|&times| times <= i32::MAX as u32).map(Retries::Times),
        }
    }
}

/// The UDP services that this system knows.
pub struct SystemServices;

impl Services for SystemServices {
    fn port(&self, name: &str) -> Option<u16> {
        let hints = AddrInfoHints { socktype: SockType::DGram.into(), ..AddrInfoHints::default() };
        let mut found = getaddrinfo(None, Some(name), Some(hints)).ok()?;
        found.next()?.ok().map(|info| info.sockaddr.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing() -> Failure {
        Failure { permanent: false, reason: "later".to_owned() }
    }

    #[test]
    fn waits_ever_longer_but_not_for_ever() {
        let mut waits = Vec::new();
        let result: Result<(), _> = insist(
            Retries::Times(20),
            || Err(passing()),
            |_, delay| {
                waits.push(delay.as_secs_f64());
                true
            },
        );
        assert_eq!(result, Err(passing()));
        assert_eq!(waits.len(), 20);
        assert_eq!(waits[..3], [1.0, 1.2, 1.44]);
        assert!(waits.is_sorted());
        assert_eq!(waits[19], 20.0);
    }

    #[test]
    fn stops_at_an_answer_and_where_there_is_no_hope() {
        let mut answers = vec![Ok(7), Err(passing()), Err(passing())];
        let mut waits = 0;
        let wait = |_: &Failure, _| {
            waits += 1;
            true
        };
        assert_eq!(insist(Retries::Endless, || answers.pop().unwrap(), wait), Ok(7));
        assert_eq!(waits, 2);
        let permanent = Failure { permanent: true, reason: "never".to_owned() };
        let result: Result<(), _> = insist(Retries::Endless, || Err(permanent.clone()), |_, _| panic!("waited"));
        assert_eq!(result, Err(permanent));
        // Nor where nobody wants to know any more.
        let result: Result<(), _> = insist(Retries::Endless, || Err(passing()), |_, _| false);
        assert_eq!(result, Err(passing()));
        assert!(!pause(LONGEST_DELAY, &AtomicBool::new(true)) && pause(Duration::ZERO, &AtomicBool::new(false)));
    }

    #[test]
    fn the_environment_says_how_often() {
        assert_eq!(Retries::parse("infinity"), Some(Retries::Endless));
        assert_eq!(Retries::parse("0"), Some(Retries::Times(0)));
        assert_eq!(Retries::parse(""), Some(Retries::Times(0)));
        assert_eq!(Retries::parse("2147483647"), Some(Retries::Times(2147483647)));
        for text in ["2147483648", "-1", "many", "Infinity", "1s"] {
            assert_eq!(Retries::parse(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_need_no_resolver() {
        let mut resolver = Resolver { retries: Some(Retries::Times(0)), ..Resolver::default() };
        let mut resolve =
            |host: &str| resolver.resolve(&HostPort { host: host.to_owned(), port: 7 }).map(|a| a.to_string());
        assert_eq!(resolve("192.0.2.1").unwrap(), "192.0.2.1:7");
        assert_eq!(resolve("2001:db8::1").unwrap(), "[2001:db8::1]:7");
        assert_eq!(resolve("fe80::1%1").unwrap(), "[fe80::1%1]:7");
    }
}
