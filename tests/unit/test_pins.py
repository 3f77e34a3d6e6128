"""xdpctl.pins: paths, records, locks and mounts, as far as a plain file system shows them."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.unit.samples import INTERFACE
from xdpctl import pins
from xdpctl.errors import BpffsError, KernelError, NotFoundError, VanishedError


@pytest.fixture
def paths(tmp_path: Path) -> pins.InterfacePins:
    """The pins of an interface below a plain directory."""
    (tmp_path / "xdp").mkdir()
    return pins.Bpffs(str(tmp_path)).interface(INTERFACE)


def test_paths_are_the_protocols() -> None:
    found = pins.Bpffs("/bpffs").interface(INTERFACE)
    assert found.directory == "/bpffs/xdp/xdpctl-4711-7"
    assert found.root_link == "/bpffs/xdp/xdpctl-4711-7/root_link"
    assert found.dispatch(500) == "/bpffs/xdp/dispatch-7-500"
    assert found.link(500, 9) == "/bpffs/xdp/dispatch-7-500/prog9-link"
    assert found.program(500, 0) == "/bpffs/xdp/dispatch-7-500/prog0-prog"


# --- interfaces ---------------------------------------------------------------------------------


def test_interfaces_have_the_kernels_numbers() -> None:
    everything = pins.Interface.all()
    assert [(one.ifindex, one.name) for one in everything] == sorted(socket.if_nameindex())
    assert len({one.netns for one in everything}) == 1
    for one in everything:
        assert pins.Interface.named(one.name) == one


@pytest.mark.parametrize("name", ["nosuch0", "", "a" * 300, "lo ", "\udcff"])
def test_an_interface_that_is_not_there(name: str) -> None:
    with pytest.raises(NotFoundError, match="no interface named"):
        pins.Interface.named(name)


def test_an_interface_exists_until_it_is_gone() -> None:
    assert all(one.exists() for one in pins.Interface.all())
    assert not pins.Interface("lo", 2**31 - 1, "1").exists()


# --- records ------------------------------------------------------------------------------------


def test_records_are_the_roots_of_this_interface(paths: pins.InterfacePins) -> None:
    assert paths.recorded() == []
    os.mkdir(paths.directory)
    assert paths.recorded() == []
    # Of another interface, another number, another thing, and two that count.
    for name in ("70-5", "7-", "7-x", "7-5-6", "7--5", "7-0x5", "7-20", "7-3"):
        os.symlink("../nowhere", f"{paths.directory}/dispatch-{name}")
    for name in ("root_link", "xdispatch-7-9", "dispatch-7"):
        Path(paths.directory, name).touch()
    assert paths.recorded() == [3, 20]


def test_a_root_is_recorded_and_removed(paths: pins.InterfacePins) -> None:
    os.mkdir(paths.directory)
    paths.make_dispatch(500)
    record = Path(paths.directory, "dispatch-7-500")
    directory = Path(paths.dispatch(500))
    assert record.is_symlink()
    assert record.resolve() == directory
    assert directory.stat().st_mode & 0o777 == 0o700
    assert paths.recorded() == [500]
    for slot in range(2):
        Path(paths.link(500, slot)).touch()
        Path(paths.program(500, slot)).touch()
    paths.remove_dispatch(500)
    assert paths.recorded() == []
    assert not directory.exists()
    paths.remove_dispatch(500)  # gone already


def test_a_record_without_its_directory_is_removed(paths: pins.InterfacePins) -> None:
    """What a crash between the two leaves."""
    os.mkdir(paths.directory)
    os.symlink("../dispatch-7-500", f"{paths.directory}/dispatch-7-500")
    assert paths.recorded() == [500]
    paths.remove_dispatch(500)
    assert os.listdir(paths.directory) == []


def test_maps_are_kept_as_long_as_their_programs(paths: pins.InterfacePins) -> None:
    assert paths.kept_maps() == {}
    os.mkdir(paths.directory)
    for name in ("map-11-callees", "map-12-a-b", "map-110-callees", "mapping-13-x", "root_link"):
        Path(paths.directory, name).touch()
    kept = {"map-11-callees": 11, "map-12-a-b": 12, "map-110-callees": 110}
    assert paths.kept_maps() == {f"{paths.directory}/{name}": one for name, one in kept.items()}
    paths.remove_maps_but({11, 13})
    assert sorted(os.listdir(paths.directory)) == ["map-11-callees", "mapping-13-x", "root_link"]


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
    found = pins.Bpffs(str(tmp_path)).interface(INTERFACE)
    with found.locked():
        assert os.stat(tmp_path / "xdp").st_mode & 0o777 == 0o700


def test_who_waited_gets_a_directory_that_is_there(paths: pins.InterfacePins) -> None:
    """Not the one that the lock's first holder removed as it left."""
    seen: list[bool] = []

    def wait() -> None:
        with paths.locked():
            seen.append(os.path.isdir(paths.directory))

    waiter = threading.Thread(target=wait)
    with paths.locked():
        waiter.start()
        time.sleep(0.1)
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


def test_pins_are_locked_as_libxdp_does(paths: pins.InterfacePins) -> None:
    fd = os.open(paths.bpffs.xdp, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with paths.bpffs.pins_locked(), pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(fd)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "xdp").touch()
    found = pins.Bpffs(str(tmp_path)).interface(INTERFACE)
    with pytest.raises(BpffsError, match="cannot make a directory in") as caught:
        found._lock()
    assert caught.value.exit_code == 9


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.EROFS, BpffsError, "remount,rw"),
        (errno.ENOSPC, BpffsError, "out of memory"),
        (errno.EPERM, BpffsError, "as root"),
        (errno.EACCES, BpffsError, "as root"),
        (errno.EIO, BpffsError, ""),
        (errno.ENODEV, VanishedError, ""),
    ],
)
@pytest.mark.parametrize("raised", [OSError, KernelError])
def test_what_a_file_system_refuses(
    number: int, kind: type[BpffsError | VanishedError], text: str, raised: type[OSError]
) -> None:
    error = OSError(number, "refused") if raised is OSError else KernelError("bpf_obj_pin", number)
    with pytest.raises(kind) as caught, pins.failing("pin links in", "/bpffs"):
        raise error
    assert text in caught.value.hint


# --- mounts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/dev/shm", "/proc", "/", "/nonexistent/bpf", "/etc/passwd"])
def test_a_path_that_is_no_bpffs(path: str) -> None:
    bpffs = pins.Bpffs(path)
    assert not bpffs.is_mounted()
    with pytest.raises(BpffsError, match=f"{path} is no BPF file system") as caught:
        bpffs.check()
    assert f"mount -t bpf bpf {path}" in caught.value.hint
    assert caught.value.exit_code == 9


def test_a_plain_directory_is_no_bpffs(tmp_path: Path) -> None:
    with pytest.raises(BpffsError):
        pins.Bpffs(str(tmp_path)).check()
