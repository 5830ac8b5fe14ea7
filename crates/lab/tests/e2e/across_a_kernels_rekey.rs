//! What happens by the clock between ours and the kernel's: who renews the session, who keeps it alive, and when. Sessions last
//! 120 s and nobody can hurry the kernel, so that all of it happens side by side, on tunnels of its own, with a relay on each that
//! remembers what was said.

use std::time::{Duration, Instant};

use lab::{Endpoints, Engine, Guest, Job, Kernel, Process, Seen};

use crate::common::LIMIT;
use crate::kernel::pair::{Pair, Plan, boot};

/// REKEY_AFTER_TIME, and time for the handshake after it.
const SECONDS: u32 = 130;

/// A persistent keepalive, in seconds.
const KEEPALIVE: u64 = 7;

/// By how much a timer may be late on a machine that does much else, seconds; the kernel's own are in jiffies and a tick late.
const SLACK: f64 = 3.0;

/// By how much a timer may seem early, seconds: a moment is taken when the relay wakes, and so the first of two may be the later one to be seen late.
const EARLY: f64 = 1.0;

/// How far apart two moments are, in seconds.
fn gap(earlier: &Seen, later: &Seen) -> f64 {
    later.at.duration_since(earlier.at).as_secs_f64()
}

/// The messages of this kind by this end.
fn messages(pair: &Pair<'_>, is: impl Fn(&Seen) -> bool) -> Vec<Seen> {
    pair.relay().seen().into_iter().filter(is).collect()
}

/// The end that began sends data, and so renews the session after 120 s, and the other one does not. Nothing is lost.
fn renewed(pair: &Pair<'_>, by_us: bool) {
    let initiations = messages(pair, |seen| seen.is(1, by_us));
    let [first, second] = &initiations[..] else {
        panic!("{} initiations by who began", initiations.len());
    };
    let after = gap(first, second);
    assert!((120.0 - EARLY..120.0 + SLACK).contains(&after), "renewed after {after} s");
    assert_eq!(messages(pair, |seen| seen.is(1, !by_us)).len(), 0, "who answered began as well");
    assert_eq!(messages(pair, |seen| seen.is(2, !by_us)).len(), 2);
    // The new session is used at once: what is sent after the response has the receiver's new index in it.
    let answer = messages(pair, |seen| seen.is(2, !by_us)).pop().unwrap();
    let index = &answer.bytes[4..8];
    let later = messages(pair, |seen| seen.is(4, by_us) && seen.at > answer.at);
    assert!(later.len() > 1 && later.iter().skip(1).all(|seen| &seen.bytes[4..8] == index));
}

/// Keepalives go out every so often by the end that was told so, the other one never says anything.
fn kept_alive(pair: &Pair<'_>, by_us: bool) {
    let of_side = messages(pair, |seen| seen.is_keepalive(by_us));
    assert!(of_side.len() as u64 >= u64::from(SECONDS) / KEEPALIVE - 4, "{} keepalives", of_side.len());
    for two in of_side.windows(2) {
        let after = gap(&two[0], &two[1]);
        // One that is due at the time of a handshake is replaced by what confirms the session.
        let renewal = messages(pair, |seen| seen.is(1, by_us) && seen.at > two[0].at && seen.at <= two[1].at);
        let expected = KEEPALIVE as f64;
        assert!(after < expected + SLACK && (after > expected - EARLY || !renewal.is_empty()), "{after} s");
    }
    assert_eq!(messages(pair, |seen| seen.is(4, !by_us)).len(), 0, "keepalives were answered");
}

/// Data that nothing answers is answered by a keepalive after 10 s, once, and so the sender does not begin anew after 15 s.
fn answered(pair: &Pair<'_>, by_us: bool) {
    let data = messages(pair, |seen| seen.is(4, !by_us) && seen.bytes.len() > 32);
    let keepalives = messages(pair, |seen| seen.is_keepalive(by_us));
    let last = keepalives.last().unwrap_or_else(|| panic!("no keepalive came"));
    let after = gap(data.first().unwrap(), last);
    assert!((10.0 - EARLY..10.0 + SLACK).contains(&after), "after {after} s");
    // Who began confirms the session by a keepalive, unless data does that.
    assert!(keepalives.len() <= 1 + usize::from(!by_us), "{} keepalives", keepalives.len());
    assert_eq!(messages(pair, |seen| seen.bytes[0] == 1).len(), 1, "somebody began anew");
}

