"""Whose maps a program uses: those of one that runs, those that are pinned, or its own.

All of this works on an object that libbpf has open, in the child process.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping

from ..errors import KernelError, unless_short
from ..kernel import libbpf, maps, records, uapi
from ..kernel.object import Object, ObjectMap
from ..model.source import Image, Source
from . import image

SHARING, PINNED = "sharing maps", "using a pinned map"
"""What a KernelError calls these; its log has the reason, a line a map."""

_CONSTANTS = ("rodata", "kconfig")
_FD = "/proc/self/fd"
# Storages of sockets, cgroups, tasks and inodes, and structures of operations (<linux/bpf.h>).
_ENDLESS = (19, 21, 24, 26, 28, 29, 32)

Names = Mapping[int, str]
"""The full names of maps by id, as their file has them; the kernel keeps 15 characters."""


def shape_in_kernel(own: ObjectMap, shape: records.MapShape) -> records.MapShape:
    """The shape that the kernel gives to a map of an object.

    It adds a flag to device maps, forgets flags that concern a descriptor alone, and rounds the
    entries of some LRU maps. So a map is made to look at, and not kept.
    """
    inner = own.inner
    with unless_short(), contextlib.ExitStack() as closing:

        def make(one: records.MapShape, inner_fd: int = 0) -> int:
            fd = maps.create(one, inner_fd)
            closing.callback(os.close, fd)
            return fd

        fd = make(shape, make(inner.shape) if inner else 0)
        return libbpf.map_info(fd).shape
    return shape  # a type that wants more than a shape: it is compared as it was asked for


def difference(own: ObjectMap, theirs: records.MapInfo, *, of_any_size: bool = False) -> str:
    """In what a map of an object is another than one that is there; empty where it is not."""
    ours = own.shape
    if of_any_size or not ours.max_entries:  # without one libbpf asks for one for each CPU
        ours = ours._replace(max_entries=theirs.max_entries)
    if ours == theirs.shape or shape_in_kernel(own, ours) == theirs.shape:
        return ""
    return f"{ours} in the file, {theirs.shape} as it runs"


def reused_arrays(parsed: Object) -> str:
    """The names of an object's program arrays that others use, too, before it is loaded."""
    return ", ".join(
        one.name for one in parsed.maps if one.type == uapi.BPF_MAP_TYPE_PROG_ARRAY and one.fd >= 0
    )


def without_entries(parsed: Object) -> str:
    """A line for each map of an object that the kernel cannot make, as it has no entries."""
    found = [
        one.name
        for one in parsed.maps
        if one.fd < 0 and not one.shape.max_entries and one.type not in _ENDLESS
    ]
    return "".join(f"\nmap '{name}' has 0 entries" for name in found)


def use_pins(parsed: Object) -> list[tuple[str, int, str]]:
    """Have an object use what is pinned where its maps want to be pinned; returns those maps.

    Each as its name, its id and the path. libbpf does so by itself, but takes the flags that the
    kernel adds to device maps for a difference until 1.6. Raises KernelError of PINNED.
    """
    used = list[tuple[str, int, str]]()
    for found in parsed.maps:
        name, where = found.name, found.pin_path
        if not where or not os.path.lexists(where):
            continue
        # In a directory that all may write to anybody can have put a map by this name.
        if (user := os.lstat(where).st_uid) not in (0, os.geteuid()):
            raise KernelError(PINNED, errno.EPERM, f"map {name}: {where} belongs to user {user}")
        try:
            fd = map_at(where)
        except KernelError as error:
            raise KernelError(
                PINNED, error.errno or 0, f"map {name}: {where}: {error.log}"
            ) from error
        with libbpf.owned(fd):
            info = libbpf.map_info(fd)
            if differs := difference(found, info):
                differs = differs.replace("as it runs", f"at {where}")
                raise KernelError(PINNED, errno.EINVAL, f"map {name}: {differs}")
            found.reuse(fd)
            found.leave_unpinned()
        used.append((name, info.id, where))
    return used


def map_at(path: str) -> int:
    """The descriptor of a pinned map. Raises KernelError, its log the reason."""
    try:
        fd = libbpf.get(path)
    except KernelError as error:
        raise KernelError(error.call, error.errno or 0, os.strerror(error.errno or 0)) from error
    kind = os.readlink(f"{_FD}/{fd}").removeprefix("anon_inode:")
    if kind != "bpf-map":
        os.close(fd)
        what = {"bpf-prog": "a program", "bpf_link": "a link"}.get(kind, kind)
        raise KernelError("bpf_obj_get", errno.EINVAL, f"{what} is pinned there, and no map")
    return fd


