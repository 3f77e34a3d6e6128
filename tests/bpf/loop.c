/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts ten for each frame through the callback of bpf_loop. */
#include "common.h"

COUNTER(BPF_MAP_TYPE_ARRAY);

static long step(__u32 index, void *unused)
{
	COUNT();
	return 0;
}

SEC("xdp")
int loop(struct xdp_md *ctx)
{
	bpf_loop(10, step, 0, 0);
	return XDP_PASS;
}
