//! The configuration protocol on `/var/run/wireguard/IFACE.sock`, as at <https://www.wireguard.com/xplatform/>.
//!
//! A request is `get=1` or `set=1`, then lines `key=value`, then an empty line; a reply is lines, then `errno=N` and an empty line. A
//! connection serves several requests. The device reads with [`RequestReader`] and answers with [`write_device`],
//! [`write_peer`], [`reply_to_get`] and [`reply_to_set`]; the client writes with [`write_get`] and [`write_set`] and reads with
//! [`ReplyReader`].
//!
//! Some requests are ours; no other client sends them, and no other device knows them. `get=peers` is answered as `get=1` is, but without private and preshared keys, with the device's public key in a line
//! `own_public_key=KEY`, and with two lines for each peer more: its data messages that came (`rx_packets`), and how many it had sent by then,
//! as its counters tell (`rx_expected_packets`). `get=drops` tells how many packets were dropped, by reason, in lines `drop_REASON=N`; `get=stats` tells the same
//! and more of the device's work ([`crate::stats`]), a line `worker=N` before those of each worker.
//! `watch=1`, with lines `public_key=` for the peers that it is about, or none for all, is answered by `errno=0`; from then on the connection is for
//! events, which the device tells as they happen ([`PeerEvent`]). `wipe=1` ends all sessions and wipes their keys, and keeps the device still for as long
//! as the connection is open. `set=policy`, with a line `rule=RULE` for each rule, in order, puts these in the place of all that were in
//! force ([`crate::policy`]); `get=policy` tells them, each followed by what it has taken (`rule_packets`, `rule_bytes`, `rule_dropped`).
//!
//! The sign of a refusal: `wg` tells the right error for **−N** in reply to a set and for **+N** in reply to a get, so that is
//! what we write; other implementations write −N always, so our client takes either.

mod print;
mod reply;
mod request;
mod watch;

pub use print::{
    reply_to_get, reply_to_set, write_device, write_drops, write_get, write_get_drops, write_get_peers,
    write_get_policy, write_get_stats, write_peer, write_peer_openly, write_policy, write_set, write_set_policy,
    write_stats, write_wipe,
};
pub use reply::{ReplyError, ReplyReader};
pub use request::{Budget, MAX_REQUEST, Request, RequestError, RequestReader, SetError};
pub use watch::{EventReader, PeerEvent, PeerEventKind, write_event, write_watch};

use std::{fmt, io};

/// An error number of the kernel, as the protocol tells it. Always positive here; the sign is a matter of the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

impl Errno {
    /// EPROTO: a line that the protocol does not have.
    pub const PROTOCOL: Errno = Errno(71);
    /// EINVAL: a key or value that is not one.
    pub const INVALID: Errno = Errno(22);
    /// EIO: anything else.
    pub const IO: Errno = Errno(5);
    /// EBUSY: there are as many watchers as may be, or something is still in use.
    pub const BUSY: Errno = Errno(16);
    /// EADDRINUSE: somebody has the port.
    pub const ADDRESS_IN_USE: Errno = Errno(98);

    /// The error of this number, whatever its sign; `None` for zero.
    pub fn new(number: i32) -> Option<Errno> {
        (number != 0).then_some(Errno(number.saturating_abs()))
    }

    /// The number, positive.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl From<&io::Error> for Errno {
    /// The number that the kernel gave, or EIO for an error that is not the kernel's.
    fn from(error: &io::Error) -> Errno {
        error.raw_os_error().and_then(Errno::new).unwrap_or(Errno::IO)
    }
}

impl fmt::Display for Errno {
    /// The words of the C library: "Address already in use".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from_raw_os_error(self.0).to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}
