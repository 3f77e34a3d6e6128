/* SPDX-License-Identifier: GPL-2.0-only */
/* As devmaps.c, and its device maps ask to be pinned by their names. */
#include "common.h"

#define MAP(name, kind)                                                                            \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_##kind);                                                 \
		__uint(max_entries, 8);                                                            \
		__uint(key_size, sizeof(__u32));                                                   \
		__uint(value_size, sizeof(__u32));                                                 \
		__uint(pinning, LIBBPF_PIN_BY_NAME);                                               \
	} name SEC(".maps")

MAP(by_index, DEVMAP);
MAP(by_key, DEVMAP_HASH);

SEC("xdp")
int devpinned(struct xdp_md *ctx)
{
	if (bpf_redirect_map(&by_index, 3, XDP_PASS) != XDP_PASS)
		return XDP_ABORTED;
	return bpf_redirect_map(&by_key, 3, XDP_PASS);
}
