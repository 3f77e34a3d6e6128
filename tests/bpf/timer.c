/* SPDX-License-Identifier: GPL-2.0-only */
/* Each packet starts a timer; its callback counts in "packets"[0]. The map asks to be pinned: a timer
 * lives no longer than the last user of its map. */
#include "common.h"

#define CLOCK_MONOTONIC 1

struct state {
	__u64 fired;
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} timers SEC(".maps");

static int fire(void *map, __u32 *key, struct state *state)
{
	__sync_fetch_and_add(&state->fired, 1);
	return 0;
}

SEC("xdp")
int timer(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct state *state = bpf_map_lookup_elem(&timers, &zero);

	if (!state)
		return XDP_ABORTED;
	bpf_timer_init(&state->timer, &timers, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&state->timer, fire);
	return bpf_timer_start(&state->timer, 1000, 0) ? XDP_ABORTED : XDP_PASS;
}
