"""What an interface runs, read from the kernel and bpffs and from nowhere else."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..bpffs import homes, pin
from ..bpffs.history import History
from ..bpffs.mount import Bpffs
from ..errors import KernelError, RaceError, VanishedError
from ..host.interfaces import Interface
from ..kernel import libbpf, netlink, records, uapi
from ..kernel.btf import BTF_KIND_FUNC, Btf
from ..model.chain import USUAL
from ..model.labels import Attach, Origin
from ..model.record import ENTRY, Config
from ..model.state import Mode, Owner, Root, Slot, State
from .elsewhere import links_elsewhere
from .members import config_of, itself, member_of
from .residue import left_over

_MODES: dict[int, Mode] = {
    uapi.XDP_ATTACHED_DRV: "native",
    uapi.XDP_ATTACHED_SKB: "skb",
    uapi.XDP_ATTACHED_HW: "hw",
}
_READS = 20
_VANISHING = {
    "bpf_prog_get_fd_by_id",
    "bpf_link_get_fd_by_id",
    "bpf_map_get_fd_by_id",
    "btf__load_from_kernel_by_id",
    "bpf_obj_get",
}
"""Calls by an id or a path that was read just before: ENOENT means that it is gone by now."""


@dataclass
class View:
    """What was read of the kernel in one go, to spare readers of many interfaces a query each.

    `refused` is the errno with which it refuses EXT programs, or 0, once that was asked.
    """

    programs: dict[int, tuple[int, int]] = field(default_factory=netlink.xdp_programs)
    refused: int | None = None

    @cached_property
    def links(self) -> list[records.LinkInfo]:
        return list(libbpf.links())


class Views:
    """What a look at all interfaces reads in one go: a view a network namespace, one of links."""

    def __init__(self) -> None:
        self._views: dict[str, View] = {}

    def of(self, interface: Interface) -> View:
        """The view for an interface of the current namespace, read at the first one's time."""
        if interface.netns not in self._views:
            view = View()
            for other in self._views.values():
                if "links" in vars(other):
                    view.links = other.links
            self._views[interface.netns] = view
        return self._views[interface.netns]


class _Changed(Exception):  # noqa: N818 - not an error: read again
    """The interface changed while it was read."""


def observe(
    interface: Interface, bpffs: Bpffs, *, locked: bool = False, view: View | None = None
) -> State:
    """Read an interface's state; read again where it changed meanwhile.

    `locked` tells that the caller holds the interface's lock; others do not take what a change
    under way has made for left over. A `view` may be older than the state is. Raises RaceError
    where the interface keeps changing, VanishedError where it is gone.
    """
    for _attempt in range(_READS):
        try:
            return _Reading(interface, bpffs, locked, view).state()
        except _Changed:
            view = None
        except KernelError as error:
            if error.errno != errno.ENOENT or error.call not in _VANISHING:
                raise
            view = None  # a program or link went away while it was read
        if not interface.exists():
            raise VanishedError(f"{interface.name} went away meanwhile")
    raise RaceError(
        f"the programs of {interface.name} change faster than they can be read",
        why=f"{_READS} readings met {_READS} different states",
        hint="find out who keeps changing them",
    )


