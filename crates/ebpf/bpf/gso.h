/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Super-packets: what the kernel would have cut into segments later is cut here, and each segment sealed and sent.
 *
 * The rules are those of the kernel's tcp_offload.c, udp_offload.c and af_inet.c: each segment has the headers with its own lengths, IPv4
 * identification, sequence number and checksums; FIN and PSH stay on the last one, CWR on the first.
 *
 * The super-packet is copied aside, and the packet itself becomes the segments, one after the other: all but the last leave as clones. For
 * those the kernel looks up nothing, so they need the next hop's link address; without it the super-packet is left to the daemon.
 *
 * As a clone's memory is as large as what it was cloned from, super-packets should not be large: the daemon sets gso_max_size.
 */
#ifndef WL_GSO_H
#define WL_GSO_H

#include "egress.h"

/* How many segments are taken, and how many bytes. */
#define WL_SEGMENTS_MAX 64
#define WL_SUPER_MAX 65536

#define WL_TCP_FIN 0x01
#define WL_TCP_PSH 0x08
#define WL_TCP_CWR 0x80

/* include/linux/skbuff.h */
enum {
	SKB_GSO_TCPV4 = 1 << 0,
	SKB_GSO_DODGY = 1 << 1,
	SKB_GSO_TCP_ECN = 1 << 2,
	SKB_GSO_TCP_FIXEDID = 1 << 3,
	SKB_GSO_TCPV6 = 1 << 4,
	SKB_GSO_UDP_L4 = 1 << 17,
};

struct wl_super {
	/* What lies behind the packet is read with the last segment, and written over. */
	__u8 bytes[WL_SUPER_MAX + WL_INNER_MAX];
};

/* One for each CPU: it is too large for a per-CPU map. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wl_super);
} supers SEC(".maps");

static __always_inline __u32 wl_gso_type(struct __sk_buff *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx;
	const struct skb_shared_info *info;
	unsigned char *head = NULL;
	__u32 type = 0, end = 0;

	wl_read(head, skb->head);
	wl_read(end, skb->end);
	info = (const struct skb_shared_info *)(head + end);
	wl_read(type, info->gso_type);
	return type;
}

/*
 * Finds out how to cut, from the headers at `packet` and what the kernel knows of it. False: it cannot be here.
 */
static __always_inline bool wl_plan_cut(struct __sk_buff *skb, struct wl_work *w, const __u8 *packet)
{
	struct wl_cut *cut = &w->cut;
	__u32 start = 0, at = 0, type, head = w->inner.transport, payload;
	bool tcp = w->inner.protocol == IPPROTO_TCP, ok;

	if (w->inner.fragment || head > 60 || (!tcp && w->inner.protocol != IPPROTO_UDP))
		return false;
	type = wl_gso_type(skb) & ~(SKB_GSO_DODGY | SKB_GSO_TCP_ECN | SKB_GSO_TCP_FIXEDID);
	if (type != (tcp ? (w->inner.family == 4 ? SKB_GSO_TCPV4 : SKB_GSO_TCPV6) : SKB_GSO_UDP_L4))
		return false;
	if (!wl_partial(skb, &start, &at, &ok) || start != head || at != head + (tcp ? 16 : 6))
		return false;
	cut->transport = head;
	head += tcp ? (packet[head + 12] >> 4) * 4 : sizeof(struct udphdr);
	if (head < cut->transport + (tcp ? sizeof(struct tcphdr) : sizeof(struct udphdr)) || head >= w->inner.len)
		return false;
	payload = w->inner.len - head;
	cut->head = head;
	cut->size = skb->gso_size;
	if (!cut->size || cut->size + head > WL_INNER_MAX)
		return false;
	cut->n = (payload + cut->size - 1) / cut->size;
	cut->payload = payload;
	w->partial = start;
	return cut->n && cut->n <= WL_SEGMENTS_MAX;
}

/*
 * Puts segment `i` of the super-packet at data + 16, its headers and checksums complete. Returns its length, 0 if there is none.
 */
