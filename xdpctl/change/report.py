"""What a change did, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..kernel.descriptor import Descriptor
from ..model.chain import Member
from ..model.plan import Plan
from ..model.source import EmptyArray, SharedMap
from ..model.state import State
from ..model.terms import Pending
from ..value import Value
from .settle import Rehooked


class Step(Value):
    """One step, numbered as in the kernel list's thread; `ids` names what it made or used."""

    number: str
    text: str
    ids: dict[str, int]
    seconds: float


@dataclass(eq=False, repr=False)
class Report:
    """What a transaction did.

    `removed` is what an interrupted command had left, `rehooked` the pins of others that hold
    another link now, `holds` what holds the held members, by program id, for the caller to close,
    `renewed` the new ids of programs that a change of the root's kind made anew, by the old ones,
    `pending` is the confirmation that the change waits for, `gone` the programs that were missed in
    going back, `unsettled` why something was left to the next command once the change was live,
    `empty` the program arrays of new members that have nothing in them, and `shared` the maps that
    new members found pinned, with the programs of other interfaces that use them as well. `joined`
    is the interface whose root it runs as well, `unshared` why it runs none although it was asked.
    """

    plan: Plan
    before: State
    members: tuple[Member, ...] = ()
    root_id: int | None = None
    steps: list[Step] = field(default_factory=list)
    removed: tuple[str, ...] = ()
    rehooked: list[Rehooked] = field(default_factory=list)
    holds: dict[int, Descriptor] = field(default_factory=dict)
    renewed: dict[int, int] = field(default_factory=dict)
    pending: Pending | None = None
    gone: tuple[Member, ...] = ()
    unsettled: str = ""
    empty: list[EmptyArray] = field(default_factory=list)
    shared: list[SharedMap] = field(default_factory=list)
    joined: str = ""
    unshared: str = ""
