/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts in the array map "packets" and passes. */
#include "common.h"

COUNTER(BPF_MAP_TYPE_ARRAY);

SEC("xdp")
int count(struct xdp_md *ctx)
{
	COUNT();
	return XDP_PASS;
}
