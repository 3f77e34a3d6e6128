/* SPDX-License-Identifier: GPL-2.0-only */
/* Tells of each packet by a perf event with its length in bytes. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} events SEC(".maps");

SEC("xdp")
int event(struct xdp_md *ctx)
{
	__u64 length = ctx->data_end - ctx->data;

	bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &length, sizeof(length));
	return XDP_PASS;
}
