/* SPDX-License-Identifier: GPL-2.0-only */
/* The only program, in a section that tells libbpf nothing. */
#include "common.h"

COUNTER(BPF_MAP_TYPE_ARRAY);

SEC("prog")
int oddsection(struct xdp_md *ctx)
{
	COUNT();
	return XDP_PASS;
}
