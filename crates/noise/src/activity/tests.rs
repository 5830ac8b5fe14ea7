//! Who has to be told, and that nobody who has to be is not.

use super::*;

fn at(secs: u64) -> Instant {
    Instant::from_nanos(secs * 1_000_000_000)
}

#[test]
fn only_the_first_of_a_quiet_period_is_told() {
    let activity = Activity::default();
    assert!(activity.data_sent(at(1)));
    assert!(!activity.data_sent(at(2)));
    assert!(!activity.keepalive_received(at(3)), "answers the data");
    assert!(!activity.data_sent(at(4)), "the device still has a deadline");
    assert_eq!(activity.awaiting_since(), Some(at(4)));
    assert!(activity.data_received(at(5)), "the other deadline");
    assert!(!activity.data_received(at(6)));
    assert!(!activity.keepalive_sent(at(7)));
    assert_eq!(activity.owing_since(), None);
    assert!(!activity.data_received(at(8)));
    assert_eq!(activity.last_traversal(), Some(at(8)));
}

#[test]
fn boot_itself_is_a_time() {
    let activity = Activity::default();
    assert!(activity.data_sent(at(0)));
    assert!(activity.awaiting_since().is_some());
}

/// The steps of both sides, in every order that keeps each side's own: the data plane notes that it sent; the device
/// forgets its deadline, looking again after it has cleared the bit.
#[test]
fn no_order_loses_a_wakeup() {
    let steps = [[true, true, false, false], [true, false, true, false], [true, false, false, true]];
    let all = steps.into_iter().chain(steps.map(|order| order.map(|plane| !plane)));
    for order in all {
        let activity = Activity::default();
        activity.set_armed(AWAITING);
        let (mut plane_step, mut device_step) = (0, 0);
        let (mut told, mut found) = (false, false);
        for plane in order {
            match (plane, if plane { plane_step } else { device_step }) {
                (true, 0) => assert!(begin(&activity.notes().awaiting_since, 5)),
                (true, _) => told = activity.arm(AWAITING),
                (false, 0) => activity.disarm(AWAITING),
                (false, _) => found = activity.awaiting_since().is_some(),
            }
            if plane {
                plane_step += 1;
            } else {
                device_step += 1;
            }
        }
        assert!(told || found, "{order:?}");
    }
}

#[test]
fn no_race_loses_a_wakeup() {
    for _ in 0..2000 {
        let activity = Activity::default();
        activity.set_armed(AWAITING);
        let barrier = std::sync::Barrier::new(2);
        let (told, found) = std::thread::scope(|scope| {
            let plane = scope.spawn(|| {
                barrier.wait();
                activity.data_sent(at(5))
            });
            barrier.wait();
            activity.disarm(AWAITING);
            let found = activity.awaiting_since().is_some();
            (plane.join().unwrap(), found)
        });
        assert!(told || found);
    }
}

#[test]
fn the_layout_is_that_of_the_programs() {
    assert_eq!(Notes::FIELDS.map(|(_, offset)| offset), [0, 8, 16, 24, 32, 36]);
    assert_eq!((size_of::<Notes>(), align_of::<Notes>()), (40, 8));
}
