//! Outbound jobs: what the TUN gave, sealed and sent.
//!
//! A job is one read of a super-packet, or several plain packets that queued up. The owner admits packets to it (route,
//! session, endpoint) and reserves their counters, so that counters go up in the order of the ring, whoever seals first, and the
//! job at the head never waits for some that a later one has; whoever claims it cuts each packet into segments and seals them,
//! out of the input straight into the output, as *runs*: datagrams of one peer at a fixed stride, the last perhaps shorter, that
//! one GSO send carries. Whoever commits it sends the runs.
//!
//! Each datagram is a header of 16 bytes, the inner packet padded with zeros, and a tag of 16 bytes.

use super::{
    drops::Reason,
    events::REKEY_DUE,
    peer::{Path, Peer},
    shared::{Shared, now},
};
use aead::{SealSegment, TAG_LEN, counter_nonce};
use arrayvec::ArrayVec;
use inet::{
    cut::Cut,
    ecn,
    vnet::{self, VnetHeader},
};
use linux::{buffer::Buffer, udp::SEGMENTS_MAX};
use noise::{
    Instant, ReserveError, Session,
    message::{TRANSPORT_HEADER_LEN, write_transport_header},
};
use std::{io, ops::Range, sync::Arc, time::Duration};

/// Packets in one job.
pub(crate) const PACKETS_MAX: usize = 128;
/// Segments of one packet. The TUN is told to give at most 64; where it could not be told, any usual segment size stays below.
pub(crate) const SEGMENTS_IN_PACKET: usize = 192;
/// A job takes another packet while it has fewer segments than this. A job holds its counters until it is committed, and so must
/// not need more than a session lets out at a time, or it would wait for itself.
const SEGMENTS_FULL: usize = 256;
/// The largest packet that a TUN gives, with its virtio header.
pub(crate) const PACKET_MAX: usize = vnet::LEN + 65_535;
/// A job takes another packet while less than this is in it.
const FULL: usize = 48 << 10;
/// Input of one job: any packet fits behind less than `FULL`.
const INPUT_LEN: usize = FULL + PACKET_MAX;
/// Output of one job: the input, and header, tag and padding for 128 segments and some.
const OUTPUT_LEN: usize = INPUT_LEN + (48 << 10);
/// The most that one send may carry: an IPv4 packet is 65,535 bytes with 28 of header.
const SEND_MAX: usize = 65_507;
/// Segments that are sealed at once, of several runs where these are short: the AEAD works on many at a time.
const BATCH_MAX: usize = 2 * SEGMENTS_MAX;
/// How long a job waits for counters that other workers hold, before the packets that have none are dropped. A worker lets go of them
/// when it has sent its job: in microseconds, or after it has been preempted.
pub(crate) const BUSY_WAIT: Duration = Duration::from_millis(50);
/// How long it waits once it holds some itself: others may wait for those, and one of them may hold what it waits for.
pub(crate) const HOLDING_WAIT: Duration = Duration::from_millis(2);

/// A peer's share of a job.
struct Share {
    peer: Arc<Peer>,
    /// Into how many datagrams its packets are cut.
    segments: usize,
    grant: Option<Grant>,
}

/// What a share is sealed with.
struct Grant {
    session: Arc<Session>,
    path: Arc<Path>,
    /// The first of as many counters as the share has datagrams.
    first: u64,
}

/// A packet in a job's input. One without bytes is a keepalive.
struct Packet {
    /// Where its virtio header begins.
    at: usize,
    /// Bytes without the virtio header.
    len: usize,
    /// Index into the job's shares.
    share: usize,
}

/// Datagrams of one peer, sealed, at a fixed stride.
pub(crate) struct Run {
    pub(crate) peer: Arc<Peer>,
    pub(crate) session: Arc<Session>,
    pub(crate) path: Arc<Path>,
    /// Where in the output it begins.
    pub(crate) at: usize,
    /// Its bytes.
    pub(crate) len: usize,
    /// Bytes of each datagram but the last.
    pub(crate) stride: usize,
    /// How many datagrams.
    pub(crate) count: usize,
    /// ECN bits of the outer header.
    pub(crate) ecn: u8,
    /// Whether any of it is data, not only keepalives.
    pub(crate) data: bool,
}

