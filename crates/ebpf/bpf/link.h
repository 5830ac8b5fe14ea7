/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Link addresses: whether a frame is for this host at all, before the kernel has said so.
 *
 * Nearly always it is for the address that the path's packets leave with. What comes by another interface than they leave by, or while that address
 * is not known, is for that interface's own, which takes longer to read.
 */
#ifndef WL_LINK_H
#define WL_LINK_H

#include "skb.h"

static __always_inline bool wl_same_link(const void *a, const void *b)
{
	const __u16 *x = a, *y = b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]));
}

/* The frame's header is in w->outer, and the peer's path has been copied. */
static __always_inline bool wl_is_for_us(struct xdp_md *ctx, const struct wl_work *w)
{
	struct xdp_buff *xdp = (struct xdp_buff *)ctx;
	const unsigned char *address = NULL;
	struct xdp_rxq_info *queue = NULL;
	struct net_device *device = NULL;
	__u16 own[4] = {};

	if (w->path.has_mac && wl_same_link(w->outer.eth.h_dest, w->path.h_source))
		return true;
	wl_read(queue, xdp->rxq);
	wl_read(device, queue->dev);
	wl_read(address, device->dev_addr);
	return !bpf_probe_read_kernel(own, 6, address) && wl_same_link(w->outer.eth.h_dest, own);
}

#endif
