"""One root, with its programs and maps, that several interfaces run: each can leave by itself."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kernel import crash, net, oracle
from tests.kernel.conftest import Objects, kinds, needs, one_guest
from tests.kernel.test_holders import until
from tests.kernel.test_watch import watching
from tests.kernel.tool import Tool

pytestmark = one_guest

FRAMES = net.udps(10)
SOAK = pytest.mark.soak


@contextmanager
def veths(count: int, first: int = 0) -> Iterator[list[net.Veth]]:
    with ExitStack() as stack:
        numbers = range(first, first + count)
        yield [stack.enter_context(net.Veth(name=f"sh{number}")) for number in numbers]


def roots(veths: Sequence[net.Veth]) -> list[int]:
    return [oracle.xdp_prog_id(one.ifindex)[0] for one in veths]


def through(veth: net.Veth) -> None:
    assert net.exchange(veth, FRAMES) == FRAMES


def test_programs_and_maps_are_there_once(tool: Tool, objects: Objects) -> None:
    """One root, one map that counts for all; each interface has links, pins and a history."""
    with veths(3) as (one, two, three):
        told = tool("load", "--shared", "sh?", objects["count"], objects["pass"]).out
        assert "sh0: loaded count" in told
        ids = tool.ids(one.dev)
        names = f"count (id {ids[0]}), pass (id {ids[1]})"
        for veth in (two, three):
            assert f"{veth.dev}: runs the chain of sh0: {names}" in told
            assert tool.ids(veth.dev) == ids
        (root,) = set(roots([one, two, three]))
        for veth in (one, two, three):
            assert tool.chain(veth.ifindex) == ids
            through(veth)
        assert oracle.packets(ids[0]) == 3 * len(FRAMES)
        links = [link.id for veth in (one, two, three) for link in oracle.xdp_links(veth.ifindex)]
        assert len(set(links)) == 3
        shared = [{"root": root, "interfaces": ["sh0", "sh1", "sh2"]}]
        assert tool("status", "--json").json["shared"] == shared
        assert tool("show", "sh1", "--json").json["shared"] == shared
        assert tool("show", "sh?").out.startswith("sh0, sh1, sh2  ")
        assert f"sh0, sh1, sh2 run one root (id {root})" in tool("status", "sh2").err
        # One leaves, and one goes away: the others go on.
        tool("unload", "--all", two.dev)
        one.delete()
        tool("clean")
        assert roots([two, three]) == [0, root]
        through(three)
        assert oracle.packets(ids[0]) == 4 * len(FRAMES)
        assert tool("status", "sh2", "--json").json["shared"] == []
        tool("unload", "--all", three.dev)
    assert tool.pins() == []


def test_a_change_of_one_is_its_own(tool: Tool, objects: Objects) -> None:
    """It gets a root of its own, with the same programs and maps; rollback too is its own."""
    with veths(3) as (one, two, three):
        tool("load", "--shared", "sh?", objects["count"], objects["pass"])
        count, passing = tool.ids(one.dev)
        shared = roots([three])[0]
        tool("set", two.dev, "pass", "-P", "1")
        assert tool.chain(two.ifindex) == [passing, count]
        new = tool("replace", one.dev, "count", objects["recount"], "--json").json["programs"]
        assert tool.chain(one.ifindex) == [new[0]["id"], passing]
        assert len(set(roots([one, two, three]))) == 3
        assert tool.chain(three.ifindex) == [count, passing]
        assert roots([three]) == [shared]
        for veth in (one, two, three):
            through(veth)
        # The new program of one has the old one's map.
        assert oracle.packets(count) == 3 * len(FRAMES)
        tool("rollback", one.dev)
        assert tool.chain(one.ifindex) == [count, passing]
        assert len(set(roots([one, two, three]))) == 3
        # Now that two of them run the same programs, they can share again.
        tool("swap-dispatcher", "sh0,sh2", "--shared")
        assert len(set(roots([one, three]))) == 1


def test_changes_of_several_keep_the_root_shared(tool: Tool, objects: Objects) -> None:
    """Without being asked; who did not share gets a root of its own."""
    with veths(4) as (one, two, three, alone):
        tool("load", "--shared", "sh[012]", objects["count"])
        tool("load", alone.dev, objects["count"])
        ids = tool.ids(one.dev)
        tool("swap-dispatcher", "sh?")
        assert len(set(roots([one, two, three]))) == 1
        assert len(set(roots([one, alone]))) == 2
        tool("load", "sh?", objects["pass"])
        assert len(set(roots([one, two, three]))) == 1
        assert tool.ids(one.dev) == tool.ids(three.dev)
        assert set(tool.ids(one.dev)) & set(tool.ids(alone.dev)) == set()
        tool("unload", "sh[012]", "pass", "--keep")
        assert len(set(roots([one, two, three]))) == 1
        assert tool.chain(two.ifindex) == ids
        tool("rollback", "sh[01]")
        assert len(set(roots([one, two]))) == 1
        assert len(tool.ids(one.dev)) == 2
        assert tool.chain(three.ifindex) == ids
        tool("unload", "--all", "sh?")
    assert tool.pins() == []


def test_a_program_is_shared_by_different_chains(tool: Tool, objects: Objects) -> None:
    """What is new is loaded once, whatever runs beside it."""
    with veths(2) as (one, two):
        tool("load", two.dev, objects["pass"])
        tool("load", "--shared", "sh?", objects["count"])
        (count,) = tool.ids(one.dev)
        assert count in tool.ids(two.dev)
        assert len(tool.ids(two.dev)) == 2
        through(one)
        through(two)
        assert oracle.packets(count) == 2 * len(FRAMES)
        tool("unload", one.dev, "count")
        through(two)
        assert oracle.packets(count) == 3 * len(FRAMES)


def test_like_another(tool: Tool, objects: Objects) -> None:
    with veths(3) as (one, two, three):
        refused = tool.try_("load", two.dev, "--like", one.dev)
        assert (refused.code, "runs no chain of xdpctl's" in refused.err) == (3, True)
        tool("load", one.dev, objects["count"], "--on-end", "drop", "-A", "pass")
        tool("load", three.dev, objects["drop"])
        assert "would" in tool("load", two.dev, "--like", one.dev, "--dry-run").out
        told = tool("load", "sh?", "--like", one.dev).out
        assert "sh0: nothing changed" in told
        assert "sh1: runs the chain of sh0: count" in told
        assert "sh2: unloaded drop" in told
        (root,) = set(roots([one, two, three]))
        tool("load", two.dev, "--like", one.dev)
        assert roots([two]) == [root]
        assert tool.status(two.dev)["root"]["on_end"] == "drop"
        for veth in (one, two, three):
            assert net.exchange(veth, FRAMES) == []
        assert oracle.packets(tool.ids(one.dev)[0]) == 3 * len(FRAMES)
        tool("rollback", three.dev)
        assert [len(tool.ids(veth.dev)) for veth in (one, two, three)] == [1, 1, 1]
        assert len(set(roots([one, two, three]))) == 2
        for words in ((objects["pass"],), ("--empty",), ("-p", tool.bpffs), ("-P", 7)):
            assert tool.try_("load", two.dev, "--like", one.dev, *words).code == 2


def test_what_is_not_shared_says_so(tool: Tool, objects: Objects) -> None:
    """A chain that counts has a root of its own; on a dispatcher, its programs are its own, too."""
    with veths(3) as (one, two, three):
        tool("load", two.dev, objects["pass"])
        tool("stats", two.dev, "--on")
        told = tool("load", "--shared", "sh?", objects["count"])
        assert "sh1: has a root of its own: its packets are counted" in told.err
        assert roots([one])[0] == roots([three])[0] != roots([two])[0]
        (count,) = tool.ids(one.dev)
        assert count not in tool.ids(two.dev)
        refused = tool.try_("load", three.dev, "--like", two.dev)
        assert (refused.code, "counted" in refused.err) == (7, True)
        counting = tool.try_("stats", one.dev, "--on")
        if tool.kind == "ext":
            assert counting.code == 7
            assert "it runs on other interfaces as well" in counting.err
            assert roots([one]) == roots([three])
            tool("replace", one.dev, "count", objects["count"])
            tool("stats", one.dev, "--on")
        else:
            assert counting.code == 0
        through(one)
        through(three)
        (program,) = tool("stats", one.dev, "--json").json["interfaces"][0]["programs"]
        assert program["packets"] == len(FRAMES)


def test_a_file_for_many(tool: Tool, objects: Objects, tmp_path: Path) -> None:
    """Who comes later joins; applied again, nothing is done."""
    file = tmp_path / "shared.toml"
    file.write_text(
        f'shared = true\ninterface = "sh*"\n[[program]]\nfile = "{objects["count"]}"\n'
        f'[[program]]\nfile = "{objects["pass"]}"\nprio = 60\n'
    )
    with veths(2) as (one, two):
        tool("apply", "sh?", file)
        (root,) = set(roots([one, two]))
        ids = tool.ids(one.dev)
        assert tool("apply", "sh?", file).out.count("nothing changed") == 2
        with veths(1, 2) as (three,):
            assert "sh2: runs the chain of sh0" in tool("apply", three.dev, file).out
            assert roots([one, two, three]) == [root] * 3
            assert tool.ids(three.dev) == ids
            through(three)
            assert oracle.packets(ids[0]) == len(FRAMES)
        tool("clean")
        for veth in (one, two):
            through(veth)
        assert oracle.packets(ids[0]) == 3 * len(FRAMES)


def test_files_of_a_host(tool: Tool, objects: Objects, tmp_path: Path) -> None:
    """Exported and applied they share again; a file may be for another namespace."""
    with veths(2) as (one, two), net.NetNs() as other:
        tool("load", "--shared", "sh?", objects["count"])
        tool("export", "sh?", "--to", tmp_path)
        tool("unload", "--all", "sh?")
        for name in ("sh8", "sh9"):
            net.ip("link", "add", name, "up", "type", "veth", netns=other.name)
        inside = tmp_path / "inside.toml"
        inside.write_text(
            f'namespace = "{other.name}"\ninterface = ["sh8", "sh9"]\nshared = true\n'
            f'[[program]]\nfile = "{objects["pass"]}"\n'
        )
        assert tool.try_("apply", "--files", tmp_path, "--check").code == 17
        tool("apply", "--files", tmp_path)
        assert len(set(roots([one, two]))) == 1
        with other.entered():
            inner = {oracle.xdp_prog_id(socket.if_nametoindex(f"sh{n}"))[0] for n in (8, 9)}
        assert len(inner) == 1
        assert inner.isdisjoint({0, *roots([one])})
        assert tool("apply", "--files", tmp_path).out.count("nothing changed") == 4
        assert tool.try_("apply", "--files", tmp_path, "--check").code == 0
        tool("--netns", other.name, "unload", "--all", "sh?")
        assert "sh8: loaded pass" in tool("apply", "sh8", inside).out  # goes there by itself
        inside.write_text(inside.read_text().replace(other.name, "nosuch"))
        refused = tool.try_("apply", "--files", tmp_path)
        assert (refused.code, "no network namespace nosuch" in refused.err) == (3, True)
        tool("--netns", other.name, "unload", "--all", "sh?")
        tool("unload", "--all", "sh?")
    assert tool.pins() == []


@pytest.mark.parametrize("many", [12, pytest.param(200, marks=SOAK)])
def test_many_appear_at_once(tool: Tool, objects: Objects, tmp_path: Path, many: int) -> None:
    """Each gets the chain of its file, which is there once."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "all.toml").write_text(
        f'interface = "new*"\nshared = true\nmode = "skb"\n'
        f'[[program]]\nfile = "{objects["count"]}"\n'
    )
    names = [f"new{number}" for number in range(many)]
    with watching(tmp_path, "--interval", "600", "--apply", "--files", str(files)) as events:
        lines = [f"link add {name} up type veth peer name p{name}" for name in names]
        net.ip("-batch", "-", batch="\n".join(lines))
        numbers = [socket.if_nametoindex(name) for name in names]

        def ready() -> bool:
            return all(oracle.xdp_prog_id(number)[0] for number in numbers)

        until(ready, timeout=120)
        assert len({tuple(tool.chain(number)) for number in numbers}) == 1
        net.ip("-batch", "-", batch="\n".join(f"link del {name}" for name in names))
    assert {one["where"] for one in events if "brought to" in one["what"]} == set(names)
    tool("clean")
    assert tool.pins() == []


