"""Where the pins of an interface are: its home, a directory of the BPF file system."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ..host import interfaces
from ..host.interfaces import Interface
from ..kernel import netlink
from ..model.labels import Home
from .directory import InterfacePins
from .mount import Bpffs


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


def interfaces_of(bpffs: Bpffs) -> Iterator[Interface]:
    """The interfaces that xdpctl keeps pins of, each while its namespace is the current one.

    One that moved is known by the root that it runs.
    """
    kept = {home.directory: home for home in every(bpffs)}
    start = interfaces.current()
    yield from _in_namespace(bpffs, kept)
    if kept:
        for name, path in interfaces.visible():
            if name != start and kept:
                with contextlib.suppress(OSError), interfaces.entered(path):
                    yield from _in_namespace(bpffs, kept)


def _in_namespace(bpffs: Bpffs, kept: dict[str, InterfacePins]) -> Iterator[Interface]:
    """Take from some kept those of the current namespace's interfaces."""
    strangers = []
    for one in Interface.all():
        directory = of(bpffs, one).directory
        if kept.pop(directory, None):
            yield one
        else:
            strangers.append(one)
    roots = {root: directory for directory, home in kept.items() for root in home.roots()}
    programs = netlink.xdp_programs() if roots and strangers else {}
    for one in strangers:
        directory = roots.get(programs.get(one.ifindex, (0, 0))[0], "")
        if kept.pop(directory, None):
            yield one