/// A batch on its way out.
pub(crate) struct Outbound {
    input: Buffer,
    used: usize,
    packets: ArrayVec<Packet, PACKETS_MAX>,
    shares: ArrayVec<Share, PACKETS_MAX>,
    segments: usize,
    output: Buffer,
    runs: ArrayVec<Run, { PACKETS_MAX + 32 }>,
    /// Packets (by index) that are larger than their path, with the inner MTU that would fit.
    too_big: ArrayVec<(usize, usize), 4>,
}

impl Outbound {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            input: Buffer::new(INPUT_LEN)?,
            used: 0,
            packets: ArrayVec::new(),
            shares: ArrayVec::new(),
            segments: 0,
            output: Buffer::new(OUTPUT_LEN)?,
            runs: ArrayVec::new(),
            too_big: ArrayVec::new(),
        })
    }

    /// Room for one more packet with its virtio header, or `None` when the job is full.
    pub(crate) fn room(&mut self) -> Option<&mut [u8]> {
        let full = self.used >= FULL || self.segments >= SEGMENTS_FULL || self.packets.is_full();
        (!full).then(|| &mut self.input[self.used..self.used + PACKET_MAX])
    }

    /// What was just written into the room: `len` bytes with the virtio header.
    pub(crate) fn candidate(&self, len: usize) -> &[u8] {
        &self.input[self.used..self.used + len]
    }

    /// Admits what was just written into the room for the peer: so many bytes, and so many segments.
    pub(crate) fn admit(&mut self, len: usize, peer: &Arc<Peer>, segments: usize) {
        self.segments += segments;
        let known = self.shares.iter().rposition(|known| Arc::ptr_eq(&known.peer, peer));
        let share = known.unwrap_or_else(|| {
            self.shares.push(Share { peer: peer.clone(), segments: 0, grant: None });
            self.shares.len() - 1
        });
        self.shares[share].segments += segments;
        self.packets.push(Packet { at: self.used, len: len - vnet::LEN, share });
        self.used += len;
    }

    /// Admits an empty packet.
    pub(crate) fn admit_keepalive(&mut self, peer: &Arc<Peer>) {
        self.admit(vnet::LEN, peer, 1);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Makes the job ready for its next use.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.packets.clear();
        self.shares.clear();
        self.segments = 0;
        self.runs.clear();
        self.too_big.clear();
    }

    /// The sealed runs, and the bytes that they lie in.
    pub(crate) fn sealed(&self) -> (&[Run], &[u8]) {
        (&self.runs, &self.output)
    }

    /// Packets that were larger than their path, with the inner MTU in bytes that would fit.
    pub(crate) fn too_big(&self) -> impl Iterator<Item = (&[u8], usize)> {
        self.too_big.iter().map(|&(index, mtu)| {
            let packet = &self.packets[index];
            (&self.input[packet.at + vnet::LEN..][..packet.len], mtu)
        })
    }

    /// Reserves the counters of all packets, peer by peer. When a session has too many outstanding, `relieve` is called, which
    /// sees to some that are and says whether there were any. It waits for others for so long at most, however many peers there are.
    pub(crate) fn reserve(&mut self, shared: &Shared, mut relieve: impl FnMut() -> bool) {
        let mut until = None;
        let mut holds = false;
        for Share { peer, segments, grant } in &mut self.shares {
            let (Some(session), Some(path)) = (peer.current.load_full(), peer.path.load_full()) else {
                shared.drops.count(Reason::SessionEnded, *segments);
                continue;
            };
            let first = reserve(shared, peer, &session, *segments, |now| {
                let wait = if holds { HOLDING_WAIT } else { BUSY_WAIT };
                let waits = now < *until.get_or_insert(now + wait);
                if waits && !relieve() {
                    std::thread::yield_now();
                }
                waits
            });
            if first.is_some() && !holds {
                holds = true;
                until = until.map(|until: Instant| until.min(now() + HOLDING_WAIT));
            }
            *grant = first.map(|first| Grant { session, path, first });
        }
    }

    /// The job's counters are no longer on their way, whether they left or not.
    pub(crate) fn release(&self) {
        for share in &self.shares {
            if let Some(grant) = &share.grant {
                grant.session.release(grant.first, share.segments as u32);
            }
        }
    }

    /// Cuts and seals all packets that have counters, peer by peer, in order.
    pub(crate) fn seal(&mut self, shared: &Shared) {
        let mtu = shared.mtu();
        let mut at = 0;
        for (index, share) in self.shares.iter().enumerate() {
            let Some(Grant { session, path, first }) = &share.grant else { continue };
            let mut sealer = Sealer {
                shared,
                peer: &share.peer,
                session: session.clone(),
                path: path.clone(),
                counters: *first..*first + share.segments as u64,
                output: &mut self.output,
                runs: &mut self.runs,
                begun: at,
                at,
                pieces: ArrayVec::new(),
                run: 0,
                len: 0,
                ecn: 0,
                data: false,
            };
            for (number, packet) in self.packets.iter().enumerate().filter(|(_, packet)| packet.share == index) {
                let input = &self.input[packet.at..packet.at + vnet::LEN + packet.len];
                if let Some(inner_mtu) = sealer.packet(input, mtu)
                    && !self.too_big.is_full()
                {
                    self.too_big.push((number, inner_mtu));
                }
            }
            sealer.seal();
            at = sealer.at;
        }
    }
}

