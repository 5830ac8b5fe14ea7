//! The boundary between control and a data plane: what goes down, and what comes back.

use crate::policy::{PeerRule, RuleCount};
use inet::{Cidr, Endpoint};
use linux::udp::Received;
use noise::{Activity, Drop as Refusal, Lender, Mac1Checker, PeerId, Session, message::MessageType};
use std::{io, ops::Deref, os::fd::BorrowedFd, sync::Arc, time::Duration};

/// What control asks of a data plane. Every call may come from any thread.
pub trait DataPlane: Send + Sync {
    /// Who lends memory for what changes of peers and sessions, and knows what an earlier process left: asked for once, before there are peers.
    /// Without one, all of it is the protocol's own.
    fn lender(&self) -> Option<Arc<dyn Lender>> {
        None
    }

    /// The largest super-packet that is good for it, in bytes of IP packet; there are others' limits besides.
    fn super_packet_max(&self) -> u32 {
        u32::MAX
    }

    /// Makes room for a peer. What moves is reported in `activity`; if that is in lent memory, the lender has been asked for it before.
    fn add_peer(&self, peer: PeerId, activity: Arc<Activity>);
    /// Forgets a peer with its allowed IPs, its sessions and what waits for it.
    fn remove_peer(&self, peer: PeerId);

    /// Where the peer's packets are sent to.
    fn set_endpoint(&self, peer: PeerId, endpoint: Option<Endpoint>);
    /// Where the peer's packets are sent to now; roaming may have changed what was set.
    fn endpoint(&self, peer: PeerId) -> Option<Endpoint>;
    /// Lets the kernel choose the source address again, until the peer's next packet.
    fn forget_source(&self, peer: PeerId);
    /// While they are held no source address is learnt: what decides about ways out is changing.
    fn hold_sources(&self, held: bool);
    /// Ways out may have changed. What is being found out about an address at this moment does not count; all others are about to be looked at.
    fn doubt_sources(&self);
    /// If the peer is sent to from there, lets the kernel choose the source address: what is sent from that one leaves by the interface
    /// with the index `out`. Packets that come to it by any other interface do not bring it back, until the source is forgotten.
    fn refuse_source(&self, peer: PeerId, endpoint: Endpoint, out: u32);
    /// What was refused since, each with the interface by which what is sent from there leaves.
    fn refused_sources(&self, peer: PeerId) -> Vec<Endpoint>;

    /// Applies the changes in order and publishes them at once.
    fn change_allowed_ips(&self, changes: &[AllowedIpChange]);
    /// Who the peers are has been said: a change that named some, or was to be all of them, is applied, and there is a private key. What an earlier
    /// process left, and nobody has asked for by now, is not wanted.
    fn settled(&self) {}
    /// The peer's allowed IPs, in the order in which they were taken.
    fn allowed_ips(&self, peer: PeerId) -> Vec<Cidr>;

    /// Puts these rules in the place of all that say what may pass. If they are not `fresh` they are the same as before but for whose packets
    /// they take, and go on counting.
    fn set_policy(&self, rules: &[PeerRule], fresh: bool);
    /// What each rule has taken since it was put in force, in order.
    fn policy(&self) -> Vec<RuleCount>;

    /// Receives with the session from now on. One whose ledger has an odd epoch already was taken up from an earlier process.
    fn install_session(&self, session: Arc<Session>);
    /// Sends with the session from now on, what waits for one first.
    fn set_current_session(&self, peer: PeerId, session: Option<Arc<Session>>);
    /// Forgets the session's receiver index.
    fn retire_session(&self, session: &Session);

    /// Sends what waits for the peer, or else an empty packet.
    fn send_keepalive(&self, peer: PeerId);
    /// Drops what waits for the peer.
    fn drop_waiting(&self, peer: PeerId);

    /// What has moved to and from the peer.
    fn traffic(&self, peer: PeerId) -> Traffic;
    /// Adds handshake messages to the peer's traffic, in bytes.
    fn count_handshake(&self, peer: PeerId, tx: u64, rx: u64);

    /// Takes the sockets of each worker, or (`None`) closes the ones that it has: the device is down. The old ones are
    /// closed when this returns.
    fn set_sockets(&self, workers: Option<Vec<Vec<linux::udp::Socket>>>);
    /// The MTU of the inner device in bytes.
    fn set_mtu(&self, mtu: u32);
    /// The inner device may be in another network namespace now, where the senders of packets are to be told of errors.
    fn find_inner(&self);
    /// The check that a handshake message must pass before it is handed up.
    fn set_mac1_checker(&self, checker: Option<Mac1Checker>);

