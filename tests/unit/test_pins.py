"""xdpctl.bpffs.directory: paths, records and locks, as far as a plain file system shows them."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from tests.unit.samples import INTERFACE, locked_by_another
from xdpctl.bpffs import directory as pins
from xdpctl.bpffs import homes, pin
from xdpctl.bpffs.mount import Bpffs
from xdpctl.errors import BpffsError, KernelError, LockTimeoutError, VanishedError
from xdpctl.host import locks, rights
from xdpctl.host.locks import Patience
from xdpctl.model import labels


@pytest.fixture
def paths(tmp_path: Path) -> pins.InterfacePins:
    """The pins of an interface below a plain directory."""
    (tmp_path / "xdp").mkdir()
    return homes.of(Bpffs(str(tmp_path)), INTERFACE)


def test_paths_are_the_protocols() -> None:
    found = homes.of(Bpffs("/bpffs"), INTERFACE)
    assert found.directory == "/bpffs/xdp/xdpctl-4711-7"
    assert found.root_link == "/bpffs/xdp/xdpctl-4711-7/root_link"
    assert found.dispatch(500) == "/bpffs/xdp/dispatch-7-500"
    assert found.link(500, 9) == "/bpffs/xdp/dispatch-7-500/prog9-link"
    assert found.program(500, 0) == "/bpffs/xdp/dispatch-7-500/prog0-prog"


# --- records ------------------------------------------------------------------------------------


def test_records_are_the_roots_of_this_interface(paths: pins.InterfacePins) -> None:
    assert paths.recorded() == {}
    os.mkdir(paths.directory)
    assert paths.recorded() == {}
    # Of another interface, another number, another thing, and three that count.
    for name in ("70-5", "7-", "7-x", "7-5-6", "7--5", "7-0x5", "7-²", "7-20", "7-3"):
        os.symlink("link", f"{paths.directory}/dispatch-{name}")
    os.symlink("netlink", f"{paths.directory}/dispatch-7-4")
    for name in ("root_link", "xdispatch-7-9", "dispatch-7"):
        Path(paths.directory, name).touch()
    assert paths.recorded() == {3: "link", 4: "netlink", 20: "link"}


def test_a_record_of_older_versions_means_a_link(paths: pins.InterfacePins) -> None:
    """They wrote the path of the root's directory into it."""
    os.mkdir(paths.directory)
    os.symlink("../dispatch-7-500", f"{paths.directory}/dispatch-7-500")
    assert paths.recorded() == {500: "link"}


def test_the_numbers_that_roots_are_recorded_under(paths: pins.InterfacePins) -> None:
    assert paths.ifindexes() == set()
    os.mkdir(paths.directory)
    for name in ("7-500", "7-501", "12-600"):
        os.symlink("link", f"{paths.directory}/dispatch-{name}")
    for name in ("dispatch-8", "dispatch-9-x", "xdispatch-10-1", "dispatch-11-1-1", "root_link"):
        Path(paths.directory, name).touch()
    assert paths.ifindexes() == {7, 12}
    other = paths.with_ifindex(12)
    assert (other.directory, other.root_link) == (paths.directory, paths.root_link)
    assert other.recorded() == {600: "link"}
    assert other.dispatch(600) == f"{paths.bpffs.xdp}/dispatch-12-600"
    assert paths.recorded().keys() == {500, 501}


@pytest.mark.parametrize("attach", ["link", "netlink"])
def test_a_root_is_recorded_and_removed(paths: pins.InterfacePins, attach: labels.Attach) -> None:
    os.mkdir(paths.directory)
    paths.make_dispatch(500, attach)
    record = Path(paths.directory, "dispatch-7-500")
    directory = Path(paths.dispatch(500))
    assert record.is_symlink()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert paths.recorded() == {500: attach}
    for slot in range(2):
        Path(paths.link(500, slot)).touch()
        Path(paths.program(500, slot)).touch()
    paths.remove_dispatch(500)
    assert paths.recorded() == {}
    assert not directory.exists()
    paths.remove_dispatch(500)  # gone already


