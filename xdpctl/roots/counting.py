"""Counting what programs do to packets: where it is kept, and who counts.

While an interface's rules say so, it has two maps. In `counts` each program has a row, on each CPU
by itself; `masks` says whose row it is and what that program hands on after. A fused root counts in
its own code. EXT programs are traced: a program runs before and one behind each, whichever root
calls it, so that nothing is lost in a swap. Their links are pinned, and keep the program that they
trace, so that they go with it. See docs/change.md for what a crash leaves of it.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..bpffs import homes, pin
from ..bpffs.directory import InterfacePins
from ..errors import BpffsError, KernelError, UnsupportedError
from ..host.rights import explain_refusal
from ..kernel import libbpf, maps, netlink, records, uapi
from ..kernel.link import Link
from ..kernel.maps import Map
from ..kernel.program import Program
from ..model.chain import Member, Rules
from ..model.record import MAX_SLOTS
from . import count_code
from .count_code import MASK_SIZE, ROW_SIZE, SHORT_ROW_SIZE, Counted, Counter, Mask

ROWS = 2 * MAX_SLOTS
"""Room for all programs of a chain and for as many that come in one change."""

_PLACE = struct.Struct("=QQ")
assert _PLACE.size == MASK_SIZE
_COUNTS = {
    records.MapShape(uapi.BPF_MAP_TYPE_PERCPU_ARRAY, 4, size, ROWS, 0)
    for size in (ROW_SIZE, SHORT_ROW_SIZE)
}


class Counting:
    """The two maps of an interface, open."""

    def __init__(self, counts: Map, masks: Map) -> None:
        self.counts, self.masks = counts, masks
        self.shape = counts.info
        record = maps.record(masks.fd, masks.info)
        if self.shape.shape not in _COUNTS or record is None or len(record) != ROWS * MASK_SIZE:
            raise BpffsError(
                "the pins counts and masks of an interface are not what xdpctl counts in",
                why=f"counts is a map of {self.shape.shape}",
                hint="xdpctl stats INTERFACE --off, or remove them",
            )
        self.places = [*_PLACE.iter_unpack(record)]

    @classmethod
    def of(cls, paths: InterfacePins, closing: contextlib.ExitStack) -> Counting | None:
        """Those that are pinned; None where there are none."""
        counts, masks = (pin.opened(path, Map) for path in (paths.counts, paths.masks))
        for one in (counts, masks):
            if one is not None:
                closing.enter_context(one)
        return None if counts is None or masks is None else cls(counts, masks)

    @classmethod
    def prepared(
        cls, paths: InterfacePins, closing: contextlib.ExitStack, undo: contextlib.ExitStack
    ) -> Counting:
        """The same, made where they are not there."""
        found = cls.of(paths, closing)
        if found:
            return found
        kind = uapi.BPF_MAP_TYPE_PERCPU_ARRAY
        counts = Map.create(kind, "xdpctl_counts", ROW_SIZE, elements=ROWS)
        closing.enter_context(counts)
        masks = Map.create(uapi.BPF_MAP_TYPE_ARRAY, "xdpctl_masks", ROWS * MASK_SIZE)
        closing.enter_context(masks)
        undo.callback(paths.remove_counters)
        with pin.failing("pin a map in", paths.bpffs.path):
            counts.pin(paths.counts)
            masks.pin(paths.masks)
        return cls(counts, masks)

    def row(self, program_id: int, mask: Mask, undo: contextlib.ExitStack) -> int:
        """A program's row, a new one if it has none yet."""
        programs = [program for program, _mask in self.places]
        if program_id in programs:
            return programs.index(program_id)
        if 0 not in programs:
            raise UnsupportedError(
                "too many programs come at once to count their packets",
                why=f"there is room for {ROWS} programs, those that go included",
                hint="load them in several steps",
            )
        row = programs.index(0)
        size = self.row_size * maps.possible_cpus()
        self.counts.update(row.to_bytes(4, sys.byteorder), bytes(size))
        undo.callback(self._write, row, 0, 0)
        self._write(row, program_id, mask.pack())
        return row

    @property
    def row_size(self) -> int:
        return self.shape.value_size

    def counter(self, row: int) -> Counter:
        return Counter(self.shape.id, row, bytes=self.row_size == ROW_SIZE)

    def observe(
        self, paths: InterfacePins, program: Program, member: Member, undo: contextlib.ExitStack
    ) -> None:
        """Trace an EXT program that has its row, unless that is done already.

        Raises UnsupportedError or RightsError where the kernel does not take that.
        """
        row = [number for number, _mask in self.places].index(member.id)
        counter, function = self.counter(row), program.main_function
        codes: dict[str, Callable[[bool], bytes]] = {
            "exit": lambda _sized: count_code.observer_exit(counter, self.masks.info.id),
            "entry": lambda sized: count_code.observer_entry(
                counter, frags=member.frags, sized=sized
            ),
        }
        try:
            for which, code in codes.items():
                path = paths.counter(member.id, which)
                if os.path.lexists(path):
                    continue
                _check_alone(paths, member)
                undo.callback(pin.remove, path)
                observer = _loaded(which, code, (program.fd, function))
                failing = pin.failing("pin a link in", paths.bpffs.path)
                with observer, Link.tracing(observer) as link, failing:
                    link.pin(path)
        except KernelError as error:
            what = f"what counts the packets of {member.known_as}"
            raise explain_refusal(error, what) or UnsupportedError(
                f"the packets of {member.known_as} (id {member.id}) cannot be counted",
                why=f"the kernel does not let the program be traced: {error}",
                hint="a fused root counts by itself: xdpctl stats INTERFACE --on --root fused",
                details=error.log,
            ) from error

    def sync(self, members: Sequence[Member], rules: Rules) -> None:
        masks = {
            member.id: mask_of(member, rules, last=member is members[-1]).pack()
            for member in members
        }
        self.places = [
            (program, masks[program]) if program in masks else (0, 0)
            for program, _mask in self.places
        ]
        self._store()

    def read(self) -> dict[int, Counted]:
        """What was counted, by program."""
        return {
            program: _row(self.counts.fd, self.shape, row) for program, row in self.rows().items()
        }

    def rows(self) -> dict[int, int]:
        """The programs that are counted, each with its row."""
        return {program: row for row, (program, _mask) in enumerate(self.places) if program}

    def _write(self, row: int, program_id: int, mask: int) -> None:
        self.places[row] = (program_id, mask)
        self._store()

    def _store(self) -> None:
        self.masks.update(bytes(4), b"".join(_PLACE.pack(*place) for place in self.places))