/// One segment that is to be sealed.
struct Piece<'a> {
    /// Bytes of the whole datagram.
    wire: usize,
    /// Bytes of inner headers, already written.
    head: usize,
    body: &'a [u8],
}

/// Seals the packets of one peer.
struct Sealer<'a> {
    shared: &'a Shared,
    peer: &'a Arc<Peer>,
    session: Arc<Session>,
    path: Arc<Path>,
    /// Those that are not used yet.
    counters: Range<u64>,
    output: &'a mut [u8],
    runs: &'a mut ArrayVec<Run, { PACKETS_MAX + 32 }>,
    /// Where in the output the first segment begins that is not sealed yet.
    begun: usize,
    /// Where in the output the run begins.
    at: usize,
    /// The segments that are not sealed yet.
    pieces: ArrayVec<Piece<'a>, BATCH_MAX>,
    /// The number of the run's first segment among them.
    run: usize,
    /// Bytes of the run so far.
    len: usize,
    ecn: u8,
    data: bool,
}

impl<'a> Sealer<'a> {
    /// Adds a packet (virtio header first) to the run, which may end and begin anew on the way. Returns the MTU that the
    /// inner sender should know of, when the packet is larger than the path.
    fn packet(&mut self, input: &'a [u8], mtu: usize) -> Option<usize> {
        let (header, packet) = input.split_at(vnet::LEN);
        if packet.is_empty() {
            self.segment(TRANSPORT_HEADER_LEN + TAG_LEN, ecn::NOT_ECT, |_| (0, &[]));
            return None;
        }
        // Admission has looked at both already; the check here costs less than trusting a helper's view of them.
        let cut = VnetHeader::parse(header).ok().and_then(|header| Cut::new(&header, packet).ok());
        let Some(cut) = cut else {
            self.shared.drops.count(Reason::InnerMalformed, 1);
            return None;
        };
        let outer_ecn = ecn::encapsulate(cut.ecn());
        let head = cut.head_len();
        let mut largest = 0;
        for i in 0..cut.segments() {
            let wire = TRANSPORT_HEADER_LEN + padded(cut.segment_len(i), mtu) + TAG_LEN;
            largest = largest.max(wire);
            let room = self.segment(wire, outer_ecn, |out| {
                cut.write_head(i, &mut out[..head]);
                (head, cut.body(i))
            });
            if !room {
                self.shared.drops.count(Reason::TooManySegments, cut.segments() - i);
                break;
            }
            self.data = true;
        }
        let path_mtu = self.path.mtu().filter(|path_mtu| largest + self.path.overhead() > *path_mtu)?;
        // What fits, padding and all; but no less than what every link must carry (RFC 791, RFC 8200).
        let fits = (path_mtu - self.path.overhead()).saturating_sub(TRANSPORT_HEADER_LEN + TAG_LEN) & !15;
        let least = if cut.destination().is_ipv6() { 1280 } else { 576 };
        // To a sender that can do no better there is nothing to say: its packets go on in fragments.
        Some(fits.max(least)).filter(|mtu| cut.segment_len(0) > *mtu)
    }