def test_a_record_without_its_directory_is_removed(paths: pins.InterfacePins) -> None:
    """What a crash between the two leaves."""
    os.mkdir(paths.directory)
    os.symlink("link", f"{paths.directory}/dispatch-7-500")
    assert paths.recorded() == {500: "link"}
    paths.remove_dispatch(500)
    assert os.listdir(paths.directory) == []


def test_a_root_takes_its_own_records_with_it(paths: pins.InterfacePins) -> None:
    os.mkdir(paths.directory)
    kept = {"borrowed-50-1", "borrowed-5000-1", "borrowed-500-", "made-50-0", "made-501-0"}
    kept |= {"dispatch-7-50", "dispatch-8-500", "map-500-1", "root_link"}
    for name in (*kept, "borrowed-500-0", "borrowed-500-11", "made-500-0", "made-500-12"):
        os.symlink("1 2 three", f"{paths.directory}/{name}")
    paths.make_dispatch(500, "link")
    paths.remove_dispatch(500)
    assert set(os.listdir(paths.directory)) == kept


# --- whose programs slots run -------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        labels.Origin(100, 4711, "firewall"),
        labels.Origin(100, 4711, "two words, (three) "),
        labels.Origin(2**32 - 1, 0, ""),
    ],
)
def test_an_origin_survives_its_text(origin: labels.Origin) -> None:
    assert labels.Origin.parse(str(origin)) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "100",
        "x 4711 app",
        "100 x app",
        "-1 5 app",
        "100 -5 app",
        "1.0 5 a",
        "² 5 a",
        " 1 5",
    ],
)
def test_a_text_that_is_no_origin(text: str) -> None:
    assert labels.Origin.parse(text) is None


def test_a_holder_in_words() -> None:
    assert labels.Origin(100, 4711, "app").holder == "4711 (app)"
    assert "cannot be seen" in labels.Origin(100, 0, "").holder


def test_slots_that_are_borrowed(paths: pins.InterfacePins) -> None:
    assert paths.borrowed(500) == {}
    os.mkdir(paths.directory)
    first, second = labels.Origin(100, 4711, "app"), labels.Origin(101, 0, "")
    paths.borrow(500, 0, first)
    paths.borrow(500, 9, second)
    paths.borrow(50, 1, first)
    for name in ("borrowed-500", "borrowed-500-x", "borrowed-500-1-1", "xborrowed-500-2"):
        os.symlink("1 2 three", f"{paths.directory}/{name}")
    os.symlink("nonsense", f"{paths.directory}/borrowed-500-3")
    assert paths.borrowed(500) == {0: first, 9: second}
    assert paths.borrowed(50) == {1: first}
    assert paths.borrowed(5) == {}


def test_a_slot_is_given_back_with_its_pin(paths: pins.InterfacePins) -> None:
    os.mkdir(paths.directory)
    paths.make_dispatch(500, "link")
    for slot in (1, 11):
        paths.borrow(500, slot, labels.Origin(100 + slot, 4711, "app"))
        Path(paths.link(500, slot)).touch()
    paths.give_back(500, 1)
    assert os.listdir(paths.dispatch(500)) == ["prog11-link"]
    assert paths.borrowed(500).keys() == {11}
    paths.give_back(500, 1)  # gone already
    assert paths.borrowed(500).keys() == {11}


# --- maps ---------------------------------------------------------------------------------------


def test_maps_are_kept_as_long_as_their_programs(paths: pins.InterfacePins) -> None:
    assert paths.kept_maps() == {}
    os.mkdir(paths.directory)
    for name in ("map-11-callees", "map-12-a-b", "map-110-callees", "mapping-13-x", "root_link"):
        Path(paths.directory, name).touch()
    kept = {"map-11-callees": 11, "map-12-a-b": 12, "map-110-callees": 110}
    assert paths.kept_maps() == {f"{paths.directory}/{name}": one for name, one in kept.items()}
    paths.remove_maps_but({11, 13})
    assert sorted(os.listdir(paths.directory)) == ["map-11-callees", "mapping-13-x", "root_link"]


