/* SPDX-License-Identifier: GPL-2.0-only */
/* Calls on through a program array with two callees, by the parity of the frame's length:
 * even goes to callee_pass, odd to callee_drop; with an empty array it aborts. */
#include "common.h"

int callee_pass(struct xdp_md *ctx);
int callee_drop(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, int(void *));
} callees SEC(".maps") = {
	.values = { (void *)&callee_pass, (void *)&callee_drop },
};

SEC("xdp")
int tailcall(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &callees, (ctx->data_end - ctx->data) & 1);
	return XDP_ABORTED;
}

SEC("xdp")
int callee_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int callee_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}
