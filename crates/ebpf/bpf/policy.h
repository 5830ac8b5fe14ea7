/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Where rules may decide about a packet: on its way out before it is sealed, on its way in once it has authenticated.
 */
#ifndef WL_POLICY_H
#define WL_POLICY_H

#include "inner.h"

enum wl_verdict { WL_PASS, WL_DROP };
enum wl_direction { WL_OUT, WL_IN };

/* Whether the rules can be held against the packet here; if not it is the daemon's. */
static __always_inline bool wl_policy_sees(const struct wl_inner *inner)
{
	(void)inner;
	return true;
}

/*
 * The inner packet, parsed, of which at least the first 40 bytes and, where it has one, the transport header's first 20 lie at `packet`. A
 * super-packet is asked about once; it falls into `packets` segments, of `inner.len` bytes altogether.
 */
static __always_inline enum wl_verdict wl_policy(struct wl_work *w, const struct wl_device *dev, const __u8 *packet, __u32 packets,
						 enum wl_direction direction)
{
	(void)w, (void)dev, (void)packet, (void)packets, (void)direction;
	return WL_PASS;
}

#endif
