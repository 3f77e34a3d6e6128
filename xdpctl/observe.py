"""What an interface runs, read from the kernel and bpffs and from nowhere else."""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass
from typing import Literal

from . import pins
from .chain import DEFAULT_PRIORITY, Chain, Member
from .errors import KernelError, RaceError, VanishedError
from .kernel import libbpf
from .protocol import ENTRY, Config

Mode = Literal["native", "skb", "hw"]
Owner = Literal["xdpctl", "libxdp", "other"]

_MODES: dict[int, Mode] = {
    libbpf.XDP_ATTACHED_DRV: "native",
    libbpf.XDP_ATTACHED_SKB: "skb",
    libbpf.XDP_ATTACHED_HW: "hw",
}
_READS = 20


@dataclass(frozen=True)
class Slot:
    """A slot in use: the member that replaces it, by which link, pinned where.

    Without a member the slot is vacant: the link that filled it is gone and packets pass it by.
    """

    number: int
    function: str
    function_btf_id: int
    member: Member | None
    link_id: int
    pin: str | None


@dataclass(frozen=True)
class Root:
    """The program on an interface's hook. `config` and `slots` are there if it is a dispatcher."""

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

    @property
    def attach(self) -> Literal["link", "netlink"]:
        return "link" if self.link_id else "netlink"


@dataclass(frozen=True)
class State:
    """An interface as it was at one moment."""

    interface: pins.Interface
    root: Root | None
    residue: tuple[str, ...]

    @property
    def chain(self) -> Chain:
        """The members that run; a vacant slot has none and cannot get its program back."""
        if self.root is None:
            return Chain()
        return Chain(tuple(slot.member for slot in self.root.slots if slot.member))


def observe(interface: pins.Interface, paths: pins.InterfacePins) -> State:
    """Read an interface's state; read again where its root changed meanwhile.

    Raises RaceError where it keeps changing, VanishedError where the interface is gone.
    """
    for _attempt in range(_READS):
        root_id, mode = libbpf.xdp_query(interface.ifindex)
        try:
            root = _root(interface, paths, root_id, _MODES.get(mode, "native")) if root_id else None
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            continue  # a program or link went away while it was read
        if not interface.exists():
            break
        residue = _residue(interface, paths, root)
        if libbpf.xdp_query(interface.ifindex)[0] == root_id:
            return State(interface, root, residue)
    if not interface.exists():
        raise VanishedError(f"{interface.name} went away meanwhile")
    raise RaceError(
        f"the programs of {interface.name} change faster than they can be read",
        why=f"{_READS} readings met {_READS} different roots",
        hint="find out who keeps changing them",
    )


def _root(interface: pins.Interface, paths: pins.InterfacePins, root_id: int, mode: Mode) -> Root:
    with libbpf.owned(libbpf.prog_fd(root_id)) as fd:
        info = libbpf.prog_info(fd)
    config = _config(info)
    pinned = pins.pinned_link(paths.root_link)
    ours = (
        config is not None
        and pinned is not None
        and (pinned.prog_id, pinned.ifindex) == (root_id, interface.ifindex)
    )
    links = list(libbpf.links())
    if pinned is not None and ours:
        link_id = pinned.id
    else:
        link_id = next((link.id for link in links if _attaches(link, root_id, interface)), 0)
    # libxdp attaches over netlink alone: a dispatcher on a link is some other tool's.
    owner: Owner = "xdpctl" if ours else "libxdp" if config and not link_id else "other"
    return Root(
        id=root_id,
        name=info.name,
        tag=info.tag,
        btf_id=info.btf_id,
        mode=mode,
        owner=owner,
        link_id=link_id,
        link_pin=paths.root_link if ours else None,
        config=config,
        slots=_slots(info, config, links, paths) if config else (),
    )


def _attaches(link: libbpf.LinkInfo, root_id: int, interface: pins.Interface) -> bool:
    return (link.type, link.prog_id, link.ifindex) == (
        libbpf.BPF_LINK_TYPE_XDP,
        root_id,
        interface.ifindex,
    )


def _config(info: libbpf.ProgInfo) -> Config | None:
    """A dispatcher's record of its chain; None for any other program."""
    if info.name != ENTRY or len(info.map_ids) != 1:
        return None
    with libbpf.owned(libbpf.map_fd(info.map_ids[0])) as fd:
        _name, size, _entries = libbpf.map_name_and_sizes(fd)
        return Config.unpack(libbpf.map_lookup(fd, bytes(4), size))


def _slots(
    root: libbpf.ProgInfo,
    config: Config,
    links: list[libbpf.LinkInfo],
    paths: pins.InterfacePins,
) -> tuple[Slot, ...]:
    with libbpf.Btf.from_kernel(root.btf_id) as btf:
        functions = {
            name: btf.find(name, libbpf.BTF_KIND_FUNC)
            for name in (ENTRY, *(f"prog{number}" for number in range(len(config.actions))))
        }
    hooked = {link.function: link for link in links if link.is_ext and link.target == root.id}
    slots = []
    for number in range(len(config.actions)):
        pin: str | None = paths.link(root.id, number)
        pinned = pins.pinned_link(paths.link(root.id, number))
        function = f"prog{number}"
        link = hooked.get(functions[function])
        if link is None and number == 0 and len(config.actions) == 1:
            # A lone program may replace the entry; libxdp's pin calls it prog0 all the same.
            link = hooked.get(functions[ENTRY])
            function = ENTRY if link else function
        if link is None and pinned and not pinned.target:
            link = pinned  # a kernel that does not tell targets: the pin's path has to do
        if link is None or pinned is None or pinned.id != link.id:
            pin = None
        slots.append(
            Slot(
                number=number,
                function=function,
                function_btf_id=functions[function],
                member=_member(config, number, link.prog_id) if link else None,
                link_id=link.id if link else 0,
                pin=pin,
            )
        )
    return tuple(slots)


def _member(config: Config, slot: int, program_id: int) -> Member:
    with libbpf.owned(libbpf.prog_fd(program_id)) as fd:
        info = libbpf.prog_info(fd)
        return Member(
            name=_full_name(fd, info),
            priority=config.priorities[slot] if config.priorities else DEFAULT_PRIORITY,
            actions=config.actions[slot],
            frags=bool(config.flags[slot] & libbpf.BPF_F_XDP_HAS_FRAGS),
            id=info.id,
            tag=info.tag,
            size=info.size,
            load_time=info.load_time,
        )


def _full_name(fd: int, info: libbpf.ProgInfo) -> str:
    """A program's name as its author wrote it: the kernel keeps 15 characters, BTF all of them."""
    if len(info.name) == 15 and info.btf_id:
        with contextlib.suppress(KernelError), libbpf.Btf.from_kernel(info.btf_id) as btf:
            function = libbpf.prog_main_function(fd)
            name = btf.name(function) if function else ""
            if name.startswith(info.name):
                return name
    return info.name


def _residue(
    interface: pins.Interface, paths: pins.InterfacePins, root: Root | None
) -> tuple[str, ...]:
    """The pins that an interrupted command, or the end of an earlier interface, left behind."""
    stale = [
        paths.dispatch(root_id)
        for root_id in paths.recorded()
        if root is None or root.owner != "xdpctl" or root_id != root.id
    ]
    if (root is None or root.owner != "xdpctl") and pins.pinned_link(paths.root_link):
        stale.append(paths.root_link)
    members = {slot.member.id for slot in root.slots if slot.member} if root else set()
    stale += [path for path, program in paths.kept_maps().items() if program not in members]
    return tuple(stale)
