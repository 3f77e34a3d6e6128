"""A command that is killed, interrupted or refused anywhere leaves the chain of before or of after.

Nothing is left over that status does not tell and the next command does not remove, and a command
that ends by itself, whatever signal or error ended it, leaves nothing over at all.
"""

from __future__ import annotations

import errno
import math
import random
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.kernel import crash, net, oracle, turns
from tests.kernel.conftest import Objects, one_guest
from tests.kernel.desk import CASES, COMMANDS, MORE_CASES, MORE_COMMANDS, Case, Desk
from tests.kernel.tool import Tool

pytestmark = one_guest


@pytest.fixture
def desk(tool: Tool, veth: net.Veth, objects: Objects) -> Iterator[Desk]:
    desk = Desk(tool, veth, objects)
    yield desk
    desk.confirm()


# In a guest of `make test` one case in four has its turn in each sweep. The machine's own kernel
# does all of them every time, `make test-matrix` on each kernel, and soak at all points.


def chosen(desk: Desk, cases: list[Case], sweep: int) -> list[Case]:
    """The cases of a sweep whose turn it is; on fused roots the test itself has one in eight."""
    found = turns.part(cases, desk.tool.kind, sweep)
    print(f"turn {turns.TURN}: {', '.join(case.name for case in found)}")
    return found


def spread(total: int, count: int | None) -> list[int]:
    """So many of the numbers from 1 to `total`, far from each other; all if no count is given.

    Which ones changes by the turn.
    """
    if count is None:
        return [*range(1, total + 1)]
    parts = turns.PHASES * count
    first = turns.phase() + 1
    found = {math.ceil(total * (turns.PHASES * i + first) / parts) for i in range(count)}
    return sorted(found - {0})


def some_or_all(count: int) -> pytest.MarkDecorator:
    """So many points of some cases in one test, or in soak each point of one case after another."""
    some = pytest.param(CASES, count, id="some")
    soak = pytest.mark.soak
    alone = [pytest.param([case], None, id=case.name, marks=soak) for case in MORE_CASES]
    return pytest.mark.parametrize(("cases", "count"), [some, *alone])


@some_or_all(2)
def test_killed_at_a_system_call(desk: Desk, cases: list[Case], count: int | None) -> None:
    """SIGKILL before and after a command's system calls."""
    for case in chosen(desk, cases, 0):
        kill(desk, case, count)
    assert desk.complaints == []


def kill(desk: Desk, case: Case, count: int | None) -> None:
    calls = desk.clean(case).boundaries
    # Killed at a call that only reads, it leaves what it would leave at the one before.
    places = [point for point, (call, _) in enumerate(calls, 1) if call not in crash.READS]
    desk.prepare(case)
    sums = Counter[str]()
    points = [places[one - 1] for one in spread(len(places), count)]
    for point in points:
        with crash.Stepped(desk.action(case)) as child:
            where = child.where if child.run_to(point) else f"ended before boundary {point}"
        sums += desk.judge_death(case, where)
    told = ", ".join(
        f"{one} {sums[one]}" for one in ("before", "after", "residue", "wrong", "leaked")
    )
    print(f"{case.name}: {len(calls)} boundaries, killed at {len(points)}: {told}")


@pytest.mark.parametrize("count", [10, pytest.param(1000, marks=pytest.mark.soak)])
def test_killed_at_random(desk: Desk, count: int) -> None:
    """SIGKILL at any instant of any command."""
    choice = random.Random(count)
    sums = Counter[str]()
    for _ in range(count):
        case = choice.choice(CASES if count < 1000 else MORE_CASES)
        seconds = choice.uniform(0, desk.clean(case).seconds)
        desk.prepare(case)
        sums["alive"] += crash.killed_after(desk.action(case), seconds)
        sums += desk.judge_death(case, f"killed after {seconds:.4f} s")
    print(f"{count} kills at random: {dict(sums)}")
    assert desk.complaints == []


