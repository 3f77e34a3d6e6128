/* SPDX-License-Identifier: GPL-2.0-only */
/* In BCC's dialect: seen counts in the table "packets_seen_by_bcc" and passes, stop drops. */
#ifndef VERDICT
#define VERDICT XDP_PASS
#endif

BPF_ARRAY(packets_seen_by_bcc, u64, 1);
BPF_HASH(unused, u32, u32);

int seen(struct xdp_md *ctx)
{
	packets_seen_by_bcc.atomic_increment(0);
	return VERDICT;
}

int stop(struct xdp_md *ctx)
{
	return XDP_DROP;
}
