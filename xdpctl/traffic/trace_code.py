"""The tracing program that runs behind an EXT program: its instructions, and what it writes where.

It notes the verdict in a place of its CPU. The one behind the last word hands the packet out.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..kernel import asm, uapi
from ..kernel.asm import R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Code, over
from ..model.chain import VACANT
from ..model.record import MAX_SLOTS
from ..roots.count_code import VERDICTS, Counter, fate, find

ALL = (1 << VERDICTS) - 1
"""Of all verdicts: a bit each, and one more for those that are no action."""

_STEPS = MAX_SLOTS
# On each CPU: how many packets could have been shown; then what goes out before the packet: time,
# its length, verdict and number of steps; a step has the place of the program and what it answered.
_SEEN, _TIME, _LENGTH, _VERDICT, _COUNT, _FATE, _STEP = 0, 8, 16, 20, 24, 28, 32
HEAD = struct.Struct("=QIIII")
SIZE = _STEP + 8 * _STEPS
# In one map, a line a place: mask, flags, the rules' verdicts. A place is LIVE once all of the
# chain is traced: until then paths would lack programs.
PLACE = struct.Struct("=IIII")
PLACES = 2 * _STEPS
LAST, FIRST, LIVE = 1, 2, 4


class Wanted(NamedTuple):
    """Which packets: a mask of verdicts, one of how many, and how many bytes of each."""

    verdicts: int = ALL
    sample: int = 1
    snap: int = 256


def observer(place: int, paths: int, places: int, events: int, wanted: Wanted) -> bytes:
    """What runs behind a program: r6 its arguments, r7 the path, r8 its verdict, r9 its place.

    `paths`, `places` and `events` are ids of maps.
    """
    step = [
        asm.mov64(R3, R2),
        asm.lsh64(R3, 3),
        asm.add64(R3, R7),
        asm.store32(R3, _STEP, place),
        asm.store32(R3, _STEP + 4, R8),
        asm.add32(R2, 1),
        asm.store32(R7, _COUNT, R2),
    ]
    traced = [
        *step,
        asm.load32(R3, R9, 0),
        asm.load32(R4, R9, 4),
        *fate(),
        *over(asm.jeq64, R3, 1, _ended(events, wanted)),
    ]
    live = [
        asm.and32(R1, FIRST),
        *over(asm.jeq32, R1, 0, [asm.store32(R7, _COUNT, 0)]),
        asm.load32(R2, R7, _COUNT),
        asm.or32(R1, R2),
        # Nothing is known of a packet whose way did not begin with the first program.
        *over(asm.jeq32, R1, 0, over(asm.jgt32, R2, _STEPS - 1, traced)),
    ]
    whole = [
        asm.map_value(R9, places, place * PLACE.size),
        asm.load32(R1, R9, 4),
        *over(asm.jeq32, R1, 0, live),
    ]
    return asm.assemble(
        [
            asm.mov64(R6, R1),
            asm.load64(R8, R6, 8),
            *find(Counter(paths, 0)),
            *over(asm.jeq64, R7, 0, whole),
            asm.mov32(R0, 0),
            asm.exit_(),
        ]
    )


def _ended(events: int, wanted: Wanted) -> Code:
    """The chain has ended, by the fate in r3: hand the packet out if it is wanted."""
    code = _send(events, wanted.snap)
    if wanted.sample > 1:
        code = [
            asm.load64(R1, R7, _SEEN),
            asm.mov64(R2, R1),
            asm.add64(R1, 1),
            asm.store64(R7, _SEEN, R1),
            asm.mod64(R2, wanted.sample),
            *over(asm.jne64, R2, 0, code),
        ]
    if wanted.verdicts != ALL:
        code = [
            *over(asm.jle32, R1, VERDICTS - 2, [asm.mov32(R1, VERDICTS - 1)]),
            asm.mov32(R2, wanted.verdicts),
            asm.rsh32(R2, R1),
            asm.and32(R2, 1),
            *over(asm.jeq32, R2, 0, code),
        ]
    return [
        asm.store32(R7, _FATE, R3),
        asm.mov32(R1, R8),
        *over(asm.jeq64, R3, 0, [asm.load32(R1, R9, 8)]),
        *over(asm.jne32, R1, VACANT, [asm.load32(R1, R9, 12)]),
        asm.store32(R7, _VERDICT, R1),
        *code,
        asm.store32(R7, _COUNT, 0),
    ]


def _send(events: int, snap: int) -> Code:
    """The path, and behind it the packet's first bytes."""
    return [
        asm.call_helper(uapi.BPF_FUNC_ktime_get_ns),
        asm.store64(R7, _TIME, R0),
        # struct xdp_buff begins with data and data_end.
        asm.load64(R1, R6, 0),
        asm.load64(R2, R1, 0),
        asm.load64(R3, R1, 8),
        asm.sub64(R3, R2),
        asm.store32(R7, _LENGTH, R3),
        *over(asm.jle64, R3, snap, [asm.mov32(R3, snap)]),
        asm.lsh64(R3, 32),
        asm.mov32(R2, -1),  # BPF_F_CURRENT_CPU
        asm.or64(R3, R2),
        asm.load32(R5, R7, _COUNT),
        *over(asm.jle32, R5, _STEPS, [asm.mov32(R5, _STEPS)]),
        asm.lsh64(R5, 3),
        asm.add64(R5, HEAD.size),
        asm.mov64(R4, R7),
        asm.add64(R4, _TIME),
        asm.map_of(R2, events),
        asm.call_helper(uapi.BPF_FUNC_xdp_output),
    ]
