"""What xdpctl keeps in bpffs, and the locks over it. The paths are the protocol:

    <bpffs>/xdp/                                   locked (flock) while pins are made or removed
    <bpffs>/xdp/dispatch-<ifindex>-<root id>/      one a root, as libxdp has them
            prog<slot>-link, prog<slot>-prog
    <bpffs>/xdp/xdpctl-<netns>-<ifindex>/          one an interface, locked while xdpctl changes it
            root_link                              the bpf_link that attaches the root
            dispatch-<ifindex>-<root id>           a symbolic link: this directory of xdp/ is ours
            map-<program id>-<name>                a member's program array, which the kernel
                                                   empties when no descriptor or pin is left

The symbolic link is made before the directory it names and removed after it. Whatever is named so
and is not the root that the interface runs is left over from an interrupted command.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
from collections.abc import Container, Iterator
from typing import NamedTuple

from .errors import BpffsError, KernelError, NotFoundError, VanishedError
from .kernel import libbpf

DEFAULT_BPFFS = "/sys/fs/bpf"
_SO_NETNS_COOKIE = 71


class Interface(NamedTuple):
    """An interface: its name, its number, and the network namespace that the number is of."""

    name: str
    ifindex: int
    netns: str

    @classmethod
    def named(cls, name: str) -> Interface:
        """Raises NotFoundError."""
        try:
            return cls(name, socket.if_nametoindex(name), _netns())
        except OSError as error:
            raise NotFoundError(
                f"no interface named {name}", hint="ip link shows the interfaces there are"
            ) from error

    def exists(self) -> bool:
        """Whether the number still means an interface of this namespace."""
        try:
            return bool(socket.if_indextoname(self.ifindex))
        except OSError:
            return False

    @classmethod
    def all(cls) -> list[Interface]:
        """Every interface of this network namespace, by number."""
        netns = _netns()
        return [cls(name, number, netns) for number, name in sorted(socket.if_nameindex())]


def _netns() -> str:
    """A name for the current network namespace that no other one ever has, where the kernel can.

    Linux kernel commit e8b9eab99232 "net: retrieve netns cookie via getsocketopt" (in v5.14);
    before it, the namespace file's inode number serves, which is reused.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            cookie = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        return str(int.from_bytes(cookie, "little"))
    except OSError:
        return f"ino{os.stat('/proc/self/ns/net').st_ino}"


