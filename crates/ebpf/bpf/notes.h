/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What is noted of a peer's packets for the timers: the data plane's half of crates/noise/src/activity.rs, which tells the protocol.
 *
 * Who makes something pending and finds that no deadline is armed for it arms it, and tells the daemon. Each side writes its own word
 * before it reads the other's (atomics are sequentially consistent here), so that no wakeup is lost.
 */
#ifndef WL_NOTES_H
#define WL_NOTES_H

#include "session.h"

#define WL_AWAITING 1
#define WL_OWING 2

/* The time of the last packet is written when it moved by so much, in ns. */
#define WL_GRAIN 1000000

static __always_inline void wl_note(__u64 *last, __u64 now)
{
	if (now >= READ_ONCE(*last) + WL_GRAIN)
		WRITE_ONCE(*last, now);
}

/* Makes it begin, if it has not; whether it did. */
static __always_inline bool wl_begins(__u64 *since, __u64 now)
{
	return !READ_ONCE(*since) && !__sync_val_compare_and_swap(since, 0, now);
}

/* Something is pending since just now: tells the daemon, unless it has a deadline for that. */
static __always_inline void wl_told(struct wl_work *w, struct wl_notes *notes, __u32 what)
{
	if (!(__sync_fetch_and_or(&notes->armed, what) & what))
		wl_raise(WL_EVENT_ACTIVITY, w->peer);
}

/* Data was sealed and handed to the network. */
static __always_inline void wl_data_sent(struct wl_work *w, struct wl_notes *notes)
{
	wl_note(&notes->last_data_sent, w->now);
	wl_note(&notes->last_traversal, w->now);
	if (READ_ONCE(notes->owing_since)) {
		__sync_lock_test_and_set(&notes->owing_since, 0);
		WRITE_ONCE(notes->owing_more, 0);
	}
	if (wl_begins(&notes->awaiting_since, w->now))
		wl_told(w, notes, WL_AWAITING);
}

/* A message was received and authenticated: data, or (`empty`) a keepalive, which wants no answer. */
static __always_inline void wl_received(struct wl_work *w, struct wl_notes *notes, bool empty)
{
	wl_note(&notes->last_traversal, w->now);
	if (READ_ONCE(notes->awaiting_since))
		__sync_lock_test_and_set(&notes->awaiting_since, 0);
	if (empty)
		return;
	if (wl_begins(&notes->owing_since, w->now)) {
		wl_told(w, notes, WL_OWING);
		return;
	}
	if (!READ_ONCE(notes->owing_more))
		WRITE_ONCE(notes->owing_more, 1);
}

#endif
