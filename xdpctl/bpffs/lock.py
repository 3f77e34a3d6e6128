"""The lock of an interface: its directory, which is there while it is used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ..errors import BpffsError
from ..host import locks
from ..kernel import libbpf
from . import pin
from .places import Places


class Lock(Places):
    """Pins that nobody else changes while they are locked."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the interface's lock; its directory is there meanwhile, afterwards if it is used."""
        fds: list[int] = []
        try:
            self._lock(fds)
            yield
        finally:
            self._unlock(fds)

    def _unlock(self, fds: list[int]) -> None:
        # Still locked: whoever waits finds the directory gone and makes it anew.
        with contextlib.suppress(OSError):
            fd = fds[0] if fds else os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
            fds[:] = [fd]
            if locks.is_free(fd) and _is_at(fd, self.directory):
                os.rmdir(self.directory)
        for fd in fds:
            locks.drop(fd)

    def _lock(self, fds: list[int]) -> None:
        """Take the lock; its descriptor is put into `fds`."""
        while True:
            self._make(self.bpffs.xdp)
            self.bpffs.check_safe()  # before anything is made in there
            self._make(self.directory)
            # It may be removed between mkdir and here, by one who held the lock before.
            with contextlib.suppress(FileNotFoundError):
                fds.append(self._opened())
                locks.take(fds[0], self.what, self.bpffs.patience)
                if _is_at(fds[0], self.directory):
                    return
            while fds:
                locks.drop(fds.pop())

    def _make(self, directory: str) -> None:
        failing = pin.failing("make a directory in", self.bpffs.path)
        with failing, contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)

    def _opened(self) -> int:
        """The directory's descriptor. Raises FileNotFoundError; BpffsError if it is none."""
        try:
            return os.open(
                self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
        except NotADirectoryError as error:
            raise BpffsError(
                f"{self.directory} is no directory",
                why="something else stands where the pins of an interface are kept",
                hint="see what it is, and remove it",
            ) from error

    def is_locked(self) -> bool:
        """Whether somebody changes the interface now. Takes no lock."""
        try:
            fd = self._opened()
        except (FileNotFoundError, BpffsError):
            return False
        with libbpf.owned(fd):
            return locks.is_held(fd)


def _is_at(fd: int, path: str) -> bool:
    """Whether a path still names the directory that a descriptor is of."""
    status = os.stat(path)
    mine = os.fstat(fd)
    return (mine.st_dev, mine.st_ino) == (status.st_dev, status.st_ino)
