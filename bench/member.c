// SPDX-License-Identifier: GPL-2.0
/* A member as they are: it counts packets and bytes in a map, reads the headers, and drops one
 * source address. bench/floor.py makes ten of it, each with a NUMBER of its own, as objects, as
 * programs that call the next one by a tail call, and all in one program, which clang inlines.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct row_NUMBER {
	__u64 packets, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct row_NUMBER);
} seen_NUMBER SEC(".maps");

static __always_inline int member_NUMBER(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	__u32 zero = 0;
	struct row_NUMBER *row = bpf_map_lookup_elem(&seen_NUMBER, &zero);

	if (row) {
		row->packets++;
		row->bytes += end - data;
	}
	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	return ip->saddr == bpf_htonl(INADDR_LOOPBACK + NUMBER) ? XDP_DROP : XDP_PASS;
}
