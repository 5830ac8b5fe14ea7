/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The Internet checksum (RFC 1071).
 *
 * Sums are of 16-bit words as they lie in memory: the byte order of the machine does not matter as long as the result is
 * written as it is. Long ones are the kernel's work (bpf_csum_diff, at most 512 bytes at a time and a multiple of four).
 */
#ifndef WL_CHECKSUM_H
#define WL_CHECKSUM_H

#include "helpers.h"
#include "scratch.h"
#include "work.h"

/* Bytes that the kernel sums up at a time, bytes in the scratch area up to which anything can be, and where a sum may begin. */
#define WL_SUM_STEP 512
#define WL_SUM_MAX 2048
#define WL_SUM_AT (WL_HEADER_LEN + WL_TRANSPORT_MAX)

_Static_assert(WL_SUM_AT + WL_SUM_MAX - WL_SUM_STEP <= sizeof(((struct wl_scratch *)0)->data) - WL_SUM_STEP,
	       "the last step lies in the area");

/* A sum of 32-bit words, or of sums, as one checksum field has it. */
static __always_inline __u16 wl_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The same for UDP, where zero says that there is none. (For TCP and ICMP the two zeros are one.) */
static __always_inline __u16 wl_fold_udp(__u64 sum)
{
	__u16 folded = wl_fold(sum);

	return folded ? folded : 0xffff;
}

/* A checksum after one of the 16-bit words that it covers has changed (RFC 1624). */
static __always_inline __u16 wl_fold_change(__u16 check, __u16 from, __u16 to)
{
	return wl_fold((__u64)(__u16)~check + (__u16)~from + to);
}

/*
 * The sum of the `len` bytes at `at` (even) in the scratch area's data. Of what follows them, up to three bytes are made zero. Returns 0
 * where that is more than it can sum up: WL_SUM_MAX bytes in all.
 */
__noinline __u32 wl_sum(struct wl_scratch *scratch, __u32 at, __u32 len)
{
	__u32 i, end, sum = 0;

	if (!scratch || at > WL_SUM_AT || len > WL_SUM_MAX - at)
		return 0;
	end = at + len;
	wl_hide(end);
	if (end > WL_SUM_MAX)
		return 0;
	scratch->data[end] = scratch->data[end + 1] = scratch->data[end + 2] = 0;
	len = (len + 3) & ~3u;
	for (i = 0; i < WL_SUM_MAX / WL_SUM_STEP; i++) {
		__u32 part = len - i * WL_SUM_STEP, from = at + i * WL_SUM_STEP;

		if (i * WL_SUM_STEP >= len)
			break;
		if (part > WL_SUM_STEP)
			part = WL_SUM_STEP;
		/* The same again, for the verifier, which has lost sight of it on older kernels. */
		wl_hide(part);
		wl_hide(from);
		part &= 2 * WL_SUM_STEP - 4;
		if (part > WL_SUM_STEP || from > sizeof(scratch->data) - WL_SUM_STEP)
			break;
		sum = bpf_csum_diff(NULL, 0, (__be32 *)(scratch->data + from), part, sum);
	}
	return sum;
}

#endif
