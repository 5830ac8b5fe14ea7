//! The engines that a test runs with: each test that is named in an `each_engine!` is a test with every engine of ours, one by one.
//!
//! `NAME::userspace` and `NAME::ebpf` have the engine at both ends, `NAME::mixed` has one at each. The test itself is the same function:
//! whatever it starts by [`crate::common`] has the engine, which belongs to the thread. (A test that starts daemons in threads of its own
//! says so by [`engine`] and [`with`].) With eBPF a test fails at its end if no program has taken a packet in it: what the programs leave,
//! the daemon's threads take, and so a tunnel that works would prove nothing. What has nothing to be taken is named in an `each_engine_untaken!`.
//!
//! A test with one engine alone is one that has nothing of it to look at: it never moves a packet, or it is about the threads of userspace.

use std::cell::Cell;

use lab::Engine;

thread_local! {
    static ENDS: Cell<[Engine; 2]> = const { Cell::new([Engine::Userspace; 2]) };
}

/// The engine of what is started by itself, and of a tunnel's left end.
pub fn engine() -> Engine {
    ENDS.get()[0]
}

/// The engines of a tunnel's left and right end.
pub fn both() -> [Engine; 2] {
    ENDS.get()
}

/// Runs a test with these engines at the left and the right end; `taken` if programs must have taken packets in it.
pub fn with(ends: [Engine; 2], taken: bool, test: fn()) {
    ENDS.set(ends);
    lab::taken::forget();
    test();
    if taken && ends.contains(&Engine::Ebpf) {
        assert!(lab::taken::so_far() > 0, "no packet was taken by a program: all went by the daemon's threads");
    }
}

/// Before an interface goes that nobody but a command of ours has made: what programs have taken of it counts as well.
#[track_caller]
pub fn count_taken(interface: &str) {
    if engine() == Engine::Ebpf {
        lab::taken::ask_interface(interface).unwrap();
    }
}

/// Makes of each test named one for every engine.
macro_rules! each_engine {
    ($($test:ident),+ $(,)?) => { $(crate::engines::tests!($test, true);)+ };
}

/// The same, and one with eBPF at the left end and userspace at the right one.
macro_rules! each_engine_and_mixed {
    ($($test:ident),+ $(,)?) => { $(crate::engines::tests!($test, true, #[test] fn mixed() {
        crate::engines::with([lab::Engine::Ebpf, lab::Engine::Userspace], true, super::$test);
    });)+ };
}

/// As `each_engine!`, for tests in which there is nothing for a program to take, or nobody left at the end to tell of it.
macro_rules! each_engine_untaken {
    ($($test:ident),+ $(,)?) => { $(crate::engines::tests!($test, false);)+ };
}

macro_rules! tests {
    ($test:ident, $taken:literal $(, $mixed:item)?) => {
        mod $test {
            #[test]
            fn userspace() {
                crate::engines::with([lab::Engine::Userspace; 2], $taken, super::$test);
            }

            #[test]
            fn ebpf() {
                crate::engines::with([lab::Engine::Ebpf; 2], $taken, super::$test);
            }

            $($mixed)?
        }
    };
}

pub(crate) use {each_engine, each_engine_and_mixed, each_engine_untaken, tests};
