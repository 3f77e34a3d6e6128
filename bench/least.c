// SPDX-License-Identifier: GPL-2.0
/* A member that does hardly anything, used as member.c is: all that it costs is its place in the
 * chain. The verifier does not know its verdict.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static __always_inline int member_NUMBER(struct xdp_md *ctx)
{
	return (void *)(long)ctx->data + 14 + NUMBER > (void *)(long)ctx->data_end ? XDP_DROP
										   : XDP_PASS;
}
