/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Poly1305 (RFC 8439, section 2.5) in limbs of 32 bits, each in a register of 64.
 *
 * h = (h + m) * r mod 2^130 - 5, sixteen bytes m at a time. r is clamped: its limbs are below 2^28 and those above the lowest
 * are multiples of 4, so that what a product has above bit 130 comes back as s = 5r/4 times the limb, and 20 multiplications are
 * enough. BPF has no product of 128 bits; these all fit in 64, also with limbs of h that are not reduced:
 *
 * A step takes the lower half of each sum d as the new limb and adds the upper half of the sum below, once and not in a
 * ripple. Then h1..h3 < H + 2^32, m added, gives d < (H + 2^32) * 2^28 * (1 + 3 * 5/4) + a little, of which the upper half is
 * below 0.297 (H + 2^32), so H < 2^32 + 0.297 (H + 2^32): H + 2^32 stays below 2^33.52 and d below 2^63.8. h0 has 5 times what
 * is above bit 130 instead, less than 2^32.2, and is never multiplied by an s.
 *
 * Nothing here branches on or looks up by a secret.
 */
#ifndef WL_POLY1305_H
#define WL_POLY1305_H

#include "scratch.h"

#define WL_STEP(m0, m1, m2, m3)                                                                                                \
	do {                                                                                                                   \
		__u64 d0, d1, d2, d3, d4;                                                                                      \
		h0 += m0, h1 += m1, h2 += m2, h3 += m3, h4 += 1;                                                               \
		d0 = h0 * r[0] + h1 * s[3] + h2 * s[2] + h3 * s[1];                                                            \
		d1 = h0 * r[1] + h1 * r[0] + h2 * s[3] + h3 * s[2] + h4 * s[1];                                                \
		d2 = h0 * r[2] + h1 * r[1] + h2 * r[0] + h3 * s[3] + h4 * s[2];                                                \
		d3 = h0 * r[3] + h1 * r[2] + h2 * r[1] + h3 * r[0] + h4 * s[3];                                                \
		d4 = h4 * r[0] + (d3 >> 32);                                                                                   \
		h4 = d4 & 3;                                                                                                   \
		d4 >>= 2;                                                                                                      \
		h0 = (__u32)d0 + d4 + (d4 << 2);                                                                               \
		h1 = (__u32)d1 + (d0 >> 32);                                                                                   \
		h2 = (__u32)d2 + (d1 >> 32);                                                                                   \
		h3 = (__u32)d3 + (d2 >> 32);                                                                                   \
	} while (0)

/*
 * The tag of the `len` bytes of payload in the scratch area, into scratch->tag, with the key in scratch->first. The bytes
 * behind them up to the next multiple of 16 must be zero.
 */
__noinline int wl_authenticate(struct wl_scratch *scratch, __u32 len)
{
	__u64 h0 = 0, h1 = 0, h2 = 0, h3 = 0, h4 = 0;
	__u64 g0, g1, g2, g3, g4, take;
	__u32 i, steps;
	__u64 *r, *s;

	if (!scratch || len > WL_PAYLOAD_MAX)
		return -1;
	r = scratch->r;
	s = scratch->s;
	r[0] = scratch->first[0] & 0x0fffffff;
	r[1] = scratch->first[1] & 0x0ffffffc;
	r[2] = scratch->first[2] & 0x0ffffffc;
	r[3] = scratch->first[3] & 0x0ffffffc;
	s[1] = r[1] + (r[1] >> 2);
	s[2] = r[2] + (r[2] >> 2);
	s[3] = r[3] + (r[3] >> 2);

	steps = (len + 15) / 16;
	wl_hide(steps);
	for (i = 0; i < WL_STEPS_MAX; i++) {
		const __u32 *m = (const __u32 *)(scratch->data + WL_HEADER_LEN + 16 * i);

		if (i >= steps)
			break;
		WL_STEP(m[0], m[1], m[2], m[3]);
	}
	/* The lengths: none of additional data, then the payload's. */
	WL_STEP(0, 0, len, 0);

	/* All limbs to 32 bits, the highest to 2. */
	h1 += h0 >> 32, h0 = (__u32)h0;
	h2 += h1 >> 32, h1 = (__u32)h1;
	h3 += h2 >> 32, h2 = (__u32)h2;
	h4 += h3 >> 32, h3 = (__u32)h3;
	h0 += (h4 >> 2) * 5, h4 &= 3;
	h1 += h0 >> 32, h0 = (__u32)h0;
	h2 += h1 >> 32, h1 = (__u32)h1;
	h3 += h2 >> 32, h2 = (__u32)h2;
	h4 += h3 >> 32, h3 = (__u32)h3;

	/* h - p = h + 5 - 2^130, and that one if it is not negative. */
	g0 = h0 + 5;
	g1 = h1 + (g0 >> 32);
	g2 = h2 + (g1 >> 32);
	g3 = h3 + (g2 >> 32);
	g4 = h4 + (g3 >> 32);
	take = -(g4 >> 2);
	wl_hide(take);
	h0 ^= (h0 ^ g0) & take;
	h1 ^= (h1 ^ g1) & take;
	h2 ^= (h2 ^ g2) & take;
	h3 ^= (h3 ^ g3) & take;

	/* Plus the key's second half, mod 2^128. */
	h0 = (__u64)(__u32)h0 + scratch->first[4];
	h1 = (__u64)(__u32)h1 + scratch->first[5] + (h0 >> 32);
	h2 = (__u64)(__u32)h2 + scratch->first[6] + (h1 >> 32);
	h3 = (__u64)(__u32)h3 + scratch->first[7] + (h2 >> 32);
	scratch->tag[0] = (__u32)h0 | h1 << 32;
	scratch->tag[1] = (__u32)h2 | h3 << 32;
	return 0;
}

#endif
