/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The rules that say what may pass, as the daemon writes them (crates/ebpf/src/rules.rs), and what they have taken.
 *
 * There are two sets of WL_RULES_MAX rules, of which one is in force: `device.policy` tells which, and how many there are. Its lower half is
 * their number; its upper half counts the replacements, and its lowest bit is the set. Zero: there are none. The daemon writes the
 * other set and then the word. Who reads takes the word, reads, and takes it again: unchanged says that nobody has begun to write
 * into the set that was read.
 *
 * What a rule has taken and what its limit remembers lie in cells, apart from the rules: a rule keeps its cell when it is told of other peers,
 * and gets an empty one when it is new. `rule_buckets` is memory that the daemon has before it too, so that what is limited is
 * limited for both together.
 */
#ifndef WL_RULES_H
#define WL_RULES_H

#include "helpers.h"
#include "layout.h"

#define WL_RULES_MAX 64

/* Instead of a peer's slot. */
#define WL_ANYBODY 0xffffffffu
#define WL_NOBODY 0xfffffffeu

enum wl_action {
	WL_ACTION_PASS,
	WL_ACTION_DROP,
	WL_ACTION_LIMIT_BYTES,
	WL_ACTION_LIMIT_PACKETS,
};

/* What a packet must be. Everything that is not said is written so that all packets are. */
struct wl_rule {
	__u32 peer; /* slot, WL_ANYBODY or WL_NOBODY */
	__u32 cell;
	__u8 action;
	__u8 directions;	 /* bits: 1 out, 2 in */
	__u8 source_family;	 /* 4, 6; 0: either */
	__u8 destination_family;
	__u8 has_protocol;
	__u8 protocol;
	__u8 has_ports; /* only packets that show ports */
	__u8 reserved;
	__u16 source_first, source_last; /* host byte order */
	__u16 destination_first, destination_last;
	__u32 source[4], source_mask[4]; /* as on the wire; of IPv4 the first */
	__u32 destination[4], destination_mask[4];
	__u64 per_second; /* bytes or packets */
	__u64 burst;	  /* ns */
};

struct wl_rule_count {
	__u64 packets, bytes, dropped;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * WL_RULES_MAX);
	__type(key, __u32);
	__type(value, struct wl_rule);
} rules SEC(".maps");

/* By cell. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * WL_RULES_MAX);
	__type(key, __u32);
	__type(value, struct wl_rule_count);
} rule_counts SEC(".maps");

/* By cell: until when, at the limit's rate, all is through that has passed (ns, CLOCK_BOOTTIME); changed by compare-and-swap. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * WL_RULES_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} rule_buckets SEC(".maps");

#endif
