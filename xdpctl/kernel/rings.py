"""What drivers tell of their rings by the ethtool family of generic netlink, through pyroute2.

Linux kernel commit e4a1717b677c "ethtool: provide ring sizes with RINGS_GET request" (in v5.7).
Numbers and names are those of <linux/ethtool_netlink.h>. The import takes 0.2 s: only where it is
used.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from pyroute2.netlink import NLA_F_NESTED, genlmsg, nla
from pyroute2.netlink.exceptions import NetlinkError

from .genetlink import Family, family

ETHTOOL_GENL_NAME = "ethtool"
ETHTOOL_GENL_VERSION = 1
ETHTOOL_MSG_RINGS_GET = 15
ETHTOOL_TCP_DATA_SPLIT_ENABLED = 2


class RingsMessage(genlmsg):  # type: ignore[misc]
    """What is asked and answered; what a later kernel adds is skipped."""

    prefix = "ETHTOOL_A_RINGS_"
    nla_map = (
        ("ETHTOOL_A_RINGS_UNSPEC", "none"),
        ("ETHTOOL_A_RINGS_HEADER", "device"),
        ("ETHTOOL_A_RINGS_RX_MAX", "uint32"),
        ("ETHTOOL_A_RINGS_RX_MINI_MAX", "uint32"),
        ("ETHTOOL_A_RINGS_RX_JUMBO_MAX", "uint32"),
        ("ETHTOOL_A_RINGS_TX_MAX", "uint32"),
        ("ETHTOOL_A_RINGS_RX", "uint32"),
        ("ETHTOOL_A_RINGS_RX_MINI", "uint32"),
        ("ETHTOOL_A_RINGS_RX_JUMBO", "uint32"),
        ("ETHTOOL_A_RINGS_TX", "uint32"),
        ("ETHTOOL_A_RINGS_RX_BUF_LEN", "uint32"),
        ("ETHTOOL_A_RINGS_TCP_DATA_SPLIT", "uint8"),
    )

    class device(nla):  # type: ignore[misc]  # noqa: N801 - the name stands in the map above
        nla_flags = NLA_F_NESTED
        nla_map = (
            ("ETHTOOL_A_HEADER_UNSPEC", "none"),
            ("ETHTOOL_A_HEADER_DEV_INDEX", "uint32"),
            ("ETHTOOL_A_HEADER_DEV_NAME", "asciiz"),
        )


def data_split(numbers: Iterable[int]) -> dict[int, bool]:
    """Whether the cards of interfaces part TCP's headers from its data, by number.

    Those whose driver does not tell are left out. Raises KernelError: ENOENT where there is no such
    family.
    """
    found = {}
    call = "ethtool rings-get"
    with family(ETHTOOL_GENL_NAME, ETHTOOL_GENL_VERSION, RingsMessage, call) as ethtool:
        for number in numbers:
            state = _state(ethtool, number)
            if state:  # 0: unknown
                found[number] = state == ETHTOOL_TCP_DATA_SPLIT_ENABLED
    return found


def _state(ethtool: Family, number: int) -> int:
    header = {"attrs": [("ETHTOOL_A_HEADER_DEV_INDEX", number)]}
    try:
        answers = ethtool.ask(ETHTOOL_MSG_RINGS_GET, ("ETHTOOL_A_RINGS_HEADER", header))
    except NetlinkError as error:
        if error.code in (errno.EOPNOTSUPP, errno.ENODEV):  # not told, or gone
            return 0
        raise
    return next((one.get_attr("ETHTOOL_A_RINGS_TCP_DATA_SPLIT") or 0 for one in answers), 0)
