//! Memory that stays out of core dumps (MADV_DONTDUMP), because keys and packets in the clear pass through it.
//!
//! Where a key has been cannot be told exactly: the heap, a stack, a register that was saved on one. So all memory that can be
//! written is marked: the heap by an allocator that owns its pages ([`Hidden`]), what is mapped at the start by [`hide`], and
//! the stack of each later thread as it starts, by [`hide_stack`]. `buffer` marks its own.

use std::alloc::{GlobalAlloc, Layout};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dlmalloc::{Allocator, Dlmalloc};
use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mremap, munmap};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Bytes that the heap grows by at least. Pages exist only once they are touched.
const GROWTH: usize = 1 << 20;

/// Bytes from which on memory is a mapping of its own.
const LARGE: usize = 128 << 10;

/// The heap, as `#[global_allocator]`: Doug Lea's allocator over pages that are left out of core dumps.
///
/// One lock for all threads. Who moves packets does not allocate, but when a peer roams: a small piece for its new path.
pub struct Hidden(Mutex<Dlmalloc<Pages>>);

impl Hidden {
    /// A heap that is empty.
    #[allow(clippy::new_without_default, reason = "it is for a static")]
    pub const fn new() -> Hidden {
        let mut heap = Dlmalloc::new_with_allocator(Pages);
        assert!(heap.set_granularity(GROWTH));
        Hidden(Mutex::new(heap))
    }

    fn heap(&self) -> MutexGuard<'_, Dlmalloc<Pages>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: each call is handed on as it is, to an allocator that makes the same promises, under a lock; or to the kernel.
unsafe impl GlobalAlloc for Hidden {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size(), layout) {
            return Pages.alloc(layout.size()).0;
        }
        // SAFETY: the caller's promise: a layout that is not empty.
        unsafe { self.heap().malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size(), layout) {
            return Pages.alloc(layout.size()).0;
        }
        // SAFETY: as in `alloc`.
        unsafe { self.heap().calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if is_large(layout.size(), layout) {
            Pages.free(start, layout.size());
            return;
        }
        // SAFETY: the caller's promise: this memory came from here, with this layout.
        unsafe { self.heap().free(start, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match (is_large(layout.size(), layout), is_large(size, layout)) {
            (true, true) => Pages.remap(start, layout.size(), size, true),
            // SAFETY: as in `dealloc`, with a size that is not zero.
            (false, false) => unsafe { self.heap().realloc(start, layout.size(), layout.align(), size) },
            // SAFETY: as in `dealloc`; the new memory is another, and both have as many bytes as are copied.
            _ => unsafe {
                let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                if !new.is_null() {
                    new.copy_from_nonoverlapping(start, size.min(layout.size()));
                    self.dealloc(start, layout);
                }
                new
            },
        }
    }
}

/// Whether memory of this size, and of a layout's alignment, is a mapping of its own, which goes back to the kernel when it is freed
/// and grows without being copied: tables, which would leave large holes in the heap as they grow.
fn is_large(size: usize, layout: Layout) -> bool {
    size >= LARGE && layout.align() <= page_size()
}

/// Pages straight from the kernel, marked.
struct Pages;

// SAFETY: `alloc` returns new memory of the size that it says, or null; the rest changes or frees what it is given, which is
// such memory, and says whether that was done.
unsafe impl Allocator for Pages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory of ours.
        match unsafe { mmap_anonymous(null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) } {
            Ok(start) => {
                // SAFETY: the range is the mapping just made. All kernels that we run on know the advice.
                let _ = unsafe { madvise(start, size, Advice::LinuxDontDump) };
                (start.cast(), size, 0)
            }
            Err(_) => (null_mut(), 0, 0),
        }
    }

    fn remap(&self, start: *mut u8, old: usize, new: usize, can_move: bool) -> *mut u8 {
        let flags = if can_move { MremapFlags::MAYMOVE } else { MremapFlags::empty() };
        // SAFETY: the range is a mapping of `alloc`; the heap uses only what is returned. The mark goes along.
        unsafe { mremap(start.cast(), old, new, flags) }.map_or(null_mut(), |start| start.cast())
    }

    fn free_part(&self, start: *mut u8, old: usize, new: usize) -> bool {
        // SAFETY: the heap does not use the end of this mapping any more.
        unsafe { munmap(start.add(new).cast(), old - new) }.is_ok()
    }

    fn free(&self, start: *mut u8, size: usize) -> bool {
        // SAFETY: the heap does not use this mapping any more.
        unsafe { munmap(start.cast(), size) }.is_ok()
    }

    fn can_release_part(&self, _flags: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        page_size()
    }
}

