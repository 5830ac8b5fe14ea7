/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the kernel knows of a packet and does not tell programs of older kernels: read out of `struct sk_buff` where CO-RE finds it.
 *
 * Almost every TCP packet comes to a program with its checksum begun only: the field holds the sum of the pseudo header, and the packet's
 * user, usually a network card, is to sum up the rest from `csum_start` on and put the result at `csum_offset` behind it. What is
 * sealed has to be finished. The kernel takes back that wish by itself when the start of a packet moves past `csum_start`.
 */
#ifndef WL_SKB_H
#define WL_SKB_H

#include "helpers.h"
#include "work.h"

#define WL_CHECKSUM_PARTIAL 3

#define wl_field(kind, field) __builtin_preserve_field_info(field, kind)
enum { WL_BYTE_OFFSET = 0, WL_BYTE_SIZE = 1, WL_EXISTS = 2, WL_SHIFT_LEFT = 4, WL_SHIFT_RIGHT = 5 };

#define wl_read(to, field) bpf_probe_read_kernel(&(to), sizeof(to), __builtin_preserve_access_index(&(field)))

#define wl_read_bits(skb, field)                                                                                               \
	({                                                                                                                     \
		__u64 value_ = 0;                                                                                              \
		bpf_probe_read_kernel(&value_, wl_field(WL_BYTE_SIZE, (skb)->field),                                           \
				      (const char *)(skb) + wl_field(WL_BYTE_OFFSET, (skb)->field));                           \
		value_ <<= wl_field(WL_SHIFT_LEFT, (skb)->field);                                                              \
		value_ >> wl_field(WL_SHIFT_RIGHT, (skb)->field);                                                              \
	})

static __always_inline __u32 wl_ip_summed(struct __sk_buff *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx;

	return wl_read_bits(skb, ip_summed);
}

/* Whether what is to be finished is SCTP's: a CRC, and no sum as all others have. */
static __always_inline bool wl_wants_crc(struct __sk_buff *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx;

	return wl_field(WL_EXISTS, skb->csum_not_inet) && wl_read_bits(skb, csum_not_inet);
}

/*
 * Where the checksum that is to be finished begins and where it goes, both from the start of the packet; whether there is one.
 * False also if it is another kind of sum, or lies where no header is, which nobody should ask for: `*ok` tells.
 */
static __always_inline bool wl_partial(struct __sk_buff *ctx, __u32 *start, __u32 *at, bool *ok)
{
	struct sk_buff *skb = (struct sk_buff *)ctx;
	unsigned char *head = NULL, *data = NULL;
	__u16 from = 0, offset = 0;

	*ok = true;
	if (wl_ip_summed(ctx) != WL_CHECKSUM_PARTIAL)
		return false;
	wl_read(head, skb->head);
	wl_read(data, skb->data);
	wl_read(from, skb->csum_start);
	wl_read(offset, skb->csum_offset);
	*start = (__u32)from - (__u32)(data - head);
	*at = *start + offset;
	*ok = *start >= sizeof(struct iphdr) && *start <= WL_TRANSPORT_MAX && offset <= 64 && !((*start | offset) & 1) &&
	      !wl_wants_crc(ctx);
	return *ok;
}

/* Bytes of the link's header: its packets begin with that at TC ingress. */
static __always_inline __u32 wl_mac_len(struct __sk_buff *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx;
	__u16 mac = 0, network = 0;

	wl_read(mac, skb->mac_header);
	wl_read(network, skb->network_header);
	return (__u16)(network - mac);
}

#endif
