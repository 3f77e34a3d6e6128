/* SPDX-License-Identifier: GPL-2.0-only */
/* meta_set puts the number of the interface into metadata before the packet; meta_get writes what it
 * finds there into bytes 80 to 83 and drops where there is none. */
#include "common.h"

SEC("xdp")
int meta_set(struct xdp_md *ctx)
{
	__u32 *meta;

	if (bpf_xdp_adjust_meta(ctx, -4))
		return XDP_ABORTED;
	meta = (__u32 *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return XDP_ABORTED;
	*meta = ctx->ingress_ifindex;
	return XDP_PASS;
}

SEC("xdp")
int meta_get(struct xdp_md *ctx)
{
	__u8 *meta = (__u8 *)(long)ctx->data_meta, *data = (__u8 *)(long)ctx->data;

	if (meta + 4 > data || data + 84 > (__u8 *)(long)ctx->data_end)
		return XDP_DROP;
	for (int i = 0; i < 4; i++)
		data[80 + i] = meta[i];
	return XDP_PASS;
}
