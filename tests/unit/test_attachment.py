"""xdpctl.attach, as far as it goes without BPF: imports, errors, other things' descriptors."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import xdpctl
from tests.unit.samples import INTERFACE, LOOPBACK, ROOT, built
from xdpctl.api.attachment import ArrayAttachment, Attachment
from xdpctl.bpffs import homes
from xdpctl.bpffs.mount import Bpffs
from xdpctl.errors import NotFoundError, UsageError, XdpctlError
from xdpctl.host.interfaces import Interface
from xdpctl.kernel import libbpf, records
from xdpctl.kernel.descriptor import Descriptor

pytestmark = pytest.mark.heavy

# --- the package --------------------------------------------------------------------------------


def modules(code: str) -> set[str]:
    """The modules that Python has loaded after some code."""
    script = f"{code}\nimport sys\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_package_loads_nothing_of_itself() -> None:
    """The command line imports it, too, and would pay for it."""
    loaded = modules("import xdpctl; assert xdpctl.__version__")
    assert {name for name in loaded if name.startswith("xdpctl")} == {"xdpctl"}
    assert not loaded & {"click", "rich", "pyroute2", "ctypes"}


def test_attach_does_without_the_command_line() -> None:
    loaded = modules("from xdpctl import attach")
    assert "xdpctl.api.attachment" in loaded
    assert not {name.partition(".")[0] for name in loaded} & {"click", "rich", "pyroute2"}
    assert not {name for name in loaded if name.startswith("xdpctl.cli")}


def test_the_package_offers_what_it_says() -> None:
    for name in xdpctl.__all__:
        assert getattr(xdpctl, name).__name__ == name
    assert xdpctl.Attachment is Attachment
    with pytest.raises(AttributeError, match="no attribute 'detach'"):
        xdpctl.detach  # noqa: B018


# --- what cannot be attached --------------------------------------------------------------------


def test_an_interface_that_is_not_there() -> None:
    with pytest.raises(NotFoundError, match="no interface named nosuch0"):
        xdpctl.attach(built("count"), "nosuch0")


def test_a_pattern_is_no_interface() -> None:
    with pytest.raises(NotFoundError, match=r"no interface named l\*"):
        xdpctl.attach(built("count"), "l*")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        xdpctl.attach(tmp_path / "absent.o", "lo")


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(NotFoundError, match="no program absent"):
        xdpctl.attach(built("count"), "lo", program="absent")


def test_an_action_that_is_none() -> None:
    with pytest.raises(UsageError, match="'dorp'"):
        xdpctl.attach(built("count"), "lo", actions=["pass", "dorp"])


def test_a_place_that_is_no_bpffs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for bpffs in (str(tmp_path), f"{tmp_path}/", None):
        monkeypatch.setenv("LIBXDP_BPFFS", str(tmp_path))
        with pytest.raises(XdpctlError) as caught:
            xdpctl.attach(built("count"), "lo", bpffs=bpffs)
        assert caught.value.exit_code == (9 if os.geteuid() == 0 else 6)
    assert os.listdir(tmp_path) == []


# --- a descriptor that is none of a link --------------------------------------------------------


@pytest.fixture
def fd() -> Iterator[int]:
    """A descriptor of something else, as after its user has closed the link's."""
    number = os.open(os.devnull, os.O_RDONLY)
    yield number
    os.close(number)  # nobody else has


def attachment(directory: Path, fd: int, interface: Interface = LOOPBACK) -> Attachment:
    return Attachment(Bpffs(str(directory)), interface, 77, Descriptor(fd))


def test_an_attachment_whose_descriptor_was_closed_has_ended(tmp_path: Path, fd: int) -> None:
    bpffs = Bpffs(str(tmp_path))
    os.makedirs(homes.of(bpffs, LOOPBACK).directory)
    ended = attachment(tmp_path, fd)
    assert not ended.attached
    assert ended.wait(0)
    assert (ended.slot, ended.fd, ended.program_id, ended.interface) == (None, fd, 77, "lo")
    assert repr(ended) == "<Attachment of program 77 to lo (ended)>"
    with ended:
        pass
    ended.detach()  # again
    ended._follower.join(5)
    assert not ended._follower.is_alive()
    assert os.fstat(fd).st_rdev == os.stat(os.devnull).st_rdev  # another's by now: left alone


