//! The maps that the programs work with: three as memory that both sides have before them, the others by calls.
//!
//! A [`Mapping`] is an array map's memory. It stays mapped for as long as anything borrowed from it is held: what is lent to sessions and peers holds it
//! too ([`crate::store`]). The kernel puts all pages of such a mapping before the process at once, so each piece of it is mapped when somebody first asks for
//! an element there: a daemon with few peers has little of it.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use inet::Cidr;
use linux::bpf::Map;
use noise::Ledger;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use zeroize::Zeroizing;

use crate::layout::{Device, NONE, Peer, Traffic};
use crate::rules::Rules;

/// What all zeros is a valid one of, what is changed by atomics only, and what lies in an array map in this form.
///
/// # Safety
/// It is `repr(C)`, of atomic integers alone, and its size is a multiple of eight.
unsafe trait Shared: Sync {}
// SAFETY: see its definition: words of 32 and 64 bits, 48 bytes.
unsafe impl Shared for Device {}
// SAFETY: see its definition, and that of the notes; 184 bytes.
unsafe impl Shared for Peer {}
// SAFETY: one word of 64 bits.
unsafe impl Shared for Word {}
// SAFETY: see its definition, which the test of the layout compares with the programs'; 4176 bytes.
unsafe impl Shared for Ledger {}

/// One word.
#[repr(C)]
pub struct Word(pub AtomicU64);

/// Bytes that are mapped at once: whole pages, of whatever size they are.
const PIECE: usize = 64 << 10;

/// The memory of an array map.
pub struct Mapping<T> {
    /// Where room for all of it is kept.
    start: NonNull<T>,
    len: usize,
    bytes: usize,
    map: OwnedFd,
    /// Which pieces are mapped. They stay so.
    pieces: Box<[AtomicBool]>,
    mapping: Mutex<()>,
    kind: PhantomData<T>,
}

// SAFETY: it is shared memory of atomics, which `T: Sync` says may be looked at from all threads; nothing is moved out of it.
unsafe impl<T: Sync> Send for Mapping<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Mapping<T> {}

#[allow(private_bounds, reason = "only what is in this crate lies in its maps")]
impl<T: Shared> Mapping<T> {
    fn new(map: &Map) -> io::Result<Mapping<T>> {
        const { assert!(size_of::<T>().is_multiple_of(8) && size_of::<T>() <= PIECE && align_of::<T>() <= 8) };
        if map.sizes() != (4, size_of::<T>()) {
            return Err(io::Error::other("a map has another layout than this program"));
        }
        Mapping::over(map.as_fd().try_clone_to_owned()?, map.entries() as usize)
    }

    /// The same memory once more, which is let go when this is.
    pub fn again(&self) -> io::Result<Mapping<T>> {
        Mapping::over(self.map.try_clone()?, self.len)
    }

