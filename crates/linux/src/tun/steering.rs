//! The program that sends a flow to a queue of the TUN: a socket filter in eBPF, which the kernel runs on each packet that it
//! hands to the device, and whose result modulo the number of queues is the queue.
//!
//! It mixes addresses, protocol and, of TCP and UDP packets that are no fragments, ports. Fragments go by the addresses alone, so
//! that all the fragments of a packet meet (a flow that is fragmented now and then may be split over two queues; whole flows
//! of large packets, which is what fragmentation is for, stay together). A packet too short for a load ends the program with 0.

use std::io;
use std::mem::zeroed;
use std::os::fd::{FromRawFd, OwnedFd};

/// One instruction, as in the kernel's `struct bpf_insn`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Instruction {
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

const PROG_LOAD: libc::c_int = 5;
const PROG_TYPE_SOCKET_FILTER: u32 = 1;

// Registers: r0 is what a packet load gives and what the program returns; r1 to r5 are lost by a load, and r6 has to be the
// context for one.
const RESULT: u8 = 0;
const ARGUMENT: u8 = 1;
const CONTEXT: u8 = 6;
const HASH: u8 = 7;
const HEADER: u8 = 8;
const PROTOCOL: u8 = 9;

/// 2^32 divided by the golden ratio, as in the kernel's `hash_32`.
const GOLDEN: i32 = 0x61C8_8647;

/// A program that is being written. Jumps go forward only: they are taken with `jump…`, and aimed with `land`.
#[derive(Default)]
struct Assembler(Vec<Instruction>);

/// A jump that has no target yet.
#[must_use]
struct Jump(usize);

impl Assembler {
    fn emit(&mut self, code: u8, to: u8, from: u8, immediate: i32) {
        self.0.push(Instruction { code, registers: from << 4 | to, offset: 0, immediate });
    }

    fn copy(&mut self, to: u8, from: u8) {
        self.emit(0xbf, to, from, 0);
    }

    fn set(&mut self, to: u8, value: i32) {
        self.emit(0xb7, to, 0, value);
    }

    /// RESULT = the byte at this offset of the packet.
    fn load_byte(&mut self, at: i32) {
        self.emit(0x30, 0, 0, at);
    }

    fn load_half(&mut self, at: i32) {
        self.emit(0x28, 0, 0, at);
    }

    fn load_word(&mut self, at: i32) {
        self.emit(0x20, 0, 0, at);
    }

    /// RESULT = the word at the offset that is in a register.
    fn load_word_at(&mut self, register: u8) {
        self.emit(0x40, 0, register, 0);
    }

    fn xor(&mut self, to: u8, from: u8) {
        self.emit(0xaf, to, from, 0);
    }

    fn and(&mut self, to: u8, value: i32) {
        self.emit(0x57, to, 0, value);
    }

    fn shift_left(&mut self, to: u8, bits: i32) {
        self.emit(0x67, to, 0, bits);
    }

    fn shift_right(&mut self, to: u8, bits: i32) {
        self.emit(0x77, to, 0, bits);
    }

    /// Multiplies the lower halves, and clears the upper one.
    fn multiply(&mut self, to: u8, value: i32) {
        self.emit(0x24, to, 0, value);
    }

    fn exit(&mut self) {
        self.emit(0x95, 0, 0, 0);
    }

    fn jump(&mut self) -> Jump {
        self.emit(0x05, 0, 0, 0);
        Jump(self.0.len() - 1)
    }

    fn jump_if_equal(&mut self, register: u8, value: i32) -> Jump {
        self.emit(0x15, register, 0, value);
        Jump(self.0.len() - 1)
    }

    fn jump_unless_equal(&mut self, register: u8, value: i32) -> Jump {
        self.emit(0x55, register, 0, value);
        Jump(self.0.len() - 1)
    }

    /// Aims a jump at the instruction that comes next.
    fn land(&mut self, jump: Jump) {
        // The whole program has some sixty instructions.
        self.0[jump.0].offset = (self.0.len() - jump.0 - 1) as i16;
    }
}

fn program() -> Vec<Instruction> {
    let mut p = Assembler::default();
    p.copy(CONTEXT, ARGUMENT);
    p.load_byte(0);
    p.copy(HEADER, RESULT);
    p.shift_right(RESULT, 4);
    let v6 = p.jump_if_equal(RESULT, 6);
    let v4 = p.jump_if_equal(RESULT, 4);
    p.set(RESULT, 0);
    p.exit();

    // IPv4: addresses at 12 and 16, the protocol at 9, the header's length in the low half of byte 0.
    p.land(v4);
    p.and(HEADER, 15);
    p.shift_left(HEADER, 2);
    p.load_word(12);
    p.copy(HASH, RESULT);
    p.load_word(16);
    p.multiply(HASH, GOLDEN);
    p.xor(HASH, RESULT);
    p.load_byte(9);
    p.copy(PROTOCOL, RESULT);
    p.load_half(6);
    p.and(RESULT, 0x3fff); // More fragments, or an offset.
    let fragment = p.jump_unless_equal(RESULT, 0);
    let v4_ports = p.jump();

    // IPv6: addresses at 8 to 40, the next header at 6. Extension headers hide the ports.
    p.land(v6);
    p.set(HEADER, 40);
    p.load_byte(6);
    p.copy(PROTOCOL, RESULT);
    p.set(HASH, 0);
    for at in (8..40).step_by(4) {
        p.multiply(HASH, GOLDEN);
        p.load_word(at);
        p.xor(HASH, RESULT);
    }

    p.land(v4_ports);
    let tcp = p.jump_if_equal(PROTOCOL, libc::IPPROTO_TCP);
    let other = p.jump_unless_equal(PROTOCOL, libc::IPPROTO_UDP);
    p.land(tcp);
    p.load_word_at(HEADER);
    p.multiply(HASH, GOLDEN);
    p.xor(HASH, RESULT);

    p.land(other);
    p.land(fragment);
    p.multiply(HASH, GOLDEN);
    p.xor(HASH, PROTOCOL);
    // The upper half of a product is its better half, and the kernel takes the result modulo the number of queues.
    p.multiply(HASH, GOLDEN);
    p.copy(RESULT, HASH);
    p.shift_right(RESULT, 16);
    p.exit();
    p.0
}

/// Loads the program. It lives as long as the descriptor, or the device that it was set on.
pub(super) fn load() -> io::Result<OwnedFd> {
    let instructions = program();
    // SAFETY: plain data, for which zeros are valid.
    let mut attributes: LoadAttributes = unsafe { zeroed() };
    attributes.kind = PROG_TYPE_SOCKET_FILTER;
    attributes.instruction_count = instructions.len() as u32;
    attributes.instructions = instructions.as_ptr() as u64;
    attributes.license = c"Dual MIT/GPL".as_ptr() as u64;
    // SAFETY: the attributes, and the instructions and the licence that they point to, are readable during the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<LoadAttributes>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made (and marked close-on-exec, as all of bpf's are) and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}
