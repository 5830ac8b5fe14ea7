/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The inner packet: what its headers tell, whose it is, and what congestion does to it on the way.
 *
 * ECN is RFC 6040's normal mode: the inner bits are copied outwards; inwards, congestion met on the way is carried into a packet
 * that takes part. One case is the kernel's: CE on a packet that takes no part does not drop it (crates/inet/src/ecn.rs).
 */
#ifndef WL_INNER_H
#define WL_INNER_H

#include "checksum.h"
#include "maps.h"

#define WL_ECN_ECT1 1
#define WL_ECN_ECT0 2
#define WL_ECN_CE 3

/* Whether a first next-header value of IPv6 is an extension header. */
static __always_inline bool wl_is_extension(__u8 protocol)
{
	return protocol == 0 || protocol == 43 || protocol == IPPROTO_FRAGMENT || protocol == 51 || protocol == 60 ||
	       protocol == 135;
}

/* Reads the packet of `len` bytes (padding included) whose fixed header lies at `packet`, which has room for 40. False: it is none. */
static __always_inline bool wl_parse_inner(struct wl_inner *inner, const __u8 *packet, __u32 len)
{
	inner->family = 0;
	if (len < sizeof(struct iphdr))
		return false;
	if (packet[0] >> 4 == 4) {
		const struct iphdr *ip = (const struct iphdr *)packet;
		__u32 header = (packet[0] & 15) * 4;

		inner->len = wl_ntohs(ip->tot_len);
		if (header < sizeof(*ip) || inner->len < header || inner->len > len)
			return false;
		inner->ecn = ip->tos & 3;
		inner->protocol = ip->protocol;
		inner->fragment = (ip->frag_off & wl_htons(0x3fff)) != 0;
		inner->transport = header;
		*(__u32 *)inner->source.bytes = ip->saddr;
		*(__u32 *)inner->destination.bytes = ip->daddr;
		inner->family = 4;
		return true;
	}
	if (packet[0] >> 4 == 6 && len >= sizeof(struct ipv6hdr)) {
		const struct ipv6hdr *ip = (const struct ipv6hdr *)packet;

		inner->len = sizeof(*ip) + wl_ntohs(ip->payload_len);
		if (inner->len > len)
			return false;
		inner->ecn = packet[1] >> 4 & 3;
		inner->protocol = ip->nexthdr;
		inner->fragment = wl_is_extension(ip->nexthdr);
		inner->transport = sizeof(*ip);
		__builtin_memcpy(&inner->source, ip->saddr, 16);
		__builtin_memcpy(&inner->destination, ip->daddr, 16);
		inner->family = 6;
		return true;
	}
	return false;
}

/* The peer that has the address, of the inner packet's family, among its allowed IPs: its slot, or WL_NONE. */
static __always_inline __u32 wl_owner(struct wl_work *w, const struct wl_address *address)
{
	__u32 *slot;

	if (w->inner.family == 4) {
		w->key4.bits = 32;
		__builtin_memcpy(w->key4.address, address->bytes, sizeof(w->key4.address));
		slot = bpf_map_lookup_elem(&allowed4, &w->key4);
	} else {
		w->key6.bits = 128;
		__builtin_memcpy(w->key6.address, address->bytes, sizeof(w->key6.address));
		slot = bpf_map_lookup_elem(&allowed6, &w->key6);
	}
	return slot ? *slot : WL_NONE;
}

/* Carries what the outer ECN bits tell into the packet that was parsed. */
static __always_inline void wl_decapsulate_ecn(struct wl_inner *inner, __u8 *packet, __u8 outer)
{
	__u8 ecn = inner->ecn;

	if (outer == WL_ECN_CE && (ecn == WL_ECN_ECT0 || ecn == WL_ECN_ECT1))
		ecn = WL_ECN_CE;
	else if (outer == WL_ECN_ECT1 && ecn == WL_ECN_ECT0)
		ecn = WL_ECN_ECT1;
	else
		return;
	inner->ecn = ecn;
	if (inner->family == 4) {
		struct iphdr *ip = (struct iphdr *)packet;
		__u16 from = *(__u16 *)packet;

		ip->tos = (ip->tos & ~3) | ecn;
		ip->check = wl_fold_change(ip->check, from, *(__u16 *)packet);
	} else {
		packet[1] = (packet[1] & ~0x30) | ecn << 4;
	}
}

#endif
