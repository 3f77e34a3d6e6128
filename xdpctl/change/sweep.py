"""What belongs to nothing: pins of interfaces and namespaces that are gone, and residue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..bpffs import homes, pin
from ..bpffs.directory import InterfacePins
from ..bpffs.homes import interfaces_of
from ..bpffs.made import unmake
from ..bpffs.mount import Bpffs
from ..errors import Interrupted, KernelError, VanishedError, XdpctlError
from ..host import interfaces
from ..host.interfaces import Interface
from ..model.state import State
from ..observe.elsewhere import may_run_elsewhere
from ..observe.reading import Views, observe
from .settle import repair
from .transact import take_back, transact


class Event(NamedTuple):
    """What was done, or would be: to which interface or directory, what, and why."""

    where: str
    what: str
    why: str


def clean(
    bpffs: Bpffs,
    found: list[Interface] | None,
    dry_run: bool,
    views: Views | None = None,
    between: Callable[[], object] = lambda: None,
) -> Iterator[Event]:
    """Remove what interrupted commands left of some interfaces, or of all and of what is gone.

    Nothing that an interface runs is touched, wherever that is. Raises the first XdpctlError or
    KernelError after all else is done. What there is, is read once for all interfaces, or was in
    these `views`; a state that is not clean is read again under its lock. What is to happen
    `between` two interfaces is called before each.
    """
    there = set()
    views = views or Views()
    start = interfaces.current()
    first: Exception | None = None
    for interface in interfaces_of(bpffs) if found is None else found:
        between()
        there.add(homes.of(bpffs, interface).directory)
        try:
            yield from _cleaned(bpffs, interface, _where(interface, start), views, dry_run)
        except VanishedError:
            pass
        except Interrupted:
            raise
        except (XdpctlError, KernelError) as error:
            first = first or error
    for home in homes.every(bpffs) if found is None else ():
        try:
            if home.directory not in there and _is_gone(home, dry_run):
                yield Event("-", f"removed {home.directory}", "its interface is gone")
        except Interrupted:
            raise
        except (XdpctlError, KernelError) as error:
            first = first or error
    for path, what in homes.strays(bpffs) if found is None else ():
        yield Event("-", f"passed by {path}", f"it is {what}: not xdpctl's")
    if first:
        raise first


def _cleaned(
    bpffs: Bpffs, interface: Interface, where: str, views: Views, dry_run: bool
) -> Iterator[Event]:
    state = observe(interface, bpffs, view=views.of(interface))
    if back := _overdue(bpffs, state, where, dry_run):
        yield back
        state = observe(interface, bpffs)
    for path in _repaired(bpffs, state, dry_run):
        why = "its root is off the hook" if state.off else "left by an interrupted command"
        yield Event(where, f"removed {path}", why)


def _where(interface: Interface, start: str) -> str:
    """An interface's name, with its namespace's if that is another one."""
    return interface.name if interface.netns == start else f"{interface.name}@{interface.netns}"


def tend(
    bpffs: Bpffs, views: Views | None = None, between: Callable[[], object] = lambda: None
) -> Iterator[Event]:
    """Keep every chain true: take out programs without an owner, close gaps, then clean.

    What fails is an event, too. `views` are what was read just before, if anything was. What is to
    happen `between` two interfaces is called before each.
    """
    views = views or Views()
    start = interfaces.current()
    for interface in interfaces_of(bpffs):
        between()
        where = _where(interface, start)
        try:
            yield from _tended(bpffs, interface, where, views)
        except VanishedError:
            pass
        except Interrupted:
            raise
        except (XdpctlError, KernelError) as error:
            yield _failure(where, error)
    try:
        yield from clean(bpffs, None, dry_run=False, views=views, between=between)
    except Interrupted:
        raise
    except (XdpctlError, KernelError) as error:
        yield _failure("-", error)


def _tended(bpffs: Bpffs, interface: Interface, where: str, views: Views) -> Iterator[Event]:
    state = observe(interface, bpffs, view=views.of(interface))
    if back := _overdue(bpffs, state, where):
        yield back
        state = observe(interface, bpffs)
    if not _has_gaps(state) or state.pending:
        return
    report = transact(bpffs, interface, lambda state: state.chain)
    for slot in report.before.root.slots if report.before.root else ():
        if slot.lost:
            yield Event(where, f"took out program {slot.lost}", "its pin is gone")
        elif slot.member is None:
            yield Event(where, f"closed slot {slot.number}", "it was vacant")
        elif slot.orphan and slot.origin:
            yield Event(
                where,
                f"took out {slot.member.name} (id {slot.member.id})",
                f"link {slot.origin.link_id} of {slot.origin.holder} is gone",
            )


def _failure(where: str, error: XdpctlError | KernelError) -> Event:
    told = error.explained() if isinstance(error, KernelError) else error
    return Event(where, told.what, told.why)


def _has_gaps(state: State) -> bool:
    """Whether slots of a root of ours run nothing, or a program whose owner is gone."""
    root = state.root
    slots = root.slots if root and root.owner == "xdpctl" else ()
    return any(slot.member is None or slot.orphan for slot in slots)


def _overdue(bpffs: Bpffs, state: State, where: str, dry_run: bool = False) -> Event | None:
    """Take a change back that was not confirmed, where its watchdog did not."""
    pending = state.pending
    if (
        pending is None
        or pending.left > 0
        or not (dry_run or take_back(bpffs, state.interface, pending))
    ):
        return None
    what = f"went back to generation {pending.number}"
    return Event(where, what, "the change was not confirmed in time")


def _repaired(bpffs: Bpffs, state: State, dry_run: bool) -> tuple[str, ...]:
    if dry_run or not state.residue:
        return state.residue
    paths = homes.of(bpffs, state.interface)
    with paths.locked():
        return repair(bpffs, paths, observe(state.interface, bpffs, locked=True))


def _is_gone(home: InterfacePins, dry_run: bool) -> bool:
    """Whether a directory belongs to nothing; it is then removed."""
    if homes.is_alien(home) or _runs(home):
        return False
    if dry_run:
        return not home.is_locked()
    with home.locked():
        if _runs(home):
            return False
        ours = [home.with_ifindex(ifindex) for ifindex in home.ifindexes()]
        unmake(
            [made for notes in home.made().values() for made in notes],
            {program for one in ours for root in one.recorded() for program in one.programs(root)},
        )
        for one in ours:
            with home.bpffs.pins_locked():
                for root_id in one.recorded():
                    one.remove_dispatch(root_id)
        with pin.failing("remove pins from", home.bpffs.path):
            for name in home.entries():
                pin.remove(f"{home.directory}/{name}")
    return True


def _runs(home: InterfacePins) -> bool:
    """Whether an interface runs a root of a directory, or might as far as one can see."""
    link = pin.pinned_link(home.root_link)
    if link:
        return bool(link.ifindex)  # the kernel says so itself, for every namespace
    over_netlink = {root_id for root_id, attach in home.roots().items() if attach == "netlink"}
    return any(may_run_elsewhere(home.bpffs, one, home.directory) for one in over_netlink)
