//! A witness of what two ends say to each other on the wire, which holds them to what they must never do.
//!
//! A key seals each counter once: whoever seals two messages with one nonce gives both away, and the key that authenticates them with it.
//! A session is one key for each direction, and on the wire it is known by the index of who receives. So no pair of an index and a counter
//! may be sent twice by an end, by whichever of its hands, and whatever has happened to it in between.
//!
//! And a session lasts as long as it may: an end that begins another one long before that has lost it. When a session began the witness
//! knows by the response that made it, which names the indices of both ends.
//!
//! It sees what is sent, in the order of its sender; what somebody else repeats must be kept from it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::numbers::Numbers;

/// What an end has done that it must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offence {
    /// It sealed two messages with one nonce.
    NonceReused {
        /// Which end.
        by_left: bool,
        /// The receiver's index, as on the wire, read as little endian.
        index: u32,
        /// The counter.
        counter: u64,
        /// Whether both messages were the same.
        same: bool,
    },
    /// It began a session though the one that it was sending with was young.
    SessionLost {
        /// Which end.
        by_left: bool,
        /// The age of the session.
        age: Duration,
    },
}

/// One direction of a session.
#[derive(Debug, Default)]
struct Key {
    counters: Numbers,
    /// A hash of the last few messages, so that a mere repetition can be told.
    last: HashMap<u64, u64>,
}

/// How many messages of each key are remembered.
const REMEMBERED: u64 = 4096;

/// The witness.
#[derive(Debug)]
pub struct Witness {
    /// No session is renewed before this age.
    young: Duration,
    keys: HashMap<(bool, u32), Key>,
    /// When the session of a receiver's index was made, by who sends to it.
    made: HashMap<(bool, u32), Instant>,
    /// What each end sends to: right, left.
    sending: [Option<u32>; 2],
    messages: u64,
    sessions: u64,
    offences: Vec<Offence>,
}

impl Witness {
    /// A witness to whom sessions of less than this age are young.
    pub fn new(young: Duration) -> Witness {
        Witness {
            young,
            keys: HashMap::new(),
            made: HashMap::new(),
            sending: [None; 2],
            messages: 0,
            sessions: 0,
            offences: Vec::new(),
        }
    }

    /// Sees a message.
    pub fn see(&mut self, by_left: bool, message: &[u8], at: Instant) {
        let word = |from: usize| Some(u32::from_le_bytes(*message.get(from..)?.first_chunk()?));
        match (message.first(), message.len()) {
            (Some(1), 148) => self.initiation(by_left, at),
            (Some(2), 92) => {
                if let (Some(own), Some(other)) = (word(4), word(8)) {
                    self.sessions += 1;
                    self.made.insert((by_left, other), at);
                    self.made.insert((!by_left, own), at);
                }
            }
            (Some(4), 32..) => {
                let counter = message[8..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
                if let (Some(index), Some(counter)) = (word(4), counter) {
                    self.data(by_left, index, counter, message);
                }
            }
            _ => {}
        }
    }

    fn initiation(&mut self, by_left: bool, at: Instant) {
        let made = self.sending[usize::from(by_left)].and_then(|index| self.made.get(&(by_left, index)));
        if let Some(age) = made.map(|made| at.duration_since(*made)).filter(|age| *age < self.young) {
            self.offences.push(Offence::SessionLost { by_left, age });
        }
    }

    fn data(&mut self, by_left: bool, index: u32, counter: u64, message: &[u8]) {
        self.messages += 1;
        self.sending[usize::from(by_left)] = Some(index);
        let key = self.keys.entry((by_left, index)).or_default();
        let hash = hash(message);
        if key.counters.insert(counter) {
            key.last.insert(counter % REMEMBERED, hash);
        } else {
            let same = key.last.get(&(counter % REMEMBERED)) == Some(&hash);
            self.offences.push(Offence::NonceReused { by_left, index, counter, same });
        }
    }

    /// Data messages seen.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Sessions that were made.
    pub fn sessions(&self) -> u64 {
        self.sessions
    }

    /// What was done that must not be.
    pub fn offences(&self) -> &[Offence] {
        &self.offences
    }
}

/// FNV-1a: it need not withstand anybody.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(index: u32, counter: u64, body: u8) -> Vec<u8> {
        let mut message = vec![4, 0, 0, 0];
        message.extend(index.to_le_bytes());
        message.extend(counter.to_le_bytes());
        message.extend([body; 32]);
        message
    }

    fn response(own: u32, other: u32) -> Vec<u8> {
        let mut message = vec![0; 92];
        message[0] = 2;
        message[4..8].copy_from_slice(&own.to_le_bytes());
        message[8..12].copy_from_slice(&other.to_le_bytes());
        message
    }

    fn initiation() -> Vec<u8> {
        let mut message = vec![0; 148];
        message[0] = 1;
        message
    }

    #[test]
    fn a_planted_nonce_is_found() {
        let (mut witness, at) = (Witness::new(Duration::from_secs(100)), Instant::now());
        for counter in 0..10_000 {
            // Both ends, and two sessions, may have the same counters.
            for (by_left, index) in [(true, 7), (false, 7), (true, 8)] {
                witness.see(by_left, &data(index, counter, counter as u8), at);
            }
        }
        assert_eq!((witness.messages(), witness.offences()), (30_000, &[][..]));
        witness.see(true, &data(7, 20_000, 1), at);
        witness.see(true, &data(7, 15_000, 1), at);
        assert_eq!(witness.offences(), []);
        // A counter that was rewound, long ago and just now, and a message that was sent twice.
        witness.see(true, &data(7, 3, 0xee), at);
        witness.see(false, &data(7, 9_999, 0xee), at);
        witness.see(true, &data(8, 9_998, 9_998_u64 as u8), at);
        let reused = |by_left, index, counter, same| Offence::NonceReused { by_left, index, counter, same };
        let expected = [reused(true, 7, 3, false), reused(false, 7, 9_999, false), reused(true, 8, 9_998, true)];
        assert_eq!(witness.offences(), expected);
    }

    #[test]
    fn a_session_that_was_lost_is_told_from_one_that_was_renewed() {
        let (mut witness, start) = (Witness::new(Duration::from_secs(100)), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        witness.see(true, &initiation(), at(0));
        witness.see(false, &response(2, 1), at(0));
        witness.see(true, &data(2, 0, 0), at(1));
        witness.see(false, &data(1, 0, 0), at(1));
        // Due, answered, and before the answer is used asked again, since it was lost: all that is in order.
        witness.see(true, &initiation(), at(120));
        witness.see(false, &response(4, 3), at(120));
        witness.see(true, &data(2, 1, 0), at(121));
        witness.see(true, &initiation(), at(125));
        witness.see(false, &response(6, 5), at(125));
        witness.see(true, &data(6, 0, 0), at(126));
        assert_eq!((witness.sessions(), witness.offences()), (3, &[][..]));
        // The other end, too, may begin when it is due; this one is not.
        witness.see(false, &data(5, 0, 0), at(126));
        witness.see(false, &initiation(), at(150));
        let lost = Offence::SessionLost { by_left: false, age: Duration::from_secs(25) };
        assert_eq!(witness.offences(), [lost]);
    }
}
