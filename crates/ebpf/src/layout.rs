//! What the programs and we share in memory, as `bpf/layout.h` has it: the same fields at the same places, which a test compares by the object's BTF.
//!
//! Everything here is atomic, since programs on other processors read and write it at any time. All zeros is valid everywhere, and means nothing.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use noise::Notes;

/// WL_LAYOUT: another number, and another process's maps are not to be taken over.
pub const LAYOUT: u32 = 3;
/// WL_NONE: no slot.
pub const NONE: u32 = u32::MAX;

/// Words of a path.
const PATH_WORDS: usize = 20;

/// `struct wl_device`.
#[repr(C)]
#[derive(Debug)]
pub struct Device {
    /// [`LAYOUT`].
    pub layout: AtomicU32,
    /// 0: everything is left to us.
    pub enabled: AtomicU32,
    /// The tunnel's interface.
    pub inner_ifindex: AtomicU32,
    /// Its MTU, in bytes.
    pub inner_mtu: AtomicU32,
    /// Where we listen: in network order in the first two bytes.
    pub port: AtomicU32,
    /// By it the programs' marks are told from those of another device's.
    pub number: AtomicU32,
    /// The greatest label that was sent in an initiation.
    pub last_tai64n: [AtomicU64; 2],
    /// Rules in force.
    pub policy: AtomicU64,
}

/// `struct wl_peer`.
#[repr(C)]
pub struct Peer {
    /// What moves, for the timers.
    pub notes: Notes,
    /// The session to send with: a [`reference`].
    pub current: AtomicU64,
    path_seq: AtomicU32,
    /// For the policy.
    pub flags: AtomicU32,
    path: [AtomicU32; PATH_WORDS],
    tag: [AtomicU32; 8],
    /// Whether the slot is a peer's.
    pub in_use: AtomicU32,
    /// The greatest label that came in an initiation.
    label: [AtomicU32; 3],
}

/// `struct wl_traffic`, of one processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of WireGuard messages that were sent.
    pub tx_bytes: u64,
    /// The same, received.
    pub rx_bytes: u64,
    /// Messages that were sent.
    pub tx_packets: u64,
    /// The same, received.
    pub rx_packets: u64,
}

impl Traffic {
    /// Bytes that one processor's share takes.
    pub const LEN: usize = 32;

    /// The sum of all processors' shares.
    pub fn sum(shares: &[u8]) -> Traffic {
        let mut sum = Traffic::default();
        for share in shares.chunks_exact(Self::LEN) {
            let field = |at: usize| share[at..at + 8].try_into().map(u64::from_ne_bytes).unwrap_or_default();
            sum.tx_bytes += field(0);
            sum.rx_bytes += field(8);
            sum.tx_packets += field(16);
            sum.rx_packets += field(24);
        }
        sum
    }
}

/// What names a session: the slot of its ledger, and the epoch in which it lives.
pub fn reference(slot: u32, epoch: u32) -> u64 {
    u64::from(slot) << 32 | u64::from(epoch)
}

/// `struct wl_path`: the way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where the peer is.
    pub remote: SocketAddr,
    /// From where of ours it is sent to.
    pub local: IpAddr,
    /// The next hop, if it is not the peer.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub ifindex: u32,
    /// Of the whole way, in bytes of an IP packet.
    pub mtu: u32,
    /// The next hop's hardware address and the interface's, if both are known.
    pub macs: Option<([u8; 6], [u8; 6])>,
    /// The firewall mark of what leaves.
    pub mark: u32,
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 4 } else { 6 }
}

fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
    }
}

impl Path {
    /// The interface and the address that the packets are handed to.
    pub fn hop(&self) -> (u32, IpAddr) {
        (self.ifindex, self.gateway.unwrap_or(self.remote.ip()))
    }

    fn bytes(&self) -> [u8; 4 * PATH_WORDS] {
        let mut bytes = [0; 4 * PATH_WORDS];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, &address(self.remote.ip()));
        put(16, &address(self.local));
        put(32, &self.gateway.map(address).unwrap_or_default());
        put(48, &self.remote.port().to_be_bytes());
        put(50, &[family(self.remote.ip()), self.gateway.map_or(0, family)]);
        put(52, &self.ifindex.to_ne_bytes());
        put(56, &self.mtu.to_ne_bytes());
        put(60, &u32::from(self.macs.is_some()).to_ne_bytes());
        let (to, from) = self.macs.unwrap_or_default();
        put(64, &to);
        put(70, &from);
        put(76, &self.mark.to_ne_bytes());
        bytes
    }
}

