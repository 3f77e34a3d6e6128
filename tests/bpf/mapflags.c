/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts beside maps that the kernel does not make as they are asked for, or asks much of: flags
 * for a descriptor alone, entries that it rounds, a place in memory; queues, which have no keys. */
#include "common.h"

#define MAP(name, kind, entries, flags)                                                            \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_##kind);                                                 \
		__uint(max_entries, entries);                                                      \
		__uint(map_flags, flags);                                                          \
		__type(key, __u32);                                                                \
		__type(value, __u64);                                                              \
	} name SEC(".maps")

MAP(read_outside, HASH, 8, BPF_F_RDONLY);
MAP(read_inside, ARRAY, 8, BPF_F_RDONLY_PROG);
MAP(rounded, LRU_PERCPU_HASH, 7, BPF_F_NO_COMMON_LRU);
MAP(placed, ARRAY, 8, BPF_F_NUMA_NODE);

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 8);
	__type(value, __u64);
} queue SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 8);
	__type(value, __u64);
} stack SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} events SEC(".maps");

COUNTER(BPF_MAP_TYPE_ARRAY);

SEC("xdp")
int mapflags(struct xdp_md *ctx)
{
	__u32 key = 1;
	__u64 value = 1;

	COUNT();
	bpf_map_update_elem(&read_outside, &key, &value, BPF_ANY);
	bpf_map_update_elem(&rounded, &key, &value, BPF_ANY);
	bpf_map_update_elem(&placed, &key, &value, BPF_ANY);
	bpf_map_push_elem(&queue, &value, BPF_EXIST);
	bpf_map_push_elem(&stack, &value, BPF_EXIST);
	bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &value, sizeof(value));
	if (!bpf_map_lookup_elem(&read_inside, &key))
		return XDP_ABORTED;
	return bpf_redirect_map(&sockets, 3, XDP_PASS);
}
