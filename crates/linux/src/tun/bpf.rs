//! eBPF: programs are put together here, instruction by instruction, and loaded; a map is memory that they share with us.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// One instruction, as in the kernel's `struct bpf_insn`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The fields of `union bpf_attr` for BPF_PROG_LOAD that we use, up to `prog_flags`.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The fields of `union bpf_attr` for BPF_MAP_CREATE that we use.
#[repr(C)]
struct MapAttributes {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
}

const MAP_CREATE: libc::c_int = 0;
const PROG_LOAD: libc::c_int = 5;
const PROG_TYPE_SOCKET_FILTER: u32 = 1;
const MAP_TYPE_ARRAY: u32 = 2;
/// Since Linux 5.5.
const MAPPABLE: u32 = 1 << 10;

/// A program that is being written. Jumps go forward only: they are taken with `jump…`, and aimed with `land`.
#[derive(Default)]
pub(super) struct Assembler(pub(super) Vec<Instruction>);

/// A jump that has no target yet.
#[must_use]
pub(super) struct Jump(usize);

impl Assembler {
    pub(super) fn emit(&mut self, code: u8, to: u8, from: u8, immediate: i32) {
        self.0.push(Instruction { code, registers: from << 4 | to, offset: 0, immediate });
    }

    pub(super) fn copy(&mut self, to: u8, from: u8) {
        self.emit(0xbf, to, from, 0);
    }

    pub(super) fn set(&mut self, to: u8, value: i32) {
        self.emit(0xb7, to, 0, value);
    }

    /// r0 = the byte at this offset of the packet.
    pub(super) fn load_byte(&mut self, at: i32) {
        self.emit(0x30, 0, 0, at);
    }

    pub(super) fn load_half(&mut self, at: i32) {
        self.emit(0x28, 0, 0, at);
    }

    pub(super) fn load_word(&mut self, at: i32) {
        self.emit(0x20, 0, 0, at);
    }

    /// r0 = the word at the offset that is in a register.
    pub(super) fn load_word_at(&mut self, register: u8) {
        self.emit(0x40, 0, register, 0);
    }

    pub(super) fn xor(&mut self, to: u8, from: u8) {
        self.emit(0xaf, to, from, 0);
    }

    pub(super) fn and(&mut self, to: u8, value: i32) {
        self.emit(0x57, to, 0, value);
    }

    pub(super) fn shift_left(&mut self, to: u8, bits: i32) {
        self.emit(0x67, to, 0, bits);
    }

    pub(super) fn shift_right(&mut self, to: u8, bits: i32) {
        self.emit(0x77, to, 0, bits);
    }

    /// Multiplies the lower halves, and clears the upper one.
    pub(super) fn multiply(&mut self, to: u8, value: i32) {
        self.emit(0x24, to, 0, value);
    }

    pub(super) fn exit(&mut self) {
        self.emit(0x95, 0, 0, 0);
    }

    pub(super) fn jump(&mut self) -> Jump {
        self.emit(0x05, 0, 0, 0);
        Jump(self.0.len() - 1)
    }

    pub(super) fn jump_if_equal(&mut self, register: u8, value: i32) -> Jump {
        self.emit(0x15, register, 0, value);
        Jump(self.0.len() - 1)
    }

    pub(super) fn jump_unless_equal(&mut self, register: u8, value: i32) -> Jump {
        self.emit(0x55, register, 0, value);
        Jump(self.0.len() - 1)
    }

    /// `to` = the word at this offset of the structure that `from` points to.
    pub(super) fn read_word(&mut self, to: u8, from: u8, offset: i16) {
        self.emit(0x61, to, from, 0);
        self.aim(offset);
    }

    /// The same, of eight bytes.
    pub(super) fn read_long(&mut self, to: u8, from: u8, offset: i16) {
        self.emit(0x79, to, from, 0);
        self.aim(offset);
    }

    /// The word at this offset of what `to` points to = `from`.
    pub(super) fn write_word(&mut self, to: u8, offset: i16, from: u8) {
        self.emit(0x63, to, from, 0);
        self.aim(offset);
    }

