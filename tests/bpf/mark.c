/* SPDX-License-Identifier: GPL-2.0-only */
/* Writes a constant of .rodata into byte 80 of the frame, which is filler behind the cookie and the
 * sequence number in every kind of frame that the harness makes, and passes. */
#include "common.h"

const volatile __u8 marker = 0x5a;

SEC("xdp")
int mark(struct xdp_md *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data;

	if (data + 81 > (__u8 *)(long)ctx->data_end)
		return XDP_PASS;
	data[80] = marker;
	return XDP_PASS;
}
