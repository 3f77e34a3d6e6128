"""Constants of <linux/bpf.h> and <linux/if_link.h>, under their names there.

Data alone: whoever needs a number of the kernel's loads no library for it.
"""

from __future__ import annotations

# --- programs -----------------------------------------------------------------------------------

BPF_PROG_TYPE_UNSPEC = 0
BPF_PROG_TYPE_XDP = 6
BPF_PROG_TYPE_RAW_TRACEPOINT = 17
BPF_PROG_TYPE_TRACING = 26
BPF_PROG_TYPE_EXT = 28
BPF_F_XDP_HAS_FRAGS, BPF_F_XDP_DEV_BOUND_ONLY = 1 << 5, 1 << 6

# What instructions name: in the source register of a load of 64 bits, and of a call.
BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, BPF_PSEUDO_BTF_ID, BPF_PSEUDO_FUNC = 1, 2, 3, 4
BPF_PSEUDO_CALL, BPF_PSEUDO_KFUNC_CALL = 1, 2
BPF_FUNC_map_lookup_elem, BPF_FUNC_ktime_get_ns, BPF_FUNC_tail_call = 1, 5, 12
BPF_FUNC_xdp_output = 121
BPF_FUNC_for_each_map_elem, BPF_FUNC_loop = 164, 181
BPF_FUNC_xdp_get_buff_len = 188

# --- maps ---------------------------------------------------------------------------------------

BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PROG_ARRAY = 1, 2, 3
BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4
BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY = 5, 6
BPF_MAP_TYPE_STACK_TRACE, BPF_MAP_TYPE_CGROUP_ARRAY = 7, 8
BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH, BPF_MAP_TYPE_LPM_TRIE = 9, 10, 11
BPF_MAP_TYPE_ARRAY_OF_MAPS, BPF_MAP_TYPE_HASH_OF_MAPS = 12, 13
BPF_MAP_TYPE_DEVMAP, BPF_MAP_TYPE_CPUMAP, BPF_MAP_TYPE_XSKMAP = 14, 16, 17
BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE = 21
BPF_MAP_TYPE_DEVMAP_HASH, BPF_MAP_TYPE_RINGBUF = 25, 27
BPF_F_NUMA_NODE, BPF_F_RDONLY, BPF_F_WRONLY = 1 << 2, 1 << 3, 1 << 4
BPF_F_RDONLY_PROG = 1 << 7

# --- links and what they are attached to --------------------------------------------------------

BPF_LINK_TYPE_TRACING = 2
BPF_LINK_TYPE_XDP = 6
BPF_TRACE_FENTRY, BPF_TRACE_FEXIT = 24, 25
BPF_XDP_DEVMAP = 33
BPF_XDP_CPUMAP = 35
BPF_XDP = 37
BPF_F_REPLACE = 1 << 2
XDP_FLAGS_UPDATE_IF_NOEXIST, XDP_FLAGS_REPLACE = 1 << 0, 1 << 4
XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE, XDP_FLAGS_HW_MODE = 1 << 1, 1 << 2, 1 << 3
XDP_ATTACHED_NONE, XDP_ATTACHED_DRV, XDP_ATTACHED_SKB = 0, 1, 2
XDP_ATTACHED_HW, XDP_ATTACHED_MULTI = 3, 4