def test_pins_that_a_load_made_elsewhere(paths: pins.InterfacePins) -> None:
    assert paths.made() == {}
    os.mkdir(paths.directory)
    # A directory comes before what is in it: they are in the order of their making.
    first = [
        labels.Made(None, "/maps"),
        *(labels.Made(30 + one, f"/maps/{one}") for one in range(11)),
    ]
    other = [labels.Made(2**32 - 1, "/maps of/two  words ")]
    for number, made in enumerate(first):
        paths.note_made(500, number, made)
    paths.note_made(50, 0, other[0])
    for name in ("made-500", "made-500-x", "made-500-1-1", "xmade-500-1"):
        os.symlink("31 /nowhere", f"{paths.directory}/{name}")
    assert os.readlink(f"{paths.directory}/made-500-0") == "0 /maps"
    assert os.readlink(f"{paths.directory}/made-500-3") == "32 /maps/2"
    assert paths.made() == {500: first, 50: other}
    paths.forget_made(500)
    assert paths.made() == {50: other}
    paths.forget_made(500)
    assert sorted(os.listdir(paths.directory)) == [
        "made-50-0",
        *("made-500", "made-500-1-1", "made-500-x", "xmade-500-1"),
    ]


def test_the_root_link_is_removed_if_it_is_there(paths: pins.InterfacePins) -> None:
    os.mkdir(paths.directory)
    paths.remove_root_link()
    Path(paths.root_link).touch()
    paths.remove_root_link()
    assert not os.path.exists(paths.root_link)


# --- locks --------------------------------------------------------------------------------------


def test_the_interfaces_directory_lives_while_it_is_used(paths: pins.InterfacePins) -> None:
    with paths.locked():
        assert os.stat(paths.directory).st_mode & 0o777 == 0o700
    assert not os.path.exists(paths.directory)
    with paths.locked():
        Path(paths.root_link).touch()
    assert os.listdir(paths.directory) == ["root_link"]


def test_the_first_directory_is_made_too(tmp_path: Path) -> None:
    found = homes.of(Bpffs(str(tmp_path)), INTERFACE)
    with found.locked():
        assert os.stat(tmp_path / "xdp").st_mode & 0o777 == 0o700


@pytest.fixture
def waits(paths: pins.InterfacePins, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set as soon as somebody has found the lock taken."""
    found = threading.Event()
    monkeypatch.setattr(locks, "_QUIET", 0)
    paths.bpffs.patience = Patience(60, lambda _text: found.set())
    return found


def test_who_waited_gets_a_directory_that_is_there(
    paths: pins.InterfacePins, waits: threading.Event
) -> None:
    """Not the one that the lock's first holder removed as it left."""
    seen: list[bool] = []

    def wait() -> None:
        with paths.locked():
            seen.append(os.path.isdir(paths.directory))

    waiter = threading.Thread(target=wait)
    with paths.locked():
        waiter.start()
        assert waits.wait(30)
        assert seen == []
    waiter.join()
    assert seen == [True]


def test_one_at_a_time(paths: pins.InterfacePins) -> None:
    """Also when the directory is removed under those who wait for it."""
    inside, most, done = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most, done
        for _ in range(50):
            with paths.locked():
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1
                    done += 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, done) == (1, 300)
    assert not os.path.exists(paths.directory)


def test_who_waited_makes_a_new_directory_where_one_was_moved_away(
    paths: pins.InterfacePins, waits: threading.Event
) -> None:
    """As the pins of an interface do that left its namespace: their new place stays."""
    moved = f"{paths.bpffs.xdp}/xdpctl-moved-500"
    seen: list[tuple[int, list[str]]] = []

    def wait() -> None:
        with paths.locked():
            seen.append((os.stat(paths.directory).st_ino, list(paths.entries())))
            Path(paths.root_link).touch()

    waiter = threading.Thread(target=wait)
    with paths.locked():
        before = os.stat(paths.directory).st_ino
        waiter.start()
        assert waits.wait(30)
        os.rename(paths.directory, moved)
        time.sleep(0.1)
        assert seen == []  # it waits at the old one still
        assert not os.path.exists(paths.directory)
    waiter.join()
    ((after, entries),) = seen
    assert (os.stat(moved).st_ino, entries) == (before, [])
    assert after != before
    assert os.listdir(moved) == []
    assert paths.entries() == ["root_link"]


