"""Interface facts over netlink, by pyroute2; its import takes 0.1 s, so only where that pays."""

from __future__ import annotations

import _socket as socket  # that of Python makes enumerations of all there is to know
import contextlib
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from . import uapi, xdp
from .masks import heard

_MODES = {
    "xdp": uapi.XDP_ATTACHED_DRV,
    "xdpgeneric": uapi.XDP_ATTACHED_SKB,
    "xdpoffload": uapi.XDP_ATTACHED_HW,
}
_KINDS = (
    ("HW", uapi.XDP_ATTACHED_HW),
    ("DRV", uapi.XDP_ATTACHED_DRV),
    ("SKB", uapi.XDP_ATTACHED_SKB),
)
_MANY = 64
"""From so many interfaces on one dump by pyroute2 is cheaper than a query of libbpf's for each.

Each of those dumps all interfaces, too: 7 µs an interface, natively, where the import takes 0.1 s.
"""
_DUMPS = 5


@contextlib.contextmanager
def route() -> Iterator[Any]:
    """An rtnetlink(7) socket of pyroute2's, without the kernel's announcements."""
    from pyroute2 import IPRoute

    with heard():
        try:
            asked = IPRoute(groups=0)
        except TypeError:  # 0.7 of pyroute2 subscribes in bind() alone
            asked = IPRoute()
        with asked:
            yield asked


class Look(NamedTuple):
    """What one look at all interfaces of this network namespace found, by their numbers.

    `programs` has what each runs: the id of a program and an XDP_ATTACHED_ mode. Interfaces that
    run nothing may be there with (0, 0). `names` are those that they have besides their own; None
    if these were not read.
    """

    programs: dict[int, tuple[int, int]]
    names: dict[int, list[str]] | None


def look() -> Look:
    """Look at all interfaces: many are read in one dump, a few without an import of pyroute2."""
    numbers = [number for number, _name in socket.if_nameindex()]
    if len(numbers) < _MANY:
        return Look({number: xdp.query(number) for number in numbers}, None)
    from pyroute2.netlink import NLM_F_DUMP_INTR

    links: list[Any] = []
    for _attempt in range(_DUMPS):
        with route() as asked:
            links = list(asked.get_links())
        # Set where an interface came or went meanwhile: one may be missing.
        if not any(link["header"]["flags"] & NLM_F_DUMP_INTR for link in links):
            break
    return Look(
        {link["index"]: _program(link) for link in links},
        {link["index"]: _alternatives(link) for link in links},
    )


def xdp_programs() -> dict[int, tuple[int, int]]:
    """What each interface of this network namespace runs, as `Look` has it."""
    return look().programs


def xdp_program(ifindex: int) -> tuple[int, int]:
    """What one interface runs, as `xdp_programs` has it; (0, 0) also if it is gone.

    For who asks for one after the other: unlike libbpf's query it does not dump all of them.
    """
    if "pyroute2" not in sys.modules:  # with few interfaces nobody imports it
        return xdp.query(ifindex)
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with route() as asked:
            return _program(next(iter(asked.get_links(ifindex)), {}))
    except NetlinkError:
        return 0, uapi.XDP_ATTACHED_NONE


def alternative_names(numbers: Collection[int] | None = None) -> dict[int, list[str]]:
    """The names that interfaces of this network namespace have besides their own, by number.

    For some `numbers`, those that are gone are left out.
    """
    from pyroute2.netlink.exceptions import NetlinkError

    with route() as asked:
        if numbers is None:
            return {link["index"]: _alternatives(link) for link in asked.get_links()}
        found: dict[int, list[str]] = {}
        for number in numbers:
            with contextlib.suppress(NetlinkError):
                for link in asked.get_links(number):
                    found[number] = _alternatives(link)
        return found


def _alternatives(link: Any) -> list[str]:
    # Linux kernel commit 36fbf1e52bd3 "net: rtnetlink: add linkprop commands to add and delete
    # alternative ifnames" (in v5.5).
    properties = link.get_attr("IFLA_PROP_LIST")
    return list(properties.get_attrs("IFLA_ALT_IFNAME")) if properties else []


