//! Which files are counted: for each part of a system its origin, what it is in words, and the paths.
//!
//! How paths are written, [`super::paths`] tells. Each has to be there in some way: a source that has been rearranged is an error, and no smaller
//! number. Chosen are Linux on x86-64 and what is compiled for it.

use super::crates;

/// Where sources are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Debian's kernel, of the series that is asked for.
    Linux,
    /// A source package of Debian; and the package that is installed of it, whose version is wanted where it can be had.
    Debian(&'static str, &'static str),
    /// A crate of the registry that is a program's library, in this version with these features, and the crates that it needs.
    Crate(&'static str, &'static str, &'static str),
    /// The crates that ours needs, in its versions.
    OurCrates,
}

/// A part that is counted.
#[derive(Debug)]
pub struct Selection {
    /// A name for the cache.
    pub id: &'static str,
    /// Where from.
    pub origin: Origin,
    /// What it is, in words.
    pub what: &'static str,
    /// Whether it is cryptography.
    pub cryptography: bool,
    /// The files; of crates each path begins with the crate's name. None for all crates of cryptography.
    pub paths: &'static [&'static str],
    /// Files that are not for this platform, or that nothing here needs.
    pub without: &'static [&'static str],
}

const WIREGUARD_GO: Origin = Origin::Debian("wireguard-go", "wireguard-go");
const GO_CRYPTO: Origin = Origin::Debian("golang-go.crypto", "golang-golang-x-crypto-dev");
const OPENVPN_SOURCE: Origin = Origin::Debian("openvpn", "openvpn");
const DCO_SOURCE: Origin = Origin::Debian("openvpn-dco-dkms", "openvpn-dco-dkms");
const STRONGSWAN_SOURCE: Origin = Origin::Debian("strongswan", "strongswan-libcharon");
const OPENSSL_SOURCE: Origin = Origin::Debian("openssl", "libssl3");
const BORINGTUN_CRATES: Origin = Origin::Crate("boringtun", "0.7.1", "device");
const GOTATUN_CRATES: Origin = Origin::Crate("gotatun", "0.10.2", "ring device tun");

const fn own(
    id: &'static str,
    origin: Origin,
    what: &'static str,
    paths: &'static [&'static str],
    without: &'static [&'static str],
) -> Selection {
    Selection { id, origin, what, cryptography: false, paths, without }
}

const fn cryptography(
    id: &'static str,
    origin: Origin,
    what: &'static str,
    paths: &'static [&'static str],
    without: &'static [&'static str],
) -> Selection {
    Selection { id, origin, what, cryptography: true, paths, without }
}

static OUR_CRATES: Selection = cryptography("our-crates", Origin::OurCrates, crates::WORDS, &[], crates::WITHOUT);

static WIREGUARD: Selection =
    own("wireguard", Origin::Linux, "WireGuard: drivers/net/wireguard", &["drivers/net/wireguard/"], &[]);

static WIREGUARD_CIPHERS: Selection = cryptography(
    "wireguard-ciphers",
    Origin::Linux,
    "ChaCha20-Poly1305, BLAKE2s and Curve25519 of lib/crypto and arch/x86/crypto, with their headers",
    &[
        "lib/crypto/chacha20poly1305.c",
        "lib/crypto/chacha.c",
        "lib/crypto/libchacha.c",
        "lib/crypto/poly1305*.c",
        "lib/crypto/blake2s*.c",
        "lib/crypto/curve25519*.c",
        "lib/crypto/memneq.c",
        "lib/crypto/utils.c",
        "arch/x86/crypto/chacha*",
        "arch/x86/crypto/poly1305*",
        "arch/x86/crypto/blake2s*",
        "arch/x86/crypto/curve25519*",
        "include/crypto/chacha*.h",
        "include/crypto/poly1305.h",
        "include/crypto/blake2s.h",
        "include/crypto/curve25519.h",
        "include/crypto/internal/chacha.h",
        "include/crypto/internal/poly1305.h",
        "include/crypto/internal/blake2s.h",
    ],
    &[],
);

static XFRM: Selection = own(
    "xfrm",
    Origin::Linux,
    "IPsec of the kernel: net/xfrm, ESP over IPv4 and IPv6 (without compression, interfaces of its own, TCP, and BPF)",
    &[
        "net/xfrm/",
        "net/ipv4/esp4.c",
        "net/ipv4/xfrm4_*.c",
        "net/ipv6/esp6.c",
        "net/ipv6/xfrm6_*.c",
        "include/net/xfrm.h",
        "include/net/esp.h",
        "include/uapi/linux/xfrm.h",
    ],
    &[
        "net/xfrm/espintcp.c",
        "net/xfrm/xfrm_interface*",
        "net/xfrm/xfrm_ipcomp.c",
        "net/xfrm/xfrm_compat.c",
        "net/xfrm/*_bpf.c",
        "*_tunnel.c",
    ],
);

