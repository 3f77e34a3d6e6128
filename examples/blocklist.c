/* SPDX-License-Identifier: GPL-2.0-only */
/* Drops what comes from the networks in the map "blocked", which is pinned: see blocklist.py. */
#include "packet.h"

struct network {
	__u32 bits;
	struct address address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 100000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct network);
	__type(value, __u64); /* packets dropped */
} blocked SEC(".maps");

SEC("xdp")
int blocklist(struct xdp_md *ctx)
{
	struct network from = { .bits = 128 };
	__u64 *dropped;

	if (!source_of(ctx, &from.address))
		return XDP_PASS;
	dropped = bpf_map_lookup_elem(&blocked, &from);
	if (!dropped)
		return XDP_PASS;
	__sync_fetch_and_add(dropped, 1);
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";
