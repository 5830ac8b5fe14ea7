/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The policy alone, in a program that is attached nowhere: the test that holds it against the daemon's evaluator runs it by BPF_PROG_TEST_RUN.
 *
 * The packet that it is given is a struct question, then the inner packet; what comes back is the same with the answer filled in.
 */
#include "policy.h"

struct question {
	/* So that the first 14 bytes, which the kernel takes for an Ethernet header, are nothing of ours. */
	__u8 ethernet[16];
	__u64 now;
	__u32 peer;
	__u32 packets;
	__u32 direction;
	/* Comes back: WL_PASS or WL_DROP; 2: not an IP packet, 3: not to be told here. */
	__u32 answer;
};

SEC("tc")
int ask(struct __sk_buff *skb)
{
	__u32 zero = 0, len = skb->len - sizeof(struct question);
	struct wl_device *dev = bpf_map_lookup_elem(&device, &zero);
	struct wl_scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	struct wl_work *w = bpf_map_lookup_elem(&work, &zero);
	struct question question;
	__u8 *packet;

	if (!dev || !s || !w || skb->len <= sizeof(question) || len > 2000 ||
	    bpf_skb_load_bytes(skb, 0, &question, sizeof(question)))
		return 1;
	packet = s->data + WL_HEADER_LEN;
	wl_hide(len);
	len = ((len - 1) & 2047) + 1;
	if (bpf_skb_load_bytes(skb, sizeof(question), packet, len))
		return 2;
	w->now = question.now;
	w->peer = question.peer;
	if (!wl_parse_inner(&w->inner, packet, len))
		question.answer = 2;
	else if (!wl_policy_sees(&w->inner))
		question.answer = 3;
	else
		question.answer = wl_policy(w, dev, packet, question.packets, question.direction & 1);
	return bpf_skb_store_bytes(skb, 0, &question, sizeof(question), 0) ? 3 : 0;
}

WL_LICENSE;
