"""Why a kernel or a driver does not take a root, in the driver's own words, and what to do."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Sequence

from ..errors import HookBusyError, KernelError, UnsupportedError, XdpctlError
from ..host import signals
from ..host.interfaces import Interface
from ..kernel import asm, netlink, uapi, xdp
from ..kernel.program import Program
from ..model.chain import Chain, Member
from ..model.plan import Plan

DRIVERS = (errno.EOPNOTSUPP, errno.EINVAL, errno.ERANGE, errno.ENOSPC, errno.ENOMEM)
"""What drivers say if they do not take a program."""

# Linux kernel commits 2ea5eabaf04a "bpf: devmap: Implement devmap prog execution for generic XDP"
# and 11941f8a8536 "bpf: cpumap: Implement generic cpumap".
_GENERIC = (
    "before Linux 5.15 generic mode takes no program with a device or CPU map whose entries have "
    "room for programs: declare their values as __u32"
)

# What a driver's sentence is about, and what makes that fit; the first that is found counts.
_REMEDIES = (
    (r"LRO|large.receive", "ethtool -K {name} lro off"),
    (r"GRO.?HW", "ethtool -K {name} rx-gro-hw off lro off"),
    (r"HDS|data.split|header.split", "ethtool -G {name} tcp-data-split off"),
    (r"queue|ring|channel", "ethtool -L {name} changes how many it has: see ethtool -l {name}"),
)


def explained(interface: Interface, plan: Plan, what: str, error: KernelError) -> XdpctlError:
    """The error for a flip, `what` of which the kernel refused with an errno."""
    name, said = interface.name, sentence(error.log)
    if what == "attach" and not said and error.errno in DRIVERS:
        said = asked(interface, plan, error.errno)
    reason = f"{said} ({error})" if said else error.log.strip() or str(error)
    if error.errno == errno.ERANGE or (error.errno in DRIVERS and _is_of_size(said)):
        return _too_large(interface, plan, what, said)
    if error.errno in DRIVERS and not error.log and what == "update" and _loses_frags(plan):
        return _too_large(interface, plan, what, said)
    if error.errno == errno.EINVAL and plan.adopts and plan.attach == "link":
        # bpf_xdp_link_update() (net/core/dev.c) wants both to be alike.
        return UnsupportedError(
            f"the link of {name} takes no root of ours",
            why="the program that it runs was loaded without the attach type XDP, as some loaders "
            "in Go and Rust do, and a link keeps to what it began with",
            hint="have its owner attach it again, with the attach type or over netlink "
            f"(ip link set dev {name} xdp pinned PIN)",
        )
    generic = plan.mode == "skb"
    told = said or error.errno != errno.ENOMEM  # else the kernel is out of memory itself
    if error.errno in DRIVERS and told and (what == "attach" or (what == "update" and generic)):
        return UnsupportedError(
            f"cannot attach to {name} in {plan.mode} mode", why=reason, hint=_remedy(plan, said)
        )
    return XdpctlError(f"cannot {what} the root of {name}", why=reason)


def sentence(log: str) -> str:
    """The sentence of a driver or of the kernel in what libbpf said; empty if there is none."""
    match = re.search(r"Kernel error message: (.+)", log)
    return match[1].strip() if match else ""


def asked(interface: Interface, plan: Plan, number: int) -> str:
    """What the driver says to a program such as the root, refused over a link with an errno.

    A link's refusal is a bare errno, netlink's has words. So a program that passes everything, with
    the root's flags, asks for a hook that is free. It is refused as the root was; were it taken, in
    a race with who made that fit, no packet would fare otherwise, and it goes again at once. The
    chain itself goes onto the hook in one place alone. Generic mode has no driver to be asked.
    """
    if plan.mode == "skb":
        return ""
    flags = uapi.XDP_FLAGS_HW_MODE if plan.mode == "hw" else uapi.XDP_FLAGS_DRV_MODE
    kind, frags = uapi.BPF_PROG_TYPE_XDP, _takes_frags(plan.target, plan.protocol)
    try:
        asking = Program.load(kind, "xdpctl_ask", asm.PASS, gpl=True, frags=frags)
    except KernelError:
        return ""
    with asking, signals.blocked():
        try:
            xdp.attach(interface.ifindex, asking, flags)
        except KernelError as error:
            return sentence(error.log) if error.errno == number else ""
        with contextlib.suppress(KernelError):
            xdp.detach(interface.ifindex, flags, asking)
    return ""


def check_relatives(interface: Interface, error: KernelError) -> None:
    """Raise HookBusyError if a device above or below has a program, which excludes another here."""
    for one, where in netlink.relatives(interface.ifindex):
        if one.program:
            raise HookBusyError(
                f"{one.name}, {where} {interface.name}, has an XDP program",
                why=f"program {one.program} there: the kernel runs one of a device and of what is "
                "above it, not both",
                hint=f"load onto {one.name}, or take the program out there",
            ) from error


def _is_of_size(said: str) -> bool:
    return bool(re.search(r"\bMTU\b|frags|frame size|buffer", said, re.IGNORECASE))


def _takes_frags(chain: Chain, protocol: int) -> bool:
    """Whether its root takes packets of several fragments."""
    return protocol != 1 and all(member.frags for member in chain.members)


def _loses_frags(plan: Plan) -> bool:
    """Whether the new root takes no fragments where the old one did.

    The refusal of a link's update is a bare errno, and a hook in use cannot be asked.
    """
    before, after = (_takes_frags(one, plan.protocol) for one in (plan.current, plan.target))
    return plan.mode != "skb" and bool(plan.current.members) and before and not after


def _too_large(interface: Interface, plan: Plan, what: str, said: str) -> UnsupportedError:
    """Packets of several fragments may come in, which not every program and driver takes."""
    name = interface.name
    whose, device = name, name
    # A veth end gets what its peer sends: it is the peer's MTU that counts.
    peer = netlink.veth_peer(interface.ifindex)
    if peer is not None:
        whose, device = f"{peer.name or 'the peer'}, the peer of {name},", peer.name
    lower = f"ip link set dev {device} mtu 1500" if device else "in its own network namespace"
    generic = ", or load -m skb" if what == "attach" and plan.mode != "skb" else ""
    if _takes_frags(plan.target, plan.protocol):
        told = f"the driver says: {said}" if said else "the driver takes no fragments"
        driver = "its driver" if peer is None else f"the driver of {name}"
        return UnsupportedError(
            f"the MTU of {whose} is too large for {driver}",
            why=f"every program takes packets of several fragments, and {told}",
            hint=f"lower it ({lower}){generic}",
        )
    return UnsupportedError(
        f"the MTU of {whose} is too large for this chain",
        why="packets of several fragments need frags support in every program, and "
        + _without_frags(plan.target.members, said),
        hint=f'lower it ({lower}), build the programs with SEC("xdp.frags"){generic}',
    )


def _without_frags(members: Sequence[Member], said: str) -> str:
    lacking = [member.name for member in members if not member.frags]
    told = f"; the driver says: {said}" if said else ""
    if not lacking:
        return "libxdp's protocol 1 has no word for it" + told
    return f"{', '.join(lacking)} lack{'s' if len(lacking) == 1 else ''} it{told}"


def _remedy(plan: Plan, said: str) -> str:
    """What to do about a refusal to attach."""
    if asking := [member.known_as for member in plan.target.members if member.devbound]:
        return (
            f"{', '.join(asking)} is bound to {plan.interface}, since it asks it about packets: "
            "that has to be the device itself, none above it such as a bond, and its driver has to "
            "run programs"
        )
    if plan.mode == "skb":
        return _GENERIC
    if plan.mode == "hw":
        return "the card may be off, or full: -m native"
    fitting = (text for form, text in _REMEDIES if re.search(form, said, re.IGNORECASE))
    found = next(fitting, "").format(name=plan.interface)
    return f"{found}, or load -m skb" if found else "the driver may know generic mode alone: -m skb"
