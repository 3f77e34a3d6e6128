/* SPDX-License-Identifier: GPL-2.0-only */
/* Four maps whose first 15 characters are alike, one of them all of its name. Each packet counts in
 * all, by another number in each: passes while they go together, aborts where they were mixed up. */
#include "common.h"

#define MAP(name)                                                                                  \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                  \
		__uint(max_entries, 1);                                                            \
		__type(key, __u32);                                                                \
		__type(value, __u64);                                                              \
	} name SEC(".maps")

MAP(blocked_sources_ipv6);
MAP(blocked_sources);
MAP(blocked_sources_other);
MAP(blocked_sources_ipv4);

static __u64 bump(void *map, __u64 more)
{
	__u32 zero = 0;
	__u64 *seen = bpf_map_lookup_elem(map, &zero);

	return seen ? FETCH_ADD(seen, more) : -1;
}

SEC("xdp")
int twins(struct xdp_md *ctx)
{
	__u64 packets = bump(&blocked_sources, 1);

	if (bump(&blocked_sources_ipv4, 4) != 4 * packets)
		return XDP_ABORTED;
	if (bump(&blocked_sources_other, 5) != 5 * packets)
		return XDP_ABORTED;
	if (bump(&blocked_sources_ipv6, 6) != 6 * packets)
		return XDP_ABORTED;
	return XDP_PASS;
}
