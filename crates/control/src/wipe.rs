//! Keys wiped on demand, and no new ones for a while.
//!
//! Before a machine sleeps its memory should hold no key that opens what was recorded of its traffic. [`Device::wipe`] ends all sessions and handshakes,
//! as if the link were set down, but that the sockets stay; it returns when no worker holds a session any more, which is when their keys are
//! wiped. The device stays still, so that a packet in the last moment does not make new keys, until the [`Stillness`] that it returned is dropped. What
//! packets come meanwhile wait as they do for a session. The private key stays: without it the device could not begin anew.

use crate::device::Device;
use config::uapi::Errno;
use noise::{Event, Session};
use std::{
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

/// How long it is waited for that workers let go of sessions: some batches.
const PATIENCE: Duration = Duration::from_secs(2);

/// Keeps a device still, up to its drop.
pub(crate) struct Stillness<'a>(&'a Device);

impl Device {
    /// Ends all sessions and wipes their keys. No others are made until what is returned is dropped.
    ///
    /// # Errors
    /// EBUSY: there is a key that is still in use.
    pub(crate) fn wipe(&self) -> Result<Stillness<'_>, Errno> {
        let mut sessions = Vec::new();
        let stillness = self.change_seeing(
            |state, now| {
                state.still += 1;
                state.noise.set_up(now, false);
                // Counts from here on, so that an error lets go.
                Stillness(self)
            },
            |event| {
                if let Event::SessionRetired { session } = event {
                    sessions.push(Arc::downgrade(session));
                }
            },
        );
        let start = Instant::now();
        let in_use = |session: &Weak<Session>| session.strong_count() > 0;
        while sessions.iter().any(in_use) {
            if start.elapsed() > PATIENCE {
                log::error!("a key could not be wiped: it is in use");
                return Err(Errno::BUSY);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(stillness)
    }
}

impl Drop for Stillness<'_> {
    fn drop(&mut self) {
        self.0.change(|state, now| {
            state.still -= 1;
            let up = state.up && state.still == 0;
            state.noise.set_up(now, up);
        });
    }
}
