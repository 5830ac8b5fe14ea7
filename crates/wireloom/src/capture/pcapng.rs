//! A file of packets in the format pcapng (draft-ietf-opsawg-pcapng), as it is written.
//!
//! A header, then in any order: keys (once, before all packets), interfaces, each before its first packet, packets, and in the end what
//! was lost. Integers are little-endian; times are nanoseconds since the Unix epoch; a packet begins with its IP header.
//!
//! The writer knows how long the file is, and what a packet would add to it, so that a bound on it can be kept.

use std::io::{self, Write};
use std::time::Duration;

// Types of blocks.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
const SECRETS: u32 = 10;

const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// LINKTYPE_RAW: the packet begins with an IPv4 or an IPv6 header.
const LINK_RAW: u16 = 101;
/// "WGKL", keys of WireGuard.
const WIREGUARD_KEYS: u32 = 0x5747_4b4c;

// Options. Of any block:
const COMMENT: u16 = 1;
// Of the section:
const OS: u16 = 3;
const APPLICATION: u16 = 4;
// Of an interface:
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
/// 10^-9 s.
const NANOSECONDS: u8 = 9;
// Of a packet:
const FLAGS: u16 = 2;
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
// Of statistics:
const RECEIVED: u16 = 4;
const DROPPED: u16 = 5;

/// Bytes of a packet's block besides the packet: type and length twice, the fixed fields, flags and the end of options.
const AROUND_PACKET: u64 = 12 + 20 + 8 + 4;
/// Bytes of an interface's block besides its name and its comment: type and length twice, the fixed fields, three options' heads, the resolution
/// and the end of options.
const AROUND_INTERFACE: u64 = 12 + 8 + 3 * 4 + 4 + 4;
/// Bytes of an interface's statistics.
const STATISTICS_LEN: u64 = 12 + 12 + 12 + 12 + 4;

/// Writes a file of packets.
pub struct Writer<W> {
    out: W,
    /// Bytes written.
    len: u64,
    interfaces: u32,
    block: Vec<u8>,
}

/// A packet, or as much of it as is kept.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    /// The number of its interface.
    pub interface: u32,
    /// When it passed, since the Unix epoch.
    pub at: Duration,
    /// Whether this host sent it.
    pub outgoing: bool,
    /// Its bytes, from the IP header on.
    pub bytes: &'a [u8],
    /// How long it was.
    pub whole: usize,
}

impl<W: Write> Writer<W> {
    /// Begins a file. `comment` says what is in it.
    pub fn new(out: W, comment: &str) -> io::Result<Writer<W>> {
        let mut writer = Writer { out, len: 0, interfaces: 0, block: Vec::new() };
        let program = format!("wireloom {}", env!("CARGO_PKG_VERSION"));
        writer.write(SECTION, |block| {
            block.extend(BYTE_ORDER.to_le_bytes());
            // Version 1.0, and a length that is not known.
            block.extend([1, 0, 0, 0]);
            block.extend((-1i64).to_le_bytes());
            option(block, COMMENT, comment.as_bytes());
            option(block, OS, b"Linux");
            option(block, APPLICATION, program.as_bytes());
            end_of_options(block);
        })?;
        Ok(writer)
    }

    /// Keys, in the form of WireGuard's key log. What it was written from is wiped.
    pub fn keys(&mut self, text: &str) -> io::Result<()> {
        // As it grows, it leaves copies.
        self.block.reserve(text.len() + 32);
        let written = self.write(SECRETS, |block| {
            block.extend(WIREGUARD_KEYS.to_le_bytes());
            block.extend((text.len() as u32).to_le_bytes());
            block.extend(text.as_bytes());
        });
        zeroize::Zeroize::zeroize(&mut self.block);
        written
    }

