"""xdpctl.roots.construct: members on roots of both kinds, with a kernel that takes everything."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.unit.samples import INTERFACE, chain_of, fresh, plan_of, running, state_of
from xdpctl.bpffs import homes
from xdpctl.bpffs.directory import CALLED
from xdpctl.bpffs.mount import Bpffs
from xdpctl.errors import KernelError, UnsupportedError, UsageError
from xdpctl.kernel import libbpf, records, uapi
from xdpctl.kernel.link import Link
from xdpctl.kernel.maps import Map
from xdpctl.kernel.program import Program
from xdpctl.model.chain import USUAL, Chain, Kind, Member, Rules
from xdpctl.model.request import AskedMode
from xdpctl.model.source import Image, Source
from xdpctl.model.state import Place
from xdpctl.programs import image, loading
from xdpctl.programs.binding import Device
from xdpctl.roots import dispatcher, fused, fused_code, kinds
from xdpctl.roots.construct import Construction
from xdpctl.roots.hook import LostRace

CODE = Image(b"", frags=False, gpl=True)
XDP, EXT = uapi.BPF_PROG_TYPE_XDP, uapi.BPF_PROG_TYPE_EXT
FREE = 500
"""A root that is bound to nothing."""


class Kernel:
    """Programs by id, each with its type; what is open is a descriptor of /dev/null."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.types = {11: XDP, 12: EXT}
        self.behind: dict[int, int] = {}
        self.without_image: set[int] = set()
        self.last = 100
        self.parts: list[fused_code.Part] = []
        self.hooked: list[tuple[int, int]] = []
        self.sources: list[Source] = []
        self.devices: list[Device | None] = []
        self.targets: list[int | None] = []
        self.tags: dict[int, str] = {}
        self.asked = (0, 0)
        for owner, name, call in (
            (libbpf, "prog_fd", self.prog_fd),
            (libbpf, "prog_info", self.prog_info),
            (libbpf, "link_info", lambda fd: records.LinkInfo(self.behind[fd], 2, 0, (0, 600, 1))),
            (libbpf, "map_info", lambda fd: records.MapInfo(self.behind[fd], 3, "a", 4)),
            (libbpf, "get", lambda _path: self.open(40)),
            (libbpf, "pin", lambda _fd, path: Path(path).touch()),
            (loading, "load", self.load),
            (fused, "held_array", lambda _program, _name="": Map(self.open(70))),
            (fused, "attempt", self.build_fused),
            (dispatcher, "build", self.build_ext),
            (dispatcher.Dispatcher, "hook", self.hook),
            (image, "of", lambda info: None if info.id in self.without_image else CODE),
            (image, "load_ext", lambda *_: Program(self.open(self.new(EXT)))),
        ):
            patch.setattr(owner, name, call)

    misfits: tuple[str, ...] = ()

    def open(self, number: int) -> int:
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.behind[fd] = number
        return fd

    def new(self, kind: int) -> int:
        self.last += 1
        self.types[self.last] = kind
        return self.last

    def prog_fd(self, number: int) -> int:
        if number not in self.types:
            raise KernelError("bpf_prog_get_fd_by_id", 2)
        return self.open(number)

    def prog_info(self, fd: int) -> records.ProgInfo:
        number = self.behind[fd]
        tag = self.tags.get(number, f"{number}")
        return records.ProgInfo(number, self.types[number], "", tag, 0, 0, 5, (), gpl=True)

    def load(
        self, source: Source, _frags: bool, target: Any, *, device: Device | None = None
    ) -> loading.Loaded:
        self.sources.append(source)
        self.devices.append(device)
        self.targets.append(target and self.behind[target[0]])
        return loading.Loaded(Program(self.open(self.new(EXT if target else XDP))), {}, {})

    def build_fused(
        self, parts: Any, why: int, rules: Rules, ifindex: int, _alone: set[int]
    ) -> tuple[Program, records.ProgInfo]:
        assert ifindex == INTERFACE.ifindex
        for part in parts:
            if not part.array_id and part.member.name in self.misfits:
                raise fused.Misfit(part, partial(UnsupportedError, f"{part.member.name} does not"))
        self.parts, self.why, self.rules = list(parts), why, rules
        root = Program(self.open(600))
        self.types[600] = XDP
        return root, root.info

    def build_ext(
        self, members: Any, protocol: int = 2, ifindex: int = 0, rules: Rules = USUAL
    ) -> dispatcher.Dispatcher:
        slots = range(len(members))
        names = tuple(f"prog{slot}" for slot in slots)
        if ifindex:
            self.asked, self.rules = (protocol, ifindex), rules
        return dispatcher.Dispatcher(
            Program(self.open(600 if ifindex else FREE)),
            600,
            5,
            tuple(20 + slot for slot in slots),
            names,
        )

    def hook(self, program: Program, slot: int) -> Link:
        self.hooked.append((self.behind[program.fd], slot))
        return Link(self.open(300 + slot))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(monkeypatch)
    # A method of a tuple gets the tuple as well.
    monkeypatch.setattr(dispatcher.Dispatcher, "hook", lambda _root, *values: kernel.hook(*values))
    return kernel


