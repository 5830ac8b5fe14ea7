/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The way out: an inner packet that leaves by the interface is sealed and sent by the underlay.
 *
 * All that can keep a packet from being taken is looked at before anything is changed: a packet that is left goes on to the interface, and
 * so to the daemon, as it came. Then a counter is taken, and from there on the packet is sent or dropped.
 */
#ifndef WL_EGRESS_H
#define WL_EGRESS_H

#include "aead.h"
#include "counts.h"
#include "inner.h"
#include "notes.h"
#include "outer.h"
#include "path.h"
#include "policy.h"
#include "session.h"
#include "skb.h"

/* The longest inner packet that is taken, padding included. */
#define WL_INNER_MAX (WL_SUM_MAX - WL_HEADER_LEN - WL_TAG_LEN)
_Static_assert(WL_INNER_MAX <= WL_PAYLOAD_MAX, "it can be sealed");

#define WL_LEAVE TC_ACT_UNSPEC

/* The length of an inner packet on the wire: the next multiple of 16, but not beyond the MTU (1420 padded to 1424 would make an
 * outer IPv6 packet of 1504 bytes). */
static __always_inline __u32 wl_padded(__u32 len, __u32 mtu)
{
	__u32 padded = (len + 15) & ~15u;

	if (mtu < len)
		mtu = len;
	return padded < mtu ? padded : mtu;
}

/* Who takes the packet, and with what. */
struct wl_way {
	struct wl_device *dev;
	struct wl_peer *peer;
	struct wl_ledger *ledger;
};

/* Whether the inner packet is a message to the peer itself: its endpoint is routed into the tunnel. */
static __always_inline bool wl_looped(const struct wl_work *w, const __u8 *packet)
{
	__be16 port;

	if (w->inner.protocol != IPPROTO_UDP || w->inner.family != w->path.family || w->inner.transport > 60)
		return false;
	port = *(__be16 *)(packet + w->inner.transport + 2);
	return port == w->path.remote_port && wl_same_address(w->inner.family, &w->inner.destination, &w->path.remote);
}

/*
 * Finds peer, path and session for the inner packet, which was parsed and lies at `packet`; the largest of its `n` segments has `largest` bytes.
 * Returns 0, or why it is to be left.
 */
static __always_inline __u32 wl_find_way(struct wl_work *w, const __u8 *packet, struct wl_way *way, __u32 largest, __u32 n)
{
	__u32 slot = wl_owner(w, &w->inner.destination);

	way->peer = bpf_map_lookup_elem(&peers, &slot);
	if (!way->peer)
		return WL_LEFT_ROUTE;
	w->peer = slot;
	if (!wl_copy_path(w, way->peer) || w->path.ifindex == way->dev->inner_ifindex || wl_looped(w, packet))
		return WL_LEFT_PATH;
	largest = wl_padded(largest, way->dev->inner_mtu);
	if (largest > WL_INNER_MAX ||
	    largest + WL_HEADER_LEN + WL_TAG_LEN + wl_overhead(w->path.family) > w->path.mtu)
		return WL_LEFT_SIZE;
	if (way->dev->policy && !wl_policy_sees(&w->inner))
		return WL_LEFT_POLICY;
	way->ledger = wl_session(w, READ_ONCE(way->peer->current));
	if (!way->ledger || READ_ONCE(way->ledger->peer) != slot || !wl_may_send(w, way->ledger, n))
		return WL_LEFT_SESSION;
	return 0;
}

/* What follows for peer and session when `n` messages of `bytes` altogether were sent. */
static __always_inline void wl_sent(struct wl_work *w, struct wl_way *way, __u32 n, __u32 bytes)
{
	__u32 slot = w->peer;
	struct wl_traffic *moved = bpf_map_lookup_elem(&traffic, &slot);

	if (moved) {
		moved->tx_bytes += bytes;
		moved->tx_packets += n;
	}
	wl_data_sent(w, &way->peer->notes);
	if (wl_rekey_due_on_send(w, way->ledger))
		wl_raise(WL_EVENT_REKEY, slot);
	wl_count_many(WL_SEALED, n);
}

/*
 * Seals the `len` bytes at data + 16, which room is for, with a key that is in its place: the message is then in the scratch area, and its
 * headers in w->outer. Returns its length, 0 if it could not be.
 */
static __always_inline __u32 wl_seal_message(struct wl_work *w, struct wl_scratch *s, const struct wl_way *way, __u32 len, __u64 counter)
{
	__u32 padded = wl_padded(len, way->dev->inner_mtu);
	__u64 *end;

	wl_hide(len);
	end = (__u64 *)(s->data + WL_HEADER_LEN + (len & 2047));
	end[0] = end[1] = 0;
	wl_write_header(s, way->ledger->remote_index, counter);
	s->nonce = counter;
	if (wl_seal(s, padded))
		return 0;
	padded += WL_HEADER_LEN + WL_TAG_LEN;
	wl_write_outer(w, s, way->dev, padded, counter);
	return padded;
}

/*
 * Makes the packet one of `outer` bytes from the IP header on, of the path's family, with room for an Ethernet header before them and no wish
 * for a checksum. What it holds is then to be written. False: the kernel had no memory for that.
 */
