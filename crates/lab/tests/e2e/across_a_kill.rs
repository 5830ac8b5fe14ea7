//! Nobody starts a daemon in the place of one that was killed: its programs go on until the keys of the last session are too old, which is after
//! three minutes, and not a moment longer. Then nothing of it is there any more.

use std::time::{Duration, Instant};

use lab::{End, Outer, Process, wait_until};
use rustix::process::test_kill_process;

use crate::common::{LIMIT, SOON, wait_for_ping};
use crate::restart::{answers, has_interface, heir, keys_in, keys_map, keys_of, kill, start, steward, tunnel};

/// REJECT_AFTER_TIME, seconds.
const LIFE: u64 = 180;

/// By how much it may seem longer or shorter, on a machine that does much else and with times that are told in whole seconds.
const SLACK: u64 = 8;

/// Keeps the map of the keys alive, so that what is in it can be seen when everybody else has let go of it: in a mount namespace of its own, since
/// only a file of `bpffs` does that.
struct Held(Process);

impl Held {
    fn new(end: &End) -> Held {
        let script = format!(
            "mount -t bpf bpf /mnt; bpftool map pin id {} /mnt/keys; trap 'bpftool -j map dump pinned /mnt/keys; exit' USR1; \
             echo held >&2; while :; do sleep 0.1; done",
            keys_map(end)
        );
        let mut command = end.namespace().command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", &script]);
        let mut process = Process::spawn(&mut command).unwrap();
        process.wait_for_output("held", LIMIT).unwrap();
        Held(process)
    }

    /// How many sessions have keys in it.
    fn keys(mut self) -> usize {
        self.0.signal(rustix::process::Signal::USR1);
        keys_in(&self.0.finish(LIMIT).unwrap().checked().unwrap().stdout)
    }
}

#[test]
fn programs_without_a_daemon_stop_when_their_keys_are_too_old() {
    let mut tunnel = tunnel();
    let (left, right) = (&tunnel.left, &mut tunnel.right);
    let epoch = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let handshake = right.peer(left).unwrap().handshake;
    assert!(keys_of(right) > 0);
    let held = Held::new(right);
    let keeper = steward(right);
    kill(right);
    let mut last = (Instant::now(), epoch());
    // Four that were lost one after the other are more than bad luck.
    let mut lost = 0;
    while lost < 4 {
        if answers(left, right, "1") {
            (last, lost) = ((Instant::now(), epoch()), 0);
            std::thread::sleep(Duration::from_millis(500));
        } else {
            lost += 1;
        }
        assert!(epoch() < handshake + LIFE + 60, "it goes on and on");
    }
    let age = last.1 - handshake;
    assert!((LIFE - SLACK..=LIFE + 2).contains(&age), "the last answer came when the session was {age} s old");
    wait_until("the keeper to end", SOON, || test_kill_process(keeper).is_err()).unwrap();
    wait_until("the interface to go", SOON, || !has_interface(right)).unwrap();
    assert!(!heir(right).exists() && !lab::socket_path(&right.daemon.interface).exists());
    let attached = right.namespace().run("bpftool", &["net"]).unwrap();
    assert!(!attached.contains("wl_"), "{attached}");
    assert_eq!(held.keys(), 0, "sessions whose keys are still there");
    // Whoever comes now begins anew.
    start(right);
    right.bring_up(1420).unwrap();
    right.add_peer(left, Some(left.endpoint(Outer::V4)), None).unwrap();
    wait_for_ping(right, left);
    assert!(right.peer(left).unwrap().handshake > handshake);
}
