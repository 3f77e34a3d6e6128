"""xdpctl.roots.counting: rows, whose they are, and what is pinned; with maps that are kept here."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.samples import DROP, INTERFACE, PASS, running
from xdpctl.bpffs import homes
from xdpctl.bpffs.directory import InterfacePins
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change import settle
from xdpctl.errors import KernelError, UnsupportedError
from xdpctl.kernel import libbpf, records, uapi
from xdpctl.kernel import maps as kernel_maps
from xdpctl.kernel.program import Program
from xdpctl.model.chain import USUAL, VACANT, Rules
from xdpctl.model.state import Place
from xdpctl.roots import counting
from xdpctl.roots.count_code import ROW_SIZE, SHORT_ROW_SIZE, Counter, Mask
from xdpctl.roots.counting import ROWS, Counting

CPUS = 2
ON = Rules(counted=1)
GOES_ON = 1 << VACANT | PASS


class Maps:
    """Maps by descriptor, each with its values by key; a pin is a file that names one."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.values: dict[int, dict[bytes, bytes]] = {}
        self.infos: dict[int, records.MapInfo] = {}
        self.ids: dict[int, int] = {}
        self.refused: set[str] = set()
        self.refused_once: set[str] = set()
        self.loaded: list[tuple[str, tuple[int, int], int]] = []
        self.unmade = 0
        for owner, name, call in (
            (kernel_maps, "possible_cpus", lambda: CPUS),
            (libbpf, "map_create", self.create),
            (kernel_maps, "lookup", self.lookup),
            (libbpf, "map_update", lambda fd, key, value: self.of(fd).__setitem__(key, value)),
            (libbpf, "map_info", lambda fd: self.infos[self.ids[fd]]),
            (libbpf, "pin", lambda fd, path: Path(path).write_text(str(self.ids.get(fd)))),
            (libbpf, "get", self.get),
            (libbpf, "links", lambda: []),
            (libbpf, "prog_main_function", lambda _fd: 5),
            (libbpf, "link_tracing", lambda _fd: os.open(os.devnull, os.O_RDONLY)),
            (Program, "load", self.load),
        ):
            patch.setattr(owner, name, call)

    def of(self, fd: int) -> dict[bytes, bytes]:
        return self.values[self.ids[fd]]

    def open(self, number: int) -> int:
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.ids[fd] = number
        return fd

    def lookup(self, fd: int, info: records.MapInfo, key: bytes) -> bytes:
        return self.of(fd).get(key, bytes(kernel_maps.value_size(info)))

    def create(self, kind: int, name: str, size: int, *, flags: int = 0, elements: int = 1) -> int:
        number = 40 + len(self.values)
        self.values[number] = {}
        self.infos[number] = records.MapInfo(
            number, kind, name, size, max_entries=elements, flags=flags
        )
        return self.open(number)

    def get(self, path: str) -> int:
        if not os.path.exists(path):
            raise KernelError("bpf_obj_get", errno.ENOENT)
        return self.open(int(Path(path).read_text()))

    def load(self, _kind: int, name: str, _code: bytes, **values: object) -> Program:
        if name in self.refused or name in self.refused_once:
            self.refused_once.discard(name)
            raise KernelError("bpf_prog_load", errno.EINVAL)
        target, attach_type = values["target"], values["attach_type"]
        assert isinstance(target, tuple)
        assert isinstance(attach_type, int)
        self.loaded.append((name, target, attach_type))
        return Program(os.open(os.devnull, os.O_RDONLY))


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> Maps:
    return Maps(monkeypatch)


@pytest.fixture
def paths(tmp_path: Path) -> InterfacePins:
    paths = homes.of(Bpffs(str(tmp_path)), INTERFACE)
    os.makedirs(paths.directory)
    return paths


@pytest.fixture
def undo() -> Iterator[contextlib.ExitStack]:
    stack = contextlib.ExitStack()
    yield stack
    stack.pop_all()


@pytest.fixture
def counters(maps: Maps, paths: InterfacePins, undo: contextlib.ExitStack) -> Iterator[Counting]:
    with contextlib.ExitStack() as closing:
        yield Counting.prepared(paths, closing, undo)


pytestmark = pytest.mark.usefixtures("nothing_is_left")


def names(paths: InterfacePins) -> list[str]:
    return list(paths.entries())


def stored(paths: InterfacePins) -> dict[int, tuple[int, int]]:
    """The places in use, as the next command finds them."""
    with counting.opened(paths) as found:
        assert found
        return {row: place for row, place in enumerate(found.places) if place[0]}


def test_maps_are_made_once_and_taken_back(
    counters: Counting, paths: InterfacePins, undo: contextlib.ExitStack
) -> None:
    assert names(paths) == ["counts", "masks"]
    again = contextlib.ExitStack()
    with contextlib.ExitStack() as closing:
        assert Counting.prepared(paths, closing, again).counter(0) == counters.counter(0)
    again.close()
    assert names(paths) == ["counts", "masks"]
    undo.close()
    assert names(paths) == []
    assert counting.read(paths) is None


