/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Where a packet is worked on: one area per CPU.
 *
 * A program's stack holds 512 bytes over its whole call chain, so everything big lives here: the message, the key, and what the
 * cipher and the authenticator carry along. A program has the CPU's area to itself while it runs, since programs at TC and XDP run with
 * softirqs disabled - unless it sends a packet on in its midst (bpf_clone_redirect), which may run it again for another
 * tunnel: what it left here must be taken for lost then.
 *
 * `data` holds a transport message as it is on the wire: 16 bytes of header, which the cipher does not look at, then the
 * payload, then its tag. Behind that is room for what a last, whole block writes past the end.
 */
#ifndef WL_SCRATCH_H
#define WL_SCRATCH_H

#include "helpers.h"

/* Bytes of a transport message's header and of its tag. */
#define WL_HEADER_LEN 16
#define WL_TAG_LEN 16

/* Most bytes of a payload, padding included, and of the same with its tag. */
#define WL_PAYLOAD_MAX 2032
#define WL_SEALED_MAX (WL_PAYLOAD_MAX + WL_TAG_LEN)

/* Bytes of a block of ChaCha20, and of what is made at a time: two. */
#define WL_BLOCK 64
#define WL_STRIDE 128

/* Overwrites memory of ours with zeros: that is what the kernel leaves of a read that it refuses, as the verifier relies upon. */
static __always_inline void wl_zero(void *at, __u32 len)
{
	bpf_probe_read_kernel(at, len, NULL);
}

/* Bytes at the head of the scratch area that are secret, or would tell a secret: wiped after each message. */
#define WL_SECRET_LEN (32 + 8 + WL_STRIDE + WL_TAG_LEN)

/* The last pair of blocks that a message can need, and the most steps of the authenticator. */
#define WL_PAIR_LAST (WL_PAYLOAD_MAX / WL_STRIDE + 1)
#define WL_STEPS_MAX (WL_PAYLOAD_MAX / 16)

struct wl_scratch {
	/* The session's key. Set by the caller for each message; wiped by wl_seal and wl_open. */
	__u32 key[8];
	/* The message's counter, its lower half first: the nonce is four zero bytes, then this. Set by the caller. */
	union {
		__u64 nonce;
		__u32 counter[2];
	};
	/* The key stream's first two blocks: the authenticator's key, and what the payload's begin is sealed with. Wiped. */
	__u32 first[32];
	/* What the authenticator came to. Wiped. */
	__u64 tag[2];
	/* The message: at WL_HEADER_LEN its payload. */
	__u8 data[WL_HEADER_LEN + WL_SEALED_MAX + WL_STRIDE] __attribute__((aligned(16)));
};

_Static_assert(WL_HEADER_LEN + WL_STRIDE * WL_PAIR_LAST + WL_BLOCK <= sizeof(((struct wl_scratch *)0)->data),
	       "the last block has room");
_Static_assert(__builtin_offsetof(struct wl_scratch, data) >= WL_SECRET_LEN, "the message is not wiped");
_Static_assert(sizeof(struct wl_scratch) % 8 == 0, "values of per-CPU maps are a multiple of 8 bytes");

#endif
