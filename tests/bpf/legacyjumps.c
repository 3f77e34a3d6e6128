/* SPDX-License-Identifier: GPL-2.0-only */
/* A program array that is defined as before BTF, which nothing fills but a loader, and a map that
 * wants to be pinned as aya says it. Passes if the array is empty. */
#include "common.h"

struct bpf_map_def {
	__u32 type, key_size, value_size, max_entries, map_flags, id, pinning;
};

struct bpf_map_def SEC("maps") jumps = {
	.type = BPF_MAP_TYPE_PROG_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u32),
	.max_entries = 4,
};

struct bpf_map_def SEC("maps") packets = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = 1,
	.pinning = 1,
};

SEC("xdp")
int legacyjumps(struct xdp_md *ctx)
{
	COUNT();
	bpf_tail_call(ctx, &jumps, 1);
	return XDP_PASS;
}

SEC("xdp")
int dropper(struct xdp_md *ctx)
{
	return XDP_DROP;
}
