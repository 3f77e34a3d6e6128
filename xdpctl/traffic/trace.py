"""Live packets, each with the path that it took through a chain.

A tracing program runs behind each EXT program. It writes down the verdict, for its CPU alone; the
one behind the last word hands the packet to this process, through a buffer that drops what has no
room. Nothing is pinned: all of it goes with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import time
from collections.abc import Callable, Generator
from typing import NamedTuple

from ..bpffs.mount import Bpffs
from ..errors import KernelError, NotFoundError, UnsupportedError
from ..host import signals
from ..host.interfaces import Interface
from ..host.rights import explain_refusal
from ..kernel import libbpf, maps, perf, uapi
from ..model.chain import VACANT, Member
from ..model.record import MAX_SLOTS
from ..model.state import State
from ..observe.reading import observe
from ..programs import image
from ..programs.image import CALL, LD_IMM64, insn
from ..roots.count_code import VERDICTS, Counter, fate, find, over

ALL = (1 << VERDICTS) - 1
"""Of all verdicts: a bit each, and one more for those that are no action."""

_STEPS = MAX_SLOTS
# On each CPU: how many packets could have been shown; then what goes out before the packet: time,
# its length, verdict and number of steps; a step has the place of the program and what it answered.
_SEEN, _TIME, _LENGTH, _VERDICT, _COUNT, _FATE, _STEP = 0, 8, 16, 20, 24, 28, 32
_HEAD = struct.Struct("=QIIII")
_SIZE = _STEP + 8 * _STEPS
# In one map, a line a place: mask, flags, the rules' verdicts. A place is _LIVE once all of the
# chain is traced: until then paths would lack programs.
_PLACE = struct.Struct("=IIII")
_PLACES = 2 * _STEPS
_LAST, _FIRST, _LIVE = 1, 2, 4
_EVERY = 0.5
_PAGES = 64
"""Pages of the buffer a CPU."""


class Step(NamedTuple):
    """What a program answered."""

    member: Member
    verdict: int


class Packet(NamedTuple):
    """A packet as it was at the last word; `time` in ns since 1970, `data` its first bytes.

    `last` is the program that had the last word; None for the end of the chain.
    """

    time: int
    data: bytes
    length: int
    verdict: int
    path: tuple[Step, ...]
    last: Member | None


class Wanted(NamedTuple):
    """Which packets: a mask of verdicts, one of how many, and how many bytes of each."""

    verdicts: int = ALL
    sample: int = 1
    snap: int = 256


class Trace:
    """Packets of an interface, as they come."""

    def __init__(self, bpffs: Bpffs, interface: Interface, wanted: Wanted) -> None:
        self.bpffs, self.interface, self.wanted = bpffs, interface, wanted
        self.lost = 0
        self._closing = contextlib.ExitStack()
        self._places: list[bytes] = [bytes(_PLACE.size)] * _PLACES
        self._members: dict[int, Member] = {}
        self._links: dict[int, tuple[int, int]] = {}
        self._next = 0
        self._offset = time.time_ns() - time.monotonic_ns()

    def packets(self, on_start: Callable[[], None] = lambda: None) -> Generator[Packet, None, None]:
        """Packets without an end; `on_start` is called once the chain is traced.

        Raises any XdpctlError.
        """
        with self._closing:
            self._open()
            self._follow()
            on_start()
            while True:
                end = time.monotonic() + _EVERY
                while (left := end - time.monotonic()) > 0:
                    with signals.blocked():  # nothing may be raised inside of the library
                        samples = self._buffer.poll(min(left, 0.1))
                        self.lost = self._buffer.lost
                    for sample in samples:
                        if packet := self._packet(sample):
                            yield packet
                self._follow()

    def _open(self) -> None:
        def made(kind: int, name: str, size: int, elements: int = 1) -> int:
            fd = libbpf.map_create(kind, name, size, elements=elements)
            self._closing.callback(os.close, fd)
            return fd

        events = uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY
        self._events = made(events, "xdpctl_events", 4, maps.possible_cpus())
        self._paths = made(uapi.BPF_MAP_TYPE_PERCPU_ARRAY, "xdpctl_paths", _SIZE)
        self._table = made(uapi.BPF_MAP_TYPE_ARRAY, "xdpctl_places", _PLACES * _PLACE.size)
        self._buffer = perf.PerfBuffer(self._events, _PAGES)
        self._closing.callback(self._buffer.close)
        self._closing.callback(self._drop, set())

    # --- the chain ------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Trace the programs that run now, and no others."""
        state = observe(self.interface, self.bpffs)
        _check(state)
        members, rules = state.chain.members, state.chain.rules
        for member in members:
            if member.id not in self._links:
                self._links[member.id] = (self._free(), -1)
            place, link = self._links[member.id]
            if link < 0:
                self._members[place] = member
                self._links[member.id] = (place, self._observe(member, place))
        self._drop({member.id for member in members})
        self._places = [bytes(_PLACE.size)] * _PLACES
        for at, member in enumerate(members):
            flags = _LIVE | _LAST * (at == len(members) - 1) | _FIRST * (at == 0)
            place, _link = self._links[member.id]
            self._members[place] = member
            self._places[place] = _PLACE.pack(
                member.handed_on(rules), flags, rules.on_end, rules.on_vacant
            )
        libbpf.map_update(self._table, bytes(4), b"".join(self._places))

    def _free(self) -> int:
        """A place that no program has; one that had it last had it long ago."""
        taken = {place for place, _link in self._links.values()}
        while self._next in taken:
            self._next = (self._next + 1) % _PLACES
        found, self._next = self._next, (self._next + 1) % _PLACES
        return found

    def _drop(self, staying: set[int]) -> None:
        for program in set(self._links) - staying:
            _place, link = self._links.pop(program)
            if link >= 0:
                os.close(link)

    def _observe(self, member: Member, place: int) -> int:
        """Trace a program; returns the link's descriptor, -1 if the program has just gone."""
        fds = self._paths, self._table, self._events
        paths, places, events = (libbpf.map_info(fd).id for fd in fds)
        code = observer(place, paths, places, events, self.wanted)
        try:
            with libbpf.owned(libbpf.prog_fd(member.id)) as program:
                fd = image.load(
                    uapi.BPF_PROG_TYPE_TRACING,
                    "xdpctl_trace",
                    code,
                    gpl=True,
                    target=(program, libbpf.prog_main_function(program)),
                    attach_type=uapi.BPF_TRACE_FEXIT,
                )
            with libbpf.owned(fd):
                return libbpf.link_tracing(fd)
        except KernelError as error:
            if error.errno == errno.ENOENT and not error.log:
                return -1
            what = f"what traces {member.known_as}"
            raise explain_refusal(error, what) or UnsupportedError(
                f"{member.known_as} (id {member.id}) cannot be traced",
                why=f"the kernel does not allow it: {error}",
                details=error.log,
            ) from error

    # --- packets --------------------------------------------------------------------------------

    def _packet(self, sample: bytes) -> Packet | None:
        """A packet; None where its path is not known, since the programs are gone."""
        when, length, verdict, count, fate_ = _HEAD.unpack_from(sample)
        at = _HEAD.size
        steps = []
        for place, answer in struct.iter_unpack("=II", sample[at : at + 8 * count]):
            if place not in self._members:
                return None
            steps.append(Step(self._members[place], answer))
        at += 8 * count
        data = sample[at : at + min(length, self.wanted.snap)]
        last = steps[-1].member if steps and not fate_ else None
        return Packet(when + self._offset, data, length, verdict, tuple(steps), last)


