//! The two clocks: boot time, by which keys expire, and wall-clock time, which goes into TAI64N timestamps.
//!
//! Boot time (`CLOCK_BOOTTIME`) goes on while the machine sleeps, so that a key that was made before a suspend is old
//! after it. `std::time::Instant` stops in suspend and is therefore not used for protocol time anywhere.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot, suspend included.
pub fn boot_nanos() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Nanoseconds of CPU time that the calling thread has used. A system call, unlike the others.
pub fn thread_nanos() -> u64 {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64
}

/// Nanoseconds of CPU time that a thread of this process has used; `None` if it has ended, or is another process's.
pub fn nanos_of_thread(thread: u32) -> Option<u64> {
    // The kernel's MAKE_THREAD_CPUCLOCK(thread, CPUCLOCK_SCHED), see clock_gettime(2) and <linux/posix-timers.h>.
    let clock = (!(thread as libc::clockid_t) << 3) | 4 | 2;
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `used` is a valid timespec for the kernel to write to; a clock that does not exist is an error.
    let told = unsafe { libc::clock_gettime(clock, &mut used) } == 0;
    told.then_some(used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64)
}

/// Time since the Unix epoch; zero when the wall clock is set before it.
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_sleeps_uses_no_time() {
        let (start, before) = (boot_nanos(), thread_nanos());
        while thread_nanos() == before {}
        std::thread::sleep(Duration::from_millis(50));
        let (wall, used) = (boot_nanos() - start, thread_nanos() - before);
        assert!(used > 0 && used + 49_000_000 < wall, "{used} of {wall}");
    }

    #[test]
    fn the_time_of_another_thread_is_told_until_it_ends() {
        let (start, told) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            while thread_nanos() < 10_000_000 {}
            start.send(crate::process::thread_id()).expect("the test waits");
            wait.recv().expect("the test ends it");
        });
        let id = told.recv().expect("its number");
        assert!(nanos_of_thread(id).is_some_and(|used| used >= 10_000_000));
        end.send(()).expect("it waits");
        thread.join().expect("it ends");
        // The kernel takes a moment to forget it.
        while nanos_of_thread(id).is_some() {
            std::thread::yield_now();
        }
        assert_eq!(nanos_of_thread(1), None, "a thread of another process");
    }

    #[test]
    fn boot_time_is_that_of_the_kernel_and_never_goes_back() {
        let text = std::fs::read_to_string("/proc/uptime").expect("uptime");
        let uptime: f64 = text.split(' ').next().and_then(|s| s.parse().ok()).expect("number");
        let first = boot_nanos();
        let second = boot_nanos();
        assert!(second >= first);
        assert!((first as f64 / 1e9 - uptime).abs() < 5.0);
        assert!(wall() > Duration::from_secs(1_600_000_000));
    }
}
