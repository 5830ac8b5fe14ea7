/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Poly1305 (RFC 8439, section 2.5) in limbs of 32 bits, each in a register of 64.
 *
 * h = (h + m) * r mod 2^130 - 5, sixteen bytes m at a time. r is clamped: its limbs are below 2^28 and the upper three are
 * multiples of 4, so what a product has above bit 130 comes back as s = 5r/4 times the limb. BPF has no product of 128 bits; all
 * of these fit in 64, also with limbs of h that are not reduced, and the uppermost has the bits 128 and 129 too, so that there
 * are four by four products and no more. In units of 2^32 for h, m added, and of 2^60 for the sums d:
 *
 *   h0 < 2, h1 < 2, h2 < 3 (what is carried into it stays there), h3 < 6 (34 bits, m, and the bit above m)
 *   d0 = h0 r0 + h1 s3 + h2 s2 + h3 s1 < 2 + 2 5/4 + 3 5/4 + 6 5/4 = 15.75
 *   d1 = h0 r1 + h1 r0 + h2 s3 + h3 s2 < 2 + 2     + 3 5/4 + 6 5/4 = 15.25
 *   d2 = h0 r2 + h1 r1 + h2 r0 + h3 s3 < 2 + 2     + 3     + 6 5/4 = 14.5
 *   d3 = h0 r3 + h1 r2 + h2 r1 + h3 r0 < 2 + 2     + 3     + 6     = 13
 *
 * which with their carries, of 33 bits at most, stay below 16, that is 2^64.
 *
 * Nothing here branches on or looks up by a secret.
 */
#ifndef WL_POLY1305_H
#define WL_POLY1305_H

#include "scratch.h"

/* The lower half, by one instruction and not by the two shifts that the compiler would take. */
static __always_inline __u64 wl_low(__u64 x)
{
	__u32 low;

	asm("%[low] = %[x]" : [low] "=w"(low) : [x] "w"((__u32)x));
	return low;
}

/* d = h0 a + h1 b + h2 c + h3 e, the four factors being on the stack. */
#define WL_SUM(d, a, b, c, e)                                                                                                  \
	"%[" #d "] = *(u64 *)%[" #a "]; %[" #d "] *= %[h0]; "                                                                  \
	"%[t] = *(u64 *)%[" #b "]; %[t] *= %[h1]; %[" #d "] += %[t]; "                                                         \
	"%[t] = *(u64 *)%[" #c "]; %[t] *= %[h2]; %[" #d "] += %[t]; "                                                         \
	"%[t] = *(u64 *)%[" #e "]; %[t] *= %[h3]; %[" #d "] += %[t]; "

/* A step, m already added. In assembler since the compiler mixes the sums and then has too few registers for them. */
#define WL_STEP                                                                                                                \
	do {                                                                                                                   \
		__u64 d0, d1, d2, d3, t;                                                                                       \
		asm volatile(WL_SUM(d2, r2, r1, r0, s3) WL_SUM(d3, r3, r2, r1, r0)                                             \
			     WL_SUM(d0, r0, s3, s2, s1) WL_SUM(d1, r1, r0, s3, s2)                                             \
			     : [d0] "=&r"(d0), [d1] "=&r"(d1), [d2] "=&r"(d2), [d3] "=&r"(d3), [t] "=&r"(t)                    \
			     : [h0] "r"(h0), [h1] "r"(h1), [h2] "r"(h2), [h3] "r"(h3), [r0] "m"(r[0]), [r1] "m"(r[1]),         \
			       [r2] "m"(r[2]), [r3] "m"(r[3]), [s1] "m"(s[1]), [s2] "m"(s[2]), [s3] "m"(s[3]));                \
		d3 += d2 >> 32;                                                                                                \
		t = d3 >> 34;                                                                                                  \
		h3 = d3 << 30 >> 30;                                                                                           \
		d0 += t;                                                                                                       \
		d0 += t << 2;                                                                                                  \
		d1 += d0 >> 32;                                                                                                \
		h0 = wl_low(d0);                                                                                               \
		h1 = wl_low(d1);                                                                                               \
		h2 = wl_low(d2) + (d1 >> 32);                                                                                  \
	} while (0)

/*
 * The tag of the `len` bytes of payload in the scratch area, into scratch->tag, with the key in scratch->first. The bytes
 * behind them up to the next multiple of 16 must be zero.
 */
__noinline int wl_authenticate(struct wl_scratch *scratch, __u32 len)
{
	__u64 h0 = 0, h1 = 0, h2 = 0, h3 = 0;
	__u64 g0, g1, g2, g3, take, above = 1ULL << 32;
	__u64 r[4], s[4];
	__u32 i, steps;

	if (!scratch || len > WL_PAYLOAD_MAX)
		return -1;
	r[0] = scratch->first[0] & 0x0fffffff;
	r[1] = scratch->first[1] & 0x0ffffffc;
	r[2] = scratch->first[2] & 0x0ffffffc;
	r[3] = scratch->first[3] & 0x0ffffffc;
	s[1] = r[1] + (r[1] >> 2);
	s[2] = r[2] + (r[2] >> 2);
	s[3] = r[3] + (r[3] >> 2);
	wl_hide(above);

	steps = (len + 15) / 16;
	wl_hide(steps);
	for (i = 0; i < WL_STEPS_MAX; i++) {
		const __u32 *m = (const __u32 *)(scratch->data + WL_HEADER_LEN + 16 * i);

		if (i >= steps)
			break;
		h0 += m[0];
		h1 += m[1];
		h2 += m[2];
		h3 += m[3] + above;
		WL_STEP;
	}
	/* The lengths: none of additional data, then the payload's. */
	h2 += len;
	h3 += above;
	WL_STEP;

	/* All limbs to 32 bits, the highest to 34. */
	h3 += h2 >> 32, h2 = wl_low(h2);
	h0 += (h3 >> 34) * 5, h3 = h3 << 30 >> 30;
	h1 += h0 >> 32, h0 = wl_low(h0);
	h2 += h1 >> 32, h1 = wl_low(h1);
	h3 += h2 >> 32, h2 = wl_low(h2);

	/* h - p = h + 5 - 2^130, and that one if it is not negative. */
	g0 = h0 + 5;
	g1 = h1 + (g0 >> 32);
	g2 = h2 + (g1 >> 32);
	g3 = h3 + (g2 >> 32);
	take = -(g3 >> 34);
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
