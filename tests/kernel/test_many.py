"""Patterns and --all: each interface by itself, with a result of its own; and who may see pins."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from typing import Any

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, one_guest
from tests.kernel.tool import Tool
from xdpctl.host import child

pytestmark = one_guest

FRAMES = net.udps(10)


def test_patterns(tool: Tool, objects: Objects) -> None:
    """Loaded, shown, swapped and unloaded by one pattern; the others stay as they are."""
    with ExitStack() as stack:
        chosen = [stack.enter_context(net.Veth(name=f"many{n}")) for n in range(3)]
        other = stack.enter_context(net.Veth(name="single"))
        loaded = tool("load", "many2,many[01]", objects["count"])
        assert [line.partition(":")[0] for line in loaded.out.splitlines()] == [
            "many2",
            "many0",
            "many1",
        ]
        for veth in chosen:
            assert f"{veth.dev}: loaded count" in loaded.out
        tool("load", "single", objects["drop"])
        told = tool("status", "many*", "--json").json["interfaces"]
        assert [one["interface"] for one in told] == [veth.dev for veth in chosen]
        roots = [one["root"]["id"] for one in told]
        swapped = tool("swap-dispatcher", "many[01]").out
        assert "many0: root" in swapped
        assert "many2" not in swapped
        now = [oracle.xdp_prog_id(veth.ifindex)[0] for veth in chosen]
        assert [old == new for old, new in zip(roots, now, strict=True)] == [False, False, True]
        data = tool("swap-dispatcher", "--all", "--json").json
        assert [one["interface"] for one in data["interfaces"]] == [
            *(veth.dev for veth in chosen),
            other.dev,
        ]
        for veth in chosen:
            assert net.exchange(veth, FRAMES) == FRAMES
            assert oracle.packets(tool.ids(veth.dev)[0]) == len(FRAMES)
        assert net.exchange(other, FRAMES) == []
        tool("unload", "--all", "many0")
        assert tool.try_("unload", "--all", "many0").code == 3
        assert tool.try_("unload", "--all", "many1,many0").code == 3
        assert oracle.xdp_prog_id(chosen[1].ifindex)[0] == 0
        tool("unload", "--all", "many*")
        assert [oracle.xdp_prog_id(veth.ifindex)[0] for veth in chosen] == [0, 0, 0]
        assert tool("unload", "--all", "many*").out.count("nothing changed") == 3
        tool("unload", "--all", "single")
    assert tool.pins() == []


def test_one_process_loads_for_all_but_the_first(
    tool: Tool, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each interface has programs and maps of its own, and keeps these at a replace.

    One whose map is pinned is loaded by a process each time.
    """
    began: list[str] = []
    begin = child.Worker.__init__

    def noted(worker: child.Worker, path: str, *rest: Any, **named: Any) -> None:
        began.append(os.path.basename(path))
        begin(worker, path, *rest, **named)

    monkeypatch.setattr(child.Worker, "__init__", noted)
    with ExitStack() as stack:
        chosen = [stack.enter_context(net.Veth(name=f"many{n}")) for n in range(5)]
        foreign = stack.enter_context(oracle.xdp_load(oracle.returning(oracle.XDP_PASS)))
        with oracle.xdp_attach(foreign, chosen[3].ifindex):
            words = ("--pin-path", tool.bpffs, objects["count"], objects["pinned"])
            assert tool.try_("load", "many?", *words).code == 8
        # One reads each file.
        assert began == ["count.o", "pinned.o"] * 3 + ["pinned.o"] * 2
        loaded = [veth for veth in chosen if veth is not chosen[3]]
        counters = [tool.ids(veth.dev)[0] for veth in loaded]
        used = [tuple(oracle.prog(one).map_ids) for one in counters]
        assert len(set(counters)) == len(set(used)) == 4
        for number, veth in enumerate(loaded):
            net.send(veth, FRAMES[: number + 1])
        assert [oracle.packets(one) for one in counters] == [1, 2, 3, 4]
        roots = [oracle.xdp_prog_id(veth.ifindex)[0] for veth in loaded]
        tool("swap-dispatcher", "many?")
        began.clear()
        tool("replace", "many0,many1,many2,many4", "count", objects["count"])
        assert began == ["count.o"] * 3
        replaced = [tool.ids(veth.dev)[0] for veth in loaded]
        assert not {*replaced} & {*counters}
        for veth in loaded:
            net.send(veth, FRAMES[:1])
        assert [oracle.packets(one) for one in replaced] == [2, 3, 4, 5]
        tool("unload", "--all", "many?")
        # No process that loaded a program keeps a root, or a program.
        assert not oracle.snapshot().progs.intersection([*roots, *counters, *replaced])
        (tool.bpffs / "packets").unlink()


