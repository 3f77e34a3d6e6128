/* SPDX-License-Identifier: GPL-2.0-only */
/* Puts the process id of the current task, which it finds in the kernel's memory where its BTF says
 * (CO-RE), into "packets": how a test run sees the tester. The helpers are for GPL programs alone. */
#include "common.h"

COUNTER(BPF_MAP_TYPE_ARRAY);

struct task_struct {
	int tgid;
} __attribute__((preserve_access_index));

SEC("xdp")
int core(struct xdp_md *ctx)
{
	struct task_struct *task = (void *)(long)bpf_get_current_task();
	__u32 zero = 0;
	__u64 *value = bpf_map_lookup_elem(&packets, &zero);
	int tgid = 0;

	if (!value || bpf_probe_read_kernel(&tgid, sizeof(tgid), &task->tgid))
		return XDP_ABORTED;
	*value = tgid;
	return XDP_PASS;
}
