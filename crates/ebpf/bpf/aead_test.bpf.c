/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The cipher alone, in programs that are attached nowhere: tests and measurements run them by BPF_PROG_TEST_RUN.
 *
 * The packet that they are given is a struct request and then a message; what comes back is the same, worked on. A message to
 * seal has room for its tag behind it.
 */
#include "aead.h"

struct request {
	/* So that the first 14 bytes, which the kernel takes for an Ethernet header, are nothing of ours. */
	__u8 ethernet[16];
	__u8 key[32];
	__u64 counter;
	/* Of what lies behind: bytes of payload to seal, or of payload and tag to open. */
	__u32 len;
	/* Comes back: what the function returned. */
	__s32 outcome;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wl_scratch);
} scratches SEC(".maps");

/* The request's message into this CPU's scratch area, `work` on it, and what comes of it back if so wished. */
static __always_inline int handle(struct __sk_buff *skb, int (*work)(struct wl_scratch *, __u32), bool back)
{
	struct wl_scratch *scratch;
	struct request request;
	__u32 zero = 0, size = skb->len - sizeof(request);

	scratch = bpf_map_lookup_elem(&scratches, &zero);
	if (!scratch || skb->len < sizeof(request) || bpf_skb_load_bytes(skb, 0, &request, sizeof(request)))
		return 1;
	__builtin_memcpy(scratch->key, request.key, sizeof(request.key));
	scratch->nonce = request.counter;
	/* The message and room for a tag. */
	if (size > WL_SEALED_MAX)
		return 2;
	if (size) {
		wl_hide(size);
		size = ((size - 1) & 2047) + 1;
		if (bpf_skb_load_bytes(skb, sizeof(request), scratch->data + WL_HEADER_LEN, size))
			return 3;
	}
	request.outcome = work(scratch, request.len);
	if (bpf_skb_store_bytes(skb, 0, &request, sizeof(request), 0))
		return 4;
	if (back && size && bpf_skb_store_bytes(skb, sizeof(request), scratch->data + WL_HEADER_LEN, size, 0))
		return 5;
	return 0;
}

SEC("tc")
int seal(struct __sk_buff *skb)
{
	return handle(skb, wl_seal, true);
}

SEC("tc")
int open(struct __sk_buff *skb)
{
	return handle(skb, wl_open, true);
}

/* The message stays as it is, so that it can be opened again and again. */
SEC("tc")
int open_again(struct __sk_buff *skb)
{
	return handle(skb, wl_open, false);
}

/* The authenticator alone: the key is its own, r and s, and the tag is put behind the message. */
static __always_inline int authenticate_alone(struct wl_scratch *scratch, __u32 len)
{
	__u64 *end;
	int outcome;

	__builtin_memcpy(scratch->first, scratch->key, sizeof(scratch->key));
	outcome = wl_authenticate(scratch, len);
	if (outcome)
		return outcome;
	end = wl_end(scratch, len);
	end[0] = scratch->tag[0];
	end[1] = scratch->tag[1];
	return 0;
}

SEC("tc")
int authenticate(struct __sk_buff *skb)
{
	return handle(skb, authenticate_alone, true);
}

/* What is left in the scratch area after a message: its first bytes, up to the message itself. */
SEC("tc")
int leftover(struct __sk_buff *skb)
{
	struct wl_scratch *scratch;
	__u32 zero = 0;

	scratch = bpf_map_lookup_elem(&scratches, &zero);
	if (!scratch)
		return 1;
	return bpf_skb_store_bytes(skb, 0, scratch, WL_SECRET_LEN, 0) ? 2 : 0;
}

WL_LICENSE;
