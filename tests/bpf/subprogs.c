/* SPDX-License-Identifier: GPL-2.0-only */
/* A global function and static ones that are not inlined; passes frames of even length. */
#include "common.h"

COUNTER(BPF_MAP_TYPE_ARRAY);

static __noinline int count_one(struct xdp_md *ctx)
{
	COUNT();
	return ctx->data_end != 0;
}

static __noinline int odd(struct xdp_md *ctx)
{
	return (ctx->data_end - ctx->data) & 1;
}

__noinline int verdict_of(struct xdp_md *ctx)
{
	return odd(ctx) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int subprogs(struct xdp_md *ctx)
{
	count_one(ctx);
	return verdict_of(ctx);
}
