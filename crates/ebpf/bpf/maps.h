/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The maps that the programs work with, and the limits that the loader sets. What the maps hold is told in layout.h.
 *
 * The sizes here are those of a device with a few hundred peers; the loader may set others.
 */
#ifndef WL_MAPS_H
#define WL_MAPS_H

#include "helpers.h"
#include "layout.h"
#include "scratch.h"
#include "work.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct wl_device);
} device SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct wl_peer);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct wl_ledger);
} ledgers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct wl_keys);
} keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} sessions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wl_key4);
	__type(value, __u32);
} allowed4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wl_key6);
	__type(value, __u32);
} allowed6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct wl_traffic);
} traffic SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wl_scratch);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wl_work);
} work SEC(".maps");

/* Nanoseconds, and numbers of messages: crates/noise/src/limits.rs. Tests have shorter ones. */
const volatile __u64 wl_rekey_after_time = 120000000000ull;
const volatile __u64 wl_reject_after_time = 180000000000ull;
const volatile __u64 wl_rekey_on_receive_after = 165000000000ull;
const volatile __u64 wl_rekey_after_messages = 1ull << 60;
const volatile __u64 wl_reject_after_messages = ~0ull - (1 << 13);

#endif
