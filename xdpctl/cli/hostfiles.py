"""The chain files of a host: which interface each is for, and interfaces that are kept to them."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import click

from ..bpffs.mount import Bpffs
from ..change import failures
from ..change.batch import Batch
from ..change.sweep import Event
from ..errors import (
    Interrupted,
    LockTimeoutError,
    NotFoundError,
    RaceError,
    RightsError,
    UnconfirmedError,
    UsageError,
    XdpctlError,
    explained,
)
from ..host import interfaces, rights
from ..host.interfaces import Interface, is_pattern, within
from ..kernel import netlink
from ..model.request import Request
from ..observe.reading import View
from ..programs import chainfile
from ..programs.chainfile import Document
from ..supply import policy
from .many import Wanted, worker
from .options import ChangeOptions
from .settings import Settings, enterable

FILES = "/etc/xdpctl"
_MANY = 16
"""From so many interfaces on they are read with all others in one go."""
_WHY = "it says which programs are loaded as root"

_F = TypeVar("_F", bound=Callable[..., object])


def files_option(text: str) -> Callable[[_F], _F]:
    """Hands over `files`, a directory."""
    return click.option(
        "--files",
        metavar="DIR",
        default=FILES,
        show_default=True,
        type=click.Path(readable=False),
        help=text,
    )


def files_in(directory: str) -> list[str]:
    """The chain files there; the policy, which may stand among them, is none."""
    found = glob.glob(f"{glob.escape(directory)}/*.toml")
    return sorted(one for one in found if os.path.realpath(one) != os.path.realpath(policy.FILE))


def wanted(
    document: Document,
    bpffs: Bpffs,
    request: Request,
    closing: contextlib.ExitStack,
    found: Callable[[], Sequence[Interface]],
) -> Wanted:
    """What a file says for the interfaces that are `found`, for as long as its programs are open.

    A `request` has precedence.
    """
    written = closing.enter_context(document.opened(bpffs.path))
    asked = replace(request.completed(written.request), unless_same=True)
    if not asked.shared:
        return Wanted(written.target, asked)
    if document.names_interfaces:
        with contextlib.suppress(NotFoundError):
            return Wanted(written.target, asked, Interface.matching(document.interfaces))
    return Wanted(written.target, asked, found())


class Host:
    """The files of a host, each opened when the first of its interfaces is looked at."""

    def __init__(
        self, directory: str, bpffs: Bpffs, request: Request, closing: contextlib.ExitStack
    ) -> None:
        self._directory, self._bpffs = directory, bpffs
        self._request, self._closing = request, closing
        self._paths: dict[Interface, list[str]] = {}
        self._broken: dict[Interface, XdpctlError] = {}
        self._documents: dict[str, Document] = {}
        self._opened: dict[str, Wanted | XdpctlError] = {}

    def interfaces(
        self, asked: str | None, some: Collection[Interface] | None = None
    ) -> list[Interface]:
        """Those that the files are for, of what is asked for. Raises NotFoundError for none.

        If only `some` matter, others that have a file by an alternative name may be missing.
        """
        paths = files_in(self._directory)
        if not paths:
            raise NotFoundError(
                f"{self._directory} has no files (*.toml)",
                hint="name one: xdpctl apply INTERFACE FILE; xdpctl export INTERFACE writes one",
            )
        rights.check_own(self._directory, _WHY)
        names = netlink.alternative_names
        if some is not None and len(some) <= _MANY:
            names = partial(names, {one.ifindex for one in some})
        for path in paths:
            self._note(path, names)
        wanted = None if asked is None else set(Interface.matching(asked))
        found = [one for one in self._paths if wanted is None or one in wanted]
        if not found and asked is not None and not is_pattern(asked):
            raise NotFoundError(
                f"no file in {self._directory} is for {asked}",
                hint=f"name one: xdpctl apply {asked} FILE",
            )
        return found

    def _note(self, path: str, names: Callable[[], Mapping[int, Sequence[str]]]) -> None:
        name = os.path.basename(path).removesuffix(".toml")
        try:
            rights.check_own(path, _WHY)
            document = self._documents[path] = chainfile.read(path)
            name = document.interfaces
            with within(_namespace(document)):
                found = Interface.matching(name, names)
        except XdpctlError as error:
            if is_pattern(name) and isinstance(error, NotFoundError):
                return  # there may be one later
            missing = Interface(name, 0, "")
            error.what = error.what if path in error.what else f"{path}: {error.what}"
            self._paths[missing], self._broken[missing] = [path], error
            return
        for one in found:
            self._paths.setdefault(one, []).append(path)

    def of(self, one: Interface) -> tuple[str, ...]:
        """The paths of the files that are for an interface."""
        return tuple(self._paths[one])

    def wanted(self, one: Interface) -> Wanted:
        """What an interface is to run. Raises what its file is refused for."""
        if one in self._broken:
            raise self._broken[one]
        path, *others = self._paths[one]
        if others:
            raise UsageError(
                f"several files are for {one.name}: {', '.join((path, *others))}",
                hint="leave it to one of them",
            )
        if path not in self._opened:
            try:
                self._opened[path] = wanted(
                    self._documents[path],
                    self._bpffs,
                    self._request,
                    self._closing,
                    lambda: [other for other, paths in self._paths.items() if paths == [path]],
                )
            except XdpctlError as error:
                self._opened[path] = error
        opened = self._opened[path]
        if isinstance(opened, XdpctlError):
            raise opened
        return opened


def _namespace(document: Document) -> str:
    """The namespace that a file names, to which the way is known from here on; else the present.

    Raises NotFoundError.
    """
    if document.namespace is None:
        return interfaces.current()
    path = interfaces.named(document.namespace)
    with enterable(document.namespace):
        return interfaces.remember(path)


Stamp = tuple[int, int, int]
"""A file as it was; one that was written, replaced, or given another mode has another."""


def _stamp(path: str) -> Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns, found.st_size


class Keeper:
    """Brings interfaces to the files of a host as they appear, and as the files change.

    What has been tried is tried again if the interface or its file is another one, or if the reason
    was another change that was under way. What an administrator changes meanwhile is left alone.
    """

    def __init__(self, directory: str, bpffs: Bpffs) -> None:
        self._directory, self._bpffs = directory, bpffs
        self._seen: object = None
        self._there: set[Interface] = set()
        self._tried: dict[Interface, object] = {}
        self._failed: dict[Interface, Event] = {}
        self._refused: list[Event] = []

    def __call__(self, told: Collection[int] | None = None) -> list[Event]:
        """What was done; and each time what could not be.

        The kernel `told` of these interfaces, by number, since the last time; None if it may have
        told of others. If the files are as they were, only these and those that are new are looked
        at, for which nobody has to read all interfaces.
        """
        stamps = {path: _stamp(path) for path in files_in(self._directory)}
        seen = stamps, _stamp(self._directory), _stamp(interfaces.NAMED)
        there = set(interfaces.everywhere())
        some: set[Interface] | None = None
        if told is not None and seen == self._seen:
            here = interfaces.current()
            again = {one for one in there if one.ifindex in told and one.netns == here}
            some = again | (there - self._there)
        self._seen, self._there = seen, there
        done: list[Event] = []
        if some is None or some:
            with contextlib.ExitStack() as closing:
                host = Host(self._directory, self._bpffs, Request(), closing)
                view = View() if some is None or len(some) > _MANY else None
                done = self._brought(host, stamps, closing.enter_context(Batch(view)), some)
        # Looked at anew: files may have told of other namespaces.
        for gone in {one for one in self._tried if one.ifindex} - {*interfaces.everywhere()}:
            del self._tried[gone]
            self._failed.pop(gone, None)
        return [*done, *self._refused, *self._failed.values()]

    def _brought(
        self,
        host: Host,
        stamps: Mapping[str, Stamp | None],
        batch: Batch,
        some: Collection[Interface] | None,
    ) -> list[Event]:
        """Bring some interfaces to their files, or all of them."""
        done: list[Event] = []
        self._refused.clear()
        try:
            found = host.interfaces(None, some) if stamps else []
        except (NotFoundError, RightsError) as error:
            self._refused.append(Event(self._directory, error.what, error.why))
            return []
        work = worker(Settings(), "apply", self._bpffs, host.wanted, ChangeOptions(), keeps=True)
        for one in found:
            if some is not None and one not in some:
                continue
            paths = host.of(one)
            source = [(path, stamps.get(path)) for path in paths]
            if self._tried.get(one) == source:
                continue
            why = "the file has changed" if one in self._tried else "the interface is there"
            self._tried[one] = source
            self._failed.pop(one, None)
            try:
                report = work(one, batch)
            except Interrupted:
                raise
            except (XdpctlError, OSError) as error:
                known = error if isinstance(error, XdpctlError) else explained(error)
                if isinstance(known, NotFoundError) and not one.ifindex:
                    continue  # it may appear later
                if isinstance(known, UnconfirmedError | LockTimeoutError | RaceError):
                    del self._tried[one]
                    self._seen = None
                what = f"cannot be brought to {', '.join(paths)}: {known.what}"
                self._failed[one] = Event(one.name, what, known.why)
                failures.note(one, known)
                continue
            if report.plan.flip != "none":
                done.append(Event(one.name, f"brought to {paths[0]}", why))
        return done
