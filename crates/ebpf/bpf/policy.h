/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Where rules decide about a packet: on its way out before it is sealed, on its way in once it has authenticated.
 *
 * The same is done by the daemon for what comes to it (crates/inet/src/policy.rs), to the letter: the first rule that takes a packet decides,
 * what none takes passes. Of packets whose transport header lies behind IPv6 extension headers the programs cannot tell what they
 * are; while rules are in force these are the daemon's (wl_policy_sees).
 *
 * The search is a function of its own, so that the verifier goes through it once. It compares without branching, or the verifier
 * would look at each way through each rule.
 */
#ifndef WL_POLICY_H
#define WL_POLICY_H

#include "inner.h"
#include "rules.h"

enum wl_verdict { WL_PASS, WL_DROP };
enum wl_direction { WL_OUT, WL_IN };

/* How often a search begins anew when the rules are replaced meanwhile, and a limit's word is tried when others change it. */
#define WL_POLICY_TRIES 3
#define WL_BUCKET_TRIES 16

/* The transport's ports, both, and above them whether it has any. */
#define WL_HAS_PORTS (1ull << 32)

/* Whether the rules can be held against the packet here. */
static __always_inline bool wl_policy_sees(const struct wl_inner *inner)
{
	return inner->family == 4 || !inner->fragment;
}

/* The ports of the inner packet, whose headers lie at `packet`, as wl_decide takes them: source above destination. */
static __always_inline __u64 wl_ports(const struct wl_inner *inner, const __u8 *packet)
{
	__u8 protocol = inner->protocol;
	__u32 at = inner->transport;

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != 33 && protocol != 132 && protocol != 136)
		return 0;
	/* A later fragment has none. */
	if (inner->family == 4 && (*(const __be16 *)(packet + 6) & wl_htons(0x1fff)))
		return 0;
	if (at + 4 > inner->len)
		return 0;
	wl_hide(at);
	at &= 63;
	return WL_HAS_PORTS | (__u64)wl_ntohs(*(const __be16 *)(packet + at)) << 16 | wl_ntohs(*(const __be16 *)(packet + at + 2));
}

static __always_inline __u32 wl_differs(const struct wl_address *address, const __u32 *want, const __u32 *mask)
{
	const __u32 *is = (const __u32 *)address;

	return ((is[0] & mask[0]) ^ want[0]) | ((is[1] & mask[1]) ^ want[1]) | ((is[2] & mask[2]) ^ want[2]) |
	       ((is[3] & mask[3]) ^ want[3]);
}

/* All ones if `port` is not from `first` to `last`, else zero. */
static __always_inline __u64 wl_outside(__u64 port, __u64 first, __u64 last)
{
	return (__u64)((__s64)((port - first) | (last - port)) >> 63);
}

/* Zero if the rule takes the packet. No branches; `wl_hide` keeps the compiler from making some. */
static __always_inline __u64 wl_misses(const struct wl_rule *rule, const struct wl_inner *inner, __u32 peer, __u64 ports,
				       enum wl_direction direction)
{
	__u64 misses, some, any;

	/* The peer is the rule's, or the rule is anybody's: a product is zero if either factor is. */
	misses = (__u64)(rule->peer ^ peer) * (__u64)(rule->peer ^ WL_ANYBODY);
	wl_hide(misses);
	misses |= !(rule->directions >> direction & 1);
	wl_hide(misses);
	some = (__u64)rule->source_family * (rule->source_family ^ inner->family);
	misses |= some;
	wl_hide(misses);
	some = (__u64)rule->destination_family * (rule->destination_family ^ inner->family);
	misses |= some;
	wl_hide(misses);
	misses |= wl_differs(&inner->source, rule->source, rule->source_mask);
	misses |= wl_differs(&inner->destination, rule->destination, rule->destination_mask);
	wl_hide(misses);
	some = (__u64)rule->has_protocol * (rule->protocol ^ inner->protocol);
	misses |= some;
	wl_hide(misses);
	any = wl_outside(ports >> 16 & 0xffff, rule->source_first, rule->source_last) |
	      wl_outside(ports & 0xffff, rule->destination_first, rule->destination_last) | !(ports >> 32);
	misses |= any * rule->has_ports;
	wl_hide(misses);
	return misses;
}

