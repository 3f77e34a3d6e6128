/* SPDX-License-Identifier: GPL-2.0-only */
/* Counts packets and bytes, for each CPU by itself, and passes them on: see counter.py. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct traffic {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct traffic);
} traffic SEC(".maps");

SEC("xdp")
int counter(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct traffic *seen = bpf_map_lookup_elem(&traffic, &zero);

	if (seen) {
		seen->packets++;
		seen->bytes += ctx->data_end - ctx->data;
	}
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
