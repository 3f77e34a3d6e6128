"""A change that is not confirmed goes back, whatever becomes of the command that made it.

Who goes back, and when, is the same for both kinds of root: that is tested with one kind. What
comes back is not.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pty
import random
import re
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import crash, net, oracle
from tests.kernel.conftest import Objects, kinds, needs, one_guest
from tests.kernel.test_packets import Traffic, often
from tests.kernel.tool import Tool
from xdpctl import attach
from xdpctl.change.watchdog import NAME
from xdpctl.cli.run import run
from xdpctl.model.chain import XDP_DROP, Rules, parse_actions

pytestmark = one_guest

FRAMES = net.udps(20)
RULES = Rules(on_vacant=XDP_DROP)
_ON, _PASS, _DROP = parse_actions("pass,tx"), parse_actions("pass"), parse_actions("drop")
SHAPES = [
    *((masks, RULES) for masks in ((_ON,), (_ON, _PASS), (_ON, _PASS, _PASS))),
    *((masks, RULES) for masks in ((_PASS, _ON, _PASS), (_PASS, _ON, _PASS, _PASS))),
    *(
        (masks, RULES._replace(on_end=XDP_DROP))
        for masks in ((_PASS, _DROP), (_PASS, _DROP, _PASS))
    ),
]
"""The dispatchers that are needed here and nowhere else."""
SLACK = 15
"""Seconds that an emulated machine may take for what a command does."""


@pytest.fixture
def chain(tool: Tool, veth: net.Veth, objects: Objects) -> list[int]:
    """A chain of two, with all that can be said of them; their ids."""
    tool("load", veth.dev, objects["count"], objects["pass"])
    what = ("--name", "first", "--before", "pass", "-P", 70, "-A", "pass,tx")
    tool("set", veth.dev, "count", *what, "--on-vacant", "drop")
    return tool.chain(veth.ifindex)


def facts(tool: Tool, dev: str) -> Any:
    """All that status says of a chain, but for what is new in each root."""
    status = tool.status(dev)
    changing = {"link_id", "pin", "array_id", "function"}
    root = status["root"] and {one: status["root"][one] for one in ("mode", "kind", "on_vacant")}
    programs = [
        {key: value for key, value in one.items() if key not in changing}
        for one in status["programs"]
    ]
    return root, programs, status["residue"], status["unconfirmed"]


def watchdogs(space: object = "self") -> list[int]:
    """The watchdogs that run in the network namespace of a process, by default of this one."""
    found, wanted = [], os.readlink(f"/proc/{space}/ns/net")
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                _pid, name, state = re.split(
                    r"[()] ?", Path(f"/proc/{entry}/stat").read_text(), maxsplit=2
                )
                ours = name == NAME and not state.startswith("Z")
                if ours and os.readlink(f"/proc/{entry}/ns/net") == wanted:
                    found.append(int(entry))
    return found


def alive(process: int) -> bool:
    with contextlib.suppress(OSError):
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    return False


def until(condition: Callable[[], object], seconds: float = SLACK) -> float:
    """Wait for something; how long that took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, "it did not come in time"
        time.sleep(0.02)
    return time.monotonic() - begin


def passed(veth: net.Veth) -> int:
    return len(net.exchange(veth, FRAMES))


