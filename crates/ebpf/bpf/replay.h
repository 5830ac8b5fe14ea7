/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The replay window: which counters of a session have been seen.
 *
 * A ring of words without a lock, which programs on all CPUs and the daemon change by compare-and-swap. A word covers 32
 * counters and says which 32 (their common upper bits, of which it keeps 32, plus one): who finds it telling of older ones takes it
 * over, who finds it telling of newer ones is too late. So a word only moves forward, a bit in it is set once, and a counter is new once.
 *
 * What was received last moves first, then the word: whoever finds a word moved on sees, looking afterwards, how far the
 * session has come, and refuses what is too far behind, however far the jump. (A word's 32 bits are too few to tell after a jump of 2^36.)
 */
#ifndef WL_REPLAY_H
#define WL_REPLAY_H

#include "maps.h"

#define WL_WINDOW 8192

/* How often a swap is tried that others spoil. */
#define WL_TRIES 16

_Static_assert((WL_WINDOW_WORDS & (WL_WINDOW_WORDS - 1)) == 0, "the index is a mask");
_Static_assert(WL_WINDOW_WORDS * 32 >= WL_WINDOW + 32, "the newest word is only partly filled");

/* Whether `counter` may still be new when everything seen is below `next`. */
static __always_inline bool wl_in_window(__u64 counter, __u64 next)
{
	return counter < wl_reject_after_messages && (counter >= next || next - counter <= WL_WINDOW);
}

/* A cheap look: false says that the counter is too old or out of range, true promises nothing. */
static __always_inline bool wl_looks_new(const struct wl_ledger *ledger, __u64 counter)
{
	return wl_in_window(counter, READ_ONCE(ledger->received_next));
}

/* Whether the counter, of an authentic message, is new; from now on it is not. */
static __always_inline bool wl_commit(struct wl_ledger *ledger, __u64 counter)
{
	__u64 next = READ_ONCE(ledger->received_next);
	__u64 block = counter >> 5;
	__u32 tag = (__u32)block + 1, bit = 1u << (counter & 31);
	__u64 *word = &ledger->window[block & (WL_WINDOW_WORDS - 1)];
	__u64 old, found;
	bool behind;
	int i;

	if (!wl_in_window(counter, next))
		return false;
	behind = counter < next;
	for (i = 0; i < WL_TRIES && !behind; i++) {
		found = __sync_val_compare_and_swap(&ledger->received_next, next, counter + 1);
		behind = found == next || counter < found;
		next = found;
	}
	/* Others have spoilt all tries, and no word may be marked that is ahead of what was received last. */
	if (!behind)
		return false;
	old = READ_ONCE(*word);
	for (i = 0; i < WL_TRIES; i++) {
		__u32 told = old >> 32;
		__u64 new = (__u64)tag << 32 | bit;

		if (!wl_in_window(counter, READ_ONCE(ledger->received_next)))
			return false;
		if (old && told == tag) {
			if (old & bit)
				return false;
			new = old | bit;
		} else if (old && (__s32)(tag - told) < 0) {
			return false;
		}
		found = __sync_val_compare_and_swap(word, old, new);
		if (found == old) {
			__sync_fetch_and_add(&ledger->arrived, 1);
			return true;
		}
		old = found;
	}
	return false;
}

#endif
