//! Large byte buffers straight from the kernel.
//!
//! A buffer is its own anonymous mapping: page-aligned, zeroed, and made of pages that exist only once they are touched, so
//! that a pool of 64 KiB buffers of which an idle device uses none costs nothing. Huge pages are refused for the same
//! reason, and core dumps leave the mapping out, because packets in the clear pass through it.

use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// An owned, zeroed region of memory; reads and writes as a byte slice. Unmapped on drop.
pub struct Buffer {
    start: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: the mapping belongs to this value alone and is plain memory; nothing in it is bound to a thread.
unsafe impl Send for Buffer {}
// SAFETY: a shared reference only gives shared slices.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Maps `len` bytes of zeros. A length of zero is an error (`InvalidInput`).
    pub fn new(len: usize) -> io::Result<Buffer> {
        let len = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), len.get(), ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?
        };
        let buffer = Buffer { start: NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?, len };
        for advice in [Advice::LinuxDontDump, Advice::LinuxNoHugepage] {
            // SAFETY: the range is the mapping just made; neither advice changes its contents.
            let advised = unsafe { madvise(start, len.get(), advice) };
            // A kernel that is built without huge pages does not know the second one (EINVAL), and needs no telling.
            if advice as u32 == Advice::LinuxDontDump as u32 {
                advised?;
            }
        }
        Ok(buffer)
    }

    /// Gives the pages back to the kernel; the buffer reads as zeros afterwards. For pools that shrink when idle.
    pub fn discard(&mut self) {
        // SAFETY: the range is this private anonymous mapping, exclusively borrowed: its pages are replaced by zero pages.
        // It cannot fail for such a range, and failing would only mean that the memory stays.
        let _ = unsafe { madvise(self.start.as_ptr().cast(), self.len.get(), Advice::LinuxDontNeed) };
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is readable and initialised (zeros) for `len` bytes and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len.get()) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len.get()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and nothing borrows it any more.
        // An error would mean that it is not mapped, which cannot be; there is nothing to do about it in any case.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident(buffer: &Buffer) -> usize {
        let mut pages = vec![0u8; buffer.len().div_ceil(4096)];
        // SAFETY: the range is mapped and page-aligned, and there is a byte for each of its pages.
        let rc = unsafe { libc::mincore(buffer.start.as_ptr().cast(), buffer.len(), pages.as_mut_ptr()) };
        assert_eq!(rc, 0);
        pages.iter().filter(|p| **p & 1 != 0).count()
    }

    #[test]
    fn pages_exist_once_touched_and_go_when_discarded() {
        let mut buffer = Buffer::new(1 << 20).expect("buffer");
        assert_eq!(buffer.as_ptr() as usize % 4096, 0);
        assert_eq!(resident(&buffer), 0);
        buffer[5 * 4096] = 7;
        assert_eq!(buffer[5 * 4096], 7);
        assert_eq!(resident(&buffer), 1);
        buffer.discard();
        assert_eq!(resident(&buffer), 0);
        assert_eq!(buffer[5 * 4096], 0);
        assert!(Buffer::new(0).is_err());
    }

    #[test]
    fn it_is_left_out_of_core_dumps() {
        let buffer = Buffer::new(1 << 16).expect("buffer");
        let address = format!("{:x}-", buffer.as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
        let flags = maps
            .lines()
            .skip_while(|l| !l.starts_with(&address))
            .find(|l| l.starts_with("VmFlags:"))
            .expect("the mapping");
        assert!(flags.split_whitespace().any(|f| f == "dd"), "{flags}");
    }
}
