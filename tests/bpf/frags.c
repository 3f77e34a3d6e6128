/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts and passes, frames of several buffers too. */
#include "common.h"

COUNTER(BPF_MAP_TYPE_ARRAY);

SEC("xdp.frags")
int frags(struct xdp_md *ctx)
{
	COUNT();
	return XDP_PASS;
}
