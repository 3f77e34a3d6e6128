/* SPDX-License-Identifier: GPL-2.0-only */
/* Claims another licence than the GPL, as programs do that are not free; drops frames of odd length. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Proprietary";

SEC("xdp")
int nongpl(struct xdp_md *ctx)
{
	return (ctx->data_end - ctx->data) & 1 ? XDP_DROP : XDP_PASS;
}
