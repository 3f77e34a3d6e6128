"""Interfaces and the network namespaces that their numbers are of."""

from __future__ import annotations

import _socket as socket  # that of Python makes enumerations of all there is to know
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..errors import NotFoundError, VanishedError, XdpctlError, choices
from ..kernel import netlink
from .text import Json

_SO_NETNS_COOKIE = 71


class Interface(NamedTuple):
    """An interface: its name, its number, and the network namespace that the number is of."""

    name: str
    ifindex: int
    netns: str

    @classmethod
    def named(cls, name: str) -> Interface:
        """The interface of a name, its own or an alternative one; it goes by its own.

        Raises NotFoundError.
        """
        number = _number(name) or _by_alternative(name)
        if number:
            with contextlib.suppress(OSError):  # gone meanwhile
                return cls(socket.if_indextoname(number), number, current())
        raise NotFoundError(f"no interface named {name}", hint=_choices(name))

    def exists(self) -> bool:
        """Whether the number still means an interface of this namespace."""
        try:
            return bool(socket.if_indextoname(self.ifindex))
        except OSError:
            return False

    @classmethod
    def all(cls) -> list[Interface]:
        """Every interface of this network namespace, by number."""
        netns = current()
        return [cls(name, number, netns) for number, name in sorted(socket.if_nameindex())]

    @classmethod
    def matching(
        cls,
        pattern: str,
        others: Callable[[], Mapping[int, Sequence[str]]] = netlink.alternative_names,
    ) -> list[Interface]:
        """The interfaces that a name, a shell pattern (``eth*``) or a list of both means.

        Those of a pattern, which is one of their own and alternative names alike, come by number;
        those of a list (``eth0,br*``) in its order, each once. What is some interface's very name
        is neither. `others` gives the alternative names by number. Raises NotFoundError where there
        is none, also for one part of a list.
        """
        parts = _parts(pattern)
        if len(parts) > 1:
            return list(dict.fromkeys(one for part in parts for one in cls.matching(part, others)))
        if not is_pattern(pattern):
            return [cls.named(pattern)]
        import fnmatch

        names = others()
        found = [
            one
            for one in cls.all()
            if any(
                fnmatch.fnmatchcase(name, pattern)
                for name in (one.name, *names.get(one.ifindex, ()))
            )
        ]
        if not found:
            raise NotFoundError(f"no interface matches {pattern}", hint=_choices(pattern))
        return found


class Failure(NamedTuple):
    """An interface, one of many, that something could not be done with, and why."""

    interface: Interface
    error: XdpctlError

    def as_dict(self) -> Json:
        """The failure as ``--json`` prints it."""
        return {"interface": self.interface.name, "error": self.error.as_dict()}


def is_pattern(text: str) -> bool:
    """Whether a text, or a part of a list, stands for all interfaces that match it."""
    return any(
        any(character in part for character in "*?[") and not _number(part) for part in _parts(text)
    )


def is_several(text: str) -> bool:
    """Whether a text may mean more than one interface: a pattern, or a list."""
    return len(_parts(text)) > 1 or is_pattern(text)


def _parts(text: str) -> list[str]:
    """What a list names; a comma in brackets, or in the very name of an interface, makes none."""
    if "," not in text or _number(text) or _by_alternative(text):
        return [text]
    return re.split(r",(?![^\[]*\])", text)


def _number(name: str) -> int:
    """The number of an interface by a name that fits IFNAMSIZ, its own or another one; or 0."""
    try:
        return socket.if_nametoindex(name)
    except (OSError, ValueError):
        return 0


def _choices(word: str) -> str:
    names = (name for _number, name in sorted(socket.if_nameindex()))
    return f"{choices(word, names)} (ip link shows them)"


_IFNAMSIZ = 16


def _by_alternative(name: str) -> int:
    """The same by a longer name, which an interface can have beside its own."""
    if len(os.fsencode(name)) < _IFNAMSIZ:
        return 0
    found = (number for number, names in netlink.alternative_names().items() if name in names)
    return next(found, 0)


# --- network namespaces -------------------------------------------------------------------------


def current() -> str:
    """A name for the current network namespace that no other one ever has, where the kernel can.

    Linux kernel commit e8b9eab99232 "net: retrieve netns cookie via getsocketopt" (in v5.14);
    before it, the namespace file's inode number serves, which is reused.
    """
    try:
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
            cookie = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        return str(int.from_bytes(cookie, sys.byteorder))
    except OSError:
        return f"ino{os.stat('/proc/thread-self/ns/net').st_ino}"


