"""The oracle and the packets themselves, by raw means only."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects, needs, one_guest
from tests.kernel.foreign_holder import Foreign
from tests.kernel.test_holders import until

pytestmark = one_guest

FRAMES = [
    net.udp(0),
    net.tcp(1, dport=80),
    net.icmp(2),
    net.arp(3),
    net.ipv6(4),
    net.udp(5, payload=b"hello", size=60),
    net.tcp(6, flags=16, size=1400),
]


@pytest.mark.parametrize("flags", [0, oracle.XDP_FLAGS_SKB_MODE], ids=["native", "skb"])
@pytest.mark.parametrize("code", [oracle.XDP_PASS, oracle.XDP_DROP])
def test_verdicts_show_on_the_wire(veth: net.Veth, code: int, flags: int) -> None:
    with (
        oracle.map_create(oracle.MAP_TYPE_ARRAY, 4, 8, 1, "packets") as counter,
        oracle.xdp_load(oracle.counting(counter, code), name="counting") as program,
        oracle.xdp_attach(program, veth.ifindex, flags) as held,
    ):
        info, on = oracle.prog(program), oracle.link(held)
        assert (info.type, info.name) == (oracle.PROG_TYPE_XDP, "counting")
        assert info.map_ids == (oracle.map(counter).id,)
        assert (on.ifindex, on.prog_id) == (veth.ifindex, info.id)
        mode = "skb" if flags else "native"
        assert oracle.xdp_prog_id(veth.ifindex) == (info.id, mode)
        arrived = net.exchange(veth, FRAMES)
        assert arrived == (FRAMES if code == oracle.XDP_PASS else [])
        assert oracle.packets(info.id) == len(FRAMES)
    assert oracle.xdp_prog_id(veth.ifindex) == (0, "")


def test_exchange_of_many(veth: net.Veth) -> None:
    with (
        oracle.xdp_load(oracle.returning(oracle.XDP_PASS)) as program,
        oracle.xdp_attach(program, veth.ifindex),
    ):
        assert net.seqs(net.exchange(veth, net.udps(2000))) == list(range(2000))


@needs("link_target")
def test_ext_replaces_a_stub(veth: net.Veth) -> None:
    with (
        oracle.root_load(3) as root,
        oracle.xdp_attach(root, veth.ifindex),
    ):
        root_id = oracle.prog(root).id
        assert net.exchange(veth, FRAMES) == FRAMES
        with (
            oracle.hold_unpinned(root_id, "prog1", count=True) as first,
            oracle.hold_unpinned(root_id, "prog2", count=True, code=oracle.XDP_DROP) as second,
        ):
            assert oracle.ext_chain(root_id) == {
                first.func_id: first.prog_id,
                second.func_id: second.prog_id,
            }
            assert {one.id for one in oracle.links_onto(root_id)} == {first.link_id, second.link_id}
            assert net.exchange(veth, FRAMES) == []
            assert first.map_id is not None
            assert oracle.array_counter(first.map_id) == len(FRAMES)
            assert oracle.packets(second.prog_id) == len(FRAMES)
        assert net.exchange(veth, FRAMES) == FRAMES


@needs("ext")
def test_an_ext_outlives_its_first_root(veth: net.Veth) -> None:
    """Steps 4 to 6 of the protocol, raw."""
    with (
        oracle.root_load() as y,
        oracle.root_load() as x,
        oracle.hold_unpinned(x, "prog0", count=True) as member,
        oracle.xdp_attach(x, veth.ifindex) as root_link,
    ):
        x_id = oracle.prog(x).id
        moved = oracle.link_create(member.prog, y, target_btf_id=member.func_id)
        with pytest.raises(PermissionError):
            oracle.link_update(root_link, y, y)
        oracle.link_update(root_link, y, x)
        member.link.close()
        x.close()
        assert net.exchange(veth, FRAMES) == FRAMES
        assert oracle.packets(member.prog_id) == len(FRAMES)
        until(lambda: x_id not in oracle.prog_ids())
        moved.close()


@needs("ext")
def test_foreign_process(veth: net.Veth) -> None:
    with oracle.root_load() as root, oracle.xdp_attach(root, veth.ifindex):
        root_id = oracle.prog(root).id
        with Foreign(root_id, count=True, code=oracle.XDP_DROP) as foreign:
            assert oracle.link(foreign.link_id).prog_id == foreign.prog_id
            assert net.exchange(veth, FRAMES) == []
            assert foreign.packets() == len(FRAMES)
            before = oracle.snapshot()
            foreign.release()
            kinds = {"prog": foreign.prog_id, "link": foreign.link_id, "map": foreign.map_id}
            lines = {f"- {kind} {number}" for kind, number in kinds.items()}
            until(lambda: lines <= {*before.diff(oracle.snapshot()).splitlines()})
        with Foreign(root_id) as foreign:
            foreign.kill()
            assert net.exchange(veth, FRAMES) == FRAMES


@needs("ext")
def test_pins_and_snapshots(bpffs: Path) -> None:
    before = oracle.snapshot(bpffs)
    with oracle.root_load() as root, oracle.hold_unpinned(root, "prog0", count=True) as member:
        os.mkdir(bpffs / "deep")
        oracle.pin(member.link, bpffs / "deep" / "link")
        oracle.pin(member.prog, bpffs / "deep" / "prog")
        assert member.counter is not None
        oracle.pin(member.counter, bpffs / "map")
        assert oracle.pinned_link(bpffs / "deep" / "link").id == member.link_id
        assert oracle.pinned_prog(bpffs / "deep" / "prog").name == "foreign"
        assert oracle.pinned_map(bpffs / "map").id == member.map_id
    text = before.diff(oracle.snapshot(bpffs))
    for word in ("+ prog", "+ link", "+ map", f"+ pin {bpffs}/deep/link"):
        assert word in text
    for name in ("deep/link", "deep/prog", "map"):
        os.unlink(bpffs / name)
    os.rmdir(bpffs / "deep")
    after = oracle.settle(before)
    assert not after.added(before), before.diff(after)


@needs("ext")
def test_a_test_run_goes_through_the_chain() -> None:
    with oracle.root_load(2) as root, oracle.hold_unpinned(root, "prog1", code=3):
        assert oracle.run(root, FRAMES[0]) == (3, FRAMES[0])


@needs("stats")
def test_run_counts(veth: net.Veth) -> None:
    with (
        oracle.xdp_load(oracle.returning(oracle.XDP_PASS)) as program,
        oracle.xdp_attach(program, veth.ifindex),
        oracle.enable_stats(),
    ):
        net.exchange(veth, FRAMES)
        assert oracle.prog(program).run_cnt == len(FRAMES)


def test_errors_carry_the_verifiers_words() -> None:
    with pytest.raises(OSError, match="R0") as caught:
        oracle.xdp_load(oracle.EXIT)
    assert caught.value.errno in (errno.EACCES, errno.EINVAL)


def test_percpu_counters() -> None:
    with oracle.map_create(6, 4, 8, 2) as fd:
        cpus = oracle.possible_cpus()
        values = b"".join((i + 1).to_bytes(8, "little") for i in range(cpus))
        oracle.map_update(fd, (1).to_bytes(4, "little"), values)
        assert oracle.array_counter(fd, 1) == cpus * (cpus + 1) // 2


@pytest.mark.parametrize("flags", [0, oracle.XDP_FLAGS_SKB_MODE], ids=["native", "skb"])
def test_a_flood_is_counted_on_both_sides(veth: net.Veth, flags: int) -> None:
    with (
        oracle.map_create(oracle.MAP_TYPE_ARRAY, 4, 8, 1, "packets") as counter,
        oracle.xdp_load(oracle.counting(counter, oracle.XDP_DROP)) as program,
        oracle.xdp_attach(program, veth.ifindex, flags),
        net.Flood(veth) as flood,
    ):
        until(lambda: oracle.array_counter(counter) > 100)
        sent = flood.stop()
        assert oracle.settle_counter(counter, sent) == sent
        print(f"{sent} sent, {flood.lost} lost")


def test_namespaces() -> None:
    with net.NetNs() as there:
        with there.entered(), net.Veth(mtu=3000, queues=2) as pair:
            program = oracle.xdp_load(oracle.returning(oracle.XDP_DROP))
            with program, oracle.xdp_attach(program, pair.ifindex):
                assert oracle.xdp_prog_id(pair.ifindex)[1] == "native"
                assert net.exchange(pair, FRAMES) == []
            assert net.link_facts(pair.dev)["mtu"] == 3000
            name = pair.dev
        with pytest.raises(OSError, match="no interface"):
            net.counters(name)
    assert not there.path.exists()


def test_the_fixtures(objects: Objects, debian: Path, bpffs: Path) -> None:
    assert {"pass", "count", "tailcall"} <= set(objects)
    assert (debian / "xdpdump_xdp.o").exists()
    # Some kernels put a listing of programs and one of maps into each instance (BPF_PRELOAD).
    assert [path for path in bpffs.iterdir() if path.suffix != ".debug"] == []
    with pytest.raises(KeyError, match="no tests/bpf/nonsense"):
        objects["nonsense"]


@pytest.mark.parametrize("capability", sorted(oracle.PROBES))
def test_probes(capability: str) -> None:
    """Every probe comes to an answer, and leaves nothing behind (the fixture looks)."""
    reason = oracle.lacks(capability)
    print(f"{capability}: {reason or 'yes'}")
