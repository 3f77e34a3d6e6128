/* SPDX-License-Identifier: GPL-2.0-only */
/* Its run configuration has a member that nobody knows. */
#include "common.h"

struct {
	__uint(priority, 10);
	__uint(XDP_MAYBE, 1);
} _config_bad SEC(".xdp_run_config");

SEC("xdp")
int config_bad(struct xdp_md *ctx)
{
	return XDP_PASS;
}
