/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What is known of the packet in work, beside its bytes (scratch.h): one area per CPU, as a program's stack is small.
 *
 * `busy` says that a program of this CPU is at work with both areas: one that is called meanwhile (a super-packet's segment
 * that is sent on into another tunnel of the same device, or a kernel that preempts softirqs) leaves its packet to the daemon.
 */
#ifndef WL_WORK_H
#define WL_WORK_H

#include "kernel.h"
#include "layout.h"

/* Where the inner packet's transport header may begin: behind this many bytes at most. */
#define WL_TRANSPORT_MAX 128

/* The inner packet, as far as its headers tell. */
struct wl_inner {
	struct wl_address source, destination;
	__u32 len;	/* bytes by the IP header */
	__u8 family;	/* 4, 6; 0: it is no IP packet, or cut short */
	__u8 ecn;	/* two bits */
	__u8 protocol;	/* of the transport; of IPv6 the first header after the fixed one */
	__u8 fragment;	/* it is one, or may be (IPv6 extension headers are not followed) */
	__u32 transport; /* where the transport header begins */
};

/* The outer headers, so placed that the IP header is aligned. */
struct wl_outer {
	__u8 pad[2];
	struct ethhdr eth;
	union {
		struct {
			struct iphdr ip;
			struct udphdr udp;
		} v4;
		struct {
			struct ipv6hdr ip;
			struct udphdr udp;
		} v6;
		__u32 words[12];
	};
};

/* What the outer headers of a datagram tell. */
struct wl_arrival {
	struct wl_address source, destination;
	__be16 port;	/* it comes from */
	__u8 family;
	__u8 ecn;
	__u32 at;	/* where the message begins, from the IP header on */
	__u32 len;	/* of the message */
};

/* How a super-packet is cut: lengths in bytes. */
struct wl_cut {
	__u32 transport; /* where the transport header begins */
	__u32 head;	 /* of all headers */
	__u32 payload;	 /* behind them */
	__u32 size;	 /* payload of each segment but the last */
	__u32 n;	 /* segments */
};

/* The keys of `allowed4` and `allowed6`. */
struct wl_key4 {
	__u32 bits;
	__u8 address[4];
};

struct wl_key6 {
	__u32 bits;
	__u8 address[16];
};

struct wl_work {
	__u64 now; /* ns, CLOCK_BOOTTIME */
	__u32 busy;
	__u32 fence; /* nothing: what wl_fence exchanges */
	__u32 super; /* bytes of a super-packet that lie in `supers` */
	__u32 slot;  /* of the session */
	__u32 epoch; /* of the session */
	__u32 peer;  /* slot */
	struct wl_path path;
	struct wl_inner inner;
	struct wl_outer outer;
	struct wl_arrival arrival;
	struct wl_cut cut;
	union {
		struct wl_key4 key4;
		struct wl_key6 key6;
	};
	struct bpf_redir_neigh next;
	__u32 header[4]; /* of a message on its way in */
	__u32 partial; /* where the checksum that is to be finished begins; 0: there is none */
};

#endif
