//! The Internet checksum (RFC 1071), made for payloads of a segment's size.
//!
//! A *partial sum* is a `u64` that is congruent, modulo 65535, to the sum of the big-endian 16-bit words seen so far; partial
//! sums of pieces of even length may be added in any order. [`fold`] brings one down to 16 bits, [`finish`] complements it.

use std::net::IpAddr;

/// Adds the 16-bit words of `bytes` to the partial sum `initial`. An odd last byte counts as if a zero followed it.
///
/// Ones-complement addition does not mind the byte order nor the width of the words (RFC 1071, section 2), so the loop adds
/// 32-bit words in the host's order into 64-bit lanes, which compilers turn into vector instructions, and the sum is put into
/// network order at the end. A lane overflows only beyond 2^32 words.
#[inline]
pub fn sum(bytes: &[u8], initial: u64) -> u64 {
    const LANES: usize = 16;
    let mut lanes = [0u64; LANES];
    let mut blocks = bytes.chunks_exact(4 * LANES);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let mut words = blocks.remainder().chunks_exact(4);
    for word in &mut words {
        total += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0; 4];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    total += u64::from(u32::from_ne_bytes(last));
    initial + u64::from(u16::from_be_bytes(fold(total).to_ne_bytes()))
}

/// The 16-bit ones-complement sum of a partial sum. Zero only if every word was zero.
#[inline]
pub fn fold(sum: u64) -> u16 {
    let mut sum = (sum >> 32) + (sum & 0xffff_ffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The checksum: the complement of the folded sum.
#[inline]
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// The checksum as UDP sends it, where zero means that there is none (RFC 768).
#[inline]
pub fn finish_udp(sum: u64) -> u16 {
    match finish(sum) {
        0 => 0xffff,
        checksum => checksum,
    }
}

/// The partial sum of the pseudo header (RFC 793, RFC 8200 section 8.1) for `len` bytes of transport header and payload.
///
/// The addresses are of one family; were they not, the sum would be of no use, but nothing else would happen.
#[inline]
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> u64 {
    let addresses = address_sum(src) + address_sum(dst);
    addresses + u64::from(protocol) + len as u64
}

/// A checksum after one 16-bit word that it covers changed from `old` to `new` (RFC 1624, equation 3).
#[inline]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    finish(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

fn address_sum(addr: IpAddr) -> u64 {
    match addr {
        IpAddr::V4(a) => sum(&a.octets(), 0),
        IpAddr::V6(a) => sum(&a.octets(), 0),
    }
}