@contextlib.contextmanager
def made(
    bpffs: Bpffs, target: Chain, kind: Kind, undo: contextlib.ExitStack | None = None, why: int = 0
) -> Iterator[Construction]:
    """A root that was built for an interface that runs two programs on a root of the other kind."""
    state = state_of([running("one", 11), running("two", 12)])
    plan = replace(plan_of(state, target, kind=kind), why=why)
    paths = homes.of(bpffs, INTERFACE)
    os.makedirs(paths.directory, exist_ok=True)
    with contextlib.ExitStack() as closing, undo or contextlib.ExitStack() as undoing:
        done = Construction(plan, paths, lambda *_, **__: None, closing, undoing)
        kinds.build(done)
        yield done


pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture
def bpffs(tmp_path: Path) -> Bpffs:
    return Bpffs(str(tmp_path))


def test_a_fused_root_is_made_of_its_members(kernel: Kernel, bpffs: Bpffs) -> None:
    """Each a program of its own, whatever its type; a held one is called through an array."""
    target = chain_of(
        running("one", 11),
        fresh("new"),
        replace(fresh("mine"), held=True),
        replace(running("two", 12), array_id=71),
    )
    with made(bpffs, target, "fused", why=95) as root:
        assert (root.root.id, kernel.why) == (600, 95)
        assert [part.member.name for part in kernel.parts] == ["one", "new", "mine", "two"]
        assert [part.program_id for part in kernel.parts] == [11, 101, 102, 12]
        assert [part.array_id for part in kernel.parts] == [0, 0, 70, 71]
        assert kernel.types[101] == kernel.types[102] == XDP
        assert [member.id for member in root.members] == [11, 101, 102, 12]
        assert [hooked.link for hooked in root.hooked] == [None] * 4
        assert root.places == {
            number: Place(slot, 0) for slot, number in enumerate([11, 101, 102, 12])
        }
        assert (list(root.holds), root.renewed, kernel.hooked) == ([102], {}, [])


def test_what_does_not_fit_is_called(kernel: Kernel, bpffs: Bpffs) -> None:
    """Through an array that is pinned for as long as the root is used, and used again then."""
    own = homes.of(bpffs, INTERFACE)
    kernel.misfits, target = ("new", "one"), chain_of(running("one", 11), fresh("new"))
    undo = contextlib.ExitStack()
    pins = {own.beside_pin("map", number, CALLED) for number in (11, 101)}
    with made(bpffs, target, "fused", undo) as root:
        assert [part.array_id for part in kernel.parts] == [70, 70]
        assert [member.array_id for member in root.members] == [0, 0]
        assert set(own.kept_maps()) == pins
    assert not own.kept_maps()
    Path(own.beside_pin("map", 11, CALLED)).touch()
    kernel.misfits = ()
    with made(bpffs, target, "fused"):
        assert [part.array_id for part in kernel.parts] == [40, 0]


