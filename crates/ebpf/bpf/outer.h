/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The outer headers: writing them, and reading those of what comes in.
 *
 * As the kernel's WireGuard and the daemon's sockets write them: no DSCP, the inner packet's ECN bits, no flow label, 64 hops, fragments
 * allowed, and a UDP checksum for both families (who receives without one cannot coalesce). The IPv4 identification, which
 * only matters if somebody cuts the packet, is the message's counter.
 */
#ifndef WL_OUTER_H
#define WL_OUTER_H

#include "checksum.h"
#include "maps.h"

#define WL_HOPS 64
#define WL_DATA 4 /* the message's first word, but for its byte order */

/* Bytes of the IP and UDP headers around a message. */
static __always_inline __u32 wl_overhead(__u8 family)
{
	return (family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) + sizeof(struct udphdr);
}

/* The start of a message: what the cipher does not look at. */
static __always_inline void wl_write_header(struct wl_scratch *s, __u32 index, __u64 counter)
{
	*(__u32 *)s->data = WL_DATA;
	*(__u32 *)(s->data + 4) = index;
	*(__u64 *)(s->data + 8) = counter;
}

/* Writes the headers of the sealed message of `wire` bytes in the scratch area. */
static __always_inline void wl_write_outer(struct wl_work *w, struct wl_scratch *s, const struct wl_device *dev, __u32 wire, __u64 counter)
{
	struct wl_outer *o = &w->outer;
	struct udphdr *udp;
	__u64 sum = wl_sum(s, 0, wire);
	__be16 len = wl_htons(sizeof(*udp) + wire);
	const __u32 *a = (const __u32 *)&w->path.local, *b = (const __u32 *)&w->path.remote;
	int i;

	__builtin_memcpy(o->eth.h_dest, w->path.h_dest, 6);
	__builtin_memcpy(o->eth.h_source, w->path.h_source, 6);
	if (w->path.family == 4) {
		__u64 header = 0;

		o->eth.h_proto = wl_htons(ETH_P_IP);
		o->v4.ip = (struct iphdr){
			.version = 4,
			.ihl = 5,
			.tos = w->inner.ecn,
			.tot_len = wl_htons(sizeof(o->v4) + wire),
			.id = (__be16)counter,
			.ttl = WL_HOPS,
			.protocol = IPPROTO_UDP,
			.saddr = a[0],
			.daddr = b[0],
		};
		for (i = 0; i < 5; i++)
			header += o->words[i];
		o->v4.ip.check = wl_fold(header);
		sum += (__u64)a[0] + b[0];
		udp = &o->v4.udp;
	} else {
		o->eth.h_proto = wl_htons(ETH_P_IPV6);
		o->v6.ip.flow = wl_htonl(6u << 28 | (__u32)w->inner.ecn << 20);
		o->v6.ip.payload_len = len;
		o->v6.ip.nexthdr = IPPROTO_UDP;
		o->v6.ip.hop_limit = WL_HOPS;
		__builtin_memcpy(o->v6.ip.saddr, a, 16);
		__builtin_memcpy(o->v6.ip.daddr, b, 16);
		for (i = 0; i < 4; i++)
			sum += (__u64)a[i] + b[i];
		udp = &o->v6.udp;
	}
	udp->source = dev->port;
	udp->dest = w->path.remote_port;
	udp->len = len;
	/* The length counts twice: in the header and in the pseudo header. */
	sum += wl_htons(IPPROTO_UDP) + 2ull * len + udp->source + udp->dest;
	udp->check = wl_fold_udp(sum);
}

/*
 * Reads the headers in w->outer, of which `room` bytes from the IP header on are there. False: it is no UDP datagram to our port, or has options
 * or extension headers, is a fragment, or damaged; all that is for the kernel to judge.
 */
static __always_inline bool wl_read_outer(struct wl_work *w, const struct wl_device *dev)
{
	struct wl_arrival *arrival = &w->arrival;
	struct wl_outer *o = &w->outer;
	struct udphdr *udp;
	__u32 len;

	if (o->v4.ip.version == 4) {
		__u64 header = 0;
		int i;

		if (o->v4.ip.ihl != 5 || o->v4.ip.protocol != IPPROTO_UDP || (o->v4.ip.frag_off & wl_htons(0xbfff)))
			return false;
		udp = &o->v4.udp;
		if (udp->dest != dev->port)
			return false;
		for (i = 0; i < 5; i++)
			header += o->words[i];
		if (wl_fold(header))
			return false;
		len = wl_ntohs(o->v4.ip.tot_len) - sizeof(struct iphdr);
		arrival->family = 4;
		arrival->ecn = o->v4.ip.tos & 3;
		arrival->at = sizeof(o->v4);
		__builtin_memset(&arrival->source, 0, 32);
		*(__u32 *)arrival->source.bytes = o->v4.ip.saddr;
		*(__u32 *)arrival->destination.bytes = o->v4.ip.daddr;
	} else {
		if (o->v4.ip.version != 6 || o->v6.ip.nexthdr != IPPROTO_UDP)
			return false;
		udp = &o->v6.udp;
		if (udp->dest != dev->port)
			return false;
		len = wl_ntohs(o->v6.ip.payload_len);
		arrival->family = 6;
		arrival->ecn = wl_ntohl(o->v6.ip.flow) >> 20 & 3;
		arrival->at = sizeof(o->v6);
		__builtin_memcpy(&arrival->source, o->v6.ip.saddr, 16);
		__builtin_memcpy(&arrival->destination, o->v6.ip.daddr, 16);
	}
	arrival->port = udp->source;
	arrival->len = len - sizeof(*udp);
	return len >= sizeof(*udp) && wl_ntohs(udp->len) == len;
}

#endif