_homes: list[int] = []
"""The namespaces that this process came from, the first one first, while it is in another one."""


def enter(path: str) -> None:
    """Go to another network namespace until `forget_home`. Raises OSError."""
    home = _here()
    try:
        _go(path)
    except BaseException:
        os.close(home)
        raise
    _homes.append(home)


@contextlib.contextmanager
def entered(path: str) -> Iterator[None]:
    """Work in another network namespace; the thread comes back at the end. Raises OSError."""
    home = _here()
    try:
        _go(path)
        _homes.append(home)
        try:
            yield
        finally:
            _homes.remove(home)
            _go(f"/proc/self/fd/{home}")
    finally:
        os.close(home)


def go_home() -> None:
    """In a child process: go to where its parent came from, which others can be reached from."""
    if _homes:
        _go(f"/proc/self/fd/{_homes[0]}")


def forget_home() -> None:
    """Where a command came from means nothing once it has ended."""
    while _homes:
        os.close(_homes.pop())


def _here() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _go(path: str) -> None:
    from pyroute2 import netns

    # The path is a user's: the open would wait for who writes to a pipe.
    netns.setns(path, flags=os.O_RDONLY | os.O_NONBLOCK)


NAMED = "/run/netns"
"""Where ip-netns(8) keeps namespaces by name."""
_elsewhere: dict[str, str] = {}


def named(name: str) -> str:
    """The path of a network namespace that a user names, or gives the path of.

    Raises NotFoundError.
    """
    path = name if "/" in name else f"{NAMED}/{name}"
    if not os.path.exists(path):
        try:
            hint = choices(name, sorted(os.listdir(NAMED)))
        except OSError:
            hint = "ip netns add makes one"
        raise NotFoundError(f"no network namespace {name}", why=f"{path} does not exist", hint=hint)
    return path


def remember(path: str) -> str:
    """Have `within` know the way to another namespace; its name. Raises OSError."""
    with entered(path):
        netns = current()
    if netns != current():
        _elsewhere[netns] = path
    return netns


def is_elsewhere(netns: str) -> bool:
    """Whether a namespace is another one, whose way is known."""
    return netns in _elsewhere


def everywhere() -> list[Interface]:
    """The interfaces of the present namespace, and of those to which the way is known."""
    found = Interface.all()
    for netns in _elsewhere:
        with contextlib.suppress(VanishedError), within(netns):
            found += Interface.all()
    return found


@contextlib.contextmanager
def within(netns: str) -> Iterator[None]:
    """Work in the namespace of this name, if it is another one whose way is known.

    Raises VanishedError where it is gone.
    """
    path = _elsewhere.get(netns)
    with contextlib.ExitStack() as entering:
        if path is not None:
            try:
                entering.enter_context(entered(path))
            except OSError as error:
                raise VanishedError(f"the network namespace {path} went away") from error
            if current() != netns:
                raise VanishedError(f"the network namespace {path} is another one now")
        yield


_INITIAL_PID_NAMESPACE = 0xEFFFFFFC


def visible(refused: list[str] | None = None) -> Iterator[tuple[str, str]]:
    """The network namespaces that can be entered, the current one first, as (name, path).

    They are those of processes and those that are mounted (proc_pid_ns(5)). One that only a
    descriptor or a socket keeps is not seen. `refused` gets what may not be looked at.
    """
    seen: set[tuple[int, int]] = set()
    if refused is not None and os.stat("/proc/self/ns/pid").st_ino != _INITIAL_PID_NAMESPACE:
        refused.append("/proc")  # it does not show all processes
    processes = (f"/proc/{pid}/ns/net" for pid in os.listdir("/proc") if pid.isdigit())
    for path in ("/proc/thread-self/ns/net", *_mounted(), *processes):
        try:
            status = os.stat(path)
            key = (status.st_dev, status.st_ino)
            if key in seen:
                continue
            seen.add(key)
            with entered(path):
                name = current()
        except (FileNotFoundError, ProcessLookupError):
            pass  # gone meanwhile
        except OSError:
            if refused is not None:
                refused.append(path)
        else:
            yield name, path


def _mounted() -> Iterator[str]:
    """Where namespaces are mounted, as ip-netns(8) does it."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            left, _, right = line.partition(" - ")
            fields = left.split(" ")
            if right.startswith("nsfs ") and fields[3].startswith("net:"):
                yield mount_point(fields[4])


def mount_point(field: str) -> str:
    """A path as /proc/PID/mountinfo writes it: blanks and the like stand in octal there."""
    return re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), field)