Kind = tuple[str, int, int, bool]
KINDS: list[Kind] = [
    ("HUP", signal.SIGHUP, 0, False),
    ("TERM", signal.SIGTERM, 0, False),
    ("INT", signal.SIGINT, 0, False),
    ("two at once", signal.SIGTERM, signal.SIGINT, False),
    ("INT, and again", signal.SIGINT, signal.SIGINT, True),
]


@pytest.mark.parametrize(
    ("cases", "count", "kinds"),
    [
        pytest.param(COMMANDS, 2, KINDS, id="some"),
        *(
            pytest.param([case], None, kinds, id=f"{case.name}, {name}", marks=pytest.mark.soak)
            for case in MORE_COMMANDS
            for name, kinds in (("one", KINDS[:3]), ("two", KINDS[3:4]), ("again", KINDS[4:]))
        ),
    ],
)
def test_signals_at_a_system_call(
    desk: Desk, cases: list[Case], count: int | None, kinds: list[Kind]
) -> None:
    """The signals that end a command, also a second one on the heels of the first.

    Either nothing has happened and the exit code is 128 and the signal, or everything and it is 0.
    """
    for number, case in enumerate(chosen(desk, cases, 1)):
        interrupt(desk, case, count, kinds[number % len(kinds) :] + kinds)
    assert desk.complaints == []


def interrupt(desk: Desk, case: Case, count: int | None, kinds: list[Kind]) -> None:
    total = len(desk.clean(case).boundaries)
    desk.prepare(case)
    choice = random.Random(total)
    sums = Counter[str]()
    points = spread(total, count)
    for turn, point in enumerate(points):
        name, first, second, later = kinds[turn % len(kinds)]
        with crash.Stepped(desk.action(case)) as child:
            if reached := child.run_to(point):
                where = f"{name}, {child.where}"
                child.send(first)
                if later:
                    child.run_to(point + choice.randint(1, 12))
                    where += f", again at {child.where}"
                if second and child.code is None:
                    child.send(second)
                code = child.finish()
        if not reached:  # out of the block, which would wait for the watchdog of a confirmation
            desk.prepare(case)
            continue
        codes = {128 + first, 128 + second} if second else {128 + first}
        sums[desk.judge_end(case, where, code, codes)] += 1
    print(f"{case.name}: {total} boundaries, signals at {len(points)}: {dict(sums)}")


ERRORS = {
    "mkdir": errno.ENOSPC,
    "symlink": errno.ENOSPC,
    "rename": errno.ENOSPC,
    "bpf": errno.ENOMEM,
    "clone": errno.EAGAIN,
    "socketpair": errno.EMFILE,
    "flock": errno.ENOLCK,
}


@pytest.mark.skipif(not crash.CAN_FAIL, reason="missing: how this machine's registers are set")
# There are some 60 such calls in a case: in eight turns each has its own, but in a guest.
@some_or_all(8 if oracle.lacks("own_machine") else 2)
def test_a_system_call_fails(desk: Desk, cases: list[Case], count: int | None) -> None:
    """No space, memory, descriptors or processes at one call: nothing has changed, or all is done.

    Not every call matters: libbpf asks what the kernel can do and takes no for an answer.
    """
    for case in chosen(desk, cases, 2):
        refuse(desk, case, count)
    assert desk.complaints == []


def refuse(desk: Desk, case: Case, count: int | None) -> None:
    total = sum(before and call in ERRORS for call, before in desk.clean(case).boundaries)
    desk.prepare(case)
    sums = Counter[str]()
    points = spread(total, count)
    for point in points:
        with crash.Stepped(desk.action(case)) as child:
            if reached := child.run_to_call(ERRORS, point):
                where = f"{errno.errorcode[ERRORS[child.call]]}, {child.where}"
                child.fail(ERRORS[child.call])
                code = child.finish()
        if not reached:
            desk.prepare(case)
            continue
        sums[desk.judge_end(case, where, code, range(1, 71), refused=True)] += 1
    print(f"{case.name}: {total} calls that may fail, {len(points)} made to: {dict(sums)}")
