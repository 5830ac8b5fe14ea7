// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The data path's programs. Where they are attached:
 *
 *   wl_egress    TC, egress of the interface (a TUN, whose queues the daemon reads): what is not taken goes on to the daemon
 *   wl_ingress   TC, ingress of an underlay: what is not taken goes on to the daemon's sockets
 *   wl_xdp, wl_hand_over
 *                in place of it, XDP and TC ingress of an underlay whose driver runs XDP itself
 *   wl_arm       nowhere: the daemon runs it when it has written a session's keys
 *
 * The headers tell the parts: layout, maps, work and scratch what is remembered; session, replay, notes, path, expiry what is known; inner, outer, skb, link, checksum
 * what a packet looks like; egress, gso, ingress the ways out and in; aead, chacha20, poly1305 the cipher; policy, counts what is decided and told.
 */
#include "egress.h"
#include "expiry.h"
#include "gso.h"
#include "ingress_tc.h"
#include "ingress_xdp.h"

/* The CPU's areas, if no other program has them, with the time in them. */
static __always_inline bool wl_enter(struct wl_work **work_area, struct wl_scratch **scratch_area)
{
	__u32 zero = 0;
	struct wl_work *w = bpf_map_lookup_elem(&work, &zero);
	struct wl_scratch *s = bpf_map_lookup_elem(&scratch, &zero);

	if (!w || !s)
		return false;
	if (READ_ONCE(w->busy) || __sync_lock_test_and_set(&w->busy, 1)) {
		wl_count(WL_LEFT_BUSY);
		return false;
	}
	w->now = bpf_ktime_get_boot_ns();
	w->super = w->arrival.len = 0;
	*work_area = w;
	*scratch_area = s;
	return true;
}

/* The areas are another program's from here on, with nothing of the packet's plaintext in them. `opened`: so many bytes of the message were. */
static __always_inline void wl_exit(struct wl_work *w, struct wl_scratch *s, __u32 opened)
{
	wl_hide(opened);
	if (opened)
		wl_zero(s->data, ((opened - 1) & 2047) + 1);
	WRITE_ONCE(w->busy, 0);
}

static __always_inline struct wl_device *wl_any_device(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&device, &zero);
}

static __always_inline struct wl_device *wl_device(void)
{
	struct wl_device *dev = wl_any_device();

	return dev && dev->enabled && dev->layout == WL_LAYOUT ? dev : NULL;
}

SEC("tc")
int wl_egress(struct __sk_buff *skb)
{
	struct wl_scratch *s;
	struct wl_work *w;
	struct wl_way way = { .dev = wl_device() };
	int verdict;

	if (!way.dev || !wl_enter(&w, &s))
		return WL_LEAVE;
	verdict = skb->gso_size ? wl_send_super(skb, w, s, &way) : wl_send_plain(skb, w, s, &way);
	wl_forget_super(w);
	/* What was sent lies there sealed. */
	wl_exit(w, s, verdict == WL_LEAVE || verdict == TC_ACT_SHOT ? 2048 : 0);
	return verdict;
}

SEC("tc")
int wl_ingress(struct __sk_buff *skb)
{
	struct wl_scratch *s;
	struct wl_work *w;
	struct wl_entry entry = { .dev = wl_device() };
	int verdict = WL_LEAVE;
	__u32 head;

	if (!entry.dev || skb->pkt_type != WL_PACKET_HOST || skb->vlan_present)
		return WL_LEAVE;
	if (skb->protocol == wl_htons(ETH_P_IP))
		head = sizeof(struct iphdr) + sizeof(struct udphdr);
	else if (skb->protocol == wl_htons(ETH_P_IPV6))
		head = sizeof(struct ipv6hdr) + sizeof(struct udphdr);
	else
		return WL_LEAVE;
	if (!wl_enter(&w, &s))
		return WL_LEAVE;
	if (!bpf_skb_load_bytes_relative(skb, 0, w->outer.words, head, WL_FROM_NETWORK) &&
	    wl_read_outer(w, entry.dev))
		verdict = wl_arrived(skb, w, s, &entry);
	wl_exit(w, s, w->arrival.len);
	return verdict;
}

/* `frags`: or else the kernel keeps the MTU of the underlay to a page. */
SEC("xdp.frags")
int wl_xdp(struct xdp_md *xdp)
{
	struct wl_scratch *s;
	struct wl_work *w;
	struct wl_entry entry = { .dev = wl_device() };
	enum xdp_action action;

	if (!entry.dev || !wl_peek_frame(xdp, entry.dev->port) || !wl_enter(&w, &s))
		return XDP_PASS;
	action = wl_arrived_xdp(xdp, w, s, &entry);
	wl_exit(w, s, w->arrival.len);
	return action;
}

SEC("tc")
int wl_hand_over(struct __sk_buff *skb)
{
	/* Whatever has been marked is to be caught. */
	struct wl_device *dev = wl_any_device();
	struct wl_mark *mark = wl_mark_of(skb);
	struct wl_scratch *s;
	struct wl_work *w;

	if (!mark || !dev || mark->magic != (WL_MARK ^ dev->number))
		return WL_LEAVE;
	/* It was opened, so that it must not go on here, as if it had come in the clear. Not for us after all; or for an interface that is
	 * another one by now; or of a VLAN. */
	if (mark->ifindex != dev->inner_ifindex || skb->pkt_type != WL_PACKET_HOST ||
	    (skb->vlan_present && bpf_skb_vlan_pop(skb)))
		return TC_ACT_SHOT;
	if (wl_enter(&w, &s)) {
		wl_forget_checksum(skb, w);
		WRITE_ONCE(w->busy, 0);
	}
	return bpf_redirect(dev->inner_ifindex, BPF_F_INGRESS);
}

SEC("syscall")
int wl_arm(struct wl_arm *arm)
{
	return wl_wipe_after(arm->slot, arm->after);
}

WL_LICENSE;
