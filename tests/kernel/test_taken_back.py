"""What goes back with a chain: the kind of its root, its protocol, and whether it is counted.

Who goes back, and when, is in test_confirm.py.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, needs, one_guest
from tests.kernel.test_confirm import FRAMES, facts, passed, until, watchdogs
from tests.kernel.tool import Tool
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change import transact
from xdpctl.host.interfaces import Interface
from xdpctl.model.chain import parse_actions
from xdpctl.model.state import State
from xdpctl.observe.reading import observe

pytestmark = one_guest

_ON, _PASS = parse_actions("pass,tx"), parse_actions("pass")
SHAPES = [(_PASS, _ON), (_ON, _PASS), (_PASS, _ON, _PASS)]
"""The dispatchers that are needed here and nowhere else."""
WITHIN = ("--confirm-within", "10m")


@pytest.fixture
def chain(tool: Tool, veth: net.Veth, objects: Objects) -> list[int]:
    """A chain of two; their ids."""
    tool("load", veth.dev, objects["count"], objects["pass"])
    tool("set", veth.dev, "count", "--name", "first", "-P", 70, "-A", "pass,tx")
    return tool.chain(veth.ifindex)


def go_back(tool: Tool, veth: net.Veth) -> None:
    """Let the watchdog do its work now."""
    os.kill(tool.status(veth.dev)["unconfirmed"]["watchdog"], signal.SIGTERM)
    until(lambda: not watchdogs())
    assert tool.status(veth.dev)["unconfirmed"] is None


@needs("ext")
def test_the_kind_of_the_root(
    tool: Tool, veth: net.Veth, objects: Objects, chain: list[int]
) -> None:
    """Programs that a dispatcher needed anew are the old ones again, with their maps."""
    before, counted = facts(tool, veth.dev), 0
    other = "ext" if tool.kind == "fused" else "fused"
    for words in (
        ("load", veth.dev, objects["drop"], "-P", 99),
        ("replace", veth.dev, "pass", objects["drop"]),
        ("set", veth.dev, "first", "-P", 9),
        ("swap-dispatcher", veth.dev),
    ):
        tool(*words, "--root", other, *WITHIN)
        assert tool.status(veth.dev)["root"]["kind"] == other
        passed(veth)
        go_back(tool, veth)
        assert tool.chain(veth.ifindex) == chain, words
        assert facts(tool, veth.dev) == before, words
        assert passed(veth) == len(FRAMES), words
        counted += len(FRAMES) * (1 if "replace" in words else 2)  # which drops before it
    assert oracle.packets(chain[1]) == counted
    tool("swap-dispatcher", veth.dev, "--root", other, *WITHIN)
    tool("confirm", veth.dev)
    assert tool.status(veth.dev)["root"]["kind"] == other
    until(lambda: not watchdogs())
    tool("unload", veth.dev, "--all")
    assert tool.pins() == []


@kinds("ext")
def test_the_protocol(tool: Tool, veth: net.Veth, chain: list[int]) -> None:
    before = facts(tool, veth.dev)
    assert tool.status(veth.dev)["root"]["protocol"] == 2
    tool("swap-dispatcher", veth.dev, "--protocol", 3, *WITHIN)
    assert tool.status(veth.dev)["root"]["protocol"] == 3
    go_back(tool, veth)
    assert tool.status(veth.dev)["root"]["protocol"] == 2
    assert facts(tool, veth.dev) == before
    assert tool.chain(veth.ifindex) == chain


def test_counting(tool: Tool, veth: net.Veth, chain: list[int]) -> None:
    """It goes back where it was what changed; a change of the chain leaves it as it is."""

    def counts() -> bool:
        return not tool.try_("stats", veth.dev, "--interval", 0).code

    before = facts(tool, veth.dev)
    assert tool.try_("stats", veth.dev, *WITHIN).code == 2
    tool("stats", veth.dev, "--on", *WITHIN)
    passed(veth)
    assert counts()
    go_back(tool, veth)
    assert (counts(), facts(tool, veth.dev)) == (False, before)
    tool("stats", veth.dev, "--on")
    tool("set", veth.dev, "first", "-P", 9, *WITHIN)
    go_back(tool, veth)
    assert (counts(), facts(tool, veth.dev)) == (True, before)
    tool("stats", veth.dev, "--off", *WITHIN)
    assert not counts()
    go_back(tool, veth)
    assert (counts(), facts(tool, veth.dev)) == (True, before)
    assert passed(veth) == len(FRAMES)


@kinds("fused")
def test_a_rollback(tool: Tool, veth: net.Veth, objects: Objects, chain: list[int]) -> None:
    """It is a change like any other; what it used up is there again."""

    def past() -> list[Any]:
        (told,) = tool("history", veth.dev, "--json").json["interfaces"]
        return [one["generation"] for one in told["generations"]]

    tool("replace", veth.dev, "pass", objects["drop"])
    after, known = facts(tool, veth.dev), past()
    assert passed(veth) == 0
    tool("rollback", veth.dev, *WITHIN)
    assert tool.try_("rollback", veth.dev, *WITHIN).code == 15
    assert passed(veth) == len(FRAMES)
    go_back(tool, veth)
    assert (facts(tool, veth.dev), past()) == (after, known)
    assert passed(veth) == 0
    tool("unload", veth.dev, "-n", "drop", "--keep")
    tool("rollback", veth.dev, *WITHIN)
    tool("confirm", veth.dev)
    assert passed(veth) == 0
    assert len(past()) == len(known) + 2
    until(lambda: not watchdogs())
    # What changes nothing waits as well, so that a script need not know.
    tool("set", veth.dev, "first", "-P", 70, *WITHIN)
    go_back(tool, veth)
    tool("unload", veth.dev, "--all")
    assert tool.pins() == []


@kinds("fused")
def test_confirmed_in_between(
    tool: Tool, veth: net.Veth, objects: Objects, chain: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A confirmation holds that comes after the watchdog has looked and before it has the lock."""
    tool("load", veth.dev, objects["drop"], "-P", 99, *WITHIN)
    bpffs, interface = Bpffs(str(tool.bpffs)), Interface.named(veth.dev)
    pending = observe(interface, bpffs).pending
    assert pending

    def confirmed(*words: Any, **options: Any) -> State:
        monkeypatch.setattr(transact, "observe", observe)
        state = observe(*words, **options)
        tool("confirm", veth.dev)
        return state

    monkeypatch.setattr(transact, "observe", confirmed)
    assert not transact.take_back(bpffs, interface, pending)
    assert len(tool.chain(veth.ifindex)) == 3
    assert passed(veth) == 0
    until(lambda: not watchdogs())