def test_one_moves_to_another_namespace(tool: Tool, objects: Objects) -> None:
    """Its pins are found by its own link, not by those of others that run the root."""
    with veths(3) as (one, two, three), net.NetNs() as other:
        tool("load", "--shared", "sh?", objects["count"], objects["pass"])
        ids, before = tool.ids(one.dev), tool.pins()
        net.ip("link", "set", two.dev, "netns", other.name)
        away = ("--netns", other.name)
        (seen,) = tool(*away, "status", two.dev, "--json").json["interfaces"]
        assert [one["id"] for one in seen["programs"]] == ids
        assert tool("clean").out == ""
        assert tool.pins() == before
        tool(*away, "swap-dispatcher", two.dev)
        with other.entered():
            assert tool.chain(two.ifindex) == ids
        assert len(set(roots([one, three]))) == 1
        assert tool.ids(three.dev) == ids
        tool(*away, "unload", "--all", two.dev)
        tool("unload", "--all", "sh?")
    assert tool.pins() == []


@needs("all_namespaces")
def test_one_over_netlink_is_taken_off(tool: Tool, objects: Objects) -> None:
    """Its pins are left over although others run the root; and rollback brings its chain back."""
    with veths(3) as (one, two, three):
        tool("load", "--shared", "--attach", "netlink", "sh?", objects["count"])
        ids = tool.ids(one.dev)
        net.ip("link", "set", two.dev, "xdp", "off")
        state = tool.status(two.dev)
        assert (state["root"], [one["id"] for one in state["off"]]) == (None, ids)
        assert "off the hook" in tool("status", two.dev).err
        assert [tool.status(veth.dev)["residue"] for veth in (one, three)] == [[], []]
        tool("rollback", two.dev)
        assert tool.chain(two.ifindex) == ids
        three.delete()
        tool("clean")
        assert not any(f"-{three.ifindex}/" in path for path in tool.pins())
        assert tool.chain(one.ifindex) == ids
        tool("unload", "--all", "sh?")
    assert tool.pins() == []


