/* SPDX-License-Identifier: GPL-2.0-only */
/* Two frames of 256 bytes each, all the stack there is: no room for a caller. */
#include "common.h"

#define FILL(verdict)                                                                              \
	volatile __u64 room[32];                                                                   \
                                                                                                   \
	for (int i = 0; i < 32; i++)                                                               \
		room[i] = i;                                                                       \
	return room[31] == 31 ? (verdict) : XDP_DROP

static __noinline int second_frame(struct xdp_md *ctx)
{
	FILL(ctx->data_end - ctx->data > 13 ? XDP_PASS : XDP_DROP);
}

SEC("xdp")
int twoframes(struct xdp_md *ctx)
{
	FILL(second_frame(ctx));
}