    /// Adds a segment of `wire` bytes; `write` writes its inner headers and says what follows them. False: no room.
    fn segment(&mut self, wire: usize, ecn: u8, write: impl FnOnce(&mut [u8]) -> (usize, &'a [u8])) -> bool {
        let run = &self.pieces[self.run..];
        let stride = run.first().map_or(wire, |first| first.wire);
        let last = run.last().map_or(wire, |last| last.wire);
        let full = run.len() == SEGMENTS_MAX || self.len + wire > SEND_MAX;
        // A shorter datagram ends a run, a longer one or one with other ECN bits begins the next.
        if last < stride || wire > stride || ecn != self.ecn || full {
            self.finish_run();
        }
        if self.pieces.is_full() {
            self.seal();
        }
        let at = self.at + self.len;
        if at + wire > self.output.len() || self.runs.is_full() {
            return false;
        }
        let (head, body) = write(&mut self.output[at + TRANSPORT_HEADER_LEN..at + wire - TAG_LEN]);
        self.pieces.push(Piece { wire, head, body });
        self.len += wire;
        self.ecn = ecn;
        true
    }

    /// Ends the run, if there is one, and begins the next behind it.
    fn finish_run(&mut self) {
        let count = self.pieces.len() - self.run;
        if count == 0 {
            return;
        }
        self.runs.push(Run {
            peer: self.peer.clone(),
            session: self.session.clone(),
            path: self.path.clone(),
            at: self.at,
            len: self.len,
            stride: self.pieces[self.run].wire,
            count,
            ecn: self.ecn,
            data: self.data,
        });
        self.run = self.pieces.len();
        self.at += self.len;
        self.len = 0;
        self.data = false;
    }

    /// Ends the run, and seals all that is not sealed yet.
    fn seal(&mut self) {
        self.finish_run();
        if self.pieces.is_empty() {
            return;
        }
        if let Some(first) = self.take_counters(self.pieces.len()) {
            let index = self.session.remote_index();
            let mut rest = &mut self.output[self.begun..self.at];
            let mut batch = ArrayVec::<SealSegment<'_>, BATCH_MAX>::new();
            for (counter, piece) in (first..).zip(&self.pieces) {
                let (datagram, behind) = rest.split_at_mut(piece.wire);
                let (header, out) = datagram.split_at_mut(TRANSPORT_HEADER_LEN);
                write_transport_header(header, index, counter);
                let nonce = counter_nonce(counter);
                batch.push(SealSegment { nonce, aad: &[], head: piece.head, body: piece.body, out });
                rest = behind;
            }
            self.session.sealing_key().seal(&mut batch);
            self.begun = self.at;
        } else {
            self.runs.retain(|run| run.at < self.begun);
            self.at = self.begun;
        }
        self.pieces.clear();
        self.run = 0;
    }

    /// Counters for `count` datagrams: each of the share's has one, and none is used twice whatever was counted.
    fn take_counters(&mut self, count: usize) -> Option<u64> {
        let first = self.counters.start;
        if self.counters.end - first < count as u64 {
            self.shared.drops.count(Reason::InnerMalformed, count);
            return None;
        }
        self.counters.start += count as u64;
        Some(first)
    }
}

/// Counters for `count` datagrams. When too many are outstanding, `wait` is asked whether to try again, and waits.
fn reserve(
    shared: &Shared,
    peer: &Arc<Peer>,
    session: &Session,
    count: usize,
    mut wait: impl FnMut(Instant) -> bool,
) -> Option<u64> {
    loop {
        let now = now();
        match session.reserve(now, count as u32) {
            Ok(first) => return Some(first),
            Err(ReserveError::Busy) if wait(now) => (),
            Err(ReserveError::Busy) => {
                shared.drops.count(Reason::CountersBusy, count);
                return None;
            }
            Err(ReserveError::Expired | ReserveError::Exhausted) => {
                shared.drops.count(Reason::SessionEnded, count);
                shared.events.raise(peer, REKEY_DUE);
                return None;
            }
        }
    }
}

/// The length of an inner packet of `len` bytes on the wire: the next multiple of 16, but not beyond the MTU (1420 padded
/// to 1424 would make an outer IPv6 packet of 1504 bytes).
#[inline]
fn padded(len: usize, mtu: usize) -> usize {
    len.next_multiple_of(16).min(mtu.max(len))
}

#[cfg(test)]
mod tests {
    use super::padded;

    #[test]
    fn padding_stops_at_the_mtu() {
        assert_eq!(padded(0, 1420), 0);
        assert_eq!(padded(1, 1420), 16);
        assert_eq!(padded(1408, 1420), 1408);
        assert_eq!(padded(1409, 1420), 1420);
        assert_eq!(padded(1420, 1420), 1420);
        // The MTU was lowered while the packet was on its way.
        assert_eq!(padded(1420, 1280), 1420);
        assert_eq!(padded(1279, 1280), 1280);
    }
}
