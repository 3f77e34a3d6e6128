"""xdpctl.kernel.netlink: the same facts from one dump as from libbpf's queries."""

from __future__ import annotations

import contextlib
import importlib
import signal
import socket
from typing import Any

import pytest

from tests.unit.samples import send
from xdpctl.errors import Interrupted
from xdpctl.host import signals
from xdpctl.kernel import netlink, uapi


class Attributes(dict[str, Any]):
    """A netlink message as pyroute2 gives it, as far as it is asked."""

    def get_attr(self, name: str) -> Any:
        return self.get(name)


def link(attached: str | None = None, **numbers: int) -> Attributes:
    """An interface's message; `numbers` are program ids by the mode's short name, "" for one."""
    if attached is None:
        return Attributes()
    ids = {f"IFLA_XDP_{kind}_PROG_ID": number for kind, number in numbers.items()}
    return Attributes(IFLA_XDP=Attributes(IFLA_XDP_ATTACHED=attached, **ids))


def single(attached: str, number: int) -> Attributes:
    return Attributes(
        IFLA_XDP=Attributes(IFLA_XDP_ATTACHED=attached, IFLA_XDP_PROG_ID=number),
    )


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (link(), (0, uapi.XDP_ATTACHED_NONE)),
        (Attributes(IFLA_XDP=Attributes()), (0, uapi.XDP_ATTACHED_NONE)),
        (single("xdp", 7), (7, uapi.XDP_ATTACHED_DRV)),
        (single("xdpgeneric", 7), (7, uapi.XDP_ATTACHED_SKB)),
        (single("xdpoffload", 7), (7, uapi.XDP_ATTACHED_HW)),
        # With several, who sees packets first: as xdp.query has it.
        (link("xdpmulti", SKB=1, DRV=2), (2, uapi.XDP_ATTACHED_DRV)),
        (link("xdpmulti", SKB=1, HW=3), (3, uapi.XDP_ATTACHED_HW)),
        (link("xdpmulti", SKB=1), (1, uapi.XDP_ATTACHED_SKB)),
    ],
)
def test_what_an_interface_runs(message: Attributes, found: tuple[int, int]) -> None:
    assert netlink._program(message) == found


def test_both_ways_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    queried = netlink.xdp_programs()
    monkeypatch.setattr(netlink, "_MANY", 0)
    dumped = netlink.xdp_programs()
    assert dumped == queried
    assert dumped.keys() == {number for number, _name in socket.if_nameindex()}


def device(index: int, kind: str = "", **attributes: object) -> Attributes:
    info = {"IFLA_LINKINFO": Attributes(IFLA_INFO_KIND=kind)} if kind else {}
    return Attributes(index=index, **info, **{f"IFLA_{k}": v for k, v in attributes.items()})


def test_what_interfaces_stand_on() -> None:
    """At any depth; not the ports of a bridge, nor a device of another namespace."""
    links = [
        device(2, MASTER=10),
        device(3, "veth", MASTER=10, LINK=2),
        device(4, MASTER=11),
        device(5, MASTER=12),
        device(10, "bond"),
        device(11, "team"),
        device(12, "bridge"),
        device(20, "vlan", LINK=10),
        device(21, "vlan", LINK=20),
        device(22, "vlan", LINK=4, LINK_NETNSID=0),
        device(23, "macvlan", LINK=4),
        device(24, "vxlan", LINK=4),
    ]
    for number, found in [
        (10, {2, 3}),
        (11, {4}),
        (12, set()),
        (20, {10, 2, 3}),
        (21, {20, 10, 2, 3}),
        (22, set()),
        (23, {4}),
        (24, set()),
        (2, set()),
        (99, set()),
    ]:
        assert netlink._below(links, [number]) == found, number
    assert netlink._below(links, [10, 11, 20]) == {2, 3, 4}


def test_the_machine_s_own_interfaces() -> None:
    numbers = {number for number, _name in socket.if_nameindex()}
    assert netlink.alternative_names().keys() == numbers
    assert netlink.below(numbers) == set()


def test_the_peer_of_a_veth() -> None:
    links = [
        device(2, "veth", LINK=3, IFNAME="a", MTU=1500),
        device(3, "veth", LINK=2, IFNAME="b", MTU=9000),
        device(4, "veth", LINK=3, IFNAME="c", LINK_NETNSID=0),
        device(5, "dummy", IFNAME="d"),
    ]
    assert netlink._veth_peer(links, 2) == netlink.Neighbour("b", 9000)
    assert netlink._veth_peer(links, 4) == netlink.Neighbour("")
    assert netlink._veth_peer(links, 5) is None
    assert netlink._veth_peer(links, 99) is None


def test_what_is_above_and_below() -> None:
    links = [
        device(2, MASTER=10, IFNAME="eth0"),
        device(10, "bond", IFNAME="bond0", XDP=single("xdpgeneric", 7)["IFLA_XDP"]),
        device(20, "vlan", LINK=10, IFNAME="bond0.5"),
        device(21, "vlan", LINK=10, LINK_NETNSID=3, IFNAME="elsewhere"),
        device(22, "veth", LINK=10, IFNAME="peer"),
    ]
    found = [(one.name, one.program, where) for one, where in netlink._relatives(links, 10)]
    assert found == [("eth0", 0, "below"), ("bond0.5", 0, "above")]
    found = [(one.name, one.program, where) for one, where in netlink._relatives(links, 2)]
    assert found == [("bond0", 7, "above")]


# --- signals ------------------------------------------------------------------------------------


def test_no_signal_is_lost_while_interfaces_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio, on which pyroute2 runs, logs what a handler raises in a callback, and goes on."""
    transport: Any = importlib.import_module("asyncio.selector_events")
    transport = transport._SelectorDatagramTransport
    received, came = transport._read_ready, list[object]()

    def interrupted(one: object) -> None:
        came.append(one)
        send(signal.SIGTERM)
        received(one)

    monkeypatch.setattr(transport, "_read_ready", interrupted)
    with contextlib.suppress(Interrupted), signals.handled():
        netlink.alternative_names()
        assert not came  # pyroute2 0.7 has no asyncio
