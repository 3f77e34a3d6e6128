"""Changes that go together: what is done once for all of their interfaces.

Each interface is changed by itself, under its own lock. After its flip it may wait for the others,
with the lock held, so that one grace period does for all.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from ..bpffs import homes, pin
from ..bpffs.mount import Bpffs
from ..errors import KernelError, XdpctlError
from ..host import interfaces, rights, signals
from ..host.interfaces import Interface
from ..kernel import libc
from ..observe.elsewhere import links_elsewhere
from ..observe.reading import View, Views, observe
from ..roots.peers import Peers
from .commit import Commit
from .settle import Elsewhere

_MOST, _LONGEST = 64, 1.0
"""Interfaces that wait, each with a lock, and the seconds that the first of them does."""
_ROOTS = 16
"""Roots that are looked at, of which others may take one."""


@dataclass(eq=False, repr=False)
class Batch:
    """Changes of several interfaces, or of one. As a context it ends them.

    A `view` spares a query of the kernel for each interface; `peers` are the roots that they may
    share. `lasting` are paths of which it is known that they outlive the command, each with the
    network namespace.
    """

    view: View | None = None
    peers: Peers = field(default_factory=Peers)
    lasting: set[tuple[str, str]] = field(default_factory=set)
    _waiting: list[tuple[Commit, contextlib.ExitStack]] = field(default_factory=list)
    _since: float = 0.0
    _looked: Sequence[Interface] | None = None
    _begun: bool = False
    _refusal: XdpctlError | None = None
    _views: Views = field(default_factory=Views)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            self.settle()
        finally:
            self.peers.close()

    def begin(self, bpffs: Bpffs, interface: Interface) -> None:
        """A change begins: it is to be allowed, and its lock may be taken beside those that wait.

        Every command holds locks in the order of the interfaces' numbers, so no two wait for each
        other. Raises RightsError or BpffsError, the same one for all of them.
        """
        if self._refusal:
            raise self._refusal
        if not self._begun:
            try:
                rights.require()
                bpffs.check()
            except XdpctlError as error:
                self._refusal = error
                raise
            self._begun = True
        last = self._waiting[-1][0].paths.ifindex if self._waiting else 0
        if last >= interface.ifindex or self._is_full:
            self.settle()

    def look(self, bpffs: Bpffs, found: Sequence[Interface]) -> None:
        """Let those that follow share the roots that interfaces run now, the most common ones.

        What cannot be read is left out: each interface is looked at again when it is its turn.
        """
        if not found or self._looked is found:
            return
        self._looked = found
        view = self.view_of(found[0]) or View()
        programs = view.programs
        runs = [(programs[one.ifindex][0], one) for one in found if one.ifindex in programs]
        for root_id, _count in Counter(root_id for root_id, _one in runs).most_common(_ROOTS):
            one = next(one for number, one in runs if number == root_id)
            with contextlib.suppress(KernelError, XdpctlError):
                state = observe(one, bpffs, view=view)
                self.peers.seed(state, homes.at(bpffs, state.home).listed())

    def view_of(self, interface: Interface) -> View | None:
        """The view for an interface, which may be of another namespace that is entered now."""
        if self.view is None or not interfaces.is_elsewhere(interface.netns):
            return self.view
        return self._views.of(interface)

    def wait(self, commit: Commit, lock: contextlib.ExitStack) -> None:
        """A change is live; what is left to do comes later. The `lock` is held until then."""
        self._since = self._since if self._waiting else time.monotonic()
        self._waiting.append((commit, lock))
        if self._is_full:
            self.settle()

    @property
    def waits(self) -> bool:
        """Whether a change is not at its end."""
        return bool(self._waiting)

    @property
    def _is_full(self) -> bool:
        """Whether it is time to settle what waits."""
        late = time.monotonic() - self._since > _LONGEST
        return len(self._waiting) >= _MOST or (self.waits and late)

    def settle(self) -> None:
        """Bring what waits to its end, and let go of the locks."""
        if not self._waiting:
            return
        signals.hold()
        waiting, self._waiting = self._waiting, []
        with contextlib.ExitStack() as locks, pin.private():
            for _commit, lock in waiting:
                locks.push(lock)
            before = time.perf_counter()
            elsewhere: Elsewhere | None = None
            if any(commit.state.root for commit, _lock in waiting):
                libc.grace_period()
                with contextlib.suppress(OSError):  # each looks itself then, and tells what fails
                    elsewhere = [*links_elsewhere(waiting[0][0].bpffs)]
            waited = time.perf_counter() - before
            for commit, lock in waiting:
                commit.finish(waited, elsewhere)
                lock.close()
        for commit, _lock in waiting:
            if commit.unheard:
                raise commit.unheard
