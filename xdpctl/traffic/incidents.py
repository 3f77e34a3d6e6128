"""What the monitor's counts mean: whose packets, which program, why, and how often."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..bpffs.mount import Bpffs
from ..errors import NotFoundError, RaceError, VanishedError, errno_name
from ..host.interfaces import Interface, is_several
from ..kernel import libbpf, netlink, uapi
from ..kernel.maps import Map
from ..kernel.program import Program
from ..model.chain import ACTIONS, Kind, Member, verdict_name
from ..observe.reading import View, observe
from . import monitor
from .monitor import Monitor, Tally, What

XSK = "xsk"
_EVENTS = {
    monitor.EXCEPTION: "exception",
    monitor.REDIRECT: "redirect",
    monitor.TX: "tx",
    monitor.DEVMAP: "devmap",
    monitor.CPUMAP: "cpumap_enqueue",
    monitor.CPU: "cpumap_kthread",
}
ENTRY = "entry"
INTERFACE = "interface"
CPU = "cpu"
"""What `to` is the number of."""

# What the kernel means by an errno, by event; 0: it gives none. net/core/filter.c,
# kernel/bpf/devmap.c and cpumap.c, net/xdp/xsk.c.
_REASONS: dict[str, dict[int, str]] = {
    "redirect": {
        errno.EBADRQC: "the program named no target",
        errno.EINVAL: "its target does not exist",
        errno.ENETDOWN: "its target is down",
        errno.EOPNOTSUPP: "its target takes no redirected packets",
        errno.EMSGSIZE: "longer than its target takes",
        errno.EOVERFLOW: "too little room around the packet",
    },
    XSK: {
        errno.ENXIO: "the socket is not bound",
        errno.EINVAL: "the socket is bound to another interface or queue",
        errno.ENOMEM: "the socket's fill ring is empty",
        errno.ENOBUFS: "the socket's receive ring is full",
        errno.ENOSPC: "the socket has no room",
    },
    "tx": {
        0: "no room in the transmit queue",
        errno.ENXIO: "the interface is not ready to transmit",
    },
    "devmap": {
        0: "no room in the target's queue, or dropped by the map's program",
        errno.ENXIO: "its target is not ready to transmit",
        errno.ENETDOWN: "its target is down",
    },
    "cpumap_enqueue": {0: "the CPU's queue is full"},
    "cpumap_kthread": {0: "no memory for it"},
}


class NamedProgram(NamedTuple):
    """A program that an event names; of a root its kind, the interface and the members."""

    id: int
    name: str = ""
    kind: Kind | None = None
    members: tuple[Member, ...] = ()


class NamedMap(NamedTuple):
    """A map that an event names; without a name if it is gone."""

    id: int
    name: str = ""


class Incident(NamedTuple):
    """Packets of one kind: `packets` since the look before, `total` in all, `rate` a second.

    `error` is an errno's name; `to` has a number and what it is one of.
    """

    event: str
    reason: str
    packets: int
    total: int
    rate: float
    interface: str | None = None
    ifindex: int = 0
    program: NamedProgram | None = None
    verdict: str | None = None
    error: str | None = None
    map: NamedMap | None = None
    to: tuple[str, int] | None = None
    target: str | None = None
    """The name of the interface that `to` is the number of."""


class Scene:
    """Which events are asked for, and the names of what is in them.

    The programs of the interfaces are looked up at the beginning and when one is met that is not
    known: the kernel tells its id alone, and by then it may be gone.
    """

    def __init__(self, counts: Monitor, bpffs: Bpffs, interface: str | None) -> None:
        """Raises NotFoundError where there is no such interface."""
        self._monitor, self._bpffs, self._asked = counts, bpffs, interface
        self._netns = os.stat("/proc/thread-self/ns/net").st_ino
        self._interfaces: dict[int, str] = {}
        self._one = None
        if interface is not None and not is_several(interface):
            self._one = Interface.named(interface)
        self._programs: dict[int, NamedProgram] = {}
        self._maps: dict[int, NamedMap] = {}
        self._used: set[int] = set()
        self._met: set[tuple[int, int]] = set()
        self._last = Tally(counts.read().now, {}, 0)
        self._find()
        self._learn()

    @property
    def lost(self) -> int:
        """Packets for which there was no room among what is counted by itself."""
        return self._last.lost

    def look(self) -> list[Incident]:
        """What there has been so far, in the order in which it was first seen.

        Raises VanishedError when the interface that was named is gone.
        """
        if self._one and not self._one.exists():
            raise VanishedError(f"{self._one.name} went away meanwhile")
        self._find()
        reading, last = self._monitor.read(), self._last
        if self._news(reading.counts):
            self._learn()
        # Those of before first, so that rows stay where they are.
        order = {what: last.counts.get(what, 0) for what in (*last.counts, *reading.counts)}
        now = {what: reading.counts.get(what, old) for what, old in order.items()}
        self._last = reading._replace(counts=now)
        seconds = reading.now - last.now
        return [
            self._incident(what, now[what], old, seconds)
            for what, old in order.items()
            if self._is_asked(what)
        ]

    # --- which ----------------------------------------------------------------------------------

    def _find(self) -> None:
        """Interfaces come; those that go keep what there was on them."""
        with contextlib.suppress(NotFoundError):
            if self._one:
                found = [self._one]
            else:
                found = Interface.matching(self._asked) if self._asked else Interface.all()
            self._interfaces |= {one.ifindex: one.name for one in found}
            if self._asked:
                # The kernel names the device that a packet came in by, and not the bond above it.
                lower = netlink.below(one.ifindex for one in found)
                here = [one for one in Interface.all() if one.ifindex in lower]
                self._interfaces |= {one.ifindex: one.name for one in here}

    def _is_asked(self, what: What) -> bool:
        if not what.ifindex:  # of a CPU map: the kernel does not tell where a packet came from
            return self._asked is None or what.map in self._used
        return what.netns == self._netns and what.ifindex in self._interfaces

    # --- names ----------------------------------------------------------------------------------

    def _news(self, counts: Mapping[What, int]) -> bool:
        """Whether anything has a program or a map that was not met before."""
        met = {(what.program, what.map) for what in counts}
        news = not met <= self._met
        self._met |= met
        return news

    def _learn(self) -> None:
        view = View() if len(self._interfaces) > 1 else None
        here = [one for one in Interface.all() if one.ifindex in self._interfaces]
        for interface in here:
            with contextlib.suppress(RaceError, VanishedError):
                state = observe(interface, self._bpffs, view=view)
                if root := state.root:
                    kind = root.kind if root.config else None
                    program = NamedProgram(root.id, root.name, kind, state.chain.members)
                    self._programs[root.id] = program
                    for number in (root.id, *(member.id for member in program.members)):
                        self._used.update(_maps_of(number))

    def _program(self, number: int) -> NamedProgram:
        if number not in self._programs:
            found = NamedProgram(number)
            with libbpf.absent_is_fine(), Program.by_id(number) as program:
                found = NamedProgram(number, program.info.name)
            self._programs[number] = found
        return self._programs[number]

    def _map(self, number: int) -> NamedMap:
        if number not in self._maps:
            found = NamedMap(number)
            with libbpf.absent_is_fine(), Map.by_id(number) as kept:
                found = NamedMap(number, kept.info.name)
            self._maps[number] = found
        return self._maps[number]

    def _incident(self, what: What, total: int, before: int, seconds: float) -> Incident:
        event = event_of(what)
        to = _target(what)
        incident = Incident(
            event,
            reason(event, what.code),
            packets=total - before,
            total=total,
            rate=(total - before) / seconds if seconds > 0 else 0.0,
            interface=self._interfaces.get(what.ifindex),
            ifindex=what.ifindex,
            program=self._program(what.program) if what.program else None,
            map=self._map(what.map) if what.map else None,
            to=to,
        )
        if to and to[0] == INTERFACE:
            with contextlib.suppress(OSError):
                incident = incident._replace(target=socket.if_indextoname(to[1]))
        if what.event == monitor.EXCEPTION:
            return incident._replace(verdict=_verdict(what.code))
        return incident._replace(error=errno_name(-what.code))


def _maps_of(program_id: int) -> Iterator[int]:
    with libbpf.absent_is_fine(), Program.by_id(program_id) as program:
        yield from program.info.map_ids


def _target(what: What) -> tuple[str, int] | None:
    if what.event in (monitor.CPUMAP, monitor.CPU):
        return CPU, what.to
    if what.map:
        return ENTRY, what.to
    return (INTERFACE, what.to) if what.to else None


def _verdict(code: int) -> str:
    return verdict_name(code) if code < monitor.ODD_VERDICT else "other"


def event_of(what: What) -> str:
    """What it is called that went wrong."""
    return XSK if what.map_type == uapi.BPF_MAP_TYPE_XSKMAP else _EVENTS[what.event]


def reason(event: str, code: int) -> str:
    """Why, in words, from a verdict or a negative errno."""
    if event == "exception":
        verdict = _verdict(code)
        if code >= len(ACTIONS):
            return f"{verdict} is no verdict" if verdict != "other" else "codes that are no verdict"
        return verdict if code == 0 else f"{verdict} failed"
    return _REASONS[event].get(-code) or os.strerror(-code)
