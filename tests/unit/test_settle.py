"""xdpctl.change.settle: pins that move and what is taken away, on plain directories."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from tests.unit.samples import INTERFACE, locked_by_another, running, state_of
from xdpctl.bpffs import homes, made
from xdpctl.bpffs.directory import InterfacePins
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change import settle
from xdpctl.errors import BpffsError, KernelError, LockTimeoutError
from xdpctl.host.interfaces import Interface
from xdpctl.host.locks import Patience
from xdpctl.kernel import libbpf, libc, records, uapi
from xdpctl.model.labels import Made, Origin
from xdpctl.model.state import Place, Root, State
from xdpctl.observe.reading import View, _Reading

MOVED_IN = Interface("veth7", 7, "9999")


@pytest.fixture
def bpffs(tmp_path: Path) -> Bpffs:
    """A plain directory in the place of a BPF file system, and nobody waits for a lock in it."""
    (tmp_path / "xdp").mkdir()
    return Bpffs(str(tmp_path), Patience(0))


@pytest.fixture
def paths(bpffs: Bpffs) -> InterfacePins:
    return homes.of(bpffs, INTERFACE)


def root() -> Root:
    """A root of ours that has no members."""
    found = state_of([]).root
    assert found is not None
    return found


def filled(bpffs: Bpffs, interface: Interface, root_id: int, ifindex: int = 0) -> InterfacePins:
    """The pins of an interface that runs a root, recorded under another number if so asked."""
    home = homes.of(bpffs, interface)
    home = home.with_ifindex(ifindex or home.ifindex)
    os.makedirs(home.directory, exist_ok=True)
    Path(home.root_link).touch()
    home.make_dispatch(root_id, "link")
    home.borrow(root_id, 0, Origin(100, 4711, "app"))
    Path(home.link(root_id, 0)).touch()
    return home


def tree(bpffs: Bpffs) -> set[str]:
    """Everything in xdp/, as paths from there."""
    found = (Path(bpffs.xdp)).rglob("*")
    return {str(one.relative_to(bpffs.xdp)) for one in found}


def entries_of(directory: str, ifindex: int, root_id: int) -> set[str]:
    """What `filled` makes."""
    own = [f"dispatch-{ifindex}-{root_id}", "root_link", f"borrowed-{root_id}-0"]
    outside = f"dispatch-{ifindex}-{root_id}"
    return {directory, outside, f"{outside}/prog0-link", *(f"{directory}/{one}" for one in own)}


# --- interfaces that moved ----------------------------------------------------------------------


def test_what_is_at_home_does_not_move(bpffs: Bpffs, paths: InterfacePins) -> None:
    filled(bpffs, INTERFACE, 500)
    before = tree(bpffs)
    with paths.locked():
        assert not settle.rehome(paths, State(INTERFACE, root(), (), paths.home))
        assert not settle.rehome(paths, State(INTERFACE, None, (), paths.home))
    assert tree(bpffs) == before == entries_of("xdpctl-4711-7", 7, 500)


def test_the_pins_of_an_interface_come_to_it(bpffs: Bpffs, paths: InterfacePins) -> None:
    """It came from another namespace, and they are still under that one's name."""
    home = filled(bpffs, MOVED_IN, 500)
    with paths.locked():
        assert settle.rehome(paths, State(INTERFACE, root(), (), home.home))
        assert not settle.rehome(paths, State(INTERFACE, root(), (), paths.home))
    assert tree(bpffs) == entries_of("xdpctl-4711-7", 7, 500)
    assert homes.of_root(bpffs, 500, INTERFACE.ifindex) is not None
    assert not paths.is_locked()


def test_pins_that_somebody_changes_do_not_move(bpffs: Bpffs, paths: InterfacePins) -> None:
    home = filled(bpffs, MOVED_IN, 500)
    state = State(INTERFACE, root(), (), home.home)
    with (
        locked_by_another(home.directory) as holder,
        pytest.raises(LockTimeoutError, match="veth7 is locked") as caught,
        paths.locked(),
    ):
        settle.rehome(paths, state)
    assert f"process {holder.pid} " in caught.value.why
    assert tree(bpffs) == entries_of("xdpctl-9999-7", 7, 500)