__noinline __u32 wl_cut_segment(struct wl_work *w, struct wl_scratch *s, struct wl_super *super, __u32 i)
{
	__u8 *packet, *transport;
	__u32 head, at, from, body, len, k;
	__u64 sum = 0;

	if (!w || !s || !super || i >= WL_SEGMENTS_MAX)
		return 0;
	packet = s->data + WL_HEADER_LEN;
	head = w->cut.head;
	from = i * w->cut.size;
	at = w->cut.transport;
	if (from >= w->cut.payload || at > 60 || head > 120 || head < 28)
		return 0;
	body = w->cut.payload - from;
	if (body > w->cut.size)
		body = w->cut.size;
	len = head + body;
	/* All of this again for the verifiers of older kernels, which lose sight of it. */
	wl_hide(len);
	wl_hide(from);
	wl_hide(head);
	wl_hide(at);
	head &= 127;
	at &= 63;
	if (len > WL_INNER_MAX || len < 29 || from >= WL_SUPER_MAX)
		return 0;
	/* The body with what lies before it, and over that the headers. */
	if (bpf_probe_read_kernel(packet, len, super->bytes + from))
		return 0;
	if (bpf_probe_read_kernel(packet, head, super->bytes))
		return 0;

	if (w->inner.family == 4) {
		struct iphdr *ip = (struct iphdr *)packet;

		ip->tot_len = wl_htons(len);
		ip->id = wl_htons(wl_ntohs(ip->id) + i);
		ip->check = 0;
		/* The sum may write behind what it sums up; the transport header's first bytes are the ports. */
		sum = *(__u32 *)(packet + at);
		k = wl_sum(s, WL_HEADER_LEN, at);
		*(__u32 *)(packet + at) = sum;
		ip->check = wl_fold(k);
		sum = *(__u32 *)w->inner.source.bytes + (__u64) * (__u32 *)w->inner.destination.bytes;
	} else {
		const __u32 *a = (const __u32 *)&w->inner.source, *b = (const __u32 *)&w->inner.destination;

		((struct ipv6hdr *)packet)->payload_len = wl_htons(len - sizeof(struct ipv6hdr));
		for (k = 0; k < 4; k++)
			sum += (__u64)a[k] + b[k];
	}
	transport = packet + at;
	sum += wl_htons(w->inner.protocol) + wl_htons(len - at);
	if (w->inner.protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = (struct tcphdr *)transport;

		tcp->seq = wl_htonl(wl_ntohl(tcp->seq) + from);
		if (i)
			tcp->flags &= ~WL_TCP_CWR;
		if (i + 1 < w->cut.n)
			tcp->flags &= ~(WL_TCP_FIN | WL_TCP_PSH);
		tcp->check = 0;
		tcp->check = wl_fold(sum + wl_sum(s, WL_HEADER_LEN + at, len - at));
	} else {
		struct udphdr *udp = (struct udphdr *)transport;

		udp->len = wl_htons(len - at);
		udp->check = 0;
		udp->check = wl_fold_udp(sum + wl_sum(s, WL_HEADER_LEN + at, len - at));
	}
	return len;
}

/* A super-packet. */
static __always_inline int wl_send_super(struct __sk_buff *skb, struct wl_work *w, struct wl_scratch *s, struct wl_way *way)
{
	__u32 len = skb->len, cpu = bpf_get_smp_processor_id(), i, why, wire = 0, segment, bytes = 0;
	struct wl_super *super = bpf_map_lookup_elem(&supers, &cpu);
	__u8 *packet = s->data + WL_HEADER_LEN;
	__u64 first;

	if (!super || len >= WL_SUPER_MAX || len < 128) {
		wl_count(WL_LEFT_SUPER);
		return WL_LEAVE;
	}
	if (bpf_skb_load_bytes(skb, 0, packet, 128) || !wl_parse_inner(&w->inner, packet, len) || w->inner.len != len) {
		wl_count(WL_LEFT_INNER);
		return WL_LEAVE;
	}
	if (!wl_plan_cut(skb, w, packet)) {
		wl_count(WL_LEFT_SUPER);
		return WL_LEAVE;
	}
	why = wl_find_way(w, packet, way, w->cut.head + w->cut.size, w->cut.n);
	if (!why && !w->path.has_mac)
		why = WL_LEFT_PATH;
	if (why) {
		wl_count(why);
		return WL_LEAVE;
	}
	wl_hide(len);
	len = ((len - 1) & (WL_SUPER_MAX - 1)) + 1;
	w->super = len;
	if (bpf_skb_load_bytes(skb, 0, super->bytes, len) || bpf_skb_pull_data(skb, len)) {
		wl_count(WL_LEFT_SUPER);
		return WL_LEAVE;
	}
	if (way->dev->policy && wl_policy(w, way->dev, packet, w->cut.n, WL_OUT) != WL_PASS) {
		wl_count_many(WL_DROP_POLICY, w->cut.n);
		return TC_ACT_SHOT;
	}
	first = wl_take_counters(way->ledger, w->cut.n);
	if (first >= wl_reject_after_messages) {
		wl_count(WL_LEFT_SESSION);
		return WL_LEAVE;
	}
	for (i = 0; i < WL_SEGMENTS_MAX; i++) {
		segment = wl_cut_segment(w, s, super, i);
		if (!segment || segment > WL_INNER_MAX || !wl_take_key(w, way->ledger, s, true))
			break;
		segment = wl_seal_message(w, s, way, segment, first + i);
		if (!segment)
			break;
		/* Shaped for the first, and again if the last is shorter. */
		if (!i) {
			if (!wl_reshape(skb, w, segment + wl_overhead(w->path.family)))
				break;
			skb->mark = w->path.mark;
		} else if (segment != wire &&
			   bpf_skb_change_tail(skb, sizeof(struct ethhdr) + wl_overhead(w->path.family) + segment, 0)) {
			break;
		}
		wire = segment;
		if (!wl_write(skb, w, s, wire))
			break;
		bytes += wire;
		if (i + 1 >= w->cut.n) {
			wl_sent(w, way, w->cut.n, bytes);
			wl_count(WL_SEALED_SUPER);
			return wl_to_neighbour(skb, w);
		}
		/* What the underlay does not take is lost, as on any link. */
		bpf_clone_redirect(skb, w->path.ifindex, 0);
	}
	wl_count(WL_DROP_MEMORY);
	return TC_ACT_SHOT;
}

/* The copy of a super-packet is plaintext, and nobody needs it any more. */
static __always_inline void wl_forget_super(struct wl_work *w)
{
	__u32 cpu = bpf_get_smp_processor_id(), len = w->super;
	struct wl_super *super = bpf_map_lookup_elem(&supers, &cpu);

	wl_hide(len);
	if (super && len)
		wl_zero(super->bytes, ((len - 1) & (WL_SUPER_MAX - 1)) + 1);
}

#endif
