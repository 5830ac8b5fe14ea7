/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * How a program is written down: sections, maps, and the kernel's helpers that we call.
 *
 * The helpers are numbers to the kernel (include/uapi/linux/bpf.h, `enum bpf_func_id` by the list in __BPF_FUNC_MAPPER), so a
 * prototype and a number are all it takes. That is why nothing here comes from headers of the machine that builds: the same
 * sources make the same object anywhere. All of these are in Linux 6.1.
 */
#ifndef WL_HELPERS_H
#define WL_HELPERS_H

#include "kernel.h"

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))

/* A map is a struct in SEC(".maps") whose members carry its properties in their types (libbpf's BTF-defined maps). */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

/*
 * The licence, which the kernel asks for: it ends at the zero. What follows is for whoever wants to know which sources a program
 * was made of; `cargo xtask bpf` gives their digest.
 */
#ifndef WL_SOURCES
#define WL_SOURCES "unknown"
#endif
#define WL_LICENSE const char LICENSE[] SEC("license") = "Dual MIT/GPL\0sources blake2s " WL_SOURCES

/* The compiler loses sight of where a value came from, so what bounds it cannot be reasoned away. */
#define wl_hide(x) asm volatile("" : "+r"(x))

/*
 * A barrier for memory, on all machines: reads and writes before it come before those behind it. An exchange that gives back what was there is
 * ordered fully, as the kernel's are; `word` is one of the CPU's own.
 */
#define wl_fence(word) ((void)__sync_lock_test_and_set(word, 0))

#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))

#define wl_htons(x) ((__be16)__builtin_bswap16((__u16)(x)))
#define wl_ntohs(x) __builtin_bswap16((__u16)(x))
#define wl_htonl(x) ((__be32)__builtin_bswap32((__u32)(x)))
#define wl_ntohl(x) __builtin_bswap32((__u32)(x))

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static long (*const bpf_skb_store_bytes)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 len,
					 __u64 flags) = (void *)9;
static long (*const bpf_clone_redirect)(struct __sk_buff *skb, __u32 ifindex, __u64 flags) = (void *)13;
static long (*const bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*const bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)26;
static __s64 (*const bpf_csum_diff)(__be32 *from, __u32 from_size, __be32 *to, __u32 to_size, __wsum seed) = (void *)28;
static long (*const bpf_skb_change_proto)(struct __sk_buff *skb, __be16 proto, __u64 flags) = (void *)31;
static long (*const bpf_skb_vlan_pop)(struct __sk_buff *skb) = (void *)19;
static long (*const bpf_skb_change_tail)(struct __sk_buff *skb, __u32 len, __u64 flags) = (void *)38;
static long (*const bpf_skb_pull_data)(struct __sk_buff *skb, __u32 len) = (void *)39;
static void (*const bpf_set_hash_invalid)(struct __sk_buff *skb) = (void *)41;
static long (*const bpf_skb_change_head)(struct __sk_buff *skb, __u32 len, __u64 flags) = (void *)43;
static long (*const bpf_xdp_adjust_head)(struct xdp_md *xdp, int delta) = (void *)44;
static long (*const bpf_skb_adjust_room)(struct __sk_buff *skb, __s32 len, __u32 mode, __u64 flags) = (void *)50;
static long (*const bpf_xdp_adjust_meta)(struct xdp_md *xdp, int delta) = (void *)54;
static long (*const bpf_xdp_adjust_tail)(struct xdp_md *xdp, int delta) = (void *)65;
static long (*const bpf_skb_load_bytes_relative)(const void *skb, __u32 offset, void *to, __u32 len, __u32 header) = (void *)68;
static long (*const bpf_csum_level)(struct __sk_buff *skb, __u64 level) = (void *)135;
static long (*const bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
static __u64 (*const bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*const bpf_ringbuf_output)(void *ringbuf, void *data, __u64 size, __u64 flags) = (void *)130;
static long (*const bpf_redirect_neigh)(__u32 ifindex, struct bpf_redir_neigh *params, int len, __u64 flags) = (void *)152;
static long (*const bpf_timer_init)(struct bpf_timer *timer, void *map, __u64 flags) = (void *)169;
static long (*const bpf_timer_set_callback)(struct bpf_timer *timer, void *callback) = (void *)170;
static long (*const bpf_timer_start)(struct bpf_timer *timer, __u64 after, __u64 flags) = (void *)171;
static long (*const bpf_xdp_get_buff_len)(struct xdp_md *xdp) = (void *)188;
static long (*const bpf_xdp_load_bytes)(struct xdp_md *xdp, __u32 offset, void *to, __u32 len) = (void *)189;
static long (*const bpf_xdp_store_bytes)(struct xdp_md *xdp, __u32 offset, void *from, __u32 len) = (void *)190;

#endif
