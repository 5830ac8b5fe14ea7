//! The timers of one peer (whitepaper, section 6; the kernel's `timers.c`).
//!
//! - *Retransmit*: an initiation went unanswered for REKEY_TIMEOUT and some jitter. Set when one is sent, cleared when a handshake
//!   completes. After too many attempts it is the end: what waits is dropped.
//! - *Deferred*: a handshake was wanted less than REKEY_TIMEOUT after the last one, and no retransmit was on its way.
//! - *New handshake*: data went unanswered for KEEPALIVE_TIMEOUT + REKEY_TIMEOUT and some jitter.
//! - *Keepalive*: data was received, and nothing sent for KEEPALIVE_TIMEOUT. If more data came meanwhile, a second keepalive
//!   follows as much later unless data was sent, because the first may be lost.
//! - *Persistent keepalive*: nothing went either way for the interval that the user set.
//! - *Zero keys*: no new session for three times REJECT_AFTER_TIME, so what is left of the old ones is wiped.
//!
//! New handshake and keepalive follow the data plane's notes ([`Activity`]) lazily: [`Timers::refresh`] brings their
//! deadlines up to date when any timer of the peer is due, so that between two deadlines packets cost nothing here.

use std::time::Duration;

use crate::activity::{AWAITING, Activity, OWING};
use crate::limits::{KEEPALIVE_TIMEOUT, REJECT_AFTER_TIME, REKEY_TIMEOUT, REKEY_TIMEOUT_JITTER_MAX};
use crate::random::Randomness;
use crate::time::Instant;

/// A timer that has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    ZeroKeys,
    Retransmit,
    Deferred,
    NewHandshake,
    Keepalive,
}

/// A deadline that follows a note of the data plane.
#[derive(Clone, Copy)]
struct Following {
    since: Instant,
    deadline: Instant,
}

/// All deadlines of one peer.
#[derive(Default)]
pub(crate) struct Timers {
    retransmit: Option<Instant>,
    deferred: Option<Instant>,
    zero_keys: Option<Instant>,
    new_handshake: Option<Following>,
    keepalive: Option<Following>,
    /// `since` is when the first keepalive was due.
    second_keepalive: Option<Following>,
    persistent: Option<Instant>,
    /// When the persistent keepalive was turned on, or last due.
    persistent_since: Option<Instant>,
    interval: Option<Duration>,
    /// Initiations sent again since the last one that was sent for a new reason.
    pub attempts: u32,
    /// Under which deadline the peer stands in the device's queue.
    pub queued: Option<Instant>,
}

impl Timers {
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.interval
    }

    pub(crate) fn set_interval(&mut self, interval: Option<Duration>) {
        self.interval = interval;
    }

    /// From now on the persistent keepalive counts, if there is an interval.
    pub(crate) fn start_persistent(&mut self, now: Instant) {
        self.persistent_since = Some(now);
    }

    /// The device went down: nothing is due any more.
    pub(crate) fn stop(&mut self) {
        *self = Self { interval: self.interval, queued: self.queued, ..Self::default() };
    }

    pub(crate) fn handshake_initiated(&mut self, now: Instant, random: &mut Randomness) {
        self.retransmit = Some(now + REKEY_TIMEOUT + random.below(REKEY_TIMEOUT_JITTER_MAX));
        self.deferred = None;
    }

    /// A handshake is wanted but too soon after the one begun at `last`.
    pub(crate) fn handshake_refused(&mut self, last: Instant, random: &mut Randomness) {
        if self.retransmit.is_none() && self.deferred.is_none() {
            self.deferred = Some(last + REKEY_TIMEOUT + random.below(REKEY_TIMEOUT_JITTER_MAX));
        }
    }

    /// A handshake is wanted as soon as the device gets to it.
    pub(crate) fn handshake_wanted(&mut self, now: Instant) {
        self.deferred = Some(now);
    }

    pub(crate) fn handshake_completed(&mut self) {
        self.retransmit = None;
        self.deferred = None;
    }

    pub(crate) fn handshake_abandoned(&mut self, now: Instant, activity: &Activity) {
        activity.settle();
        self.second_keepalive = None;
        self.zero_keys.get_or_insert(now + REJECT_AFTER_TIME * 3);
    }

    pub(crate) fn session_derived(&mut self, now: Instant) {
        self.zero_keys = Some(now + REJECT_AFTER_TIME * 3);
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        let following = [self.new_handshake, self.keepalive, self.second_keepalive];
        [self.retransmit, self.deferred, self.zero_keys, self.persistent]
            .into_iter()
            .chain(following.map(|following| following.map(|following| following.deadline)))
            .flatten()
            .min()
    }

    /// Brings the deadlines that follow the data plane's notes up to date. Those that follow nothing any more stay until `forget`,
    /// which is when a deadline has passed: a peer that goes on sending then costs no wakeup in between, and one that falls silent costs
    /// one that finds nothing.
    pub(crate) fn refresh(&mut self, activity: &Activity, random: &mut Randomness, forget: bool) {
        follow(&mut self.new_handshake, activity, AWAITING, Activity::awaiting_since, forget, || {
            KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + random.below(REKEY_TIMEOUT_JITTER_MAX)
        });
        follow(&mut self.keepalive, activity, OWING, Activity::owing_since, forget, || KEEPALIVE_TIMEOUT);
        self.persistent = match (self.interval, activity.last_traversal().max(self.persistent_since)) {
            (Some(interval), Some(last)) => Some(last + interval),
            _ => None,
        };
    }

    /// Takes out one timer that has run out by `now`. To be called after `refresh`, until there is none.
    pub(crate) fn take_due(&mut self, now: Instant, activity: &Activity) -> Option<Due> {
        let passed = |deadline: &mut Instant| *deadline <= now;
        let followed = |following: &mut Following| following.deadline <= now;
        if self.zero_keys.take_if(passed).is_some() {
            return Some(Due::ZeroKeys);
        }
        if self.retransmit.take_if(passed).is_some() {
            return Some(Due::Retransmit);
        }
        if self.deferred.take_if(passed).is_some() {
            return Some(Due::Deferred);
        }
        if self.new_handshake.take_if(followed).is_some() {
            activity.stop_awaiting();
            return Some(Due::NewHandshake);
        }
        if let Some(first) = self.second_keepalive.take_if(followed)
            && activity.last_data_sent() < Some(first.since)
        {
            return Some(Due::Keepalive);
        }
        if self.keepalive.take_if(followed).is_some() {
            if activity.settle() {
                self.second_keepalive = Some(Following { since: now, deadline: now + KEEPALIVE_TIMEOUT });
            }
            return Some(Due::Keepalive);
        }
        if self.persistent.take_if(passed).is_some() {
            self.persistent_since = Some(now);
            return Some(Due::Keepalive);
        }
        None
    }
}

/// Brings one deadline up to date with the note that it follows.
fn follow(
    deadline: &mut Option<Following>,
    activity: &Activity,
    which: u32,
    since: impl Fn(&Activity) -> Option<Instant>,
    forget: bool,
    mut delay: impl FnMut() -> Duration,
) {
    let mut begun = since(activity);
    if begun.is_none() && (forget || deadline.is_none()) {
        // Clear the bit, then look again: see the head of `activity.rs`.
        activity.disarm(which);
        begun = since(activity);
        if begun.is_none() {
            *deadline = None;
        }
    }
    let Some(begun) = begun else { return };
    activity.set_armed(which);
    if deadline.is_none_or(|deadline| deadline.since != begun) {
        *deadline = Some(Following { since: begun, deadline: begun + delay() });
    }
}
