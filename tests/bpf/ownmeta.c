/* SPDX-License-Identifier: GPL-2.0-only */
/* Keeps a number in metadata before the packet for a while; aborts if it is another afterwards. */
#include "common.h"

SEC("xdp")
int ownmeta(struct xdp_md *ctx)
{
	volatile __u32 *meta;

	if (bpf_xdp_adjust_meta(ctx, -4))
		return XDP_ABORTED;
	meta = (__u32 *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return XDP_ABORTED;
	*meta = ctx->ingress_ifindex;
	if (*meta != ctx->ingress_ifindex)
		return XDP_ABORTED;
	return bpf_xdp_adjust_meta(ctx, 4) ? XDP_ABORTED : XDP_PASS;
}