    /// An interface; its number for packets.
    pub fn interface(&mut self, name: &str, comment: &str) -> io::Result<u32> {
        self.write(INTERFACE, |block| {
            block.extend(LINK_RAW.to_le_bytes());
            block.extend([0; 2]);
            // No bound on a packet.
            block.extend([0; 4]);
            option(block, NAME, name.as_bytes());
            option(block, COMMENT, comment.as_bytes());
            option(block, RESOLUTION, &[NANOSECONDS]);
            end_of_options(block);
        })?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// How long the file would be with so many more packets, of so many bytes in all, and its end.
    pub fn len_with(&self, packets: usize, bytes: usize) -> u64 {
        self.len + STATISTICS_LEN + packets as u64 * (AROUND_PACKET + 3) + bytes as u64
    }

    /// How long the file would be with one more interface, and its end.
    pub fn len_with_interface(&self, name: &str, comment: &str) -> u64 {
        let padded = |text: &str| text.len().next_multiple_of(4) as u64;
        self.len + STATISTICS_LEN + AROUND_INTERFACE + padded(name) + padded(comment)
    }

    /// A packet.
    pub fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        self.write(PACKET, |block| {
            block.extend(packet.interface.to_le_bytes());
            time(block, packet.at);
            block.extend((packet.bytes.len() as u32).to_le_bytes());
            block.extend((packet.whole as u32).to_le_bytes());
            padded(block, packet.bytes);
            option(block, FLAGS, &if packet.outgoing { OUTBOUND } else { INBOUND }.to_le_bytes());
            end_of_options(block);
        })
    }

    /// What was heard and lost in all, told as an interface's.
    pub fn statistics(&mut self, interface: u32, at: Duration, heard: u64, dropped: u64) -> io::Result<()> {
        self.write(STATISTICS, |block| {
            block.extend(interface.to_le_bytes());
            time(block, at);
            option(block, RECEIVED, &heard.to_le_bytes());
            option(block, DROPPED, &dropped.to_le_bytes());
            end_of_options(block);
        })
    }

    /// Hands all on that was written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    fn write(&mut self, kind: u32, body: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let block = &mut self.block;
        block.clear();
        block.extend(kind.to_le_bytes());
        block.extend([0; 4]);
        body(block);
        block.resize(block.len().next_multiple_of(4), 0);
        let len = (block.len() as u32 + 4).to_le_bytes();
        block[4..8].copy_from_slice(&len);
        block.extend(len);
        self.out.write_all(block)?;
        self.len += block.len() as u64;
        Ok(())
    }
}

fn option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Values are names, numbers and sentences of ours.
    let value = &value[..value.len().min(u16::MAX.into())];
    block.extend(code.to_le_bytes());
    block.extend((value.len() as u16).to_le_bytes());
    padded(block, value);
}

fn end_of_options(block: &mut Vec<u8>) {
    block.extend([0; 4]);
}

fn padded(block: &mut Vec<u8>, bytes: &[u8]) {
    block.extend(bytes);
    block.resize(block.len().next_multiple_of(4), 0);
}

/// A time: the upper half comes first, whatever the byte order.
fn time(block: &mut Vec<u8>, at: Duration) {
    let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    block.extend(((nanos >> 32) as u32).to_le_bytes());
    block.extend((nanos as u32).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_told_before_it_is_written() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, "a comment").unwrap();
        let bound = writer.len_with_interface("wg0", "what!");
        let interface = writer.interface("wg0", "what!").unwrap();
        assert_eq!(writer.len() + STATISTICS_LEN, bound);
        for len in [20, 21, 22, 23, 1500] {
            let bytes = vec![0x45; len];
            let bound = writer.len_with(1, len);
            let packet =
                Packet { interface, at: Duration::from_nanos(1 << 40), outgoing: true, bytes: &bytes, whole: len };
            writer.packet(&packet).unwrap();
            let told = writer.len() + STATISTICS_LEN;
            assert!(told <= bound && told + 4 > bound, "{len}: {told} of {bound}");
        }
        let before = writer.len();
        writer.statistics(interface, Duration::ZERO, 5, 0).unwrap();
        assert_eq!(writer.len(), before + STATISTICS_LEN);
        let len = writer.len();
        assert_eq!(out.len() as u64, len);
    }
}
