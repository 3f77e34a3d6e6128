/* SPDX-License-Identifier: GPL-2.0-only */
/* Puts a tag of four bytes, "XDPC", in front of the packet: two copies in a chain make eight. */
#include "common.h"

SEC("xdp")
int adjust(struct xdp_md *ctx)
{
	__u8 *data, *end;

	if (bpf_xdp_adjust_head(ctx, -4))
		return XDP_ABORTED;
	data = (__u8 *)(long)ctx->data;
	end = (__u8 *)(long)ctx->data_end;
	if (data + 18 > end)
		return XDP_ABORTED;
	/* The Ethernet header moves to the front, the tag comes behind its ethertype, so that
	 * the frame stays one for this interface. */
	for (int i = 0; i < 14; i++)
		data[i] = data[i + 4];
	data[14] = 'X';
	data[15] = 'D';
	data[16] = 'P';
	data[17] = 'C';
	return XDP_PASS;
}