/// Keeps what this process has in memory to itself: all that is mapped now and can be written is marked, no other private
/// memory is to be dumped either, and there is to be no core file. Call it while there is one thread, and before
/// [`crate::process::no_dump`], after which a user who is not root cannot open the files that this needs.
pub fn hide() -> io::Result<()> {
    // The C library's own heap, in which it keeps its bookkeeping, is to be one: not one more for each thread.
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // A kernel without core dumps does not have this file, and needs no telling.
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        let mut fields = line.split(' ');
        let (range, rights) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let ends =
            range.split_once('-').map(|(from, to)| (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16)));
        if let Some((Ok(from), Ok(to))) = ends
            && rights.starts_with("rw")
        {
            // What has gone since it was listed needs no mark.
            mark(from, to - from);
        }
    }
    Ok(())
}

/// Marks the calling thread's stacks, its own and the one for signals.
pub fn hide_stack() {
    let mut attributes = MaybeUninit::uninit();
    let (mut start, mut size) = (null_mut(), 0);
    // SAFETY: the attributes are read after they were written, and then destroyed; all pointers lead to memory of their type.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return;
        }
        libc::pthread_attr_getstack(attributes.as_ptr(), &mut start, &mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
    }
    mark(start as usize, size);
    let mut signals = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: the kernel writes to the second argument alone.
    let signals = unsafe {
        libc::sigaltstack(std::ptr::null(), signals.as_mut_ptr());
        signals.assume_init()
    };
    if signals.ss_flags & libc::SS_DISABLE == 0 {
        mark(signals.ss_sp as usize, signals.ss_size);
    }
}

fn page_size() -> usize {
    // SAFETY: asks for a number, which the C library has known since the start of the process.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Leaves the pages of a range out of core dumps.
fn mark(start: usize, size: usize) {
    let page = page_size();
    let from = start & !(page - 1);
    // SAFETY: the advice changes no memory, wherever it is. A failure leaves the range as it was: the other belts hold.
    let _ = unsafe { madvise(from as *mut _, start + size - from, Advice::LinuxDontDump) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the mapping that holds the address is left out of core dumps.
    fn is_hidden<T>(at: *const T) -> bool {
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
        let mut inside = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((Ok(from), Ok(to))) =
                range.map(|(from, to)| (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16)))
            {
                inside = (from..to).contains(&(at as usize));
            }
            if inside && line.starts_with("VmFlags:") {
                return line.split(' ').any(|flag| flag == "dd");
            }
        }
        panic!("{at:p} is not mapped");
    }

    #[test]
    fn the_heap_is_marked_and_works() {
        let heap = Hidden::new();
        let mut held = Vec::new();
        for round in 1..2000usize {
            let layout = Layout::from_size_align(round * 37 % 9000 + 1, 1 << (round % 8)).expect("layout");
            // SAFETY: the layout is not empty; the memory is written within its size, and given back with its layout.
            unsafe {
                let start = heap.alloc_zeroed(layout);
                assert_eq!(start as usize % layout.align(), 0);
                assert!(std::slice::from_raw_parts(start, layout.size()).iter().all(|byte| *byte == 0));
                start.write_bytes(round as u8, layout.size());
                let larger = Layout::from_size_align(layout.size() * 2, layout.align()).expect("layout");
                held.push((heap.realloc(start, layout, larger.size()), larger, round as u8));
                if round % 3 == 0 {
                    let (start, layout, byte) = held.swap_remove(round % held.len());
                    assert!(std::slice::from_raw_parts(start, layout.size() / 2).iter().all(|b| *b == byte));
                    heap.dealloc(start, layout);
                }
            }
        }
        assert!(held.iter().all(|(start, ..)| is_hidden(*start)));
        // In and out of a mapping of its own.
        let layout = |size| Layout::from_size_align(size, 8).expect("layout");
        // SAFETY: as above.
        unsafe {
            let mut start = heap.alloc(layout(1000));
            start.write_bytes(7, 1000);
            for sizes in [1000, LARGE - 1, LARGE, 50 << 20, LARGE + 9, 1001].windows(2) {
                start = heap.realloc(start, layout(sizes[0]), sizes[1]);
                assert!(is_hidden(start));
                assert!(std::slice::from_raw_parts(start, 1000).iter().all(|byte| *byte == 7));
                start.add(sizes[1] - 1).write(9);
            }
            heap.dealloc(start, layout(1001));
            let start = heap.alloc_zeroed(layout(LARGE + 5));
            assert!(is_hidden(start) && std::slice::from_raw_parts(start, LARGE + 5).iter().all(|byte| *byte == 0));
            heap.dealloc(start, layout(LARGE + 5));
        }
    }

    #[test]
    fn a_stack_is_marked() {
        std::thread::spawn(|| {
            let here = 0u8;
            assert!(!is_hidden(&raw const here));
            hide_stack();
            assert!(is_hidden(&raw const here));
        })
        .join()
        .expect("the test's thread");
    }
}
