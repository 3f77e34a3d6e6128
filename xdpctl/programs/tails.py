"""Program arrays of an object: what is put into them as it is loaded, and what is kept for them.

All of this works on an object that libbpf has open, in the child process.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..errors import KernelError
from ..kernel import libbpf, maps, uapi
from ..kernel.object import Object, ObjectProgram
from ..model.source import Tail
from ..value import Value

OCCUPIED, UNFIT = "a place in a program array", "putting a program into an array"
"""What a KernelError calls these; its log has the reason, a line a place."""

FOREIGN = {uapi.BPF_XDP_DEVMAP: "devmap", uapi.BPF_XDP_CPUMAP: "cpumap"}
"""What libbpf takes for an XDP program, and is none of an interface's hook."""

_KEY = 4


class Replaced(NamedTuple):
    """A place in an array that others use, which had another program (0: none) before the load."""

    array: str
    place: int
    program: int


class Filled(Value):
    """What became of an object's program arrays.

    `kept` are the programs that could go there and that the object itself puts into none of them.
    `empty` has the names of the arrays that are in use with nothing in them, each with the programs
    that could go there.
    """

    kept: dict[str, ObjectProgram]
    empty: dict[str, list[str]]
    replaced: list[Replaced]


def wrong(parsed: Object, tails: Sequence[Tail]) -> Iterator[str]:
    """A line for each place that an object does not have, or has no such program for."""
    arrays = {one.name: one for one in parsed.maps if one.type == uapi.BPF_MAP_TYPE_PROG_ARRAY}
    programs = {one.name: one for one in parsed.programs}
    for array, place, name in tails:
        if array not in arrays:
            yield f"there is no program array {array}; there is {', '.join(arrays) or 'none'}"
        elif place >= (room := arrays[array].shape.max_entries):
            last = f": its last place is {array}[{room - 1}]" if room else ""
            yield f"{array} has no place {place}{last}"
        if name not in programs:
            yield f"there is no program {name}; there is {', '.join(programs)}"
        elif not _may_go(programs[name], named=True):
            yield (
                f"{name} (section {programs[name].section}) is no XDP program, and an array has "
                f"programs of one type; there is {_fitting(programs.values()) or 'none'}"
            )


def _may_go(program: ObjectProgram, *, named: bool = False) -> bool:
    """Whether a program may be called by XDP programs; one that is `named` is taken for it."""
    if program.type == uapi.BPF_PROG_TYPE_UNSPEC:  # its section tells libbpf nothing
        return named or program.section.lstrip("?").startswith("xdp")
    return program.type == uapi.BPF_PROG_TYPE_XDP and program.attach_type not in FOREIGN


def _is_frags(program: ObjectProgram) -> bool:
    return program.section.lstrip("?").split("/")[0] == "xdp.frags"


def _fitting(programs: Iterable[ObjectProgram]) -> str:
    return ", ".join(one.name for one in programs if _may_go(one))


class Arrays:
    """The program arrays of an object that is about to be loaded."""

    def __init__(self, parsed: Object) -> None:
        self.parsed = parsed
        self.found = {
            one.name: one for one in parsed.maps if one.type == uapi.BPF_MAP_TYPE_PROG_ARRAY
        }
        self._before = dict[str, dict[int, int]]()
        self._held = dict[int, int]()

    def look(self) -> None:
        """Before the load, see what is in arrays that others use: it may have to come back."""
        for name, one in self.found.items():
            if one.fd >= 0:
                self._before[name] = _entries(one.fd)
                for program in self._before[name].values():
                    if program not in self._held:
                        self._held[program] = libbpf.prog_fd(program)

    def fill(self, chosen: ObjectProgram, tails: Sequence[Tail]) -> Filled:
        """After the load, put programs in places. Raises KernelError of OCCUPIED or UNFIT."""
        loaded = {one.name: one for one in self.parsed.programs if one.fd >= 0}
        infos = {name: libbpf.prog_info(one.fd) for name, one in loaded.items()}
        ours = {info.id: name for name, info in infos.items()}
        there = {name: _entries(one.fd) for name, one in self.found.items()}
        placed = {program for entries in there.values() for program in entries.values()}
        for array, place, name in tails:
            already = ours.get(there[array].get(place, 0), name)
            if already != name:
                why = f"{array}[{place}] is that of {already}: the object puts it there"
                raise KernelError(OCCUPIED, errno.EEXIST, why)
            self._put(chosen, array, place, loaded[name])
            there[array][place] = infos[name].id
        used = {number for info in infos.values() for number in info.map_ids}
        fitting = [
            one.name
            for one in self.parsed.programs
            if one.name != chosen.name and _may_go(one) and _is_frags(one) == _is_frags(chosen)
        ]
        return Filled(
            kept={
                name: one
                for name, one in loaded.items()
                if name in fitting and infos[name].id not in placed
            },
            empty={
                name: fitting
                for name, one in self.found.items()
                if not there[name] and libbpf.map_info(one.fd).id in used
            },
            replaced=[*self._replaced(there)],
        )

    def _put(self, chosen: ObjectProgram, array: str, place: int, program: ObjectProgram) -> None:
        value = program.fd.to_bytes(4, sys.byteorder)
        try:
            libbpf.map_update(self.found[array].fd, place.to_bytes(_KEY, sys.byteorder), value)
        except KernelError as error:
            why = os.strerror(error.errno or 0)
            if error.errno == errno.EINVAL:
                why = f"its section is {program.section}, that of {chosen.name} {chosen.section}"
                if program.name == chosen.name:
                    why = "as an EXT program it is none of those that an array has"
            log = f"{array}[{place}] does not take {program.name}: {why}"
            raise KernelError(UNFIT, errno.EPROTOTYPE, log) from error

    def _replaced(self, there: Mapping[str, Mapping[int, int]]) -> Iterator[Replaced]:
        for name, before in self._before.items():
            for place, program in there[name].items():
                if before.get(place, 0) != program:
                    yield Replaced(name, place, before.get(place, 0))

    def holding(self, replaced: Sequence[Replaced]) -> list[int]:
        """The descriptors of programs that were replaced, in order, without those that are 0."""
        return [self._held[one.program] for one in replaced if one.program]

    def put_back(self) -> None:
        """Have arrays that others use as they were before the load."""
        there = {name: _entries(self.found[name].fd) for name in self._before}
        for one in self._replaced(there):
            put_back(self.found[one.array].fd, one.place, self._held.get(one.program))


def is_empty(fd: int) -> bool:
    """Whether a map is a program array with nothing in it."""
    return libbpf.map_info(fd).type == uapi.BPF_MAP_TYPE_PROG_ARRAY and not _entries(fd)


def put_back(array_fd: int, place: int, program_fd: int | None) -> None:
    """Have a place of an array as it was: with a program, or nothing in it."""
    key = place.to_bytes(_KEY, sys.byteorder)
    if program_fd is None:
        with libbpf.absent_is_fine():
            libbpf.map_delete(array_fd, key)
    else:
        libbpf.map_update(array_fd, key, program_fd.to_bytes(4, sys.byteorder))


def _entries(fd: int) -> dict[int, int]:
    """The ids of the programs in an array, by place."""
    return {
        int.from_bytes(keys[start : start + _KEY], sys.byteorder): int.from_bytes(
            values[start : start + _KEY], sys.byteorder
        )
        for keys, values in maps.entries(fd, libbpf.map_info(fd))
        for start in range(0, len(keys), _KEY)
    }
