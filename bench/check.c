// SPDX-License-Identifier: GPL-2.0
/* Passes what is long enough to have an Ethernet header, so every packet. The verifier cannot know
 * that: a member whose verdict it does know costs a fused root no comparison at all, which would
 * flatter it. Nothing of the kernel's headers is needed.
 */
#define SECTION(name) __attribute__((section(name), used))
#define XDP_DROP 1
#define XDP_PASS 2

struct xdp_md {
	unsigned int data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

SECTION("xdp") int check(struct xdp_md *ctx)
{
	return (void *)(long)ctx->data + 14 > (void *)(long)ctx->data_end ? XDP_DROP : XDP_PASS;
}

char gpl[] SECTION("license") = "GPL";