class _Reading:
    """One attempt to read an interface."""

    def __init__(self, interface: Interface, bpffs: Bpffs, locked: bool, view: View | None) -> None:
        self.interface, self.bpffs, self.locked = interface, bpffs, locked
        self.own = self.home = homes.of(bpffs, interface)
        self.view = view
        self._links: list[records.LinkInfo] | None = None

    def links(self) -> list[records.LinkInfo]:
        """All links of the kernel; what hangs on pins does not need them."""
        if self._links is None:
            self._links = self.view.links if self.view else list(libbpf.links())
        return self._links

    def state(self) -> State:
        ifindex = self.interface.ifindex
        if self.view:
            root_id, mode = self.view.programs.get(ifindex, (0, 0))
        else:
            root_id, mode = libbpf.xdp_query(ifindex)
        # Not before: what is recorded of a root is there before the root runs.
        self.home = self.own = homes.of(self.bpffs, self.interface).listed()
        root = self.root(root_id, _MODES.get(mode, "native")) if root_id else None
        if not self.interface.exists():
            raise _Changed
        at_home = self.home.directory == self.own.directory
        left, stranded = left_over(root, self.own, at_home=at_home)
        if left and not self.locked:
            # A change may be under way. What is there twice, and no lock in between, is left over.
            if self.own.is_locked():
                left = []
            else:
                again, _stranded = left_over(root, self.own.listed(), at_home=at_home)
                if again != left or self.own.is_locked():
                    raise _Changed
        if not self.confirmed(root_id, root):
            raise _Changed
        state = State(self.interface, root, tuple(left), self.home.home, stranded)
        pending = History(self.home).pending(state.live(self.home.directory))
        return replace(state, pending=pending) if pending else state

    def confirmed(self, root_id: int, root: Root | None) -> bool:
        """Whether the interface still runs the root that was read."""
        if root and root.link_pin:
            pinned = pin.pinned_link(root.link_pin)
            return pinned is not None and (pinned.prog_id, pinned.ifindex) == (
                root_id,
                self.interface.ifindex,
            )
        if self.view and root is None and not self.own.entries():
            return True  # the view is as good as a reading, with nothing else to go with it
        ask = netlink.xdp_program if self.view else libbpf.xdp_query
        return ask(self.interface.ifindex)[0] == root_id

    def root(self, root_id: int, mode: Mode) -> Root:
        with libbpf.owned(libbpf.prog_fd(root_id)) as fd:
            info = libbpf.prog_info(fd)
        config = config_of(info)
        attach = self.recorded(root_id)
        pinned = self.root_link(root_id) if attach else None
        ours = pinned is not None or attach == "netlink"
        if attach and not ours and not self.locked:
            # Attached just now, and about to be pinned or pinned since the look.
            if self.own.is_locked():
                time.sleep(0.002)
                raise _Changed
            if self.root_link(root_id):
                raise _Changed
        if pinned is not None:
            link_id = pinned.id
        elif ours:
            link_id = 0
        else:
            links = (link.id for link in self.links() if self.attaches(link, root_id))
            link_id = next(links, 0)
        # libxdp attaches over netlink alone: a dispatcher on a link is some other tool's.
        libxdp = config and config.libxdp and not link_id
        owner: Owner = "xdpctl" if ours else "libxdp" if libxdp else "other"
        return Root(
            id=root_id,
            name=info.name,
            tag=info.tag,
            btf_id=info.btf_id,
            mode=mode,
            owner=owner,
            link_id=link_id,
            link_pin=self.home.root_link if pinned else None,
            config=config,
            slots=tuple(self.labelled(info.id, self.slots(info, config, ours=ours))),
            rules=self.home.rules(info.id) if ours else USUAL,
        )

    def recorded(self, root_id: int) -> Attach | None:
        """How a root of ours is attached, None for others'; finds the home of one that moved."""
        attach = self.own.recorded().get(root_id)
        if attach is None and (moved := homes.of_root(self.bpffs, root_id)):
            self.home = moved.listed()
            attach = moved.recorded().get(root_id)
        return attach

    def root_link(self, root_id: int) -> records.LinkInfo | None:
        """The pinned link that attaches a root here; None where the pin is of something else."""
        pinned = pin.pinned_link(self.home.root_link)
        if pinned and (pinned.prog_id, pinned.ifindex) == (root_id, self.interface.ifindex):
            return pinned
        return None

    def attaches(self, link: records.LinkInfo, root_id: int) -> bool:
        return (link.type, link.prog_id, link.ifindex) == (
            uapi.BPF_LINK_TYPE_XDP,
            root_id,
            self.interface.ifindex,
        )

    def labelled(self, root_id: int, slots: Iterator[Slot]) -> Iterator[Slot]:
        """Slots with what their users said of the programs."""
        labels = self.home.labels(root_id)
        for slot in slots:
            if slot.member and slot.number in labels:
                member = replace(slot.member, **labels[slot.number]._asdict())
                slot = replace(slot, member=member)
            yield slot

    def slots(self, root: records.ProgInfo, config: Config | None, *, ours: bool) -> Iterator[Slot]:
        if config is None:
            return iter([itself(root)] if ours else [])
        return self.functions(root, config) if config.programs else self.links_onto(root, config)

    def functions(self, root: records.ProgInfo, config: Config) -> Iterator[Slot]:
        """The slots of a fused root, whose record names the programs."""
        for number, (program, array) in enumerate(zip(config.programs, config.arrays, strict=True)):
            path = self.home.program(root.id, number)
            member = None
            # A held member's program is there as long as its process: only its array keeps it. The
            # array itself is better not opened: whoever closes one that its process has just left
            # starts the kernel's emptying of it once more, which can leak it (seen on 6.18).
            with libbpf.absent_is_fine():
                member = member_of(config, number, program, array)
            yield Slot(
                number=number,
                function=f"prog{number}",
                function_btf_id=0,
                member=member,
                link_id=0,
                pin=path if member and not array and os.path.lexists(path) else None,
                array_id=array,
                lost=0 if member or array else program,
            )

    def links_onto(self, root: records.ProgInfo, config: Config) -> Iterator[Slot]:
        """The slots of a dispatcher, whom links hook programs onto."""
        count = len(config.actions)
        with Btf.from_kernel(root.btf_id) as btf:
            functions = {
                name: btf.find(name, BTF_KIND_FUNC)
                for name in (ENTRY, *(f"prog{number}" for number in range(count)))
            }
        borrowed = self.home.borrowed(root.id)
        for number in range(count):
            path = self.home.link(root.id, number)
            pinned = pin.pinned_link(path)
            # A lone program may replace the entry; libxdp's pin calls it prog0 all the same.
            names = [f"prog{number}", *([ENTRY] if count == 1 else [])]
            wanted = {functions[name]: name for name in names}
            link = self.hooked(root.id, wanted, pinned)
            function = wanted[link.function] if link else names[0]
            if link is None and pinned and not pinned.target:
                link = pinned  # a kernel that does not tell targets: the pin's path has to do
            origin = borrowed.get(number)
            ours = path if link and pinned and pinned.id == link.id else None
            yield Slot(
                number=number,
                function=function,
                function_btf_id=functions[f"prog{number}"],
                member=member_of(config, number, link.prog_id) if link else None,
                link_id=link.id if link else 0,
                pin=ours,
                origin=origin,
                orphan=bool(link and ours and origin and self.orphaned(link, origin, ours)),
            )

    def hooked(
        self, root_id: int, functions: Container[int], pinned: records.LinkInfo | None
    ) -> records.LinkInfo | None:
        """The link onto a function: the pinned one if it is that, else wherever it is held."""

        def fits(link: records.LinkInfo) -> bool:
            return link.is_ext and link.target == root_id and link.function in functions

        if pinned and fits(pinned):
            return pinned
        if pinned and not pinned.target:
            return None
        return next(filter(fits, self.links()), None)

    def orphaned(self, link: records.LinkInfo, origin: Origin, pin: str) -> bool:
        """Whether nobody but our own pin holds a borrowed program any more."""
        try:
            with libbpf.owned(libbpf.link_fd(origin.link_id)) as fd:
                return libbpf.link_info(fd).prog_id != link.prog_id
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
        held = any(other.id == link.id for _path, other in links_elsewhere(self.bpffs))
        # The owner may just have taken the link over, which ends with the removal of our pin.
        return not held and os.path.lexists(pin)
