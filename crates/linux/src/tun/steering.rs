//! The program that sends a flow to a queue of the TUN: a socket filter in eBPF, which the kernel runs on each packet that it
//! hands to the device, and whose result modulo the number of queues is the queue.
//!
//! It mixes addresses, protocol and, of TCP and UDP packets that are no fragments, ports. Fragments go by the addresses alone, so
//! that all the fragments of a packet meet (a flow that is fragmented now and then may be split over two queues; whole flows
//! of large packets, which is what fragmentation is for, stay together). A packet too short for a load ends the program with 0.

use std::io;
use std::os::fd::OwnedFd;

use super::bpf::{self, Assembler, Instruction};

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
    bpf::load(&program())
}