def _check(state: State) -> None:
    """Raise NotFoundError or UnsupportedError where there is nothing that can be traced."""
    root, name = state.root, state.interface.name
    if root is None or root.config is None:
        raise NotFoundError(
            f"no chain runs on {name}", hint=f"load a program first: xdpctl load {name} FILE"
        )
    if root.kind == "fused":
        raise UnsupportedError(
            f"the packets of {name} cannot be traced",
            why="its root is fused: nothing but its own code sees what a function of it answers",
            hint=f"xdpctl stats {name} --on counts verdicts there; where the kernel allows EXT "
            f"programs, xdpctl swap-dispatcher {name} --root ext makes it one that can be traced",
        )


# --- the code -----------------------------------------------------------------------------------

# <linux/bpf_common.h> and <linux/bpf.h>.
_MOV32_K, _MOV32_X, _MOV64_X, _ADD32_K, _ADD64_K, _ADD64_X = 0xB4, 0xBC, 0xBF, 0x04, 0x07, 0x0F
_SUB64_X, _OR32_X, _OR64_X, _AND32_K = 0x1F, 0x4C, 0x4F, 0x54
_LSH64_K, _RSH32_X, _MOD64_K = 0x67, 0x7C, 0x97
_LDX_W, _LDX_DW, _STX_W, _STX_DW, _ST_W = 0x61, 0x79, 0x63, 0x7B, 0x62
_JEQ64_K, _JNE64_K, _JLE64_K, _JEQ32_K, _JNE32_K = 0x15, 0x55, 0xB5, 0x16, 0x56
_JGT32_K, _JLE32_K = 0x26, 0xB6


