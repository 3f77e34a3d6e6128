"""Which kind of root an interface gets, and how it comes to another one."""

from __future__ import annotations

import sys

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, needs, one_guest
from tests.kernel.policy import refusing_ext
from tests.kernel.test_bad_input import Before, unchanged
from tests.kernel.test_fused import Held
from tests.kernel.test_holders import gone, root_of
from tests.kernel.test_packets import Traffic
from tests.kernel.tool import Result, Tool
from xdpctl.model.chain import Kind

pytestmark = one_guest

FRAMES = net.udps(20)
OTHER: dict[Kind, Kind] = {"ext": "fused", "fused": "ext"}


# --- a change of kind ---------------------------------------------------------------------------


def kind_of(tool: Tool, veth: net.Veth) -> str:
    return str(tool.status(veth.dev)["root"]["kind"])


def renewed(tool: Tool, veth: net.Veth, kind: Kind) -> list[tuple[int, int]]:
    """Give an interface a root of a kind; the ids, old and new, of what was loaded anew for it."""
    swapped = tool("swap-dispatcher", "--root", kind, veth.dev, "--json").json
    assert kind_of(tool, veth) == kind
    return [(one["old"], one["id"]) for one in swapped["renewed"]]


@needs("ext")
@pytest.mark.parametrize("attach", ["link", "netlink"])
def test_no_packet_misses_a_program(
    tool: Tool, veth: net.Veth, objects: Objects, kind: Kind, attach: str
) -> None:
    """There and back, twice, under packets: a program is loaded anew once at most."""
    tool("load", "--attach", attach, veth.dev, *[objects["count"]] * 3)
    first = tool.ids(veth.dev)
    maps = [oracle.prog(one).map_ids[0] for one in first]
    ids, told = first, []
    with Traffic(veth, first) as traffic:
        for change in range(4):
            new = OTHER[kind] if change % 2 == 0 else kind
            old = root_of(veth)
            told.append(renewed(tool, veth, new))
            ids = [dict(told[-1]).get(one, one) for one in ids]
            assert tool.ids(veth.dev) == ids
            gone(old)
        assert traffic.missed(4, f"{kind} and back, {attach}") == [0, 0, 0]
    assert traffic.sent > 400
    # An EXT program can be a member of either, one that is not has to become one.
    assert [len(one) for one in told] == [0 if kind == "ext" else 3, 0, 0, 0]
    assert [oracle.prog(one).map_ids[0] for one in ids] == maps
    types = {oracle.prog(one).type for one in ids}
    assert types == {oracle.PROG_TYPE_EXT}
    for one in set(first) - set(ids):
        gone(one)


@needs("ext", "shared_arrays")
def test_a_member_that_makes_tail_calls(
    tool: Tool, veth: net.Veth, objects: Objects, kind: Kind
) -> None:
    """Its program array comes along where the kernel allows that; else it is told, and stays."""
    tool("load", "-P", 1, veth.dev, objects["tailcall"], "-n", "tailcall")
    tool("load", "-P", 2, veth.dev, objects["count"])
    even, odd = net.udps(10, size=100), net.udps(10, start=100, size=101)
    caller = tool.ids(veth.dev)[0]
    before = Before(tool, veth)
    result = tool.try_("swap-dispatcher", "--root", OTHER[kind], veth.dev)
    if result.code:
        before.check()
        assert result.code == 7, result.err
        what = f"tailcall (id {caller}) cannot go to a root of the {OTHER[kind]} kind"
        assert what in result.err
        assert net.exchange(veth, even + odd) == even
        print(f"{OTHER[kind]}: refused, as program arrays are for callers of one kind here")
        return
    for new in (OTHER[kind], kind, OTHER[kind]):
        renewed(tool, veth, new)
        assert net.exchange(veth, even + odd) == even
    tool("swap-dispatcher", veth.dev)
    assert net.exchange(veth, even + odd) == even
    assert oracle.packets(tool.ids(veth.dev)[1]) == 4 * len(even)
    assert tool.status(veth.dev)["residue"] == []


