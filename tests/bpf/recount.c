/* SPDX-License-Identifier: GPL-2.0-only */
/* Other code for count: the same map, and one that counts only what this code saw. */
#include "common.h"

COUNTER(BPF_MAP_TYPE_ARRAY);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

const volatile __u32 step = 1;

SEC("xdp")
int recount(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *mine = bpf_map_lookup_elem(&seen, &zero);

	COUNT();
	if (mine)
		__sync_fetch_and_add(mine, step);
	return XDP_PASS;
}
