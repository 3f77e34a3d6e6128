"""xdpctl.bpffs.mount: mounts, rights and homes, as far as a plain file system shows them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from tests.unit.samples import INTERFACE, locked_by_another, needs_root
from xdpctl.bpffs import homes
from xdpctl.bpffs.mount import Bpffs
from xdpctl.errors import BpffsError, LockTimeoutError
from xdpctl.host.locks import Patience


@pytest.fixture
def bpffs(tmp_path: Path) -> Bpffs:
    """A plain directory in the place of a BPF file system, and nobody waits for a lock in it."""
    path = tmp_path / "bpffs"
    path.mkdir(0o700)
    (path / "xdp").mkdir(0o700)
    return Bpffs(str(path), Patience(0))


# --- mounts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/dev/shm", "/proc", "/", "/nonexistent/bpf", "/etc/passwd"])
def test_a_path_that_is_no_bpffs(path: str) -> None:
    bpffs = Bpffs(path)
    assert not bpffs.is_mounted()
    with pytest.raises(BpffsError, match=f"{path} is no BPF file system") as caught:
        bpffs.check()
    assert f"mount -t bpf bpf {path}" in caught.value.hint
    assert caught.value.exit_code == 9


def test_a_plain_directory_is_no_bpffs(bpffs: Bpffs) -> None:
    with pytest.raises(BpffsError, match="is no BPF file system"):
        bpffs.check()


# --- who may write ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722, 0o702, 0o720])
@pytest.mark.parametrize("place", ["", "/xdp"])
def test_a_directory_that_others_may_write_to(bpffs: Bpffs, mode: int, place: str) -> None:
    path = bpffs.path + place
    os.chmod(path, mode)
    with pytest.raises(BpffsError) as caught:
        bpffs.check_safe()
    assert caught.value.what == f"{path} is not safe to keep pins in"
    assert f"mode {mode:04o}" in caught.value.why
    assert f"chmod 0700 {path}" in caught.value.hint
    with pytest.raises(BpffsError, match="is not safe"):
        bpffs.check()
    # Nor does a lock come to stand in such a place.
    with pytest.raises(BpffsError, match="is not safe"), homes.of(bpffs, INTERFACE).locked():
        pytest.fail("locked")


def test_a_sticky_directory_serves_as_the_root_and_not_below(bpffs: Bpffs) -> None:
    """As bpffs has its root, 1777: others can make entries there, but not move ours."""
    os.chmod(bpffs.path, 0o1777)
    bpffs.check_safe()
    os.chmod(bpffs.xdp, 0o1777)
    with pytest.raises(BpffsError, match="xdp is not safe") as caught:
        bpffs.check_safe()
    assert "mode 1777" in caught.value.why


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o500, 0o1700])
def test_a_directory_of_ones_own_is_safe(bpffs: Bpffs, mode: int) -> None:
    os.chmod(bpffs.path, mode)
    os.chmod(bpffs.xdp, mode)
    bpffs.check_safe()


def test_what_is_not_there_is_safe(tmp_path: Path) -> None:
    Bpffs(str(tmp_path)).check_safe()
    Bpffs(str(tmp_path / "absent")).check_safe()


@needs_root
@pytest.mark.parametrize("place", ["", "/xdp"])
def test_a_directory_of_somebody_else(bpffs: Bpffs, place: str) -> None:
    os.chown(bpffs.path + place, 65534, -1)
    with pytest.raises(BpffsError) as caught:
        bpffs.check_safe()
    assert caught.value.what.startswith(bpffs.path + place)
    assert "it belongs to user 65534" in caught.value.why
    assert f"chown root {bpffs.path}{place}" in caught.value.hint


@pytest.fixture
def elsewhere(bpffs: Bpffs) -> Path:
    """The directory that xdp leads to, as iproute2 makes it: /sys/fs/bpf/xdp -> tc."""
    target = Path(bpffs.path, "tc")
    target.mkdir(0o700)
    os.rmdir(bpffs.xdp)
    os.symlink("tc", bpffs.xdp)
    return target


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1700])
def test_a_symbolic_link_to_a_safe_directory_is_followed(
    bpffs: Bpffs, elsewhere: Path, mode: int
) -> None:
    """Its own mode, 0777, means nothing."""
    elsewhere.chmod(mode)
    bpffs.check_safe()
    with homes.of(bpffs, INTERFACE).locked(), bpffs.pins_locked():
        assert os.listdir(elsewhere) == ["xdpctl-4711-7"]
    assert os.path.islink(bpffs.xdp)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
def test_a_symbolic_link_to_where_others_may_write(
    bpffs: Bpffs, elsewhere: Path, mode: int
) -> None:
    elsewhere.chmod(mode)
    with pytest.raises(BpffsError, match="xdp is not safe") as caught:
        bpffs.check_safe()
    assert f"mode {mode:04o}" in caught.value.why
    with pytest.raises(BpffsError, match="is not safe"), homes.of(bpffs, INTERFACE).locked():
        pytest.fail("locked")
    assert os.listdir(elsewhere) == []


@needs_root
@pytest.mark.parametrize("foreign", ["link", "target"])
def test_neither_a_symbolic_link_nor_its_target_may_be_anothers(
    bpffs: Bpffs, elsewhere: Path, foreign: str
) -> None:
    """Who has the link can lead it elsewhere, who has the target can rename in it."""
    path = bpffs.xdp if foreign == "link" else str(elsewhere)
    os.chown(path, 65534, -1, follow_symlinks=False)
    with pytest.raises(BpffsError, match="xdp is not safe") as caught:
        bpffs.check_safe()
    assert "it belongs to user 65534" in caught.value.why


def test_a_symbolic_link_that_leads_nowhere_is_no_danger(bpffs: Bpffs, elsewhere: Path) -> None:
    elsewhere.rmdir()
    bpffs.check_safe()


# --- libxdp's lock ------------------------------------------------------------------------------


def test_pins_are_locked_as_libxdp_does(bpffs: Bpffs) -> None:
    fd = os.open(bpffs.xdp, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with bpffs.pins_locked(), pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(fd)


def test_libxdps_lock_is_not_waited_for_for_ever(bpffs: Bpffs) -> None:
    with (
        locked_by_another(bpffs.xdp) as holder,
        pytest.raises(LockTimeoutError) as caught,
        bpffs.pins_locked(),
    ):
        pytest.fail("locked")
    assert caught.value.what == f"{bpffs.xdp} is locked"
    assert f"process {holder.pid} " in caught.value.why
    with bpffs.pins_locked():
        pass


# --- homes --------------------------------------------------------------------------------------


def record(bpffs: Bpffs, home: str, root: str, attach: str = "link") -> None:
    os.makedirs(f"{bpffs.xdp}/{home}", exist_ok=True)
    os.symlink(attach, f"{bpffs.xdp}/{home}/dispatch-{root}")


def test_homes_are_the_directories_of_interfaces(bpffs: Bpffs) -> None:
    names = ["xdpctl-4711-7", "xdpctl-4711-12", "xdpctl-ino4026531840-3", "xdpctl-moved-500"]
    others = ["dispatch-7-500", "xdpctl-4711-x", "xdpctl-", "xdpctl", "other-4711-7", "xdpctl-1-²"]
    for name in names + others:
        os.mkdir(f"{bpffs.xdp}/{name}")
    found = homes.every(bpffs)
    assert [home.directory for home in found] == [f"{bpffs.xdp}/{name}" for name in sorted(names)]
    assert {home.ifindex for home in found} == {7, 12, 3, 500}
    own = homes.of(bpffs, INTERFACE)
    (same,) = (home for home in found if home.directory == own.directory)
    assert (same.ifindex, same.root_link, same.dispatch(1)) == (7, own.root_link, own.dispatch(1))


def test_there_are_no_homes_where_nothing_was_ever_loaded(tmp_path: Path) -> None:
    bpffs = Bpffs(str(tmp_path))
    assert homes.every(bpffs) == []
    assert homes.of_root(bpffs, 500, 7) is None


def test_the_home_of_a_root(bpffs: Bpffs) -> None:
    """Also under a number that its interface has no longer."""
    record(bpffs, "xdpctl-4711-7", "7-500")
    record(bpffs, "xdpctl-4711-7", "9-600", "netlink")
    record(bpffs, "xdpctl-moved-700", "7-700")
    assert homes.of_root(bpffs, 501, 7) is None
    found = {root: homes.of_root(bpffs, root, 7) for root in (500, 600, 700)}
    where = {
        root: home and (os.path.basename(home.directory), home.ifindex)
        for root, home in found.items()
    }
    assert where == {
        500: ("xdpctl-4711-7", 7),
        600: ("xdpctl-4711-7", 9),
        700: ("xdpctl-moved-700", 7),
    }
    moved = found[600]
    assert moved is not None
    assert moved.recorded() == {600: "netlink"}
    assert moved.dispatch(600) == f"{bpffs.xdp}/dispatch-9-600"


# --- pins of others -----------------------------------------------------------------------------


def test_pins_elsewhere(bpffs: Bpffs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the mount, above the directory that was named, but nothing outside of it."""
    mount, below = Path(bpffs.path), Path(bpffs.path, "tenant")
    (below / "xdp/dispatch-7-500").mkdir(parents=True)
    (below / "maps/deep").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/pin").touch()
    pins = [mount / "one", mount / "xdp/two", below / "three", below / "maps/deep/four"]
    for pin in pins:
        pin.touch()
    (below / "xdp/dispatch-7-500/prog0-link").touch()
    (below / "loop").symlink_to(mount)
    (below / "away").symlink_to(tmp_path / "outside")
    (below / "again").symlink_to(mount / "one")
    named = Bpffs(str(below))
    monkeypatch.setattr(named, "_mount", lambda: (bpffs.path, ["rw"]))
    assert sorted(named.pins_elsewhere()) == sorted(map(str, pins))


def test_what_goes_while_pins_are_looked_for(bpffs: Bpffs, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(f"{bpffs.path}/goes")
    os.mkdir(f"{bpffs.path}/stays")
    Path(bpffs.path, "first").touch()
    Path(bpffs.path, "stays/pin").touch()
    monkeypatch.setattr(bpffs, "_mount", lambda: (bpffs.path, ["rw"]))
    walk = bpffs.pins_elsewhere()
    assert next(walk) == f"{bpffs.path}/first"
    os.rmdir(f"{bpffs.path}/goes")
    assert list(walk) == [f"{bpffs.path}/stays/pin"]
