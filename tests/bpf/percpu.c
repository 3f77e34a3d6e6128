/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts in a per-CPU map and passes. */
#include "common.h"

COUNTER(BPF_MAP_TYPE_PERCPU_ARRAY);

SEC("xdp")
int percpu(struct xdp_md *ctx)
{
	COUNT();
	return XDP_PASS;
}
