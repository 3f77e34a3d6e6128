/* SPDX-License-Identifier: GPL-2.0-only */
/* Calls kernel functions, not helpers: passes a frame whose length is what a dynptr says. */
#include "common.h"

extern int bpf_dynptr_from_xdp(struct xdp_md *ctx, __u64 flags, struct bpf_dynptr *ptr) __ksym;
extern __u32 bpf_dynptr_size(const struct bpf_dynptr *ptr) __ksym;

COUNTER(BPF_MAP_TYPE_ARRAY);

SEC("xdp")
int kfunc(struct xdp_md *ctx)
{
	struct bpf_dynptr ptr;

	if (bpf_dynptr_from_xdp(ctx, 0, &ptr))
		return XDP_ABORTED;
	COUNT();
	return bpf_dynptr_size(&ptr) == ctx->data_end - ctx->data ? XDP_PASS : XDP_DROP;
}
