//! Waiting: epoll with each of the descriptors that wake it.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linux::clock::boot_nanos;
use linux::poll::{BootTimer, Epoll, Event, EventFd, Interest, Signal, SignalFd, wait_writable};

fn tokens(epoll: &Epoll, timeout: Duration) -> Vec<u64> {
    let mut events = [Event::EMPTY; 8];
    let ready = epoll.wait(&mut events, Some(timeout)).expect("wait");
    ready.iter().map(Event::token).collect()
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn an_event_wakes_until_it_is_drained() {
    let epoll = Epoll::new().expect("epoll");
    let (a, b) = (EventFd::new().expect("a"), EventFd::new().expect("b"));
    epoll.add(&a, 7, Interest::READ).expect("add");
    epoll.add(&b, u64::MAX, Interest::READ).expect("add");
    assert_eq!(tokens(&epoll, Duration::ZERO), []);
    b.signal();
    b.signal();
    assert_eq!(tokens(&epoll, LONG), [u64::MAX]);
    assert_eq!(tokens(&epoll, LONG), [u64::MAX]);
    assert!(b.drain());
    assert!(!b.drain());
    assert_eq!(tokens(&epoll, Duration::ZERO), []);
    epoll.modify(&a, 9, Interest::READ | Interest::ONCE).expect("modify");
    a.signal();
    assert_eq!(tokens(&epoll, LONG), [9]);
    assert_eq!(tokens(&epoll, Duration::ZERO), []);
    epoll.modify(&a, 9, Interest::READ).expect("modify");
    assert_eq!(tokens(&epoll, LONG), [9]);
    epoll.remove(&a).expect("remove");
    assert_eq!(tokens(&epoll, Duration::ZERO), []);
}

#[test]
fn an_edge_is_told_once_and_writability_when_asked() {
    let epoll = Epoll::new().expect("epoll");
    let event = EventFd::new().expect("event");
    epoll.add(&event, 1, Interest::READ | Interest::WRITE | Interest::EDGE).expect("add");
    let mut events = [Event::EMPTY; 2];
    let ready = epoll.wait(&mut events, Some(LONG)).expect("wait");
    assert!(ready[0].writable() && !ready[0].readable() && !ready[0].closed());
    assert_eq!(tokens(&epoll, Duration::ZERO), []);
    event.signal();
    let ready = epoll.wait(&mut events, Some(LONG)).expect("wait");
    assert!(ready[0].readable());
    assert_eq!(tokens(&epoll, Duration::ZERO), []);
}

#[test]
fn room_to_write_is_waited_for() {
    let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("pair");
    assert!(wait_writable(&ours, LONG));
    ours.set_nonblocking(true).expect("nonblocking");
    while ours.write(&[0; 4096]).is_ok() {}
    assert!(!wait_writable(&ours, Duration::from_millis(1)));
    std::thread::scope(|scope| {
        scope.spawn(move || std::io::copy(&mut theirs, &mut std::io::sink()));
        assert!(wait_writable(&ours, LONG));
        ours.shutdown(std::net::Shutdown::Write).expect("shutdown");
    });
}

#[test]
fn a_timer_fires_at_its_deadline_and_not_before() {
    let epoll = Epoll::new().expect("epoll");
    let timer = BootTimer::new().expect("timer");
    epoll.add(&timer, 3, Interest::READ).expect("add");
    let deadline = boot_nanos() + 30_000_000;
    timer.set(Some(deadline)).expect("set");
    assert_eq!(tokens(&epoll, LONG), [3]);
    assert!(boot_nanos() >= deadline);
    assert!(timer.drain());
    assert!(!timer.drain());
    // One in the past fires at once, time zero too.
    for past in [0, 1, deadline] {
        timer.set(Some(past)).expect("set");
        assert_eq!(tokens(&epoll, LONG), [3], "{past}");
    }
    timer.set(None).expect("set");
    assert_eq!(tokens(&epoll, Duration::ZERO), []);
    assert!(!timer.drain());
}

#[test]
fn a_signal_is_an_event() {
    let signals = SignalFd::new(&[Signal::User1, Signal::Hangup]).expect("signals");
    assert_eq!(signals.next(), None);
    let epoll = Epoll::new().expect("epoll");
    epoll.add(&signals, 5, Interest::READ).expect("add");
    // SAFETY: sends a signal to this thread, which has blocked it.
    unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1) };
    assert_eq!(tokens(&epoll, LONG), [5]);
    assert_eq!(signals.next(), Some(Signal::User1));
    assert_eq!(signals.next(), None);
}

#[test]
fn an_interrupted_wait_is_an_empty_one() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: an empty handler, for a signal that nothing else here uses.
    unsafe { libc::signal(libc::SIGUSR2, nothing as *const () as libc::sighandler_t) };
    // SAFETY: always valid.
    let waiting = unsafe { libc::pthread_self() };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Again and again, since the first may come before the wait has begun.
            while !done.load(Ordering::Relaxed) {
                // SAFETY: the thread outlives this scope.
                unsafe { libc::pthread_kill(waiting, libc::SIGUSR2) };
                std::thread::yield_now();
            }
        });
        let epoll = Epoll::new().expect("epoll");
        let mut events = [Event::EMPTY; 1];
        let result = epoll.wait(&mut events, None).map(<[Event]>::len);
        done.store(true, Ordering::Relaxed);
        assert_eq!(result.expect("no error"), 0);
    });
}
