"""The kernel's netdev family of generic netlink, through pyroute2, which has no class for it yet.

Linux kernel commit d3d854fd6a1d "netdev-genl: create a simple family for netdev stuff" (in v6.3).
Numbers and names are those of <linux/netdev.h>. The import takes 0.2 s: only where it is used.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from pyroute2.netlink import NLM_F_DUMP, NLM_F_DUMP_INTR, genlmsg
from pyroute2.netlink.exceptions import NetlinkError

from .genetlink import Family, family

NETDEV_FAMILY_NAME = "netdev"
NETDEV_FAMILY_VERSION = 1
NETDEV_CMD_DEV_GET = 1
_DUMPS = 5


class DevMessage(genlmsg):  # type: ignore[misc]
    """The attribute set `dev`; what a later kernel adds is skipped."""

    prefix = "NETDEV_A_DEV_"
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
        ("NETDEV_A_DEV_XDP_ZC_MAX_SEGS", "uint32"),
        ("NETDEV_A_DEV_XDP_RX_METADATA_FEATURES", "uint64"),
        ("NETDEV_A_DEV_XSK_FEATURES", "uint64"),
    )


def devices(ifindex: int | None = None) -> list[dict[str, int]]:
    """What the kernel tells of an interface, or of every one of this network namespace (dev-get).

    A dictionary each, without what this kernel does not tell: {"NETDEV_A_DEV_IFINDEX": 4,
    "NETDEV_A_DEV_XDP_FEATURES": 43, …}. Raises KernelError: ENOENT where there is no such family,
    ENODEV where there is no such interface.
    """
    call = "netdev dev-get"
    with family(NETDEV_FAMILY_NAME, NETDEV_FAMILY_VERSION, DevMessage, call) as netdev:
        if ifindex is not None:
            one_of = ("NETDEV_A_DEV_IFINDEX", ifindex)
            return [attributes(one) for one in netdev.ask(NETDEV_CMD_DEV_GET, one_of)]
        found: list[Any] = []
        for _attempt in range(_DUMPS):
            found = netdev.ask(NETDEV_CMD_DEV_GET, flags=NLM_F_DUMP)
            # Set where an interface came or went meanwhile: one may be missing.
            if not any(one["header"]["flags"] & NLM_F_DUMP_INTR for one in found):
                break
        told = [attributes(one) for one in found]
        # The messages of this dump do not say that more follow (NLM_F_MULTI), and some releases of
        # pyroute2, such as 0.7.7, read the first one alone.
        known = {one["NETDEV_A_DEV_IFINDEX"] for one in told}
        for number, _name in socket.if_nameindex():
            if number not in known:
                told += _asked(netdev, number)
        return told


def _asked(netdev: Family, ifindex: int) -> list[dict[str, int]]:
    """What it tells of one interface; nothing of one that has gone."""
    try:
        answers = netdev.ask(NETDEV_CMD_DEV_GET, ("NETDEV_A_DEV_IFINDEX", ifindex))
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return []
        raise
    return [attributes(one) for one in answers]


def attributes(message: Any) -> dict[str, int]:
    """The numbers of an answer by their names; what has no name here is left out."""
    names = {name for name, kind in DevMessage.nla_map if kind != "none"}
    return {name: value for name, value, *_ in message["attrs"] if name in names}