def share_maps(
    parsed: Object, source: Source, ordered: Callable[[], Names] = dict
) -> set[ObjectMap]:
    """Have an object use a running program's maps, each found by its name; returns those.

    All of them, unless it is `forced`. A program that replaces the other has constants of its own,
    and program arrays, which are code: both only where `source.maps` says ``keep``. What the names
    do not tell apart `ordered` may, which names maps by their ids.

    Raises KernelError of SHARING, its log a line a map, where one does not fit. Internal maps are
    named after the object and their section, such as .bss.
    """
    found = _Sharing(source, ordered)
    for one in parsed.maps:
        found.share(one)
    wrong = found.wrong + [f"map {name} is not in the file" for name in found.said]
    if not source.forced:
        wrong += [f"map {info.name} runs, and is not in the file" for info in found.left.values()]
    if wrong:
        raise KernelError(SHARING, errno.EINVAL, "\n".join(wrong))
    return found.shared


class _Sharing:
    """The maps of a running program, by descriptor, while they are dealt out."""

    def __init__(self, source: Source, ordered: Callable[[], Names]) -> None:
        with libbpf.owned(libbpf.prog_fd(source.maps_of)) as fd:
            there = [libbpf.map_fd(number) for number in libbpf.prog_info(fd).map_ids]
        self.source, self._ordered = source, ordered
        self.left = {number: libbpf.map_info(number) for number in there}
        self.names = dict[int, str]()
        for number, info in list(self.left.items()):
            if info.name == image.NAME:
                del self.left[number]
                record = maps.record(number, info, uapi.BPF_F_RDONLY_PROG)
                code = Image.unpack(record) if record else None
                self.names = dict(code.names) if code else {}
        self.said = dict(source.maps)
        self.shared, self.wrong = set[ObjectMap](), list[str]()

    def share(self, own: ObjectMap) -> None:
        """Give a map of the object that of the running program, if it is to have that."""
        source, name = self.source, own.name
        section = name.partition(".")[2]
        asked = self.said.pop(name, None) or (self.said.pop(f".{section}", "") if section else "")
        wanted = self._called(name, section)
        if asked not in ("", "keep", "new"):
            self._drop(wanted)
            try:
                wanted = [map_at(asked)]
            except KernelError as error:
                self.wrong.append(f"map {name}: {asked}: {error.log}")
                return
            self.left[wanted[0]] = libbpf.map_info(wanted[0])
        is_array = own.type == uapi.BPF_MAP_TYPE_PROG_ARRAY
        is_own = is_array or section.startswith(_CONSTANTS)
        if asked == "new" or (source.replaces and is_own and not asked):
            if asked:
                own.leave_unpinned()
        elif wanted:
            self._give(own, name, wanted)
        elif asked:
            self.wrong.append(f"map {name}: the running program has none of that name")
        # else it is one that the running program does not use
        self._drop(wanted)

    def _give(self, own: ObjectMap, name: str, wanted: list[int]) -> None:
        if len(wanted) > 1:
            self.wrong.append(f"map {name}: {len(wanted)} maps of that name run")
        elif differs := difference(own, self.left[wanted[0]], of_any_size=self._sized(name)):
            self.wrong.append(f"map {name}: {differs}{self._pinned(own, name)}")
        else:
            own.reuse(wanted[0])
            own.leave_unpinned()
            self.shared.add(own)

    def _sized(self, name: str) -> bool:
        """Whether a map has the size that it runs with, whatever the file says.

        Loaders give sizes, as libxdp does to the map of its program for XDP sockets. A file that
        stands for the program that runs does not know them.
        """
        asked = dict(self.source.tuning.entries)
        return not self.source.replaces and name not in asked

    def _pinned(self, own: ObjectMap, name: str) -> str:
        """What else there is to know of a map that does not fit: a new one would not be new."""
        path = own.pin_path
        if not (self.source.replaces and path and os.path.lexists(path)):
            return ""
        return f"; {path} is its pin: {name}=new takes one that is not pinned"

    def _drop(self, numbers: list[int]) -> None:
        for number in numbers:
            del self.left[number]

    def _called(self, name: str, section: str) -> list[int]:
        """The maps that may be meant by a name."""
        found = self._by_name(name, section)
        if len(found) > 1 and not self.names:
            self.names = dict(self._ordered()) or {0: ""}  # is asked once
            found = self._by_name(name, section)
        return found

    def _by_name(self, name: str, section: str) -> list[int]:
        return [
            number
            for number, info in self.left.items()
            if (full := self.names.get(info.id, "")) == name
            or (
                not full
                and (info.name == name[:15] or (section and info.name.endswith(f".{section}")))
            )
        ]
