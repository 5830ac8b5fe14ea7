/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What became of packets: taken, left to the daemon, or dropped, and why. Each packet that a program looks at for longer than
 * it takes to see that it is none of ours is counted once (a super-packet by its segments when it is taken, once otherwise).
 *
 * The order is the daemon's as well (crates/ebpf/src/counts.rs); new ones go before WL_COUNTS.
 */
#ifndef WL_COUNTS_H
#define WL_COUNTS_H

#include "helpers.h"

enum wl_count {
	/* Taken. */
	WL_SEALED,	    /* sealed and sent */
	WL_SEALED_SUPER,    /* super-packets that were cut for that; their segments are in WL_SEALED */
	WL_OPENED,	    /* opened and handed to the interface */
	WL_KEEPALIVE,	    /* opened, and empty */
	/* Left to the daemon on their way out. */
	WL_LEFT_BUSY,	    /* another program is at work on this CPU; either way */
	WL_LEFT_INNER,	    /* not an IP packet, or of odd lengths */
	WL_LEFT_ROUTE,	    /* no peer for the destination, or one that the programs do not serve */
	WL_LEFT_PATH,	    /* no way to the peer is known, or it leads into the tunnel */
	WL_LEFT_SESSION,    /* no session that may be sent with */
	WL_LEFT_SIZE,	    /* too large for the path or for us */
	WL_LEFT_SUPER,	    /* a super-packet that cannot be cut here */
	WL_LEFT_CHECKSUM,   /* a checksum that cannot be finished here */
	WL_LEFT_POLICY,	    /* the rules cannot be held against it here; either way */
	/* Left to the daemon on their way in. */
	WL_LEFT_HANDSHAKE,  /* to our port, and no data */
	WL_LEFT_MALFORMED,  /* to our port, and no message or of odd lengths */
	WL_LEFT_INDEX,	    /* of no session that we know */
	WL_LEFT_EXPIRED,    /* of a session that may not be received with any more */
	WL_LEFT_ROAMED,	    /* not from where the peer is known to be */
	WL_LEFT_COALESCED,  /* several datagrams in one */
	WL_LEFT_OPENED,	    /* authentic, but not to be handed on from here; the daemon opens it again */
	/* Dropped. */
	WL_DROP_POLICY,
	WL_DROP_FORGED,	    /* not authentic */
	WL_DROP_REPLAYED,   /* seen before, or too old to tell */
	WL_DROP_SOURCE,	    /* the inner source is not the peer's */
	WL_DROP_CONTENT,    /* authentic, but no IP packet */
	WL_DROP_MEMORY,	    /* the kernel refused what must not fail half-way */
	WL_COUNTS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WL_COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

static __always_inline void wl_count_many(__u32 what, __u64 n)
{
	__u64 *count = bpf_map_lookup_elem(&counts, &what);

	if (count)
		*count += n;
}

static __always_inline void wl_count(__u32 what)
{
	wl_count_many(what, 1);
}

#endif