@kinds("ext")
def test_libxdp_beside_it(tool: Tool, objects: Objects) -> None:
    """xdp-loader shows, changes and ends the chain of one, and harms none of the others."""
    with veths(3) as (one, two, three):
        tool("load", "--shared", "--attach", "netlink", "sh?", objects["count"], objects["pass"])
        ids = tool.ids(one.dev)
        shown = tool.xdp_loader("status", two.dev)
        assert all(f" {number} " in shown for number in ids)
        tool.xdp_loader("load", two.dev, objects["ret"], "-n", "ret_2")
        tool.xdp_loader("unload", three.dev, "--id", ids[1])
        assert tool.chain(one.ifindex) == ids
        for veth in (one, two, three):
            through(veth)
        assert oracle.packets(ids[0]) == 3 * len(FRAMES)
        tool.xdp_loader("unload", two.dev, "--all")
        tool.xdp_loader("unload", three.dev, "--all")
        through(one)
        assert oracle.packets(ids[0]) == 4 * len(FRAMES)
        tool("unload", "--all", one.dev)
        tool("clean")
    assert tool.pins() == []


# --- packets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("many", "rounds"), [(4, 2), pytest.param(100, 100, marks=SOAK)])
def test_no_packet_misses_what_stays(tool: Tool, objects: Objects, many: int, rounds: int) -> None:
    """While one leaves, one joins, one is replaced by itself, and all are swapped."""
    choice = random.Random(many)
    with veths(many, 100) as others, veths(3) as watched:
        tool("load", "--shared", "sh*", objects["count"], "-P", "1")
        tool("load", "--shared", "sh*", objects["pass"], "-P", "2")
        count = tool.ids(watched[0].dev)[0]
        with ExitStack() as floods:
            sending = [floods.enter_context(net.Flood(veth, rate=2000)) for veth in watched]
            for _ in range(rounds):
                leaving, joining = choice.sample(others, 2)
                tool("unload", "--all", leaving.dev)
                tool("load", leaving.dev, "--like", watched[0].dev)
                tool("unload", "--all", joining.dev)
                tool("load", joining.dev, "--like", watched[1].dev)
                tool("replace", watched[2].dev, "pass", objects["pass"])
                tool("swap-dispatcher", "sh*")
                tool("unload", watched[1].dev, "pass")
                tool("load", watched[1].dev, "--like", watched[0].dev)
            sent = sum(flood.stop() for flood in sending)
        seen = oracle.settle_counter(oracle.prog_map(count), sent)
        assert seen == sent
        assert sent > rounds
        tool("unload", "--all", "sh*")
    print(f"{rounds} rounds on {many + 3} interfaces: {sent} frames sent, {seen} counted, 0 missed")
    assert tool.pins() == []


