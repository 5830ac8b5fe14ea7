/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Sessions: from a reference to a key and a counter.
 *
 * A reference names a slot and the epoch in which its session lives. The daemon may end the session and, much later, use the slot for another
 * one at any time, so the order is: the epoch is as the reference says; a counter is taken; the key is copied; the epoch is
 * *still* as it says, with the key too. Then key and counter belong together, and to this session. A counter that was taken in vain is skipped.
 *
 * Each counter is handed out once, since all who send take it by an atomic addition to the same word. It is looked at before and after: at
 * or beyond the limit nothing is sent, and those who look before they add keep the word from ever reaching its end.
 *
 * A session is too old after wl_reject_after_time whoever is there to say so; a timer then wipes its key (expiry.h).
 */
#ifndef WL_SESSION_H
#define WL_SESSION_H

#include "maps.h"

/* The session's ledger, if it lives. Its slot and epoch are noted. */
static __always_inline struct wl_ledger *wl_session(struct wl_work *w, __u64 ref)
{
	__u32 slot = ref >> 32, epoch = ref;
	struct wl_ledger *ledger;

	if (!(epoch & 1))
		return NULL;
	ledger = bpf_map_lookup_elem(&ledgers, &slot);
	if (!ledger || READ_ONCE(ledger->epoch) != epoch)
		return NULL;
	w->slot = slot;
	w->epoch = epoch;
	return ledger;
}

static __always_inline __u64 wl_age(const struct wl_work *w, const struct wl_ledger *ledger)
{
	__u64 created = READ_ONCE(ledger->created);

	return w->now > created ? w->now - created : 0;
}

/* Whether it may be received with. */
static __always_inline bool wl_young(const struct wl_work *w, const struct wl_ledger *ledger)
{
	return wl_age(w, ledger) < wl_reject_after_time;
}

/* Whether `n` messages may be sent with it. */
static __always_inline bool wl_may_send(const struct wl_work *w, const struct wl_ledger *ledger, __u32 n)
{
	__u64 next = READ_ONCE(ledger->next_counter);

	return wl_young(w, ledger) && READ_ONCE(ledger->may_send) && READ_ONCE(ledger->awaits_confirmation) != WL_AWAITS &&
	       next < wl_reject_after_messages && wl_reject_after_messages - next >= n;
}

/* Takes `n` counters, of which the first is returned; wl_reject_after_messages or more if there are not as many. */
static __always_inline __u64 wl_take_counters(struct wl_ledger *ledger, __u32 n)
{
	__u64 first = __sync_fetch_and_add(&ledger->next_counter, n);

	if (first >= wl_reject_after_messages || wl_reject_after_messages - first < n)
		return wl_reject_after_messages;
	return first;
}

/*
 * Copies a key of the session to where the cipher wants it; false, and there is none, if the session has ended. A key of zeros is none:
 * whoever wipes a pair by one call (the steward, who writes no ledger) has wiped the keys a moment before their epoch.
 */
static __always_inline bool wl_take_key(struct wl_work *w, const struct wl_ledger *ledger, struct wl_scratch *s, bool send)
{
	__u32 slot = w->slot, any = 0;
	struct wl_keys *pair = bpf_map_lookup_elem(&keys, &slot);
	int i;

	if (!pair)
		return false;
	__builtin_memcpy(s->key, send ? pair->send : pair->receive, sizeof(s->key));
	wl_fence(&w->fence);
	for (i = 0; i < 8; i++)
		any |= s->key[i];
	if (any && READ_ONCE(ledger->epoch) == w->epoch && READ_ONCE(pair->epoch) == w->epoch)
		return true;
	__builtin_memset(s->key, 0, sizeof(s->key));
	return false;
}

/* Turns a flag on; whether it was off. Reads first, since nearly always it is on. */
static __always_inline bool wl_first_time(__u32 *flag)
{
	return !READ_ONCE(*flag) && !__sync_lock_test_and_set(flag, 1);
}

/* After sending: whether a new session should be asked for. */
static __always_inline bool wl_rekey_due_on_send(const struct wl_work *w, struct wl_ledger *ledger)
{
	bool due = READ_ONCE(ledger->next_counter) >= wl_rekey_after_messages ||
		   (READ_ONCE(ledger->is_initiator) && wl_age(w, ledger) >= wl_rekey_after_time);

	return due && wl_first_time(&ledger->rekey_asked_on_send);
}

/* After receiving: whether the initiator, who may only receive, should ask for a new session before this one runs out. */
static __always_inline bool wl_rekey_due_on_receive(const struct wl_work *w, struct wl_ledger *ledger)
{
	return READ_ONCE(ledger->is_initiator) && wl_age(w, ledger) >= wl_rekey_on_receive_after &&
	       wl_first_time(&ledger->rekey_asked_on_receive);
}

static __always_inline void wl_raise(__u32 kind, __u32 peer)
{
	struct wl_event event = { .kind = kind, .peer = peer };

	/* A ring that is full has a daemon that will look at all peers (engine/events.rs). */
	bpf_ringbuf_output(&events, &event, sizeof(event), 0);
}

/*
 * A message has proved that the initiator has the keys: from here on we send with them, as what it has sent with before may be gone by now. That
 * is done here, and the daemon told, since there may be none at the moment: the initiator uses no other session from its first message on.
 */
static __always_inline void wl_confirm(struct wl_work *w, struct wl_peer *peer, struct wl_ledger *ledger)
{
	if (READ_ONCE(ledger->awaits_confirmation) != WL_AWAITS ||
	    __sync_val_compare_and_swap(&ledger->awaits_confirmation, WL_AWAITS, WL_CONFIRMED) != WL_AWAITS)
		return;
	if (READ_ONCE(ledger->may_send) && READ_ONCE(ledger->epoch) == w->epoch)
		WRITE_ONCE(peer->current, (__u64)w->slot << 32 | w->epoch);
	wl_raise(WL_EVENT_CONFIRMED, w->slot);
}

#endif
