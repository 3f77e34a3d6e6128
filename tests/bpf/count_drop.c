/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts in the array map "packets" and drops. */
#include "common.h"

COUNTER(BPF_MAP_TYPE_ARRAY);

SEC("xdp")
int count_drop(struct xdp_md *ctx)
{
	COUNT();
	return XDP_DROP;
}