@pytest.mark.parametrize("attach", ["link", pytest.param("netlink", marks=kinds("ext"))])
def test_a_chain_that_another_program_takes_off(
    tool: Tool, veth: net.Veth, objects: Objects, attach: str
) -> None:
    """It is called that, and rollback puts it back: the same programs, maps and rules.

    A fused root over netlink is gone then: nothing holds it.
    """
    tool("load", veth.dev, objects["count"], objects["pass"], "--attach", attach)
    tool("set", veth.dev, "count", "--name", "first", "-P", 70, "-A", "pass,tx")
    tool("set", veth.dev, "--on-vacant", "drop")
    before, ids = facts(tool, veth.dev), tool.chain(veth.ifindex)
    assert passed(veth) == len(FRAMES)
    if attach == "link":
        link = oracle.link_fd(tool.status(veth.dev)["root"]["link_id"])
        oracle.link_detach(link)
        link.close()
    else:
        net.ip("link", "set", "dev", veth.dev, "xdp", "off")
    assert oracle.xdp_prog_id(veth.ifindex)[0] == 0
    told = tool.status(veth.dev)
    assert (told["root"], [one["id"] for one in told["off"]]) == (None, ids)
    said = tool("status", veth.dev).err
    assert "pass, first: off the hook; another program took its root off" in said
    assert f"xdpctl rollback {veth.dev}" in said
    assert "its root is off the hook" in tool("clean", veth.dev, "--dry-run").out
    tool("rollback", veth.dev, "--dry-run")
    tool("rollback", veth.dev)
    assert facts(tool, veth.dev) == before
    assert tool.status(veth.dev)["off"] is None
    assert passed(veth) == len(FRAMES)
    assert oracle.packets(ids[1]) == 2 * len(FRAMES)
    tool("unload", veth.dev, "--all")
