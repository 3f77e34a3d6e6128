/* SPDX-License-Identifier: GPL-2.0-only */
/* Eight functions that call each other in a row, as many as most kernels take. */
#include "common.h"

static __noinline int level8(struct xdp_md *ctx)
{
	return ctx->data_end - ctx->data > 13 ? XDP_PASS : XDP_DROP;
}

#define LEVEL(name, next)                                                                          \
	static __noinline int name(struct xdp_md *ctx)                                             \
	{                                                                                          \
		volatile int verdict = next(ctx);                                                  \
		return verdict;                                                                    \
	}

LEVEL(level7, level8)
LEVEL(level6, level7)
LEVEL(level5, level6)
LEVEL(level4, level5)
LEVEL(level3, level4)
LEVEL(level2, level3)

SEC("xdp")
int levels(struct xdp_md *ctx)
{
	return level2(ctx);
}
