/* SPDX-License-Identifier: GPL-2.0-only */
/* What every test program needs; each file is otherwise complete in itself. */
#pragma once
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

/* A map of one u64, kept by a program to count the packets it saw. */
#define COUNTER(map_type)                                                                          \
	struct {                                                                                   \
		__uint(type, map_type);                                                            \
		__uint(max_entries, 1);                                                            \
		__type(key, __u32);                                                                \
		__type(value, __u64);                                                              \
	} packets SEC(".maps")

/* Add to a number in memory; what it was before, where no other CPU is at it: one instruction that
 * does both is from Linux 5.12 on. */
#define FETCH_ADD(number, more)                                                                    \
	({                                                                                         \
		__u64 before_ = *(volatile __u64 *)(number);                                       \
		__sync_fetch_and_add(number, more);                                                \
		before_;                                                                           \
	})

#define COUNT()                                                                                    \
	do {                                                                                       \
		__u32 zero_ = 0;                                                                   \
		__u64 *seen_ = bpf_map_lookup_elem(&packets, &zero_);                              \
		if (seen_)                                                                         \
			__sync_fetch_and_add(seen_, 1);                                            \
	} while (0)
