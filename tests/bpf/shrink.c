/* SPDX-License-Identifier: GPL-2.0-only */
/* Cuts four bytes off the end. */
#include "common.h"

SEC("xdp")
int shrink(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_tail(ctx, -4) ? XDP_ABORTED : XDP_PASS;
}