def test_one_of_several_fails(tool: Tool, objects: Objects) -> None:
    """The others are changed all the same; the last line names the one, and the code is its own."""
    with ExitStack() as stack:
        chosen = [stack.enter_context(net.Veth(name=f"many{n}")) for n in range(3)]
        with (
            oracle.xdp_load(oracle.returning(oracle.XDP_PASS), name="theirs") as program,
            oracle.xdp_attach(program, chosen[1].ifindex),
        ):
            result = tool.try_("load", "many?", objects["count"])
            assert result.code == 8
            assert "many1: another tool's program" in result.err
            assert result.err.splitlines()[-1] == "xdpctl: 1 of 3 interfaces failed: many1"
            data = tool.try_("load", "many?", objects["count"], "--json")
            assert data.code == 8
            (failed,) = [one for one in data.json["interfaces"] if "error" in one]
            assert (failed["interface"], failed["error"]["exit_code"]) == ("many1", 8)
            assert len(tool.ids("many0")) == len(tool.ids("many2")) == 2
            # Those without a chain are not meant.
            assert "many1" not in tool("swap-dispatcher", "many?").out
        tool("unload", "-a", "many0")
        tool("unload", "-a", "many2")
        result = tool.try_("swap-dispatcher", "--all")
        assert (result.code, "no interface runs a chain" in result.err) == (3, True)
        assert tool.try_("load", "nosuch*", objects["count"]).code == 3
        assert tool.try_("swap-dispatcher").code == 2
        assert tool.try_("swap-dispatcher", "--all", "many0").code == 2


def test_one_of_several_cannot_be_read(tool: Tool, objects: Objects) -> None:
    """Something is in the way where an interface has its pins: the others are shown all the same.

    And changed: what is in the way is named then, too.
    """
    with ExitStack() as stack:
        chosen = [stack.enter_context(net.Veth(name=f"many{n}")) for n in range(3)]
        tool("load", "many?", objects["count"])
        ids = [tool.ids(veth.dev) for veth in chosen]
        (home,) = (tool.bpffs / "xdp").glob(f"xdpctl-*-{chosen[1].ifindex}")
        away = home.with_name("away")
        (home / "root_link").rename(away)
        (home / "root_link").mkdir()
        for words in (("status",), ("status", "many?"), ("show", "many?")):
            result = tool.try_(*words)
            assert result.code == 9, result.err
            assert all(f" {one} " in result.out.replace(",", " ") for one in ids[0] + ids[2])
            assert "many1" not in result.out
            assert f"xdpctl: many1: {home}/root_link is a directory\n" in result.err
            last = result.err.splitlines()[-1]
            assert last.endswith(" interfaces failed: many1"), last
            assert last.startswith("xdpctl: 1 of ")
        data = tool.try_("status", "many?", "--json")
        assert (data.code, [len(one.get("programs", "")) for one in data.json["interfaces"]]) == (
            9,
            [1, 0, 1],
        )
        assert "is a directory" in data.json["interfaces"][1]["error"]["what"]
        alone = tool.try_("status", "many1")
        assert (alone.code, alone.out, "interfaces failed" in alone.err) == (9, "", False)
        (home / "root_link").rmdir()
        away.rename(home / "root_link")
        assert [tool.ids(veth.dev) for veth in chosen] == ids
        tool("unload", "-a", "many1")
        home.symlink_to("/dev/null")  # no directory, and no pin
        result = tool.try_("load", "many?", objects["pass"])
        assert result.err.splitlines()[-1] == "xdpctl: 1 of 3 interfaces failed: many1"
        assert [len(tool.ids(dev)) for dev in ("many0", "many2")] == [2, 2]
        home.unlink()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777], ids="{:03o}".format)