def test_what_cannot_be_called_is_refused(kernel: Kernel, bpffs: Bpffs) -> None:
    """An EXT program goes into no array; the first refusal is told, and nothing is left."""
    own = homes.of(bpffs, INTERFACE)
    kernel.misfits, target = ("one", "two"), chain_of(running("one", 11), running("two", 12))
    with (
        pytest.raises(UnsupportedError, match="one does not"),
        made(bpffs, target, "fused"),
    ):
        pass
    assert not own.kept_maps()


def test_what_was_fused_becomes_an_ext_program(kernel: Kernel, bpffs: Bpffs) -> None:
    """With another id, and its program arrays under that; one that was EXT before stays itself."""
    own = homes.of(bpffs, INTERFACE)
    os.makedirs(own.directory)
    Path(own.beside_pin("map", 11, "callees")).touch()
    undo = contextlib.ExitStack()
    with made(bpffs, chain_of(running("one", 11), running("two", 12)), "ext", undo) as root:
        assert kernel.hooked == [(101, 0), (12, 1)]
        assert root.renewed == {11: 101}
        assert [member.id for member in root.members] == [101, 12]
        assert root.places == {101: Place(0, 300), 12: Place(1, 301)}
        assert set(own.kept_maps().values()) == {11, 101}
    # What was made is taken back unless the root is used.
    assert set(own.kept_maps().values()) == {11}


