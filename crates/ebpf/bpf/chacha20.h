/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * ChaCha20 (RFC 8439, section 2.3), two blocks at a time.
 *
 * BPF has no vectors, no rotation and ten registers, so a block is a matter of counting instructions. A rotation by n is one
 * multiplication by 2^32 + 1, which writes the word twice, and one shift to the right by 32 - n: two instructions where shifts
 * take four, but one after the other. Two blocks side by side, which have nothing to do with each other, fill what would be
 * waiting. What a rotation leaves above bit 31 is lost with the next operation, since all others are of 32 bits.
 *
 * Nothing here branches on or looks up by a secret.
 */
#ifndef WL_CHACHA20_H
#define WL_CHACHA20_H

#include "scratch.h"

#define WL_ROTATE(x, n) ((__u32)(((__u64)(x) * twice) >> (32 - (n))))

#define WL_QUARTER(a, b, c, d)                                                                                                 \
	do {                                                                                                                   \
		a += b;                                                                                                        \
		d = WL_ROTATE(d ^ a, 16);                                                                                      \
		c += d;                                                                                                        \
		b = WL_ROTATE(b ^ c, 12);                                                                                      \
		a += b;                                                                                                        \
		d = WL_ROTATE(d ^ a, 8);                                                                                       \
		c += d;                                                                                                        \
		b = WL_ROTATE(b ^ c, 7);                                                                                       \
	} while (0)

#define WL_ROUND(x, a, b, c, d)                                                                                                \
	do {                                                                                                                   \
		__u32 p = x[a], q = x[b], r = x[c], s = x[d];                                                                  \
		WL_QUARTER(p, q, r, s);                                                                                        \
		x[a] = p, x[b] = q, x[c] = r, x[d] = s;                                                                        \
	} while (0)

/* A column round, then a diagonal round, of one block. */
#define WL_COLUMNS(x)                                                                                                          \
	do {                                                                                                                   \
		WL_ROUND(x, 0, 4, 8, 12);                                                                                      \
		WL_ROUND(x, 1, 5, 9, 13);                                                                                      \
		WL_ROUND(x, 2, 6, 10, 14);                                                                                     \
		WL_ROUND(x, 3, 7, 11, 15);                                                                                     \
	} while (0)
#define WL_DIAGONALS(x)                                                                                                        \
	do {                                                                                                                   \
		WL_ROUND(x, 0, 5, 10, 15);                                                                                     \
		WL_ROUND(x, 1, 6, 11, 12);                                                                                     \
		WL_ROUND(x, 2, 7, 8, 13);                                                                                      \
		WL_ROUND(x, 3, 4, 9, 14);                                                                                      \
	} while (0)

/* Adds to each word what it was before the rounds, and the sum (exclusively) to the message. */
#define WL_MERGE(to, x, block)                                                                                                 \
	do {                                                                                                                   \
		to[0] ^= x[0] + 0x61707865, to[1] ^= x[1] + 0x3320646e;                                                        \
		to[2] ^= x[2] + 0x79622d32, to[3] ^= x[3] + 0x6b206574;                                                        \
		to[4] ^= x[4] + scratch->key[0], to[5] ^= x[5] + scratch->key[1];                                              \
		to[6] ^= x[6] + scratch->key[2], to[7] ^= x[7] + scratch->key[3];                                              \
		to[8] ^= x[8] + scratch->key[4], to[9] ^= x[9] + scratch->key[5];                                              \
		to[10] ^= x[10] + scratch->key[6], to[11] ^= x[11] + scratch->key[7];                                          \
		to[12] ^= x[12] + (block), to[13] ^= x[13];                                                                    \
		to[14] ^= x[14] + scratch->counter[0], to[15] ^= x[15] + scratch->counter[1];                                  \
	} while (0)

/*
 * Adds (exclusive or) two blocks of the key stream, 2 * `pair` and the next, to what they belong to. The first pair goes into
 * scratch->first: its block 0 is the authenticator's. Of the others each block goes to the payload, whole, also where that
 * ends inside it; block 1 is the payload's first.
 */
__noinline int wl_stream(struct wl_scratch *scratch, __u32 pair)
{
	__u64 twice = 0x100000001;
	__u32 *to;
	__u32 x[16], y[16];
	__u32 i;

	if (!scratch || pair > WL_PAIR_LAST)
		return -1;
	wl_hide(twice);

	x[0] = y[0] = 0x61707865;
	x[1] = y[1] = 0x3320646e;
	x[2] = y[2] = 0x79622d32;
	x[3] = y[3] = 0x6b206574;
#pragma unroll
	for (i = 0; i < 8; i++)
		x[4 + i] = y[4 + i] = scratch->key[i];
	x[12] = 2 * pair;
	y[12] = 2 * pair + 1;
	x[13] = y[13] = 0;
	x[14] = y[14] = scratch->counter[0];
	x[15] = y[15] = scratch->counter[1];

#pragma clang loop unroll(disable)
	for (i = 0; i < 10; i++) {
		WL_COLUMNS(x);
		WL_COLUMNS(y);
		WL_DIAGONALS(x);
		WL_DIAGONALS(y);
	}

	to = pair ? (__u32 *)(scratch->data + WL_HEADER_LEN + WL_STRIDE * pair - WL_BLOCK) : scratch->first;
	WL_MERGE(to, x, 2 * pair);
	WL_MERGE((to + 16), y, 2 * pair + 1);
	return 0;
}

#endif
