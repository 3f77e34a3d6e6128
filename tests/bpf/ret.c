/* SPDX-License-Identifier: GPL-2.0-only */
/* A program for each return code, real actions and others: choose by name, ret_N. */
#include "common.h"

#define RET(name, code)                                                                            \
	SEC("xdp")                                                                                 \
	int name(struct xdp_md *ctx)                                                               \
	{                                                                                          \
		return code;                                                                       \
	}

RET(ret_0, 0)
RET(ret_1, 1)
RET(ret_2, 2)
RET(ret_3, 3)
RET(ret_4, 4)
RET(ret_31, 31)
RET(ret_32, 32)
RET(ret_34, 34)
RET(ret_200, 200)
RET(ret_minus_1, -1)
