/* SPDX-License-Identifier: GPL-2.0-only */
/* Redirects that come to nothing, or may: choose by name. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32); /* without room for a program: Linux before 5.15 takes none in generic mode */
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32); /* the length of the queue */
} cpus SEC(".maps");

SEC("xdp")
int nowhere(struct xdp_md *ctx)
{
	return bpf_redirect(1 << 30, 0); /* no interface has this number */
}

SEC("xdp")
int unnamed(struct xdp_md *ctx)
{
	return XDP_REDIRECT;
}

/* Aborts where the map is empty. */
SEC("xdp")
int device(struct xdp_md *ctx)
{
	return bpf_redirect_map(&devices, 0, 0);
}

SEC("xdp")
int cpu(struct xdp_md *ctx)
{
	return bpf_redirect_map(&cpus, 0, 0);
}