def _loaded(which: str, code: Callable[[bool], bytes], target: tuple[int, int]) -> Program:
    """What runs before a program or behind it; if need be without looking at the packet.

    A program whose types call its context something else does not show it to who traces it.
    """

    def loaded(sized: bool) -> Program:
        return Program.load(
            uapi.BPF_PROG_TYPE_TRACING,
            f"xdpctl_{which}",
            code(sized),
            gpl=True,
            target=target,
            attach_type=ATTACH_TYPES[which],
        )

    if which == "entry":
        with contextlib.suppress(KernelError):
            return loaded(True)
    return loaded(False)


ATTACH_TYPES = {"entry": uapi.BPF_TRACE_FENTRY, "exit": uapi.BPF_TRACE_FEXIT}


def mask_of(member: Member, rules: Rules, *, last: bool) -> Mask:
    return Mask(member.handed_on(rules), last)


@contextlib.contextmanager
def opened(paths: InterfacePins) -> Iterator[Counting | None]:
    """The counters of an interface, if there are any, for the length of a block."""
    with contextlib.ExitStack() as closing:
        yield Counting.of(paths, closing)


def sync(paths: InterfacePins, members: Sequence[Member], rules: Rules) -> None:
    """The rows are those of a chain's members; others are free from now on."""
    with opened(paths) as counting:
        if counting:
            counting.sync(members, rules)


def _check_alone(paths: InterfacePins, member: Member) -> None:
    """Raise UnsupportedError for an EXT program that other interfaces run as well.

    What is traced is the program: the packets of all of them would be counted for this one.
    """
    own = pin.pinned_link(paths.root_link)
    links = [link for link in libbpf.links() if own is None or link.id != own.id]
    live = {link.prog_id for link in links if link.type == uapi.BPF_LINK_TYPE_XDP and link.ifindex}
    programs = netlink.xdp_programs().items()
    live |= {root_id for ifindex, (root_id, _mode) in programs if ifindex != paths.ifindex}
    targets = {link.target for link in links if link.is_ext and link.prog_id == member.id}
    if targets & live - {0} or (0 in targets and _is_pinned_elsewhere(paths, member.id)):
        raise UnsupportedError(
            f"the packets of {member.known_as} (id {member.id}) cannot be counted for {paths.what}",
            why="it runs on other interfaces as well, and what counts an EXT program sees the "
            "packets of all of them",
            hint=f"xdpctl replace {paths.what} {member.known_as} FILE gives this one a program of "
            f"its own; or xdpctl stats {paths.what} --on --root fused",
        )


def _is_pinned_elsewhere(paths: InterfacePins, program_id: int) -> bool:
    """Whether other interfaces have pins of a program: for kernels that do not tell where it is."""
    others = (one for one in homes.every(paths.bpffs) if one.directory != paths.directory)
    return any(program_id in one.programs(root_id) for one in others for root_id in one.chains())


def read_rows(paths: InterfacePins, rows: Mapping[int, int]) -> dict[int, Counted] | None:
    """What was counted of some programs, by their rows; None if nothing is counted.

    Programs have the rows of an earlier `Counting` for as long as the chain is the same.
    """
    counts = pin.opened(paths.counts, Map)
    if counts is None:
        return None
    with counts:
        shape = counts.info
        if shape.shape not in _COUNTS:
            return None
        return {program: _row(counts.fd, shape, row) for program, row in rows.items()}


def _row(fd: int, shape: records.MapInfo, row: int) -> Counted:
    return Counted.of(maps.lookup(fd, shape, row.to_bytes(4, sys.byteorder)), size=shape.value_size)


class Reading(NamedTuple):
    """What was counted of each program until a moment, and since when; seconds of the clock."""

    since: float
    now: float
    programs: dict[int, Counted]


def read(paths: InterfacePins) -> Reading | None:
    """What was counted; None where nothing is."""
    import time

    with opened(paths) as counting:
        if counting is None:
            return None
        with contextlib.suppress(FileNotFoundError):
            since = os.stat(paths.masks).st_ctime
            return Reading(since, time.time(), counting.read())
    return None
