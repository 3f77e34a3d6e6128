"""Namespaces that share one bpffs, devices that move, and what is left of those that are gone."""

from __future__ import annotations

import itertools
import random
import time
from contextlib import ExitStack

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, needs, one_guest
from tests.kernel.tool import Tool

pytestmark = one_guest

FRAMES = net.udps(20)
ATTACH = pytest.mark.parametrize("attach", ["link", "netlink"])
# Without a link only a look into every namespace tells that a root is gone.
GONE = pytest.mark.parametrize(
    "attach", ["link", pytest.param("netlink", marks=needs("all_namespaces"))]
)


class Space:
    """A network namespace with a veth pair, whose end `x0` has the ifindex that is asked for."""

    def __init__(self, stack: ExitStack, ifindex: int = 77) -> None:
        self.ns = stack.enter_context(net.NetNs())
        with self.ns.entered():
            self.veth = net.Veth(name="x0", ifindex=ifindex)  # goes with its namespace

    def exchange(self) -> list[bytes]:
        with self.ns.entered():
            return net.exchange(self.veth, FRAMES)

    def root(self) -> int:
        with self.ns.entered():
            return oracle.xdp_prog_id(self.veth.ifindex)[0]

    def chain(self, tool: Tool) -> list[int]:
        with self.ns.entered():
            return tool.chain(self.veth.ifindex)


OPERATIONS = ("load", "swap-dispatcher", "clean", "unload")
"""What is done with each of two namespaces, one after the other."""
Order = tuple[int, ...]


def orders() -> list[Order]:
    """In whose turn it is: all ways to do the operations of both, each in its order."""
    count = len(OPERATIONS)
    firsts = itertools.combinations(range(2 * count), count)
    return [tuple(int(turn not in chosen) for turn in range(2 * count)) for chosen in firsts]


def one_of_each(found: list[Order]) -> list[Order]:
    """Who is loaded first is removed first, or last; what comes between is left to chance."""
    found = random.Random(4).sample(found, len(found))
    return list({order[0] == order[-1]: order for order in found}.values())


@ATTACH
@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(one_of_each(orders()), id="some"),
        pytest.param(orders(), id="all", marks=pytest.mark.soak),
    ],
)
def test_equal_numbers_in_two_namespaces(
    tool: Tool, objects: Objects, attach: str, chosen: list[Order]
) -> None:
    """Same ifindex, same name, one bpffs: neither touches the other, in any order."""
    files, passing = (objects["count"], objects["drop"]), (len(FRAMES), 0)
    with ExitStack() as stack:
        spaces = Space(stack), Space(stack)
        assert spaces[0].veth.ifindex == spaces[1].veth.ifindex
        for order in chosen:
            left = [iter(OPERATIONS), iter(OPERATIONS)]
            pins, chains = [set[str](), set[str]()], [list[int](), list[int]()]
            for turn in order:
                one, other, operation = spaces[turn], 1 - turn, next(left[turn])
                words = {
                    "load": ("load", "--attach", attach, "x0", files[turn]),
                    "clean": ("clean",),
                    "unload": ("unload", "--all", "x0"),
                }.get(operation, (operation, "x0"))
                said = tool("--netns", one.ns.name, *words).out
                now = set(tool.pins())
                assert pins[other] <= now, (order, operation)
                assert spaces[other].chain(tool) == chains[other], (order, operation)
                before, pins[turn] = pins[turn], now - pins[other] - {"xdp"}
                assert (pins[turn] == before) == (operation == "clean"), (order, operation, said)
                if operation == "load":
                    chains[turn] = one.chain(tool)
                elif operation == "unload":
                    chains[turn] = []
                elif operation == "swap-dispatcher":
                    assert len(one.exchange()) == passing[turn]
            assert tool.pins() == [], order
    print(f"{len(chosen)} orders of {len(OPERATIONS)} operations in two namespaces ({attach})")


@ATTACH
def test_a_device_that_moves_keeps_its_chain(tool: Tool, objects: Objects, attach: str) -> None:
    """Found in its new namespace, under another number there, and changed there as before."""
    with ExitStack() as stack:
        old, new = Space(stack), stack.enter_context(net.NetNs())
        with new.entered():
            net.ip("link", "add", "x1", "index", "77", "type", "veth", "peer", "name", "x1p")
        tool("--netns", old.ns.name, "load", "--attach", attach, "x0", objects["drop"])
        net.ip("link", "set", "x0", "netns", new.name, netns=old.ns.name)
        for command in ("clean", "status"):
            assert "removed" not in tool("--netns", old.ns.name, command).out
            assert "removed" not in tool("--netns", new.name, command).out
        (told,) = tool("--netns", new.name, "status", "x0", "--json").json["interfaces"]
        assert told["ifindex"] != 77
        assert told["root"]["owner"] == "xdpctl"
        assert [one["name"] for one in told["programs"]] == ["drop"]
        assert told["programs"][0]["pin"]
        tool("--netns", new.name, "load", "-P", 1, "x0", objects["count"])
        (told,) = tool("--netns", new.name, "status", "x0", "--json").json["interfaces"]
        assert [one["name"] for one in told["programs"]] == ["count", "drop"]
        assert all(f"dispatch-{told['ifindex']}-" in one["pin"] for one in told["programs"])
        assert told["residue"] == []
        tool("--netns", new.name, "unload", "--all", "x0")
        assert tool.pins() == []


