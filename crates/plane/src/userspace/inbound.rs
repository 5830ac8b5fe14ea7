//! Inbound jobs: what a UDP socket gave, opened.
//!
//! A job is what one receive gave: a datagram, or a run of them that the kernel coalesced. Several that are short are moved
//! together into one job, since what they cost apart is far more than the copy. Whoever claims it finds each datagram's
//! session by its receiver index and opens it in place, all datagrams of a session in one batch. Nothing is believed before
//! it authenticated, and nothing of the peer changes before the commit (see `writer`), which goes in order.

use super::{
    drops::Reason,
    shared::{Installed, Shared, now},
};
use crate::HandshakeBytes;
use aead::{OpenSegment, TAG_LEN, counter_nonce};
use arrayvec::ArrayVec;
use inet::Endpoint;
use linux::{
    buffer::Buffer,
    udp::{Received, SEGMENTS_MAX},
};
use noise::message::{MessageType, TRANSPORT_HEADER_LEN, TRANSPORT_MIN_LEN, parse_transport_header};
use std::io;

/// Bytes of one job: the most that one receive gives.
const BUFFER_LEN: usize = 1 << 16;
/// Datagrams in one job. Kernels coalesce up to 64.
pub(crate) const DATAGRAMS_MAX: usize = 128;
/// Receives in one job.
pub(crate) const RECEIVES_MAX: usize = 16;
/// The most bytes that are moved to another job.
const SHORT: usize = 4096;

/// An authentic datagram.
#[derive(Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) counter: u64,
    /// Where in the buffer the plaintext begins.
    pub(crate) at: usize,
    /// Bytes of plaintext, padding included.
    pub(crate) len: usize,
    /// The number of the receive that gave it, in [`Inbound::received`].
    pub(crate) receive: usize,
}

/// Datagrams of one session, one after the other in [`Inbound::opened`].
pub(crate) struct Part {
    pub(crate) installed: Installed,
    pub(crate) count: usize,
}

/// A batch on its way in.
pub(crate) struct Inbound {
    buffer: Buffer,
    /// What was received, one after the other in the buffer.
    received: ArrayVec<Received, RECEIVES_MAX>,
    /// Bytes of all of it.
    used: usize,
    parts: ArrayVec<Part, DATAGRAMS_MAX>,
    opened: ArrayVec<Opened, DATAGRAMS_MAX>,
}

impl Inbound {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            buffer: Buffer::new(BUFFER_LEN)?,
            received: ArrayVec::new(),
            used: 0,
            parts: ArrayVec::new(),
            opened: ArrayVec::new(),
        })
    }

    /// Where a receive puts its bytes.
    pub(crate) fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Takes in what a receive put into the buffer.
    pub(crate) fn take(&mut self, received: Received) {
        self.used = received.len;
        self.received.clear();
        self.received.push(received);
    }

    /// Takes over what another job received, if that is short and there is room. The other is as it was before.
    pub(crate) fn absorb(&mut self, other: &Self) -> bool {
        let count = |job: &Self| job.received.iter().map(|it| it.len.div_ceil(it.segment).max(1)).sum::<usize>();
        let fits = self.used + other.used <= BUFFER_LEN
            && self.received.len() + other.received.len() <= RECEIVES_MAX
            && count(self) + count(other) <= DATAGRAMS_MAX;
        if other.used > SHORT || !fits {
            return false;
        }
        self.buffer[self.used..self.used + other.used].copy_from_slice(&other.buffer[..other.used]);
        self.received.extend(other.received.iter().copied());
        self.used += other.used;
        true
    }

    /// Makes the job ready for its next use.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.received.clear();
        self.parts.clear();
        self.opened.clear();
    }

    /// What was received, the sessions in order of their datagrams, these datagrams, and the bytes that they lie in.
    pub(crate) fn parts(&mut self) -> (&[Received], &[Part], &[Opened], &mut [u8]) {
        (&self.received, &self.parts, &self.opened, &mut self.buffer)
    }

    /// A packet of the commit that this job is part of.
    pub(crate) fn bytes(&self, at: usize, len: usize) -> &[u8] {
        &self.buffer[at..at + len]
    }

    /// Opens all datagrams.
    pub(crate) fn open(&mut self, shared: &Shared) {
        let mut opener = Opener { shared, parts: &mut self.parts, opened: &mut self.opened, batch: Batch::new() };
        let mut rest = &mut self.buffer[..self.used];
        let mut at = 0;
        for (number, received) in self.received.iter().enumerate() {
            let (bytes, behind) = rest.split_at_mut(received.len);
            rest = behind;
            let from = Endpoint { addr: received.from, source: received.source };
            // An empty datagram is one too.
            shared.drops.count(Reason::OuterMalformed, usize::from(received.len == 0));
            for datagram in bytes.chunks_mut(received.segment) {
                let start = at;
                at += datagram.len();
                match MessageType::of(datagram) {
                    Some(MessageType::Transport) => opener.transport(datagram, start, number),
                    Some(_) => handshake(shared, from, datagram),
                    None => shared.drops.count(Reason::OuterMalformed, 1),
                }
            }
        }
        opener.finish_batch();
    }
}

