/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The way in: a transport message is opened, checked, and becomes the inner packet, whoever carried it.
 *
 * Two steps, which TC and XDP share. The first looks at the headers in w->outer and says whether the message is for us to open; if not it is left
 * to the daemon, as it is. Then the caller copies it into the scratch area, and the second opens it: what is not authentic is dropped,
 * and nothing of it has changed anything. What is authentic but not ours to hand on is left as well, before its counter
 * is committed: to the daemon it is new. After the commit it is handed on or dropped.
 */
#ifndef WL_INGRESS_H
#define WL_INGRESS_H

#include "aead.h"
#include "counts.h"
#include "inner.h"
#include "notes.h"
#include "outer.h"
#include "path.h"
#include "policy.h"
#include "replay.h"
#include "session.h"

/* The longest message that is taken. */
#define WL_MESSAGE_MAX WL_SUM_MAX
_Static_assert(WL_MESSAGE_MAX <= WL_HEADER_LEN + WL_SEALED_MAX, "it has room");

/* A message on its way in, and whose it is. */
struct wl_entry {
	struct wl_device *dev;
	struct wl_peer *peer;
	struct wl_ledger *ledger;
};

/* What becomes of a packet. */
enum wl_fate { WL_FATE_LEAVE, WL_FATE_DROP, WL_FATE_PASS };

/*
 * Looks at a datagram whose first bytes are in w->outer: the headers, and the message's own in w->header.
 */
static __always_inline enum wl_fate wl_look(struct wl_work *w, struct wl_entry *e)
{
	const __u32 *header = w->header;
	__u32 index = header[1], slot;
	__u64 counter = header[2] | (__u64)header[3] << 32, *ref;
	__u32 len = w->arrival.len;

	if (header[0] != WL_DATA || len < WL_HEADER_LEN + WL_TAG_LEN) {
		wl_count((header[0] & 0xff) < WL_DATA ? WL_LEFT_HANDSHAKE : WL_LEFT_MALFORMED);
		return WL_FATE_LEAVE;
	}
	if (len > WL_MESSAGE_MAX) {
		wl_count(WL_LEFT_MALFORMED);
		return WL_FATE_LEAVE;
	}
	ref = bpf_map_lookup_elem(&sessions, &index);
	e->ledger = ref ? wl_session(w, *ref) : NULL;
	if (!e->ledger || READ_ONCE(e->ledger->local_index) != index) {
		wl_count(WL_LEFT_INDEX);
		return WL_FATE_LEAVE;
	}
	if (!wl_young(w, e->ledger)) {
		wl_count(WL_LEFT_EXPIRED);
		return WL_FATE_LEAVE;
	}
	w->peer = slot = READ_ONCE(e->ledger->peer);
	e->peer = bpf_map_lookup_elem(&peers, &slot);
	if (!e->peer || !wl_copy_path(w, e->peer) || w->path.family != w->arrival.family ||
	    w->path.remote_port != w->arrival.port ||
	    !wl_same_address(w->path.family, &w->path.remote, &w->arrival.source) ||
	    !wl_same_address(w->path.family, &w->path.local, &w->arrival.destination)) {
		wl_count(WL_LEFT_ROAMED);
		return WL_FATE_LEAVE;
	}
	if (!wl_looks_new(e->ledger, counter)) {
		wl_count(WL_DROP_REPLAYED);
		return WL_FATE_DROP;
	}
	return WL_FATE_PASS;
}

/* Whether the packet, w->inner, is one that the peer may send: 0, or why not. */
static __always_inline __u32 wl_judge(struct wl_work *w, const struct wl_entry *e, bool sound, const __u8 *packet)
{
	if (!sound)
		return WL_DROP_CONTENT;
	if (wl_owner(w, &w->inner.source) != w->peer)
		return WL_DROP_SOURCE;
	if (e->dev->policy && wl_policy(w, e->dev, packet, 1, WL_IN) != WL_PASS)
		return WL_DROP_POLICY;
	return 0;
}

/* Counts why, and says what becomes of the packet. */
static __always_inline enum wl_fate wl_refuse(__u32 why, enum wl_fate fate)
{
	wl_count(why);
	return fate;
}

/*
 * Opens the message in the scratch area. If it is to be handed on, the inner packet lies at data + 16 and w->inner tells of it.
 * `tight`: what the inner packet is at least to have left of the message, for the carrier's sake; less is left to the daemon.
 */
static __always_inline enum wl_fate wl_receive(struct wl_work *w, struct wl_scratch *s, struct wl_entry *e, __u32 tight)
{
	__u8 *packet = s->data + WL_HEADER_LEN;
	__u64 counter = *(__u64 *)(s->data + 8);
	__u32 wire = w->arrival.len, len = wire - WL_HEADER_LEN - WL_TAG_LEN, why, slot = w->peer;
	struct wl_traffic *moved;
	bool sound = false;

	if (len && wire - WL_HEADER_LEN < tight)
		return wl_refuse(WL_LEFT_MALFORMED, WL_FATE_LEAVE);
	if (!wl_take_key(w, e->ledger, s, false))
		return wl_refuse(WL_LEFT_INDEX, WL_FATE_LEAVE);
	s->nonce = counter;
	if (wl_open(s, wire - WL_HEADER_LEN))
		return wl_refuse(WL_DROP_FORGED, WL_FATE_DROP);
	if (len) {
		sound = wl_parse_inner(&w->inner, packet, len);
		if (sound && w->inner.len > e->dev->inner_mtu)
			return wl_refuse(WL_LEFT_OPENED, WL_FATE_LEAVE);
		if (sound && e->dev->policy && !wl_policy_sees(&w->inner))
			return wl_refuse(WL_LEFT_POLICY, WL_FATE_LEAVE);
	}
	if (READ_ONCE(e->ledger->epoch) != w->epoch)
		return wl_refuse(WL_LEFT_INDEX, WL_FATE_LEAVE);
	if (!wl_commit(e->ledger, counter))
		return wl_refuse(WL_DROP_REPLAYED, WL_FATE_DROP);
	wl_confirm(w, e->peer, e->ledger);
	wl_received(w, &e->peer->notes, !len);
	if (wl_rekey_due_on_receive(w, e->ledger))
		wl_raise(WL_EVENT_REKEY, slot);
	/* Not before the commit: who sends a message again must not use up what the rules allow. */
	why = len ? wl_judge(w, e, sound, packet) : 0;
	if (why)
		return wl_refuse(why, WL_FATE_DROP);
	moved = bpf_map_lookup_elem(&traffic, &slot);
	if (moved) {
		moved->rx_bytes += wire;
		moved->rx_packets++;
	}
	if (!len)
		return wl_refuse(WL_KEEPALIVE, WL_FATE_DROP);
	wl_decapsulate_ecn(&w->inner, packet, w->arrival.ecn);
	wl_count(WL_OPENED);
	return WL_FATE_PASS;
}

#endif
