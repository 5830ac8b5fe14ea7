//! Two devices, a network that somebody else owns, and whatever their users do: any calls in any order at any time.
//!
//! The nodes are those of the protocol's own tests. They keep books: no nonce is used twice, no plaintext is accepted twice, no
//! session is retired that was not installed. Here it is seen to besides that what arrives was sent, that a device's events have an
//! end and its deadlines move on, that two devices fall silent, and that no more than three sessions of a peer live at a time.

#![no_main]

#[path = "../../crates/noise/tests/support/mod.rs"]
mod support;

use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};
use noise::{PeerId, PresharedKey};
use std::{collections::HashSet, time::Duration};
use support::{Datagram, Node, address, at, at_wall, key};

#[derive(Arbitrary, Debug)]
enum Step {
    /// Time passes, and deadlines with it.
    Pass {
        millis: u16,
        seconds: u8,
    },
    /// The wall clock is wrong by so much.
    Wall {
        seconds: i16,
    },
    /// Data for the other.
    Send {
        node: bool,
    },
    /// The oldest datagram under way arrives.
    Deliver {
        node: bool,
    },
    /// All that is under way arrives.
    DeliverAll,
    Lose {
        node: bool,
    },
    Repeat {
        node: bool,
    },
    Overtake {
        node: bool,
    },
    Corrupt {
        node: bool,
        at: u8,
        bit: u8,
    },
    /// It seems to come from elsewhere.
    Roam {
        node: bool,
        to: u8,
    },
    /// Something recorded is sent again.
    Replay {
        node: bool,
        which: u8,
    },
    /// Bytes from a stranger, who knows the formats.
    Invent {
        node: bool,
        kind: u8,
        bytes: Vec<u8>,
    },
    Load {
        node: bool,
        under: bool,
    },
    Rekey {
        node: bool,
    },
    Keepalive {
        node: bool,
        seconds: u16,
    },
    Preshared {
        node: bool,
        psk: u8,
    },
    /// Another identity; the first one is what the other knows.
    Identity {
        node: bool,
        n: u8,
    },
    NoIdentity {
        node: bool,
    },
    Up {
        node: bool,
        up: bool,
    },
    Forget {
        node: bool,
    },
    Meet {
        node: bool,
        n: u8,
    },
    Lanes {
        node: bool,
        lanes: u16,
    },
}

struct World {
    nodes: [Node; 2],
    time: Duration,
    wall: i64,
    number: u32,
    sent: HashSet<Vec<u8>>,
    recorded: Vec<Datagram>,
}

impl World {
    fn now(&self) -> noise::Now {
        at_wall(
            self.time,
            (Duration::from_secs(1_700_000_000) + self.time)
                .saturating_sub(Duration::from_secs(self.wall.unsigned_abs())),
        )
    }

    fn known(&self, node: usize) -> Option<PeerId> {
        self.nodes[node].links.keys().next().copied()
    }

    fn take(&mut self, from: usize) -> Option<Datagram> {
        self.nodes[from].out.pop_front()
    }

    fn arrive(&mut self, to: usize, datagram: &Datagram) {
        let now = self.now();
        if self.recorded.len() < 64 {
            self.recorded.push(datagram.clone());
        }
        self.nodes[to].receive(now, datagram);
    }