    /// Adds `from` to the eight bytes at this offset of what `to` points to, in one step.
    pub(super) fn add_to_long(&mut self, to: u8, offset: i16, from: u8) {
        self.emit(0xdb, to, from, 0);
        self.aim(offset);
    }

    pub(super) fn add(&mut self, to: u8, value: i32) {
        self.emit(0x07, to, 0, value);
    }

    pub(super) fn subtract_register(&mut self, to: u8, from: u8) {
        self.emit(0x1f, to, from, 0);
    }

    /// `to` = a map, for a call.
    pub(super) fn set_map(&mut self, to: u8, map: BorrowedFd<'_>) {
        const MAP: u8 = 1;
        self.emit(0x18, to, MAP, map.as_raw_fd());
        self.emit(0, 0, 0, 0);
    }

    /// Calls a function of the kernel's: arguments in r1 to r5, which are lost, the result in r0.
    pub(super) fn call(&mut self, function: i32) {
        self.emit(0x85, 0, 0, function);
    }

    /// Of two numbers with a sign.
    pub(super) fn jump_if_greater(&mut self, register: u8, value: i32) -> Jump {
        self.emit(0x65, register, 0, value);
        Jump(self.0.len() - 1)
    }

    fn aim(&mut self, offset: i16) {
        if let Some(last) = self.0.last_mut() {
            last.offset = offset;
        }
    }

    /// Aims a jump at the instruction that comes next.
    pub(super) fn land(&mut self, jump: Jump) {
        // The whole program has some sixty instructions.
        self.0[jump.0].offset = (self.0.len() - jump.0 - 1) as i16;
    }
}

/// Loads a program. It lives as long as the descriptor, or what it was attached to.
pub(super) fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    // SAFETY: plain data, for which zeros are valid.
    let mut attributes: LoadAttributes = unsafe { zeroed() };
    attributes.kind = PROG_TYPE_SOCKET_FILTER;
    attributes.instruction_count = instructions.len() as u32;
    attributes.instructions = instructions.as_ptr() as u64;
    attributes.license = c"Dual MIT/GPL".as_ptr() as u64;
    bpf(PROG_LOAD, &attributes)
}

/// The system call, for a command that gives a descriptor.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes, and what they point to (the instructions and the licence), are readable during the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made (and marked close-on-exec, as all of bpf's are) and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Counters that programs and we both have: so many cache lines, by number.
#[derive(Debug)]
pub(super) struct Counters {
    start: NonNull<Line>,
    lines: usize,
    fd: OwnedFd,
}

/// Counters that are used together.
pub(super) type Line = [AtomicU64; 8];

// SAFETY: the memory is mapped for as long as the value lives, is bound to no thread, and is read and written by atomic steps only.
unsafe impl Send for Counters {}
// SAFETY: as above.
unsafe impl Sync for Counters {}

impl Counters {
    /// Zeros.
    pub(super) fn new(lines: usize) -> io::Result<Counters> {
        let entries = u32::try_from(lines).ok().filter(|lines| *lines > 0).ok_or(io::ErrorKind::InvalidInput)?;
        let value_size = size_of::<Line>() as u32;
        let fd = bpf(
            MAP_CREATE,
            &MapAttributes { kind: MAP_TYPE_ARRAY, key_size: 4, value_size, entries, flags: MAPPABLE },
        )?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours. The kernel rounds its length, and that of
        // the map, up to pages.
        let start = unsafe {
            let len = lines * size_of::<Line>();
            mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Counters { start, lines, fd })
    }

    /// The line of this number; none that there is not.
    pub(super) fn line(&self, number: usize) -> Option<&Line> {
        // SAFETY: there are so many lines, zeros at first, aligned since the mapping begins with a page; all that write to them do so by
        // atomic steps, the programs too.
        (number < self.lines).then(|| unsafe { self.start.add(number).as_ref() })
    }

    /// The map, for a program.
    pub(super) fn map(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and nothing borrows it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.lines * size_of::<Line>()) };
    }
}