def observer(place: int, paths: int, places: int, events: int, wanted: Wanted) -> bytes:
    """What runs behind a program: r6 its arguments, r7 the path, r8 its verdict, r9 its place.

    `paths`, `places` and `events` are ids of maps.
    """
    step = (
        insn(_MOV64_X, dst=3, src=2)
        + insn(_LSH64_K, dst=3, imm=3)
        + insn(_ADD64_X, dst=3, src=7)
        + insn(_ST_W, dst=3, off=_STEP, imm=place)
        + insn(_STX_W, dst=3, src=8, off=_STEP + 4)
        + insn(_ADD32_K, dst=2, imm=1)
        + insn(_STX_W, dst=7, src=2, off=_COUNT)
    )
    traced = (
        step
        + insn(_LDX_W, dst=3, src=9)
        + insn(_LDX_W, dst=4, src=9, off=4)
        + fate()
        + over(_JEQ64_K, 3, _ended(events, wanted), imm=1)
    )
    live = (
        insn(_AND32_K, dst=1, imm=_FIRST)
        + over(_JEQ32_K, 1, insn(_ST_W, dst=7, off=_COUNT))
        + insn(_LDX_W, dst=2, src=7, off=_COUNT)
        + insn(_OR32_X, dst=1, src=2)
        # Nothing is known of a packet whose way did not begin with the first program.
        + over(_JEQ32_K, 1, over(_JGT32_K, 2, traced, imm=_STEPS - 1))
    )
    whole = (
        insn(LD_IMM64, dst=9, src=uapi.BPF_PSEUDO_MAP_VALUE, imm=places)
        + insn(0, imm=place * _PLACE.size)
        + insn(_LDX_W, dst=1, src=9, off=4)
        + over(_JEQ32_K, 1, live)
    )
    return (
        insn(_MOV64_X, dst=6, src=1)
        + insn(_LDX_DW, dst=8, src=6, off=8)
        + find(Counter(paths, 0))
        + over(_JEQ64_K, 7, whole)
        + insn(_MOV32_K)
        + insn(0x95)
    )


def _ended(events: int, wanted: Wanted) -> bytes:
    """The chain has ended, by the fate in r3: hand the packet out if it is wanted."""
    code = _send(events, wanted.snap)
    if wanted.sample > 1:
        code = (
            insn(_LDX_DW, dst=1, src=7, off=_SEEN)
            + insn(_MOV64_X, dst=2, src=1)
            + insn(_ADD64_K, dst=1, imm=1)
            + insn(_STX_DW, dst=7, src=1, off=_SEEN)
            + insn(_MOD64_K, dst=2, imm=wanted.sample)
            + over(_JNE64_K, 2, code)
        )
    if wanted.verdicts != ALL:
        code = (
            insn(_JLE32_K, dst=1, off=1, imm=VERDICTS - 2)
            + insn(_MOV32_K, dst=1, imm=VERDICTS - 1)
            + insn(_MOV32_K, dst=2, imm=wanted.verdicts)
            + insn(_RSH32_X, dst=2, src=1)
            + insn(_AND32_K, dst=2, imm=1)
            + over(_JEQ32_K, 2, code)
        )
    return (
        insn(_STX_W, dst=7, src=3, off=_FATE)
        + insn(_MOV32_X, dst=1, src=8)
        + over(_JEQ64_K, 3, insn(_LDX_W, dst=1, src=9, off=8))
        + over(_JNE32_K, 1, insn(_LDX_W, dst=1, src=9, off=12), imm=VACANT)
        + insn(_STX_W, dst=7, src=1, off=_VERDICT)
        + code
        + insn(_ST_W, dst=7, off=_COUNT)
    )


def _send(events: int, snap: int) -> bytes:
    """The path, and behind it the packet's first bytes."""
    return (
        insn(CALL, imm=uapi.BPF_FUNC_ktime_get_ns)
        + insn(_STX_DW, dst=7, src=0, off=_TIME)
        # struct xdp_buff begins with data and data_end.
        + insn(_LDX_DW, dst=1, src=6)
        + insn(_LDX_DW, dst=2, src=1)
        + insn(_LDX_DW, dst=3, src=1, off=8)
        + insn(_SUB64_X, dst=3, src=2)
        + insn(_STX_W, dst=7, src=3, off=_LENGTH)
        + insn(_JLE64_K, dst=3, off=1, imm=snap)
        + insn(_MOV32_K, dst=3, imm=snap)
        + insn(_LSH64_K, dst=3, imm=32)
        + insn(_MOV32_K, dst=2, imm=-1)  # BPF_F_CURRENT_CPU
        + insn(_OR64_X, dst=3, src=2)
        + insn(_LDX_W, dst=5, src=7, off=_COUNT)
        + insn(_JLE32_K, dst=5, off=1, imm=_STEPS)
        + insn(_MOV32_K, dst=5, imm=_STEPS)
        + insn(_LSH64_K, dst=5, imm=3)
        + insn(_ADD64_K, dst=5, imm=_HEAD.size)
        + insn(_MOV64_X, dst=4, src=7)
        + insn(_ADD64_K, dst=4, imm=_TIME)
        + insn(LD_IMM64, dst=2, src=uapi.BPF_PSEUDO_MAP_FD, imm=events)
        + insn(0)
        + insn(CALL, imm=uapi.BPF_FUNC_xdp_output)
    )
