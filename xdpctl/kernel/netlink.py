"""Interface facts over netlink, by pyroute2; its import takes 0.1 s, so only where that pays."""

from __future__ import annotations

import socket
from typing import Any

from . import libbpf, uapi

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


def route() -> Any:
    """An rtnetlink(7) socket of pyroute2's, without the kernel's announcements; for `with`."""
    from pyroute2 import IPRoute

    try:
        return IPRoute(groups=0)
    except TypeError:  # 0.7 of pyroute2 subscribes in bind() alone
        return IPRoute()


def xdp_programs() -> dict[int, tuple[int, int]]:
    """What each interface of this network namespace runs: {ifindex: (program id, mode)}.

    The mode is an XDP_ATTACHED_ number. Interfaces that run nothing may be there with (0, 0).
    """
    numbers = [number for number, _name in socket.if_nameindex()]
    if len(numbers) < _MANY:
        return {number: libbpf.xdp_query(number) for number in numbers}
    from pyroute2.netlink import NLM_F_DUMP_INTR

    links: list[Any] = []
    for _attempt in range(_DUMPS):
        with route() as asked:
            links = list(asked.get_links())
        # Set where an interface came or went meanwhile: one may be missing.
        if not any(link["header"]["flags"] & NLM_F_DUMP_INTR for link in links):
            break
    return {link["index"]: _program(link) for link in links}


def xdp_program(ifindex: int) -> tuple[int, int]:
    """What one interface runs, as `xdp_programs` has it; (0, 0) also if it is gone.

    For who asks for one after the other: unlike libbpf's query it does not dump all of them.
    """
    if len(socket.if_nameindex()) < _MANY:
        return libbpf.xdp_query(ifindex)
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with route() as asked:
            return _program(next(iter(asked.get_links(ifindex)), {}))
    except NetlinkError:
        return 0, uapi.XDP_ATTACHED_NONE


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
