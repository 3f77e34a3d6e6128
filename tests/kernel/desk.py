"""An interface on which commands are disturbed, and the examination of what that left."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from unittest.mock import patch

from tests.kernel import crash, net, oracle
from tests.kernel.conftest import Objects
from tests.kernel.tool import Tool
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change.transact import transact
from xdpctl.cli.run import run
from xdpctl.host.interfaces import Interface
from xdpctl.kernel import libc
from xdpctl.model.chain import Chain, Kind, Member, Rules
from xdpctl.model.state import State
from xdpctl.programs import objects as objects_of_xdpctl


class Running(NamedTuple):
    """What an interface runs: its root and chain by their ids, and if a confirmation is awaited."""

    root: int
    chain: list[int]
    waiting: bool


Outcome = Literal["before", "after", "wrong"]
FRAMES = net.udps(5)


@dataclass(frozen=True)
class Case:
    """A command: the members before it, its words (none: see `Desk.replace`), and those after it.

    A number in `after` is the place that a member had before. THIRD is a program with a program
    array, for which xdpctl keeps one pin more, or any other where the kernel does not take it.
    On a `counted` chain packets are counted before. What runs before may have come about by a
    command, `first`, of which the rest was to be done when it was killed behind its flip if it was
    `cut`. `{file}` names a chain file of `count` and, behind it, `percpu`.
    """

    name: str
    before: tuple[str, ...]
    words: tuple[str, ...]
    after: tuple[int | str, ...]
    counted: bool = False
    first: tuple[str, ...] = ()
    cut: bool = False


THIRD = "{third}"
CHAIN = """
[[program]]
file = "{count}"
[[program]]
file = "{percpu}"
prio = 90
"""
WAITING = ("unload", "{dev}", "-n", THIRD, "--confirm-within", "10m")
CASES = [
    Case("first", (), ("load", "{dev}", "{count}"), ("count",)),
    Case("second", ("count",), ("load", "-P90", "{dev}", "{path}", "-n", THIRD), (0, THIRD)),
    Case("unload-all", ("count", THIRD), ("unload", "{dev}", "--all"), ()),
    Case("swap", ("count", THIRD), ("swap-dispatcher", "{dev}"), (0, 1)),
    Case("replace", ("count", THIRD, "percpu"), (), (0, "mark", 2)),
    Case("apply", ("count", THIRD), ("apply", "{dev}", "{file}"), (0, "percpu")),
    Case("keep", ("count", THIRD), ("unload", "{dev}", "-n", THIRD, "--keep"), (0,)),
    Case(
        *("rollback", ("count", THIRD), ("rollback", "{dev}"), (0, THIRD)),
        first=("unload", "{dev}", "-n", THIRD, "--keep"),
    ),
    Case("confirm", ("count", THIRD), ("confirm", "{dev}"), (0,), first=WAITING),
    Case(
        *("clean", ("count", THIRD), ("clean", "{dev}"), (0,)),
        first=("unload", "{dev}", "-n", THIRD),
        cut=True,
    ),
    Case("counted", ("count", THIRD, "percpu"), (), (0, "mark", 2), counted=True),
]
MORE_CASES = [
    *CASES,
    Case("two", ("count",), ("load", "-P90", "{dev}", "{pass}", "{percpu}"), (0, "pass", "percpu")),
    Case("unload", ("count", THIRD), ("unload", "{dev}", "-n", THIRD), (0,)),
    Case("keep-all", ("count", THIRD), ("unload", "{dev}", "--all", "--keep"), ()),
    Case("take-back", ("count", THIRD), ("rollback", "{dev}"), (0, THIRD), first=WAITING),
    Case("set", ("count", THIRD), ("set", "{dev}", "count", "-P90", "--name", "it"), (1, 0)),
    Case("new code", ("count", THIRD), ("replace", "{dev}", "count", "{recount}"), ("recount", 1)),
    Case("count", ("count", THIRD), ("stats", "{dev}", "--on"), (0, 1)),
    Case("uncount", ("count", THIRD), ("stats", "{dev}", "--off"), (0, 1), counted=True),
]
"""What the long tests have besides: each has its like in CASES."""
COMMANDS = [case for case in CASES if case.words]
MORE_COMMANDS = [case for case in MORE_CASES if case.words]
COUNTING = {"count", "percpu"}
EMPTY = {"xdp/OWN"}
"""The interface's directory alone: told only when it is no longer new."""
BACK = "xdp/OWN/back"
"""What a change that went back is recorded by until the clean-up behind it renames that."""


