"""A change that waits for its confirmation is let stay."""

from __future__ import annotations

from typing import NamedTuple

from ..bpffs import homes
from ..bpffs.history import History, find, past
from ..bpffs.mount import Bpffs
from ..errors import NotFoundError, UnconfirmedError
from ..host import signals
from ..host.interfaces import Interface
from ..model.generation import Generation, WentBack
from ..observe.reading import observe
from .settle import places, repair
from .transact import take_back


def _last(went: list[WentBack]) -> str:
    """What became of the latest change that was not confirmed."""
    found = [one for one in went if one.reason != "asked"]
    return f"the last one, {found[-1].words}" if found else ""


class Confirmed(NamedTuple):
    """A change that stays: what it will not go back to, and what was removed on the way.

    `removed` is what an interrupted command had left.
    """

    generation: Generation
    removed: tuple[str, ...] = ()


def confirm(
    bpffs: Bpffs, interface: Interface, *, late: bool = False, dry_run: bool = False
) -> Confirmed:
    """Let a change stay.

    Raises NotFoundError where nothing waits, UnconfirmedError where it is too `late` and goes back.
    """
    state = observe(interface, bpffs)
    paths = homes.at(bpffs, state.home)
    with paths.locked():
        state = observe(interface, bpffs, locked=True)
        pending = state.pending
        if pending is None:
            raise NotFoundError(
                f"no change of {interface.name} waits for its confirmation",
                why=_last(past(bpffs, state)[1]),
                hint=f"see xdpctl history {interface.name}",
            )
        found, removed = find(bpffs, state, pending.number), tuple[str, ...]()
        if pending.left > 0 or late:
            if not dry_run:
                # Blocked, or a signal behind the first removal would leave the rest over.
                with signals.blocked():
                    signals.hold()
                    removed = repair(bpffs, paths, state)
                    History(paths).confirmed(state.live(paths.directory))
                    paths.remove_maps_but(places(state.root))
            return Confirmed(found, removed)
    if not dry_run:
        take_back(bpffs, interface, pending)
    raise UnconfirmedError(
        f"it is too late to confirm the change of {interface.name}",
        why=f"its time ended {-pending.left:.1f} s ago, and it goes back",
    )
