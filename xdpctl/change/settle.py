"""Step 7: what is bound to a root that is no longer live is re-hooked or removed.

A change ends with it. If it did not come that far, the next command does it first: nothing in here
depends on who began the change.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from ..bpffs import homes, made, pin
from ..bpffs.directory import InterfacePins
from ..bpffs.history import History
from ..bpffs.mount import Bpffs
from ..kernel import libc, records
from ..kernel.link import Link
from ..model.state import Place, Root, State
from ..observe.elsewhere import links_elsewhere
from ..roots import counting


class Rehooked(NamedTuple):
    """A pin of somebody else's that now holds another link."""

    path: str
    link_id: int


def places(root: Root | None) -> dict[int, Place]:
    """Where the programs of a root sit, by program id."""
    slots = root.slots if root else ()
    return {slot.member.id: Place(slot.number, slot.link_id) for slot in slots if slot.member}


Elsewhere = Sequence[tuple[str, records.LinkInfo]]
"""The EXT links that others pinned, by path."""


def settle(
    paths: InterfacePins,
    live: int | None,
    members: Mapping[int, Place],
    stale: Collection[int],
    elsewhere: Elsewhere | None = None,
) -> list[Rehooked]:
    """Bring everything from some stale roots over to the live one, and let them go.

    The interface's lock is held, and no CPU runs a stale root any more. `paths` may be a listing of
    before: what is gone already is fine. So may `elsewhere`; if it is not given, it is looked for.
    """
    if elsewhere is None:
        elsewhere = [*links_elsewhere(paths.bpffs)] if members else []
    rehooked = _rehook(paths, live, members, stale, elsewhere)
    with paths.bpffs.pins_locked():
        for root_id in stale:
            paths.remove_dispatch(root_id)
    paths.remove_maps_but(members)
    traced = {program for program, place in members.items() if place.link_id}
    paths.remove_counters(live is not None and bool(paths.rules(live).counted), traced)
    if live is not None:
        paths.forget_made(live)
    return rehooked


def _rehook(
    paths: InterfacePins,
    live: int | None,
    members: Mapping[int, Place],
    stale: Collection[int],
    elsewhere: Elsewhere,
) -> list[Rehooked]:
    """Let pins that others made mean the same program on the live root.

    Whose program is pinned elsewhere has a holder: our own pin of it goes, so that the program
    leaves the chain when its owner removes that pin.
    """
    rehooked = []
    held = set()
    for path, link in elsewhere:
        place = members.get(link.prog_id)
        if place is None:
            continue
        if link.target in stale:
            if _replace_pin(paths, path, place.link_id):
                rehooked.append(Rehooked(path, place.link_id))
                held.add(place.slot)
        elif link.id == place.link_id:
            held.add(place.slot)
    if live is None:
        return rehooked
    for slot in paths.borrowed(live):
        if slot in held:
            with paths.bpffs.pins_locked():
                paths.give_back(live, slot)
    return rehooked


def _replace_pin(paths: InterfacePins, path: str, link_id: int) -> bool:
    """Put another link behind a pin, atomically and with the pin's owner and mode.

    False where its owner has removed it meanwhile; it does not come back then.
    """
    with pin.failing("re-hook a pin in", paths.bpffs.path):
        pin.remove(paths.stage)
        with Link.by_id(link_id) as link:
            link.pin(paths.stage)
        try:
            status = os.stat(path)
            os.chown(paths.stage, status.st_uid, status.st_gid)
            os.chmod(paths.stage, status.st_mode & 0o777)
            libc.exchange(paths.stage, path)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        finally:
            pin.remove(paths.stage)
    return True


# --- what a command finds -----------------------------------------------------------------------


def repair(bpffs: Bpffs, paths: InterfacePins, state: State) -> tuple[str, ...]:
    """Finish or remove what an interrupted command left; returns what that was.

    The interface's lock says that no command is under way.
    """
    if not state.residue or state.stranded:
        return ()  # what is stranded here is about to move, with all that is beside it
    root = state.root if state.root and state.root.owner != "other" else None
    live = root.id if root else None
    paths = paths.listed()
    noted = paths.made()
    stale = {*paths.recorded(), *noted} - {live}
    if live and stale:
        libc.grace_period()
    members = places(root)
    if root and root.rules.counted:
        counting.sync(paths, state.chain.members, root.rules)
    made.unmake(
        [path for number in stale for path in noted.get(number, [])],
        {program for number in stale for program in paths.programs(number)}.difference(members),
    )
    History(paths).tidy(state.live(paths.directory))
    if paths.kept_programs():
        paths = paths.listed()
    settle(paths, live, members, stale)
    if not root or not root.link_id or state.home.directory != paths.directory:
        paths.remove_root_link()
    with pin.failing("remove a pin from", bpffs.path):
        pin.remove(paths.stage)
        pin.remove(paths.adopting)
    return state.residue


# --- interfaces that moved ----------------------------------------------------------------------


def rehome(
    paths: InterfacePins, state: State, before_lock: Callable[[], object] = lambda: None
) -> bool:
    """Bring an interface's pins to where they belong; whether that has moved any.

    Pins of an interface that left this namespace make room for the one that has its number now;
    those of one that came from another namespace come to it. Each move is one rename, and a lock
    goes with its directory. `before_lock` is called before a second lock is taken.
    """
    home, xdp = homes.at(paths.bpffs, state.home), paths.bpffs.xdp
    with pin.failing("move pins in", paths.bpffs.path):
        if home.directory != paths.directory:
            if state.stranded:
                os.rename(paths.directory, f"{xdp}/xdpctl-moved-{state.stranded}")
                return True
            before_lock()
            with home.locked():
                os.rename(home.directory, paths.directory)
            return True
        if home.ifindex != paths.ifindex:
            _renumber(home, paths)
            return True
        if state.stranded:
            os.rename(paths.directory, f"{xdp}/xdpctl-moved-{state.stranded}")
            return True
    return False


def _renumber(old: InterfacePins, new: InterfacePins) -> None:
    """Record roots under the interface's new number; each record goes after its directory."""
    with old.bpffs.pins_locked():
        for root_id in old.recorded():
            with contextlib.suppress(FileNotFoundError):
                os.rename(old.dispatch(root_id), new.dispatch(root_id))
            os.rename(old.record(root_id), new.record(root_id))
