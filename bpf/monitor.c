/* SPDX-License-Identifier: GPL-2.0-only */
/* In BCC's dialect: counts what goes wrong with packets around XDP, at the kernel's tracepoints.
 *
 * Raw tracepoints: an event's own program runs whatever else of BPF is at work on the CPU, whereas
 * one behind perf is passed over while a bpf(2) call or another tracing program is. They give the
 * arguments of the event alone, so monitor.py tells by -D where their members lie, as the running
 * kernel's BTF has it; no header of the kernel's is asked for any of that.
 */
enum { EXCEPTION, REDIRECT, TX, DEVMAP, CPUMAP, CPU };

/* monitor.py: What. The code is a verdict or a negative errno; `to` an interface's number without
 * a map, else an index of the map, or a CPU. */
struct what {
	u32 event, ifindex, netns, program;
	int code;
	u32 map_type, map, to;
};

BPF_TABLE("percpu_hash", struct what, u64, counts, COUNTS);
BPF_TABLE("percpu_array", u32, u64, lost, 1);

#define ODD_VERDICT 256	  /* and all beyond: a program may answer with anything */
#define NO_MAP 0x7fffffff /* bpf_redirect(): the index is an interface's number */

static inline u32 number(u64 address)
{
	u32 value = 0;
	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

static inline u64 pointer(u64 address)
{
	u64 value = 0;
	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

static inline void of_device(struct what *what, u64 device)
{
	what->ifindex = number(device + DEV_IFINDEX);
	what->netns = number(pointer(device + DEV_NET) + NET_INUM);
}

static inline void count(struct what *what, u64 packets)
{
	u64 none = 0, *found = counts.lookup(what);
	u32 only = 0;

	if (!found) {
		/* Another CPU may be about to do the same. */
		counts.insert(what, &none);
		found = counts.lookup(what);
	}
	if (!found)
		found = lost.lookup(&only);
	if (found)
		__sync_fetch_and_add(found, packets);
}

RAW_TRACEPOINT_PROBE(xdp_exception)
{
	struct what what = { .event = EXCEPTION };
	u32 verdict = ctx->args[2];

	of_device(&what, ctx->args[0]);
	what.program = number(pointer(ctx->args[1] + PROG_AUX) + AUX_ID);
	what.code = verdict < ODD_VERDICT ? verdict : ODD_VERDICT;
	count(&what, 1);
	return 0;
}

RAW_TRACEPOINT_PROBE(xdp_redirect_err)
{
	struct what what = { .event = REDIRECT };

	of_device(&what, ctx->args[0]);
	what.program = number(pointer(ctx->args[1] + PROG_AUX) + AUX_ID);
	what.code = ctx->args[3];
#ifdef REDIRECT_TELLS_POINTER /* before v5.13 */
	if (ctx->args[4]) {
		what.map_type = number(ctx->args[4] + MAP_TYPE);
		what.map = number(ctx->args[4] + MAP_ID);
	}
	what.to = ctx->args[5];
#else
	what.map_type = ctx->args[4];
	if (what.map_type)
		what.map = ctx->args[5];
	if (what.map || (u32)ctx->args[5] == NO_MAP)
		what.to = ctx->args[6];
#endif
	count(&what, 1);
	return 0;
}

RAW_TRACEPOINT_PROBE(xdp_bulk_tx)
{
	struct what what = { .event = TX, .code = ctx->args[3] };
	u32 drops = ctx->args[2];

	if (drops) {
		of_device(&what, ctx->args[0]);
		count(&what, drops);
	}
	return 0;
}

RAW_TRACEPOINT_PROBE(xdp_devmap_xmit)
{
	struct what what = { .event = DEVMAP, .code = ctx->args[4] };
	u32 drops = ctx->args[3];

	if (drops) {
		of_device(&what, ctx->args[0]);
		what.to = number(ctx->args[1] + DEV_IFINDEX);
		count(&what, drops);
	}
	return 0;
}

RAW_TRACEPOINT_PROBE(xdp_cpumap_enqueue)
{
	struct what what = { .event = CPUMAP, .map = ctx->args[0], .to = ctx->args[3] };
	u32 drops = ctx->args[2];

	if (drops)
		count(&what, drops);
	return 0;
}

RAW_TRACEPOINT_PROBE(xdp_cpumap_kthread)
{
	struct what what = { .event = CPU, .map = ctx->args[0] };
	u32 drops = ctx->args[2];

	if (drops) {
		what.to = bpf_get_smp_processor_id();
		count(&what, drops);
	}
	return 0;
}
