/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts in a map that asks to be pinned by its name. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} packets SEC(".maps");

SEC("xdp")
int pinned(struct xdp_md *ctx)
{
	COUNT();
	return XDP_PASS;
}