def below(numbers: Iterable[int]) -> set[int]:
    """The interfaces that some stand on or are made of, at whatever depth.

    Those of a bridge are none of these: what comes in on its ports may never meet it.
    """
    with route() as asked:
        return _below(list(asked.get_links()), numbers)


def _below(links: Sequence[Any], numbers: Iterable[int]) -> set[int]:
    kinds = {link["index"]: _kind(link) for link in links}
    lower: dict[int, set[int]] = {}
    for link in links:
        master = link.get_attr("IFLA_MASTER")
        if kinds.get(master) in ("bond", "team"):
            lower.setdefault(master, set()).add(link["index"])
        # With a namespace's id the number is of another one.
        if kinds[link["index"]] in _STACKED and link.get_attr("IFLA_LINK_NETNSID") is None:
            lower.setdefault(link["index"], set()).add(link.get_attr("IFLA_LINK"))
    start = set(numbers)
    found, pending = set[int](), list(start)
    while pending:
        new = lower.get(pending.pop(), set()) - found - start
        found |= new
        pending += new
    return found


class Neighbour(NamedTuple):
    """An interface as another one sees it: without a name if it is in another namespace.

    `program` is the id of its XDP program or 0, `mtu` 0 if it is not told.
    """

    name: str
    mtu: int = 0
    program: int = 0


def veth_peer(ifindex: int) -> Neighbour | None:
    """The other end of a veth; None for what is none."""
    with route() as asked:
        return _veth_peer(list(asked.get_links()), ifindex)


def _veth_peer(links: Sequence[Any], ifindex: int) -> Neighbour | None:
    by_number = {link["index"]: link for link in links}
    link = by_number.get(ifindex)
    if link is None or _kind(link) != "veth":
        return None
    peer = by_number.get(link.get_attr("IFLA_LINK"))
    if peer is None or link.get_attr("IFLA_LINK_NETNSID") is not None:
        return Neighbour("")
    return _device(peer)


def relatives(ifindex: int) -> list[tuple[Neighbour, str]]:
    """The devices directly above and below one, each with ``above`` or ``below``."""
    with route() as asked:
        return _relatives(list(asked.get_links()), ifindex)


def _relatives(links: Sequence[Any], ifindex: int) -> list[tuple[Neighbour, str]]:
    pairs = [pair for link in links for pair in _pairs(link)]
    below = {lower for lower, upper in pairs if upper == ifindex}
    above = {upper for lower, upper in pairs if lower == ifindex}
    return [
        (_device(link), "below" if link["index"] in below else "above")
        for link in links
        if link["index"] in below | above
    ]


_STACKED = ("vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec")


def _pairs(link: Any) -> Iterator[tuple[int, int]]:
    """What stands on what: the numbers of the lower and of the upper device."""
    if master := link.get_attr("IFLA_MASTER"):
        yield link["index"], master
    # With a namespace's id the number is of another one.
    if _kind(link) in _STACKED and link.get_attr("IFLA_LINK_NETNSID") is None:
        yield link.get_attr("IFLA_LINK"), link["index"]


def _device(link: Any) -> Neighbour:
    return Neighbour(
        link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_MTU") or 0, _program(link)[0]
    )


def _kind(link: Any) -> str | None:
    info = link.get_attr("IFLA_LINKINFO")
    return info.get_attr("IFLA_INFO_KIND") if info else None


def _program(link: Any) -> tuple[int, int]:
    xdp = link.get_attr("IFLA_XDP")
    attached = xdp.get_attr("IFLA_XDP_ATTACHED") if xdp else None
    if attached == "xdpmulti":
        for kind, mode in _KINDS:
            if number := xdp.get_attr(f"IFLA_XDP_{kind}_PROG_ID"):
                return number, mode
    if attached not in _MODES:
        return 0, uapi.XDP_ATTACHED_NONE
    return xdp.get_attr("IFLA_XDP_PROG_ID"), _MODES[attached]