static __always_inline bool wl_reshape(struct __sk_buff *skb, const struct wl_work *w, __u32 outer)
{
	__u8 from = w->inner.family, to = w->path.family;
	__s32 beyond = w->partial;

	if (from == 6 && to == 4)
		outer += sizeof(struct ipv6hdr) - sizeof(struct iphdr);
	else if (from == 4 && to == 6)
		outer -= sizeof(struct ipv6hdr) - sizeof(struct iphdr);
	if (bpf_skb_change_tail(skb, outer, 0))
		return false;
	if (beyond) {
		/* Past where the checksum begins, and back. */
		beyond += 4;
		if (bpf_skb_adjust_room(skb, -beyond, BPF_ADJ_ROOM_MAC, 0) ||
		    bpf_skb_adjust_room(skb, beyond, BPF_ADJ_ROOM_MAC, 0))
			return false;
	}
	if (from != to && bpf_skb_change_proto(skb, to == 4 ? wl_htons(ETH_P_IP) : wl_htons(ETH_P_IPV6), 0))
		return false;
	return !bpf_skb_change_head(skb, sizeof(struct ethhdr), 0);
}

/* Writes headers and message, of `wire` bytes, over the packet. */
static __always_inline bool wl_write(struct __sk_buff *skb, struct wl_work *w, struct wl_scratch *s, __u32 wire)
{
	__u32 head = sizeof(struct ethhdr) + wl_overhead(w->path.family);

	wl_hide(wire);
	wire = ((wire - 1) & 2047) + 1;
	wl_hide(head);
	head = ((head - 1) & 63) + 1;
	return !bpf_skb_store_bytes(skb, 0, &w->outer.eth, head, 0) && !bpf_skb_store_bytes(skb, head, s->data, wire, 0);
}

/*
 * Sends it to the next hop. Where the daemon knows that one's link address, so does the kernel, and needs no route. Else the kernel is to find
 * the route too: a packet that waits for a neighbour has to have that route, not the inner one.
 */
static __always_inline int wl_to_neighbour(struct __sk_buff *skb, struct wl_work *w)
{
	const struct wl_address *hop = w->path.has_gateway ? &w->path.gateway : &w->path.remote;
	__u8 family = w->path.has_gateway ? w->path.has_gateway : w->path.family;

	skb->mark = w->path.mark;
	if (!w->path.has_mac)
		return bpf_redirect_neigh(w->path.ifindex, NULL, 0, 0);
	w->next.nh_family = family == 4 ? AF_INET : AF_INET6;
	__builtin_memcpy(w->next.ipv6_nh, hop, 16);
	return bpf_redirect_neigh(w->path.ifindex, &w->next, sizeof(w->next), 0);
}

/* A packet that is not a super-packet. */
static __always_inline int wl_send_plain(struct __sk_buff *skb, struct wl_work *w, struct wl_scratch *s, struct wl_way *way)
{
	__u32 len = skb->len, why, wire, start = 0, at = 0;
	__u8 *packet = s->data + WL_HEADER_LEN;
	bool ok;
	__u64 counter;

	if (len < sizeof(struct iphdr) || len > WL_INNER_MAX) {
		wl_count(WL_LEFT_SIZE);
		return WL_LEAVE;
	}
	wl_hide(len);
	len = ((len - 1) & 2047) + 1;
	if (bpf_skb_load_bytes(skb, 0, packet, len) || !wl_parse_inner(&w->inner, packet, len) || w->inner.len != len) {
		wl_count(WL_LEFT_INNER);
		return WL_LEAVE;
	}
	why = wl_find_way(w, packet, way, len, 1);
	if (why) {
		wl_count(why);
		return WL_LEAVE;
	}
	w->partial = 0;
	if (wl_partial(skb, &start, &at, &ok)) {
		if (at + 2 > len)
			ok = false;
		w->partial = start;
	}
	if (!ok) {
		wl_count(WL_LEFT_CHECKSUM);
		return WL_LEAVE;
	}
	if (w->partial) {
		__u16 sum = wl_fold_udp(wl_sum(s, WL_HEADER_LEN + start, len - start));

		wl_hide(at);
		*(__u16 *)(packet + (at & 255)) = sum;
	}
	if (way->dev->policy && wl_policy(w, way->dev, packet, 1, WL_OUT) != WL_PASS) {
		wl_count(WL_DROP_POLICY);
		return TC_ACT_SHOT;
	}
	counter = wl_take_counters(way->ledger, 1);
	if (counter >= wl_reject_after_messages || !wl_take_key(w, way->ledger, s, true)) {
		wl_count(WL_LEFT_SESSION);
		return WL_LEAVE;
	}
	wire = wl_seal_message(w, s, way, len, counter);
	if (!wire || !wl_reshape(skb, w, wire + wl_overhead(w->path.family)) || !wl_write(skb, w, s, wire)) {
		wl_count(WL_DROP_MEMORY);
		return TC_ACT_SHOT;
	}
	wl_sent(w, way, 1, wire);
	return wl_to_neighbour(skb, w);
}

#endif
