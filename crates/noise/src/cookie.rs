//! Macs and cookies: who is asked for proof, and of what (whitepaper 5.3 and 5.4.4 to 5.4.7).
//!
//! *mac1* proves that the sender knows our public key; what lacks it is not answered at all. *mac2* proves that it
//! receives what we send to its address and port; it is only asked for under load. Then a message without a valid one is not handled, and
//! its source gets a cookie: a mac of its address and port under a secret of ours that changes every two minutes, so
//! that we remember nothing. So many cookies a second and no more: they are what a flood costs most. With the cookie it makes mac2 from then on, and is limited in rate by its address.
//!
//! [`Guard`] is the side that asks. [`Jar`] is the side that was asked: it remembers the last mac1 that it sent, accepts
//! one cookie for it (sealed with that mac1 as associated data), and uses the cookie until shortly before it goes stale.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error;
use crate::index::ReceiverIndex;
use crate::key::PublicKey;
use crate::limits::{COOKIE_SECRET_LATENCY, COOKIE_SECRET_MAX_AGE, COOKIES_PER_SECOND};
use crate::message::{
    COOKIE_LEN, COOKIE_NONCE_LEN, COOKIE_REPLY_LEN, CookieReply, MAC_LEN, Macs, MessageType, SEALED_COOKIE_LEN, macs,
    write_cookie_reply,
};
use crate::random::Randomness;
use crate::ratelimiter::RateLimiter;
use crate::symmetric::{HASH_LEN, hash, mac};
use crate::time::Instant;

const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";

/// Checks mac1, for whoever sorts datagrams before they reach the device: one keyed hash, no secrets.
#[derive(Clone)]
pub struct Mac1Checker {
    key: [u8; HASH_LEN],
}

impl Mac1Checker {
    pub(crate) fn new(key: &PublicKey) -> Self {
        Self { key: hash(&[LABEL_MAC1, key.as_bytes()]) }
    }

    /// Whether this is worth handing to the device: an initiation or a response of the right length whose mac1 is
    /// valid, or a cookie reply (which has no mac1) of the right length.
    ///
    /// # Errors
    /// [`error::Drop::InvalidMac1`] or [`error::Drop::Malformed`].
    pub fn check(&self, message: &[u8]) -> Result<(), error::Drop> {
        match macs(message) {
            Some(macs) if self.is_valid(&macs) => Ok(()),
            Some(_) => Err(error::Drop::InvalidMac1),
            None if MessageType::of(message) == Some(MessageType::CookieReply) => Ok(()),
            None => Err(error::Drop::Malformed),
        }
    }

    fn is_valid(&self, macs: &Macs<'_>) -> bool {
        mac(&self.key, &[macs.before_mac1]).ct_eq(macs.mac1).into()
    }
}

/// What is to be done with a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Handle,
    AskForCookie,
    CookieLimited,
    RateLimited,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct Secret([u8; HASH_LEN]);

/// The side that asks for proof.
pub(crate) struct Guard {
    mac1: Mac1Checker,
    sealing: [u8; HASH_LEN],
    secret: Option<(Secret, Instant)>,
    limiter: RateLimiter,
    allowance: Allowance,
}

/// How many cookie replies may leave: as many as a tenth of a second brings, filled again as time passes.
struct Allowance {
    left: u32,
    filled: Instant,
}

impl Allowance {
    const MOST: u32 = COOKIES_PER_SECOND / 10;
    const EACH: Duration = Duration::from_nanos(1_000_000_000 / COOKIES_PER_SECOND as u64);

    fn take(&mut self, now: Instant) -> bool {
        let more = now.saturating_since(self.filled).as_nanos() / Self::EACH.as_nanos();
        if more >= u128::from(Self::MOST - self.left) {
            (self.left, self.filled) = (Self::MOST, now);
        } else {
            // Less than MOST, and so no number that would not fit.
            self.left += more as u32;
            self.filled = self.filled + Self::EACH * more as u32;
        }
        let any = self.left > 0;
        self.left -= u32::from(any);
        any
    }
}

impl Guard {
    /// For messages to the owner of that key.
    pub(crate) fn new(key: &PublicKey, random: &mut Randomness) -> Self {
        Self {
            mac1: Mac1Checker::new(key),
            sealing: sealing_key(key),
            secret: None,
            limiter: RateLimiter::new(random.bytes()),
            allowance: Allowance { left: Allowance::MOST, filled: Instant::from_nanos(0) },
        }
    }

    pub(crate) fn mac1_checker(&self) -> &Mac1Checker {
        &self.mac1
    }