    fn over(map: OwnedFd, len: usize) -> io::Result<Mapping<T>> {
        let bytes = (len * size_of::<T>()).next_multiple_of(rustix::param::page_size());
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice, which nobody may read or write yet.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::empty(), flags)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        let pieces = (0..bytes.div_ceil(PIECE)).map(|_| AtomicBool::new(false)).collect();
        let mapping = Mapping { start, len, bytes, map, pieces, mapping: Mutex::new(()), kind: PhantomData };
        // All have a first one, and most a use for it.
        if mapping.get(0).is_none() {
            return Err(io::Error::other("a map cannot be mapped"));
        }
        Ok(mapping)
    }

    /// Maps a piece.
    #[cold]
    fn map(&self, piece: usize) {
        let _mapping = self.mapping.lock().unwrap_or_else(PoisonError::into_inner);
        if self.pieces[piece].load(Ordering::Acquire) {
            return;
        }
        let at = piece * PIECE;
        let (len, protection) = (PIECE.min(self.bytes - at), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: it takes the place of room that we keep for it, and into which nobody has a reference before the piece is mapped.
        let mapped = unsafe {
            let place = self.start.cast::<u8>().add(at).as_ptr().cast();
            mmap(place, len, protection, MapFlags::SHARED | MapFlags::FIXED, &self.map, at as u64)
        };
        match mapped {
            Ok(_) => self.pieces[piece].store(true, Ordering::Release),
            Err(error) => log::error!("memory of an eBPF map cannot be mapped: {error}"),
        }
    }

    /// The pieces in which an element lies: two at most.
    #[inline]
    fn pieces_of(slot: usize) -> [usize; 2] {
        let at = slot * size_of::<T>();
        [at / PIECE, (at + size_of::<T>() - 1) / PIECE]
    }

    /// The element of this slot, if there is one that anybody has asked for.
    #[inline]
    pub fn touched(&self, slot: u32) -> Option<&T> {
        let slot = slot as usize;
        let is_mapped = |piece: usize| self.pieces[piece].load(Ordering::Acquire);
        if slot >= self.len || !Self::pieces_of(slot).into_iter().all(is_mapped) {
            return None;
        }
        // SAFETY: it lies within what is mapped, and that is there as long as `self`; any bytes are a valid `T`, and all who write use atomics.
        Some(unsafe { self.start.add(slot).as_ref() })
    }

    /// The element of this slot, if there is one. One that is lent has been asked for, and is there.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&T> {
        self.touched(slot).or_else(|| self.touch(slot))
    }

    #[cold]
    fn touch(&self, slot: u32) -> Option<&T> {
        if (slot as usize) < self.len {
            Self::pieces_of(slot as usize).into_iter().for_each(|piece| self.map(piece));
        }
        self.touched(slot)
    }

    /// Sets all bytes of the element to zero, while nobody else uses it.
    pub fn zero(&self, slot: u32) {
        let Some(element) = self.get(slot) else { return };
        let words = NonNull::from(element).cast::<AtomicU64>();
        for word in 0..size_of::<T>() / 8 {
            // SAFETY: the element consists of so many words of eight bytes, aligned as such, of atomics that may be written through a shared
            // reference.
            unsafe { words.add(word).as_ref() }.store(0, Ordering::Relaxed);
        }
    }

    /// The first element, which each map has.
    pub fn first(&self) -> &T {
        // SAFETY: a map has at least one element, which was mapped first, and the mapping is there as long as `self`.
        unsafe { self.start.as_ref() }
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty, reason = "a map has at least one element")]
    pub fn len(&self) -> u32 {
        self.len as u32
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into it, as those borrow from `self`; it was mapped with this length.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Descriptors of the maps, as they are loaded or handed over.
#[derive(Debug)]
pub struct MapFds {
    /// `device`, `peers`, `ledgers`, `keys`, `sessions`, `allowed4`, `allowed6`, `traffic`, `counts`, `events`, `rules`,
    /// `rule_counts`, `rule_buckets`.
    pub all: [OwnedFd; MapFds::NAMES.len()],
}

impl MapFds {
    /// The maps' names, in the order of their descriptors.
    pub const NAMES: [&'static str; 13] = [
        "device",
        "peers",
        "ledgers",
        "keys",
        "sessions",
        "allowed4",
        "allowed6",
        "traffic",
        "counts",
        "events",
        "rules",
        "rule_counts",
        "rule_buckets",
    ];
}

/// The maps.
pub struct Maps {
    device: Mapping<Device>,
    /// Peers, by slot.
    pub peers: Arc<Mapping<Peer>>,
    /// Sessions, by slot.
    pub ledgers: Arc<Mapping<Ledger>>,
    keys: Map,
    sessions: Map,
    allowed: [Map; 2],
    traffic: Map,
    counts: Map,
    /// The policy's.
    pub rules: Rules,
}

impl Maps {
    /// The maps of these descriptors, and that of the events.
    ///
    /// # Errors
    /// They are not maps of ours, or of another version.
    pub fn new(fds: MapFds) -> io::Result<(Maps, OwnedFd)> {
        let [
            device,
            peers,
            ledgers,
            keys,
            sessions,
            allowed4,
            allowed6,
            traffic,
            counts,
            events,
            rules,
            taken,
            buckets,
        ] = fds.all;
        let open = Map::from_fd;
        let maps = Maps {
            device: Mapping::new(&open(device)?)?,
            peers: Arc::new(Mapping::new(&open(peers)?)?),
            ledgers: Arc::new(Mapping::new(&open(ledgers)?)?),
            keys: open(keys)?,
            sessions: open(sessions)?,
            allowed: [open(allowed4)?, open(allowed6)?],
            traffic: open(traffic)?,
            counts: open(counts)?,
            rules: Rules::new(open(rules)?, open(taken)?, Mapping::new(&open(buckets)?)?)?,
        };
        let (_, keys) = maps.keys.sizes();
        let (_, share) = maps.traffic.sizes();
        if maps.device.len() != 1 || keys < Keys::USED || share != Traffic::LEN * maps.traffic.parts() {
            return Err(io::Error::other("a map has another layout than this program"));
        }
        Ok((maps, events))
    }

    /// What holds for the whole device.
    pub fn device(&self) -> &Device {
        self.device.first()
    }

    /// Writes a session's keys, with the epoch that they are for.
    pub fn set_keys(&self, slot: u32, sending: &[u8; 32], receiving: &[u8; 32], epoch: u32) -> io::Result<()> {
        let mut value = Zeroizing::new(vec![0; self.keys.sizes().1]);
        value[..32].copy_from_slice(sending);
        value[32..64].copy_from_slice(receiving);
        value[64..68].copy_from_slice(&epoch.to_ne_bytes());
        self.keys.update(&slot.to_ne_bytes(), &value)
    }

    /// Overwrites a session's keys.
    pub fn wipe_keys(&self, slot: u32) {
        if let Err(error) = self.set_keys(slot, &[0; 32], &[0; 32], 0) {
            log::error!("the keys of an ended session are not overwritten: {error}");
        }
    }

    /// A session's keys as they are there: what is sent with first.
    pub fn keys(&self, slot: u32) -> io::Result<Keys> {
        let mut value = Zeroizing::new(vec![0; self.keys.sizes().1]);
        self.keys.lookup(&slot.to_ne_bytes(), &mut value)?;
        let mut keys = Keys { sending: Zeroizing::new([0; 32]), receiving: Zeroizing::new([0; 32]) };
        keys.sending.copy_from_slice(&value[..32]);
        keys.receiving.copy_from_slice(&value[32..64]);
        Ok(keys)
    }

    /// Has messages to this index, as it lies on the wire, opened with the session.
    pub fn add_session(&self, index: u32, reference: u64) -> io::Result<()> {
        self.sessions.update(&index.to_ne_bytes(), &reference.to_ne_bytes())
    }

    /// The session of this index.
    pub fn session(&self, index: u32) -> Option<u64> {
        let mut reference = [0; 8];
        self.sessions.lookup(&index.to_ne_bytes(), &mut reference).ok().map(|()| u64::from_ne_bytes(reference))
    }

    /// Forgets the index.
    pub fn remove_session(&self, index: u32) {
        // ENOENT: it is not there.
        let _ = self.sessions.delete(&index.to_ne_bytes());
    }

    /// Leads the prefix to the peer of this slot, or, with none, to us.
    pub fn allow(&self, prefix: Cidr, slot: Option<u32>) -> io::Result<()> {
        let (map, key) = self.prefix(prefix);
        map.update(&key, &slot.unwrap_or(NONE).to_ne_bytes())
    }

    /// Forgets the prefix.
    pub fn disallow(&self, prefix: Cidr) {
        let (map, key) = self.prefix(prefix);
        // ENOENT: it is not there.
        let _ = map.delete(&key);
    }

    /// All prefixes that lead to anybody.
    pub fn prefixes(&self) -> io::Result<Vec<Cidr>> {
        let mut prefixes = Vec::new();
        for map in &self.allowed {
            for key in map.keys()? {
                let Some((bits, address)) = key.split_first_chunk() else { continue };
                let ip = match *address {
                    [a, b, c, d] => std::net::Ipv4Addr::new(a, b, c, d).into(),
                    _ => match <[u8; 16]>::try_from(address) {
                        Ok(octets) => std::net::Ipv6Addr::from(octets).into(),
                        Err(_) => continue,
                    },
                };
                prefixes.extend(u8::try_from(u32::from_ne_bytes(*bits)).ok().and_then(|len| Cidr::new(ip, len)));
            }
        }
        Ok(prefixes)
    }

    fn prefix(&self, prefix: Cidr) -> (&Map, Vec<u8>) {
        let bits = u32::from(prefix.prefix_len()).to_ne_bytes();
        match prefix.addr() {
            std::net::IpAddr::V4(ip) => (&self.allowed[0], [&bits[..], &ip.octets()].concat()),
            std::net::IpAddr::V6(ip) => (&self.allowed[1], [&bits[..], &ip.octets()].concat()),
        }
    }

    /// What has moved to and from the peer of this slot.
    pub fn traffic(&self, slot: u32) -> Traffic {
        let mut shares = vec![0; self.traffic.sizes().1];
        match self.traffic.lookup(&slot.to_ne_bytes(), &mut shares) {
            Ok(()) => Traffic::sum(&shares),
            Err(_) => Traffic::default(),
        }
    }

    /// Begins to count the slot's traffic anew.
    pub fn reset_traffic(&self, slot: u32) {
        let zeros = vec![0; self.traffic.sizes().1];
        if let Err(error) = self.traffic.update(&slot.to_ne_bytes(), &zeros) {
            log::error!("a peer's traffic begins with that of another: {error}");
        }
    }

    /// How often each thing has happened to packets, in the order of the programs' list (`bpf/counts.h`).
    pub fn counts(&self) -> Vec<u64> {
        let mut shares = vec![0; self.counts.sizes().1];
        let mut count = |what: u32| {
            self.counts.lookup(&what.to_ne_bytes(), &mut shares).ok()?;
            let number = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).unwrap_or_default();
            Some(shares.chunks_exact(8).map(number).sum())
        };
        (0..self.counts.entries()).map(|what| count(what).unwrap_or_default()).collect()
    }
}

impl AsFd for Maps {
    /// One of the maps, for whoever wants any descriptor of them.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.keys.as_fd()
    }
}

/// Both keys of a session.
pub struct Keys {
    /// For what we send.
    pub sending: Zeroizing<[u8; 32]>,
    /// For what we receive.
    pub receiving: Zeroizing<[u8; 32]>,
}

impl Keys {
    /// Bytes of `struct wl_keys` that we write: both keys, and the epoch.
    const USED: usize = 68;

    /// Whether these are no keys: none were written, or they were overwritten since.
    pub fn are_zeros(&self) -> bool {
        self.sending.iter().chain(self.receiving.iter()).fold(0, |any, byte| any | byte) == 0
    }
}
