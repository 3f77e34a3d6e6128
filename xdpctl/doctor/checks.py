"""What the facts mean: a verdict on each, its consequence, and the remedy. Data in, data out.

The main job is a chain of programs on an interface. A check that stands in its way carries the
exit code of the error that a load would end with; the first of them is doctor's own.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from ..errors import BpffsError, RightsError, UnsupportedError, XdpctlError
from ..host.rights import NEEDED
from ..model.chain import Kind
from .probes import Machine, Nic

Verdict = Literal["ok", "warning", "failed"]

ONE_BUFFER = 3498
"""Up to this MTU a packet fits a page of 4096 bytes beside XDP's headroom and the kernel's records.

Drivers differ by some bytes.
"""

_DRIVERS = (
    "atlantic bnxt_en bonding ena fec fsl_dpa fsl_enetc fsl_enetc_vf hv_netvsc i40e ice igb igc "
    "ixgbe ixgbevf mana mlx4_en mlx5_core mtk_soc_eth mvneta mvpp2 netdevsim netsec nfp nicvf "
    "qede rvu_nicpf rvu_nicvf sfc st_gmac tun veth vif virtio_net"
)
NATIVE_DRIVERS = frozenset(_DRIVERS.split())
"""Drivers that have native XDP in some kernel before 6.3, as ethtool names them.

