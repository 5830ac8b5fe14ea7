//! A bound on what waits in a TUN's queue, in bytes.
//!
//! The kernel counts a queue in packets, and a packet is anything from 28 bytes to a super-packet of 62,000: a queue that takes a burst of
//! small packets holds, with super-packets, tens of milliseconds. (Its length could follow what is sent, but with each change the kernel
//! drops what comes in the next milliseconds.) So the kernel's own queue is long, and a program of ours, which runs on each packet before it
//! is queued, lets in what fits. It *counts in* what it lets in; whoever reads the queue *counts out* what it takes. The difference waits.
//!
//! A packet costs its bytes, and [`EACH`] for itself, so that what may wait is much the same *time* whatever its size. It is let in when there
//! is any room, and may take more than that: if it had to fit whole, small packets would find room where a super-packet never does.
//!
//! What is counted in and lost after all is put right when the queue is found empty. A packet that is on its way into the queue at that
//! moment is then counted out twice, until the queue is empty again.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bpf::{self, Assembler, Counters, Line};

/// What may wait in one queue before one more packet: a millisecond at 6 Gb/s. With more, round trips beside a stream take longer; with less, streams lose more
/// packets (`docs/performance.md`).
pub const BYTES: u64 = 768 << 10;
/// What a packet costs besides its bytes.
pub const EACH: u64 = 384;
/// No more packets than this fit; the kernel's own queue is to hold them.
pub const PACKETS: u32 = (BYTES / (EACH + 20)) as u32 + 1;

/// So much may be taken before it is counted out: what both sides write is not written for each small packet.
const GRAIN: u64 = 16 << 10;

// Places in a queue's line.
const IN: usize = 0;
const OUT: usize = 1;

/// The reader's side of one queue.
#[derive(Debug)]
pub(super) struct Bound {
    counters: Arc<Counters>,
    queue: usize,
    /// Counted out, of which the line tells all but a grain. Written by the reader only.
    out: AtomicU64,
    /// Bytes of a read that are no packet's.
    header: usize,
}

impl Bound {
    /// A packet was read, in so many bytes.
    #[inline]
    pub(super) fn took(&self, len: usize) {
        let Some(line) = self.line() else { return };
        let out = self.out.load(Ordering::Relaxed) + len.saturating_sub(self.header) as u64 + EACH;
        self.out.store(out, Ordering::Relaxed);
        if out - line[OUT].load(Ordering::Relaxed) >= GRAIN {
            line[OUT].store(out, Ordering::Relaxed);
        }
    }

    /// The queue was found empty: nothing waits.
    #[inline]
    pub(super) fn found_empty(&self) {
        let Some(line) = self.line() else { return };
        let all = line[IN].load(Ordering::Relaxed);
        self.out.store(all, Ordering::Relaxed);
        if line[OUT].load(Ordering::Relaxed) != all {
            line[OUT].store(all, Ordering::Relaxed);
        }
    }

    fn line(&self) -> Option<&Line> {
        self.counters.line(self.queue)
    }
}

/// Loads the program for a device of so many queues, and the reader's side of each. `header`: bytes that precede each packet.
pub(super) fn load(queues: usize, header: usize) -> io::Result<(OwnedFd, Vec<Bound>)> {
    let counters = Arc::new(Counters::new(queues)?);
    let program = bpf::load(&program(&counters).0)?;
    let bound = |queue| Bound { counters: counters.clone(), queue, out: AtomicU64::new(0), header };
    Ok((program, (0..queues).map(bound).collect()))
}

/// What it returns is how many bytes of the packet go on: all, or none.
fn program(counters: &Counters) -> Assembler {
    // Fields of `struct __sk_buff`.
    const LEN: i16 = 0;
    const QUEUE: i16 = 12;
    const MAP_LOOKUP: i32 = 1;
    // Registers: r0 to r5 are lost by a call; r10 is the end of the stack.
    const CONTEXT: u8 = 6;
    const WAITING: u8 = 7;
    const COST: u8 = 8;
    const STACK: u8 = 10;
    const PLACE: i16 = 8;

    let mut p = Assembler::default();
    p.copy(CONTEXT, 1);
    p.read_word(1, CONTEXT, QUEUE);
    p.write_word(STACK, -4, 1);
    p.set_map(1, counters.map());
    p.copy(2, STACK);
    p.add(2, -4);
    p.call(MAP_LOOKUP);
    let unknown = p.jump_if_equal(0, 0);
    p.read_word(COST, CONTEXT, LEN);
    p.add(COST, EACH as i32);
    p.read_long(WAITING, 0, IN as i16 * PLACE);
    p.read_long(1, 0, OUT as i16 * PLACE);
    p.subtract_register(WAITING, 1);
    let full = p.jump_if_greater(WAITING, BYTES as i32 - 1);
    p.add_to_long(0, IN as i16 * PLACE, COST);
    p.land(unknown);
    p.read_word(0, CONTEXT, LEN);
    p.exit();
    p.land(full);
    p.set(0, 0);
    p.exit();
    p
}
