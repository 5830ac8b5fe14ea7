//! How many handshake messages one source may have answered while we are under load.
//!
//! A bucket of tokens for each source: 20 messages a second, five at once (the kernel's `ratelimiter.c`). A source is an
//! IPv4 address or an IPv6 /64, which is what one customer gets. Only sources that proved with a cookie that they are real
//! have a bucket. A bucket that is full again says nothing and is forgotten; this happens while others are
//! asked for, so that an idle device has no timer. The table is bounded, and who does not fit is refused.
//!
//! Buckets are kept by a keyed hash of the source: nobody outside can make sources collide, and no address is stored.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::symmetric::mac;
use crate::time::Instant;

const PER_SECOND: u64 = 20;
const BURST: u64 = 5;
const COST: u64 = 1_000_000_000 / PER_SECOND;
const FULL: u64 = COST * BURST;
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const MAX_SOURCES: usize = 65_536;

struct Bucket {
    tokens: u64,
    filled: Instant,
}

/// The buckets of all sources.
pub(crate) struct RateLimiter {
    key: [u8; 32],
    buckets: BTreeMap<u64, Bucket>,
    swept: Instant,
    max_sources: usize,
}

impl RateLimiter {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self { key, buckets: BTreeMap::new(), swept: Instant::from_nanos(0), max_sources: MAX_SOURCES }
    }

    /// Whether a message from there may be handled; if so, it is counted.
    pub(crate) fn allow(&mut self, now: Instant, source: IpAddr) -> bool {
        if now.saturating_since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.buckets.retain(|_, bucket| now.saturating_since(bucket.filled) < SWEEP_EVERY);
        }
        let name = self.name(source);
        if let Some(bucket) = self.buckets.get_mut(&name) {
            let earned = now.saturating_since(bucket.filled).as_nanos() as u64;
            bucket.tokens = bucket.tokens.saturating_add(earned).min(FULL);
            bucket.filled = now;
            let allowed = bucket.tokens >= COST;
            if allowed {
                bucket.tokens -= COST;
            }
            return allowed;
        }
        if self.buckets.len() >= self.max_sources {
            return false;
        }
        self.buckets.insert(name, Bucket { tokens: FULL - COST, filled: now });
        true
    }

    /// How many sources it knows.
    #[cfg(test)]
    pub(crate) fn sources(&self) -> usize {
        self.buckets.len()
    }

    fn name(&self, source: IpAddr) -> u64 {
        let hash = match source {
            IpAddr::V4(ip) => mac(&self.key, &[&[4], &ip.octets()]),
            IpAddr::V6(ip) => mac(&self.key, &[&[6], &ip.octets()[..8]]),
        };
        let [a, b, c, d, e, f, g, h, ..] = hash;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

#[cfg(test)]
#[path = "ratelimiter/tests.rs"]
mod tests;
