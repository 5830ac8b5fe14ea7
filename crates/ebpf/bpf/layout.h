/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the programs and the daemon share: the maps, and what lies in them.
 *
 * Three arrays are memory that both sides have before them (BPF_F_MMAPABLE), and both change it by atomics only: `device`, `peers` and
 * `ledgers`. So nobody rewinds a counter or forgets a replay mark, whoever handles a packet. Keys are not in memory that anybody maps.
 *
 * How a session comes and goes (the daemon's part; `epoch` is even but while the session lives):
 *   a free slot, quarantined since its last use -> ledger reset, key written -> epoch + 1 (odd: it lives) -> index into `sessions`
 *   -> (if it may send) `peers[].current`.   It ends: out of `current` and `sessions` -> epoch + 1 (even) -> key overwritten.
 * Who uses a key copies it and then looks at the epoch again: unchanged says that the copy is whole and this session's.
 *
 * crates/noise mirrors wl_notes (Notes) and wl_ledger (Ledger), crates/ebpf/src/layout.rs the rest; a test compares them with this file's BTF.
 */
#ifndef WL_LAYOUT_H
#define WL_LAYOUT_H

#include "kernel.h"

#define WL_LAYOUT 3

#define WL_WINDOW_WORDS 512 /* of 32 counters each: more than 8192 + 32, and a power of two, so that the index is a mask */
#define WL_NONE 0xffffffffu /* no slot; as a value of `allowed*`: a peer that the programs do not serve */

/* A session, as others name it: its slot, and the epoch in which it lives. Zero: none (a live epoch is odd). */
/* u64 ref = (u64)slot << 32 | epoch */

/* noise::Notes: see crates/noise/src/activity.rs for the protocol. Nanoseconds of CLOCK_BOOTTIME; 0: never. */
struct wl_notes {
	__u64 awaiting_since;
	__u64 owing_since;
	__u64 last_data_sent;
	__u64 last_traversal;
	__u32 owing_more;
	__u32 armed; /* bits: 1 AWAITING, 2 OWING */
};

/* noise::Ledger: what changes in a session while packets move, and what both sides must agree about. */
struct wl_ledger {
	__u64 next_counter;  /* to send with: fetch-add; at or beyond REJECT_AFTER_MESSAGES nothing is sent */
	__u64 received_next; /* one more than the greatest counter received: only grows, by compare-and-swap */
	__u64 arrived;	     /* messages that were new */
	__u64 created;	     /* ns, CLOCK_BOOTTIME */
	__u32 epoch;
	__u32 may_send;		     /* 0: our private key changed */
	__u32 awaits_confirmation;   /* WL_AWAITS: responder, and nothing authentic has come yet; then WL_CONFIRMED, until the daemon knows */
	__u32 is_initiator;
	__u32 rekey_asked_on_send;   /* whoever turns it from 0 to 1 raises WL_EVENT_REKEY */
	__u32 rekey_asked_on_receive;
	__u32 local_index;  /* as read from the wire, little endian */
	__u32 remote_index;
	__u32 peer; /* slot */
	__u32 reserved[3];
	/* Word (counter >> 5) % WL_WINDOW_WORDS: upper half the low 32 bits of counter >> 5, plus one (0: untouched); lower half a bit per counter.
	 * Compare-and-swap of the word commits a counter; one that is older than its word's tag, or 8192 or more behind received_next - 1, is refused. */
	__u64 window[WL_WINDOW_WORDS];
};

struct wl_address { /* 16 bytes: IPv6, or IPv4 in the first four */
	__u8 bytes[16];
};

/* The way to a peer, found by the daemon (route, neighbour, source address) and followed by it. */
struct wl_path {
	struct wl_address remote, local;
	struct wl_address gateway; /* next hop, if `has_gateway`; else the peer itself is a neighbour */
	__be16 remote_port;
	__u8 family;	  /* 4, 6; 0: none, leave its packets to the daemon */
	__u8 has_gateway; /* 0, or the family of `gateway`: 4, 6 */
	__u32 ifindex;	  /* where it leaves */
	__u32 mtu;	  /* of the path, bytes of IP packet */
	__u32 has_mac;	  /* h_dest, h_source are known (for super-packets, which are cloned and not looked up) */
	__u8 h_dest[6], h_source[6];
	__u32 mark;	  /* the device's fwmark, put on what leaves */
};

struct wl_peer {
	struct wl_notes notes;
	__u64 current;	  /* ref of the session to send with */
	__u32 path_seq;	  /* odd while `path` is being written; readers copy and look again */
	__u32 flags;	  /* reserved for policy */
	struct wl_path path;
	__u8 tag[32];	  /* who this is, for a successor of the daemon */
	__u32 in_use;
	__u32 reserved[3];
};

/*
 * `keys`, by session slot, with the epoch that they are for. The timer, which `wl_arm` starts, wipes them when the session is past its age,
 * whoever else is still there. (User space writes keys and epoch. With that the kernel takes a timer away that the slot has had, so
 * it is started after the keys are written, and not before.)
 */
struct wl_keys {
	__u8 send[32];
	__u8 receive[32];
	__u32 epoch;
	__u32 reserved;
	struct bpf_timer timer; /* 16 bytes */
};

/* What `wl_arm` (a SYSCALL program) is run with. */
struct wl_arm {
	__u32 slot;
	__u32 reserved;
	__u64 after; /* ns from now */
};

struct wl_device { /* one */
	__u32 layout;
	__u32 enabled;	     /* 0: everything is left to the daemon */
	__u32 inner_ifindex; /* wg0 */
	__u32 inner_mtu;
	__be16 port;	     /* where we listen */
	__u16 reserved0;
	__u32 number;	     /* by chance: by it our marks (ingress_xdp.h) are told from those of other devices */
	__u64 last_tai64n[2]; /* the last timestamp sent, for a successor */
	__u64 policy;	     /* number of rules in force; 0: none are looked at */
};

struct wl_traffic { /* per CPU, by peer slot; bytes of WireGuard messages, as wg counts */
	__u64 tx_bytes, rx_bytes, tx_packets, rx_packets;
};

/* `limits`, const volatile in .rodata, set by the loader (shorter in tests): */
/* wl_reject_after_time, wl_rekey_after_time, wl_rekey_on_receive_after (ns), wl_rekey_after_messages, wl_reject_after_messages */

/* What `awaits_confirmation` says, or 0. */
enum wl_confirmation { WL_AWAITS = 1, WL_CONFIRMED = 2 };

/* The number in an event is a peer's slot, but in the last that of a session. */
enum wl_event_kind { WL_EVENT_ACTIVITY = 1, WL_EVENT_REKEY = 2, WL_EVENT_CONFIRMED = 3 };
struct wl_event { /* ring buffer `events` */
	__u32 kind;
	__u32 peer; /* slot */
};

/*
 * Maps:
 *   device    ARRAY mmapable, 1            wl_device
 *   peers     ARRAY mmapable, max_peers    wl_peer
 *   ledgers   ARRAY mmapable, max_sessions wl_ledger
 *   keys      ARRAY, max_sessions          wl_keys
 *   sessions  HASH  u32 local_index -> u64 ref
 *   allowed4, allowed6  LPM_TRIE {u32 prefixlen; address} -> u32 peer slot or WL_NONE
 *   traffic   PERCPU_ARRAY, max_peers      wl_traffic
 *   counts    PERCPU_ARRAY of u64: what was taken, left and dropped, by reason (enum wl_count)
 *   events    RINGBUF
 *   scratch   PERCPU_ARRAY, 1              wl_scratch: the message in work
 *   work      PERCPU_ARRAY, 1              wl_work: all else that is known of it
 *   supers    ARRAY, one for each possible CPU (the loader says how many): a super-packet while it is cut
 * Rules of the policy: rules.h.
 */
#endif
