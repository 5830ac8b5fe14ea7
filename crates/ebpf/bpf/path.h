/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The way to a peer, as the daemon last wrote it: read by a sequence lock.
 *
 * The daemon makes `path_seq` odd, writes, and makes it even again. Who reads copies, and takes the copy if the number was even and is the
 * same afterwards. Who does not get one in a few tries leaves the packet to the daemon.
 */
#ifndef WL_PATH_H
#define WL_PATH_H

#include "maps.h"

#define WL_PATH_TRIES 4

static __always_inline bool wl_copy_path(struct wl_work *w, struct wl_peer *peer)
{
	int i;

	for (i = 0; i < WL_PATH_TRIES; i++) {
		__u32 seq = READ_ONCE(peer->path_seq);

		if (seq & 1)
			continue;
		wl_fence(&w->fence);
		__builtin_memcpy(&w->path, &peer->path, sizeof(w->path));
		wl_fence(&w->fence);
		if (READ_ONCE(peer->path_seq) == seq)
			return w->path.family == 4 || w->path.family == 6;
	}
	return false;
}

static __always_inline bool wl_same_address(__u8 family, const struct wl_address *a, const struct wl_address *b)
{
	const __u32 *x = (const __u32 *)a, *y = (const __u32 *)b;

	if (family == 4)
		return x[0] == y[0];
	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]));
}

#endif
