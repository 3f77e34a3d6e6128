"""What every interface runs, looked up again and again: what has not changed is not read anew."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..bpffs import homes, pin
from ..bpffs.directory import InterfacePins
from ..bpffs.history import History
from ..bpffs.mount import Bpffs
from ..errors import Interrupted, VanishedError, XdpctlError, explained
from ..host.interfaces import Failure, Interface
from ..kernel import libbpf
from ..model.state import Slot, State
from ..observe.reading import View, observe
from ..roots import counting
from ..roots.count_code import Counted

_RTMGRP_LINK = 1
_AGE = 60.0
"""Seconds after which all hooks are read anew, whatever the kernel has told: of an interface that
is down, it does not tell."""
_TICK = 0.1
"""Seconds: more than a clock of the file system's takes to go on (a jiffy)."""


class Look(NamedTuple):
    """What an interface runs: its state; the number of its chain, when that came to run and when a
    change went back last, in seconds of the calendar; what is counted, by program id, if anything,
    and in which rows.
    """

    state: State
    generation: int = 0
    changed: float | None = None
    went_back: int | None = None
    counts: Mapping[int, Counted] | None = None
    rows: Mapping[int, int] = {}


class Looks:
    """Looks at interfaces. If it is to `stay`, a look costs less from the second one on."""

    def __init__(self, bpffs: Bpffs, *, stay: bool) -> None:
        self._bpffs = bpffs
        self._hooks = _Hooks() if stay else None
        self._kept: dict[Interface, tuple[object, Look]] = {}

    def at(self, found: Iterable[Interface]) -> list[Look | Failure]:
        """What some interfaces run now; those that are gone are not there."""
        view = self._hooks.view() if self._hooks else View()
        looks: list[Look | Failure] = []
        before, self._kept = self._kept, {}
        for one in found:
            try:
                looks.append(self._counted(self._look(one, view, before.get(one))))
            except Interrupted:
                raise
            except VanishedError:
                continue
            except (XdpctlError, OSError) as error:
                known = error if isinstance(error, XdpctlError) else explained(error)
                looks.append(Failure(one, known))
        return looks

    def _look(self, one: Interface, view: View, kept: tuple[object, Look] | None) -> Look:
        if not self._hooks:
            return self._read(one, view)
        stamp, when = self._stamp(one, view)
        if kept and kept[0] == stamp:
            self._kept[one] = kept
            return kept[1]
        look = self._read(one, view)
        # What is changed within a tick of the clock leaves no other stamp.
        if _stays(look.state) and when + _TICK < time.time() and stamp == self._stamp(one, view)[0]:
            self._kept[one] = stamp, look
        return look

    def _stamp(self, one: Interface, view: View) -> tuple[object, float]:
        """What is another with each change of what an interface runs, and when that was last."""
        own = homes.of(self._bpffs, one)
        root = view.programs.get(one.ifindex, (0, 0))
        changed = _changed(own.directory)
        if not changed:
            return (one, root), 0.0
        link = pin.pinned_link(own.root_link)
        if link and link.ifindex == one.ifindex:
            root = (link.prog_id, root[1])
        pinned = _changed(own.dispatch(root[0]))
        return (one, root, link, changed, pinned), max(changed, pinned) / 1e9

    def _read(self, one: Interface, view: View) -> Look:
        state = observe(one, self._bpffs, view=view)
        if state.root is None or state.root.owner == "other":
            return Look(state)
        home = homes.at(self._bpffs, state.home).listed()
        history, live = History(home), state.live(home.directory)
        chains, went = history.generations(live), history.went_back(live)
        return Look(
            state,
            chains[-1].number + 1 if chains else 1,
            _made(home.record(state.root.id)),
            max((back.time for back in went if back.reason != "asked"), default=None),
            rows=_rows(home) if state.root.rules.counted else {},
        )

    def _counted(self, look: Look) -> Look:
        root = look.state.root
        if root is None or not root.rules.counted:
            return look
        home = homes.at(self._bpffs, look.state.home)
        return look._replace(counts=counting.read_rows(home, look.rows))


def _changed(directory: str) -> int:
    """When a directory was changed last, in ns; 0 if it is not there."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return os.stat(directory).st_mtime_ns
    return 0


def _rows(home: InterfacePins) -> Mapping[int, int]:
    with counting.opened(home) as found:
        return found.rows() if found else {}


def _made(path: str) -> float | None:
    """When a record was made; None if it is not there, as of a root that is not xdpctl's."""
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(path).st_mtime
    return None


def _stays(state: State) -> bool:
    """Whether nothing changes about an interface but what its stamp shows."""
    if state.residue or state.off or state.stranded:
        return False
    if state.root is None:
        return True
    if state.root.owner != "xdpctl":
        return False
    return state.root.kind == "bare" or all(map(_is_kept, state.root.slots))


def _is_kept(slot: Slot) -> bool:
    """Whether a program stays in its slot for as long as nobody removes its pin."""
    return bool(slot.member and slot.pin and not slot.origin and not slot.array_id)


class _Hooks:
    """What each interface runs, read anew after the kernel has told of a change.

    Over netlink it tells of the hooks that were changed over netlink; a program on a link comes
    with a new link. One that is pinned, `_stamp` looks at itself.
    """

    def __init__(self) -> None:
        self._news = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self._news.bind((0, _RTMGRP_LINK))
        self._last_link = 0
        self._view: View | None = None
        self._read = 0.0

    def view(self) -> View:
        news = self._links() | self._events()
        if self._view is None or news or time.monotonic() > self._read + _AGE:
            self._view, self._read = View(), time.monotonic()
        else:
            self._view = View(self._view.programs)  # links are read when they are asked for
        return self._view

    def _links(self) -> bool:
        before = self._last_link
        for number in libbpf.link_ids(before):
            self._last_link = number
        return self._last_link != before

    def _events(self) -> bool:
        told = False
        while True:
            try:
                self._news.recv(1 << 16)
            except BlockingIOError:
                return told
            except OSError:
                pass  # ENOBUFS: there were more than there is room for
            told = True
