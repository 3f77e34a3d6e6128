/* SPDX-License-Identifier: GPL-2.0-only */
/* Its loader says what it answers and how large its map is, and reads what is in the map. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u64);
} flows SEC(".maps");

const volatile enum xdp_action verdict = XDP_ABORTED;
int unused = 1;

SEC("xdp")
int tuned(struct xdp_md *ctx)
{
	__u32 key = 0;
	__u64 one = 1, *seen = bpf_map_lookup_elem(&flows, &key);

	if (seen)
		__sync_fetch_and_add(seen, 1);
	else
		bpf_map_update_elem(&flows, &key, &one, BPF_ANY);
	return unused ? verdict : XDP_ABORTED;
}
