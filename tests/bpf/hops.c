/* SPDX-License-Identifier: GPL-2.0-only */
/* Calls on through a program array that nothing fills but its loader, and through another one that
 * has a program of the object from the start; passes where neither has one. */
#include "common.h"

int passer(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} jumps SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, int(void *));
} fixed SEC(".maps") = {
	.values = { [1] = (void *)&passer },
};

SEC("xdp")
int hops(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &jumps, 1);
	bpf_tail_call(ctx, &fixed, 0);
	return XDP_PASS;
}

SEC("xdp")
int dropper(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp")
int passer(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp_odd")
int aborter(struct xdp_md *ctx)
{
	return XDP_ABORTED;
}

SEC("xdp.frags")
int fragments(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("tc")
int classifier(struct __sk_buff *skb)
{
	return 0;
}
