/* SPDX-License-Identifier: GPL-2.0-only */
/* Uses .rodata, .data and .bss: counts all frames in .bss and .data (from 1000 on), and passes
 * those that are at least as long as a constant in .rodata says. */
#include "common.h"

const volatile __u32 shortest = 14;
__u64 from_thousand = 1000;
__u64 total;
__u64 by_length[256];

SEC("xdp")
int big(struct xdp_md *ctx)
{
	__u32 length = ctx->data_end - ctx->data;

	__sync_fetch_and_add(&from_thousand, 1);
	__sync_fetch_and_add(&total, 1);
	__sync_fetch_and_add(&by_length[(length >> 4) & 255], 1);
	return length >= shortest ? XDP_PASS : XDP_DROP;
}
