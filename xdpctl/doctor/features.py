"""What interfaces can do with XDP, as their drivers tell the kernel: flags, by their kernel names.

The kernel tells it from Linux 6.3 on (kernel/netdev.py). The names are those of <linux/netdev.h>;
of a flag that came later its bit is known.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import KernelError, UnsupportedError, VanishedError
from ..host.interfaces import Interface


class Flags(NamedTuple):
    """A set of flags: what their names begin with, and how they go on, by bit."""

    prefix: str
    names: tuple[str, ...]

    def name(self, bit: int) -> str:
        """A flag's name; one that <linux/netdev.h> did not have yet goes by its bit number."""
        return self.prefix + (self.names[bit] if bit < len(self.names) else f"bit{bit}")

    def answers(self, value: int) -> dict[str, bool]:
        """Whether each flag is set: all that are known, then the unknown ones that are set."""
        known = {self.name(bit): bool(value >> bit & 1) for bit in range(len(self.names))}
        later = range(len(self.names), value.bit_length())
        return known | {self.name(bit): True for bit in later if value >> bit & 1}


XDP_ACT = Flags(
    "NETDEV_XDP_ACT_",
    ("BASIC", "REDIRECT", "NDO_XMIT", "XSK_ZEROCOPY", "HW_OFFLOAD", "RX_SG", "NDO_XMIT_SG"),
)
"""enum netdev_xdp_act: the seven that xdp-loader prints."""

RX_METADATA = Flags("NETDEV_XDP_RX_METADATA_", ("TIMESTAMP", "HASH", "VLAN_TAG"))
"""enum netdev_xdp_rx_metadata: what a program bound to the device can ask of a packet."""

XSK = Flags("NETDEV_XSK_FLAGS_", ("TX_TIMESTAMP", "TX_CHECKSUM", "TX_LAUNCH_TIME_FIFO"))
"""enum netdev_xsk_flags: what the device does for packets that XDP sockets send."""

MAX_SEGS = "NETDEV_A_DEV_XDP_ZC_MAX_SEGS"


class Features(NamedTuple):
    """An interface's flags, as masks; None for those that this kernel does not tell.

    `zc_max_segs` is how many fragments a packet of a zero-copy XDP socket may have; it is told
    where the driver has zero-copy.
    """

    interface: Interface
    xdp: int
    zc_max_segs: int | None = None
    rx_metadata: int | None = None
    xsk: int | None = None

    @classmethod
    def of(cls, interface: Interface, told: Mapping[str, int]) -> Features:
        """From an answer of the kernel's, see netdev.devices."""
        return cls(
            interface,
            told.get("NETDEV_A_DEV_XDP_FEATURES", 0),
            told.get(MAX_SEGS),
            told.get("NETDEV_A_DEV_XDP_RX_METADATA_FEATURES"),
            told.get("NETDEV_A_DEV_XSK_FEATURES"),
        )

    def answers(self) -> dict[str, bool | int]:
        """Everything that is told, by name: xdp-loader's seven first, in its order."""
        found: dict[str, bool | int] = {**XDP_ACT.answers(self.xdp)}
        if self.zc_max_segs is not None:
            found[MAX_SEGS] = self.zc_max_segs
        for flags, value in ((RX_METADATA, self.rx_metadata), (XSK, self.xsk)):
            if value is not None:
                found |= flags.answers(value)
        return found

    def has(self, name: str) -> bool:
        """Whether an XDP_ACT flag is set, by the last part of its name."""
        return bool(self.xdp >> XDP_ACT.names.index(name) & 1)


def read(interfaces: Sequence[Interface]) -> list[Features]:
    """The features of interfaces of this network namespace, in their order.

    One that goes away meanwhile is left out, but for a single one. Raises UnsupportedError where
    the kernel does not tell, VanishedError.
    """
    from ..kernel import netdev

    try:
        told = netdev.devices(interfaces[0].ifindex if len(interfaces) == 1 else None)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            raise UnsupportedError(
                "this kernel does not tell what interfaces can do with XDP",
                why="it has no netdev family of generic netlink, which came with Linux 6.3",
                hint="xdpctl doctor goes by the driver's name; xdpctl load -m native tries it",
            ) from error
        if error.errno == errno.ENODEV:
            raise VanishedError(f"{interfaces[0].name} went away meanwhile") from error
        raise error.explained() from error
    by_number = {one["NETDEV_A_DEV_IFINDEX"]: one for one in told}
    return [
        Features.of(interface, by_number[interface.ifindex])
        for interface in interfaces
        if interface.ifindex in by_number
    ]
