/* SPDX-License-Identifier: GPL-2.0-only */
/* Uses 40 maps of the 64 that a program may: counts in each. */
#include "common.h"

#define MAP(n)                                                                                     \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                  \
		__uint(max_entries, 1);                                                            \
		__type(key, __u32);                                                                \
		__type(value, __u64);                                                              \
	} map##n SEC(".maps");
#define TEN(of, n)                                                                                 \
	of(n##0) of(n##1) of(n##2) of(n##3) of(n##4)                                               \
	of(n##5) of(n##6) of(n##7) of(n##8) of(n##9)
#define USE(n)                                                                                     \
	seen = bpf_map_lookup_elem(&map##n, &zero);                                                \
	if (seen)                                                                                  \
		__sync_fetch_and_add(seen, 1);

TEN(MAP, 1) TEN(MAP, 2) TEN(MAP, 3) TEN(MAP, 4)

SEC("xdp")
int maps40(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *seen;

	TEN(USE, 1) TEN(USE, 2) TEN(USE, 3) TEN(USE, 4)
	return XDP_PASS;
}
