// SPDX-License-Identifier: GPL-2.0
/* The rootlet dispatcher: the XDP program that owns an interface's hook and calls the members of
 * the chain in order. Each slot is a global function that an EXT (freplace) program replaces.
 *
 * Compiled for one shape, with -D'SLOTS=SLOT(0, 0x4) SLOT(1, 0x6)': the slots in order, each with
 * the mask of return codes on which the next one runs. Without it, a general dispatcher of ten
 * slots results that reads its shape from the config map when it is loaded.
 *
 * No header is needed: what follows is all there is to know of the kernel's interface, and the
 * source compiles alike on any machine with a clang.
 *
 * With -DWIDE as well, for more than ten slots, it has another name and a record of its own.
 */
typedef unsigned char u8;
typedef unsigned int u32;

/* The verifier knows the context by this name. */
struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

#define SECTION(name) __attribute__((section(name), used))
#define XDP_PASS 2
#define VACANT 31 /* what a slot answers while no program replaces it; XDP_DISPATCHER_RETVAL */
#define MAX_SLOTS 10

/* The interface's rules: the verdict past the last slot, and that of a vacant slot, whom the next
 * one follows if it is XDP_PASS. */
#ifndef ON_END
#define ON_END XDP_PASS
#endif
#ifndef ON_VACANT
#define ON_VACANT XDP_PASS
#endif

static long (*bpf_xdp_adjust_tail)(struct xdp_md *ctx, int delta) = (void *)65;

/* libxdp's protocol, version 1, 2 or 3 by -DPROTOCOL: the record that its tools read the chain
 * from. It has to be the program's only map; the code of a shaped dispatcher never looks at it. */
#ifndef PROTOCOL
#define PROTOCOL 2
#endif
struct dispatcher_config {
#ifdef WIDE /* not libxdp's, whose tools see a plain program: a head, and a line for each slot */
#define xdp_dispatcher xdpctl_wide
#define SLOT(n, mask) +1
	u32 head[4], slots[SLOTS][3];
#undef SLOT
#elif PROTOCOL == 1
	u8 enabled;
	u32 actions[MAX_SLOTS], priorities[MAX_SLOTS];
#else
	u8 magic, version, enabled, is_frags;
	u32 actions[MAX_SLOTS], priorities[MAX_SLOTS], flags[MAX_SLOTS];
#endif
#if !defined(WIDE) && PROTOCOL == 3
	u8 is_devbound;
#endif
};

const volatile struct dispatcher_config config SECTION(".rodata") = {};

#ifndef WIDE
/* The version once more, as the number of an array's elements: readable from BTF alone. */
int (*dispatcher_version)[PROTOCOL] SECTION("xdp_metadata");
#endif
/* clang-format off */
#ifdef SLOTS
#define ENABLED(n) 1
#define MASK(n, mask) (mask)
#else
#define SLOTS                                                                                      \
	SLOT(0, 0) SLOT(1, 0) SLOT(2, 0) SLOT(3, 0) SLOT(4, 0)                                     \
	SLOT(5, 0) SLOT(6, 0) SLOT(7, 0) SLOT(8, 0) SLOT(9, 0)
#define ENABLED(n) (config.enabled > (n))
#define MASK(n, mask) (config.actions[n])
#endif
/* clang-format on */
/* A slot. `vacant` is volatile lest clang carry the constant into the caller. The helper behind
 * `never` is not called, yet makes this a function that may change packet data: without it Linux
 * refuses every EXT program here that changes packets or makes tail calls (Linux kernel commit
 * 81f6d0530ba0 "bpf: check changes_pkt_data property for extension programs", in v6.13 and stable
 * releases). */
#define SLOT(n, mask)                                                                              \
	__attribute__((noinline)) int prog##n(struct xdp_md *ctx)                                  \
	{                                                                                          \
		volatile int vacant = VACANT, never = 0;                                           \
                                                                                                   \
		if (never)                                                                         \
			bpf_xdp_adjust_tail(ctx, 0);                                               \
		return vacant;                                                                     \
	}
SLOTS
#undef SLOT

/* Whether the next slot runs, where no code hands on to it: never, but neither clang nor the verifier
 * can tell. A slot that is out of their reach cannot be replaced. */
#define NO_QUEUE 0xffffffff

/* Whether the next slot runs. With a constant mask every term but those of its bits folds away and
 * the usual verdict is tested first: three instructions are run a slot. A code of 32 or more is in
 * no mask. */
static inline __attribute__((always_inline)) int goes_on(struct xdp_md *ctx, u32 code, u32 mask)
{
#define ON(n) ((1 & mask >> (n)) && code == (n))
	if (__builtin_constant_p(mask) && !mask && ON_VACANT != XDP_PASS)
		return ctx->rx_queue_index == NO_QUEUE;
	if (__builtin_constant_p(mask))
		return __builtin_expect(ON(XDP_PASS), 1) || ON(0) || ON(1) || ON(3) || ON(4) ||
		       (ON_VACANT == XDP_PASS && code == VACANT);
	return code < 32 && (code == VACANT || (mask >> code & 1));
}

/* The verdict of a chain that does not go on. */
static inline __attribute__((always_inline)) u32 verdict(u32 code)
{
	return ON_VACANT != XDP_PASS && code == VACANT ? ON_VACANT : code;
}

SECTION("xdp") int xdp_dispatcher(struct xdp_md *ctx)
{
	u32 code;

#define SLOT(n, mask)                                                                              \
	if (!ENABLED(n))                                                                           \
		return XDP_PASS;                                                                   \
	code = prog##n(ctx);                                                                       \
	if (!goes_on(ctx, code, MASK(n, mask)))                                                    \
		return verdict(code);
	SLOTS
	return ON_END;
}

char gpl[] SECTION("license") = "GPL";
