/* SPDX-License-Identifier: GPL-2.0-only */
/* Sends nothing on, as its device and CPU maps are empty: passes what it counts. */
#include "common.h"

#define MAP(name, kind)                                                                            \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_##kind);                                                 \
		__uint(max_entries, 8);                                                            \
		__uint(key_size, sizeof(__u32));                                                   \
		__uint(value_size, sizeof(__u32));                                                 \
	} name SEC(".maps")

MAP(by_index, DEVMAP);
MAP(by_key, DEVMAP_HASH);
MAP(by_cpu, CPUMAP);
COUNTER(BPF_MAP_TYPE_ARRAY);

SEC("xdp")
int devmaps(struct xdp_md *ctx)
{
	COUNT();
	if (bpf_redirect_map(&by_index, 3, XDP_PASS) != XDP_PASS ||
	    bpf_redirect_map(&by_key, 3, XDP_PASS) != XDP_PASS)
		return XDP_ABORTED;
	return bpf_redirect_map(&by_cpu, 3, XDP_PASS);
}