const KERNEL_CRYPTO_API: &[&str] = &[
    "crypto/api.c",
    "crypto/algapi.c",
    "crypto/algboss.c",
    "crypto/aead.c",
    "crypto/ahash.c",
    "crypto/shash.c",
    "crypto/cipher.c",
    "crypto/skcipher.c",
    "crypto/geniv.c",
    "crypto/seqiv.c",
    "crypto/echainiv.c",
    "crypto/scatterwalk.c",
    "crypto/simd.c",
    "crypto/cryptd.c",
    "crypto/crypto_null.c",
    "crypto/internal.h",
    "include/crypto/algapi.h",
    "include/crypto/aead.h",
    "include/crypto/skcipher.h",
    "include/crypto/scatterwalk.h",
];

static KERNEL_API: Selection = cryptography(
    "kernel-api",
    Origin::Linux,
    "the kernel's crypto interface, by which ESP has its ciphers: crypto/",
    KERNEL_CRYPTO_API,
    &[],
);

static KERNEL_AES: Selection = cryptography(
    "kernel-aes",
    Origin::Linux,
    "AES-GCM: crypto/gcm.c, arch/x86/crypto/aesni*, lib/crypto/aes.c",
    &[
        "crypto/gcm.c",
        "lib/crypto/aes.c",
        "arch/x86/crypto/aesni-intel*",
        "arch/x86/crypto/aes_ctrby8*|arch/x86/crypto/aes-ctr*",
        "include/crypto/aes.h",
        "include/crypto/gcm.h",
    ],
    &[],
);

static KERNEL_CHACHA: Selection = cryptography(
    "kernel-chacha",
    Origin::Linux,
    "ChaCha20-Poly1305: crypto/chacha20poly1305.c, crypto/*_generic.c, lib/crypto, arch/x86/crypto",
    &[
        "crypto/chacha20poly1305.c",
        "crypto/chacha_generic.c",
        "crypto/poly1305_generic.c",
        "lib/crypto/chacha.c",
        "lib/crypto/libchacha.c",
        "lib/crypto/poly1305*.c",
        "arch/x86/crypto/chacha*",
        "arch/x86/crypto/poly1305*",
        "include/crypto/chacha.h",
        "include/crypto/poly1305.h",
        "include/crypto/internal/chacha.h",
        "include/crypto/internal/poly1305.h",
    ],
    &[],
);

static WIREGUARD_GO_OWN: Selection = own(
    "wireguard-go",
    WIREGUARD_GO,
    "all of it that is for Linux",
    &["main.go", "conn/", "device/", "ipc/", "ratelimiter/", "replay/", "rwcancel/", "tai64n/", "tun/"],
    &[
        "*_windows*",
        "*_darwin*",
        "*bsd*",
        "*_android*",
        "*_ios*",
        "*_plan9*",
        "*_wasm*",
        "tun/netstack/*",
        "conn/winrio/*",
        "ipc/namedpipe/*",
        "conn/bindtest/*",
        "conn/*_default.go",
        "device/sticky_default.go",
    ],
);

static GO_CIPHERS: Selection = cryptography(
    "go-crypto",
    GO_CRYPTO,
    "chacha20poly1305, chacha20, poly1305, blake2s and curve25519, whose arithmetic newer versions leave to the library of Go",
    &[
        "chacha20poly1305/",
        "chacha20/",
        "internal/poly1305/",
        "internal/alias/|internal/subtle/",
        "blake2s/",
        "curve25519/",
    ],
    &["blake2s/*_386.*"],
);

static BORINGTUN: Selection = own(
    "boringtun",
    BORINGTUN_CRATES,
    "the library that is for Linux, without bindings for other languages",
    &["boringtun/src/"],
    &["boringtun/src/ffi/*", "boringtun/src/jni.rs", "*/kqueue.rs", "*/tun_darwin.rs", "*/windows.rs"],
);

static BORINGTUN_CIPHERS: Selection =
    cryptography("boringtun-crates", BORINGTUN_CRATES, crates::WORDS, &[], crates::WITHOUT);

