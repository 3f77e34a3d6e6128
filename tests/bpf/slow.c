/* SPDX-License-Identifier: GPL-2.0-only */
/* Passes every packet, but takes its time: a CPU that runs it stays in the root for long. */
#include "common.h"

SEC("xdp")
int slow(struct xdp_md *ctx)
{
	for (int i = 0; i < 2000; i++)
		bpf_ktime_get_ns();
	return XDP_PASS;
}
