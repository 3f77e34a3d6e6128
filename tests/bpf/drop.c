/* SPDX-License-Identifier: GPL-2.0-only */
/* Drops everything. */
#include "common.h"

SEC("xdp")
int drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}
