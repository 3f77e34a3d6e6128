"""xdpctl.observe.reading: states made by hand, and what is left over, on plain directories."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import (
    GONE,
    INTERFACE,
    LOOPBACK,
    chain_of,
    locked_by_another,
    running,
    state_of,
)
from xdpctl.bpffs import homes, pin
from xdpctl.bpffs.directory import CALLED
from xdpctl.bpffs.mount import Bpffs
from xdpctl.errors import KernelError, VanishedError
from xdpctl.host import interfaces
from xdpctl.host.interfaces import Interface
from xdpctl.kernel import libbpf, maps, netlink, records, uapi, xdp
from xdpctl.model.chain import Chain, Member
from xdpctl.model.labels import Made, Origin
from xdpctl.model.record import Config, root_name
from xdpctl.observe import elsewhere, members, residue
from xdpctl.observe import reading as observe
from xdpctl.observe import slots as reader
from xdpctl.observe.reading import View
from xdpctl.observe.slots import Seen

ONE, TWO, THREE = running("one", 11), running("two", 12), running("three", 13)
APP = Origin(100, 4711, "app")

bare_loopback = pytest.mark.skipif(
    xdp.query(LOOPBACK.ifindex) != (0, 0), reason="missing: a loopback without XDP"
)


@pytest.fixture
def bpffs(tmp_path: Path) -> Bpffs:
    (tmp_path / "xdp").mkdir()
    return Bpffs(str(tmp_path))


# --- states -------------------------------------------------------------------------------------


def test_the_chain_is_who_runs_and_has_an_owner() -> None:
    assert state_of(None).chain == Chain()
    for kind in ("ext", "fused"):
        assert state_of([], kind=kind).chain == Chain(kept=True)
    assert state_of([ONE, TWO]).chain == chain_of(ONE, TWO)
    assert state_of([ONE, None, TWO]).chain == chain_of(ONE, TWO)
    borrowed = state_of([ONE, TWO, THREE], origins={0: APP, 1: APP})
    assert borrowed.chain == chain_of(ONE, TWO, THREE)
    orphaned = state_of([ONE, TWO, THREE], origins={0: APP, 1: APP}, orphans={1})
    assert orphaned.chain == chain_of(ONE, THREE)
    assert state_of([ONE], origins={0: APP}, orphans={0}).chain == Chain()


def test_how_a_root_is_attached() -> None:
    for link_id, attach in ((77, "link"), (0, "netlink")):
        root = state_of([ONE], link_id=link_id).root
        assert root is not None
        assert root.attach == attach


def test_of_which_kind_a_root_is() -> None:
    for kind in ("ext", "fused"):
        root = state_of([ONE], kind=kind).root
        assert root is not None
        assert root.kind == kind
    other = state_of([], owner="other").root
    assert other is not None
    assert other.kind == "bare"


def test_what_a_process_holds_that_holds_a_member() -> None:
    ext, fused = state_of([ONE, None]).root, state_of([ONE, TWO], kind="fused", arrays={1: 9}).root
    assert ext is not None
    assert fused is not None
    assert [slot.handle for slot in ext.slots] == [("link_id", 100), None]
    assert [slot.handle for slot in fused.slots] == [None, ("map_id", 9)]


# --- records ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10, 11, 200])
def test_a_dispatchers_record_is_read_by_its_name(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.of([running(f"p{number}", number + 1) for number in range(count)])
    info = records.ProgInfo(600, 6, root_name(count), "", 0, 0, 7, (31,), gpl=True)
    read_only = uapi.BPF_F_RDONLY_PROG
    record = records.MapInfo(31, 2, "xdp_disp.rodata", len(config.pack()), flags=read_only)
    monkeypatch.setattr(libbpf, "map_fd", lambda _number: os.open(os.devnull, os.O_RDONLY))
    monkeypatch.setattr(libbpf, "map_info", lambda _fd: record)
    monkeypatch.setattr(maps, "lookup", lambda _fd, _info, _key: config.pack())
    assert members.config_of(info) == config
    other = {"xdp_dispatcher": "xdpctl_wide", "xdpctl_wide": "xdp_dispatcher"}[info.name]
    assert members.config_of(info._replace(name=other)) is None
    assert members.config_of(info._replace(name="firewall")) is None
    assert members.config_of(info._replace(map_ids=(31, 32))) is None
    assert members.config_of(info._replace(btf_id=0)) is None


@pytest.mark.parametrize(
    "other",
    [
        {"type": uapi.BPF_MAP_TYPE_PERCPU_ARRAY},
        {"type": uapi.BPF_MAP_TYPE_PROG_ARRAY, "value_size": 4},
        {"type": uapi.BPF_MAP_TYPE_HASH},
        {"max_entries": 2},
        {"value_size": 1 << 30},
        {"value_size": 0},
        {"flags": 0},
        {"type": uapi.BPF_MAP_TYPE_HASH, "key_size": 64},
    ],
)
def test_nothing_is_read_of_a_map_that_cannot_be_a_record(
    other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever calls a program xdp_dispatcher may give it any map."""
    record = records.MapInfo(31, 2, "rodata", 124, flags=uapi.BPF_F_RDONLY_PROG)

    def never(*_arguments: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr(maps, "lookup", never)
    assert maps.record(3, record._replace(**other), uapi.BPF_F_RDONLY_PROG) is None


def test_what_is_read_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel writes the values of all CPUs; of a type of later kernels it may do so, too."""
    room = []

    def call(_name: str, _fd: int, _key: bytes, value: Any) -> int:
        room.append(len(value))
        return 0

    monkeypatch.setattr(maps, "possible_cpus", lambda: 4)
    monkeypatch.setattr(libbpf, "call", call)
    found = records.MapInfo(31, uapi.BPF_MAP_TYPE_PERCPU_ARRAY, "x", 12)
    assert len(maps.lookup(3, found, bytes(4))) == 64
    assert len(maps.lookup(3, found._replace(type=2), bytes(4))) == 12
    assert len(maps.lookup(3, found._replace(type=99), bytes(4))) == 12
    assert room == [64, 12, 64]
    with pytest.raises(KernelError, match="EINVAL"):
        maps.lookup(3, found, bytes(3))


# --- the slots of a fused root ------------------------------------------------------------------


def test_the_slots_of_a_fused_root(bpffs: Bpffs, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its record: members, held ones with and without a process, one that nothing keeps.

    One is called through an array of xdpctl's own: it is as others are.
    """
    there = {11: ONE, 12: TWO, 13: THREE, 15: running("unpinned", 15)}

    def member(config: Config, slot: int, program: int, array: int = 0) -> Member:
        if program not in there:
            raise KernelError("bpf_prog_get_fd_by_id", errno.ENOENT)
        return replace(there[program], priority=config.priorities[slot], array_id=array)

    monkeypatch.setattr(reader, "member_of", member)
    own = homes.of(bpffs, INTERFACE)
    os.makedirs(own.dispatch(600))
    for slot in (0, 2, 4):
        Path(own.program(600, slot)).touch()
    os.makedirs(own.directory, exist_ok=True)
    Path(own.beside_pin("map", 13, CALLED)).touch()
    config = Config(
        protocol=0,
        frags=False,
        actions=(4,) * 6,
        priorities=tuple(range(6)),
        flags=(0,) * 6,
        programs=(11, 12, 13, 17, 14, 15),
        arrays=(0, 91, 92, 93, 0, 0),
    )
    root = records.ProgInfo(600, 6, "xdpctl_fused", "", 0, 0, 0, (), gpl=True)
    slots = Seen(root, config, own.listed(), bpffs, list, ours=True).slots("fused")
    assert [slot.number for slot in slots] == [*range(6)]
    assert [slot.member and slot.member.id for slot in slots] == [11, 12, 13, None, None, 15]
    assert [slot.member.priority for slot in slots if slot.member] == [0, 1, 2, 5]
    # A held member's process keeps it, and no pin of ours.
    assert [slot.pin for slot in slots] == [
        own.program(600, 0),
        None,
        own.program(600, 2),
        *[None] * 3,
    ]
    assert [slot.array_id for slot in slots] == [0, 91, 0, 93, 0, 0]
    assert [slot.lost for slot in slots] == [0, 0, 0, 0, 14, 0]
    assert {slot.link_id for slot in slots} == {0}
    kept = slots[1].member
    assert kept is not None
    assert kept.array_id == 91  # so that the next root calls the same array


# --- whose a root is ----------------------------------------------------------------------------


def reading(bpffs: Bpffs) -> observe._Reading:
    return observe._Reading(INTERFACE, bpffs, True, View({}))


def test_a_root_is_recorded_at_home_or_elsewhere(bpffs: Bpffs) -> None:
    own = homes.of(bpffs, INTERFACE)
    other = homes.of(bpffs, INTERFACE._replace(netns="9999", ifindex=5))
    for home in (own, other):
        os.mkdir(home.directory)
    own.make_dispatch(500, "netlink")
    other.make_dispatch(600, "link")
    own.with_ifindex(9).make_dispatch(700, "link")
    for root_id, attach, directory, ifindex in (
        (500, "netlink", own.directory, 7),
        (600, "link", other.directory, 5),
        (700, "link", own.directory, 9),
        (501, None, own.directory, 7),
    ):
        found = reading(bpffs)
        assert found.recorded(root_id) == attach
        assert (found.home.directory, found.home.ifindex) == (directory, ifindex)


# --- what is left over --------------------------------------------------------------------------


def test_nothing_is_left_where_nothing_was(bpffs: Bpffs) -> None:
    assert residue.left_over(None, homes.of(bpffs, INTERFACE), at_home=True) == ([], None)


def test_what_is_left_of_an_interface_without_a_root(bpffs: Bpffs) -> None:
    own = homes.of(bpffs, INTERFACE)
    os.mkdir(own.directory)
    own.make_dispatch(400, "link")
    own.note_made(400, 0, Made(None, "/maps"))
    own.note_made(400, 1, Made(31, "/maps/shared"))
    Path(own.directory, "map-11-callees").touch()
    Path(own.stage).touch()
    found, stranded = residue.left_over(None, own, at_home=True)
    assert (sorted(found), stranded) == (
        sorted(
            [
                own.dispatch(400),
                *("/maps", "/maps/shared"),
                f"{own.directory}/map-11-callees",
                own.stage,
            ]
        ),
        None,
    )


def test_what_is_left_beside_a_live_root(bpffs: Bpffs) -> None:
    own = homes.of(bpffs, INTERFACE)
    os.mkdir(own.directory)
    for root_id in (500, 501):
        own.make_dispatch(root_id, "link")
    own.note_made(500, 0, Made(31, "/maps/of/the/user"))
    own.note_made(501, 0, Made(32, "/maps/of/nobody"))
    for program in (11, 99):
        Path(own.directory, f"map-{program}-callees").touch()
    found, stranded = residue.left_over(state_of([ONE]).root, own, at_home=True)
    assert (sorted(found), stranded) == (
        sorted(
            [
                own.dispatch(501),
                f"{own.directory}/made-500-*",  # the record alone: what it pinned stays
                "/maps/of/nobody",
                f"{own.directory}/map-99-callees",
            ]
        ),
        None,
    )


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_netlink_root_that_runs_elsewhere_is_stranded(
    bpffs: Bpffs, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its interface moved away; its maps are not left over then, either."""
    own = homes.of(bpffs, INTERFACE)
    os.mkdir(own.directory)
    own.make_dispatch(400, "netlink")
    Path(own.directory, "map-11-callees").touch()
    monkeypatch.setattr(
        residue, "may_run_elsewhere", lambda _bpffs, root_id: elsewhere and root_id == 400
    )
    left = [own.dispatch(400), f"{own.directory}/map-11-callees"]
    expected: tuple[list[str], int | None] = ([], 400) if elsewhere else (left, None)
    assert residue.left_over(None, own, at_home=True) == expected


def test_beside_a_live_root_nobody_looks_for_others(
    bpffs: Bpffs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interface is here, and so are its roots: what it does not run is left over."""
    own = homes.of(bpffs, INTERFACE)
    os.mkdir(own.directory)
    for root_id in (500, 501):
        own.make_dispatch(root_id, "netlink")
    monkeypatch.setattr(residue, "may_run_elsewhere", lambda *_: pytest.fail("asked"))
    live = state_of([ONE], link_id=0).root
    assert residue.left_over(live, own, at_home=True) == ([own.dispatch(501)], None)


def test_what_is_left_of_a_chain_that_libxdp_went_on_with(bpffs: Bpffs) -> None:
    """Our records of it; the program arrays of those that run on stay."""
    own = homes.of(bpffs, INTERFACE)
    os.mkdir(own.directory)
    own.make_dispatch(400, "netlink")
    for program in (11, 12):
        Path(own.directory, f"map-{program}-callees").touch()
    theirs = state_of([ONE], owner="libxdp", link_id=0).root
    left = [own.dispatch(400), f"{own.directory}/map-12-callees"]
    assert residue.left_over(theirs, own, at_home=True) == (left, None)


@pytest.mark.parametrize("adopting", [False, True])
@pytest.mark.parametrize("program", [400, 500])
def test_a_pin_that_was_made_to_adopt_a_program_is_left_over(
    bpffs: Bpffs, program: int, adopting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note tells it from a link of ours that somebody gave another program: that one stays."""
    own = homes.of(bpffs, INTERFACE)
    os.mkdir(own.directory)
    Path(own.root_link).touch()
    link = records.LinkInfo(77, uapi.BPF_LINK_TYPE_XDP, program, (INTERFACE.ifindex,))
    monkeypatch.setattr(pin, "pinned_link", lambda _path: link)
    bare = state_of([], owner="other", link_id=77).root
    assert bare is not None
    assert bare.id == 500
    note = [own.adopting] if adopting else []
    if adopting:
        os.symlink("77", own.adopting)
    expected: tuple[list[str], int | None] = (note, program)
    if adopting and program == bare.id:
        expected = ([*note, own.root_link], None)
    assert residue.left_over(bare, own, at_home=True) == expected


# --- roots that may run elsewhere ---------------------------------------------------------------


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("seen", [False, True])
def test_a_root_may_run_where_one_cannot_look(
    bpffs: Bpffs, seen: bool, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In doubt it does. An interface that has the root recorded at home only shares it."""
    here = interfaces.current()
    inside = ["/here"]
    sharing = homes.of(bpffs, Interface("shares", 5, here))
    os.mkdir(sharing.directory)
    sharing.make_record(400, "netlink")
    programs = {"/here": {5: (400, 1)}, "/other": {3: (400, 1), 4: (0, 0)}}

    def visible(told: list[str] | None = None) -> Iterator[tuple[str, str]]:
        assert told is not None
        if refused:
            told.append("/proc/1/ns/net")
        yield from ((here, "/here"), ("8", "/gone"), ("9", "/other"))

    @contextlib.contextmanager
    def entered(path: str) -> Iterator[None]:
        if path == "/gone":
            raise FileNotFoundError(path)
        inside.append(path)
        yield
        inside.pop()

    monkeypatch.setattr(interfaces, "visible", visible)
    monkeypatch.setattr(interfaces, "entered", entered)
    monkeypatch.setattr(netlink, "xdp_programs", lambda: programs[inside[-1]])
    monkeypatch.setattr(libbpf, "prog_fd", lambda _number: os.open(os.devnull, os.O_RDONLY))
    if not seen:
        del programs["/other"][3]
    assert elsewhere.may_run_elsewhere(bpffs, 400) is (seen or refused)
    # Its own home is what was asked about.
    assert elsewhere.may_run_elsewhere(bpffs, 400, sharing.directory)


def test_a_root_that_is_gone_from_the_kernel_runs_nowhere(
    bpffs: Bpffs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That needs no look into other namespaces, and no right to one."""

    def gone(_number: int) -> int:
        raise KernelError("bpf_prog_get_fd_by_id", number)

    monkeypatch.setattr(libbpf, "prog_fd", gone)
    monkeypatch.setattr(interfaces, "visible", lambda _told: pytest.fail("looked"))
    number = errno.ENOENT
    assert not elsewhere.may_run_elsewhere(bpffs, 400)
    number = errno.EPERM
    with pytest.raises(KernelError):
        elsewhere.may_run_elsewhere(bpffs, 400)


# --- the loopback, as it is ---------------------------------------------------------------------


@bare_loopback
def test_an_interface_that_runs_nothing(bpffs: Bpffs) -> None:
    for view in (None, View(), View({})):
        state = observe.observe(LOOPBACK, bpffs, view=view)
        assert (state.root, state.residue, state.stranded) == (None, (), None)
        assert state.home.directory == homes.of(bpffs, LOOPBACK).directory
    assert os.listdir(bpffs.xdp) == []


@bare_loopback
def test_what_a_change_under_way_has_made_is_not_left_over(bpffs: Bpffs) -> None:
    own = homes.of(bpffs, LOOPBACK)
    os.mkdir(own.directory)
    own.make_dispatch(400, "link")
    assert observe.observe(LOOPBACK, bpffs).residue == (own.dispatch(400),)
    with locked_by_another(own.directory):
        assert observe.observe(LOOPBACK, bpffs).residue == ()
        # Who holds the lock, and so says it, sees what is there.
        assert observe.observe(LOOPBACK, bpffs, locked=True).residue == (own.dispatch(400),)
    assert observe.observe(LOOPBACK, bpffs, view=View()).residue == (own.dispatch(400),)


@bare_loopback
def test_an_empty_directory_is_left_over_after_a_while(
    bpffs: Bpffs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who makes one fills it soon, under the lock."""
    own = homes.of(bpffs, LOOPBACK)
    os.mkdir(own.directory)
    monkeypatch.setattr(residue, "_NEW", 3600)
    assert observe.observe(LOOPBACK, bpffs).residue == ()
    monkeypatch.setattr(residue, "_NEW", -3600)
    assert observe.observe(LOOPBACK, bpffs).residue == (own.directory,)
    with locked_by_another(own.directory):
        assert observe.observe(LOOPBACK, bpffs).residue == ()


def test_an_interface_that_is_gone(bpffs: Bpffs) -> None:
    with pytest.raises(VanishedError, match="gone0 went away"):
        observe.observe(GONE, bpffs)
    with pytest.raises(VanishedError, match="gone0 went away"):
        observe.observe(GONE, bpffs, view=View())
