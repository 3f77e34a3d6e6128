"""Live packets, each with the path that it took through a chain.

A tracing program runs behind each EXT program. It writes down the verdict, for its CPU alone; the
one behind the last word hands the packet to this process, through a buffer that drops what has no
room. Nothing is pinned: all of it goes with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import struct
import time
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from ..bpffs.mount import Bpffs
from ..errors import (
    KernelError,
    NotFoundError,
    UnsupportedError,
    VanishedError,
    XdpctlError,
)
from ..host import signals
from ..host.interfaces import Interface
from ..host.rights import explain_refusal
from ..kernel import maps, perf, uapi
from ..kernel.link import Link
from ..kernel.maps import Map
from ..kernel.program import Program
from ..model.chain import Member
from ..model.kinds import TRAITS
from ..model.state import State
from ..observe.reading import observe
from .trace_code import FIRST, HEAD, LAST, LIVE, PLACE, PLACES, SIZE, Wanted, observer

_EVERY = 0.5
_PAGES = 64
"""Pages of the buffer a CPU."""


class Answer(NamedTuple):
    """What a program answered."""

    member: Member
    verdict: int


class TracedPacket(NamedTuple):
    """A packet as it was at the last word; `time` in ns since 1970, `data` its first bytes.

    `last` is the program that had the last word; None for the end of the chain. `interface` is the
    name of the one that it came in by.
    """

    time: int
    data: bytes
    length: int
    verdict: int
    path: tuple[Answer, ...]
    last: Member | None
    interface: str = ""


class Trace:
    """What traces the packets of an interface, from `begin` until it is closed."""

    def __init__(self, bpffs: Bpffs, interface: Interface, wanted: Wanted) -> None:
        self.bpffs, self.interface, self.wanted = bpffs, interface, wanted
        self.lost = 0
        self._closing = contextlib.ExitStack()
        self._places: list[bytes] = [bytes(PLACE.size)] * PLACES
        self._members: dict[int, Member] = {}
        self._links: dict[int, tuple[int, Link | None]] = {}
        self._next = 0
        self._offset = time.time_ns() - time.monotonic_ns()

    def begin(self) -> None:
        """Trace the chain. Raises any XdpctlError."""
        self._open()
        self.follow()

    def close(self) -> None:
        """Trace it no more; what it has seen by then is not lost, but not told either."""
        self._closing.close()

    @property
    def buffer(self) -> perf.PerfBuffer:
        """What its packets come by."""
        return self._buffer

    def packets(self) -> list[TracedPacket]:
        """Those that have come."""
        samples = self._buffer.taken()
        self.lost = self._buffer.lost
        return [packet for sample in samples if (packet := self._packet(sample))]

    def _open(self) -> None:
        def made(kind: int, name: str, size: int, elements: int = 1) -> Map:
            return self._closing.enter_context(Map.create(kind, name, size, elements=elements))

        events = uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY
        self._events = made(events, "xdpctl_events", 4, maps.possible_cpus())
        self._paths = made(uapi.BPF_MAP_TYPE_PERCPU_ARRAY, "xdpctl_paths", SIZE)
        self._table = made(uapi.BPF_MAP_TYPE_ARRAY, "xdpctl_places", PLACES * PLACE.size)
        self._buffer = perf.PerfBuffer(self._events.fd, _PAGES)
        self._closing.callback(self._buffer.close)
        self._closing.callback(self._drop, set())

    # --- the chain ------------------------------------------------------------------------------

    def follow(self) -> None:
        """Trace the programs that run now, and no others. Raises NotFoundError if none do."""
        state = observe(self.interface, self.bpffs)
        _check(state)
        members, rules = state.chain.members, state.chain.rules
        for member in members:
            if member.id not in self._links:
                self._links[member.id] = (self._free(), None)
            place, link = self._links[member.id]
            if link is None:
                self._members[place] = member
                self._links[member.id] = (place, self._observe(member, place))
        self._drop({member.id for member in members})
        self._places = [bytes(PLACE.size)] * PLACES
        for at, member in enumerate(members):
            flags = LIVE | LAST * (at == len(members) - 1) | FIRST * (at == 0)
            place, _link = self._links[member.id]
            self._members[place] = member
            self._places[place] = PLACE.pack(
                member.handed_on(rules), flags, rules.on_end, rules.on_vacant
            )
        self._table.update(bytes(4), b"".join(self._places))

    def _free(self) -> int:
        """A place that no program has; one that had it last had it long ago."""
        taken = {place for place, _link in self._links.values()}
        while self._next in taken:
            self._next = (self._next + 1) % PLACES
        found, self._next = self._next, (self._next + 1) % PLACES
        return found

    def _drop(self, staying: set[int]) -> None:
        for program in set(self._links) - staying:
            _place, link = self._links.pop(program)
            if link is not None:
                link.close()

    def _observe(self, member: Member, place: int) -> Link | None:
        """Trace a program; None if it has just gone."""
        opened = self._paths, self._table, self._events
        paths, places, events = (one.info.id for one in opened)
        code = observer(place, paths, places, events, self.wanted)
        try:
            with Program.by_id(member.id) as program:
                tracing = Program.load(
                    uapi.BPF_PROG_TYPE_TRACING,
                    "xdpctl_trace",
                    code,
                    gpl=True,
                    target=(program.fd, program.main_function),
                    attach_type=uapi.BPF_TRACE_FEXIT,
                )
            with tracing:
                return Link.tracing(tracing)
        except KernelError as error:
            if error.errno == errno.ENOENT and not error.log:
                return None
            what = f"what traces {member.known_as}"
            raise explain_refusal(error, what) or UnsupportedError(
                f"{member.known_as} (id {member.id}) cannot be traced",
                why=f"the kernel does not allow it: {error}",
                details=error.log,
            ) from error

    # --- packets --------------------------------------------------------------------------------

    def _packet(self, sample: bytes) -> TracedPacket | None:
        """A packet; None where its path is not known, since the programs are gone."""
        when, length, verdict, count, fate_ = HEAD.unpack_from(sample)
        at = HEAD.size
        steps = []
        for place, answer in struct.iter_unpack("=II", sample[at : at + 8 * count]):
            if place not in self._members:
                return None
            steps.append(Answer(self._members[place], answer))
        at += 8 * count
        data = sample[at : at + min(length, self.wanted.snap)]
        last = steps[-1].member if steps and not fate_ else None
        name = self.interface.name
        return TracedPacket(when + self._offset, data, length, verdict, tuple(steps), last, name)


def packets(
    traces: Sequence[Trace],
    on_start: Callable[[], None] = lambda: None,
    on_end: Callable[[XdpctlError], None] = lambda _error: None,
) -> Generator[TracedPacket, None, None]:
    """The packets of interfaces, without an end; `on_start` is called once all chains are traced.

    If no chain runs any more on one of several interfaces, the others go on, and `on_end` is called
    with the error. Raises any XdpctlError, that of the last interface among them.
    """
    running = list(traces)
    with contextlib.ExitStack() as closing:
        for one in traces:
            closing.callback(one.close)
            one.begin()
        on_start()
        while True:
            end = time.monotonic() + _EVERY
            while (left := end - time.monotonic()) > 0:
                with signals.blocked():  # nothing may be raised inside of the library
                    ready = perf.waited([one.buffer for one in running], min(left, 0.1))
                    found = [one.packets() for one in running if one.buffer in ready]
                # One that came after another, to another CPU or interface, is shown after it.
                yield from sorted(itertools.chain(*found), key=lambda packet: packet.time)
            for one in list(running):
                try:
                    one.follow()
                except (NotFoundError, VanishedError) as error:
                    if len(running) == 1:
                        raise
                    running.remove(one)
                    one.close()
                    on_end(error)


def has_chain(state: State) -> bool:
    """Whether there are programs of a chain, of whatever kind its root is."""
    return state.root is not None and state.root.config is not None and not state.chain.kept


def _check(state: State) -> None:
    """Raise NotFoundError or UnsupportedError where there is nothing that can be traced."""
    root, name = state.root, state.interface.name
    if root is None or not has_chain(state):
        what = "program" if state.chain.kept else "chain"
        raise NotFoundError(
            f"no {what} runs on {name}", hint=f"load a program first: xdpctl load {name} FILE"
        )
    if not TRAITS[root.kind].hooked:
        raise UnsupportedError(
            f"the packets of {name} cannot be traced",
            why="its root is fused: nothing but its own code sees what a function of it answers",
            hint=f"xdpctl stats {name} --on counts verdicts there; where the kernel allows EXT "
            f"programs, xdpctl swap-dispatcher {name} --root ext makes it one that can be traced",
        )
