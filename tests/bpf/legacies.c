/* SPDX-License-Identifier: GPL-2.0-only */
/* Maps that are defined as before BTF, of several kinds and as several loaders want them. Each packet
 * counts in all, by another number in each: passes while they go together, else aborts. */
#include "common.h"

struct bpf_map_def {
	__u32 type, key_size, value_size, max_entries, map_flags;
};

struct bpf_map_def SEC("maps") packets = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = 1,
};

struct bpf_map_def SEC("maps") a_map_whose_name_is_30_letters = {
	.type = BPF_MAP_TYPE_HASH,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = 16,
	.map_flags = BPF_F_NO_PREALLOC,
};

struct bpf_map_def SEC("maps") a_map_whose_name_is_30_as_well = {
	.type = BPF_MAP_TYPE_PERCPU_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = 3,
};

/* Code refers to this one by the section and an offset. */
static struct bpf_map_def SEC("maps") hidden = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = 1,
};

/* A section for each map, as gobpf and redbpf have it. */
struct bpf_map_def SEC("maps/apart") apart = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = 1,
};

/* As iproute2 reads it. */
struct bpf_elf_map {
	__u32 type, size_key, size_value, max_elem, flags, id, pinning, inner_id, inner_idx;
};

struct bpf_elf_map SEC("maps") longer = {
	.type = BPF_MAP_TYPE_LRU_HASH,
	.size_key = sizeof(__u32),
	.size_value = sizeof(__u64),
	.max_elem = 32,
	.id = 7,
};

const volatile __u32 verdict = XDP_PASS;

static __u64 bump(void *map, __u64 more)
{
	__u32 zero = 0;
	__u64 none = 0, *seen;

	bpf_map_update_elem(map, &zero, &none, BPF_NOEXIST);
	seen = bpf_map_lookup_elem(map, &zero);
	return seen ? FETCH_ADD(seen, more) : -1;
}

SEC("xdp")
int legacies(struct xdp_md *ctx)
{
	__u64 before = bump(&packets, 1);

	if (bump(&a_map_whose_name_is_30_letters, 2) != 2 * before)
		return XDP_ABORTED;
	if (bump(&hidden, 3) != 3 * before)
		return XDP_ABORTED;
	if (bump(&apart, 4) != 4 * before)
		return XDP_ABORTED;
	if (bump(&longer, 5) != 5 * before)
		return XDP_ABORTED;
	if (bump(&a_map_whose_name_is_30_as_well, 1) > before)
		return XDP_ABORTED; /* it counts on each CPU by itself */
	return verdict;
}
