//! The published vector for `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`, through the same functions as the product.
//! From the test vectors of cacophony, the Haskell implementation of Noise (`vectors/cacophony.txt`).

use super::*;
use crate::key::PresharedKey;

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

struct Parties {
    initiator: Identity,
    responder: Identity,
    psk: PresharedKey,
}

fn parties() -> Parties {
    let key = |hex| Identity::new(PrivateKey::from_bytes(bytes(hex)));
    Parties {
        initiator: key("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1"),
        responder: key("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893"),
        psk: PresharedKey::from_bytes(bytes("54686973206973206d7920417573747269616e20706572737065637469766521")),
    }
}

const FIRST: &str = "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944\
    001e21de9f98ddd8e2ad57527207feb56253c9c94a9e496782ecfcb2a75fbcaf1b52948cc48daefe660c62119ab50009\
    80c84831215f2441eba616548e832985464cf17e51ee93109008399a21f7e13f";
const SECOND: &str = "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843\
    cb765f2caef0751b8f007572dab0322217755c0632f365717edbf34d33e87a";
const TRANSPORT: [(&str, &str); 4] = [
    ("462e20412e20486179656b", "8153ca9833bc3c1b91a7e66e5f4d4f5b59bf9e64c2f20d15f0bba7"),
    ("4361726c204d656e676572", "07af0c9c86e1b4e80f36b04ff7688d51141af3debd0332f0a705ef"),
    ("4a65616e2d426170746973746520536179", "6ab1467c0448cc78394494abaaf23afce0e234315d6e2624dcbfa8a21c1c4d073d"),
    (
        "457567656e2042f6686d20766f6e2042617765726b",
        "dfc346c0d2296ae6cf1acf6f12b8456a1dba228cf8d8b774aacf1c47fc53aa80ebc7a4c292",
    ),
];

#[test]
fn the_published_vector() {
    let Parties { initiator: alice, responder: bob, psk } = parties();
    assert_eq!(hex::encode(bob.public.as_bytes()), "31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62");
    let prologue = b"John Galt";
    let static_static = alice.private.agree(&bob.public).unwrap();
    let ephemeral = |hex| PrivateKey::from_bytes(bytes(hex));

    let mut first = [0; 32 + 48 + 32];
    let (e, rest) = first.split_first_chunk_mut::<32>().unwrap();
    let (s, p) = rest.split_at_mut(48);
    let initiator = Initiator::write(
        prologue,
        &alice,
        &bob.public,
        &static_static,
        ephemeral("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a"),
        b"Ludwig von Mises",
        InitiationOut { ephemeral: e, sealed_static: s, sealed_payload: p },
    )
    .unwrap();
    assert_eq!(hex::encode(first), FIRST);

    let (mut responder, who) =
        Responder::read_static(prologue, &bob, first.first_chunk().unwrap(), &first[32..80]).unwrap();
    assert_eq!(who, alice.public);
    let mut payload = [0; 16];
    let agreed = bob.private.agree(&who).unwrap();
    responder.read_payload(&agreed, &first[80..], &mut payload).unwrap();
    assert_eq!(&payload, b"Ludwig von Mises");

    let mut second = [0; 32 + 15 + 16];
    let (e, p) = second.split_first_chunk_mut::<32>().unwrap();
    let responder = responder
        .write(
            &who,
            psk.as_bytes(),
            &ephemeral("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b"),
            b"Murray Rothbard",
            e,
            p,
        )
        .unwrap();
    assert_eq!(hex::encode(second), SECOND);

    let mut payload = [0; 15];
    let initiator =
        initiator.read(&alice, psk.as_bytes(), second.first_chunk().unwrap(), &second[32..], &mut payload).unwrap();
    assert_eq!(&payload, b"Murray Rothbard");
    for side in [&initiator, &responder] {
        let hash = hex::encode(side.handshake_hash());
        assert_eq!(hash, "f5191b875290abcd41347ac3622d9679688a7e980229cb937ef748336cfde0e5");
    }

    let (i1, i2) = initiator.split();
    let (r1, r2) = responder.split();
    assert!(i1.as_bytes() == r1.as_bytes() && i2.as_bytes() == r2.as_bytes());
    for (n, (text, sealed)) in TRANSPORT.iter().enumerate() {
        let key = aead::SealingKey::new(if n % 2 == 0 { i1.as_bytes() } else { r2.as_bytes() });
        let text = hex::decode(text).unwrap();
        let mut out = vec![0; text.len() + aead::TAG_LEN];
        let nonce = aead::counter_nonce(n as u64 / 2);
        key.seal(&mut [aead::SealSegment { nonce, aad: &[], head: 0, body: &text, out: &mut out }]);
        assert_eq!(hex::encode(out), *sealed, "transport message {n}");
    }
}

#[test]
fn the_constants_of_the_paper() {
    // The chaining key and hash before the responder's key is mixed in, as every implementation writes them down.
    let construction = crate::symmetric::hash(&[b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"]);
    assert_eq!(hex::encode(construction), "60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36");
    let identified = crate::symmetric::hash(&[&construction, PROLOGUE]);
    assert_eq!(hex::encode(identified), "2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3");
}

#[test]
fn a_forged_response_leaves_the_initiator_as_it_was() {
    let Parties { initiator: alice, responder: bob, psk } = parties();
    let static_static = alice.private.agree(&bob.public).unwrap();
    let (mut e, mut s, mut p) = ([0; 32], [0; 48], [0; 28]);
    let initiator = Initiator::write(
        PROLOGUE,
        &alice,
        &bob.public,
        &static_static,
        PrivateKey::from_bytes([7; 32]),
        &[9; 12],
        InitiationOut { ephemeral: &mut e, sealed_static: &mut s, sealed_payload: &mut p },
    )
    .unwrap();
    let (mut responder, _) = Responder::read_static(PROLOGUE, &bob, &e, &s).unwrap();
    responder.read_payload(&static_static, &p, &mut [0; 12]).unwrap();
    let (mut e, mut nothing) = ([0; 32], [0; 16]);
    let ephemeral = PrivateKey::from_bytes([8; 32]);
    responder.write(&alice.public, psk.as_bytes(), &ephemeral, &[], &mut e, &mut nothing).unwrap();

    let read =
        |e: &[u8; 32], nothing: &[u8; 16], psk: &[u8; 32]| initiator.read(&alice, psk, e, nothing, &mut []).map(|_| ());
    let mut forged = nothing;
    forged[3] ^= 1;
    assert_eq!(read(&e, &forged, psk.as_bytes()), Err(ReadError::NotAuthentic));
    assert_eq!(read(&e, &nothing, &[0; 32]), Err(ReadError::NotAuthentic), "the preshared key counts");
    assert_eq!(read(&[0; 32], &nothing, psk.as_bytes()), Err(ReadError::LowOrder));
    assert_eq!(read(&e, &nothing, psk.as_bytes()), Ok(()));
}

#[test]
fn a_low_order_ephemeral_is_refused() {
    let Parties { responder: bob, .. } = parties();
    // The point of order 8 from the X25519 test suites, and its cousins 0 and 1.
    let eighth = bytes("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
    let mut one = [0; 32];
    one[0] = 1;
    for low in [[0; 32], one, eighth] {
        let result = Responder::read_static(PROLOGUE, &bob, &low, &[0; 48]).map(|_| ());
        assert_eq!(result, Err(ReadError::LowOrder));
    }
}
