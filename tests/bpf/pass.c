/* SPDX-License-Identifier: GPL-2.0-only */
/* Lets everything through. */
#include "common.h"

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}
