/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The kernel's own ciphers, as far as programs may have them (bpf_crypto, Linux 6.10): the way on which an AEAD of the kernel's would be taken
 * the day that it is offered. Today's kernels offer ciphers without authentication alone, ecb(aes) and cbc(aes), by which this is tried.
 *
 * An object of its own, since kernels without these functions refuse to load it. A program of the type SYSCALL makes a context, which takes
 * allocating memory and so a program that may sleep, and leaves it in a map; programs at the packets' hooks take it from there.
 * The daemon writes what it wants into `requests`, and wipes the key there once there is a context.
 */
#include "helpers.h"

#define WL_CRYPTO_MAX 64

struct bpf_dynptr {
	__u64 opaque[2];
} __attribute__((aligned(8)));

/* As in the kernel's kernel/bpf/crypto.c. */
struct bpf_crypto_params {
	char type[14];
	__u8 reserved[2];
	char algo[128];
	__u8 key[256];
	__u32 key_len;
	__u32 authsize;
};

/* The loader finds the kernel's by its name. */
struct bpf_crypto_ctx {
};

extern struct bpf_crypto_ctx *bpf_crypto_ctx_create(const struct bpf_crypto_params *params, __u32 params__sz, int *err)
	__attribute__((section(".ksyms")));
extern void bpf_crypto_ctx_release(struct bpf_crypto_ctx *ctx) __attribute__((section(".ksyms")));
extern int bpf_crypto_encrypt(struct bpf_crypto_ctx *ctx, const struct bpf_dynptr *src, const struct bpf_dynptr *dst,
			      const struct bpf_dynptr *siv__nullable) __attribute__((section(".ksyms")));
extern int bpf_crypto_decrypt(struct bpf_crypto_ctx *ctx, const struct bpf_dynptr *src, const struct bpf_dynptr *dst,
			      const struct bpf_dynptr *siv__nullable) __attribute__((section(".ksyms")));

static long (*const bpf_dynptr_from_mem)(void *data, __u32 size, __u64 flags, struct bpf_dynptr *dynptr) = (void *)197;
static void *(*const bpf_kptr_xchg)(void *place, void *pointer) = (void *)194;

struct request {
	struct bpf_crypto_params params;
	/* What came of it, a negative error number or 0. */
	__s32 outcome;
	__u32 len;
	__u32 iv_len;
	__u32 reserved;
	__u8 source[WL_CRYPTO_MAX];
	__u8 destination[WL_CRYPTO_MAX];
	__u8 iv[16];
};

struct context {
	struct bpf_crypto_ctx __attribute__((btf_type_tag("kptr"))) *ctx;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct request);
} requests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct context);
} contexts SEC(".maps");

/* Makes a context as `params` say, in the place of the one that there is. */
SEC("syscall")
int create(void *unused)
{
	__u32 zero = 0;
	struct request *request = bpf_map_lookup_elem(&requests, &zero);
	struct context *context = bpf_map_lookup_elem(&contexts, &zero);
	struct bpf_crypto_ctx *ctx;
	int error = 0;

	(void)unused;
	if (!request || !context)
		return 1;
	ctx = bpf_crypto_ctx_create(&request->params, sizeof(request->params), &error);
	request->outcome = error;
	if (!ctx)
		return 0;
	request->outcome = 0;
	ctx = bpf_kptr_xchg(&context->ctx, ctx);
	if (ctx)
		bpf_crypto_ctx_release(ctx);
	return 0;
}

static __always_inline int work(bool encrypts)
{
	__u32 zero = 0, len, iv_len;
	struct request *request = bpf_map_lookup_elem(&requests, &zero);
	struct context *context = bpf_map_lookup_elem(&contexts, &zero);
	struct bpf_dynptr from, to, iv;
	struct bpf_crypto_ctx *ctx;

	if (!request || !context)
		return 1;
	ctx = context->ctx;
	if (!ctx)
		return 2;
	len = request->len;
	iv_len = request->iv_len;
	if (!len || len > WL_CRYPTO_MAX || iv_len > sizeof(request->iv))
		return 3;
	wl_hide(len);
	len = ((len - 1) & (WL_CRYPTO_MAX - 1)) + 1;
	if (bpf_dynptr_from_mem(request->source, len, 0, &from) || bpf_dynptr_from_mem(request->destination, len, 0, &to))
		return 4;
	if (!iv_len) {
		request->outcome = encrypts ? bpf_crypto_encrypt(ctx, &from, &to, NULL) : bpf_crypto_decrypt(ctx, &from, &to, NULL);
		return 0;
	}
	if (bpf_dynptr_from_mem(request->iv, sizeof(request->iv), 0, &iv))
		return 5;
	request->outcome = encrypts ? bpf_crypto_encrypt(ctx, &from, &to, &iv) : bpf_crypto_decrypt(ctx, &from, &to, &iv);
	return 0;
}

SEC("tc")
int encrypt(struct __sk_buff *skb)
{
	(void)skb;
	return work(true);
}

SEC("tc")
int decrypt(struct __sk_buff *skb)
{
	(void)skb;
	return work(false);
}

WL_LICENSE;