    /// Judges an initiation or response, whose mac1 is valid, by its mac2.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        source: SocketAddr,
        macs: &Macs<'_>,
        under_load: bool,
        random: &mut Randomness,
    ) -> Verdict {
        if !under_load {
            return Verdict::Handle;
        }
        // Who has no cookie says so by zeros, as all of a flood of strangers does: that needs no look at the right ones.
        let proves = *macs.mac2 != [0; MAC_LEN] && {
            let cookie = self.cookie(now, source, random);
            bool::from(mac(&cookie[..], &[macs.before_mac2]).ct_eq(macs.mac2))
        };
        if !proves {
            return if self.allowance.take(now) { Verdict::AskForCookie } else { Verdict::CookieLimited };
        }
        if !self.limiter.allow(now, source.ip()) {
            return Verdict::RateLimited;
        }
        Verdict::Handle
    }

    /// The reply that carries a cookie to the sender of a message with these macs.
    pub(crate) fn reply(
        &mut self,
        now: Instant,
        source: SocketAddr,
        macs: &Macs<'_>,
        receiver: ReceiverIndex,
        random: &mut Randomness,
    ) -> [u8; COOKIE_REPLY_LEN] {
        let cookie = self.cookie(now, source, random);
        let nonce: [u8; COOKIE_NONCE_LEN] = random.bytes();
        let mut sealed = [0; SEALED_COOKIE_LEN];
        let (body, tag) = sealed.split_at_mut(COOKIE_LEN);
        body.copy_from_slice(&cookie[..]);
        let made = XChaCha20Poly1305::new(&self.sealing.into())
            .encrypt_in_place_detached(XNonce::from_slice(&nonce), macs.mac1, body)
            .expect("sealing fails only for texts of 256 GiB");
        tag.copy_from_slice(&made);
        write_cookie_reply(&CookieReply { receiver, nonce: &nonce, sealed_cookie: &sealed })
    }

    /// The cookie of a source: address *and* port, or one behind a NAT could spend another's.
    fn cookie(&mut self, now: Instant, source: SocketAddr, random: &mut Randomness) -> Zeroizing<[u8; COOKIE_LEN]> {
        let stale = |born: &Instant| now.saturating_since(*born) >= COOKIE_SECRET_MAX_AGE;
        let secret = match self.secret.take() {
            Some((secret, born)) if !stale(&born) => (secret, born),
            _ => (Secret(random.bytes()), now),
        };
        let (secret, _) = self.secret.insert(secret);
        let port = source.port().to_be_bytes();
        Zeroizing::new(match source.ip() {
            IpAddr::V4(ip) => mac(&secret.0, &[&ip.octets(), &port]),
            IpAddr::V6(ip) => mac(&secret.0, &[&ip.octets(), &port]),
        })
    }
}

/// The side that was asked: what one peer's device wants to see in our messages to it.
#[derive(Default)]
pub(crate) struct Jar {
    cookie: Option<(Zeroizing<[u8; COOKIE_LEN]>, Instant)>,
    /// The mac1 of the last message, while a cookie for it would be accepted.
    awaited: Option<[u8; MAC_LEN]>,
}

impl Jar {
    /// Fills in the macs of an initiation or response to `peer`.
    pub(crate) fn add_macs(&mut self, now: Instant, peer: &PublicKey, message: &mut [u8]) {
        let mac1_at = message.len() - 2 * MAC_LEN;
        let mac2_at = message.len() - MAC_LEN;
        let mac1 = mac(&hash(&[LABEL_MAC1, peer.as_bytes()]), &[&message[..mac1_at]]);
        message[mac1_at..mac2_at].copy_from_slice(&mac1);
        self.awaited = Some(mac1);
        if let Some((cookie, born)) = &self.cookie
            && now.saturating_since(*born) < COOKIE_SECRET_MAX_AGE - COOKIE_SECRET_LATENCY
        {
            let mac2 = mac(&cookie[..], &[&message[..mac2_at]]);
            message[mac2_at..].copy_from_slice(&mac2);
        }
    }

    /// Whether a cookie would be accepted at all.
    pub(crate) fn is_awaiting(&self) -> bool {
        self.awaited.is_some()
    }

    /// Takes the cookie out of a reply of `peer`, if it answers our last message. One message gets one cookie.
    pub(crate) fn accept(&mut self, now: Instant, peer: &PublicKey, reply: &CookieReply<'_>) -> bool {
        let Some(mac1) = &self.awaited else { return false };
        let (body, tag) = reply.sealed_cookie.split_at(COOKIE_LEN);
        let mut cookie = Zeroizing::new([0; COOKIE_LEN]);
        cookie.copy_from_slice(body);
        let opened = XChaCha20Poly1305::new(&sealing_key(peer).into()).decrypt_in_place_detached(
            XNonce::from_slice(reply.nonce),
            mac1,
            &mut cookie[..],
            Tag::from_slice(tag),
        );
        if opened.is_err() {
            return false;
        }
        self.cookie = Some((cookie, now));
        self.awaited = None;
        true
    }
}

fn sealing_key(key: &PublicKey) -> [u8; HASH_LEN] {
    hash(&[LABEL_COOKIE, key.as_bytes()])
}

#[cfg(test)]
#[path = "cookie/tests.rs"]
mod tests;
