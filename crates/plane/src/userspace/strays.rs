//! Strays: data messages that the kernel gave to control's socket, because it had joined them to a handshake message of the same sender.
//!
//! Anybody who writes a peer's address on a datagram can make the kernel do that, so they are not lost: control leaves them here, and the
//! worker that they are for takes them in as if it had received them. Bounded, in memory that is taken once; of what lies here no more is
//! believed than of anything else from a socket.

use std::collections::VecDeque;

use linux::udp::Received;

/// Bytes that may lie here: a longest run.
const BYTES: usize = 1 << 16;
/// Datagrams that may.
const DATAGRAMS: usize = 128;

/// Those of one worker.
pub(crate) struct Strays {
    /// What is known of each, in the order of their bytes.
    datagrams: VecDeque<Received>,
    bytes: Vec<u8>,
    /// Where the first one's bytes begin.
    first: usize,
}

impl Strays {
    pub(crate) fn new() -> Self {
        Self { datagrams: VecDeque::with_capacity(DATAGRAMS), bytes: Vec::with_capacity(BYTES), first: 0 }
    }

    /// Leaves one here. False if there is no room.
    pub(crate) fn push(&mut self, received: Received, message: &[u8]) -> bool {
        let fits = self.datagrams.len() < DATAGRAMS && self.bytes.len() + message.len() <= BYTES;
        if fits {
            self.bytes.extend_from_slice(message);
            self.datagrams.push_back(Received { len: message.len(), segment: message.len().max(1), ..received });
        }
        fits
    }

    /// Moves the first one into a buffer, which holds as much as any receive gives.
    pub(crate) fn pop(&mut self, buffer: &mut [u8]) -> Option<Received> {
        let received = self.datagrams.pop_front()?;
        let end = self.first + received.len;
        buffer[..received.len].copy_from_slice(&self.bytes[self.first..end]);
        self.first = end;
        if self.datagrams.is_empty() {
            self.bytes.clear();
            self.first = 0;
        }
        Some(received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn come_out_as_they_went_in() {
        let mut strays = Strays::new();
        let mut buffer = [0; BYTES];
        for round in 0..3 {
            let messages: Vec<Vec<u8>> = (1..=20).map(|len| vec![round; len * 7]).collect();
            let run = Received { len: 9999, segment: 7, ecn: 2, ..Received::default() };
            assert!(messages.iter().all(|message| strays.push(run, message)));
            for message in &messages {
                let received = strays.pop(&mut buffer).unwrap();
                assert_eq!((received.len, received.segment, received.ecn), (message.len(), message.len(), 2));
                assert_eq!(&buffer[..received.len], &message[..]);
            }
            assert!(strays.pop(&mut buffer).is_none());
        }
    }

    #[test]
    fn are_bounded_in_number_and_in_bytes() {
        let mut strays = Strays::new();
        let taken = |strays: &mut Strays, len| {
            (0..1000).take_while(|_| strays.push(Received::default(), &vec![1; len])).count()
        };
        assert_eq!(taken(&mut strays, 148), DATAGRAMS);
        let mut buffer = [0; BYTES];
        while strays.pop(&mut buffer).is_some() {}
        assert_eq!(taken(&mut strays, 1452), BYTES / 1452);
        assert!(strays.bytes.capacity() == BYTES && strays.datagrams.capacity() == DATAGRAMS);
    }
}