@pytest.mark.parametrize("kind", ["ext", "fused"])
def test_what_a_held_member_hangs_on_goes_with_a_failure(
    kernel: Kernel, bpffs: Bpffs, kind: Kind
) -> None:
    with made(bpffs, chain_of(replace(fresh("mine"), held=True)), kind) as root:
        ((program, held),) = root.holds.items()
        assert program == 101
        fd = held.fd
        os.fstat(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert kernel.last == 101


@pytest.mark.parametrize(("kind", "bare"), [("fused", 12), ("ext", 11)])
def test_a_program_without_its_code_cannot_change_sides(
    kernel: Kernel, bpffs: Bpffs, kind: Kind, bare: int
) -> None:
    kernel.without_image = {bare}
    target = chain_of(running("one", 11), running("two", 12))
    with (
        pytest.raises(UnsupportedError, match=rf"\(id {bare}\).*{kind} kind"),
        made(bpffs, target, kind),
    ):
        pass


def test_a_program_that_is_gone_is_a_lost_race(kernel: Kernel, bpffs: Bpffs) -> None:
    assert 13 not in kernel.types
    for kind in ("ext", "fused"):
        with (
            pytest.raises(LostRace),
            made(bpffs, chain_of(running("gone", 13)), kind),
        ):
            pass


@pytest.mark.parametrize("asked", [None, 1, 3])
def test_a_dispatcher_has_the_protocol_of_the_plan_and_its_device(
    kernel: Kernel, bpffs: Bpffs, asked: int | None
) -> None:
    state = state_of([running("two", 12)])
    plan = plan_of(state, state.chain, protocol=asked)
    paths = homes.of(bpffs, INTERFACE)
    os.makedirs(paths.directory)
    with contextlib.ExitStack() as closing, contextlib.ExitStack() as undo:
        kinds.build(Construction(plan, paths, lambda *_, **__: None, closing, undo))
    assert kernel.asked == (asked or 2, INTERFACE.ifindex)


# --- programs that are bound to their device ----------------------------------------------------


@pytest.mark.parametrize(("kind", "free"), [("ext", FREE), ("fused", None)])
def test_only_those_that_ask_the_device_are_bound_to_it(
    kernel: Kernel, bpffs: Bpffs, kind: Kind, free: int | None
) -> None:
    """What is loaded for a root that is bound is bound as well: the others are for another one."""
    target = chain_of(fresh("free"), fresh("asks", devbound=True))
    root = 600 if kind == "ext" else None
    with made(bpffs, target, kind):
        assert kernel.devices == [None, HERE]
        assert kernel.targets == [free, root]
    kernel.targets.clear()
    with made(bpffs, chain_of(fresh("one", devbound=True)), kind):
        assert kernel.targets == [root]


# --- in the place of a program ------------------------------------------------------------------


def in_place_of(number: int, *, forced: bool = False) -> Member:
    """A new member that stands for a program that runs."""
    new = fresh("new")
    assert new.source is not None
    return replace(new, source=replace(new.source, maps_of=number, forced=forced))


@pytest.mark.parametrize("kind", ["ext", "fused"])
@pytest.mark.parametrize(("same", "forced"), [(True, False), (True, True), (False, True)])
def test_a_program_takes_the_place_of_its_like(
    kernel: Kernel, bpffs: Bpffs, kind: Kind, same: bool, forced: bool
) -> None:
    kernel.tags = {101: "code", 11: "code" if same else "other code"}
    with made(bpffs, chain_of(in_place_of(11, forced=forced)), kind) as root:
        # Looked at first with maps of its own.
        assert [source.maps_of for source in kernel.sources] == ([11] if forced else [0, 11])
        assert [member.id for member in root.members] == [100 + len(kernel.sources)]


@pytest.mark.parametrize("kind", ["ext", "fused"])
def test_other_code_does_not_take_the_place_of_a_program(
    kernel: Kernel, bpffs: Bpffs, kind: Kind
) -> None:
    kernel.tags = {101: "new code", 11: "old code"}
    with (
        pytest.raises(UsageError, match=r"new of /objects/new\.o is not the program that runs"),
        made(bpffs, chain_of(in_place_of(11)), kind),
    ):
        pytest.fail("made")
    assert (kernel.hooked, kernel.parts) == ([], [])


def test_the_tags_of_both_are_told(kernel: Kernel, bpffs: Bpffs) -> None:
    kernel.tags = {101: "new code", 11: "old code"}
    with pytest.raises(UsageError) as caught, made(bpffs, chain_of(in_place_of(11)), "ext"):
        pytest.fail("made")
    assert "its tag is new code, that of program 11 () is old code" in caught.value.why
    assert "--force" in caught.value.hint


def test_a_member_that_stands_for_nobody_may_have_any_code(kernel: Kernel, bpffs: Bpffs) -> None:
    with made(bpffs, chain_of(fresh("new")), "ext") as root:
        assert [member.id for member in root.members] == [101]
    assert [source.maps_of for source in kernel.sources] == [0]


HERE, CARD = Device(INTERFACE.ifindex), Device(INTERFACE.ifindex, card=True)


@pytest.mark.parametrize(
    ("mode", "bound", "device"),
    [("hw", False, CARD), ("native", False, None), ("skb", False, None), ("native", True, HERE)],
)
def test_a_program_alone_is_the_root(
    kernel: Kernel, bpffs: Bpffs, mode: AskedMode, bound: bool, device: Device | None
) -> None:
    """A new one, on the card if that is asked for; nothing is hooked onto it or made beside it."""
    plan = plan_of(state_of(None), chain_of(fresh("new", devbound=bound)), mode, kind="bare")
    with contextlib.ExitStack() as closing, contextlib.ExitStack() as undo:
        done = Construction(plan, homes.of(bpffs, INTERFACE), lambda *_, **__: None, closing, undo)
        kinds.build(done)
        ((root_id, place),) = done.places.items()
        assert kernel.behind[done.root.program.fd] == done.root.id == root_id == done.members[0].id
        assert (kernel.types[root_id], kernel.devices, kernel.hooked) == (XDP, [device], [])
        assert (place.link_id, done.hooked) == (0, [])


def test_a_program_alone_that_ran_before_is_the_root_again(kernel: Kernel, bpffs: Bpffs) -> None:
    with made(bpffs, chain_of(running("one", 11)), "bare") as done:
        assert (kernel.behind[done.root.program.fd], done.root.id, kernel.sources) == (11, 11, [])
    with pytest.raises(LostRace), made(bpffs, chain_of(running("gone", 99)), "bare"):
        pass