/* Whether the limit lets it through now: the generic cell rate algorithm (ITU-T I.371), as crates/inet/src/policy.rs tells it. */
static __always_inline bool wl_admits(__u64 *until, __u64 now, __u64 cost, __u64 burst)
{
	int i;

	for (i = 0; i < WL_BUCKET_TRIES; i++) {
		__u64 was = READ_ONCE(*until), ahead = was > now ? was - now : 0;

		if (ahead > burst)
			return false;
		if (__sync_val_compare_and_swap(until, was, now + ahead + cost) == was)
			return true;
	}
	return false;
}

/*
 * Finds the rule that takes the packet and carries it out. `what`: the direction in the lowest bit, above it how many packets it
 * stands for, and in the upper half their bytes together. Returns WL_PASS or WL_DROP.
 */
__noinline int wl_decide(struct wl_inner *inner, __u32 peer, __u64 ports, __u64 what, __u64 now)
{
	__u32 zero = 0, packets = (__u32)what >> 1, bytes = what >> 32, i, at, cell;
	struct wl_device *dev = bpf_map_lookup_elem(&device, &zero);
	struct wl_work *own = bpf_map_lookup_elem(&work, &zero);
	struct wl_rule_count *count;
	struct wl_rule *rule;
	__u64 policy, amount, *until;
	bool permitted = true;
	int try;

	if (!inner || !dev || !own)
		return WL_DROP;
	for (try = 0; try < WL_POLICY_TRIES; try++) {
		__u8 action = WL_ACTION_PASS;
		__u64 per_second = 0, burst = 0;

		policy = READ_ONCE(dev->policy);
		wl_fence(&own->fence);
		cell = WL_NONE;
		for (i = 0; i < WL_RULES_MAX; i++) {
			if (i >= (__u32)policy)
				break;
			at = i | (policy >> 32 & 1) * WL_RULES_MAX;
			rule = bpf_map_lookup_elem(&rules, &at);
			if (!rule)
				return WL_DROP;
			if (!wl_misses(rule, inner, peer, ports, what & 1)) {
				action = rule->action;
				cell = rule->cell;
				per_second = rule->per_second;
				burst = rule->burst;
				break;
			}
		}
		wl_fence(&own->fence);
		if (READ_ONCE(dev->policy) != policy)
			continue;
		if (cell == WL_NONE)
			return WL_PASS;
		until = bpf_map_lookup_elem(&rule_buckets, &cell);
		count = bpf_map_lookup_elem(&rule_counts, &cell);
		if (!until || !count)
			return WL_DROP;
		if (action == WL_ACTION_DROP) {
			permitted = false;
		} else if (action != WL_ACTION_PASS) {
			amount = action == WL_ACTION_LIMIT_BYTES ? bytes : packets;
			permitted = wl_admits(until, now, per_second ? amount * 1000000000 / per_second : 0, burst);
		}
		count->packets += packets;
		count->bytes += bytes;
		if (!permitted)
			count->dropped += packets;
		return permitted ? WL_PASS : WL_DROP;
	}
	return WL_DROP;
}

/*
 * The inner packet, parsed, of which at least the first 40 bytes and, where it has one, the transport header's first 20 lie at `packet`. A
 * super-packet is asked about once; it falls into `packets` segments, each with the headers that w->cut tells of. wl_policy_sees it.
 */
static __always_inline enum wl_verdict wl_policy(struct wl_work *w, const struct wl_device *dev, const __u8 *packet, __u32 packets,
						 enum wl_direction direction)
{
	__u64 bytes = w->inner.len;

	(void)dev;
	if (packets > 1)
		bytes += (packets - 1) * w->cut.head;
	return wl_decide(&w->inner, w->peer, wl_ports(&w->inner, packet), bytes << 32 | packets << 1 | direction, w->now) == WL_PASS ?
		       WL_PASS :
		       WL_DROP;
}

#endif