class Session:
    """A command on a terminal of its own, as in an SSH session."""

    def __init__(self, *words: object) -> None:
        self.pid, self.terminal = pty.fork()
        if not self.pid:
            code = 70
            try:
                gc.freeze()
                sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
                sys.stderr = sys.stdout
                for number in crash.ENDING:
                    signal.signal(number, signal.SIG_DFL)
                code = run([str(word) for word in words])
                sys.stdout.flush()
            finally:
                os._exit(code)
        self.said = ""

    def hear(self, text: str) -> None:
        """Read on until it says something."""
        end = time.monotonic() + SLACK
        while text not in self.said:
            assert time.monotonic() < end, self.said
            if select.select([self.terminal], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    self.said += os.read(self.terminal, 4096).decode()

    def end(self) -> int:
        """How it ended: its exit code, below 0 the signal that killed it."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        with contextlib.suppress(OSError):
            while more := os.read(self.terminal, 65536).decode():
                self.said += more
        with contextlib.suppress(OSError):
            os.close(self.terminal)
        return code

    def kill_all(self) -> None:
        """SIGKILL for every process of the session."""
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                    if int(fields[3]) == self.pid:
                        os.kill(int(entry), signal.SIGKILL)


def kill(session: Session) -> None:
    os.kill(session.pid, signal.SIGKILL)


def hang_up(session: Session) -> None:
    os.close(session.terminal)


def terminate(session: Session) -> None:
    os.kill(session.pid, signal.SIGTERM)


def kill_session(session: Session) -> None:
    session.kill_all()


def kill_watchdog(session: Session) -> None:
    for number in watchdogs():
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    kill(session)


WAYS: list[tuple[Callable[[Session], None], int | None]] = [
    (kill, -signal.SIGKILL),
    (hang_up, None),  # nobody can hear the rest
    (terminate, 128 + signal.SIGTERM),
    (kill_session, -signal.SIGKILL),
    (kill_watchdog, -signal.SIGKILL),
]
TIME = 6.0
"""Seconds; long enough for packets on a slow machine."""


@pytest.mark.parametrize(
    "rounds",
    [pytest.param(5, marks=kinds("fused")), pytest.param(50, marks=pytest.mark.soak)],
)
def test_a_session_that_ends(
    tool: Tool, veth: net.Veth, objects: Objects, chain: list[int], rounds: int
) -> None:
    """A chain that drops everything, and a session that is killed in five ways.

    The old chain is back in time, every round; what was confirmed before the end stays. Where the
    watchdog itself is killed, it is the next command that goes back.
    """
    before, choice = facts(tool, veth.dev), random.Random(rounds)
    worst = counted = 0.0
    for turn in range(rounds + rounds // 5):
        confirmed = turn % 6 == 5
        way, ended = WAYS[turn % 6 % len(WAYS)]
        # In other rounds the watchdog, which has to be there still, is asked to go back at once.
        waits = rounds > 5 or (way in (kill, kill_watchdog) and not confirmed)
        within = TIME if waits else 600
        words = ("load", veth.dev, objects["drop"], "-P", 90, "--confirm-within", within)
        session = Session(*words)
        session.hear("press Enter")
        begin = time.monotonic()
        assert tool.chain(veth.ifindex)[:2] == chain
        assert passed(veth) == 0
        counted += len(FRAMES)
        if confirmed:
            tool("confirm", veth.dev)
            session.hear("confirmed")
            assert session.end() == 0
            until(lambda: not watchdogs())
            time.sleep(TIME if waits else 0)
            assert passed(veth) == 0
            counted += len(FRAMES)
            tool("unload", veth.dev, "-n", "drop")
        else:
            time.sleep(choice.uniform(0, TIME / 8))
            way(session)
            assert ended in (None, session.end()), session.said
            if way is kill_watchdog:
                time.sleep(max(0.0, TIME - (time.monotonic() - begin)))
                nexts = ("clean", "confirm", "swap-dispatcher")
                tool.try_(nexts[turn // 6 % 3], veth.dev)
                assert tool.chain(veth.ifindex) == chain
            elif not waits:
                (number,) = watchdogs()
                os.kill(number, signal.SIGTERM)
            until(lambda: tool.chain(veth.ifindex) == chain, TIME + SLACK)
            worst = max(worst, time.monotonic() - begin - within)
            until(lambda: not watchdogs())
            late = tool.try_("confirm", veth.dev)
            why = "not confirmed in time" if waits else "was told to end"
            assert late.code == 3
            assert re.search(f"load, went back at [0-9:]+: .*{why}.*removed drop", late.err)
        until(lambda: not watchdogs())
        assert facts(tool, veth.dev) == before
        assert passed(veth) == len(FRAMES)
        counted += len(FRAMES)
    assert oracle.packets(chain[0]) == counted
    print(f"{rounds} rounds, {counted:.0f} packets; back {worst:.2f} s after its time at most")


@often(2, 50)
def test_who_stays_misses_nothing(
    tool: Tool, veth: net.Veth, objects: Objects, chain: list[int], swaps: int
) -> None:
    """Not a packet, as the watchdog goes back, nor as a rollback does."""
    with Traffic(veth, chain[:1]) as traffic:
        for _ in range(swaps):
            tool("load", veth.dev, objects["drop"], "-P", 90, "--confirm-within", "0.3")
            until(lambda: not watchdogs())
            assert tool.chain(veth.ifindex) == chain
            tool("replace", veth.dev, "pass", objects["drop"])
            tool("rollback", veth.dev)
            assert tool.chain(veth.ifindex) == chain
        assert traffic.missed(4 * swaps, "there and back") == [0]
    assert traffic.sent > 10 * swaps


@kinds("fused")
def test_on_a_terminal(tool: Tool, veth: net.Veth, objects: Objects, chain: list[int]) -> None:
    """Enter confirms, Ctrl-C goes back at once, and a time that ends is told."""
    load = ("load", veth.dev, objects["drop"], "-P", 90, "--confirm-within")
    session = Session(*load, "5m")
    session.hear("unless confirmed: press Enter to keep it")
    assert re.search(r"goes back in (29\d|300) s unless", session.said)
    os.write(session.terminal, b"\n")
    assert session.end() == 0
    assert "drop (id" not in facts(tool, veth.dev)
    assert "confirmed" in session.said
    until(lambda: not watchdogs())
    assert passed(veth) == 0
    tool("unload", veth.dev, "-n", "drop")
    session = Session(*load, "5m")
    session.hear("press Enter")
    os.write(session.terminal, b"\x03")
    assert session.end() == 128 + signal.SIGINT
    assert f"{veth.dev}: went back" in session.said
    assert tool.chain(veth.ifindex) == chain
    session = Session(*load, "0.5")
    session.hear("press Enter")
    assert session.end() == 15
    assert f"not confirmed in time: {veth.dev}" in session.said
    assert tool.chain(veth.ifindex) == chain
    assert passed(veth) == len(FRAMES)
    until(lambda: not watchdogs())


def test_every_command_goes_back(
    tool: Tool, veth: net.Veth, objects: Objects, chain: list[int]
) -> None:
    """To the same programs in the same order, with all that was said of them; maps go on."""
    tailed = not tool.try_("load", veth.dev, objects["tailcall"], "-n", "tailcall", "-P", 99).code
    ids, before = tool.chain(veth.ifindex), facts(tool, veth.dev)
    counted = len(FRAMES) * bool(passed(veth))
    other = ("--anywhere", "-P", 99, "-A", "drop", "--name", "other", "--on-end", "drop")
    for words in (
        ("load", veth.dev, objects["drop"], "-P", 1),
        ("unload", veth.dev, "--all"),
        ("replace", veth.dev, "first", objects["drop"]),
        ("set", veth.dev, "first", *other),
    ):
        answer = tool(*words, "--confirm-within", "10m", "--json").json
        told = answer["unconfirmed"]
        assert 590 < told["seconds_left"] <= 600
        assert watchdogs() == [told["watchdog"]]
        assert tool.status(veth.dev)["unconfirmed"]["generation"] == told["generation"]
        assert "unconfirmed: goes back to generation" in tool("status", veth.dev).err
        passed(veth)
        counted += len(FRAMES) if "set" in words else 0
        # What ends a session is nothing to it. Asked to end, it does its work at once.
        os.kill(told["watchdog"], signal.SIGHUP)
        os.kill(told["watchdog"], signal.SIGINT)
        os.kill(told["watchdog"], signal.SIGTERM)
        until(lambda: not watchdogs())
        assert tool.chain(veth.ifindex) == ids, words
        assert facts(tool, veth.dev) == before, words
        assert passed(veth) == len(FRAMES), words
        counted += len(FRAMES)
        assert [pin for pin in tool.pins() if "/kept-" in pin] == []
        new = {one["id"] for one in answer["programs"]}.difference(ids)
        while new.intersection(oracle.prog_ids()):
            time.sleep(0.02)
    assert oracle.packets(ids[0]) == counted
    assert tailed or tool.kind == "ext"
    # The first load of all: what comes back is nothing.
    tool("unload", veth.dev, "--all")
    assert tool.pins() == []
    tool("load", veth.dev, objects["drop"], "--confirm-within", "0.3s")
    until(lambda: tool.chain(veth.ifindex) == [] and tool.pins() == [] and not watchdogs())


@kinds("fused")
def test_while_one_waits(tool: Tool, veth: net.Veth, objects: Objects, chain: list[int]) -> None:
    """Others are refused, with both ways out; what was confirmed or nothing keeps no process."""
    before = facts(tool, veth.dev)
    count = str(objects["count"])
    assert tool.try_("load", veth.dev, count, "--confirm-within=").code == 2
    assert tool.try_("confirm", veth.dev).code == 3
    assert tool.try_("confirm", "xt*").code == 3
    assert tool.try_("rollback", veth.dev, "--to", 77).code == 3
    assert tool.try_("load", veth.dev, objects["refuse"], "--confirm-within", 60).code
    tool("load", veth.dev, count, "--confirm-within", 60, "--dry-run")
    until(lambda: not watchdogs())
    assert facts(tool, veth.dev) == before
    tool("load", veth.dev, objects["drop"], "--confirm-within", "60s")
    others: list[tuple[str, ...]] = [
        ("load", veth.dev, count),
        ("load", veth.dev, count, "--confirm-within", "60", "--dry-run"),
        ("unload", veth.dev, "--all"),
        ("swap-dispatcher", veth.dev),
    ]
    for words in others:
        refused = tool.try_(*words, "--json")
        assert refused.code == 15
        assert refused.json["error"]["error"] == "UnconfirmedError"
        assert f"xdpctl confirm {veth.dev} keeps it" in refused.err
        number = tool.status(veth.dev)["unconfirmed"]["generation"]
        assert f"xdpctl rollback {veth.dev} --to {number} takes it back now" in refused.err
    assert tool("confirm", veth.dev, "--dry-run").out.startswith(f"{veth.dev}: would be confirmed")
    assert len(watchdogs()) == 1
    assert tool("rollback", veth.dev).out.startswith(f"{veth.dev}: unloaded drop")
    until(lambda: not watchdogs())
    assert facts(tool, veth.dev) == before
    tool("load", veth.dev, objects["drop"], "--confirm-within", "60s")
    assert tool("confirm", "xt*", "--json").json["interfaces"][0]["interface"] == veth.dev
    until(lambda: not watchdogs())
    tool("swap-dispatcher", veth.dev)


def test_rollback_and_history(
    tool: Tool, veth: net.Veth, objects: Objects, chain: list[int]
) -> None:
    """Generation after generation, as far as the programs are kept."""
    before = facts(tool, veth.dev)

    def past() -> list[dict[str, Any]]:
        (told,) = tool("history", veth.dev, "--json").json["interfaces"]
        generations: list[dict[str, Any]] = told["generations"]
        return generations

    assert [one["replaced_by"] for one in past()] == ["set", "load"]
    tool("replace", veth.dev, "first", objects["drop"])
    assert passed(veth) == 0
    assert [one["gone"] for one in past()[0]["programs"]] == [False, False]
    assert past()[0]["changes"] == ["replaced first"]
    tool("rollback", veth.dev)
    (told,) = tool("history", veth.dev, "--json").json["interfaces"]
    assert [(one["reason"], one["command"]) for one in told["went_back"]] == [
        ("taken back", "replace")
    ]
    assert (facts(tool, veth.dev), passed(veth)) == (before, len(FRAMES))
    # The replaced program is kept until the next change alone.
    tool("replace", veth.dev, "first", objects["drop"])
    tool("set", veth.dev, "pass", "-P", 3)
    until(lambda: chain[0] not in oracle.prog_ids())
    assert [one["gone"] for one in past()[1]["programs"]] == [True, False]
    refused = tool.try_("rollback", veth.dev, "--to", past()[1]["generation"])
    assert refused.code == 3
    assert f"first (id {chain[0]}) left the kernel" in refused.err
    tool("rollback", veth.dev)
    assert [one["priority"] for one in tool.status(veth.dev)["programs"]] == [70, 50]
    # Unloaded and gone, or kept.
    tool("unload", veth.dev, "-n", "pass")
    until(lambda: chain[1] not in oracle.prog_ids())
    assert tool.try_("rollback", veth.dev).code == 3
    ids = tool.chain(veth.ifindex)
    tool("unload", veth.dev, "--all", "--keep")
    assert (tool.chain(veth.ifindex), tool.status(veth.dev)["residue"]) == ([], [])
    assert tool("rollback", veth.dev, "--dry-run").out.startswith(f"{veth.dev}: would attach")
    assert f"brought back first (id {ids[0]})" in tool("rollback", veth.dev).out
    assert tool.chain(veth.ifindex) == ids
    # No more than eight are remembered, and none of a chain that is gone.
    for priority in range(12):
        tool("set", veth.dev, "first", "-P", priority)
    assert len(past()) == 8
    tool("rollback", veth.dev, "--to", past()[-1]["generation"])
    assert past() == []
    assert tool.try_("rollback", veth.dev).code == 3
    tool("unload", veth.dev, "--all", "--keep")
    tool("load", veth.dev, objects["count"])
    until(lambda: ids[0] not in oracle.prog_ids())
    tool("unload", veth.dev, "--all")
    assert tool.pins() == []


@needs("link_target")
def test_what_a_process_holds(
    tool: Tool, veth: net.Veth, objects: Objects, chain: list[int]
) -> None:
    """It stays its own in going back; what its process let go of meanwhile does not come back."""
    held = attach(objects["ret"], veth.dev, program="ret_2", priority=9, bpffs=str(tool.bpffs))
    with held:
        held.follow()
        ids = tool.chain(veth.ifindex)
        assert ids == [held.program_id, *chain]
        tool("set", veth.dev, str(held.program_id), "-P", 99, "--confirm-within", 60)
        held.follow()
        assert tool.chain(veth.ifindex) == [*chain, held.program_id]
        tool("rollback", veth.dev)
        held.follow()
        assert held.attached
        assert tool.chain(veth.ifindex) == ids
        (status,) = (
            one for one in tool.status(veth.dev)["programs"] if one["id"] == held.program_id
        )
        assert (status["pin"], status["borrowed"]) == (None, None)
        tool("unload", veth.dev, "-i", held.program_id, "--confirm-within", 60)
        until(lambda: not held.attached)
    until(lambda: held.program_id not in oracle.prog_ids())
    said = tool("rollback", veth.dev).out
    assert f"ret_2 (id {held.program_id}) is gone and does not come back" in said
    assert tool.chain(veth.ifindex) == chain
    assert passed(veth) == len(FRAMES)
    until(lambda: not watchdogs())


@pytest.mark.parametrize(
    "rounds",
    [pytest.param(4, marks=kinds("fused")), pytest.param(60, marks=pytest.mark.soak)],
)
def test_killed_at_a_system_call(
    tool: Tool, veth: net.Veth, objects: Objects, chain: list[int], rounds: int
) -> None:
    """Wherever the command is killed, and wherever its watchdog is, the old chain is back."""
    before = facts(tool, veth.dev)
    words = ("load", veth.dev, objects["drop"], "-P", 90, "--confirm-within", "0.4", "-q")
    action = lambda: run([str(word) for word in words])  # noqa: E731
    total = len(crash.boundaries(action))
    tool("swap-dispatcher", veth.dev)
    for turn in range(rounds):
        with crash.Stepped(action) as child:
            child.run_to(total * (2 * turn + 1) // (2 * rounds))
            where = child.where
        # Its watchdog has ended by now: it ends with a command that did not come to its flip.
        assert watchdogs() == []
        assert tool.chain(veth.ifindex) == chain, where
        tool("swap-dispatcher", veth.dev)
        assert facts(tool, veth.dev) == before, where
        assert passed(veth) == len(FRAMES)
    choice = random.Random(rounds)
    ends = []
    for _turn in range(rounds):
        tool(*words)
        begin = time.monotonic()
        numbers = watchdogs()  # none, where that machine took so long
        time.sleep(choice.uniform(0.2, 0.8))
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        ends.append(time.monotonic() - begin)
        until(lambda: not watchdogs())
        time.sleep(0.4)
        tool("swap-dispatcher", veth.dev)
        assert tool.chain(veth.ifindex) == chain, ends[-1]
        assert facts(tool, veth.dev) == before, ends[-1]
    assert passed(veth) == len(FRAMES)


@pytest.mark.parametrize(
    "rounds",
    [pytest.param(1, marks=kinds("fused")), pytest.param(20, marks=pytest.mark.soak)],
)
def test_races(
    tool: Tool, veth: net.Veth, objects: Objects, chain: list[int], tmp_path: Path, rounds: int
) -> None:
    """At the end of the time the watchdog, confirmations and other changes come together.

    Each finds the change confirmed, or takes part in going back before anything else.
    """
    for turn in range(rounds):
        load = ("load", veth.dev, objects["drop"], "-P", 90, "--confirm-within", "0.6")
        told = tool(*load, "--json").json
        (drop,) = {one["id"] for one in told["programs"]}.difference(chain)
        number = told["unconfirmed"]["generation"]
        codes = tmp_path / f"codes{turn}"

        def late(*words: object, name: str, path: Path = codes) -> Callable[[], int]:
            def work() -> int:
                time.sleep(0.55)
                code = run([str(word) for word in words])
                with path.open("a") as file:
                    file.write(f"{name} {code}\n")
                return 0

            return work

        with crash.workers(
            tmp_path,
            late("confirm", veth.dev, name="confirm"),
            late("swap-dispatcher", veth.dev, name="swap"),
            late("set", veth.dev, "pass", "-P", 60 + turn, name="set"),
            late("rollback", veth.dev, "--to", number, name="rollback"),
        ):
            pass
        ended = dict(line.split() for line in codes.read_text().splitlines())
        stays = drop in tool.chain(veth.ifindex)
        assert set(tool.chain(veth.ifindex)) - {drop} == set(chain)
        assert ended["confirm"] in ({"0"} if stays else {"0", "3", "15"})
        assert ended["swap"] in {"0", "15"}
        assert ended["set"] in {"0", "15"}
        assert ended["rollback"] in {"0", "3"}
        until(lambda: not watchdogs())
        status = tool.status(veth.dev)
        assert (status["residue"], status["unconfirmed"]) == ([], None)
        if stays:
            tool("unload", veth.dev, "-i", drop)


def test_in_another_namespace(tool: Tool, objects: Objects) -> None:
    """The watchdog stays in the command's namespace, and goes after a device that leaves it."""
    with net.NetNs() as space, net.NetNs() as other:
        net.ip("link", "add", "xtc0", "type", "veth", "peer", "name", "xtc1", netns=space.name)
        load = ("load", "xtc0", "-m", "skb", "--netns", space.name)
        tool(*load, objects["count"])
        said = tool(*load, objects["drop"], "--confirm-within", "5m").out
        assert f"xdpctl confirm --netns {space.name} xtc0" in said
        told = json.loads(tool("status", "xtc0", "--netns", space.name, "--json").out)
        number = told["interfaces"][0]["unconfirmed"]["watchdog"]
        assert os.stat(f"/proc/{number}/ns/net").st_ino == space.path.stat().st_ino
        for descriptor in os.listdir(f"/proc/{number}/fd"):
            with contextlib.suppress(OSError):
                to = os.readlink(f"/proc/{number}/fd/{descriptor}")
                assert to == "/dev/null" or "inotify" in to or "xdpctl-" in to or "socket" in to
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        assert int(fields[3]) not in (os.getsid(0), os.getpid())
        assert fields[4] == "0"  # no terminal
        if not oracle.lacks("all_namespaces"):
            net.ip("link", "set", "xtc0", "netns", other.name, netns=space.name)
            space = other
        os.kill(number, signal.SIGTERM)  # it does its work at once
        until(lambda: not alive(number))
        status = json.loads(tool("status", "xtc0", "--netns", space.name, "--json").out)
        assert [one["name"] for one in status["interfaces"][0]["programs"]] == ["count"]
        net.ip("link", "del", "xtc0", netns=space.name)
    tool("clean")
