/* SPDX-License-Identifier: GPL-2.0-only */
/* Takes the verifier more than half of the million steps that it allows a program. */
#include "common.h"

SEC("xdp")
int costly(struct xdp_md *ctx)
{
	volatile __u32 last = 0;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 20000; i++) {
#pragma clang loop unroll(full)
		for (__u32 j = 0; j < 32; j++)
			last = i;
	}
	return last ? XDP_PASS : XDP_DROP;
}