    /// What the data plane has to say, if anything.
    fn poll_event(&self) -> Option<PlaneEvent>;
    /// Readable while there may be events. Reading it is [`DataPlane::poll_event`]'s work.
    fn event_fd(&self) -> BorrowedFd<'_>;
    /// Takes a data message that control received, because the kernel had joined it to a handshake message.
    fn take_stray(&self, received: Received, message: &[u8]);
    /// Counts a datagram that control dropped.
    fn count_control_drop(&self, drop: ControlDrop);
    /// Packets dropped since the start, by reason: each that there is, in the order of `docs/drops.md`.
    fn drops(&self) -> Vec<(&'static str, u64)>;
    /// What each worker has done since the start.
    fn loads(&self) -> Vec<WorkerLoad>;
    /// What programs in the kernel have taken off the workers' hands since the start, if there are such programs.
    fn taken(&self) -> Option<Taken> {
        None
    }
    /// What became of packets in programs in front of the workers, by name (`docs/ebpf.md`); nothing where there are none.
    fn programs(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
    /// Stops the workers and waits for them.
    fn shutdown(&self);
}

/// Who wants to know what the workers of a data plane change by themselves. Called by whichever thread does it, in the data path: what it does
/// must be short.
pub trait Observer: Send + Sync {
    /// The peer's endpoint is another one: an authentic packet came from there, or to another address of ours, or our address was forgotten because
    /// it cannot be sent from. [`DataPlane::endpoint`] tells it. What control changes itself is not told.
    fn endpoint_moved(&self, peer: PeerId);

    /// The peer's first data message of a session that it began has come, and from here on we send with that session. Told before the message's packet is
    /// handed on, so that whatever answers it leaves under the new session, whoever seals it.
    fn session_confirmed(&self, peer: PeerId, session: &Session);
}

/// One change of the allowed IPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedIpChange {
    /// The peer takes the prefix, from another one if that has it.
    Insert(Cidr, PeerId),
    /// The peer gives the prefix up; nothing happens if another one has it.
    Remove(Cidr, PeerId),
    /// The peer gives up all that it has.
    Clear(PeerId),
}

/// What has moved to and from a peer, in bytes of WireGuard messages, as wg(8) counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sent.
    pub tx_bytes: u64,
    /// Received and authenticated.
    pub rx_bytes: u64,
}

/// Packets that programs in the kernel have handled in place of workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Sealed and sent.
    pub sent: u64,
    /// Opened, empty ones too.
    pub received: u64,
}

/// Up to how many packets a batch has that is counted in each place of [`Batches::sizes`] but the last, where larger ones are.
pub const BATCH_SIZES: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Places of [`Batches::sizes`].
pub const BATCHES_SIZED: usize = BATCH_SIZES.len() + 1;

/// Batches of packets that were sealed, or opened, and handed on. What was dropped after that is among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batches {
    /// WireGuard data messages.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Batches by their size (see [`BATCH_SIZES`]).
    pub sizes: [u64; BATCHES_SIZED],
}

/// What a worker has done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerLoad {
    /// Processor time that it took.
    pub busy: Duration,
    /// How often it slept and was woken.
    pub wakeups: u64,
    /// Steps that it took for other workers.
    pub helped: u64,
    /// To the network, by its sockets.
    pub sent: Batches,
    /// From the network, by its sockets.
    pub received: Batches,
}

/// Why control dropped a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlDrop {
    /// The protocol refuses it.
    Refused(noise::Drop),
    /// Too many handshake messages wait.
    QueueFull,
    /// A handshake message waited for so long that nobody waits for its answer.
    Stale,
    /// It is data, which the kernel joined to a handshake message, and not control's to open.
    Misplaced,
}

/// What a data plane hands back.
pub enum PlaneEvent {
    /// Packets wait for the peer, and there is no session that may send.
    SessionWanted(PeerId),
    /// The peer's session is old: a new one should be made while it still serves.
    RekeyDue(PeerId),
    /// The first packet under the session authenticated: the initiator has it too.
    SessionConfirmed(Arc<Session>),
    /// Timers should look at the peer's [`Activity`].
    Activity(PeerId),
    /// A handshake message (types 1 to 3) whose mac1 is right.
    Handshake {
        /// Where it came from, and which address of ours it came to.
        from: Endpoint,
        /// The message.
        bytes: HandshakeBytes,
    },
    /// The inner device has gone; the data plane has stopped.
    TunGone(io::Error),
}

/// The bytes of one handshake message, inline.
#[derive(Clone, Copy)]
pub struct HandshakeBytes {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl HandshakeBytes {
    /// Length in bytes of the longest, the initiation (whitepaper, section 5.4.2).
    pub const MAX: usize = 148;

    /// Copies a message; `None` when it is longer than any handshake message.
    pub fn new(message: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MAX];
        bytes.get_mut(..message.len())?.copy_from_slice(message);
        Some(Self { bytes, len: message.len() as u8 })
    }

    /// Copies a datagram, if it is a handshake message and its mac1 says that it is meant for us: `mac1` checks that, unless
    /// there is no private key.
    ///
    /// # Errors
    /// Why it is to be dropped.
    pub fn checked(datagram: &[u8], mac1: Option<&Mac1Checker>) -> Result<Self, ControlDrop> {
        let refused = ControlDrop::Refused;
        match MessageType::of(datagram) {
            None => return Err(refused(Refusal::Malformed)),
            Some(MessageType::Transport) => return Err(ControlDrop::Misplaced),
            Some(_) => mac1.ok_or(refused(Refusal::NoPrivateKey))?.check(datagram).map_err(refused)?,
        }
        Self::new(datagram).ok_or(refused(Refusal::Malformed))
    }
}

impl Deref for HandshakeBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}
