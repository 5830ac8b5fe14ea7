//! ICMP errors to the senders of inner packets that cannot go on: rate-limited, and sent as packets of this host, from the address that it
//! has on the way to the sender (see `linux::icmp` for why not through the TUN).

use super::shared::Shared;
use inet::{
    icmp::{self, Reason},
    ip::{IpPacket, Version},
};
use linux::{
    icmp::{RawSockets, send_in},
    netns,
    tun::Queue,
};
use noise::Instant;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

/// How errors get into the network namespace of the inner device.
pub(crate) enum Way {
    /// It is ours.
    Here(RawSockets),
    /// It is another one, where this device is. No socket may stay in it, so that it can end.
    There(Queue),
}

impl Way {
    /// To where the device is now; home is where this process lives.
    pub(crate) fn to(queue: &Queue, home: BorrowedFd<'_>) -> io::Result<Self> {
        let netns = queue.netns()?;
        if netns::same(netns.as_fd(), home)? {
            Ok(Self::Here(RawSockets::open_in(netns.as_fd())?))
        } else {
            Ok(Self::There(queue.try_clone()?))
        }
    }

    fn send(&self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        match self {
            Self::Here(raw) => raw.send(packet, to),
            Self::There(queue) => send_in(queue.netns()?.as_fd(), packet, to),
        }
    }

    /// How much of the rate an error takes up.
    fn cost(&self) -> u32 {
        match self {
            Self::Here(_) => 1,
            // The worker waits for a socket to be made each time.
            Self::There(_) => 10,
        }
    }
}

/// One error (or a tenth, see [`Way::cost`]) in this time, once the burst is used up.
const INTERVAL: Duration = Duration::from_millis(10);
/// Errors that may follow each other at once.
const BURST: u32 = 50;

/// Sends ICMP errors for one worker.
pub(crate) struct Errors {
    tokens: u32,
    refilled: Instant,
}

impl Errors {
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: BURST, refilled: now }
    }

    /// Tells the sender of `packet` why it did not go on, if the rate allows it.
    pub(crate) fn send(&mut self, shared: &Shared, reason: Reason, packet: &[u8]) {
        let Ok(ip) = IpPacket::parse(packet) else { return };
        let Some(way) = &*shared.errors.load() else { return };
        // The kernel knows which of this host's addresses goes with the way there.
        let source = match ip.version() {
            Version::V4 => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            Version::V6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let mut out = [0; icmp::MAX_LEN];
        // First whether the packet deserves an error: those that do not must not use up the rate.
        let now = super::shared::now();
        if let Some(len) = icmp::error(reason, packet, source, &mut out).filter(|_| self.allows(now, way.cost())) {
            // An error message is a courtesy: if it cannot be sent, nobody needs to know.
            let _ = way.send(&out[..len], ip.src());
        }
    }

    fn allows(&mut self, now: Instant, cost: u32) -> bool {
        let steps = now.saturating_since(self.refilled).as_nanos() / INTERVAL.as_nanos();
        if steps > 0 {
            let steps = steps.min(u128::from(BURST)) as u32;
            self.tokens = BURST.min(self.tokens.saturating_add(steps));
            // What is left of an interval counts towards the next token, but not what a long silence would have given.
            self.refilled = if self.tokens == BURST { now } else { self.refilled + steps * INTERVAL };
        }
        let left = self.tokens.checked_sub(cost);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_bounded() {
        let start = Instant::from_nanos(1 << 40);
        let mut errors = Errors::new(start);
        assert_eq!((0..1000).filter(|_| errors.allows(start, 1)).count(), BURST as usize);
        assert!(errors.allows(start + INTERVAL, 1));
        assert!(!errors.allows(start + INTERVAL, 1));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..1000).filter(|_| errors.allows(later, 1)).count(), BURST as usize);
        // What costs more comes less often.
        assert_eq!((1..=100).filter(|i| errors.allows(later + *i * INTERVAL, 10)).count(), 10);
    }
}
