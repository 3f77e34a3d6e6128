/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts in a map that is defined as before BTF, and passes. */
#include "common.h"

struct bpf_map_def {
	unsigned int type, key_size, value_size, max_entries, map_flags;
};

struct bpf_map_def SEC("maps") packets = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = 1,
};

SEC("xdp")
int legacy(struct xdp_md *ctx)
{
	COUNT();
	return XDP_PASS;
}
