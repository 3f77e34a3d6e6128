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
from . import pin
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
        if is_directory and re.fullmatch(_HOME, name)
    ]


def strays(bpffs: Bpffs) -> list[tuple[str, str]]:
    """What stands in the place of something of xdpctl's and is not that: paths, and what each is.

    It is nobody's here: what goes through all homes passes it by.
    """
    found = []
    for name, path, is_directory in _entries(bpffs.xdp):
        if not (re.fullmatch(_HOME, name) or re.fullmatch(_DISPATCH, name)):
            continue
        if not is_directory:
            found.append((path, "no directory"))
            continue
        found += [(inner, "a directory") for _name, inner, is_one in _entries(path) if is_one]
    for home in every(bpffs):
        for name in home.entries():
            path = f"{home.directory}/{name}"
            if bool(re.match(_RECORD, name)) != os.path.islink(path) and os.path.lexists(path):
                found.append((path, "no record" if re.match(_RECORD, name) else "no pin"))
    return sorted(found)


def is_alien(home: InterfacePins) -> bool:
    """Whether a home has nothing in it but what is not xdpctl's, for which it cannot be removed."""
    return not home.entries() and bool(_entries(home.directory))


_HOME = r"xdpctl-.*-[0-9]{1,10}"
_DISPATCH = r"dispatch-[0-9]+-[0-9]+"
_RECORD = r"(dispatch|borrowed|label|rules|made|adopting|was|went|confirm|back)\b"


def _entries(path: str) -> list[tuple[str, str, bool]]:
    """What is in a directory: names, paths, and whether each is a directory; sorted."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as found:
        return sorted((one.name, one.path, one.is_dir(follow_symlinks=False)) for one in found)
    return []


def of_root(bpffs: Bpffs, root_id: int, ifindex: int) -> InterfacePins | None:
    """Where the root of an interface is recorded that moved to here: its pins are elsewhere.

    Several interfaces may run the root. Each has a link of its own, which says where it is attached
    now; over netlink an interface is known by its number. None if that does not tell one.
    """
    found = [
        one
        for home in every(bpffs)
        for number in home.ifindexes()
        if root_id in (one := home.with_ifindex(number)).recorded()
    ]
    if len(found) > 1:
        found = [one for one in found if _attached_at(one, root_id) == ifindex]
    # Who kept the number may be an interface that stayed where it is.
    found.sort(key=lambda one: one.ifindex == ifindex)
    return found[0] if found else None


def _attached_at(home: InterfacePins, root_id: int) -> int:
    """The number of the interface that a root recorded in a home is attached to now, or was."""
    if home.recorded().get(root_id) == "netlink":
        return home.ifindex
    link = pin.pinned_link(home.root_link)
    return link.ifindex if link and link.prog_id == root_id else 0


def has_sharers(bpffs: Bpffs, root_id: int) -> bool:
    """Whether pins of a root are there for more than one interface, of any namespace."""
    names = (name for name, _path, _is_directory in _entries(bpffs.xdp))
    found = (name for name in names if re.fullmatch(_DISPATCH, name))
    return sum(name.rpartition("-")[2] == str(root_id) for name in found) > 1


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
    roots = {root for home in kept.values() for root in home.roots()}
    programs = netlink.xdp_programs() if roots and strangers else {}
    for one in strangers:
        root_id = programs.get(one.ifindex, (0, 0))[0]
        home = of_root(bpffs, root_id, one.ifindex) if root_id in roots else None
        if home and kept.pop(home.directory, None):
            yield one
