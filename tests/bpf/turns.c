/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts in a map that asks to be pinned by its name, and drops every second time. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} turns_taken SEC(".maps");

SEC("xdp")
int turns(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *seen = bpf_map_lookup_elem(&turns_taken, &zero);

	return seen && FETCH_ADD(seen, 1) & 1 ? XDP_DROP : XDP_PASS;
}
