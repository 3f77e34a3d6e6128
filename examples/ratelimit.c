/* SPDX-License-Identifier: GPL-2.0-only */
/* Drops what a source address sends beyond RATE packets a second, with up to BURST at once. */
#include "packet.h"

#ifndef RATE
#define RATE 1000
#endif
#ifndef BURST
#define BURST 100
#endif
#define SECOND 1000000000ULL
#define TOKEN (SECOND / (RATE)) /* ns that it takes to earn one */
#define TRIES 8

/* A token bucket in one word, which CPUs exchange without a lock: when it is going to be full, in
 * ns since boot. Sources that have not been seen for long make room for others. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct address);
	__type(value, __u64);
} full_at SEC(".maps");

SEC("xdp")
int ratelimit(struct xdp_md *ctx)
{
	__u64 now = bpf_ktime_get_ns(), empty = now + (BURST) * TOKEN, first = now + TOKEN;
	struct address from;
	__u64 *bucket;

	if (!source_of(ctx, &from))
		return XDP_PASS;
	bucket = bpf_map_lookup_elem(&full_at, &from);
	if (!bucket) {
		bpf_map_update_elem(&full_at, &from, &first, BPF_NOEXIST);
		return XDP_PASS;
	}
#pragma unroll
	for (int i = 0; i < TRIES; i++) {
		__u64 before = *(volatile __u64 *)bucket, after;

		/* Emptier than empty it is by the limits before a replace, which keeps the map. */
		after = (before > now && before <= empty ? before : now) + TOKEN;
		if (after > empty)
			return XDP_DROP;
		if (__sync_val_compare_and_swap(bucket, before, after) == before)
			return XDP_PASS;
	}
	return XDP_DROP; /* so many at once are too many */
}

char LICENSE[] SEC("license") = "GPL";
