/* SPDX-License-Identifier: GPL-2.0-only */
/* Meant for an entry of a device map, not for an interface. */
#include "common.h"

SEC("xdp/devmap")
int devmap(struct xdp_md *ctx)
{
	return XDP_PASS;
}