# --- crashes and races ----------------------------------------------------------------------------


COMMANDS: dict[str, Callable[[Objects], tuple[object, ...]]] = {
    "load": lambda objects: ("load", "--shared", "sh?", objects["pass"], "-P", "60"),
    "swap": lambda _objects: ("swap-dispatcher", "sh?"),
    "unload": lambda _objects: ("unload", "sh?", "count"),
}


@pytest.mark.parametrize("what", ["load", "swap", "unload"])
@pytest.mark.parametrize("part", [60, pytest.param(1, marks=SOAK)])
def test_killed_at_a_system_call(tool: Tool, objects: Objects, what: str, part: int) -> None:
    """Each interface runs the chain of before or of after; the next command leaves nothing over."""
    words = COMMANDS[what](objects)
    length = {"load": 2, "swap": 1, "unload": 0}[what]

    def kept(ids: list[int]) -> list[int]:
        return [] if what == "unload" else ids

    with veths(5) as several:
        base = oracle.snapshot(tool.bpffs)

        def prepare() -> list[int]:
            tool("unload", "--all", "sh?")
            tool("load", "--shared", "sh?", objects["count"])
            return tool.ids(several[0].dev)

        def action() -> int:
            return tool.try_(*words).code

        prepare()
        calls = crash.boundaries(action)
        places = [number for number, (call, _) in enumerate(calls, 1) if call not in crash.READS]
        start = random.Random(len(places)).randrange(part)
        before = after = 0
        for place in places[start::part]:
            ids = prepare()
            with crash.Stepped(action) as child:
                where = child.where if child.run_to(place) else "its end"
            for veth in several:
                chain = tool.chain(veth.ifindex)
                was = chain == ids
                assert was or (chain[:1], len(chain)) == (kept(ids), length), where
                before, after = before + was, after + (not was)
            through(several[0])
            tool("clean")
            assert tool("clean").out == "", where
        tool("unload", "--all", "sh?")
        now = oracle.settle(base)
        assert not now.added(base), base.diff(now)
    print(f"{what}: {len(places)} places, killed at {len(places[start::part])}: ", end="")
    print(f"{before} interfaces as before, {after} as after")


