/* SPDX-License-Identifier: GPL-2.0-only */
/* Reads the packet without a look at its end: the verifier refuses it. */
#include "common.h"

SEC("xdp")
int refuse(struct xdp_md *ctx)
{
	return *(volatile __u8 *)(long)ctx->data ? XDP_PASS : XDP_DROP;
}
