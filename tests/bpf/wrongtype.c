/* SPDX-License-Identifier: GPL-2.0-only */
/* Not an XDP program at all. */
#include "common.h"

SEC("tc")
int wrongtype(struct __sk_buff *skb)
{
	return 0;
}
