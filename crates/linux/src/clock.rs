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
