//! Network namespaces for tests: each belongs to a thread, and is gone when that and its sockets are.

// Each test program uses its own part of this.
#![allow(dead_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use linux::link::Monitor;
use linux::netns;
use linux::poll::{Epoll, Event, Interest};

/// How long something may take that takes milliseconds.
pub const LONG: Duration = Duration::from_secs(20);

/// The loopback interface has this index in every namespace.
pub const LOOPBACK: u32 = 1;

/// Runs the work in a network namespace of its own, with loopback up, and passes on its panic.
pub fn in_new_netns<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            netns::unshare().expect("a new network namespace (these tests need root)");
            let monitor = Monitor::open(LOOPBACK).expect("monitor");
            monitor.set_up(LOOPBACK, true).expect("loopback up");
            work()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Another network namespace, which a thread of its own keeps and works in.
pub struct Room {
    work: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    netns: OwnedFd,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Room {
    pub fn new() -> Room {
        let (work, jobs) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            netns::unshare().expect("a new network namespace (these tests need root)");
            let monitor = Monitor::open(LOOPBACK).expect("monitor");
            monitor.set_up(LOOPBACK, true).expect("loopback up");
            ready.send(netns::current().expect("netns")).expect("send");
            for job in jobs {
                job();
            }
        });
        let netns = is_ready.recv().expect("the namespace");
        Room { work: Some(work), netns, thread: Some(thread) }
    }

    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// Runs the work in the room, and returns what it gives.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        self.work
            .as_ref()
            .expect("open until dropped")
            .send(Box::new(move || {
                let _ = done.send(work());
            }))
            .expect("the room's thread lives");
        result.recv().expect("the work did not panic")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs `ip` in the thread's namespace.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Tries until it works. For what is free once a descriptor is closed: a program that another test's thread is just starting
/// holds a copy of it between fork and exec.
pub fn once_free<T, E: std::fmt::Debug>(mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let since = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => assert!(since.elapsed() < LONG, "{error:?}"),
        }
        std::thread::yield_now();
    }
}

/// Adds an IPv6 address, and waits for its route: the kernel adds that a little later, from a work queue.
pub fn add_v6(address: &str, device: &str) {
    ip(&format!("address add {address} dev {device} nodad"));
    let bare = address.split('/').next().expect("an address");
    let local = format!("local {bare} ");
    let since = Instant::now();
    while !ip("-6 route show table local").contains(&local) {
        assert!(since.elapsed() < LONG, "no route to {address}");
        std::thread::yield_now();
    }
}

/// Waits until the descriptor is readable; false when that takes too long.
pub fn readable(fd: impl AsFd) -> bool {
    let epoll = Epoll::new().expect("epoll");
    epoll.add(fd, 0, Interest::READ).expect("add");
    let mut events = [Event::EMPTY; 1];
    !epoll.wait(&mut events, Some(LONG)).expect("wait").is_empty()
}

/// Whether the descriptor is readable now.
pub fn readable_now(fd: impl AsFd) -> bool {
    let epoll = Epoll::new().expect("epoll");
    epoll.add(fd, 0, Interest::READ).expect("add");
    let mut events = [Event::EMPTY; 1];
    !epoll.wait(&mut events, Some(Duration::ZERO)).expect("wait").is_empty()
}
