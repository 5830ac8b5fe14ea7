//! The timers of the whitepaper's section 6, one by one.

mod support;

use std::time::Duration;

use noise::Now;
use noise::message::MessageType;
use support::*;

const JITTER: Duration = Duration::from_millis(333);

/// Lets `node` run by itself until `end`; returns when it sent what.
fn run(node: &mut Node, end: Duration) -> Vec<(Duration, Datagram)> {
    let mut sent = Vec::new();
    let start = at(secs(0)).boot;
    while let Some(deadline) = node.device.poll_timeout().map(|at| at.saturating_since(start)).filter(|&at| at <= end) {
        node.timeout(at(deadline));
        sent.extend(node.out.drain(..).map(|datagram| (deadline, datagram)));
    }
    sent
}

fn assert_about(actual: Duration, expected: Duration) {
    assert!(actual >= expected && actual < expected + JITTER, "{actual:?} instead of {expected:?}");
}

fn count(told: &[Told], what: Told) -> usize {
    told.iter().filter(|&&told| told == what).count()
}

#[test]
fn an_unanswered_handshake_is_tried_again_and_given_up() {
    let (mut a, _) = pair(at(secs(0)));
    a.send(at(secs(0)), b"anybody there?");
    a.out.clear();
    let sent = run(&mut a, secs(200));
    let mut before = secs(0);
    for (time, datagram) in &sent {
        assert_eq!(datagram.kind(), MessageType::Initiation);
        assert_about(*time, before + secs(5));
        before = *time;
    }
    // As the kernel counts: given up when the timer finds more than 18 repeats.
    assert_eq!(sent.len(), 19);
    assert_eq!(count(&a.told, Told::SourceStale), 19);
    assert_eq!(count(&a.told, Told::Abandoned), 1);
    assert!(a.links[&a.peer()].waiting.is_empty());
    let gaps: std::collections::BTreeSet<_> = sent.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(gaps.len() > 10, "the jitter differs");

    // What is left of it is wiped, and then nothing is due.
    run(&mut a, secs(1000));
    assert_eq!(a.device.poll_timeout(), None);
}

#[test]
fn it_is_told_when_handshakes_fail_and_when_they_do_not_any_more() {
    let (mut a, mut b) = pair(at(secs(0)));
    a.send(at(secs(0)), b"anybody there?");
    a.out.clear();
    run(&mut a, secs(14));
    assert_eq!(count(&a.told, Told::Failing), 0, "three may be lost");
    run(&mut a, secs(17));
    assert_eq!(count(&a.told, Told::Failing), 1, "with the fourth");
    // Each packet that waits begins the count of attempts anew, but not this one.
    for second in 17..48 {
        a.send(at(secs(second)), b"still there?");
        run(&mut a, secs(second + 1));
    }
    assert_eq!(count(&a.told, Told::Failing), 3, "every fifteen seconds");
    assert_eq!(count(&a.told, Told::Answered), 0);

    // One is answered at last. After that a rekey that succeeds at once is nothing to tell.
    a.out.clear();
    run(&mut a, secs(54));
    for round in 0..3 {
        let now = secs(54 + 130 * round);
        for now in [now, now + secs(6)] {
            a.send(at(now), b"hello");
            a.timeout(at(now));
            exchange(at(now), &mut a, &mut b);
        }
        assert!(a.current().is_some());
        assert_eq!((count(&a.told, Told::Failing), count(&a.told, Told::Answered)), (3, 1), "{round}");
    }
    assert_eq!((count(&b.told, Told::Failing), count(&b.told, Told::Answered)), (0, 0));
}

#[test]
fn who_comes_to_us_after_all_has_answered() {
    let (mut a, mut b) = pair(at(secs(0)));
    a.send(at(secs(0)), b"anybody there?");
    run(&mut a, secs(200));
    assert_eq!(count(&a.told, Told::Failing), 6);
    a.out.clear();
    let id = b.peer();
    b.links.get_mut(&id).unwrap().endpoint = Some(a.address);
    b.send(at(secs(300)), b"yes");
    exchange(at(secs(300)), &mut a, &mut b);
    assert_eq!(count(&a.told, Told::Answered), 1);
}