def test_an_attachment_that_nobody_has_ends_its_thread(tmp_path: Path, fd: int) -> None:
    os.makedirs(homes.of(Bpffs(str(tmp_path)), INTERFACE).directory)
    dropped = attachment(tmp_path, fd, INTERFACE)
    thread = dropped._follower
    del dropped
    thread.join(5)
    assert not thread.is_alive()


def test_an_attachment_that_cannot_be_followed_ends_all_the_same(tmp_path: Path, fd: int) -> None:
    """No inotify, as where the user has no more of them (fs.inotify.max_user_instances)."""
    ended = attachment(tmp_path, fd)  # its interface has no directory
    other = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # takes a number that is free
    try:
        assert not ended.attached
        ended.detach()
        ended._follower.join(5)
        assert not ended._follower.is_alive()
        with pytest.raises(BlockingIOError):
            os.eventfd_read(other)  # nobody has written to it
    finally:
        os.close(other)


def test_an_attachment_of_a_process_with_many_descriptors_is_followed(
    tmp_path: Path, fd: int
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("missing: a limit of 2048 descriptors")
    os.makedirs(homes.of(Bpffs(str(tmp_path)), LOOPBACK).directory)
    script = f"""
import os, resource
from pathlib import Path
from tests.unit.test_attachment import attachment
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, {hard}))
while os.dup(0) < 1100:
    pass
one = attachment(Path({str(tmp_path)!r}), 0)
one._follower.join(0.3)
assert one._follower.is_alive()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=fd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- what is held on a fused root ---------------------------------------------------------------


class Arrays:
    """Program arrays: the id of the one behind a descriptor, and the roots that call it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.id = 70
        self.calling: set[int] = set()
        patch.setattr(libbpf, "map_info", lambda _fd: records.MapInfo(self.id, 3, "xdpctl_held", 4))
        patch.setattr(ArrayAttachment, "_calls", lambda _self, root_id: root_id in self.calling)
        patch.setattr(ArrayAttachment, "_runs", lambda _self, _home, _root_id, _attach: True)


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> Arrays:
    return Arrays(monkeypatch)


def test_an_array_is_held_as_long_as_a_root_calls_it(
    tmp_path: Path, fd: int, arrays: Arrays
) -> None:
    """Whichever root does, wherever it is recorded; the descriptor stays what it is."""
    bpffs = Bpffs(str(tmp_path))
    own, moved = homes.of(bpffs, LOOPBACK), homes.of(bpffs, INTERFACE)
    for home, root_id in ((own, 500), (own, 600), (moved, 700)):
        os.makedirs(home.directory, exist_ok=True)
        home.make_dispatch(root_id, "link")
    held = ArrayAttachment(bpffs, LOOPBACK, 77, Descriptor(os.dup(fd)))
    number = held._fd
    for root_id in (500, 600, 700):
        arrays.calling = {root_id}
        assert held.attached
        assert not held.wait(0)
        assert held.fd == number
    arrays.calling = {800}
    assert not held.attached
    assert held.wait(0)
    assert held.fd == number  # taken, so that nothing else gets it while its user may use it
    held._close()
    arrays.id = 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_an_array_that_its_user_has_closed_is_not_held(
    tmp_path: Path, fd: int, arrays: Arrays
) -> None:
    bpffs = Bpffs(str(tmp_path))
    os.makedirs(homes.of(bpffs, LOOPBACK).directory)
    held = ArrayAttachment(bpffs, LOOPBACK, 77, Descriptor(fd))
    arrays.id = 71  # another thing has the number by now
    assert not held.attached
    held.detach()
    os.fstat(fd)  # and is left alone


def test_what_was_closed_is_not_closed_again(tmp_path: Path, fd: int, arrays: Arrays) -> None:
    """Its number may be in use by then, even for the same array."""
    bpffs = Bpffs(str(tmp_path))
    os.makedirs(homes.of(bpffs, LOOPBACK).directory)
    held = ArrayAttachment(bpffs, LOOPBACK, 77, Descriptor(os.dup(fd)))
    number = held._fd
    held._close()
    os.dup2(fd, number)
    held._close()
    del held
    os.fstat(number)
    os.close(number)