/// The tunnels of one engine, each for a timer and who of the two it is of.
struct Tunnels<'a> {
    from_us: Pair<'a>,
    from_kernel: Pair<'a>,
    we_keep: Pair<'a>,
    kernel_keeps: Pair<'a>,
    kernel_answers: Pair<'a>,
    we_answer: Pair<'a>,
    ours: Process,
    theirs: Job<'a>,
}

impl Tunnels<'_> {
    /// Makes them and sets everything in motion that takes its time. They are numbered from `first` on.
    fn begin(guest: &Guest, engine: Engine, first: u8) -> Tunnels<'_> {
        let pair = |number, endpoints| {
            let number = first + number;
            Plan { endpoints, preshared: true, relayed: true, engine, ..Plan::new(number) }.build(guest)
        };
        let (from_us, from_kernel) = (pair(0, Endpoints::OnlyLeft), pair(1, Endpoints::OnlyRight));
        let (we_keep, kernel_keeps) = (pair(2, Endpoints::OnlyLeft), pair(3, Endpoints::OnlyRight));
        let (kernel_answers, we_answer) = (pair(4, Endpoints::OnlyLeft), pair(5, Endpoints::OnlyRight));

        let seconds = KEEPALIVE.to_string();
        we_keep.ours.daemon.set(&["peer", &we_keep.keys.public, "persistent-keepalive", &seconds]).unwrap();
        let key = &kernel_keeps.ours.keys.public;
        guest.run(&format!("wg set {} peer {key} persistent-keepalive {seconds}", kernel_keeps.interface)).unwrap();

        let ours = lab::ping::start(from_us.namespace(), from_us.v4.into(), SECONDS, "1").unwrap();
        let theirs = guest.start(&format!("ping -n -c {SECONDS} -i 1 -W 2 {}", from_kernel.ours.v4)).unwrap();

        // An address in the tunnel's network that nobody has: whoever receives a packet for it, drops it without a word.
        let nobody = |pair: &Pair<'_>| format!("10.{}.0.77", pair.v4.octets()[1]);
        let mut silent = kernel_answers.namespace().command("ping");
        silent.args(["-n", "-c", "1", "-W", "1", &nobody(&kernel_answers)]);
        let silent = Process::spawn(&mut silent).unwrap();
        let other = guest.attempt(&format!("ping -n -c 1 -W 1 {}", nobody(&we_answer)), LIMIT).unwrap();
        assert!(!other.status.success() && !silent.finish(LIMIT).unwrap().status.success());
        Tunnels { from_us, from_kernel, we_keep, kernel_keeps, kernel_answers, we_answer, ours, theirs }
    }

    fn finish(self, engine: Engine) {
        let limit = Duration::from_secs(u64::from(SECONDS)) + LIMIT;
        let ours = lab::ping::collect(self.ours, limit).unwrap();
        let theirs = self.theirs.finish(limit).unwrap();
        // A rekey that stalled the tunnel would cost five seconds' worth.
        assert!(ours.received + 3 >= u64::from(SECONDS), "{engine:?}: {ours:?}");
        assert!(theirs.stdout.matches("time=").count() + 3 >= SECONDS as usize, "{engine:?}: {}", theirs.log());
        if engine == Engine::Ebpf {
            for pair in [&self.from_us, &self.from_kernel] {
                let (sent, received) = pair.ours.daemon.taken().unwrap();
                assert!(sent.min(received) + 10 > SECONDS.into(), "the programs took only {sent} and {received}");
            }
        }

        renewed(&self.from_us, true);
        renewed(&self.from_kernel, false);
        kept_alive(&self.we_keep, true);
        kept_alive(&self.kernel_keeps, false);
        answered(&self.kernel_answers, false);
        answered(&self.we_answer, true);
    }
}

fn by_the_clock(kernel: Kernel) {
    let guest = boot(kernel);
    let began = Instant::now();
    let engines = [(Engine::Userspace, 1), (Engine::Ebpf, 11)];
    let tunnels = engines.map(|(engine, first)| (engine, Tunnels::begin(&guest, engine, first)));
    for (engine, tunnels) in tunnels {
        tunnels.finish(engine);
    }
    assert!(began.elapsed() > Duration::from_secs(100), "it took too little");
}

#[test]
fn every_timer_is_the_kernels() {
    std::thread::scope(|scope| {
        for kernel in Kernel::ALL {
            // A guest ends with the thread that boots it.
            scope.spawn(move || by_the_clock(kernel));
        }
    });
}
