"""What stands in the way of a chain on an interface, or slows it down."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import XdpctlError
from .check import Check
from .probes import Machine, Nic

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

_SOFTWARE = ("dummy", "ifb")
"""Kinds of devices that have no native XDP in any kernel; nor has loopback."""


def of_interface(machine: Machine, nic: Nic, named: bool) -> Iterator[Check]:
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
    if not native and (nic.name == "lo" or nic.kind in _SOFTWARE):
        found += ", no native XDP, as such devices have none: load -m skb"
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
    if nic.peer and not nic.peer.name:
        found += f"; its peer, in another network namespace, must not transmit by more than {rx}"
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
    words = (
        (nic.lro, "LRO is on", "LRO is off"),
        (nic.split, "headers are split from data (HDS)", "headers are left with their data"),
        (nic.vlan, "VLAN tags are taken out before programs see them", "VLAN tags are left"),
    )
    states = [on if state else off for state, on, off in words if state is not None]
    found = "; ".join(states) or "not told by the driver"
    wrong = [
        (nic.lro, "while the card joins packets", f"ethtool -K {nic.name} lro off"),
        (
            nic.split,
            "that takes no packets of several fragments while headers come apart",
            f"ethtool -G {nic.name} tcp-data-split off",
        ),
    ]
    whys = [why for on, why, _remedy in wrong if on]
    if not whys:
        return Check("offloads", "ok", found, interface=nic.name)
    return Check(
        "offloads",
        "warning",
        found,
        f"most drivers refuse a load in native mode {', and one '.join(whys)}",
        " && ".join(remedy for on, _why, remedy in wrong if on),
        interface=nic.name,
    )


def _mtu(machine: Machine, nic: Nic) -> Check:
    found, whose, mtu = f"{nic.mtu} bytes", nic.name, nic.mtu
    if nic.peer and nic.peer.mtu:  # what comes in is what the other end may send
        found += f", {nic.peer.mtu} of its peer {nic.peer.name}"
        whose, mtu = nic.peer.name, nic.peer.mtu
    elif nic.peer:
        found += "; its peer is in another network namespace, and its MTU counts as well"
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
