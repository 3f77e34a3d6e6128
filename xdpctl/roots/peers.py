"""Roots that other interfaces run, and which one may run as well: a chain that is shared.

A root can be on any number of interfaces, and an EXT program on any number of roots. Each interface
has its own link to the root, and its own pins of the same links and programs, so that it can leave
by itself: its next change alone gives it another root.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..bpffs.directory import InterfacePins
from ..model.chain import Chain, Kind, Member
from ..model.kinds import TRAITS
from ..model.plan import Plan
from ..model.source import Recipe
from ..model.state import Place, Slot, State
from ..programs import image
from ..value import Value

if TYPE_CHECKING:
    from ..programs.stock import Stock


class RunningRoot(Value):
    """A root that runs on an interface, with its members in slot order.

    `home` has what is pinned beside them, `renewed` the new ids of programs that were made anew.
    """

    interface: str
    id: int
    members: tuple[Member, ...]
    places: Mapping[int, Place]
    home: InterfacePins
    renewed: Mapping[int, int] = field(default_factory=dict)


class Loaded(Value):
    """A program that another interface runs: its id, and where what is kept beside it is pinned."""

    id: int
    home: InterfacePins


class _Key(Value):
    """Two interfaces with the same key can run one root.

    `old` is the root that they ran before; None if that need not be the same.
    """

    old: int | None
    kind: Kind
    protocol: int
    target: Chain


@dataclass(eq=False, repr=False)
class Peers:
    """What the interfaces that were changed before have made, for those that follow.

    Interfaces that ran the same root get the same one again. If a plan is to be `shared`, it gets
    the root of any other with the same target, and its programs are loaded once.
    """

    _stock: Stock | None = None
    _roots: list[tuple[_Key, RunningRoot]] = field(default_factory=list)
    _programs: list[tuple[Kind, Member, Loaded]] = field(default_factory=list)
    _recipes: dict[tuple[int, Recipe], bool] = field(default_factory=dict)

    @property
    def stock(self) -> Stock:
        """What loads programs, for those that follow as well."""
        if self._stock is None:
            from ..programs.stock import Stock  # a change without new programs needs none of it

            self._stock = Stock()
        return self._stock

    def close(self) -> None:
        """Have what loads programs end; may be called again."""
        if self._stock is not None:
            self._stock.close()

    def root(self, plan: Plan, state: State) -> RunningRoot | None:
        """The root that an interface can join."""
        if unshared(plan, state):
            return None
        wanted = self._wanted(plan, state, plan.target)
        others = [
            (key, found)
            for key, found in self._roots
            if not (state.root and state.root.id == found.id)
        ]
        for key, found in others:
            if key == wanted:
                return found
        for key, found in others if plan.shared else ():
            members = tuple(self._as_running(wanted.target, found))
            if key == replace(wanted, target=replace(wanted.target, members=members)):
                return found
        return None

    def seed(self, state: State, home: InterfacePins) -> None:
        """Take note of the root of an interface that was observed, if others can run it, too."""
        root = state.root
        found = running(state, home)
        if root and root.config and found and not own_reason(state.chain, root.slots):
            target = replace(state.chain, members=found.members)
            key = _key(None, root.kind, root.config.protocol, target)
            others = [(known, one) for known, one in self._roots if known != key]
            self._roots = [(key, found), *others]

    def program(self, plan: Plan, member: Member) -> Loaded | None:
        """A new member's program, if it was loaded for another interface.

        What counts EXT programs counts them wherever they run: those of such a chain are its own.
        """
        if not plan.shared or plan.target.rules.counted:
            return None
        wanted = plan.kind, _plain(member)
        return next((one for kind, new, one in self._programs if (kind, new) == wanted), None)

    def forget(self, root_id: int) -> None:
        """A root is gone."""
        self._roots = [(key, one) for key, one in self._roots if one.id != root_id]

    def add(self, plan: Plan, state: State, found: RunningRoot) -> None:
        """Take note of a root that an interface runs from now on."""
        if unshared(plan, state) or not (plan.shared or state.root):
            return
        for target in (plan.target, replace(plan.target, members=found.members)):
            key = self._wanted(plan, state, target)
            if all(key != known for known, _root in self._roots):
                self._roots.append((key, found))
        if plan.shared:
            pairs = zip(plan.target.members, found.members, strict=True)
            self._programs += [
                (plan.kind, _plain(new), Loaded(one.id, found.home))
                for new, one in pairs
                if not new.id and self.program(plan, new) is None
            ]

    def _as_running(self, target: Chain, found: RunningRoot) -> Iterator[Member]:
        """The members of a target, the new ones as the same programs of a root, if it has them."""
        there = {one.known_as: one.id for one in found.members}
        for member in target.members:
            source = member.source
            recipe = source.recipe if source and not source.maps_of else None
            number = there.get(member.known_as, 0)
            if recipe and number and not member.id and self._is_loaded(number, recipe):
                yield _plain(replace(member, id=number))
            else:
                yield member

    def _is_loaded(self, program_id: int, recipe: Recipe) -> bool:
        known = (program_id, recipe)
        if known not in self._recipes:
            self._recipes[known] = image.is_loaded(program_id, recipe)
        return self._recipes[known]

    def _wanted(self, plan: Plan, state: State, target: Chain) -> _Key:
        old = state.root.id if state.root and not plan.shared else None
        return _key(old, plan.kind, plan.protocol, target)


def _key(old: int | None, kind: Kind, protocol: int, target: Chain) -> _Key:
    spoken = protocol if TRAITS[kind].protocols else 0
    return _Key(old, kind, spoken, replace(target, members=tuple(map(_plain, target.members))))


def unshared(plan: Plan, state: State) -> str:
    """Why an interface has a root of its own whatever others run; empty if it need not."""
    if plan.flip == "detach" or TRAITS[plan.kind].alone:
        return "a program that has the hook to itself has no root to share"
    return own_reason(plan.target, state.root.slots if state.root else ())


def own_reason(target: Chain, slots: Sequence[Slot]) -> str:
    """Why a chain needs a root of its own on each interface; `slots` are those that run now."""
    members = target.members
    if target.rules.counted:
        return "its packets are counted, and those of each interface by themselves"
    if bound := [one.known_as for one in members if one.devbound]:
        return f"{', '.join(bound)} asks the device about packets"
    staying = {one.id for one in members if one.id}
    held = [one.known_as for one in members if one.held or one.array_id]
    held += [
        slot.member.known_as
        for slot in slots
        if slot.member
        and slot.member.id in staying
        and (slot.origin or (slot.link_id and not slot.pin))
    ]
    if held:
        return f"{', '.join(sorted(set(held)))} belongs to another process or pin"
    return ""


def running(state: State, home: InterfacePins) -> RunningRoot | None:
    """The root of an interface that was observed; None if there is none of a chain of ours."""
    root = state.root
    if root is None or root.owner != "xdpctl" or TRAITS[root.kind].alone:
        return None
    members = tuple(slot.member for slot in root.slots if slot.member and slot.pin)
    if len(members) < len(root.slots):
        return None  # vacant slots, and programs that others hold
    places = {
        slot.member.id: Place(slot.number, slot.link_id) for slot in root.slots if slot.member
    }
    return RunningRoot(state.interface.name, root.id, members, places, home)


def _plain(member: Member) -> Member:
    """A member without what may differ between the same ones of two interfaces."""
    source = member.source
    if member.id:
        source = None
    elif source is not None and not source.maps_of:
        source = replace(source, forced=False, replaces=False)
    return replace(member, source=source, tag="", size=0, load_time=0, replaces=0)
