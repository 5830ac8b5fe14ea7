//! What carries the datagrams: it witnesses every one, passes it on, and repeats old ones as somebody would who has recorded them.
//!
//! It also kills, where that is to be at a certain message of a handshake: what has been said by then is known.

use std::time::{Duration, Instant};

use lab::{Carrier, Witness, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// How many messages of each direction are kept to be repeated.
const KEPT: usize = 4096;

/// Every so manieth message is kept, so that those that are kept go back some sessions.
const KEEP_EVERY: u64 = 13;

/// After every so manieth message an old one follows.
const REPEAT_EVERY: u64 = 5;

/// How long who was killed may take to be gone.
const GONE: Duration = Duration::from_secs(15);

/// One of two processes is killed when a message of this type has come, and is gone before that is passed on.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The left end's, and the right one's.
    pub pids: [Pid; 2],
    /// The message's type: 1 an initiation, 2 a response.
    pub kind: u8,
    /// Whether it is who sent it, or for whom it is.
    pub sender: bool,
}

/// The carrier.
pub struct Recorder {
    /// What it says of what it has seen.
    pub witness: Witness,
    /// Messages repeated.
    pub repeated: u64,
    /// Who is to be killed.
    pub mark: Option<Mark>,
    /// Whether it was the left end that was.
    pub struck: Option<bool>,
    kept: [Vec<Vec<u8>>; 2],
    passed: u64,
}

impl Recorder {
    /// One that has recorded nothing yet.
    pub fn new(witness: Witness) -> Recorder {
        Recorder { witness, repeated: 0, mark: None, struck: None, kept: [Vec::new(), Vec::new()], passed: 0 }
    }
}

impl Carrier for Recorder {
    fn carry(&mut self, from_left: bool, bytes: &[u8], send: &mut dyn FnMut(&[u8])) {
        self.witness.see(from_left, bytes, Instant::now());
        if let Some(mark) = self.mark.take_if(|mark| bytes.first() == Some(&mark.kind)) {
            let left = mark.sender == from_left;
            kill(mark.pids[usize::from(!left)]);
            self.struck = Some(left);
        }
        send(bytes);
        self.passed += 1;
        let is_data = bytes.first() == Some(&4);
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

/// Kills a child of ours, and waits until all of its threads are gone.
fn kill(pid: Pid) {
    // One that has ended by itself is somebody else's finding.
    let _ = kill_process(pid, Signal::KILL);
    let status = format!("/proc/{pid}/status");
    let is_gone = || std::fs::read_to_string(&status).is_ok_and(|text| text.contains("State:\tZ"));
    let _ = wait_until("the process to be gone", GONE, is_gone);
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn who_is_marked_is_gone_before_that_message_is_passed_on() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let mut recorder = Recorder::new(Witness::new(Duration::from_secs(1)));
        let pid = Pid::from_child(&child);
        let other = Pid::from_raw(i32::MAX).unwrap();
        recorder.mark = Some(Mark { pids: [other, pid], kind: 2, sender: false });
        let mut passed = 0;
        for (from_left, kind) in [(true, 1), (false, 1), (true, 4)] {
            recorder.carry(from_left, &[kind; 92], &mut |_| passed += 1);
        }
        assert!(child.try_wait().unwrap().is_none() && passed == 3);
        recorder.carry(true, &[2; 92], &mut |_| {
            assert_eq!(child.try_wait().unwrap().and_then(|status| status.signal()), Some(9));
        });
        assert!(recorder.mark.is_none() && recorder.struck == Some(false));
    }

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
    }
}