def test_pins_are_for_root_alone(tool: Tool, veth: net.Veth, objects: Objects, umask: int) -> None:
    """Pins 0600, directories 0700, whatever the umask is."""
    before = os.umask(umask)
    try:
        tool("load", veth.dev, objects["count"], objects["pass"])
    finally:
        assert os.umask(before) == umask
    found = 0
    for path in (tool.bpffs / "xdp", *(tool.bpffs / "xdp").rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            assert stat.S_IMODE(mode) == 0o700, path
        elif stat.S_ISREG(mode):
            assert stat.S_IMODE(mode) == 0o600, path
            found += 1
    # Two programs, the root's link, and for EXT programs their links.
    assert found == (5 if tool.kind == "ext" else 3)


def test_a_bpffs_that_others_can_write(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Refused with the reason, for reading as for writing, and nothing happens."""
    tool("load", veth.dev, objects["count"])
    root = oracle.xdp_prog_id(veth.ifindex)
    xdp = tool.bpffs / "xdp"
    for path, mode, owner in (
        (xdp, 0o777, 0),
        (xdp, 0o720, 0),
        (xdp, 0o700, 1234),
        (tool.bpffs, 0o777, 0),
    ):
        was = path.stat()
        path.chmod(mode)
        os.chown(path, owner, -1)
        for words in (("load", veth.dev, objects["pass"]), ("status",), ("unload", "-a", veth.dev)):
            result = tool.try_(*words)
            assert result.code == 9, words
            assert "not safe" in result.err
            assert ("belongs to user 1234" if owner else "others may write") in result.err
        os.chown(path, was.st_uid, -1)
        path.chmod(stat.S_IMODE(was.st_mode))
        assert oracle.xdp_prog_id(veth.ifindex) == root
    tool.bpffs.chmod(0o1777)  # the mode that bpffs has by default
    tool("load", veth.dev, objects["pass"])


def test_netlink_roots(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Attached as libxdp does it: its tools see the chain or the root, and what is there counts."""
    tool("load", "--attach", "netlink", veth.dev, objects["count"], objects["pass"])
    status = tool.status(veth.dev)
    assert (status["root"]["attach"], status["root"]["owner"]) == ("netlink", "xdpctl")
    assert oracle.xdp_links(veth.ifindex) == []
    seen = tool.xdp_loader("status", veth.dev)
    assert seen.count("=>") == (2 if tool.kind == "ext" else 0)
    assert str(status["root"]["id"]) in seen
    refused = tool.try_("load", "--attach", "link", veth.dev, objects["pass"])
    assert refused.code == 7
    assert "--attach netlink" in refused.err
    tool("load", veth.dev, objects["pass"])
    tool("swap-dispatcher", veth.dev)
    assert net.exchange(veth, FRAMES) == FRAMES
    assert oracle.packets(tool.ids(veth.dev)[0]) == len(FRAMES)
    tool("unload", "--all", veth.dev)
    assert oracle.xdp_prog_id(veth.ifindex) == (0, "")
    assert tool.pins() == []


def test_strays(tool: Tool, objects: Objects) -> None:
    """What stands in the place of something of ours is named, harms nobody, and stays."""
    with ExitStack() as stack:
        chosen = [stack.enter_context(net.Veth(name=f"many{n}")) for n in range(2)]
        tool("load", "many?", objects["count"])
        home, other = sorted((tool.bpffs / "xdp").glob("xdpctl-*"))
        (home / "counter-9-entry").mkdir()
        (tool.bpffs / "xdp/xdpctl-1-999").symlink_to("nowhere")
        with oracle.map_create(2, 4, 8, 1) as fd:
            oracle.pin(fd, home / "kept-1-5")
            oracle.pin(fd, tool.bpffs / "xdp/dispatch-999-999")
        (other / "label-77-0").symlink_to("left over")
        told = tool("clean").out
        for path in ("counter-9-entry", "xdpctl-1-999", "dispatch-999-999"):
            assert f"/{path}: it is no" in told or f"/{path}: it is a directory" in told
        for veth in chosen:
            assert net.exchange(veth, FRAMES) == FRAMES
        tool("load", "many?", objects["count"])
        tool("unload", "--all", "many?")
        assert (home / "counter-9-entry").is_dir()


def test_names(tool: Tool, objects: Objects) -> None:
    """Alternative names, however long, and names that look like patterns: each means one."""
    with ExitStack() as stack:
        odd, other = (stack.enter_context(net.Veth(name=name)) for name in ("v[1]*?", "v1xx"))
        long = "an-alternative-name-of-more-than-fifteen"
        net.ip("link", "property", "add", "dev", other.dev, "altname", long, "altname", "short")
        for name, veth in ((odd.dev, odd), (long, other), ("short", other)):
            loaded = tool("load", name, objects["count"], "--json").json
            assert loaded["interface"] == veth.dev
            (told,) = tool("status", name, "--json").json["interfaces"]
            assert told["interface"] == veth.dev
            tool("unload", "--all", name)
        for pattern in ("an-alt*fifteen", "shor?"):
            told = tool("status", pattern, "--json").json["interfaces"]
            assert [one["interface"] for one in told] == [other.dev]
        assert tool.try_("status", "an-alternative-name-of-nobody-at-all").code == 3


def test_a_pinned_map_that_interfaces_come_to_share(tool: Tool, objects: Objects) -> None:
    """It is told by whom it is used, by the kernel's word; not of a map that stays one's own."""
    with net.Veth(name="own0") as own, net.Veth(name="other0") as other:
        first = tool("load", other.dev, objects["pinned"])
        again = tool("load", other.dev, objects["pinned"], "--name", "seen")
        assert "is shared with" not in first.err + again.err
        where = tool.bpffs / "packets"
        assert (
            f"{own.dev}: map packets of pinned is shared with pinned on {other.dev}, seen on "
            f"{other.dev} (pinned at {where})"
        ) in tool("load", own.dev, objects["pinned"]).err
        tool("unload", own.dev, "--all")
        document = tool("load", own.dev, objects["count"], objects["pinned"], "--json")
        (new,) = (one for one in document.json["programs"] if one["name"] == "pinned")
        assert document.json["shared_maps"] == [
            {
                "program": new["id"],
                "map": "packets",
                "map_id": oracle.pinned_map(where).id,
                "pin": str(where),
                "with": {"interface": other.dev, "id": program, "name": name},
            }
            for program, name in zip(tool.ids(other.dev), ("pinned", "seen"), strict=True)
        ]
        assert document.err == ""
        tool("unload", "--all", f"{own.dev},{other.dev}")
        assert "is shared with" not in tool("load", own.dev, objects["pinned"]).err
        tool("unload", "--all", own.dev)
        where.unlink()
