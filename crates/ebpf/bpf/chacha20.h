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

/*
 * A quarter round, in assembler since the compiler moves the quarters into each other and then has far too few registers. A
 * word's place is its offset in bytes. r0 is 2^32 + 1.
 */
#define WL_TURN(word, n) "r" #word " *= r0; r" #word " >>= 32 - " #n "; "
#define WL_QUARTER(a, b, c, d)                                                                                                 \
	"w1 = *(u32 *)(%[state] + " #a "); w2 = *(u32 *)(%[state] + " #b "); "                                                 \
	"w3 = *(u32 *)(%[state] + " #c "); w4 = *(u32 *)(%[state] + " #d "); "                                                 \
	"w1 += w2; w4 ^= w1; " WL_TURN(4, 16)                                                                                  \
	"w3 += w4; w2 ^= w3; " WL_TURN(2, 12)                                                                                  \
	"w1 += w2; w4 ^= w1; " WL_TURN(4, 8)                                                                                   \
	"w3 += w4; w2 ^= w3; " WL_TURN(2, 7)                                                                                   \
	"*(u32 *)(%[state] + " #a ") = w1; *(u32 *)(%[state] + " #b ") = w2; "                                                 \
	"*(u32 *)(%[state] + " #c ") = w3; *(u32 *)(%[state] + " #d ") = w4; "

/* A double round (RFC 8439, section 2.3.1): columns of the one block and, 64 bytes further, of the other, then diagonals. */
#define WL_DOUBLE_ROUND                                                                                                        \
	WL_QUARTER(0, 16, 32, 48) WL_QUARTER(4, 20, 36, 52)                                                                    \
	WL_QUARTER(8, 24, 40, 56) WL_QUARTER(12, 28, 44, 60)                                                                   \
	WL_QUARTER(64, 80, 96, 112) WL_QUARTER(68, 84, 100, 116)                                                               \
	WL_QUARTER(72, 88, 104, 120) WL_QUARTER(76, 92, 108, 124)                                                              \
	WL_QUARTER(0, 20, 40, 60) WL_QUARTER(4, 24, 44, 48)                                                                    \
	WL_QUARTER(8, 28, 32, 52) WL_QUARTER(12, 16, 36, 56)                                                                   \
	WL_QUARTER(64, 84, 104, 124) WL_QUARTER(68, 88, 108, 112)                                                              \
	WL_QUARTER(72, 92, 96, 116) WL_QUARTER(76, 80, 100, 120)

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
	__u32 state[32], *x = state, *y = state + 16;
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
	for (i = 0; i < 10; i++)
		asm volatile("r0 = %[twice]; " WL_DOUBLE_ROUND
			     :
			     : [state] "r"(state), [twice] "r"(twice)
			     : "r0", "r1", "r2", "r3", "r4", "memory");

	to = pair ? (__u32 *)(scratch->data + WL_HEADER_LEN + WL_STRIDE * pair - WL_BLOCK) : scratch->first;
	WL_MERGE(to, x, 2 * pair);
	WL_MERGE((to + 16), y, 2 * pair + 1);
	return 0;
}

#endif