/// Hands a handshake message up, if its mac1 says that it is meant for us.
fn handshake(shared: &Shared, from: Endpoint, message: &[u8]) {
    match HandshakeBytes::checked(message, shared.mac1.load().as_deref()) {
        Ok(bytes) => shared.events.handshake(from, bytes, &shared.drops),
        Err(drop) => shared.drops.count(drop.into(), 1),
    }
}

/// Datagrams of one session that are opened together.
struct Batch<'a> {
    installed: Option<Installed>,
    segments: ArrayVec<OpenSegment<'a>, SEGMENTS_MAX>,
    /// Counter and place of each.
    places: ArrayVec<Opened, SEGMENTS_MAX>,
}

impl Batch<'_> {
    fn new() -> Self {
        Self { installed: None, segments: ArrayVec::new(), places: ArrayVec::new() }
    }
}

struct Opener<'a, 'job> {
    shared: &'a Shared,
    parts: &'a mut ArrayVec<Part, DATAGRAMS_MAX>,
    opened: &'a mut ArrayVec<Opened, DATAGRAMS_MAX>,
    batch: Batch<'job>,
}

impl<'job> Opener<'_, 'job> {
    /// Adds a transport message that begins at `start`, of the receive of this number, to the batch of its session.
    fn transport(&mut self, datagram: &'job mut [u8], start: usize, receive: usize) {
        let header = parse_transport_header(datagram).filter(|_| datagram.len() >= TRANSPORT_MIN_LEN);
        let Some(header) = header else {
            return self.shared.drops.count(Reason::OuterMalformed, 1);
        };
        let same = self.batch.installed.as_ref().is_some_and(|it| it.session.local_index() == header.receiver);
        if !same || self.batch.segments.is_full() {
            self.finish_batch();
            let Some(installed) = self.shared.session(header.receiver.as_u32()) else {
                return self.shared.drops.count(Reason::UnknownIndex, 1);
            };
            if !installed.session.may_receive(now()) {
                return self.shared.drops.count(Reason::SessionExpired, 1);
            }
            self.batch.installed = Some(installed);
        }
        let counter = header.counter.as_u64();
        if !self.batch.installed.as_ref().is_some_and(|it| it.session.looks_new(counter)) {
            return self.shared.drops.count(Reason::Replayed, 1);
        }
        let text = &mut datagram[TRANSPORT_HEADER_LEN..];
        let place = Opened { counter, at: start + TRANSPORT_HEADER_LEN, len: text.len() - TAG_LEN, receive };
        self.batch.places.push(place);
        self.batch.segments.push(OpenSegment { nonce: counter_nonce(counter), aad: &[], text, authentic: false });
    }

    /// Opens the batch and keeps what is authentic.
    fn finish_batch(&mut self) {
        let Batch { installed, segments, places } = &mut self.batch;
        let Some(installed) = installed.take() else { return };
        let authentic = installed.session.opening_key().open(segments);
        self.shared.drops.count(Reason::Forged, segments.len() - authentic);
        let room = self.opened.remaining_capacity().min(if self.parts.is_full() { 0 } else { DATAGRAMS_MAX });
        self.shared.drops.count(Reason::TooManySegments, authentic.saturating_sub(room));
        let kept = segments.iter().zip(&*places).filter(|(segment, _)| segment.authentic).take(room);
        self.opened.extend(kept.map(|(_, place)| *place));
        if authentic.min(room) > 0 {
            self.parts.push(Part { installed, count: authentic.min(room) });
        }
        segments.clear();
        places.clear();
    }
}
