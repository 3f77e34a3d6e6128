/* SPDX-License-Identifier: GPL-2.0-only */
/* What the examples want to know of a packet: whom it says that it is from. */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define VLAN_TAGS 2

struct address {
	__u8 byte[16];
};

struct vlan_tag {
	__be16 what;
	__be16 type;
};

/* The source address of an IP packet behind up to two VLAN tags; IPv4 as ::ffff:a.b.c.d, so that
 * one map does for both. 0 for what is not IP. */
static __always_inline int source_of(struct xdp_md *ctx, struct address *from)
{
	void *end = (void *)(long)ctx->data_end, *data = (void *)(long)ctx->data;
	struct ethhdr *eth = data;
	__be16 type;

	data = eth + 1;
	if (data > end)
		return 0;
	type = eth->h_proto;
#pragma unroll
	for (int i = 0; i < VLAN_TAGS; i++) {
		struct vlan_tag *tag = data;

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		data = tag + 1;
		if (data > end)
			return 0;
		type = tag->type;
	}
	if (type == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data;

		if ((void *)(ip + 1) > end)
			return 0;
		__builtin_memset(from->byte, 0, 10);
		__builtin_memset(from->byte + 10, 0xff, 2);
		__builtin_memcpy(from->byte + 12, &ip->saddr, 4);
		return 1;
	}
	if (type == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data;

		if ((void *)(ip + 1) > end)
			return 0;
		__builtin_memcpy(from->byte, &ip->saddr, 16);
		return 1;
	}
	return 0;
}