def test_pins_of_an_interface_that_left_make_room(bpffs: Bpffs, paths: InterfacePins) -> None:
    """Another one has its number now; what waits for the lock gets a new directory."""
    filled(bpffs, INTERFACE, 400)
    moved = homes.of_root(bpffs, 400, INTERFACE.ifindex)
    with paths.locked():
        assert settle.rehome(paths, State(INTERFACE, None, (), paths.home, stranded=400))
        assert not os.path.exists(paths.directory)
        moved = homes.of_root(bpffs, 400, INTERFACE.ifindex)
        assert moved is not None
        assert moved.directory == f"{bpffs.xdp}/xdpctl-moved-400"
        assert moved.is_locked()
    assert not moved.is_locked()
    assert tree(bpffs) == entries_of("xdpctl-moved-400", 7, 400)


def test_an_interface_comes_to_where_another_one_left(bpffs: Bpffs, paths: InterfacePins) -> None:
    """Both of them have this number; room is made first."""
    filled(bpffs, INTERFACE, 400)
    home = filled(bpffs, MOVED_IN, 500)
    with paths.locked():
        assert settle.rehome(paths, State(INTERFACE, root(), (), home.home, stranded=400))
    left = entries_of("xdpctl-moved-400", 7, 400)
    assert tree(bpffs) == left | entries_of("xdpctl-9999-7", 7, 500)
    with paths.locked():
        assert settle.rehome(paths, State(INTERFACE, root(), (), home.home))
    assert tree(bpffs) == left | entries_of("xdpctl-4711-7", 7, 500)
    # The one that left is found at its new place, too, and comes from there.
    other = homes.of(bpffs, MOVED_IN)
    there = homes.of_root(bpffs, 400, INTERFACE.ifindex)
    assert there is not None
    with other.locked():
        assert settle.rehome(other, State(MOVED_IN, root(), (), there.home))
    assert tree(bpffs) == entries_of("xdpctl-9999-7", 7, 400) | entries_of("xdpctl-4711-7", 7, 500)


def test_an_interface_with_a_new_number(bpffs: Bpffs, paths: InterfacePins) -> None:
    """One that moved gets another number where its own is taken."""
    home = filled(bpffs, INTERFACE, 500, ifindex=5)
    with paths.locked():
        assert settle.rehome(paths, State(INTERFACE, root(), (), home.home))
        assert paths.recorded() == {500: "link"}
        assert not settle.rehome(paths, State(INTERFACE, root(), (), paths.home))
    assert tree(bpffs) == entries_of("xdpctl-4711-7", 7, 500)
    assert paths.ifindexes() == {7}


@pytest.mark.parametrize(
    ("directory", "record"),
    [(True, False), (False, True), (True, True)],
    ids=["the directory", "the record", "both"],
)
def test_a_new_number_is_given_to_its_end(
    bpffs: Bpffs, paths: InterfacePins, directory: bool, record: bool
) -> None:
    """An earlier command got so far; a record beside the old one is no state of ours."""
    home = filled(bpffs, INTERFACE, 500, ifindex=5)
    if directory:
        os.rename(home.dispatch(500), paths.dispatch(500))
    if record:
        os.symlink("link", f"{paths.directory}/dispatch-7-500")
    with paths.locked():
        assert settle.rehome(paths, State(INTERFACE, root(), (), home.home))
    assert tree(bpffs) == entries_of("xdpctl-4711-7", 7, 500)


class _Crash(BaseException):
    """The process ends here."""


def bring_home(bpffs: Bpffs, paths: InterfacePins) -> None:
    """What a command does first, with the home of the root as a reading finds it."""
    for _attempt in range(5):
        reading = _Reading(INTERFACE, bpffs, True, View({}))
        assert reading.recorded(500) == "link"
        with paths.locked():
            if not settle.rehome(paths, State(INTERFACE, root(), (), reading.home.home)):
                return
    pytest.fail("it moves for ever")


