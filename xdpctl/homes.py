"""Where the pins of an interface are: its home, a directory of the BPF file system."""

from __future__ import annotations

import contextlib
import os

from .bpffs import Bpffs
from .interfaces import Interface
from .labels import Home
from .pins import InterfacePins


def of(bpffs: Bpffs, interface: Interface) -> InterfacePins:
    """The home of an interface, whether it is there or not."""
    directory = f"{bpffs.xdp}/xdpctl-{interface.netns}-{interface.ifindex}"
    return InterfacePins(bpffs, directory, interface.ifindex, interface.name)


def at(bpffs: Bpffs, home: Home) -> InterfacePins:
    """The home that an interface was found to have."""
    return InterfacePins(bpffs, home.directory, home.ifindex, home.what)


def every(bpffs: Bpffs) -> list[InterfacePins]:
    """The home of every interface that xdpctl keeps something of, of any namespace."""
    with contextlib.suppress(FileNotFoundError):
        return [
            InterfacePins(bpffs, f"{bpffs.xdp}/{name}", int(number), f"{bpffs.xdp}/{name}")
            for name in sorted(os.listdir(bpffs.xdp))
            if name.startswith("xdpctl-") and (number := name.rpartition("-")[2]).isdecimal()
        ]
    return []


def of_root(bpffs: Bpffs, root_id: int) -> InterfacePins | None:
    """Where a root is recorded: an interface that moved to here has its pins elsewhere."""
    for home in every(bpffs):
        for ifindex in home.ifindexes():
            found = home.with_ifindex(ifindex)
            if root_id in found.recorded():
                return found
    return None
