/* SPDX-License-Identifier: GPL-2.0-only */
/* Calls on through a program array that asks to be pinned by its name; passes while it is empty. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} jumps SEC(".maps");

SEC("xdp")
int jumps_on(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &jumps, 1);
	return XDP_PASS;
}
