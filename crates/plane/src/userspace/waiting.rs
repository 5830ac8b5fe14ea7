//! Packets that wait for a session.
//!
//! Each worker keeps those that its own TUN queue gave it. While any wait for a peer, later ones of the same worker join
//! them, so that the order within a flow holds; when control says that there is a session, each worker sends its own.
//! Bounded in packets and bytes; the oldest goes first.

use super::peer::Peer;
use noise::PeerId;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
};

/// Packets that may wait for one peer in one worker (as many as the kernel's MAX_STAGED_PACKETS).
const PACKETS_MAX: usize = 128;
/// Bytes that may wait for one peer in one worker.
const PEER_BYTES_MAX: usize = 512 << 10;
/// Bytes that may wait in one worker.
const BYTES_MAX: usize = 2 << 20;

struct Queue {
    peer: Arc<Peer>,
    packets: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl Queue {
    fn is_full_for(&self, packet: &[u8]) -> bool {
        self.packets.len() >= PACKETS_MAX || self.bytes + packet.len() > PEER_BYTES_MAX
    }
}

/// What waits in one worker.
#[derive(Default)]
pub(crate) struct Waiting {
    queues: HashMap<PeerId, Queue>,
    bytes: usize,
}

impl Waiting {
    /// Whether anything waits for the peer.
    #[inline]
    pub(crate) fn holds(&self, peer: &Peer) -> bool {
        !self.queues.is_empty() && self.queues.contains_key(&peer.id)
    }

    /// Lets a packet (virtio header and all) wait. Returns how many were dropped to make room.
    pub(crate) fn push(&mut self, peer: &Arc<Peer>, packet: &[u8]) -> usize {
        let mut dropped = 0;
        // Of the peer's own packets the oldest goes first; of the worker's share, the oldest of whoever has most of it.
        while self.queues.get(&peer.id).is_some_and(|queue| queue.is_full_for(packet)) {
            dropped += usize::from(self.pop(peer.id).is_some());
        }
        while self.bytes + packet.len() > BYTES_MAX {
            let Some(largest) = self.queues.values().max_by_key(|queue| queue.bytes).map(|queue| queue.peer.id) else {
                break;
            };
            dropped += usize::from(self.pop(largest).is_some());
        }
        let queue = self.queues.entry(peer.id).or_insert_with(|| Queue {
            peer: peer.clone(),
            packets: VecDeque::new(),
            bytes: 0,
        });
        queue.packets.push_back(packet.into());
        queue.bytes += packet.len();
        self.bytes += packet.len();
        peer.waiting.fetch_add(1, Ordering::SeqCst);
        dropped
    }

    /// The packet that has waited longest for the peer.
    pub(crate) fn pop(&mut self, peer: PeerId) -> Option<Box<[u8]>> {
        let queue = self.queues.get_mut(&peer)?;
        let packet = queue.packets.pop_front();
        if let Some(packet) = &packet {
            queue.bytes -= packet.len();
            self.bytes -= packet.len();
            queue.peer.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        if queue.packets.is_empty() {
            self.queues.remove(&peer);
        }
        packet
    }

    /// Drops all that waits for the peer; returns how many packets.
    pub(crate) fn clear(&mut self, peer: PeerId) -> usize {
        std::iter::from_fn(|| self.pop(peer)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: u32) -> Arc<Peer> {
        Arc::new(Peer::new(PeerId::from_u32(id), Arc::default()))
    }

    #[test]
    fn leaves_in_the_order_in_which_it_came() {
        let (mut waiting, a, b) = (Waiting::default(), peer(1), peer(2));
        for i in 0..5u8 {
            assert_eq!(waiting.push(&a, &[i]), 0);
            assert_eq!(waiting.push(&b, &[i + 100]), 0);
        }
        assert_eq!(a.waiting.load(Ordering::Relaxed), 5);
        let left: Vec<_> = std::iter::from_fn(|| waiting.pop(a.id)).map(|packet| packet[0]).collect();
        assert_eq!(left, [0, 1, 2, 3, 4]);
        assert!(!waiting.holds(&a) && waiting.holds(&b));
        assert_eq!(waiting.clear(b.id), 5);
        assert_eq!((waiting.bytes, b.waiting.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut waiting, a) = (Waiting::default(), peer(1));
        let dropped: usize = (0..200u8).map(|i| waiting.push(&a, &[i])).sum();
        assert_eq!(dropped, 200 - PACKETS_MAX);
        assert_eq!(waiting.pop(a.id).unwrap()[0], (200 - PACKETS_MAX) as u8);
    }

    #[test]
    fn bytes_are_bounded_for_each_peer_and_for_all() {
        let mut waiting = Waiting::default();
        let packet = vec![0; 60_000];
        for id in 0..10 {
            let peer = peer(id);
            for _ in 0..100 {
                waiting.push(&peer, &packet);
            }
            assert!(waiting.holds(&peer));
            assert!(waiting.queues.get(&peer.id).is_none_or(|queue| queue.bytes <= PEER_BYTES_MAX));
        }
        assert!(waiting.bytes <= BYTES_MAX);
        assert!(waiting.queues.len() == 10, "nobody is kept out by those who came before");
        assert_eq!(waiting.bytes, waiting.queues.values().map(|queue| queue.bytes).sum::<usize>());
        assert!(waiting.queues.values().all(|queue| !queue.packets.is_empty()));
    }
}