    fn step(&mut self, step: Step) {
        let now = self.now();
        match step {
            Step::Pass { millis, seconds } => {
                self.time += Duration::from_millis(millis.into()) + Duration::from_secs(seconds.into());
                let now = self.now();
                for node in &mut self.nodes {
                    // Each call sees to 64 peers, and there are few: once is nearly always enough.
                    for _ in 0..8 {
                        if node.device.poll_timeout().is_none_or(|due| due > now.boot) {
                            break;
                        }
                        node.timeout(now);
                    }
                    assert!(node.device.poll_timeout().is_none_or(|due| due > now.boot), "a deadline stays due");
                }
            }
            Step::Wall { seconds } => self.wall = i64::from(seconds),
            Step::Send { node } => {
                let node = usize::from(node);
                let Some(id) = self.known(node) else { return };
                self.number += 1;
                let data = self.number.to_le_bytes().to_vec();
                self.sent.insert(data.clone());
                self.nodes[node].send_to(now, id, &data);
            }
            Step::Deliver { node } => {
                if let Some(datagram) = self.take(usize::from(node)) {
                    self.arrive(usize::from(!node), &datagram);
                }
            }
            Step::DeliverAll => self.deliver_all(),
            Step::Lose { node } => drop(self.take(usize::from(node))),
            Step::Repeat { node } => {
                let out = &mut self.nodes[usize::from(node)].out;
                out.extend(out.front().cloned());
            }
            Step::Overtake { node } => {
                self.nodes[usize::from(node)].out.rotate_left(1.min(self.nodes[usize::from(node)].out.len()))
            }
            Step::Corrupt { node, at, bit } => {
                if let Some(datagram) = self.nodes[usize::from(node)].out.front_mut() {
                    let at = usize::from(at) % datagram.bytes.len();
                    datagram.bytes[at] ^= 1 << (bit % 8);
                }
            }
            Step::Roam { node, to } => {
                if let Some(datagram) = self.nodes[usize::from(node)].out.front_mut() {
                    datagram.from = address(to);
                }
            }
            Step::Replay { node, which } => {
                let which = usize::from(which) % self.recorded.len().max(1);
                if let Some(datagram) = self.recorded.get(which).cloned() {
                    self.nodes[usize::from(node)].receive(now, &datagram);
                }
            }
            Step::Invent { node, kind, mut bytes } => {
                let len = match kind % 5 {
                    1 => 148,
                    2 => 92,
                    3 => 64,
                    _ => bytes.len(),
                };
                bytes.resize(len, 0);
                if let Some(head) = bytes.first_chunk_mut::<4>() {
                    *head = [kind % 5, 0, 0, 0];
                }
                let datagram = Datagram { from: address(99), to: address(1), bytes };
                self.nodes[usize::from(node)].receive(now, &datagram);
            }
            Step::Load { node, under } => self.nodes[usize::from(node)].under_load = under,
            Step::Rekey { node } => {
                if let Some(id) = self.known(usize::from(node)) {
                    self.nodes[usize::from(node)].device.handle_rekey_due(now, id);
                }
            }
            Step::Keepalive { node, seconds } => {
                if let Some(id) = self.known(usize::from(node)) {
                    let interval = Some(Duration::from_secs(seconds.into()));
                    self.nodes[usize::from(node)].device.set_persistent_keepalive(now, id, interval);
                }
            }
            Step::Preshared { node, psk } => {
                if let Some(id) = self.known(usize::from(node)) {
                    self.nodes[usize::from(node)].device.set_preshared_key(
                        now,
                        id,
                        PresharedKey::from_bytes([psk % 3; 32]),
                    );
                }
            }
            Step::Identity { node, n } => {
                self.nodes[usize::from(node)].device.set_private_key(now, Some(key(1 + n % 4)))
            }
            Step::NoIdentity { node } => self.nodes[usize::from(node)].device.set_private_key(now, None),
            Step::Up { node, up } => self.nodes[usize::from(node)].device.set_up(now, up),
            Step::Forget { node } => {
                if let Some(id) = self.known(usize::from(node)) {
                    self.nodes[usize::from(node)].device.remove_peer(now, id);
                }
            }
            Step::Meet { node, n } => {
                let node = &mut self.nodes[usize::from(node)];
                let public = key(1 + n % 4).public();
                if node.device.find_peer(&public).is_none() && node.device.public_key() != Some(public) {
                    node.add_peer(now, public, Some(address(1 + n % 4)));
                }
            }
            Step::Lanes { node, lanes } => self.nodes[usize::from(node)].device.set_lanes(lanes.into()),
        }
        let now = self.now();
        for node in &mut self.nodes {
            node.settle(now);
            for arrived in node.arrived.drain(..) {
                assert!(
                    arrived.is_empty() || self.sent.remove(&arrived),
                    "something arrived that was never sent, or twice"
                );
            }
            let peers = node.device.peers().count();
            assert!(node.sessions.len() <= 3 * peers, "{} sessions of {peers} peers", node.sessions.len());
            assert!(node.out.len() < 4096);
        }
    }

    fn deliver_all(&mut self) {
        for _ in 0..256 {
            let mut idle = true;
            for from in 0..2 {
                if let Some(datagram) = self.take(from) {
                    idle = false;
                    self.arrive(1 - from, &datagram);
                }
            }
            if idle {
                return;
            }
        }
        panic!("the two never fall silent");
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let now = at(Duration::ZERO);
    let (a, b) = support::pair(now);
    let mut world =
        World { nodes: [a, b], time: Duration::ZERO, wall: 0, number: 0, sent: HashSet::new(), recorded: Vec::new() };
    for step in steps.into_iter().take(64) {
        world.step(step);
    }
});
