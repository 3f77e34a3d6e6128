"""xdpctl.kernel.netlink: the same facts from one dump as from libbpf's queries."""

from __future__ import annotations

import socket
from typing import Any

import pytest

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
        # With several, who sees packets first: as libbpf.xdp_query has it.
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
