/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Keys end with their sessions, whoever is still there to see to it: a timer of the kernel wipes them.
 *
 * The daemon starts it when it has written a session's keys, and starts it anew when the slot has the next session's. A timer that goes
 * off for a session that is no longer there finds one that is young, and leaves it alone. The epoch goes first: who copies the keys
 * meanwhile looks at it afterwards.
 */
#ifndef WL_EXPIRY_H
#define WL_EXPIRY_H

#include "maps.h"

#define WL_CLOCK_BOOTTIME 7

static int wl_expired(void *map, __u32 *slot, struct wl_keys *pair)
{
	__u32 of = *slot;
	struct wl_ledger *ledger = bpf_map_lookup_elem(&ledgers, &of);

	(void)map;
	if (ledger && bpf_ktime_get_boot_ns() - READ_ONCE(ledger->created) < wl_reject_after_time)
		return 0;
	(void)__sync_lock_test_and_set(&pair->epoch, 0);
	__builtin_memset(pair->send, 0, sizeof(pair->send));
	__builtin_memset(pair->receive, 0, sizeof(pair->receive));
	return 0;
}

/* Has the keys of a slot wiped after so long. Returns 0, or a negative error of the kernel's. */
static __always_inline long wl_wipe_after(__u32 slot, __u64 after)
{
	struct wl_keys *pair = bpf_map_lookup_elem(&keys, &slot);
	long error;

	if (!pair)
		return -2; /* ENOENT */
	error = bpf_timer_init(&pair->timer, &keys, WL_CLOCK_BOOTTIME);
	if (error && error != -16) /* EBUSY: the slot has had one before */
		return error;
	error = bpf_timer_set_callback(&pair->timer, wl_expired);
	return error ? error : bpf_timer_start(&pair->timer, after, 0);
}

#endif
