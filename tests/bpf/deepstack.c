/* SPDX-License-Identifier: GPL-2.0-only */
/* Uses 480 of the 512 bytes of stack. */
#include "common.h"

SEC("xdp")
int deepstack(struct xdp_md *ctx)
{
	volatile __u64 room[60];
	__u64 sum = 0;

	for (int i = 0; i < 60; i++)
		room[i] = ctx->rx_queue_index;
	for (int i = 0; i < 60; i++)
		sum |= room[i];
	return sum == ctx->rx_queue_index ? XDP_PASS : XDP_DROP;
}
