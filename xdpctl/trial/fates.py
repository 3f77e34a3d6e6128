"""What came of packets on a chain, found by running its programs one after the other."""

from __future__ import annotations

import mmap
from collections.abc import Callable

from ..errors import KernelError
from ..model.chain import ACTIONS, USUAL, VACANT, XDP_PASS, Chain, Member, Rules, verdict_of
from ..traffic.pcap import Packet
from ..value import Value

_ETHERNET_HEADER = 14
_ONE_BUFFER = mmap.PAGESIZE - 256 - 320
"""What fits into a page beside the headroom and what the kernel keeps at its end; in bytes."""

_GOES_OUT = (XDP_PASS, *(ACTIONS.index(name) for name in ("XDP_TX", "XDP_REDIRECT")))
"""Verdicts after which somebody gets the packet."""


class Fate(Value):
    """What came of a packet: the verdict, and the slot that gave it; None past the last one.

    `codes` has what each slot answered that saw the packet, `changed` the slots that changed it.
    """

    verdict: int
    slot: int | None
    codes: tuple[int, ...]
    packet: bytes
    changed: tuple[int, ...] = ()


class Outcome(Value):
    """A packet's fate on the new chain, and on the present one as far as that can be told.

    `why` tells why there is none on the new chain.
    """

    packet: Packet
    after: Fate | None
    before: Fate | None = None
    why: str = ""

    @property
    def changes(self) -> bool:
        """Whether the new chain does something else with the packet than the present one."""
        after, before = self.after, self.before
        if after is None or before is None:
            return False
        goes_out = after.verdict in _GOES_OUT and after.packet != before.packet
        return after.verdict != before.verdict or goes_out


class Trial(Value):
    """The outcome of every packet; the present chain, and why that could not be tried."""

    target: Chain
    present: Chain
    outcomes: tuple[Outcome, ...]
    unknown: str = ""


class NotRun(Exception):  # noqa: N818 - told of the packet
    """Why a packet was not run."""


Run = Callable[[int, bytes, bytes], tuple[int, bytes, bytes]]
"""Run a program on a packet with metadata: its verdict, and what became of both."""


class Line(Value):
    """A chain's programs, ready to be run one after the other; None is a vacant slot.

    With `entry` the only one's verdict is the chain's, whatever it is.
    """

    members: tuple[Member, ...]
    programs: tuple[int | None, ...]
    entry: bool
    run: Run
    rules: Rules = USUAL

    def fate(self, packet: bytes) -> Fate:
        if len(packet) < _ETHERNET_HEADER:
            raise NotRun("it is shorter than an Ethernet header")
        if len(packet) > _ONE_BUFFER and not all(member.frags for member in self.members):
            raise NotRun(
                "it is longer than one buffer, and not every program takes several fragments"
            )
        codes, changed, metadata = list[int](), list[int](), b""
        for slot, (member, program) in enumerate(zip(self.members, self.programs, strict=True)):
            code, after = VACANT, packet
            try:
                if program is not None:
                    code, after, metadata = self.run(program, packet, metadata)
            except KernelError as error:
                raise NotRun(f"this kernel does not run {member.name} on it: {error}") from error
            codes.append(code)
            if after != packet:
                changed.append(slot)
            packet = after
            verdict = code if self.entry else verdict_of(code, member.actions, self.rules)
            if verdict is not None:
                return Fate(verdict, slot, tuple(codes), packet, tuple(changed))
        end = self.rules.on_end if self.members else XDP_PASS  # else there is no root
        return Fate(end, None, tuple(codes), packet, tuple(changed))