#[test]
fn who_is_nowhere_costs_no_handshake_until_it_is_somewhere() {
    let (mut a, mut b) = pair(at(secs(0)));
    let id = a.peer();
    a.device.set_reachable(at(secs(0)), id, false);
    a.device.set_persistent_keepalive(at(secs(0)), id, Some(secs(25)));
    a.settle(at(secs(0)));
    assert_eq!(run(&mut a, secs(300)), []);
    a.device.set_reachable(at(secs(300)), id, true);
    a.timeout(at(secs(300)));
    assert_eq!(a.out.iter().map(Datagram::kind).collect::<Vec<_>>(), [MessageType::Initiation]);
    exchange(at(secs(300)), &mut a, &mut b);
    assert!(a.current().is_some());

    // Who comes to us is somewhere, and need not be asked any more.
    let (mut a, mut b) = pair(at(secs(0)));
    let id = b.peer();
    b.device.set_reachable(at(secs(0)), id, false);
    b.device.handle_session_wanted(at(secs(0)), id);
    a.send(at(secs(1)), b"hello");
    exchange(at(secs(1)), &mut a, &mut b);
    b.device.set_reachable(at(secs(2)), id, true);
    b.timeout(at(secs(2)));
    assert_eq!((b.out.len(), b.arrived.len()), (0, 2), "{:?}", b.out);
}

#[test]
fn abandoning_is_not_the_end() {
    let now = at(secs(0));
    let (mut a, mut b) = pair(now);
    a.send(now, b"lost");
    run(&mut a, secs(200));
    a.out.clear();
    let later = at(secs(300));
    a.send(later, b"again");
    exchange(later, &mut a, &mut b);
    assert_eq!(b.arrived, [b"again".to_vec(), vec![]]);
}

#[test]
fn handshakes_keep_their_distance() {
    let (mut a, _) = pair(at(secs(0)));
    let id = a.peer();
    let mut initiations = Vec::new();
    for tenth in 0..300 {
        let now = millis(tenth * 100);
        initiations.extend(run(&mut a, now).into_iter().map(|(time, _)| time));
        for _ in 0..3 {
            a.device.handle_session_wanted(at(now), id);
            a.device.handle_rekey_due(at(now), id);
            a.settle(at(now));
        }
        initiations.extend(a.out.drain(..).map(|_| now));
    }
    assert!(initiations.windows(2).all(|pair| pair[1] - pair[0] >= secs(5)), "{initiations:?}");
    assert!(initiations.len() >= 5);
}

#[test]
fn a_handshake_wanted_too_soon_is_made_when_it_may_be() {
    let now = at(secs(0));
    let (mut a, mut b) = connected(now);
    // b has just answered a handshake, so it may not begin one yet.
    b.device.handle_rekey_due(at(secs(1)), b.peer());
    b.settle(at(secs(1)));
    assert!(b.out.is_empty());
    let sent = run(&mut b, secs(20));
    let (time, first) = &sent[0];
    assert_eq!(first.kind(), MessageType::Initiation);
    assert_about(*time, secs(5));
    exchange(at(*time), &mut a, &mut b);
}

#[test]
fn received_data_is_answered_by_a_keepalive_after_ten_seconds() {
    let (mut a, mut b) = connected(at(secs(0)));
    let id = b.peer();
    // What `connected` delivered is answered first.
    let sent = run(&mut b, secs(100));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, secs(10));
    assert!(sent[0].1.is_keepalive());

    a.send(at(secs(100)), b"data");
    let data = a.out.pop_front().unwrap();
    b.receive(at(secs(100)), &data);
    b.send_to(at(secs(105)), id, b"an answer");
    b.out.clear();
    let sent = run(&mut b, secs(114));
    assert!(sent.is_empty(), "an answer is as good as a keepalive");
}

