"""What an interface runs, as data: how it was found there is no matter here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..kernel.records import Handle
from ..value import Value
from .chain import USUAL, Chain, Kind, Member, Rules
from .labels import Attach, Home, Origin
from .record import Config
from .terms import Pending

if TYPE_CHECKING:
    from ..host.interfaces import Interface

Mode = Literal["native", "skb", "hw"]
Owner = Literal["xdpctl", "libxdp", "other"]


class Place(Value):
    """Where a member sits on the live root."""

    slot: int
    link_id: int


class Slot(Value):
    """A slot in use: the member that replaces it, by which link, pinned where.

    Without a member the slot is vacant: the link that filled it is gone and packets pass it by. On
    a fused root there is no link: `array_id` is the program array through which a held member is
    called, and a member whose own program is gone from the kernel still runs, as `lost`, but
    cannot be carried over. `origin` tells whose program it is, if somebody else's; an `orphan` has
    lost that owner.
    """

    number: int
    function: str
    function_btf_id: int
    member: Member | None
    link_id: int
    pin: str | None
    origin: Origin | None = None
    orphan: bool = False
    array_id: int = 0
    lost: int = 0

    @property
    def handle(self) -> Handle | None:
        """What a process holds that holds the member; None where nothing but the root does."""
        if self.array_id:
            return ("map_id", self.array_id)
        return ("link_id", self.link_id) if self.link_id else None


def kind_of(config: Config | None) -> Kind:
    """The kind of a root, by its record of a chain; a root without one is a program alone."""
    if config is None:
        return "bare"
    return "ext" if config.protocol else "fused"


class Root(Value):
    """The program on an interface's hook; a root of a chain has `config` and `slots`.

    One without a `config` is bare: a program that has the hook to itself. If it is xdpctl's, its
    only slot has itself as the member.
    """

    id: int
    name: str
    tag: str
    btf_id: int
    mode: Mode
    owner: Owner
    link_id: int
    link_pin: str | None
    config: Config | None
    slots: tuple[Slot, ...]
    rules: Rules = USUAL

    @property
    def attach(self) -> Attach:
        return "link" if self.link_id else "netlink"

    @property
    def kind(self) -> Kind:
        return kind_of(self.config)


class Off(Value):
    """A chain that is pinned and does not run, the kind of its root, and how that was attached.

    It has no programs that a process holds: those went with their place on the root. Somebody else
    has taken the root off, or a command was interrupted just before it put it there
    or just after it took it away.
    """

    chain: Chain
    kind: Kind
    attach: Attach


class Foreign(Value):
    """A root that the records of a directory say nothing of: somebody else's, or one elsewhere."""


Live = int | Foreign | None
"""The root that runs, for the records of a directory: its id, or None if nothing runs."""


class State(Value):
    """An interface as it was at one moment.

    `home` is where its root's pins are; not the interface's own place if it moved to here from
    another network namespace. `stranded` is a root recorded in its own place that now runs on
    another interface, one that moved away from here. `pending` is a change that waits for its
    confirmation. `off` is a chain that does not run. `sharing` has the names of the
    interfaces of its namespace that run the same root, itself included, if they were looked for.
    """

    interface: Interface
    root: Root | None
    residue: tuple[str, ...]
    home: Home
    stranded: int | None = None
    pending: Pending | None = None
    off: Off | None = None
    sharing: tuple[str, ...] = ()

    def live(self, directory: str) -> Live:
        """The root that runs, for the history of a directory."""
        if self.root is None:
            return None
        at_home = self.home.directory == directory
        return self.root.id if at_home and self.root.owner != "other" else Foreign()

    @property
    def chain(self) -> Chain:
        """The members that run and have an owner; a vacant slot cannot get its program back.

        A root without any slot was made so, and is kept.
        """
        if self.root is None:
            return Chain()
        return Chain(
            tuple(slot.member for slot in self.root.slots if slot.member and not slot.orphan),
            self.root.rules,
            kept=self.root.config is not None and not self.root.slots,
        )
