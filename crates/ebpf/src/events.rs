//! What the programs tell: the ring buffer `events`, read where it lies.
//!
//! The kernel's side writes records behind each other and moves the producer's position; we move the consumer's. A record that is not finished yet
//! ends what can be read for now. The ring's descriptor is readable while there is anything to read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use linux::bpf::Map;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bits of a record's header (linux/bpf.h): it is being written; it is to be passed over.
const BUSY: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;
/// Bytes of a record's header.
const HEADER: u64 = 8;

/// What a program tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The timers should look at the peer of this slot.
    Activity(u32),
    /// The session of the peer of this slot is due.
    Rekey(u32),
    /// The session of this slot was used by its initiator for the first time.
    Confirmed(u32),
    /// More was to be told than the ring holds: look at everybody.
    Lost,
}

/// The ring.
#[derive(Debug)]
pub struct Ring {
    fd: OwnedFd,
    /// Our position, which the kernel reads; one page.
    consumer: NonNull<AtomicU64>,
    /// The kernel's position, one page, and the data, twice behind each other.
    producer: NonNull<AtomicU64>,
    size: u64,
    reading: Mutex<()>,
}

// SAFETY: both mappings stay until the drop, and what lies in them is read and written by atomics, the position under a lock.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// The ring buffer of this descriptor.
    pub fn new(fd: OwnedFd) -> io::Result<Ring> {
        let map = Map::from_fd(fd.try_clone()?)?;
        let (size, page) = (map.entries() as usize, rustix::param::page_size());
        let (read, null) = (ProtFlags::READ, std::ptr::null_mut());
        // SAFETY: a new mapping at an address of the kernel's choice: the first page of a ring buffer is the consumer's.
        let consumer = unsafe { mmap(null, page, read | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)? };
        // SAFETY: likewise: from the second page on it is the producer's, and the data twice.
        let producer = match unsafe { mmap(null, page + 2 * size, read, MapFlags::SHARED, &fd, page as u64) } {
            Ok(producer) => producer,
            Err(error) => {
                // SAFETY: mapped above, with this length, and used by nobody.
                let _ = unsafe { munmap(consumer, page) };
                return Err(error.into());
            }
        };
        let pointer = |at: *mut core::ffi::c_void| NonNull::new(at.cast()).ok_or(io::ErrorKind::InvalidData);
        let (consumer, producer) = (pointer(consumer)?, pointer(producer)?);
        Ok(Ring { fd, consumer, producer, size: size as u64, reading: Mutex::new(()) })
    }

    /// The next that was told, if anything was.
    pub fn next(&self) -> Option<Told> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the mapping is there as long as `self`, and both sides use atomics on the position.
        let (ours, theirs) = unsafe { (self.consumer.as_ref(), self.producer.as_ref()) };
        loop {
            let at = ours.load(Ordering::Relaxed);
            let end = theirs.load(Ordering::Acquire);
            if at >= end {
                return None;
            }
            let header = self.word(at).load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            let len = u64::from(header & !(BUSY | DISCARD));
            let told = (header & DISCARD == 0 && len >= 8).then(|| {
                let word = |offset| self.word(at + HEADER + offset).load(Ordering::Relaxed);
                match word(0) {
                    1 => Some(Told::Activity(word(4))),
                    2 => Some(Told::Rekey(word(4))),
                    3 => Some(Told::Confirmed(word(4))),
                    _ => None,
                }
            });
            ours.store(at + (HEADER + len).next_multiple_of(8), Ordering::Release);
            // There was no room for one more like this, or soon was not.
            if end - at + HEADER + len > self.size - HEADER - 8 {
                ours.store(end, Ordering::Release);
                return Some(Told::Lost);
            }
            if let Some(told) = told.flatten() {
                return Some(told);
            }
        }
    }

    /// The word at a position of the data, which lies behind the producer's page and, so that no record is ever cut in two, there twice.
    fn word(&self, at: u64) -> &AtomicU32 {
        let offset = rustix::param::page_size() as u64 + at % self.size;
        // SAFETY: within the data and aligned, since positions are multiples of eight and offsets of four; what the kernel has published.
        unsafe { self.producer.byte_add(offset as usize).cast::<AtomicU32>().as_ref() }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let page = rustix::param::page_size();
        // SAFETY: mapped in `new` with these lengths, and nobody has a reference any more.
        unsafe {
            let _ = munmap(self.consumer.as_ptr().cast(), page);
            let _ = munmap(self.producer.as_ptr().cast(), page + 2 * self.size as usize);
        }
    }
}