@needs("ext", "link_target")
def test_what_a_process_holds_stays_where_it_is(
    tool: Tool, veth: net.Veth, objects: Objects, kind: Kind
) -> None:
    """What it has in hand means a place on a root of its own kind."""
    tool("load", "-P", 60, veth.dev, objects["count"])
    with Held(objects["count"], veth.dev, 10) as held:
        with unchanged(tool, veth):
            result = tool.try_("swap-dispatcher", "--root", OTHER[kind], veth.dev)
            assert (result.code, "others than xdpctl hold" in result.err) == (7, True), result.err
            assert "count" in result.err
        assert net.exchange(veth, FRAMES) == FRAMES
        assert held.ask() == {"attached": True, "slot": 0}
        held.kill()
        if kind == "fused":  # the kernel empties an array that its process left by and by
            gone(held.program)
    renewed(tool, veth, OTHER[kind])
    assert len(tool.ids(veth.dev)) == 1
    gone(held.program)


@kinds("ext")
@needs("link_target")
def test_what_is_pinned_elsewhere_stays_where_it_is(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    tool("load", veth.dev, objects["count"], objects["pass"])
    path = tool.bpffs / "theirs"
    with oracle.link_fd(tool.status(veth.dev)["programs"][0]["link_id"]) as link:
        oracle.pin(link, path)
    with unchanged(tool, veth):
        result = tool.try_("swap-dispatcher", "--root", "fused", veth.dev)
        assert (result.code, "others than xdpctl hold" in result.err) == (7, True), result.err
    path.unlink()
    assert renewed(tool, veth, "fused") == []


@needs("ext")
def test_a_change_that_is_not_made(
    tool: Tool, veth: net.Veth, objects: Objects, kind: Kind
) -> None:
    """With --dry-run it is told, with a fault it is undone; either way the old kind runs on."""
    tool("load", veth.dev, objects["count"], objects["pass"])
    with unchanged(tool, veth):
        told = tool("swap-dispatcher", "--root", OTHER[kind], "--dry-run", veth.dev)
        assert f"would flip to a new root (native mode, {OTHER[kind]})" in told.out
        result = tool.try_("load", "--root", OTHER[kind], veth.dev, objects["refuse"])
        assert (result.code, "refused refuse of" in result.err) == (5, True), result.err
    assert kind_of(tool, veth) == kind
    tool("load", "--root", OTHER[kind], veth.dev, objects["drop"])
    assert kind_of(tool, veth) == OTHER[kind]
    assert net.exchange(veth, FRAMES) == []


@kinds("fused")
@needs("ext")
def test_more_members_than_libxdp_knows(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """There and back; not to a protocol that has no place for them."""
    tool("load", veth.dev, objects["count"], *[objects["pass"]] * 10)
    with unchanged(tool, veth):
        result = tool.try_("swap-dispatcher", "--root", "ext", "--protocol", 2, veth.dev)
        assert (result.code, "10 slots" in result.err) == (10, True), result.err
    assert len(renewed(tool, veth, "ext")) == 11
    root = tool.status(veth.dev)["root"]
    assert (root["name"], root["protocol"]) == ("xdpctl_wide", None)
    assert net.exchange(veth, FRAMES) == FRAMES
    assert renewed(tool, veth, "fused") == []
    assert net.exchange(veth, FRAMES) == FRAMES
    assert oracle.packets(tool.ids(veth.dev)[0]) == 2 * len(FRAMES)


# --- where EXT is refused -----------------------------------------------------------------------


@pytest.fixture
def _no_default(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has said which kind of root there is to be."""
    monkeypatch.delenv("XDPCTL_ROOT")


def where_refused(tool: Tool, *words: object) -> Result:
    """Run a command line where EXT programs are refused: here, or else under such a policy."""
    if oracle.lacks("ext"):
        return tool.process(*words)
    command = [sys.executable, "-m", "xdpctl", *map(str, words)]
    return Result(*refusing_ext(command))


auto = pytest.mark.usefixtures("_no_default")


@auto
@kinds("fused")
def test_the_other_kind_where_ext_is_refused(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """A chain all the same; the command says which and why, and later changes keep to it."""
    planned = where_refused(tool, "load", "--dry-run", veth.dev, objects["count"])
    assert "attach a new root (native mode, fused)" in planned.out
    loaded = where_refused(tool, "load", veth.dev, objects["count"], objects["pass"])
    assert loaded.code == 0
    told = "the root is fused, because EXT programs are refused here (EPERM): see xdpctl doctor"
    assert loaded.err == f"xdpctl: {veth.dev}: {told}\n"
    ids = tool.ids(veth.dev)
    for number in range(2):
        root = tool.status(veth.dev)["root"]
        assert (root["kind"], root["ext_refused"]) == ("fused", "EPERM")
        assert tool("status", veth.dev).err == ""
        assert net.exchange(veth, FRAMES) == FRAMES
        if number == 0:
            tool("load", "-P", 60, veth.dev, objects["count"])  # whether it is refused now or not
    assert tool.ids(veth.dev)[:2] == ids
    assert oracle.packets(ids[0]) == 2 * len(FRAMES)


@auto
@kinds("fused")
def test_ext_where_it_is_refused(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Who insists is told, on a first load and on a chain that runs."""
    with unchanged(tool, veth):
        result = where_refused(tool, "load", "--root", "ext", veth.dev, objects["pass"])
        assert result.code == 7, result.err
        assert "refuses EXT programs" in result.err
        assert "--root fused" in result.err
    tool("load", "--root", "fused", veth.dev, objects["count"])
    with unchanged(tool, veth):
        result = where_refused(tool, "swap-dispatcher", "--root", "ext", veth.dev)
        assert (result.code, "refuses EXT programs" in result.err) == (7, True), result.err
    assert net.exchange(veth, FRAMES) == FRAMES


@auto
@kinds("fused")
def test_a_programs_own_fault_stays_its_own(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """No other kind of root helps: what the verifier says is told, and nothing is left."""
    for run in (where_refused, Tool.try_):
        with unchanged(tool, veth):
            result = run(tool, "load", veth.dev, objects["count"], objects["refuse"])
            assert result.code == 5, result.err
            assert "the verifier refused refuse of" in result.err
            assert "invalid access to packet" in result.err
            assert "before a comparison with data_end" in result.err
            assert "EXT" not in result.err.partition("why:")[0]


@auto
@kinds("fused")
def test_auto_on_a_chain_that_runs(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """It looks again: fused while EXT is refused, and a dispatcher where it is not."""
    tool("load", "--root", "fused", veth.dev, objects["count"])
    assert tool.status(veth.dev)["root"]["ext_refused"] is None
    swapped = where_refused(tool, "swap-dispatcher", "--root", "auto", veth.dev)
    assert swapped.code == 0, swapped.err
    root = tool.status(veth.dev)["root"]
    assert (root["kind"], root["ext_refused"]) == ("fused", "EPERM")
    tool("load", "-P", 60, veth.dev, objects["pass"])
    if not oracle.lacks("ext"):
        tool("swap-dispatcher", veth.dev)
        assert kind_of(tool, veth) == "fused"
        counter = tool.ids(veth.dev)[0]
        tool("swap-dispatcher", "--root", "auto", veth.dev)
        root = tool.status(veth.dev)["root"]
        assert (root["kind"], root["ext_refused"]) == ("ext", None)
        gone(counter)
    assert net.exchange(veth, FRAMES) == FRAMES
    assert oracle.packets(tool.ids(veth.dev)[0]) == len(FRAMES)
