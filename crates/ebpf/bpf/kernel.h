/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The kernel as far as our programs look at it.
 *
 * First what is fixed: the interface to programs (include/uapi/linux/bpf.h) and headers on the wire. Then what is the kernel's
 * own and moves between its versions: of those structs only the members that we read, and `preserve_access_index` has the loader
 * find where they lie in the running kernel (CO-RE).
 */
#ifndef WL_KERNEL_H
#define WL_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

/* --- The interface to programs --- */

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_F_NO_PREALLOC = 1U << 0,
	BPF_F_MMAPABLE = 1U << 10,
	/* bpf_redirect */
	BPF_F_INGRESS = 1ULL << 0,
	/* bpf_skb_store_bytes */
	BPF_F_RECOMPUTE_CSUM = 1ULL << 0,
};

enum { BPF_CSUM_LEVEL_QUERY, BPF_CSUM_LEVEL_INC };

enum bpf_adj_room_mode { BPF_ADJ_ROOM_NET, BPF_ADJ_ROOM_MAC };

enum { TC_ACT_UNSPEC = -1, TC_ACT_OK = 0, TC_ACT_SHOT = 2, TC_ACT_REDIRECT = 7 };

enum xdp_action { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };

struct bpf_timer {
	__u64 opaque[2];
} __attribute__((aligned(8)));

/* As far as programs at TC may use it. */
struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
	__u8 tstamp_type;
	__u64 hwtstamp;
};

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

struct bpf_redir_neigh {
	__u32 nh_family;
	union {
		__be32 ipv4_nh;
		__u32 ipv6_nh[4];
	};
};

/* --- On the wire --- */

enum { AF_INET = 2, AF_INET6 = 10 };
enum { ETH_P_IP = 0x0800, ETH_P_IPV6 = 0x86dd };
enum { IPPROTO_ICMP = 1, IPPROTO_TCP = 6, IPPROTO_UDP = 17, IPPROTO_FRAGMENT = 44, IPPROTO_ICMPV6 = 58 };

struct ethhdr {
	__u8 h_dest[6];
	__u8 h_source[6];
	__be16 h_proto;
} __attribute__((packed));

struct iphdr {
	__u8 ihl : 4, version : 4;
	__u8 tos;
	__be16 tot_len;
	__be16 id;
	__be16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__be32 saddr;
	__be32 daddr;
};

struct ipv6hdr {
	__be32 flow;
	__be16 payload_len;
	__u8 nexthdr;
	__u8 hop_limit;
	__u32 saddr[4];
	__u32 daddr[4];
};

struct udphdr {
	__be16 source;
	__be16 dest;
	__be16 len;
	__u16 check;
};

struct tcphdr {
	__be16 source;
	__be16 dest;
	__be32 seq;
	__be32 ack_seq;
	__u8 off;
	__u8 flags;
	__be16 window;
	__u16 check;
	__be16 urg_ptr;
};

/* --- The kernel's own: read by CO-RE --- */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sk_buff {
	unsigned char *head;
	unsigned char *data;
	__u32 len;
	__u32 data_len;
	__u16 transport_header;
	__u16 network_header;
	__u16 mac_header;
	__u16 csum_start;
	__u16 csum_offset;
	__u32 end;
	__u8 ip_summed : 2;
	__u8 csum_not_inet : 1; /* not in kernels without SCTP */
};

struct net_device {
	const unsigned char *dev_addr;
};

struct xdp_rxq_info {
	struct net_device *dev;
};

/* What an xdp_md stands for. */
struct xdp_buff {
	struct xdp_rxq_info *rxq;
};

struct skb_shared_info {
	__u8 nr_frags;
	__u16 gso_size;
	__u16 gso_segs;
	__u32 gso_type;
};

#pragma clang attribute pop

#endif
