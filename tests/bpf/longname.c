/* SPDX-License-Identifier: GPL-2.0-only */
/* The kernel keeps 15 characters of this program's name; BTF has it whole. */
#include "common.h"

SEC("xdp")
int a_program_with_a_rather_long_name(struct xdp_md *ctx)
{
	return XDP_PASS;
}
