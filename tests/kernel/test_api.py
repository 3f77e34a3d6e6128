"""The Python API beside attachments: what an interface runs, as data, and maps as mappings."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import xdpctl
from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, kinds, needs, one_guest
from tests.kernel.test_holders import gone
from tests.kernel.tool import Tool
from xdpctl.api import maps
from xdpctl.errors import HookBusyError, NotFoundError, UsageError, XdpctlError
from xdpctl.view import change, status

pytestmark = one_guest

BPF_MAP_TYPE_HASH = 1
FRAMES = net.udps(10)


@needs("link_target")
def test_look_is_what_status_is_made_of(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """And a plan of it is the one that the command line has."""
    assert xdpctl.look(veth.dev).root is None
    tool("load", veth.dev, objects["count"], objects["pass"])
    with xdpctl.attach(objects["drop"], veth.dev, priority=90) as attachment:
        state = xdpctl.look(veth.dev)
        assert status.state_data(state) == tool.status(veth.dev)
        assert state.root is not None
        assert state.root.kind == tool.kind
        first, second, held = state.chain.members
        assert held.id == attachment.program_id
        assert [slot.member for slot in state.root.slots] == [first, second, held]
        assert state == xdpctl.look(veth.dev)
        for one in (state, state.root, state.root.slots[0], state.chain, first):
            assert dataclasses.is_dataclass(one)
            with pytest.raises(dataclasses.FrozenInstanceError):
                one.name = "other"  # type: ignore[misc]

        plan = xdpctl.make_plan(state, state.chain.without([first.id]))
        told = tool("unload", veth.dev, "-i", first.id, "--dry-run", "--json").json["plan"]
        assert change.plan_data(plan) == told
        assert (plan.flip, plan.leaving, plan.staying) == ("update", (first,), (second, held))
        new = xdpctl.Member("new", priority=1)
        plan = xdpctl.make_plan(state, state.chain.with_added([new]))
        assert (plan.joining, plan.target.members[0]) == ((new,), new)
    tool("unload", veth.dev, "-a")


@kinds("fused")  # it is not about a root
def test_what_cannot_be_looked_at(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="no interface named nosuch0"):
        xdpctl.look("nosuch0")
    loose = tmp_path / "loose"
    loose.mkdir(mode=0o777)
    loose.chmod(0o777)
    with pytest.raises(XdpctlError, match="not safe"):
        xdpctl.look(veth.dev, bpffs=str(loose))
    program = oracle.xdp_load(oracle.returning(oracle.XDP_PASS))
    with oracle.xdp_attach(program, veth.ifindex):
        state = xdpctl.look(veth.dev)
        assert state.root is not None
        assert (state.root.id, state.root.owner) == (oracle.prog(program).id, "other")
        assert state.root.slots == ()
        with pytest.raises(HookBusyError):
            xdpctl.make_plan(state, xdpctl.Chain((xdpctl.Member("new"),)))


@needs("link_target")
def test_the_maps_of_an_attachment(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    with xdpctl.attach(objects["percpu"], veth.dev) as attachment:
        assert set(attachment.maps) == {"packets"}
        packets = attachment.maps["packets"]
        assert net.exchange(veth, FRAMES) == FRAMES
        tool("swap-dispatcher", veth.dev)
        assert net.exchange(veth, FRAMES) == FRAMES
        values = [int.from_bytes(one, "little") for one in packets.per_cpu(bytes(4))]
        assert len(values) == oracle.possible_cpus()
        assert sum(values) == oracle.packets(attachment.program_id) == 2 * len(FRAMES)
        packets[bytes(4)] = struct.pack("=Q", 7)
        assert packets.per_cpu(bytes(4)) == [struct.pack("=Q", 7)] * len(values)
        assert list(packets.items()) == [(bytes(4), struct.pack("=Q", 7) * len(values))]
    assert len(packets) == 1  # whoever has it keeps it
    packets.close()
    gone(attachment.program_id)
    with pytest.raises(NotFoundError):
        assert attachment.maps


@pytest.fixture
def table(bpffs: Path) -> Iterator[tuple[xdpctl.Map, Path]]:
    """A hash table of 4 elements, keys of four bytes, values of three; and its pin."""
    path = bpffs / "table"
    oracle.pin(oracle.map_create(BPF_MAP_TYPE_HASH, 4, 3, 4, name="table"), path)
    with xdpctl.Map.pinned(path) as one:
        yield one, path


def test_a_map_is_a_mapping(table: tuple[xdpctl.Map, Path]) -> None:
    one, path = table
    assert (one.name, one.key_size, one.value_size) == ("table", 4, 3)
    assert dict(one) == {}
    one[b"key1"] = b"abc"
    one.update({b"key2": b"def", b"key3": b"ghi"})
    with xdpctl.Map.pinned(path) as other:
        assert other.id == one.id
        assert dict(other) == {b"key1": b"abc", b"key2": b"def", b"key3": b"ghi"}
        assert other.per_cpu(b"key2") == [b"def"]
        assert other.pop(b"key2") == b"def"
    assert sorted(one) == [b"key1", b"key3"]
    assert len(one) == 2
    assert b"key2" not in one
    assert one.get(b"key2", b"---") == b"---"
    for key in (b"key2", b"nope"):
        with pytest.raises(KeyError):
            one[key]
        with pytest.raises(KeyError):
            del one[key]


def test_what_a_map_does_not_take(table: tuple[xdpctl.Map, Path], bpffs: Path) -> None:
    one, _path = table
    with pytest.raises(UsageError, match="a key of 3 bytes does not fit the map table"):
        one[b"key"]
    with pytest.raises(UsageError, match="a value of 4 bytes does not fit the map table"):
        one[b"key1"] = b"abcd"
    for number in range(4):
        one[struct.pack("=I", number)] = b"abc"
    with pytest.raises(XdpctlError, match="bpf_map_update_elem"):
        one[b"more"] = b"abc"
    with pytest.raises(NotFoundError, match="no map is pinned at"):
        xdpctl.Map.pinned(bpffs / "nosuch")
    with pytest.raises(NotFoundError, match="program 0 is not in the kernel"):
        maps.of_program(0)
    one.close()
    one.close()
    with pytest.raises(XdpctlError) as caught:
        one[b"key1"]
    assert "EBADF" in caught.value.why

    oracle.pin(oracle.xdp_load(oracle.returning(oracle.XDP_PASS)), bpffs / "program")
    with pytest.raises(UsageError, match="is no map"):
        xdpctl.Map.pinned(bpffs / "program")
