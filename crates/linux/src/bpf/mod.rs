//! eBPF by descriptor: maps that others made, and programs put where packets pass.
//!
//! Who loads programs and makes maps is somebody else (`ebpf`, at the start, with all privileges). What is in here is what goes on after that,
//! in a process that has none: reading and changing maps, which a descriptor alone allows (Linux 5.19 asks for no capability besides), and
//! having the steward put a program on an interface or take it away ([`hook`]).

mod filter;
pub mod hook;

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub use filter::PRIORITY;
pub use hook::{Attached, Hook};

// Commands of bpf(2).
pub(crate) const MAP_LOOKUP: libc::c_int = 1;
pub(crate) const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const NEXT_KEY: libc::c_int = 4;
pub(crate) const PROGRAM_RUN: libc::c_int = 10;
pub(crate) const INFO_BY_FD: libc::c_int = 15;
pub(crate) const LINK_CREATE: libc::c_int = 28;
pub(crate) const LINK_UPDATE: libc::c_int = 29;

/// Types of maps that have a value for each processor (`enum bpf_map_type`): hash, array, LRU hash.
const PER_CPU: [u32; 3] = [5, 6, 10];

/// The fields of `union bpf_attr` for the commands on elements of a map.
#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The commands that take no privilege but a descriptor, or two.
pub(crate) const UNPRIVILEGED: [libc::c_int; 6] =
    [MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, NEXT_KEY, PROGRAM_RUN, LINK_UPDATE];

/// The fields of `union bpf_attr` for BPF_PROG_RUN.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    result: u32,
    data_lens: [u32; 2],
    data: [u64; 2],
    repeat: u32,
    duration: u32,
    context_len: u32,
    context_len_out: u32,
    context: u64,
    context_out: u64,
    flags: u32,
    processor: u32,
    batch: u32,
    reserved: u32,
}

/// Runs a program of the type SYSCALL with this context, and returns what it does.
pub fn run(program: BorrowedFd<'_>, context: &[u8]) -> io::Result<u32> {
    let mut attributes = Run {
        program: program.as_raw_fd() as u32,
        context_len: context.len() as u32,
        context: context.as_ptr() as u64,
        ..Run::default()
    };
    // SAFETY: the kernel copies the context, which is readable for its length, and writes to the attributes alone. A program of another type
    // is refused without data.
    unsafe { call(PROGRAM_RUN, &mut attributes)? };
    Ok(attributes.result)
}

/// The fields of `union bpf_attr` for BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct InfoRequest {
    fd: u32,
    len: u32,
    info: u64,
}

/// The first fields of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
}

/// Calls bpf(2) with these attributes, which the command reads and whose pointers it follows.
///
/// # Safety
/// The attributes are those of the command, and what they point to is readable and writable as the command has it.
unsafe fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the caller vouches for the attributes, which are readable for their size.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

/// A map of any type: keys and values as bytes.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    key: usize,
    /// Of a value as the calls have it: for all processors, where each has its own.
    value: usize,
    entries: u32,
    parts: usize,
}

impl Map {
    /// The map of this descriptor. Ask it while the process may still: it is not among what the sandbox leaves.
    ///
    /// # Errors
    /// It is no map's; and, of one that has values for each processor, how many there are cannot be read in `/sys`.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Map> {
        let mut info = MapInfo::default();
        let len = size_of::<MapInfo>() as u32;
        let mut request = InfoRequest { fd: fd.as_raw_fd() as u32, len, info: (&raw mut info) as u64 };
        // SAFETY: the kernel writes at most `len` bytes to `info`, which has as many and for which any are valid.
        unsafe { call(INFO_BY_FD, &mut request)? };
        let (key, value) = (info.key_size as usize, info.value_size as usize);
        let parts = if PER_CPU.contains(&info.kind) { processors()? } else { 1 };
        let value = if parts > 1 || PER_CPU.contains(&info.kind) { value.next_multiple_of(8) * parts } else { value };
        Ok(Map { fd, key, value, entries: info.entries, parts })
    }

    /// How many elements it has room for.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Bytes of a key, and of a value as [`Map::lookup`] gives it.
    pub fn sizes(&self) -> (usize, usize) {
        (self.key, self.value)
    }

    /// How many values an element has, one after the other in what [`Map::lookup`] gives: one for each processor that there may be, or one.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// Copies the value to `into`. ENOENT where the map has no such key.
    pub fn lookup(&self, key: &[u8], into: &mut [u8]) -> io::Result<()> {
        self.check(key, Some(into.len()))?;
        // SAFETY: key and value have the map's sizes, and the value may be written.
        unsafe { self.call(MAP_LOOKUP, key, into.as_mut_ptr() as u64) }
    }

    /// Adds an element, or changes the one that is there. E2BIG or ENOSPC where there is no room for another.
    pub fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key, Some(value.len()))?;
        // SAFETY: key and value have the map's sizes, and the kernel only reads them.
        unsafe { self.call(MAP_UPDATE, key, value.as_ptr() as u64) }
    }

    /// Takes an element away. ENOENT where there is none.
    pub fn delete(&self, key: &[u8]) -> io::Result<()> {
        self.check(key, None)?;
        // SAFETY: the key has the map's size, and this command looks at no value.
        unsafe { self.call(MAP_DELETE, key, 0) }
    }

    /// All keys, in no order. Of a map that changes meanwhile some may be missing, or twice.
    pub fn keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut next = vec![0; self.key];
        loop {
            let map = self.fd.as_raw_fd() as u32;
            // Without a key it is the first.
            let key = keys.last().map_or(0, |key| key.as_ptr() as u64);
            let mut element = Element { map, pad: 0, key, value: next.as_mut_ptr() as u64, flags: 0 };
            // SAFETY: both keys have the map's size, and the next one may be written.
            match unsafe { call(NEXT_KEY, &mut element) } {
                Ok(_) => keys.push(next.clone()),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
                Err(error) => return Err(error),
            }
            // One that changes all the time has no end.
            if keys.len() > 2 * self.entries as usize {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }

    fn check(&self, key: &[u8], value: Option<usize>) -> io::Result<()> {
        let fits = key.len() == self.key && value.is_none_or(|len| len == self.value);
        if fits { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// # Safety
    /// The key has the map's size, and so has what `value` points to, which the command may read or write.
    unsafe fn call(&self, command: libc::c_int, key: &[u8], value: u64) -> io::Result<()> {
        let map = self.fd.as_raw_fd() as u32;
        let mut element = Element { map, pad: 0, key: key.as_ptr() as u64, value, flags: 0 };
        // SAFETY: the caller vouches for key and value; the attributes are those of these commands.
        unsafe { call(command, &mut element) }.map(drop)
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How many processors there may ever be in this machine, as the kernel counts values for each.
fn processors() -> io::Result<usize> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    parse_processors(text.trim()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// How many numbers a list such as `0-3,8` has.
fn parse_processors(list: &str) -> Option<usize> {
    list.split(',').try_fold(0, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(sum + (last + 1).checked_sub(first)?)
    })
}

/// The descriptor that a call has made.
fn made(result: io::Result<libc::c_int>) -> io::Result<OwnedFd> {
    // SAFETY: the call has made this descriptor, and nobody else has it.
    result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_as_the_kernel_counts_them() {
        for (list, count) in [("0", 1), ("0-1", 2), ("0-3,8", 5), ("0,2,4-7", 6)] {
            assert_eq!(parse_processors(list), Some(count), "{list}");
        }
        for list in ["", "a", "3-1", "0-"] {
            assert_eq!(parse_processors(list), None, "{list}");
        }
    }
}
