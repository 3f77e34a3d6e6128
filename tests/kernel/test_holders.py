"""Step 7 for every kind of holder: pins elsewhere, the Python API, processes that know nothing."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.api_holder import Holder
from tests.kernel.conftest import Objects, kinds, needs
from tests.kernel.foreign_holder import Foreign
from tests.kernel.tool import Tool

pytestmark = needs("link_target")
EXT_LINKS = kinds("ext")  # a fused root has no links that others could hold
FRAMES = net.udps(20)
SWAPS = 10


def until(done: Callable[[], object], timeout: float = 30) -> None:
    end = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < end, "it does not come to that"
        time.sleep(0.02)


def gone(program_id: int) -> None:
    """Wait until a program leaves the kernel."""
    until(lambda: program_id not in oracle.prog_ids())


def root_of(veth: net.Veth) -> int:
    return oracle.xdp_prog_id(veth.ifindex)[0]


def vacate(tool: Tool, veth: net.Veth, *slots: int) -> int:
    """Take programs out of their slots by removing their pins; returns the root's id."""
    root = root_of(veth)
    for slot in slots:
        for kind in ("link", "prog"):
            (tool.bpffs / f"xdp/dispatch-{veth.ifindex}-{root}/prog{slot}-{kind}").unlink()
    until(lambda: all(tool.status(veth.dev)["programs"][slot]["vacant"] for slot in slots))
    return root


def foreign_in(tool: Tool, veth: net.Veth, objects: Objects, stack: ExitStack) -> Foreign:
    """A chain of two whose second program is of a process that pinned nothing."""
    tool("load", veth.dev, objects["count"], objects["pass"])
    return stack.enter_context(Foreign(vacate(tool, veth, 1), "prog1"))


@EXT_LINKS
def test_a_pin_elsewhere_means_the_new_place(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """Its path is there at every moment; it alone holds the program, which goes with it."""
    with ExitStack() as stack:
        foreign = foreign_in(tool, veth, objects, stack)
        (tool.bpffs / "apps").mkdir()
        path = tool.bpffs / "apps" / "app1"
        with oracle.link_fd(foreign.link_id) as link:
            oracle.pin(link, path)
        os.chown(path, 1234, 2345)
        os.chmod(path, 0o640)
        foreign.release()
    program, missing, looks = foreign.prog_id, [], 0
    ended = threading.Event()

    def look() -> None:
        nonlocal looks
        while not ended.is_set():
            looks += 1
            if not path.exists():
                missing.append(looks)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for _ in range(SWAPS):
            old = root_of(veth)
            swapped = tool("swap-dispatcher", veth.dev)
            assert f"re-hooked the pin {path}" in swapped.out
            pinned = oracle.pinned_link(path)
            assert (pinned.prog_id, pinned.target_obj_id) == (program, root_of(veth))
            gone(old)
            told = tool.status(veth.dev)["programs"][1]
            assert (told["id"], told["link_id"], told["pin"]) == (program, pinned.id, None)
            assert net.exchange(veth, FRAMES) == FRAMES
    finally:
        ended.set()
        reader.join()
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1234, 2345, 0o640)
    assert foreign.packets() == SWAPS * len(FRAMES)
    print(f"{SWAPS} swaps, {looks} looks at the pin, missing {len(missing)} times")
    assert not missing
    path.unlink()
    until(lambda: tool.status(veth.dev)["programs"][1]["vacant"])
    assert "slot 1 was vacant" in tool("swap-dispatcher", veth.dev).err
    assert len(tool.ids(veth.dev)) == 1


