//! What carries the datagrams: it witnesses every one, passes it on, and repeats old ones as somebody would who has recorded them.

use std::time::Instant;

use lab::{Carrier, Witness};

/// How many messages of each direction are kept to be repeated.
const KEPT: usize = 4096;

/// Every so manieth message is kept, so that those that are kept go back some sessions.
const KEEP_EVERY: u64 = 13;

/// After every so manieth message an old one follows.
const REPEAT_EVERY: u64 = 5;

/// The carrier.
pub struct Recorder {
    /// What it says of what it has seen.
    pub witness: Witness,
    /// Messages repeated.
    pub repeated: u64,
    /// Messages of handshakes that have passed.
    pub handshakes: u64,
    kept: [Vec<Vec<u8>>; 2],
    passed: u64,
}

impl Recorder {
    /// One that has recorded nothing yet.
    pub fn new(witness: Witness) -> Recorder {
        Recorder { witness, repeated: 0, handshakes: 0, kept: [Vec::new(), Vec::new()], passed: 0 }
    }
}

impl Carrier for Recorder {
    fn carry(&mut self, from_left: bool, bytes: &[u8], send: &mut dyn FnMut(&[u8])) {
        self.witness.see(from_left, bytes, Instant::now());
        send(bytes);
        self.passed += 1;
        let is_data = bytes.first() == Some(&4);
        self.handshakes += u64::from(!is_data);
        let kept = &mut self.kept[usize::from(from_left)];
        // Messages of handshakes are few: all of them.
        if self.passed.is_multiple_of(KEEP_EVERY) || !is_data {
            match kept.len() < KEPT {
                true => kept.push(bytes.to_vec()),
                false => kept[(self.passed / KEEP_EVERY) as usize % KEPT] = bytes.to_vec(),
            }
        }
        if self.passed.is_multiple_of(REPEAT_EVERY) {
            // Anywhere, but the same in each run; and the one that has just passed.
            let at = self.passed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            let kept = kept.get(at as usize % kept.len().max(1)).filter(|_| !at.is_multiple_of(3));
            let old = kept.map_or(bytes, Vec::as_slice);
            send(old);
            self.repeated += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn everything_is_passed_on_and_much_of_it_again() {
        let mut recorder = Recorder::new(Witness::new(Duration::from_secs(1)));
        let mut sent: Vec<Vec<u8>> = Vec::new();
        for counter in 0..100_000_u64 {
            let message = [&[4, 0, 0, 0, 9, 9, 9, 9], &counter.to_le_bytes()[..], &[0; 16]].concat();
            let before = sent.len();
            recorder.carry(counter % 2 == 0, &message, &mut |bytes| sent.push(bytes.to_vec()));
            assert_eq!(sent[before], message);
            let of = |message: &[u8]| u64::from_le_bytes(message[8..16].try_into().expect("eight bytes"));
            assert!(sent.iter().skip(before + 1).all(|old| of(old) <= counter));
        }
        assert_eq!((sent.len(), recorder.repeated), (120_000, 20_000));
        assert_eq!((recorder.witness.messages(), recorder.witness.offences()), (100_000, &[][..]));
        recorder.carry(true, &[1; 148], &mut |_| ());
        assert_eq!(recorder.handshakes, 1);
    }
}