def test_a_program_keeps_its_row(
    counters: Counting, maps: Maps, paths: InterfacePins, undo: contextlib.ExitStack
) -> None:
    assert [counters.row(one, Mask(PASS, last=False), undo) for one in (11, 12, 11)] == [0, 1, 0]
    assert counters.counter(1) == Counter(40, 1)
    assert stored(paths) == {0: (11, PASS), 1: (12, PASS)}
    members = [running("two", 12, actions=DROP), running("three", 13)]
    counters.sync(members, USUAL)
    # A program that has no row is not given one here.
    assert stored(paths) == {1: (12, 1 << VACANT | DROP)}
    counting.sync(paths, members[:1], Rules(on_vacant=1))
    assert stored(paths) == {1: (12, DROP | 1 << 32)}


def test_a_row_begins_at_nothing_and_is_given_back(
    counters: Counting, maps: Maps, paths: InterfacePins, undo: contextlib.ExitStack
) -> None:
    rows = maps.values[40]
    rows[bytes(4)] = b"\1" * ROW_SIZE * CPUS
    with contextlib.ExitStack() as failing:
        assert counters.row(11, Mask(0, last=True), failing) == 0
        assert rows[bytes(4)] == bytes(ROW_SIZE * CPUS)
        assert stored(paths)
    assert stored(paths) == {}
    assert counters.row(12, Mask(0, last=True), undo) == 0


def test_there_is_an_end_of_rows(counters: Counting, undo: contextlib.ExitStack) -> None:
    counters.places = [(100 + row, 0) for row in range(ROWS)]
    assert counters.row(100, Mask(0, last=True), undo) == 0
    with pytest.raises(UnsupportedError, match="too many programs"):
        counters.row(11, Mask(0, last=True), undo)


def test_what_was_counted_is_read_by_program(
    counters: Counting, maps: Maps, paths: InterfacePins, undo: contextlib.ExitStack
) -> None:
    counters.row(11, Mask(0, last=True), undo)
    maps.values[40][bytes(4)] = struct.pack("=23Q", *range(23)) * CPUS
    reading = counting.read(paths)
    assert reading
    assert {one: counted.ns for one, counted in reading.programs.items()} == {11: 4}
    assert 0 <= reading.now - reading.since < 5


def test_rows_of_an_earlier_version_go_on(
    counters: Counting, maps: Maps, paths: InterfacePins, undo: contextlib.ExitStack
) -> None:
    """xdpctl 0.1 made them without bytes: a change of such a chain must not fail."""
    maps.infos[40] = maps.infos[40]._replace(value_size=SHORT_ROW_SIZE)
    with contextlib.ExitStack() as closing:
        earlier = Counting.prepared(paths, closing, undo)
        assert earlier.row(11, Mask(0, last=True), undo) == 0
        assert earlier.counter(0) == Counter(40, 0, bytes=False)
        maps.values[40][bytes(4)] = struct.pack("=22Q", *range(22)) * CPUS
        assert earlier.read()[11].cells[5] == (38, 40, 42)


def test_a_program_that_hides_its_context_is_counted_without_bytes(
    counters: Counting, maps: Maps, paths: InterfacePins, undo: contextlib.ExitStack
) -> None:
    counters.row(11, Mask(0, last=True), undo)
    maps.refused_once.add("xdpctl_entry")
    counters.observe(paths, Program(99), running("count", 11), undo)
    assert [name for name, *_rest in maps.loaded] == ["xdpctl_exit", "xdpctl_entry"]
    assert set(paths.counters().values()) == {None, 11}


def test_an_ext_program_is_traced_once(
    counters: Counting, maps: Maps, paths: InterfacePins, undo: contextlib.ExitStack
) -> None:
    member = running("count", 11)
    counters.row(11, Mask(0, last=True), undo)
    for _ in range(2):
        counters.observe(paths, Program(99), member, undo)
    assert maps.loaded == [
        ("xdpctl_exit", (99, 5), uapi.BPF_TRACE_FEXIT),
        ("xdpctl_entry", (99, 5), uapi.BPF_TRACE_FENTRY),
    ]
    assert names(paths) == ["counter-11-entry", "counter-11-exit", "counts", "masks"]
    assert set(paths.counters().values()) == {None, 11}
    undo.close()
    assert names(paths) == []


def test_a_kernel_that_traces_nothing(
    counters: Counting, maps: Maps, paths: InterfacePins, undo: contextlib.ExitStack
) -> None:
    maps.refused.add("xdpctl_entry")
    counters.row(11, Mask(0, last=True), undo)
    with pytest.raises(UnsupportedError, match="cannot be counted") as caught:
        counters.observe(paths, Program(99), running("count", 11), undo)
    assert "--root fused" in caught.value.hint
    undo.close()
    assert names(paths) == []


@pytest.mark.parametrize(
    ("rules", "link", "left"),
    [
        (ON, 101, {"counts", "masks", "counter-11-exit", "rules-600"}),
        (ON, 0, {"counts", "masks", "rules-600"}),
        (USUAL, 101, set()),
    ],
)
def test_what_counts_goes_with_the_program_the_kind_and_the_rule(
    counters: Counting,
    paths: InterfacePins,
    monkeypatch: pytest.MonkeyPatch,
    rules: Rules,
    link: int,
    left: set[str],
) -> None:
    monkeypatch.setattr(settle, "links_elsewhere", lambda _bpffs: iter(()))
    for program in (11, 12):
        Path(paths.counter(program, "exit")).touch()
    if rules != USUAL:
        paths.rule(600, rules)
    settle.settle(paths, 600, {11: Place(0, link)}, [])
    assert set(names(paths)) == left
