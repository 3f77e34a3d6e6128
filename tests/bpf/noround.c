/* SPDX-License-Identifier: GPL-2.0-only */
/* Loops no times, as the verifier knows: some kernels take that for a fault of their own in any
 * function but the main one. */
#include "common.h"

static long step(__u32 index, void *unused)
{
	return 0;
}

SEC("xdp")
int noround(struct xdp_md *ctx)
{
	return bpf_loop(0, step, 0, 0) ? XDP_ABORTED : XDP_PASS;
}
