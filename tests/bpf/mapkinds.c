/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts in a map of each kind that keeps what it is given, and passes as long as all that are not
 * per CPU have counted alike; else it aborts. From the limit in .data on it drops. */
#include "common.h"

struct guarded {
	struct bpf_spin_lock lock;
	__u64 seen;
};

struct prefix {
	__u32 length, address[2]; /* values lie at multiples of 8: atomics on arm64 want that */
};

#define MAP(name, kind, entries, key_type, value_type, more)                                       \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_##kind);                                                 \
		__uint(max_entries, entries);                                                     \
		__type(key, key_type);                                                             \
		__type(value, value_type);                                                         \
		more;                                                                              \
	} name SEC(".maps")

MAP(in_hash, HASH, 300, __u32, __u64, __uint(map_flags, BPF_F_NO_PREALLOC));
MAP(in_array, ARRAY, 8, __u32, __u64, );
MAP(in_lru, LRU_HASH, 8, __u32, __u64, );
MAP(in_trie, LPM_TRIE, 8, struct prefix, __u64, __uint(map_flags, BPF_F_NO_PREALLOC));
MAP(in_guarded, ARRAY, 8, __u32, struct guarded, );
MAP(on_cpus, PERCPU_ARRAY, 8, __u32, __u64, );
MAP(on_cpus_hash, PERCPU_HASH, 8, __u32, __u32, );
MAP(on_cpus_lru, LRU_PERCPU_HASH, 8, __u32, __u64, );

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} first SEC(".maps"), second SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 3);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { [1] = &first } };

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 3);
	__type(key, __u32);
	__array(values, struct inner);
} outer_hash SEC(".maps") = { .values = { [1] = &second } };

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

__u64 in_bss;
__u64 limit = 1000;
const volatile __u64 step = 1;

static __u64 bump(void *map, const void *key)
{
	__u64 none = 0, *seen = bpf_map_lookup_elem(map, key);

	if (!seen) {
		bpf_map_update_elem(map, key, &none, BPF_ANY);
		seen = bpf_map_lookup_elem(map, key);
	}
	return seen ? FETCH_ADD(seen, step) : -1;
}

SEC("xdp")
int mapkinds(struct xdp_md *ctx)
{
	__u32 zero = 0, one = 1, *narrow;
	struct prefix prefix = { 24, { 0x0100000a } };
	struct guarded *guarded = bpf_map_lookup_elem(&in_guarded, &zero);
	void *inner = bpf_map_lookup_elem(&outer, &one);
	void *other = bpf_map_lookup_elem(&outer_hash, &one);
	__u64 seen = bump(&in_array, &zero), differ = 0;

	if (!guarded || !inner || !other)
		return XDP_ABORTED;
	bpf_spin_lock(&guarded->lock);
	differ |= guarded->seen ^ seen;
	guarded->seen += step;
	bpf_spin_unlock(&guarded->lock);
	differ |= bump(&in_hash, &zero) ^ seen;
	differ |= bump(&in_lru, &zero) ^ seen;
	differ |= bump(&in_trie, &prefix) ^ seen;
	differ |= bump(inner, &one) ^ seen;
	differ |= bump(other, &one) ^ seen;
	differ |= FETCH_ADD(&in_bss, step) ^ seen;
	bump(&on_cpus, &one);
	bump(&on_cpus_lru, &one);
	narrow = bpf_map_lookup_elem(&on_cpus_hash, &one);
	if (narrow)
		++*narrow;
	else
		bpf_map_update_elem(&on_cpus_hash, &one, &one, BPF_ANY);
	bpf_ringbuf_output(&events, &seen, sizeof(seen), 0);
	return differ ? XDP_ABORTED : seen >= limit ? XDP_DROP : XDP_PASS;
}