impl Peer {
    /// Writes the way to the peer; `None` leaves its packets to us. For one thread at a time: see `Store::paths`.
    pub fn set_path(&self, path: Option<&Path>) {
        let bytes = path.map_or([0; 4 * PATH_WORDS], Path::bytes);
        let seq = self.path_seq.load(Ordering::Relaxed) | 1;
        self.path_seq.store(seq, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        for (word, bytes) in self.path.iter().zip(bytes.chunks_exact(4)) {
            word.store(u32::from_ne_bytes(bytes.try_into().unwrap_or_default()), Ordering::Relaxed);
        }
        self.path_seq.store(seq.wrapping_add(1), Ordering::Release);
    }

    /// Where the peer is, and from where of ours and by which interface it was sent to, as it was last written.
    pub fn whereabouts(&self) -> Option<(SocketAddr, IpAddr, u32)> {
        if self.path_seq.load(Ordering::Acquire) % 2 == 1 {
            return None;
        }
        let mut bytes = [0; 4 * PATH_WORDS];
        for (word, bytes) in self.path.iter().zip(bytes.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        let ip = |at: usize| -> Option<IpAddr> {
            match bytes[50] {
                4 => bytes[at..].first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
                6 => bytes[at..].first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
                _ => None,
            }
        };
        let (port, ifindex) = (bytes[48..].first_chunk()?, u32::from_ne_bytes(*bytes[52..].first_chunk()?));
        let remote = match (ip(0)?, u16::from_be_bytes(*port)) {
            (IpAddr::V6(ip), port) if ip.is_unicast_link_local() => SocketAddrV6::new(ip, port, 0, ifindex).into(),
            (ip, port) => SocketAddr::new(ip, port),
        };
        Some((remote, ip(16)?, ifindex))
    }

    /// Writes the tag by which a successor knows the peer; zeros for none.
    pub fn set_tag(&self, tag: &[u8; 32]) {
        store(&self.tag, tag);
    }

    /// The tag.
    pub fn tag(&self) -> [u8; 32] {
        load(&self.tag)
    }

    /// Writes the greatest label that came in an initiation.
    pub fn set_label(&self, label: &[u8; 12]) {
        store(&self.label, label);
    }

    /// That label; zeros for none.
    pub fn label(&self) -> [u8; 12] {
        load(&self.label)
    }

    /// Forgets everything but the notes, which their holder clears, and the path.
    pub fn clear(&self) {
        self.current.store(0, Ordering::SeqCst);
        self.set_tag(&[0; 32]);
        self.set_label(&[0; 12]);
        self.flags.store(0, Ordering::Relaxed);
    }
}

fn store<const BYTES: usize>(words: &[AtomicU32], bytes: &[u8; BYTES]) {
    for (word, bytes) in words.iter().zip(bytes.chunks_exact(4)) {
        word.store(u32::from_ne_bytes(bytes.try_into().unwrap_or_default()), Ordering::Relaxed);
    }
}

fn load<const BYTES: usize>(words: &[AtomicU32]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (word, bytes) in words.iter().zip(bytes.chunks_exact_mut(4)) {
        bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn the_layout_is_that_of_the_programs() {
        // The object's BTF says what the compiler made of `layout.h`.
        let structs = crate::object::structs(crate::OBJECT);
        let offsets = |name: &str| {
            let (size, fields) = &structs[name];
            (*size, fields.iter().map(|(name, offset)| (name.as_str(), *offset)).collect::<Vec<_>>())
        };
        let field = |of: &str, name: &str| {
            let (_, fields) = offsets(of);
            fields.iter().find(|(field, _)| *field == name).unwrap_or_else(|| panic!("{of}.{name}")).1
        };
        assert_eq!(offsets("wl_notes").1, noise::Notes::FIELDS);
        assert_eq!(offsets("wl_notes").0, size_of::<noise::Notes>());
        assert_eq!(offsets("wl_ledger").1, noise::Ledger::FIELDS);
        assert_eq!(offsets("wl_ledger").0, size_of::<noise::Ledger>());
        assert_eq!(offsets("wl_device").0, size_of::<Device>());
        for (name, offset) in [
            ("layout", offset_of!(Device, layout)),
            ("enabled", offset_of!(Device, enabled)),
            ("inner_ifindex", offset_of!(Device, inner_ifindex)),
            ("inner_mtu", offset_of!(Device, inner_mtu)),
            ("port", offset_of!(Device, port)),
            ("last_tai64n", offset_of!(Device, last_tai64n)),
            ("number", offset_of!(Device, number)),
            ("policy", offset_of!(Device, policy)),
        ] {
            assert_eq!(field("wl_device", name), offset, "{name}");
        }
        assert_eq!(offsets("wl_peer").0, size_of::<Peer>());
        for (name, offset) in [
            ("notes", offset_of!(Peer, notes)),
            ("current", offset_of!(Peer, current)),
            ("path_seq", offset_of!(Peer, path_seq)),
            ("flags", offset_of!(Peer, flags)),
            ("path", offset_of!(Peer, path)),
            ("tag", offset_of!(Peer, tag)),
            ("in_use", offset_of!(Peer, in_use)),
            ("reserved", offset_of!(Peer, label)),
        ] {
            assert_eq!(field("wl_peer", name), offset, "{name}");
        }
        assert_eq!(offsets("wl_path").0, 4 * PATH_WORDS);
        for (name, offset) in [
            ("remote", 0),
            ("local", 16),
            ("gateway", 32),
            ("remote_port", 48),
            ("family", 50),
            ("has_gateway", 51),
            ("ifindex", 52),
            ("mtu", 56),
            ("has_mac", 60),
            ("h_dest", 64),
            ("h_source", 70),
            ("mark", 76),
        ] {
            assert_eq!(field("wl_path", name), offset, "{name}");
        }
        assert_eq!(offsets("wl_traffic").0, Traffic::LEN);
        assert_eq!((field("wl_keys", "send"), field("wl_keys", "receive"), field("wl_keys", "epoch")), (0, 32, 64));
    }

    #[test]
    fn a_path_lies_where_the_programs_look_for_it() {
        let path = Path {
            remote: "192.0.2.1:51820".parse().unwrap(),
            local: "192.0.2.2".parse().unwrap(),
            gateway: Some("fd00::1".parse().unwrap()),
            ifindex: 7,
            mtu: 1400,
            macs: Some(([1; 6], [2; 6])),
            mark: 5,
        };
        let bytes = path.bytes();
        assert_eq!((&bytes[..5], &bytes[16..20]), (&[192, 0, 2, 1, 0][..], &[192, 0, 2, 2][..]));
        assert_eq!((&bytes[32..34], bytes[47]), (&[0xfd, 0][..], 1));
        assert_eq!(
            (&bytes[48..52], bytes[52], &bytes[64..76]),
            (&[0xca, 0x6c, 4, 6][..], 7, &[[1; 6], [2; 6]].concat()[..])
        );
    }
}
