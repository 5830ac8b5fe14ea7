//! The handshake of the WireGuard whitepaper (section 5.4), written down a second time, for one test: an end that is none of
//! ours, and looks inside everything that it is sent.

use blake2::{Blake2s256, Blake2sMac, Digest, digest::Mac, digest::consts::U16};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use x25519_dalek::{PublicKey, StaticSecret};

type Key = [u8; 32];

fn hash(parts: &[&[u8]]) -> Key {
    let mut state = Blake2s256::new();
    parts.iter().for_each(|part| Digest::update(&mut state, part));
    state.finalize().into()
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let pad = |byte: u8| std::array::from_fn::<u8, 64, _>(|i| key.get(i).copied().unwrap_or_default() ^ byte);
    let inner = hash(&[&[&pad(0x36)[..]], parts].concat());
    hash(&[&pad(0x5c), &inner])
}

fn kdf<const N: usize>(key: &Key, input: &[u8]) -> [Key; N] {
    let secret = hmac(key, &[input]);
    let mut last = Vec::new();
    std::array::from_fn(|n| {
        let key = hmac(&secret, &[&last, &[n as u8 + 1]]);
        last = key.to_vec();
        key
    })
}

pub fn mac(key: &[u8], text: &[u8]) -> [u8; 16] {
    let mut state = <Blake2sMac<U16> as blake2::digest::KeyInit>::new_from_slice(key).unwrap();
    Mac::update(&mut state, text);
    state.finalize().into_bytes().into()
}

