"""Going back: the chain of an earlier generation is one more target of the one transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from . import homes, signals
from .bpffs import Bpffs
from .chain import Chain, Member
from .errors import NotFoundError, UnconfirmedError, UnsupportedError, VanishedError
from .generation import Generation
from .history import History, is_there
from .interfaces import Interface
from .observe import View, observe
from .protocol import is_wide
from .settle import places, repair
from .state import State
from .terms import Pending, Terms

if TYPE_CHECKING:
    from .commit import Report, Step


def generations(bpffs: Bpffs, state: State) -> list[Generation]:
    """The chains that an interface ran before, the latest last."""
    home = homes.at(bpffs, state.home)
    return History(home).generations(state.live(home.directory))


def find(bpffs: Bpffs, state: State, number: int = 0) -> Generation:
    """The generation of a number, or the latest. Raises NotFoundError."""
    found = [one for one in generations(bpffs, state) if number in (0, one.number)]
    if not found:
        which = f"generation {number}" if number else "earlier generation"
        raise NotFoundError(
            f"no {which} of {state.interface.name} is kept",
            hint=f"see xdpctl history {state.interface.name}",
        )
    return found[-1]


def go_back(
    bpffs: Bpffs,
    interface: Interface,
    number: int = 0,
    *,
    within: float = 0,
    waiting: Pending | None = None,
    dry_run: bool = False,
    on_step: Callable[[Step], None] = lambda _step: None,
    view: View | None = None,
) -> Report:
    """Go back to a generation, by default the latest; that is to be confirmed `within` seconds.

    Raises NotFoundError where it is not kept, where the change that was `waiting` for its
    confirmation does so no longer, or a program of it is gone. Only a change that waits
    for its confirmation goes back without those. Raises UnsupportedError where there would be no
    chain that could wait.
    """
    from .commit import transact  # which takes back what is overdue

    state = observe(interface, bpffs, view=view)
    wanted = find(bpffs, state, number)
    gone: list[Member] = []
    # Without the program of before, the same code goes on where it is.
    bare = wanted.bare and not wanted.restored(state, is_there)[1]
    if bare and within:
        raise UnsupportedError(
            f"what {interface.name} would go back to cannot wait for a confirmation",
            why="it is a program that is no member of a chain",
            hint="leave out --confirm-within; xdpctl adopt makes it a member again",
        )

    def target(state: State) -> Chain:
        if waiting not in (None, state.pending):
            raise NotFoundError(f"the change of {interface.name} does not wait any more")
        one = find(bpffs, state, wanted.number)
        chain, missing = one.restored(state, is_there)
        gone[:] = missing
        if missing and not (state.pending and state.pending.number == one.number):
            names = ", ".join(f"{member.known_as} (id {member.id})" for member in missing)
            raise NotFoundError(
                f"{interface.name} cannot go back to generation {one.number}",
                why=f"{names} left the kernel with the change of then",
                hint="load from its file what is missing; --confirm-within, and --keep of unload, "
                "keep programs",
            )
        return state.chain if one.bare and missing else chain

    same = state.root and state.root.kind == wanted.kind
    report = transact(
        bpffs,
        interface,
        target,
        mode=None if state.root else wanted.mode,
        first_attach=wanted.attach,
        kind="bare" if bare else None if same or wanted.bare else wanted.kind,
        protocol=None if is_wide(len(wanted.chain.members)) else wanted.protocol or None,
        dry_run=dry_run,
        on_step=on_step,
        view=view,
        terms=Terms("rollback" if within else "", within, back=wanted.number),
    )
    report.gone = tuple(gone)
    return report


def take_back(bpffs: Bpffs, interface: Interface, pending: Pending) -> bool:
    """Go back from a change that was not confirmed; False where it does not wait there any more."""
    try:
        if observe(interface, bpffs).pending != pending:
            return False
        go_back(bpffs, interface, pending.number, waiting=pending)
    except VanishedError:
        return False
    except NotFoundError:
        # Somebody else has done it meanwhile.
        if observe(interface, bpffs).pending != pending:
            return False
        raise
    return True


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