@pytest.mark.parametrize("calls", range(6))
def test_a_move_that_was_cut_short_is_finished_by_the_next_command(
    bpffs: Bpffs, paths: InterfacePins, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever that was: all that remains is in its place, and nothing beside it."""
    filled(bpffs, MOVED_IN, 500, ifindex=5)
    left = [calls]

    def crashing(name: str) -> Callable[..., None]:
        real: Callable[..., None] = getattr(os, name)

        def call(*arguments: str) -> None:
            if left[0] == 0:
                raise _Crash
            left[0] -= 1
            real(*arguments)

        return call

    with monkeypatch.context() as patch, contextlib.suppress(_Crash):
        for name in ("symlink", "rename", "unlink"):
            patch.setattr(os, name, crashing(name))
        bring_home(bpffs, paths)
    bring_home(bpffs, paths)
    assert tree(bpffs) == entries_of("xdpctl-4711-7", 7, 500)


def test_all_at_once(bpffs: Bpffs, paths: InterfacePins) -> None:
    """Room is made, the pins come, and get the new number; each a step of its own."""
    filled(bpffs, INTERFACE, 400)
    home = filled(bpffs, MOVED_IN, 500, ifindex=5)
    states = [
        State(INTERFACE, root(), (), home.home, stranded=400),
        State(INTERFACE, root(), (), home.home),
        State(INTERFACE, root(), (), paths.with_ifindex(5).home),
    ]
    for state in states:
        with paths.locked():
            assert settle.rehome(paths, state)
    assert tree(bpffs) == entries_of("xdpctl-moved-400", 7, 400) | entries_of(
        "xdpctl-4711-7", 7, 500
    )


def test_an_interface_comes_to_where_something_is_left(bpffs: Bpffs, paths: InterfacePins) -> None:
    """Of an interface that is gone and had this number: its link is of no use to anybody."""
    filled(bpffs, INTERFACE, 400)
    home = filled(bpffs, MOVED_IN, 500)
    residue = (paths.dispatch(400), paths.root_link)
    state = State(INTERFACE, root(), residue, home.home)
    with paths.locked():
        assert settle.repair(bpffs, paths, state) == residue
        assert settle.rehome(paths, state)
    assert tree(bpffs) == entries_of("xdpctl-4711-7", 7, 500)


# --- what is left over --------------------------------------------------------------------------


def test_nothing_is_repaired_where_nothing_is_left(bpffs: Bpffs, paths: InterfacePins) -> None:
    filled(bpffs, INTERFACE, 400)
    before = tree(bpffs)
    with paths.locked():
        assert settle.repair(bpffs, paths, State(INTERFACE, None, (), paths.home)) == ()
        # What is stranded is about to move, with all that is beside it.
        stranded = State(INTERFACE, None, ("/left",), paths.home, stranded=400)
        assert settle.repair(bpffs, paths, stranded) == ()
    assert tree(bpffs) == before


def test_everything_of_an_interface_without_a_root_is_removed(
    bpffs: Bpffs, paths: InterfacePins
) -> None:
    filled(bpffs, INTERFACE, 400)
    paths.make_dispatch(401, "netlink")
    Path(paths.directory, "map-11-callees").touch()
    Path(paths.stage).touch()
    filled(bpffs, MOVED_IN._replace(ifindex=8), 600)
    with paths.locked():
        state = State(INTERFACE, None, ("/left",), paths.home)
        assert settle.repair(bpffs, paths, state) == ("/left",)
    assert tree(bpffs) == entries_of("xdpctl-9999-8", 8, 600)


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> dict[int, set[int]]:
    """Files for pinned maps, each with its map's id as text; returns which program uses which."""
    uses: dict[int, set[int]] = {}

    def get(path: str) -> int:
        try:
            return os.open(path, os.O_RDONLY)
        except OSError as error:
            raise KernelError("bpf_obj_get", error.errno or 0) from error

    def map_info(fd: int) -> records.MapInfo:
        text = os.pread(fd, 10, 0)
        if not text.isdigit():
            raise KernelError("bpf_obj_get_info_by_fd", errno.EINVAL)
        return records.MapInfo(int(text), uapi.BPF_MAP_TYPE_ARRAY, "", 4)

    def used(besides: Collection[int] = ()) -> set[int]:
        return {one for program in uses.keys() - set(besides) for one in uses[program]}

    monkeypatch.setattr(libbpf, "get", get)
    monkeypatch.setattr(libbpf, "map_info", map_info)
    monkeypatch.setattr(made, "_used_maps", used)
    return uses


@pytest.mark.usefixtures("maps", "nothing_is_left")
def test_directories_made_elsewhere_are_taken_back(tmp_path: Path) -> None:
    """The inner first, as far as nobody has put anything into them."""
    outer, inner, kept = tmp_path / "outer", tmp_path / "outer/inner", tmp_path / "kept"
    inner.mkdir(parents=True)
    kept.mkdir()
    (kept / "somebody's").touch()
    made.unmake([Made(None, str(one)) for one in (outer, kept, inner, tmp_path / "gone")])
    assert not outer.exists()
    assert [one.name for one in kept.iterdir()] == ["somebody's"]


@pytest.mark.usefixtures("nothing_is_left")
def test_maps_pinned_elsewhere_are_taken_back(tmp_path: Path, maps: dict[int, set[int]]) -> None:
    """If the pin is that of the map still, and no program but those of the load uses it."""
    directory = tmp_path / "maps"
    directory.mkdir()
    for name, text in (("ours", "31"), ("theirs", "99"), ("used", "33"), ("none", "a link")):
        (directory / name).write_text(text)
    maps.update({11: {31, 33}, 12: {33}})
    pins = [Made(None, str(directory))]
    names = ("ours", "theirs", "used", "none", "gone")
    pins += [Made(31 + place, f"{directory}/{name}") for place, name in enumerate(names)]
    made.unmake(pins, {11})
    assert sorted(os.listdir(directory)) == ["none", "theirs", "used"]
    (directory / "none").unlink()
    (directory / "theirs").unlink()
    made.unmake(pins, {11, 12})
    assert not directory.exists()


@pytest.mark.usefixtures("nothing_is_left")
def test_a_map_that_no_load_made_is_not_removed(tmp_path: Path, maps: dict[int, set[int]]) -> None:
    """Another program's own pin at the path, made after the note and before the crash."""
    path = tmp_path / "packets"
    path.write_text("32")
    made.unmake([Made(31, str(path))])
    assert path.exists()


def test_a_repair_takes_back_what_the_load_made(
    bpffs: Bpffs, paths: InterfacePins, maps: dict[int, set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the load that was cut short; beside a live root what its load made is the user's."""
    monkeypatch.setattr(libc, "grace_period", lambda: None)
    monkeypatch.setattr(InterfacePins, "programs", lambda _self, root: {root // 10})
    filled(bpffs, INTERFACE, 500)
    paths.make_dispatch(600, "link")
    kept, left = Path(bpffs.path, "kept"), Path(bpffs.path, "left")
    for number, (path, root_id) in enumerate(((kept, 500), (left, 600))):
        path.write_text(f"{31 + number}")
        paths.note_made(root_id, number, Made(31 + number, str(path)))
    maps.update({50: {31}, 60: {32}})
    with paths.locked():
        settle.repair(bpffs, paths, State(INTERFACE, root(), ("/left",), paths.home))
    assert (kept.exists(), left.exists()) == (True, False)
    assert paths.made() == {}
    assert tree(bpffs) == entries_of("xdpctl-4711-7", 7, 500)


def test_nothing_made_needs_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "_used_maps", lambda besides: pytest.fail("asked"))
    made.unmake([])


def test_a_file_system_that_refuses_a_move(bpffs: Bpffs, paths: InterfacePins) -> None:
    filled(bpffs, INTERFACE, 400)
    filled(bpffs, Interface("", 400, "moved"), 300)  # in the way
    state = State(INTERFACE, None, (), paths.home, stranded=400)
    with paths.locked(), pytest.raises(BpffsError, match="cannot move pins in"):
        settle.rehome(paths, state)
    assert paths.recorded() == {400: "link"}


def test_places() -> None:
    state = state_of([running("one", 11), None, running("two", 12)])
    assert settle.places(None) == {}
    assert settle.places(state.root) == {11: Place(0, 100), 12: Place(2, 102)}
