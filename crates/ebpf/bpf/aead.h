/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * ChaCha20-Poly1305 (RFC 8439, section 2.8) over the message in a CPU's scratch area, without additional data: what seals and
 * opens WireGuard's transport messages.
 *
 * Both are global functions: the verifier looks at them once and by themselves, whoever calls them and how often.
 * Their callers need no more than a `struct wl_scratch` that is not NULL.
 */
#ifndef WL_AEAD_H
#define WL_AEAD_H

#include "chacha20.h"
#include "poly1305.h"
#include "scratch.h"

/* The key stream's first two blocks, into scratch->first: one for the authenticator, one for the payload's begin. */
static __always_inline void wl_begin(struct wl_scratch *scratch)
{
	__u64 *first = (__u64 *)scratch->first;

#pragma unroll
	for (__u32 i = 0; i < WL_STRIDE / 8; i++)
		first[i] = 0;
	wl_stream(scratch, 0);
}

/* Adds the key stream to the payload of `len` bytes, to more of it in fact: its blocks whole, in pairs. */
static __always_inline void wl_apply(struct wl_scratch *scratch, __u32 len)
{
	__u32 *payload = (__u32 *)(scratch->data + WL_HEADER_LEN);

#pragma unroll
	for (__u32 i = 0; i < WL_BLOCK / 4; i++)
		payload[i] ^= scratch->first[WL_BLOCK / 4 + i];
	for (__u32 pair = 1; pair <= WL_PAIR_LAST; pair++) {
		if (WL_STRIDE * pair >= len + WL_BLOCK)
			break;
		wl_stream(scratch, pair);
	}
}

/* Where the payload of `len` bytes ends and its tag begins. */
static __always_inline __u64 *wl_end(struct wl_scratch *scratch, __u32 len)
{
	wl_hide(len);
	return (__u64 *)(scratch->data + WL_HEADER_LEN + (len & 2047));
}

/* Leaves no key behind. */
static __always_inline void wl_wipe(struct wl_scratch *scratch)
{
	__u64 *secret = (__u64 *)scratch;

#pragma unroll
	for (__u32 i = 0; i < WL_SECRET_LEN / 8; i++)
		secret[i] = 0;
}

/*
 * Seals the `len` bytes of payload (0 to WL_PAYLOAD_MAX, padding included) that lie at data + WL_HEADER_LEN, in place, and puts
 * the tag behind them. Key and counter are the scratch area's; the key is wiped. Returns 0, or -1 if there is no area or len is
 * too great, and then nothing is done.
 */
__noinline int wl_seal(struct wl_scratch *scratch, __u32 len)
{
	__u64 *end;

	if (!scratch || len > WL_PAYLOAD_MAX)
		return -1;
	wl_begin(scratch);
	wl_apply(scratch, len);
	end = wl_end(scratch, len);
	end[0] = end[1] = 0;
	wl_authenticate(scratch, len);
	end[0] = scratch->tag[0];
	end[1] = scratch->tag[1];
	wl_wipe(scratch);
	return 0;
}

/*
 * Opens the `len` bytes of payload and tag (WL_TAG_LEN to WL_SEALED_MAX) that lie at data + WL_HEADER_LEN, in place: afterwards
 * the first len - WL_TAG_LEN of them are the plaintext, and what was the tag is undefined. Returns 0 if they are authentic.
 * Otherwise -1, and data is as it was: nothing is decrypted before the tag is known to be right. The key is wiped either way,
 * unless there is no area or len is out of range.
 */
__noinline int wl_open(struct wl_scratch *scratch, __u32 len)
{
	__u64 *end, tag0, tag1, difference;

	if (!scratch || len < WL_TAG_LEN || len > WL_SEALED_MAX)
		return -1;
	len -= WL_TAG_LEN;
	wl_begin(scratch);
	end = wl_end(scratch, len);
	tag0 = end[0];
	tag1 = end[1];
	end[0] = end[1] = 0;
	wl_authenticate(scratch, len);
	difference = (tag0 ^ scratch->tag[0]) | (tag1 ^ scratch->tag[1]);
	wl_hide(difference);
	if (difference) {
		end[0] = tag0;
		end[1] = tag1;
		wl_wipe(scratch);
		return -1;
	}
	wl_apply(scratch, len);
	wl_wipe(scratch);
	return 0;
}

#endif
