/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts frames of even length in a global variable, by a function of its own, and drops others. */
#include "common.h"

__u64 even;

static __noinline int odd(struct xdp_md *ctx)
{
	return (ctx->data_end - ctx->data) & 1;
}

SEC("xdp")
int global(struct xdp_md *ctx)
{
	if (odd(ctx))
		return XDP_DROP;
	__sync_fetch_and_add(&even, 1);
	return XDP_PASS;
}