@EXT_LINKS
def test_a_second_pin_of_our_own_link(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Somebody pins the link of a program that xdpctl loaded: it is re-hooked, and X goes."""
    tool("load", veth.dev, objects["count"], objects["pass"])
    path = tool.bpffs / "mine"
    first, second = tool.status(veth.dev)["programs"]
    with oracle.link_fd(second["link_id"]) as link:
        oracle.pin(link, path)
    for _ in range(3):
        old = root_of(veth)
        tool("swap-dispatcher", veth.dev)
        gone(old)
        told = tool.status(veth.dev)["programs"][1]
        assert told["pin"] is not None
        assert oracle.pinned_link(path).id == told["link_id"]
    # Unloaded, it stays where its other pin has it: on the root that nobody runs any more.
    tool("unload", veth.dev, "-i", second["id"])
    assert tool.ids(veth.dev) == [first["id"]]
    path.unlink()


@EXT_LINKS
def test_a_process_that_knows_nothing(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Carried over as borrowed, for as long as it holds its own link."""
    with ExitStack() as stack:
        foreign = foreign_in(tool, veth, objects, stack)
        for swap in range(1, SWAPS + 1):
            tool("swap-dispatcher", veth.dev)
            told = tool.status(veth.dev)["programs"][1]
            assert told["id"] == foreign.prog_id
            assert told["borrowed"]["link_id"] == foreign.link_id
            assert told["borrowed"]["pid"] == foreign.pid
            assert not told["borrowed"]["gone"]
            assert net.exchange(veth, FRAMES) == FRAMES
            assert foreign.packets() == swap * len(FRAMES)
        said = tool("status", veth.dev).err
        assert re.search(rf"borrowed from link {foreign.link_id} of {foreign.pid} \(python", said)
        foreign.close()
        until(lambda: tool.status(veth.dev)["programs"][1]["borrowed"]["gone"])
        assert "the next change takes it out" in tool("status", veth.dev).err
        before = tool.chain(veth.ifindex)
        assert before[1] == foreign.prog_id
        assert "its owner's link" in tool("swap-dispatcher", veth.dev).err
        assert tool.chain(veth.ifindex) == before[:1]
        gone(foreign.prog_id)


def test_a_holder_of_the_api(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Its descriptor keeps its number and means the new place, without any doing of its own.

    On a fused root it means the same program array all the time.
    """
    tool("load", "-P", 60, veth.dev, objects["count"])
    (counter,) = tool.ids(veth.dev)
    with Holder(objects["count"], veth.dev, 10) as holder:
        held = {holder.held_id}
        for swap in range(1, SWAPS + 1):
            old = root_of(veth)
            tool("swap-dispatcher", veth.dev)
            told = holder.settle(root_of(veth))
            held.add(told["held"])
            gone(old)
            assert net.exchange(veth, FRAMES) == FRAMES
            assert oracle.packets(holder.prog_id) == swap * len(FRAMES)
        assert len(held) == (SWAPS + 1 if tool.kind == "ext" else 1)
        assert holder.ask("use") == {"fd": holder.fd, "slot": 0, "attached": True}
        status = tool.status(veth.dev)
        assert [one["pin"] is None for one in status["programs"]] == [True, False]
        assert [one["id"] for one in status["programs"]] == [holder.prog_id, counter]
        assert [one["borrowed"] for one in status["programs"]] == [None, None]
        assert status["residue"] == []
        assert holder.ask("detach") == {"attached": False}
        assert tool.chain(veth.ifindex) == [counter]
        assert holder.ask("look")["held"] == 0
    gone(holder.prog_id)
    assert net.exchange(veth, FRAMES) == FRAMES


@pytest.mark.parametrize("swapped", [False, True], ids=["at first", "after a swap"])
@pytest.mark.parametrize("end", ["kill", "close"])
def test_the_end_of_an_api_holder(
    tool: Tool, veth: net.Veth, objects: Objects, end: str, swapped: bool
) -> None:
    """Killed, or its descriptor closed: the kernel takes the program out, at once."""
    tool("load", "-P", 60, veth.dev, objects["count"])
    with Holder(objects["count_drop"], veth.dev, 10) as holder:
        if swapped:
            tool("swap-dispatcher", veth.dev)
            holder.settle(root_of(veth))
        assert net.exchange(veth, FRAMES) == []
        if end == "kill":
            holder.kill()
        else:
            assert holder.ask("close") == {"attached": False}
        until(lambda: tool.status(veth.dev)["programs"][0]["vacant"])
        assert net.exchange(veth, FRAMES) == FRAMES
        tool("swap-dispatcher", veth.dev)
        assert len(tool.ids(veth.dev)) == 1
    gone(holder.prog_id)


def test_an_api_holder_that_is_killed_before_it_follows(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """Stopped, then killed: our pin has kept its program; the next command lets it go.

    On a fused root it has nothing to follow, and its end empties its slot at once.
    """
    tool("load", "-P", 60, veth.dev, objects["count"])
    with Holder(objects["count"], veth.dev, 10) as holder:
        holder.stop()
        tool("swap-dispatcher", veth.dev)
        tool("swap-dispatcher", veth.dev)
        told = tool.status(veth.dev)["programs"][0]
        assert told["id"] == holder.prog_id
        if tool.kind == "ext":
            assert told["borrowed"]["pid"] == holder.pid
        assert net.exchange(veth, FRAMES) == FRAMES
        assert oracle.packets(holder.prog_id) == len(FRAMES)
        holder.kill()

    def ended() -> bool:
        told = tool.status(veth.dev)["programs"][0]
        return bool(told["borrowed"]["gone"] if tool.kind == "ext" else told["vacant"])

    until(ended)
    assert net.exchange(veth, FRAMES) == FRAMES
    tool("swap-dispatcher", veth.dev)
    assert len(tool.chain(veth.ifindex)) == 1
    gone(holder.prog_id)


def test_an_api_holder_that_forks(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """A child holds nothing: X goes while it lives, and so does the program."""
    with Holder(objects["count"], veth.dev) as holder:
        holder.ask("fork")
        old = root_of(veth)
        tool("swap-dispatcher", veth.dev)
        holder.settle(root_of(veth))
        gone(old)
        holder.ask("fork")
        assert holder.ask("detach") == {"attached": False}
        gone(holder.prog_id)
        assert root_of(veth) == 0
        holder.ask("reap")
    assert tool.pins() == []


def test_an_api_program_that_somebody_unloads(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """wait() ends, and the descriptor holds nothing any more."""
    tool("load", veth.dev, objects["count"])
    with Holder(objects["count"], veth.dev, 10) as holder:
        old = root_of(veth)
        tool("unload", veth.dev, "-i", holder.prog_id)
        assert holder.ask("wait") == {"ended": True}
        assert holder.ask("use")["attached"] is False
        gone(holder.prog_id)
        gone(old)
    assert len(tool.ids(veth.dev)) == 1


def test_the_interface_of_an_api_holder_goes(tool: Tool, objects: Objects) -> None:
    with net.Veth() as veth, Holder(objects["count"], veth.dev) as holder:
        veth.delete()
        assert holder.ask("wait") == {"ended": True}
        tool("clean")
        gone(holder.prog_id)
        assert tool.pins() == []


def test_all_kinds_in_one_chain_of_ten(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Loaded, borrowed, pinned elsewhere and held by the API, through ten swaps; then they go.

    On a fused root they are loaded or held by the API.
    """
    with ExitStack() as stack:
        for _ in range(7):
            tool("load", "-P", 20, veth.dev, objects["count"])
        foreign, path = list[Foreign](), tool.bpffs / "app"
        if tool.kind == "ext":
            root = vacate(tool, veth, 1, 3, 5)
            foreign = [stack.enter_context(Foreign(root, f"prog{slot}")) for slot in (1, 3, 5)]
            with oracle.link_fd(foreign[2].link_id) as link:
                oracle.pin(link, path)
            foreign[2].release()
        held = [stack.enter_context(Holder(objects["count"], veth.dev, 10)) for _ in range(3)]
        ids = tool.chain(veth.ifindex)
        assert len(ids) == 10
        counts = {number: oracle.packets(number) for number in ids}
        for _ in range(SWAPS):
            old = root_of(veth)
            tool("swap-dispatcher", veth.dev)
            assert tool.chain(veth.ifindex) == ids
            assert net.exchange(veth, FRAMES) == FRAMES
            for api in held:
                api.settle(root_of(veth))
        gone(old)
        for number in ids:
            assert oracle.packets(number) - counts[number] == SWAPS * len(FRAMES)
        held[0].ask("detach")
        for api in held[1:]:
            api.settle(root_of(veth))
        assert held[1].ask("close") == {"attached": False}
        held[2].kill()
        leavers = {one.prog_id for one in foreign} | {one.prog_id for one in held}
        if foreign:
            foreign[0].release()
            foreign[1].kill()
            links = {one.link_id for one in foreign} | {one.held_id for one in held}
            links.add(oracle.pinned_link(path).id)
            path.unlink()
            until(lambda: not links & set(oracle.link_ids()))
        else:
            until(lambda: len(tool.chain(veth.ifindex)) == len(ids) - len(leavers))
        tool("swap-dispatcher", veth.dev)
        assert tool.chain(veth.ifindex) == [number for number in ids if number not in leavers]
        for number in leavers:
            gone(number)
        assert net.exchange(veth, FRAMES) == FRAMES
    assert tool.status(veth.dev)["residue"] == []
