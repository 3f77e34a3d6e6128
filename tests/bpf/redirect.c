/* SPDX-License-Identifier: GPL-2.0-only */
/* Sends every frame out of the interface in "targets"[0]; without one it drops. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32); /* ifindex */
} targets SEC(".maps");

SEC("xdp")
int redirect(struct xdp_md *ctx)
{
	return bpf_redirect_map(&targets, 0, XDP_DROP);
}
