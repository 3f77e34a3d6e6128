/* SPDX-License-Identifier: GPL-2.0-only */
/* Programs that the verifier refuses, each for one of its common reasons. The line that it is
 * about ends in a comment with the program's name. */
#include "common.h"

COUNTER(BPF_MAP_TYPE_HASH);

const volatile __u32 fixed = 1;
__u64 slots[4];

SEC("xdp")
int unchecked(struct xdp_md *ctx)
{
	return *(volatile __u8 *)(long)ctx->data ? XDP_PASS : XDP_DROP; /* unchecked */
}

SEC("xdp")
int beyond(struct xdp_md *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data;

	if (data + 4 > (__u8 *)(long)ctx->data_end)
		return XDP_DROP;
	return *(volatile __u8 *)(data + 12) ? XDP_PASS : XDP_DROP; /* beyond */
}

SEC("xdp")
int nulled(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *seen = bpf_map_lookup_elem(&packets, &zero);

	*seen += 1; /* nulled */
	return XDP_PASS;
}

SEC("xdp")
int nopointer(struct xdp_md *ctx)
{
	__u64 *where = (__u64 *)(long)ctx->ingress_ifindex;

	return *where ? XDP_PASS : XDP_DROP; /* nopointer */
}

SEC("xdp")
int unset(struct xdp_md *ctx)
{
	__u64 value;

	asm volatile("%0 = r5" : "=r"(value)); /* unset */
	return value ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int endless(struct xdp_md *ctx)
{
	volatile __u32 going = 1;

	while (going) /* endless */
		;
	return XDP_PASS;
}

SEC("xdp")
int misaligned(struct xdp_md *ctx)
{
	asm volatile("r1 = 0; *(u64 *)(r10 - 12) = r1" ::: "r1"); /* misaligned */
	return XDP_PASS;
}

SEC("xdp")
int deep(struct xdp_md *ctx)
{
	asm volatile("r1 = 0; *(u64 *)(r10 - 520) = r1" ::: "r1"); /* deep */
	return XDP_PASS;
}

SEC("xdp")
int helper(struct xdp_md *ctx)
{
	__u32 data = 0;

	bpf_skb_store_bytes((void *)ctx, 0, &data, sizeof(data), 0); /* helper */
	return XDP_PASS;
}

SEC("xdp")
int unreachable(struct xdp_md *ctx)
{
	asm volatile("goto +1; r1 = r1");
	return XDP_PASS;
}

SEC("xdp")
int kept(struct xdp_md *ctx)
{
	struct bpf_sock_tuple tuple = {};

	bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	return XDP_PASS; /* kept */
}

SEC("xdp")
int context(struct xdp_md *ctx)
{
	return *(volatile __u32 *)((void *)ctx + 64) ? XDP_PASS : XDP_DROP; /* context */
}

SEC("xdp")
int outside(struct xdp_md *ctx)
{
	volatile __u64 *one = slots;

	return one[ctx->rx_queue_index] ? XDP_PASS : XDP_DROP; /* outside */
}

SEC("xdp")
int constant(struct xdp_md *ctx)
{
	*(volatile __u32 *)&fixed = 2; /* constant */
	return XDP_PASS;
}

SEC("xdp")
int argument(struct xdp_md *ctx)
{
	return bpf_map_lookup_elem(&packets, (void *)7L) ? XDP_PASS : XDP_DROP; /* argument */
}

SEC("xdp")
int possibly(struct xdp_md *ctx)
{
	__u32 zero = 0;
	void *seen = bpf_map_lookup_elem(&packets, &zero);

	bpf_map_update_elem(&packets, &zero, seen, BPF_ANY); /* possibly */
	return XDP_PASS;
}

SEC("xdp")
int offset(struct xdp_md *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data;

	data += (long)ctx->rx_queue_index << 20;
	if (data + 1 > (__u8 *)(long)ctx->data_end)
		return XDP_DROP;
	return *(volatile __u8 *)data ? XDP_PASS : XDP_DROP; /* offset */
}

SEC("xdp")
int shifted(struct xdp_md *ctx)
{
	void *where = ctx;

	asm volatile("%0 <<= 3" : "+r"(where)); /* shifted */
	return *(volatile __u32 *)where ? XDP_PASS : XDP_DROP;
}