Later kernels tell it themselves (features.py), so that nobody has to go by names.
"""

_SHOWN = 5
"""As many names are listed of many."""


class Check(NamedTuple):
    """One thing that was looked at; `exit_code` is 0 where it does not stand in the way.

    `interface` is the name of the one that it is about.
    """

    name: str
    state: Verdict
    found: str
    consequence: str = ""
    remedy: str = ""
    interface: str | None = None
    exit_code: int = 0


class Diagnosis(NamedTuple):
    """All checks, and the kind of root that a first chain gets; None where there can be none."""

    checks: tuple[Check, ...]
    kind: Kind | None

    @property
    def exit_code(self) -> int:
        return next((check.exit_code for check in self.checks if check.exit_code), 0)


def examine(machine: Machine, *, named: bool) -> Diagnosis:
    """Judge the facts; `named` tells that it is about one interface, which has to be free."""
    checks = (*_rights(machine), *_kernel(machine), *_machine(machine), *_tools(machine))
    checks += tuple(check for nic in machine.nics for check in _interface(machine, nic, named))
    blocked = any(check.exit_code for check in checks)
    kind: Kind = "ext" if machine.ext.works else "fused"
    return Diagnosis(checks, None if blocked else kind)


# --- rights -------------------------------------------------------------------------------------


def _rights(machine: Machine) -> Iterator[Check]:
    if machine.missing:
        yield Check(
            "rights",
            "failed",
            f"this process lacks {_list(machine.missing)}",
            "no command on an interface works, and what the kernel can do was not tried",
            "run xdpctl as root",
            exit_code=RightsError.exit_code,
        )
    elif machine.own_user_namespace:
        yield Check(
            "rights",
            "warning",
            f"{_list(NEEDED)}, in a user namespace",
            "the kernel wants most of them in the initial user namespace",
            "run xdpctl outside the container, or in a privileged one",
        )
    else:
        yield Check("rights", "ok", _list(NEEDED))


# --- the kernel, by experiment ------------------------------------------------------------------


def _kernel(machine: Machine) -> Iterator[Check]:
    yield Check("kernel", *_configuration(machine))
    if machine.libbpf_problem:
        yield Check(
            "libbpf",
            "failed",
            machine.libbpf_problem,
            "nothing can be loaded, and what the kernel can do was not tried",
            "install libbpf 1.0 or newer (Debian: apt install libbpf1)",
            exit_code=UnsupportedError.exit_code,
        )
    else:
        yield Check("libbpf", "ok", machine.libbpf)
    if not machine.may_try:
        for name in ("xdp", "jit", "ext", "fused", "link", "netlink", "generic", "frags"):
            yield Check(name, "warning", "not tried", "see the failure above")
        return
    yield _xdp(machine)
    if not machine.xdp.works:
        return
    yield _jit(machine)
    yield _ext(machine)
    yield _fused(machine)
    yield from _attaching(machine)
    yield _frags(machine)


def _configuration(machine: Machine) -> tuple[Verdict, str, str, str]:
    found = f"Linux {machine.release} on {machine.arch}"
    if machine.config:
        found += ", " + " ".join(f"{name}={value}" for name, value in machine.config.items())
    if machine.config.get("XDP_SOCKETS") == "n":
        return (
            "warning",
            found,
            "XDP sockets do not exist here: applications that want packets by them cannot run",
            "take a kernel with CONFIG_XDP_SOCKETS",
        )
    return "ok", found, "", ""


def _xdp(machine: Machine) -> Check:
    if machine.xdp.works:
        return Check("xdp", "ok", "a plain XDP program loads")
    return Check(
        "xdp",
        "failed",
        f"a plain XDP program is refused: {machine.xdp.refusal}",
        "no chain of any kind can be built; nothing else was tried in the kernel",
        _policy_remedy(machine)
        if machine.xdp.errno == errno.EPERM
        else "take a kernel with CONFIG_BPF_SYSCALL",
        exit_code=UnsupportedError.exit_code,
    )


def _policy_remedy(machine: Machine) -> str:
    if machine.own_user_namespace:
        return "run xdpctl in the initial user namespace"
    return "ask who made this machine's security policy: lockdown, an LSM, seccomp, or the kernel"


def _jit(machine: Machine) -> Check:
    if machine.jited:
        return Check("jit", "ok", "programs run as machine code")
    return Check(
        "jit",
        "warning",
        "programs are interpreted",
        "EXT programs are refused, and every packet takes many times as long",
        "sysctl net.core.bpf_jit_enable=1 (in the initial network namespace)",
    )


def _ext(machine: Machine) -> Check:
    if machine.ext.works:
        return Check("ext", "ok", "EXT programs load and hook onto a dispatcher")
    consequence = "chains cannot be built of EXT programs"
    if machine.fused.works:
        consequence = "chains run in fused roots, which libxdp's tools cannot read"
    if machine.ext.errno == errno.EPERM:
        found = f"a security policy refuses EXT programs: {machine.ext.refusal}, although no right "
        found += "is missing and plain XDP loads"
        remedy = _policy_remedy(machine)
        if machine.fused.works:
            remedy = f"nothing: a fused root is taken by itself; to have EXT, {remedy}"
    elif machine.ext.errno:
        found = f"the kernel refuses EXT programs: {machine.ext.refusal}"
        remedy = f"take a newer kernel, if it has EXT on {machine.arch}"
        if not machine.jited:
            remedy = "turn the JIT on, see jit"
    else:
        found, remedy = f"no dispatcher can be made: {machine.ext.refusal}", "see clang"
        if machine.fused.works:
            consequence, remedy = "a load fails without --root fused", f"{remedy}, or --root fused"
    return Check("ext", "warning" if machine.fused.works else "failed", found, consequence, remedy)


def _fused(machine: Machine) -> Check:
    if machine.fused.works:
        return Check("fused", "ok", "members load as functions of one program")
    works = machine.ext.works
    return Check(
        "fused",
        "warning" if works else "failed",
        f"refused: {machine.fused.refusal}",
        "--root fused does not work" if works else "no chain of either kind can be built",
        "take Linux 5.10 or newer",
        exit_code=0 if works else UnsupportedError.exit_code,
    )


# name of the trial: what works, what it means where that does not, and what to do then.
_WAYS = {
    "link": (
        "a root is attached and exchanged by bpf_link",
        "a first load has to be told to attach over netlink",
        "load --attach netlink",
    ),
    "netlink": (
        "a root is attached and exchanged over netlink",
        "load --attach netlink does not work",
        "none is needed: a bpf_link serves",
    ),
    "generic": (
        "generic mode works",
        "interfaces without native XDP can have no chain",
        "take interfaces with native XDP",
    ),
}


def _attaching(machine: Machine) -> Iterator[Check]:
    trials = {"link": machine.link, "netlink": machine.netlink, "generic": machine.generic}
    no_way = all(trials[name].tried and not trials[name].works for name in ("link", "netlink"))
    for name, trial in trials.items():
        works, consequence, remedy = _WAYS[name]
        if trial.works:
            where = "a veth pair" if machine.device == "veth" else machine.device
            yield Check(name, "ok", f"{works} (tried on {where} in a namespace of its own)")
        elif not trial.tried:
            yield Check(name, "warning", f"not tried: {trial.refusal or 'there was no answer'}")
        elif no_way and name != "generic":
            yield Check(
                name,
                "failed",
                f"refused: {trial.refusal}",
                "no root can be attached",
                "take Linux 5.10 or newer",
                exit_code=UnsupportedError.exit_code,
            )
        else:
            yield Check(name, "warning", f"refused: {trial.refusal}", consequence, remedy)


def _frags(machine: Machine) -> Check:
    native = machine.frags_native
    if machine.frags.works and (native.works or not native.tried):
        tried = ", also at a large MTU" if native.works else ""
        return Check("frags", "ok", f"programs can take packets of several fragments{tried}")
    return Check(
        "frags",
        "warning",
        f"refused: {machine.frags.refusal or native.refusal}",
        f"in native mode the MTU has to stay below about {ONE_BUFFER}",
        "take Linux 5.18 or newer for larger ones",
    )


# --- the machine --------------------------------------------------------------------------------


def _machine(machine: Machine) -> Iterator[Check]:
    if machine.grace_period:
        yield Check("membarrier", "ok", "MEMBARRIER_CMD_GLOBAL")
    else:
        yield Check(
            "membarrier",
            "warning",
            "no MEMBARRIER_CMD_GLOBAL",
            "each change sleeps for a quarter of a second instead of waiting for a grace period",
            "do not boot with nohz_full",
        )
    if machine.btf:
        yield Check("btf", "ok", "/sys/kernel/btf/vmlinux")
    else:
        yield Check(
            "btf",
            "warning",
            "no /sys/kernel/btf/vmlinux",
            "objects that adapt to the kernel's types (CO-RE) and xdpctl monitor do not work",
            "take a kernel with CONFIG_DEBUG_INFO_BTF",
        )
    yield _policy(machine)
    yield _bpffs(machine)


def _policy(machine: Machine) -> Check:
    found = f"lockdown: {machine.lockdown or 'not to be seen'}; "
    found += f"security modules: {machine.lsms or 'not to be seen'}"
    if any(trial.errno == errno.EPERM for trial in (machine.xdp, machine.ext)):
        return Check(
            "policy",
            "warning",
            found,
            "one of them, or a patch of this kernel, refuses programs: see xdp and ext",
            _policy_remedy(machine),
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


def _tools(machine: Machine) -> Iterator[Check]:
    if machine.clang:
        yield Check("clang", "ok", f"clang {machine.clang} compiles for BPF")
    else:
        general = machine.general_dispatcher
        yield Check(
            "clang",
            "warning",
            machine.clang_problem,
            "chains take a general dispatcher, a little slower, and if they have more than 10 "
            "programs, a fused root alone"
            if general
            else "new shapes of dispatchers cannot be compiled: what is in the cache has to do",
            "install clang 10 or newer (Debian: apt install clang)",
        )
    yield _cache(machine)
    if machine.bcc:
        yield Check("bcc", "ok", machine.bcc)
    else:
        yield Check(
            "bcc",
            "warning",
            "the distribution's bcc is not installed",
            "xdpctl monitor and programs in BCC's dialect do not work; everything else does",
            "apt install python3-bpfcc (Fedora: python3-bcc); bcc on PyPI is something else",
        )
    if machine.headers:
        yield Check("headers", "ok", machine.headers)
    else:
        yield Check(
            "headers",
            "warning",
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


# --- interfaces ---------------------------------------------------------------------------------


def _interface(machine: Machine, nic: Nic, named: bool) -> Iterator[Check]:
    yield _native(machine, nic)
    yield _mtu(machine, nic)
    yield _queues(machine, nic)
    yield _offloads(nic)
    if nic.busy is not None:
        yield _busy(nic, nic.busy, named)
    elif machine.may_try:
        yield Check("hook", "ok", nic.runs or "nothing on it", interface=nic.name)


def has_native(nic: Nic) -> bool | None:
    """Whether a driver has native XDP, by its flags or else its name; None: nobody knows."""
    if nic.features is not None:
        return nic.features.has("BASIC")
    return True if {nic.driver, nic.kind} & NATIVE_DRIVERS else None


def _native(machine: Machine, nic: Nic) -> Check:
    found = f"driver {nic.driver or nic.kind or 'unknown'}, {nic.rx} receive and {nic.tx} transmit "
    found += "queues"
    native = has_native(nic)
    if native and nic.features is not None:
        return Check("native", "ok", f"{found}, native XDP", interface=nic.name)
    if native:
        found += ", by its name probably with native XDP"
        return Check("native", "ok", found, interface=nic.name)
    if native is None:
        return Check(
            "native",
            "warning",
            f"{found}; whether it has native XDP is not known: {machine.netdev or 'not told'}",
            "load -m native may be refused",
            "try it; else load -m skb",
            interface=nic.name,
        )
    return Check(
        "native",
        "warning",
        f"{found}, no native XDP",
        "a load in native mode is refused; generic mode is slower",
        "load -m skb",
        interface=nic.name,
    )


def _queues(machine: Machine, nic: Nic) -> Check:
    """How many are in use: of a veth's peer they must not be more than this end takes."""
    if nic.channels is None:
        return Check("queues", "ok", "not told by the driver", interface=nic.name)
    rx, tx = nic.channels
    found = f"{rx} receive and {tx} transmit queues in use, {machine.processors} processors"
    if nic.peer_channels and nic.peer and nic.peer_channels[1] > rx:
        return Check(
            "queues",
            "warning",
            f"{found}; {nic.peer.name}, its peer, transmits by {nic.peer_channels[1]}",
            "a load in native mode is refused",
            f"ethtool -L {nic.name} rx {nic.peer_channels[1]}, or load -m skb",
            interface=nic.name,
        )
    if nic.kind != "veth" and has_native(nic) and rx > 1 and tx < machine.processors:
        return Check(
            "queues",
            "warning",
            f"{found}",
            "drivers that want a transmit queue a processor for XDP refuse native mode, or lock",
            f"ethtool -L {nic.name} combined {machine.processors}, if the card has as many",
            interface=nic.name,
        )
    return Check("queues", "ok", found, interface=nic.name)


