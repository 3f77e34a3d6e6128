"""Scripts that hold programs by the Python API come and go, in any order and by any end."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import xdpctl
from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, needs, one_guest
from tests.kernel.test_holders import gone, root_of, until
from tests.kernel.tool import Tool

pytestmark = [needs("link_target"), one_guest]
FRAMES = net.udps(10)
MOST = 4
ENDS = ("detach", "close", "end", "kill")


class Script:
    """A process of its own that attaches a program, forked for speed, and does one word then."""

    def __init__(self, path: Path, dev: str, priority: int) -> None:
        self.priority, self.prog_id = priority, 0
        self._words, theirs = socket.socketpair()
        self._words.settimeout(60)
        self._pid = os.fork()
        if not self._pid:
            status = 1
            try:
                # A descriptor that it inherits would keep links and programs alive.
                os.closerange(3, theirs.fileno())
                os.closerange(theirs.fileno() + 1, 1 << 16)
                _hold(theirs, path, dev, priority)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        theirs.close()

    def attached(self) -> None:
        """Wait until its program is in the chain."""
        self.prog_id = int(self._words.recv(64) or 0)
        assert self.prog_id, "a script failed"

    def leave(self, how: str) -> None:
        """Have its program leave in one of the ways of ENDS."""
        if how != "kill":
            self._words.sendall(how.encode())
            assert self._words.recv(64) == (b"" if how == "end" else b"done"), how
        self.kill()

    def kill(self) -> None:
        """SIGKILL, unless it has ended; returns when it is gone."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._words.close()
            self._pid = 0


def _hold(words: socket.socket, path: Path, dev: str, priority: int) -> None:
    attachment = xdpctl.attach(path, dev, priority=priority)
    words.sendall(str(attachment.program_id).encode())
    word = words.recv(64).decode()
    if word == "detach":
        attachment.detach()
    elif word == "close":
        os.close(attachment.fd)
    if word != "end":
        words.sendall(b"done")
        signal.pause()


class Crowd:
    """The scripts on an interface, beside one program that is loaded; what each has to have seen.

    Priorities are all different, so that there is one order.
    """

    def __init__(self, tool: Tool, veth: net.Veth, path: Path, random_: random.Random) -> None:
        self.tool, self.veth, self.path, self.random = tool, veth, path, random_
        self.scripts: list[Script] = []
        self.fixed: dict[int, int] = {}
        self.seen: dict[int, int] = {}

    def started(self, count: int) -> list[Script]:
        """Scripts that begin at the same time."""
        taken = {one.priority for one in self.scripts} | {*self.fixed.values()}
        free = [priority for priority in range(1, 100) if priority not in taken]
        chosen = self.random.sample(free, count)
        found = [Script(self.path, self.veth.dev, priority) for priority in chosen]
        self.scripts += found
        return found

    def start(self, count: int) -> None:
        for script in self.started(count):
            script.attached()

    def stop(self, how: str) -> None:
        """One of them leaves."""
        script = self.scripts.pop(self.random.randrange(len(self.scripts)))
        script.leave(how)
        self.seen.pop(script.prog_id, None)

    def kill_early(self, within: float) -> None:
        """One is killed while it attaches, or soon after; the next change clears up."""
        (script,) = self.started(1)
        time.sleep(self.random.uniform(0, within))
        script.kill()
        self.scripts.remove(script)
        self.tool("swap-dispatcher", self.veth.dev)

    def _programs(self) -> list[dict[str, Any]]:
        programs: list[dict[str, Any]] = self.tool.status(self.veth.dev)["programs"]
        return programs

    def check(self) -> None:
        """The chain is right, and each program in it sees every packet."""
        members = {one.prog_id: one.priority for one in self.scripts} | self.fixed
        order = sorted(members, key=lambda number: members[number])
        until(lambda: self.tool.chain(self.veth.ifindex) == order)
        # One that is killed before it has followed leaves its program until the next change.
        until(lambda: not any(one["borrowed"] for one in self._programs()))
        status = self.tool.status(self.veth.dev)
        found = [one["id"] for one in status["programs"] if not one["vacant"]]
        assert (found, status["residue"]) == (order, [])
        assert net.exchange(self.veth, FRAMES) == FRAMES
        for number in order:
            self.seen[number] = self.seen.get(number, 0) + len(FRAMES)
        assert {number: oracle.packets(number) for number in order} == self.seen


@pytest.fixture
def crowd(tool: Tool, veth: net.Veth, objects: Objects) -> Iterator[Crowd]:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    found = Crowd(tool, veth, objects["count"], random.Random(seed))
    yield found
    for script in found.scripts:
        with suppress(OSError):
            script.kill()


@pytest.mark.parametrize("count", [12, pytest.param(100, marks=pytest.mark.soak)])
def test_scripts_in_any_order(crowd: Crowd, count: int) -> None:
    """Each change leaves the chain that it should; in the end nothing is left."""
    tool, veth, done = crowd.tool, crowd.veth, dict[str, int]()
    tool("load", veth.dev, crowd.path, "-P", 50)
    (stays,) = tool.ids(veth.dev)
    crowd.fixed = {stays: 50}
    begun = time.monotonic()
    crowd.start(1)
    within = (time.monotonic() - begun) * 1.2
    crowd.check()
    for _ in range(count):
        words = ["start", "two at once", "killed early"] if len(crowd.scripts) < MOST - 1 else []
        words += ENDS if crowd.scripts else ()
        word = crowd.random.choice(words)
        done[word] = done.get(word, 0) + 1
        if word in ENDS:
            crowd.stop(word)
        elif word == "killed early":
            crowd.kill_early(within)
        else:
            crowd.start(2 if word == "two at once" else 1)
        crowd.check()
    print(f"{count} steps: {', '.join(f'{n} {word}' for word, n in sorted(done.items()))}")
    tool("unload", veth.dev, "-i", stays)
    gone(stays)


@pytest.mark.parametrize("how", ENDS)
def test_the_last_of_two_scripts(crowd: Crowd, how: str) -> None:
    """Two share an interface that nobody loaded anything on; with the last one all is gone."""
    tool, veth = crowd.tool, crowd.veth
    crowd.start(2)
    crowd.check()
    crowd.stop("kill")
    crowd.check()
    (last,) = [one.prog_id for one in crowd.scripts]
    crowd.stop(how)
    if how != "detach":  # the kernel takes the program out, and the root stays until a change
        until(lambda: tool.chain(veth.ifindex) == [])
        assert net.exchange(veth, FRAMES) == FRAMES
        tool("swap-dispatcher", veth.dev)
    assert (root_of(veth), tool.pins()) == (0, [])
    gone(last)
