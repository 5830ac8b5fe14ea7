/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The way in at XDP: before the kernel has made anything of a frame. What comes out is a frame with the inner packet in it, and a mark
 * before it (8 bytes of metadata) by which a program at TC knows it and hands it to the interface. In between the kernel joins what is of
 * one flow (GRO), which is what all this is for: the interface then gets a few large packets for many small ones.
 *
 * A frame that leaves here opened and finds no program at TC would pass for one that came in the clear. So `wl_hand_over` is attached
 * first and removed last.
 *
 * A frame for another link address, which comes by as a copy, is left before anything of the message is committed: it would be dropped later, and the
 * one that is for us taken for a repetition. (A VLAN's tag, which the driver may have put aside, is not seen here; `wl_hand_over` takes it away.)
 *
 * The mark's room is made before anything of the message is committed: where a driver has no metadata, nothing is taken.
 */
#ifndef WL_INGRESS_XDP_H
#define WL_INGRESS_XDP_H

#include "ingress.h"
#include "link.h"
#include "skb.h"

#define WL_MARK 0x776c6f6f

struct wl_mark {
	__u32 magic; /* WL_MARK and the device's number, exclusive or */
	__u32 ifindex; /* of the interface that it is for */
};

/* The mark before the frame, if there is room for one. */
#define wl_mark_of(ctx)                                                                                                        \
	({                                                                                                                     \
		struct wl_mark *mark_ = (struct wl_mark *)(long)(ctx)->data_meta;                                              \
		(void *)(mark_ + 1) <= (void *)(long)(ctx)->data ? mark_ : NULL;                                               \
	})

/* Whether the frame may be a datagram to our port; what is not goes on at once. The frame's first bytes are copied. */
static __always_inline bool wl_peek_frame(struct xdp_md *xdp, __be16 port)
{
	void *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	struct ethhdr *eth = data;
	struct iphdr *v4 = (void *)(eth + 1);
	struct ipv6hdr *v6 = (void *)(eth + 1);
	__be16 *to;

	/* Less is no message, in IPv4 either. */
	if ((void *)(v6 + 1) + sizeof(struct udphdr) > end)
		return false;
	if (eth->h_proto == wl_htons(ETH_P_IP) && *(__u8 *)v4 == 0x45 && v4->protocol == IPPROTO_UDP)
		to = &((struct udphdr *)(v4 + 1))->dest;
	else if (eth->h_proto == wl_htons(ETH_P_IPV6) && v6->nexthdr == IPPROTO_UDP)
		to = &((struct udphdr *)(v6 + 1))->dest;
	else
		return false;
	return *to == port;
}

/* Makes the frame one with the inner packet. False: the driver had no room, which it has said it has. */
static __always_inline bool wl_rewrap(struct xdp_md *xdp, struct wl_work *w, struct wl_scratch *s, const struct wl_entry *e,
				      __u32 frame)
{
	__u32 off = w->arrival.at + WL_HEADER_LEN, len = w->inner.len;
	struct wl_mark *mark;

	w->outer.eth.h_proto = w->inner.family == 4 ? wl_htons(ETH_P_IP) : wl_htons(ETH_P_IPV6);
	/* Moving the start takes the metadata along. */
	if (bpf_xdp_adjust_head(xdp, off) ||
	    bpf_xdp_adjust_tail(xdp, (int)(sizeof(struct ethhdr) + len) - (int)(frame - off)))
		return false;
	wl_hide(len);
	len = ((len - 1) & 2047) + 1;
	if (bpf_xdp_store_bytes(xdp, 0, &w->outer.eth, sizeof(struct ethhdr)) ||
	    bpf_xdp_store_bytes(xdp, sizeof(struct ethhdr), s->data + WL_HEADER_LEN, len))
		return false;
	mark = wl_mark_of(xdp);
	if (!mark)
		return false;
	mark->magic = WL_MARK ^ e->dev->number;
	mark->ifindex = e->dev->inner_ifindex;
	return true;
}

static __always_inline enum xdp_action wl_arrived_xdp(struct xdp_md *xdp, struct wl_work *w, struct wl_scratch *s, struct wl_entry *e)
{
	__u32 len, frame = bpf_xdp_get_buff_len(xdp);
	struct wl_mark *mark;
	enum wl_fate fate;

	if (bpf_xdp_load_bytes(xdp, 0, &w->outer.eth, sizeof(w->outer) - sizeof(w->outer.pad)) || !wl_read_outer(w, e->dev))
		return XDP_PASS;
	/* What is not in one piece cannot be rewrapped. */
	if (sizeof(struct ethhdr) + w->arrival.at + w->arrival.len > frame || xdp->data_end - xdp->data != frame ||
	    bpf_xdp_load_bytes(xdp, sizeof(struct ethhdr) + w->arrival.at, w->header, sizeof(w->header))) {
		wl_count(WL_LEFT_MALFORMED);
		return XDP_PASS;
	}
	fate = wl_look(w, e);
	if (fate == WL_FATE_LEAVE || !wl_is_for_us(xdp, w))
		return XDP_PASS;
	if (fate == WL_FATE_DROP)
		return XDP_DROP;
	len = w->arrival.len;
	wl_hide(len);
	len = ((len - 1) & 2047) + 1;
	if (bpf_xdp_load_bytes(xdp, sizeof(struct ethhdr) + w->arrival.at, s->data, len) ||
	    bpf_xdp_adjust_meta(xdp, -(int)sizeof(*mark))) {
		wl_count(WL_LEFT_MALFORMED);
		return XDP_PASS;
	}
	mark = wl_mark_of(xdp);
	if (mark)
		mark->magic = mark->ifindex = 0;
	fate = wl_receive(w, s, e, 0);
	if (fate != WL_FATE_PASS)
		return fate == WL_FATE_DROP ? XDP_DROP : XDP_PASS;
	if (wl_rewrap(xdp, w, s, e, frame))
		return XDP_PASS;
	wl_count(WL_DROP_MEMORY);
	return XDP_DROP;
}

/*
 * A checksum that the sender left to its network card, as between two namespaces, was the outer one. The kernel does not see that it is
 * gone, and would finish it if the packet were sent on. It sees it when the start of the packet moves; a few bytes do.
 */
static __always_inline void wl_forget_checksum(struct __sk_buff *skb, struct wl_work *w)
{
	__u32 start = 0, at = 0;
	bool ok;

	wl_partial(skb, &start, &at, &ok);
	if (ok || skb->gso_size)
		return;
	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), w->header, 4) ||
	    bpf_skb_adjust_room(skb, -4, BPF_ADJ_ROOM_MAC, 0) || bpf_skb_adjust_room(skb, 4, BPF_ADJ_ROOM_MAC, 0))
		return;
	bpf_skb_store_bytes(skb, sizeof(struct ethhdr), w->header, 4, 0);
}

#endif