#[test]
fn more_data_meanwhile_asks_for_another_keepalive() {
    let (mut a, mut b) = connected(at(secs(0)));
    run(&mut b, secs(50));
    for time in [100, 105] {
        a.send(at(secs(time)), b"data");
        let data = a.out.pop_back().unwrap();
        b.receive(at(secs(time)), &data);
    }
    let sent = run(&mut b, secs(150));
    let times: Vec<_> = sent.iter().map(|(time, datagram)| (*time, datagram.is_keepalive())).collect();
    assert_eq!(times, [(secs(110), true), (secs(120), true)]);

    // But not if data went the other way after the first.
    for time in [200, 205] {
        a.device.handle_rekey_due(at(secs(190)), a.peer());
        a.settle(at(secs(190)));
        exchange(at(secs(190)), &mut a, &mut b);
        a.send(at(secs(time)), b"data");
        let data = a.out.pop_back().unwrap();
        b.receive(at(secs(time)), &data);
    }
    assert_eq!(run(&mut b, secs(210)).len(), 1);
    b.send(at(secs(212)), b"data");
    b.out.clear();
    assert!(run(&mut b, secs(226)).is_empty());
}

#[test]
fn a_keepalive_is_not_answered() {
    let (mut a, mut b) = connected(at(secs(0)));
    // Only keepalives from here on, each delivered: two peers that answered each other's would go on for ever.
    let mut total = 0;
    for second in 1..120 {
        for _ in 0..2 {
            let sent = run(&mut a, secs(second));
            total += sent.len();
            sent.iter().for_each(|(time, datagram)| b.receive(at(*time), datagram));
            std::mem::swap(&mut a, &mut b);
        }
    }
    assert_eq!(total, 1, "one keepalive answers the data, and that is all");
}

#[test]
fn unanswered_data_makes_a_new_handshake_after_fifteen_seconds() {
    let (mut a, mut b) = connected(at(secs(0)));
    let keepalive = run(&mut b, secs(10));
    a.receive(at(secs(10)), &keepalive[0].1);
    for time in [20, 25, 30] {
        a.send(at(secs(time)), b"data");
    }
    a.out.clear();
    a.told.clear();
    let sent = run(&mut a, secs(36));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1.kind(), MessageType::Initiation);
    assert_about(sent[0].0, secs(35));
    assert_eq!(a.told, [Told::SourceStale]);

    // It begins again with the next data after that.
    b.receive(at(secs(36)), &sent[0].1);
    let response = b.out.pop_back().unwrap();
    a.receive(at(secs(36)), &response);
    a.out.clear();
    a.send(at(secs(40)), b"data");
    a.out.clear();
    let sent = run(&mut a, secs(60));
    assert_about(sent[0].0, secs(55));
}

#[test]
fn any_answer_stops_the_wait() {
    // What comes back 3 s after the data; nothing else is sent by then.
    for kind in ["data", "keepalive", "handshake"] {
        let (mut a, mut b) = connected(at(secs(0)));
        let keepalive = run(&mut b, secs(12));
        a.receive(at(secs(12)), &keepalive[0].1);
        a.send(at(secs(15)), b"data");
        a.out.clear();
        let (now, id) = (at(secs(18)), b.peer());
        match kind {
            "data" => b.send(now, b"data"),
            "keepalive" => assert!(b.seal(now, id, &[])),
            _ => {
                b.device.handle_rekey_due(now, id);
                b.settle(now);
            }
        }
        let answer = b.out.pop_back().unwrap();
        a.receive(now, &answer);
        a.out.clear();
        let sent = run(&mut a, secs(40));
        let initiations = sent.iter().filter(|(_, sent)| sent.kind() == MessageType::Initiation).count();
        assert_eq!(initiations, 0, "{kind} is an answer");
    }
}

