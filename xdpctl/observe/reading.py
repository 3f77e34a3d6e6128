"""What an interface runs, read from the kernel and bpffs and from nowhere else."""

from __future__ import annotations

import _socket as socket  # that of Python makes enumerations of all there is to know
import errno
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from ..bpffs import homes, pin
from ..bpffs.history import History
from ..bpffs.mount import Bpffs
from ..errors import BpffsError, KernelError, RaceError, VanishedError
from ..host.interfaces import Interface
from ..kernel import libbpf, netlink, records, uapi, xdp
from ..model.chain import USUAL, Chain
from ..model.kinds import TRAITS
from ..model.labels import Attach
from ..model.state import Mode, Off, Owner, Root, State, kind_of
from .members import config_of
from .residue import left_over
from .slots import Seen

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


class View:
    """What was read of the kernel in one go, to spare readers of many interfaces a query each.

    `programs` has what each interface runs: the id of a program and an XDP_ATTACHED_ mode.
    `refused` is the errno with which the kernel refuses EXT programs, or 0, once that was asked.
    """

    def __init__(self, programs: dict[int, tuple[int, int]] | None = None) -> None:
        look = netlink.look() if programs is None else netlink.Look(programs, None)
        self.programs, self._names = look
        self.refused: int | None = None

    def names(self) -> Mapping[int, Sequence[str]]:
        """The names of interfaces besides their own, by number."""
        return netlink.alternative_names() if self._names is None else self._names

    @cached_property
    def sharing(self) -> dict[int, tuple[str, ...]]:
        """The roots that several interfaces run, with the names of these."""
        found: dict[int, list[int]] = {}
        for ifindex, (root_id, _mode) in self.programs.items():
            found.setdefault(root_id, []).append(ifindex)
        several = {root: numbers for root, numbers in found.items() if root and len(numbers) > 1}
        names = dict(socket.if_nameindex()) if several else {}
        named = {
            root: tuple(names[number] for number in numbers if number in names)
            for root, numbers in several.items()
        }
        return {root: those for root, those in named.items() if len(those) > 1}

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
            root_id, mode = xdp.query(ifindex)
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
        if left and not stranded and at_home and (root is None or root.owner == "other"):
            state = replace(state, off=self.off(root_id))
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
        ask = netlink.xdp_program if self.view else xdp.query
        return ask(self.interface.ifindex)[0] == root_id

    def root(self, root_id: int, mode: Mode) -> Root:
        with libbpf.owned(libbpf.prog_fd(root_id)) as fd:
            info = libbpf.prog_info(fd)
        config = config_of(info)
        attach = self.recorded(root_id)
        pinned = self.root_link(root_id) if attach else None
        ours = pinned is not None or attach == "netlink"
        if attach and not ours and os.path.isdir(self.home.root_link):
            raise BpffsError(
                f"{self.home.root_link} is a directory",
                why="the link of the root was pinned there",
                hint="see what stands there, and remove it",
            )
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
        seen = Seen(info, config, self.home, self.bpffs, self.links, ours)
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
            slots=seen.slots(kind_of(config)),
            rules=self.home.rules(info.id) if ours else USUAL,
        )

    def off(self, live: int) -> Off | None:
        """The chain of a root that is pinned here and runs nowhere, as far as the kernel has it."""
        for root_id, attach in self.own.recorded().items():
            if root_id == live:
                continue
            with libbpf.absent_is_fine(), libbpf.owned(libbpf.prog_fd(root_id)) as fd:
                info = libbpf.prog_info(fd)
                config = config_of(info)
                kind = kind_of(config)
                slots = Seen(info, config, self.own, self.bpffs, self.links, True).slots(kind)
                members = tuple(slot.member for slot in slots if slot.member and slot.pin)
                empty = not TRAITS[kind].alone and not slots
                if members or empty:
                    chain = Chain(members, self.own.rules(root_id), kept=empty)
                    return Off(chain, kind, attach)
        return None

    def recorded(self, root_id: int) -> Attach | None:
        """How a root of ours is attached, None for others'; finds the home of one that moved."""
        attach = self.own.recorded().get(root_id)
        if attach is None and (moved := homes.of_root(self.bpffs, root_id, self.interface.ifindex)):
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
