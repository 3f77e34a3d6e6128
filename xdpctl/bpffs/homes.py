"""Where the pins of an interface are: its home, a directory of the BPF file system."""

from __future__ import annotations

import contextlib
import os
import re
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
    return [
        InterfacePins(bpffs, f"{bpffs.xdp}/{name}", int(name.rpartition("-")[2]), path)
        for name, path, is_directory in _entries(bpffs.xdp)
        if is_directory and _HOME.fullmatch(name)
    ]


def strays(bpffs: Bpffs) -> list[tuple[str, str]]:
    """What stands in the place of something of xdpctl's and is not that: paths, and what each is.

    It is nobody's here: what goes through all homes passes it by.
    """
    found = []
    for name, path, is_directory in _entries(bpffs.xdp):
        if not (_HOME.fullmatch(name) or _DISPATCH.fullmatch(name)):
            continue
        if not is_directory:
            found.append((path, "no directory"))
            continue
        found += [(inner, "a directory") for _name, inner, is_one in _entries(path) if is_one]
    for home in every(bpffs):
        for name in home.entries():
            path = f"{home.directory}/{name}"
            if bool(_RECORD.match(name)) != os.path.islink(path) and os.path.lexists(path):
                found.append((path, "no record" if _RECORD.match(name) else "no pin"))
    return sorted(found)


def is_alien(home: InterfacePins) -> bool:
    """Whether a home has nothing in it but what is not xdpctl's, for which it cannot be removed."""
    return not home.entries() and bool(_entries(home.directory))


_HOME = re.compile(r"xdpctl-.*-[0-9]{1,10}")
_DISPATCH = re.compile(r"dispatch-[0-9]+-[0-9]+")
_RECORD = re.compile(r"(dispatch|borrowed|label|rules|made|adopting|was|confirm|back)\b")


def _entries(path: str) -> list[tuple[str, str, bool]]:
    """What is in a directory: names, paths, and whether each is a directory; sorted."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as found:
        return sorted((one.name, one.path, one.is_dir(follow_symlinks=False)) for one in found)
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
