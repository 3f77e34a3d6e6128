/* SPDX-License-Identifier: GPL-2.0-only */
/* Three programs in sections of their own, each of which adds to its own element of "packets".
 * libbpf from 1.0 on does not know a program's type by such sections: the loader has to say it. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

static __always_inline int seen(__u32 index, int verdict)
{
	__u64 *value = bpf_map_lookup_elem(&packets, &index);

	if (value)
		__sync_fetch_and_add(value, 1);
	return verdict;
}

SEC("xdp/first")
int first(struct xdp_md *ctx)
{
	return seen(0, XDP_PASS);
}

SEC("xdp/second")
int second(struct xdp_md *ctx)
{
	return seen(1, XDP_PASS);
}

SEC("xdp/third")
int third(struct xdp_md *ctx)
{
	return seen(2, XDP_DROP);
}
