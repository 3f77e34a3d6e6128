"""What is around the kernel's BPF side: the bpffs, policies, compilers, the cache."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from ..errors import BpffsError
from .check import Check
from .kernel_checks import policy_remedy
from .probes import Machine

_SHOWN = 5
"""As many names are listed of many."""


# --- the machine --------------------------------------------------------------------------------


def of_machine(machine: Machine) -> Iterator[Check]:
    yield _there(
        "membarrier",
        "MEMBARRIER_CMD_GLOBAL" if machine.grace_period else "",
        "no MEMBARRIER_CMD_GLOBAL",
        "each change sleeps for a quarter of a second instead of waiting for a grace period",
        "do not boot with nohz_full",
    )
    yield _there(
        "btf",
        "/sys/kernel/btf/vmlinux" if machine.btf else "",
        "no /sys/kernel/btf/vmlinux",
        "objects that adapt to the kernel's types (CO-RE) and xdpctl monitor do not work",
        "take a kernel with CONFIG_DEBUG_INFO_BTF",
    )
    yield _policy(machine)
    yield _bpffs(machine)


def _there(name: str, found: str, lacking: str, consequence: str, remedy: str) -> Check:
    """A check of something that a machine has, or does without."""
    if found:
        return Check(name, "ok", found)
    return Check(name, "warning", lacking, consequence, remedy)


def _policy(machine: Machine) -> Check:
    found = f"lockdown: {machine.lockdown or 'not to be seen'}; "
    found += f"security modules: {machine.lsms or 'not to be seen'}"
    if any(trial.errno == errno.EPERM for trial in (machine.xdp, machine.ext)):
        return Check(
            "policy",
            "warning",
            found,
            "one of them, or a patch of this kernel, refuses programs: see xdp and ext",
            policy_remedy(machine),
        )
    if machine.lockdown == "confidentiality":
        return Check(
            "policy", "warning", found, "programs may not read the kernel's memory (tracing)"
        )
    return Check("policy", "ok", found)


def _bpffs(machine: Machine) -> Check:
    problem = machine.bpffs_problem
    if problem is None:
        return Check("bpffs", "ok", f"{machine.bpffs}: mounted, safe, takes pins")
    if machine.bpffs_mountable:
        return Check(
            "bpffs",
            "warning",
            problem.what,
            "the next change mounts one (LIBXDP_BPFFS_AUTOMOUNT=1)",
            f"mount -t bpf bpf {machine.bpffs}",
        )
    return Check(
        "bpffs",
        "failed",
        f"{problem.what}: {problem.why}",
        "no chain can be changed: programs live by their pins",
        problem.hint,
        exit_code=BpffsError.exit_code,
    )


# --- tools --------------------------------------------------------------------------------------


def of_tools(machine: Machine) -> Iterator[Check]:
    yield _there(
        "clang",
        f"clang {machine.clang} compiles for BPF" if machine.clang else "",
        machine.clang_problem,
        "chains take a general dispatcher, a little slower, and if they have more than 10 "
        "programs, a fused root alone"
        if machine.general_dispatcher
        else "new shapes of dispatchers cannot be compiled: what is in the cache has to do",
        "install clang 10 or newer (Debian: apt install clang)",
    )
    yield _cache(machine)
    yield _there(
        "bcc",
        machine.bcc,
        "the distribution's bcc is not installed",
        "xdpctl monitor and programs in BCC's dialect do not work; everything else does",
        "apt install python3-bpfcc (Fedora: python3-bcc); bcc on PyPI is something else",
    )
    yield _there(
        "headers",
        machine.headers,
        f"no kernel headers for {machine.release}",
        "BCC cannot compile, for xdpctl monitor neither; everything else works",
        "install them (Debian: apt install linux-headers-$(uname -r))",
    )
    found = [one for one in (machine.xdp_tools, machine.libxdp) if one]
    yield Check("xdp-tools", "ok", ", ".join(found) or "not installed; nothing here needs it")


def _cache(machine: Machine) -> Check:
    if machine.cache_safe is False:
        return Check(
            "cache",
            "warning",
            f"{machine.cache} belongs to somebody else, or others may write to it",
            "it is not used: each new dispatcher is compiled anew",
            f"chown root {machine.cache} && chmod 0700 {machine.cache}, after a look into it",
        )
    if bad := machine.cache_bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        return Check(
            "cache",
            "warning",
            f"{machine.cache}: damaged, of another xdpctl or not root's alone: "
            f"{', '.join(map(ascii, bad[:_SHOWN]))}{more}",
            "none of them is used: what is needed is compiled anew",
            "find out who wrote them, and remove them",
        )
    later = "" if machine.cache_safe else ", made at the first load"
    return Check("cache", "ok", f"{machine.cache}{later}")