def test_a_lock_goes_with_its_directory(paths: pins.InterfacePins) -> None:
    other = homes.of(paths.bpffs, INTERFACE._replace(ifindex=8))
    with other.locked():
        assert (other.is_locked(), paths.is_locked()) == (True, False)
        os.rename(other.directory, paths.directory)
        assert (other.is_locked(), paths.is_locked()) == (False, True)
    assert not paths.is_locked()
    assert os.path.isdir(paths.directory)  # it is not where the lock was taken


def test_an_interface_that_is_being_changed(paths: pins.InterfacePins) -> None:
    """That is seen without a lock being taken, and without a directory being made."""
    assert not paths.is_locked()
    assert not os.path.exists(paths.directory)
    os.mkdir(paths.directory)
    assert not paths.is_locked()
    with locked_by_another(paths.directory):
        assert paths.is_locked()
    assert not paths.is_locked()
    with paths.locked():
        assert paths.is_locked()


def test_who_holds_the_lock_is_named(paths: pins.InterfacePins) -> None:
    paths.bpffs.patience = Patience(0)
    os.mkdir(paths.directory)
    count = len(os.listdir("/proc/self/fd"))
    with (
        locked_by_another(paths.directory) as holder,
        pytest.raises(LockTimeoutError) as caught,
        paths.locked(),
    ):
        pytest.fail("locked")
    assert caught.value.what == "veth7 is locked"
    assert f"process {holder.pid} " in caught.value.why
    assert len(os.listdir("/proc/self/fd")) == count
    assert os.path.isdir(paths.directory)


def test_a_forked_child_does_not_keep_the_lock(paths: pins.InterfacePins) -> None:
    """A program that uses attach() may fork at any time, and the child runs on."""
    paths.bpffs.patience = Patience(0)
    os.mkdir(paths.directory)
    Path(paths.root_link).touch()
    reading, writing = os.pipe()
    with paths.locked(), paths.bpffs.pins_locked():
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    try:
        with paths.locked(), paths.bpffs.pins_locked():
            pass
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "xdp").touch()
    found = homes.of(Bpffs(str(tmp_path)), INTERFACE)
    with pytest.raises(BpffsError, match="cannot make a directory in") as caught:
        found._lock([])
    assert caught.value.exit_code == 9


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.EROFS, BpffsError, "remount,rw"),
        (errno.ENOSPC, BpffsError, "out of memory"),
        (errno.EPERM, BpffsError, "--bpffs, -p"),
        (errno.EACCES, BpffsError, ""),
        (errno.EMFILE, BpffsError, "ulimit -n"),
        (errno.EIO, BpffsError, ""),
        (errno.ENODEV, VanishedError, ""),
    ],
)
@pytest.mark.parametrize("raised", [OSError, KernelError])
def test_what_a_file_system_refuses(
    number: int,
    kind: type[BpffsError | VanishedError],
    text: str,
    raised: type[OSError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = OSError(number, "refused") if raised is OSError else KernelError("bpf_obj_pin", number)
    monkeypatch.setattr(rights, "missing", list)
    with pytest.raises(kind) as caught, pin.failing("pin links in", "/bpffs"):
        raise error
    assert text in caught.value.hint
    assert "as root" not in caught.value.hint
    monkeypatch.setattr(rights, "missing", lambda: ["CAP_BPF"])
    with pytest.raises(kind) as caught, pin.failing("pin links in", "/bpffs"):
        raise error
    assert ("as root" in caught.value.hint) == (number in (errno.EPERM, errno.EACCES))