@ATTACH
def test_a_new_device_under_the_number_of_one_that_moved(
    tool: Tool, objects: Objects, attach: str
) -> None:
    """Both have a chain of their own from then on, whichever is touched first."""
    with ExitStack() as stack:
        old, new = Space(stack), stack.enter_context(net.NetNs())
        tool("--netns", old.ns.name, "load", "--attach", attach, "x0", objects["drop"])
        moved = old.root()
        net.ip("link", "set", "x0", "netns", new.name, netns=old.ns.name)
        with old.ns.entered(), net.Veth(name="x0", ifindex=77) as veth:
            status = tool.status("x0")
            assert (status["root"], status["residue"]) == (None, [])
            tool("load", "--attach", attach, "x0", objects["count"])
            assert net.exchange(veth, FRAMES) == FRAMES
            tool("swap-dispatcher", "x0")
            tool("clean")
            with new.entered():
                told = tool.status("x0")
                assert (told["root"]["id"], told["root"]["owner"]) == (moved, "xdpctl")
                assert told["programs"][0]["name"] == "drop"
                tool("swap-dispatcher", "x0")
                assert [one["name"] for one in tool.status("x0")["programs"]] == ["drop"]
            tool("swap-dispatcher", "x0")
            assert [one["name"] for one in tool.status("x0")["programs"]] == ["count"]
            assert net.exchange(veth, FRAMES) == FRAMES
            with new.entered():
                tool("unload", "--all", "x0")
            tool("unload", "--all", "x0")
    assert tool.pins() == []


@GONE
@pytest.mark.parametrize("same", ["name", "number", "both"])
def test_an_interface_made_again_inherits_nothing(
    tool: Tool, objects: Objects, attach: str, same: str
) -> None:
    """Packets pass the new one, status calls the pins left over, and the next load removes them."""
    name = "y0" if same == "number" else "x0"
    index = 78 if same == "name" else 77
    with net.Veth(name="x0", ifindex=77):
        tool("load", "--attach", attach, "x0", objects["drop"])
    with net.Veth(name=name, ifindex=index) as veth:
        assert net.exchange(veth, FRAMES) == FRAMES
        status = tool.status(name)
        assert status["programs"] == []
        assert bool(status["residue"]) == (index == 77)
        loaded = tool("load", "--attach", attach, name, objects["count"])
        assert ("removed what was left over" in loaded.err) == (index == 77)
        assert net.exchange(veth, FRAMES) == FRAMES
        assert [one["name"] for one in tool.status(name)["programs"]] == ["count"]
        tool("unload", "--all", name)
        cleaned = tool("clean")
        assert ("its interface is gone" in cleaned.out) == (index != 77)
    assert tool.pins() == []


def rounds(count: int, tool: Tool, objects: Objects, attach: str) -> None:
    """Namespaces with a chain each, deleted again; then one clean."""
    before = oracle.snapshot(tool.bpffs)
    for _ in range(count):
        with ExitStack() as stack:
            space = Space(stack)
            with space.ns.entered():
                tool("load", "--attach", attach, "x0", objects["pass"])
    left = list((tool.bpffs / "xdp").glob("xdpctl-*"))
    # Before Linux 5.14 a namespace is known by its inode, which the next one may have again: a load
    # then clears away what it finds.
    by_inode = all("-ino" in path.name for path in left)
    assert len(left) in range(1, count + 1) if by_inode else len(left) == count
    # The kernel takes a namespace apart from a queue, after its last name is gone.
    end = time.monotonic() + 60
    while (told := tool("clean", "--dry-run").out.count("its interface is gone")) != len(left):
        assert time.monotonic() < end, (told, len(left))
        time.sleep(0.2)
    assert tool("clean").out.count("its interface is gone") == len(left)
    assert tool.pins() == []
    after = oracle.settle(before)
    assert not after.progs - before.progs
    assert not after.links - before.links
    assert not after.maps - before.maps
    print(f"{count} namespaces made and deleted with chains on ({attach}): 0 left")


@GONE
@pytest.mark.parametrize("count", [6, pytest.param(500, marks=pytest.mark.soak)])
def test_namespaces_come_and_go(tool: Tool, objects: Objects, attach: str, count: int) -> None:
    rounds(count, tool, objects, attach)


@GONE
def test_clean_touches_nothing_that_runs(tool: Tool, objects: Objects, attach: str) -> None:
    """Chains that run beside interfaces that are gone stay as they are."""
    for gone in range(3):
        with ExitStack() as stack:
            spaces = [Space(stack) for _ in range(3)]
            for space in spaces:
                tool("--netns", space.ns.name, "load", "--attach", attach, "x0", objects["drop"])
            roots = [space.root() for space in spaces]
            with spaces[gone].ns.entered():
                spaces[gone].veth.delete()
            assert tool("clean").out.count("its interface is gone") == 1
            for number, space in enumerate(spaces):
                if number != gone:
                    assert space.root() == roots[number]
                    assert space.exchange() == []
                    tool("--netns", space.ns.name, "unload", "--all", "x0")
        assert tool.pins() == []
