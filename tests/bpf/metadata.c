/* SPDX-License-Identifier: GPL-2.0-only */
/* Asks the device for a packet's hash and for the time of its arrival, and counts. It aborts if
 * nobody answers: the kernel's own functions, which stand in where a driver has none, refuse. */
#include "common.h"

#define EOPNOTSUPP 95

enum xdp_rss_hash_type___any { XDP_RSS_TYPE_NONE___any };

extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, __u32 *hash,
				    enum xdp_rss_hash_type___any *type) __ksym;
extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp) __ksym;

COUNTER(BPF_MAP_TYPE_ARRAY);

SEC("xdp")
int metadata(struct xdp_md *ctx)
{
	enum xdp_rss_hash_type___any type;
	__u64 timestamp;
	__u32 hash;

	if (bpf_xdp_metadata_rx_hash(ctx, &hash, &type) == -EOPNOTSUPP)
		return XDP_ABORTED;
	if (bpf_xdp_metadata_rx_timestamp(ctx, &timestamp) == -EOPNOTSUPP)
		return XDP_ABORTED;
	COUNT();
	return XDP_PASS;
}