@pytest.mark.parametrize("rounds", [1, pytest.param(50, marks=SOAK)])
def test_overlapping_changes(tool: Tool, objects: Objects, tmp_path: Path, rounds: int) -> None:
    """Two shared changes of overlapping patterns, with one of a single interface in between."""
    lines: list[tuple[object, ...]] = [
        ("load", "--shared", "sh[0-3]", objects["pass"]),
        ("load", "--shared", "sh[2-5]", objects["pass"]),
        ("swap-dispatcher", "sh3"),
    ]

    def running(words: tuple[object, ...]) -> Callable[[], int]:
        return lambda: tool.try_(*words).code

    with veths(6) as several:
        for _ in range(rounds):
            tool("load", "--shared", "sh?", objects["count"])
            (count,) = tool.ids(several[0].dev)
            with crash.workers(tmp_path, *map(running, lines)):
                pass
            chains = [tool.chain(veth.ifindex) for veth in several]
            assert [len(chain) for chain in chains] == [2, 2, 3, 3, 2, 2]
            assert all(chain[0] == count for chain in chains)
            assert len({number for chain in chains for number in chain}) == 3
            for veth in several[2:4]:
                through(veth)
            tool("unload", "--all", "sh?")
    print(f"{rounds} rounds: every program accounted for")
    assert tool.pins() == []
