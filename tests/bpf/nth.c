/* SPDX-License-Identifier: GPL-2.0-only */
/* Answers each of the five actions in turn: by what it has seen, not by what it sees. */
#include "common.h"

COUNTER(BPF_MAP_TYPE_ARRAY);

SEC("xdp")
int nth(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *seen = bpf_map_lookup_elem(&packets, &zero);

	return seen ? FETCH_ADD(seen, 1) % 5 : XDP_ABORTED;
}