#[test]
fn a_persistent_keepalive_breaks_the_silence_and_only_that() {
    let now = at(secs(0));
    let (mut a, mut b) = connected(now);
    let keepalive = run(&mut b, secs(12));
    a.receive(at(secs(12)), &keepalive[0].1);
    let id = a.peer();
    a.device.set_persistent_keepalive(at(secs(20)), id, Some(secs(25)));
    a.settle(at(secs(20)));
    assert!(a.out.pop_front().unwrap().is_keepalive(), "turning it on sends one");
    a.device.set_persistent_keepalive(at(secs(20)), id, Some(secs(25)));
    a.settle(at(secs(20)));
    assert!(a.out.is_empty(), "setting it again does not");

    let sent = run(&mut a, secs(75));
    let times: Vec<_> = sent.iter().map(|(time, datagram)| (*time, datagram.is_keepalive())).collect();
    assert_eq!(times, [(secs(45), true), (secs(70), true)]);
    assert!(b.seal(at(secs(80)), b.peer(), &[]));
    let anything = b.out.pop_back().unwrap();
    a.receive(at(secs(80)), &anything);
    let sent = run(&mut a, secs(106));
    assert_eq!(sent[0].0, secs(105), "what is received counts as well");

    a.device.set_persistent_keepalive(at(secs(106)), id, None);
    run(&mut a, secs(1000));
    assert_eq!(a.device.poll_timeout(), None);
}

#[test]
fn a_persistent_keepalive_makes_its_own_session_and_never_gives_up() {
    let (mut a, mut b) = pair(at(secs(0)));
    let id = a.peer();
    a.device.set_persistent_keepalive(at(secs(0)), id, Some(secs(25)));
    a.timeout(at(secs(0)));
    assert_eq!(a.out.pop_front().unwrap().kind(), MessageType::Initiation);
    let sent = run(&mut a, secs(3600));
    assert!(sent.iter().any(|(time, _)| *time > secs(3500)), "still trying");
    let now = at(secs(3600));
    a.device.handle_session_wanted(at(secs(3610)), id);
    a.settle(now);
    exchange(at(secs(3610)), &mut a, &mut b);
    assert!(b.current().is_some());
}

#[test]
fn sessions_are_renewed_in_time_by_their_initiator() {
    // Who sends every second, and when the initiator renews.
    for (initiator_sends, expected) in [(true, 120), (false, 165)] {
        let (mut a, mut b) = connected(at(secs(0)));
        let mut renewed = None;
        for second in 1..180 {
            let now = at(secs(second));
            if initiator_sends {
                a.send(now, b"data");
            } else {
                b.send(now, b"data");
            }
            let old = a.current().unwrap();
            exchange(now, &mut a, &mut b);
            if renewed.is_none() && a.current().unwrap().local_index() != old.local_index() {
                renewed = Some(second);
                assert!(a.current().unwrap().is_initiator());
            }
        }
        assert_eq!(renewed, Some(expected));
        assert_eq!(b.arrived.len() + a.arrived.len(), 179 + 1, "nothing was lost, and one keepalive confirmed");
    }
}

#[test]
fn keys_are_wiped_nine_minutes_after_the_last_handshake() {
    let (mut a, mut b) = connected(at(secs(0)));
    for node in [&mut a, &mut b] {
        run(node, millis(539_999));
        assert_eq!(node.sessions.len(), 1);
        node.told.clear();
        run(node, secs(540));
        assert!(node.sessions.is_empty());
        assert_eq!(node.told, [Told::NoCurrent, Told::Retired]);
        assert_eq!(node.device.poll_timeout(), None);
    }
}

#[test]
fn an_idle_device_has_no_deadline() {
    let now = at(secs(0));
    let (a, b) = pair(now);
    assert_eq!(a.device.poll_timeout(), None);
    assert_eq!(b.device.poll_timeout(), None);
}

