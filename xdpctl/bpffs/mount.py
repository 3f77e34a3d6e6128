"""The BPF file system that holds the pins of all interfaces."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Self

from ..errors import BpffsError, XdpctlError
from ..host import lasting, locks, rights
from ..host.interfaces import mount_point
from ..host.text import decoded
from ..kernel import libc
from . import pin

DEFAULT_BPFFS = "/sys/fs/bpf"


class Bpffs:
    """A mounted BPF file system."""

    def __init__(
        self, path: str, patience: locks.Patience | None = None, *, outlives: bool = False
    ) -> None:
        """`outlives`: what is pinned is to be there when this process has ended."""
        self.path = path
        self.outlives = outlives
        self.xdp = f"{path}/xdp"
        self.patience = patience or locks.Patience()

    @classmethod
    def chosen(
        cls, path: str | None, patience: locks.Patience | None = None, *, outlives: bool = False
    ) -> Self:
        """The one that was asked for, else that of the environment, else the usual one."""
        path = path or os.environ.get("LIBXDP_BPFFS") or DEFAULT_BPFFS
        return cls(path.rstrip("/"), patience, outlives=outlives)

    def check(self) -> None:
        """Raise BpffsError unless the path lies on a bpffs that can be written, by root alone."""
        self.check_safe()
        _point, options = self._mount()
        if options is None:
            raise BpffsError(
                f"{self.path} is no BPF file system",
                why="programs are kept alive by pins in a bpffs",
                hint=f"mount -t bpf bpf {self.path}  (or set LIBXDP_BPFFS_AUTOMOUNT=1)"
                if not self.outlives or lasting.is_shared("mnt") or lasting.is_kept("mnt")
                else _from_outside(),
            )
        if "ro" in options:
            raise BpffsError(
                f"the BPF file system at {self.path} is read-only",
                why="its mount options say so",
                hint=f"mount -o remount,rw {self.path}",
            )
        if os.path.lexists(self.xdp) and not os.path.isdir(self.xdp):
            raise BpffsError(
                f"{self.xdp} is no directory",
                why="something else stands where the pins of all interfaces are kept",
                hint="see what it is, and remove it; or choose another place with --bpffs",
            )

    def check_lasting(self, path: str) -> None:
        """Raise BpffsError where a pin would go with this process, as its mount does.

        XdpctlError where the interfaces would: nobody else has the network namespace.
        """
        while not os.path.lexists(path):
            path = os.path.dirname(path) or "."  # made by the load
        if not (
            lasting.is_shared("mnt")
            or lasting.is_mounted_elsewhere(os.stat(path).st_dev)
            or lasting.is_kept("mnt")
            or lasting.is_older_than_us(path)
        ):
            what = f"what is pinned in {path} would be gone when this command ends"
            if not rights.sees_others():
                raise BpffsError(
                    what,
                    why="nobody else is seen to have it mounted; but to look at other processes "
                    "takes CAP_SYS_PTRACE, which this one lacks",
                    hint="if others have it mounted, give the command CAP_SYS_PTRACE",
                )
            raise BpffsError(
                what,
                why="it is mounted in a mount namespace that nobody else is in, such as "
                "ip netns exec and unshare --mount make: the mount goes with it, and the pins",
                hint=_from_outside(),
            )
        if lasting.sees_all() and not (lasting.is_shared("net") or lasting.is_kept("net")):
            raise XdpctlError(
                "what is loaded would be gone when this command ends",
                why="nobody else is in its network namespace: the interfaces go with it",
                hint="make one that stays (ip netns add NAME) and use --netns NAME",
            )

    def check_safe(self) -> None:
        """Raise BpffsError where others than root could put pins of theirs in place of ours."""
        _check_above(os.path.realpath(self.path))
        for path in (self.path, self.xdp):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                # iproute2 makes a symbolic link of it; what that leads to is what has to be safe.
                status = os.stat(path)
                # In a sticky directory, as bpffs has its root, nobody else can move what is ours.
                writable = status.st_mode & 0o022 and not (
                    path == self.path and status.st_mode & stat.S_ISVTX
                )
                owners = {status.st_uid, os.lstat(path).st_uid} - {0, os.geteuid()}
                if writable or owners:
                    why = (
                        f"others may write to it (mode {status.st_mode & 0o7777:04o})"
                        if writable
                        else f"it belongs to user {owners.pop()}"
                    )
                    raise BpffsError(
                        f"{path} is not safe to keep pins in",
                        why=f"{why}, and could put other programs in the place of yours",
                        hint=f"chown root {path} && chmod 0700 {path}, after a look at what is in "
                        "it; or choose another directory with --bpffs",
                    )

    def is_mounted(self) -> bool:
        return self._mount()[1] is not None

    def _mount(self) -> tuple[str, list[str] | None]:
        """Where the file system that holds the path is mounted, and a bpffs's options."""
        path = os.fsencode(os.path.realpath(self.path))
        best, found, where = 0, None, b""
        # proc_pid_mountinfo(5): … mount point (5th), options (6th) … - type, source, super options.
        with open("/proc/self/mountinfo", "rb") as mounts:
            for line in mounts:
                left, _, right = line.rstrip(b"\n").partition(b" - ")
                fields, (kind, _source, rest) = left.split(b" "), right.split(b" ", 2)
                point = os.fsencode(mount_point(os.fsdecode(fields[4]))).rstrip(b"/")
                if len(point) >= best and (path + b"/").startswith(point + b"/"):
                    options = f"{decoded(fields[5])},{decoded(rest)}".split(",")
                    best, found = len(point), options if kind == b"bpf" else None
                    where = point
        return os.fsdecode(where), found if os.path.isdir(path) else None

    def mount(self) -> None:
        """Mount a bpffs at the path."""
        with pin.failing("mount a BPF file system at", self.path):
            os.makedirs(self.path, exist_ok=True)
            libc.mount("bpf", self.path, "bpf")
        if self.outlives:
            try:
                self.check_lasting(self.path)
            except XdpctlError:
                libc.unmount(self.path)
                raise

    @contextlib.contextmanager
    def pins_locked(self) -> Iterator[None]:
        """libxdp's own lock: its tools hold it while they make, remove or read pins."""
        with pin.failing("lock the pins in", self.path):
            fd = os.open(self.xdp, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            locks.take(fd, self.xdp, self.patience)
            yield
        finally:
            locks.drop(fd)

    def pins_elsewhere(self) -> Iterator[str]:
        """The pins of the whole file system that are neither ours nor libxdp's."""
        pending, ours = [self._mount()[0] or "/"], os.path.realpath(self.xdp)
        while pending:
            with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if os.path.realpath(entry.path) != ours:
                            pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield entry.path


def _check_above(path: str) -> None:
    """Raise BpffsError where others could put another directory in the place of one."""
    while path != "/":
        above = os.path.dirname(path)
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(above)
            writable = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
            if writable or status.st_uid not in (0, os.geteuid()):
                who = "others" if writable else f"user {status.st_uid}"
                raise BpffsError(
                    f"{path} is not safe to keep pins in",
                    why=f"{who} may write to {above}, and could put another directory in its place",
                    hint="choose one with --bpffs whose directories are root's alone",
                )
        path = above


def _from_outside() -> str:
    """What to do where nothing that is mounted here stays."""
    name = (lasting.names() or ["NAME"])[0]
    return (
        f"run it outside of this mount namespace: xdpctl --netns {name} ..., without ip netns exec "
        "or unshare"
    )
