/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The way in at TC: what wl_receive made of a datagram becomes a packet that came in by the interface.
 *
 * The kernel's own bookkeeping goes along: what it knows of checksums is right at each step. The inner packet counts as checked, as with the kernel's
 * WireGuard: it is as its sender sealed it.
 */
#ifndef WL_INGRESS_TC_H
#define WL_INGRESS_TC_H

#include "ingress.h"
#include "skb.h"

#define WL_PACKET_HOST 0
#define WL_FROM_NETWORK 1 /* BPF_HDR_START_NET */

/* Writes the inner packet over the one that carried it, and hands it to the interface. */
static __always_inline int wl_deliver(struct __sk_buff *skb, struct wl_work *w, struct wl_scratch *s, const struct wl_entry *e)
{
	__u32 mac = wl_mac_len(skb), len = w->inner.len;
	__u8 to = w->inner.family;

	/* One header is made the other's before it goes, since that is what the kernel takes the packet's kind from. */
	if (to != w->arrival.family &&
	    bpf_skb_change_proto(skb, to == 4 ? wl_htons(ETH_P_IP) : wl_htons(ETH_P_IPV6), 0))
		return TC_ACT_SHOT;
	if (bpf_skb_adjust_room(skb, -(__s32)(wl_overhead(to) + WL_HEADER_LEN), BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_change_tail(skb, mac + len, 0))
		return TC_ACT_SHOT;
	wl_hide(len);
	len = ((len - 1) & 2047) + 1;
	if (bpf_skb_store_bytes(skb, mac, s->data + WL_HEADER_LEN, len, BPF_F_RECOMPUTE_CSUM))
		return TC_ACT_SHOT;
	bpf_csum_level(skb, BPF_CSUM_LEVEL_INC);
	bpf_set_hash_invalid(skb);
	return bpf_redirect(e->dev->inner_ifindex, BPF_F_INGRESS);
}

static __always_inline int wl_arrived(struct __sk_buff *skb, struct wl_work *w, struct wl_scratch *s, struct wl_entry *e)
{
	__u32 len, mac, tight;
	enum wl_fate fate;
	int verdict;

	if (bpf_skb_load_bytes_relative(skb, w->arrival.at, w->header, sizeof(w->header), WL_FROM_NETWORK)) {
		wl_count(WL_LEFT_MALFORMED);
		return WL_LEAVE;
	}
	if (skb->gso_size) {
		wl_count(WL_LEFT_COALESCED);
		return WL_LEAVE;
	}
	fate = wl_look(w, e);
	if (fate != WL_FATE_PASS)
		return fate == WL_FATE_DROP ? TC_ACT_SHOT : WL_LEAVE;
	len = w->arrival.len;
	wl_hide(len);
	len = ((len - 1) & 2047) + 1;
	mac = wl_mac_len(skb);
	if ((mac && mac != sizeof(struct ethhdr)) ||
	    bpf_skb_load_bytes_relative(skb, w->arrival.at, s->data, len, WL_FROM_NETWORK)) {
		wl_count(WL_LEFT_MALFORMED);
		return WL_LEAVE;
	}
	/* What adjust_room wants to be left of a packet. */
	tight = w->arrival.family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	fate = wl_receive(w, s, e, tight);
	if (fate != WL_FATE_PASS)
		return fate == WL_FATE_DROP ? TC_ACT_SHOT : WL_LEAVE;
	verdict = wl_deliver(skb, w, s, e);
	if (verdict == TC_ACT_SHOT)
		wl_count(WL_DROP_MEMORY);
	return verdict;
}

#endif