#[test]
fn a_busy_peer_costs_few_wakeups_and_few_calls() {
    let (mut a, mut b) = connected(at(secs(0)));
    let start = at(secs(0)).boot;
    let mut wakeups = 0;
    for tick in 1..10_000 {
        let now: Now = at(millis(tick * 10));
        for node in [&mut a, &mut b] {
            if node.device.poll_timeout().is_some_and(|at| at.saturating_since(start) <= millis(tick * 10)) {
                node.timeout(now);
                wakeups += 1;
            }
        }
        a.send(now, b"question");
        b.send(now, b"answer");
        exchange(now, &mut a, &mut b);
    }
    // A hundred seconds of traffic both ways, 20,000 packets.
    let calls = a.activity_calls + b.activity_calls;
    assert!(wakeups <= 60, "{wakeups} wakeups");
    assert!(calls <= 60, "{calls} calls");
}

#[test]
fn a_device_that_slept_finds_its_keys_dead() {
    let (mut a, mut b) = connected(at(secs(0)));
    // The machine wakes after an hour; boot time went on.
    let now = at(secs(3600));
    a.timeout(now);
    b.timeout(now);
    assert!(a.sessions.is_empty() && b.sessions.is_empty());
    // Both were waiting for something, so both begin a handshake at once.
    assert_eq!((a.out.len(), b.out.len()), (1, 1));
    a.send(now, b"good morning");
    exchange(now, &mut a, &mut b);
    assert!(b.arrived.contains(&b"good morning".to_vec()));
    assert_eq!(a.current().unwrap().local_index(), b.current().unwrap().remote_index());
}

#[test]
fn a_report_that_is_late_loses_nothing() {
    let (mut a, mut b) = connected(at(secs(0)));
    let keepalive = run(&mut b, secs(12));
    a.receive(at(secs(12)), &keepalive[0].1);
    run(&mut a, secs(40));
    // Data is sent and answered before the device hears of it.
    let id = a.peer();
    let activity = a.links[&id].activity.clone();
    assert!(activity.data_sent(at(secs(50)).boot));
    assert!(!activity.keepalive_received(at(secs(51)).boot));
    a.device.handle_activity(at(secs(52)), id);
    a.send(at(secs(60)), b"data");
    a.out.clear();
    let sent = run(&mut a, secs(80));
    assert_about(sent.first().expect("the data is watched").0, secs(75));
}

#[test]
fn what_was_lost_is_told_by_the_gaps_under_all_sessions() {
    let (mut a, mut b) = connected(at(secs(0)));
    let (in_a, in_b) = (a.peer(), b.peer());
    let before = b.device.reception(in_b).unwrap();
    assert!(before.arrived == before.sent && before.arrived > 0, "{before:?}");
    let mut lost = 0;
    for round in 0..4 {
        let now = at(secs(1 + 10 * round));
        for n in 0..10 {
            a.send(now, b"data");
            // Some go astray, but the last comes.
            if n % 3 == 1 {
                a.out.pop_back().unwrap();
                lost += 1;
            }
            exchange(now, &mut a, &mut b);
        }
        let told = b.device.reception(in_b).unwrap();
        assert_eq!(told.sent - told.arrived, lost);
        // The session makes room for the next one, and what was counted under it stays.
        a.device.handle_rekey_due(now, in_a);
        a.settle(now);
        exchange(now, &mut a, &mut b);
    }
    let told = b.device.reception(in_b).unwrap();
    assert!(told.sent - told.arrived == lost && told.arrived >= before.arrived + 28, "{told:?}");
    b.device.set_up(at(secs(50)), false);
    assert_eq!(b.device.reception(in_b), Some(told), "nor does it go with the sessions");
    b.device.remove_peer(at(secs(51)), in_b);
    assert_eq!(b.device.reception(in_b), None);
}