@dataclass
class Clean:
    """What undisturbed runs of a case leave, by outcome, and how long one is."""

    pins: dict[Outcome, set[str]] = field(default_factory=dict)
    counts: dict[Outcome, Counter[str]] = field(default_factory=dict)
    boundaries: list[tuple[str, bool]] = field(default_factory=list)
    seconds: float = 0


_CLEAN: dict[tuple[Kind, str], Clean] = {}


class Desk:
    """An interface on which commands are disturbed, and what was found wrong with that."""

    def __init__(self, tool: Tool, veth: net.Veth, objects: Objects) -> None:
        self.tool, self.veth, self.objects = tool, veth, objects
        self.bpffs = Bpffs(str(tool.bpffs))
        self.interface = Interface.named(veth.dev)
        self.complaints: list[str] = []
        tool("load", veth.dev, objects["count"])
        tried = tool.try_("load", veth.dev, objects["tailcall"], "-n", "tailcall")
        self.third = "pass" if tried.code else "tailcall"
        # What all commands import is imported here: a fork of this process has it then.
        tool("swap-dispatcher", veth.dev)
        tool("unload", veth.dev, "--all")
        file = tool.bpffs.parent / "chain.toml"
        file.write_text(CHAIN.format_map(objects))
        self.names = {
            **{"dev": veth.dev, "third": self.third, "path": objects[self.third], "file": file}
        }
        stems = {"count", "pass", "percpu", "mark", self.third}
        self.members = {name: self._member(name, 50) for name in stems}
        self.base = Counter[str]()
        self.base = oracle.steady(self._counts)
        self.look()

    def _member(self, name: str, priority: int) -> Member:
        path = str(self.objects[name])
        return objects_of_xdpctl.member(path, program=name, priority=priority)

    # --- the command and the chain before it ----------------------------------------------------

    def prepare(self, case: Case) -> None:
        """Bring the interface to the case's chain of before, whatever it runs now."""
        members = [self.members[name.format_map(self.names)] for name in case.before]
        rules = Rules(counted=int(case.counted))
        self.confirm()
        # A transaction without a command records no chain of before; those of commands are many.
        # What was kept of them by pins goes with it.
        self._forget("was", "kept", "went")
        transact(self.bpffs, self.interface, lambda _state: Chain(tuple(members), rules))
        self._forget("went")  # of a change whose clean-up the transaction or its watchdog has done
        if case.cut:
            with crash.adopting():
                os.waitpid(crash.spawn(lambda: self._cut(case)), 0)
            assert self.tool.status(self.veth.dev)["residue"]
        elif case.first:
            self.tool(*self._words(case.first))
        self.look()

    def _forget(self, *records: str) -> None:
        for what in records:
            for record in self.tool.bpffs.glob(f"xdp/xdpctl-*/{what}-*"):
                record.unlink(missing_ok=True)

    def confirm(self) -> None:
        """Nothing waits any more, and no watchdog with it."""
        if self._running().waiting:
            self.tool("confirm", self.veth.dev)

    def _words(self, words: tuple[str, ...]) -> list[str]:
        return [word.format_map({**self.objects, **self.names}) for word in words]

    def _cut(self, case: Case) -> int:
        """In a process of its own: what comes first, up to the grace period."""
        with patch.object(libc, "grace_period", lambda: os._exit(0)):
            return run(self._words(case.first))

    def look(self) -> None:
        """What runs now is the chain of before."""
        self.before = self.now = self._running()

    def _running(self) -> Running:
        """What runs, by the oracle."""
        held = oracle.xdp_links(self.veth.ifindex)
        root = held[0].prog_id if held else oracle.xdp_prog_id(self.veth.ifindex)[0]
        chain = self.tool.chain(self.veth.ifindex) if root else []
        own = f"xdpctl-{self.interface.netns}-{self.veth.ifindex}"
        return Running(root, chain, os.path.lexists(self.tool.bpffs / "xdp" / own / "confirm"))

    def action(self, case: Case) -> Callable[[], int]:
        words = self._words(case.words)
        return (lambda: run(words)) if words else self.replace

    def replace(self) -> int:
        """A transaction that puts a new program in the place of the one in the middle."""

        def target(state: State) -> Chain:
            first, _old, last = state.chain.members
            return Chain((first, self.members["mark"], last), state.chain.rules)

        transact(self.bpffs, self.interface, target)
        return 0

    def next(self) -> str:
        """The next command after what was seen last; what it says on standard error."""
        said = self.tool.try_("confirm", self.veth.dev).err if self.now.waiting else ""
        if self.now.root:
            return said + self.tool("swap-dispatcher", self.veth.dev).err
        return said + self.tool("load", self.veth.dev, self.objects["count"]).err

    # --- undisturbed ----------------------------------------------------------------------------

    def clean(self, case: Case) -> Clean:
        """What undisturbed runs leave, found out once."""
        key = (self.tool.kind, case.name)
        if key not in _CLEAN:
            found = Clean()
            outcomes: list[Outcome] = ["before", "after"]
            for outcome in outcomes[case.cut :]:
                self.prepare(case)
                if outcome == "after":
                    begin = time.monotonic()
                    assert self.action(case)() == 0
                    found.seconds = time.monotonic() - begin
                assert self.outcome(case) == outcome
                found.pins[outcome] = self._pins()
                assert "interrupted" not in self.next()
                found.counts[outcome] = oracle.steady(self._counts)
            self.prepare(case)
            found.boundaries = crash.boundaries(self.action(case))
            _CLEAN[key] = found
        return _CLEAN[key]

    def _pins(self) -> set[str]:
        """The pins there are, with names instead of the numbers of the live root and chain."""
        root, chain, _waiting = self.now
        numbers = {f"-{self.veth.ifindex}-{root}": "-LIVE"}
        own = f"xdpctl-{self.interface.netns}-{self.veth.ifindex}"
        for place, number in enumerate(chain):
            for kind in ("map", "counter"):
                numbers[f"{kind}-{number}-"] = f"{kind}-MEMBER{place}-"
        pins, found = self.tool.pins(), set[str]()
        for kept in re.findall(r"/kept-\d+-(\d+)$", "\n".join(pins), re.MULTILINE):
            numbers.setdefault(f"map-{kept}-", "map-KEPT-")
        for pin in pins:
            top, _, rest = pin.replace(own, "OWN").partition("dispatch")
            rest = re.sub(r"^-\d+-\d+", lambda name: numbers.get(name[0], name[0]), rest)
            top = re.sub(r"(map|counter)-\d+-", lambda name: numbers.get(name[0], name[0]), top)
            top = re.sub(rf"(rules|label)-{root}\b", r"\1-LIVE", top)
            top = re.sub(r"(kept-\d+)-\d+", r"\1-KEPT", top)
            found.add(f"{top}{'dispatch' if rest else ''}{rest}")
        return found

    def _counts(self) -> Counter[str]:
        now = oracle.snapshot(self.tool.bpffs)
        counts = Counter(
            programs=len(now.progs),
            links=len(now.links),
            maps=len(now.maps),
            btf=oracle.count_btf(now),
            pins=len(now.pins),
        )
        counts.subtract(self.base)
        return counts

    # --- disturbed ------------------------------------------------------------------------------

    def outcome(self, case: Case) -> Outcome:
        """Which chain runs, by the oracle: program ids and names, and whether the root is new.

        What is left of a command that was `cut` may go bit by bit, and nothing else changes.
        """
        self.now = now = self._running()
        old, ids, waiting = self.before
        if now == self.before:
            return "after" if case.cut else "before"
        wanted = [
            ids[one] if isinstance(one, int) else one.format_map(self.names) for one in case.after
        ]
        found = [number if number in ids else oracle.prog(number).name for number in now.chain]
        changed = now.root != old or (waiting and not now.waiting)
        return "after" if changed and found == wanted and not case.cut else "wrong"

    def left(self, case: Case, outcome: Outcome, where: str) -> set[str]:
        """The pins left over; status has to tell of some if there are any, and of none if not."""
        wanted = self.clean(case).pins[outcome]
        there = self._pins()
        missing = wanted - there
        if BACK in there:
            missing -= {"xdp/OWN/went-1"}
        if missing:
            self.complain(case, where, f"pins are missing: {sorted(missing)}")
        left, residue = there - wanted, self.tool.status(self.veth.dev)["residue"]
        if left != EMPTY and bool(left) != bool(residue):
            self.complain(case, where, f"left {sorted(left)}, status tells {residue}")
        return left

    def complain(self, case: Case, where: str, what: str) -> None:
        print(f"{case.name}: {where}: {what}")
        self.complaints.append(f"{case.name}: {where}: {what}")

    def judge_death(self, case: Case, where: str) -> Counter[str]:
        """Examine what a killed command left, then let the next one clean up."""
        clean = self.clean(case)
        outcome = self.outcome(case)
        if outcome == "wrong":
            self.complain(case, where, f"runs {self.now}, before {self.before}")
            self.prepare(case)
            return Counter(wrong=1)
        left = self.left(case, outcome, where)
        before = self._counted(case)
        if net.seqs(net.exchange(self.veth, FRAMES)) != list(range(len(FRAMES))):
            self.complain(case, where, "packets got lost")
        for number, seen in before.items():
            wanted = seen + len(FRAMES)
            if oracle.settle_counter(oracle.prog_map(number), wanted) != wanted:
                self.complain(case, where, f"packets missed program {number}")
        said = self.next()
        told = "removed what was left over" in said
        if left != EMPTY and told != bool(left):
            self.complain(case, where, f"left {sorted(left)}, the next command said {said!r}")
        end = time.monotonic() + 20
        while (more := self._difference(clean.counts[outcome])) and time.monotonic() < end:
            time.sleep(0.02)
        if more:
            self.complain(case, where, f"{outcome}, and after the next command too many: {more}")
        if outcome == "before" and case.before and not case.first:
            self.look()
        else:
            self.prepare(case)
        return Counter({outcome: 1, "residue": int(bool(left)), "leaked": int(bool(more))})

    def _difference(self, wanted: Counter[str]) -> dict[str, int]:
        now = self._counts()
        return {kind: now[kind] - wanted[kind] for kind in now if now[kind] != wanted[kind]}

    def _counted(self, case: Case) -> dict[int, int]:
        """What the members that stay have counted, by program id."""
        staying = [self.before.chain[one] for one in case.after if isinstance(one, int)]
        named = {number: oracle.prog(number).name for number in staying}
        return {one: oracle.packets(one) for one, name in named.items() if name in COUNTING}

    def judge_end(
        self, case: Case, where: str, code: int, codes: Iterable[int], *, refused: bool = False
    ) -> Outcome:
        """A command that ended by itself has done all and says so, or nothing; nothing is left.

        Where the kernel has refused something to it, that may have been the clean-up at its end.
        A command that is nothing but that says so where it leaves some.
        """
        outcome = self.outcome(case)
        expected = {0, *(codes if case.cut else ())} if outcome == "after" else {*codes}
        if outcome == "wrong" or code not in expected:
            runs = f": {self.now}, before {self.before}" if outcome == "wrong" else ""
            self.complain(case, where, f"exit code {code}, and the chain is {outcome}{runs}")
        left = outcome != "wrong" and self.left(case, outcome, where)
        if left and not (refused and outcome == "after") and not (case.cut and code):
            self.complain(case, where, f"exit code {code}, {outcome}, and left {sorted(left)}")
        if outcome != "before" or left or case.first:
            self.prepare(case)
        return outcome