static GOTATUN: Selection = own(
    "gotatun",
    GOTATUN_CRATES,
    "the library that is for Linux, without cover traffic (DAITA) and captures",
    &["gotatun/src/"],
    &["gotatun/src/device/daita/*", "*/windows.rs", "gotatun/src/tun/pcap.rs", "*/mock.rs"],
);

static GOTATUN_CIPHERS: Selection = cryptography("gotatun-crates", GOTATUN_CRATES, crates::WORDS, &[], crates::WITHOUT);

static OPENVPN: Selection = own(
    "openvpn",
    OPENVPN_SOURCE,
    "src/openvpn that is for Linux with OpenSSL, server and client in one",
    &["src/openvpn/", "src/compat/", "include/"],
    &[
        "*win32*",
        "*_win.*",
        "*freebsd*",
        "*mbedtls*",
        "*/block_dns.*",
        "*/cryptoapi.*",
        "*/ring_buffer.h",
        "*/networking_iproute2.*",
        "*wfp*",
    ],
);

static OPENVPN_MODULE: Selection = own(
    "ovpn-dco",
    DCO_SOURCE,
    "the kernel's part: drivers/net/ovpn-dco",
    &["drivers/net/ovpn-dco/", "include/uapi/linux/ovpn_dco.h"],
    &[],
);

static STRONGSWAN: Selection = own(
    "strongswan",
    STRONGSWAN_SOURCE,
    "charon-systemd, libcharon and libstrongswan, IKEv1 among it, and the plugins kernel-netlink, socket-default and vici",
    &[
        "src/charon-systemd/",
        "src/libcharon/daemon.*",
        "src/libcharon/attributes/",
        "src/libcharon/bus/",
        "src/libcharon/config/",
        "src/libcharon/control/",
        "src/libcharon/encoding/",
        "src/libcharon/kernel/",
        "src/libcharon/network/",
        "src/libcharon/processing/",
        "src/libcharon/sa/",
        "src/libcharon/plugins/kernel_netlink/",
        "src/libcharon/plugins/socket_default/",
        "src/libcharon/plugins/vici/*.c",
        "src/libcharon/plugins/vici/*.h",
        "src/libstrongswan/",
    ],
    &[
        "src/libstrongswan/plugins/*/*",
        "src/libstrongswan/plugins/*/*/*",
        "src/libcharon/plugins/vici/libvici.*",
        "*/windows/*",
        "*windows*",
        "*_win.*",
        "*/backtrace_dbghelp*",
    ],
);

static STRONGSWAN_PLUGINS: Selection = own(
    "strongswan-plugins",
    STRONGSWAN_SOURCE,
    "the plugins random, nonce, openssl and kdf of libstrongswan",
    &[
        "src/libstrongswan/plugins/random/",
        "src/libstrongswan/plugins/nonce/",
        "src/libstrongswan/plugins/openssl/",
        "src/libstrongswan/plugins/kdf/",
    ],
    &[],
);

static LIBIPSEC: Selection = own(
    "libipsec",
    STRONGSWAN_SOURCE,
    "ESP outside the kernel: libipsec and the plugin kernel-libipsec",
    &["src/libipsec/", "src/libcharon/plugins/kernel_libipsec/"],
    &[],
);