def _offloads(nic: Nic) -> Check:
    if nic.lro is None:
        return Check("offloads", "ok", "not told by the driver", interface=nic.name)
    tags = "VLAN tags are taken out before programs see them" if nic.vlan else "VLAN tags are left"
    if nic.lro:
        return Check(
            "offloads",
            "warning",
            f"LRO is on; {tags}",
            "most drivers refuse native XDP while the card joins packets",
            f"ethtool -K {nic.name} lro off",
            interface=nic.name,
        )
    return Check("offloads", "ok", f"LRO is off; {tags}", interface=nic.name)


def _mtu(machine: Machine, nic: Nic) -> Check:
    found, whose, mtu = f"{nic.mtu} bytes", nic.name, nic.mtu
    if nic.peer and nic.peer.mtu:  # what comes in is what the other end may send
        found += f", {nic.peer.mtu} of its peer {nic.peer.name}"
        whose, mtu = nic.peer.name, nic.peer.mtu
    if mtu <= ONE_BUFFER or has_native(nic) is False:
        return Check("mtu", "ok", found, interface=nic.name)
    if machine.frags.tried and not machine.frags.works:
        why = "the kernel knows no packets of several fragments"
    elif nic.features is not None and not nic.features.has("RX_SG"):
        why = "the driver gives programs no packets of several fragments"
    else:
        return Check(
            "mtu",
            "warning",
            f"{found}: more than one buffer holds",
            "in native mode every program of a chain has to take fragments",
            'build them with SEC("xdp.frags"), or lower the MTU',
            interface=nic.name,
        )
    return Check(
        "mtu",
        "warning",
        f"{found}: more than one buffer holds, and {why}",
        "a load in native mode may be refused",
        f"ip link set dev {whose} mtu 1500, or load -m skb",
        interface=nic.name,
    )


def _busy(nic: Nic, problem: XdpctlError, named: bool) -> Check:
    return Check(
        "hook",
        "failed" if named else "warning",
        nic.runs or problem.why or problem.what,
        f"a load is refused: {problem.what}",
        problem.hint,
        interface=nic.name,
        exit_code=problem.exit_code if named else 0,
    )


def _list(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def verdict(diagnosis: Diagnosis) -> str:
    """The sum of it in one sentence."""
    kinds: dict[Kind, str] = {
        "ext": "a chain can be run here, of EXT programs on a dispatcher",
        "fused": "a chain can be run here, in a fused root",
    }
    if diagnosis.kind is not None:
        return kinds[diagnosis.kind]
    first = next(check for check in diagnosis.checks if check.exit_code)
    where = f" of {first.interface}" if first.interface else ""
    return f"no chain can be run here: see {first.name}{where} (exit status {first.exit_code})"