class Bpffs:
    """A mounted BPF file system."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.xdp = f"{path}/xdp"

    def check(self) -> None:
        """Raise BpffsError unless the path lies on a bpffs that can be written."""
        options = self._mount_options()
        if options is None:
            raise BpffsError(
                f"{self.path} is no BPF file system",
                why="programs are kept alive by pins in a bpffs",
                hint=f"mount -t bpf bpf {self.path}  (or set LIBXDP_BPFFS_AUTOMOUNT=1)",
            )
        if "ro" in options:
            raise BpffsError(
                f"the BPF file system at {self.path} is read-only",
                why="its mount options say so",
                hint=f"mount -o remount,rw {self.path}",
            )

    def is_mounted(self) -> bool:
        return self._mount_options() is not None

    def _mount_options(self) -> list[str] | None:
        """The options of the bpffs mount that holds the path; None where that is another kind."""
        path = os.fsencode(os.path.realpath(self.path))
        best, found = -1, None
        # proc_pid_mountinfo(5): … mount point (5th), options (6th) … - type, source, super options.
        with open("/proc/self/mountinfo", "rb") as mounts:
            for line in mounts:
                left, _, right = line.rstrip(b"\n").partition(b" - ")
                fields, (kind, _source, rest) = left.split(b" "), right.split(b" ", 2)
                point = re.sub(rb"\\(\d{3})", lambda octal: bytes([int(octal[1], 8)]), fields[4])
                point = point.rstrip(b"/")
                if len(point) >= best and (path + b"/").startswith(point + b"/"):
                    options = f"{fields[5].decode()},{rest.decode()}".split(",")
                    best, found = len(point), options if kind == b"bpf" else None
        return found if os.path.isdir(path) else None

    def mount(self) -> None:
        """Mount a bpffs at the path."""
        with failing("mount a BPF file system at", self.path):
            os.makedirs(self.path, exist_ok=True)
            libbpf.mount("bpf", self.path, "bpf")

    @contextlib.contextmanager
    def pins_locked(self) -> Iterator[None]:
        """libxdp's own lock: its tools hold it while they make, remove or read pins."""
        fd = os.open(self.xdp, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def interface(self, interface: Interface) -> InterfacePins:
        return InterfacePins(self, interface)


class InterfacePins:
    """The pins of one interface."""

    def __init__(self, bpffs: Bpffs, interface: Interface) -> None:
        self.bpffs = bpffs
        self._ifindex = interface.ifindex
        self.directory = f"{bpffs.xdp}/xdpctl-{interface.netns}-{interface.ifindex}"
        self.root_link = f"{self.directory}/root_link"

    def _dispatch_name(self, root_id: int) -> str:
        return f"dispatch-{self._ifindex}-{root_id}"

    def dispatch(self, root_id: int) -> str:
        return f"{self.bpffs.xdp}/{self._dispatch_name(root_id)}"

    def link(self, root_id: int, slot: int) -> str:
        return f"{self.dispatch(root_id)}/prog{slot}-link"

    def program(self, root_id: int, slot: int) -> str:
        return f"{self.dispatch(root_id)}/prog{slot}-prog"

    def recorded(self) -> list[int]:
        """The ids of the roots that xdpctl made pins for, the live one and any left over."""
        prefix = self._dispatch_name(0).removesuffix("0")
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        numbers = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        return sorted(int(number) for number in numbers if _is_number(number))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the interface's lock; its directory is there meanwhile, afterwards if it is used."""
        fd = self._lock()
        try:
            yield
        finally:
            # Still locked: whoever waits finds the directory gone and makes it anew.
            with contextlib.suppress(OSError):
                os.rmdir(self.directory)
            os.close(fd)

    def _lock(self) -> int:
        while True:
            with failing("make a directory in", self.bpffs.path):
                for path in (self.bpffs.xdp, self.directory):
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(path, 0o700)
            fd = -1
            try:
                fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_ino == os.stat(self.directory).st_ino:
                    return fd
            except FileNotFoundError:
                pass  # removed between mkdir and here by one who held the lock before
            except BaseException:
                if fd >= 0:
                    os.close(fd)
                raise
            if fd >= 0:
                os.close(fd)

    def make_dispatch(self, root_id: int) -> None:
        """Record a root and make its directory."""
        with failing("make a directory in", self.bpffs.path):
            name = self._dispatch_name(root_id)
            os.symlink(f"../{name}", f"{self.directory}/{name}")
            os.mkdir(self.dispatch(root_id), 0o700)

    def remove_dispatch(self, root_id: int) -> None:
        """Remove a root's pins, its directory and its record; what is gone already is fine."""
        directory = self.dispatch(root_id)
        with failing("remove pins from", self.bpffs.path):
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(directory):
                    os.unlink(f"{directory}/{name}")
                os.rmdir(directory)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.directory}/{self._dispatch_name(root_id)}")

    def kept_maps(self) -> dict[str, int]:
        """The pins of members' program arrays, each with the member's program id."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.directory):
                kind, _, rest = name.partition("-")
                number = rest.partition("-")[0]
                if kind == "map" and _is_number(number):
                    found[f"{self.directory}/{name}"] = int(number)
        return found

    def keep_map(self, program_id: int, name: str, fd: int) -> str:
        """Pin a member's program array; returns the pin's path."""
        path = f"{self.directory}/map-{program_id}-{name}"
        with failing("pin a map in", self.bpffs.path):
            libbpf.pin(fd, path)
        return path

    def remove_maps_but(self, program_ids: Container[int]) -> None:
        """Remove the program arrays of programs that are not (or no longer) members."""
        for path, program_id in self.kept_maps().items():
            if program_id not in program_ids:
                remove(path)

    def remove_root_link(self) -> None:
        with failing("remove a pin from", self.bpffs.path):
            remove(self.root_link)


@contextlib.contextmanager
def failing(what: str, path: str) -> Iterator[None]:
    """Turn a file system's refusal into a BpffsError."""
    try:
        yield
    except (KernelError, OSError) as error:
        if error.errno == errno.ENODEV:
            raise VanishedError("the interface went away") from error
        hints = {
            errno.EROFS: "mount -o remount,rw it",
            errno.ENOSPC: "the kernel is out of memory or over a limit for it",
            errno.EACCES: "run xdpctl as root",
            errno.EPERM: "run xdpctl as root",
        }
        raise BpffsError(
            f"cannot {what} {path}",
            why=os.strerror(error.errno or 0),
            hint=hints.get(error.errno or 0, ""),
        ) from error


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def remove(path: str) -> None:
    """Remove a pin; one that is gone already is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def opened(path: str) -> int | None:
    """The descriptor of a pin; None where there is none."""
    try:
        return libbpf.get(path)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def pinned_link(path: str) -> libbpf.LinkInfo | None:
    """The link that is pinned at a path; None where there is none."""
    fd = opened(path)
    if fd is None:
        return None
    with libbpf.owned(fd):
        return libbpf.link_info(fd)
