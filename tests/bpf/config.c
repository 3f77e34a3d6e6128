/* SPDX-License-Identifier: GPL-2.0-only */
/* Carries a run configuration: priority 10, goes on after XDP_DROP, and after XDP_PASS, which it does
 * not name and which is the default. */
#include "common.h"

COUNTER(BPF_MAP_TYPE_ARRAY);

struct {
	__uint(priority, 10);
	__uint(XDP_DROP, 1);
} _config SEC(".xdp_run_config");

SEC("xdp")
int config(struct xdp_md *ctx)
{
	COUNT();
	return XDP_DROP;
}