/// The key of the first mac of messages to the holder of a static key.
pub fn mac1_key(public: &Key) -> Key {
    hash(&[b"mac1----", public])
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

fn seal(key: &Key, counter: u64, text: &[u8], aad: &[u8]) -> Vec<u8> {
    ChaCha20Poly1305::new(key.into()).encrypt(&nonce(counter), Payload { msg: text, aad }).unwrap()
}

#[track_caller]
fn open(key: &Key, counter: u64, text: &[u8], aad: &[u8]) -> Vec<u8> {
    ChaCha20Poly1305::new(key.into()).decrypt(&nonce(counter), Payload { msg: text, aad }).expect("authentic")
}

/// Hash and chaining key.
#[derive(Clone)]
struct State {
    hash: Key,
    chain: Key,
}

impl State {
    fn new(responder: &Key) -> State {
        let chain = hash(&[b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"]);
        let start = hash(&[&chain, b"WireGuard v1 zx2c4 Jason@zx2c4.com"]);
        State { hash: hash(&[&start, responder]), chain }
    }

    fn mix(&mut self, bytes: &[u8]) {
        self.hash = hash(&[&self.hash, bytes]);
    }

    fn ephemeral(&mut self, public: &Key) {
        self.mix(public);
        [self.chain] = kdf(&self.chain, public);
    }

    fn agree(&mut self, secret: &StaticSecret, public: &Key) -> Key {
        let [chain, key] = kdf(&self.chain, secret.diffie_hellman(&PublicKey::from(*public)).as_bytes());
        self.chain = chain;
        key
    }

    fn preshared(&mut self, psk: &Key) -> Key {
        let [chain, hashed, key] = kdf(&self.chain, psk);
        self.chain = chain;
        self.mix(&hashed);
        key
    }

    #[track_caller]
    fn open(&mut self, key: &Key, text: &[u8]) -> Vec<u8> {
        let plain = open(key, 0, text, &self.hash);
        self.mix(text);
        plain
    }

    fn seal(&mut self, key: &Key, text: &[u8]) -> Vec<u8> {
        let sealed = seal(key, 0, text, &self.hash);
        self.mix(&sealed);
        sealed
    }
}

/// Keys of a session, and whose they are.
pub struct Transport {
    sending: Key,
    receiving: Key,
    pub local: [u8; 4],
    pub remote: [u8; 4],
    next: u64,
}

impl Transport {
    pub fn seal(&mut self, text: &[u8]) -> Vec<u8> {
        self.next += 1;
        self.seal_with(self.next - 1, text)
    }

    /// Seals under any counter, whether it was used or not.
    pub fn seal_with(&self, counter: u64, text: &[u8]) -> Vec<u8> {
        let header = [&[4, 0, 0, 0], &self.remote[..], &counter.to_le_bytes()].concat();
        [header, seal(&self.sending, counter, text, &[])].concat()
    }

    /// The counter and the content of a message.
    #[track_caller]
    pub fn open(&self, message: &[u8]) -> (u64, Vec<u8>) {
        assert_eq!((&message[..4], &message[4..8]), (&[4, 0, 0, 0][..], &self.local[..]));
        let counter = u64::from_le_bytes(message[8..16].try_into().unwrap());
        (counter, open(&self.receiving, counter, &message[16..], &[]))
    }
}

/// One end.
pub struct End {
    pub secret: StaticSecret,
    pub psk: Key,
    /// The other's static key.
    pub other: Key,
}

impl End {
    pub fn public(&self) -> Key {
        PublicKey::from(&self.secret).to_bytes()
    }

    #[track_caller]
    fn check_macs(&self, message: &[u8]) {
        let (rest, mac2) = message.split_at(message.len() - 16);
        let (rest, mac1) = rest.split_at(rest.len() - 16);
        assert_eq!(mac1, mac(&mac1_key(&self.public()), rest));
        assert_eq!(mac2, [0; 16], "no cookie was given");
    }

    fn add_macs(&self, mut message: Vec<u8>) -> Vec<u8> {
        message.extend(mac(&mac1_key(&self.other), &message));
        message.extend([0; 16]);
        message
    }

    /// Answers an initiation. Returns the response, the keys, and the timestamp that it held.
    #[track_caller]
    pub fn respond(
        &self,
        initiation: &[u8],
        ephemeral: &StaticSecret,
        local: [u8; 4],
    ) -> (Vec<u8>, Transport, Vec<u8>) {
        assert_eq!((initiation.len(), &initiation[..4]), (148, &[1, 0, 0, 0][..]));
        self.check_macs(initiation);
        let remote: [u8; 4] = initiation[4..8].try_into().unwrap();
        let theirs: Key = initiation[8..40].try_into().unwrap();
        let mut state = State::new(&self.public());
        state.ephemeral(&theirs);
        let key = state.agree(&self.secret, &theirs);
        assert_eq!(state.open(&key, &initiation[40..88]), self.other, "the initiator's static key");
        let key = state.agree(&self.secret, &self.other);
        let timestamp = state.open(&key, &initiation[88..116]);

        let ours = PublicKey::from(ephemeral).to_bytes();
        state.ephemeral(&ours);
        state.agree(ephemeral, &theirs);
        state.agree(ephemeral, &self.other);
        let key = state.preshared(&self.psk);
        let nothing = state.seal(&key, &[]);
        let response = [&[2, 0, 0, 0], &local[..], &remote[..], &ours[..], &nothing[..]].concat();
        let [receiving, sending] = kdf(&state.chain, &[]);
        (self.add_macs(response), Transport { sending, receiving, local, remote, next: 0 }, timestamp)
    }

    /// Begins a handshake. Returns the initiation, and what it takes to read the response.
    pub fn initiate(&self, ephemeral: StaticSecret, local: [u8; 4], timestamp: &[u8; 12]) -> (Vec<u8>, Begun<'_>) {
        let mut state = State::new(&self.other);
        let ours = PublicKey::from(&ephemeral).to_bytes();
        state.ephemeral(&ours);
        let key = state.agree(&ephemeral, &self.other);
        let sealed_static = state.seal(&key, &self.public());
        let key = state.agree(&self.secret, &self.other);
        let sealed_time = state.seal(&key, timestamp);
        let message = [&[1, 0, 0, 0], &local[..], &ours[..], &sealed_static[..], &sealed_time[..]].concat();
        (self.add_macs(message), Begun { end: self, state, ephemeral, local })
    }
}

/// A handshake that awaits its response.
pub struct Begun<'a> {
    end: &'a End,
    state: State,
    ephemeral: StaticSecret,
    local: [u8; 4],
}

impl Begun<'_> {
    #[track_caller]
    pub fn finish(mut self, response: &[u8]) -> Transport {
        assert_eq!((response.len(), &response[..4]), (92, &[2, 0, 0, 0][..]));
        assert_eq!(response[8..12], self.local);
        self.end.check_macs(response);
        let theirs: Key = response[12..44].try_into().unwrap();
        self.state.ephemeral(&theirs);
        self.state.agree(&self.ephemeral, &theirs);
        self.state.agree(&self.end.secret, &theirs);
        let key = self.state.preshared(&self.end.psk);
        assert!(self.state.open(&key, &response[44..60]).is_empty());
        let [sending, receiving] = kdf(&self.state.chain, &[]);
        let remote = response[4..8].try_into().unwrap();
        Transport { sending, receiving, local: self.local, remote, next: 0 }
    }
}
