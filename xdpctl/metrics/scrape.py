"""What there is to tell of some interfaces, as metrics."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Mapping, Sequence

from .. import __version__
from ..bpffs.mount import Bpffs
from ..change import failures
from ..errors import NotFoundError
from ..host import hints
from ..host.interfaces import Failure, Interface, current
from ..host.text import Json, printable
from ..model.chain import ACTIONS
from ..roots.count_code import Counted
from ..traffic import incidents, monitor
from .carried import Carried
from .families import Families
from .looks import Look, Looks

_OTHER = "other"
"""What codes are called that are no action, as stats does."""


class Scrape:
    """Gathers the metrics of the interfaces that are named, or of all; `stay`: again and again."""

    def __init__(self, bpffs: Bpffs, names: Sequence[str] = (), *, stay: bool = False) -> None:
        self._names = names
        self._netns = current()
        self._inode = os.stat("/proc/thread-self/ns/net").st_ino
        self._looks = Looks(bpffs, stay=stay)

    def interfaces(self) -> list[Interface]:
        """Those that are meant. Raises NotFoundError if a name or pattern means none."""
        if not self._names:
            return Interface.all()
        found = (one for name in self._names for one in Interface.matching(name))
        return list(dict.fromkeys(found))

    def families(self) -> Families:
        """What there is to tell now. Those that were named and are gone are not there."""
        # Tens of thousands of values, of which none is to be thrown away yet.
        collects = gc.isenabled()
        gc.disable()
        try:
            return self._families()
        finally:
            if collects:
                gc.enable()

    def _families(self) -> Families:
        there = Interface.all()
        meant = there
        if self._names:
            meant = []
            for name in self._names:
                with contextlib.suppress(NotFoundError):
                    meant += Interface.matching(name)
        families = Families()
        families.build.add([__version__], 1)
        families.success.add([], 1)
        numbers = {one.ifindex for one in there}
        # The hint comes before the look: beside another process that looks at the same time, counts
        # that are lower than those of the hint would seem to have begun anew.
        with hints.changed(f"metrics-{self._netns}") as hint:
            found = self._looks.at(dict.fromkeys(meant))
            kept = _tell_counts(families, found, hint)
            still = set(map(str, numbers))
            rest = {number: one for number, one in hint.items() if number in still}
            hint.clear()
            hint.update(rest | kept)
        failed = failures.last(self._netns, numbers)
        for look in found:
            _tell(families, look, failed)
        self._tell_incidents(families, {one.ifindex: one.name for one in meant})
        return families

    def _tell_incidents(self, families: Families, names: Mapping[int, str]) -> None:
        counts = monitor.running()
        families.monitored.add([], int(counts is not None))
        sums: dict[tuple[str, str, str], int] = {}
        for what, packets in (counts or {}).items():
            if what.ifindex and (what.netns != self._inode or what.ifindex not in names):
                continue
            # Of a CPU map the kernel does not tell where a packet came in.
            name = names[what.ifindex] if what.ifindex else ""
            event = incidents.event_of(what)
            labels = printable(name), event, incidents.reason(event, what.code)
            sums[labels] = sums.get(labels, 0) + packets
        for labels, packets in sums.items():
            families.incidents.add(labels, packets)


def _tell(families: Families, look: Look | Failure, failed: Mapping[int, int]) -> None:
    """What an interface runs."""
    if isinstance(look, Failure):
        families.readable.add([printable(look.interface.name)], 0)
        return
    state, root = look.state, look.state.root
    name = printable(state.interface.name)
    one = [name]
    slots = root.slots if root else ()
    families.readable.add(one, 1)
    if root:
        families.root.add(
            [name, printable(root.name), root.kind, root.mode, root.attach, root.owner], 1
        )
    families.programs.add(one, sum(slot.member is not None for slot in slots))
    for slot in slots:
        if member := slot.member:
            numbers = [str(slot.number), str(member.id), member.tag, str(member.priority)]
            families.program.add([name, printable(member.known_as), *numbers], 1)
    families.vacant.add(one, sum(slot.member is None for slot in slots))
    families.left_over.add(one, len(state.residue))
    families.generation.add(one, look.generation)
    families.unconfirmed.add(one, int(state.pending is not None))
    if look.changed is not None:
        families.changed.add(one, look.changed)
    times = [failed.get(state.interface.ifindex), look.went_back]
    if known := [time for time in times if time is not None]:
        families.failed.add(one, max(known))
    families.counting.add(one, int(look.counts is not None))


def _tell_counts(families: Families, found: Sequence[Look | Failure], hint: Json) -> Json:
    """What was counted; what is to be kept of it for the next time, by interface."""
    kept: Json = {}
    for look in found:
        if isinstance(look, Failure):
            continue
        number = str(look.state.interface.ifindex)
        if look.counts is None and number not in hint:
            continue
        carried, name = Carried(hint.get(number)), printable(look.state.interface.name)
        counts, root = look.counts or {}, look.state.root
        members = [slot.member for slot in (root.slots if root else ()) if slot.member]
        seen = [
            (member.id, printable(member.known_as), counts[member.id])
            for member in members
            if member.id in counts
        ]
        for program, total in carried.totals(seen).items():
            _tell_program(families, [name, program], total)
        if look.counts is not None:
            families.at_end.add([name], carried.at_end)
        kept[number] = carried.data
    return kept


def _tell_program(families: Families, labels: list[str], total: Counted) -> None:
    for family, values in (
        (families.packets, total.verdicts),
        (families.last_words, total.last_words),
    ):
        for verdict, packets in zip((*ACTIONS, _OTHER), values, strict=True):
            if packets or verdict != _OTHER:
                family.add([*labels, verdict], packets)
    if total.known_bytes is not None:
        families.size.add(labels, total.known_bytes)
    families.run_time.add(labels, total.ns / 1e9, total.timed)
