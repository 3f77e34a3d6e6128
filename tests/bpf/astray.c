/* SPDX-License-Identifier: GPL-2.0-only */
/* Redirects that come to nothing, or may: choose by name. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

/* With room for programs, which generic mode does not take before Linux 5.15. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bpf_devmap_val);
} gates SEC(".maps");

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
int gate(struct xdp_md *ctx)
{
	return bpf_redirect_map(&gates, 0, 0);
}

SEC("xdp")
int cpu(struct xdp_md *ctx)
{
	return bpf_redirect_map(&cpus, 0, 0);
}
