/* SPDX-License-Identifier: GPL-2.0-only */
/* Drops UDP packets to port BLOCKED, and writes VERSION into the first byte of those to port 7007,
 * so that their receiver can tell whether a firewall saw them, and which: see traffic.py. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef BLOCKED
#define BLOCKED 9
#endif
#define SERVICE 7007

struct datagram {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__u8 version;
} __attribute__((packed));

SEC("xdp")
int firewall(struct xdp_md *ctx)
{
	struct datagram *seen = (void *)(long)ctx->data;

	if ((void *)(seen + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	if (seen->eth.h_proto != bpf_htons(ETH_P_IP) || seen->ip.ihl != 5 ||
	    seen->ip.protocol != IPPROTO_UDP)
		return XDP_PASS;
	if (seen->udp.dest == bpf_htons(BLOCKED))
		return XDP_DROP;
	/* Their sender leaves the checksum out. */
	if (seen->udp.dest == bpf_htons(SERVICE))
		seen->version = VERSION;
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