static OPENSSL: Selection = cryptography(
    "openssl",
    OPENSSL_SOURCE,
    "AES, ChaCha20-Poly1305, SHA-2, HMAC, curves, big numbers and random numbers of libcrypto with the layer that calls them (crypto/evp, providers), without tables of constants",
    &[
        "crypto/aes/",
        "crypto/bn/",
        "crypto/chacha/",
        "crypto/ec/",
        "crypto/evp/",
        "crypto/hmac/",
        "crypto/modes/",
        "crypto/poly1305/",
        "crypto/rand/",
        "crypto/sha/",
        "providers/common/",
        "providers/implementations/ciphers/cipher_aes*",
        "providers/implementations/ciphers/cipher_chacha20*",
        "providers/implementations/ciphers/ciphercommon*",
        "providers/implementations/digests/digestcommon.c",
        "providers/implementations/digests/sha2_prov.c",
        "providers/implementations/exchange/ec*",
        "providers/implementations/kdfs/hkdf.c",
        "providers/implementations/kdfs/tls1_prf.c",
        "providers/implementations/keymgmt/ec*",
        "providers/implementations/macs/hmac_prov.c",
        "providers/implementations/rands/",
        "providers/implementations/signature/ecdsa_sig.c",
    ],
    &[
        "*_table.c",
        "*_tables.c",
        "obj_dat.h",
        "crypto/bn/bn_dh.c",
        "crypto/bn/bn_prime.h",
        "crypto/aes/aes_ige.c",
        "*cbc_hmac*",
        "*_siv*",
        "*_ocb*",
        "*ocb128*",
        "*siv128*",
        "*_xts*",
        "*xts128*",
        "*_wrp*",
        "*wrap128*",
        "*_ccm*",
        "*ccm128*",
        "*-mb-*",
        "aesni-sha*",
        "*rsaz*",
        "bsaes*",
        "*keccak*",
        "*sha1*",
        "*sha3*",
        "*sm2*",
        "*sm3*",
        "crypto/ec/curve448/*",
        "crypto/ec/curve448/*/*",
        "ecp_nistp*",
        "ec2_*",
        "bn_gf2m.c",
        "e_aria.c",
        "e_old.c",
        "e_bf.c",
        "e_camellia.c",
        "e_cast.c",
        "e_des*.c",
        "e_idea.c",
        "e_rc*.c",
        "e_seed.c",
        "e_sm4.c",
        "e_xcbc_d.c",
        "legacy_*",
        "m_md*.c",
        "m_ripemd.c",
        "m_wp.c",
        "providers/common/der/*",
    ],
);

static OPENSSL_TLS: Selection = cryptography(
    "openssl-tls",
    OPENSSL_SOURCE,
    "TLS (libssl), and certificates (crypto/asn1, crypto/x509 and what they are read by)",
    &["ssl/", "crypto/asn1/", "crypto/bio/", "crypto/encode_decode/", "crypto/objects/", "crypto/pem/", "crypto/x509/"],
    &["obj_dat.h"],
);

/// All of them.
pub static ALL: [&Selection; 20] = [
    &OUR_CRATES,
    &WIREGUARD,
    &WIREGUARD_CIPHERS,
    &XFRM,
    &KERNEL_API,
    &KERNEL_AES,
    &KERNEL_CHACHA,
    &WIREGUARD_GO_OWN,
    &GO_CIPHERS,
    &BORINGTUN,
    &BORINGTUN_CIPHERS,
    &GOTATUN,
    &GOTATUN_CIPHERS,
    &OPENVPN,
    &OPENVPN_MODULE,
    &STRONGSWAN,
    &STRONGSWAN_PLUGINS,
    &LIBIPSEC,
    &OPENSSL,
    &OPENSSL_TLS,
];

/// Parts of the system with this slug, besides what is ours.
pub fn of(slug: &str) -> Option<Vec<&'static Selection>> {
    let ours = slug == "wireloom" || slug.starts_with("wireloom-");
    let kernel = slug == "kernel" || slug.starts_with("kernel-");
    Some(match slug {
        _ if ours => vec![&OUR_CRATES],
        _ if kernel => vec![&WIREGUARD, &WIREGUARD_CIPHERS],
        "wireguard-go" => vec![&WIREGUARD_GO_OWN, &GO_CIPHERS],
        "boringtun" => vec![&BORINGTUN, &BORINGTUN_CIPHERS],
        "gotatun" => vec![&GOTATUN, &GOTATUN_CIPHERS],
        "openvpn-aes" | "openvpn-chacha" => vec![&OPENVPN, &OPENSSL, &OPENSSL_TLS],
        "openvpn-dco" => vec![&OPENVPN, &OPENVPN_MODULE, &OPENSSL, &OPENSSL_TLS, &KERNEL_API, &KERNEL_AES],
        "strongswan-aes" => vec![&STRONGSWAN, &STRONGSWAN_PLUGINS, &XFRM, &OPENSSL, &KERNEL_API, &KERNEL_AES],
        "strongswan-chacha" => vec![&STRONGSWAN, &STRONGSWAN_PLUGINS, &XFRM, &OPENSSL, &KERNEL_API, &KERNEL_CHACHA],
        "strongswan-libipsec-aes" | "strongswan-libipsec-chacha" => {
            vec![&STRONGSWAN, &STRONGSWAN_PLUGINS, &LIBIPSEC, &OPENSSL]
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject;

    #[test]
    fn every_system_has_its_parts() {
        for subject in subject::all() {
            match of(subject.slug()) {
                Some(parts) => assert!(parts.iter().any(|part| part.cryptography), "{}", subject.slug()),
                None => assert_eq!(subject.slug(), "none"),
            }
        }
    }
}
