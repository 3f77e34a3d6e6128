/* SPDX-License-Identifier: GPL-2.0-only */
/* Makes a tail call, and takes frames of several buffers: so does its callee, which passes. */
#include "common.h"

int callee_frags(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, int(void *));
} callees SEC(".maps") = {
	.values = { (void *)&callee_frags },
};

SEC("xdp.frags")
int tailfrags(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &callees, 0);
	return XDP_ABORTED;
}

SEC("xdp.frags")
int callee_frags(struct xdp_md *ctx)
{
	return XDP_PASS;
}
