"""The step from the chain that is to the chain that shall be: data in, data out.

Commands differ in the target chain alone; what has to happen to the kernel follows from it here.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Literal

from ..errors import ChainFullError, HookBusyError, UnsupportedError, UsageError
from ..value import Value
from .chain import Chain, Kind, Member
from .kinds import FIRST, OFFLOADED, TRAITS, AskedKind
from .labels import Attach
from .member_record import check_records
from .record import BINDING, LIBXDP_SLOTS, MAX_SLOTS, PROTOCOL
from .request import USUAL_REQUEST, AskedMode, Request
from .state import Mode, Root, State

Flip = Literal["attach", "update", "detach", "none"]
# (a root is there, one shall be there): what happens to it.
_FLIPS: dict[tuple[bool, bool], Flip] = {
    (False, True): "attach",
    (True, True): "update",
    (True, False): "detach",
    (False, False): "none",
}


class Plan(Value):
    """What a transaction will do. Members stand in slot order.

    `kind` is the new root's; with `auto` the transaction takes the other where EXT programs are
    refused. `why` is the errno of such a refusal. `protocol` is what a dispatcher is to be read by,
    a wide one once its chain is short again. A plan that `adopts` puts a root in the place of a
    program that has the hook to itself; one that `gives_back` puts such a program there again. The
    root is to be that of others with the same target if it is `shared`.
    """

    interface: str
    current: Chain
    target: Chain
    mode: AskedMode
    attach: Attach
    flip: Flip
    kind: Kind = "ext"
    protocol: int = PROTOCOL
    adopts: bool = False
    auto: bool = False
    why: int = 0
    shared: bool = False

    @property
    def gives_back(self) -> bool:
        return TRAITS[self.kind].alone and self.flip == "update"

    @property
    def is_same(self) -> bool:
        """Whether the chain decides as it did: counting its packets changes nothing of that."""
        rules = self.target.rules._replace(counted=self.current.rules.counted)
        return replace(self.target, rules=rules) == self.current

    @property
    def joining(self) -> tuple[Member, ...]:
        return tuple(member for member in self.target.members if not member.id)

    @property
    def staying(self) -> tuple[Member, ...]:
        return tuple(member for member in self.target.members if member.id)

    @property
    def leaving(self) -> tuple[Member, ...]:
        kept = {member.id for member in self.staying}
        return tuple(member for member in self.current.members if member.id not in kept)


def make_plan(
    state: State, target: Chain, *, request: Request = USUAL_REQUEST, refused: int = 0
) -> Plan:
    """Plan the change that is asked for.

    On a card (mode `hw`) every root is a program alone. `refused` is the errno with which the
    kernel refuses EXT programs, as far as that is known.

    Raises HookBusyError where the hook is not xdpctl's to change, UnsupportedError for a mode that
    cannot be had and beside a program that has the hook to itself, UsageError for several on a
    card and for names that no record holds, ChainFullError for more programs than a root takes, or
    a protocol asked for.
    """
    root, name = state.root, state.interface.name
    mode, protocol = request.mode, request.protocol
    attach = request.attach if root else request.attach or request.first_attach
    kind = OFFLOADED if mode == "hw" else request.kind
    adopts = request.adopts and root is not None and _is_adoptable(root)
    if root is not None and root.owner == "other" and not adopts:
        raise _busy(state)
    if target.has_root and not adopts:
        _check_bare(state, target, mode, kind)
    elif not adopts and root is not None and TRAITS[root.kind].alone:
        kind = root.kind
    if root is not None and mode not in (None, "unspecified", root.mode) and target.has_root:
        raise UnsupportedError(
            f"{name} runs its chain in {root.mode} mode",
            why="the mode of an attached root cannot be changed",
            hint=f"use -m {root.mode}, or unload everything first",
            number=errno.EBUSY,
        )
    if root is not None and attach not in (None, root.attach) and target.has_root:
        raise UnsupportedError(
            f"the root of {name} is attached by {root.attach}",
            why="how a root is attached cannot be changed while it runs",
            hint=f"use --attach {root.attach}, or unload everything first",
        )
    there = root.config if root else None
    chosen: Kind
    auto = kind == "auto" or (kind is None and there is None)
    if kind is None and root is not None and there is not None:
        chosen, why = root.kind, there.why
    elif kind is None or kind == "auto":
        chosen, why = (TRAITS[FIRST].instead if refused else None) or FIRST, refused
    else:
        chosen, why = kind, 0
    if TRAITS[chosen].alone:  # what it returns is the verdict
        target = replace(target, members=tuple(replace(one, actions=0) for one in target.members))
    _check_count(state, target, protocol if TRAITS[chosen].protocols else None)
    check_records(one for one in target.members if one not in state.chain.members)
    bound = any(member.devbound for member in target.members)
    speaks = protocol or (BINDING if bound else there.protocol if there else 0) or PROTOCOL
    if bound:
        _check_binding(state, target, chosen, mode, speaks)
    flip = _FLIPS[root is not None, target.has_root]
    if request.unless_same and target == state.chain and _is_whole(root, chosen, speaks):
        flip = "none"
    return Plan(
        interface=name,
        current=Chain() if adopts else state.chain,
        target=target,
        mode=root.mode if root else mode or "native",
        attach=root.attach if root else attach or "link",
        flip=flip,
        kind=chosen,
        protocol=speaks,
        adopts=adopts,
        auto=auto,
        why=why,
        shared=request.shared,
    )


def _is_whole(root: Root | None, kind: Kind, protocol: int) -> bool:
    """Whether a root is of a kind and protocol, and has a program in every slot."""
    if root is None or root.kind != kind:
        return False
    spoken = root.config.protocol if root.config else 0
    return spoken in (0, protocol) and not any(
        slot.orphan or slot.member is None for slot in root.slots
    )


def _is_adoptable(root: Root) -> bool:
    """Whether a root can take its place: one on our own link would have none to go back to."""
    return TRAITS[root.kind].alone and root.mode != "hw" and not root.link_pin


def _check_bare(
    state: State, target: Chain, mode: AskedMode | None, kind: AskedKind | None
) -> None:
    """A program that has the hook to itself is neither joined nor put beside others."""
    root, name = state.root, state.interface.name
    joining = [member for member in target.members if not member.id]
    offloaded = "a card takes one plain program: no dispatcher, and nothing beside it"
    alone = kind is not None and kind != "auto" and TRAITS[kind].alone
    if alone and target.kept:
        raise UsageError(
            "an empty chain needs a root of its own", hint="leave out -m hw", why=offloaded
        )
    if mode == "hw" and len(joining) > 1:
        raise UsageError("several programs cannot be offloaded", hint="name one FILE")
    if root is not None and TRAITS[root.kind].alone:
        again = errno.EEXIST if root.mode == "hw" else errno.EINVAL
        raise UnsupportedError(
            f"program {root.id} ({root.name}) has the XDP hook of {name} to itself",
            why=offloaded if root.mode == "hw" else "it was loaded without a dispatcher",
            hint=f"take it off first: xdpctl unload {name} -i {root.id}"
            + (f"; or xdpctl adopt {name} FILE" if _is_adoptable(root) else ""),
            number=again if mode == "hw" else errno.EBUSY,
        )
    if not alone:
        return
    if root is not None and joining:
        raise UnsupportedError(
            f"{name} runs a chain, which "
            f"{'an offloaded program' if mode == 'hw' else 'one without a dispatcher'} cannot join",
            why=offloaded if mode == "hw" else "it would have the hook to itself",
            hint="unload everything first"
            + (", or load it into the chain: without -m hw" if mode == "hw" else ""),
            number=errno.EINVAL if mode == "hw" else errno.EBUSY,
        )
    if any(member.held for member in target.members):
        raise UnsupportedError(
            "a process cannot hold a program without a dispatcher",
            why="there is no slot that a descriptor could mean",
            hint="load it with xdpctl load",
        )


def _check_binding(
    state: State, target: Chain, kind: Kind, mode: AskedMode | None, protocol: int
) -> None:
    """Raise UnsupportedError for a root that cannot be bound to its device, as its programs are."""
    name, members = state.interface.name, target.members
    bound = [member for member in members if member.devbound]
    asking = [member.known_as for member in bound]
    held = [member.known_as for member in bound if member.held or member.array_id]
    mode = state.root.mode if state.root else mode
    if mode in ("skb", "hw"):
        why = (
            "generic mode, where the driver has no part, runs no program that is bound to a device"
            if mode == "skb"
            else "a card that runs programs itself does not answer them"
        )
        hint = "-m native runs it in the driver"
        if state.root:
            hint += f"; unload everything first: the mode of {name} cannot be changed meanwhile"
    elif TRAITS[kind].protocols and protocol == 1:
        why = "libxdp's protocol 1 has no word for a program that is bound to its device"
        hint = f"leave out --protocol, or take {BINDING}"
        if state.root and state.root.config and state.root.config.protocol == 1:
            hint = "unload it first, or add programs with the tool that loaded it"
    elif TRAITS[kind].holding == "array" and held:
        why = (
            f"a process holds {', '.join(held)}, which a fused root would call through a program "
            "array, and the kernel puts no program into one that is bound to a device"
        )
        hint = "--root ext, where the kernel allows it, takes it; or load it with xdpctl load"
    else:
        return
    raise UnsupportedError(
        f"{', '.join(asking)} cannot ask {name} about packets", why=why, hint=hint
    )


def _check_count(state: State, target: Chain, protocol: int | None) -> None:
    """`protocol` is one of libxdp's that a dispatcher has to have."""
    count, most = len(target.members), LIBXDP_SLOTS if protocol else MAX_SLOTS
    if count > most:
        what = f"a dispatcher of libxdp's protocol {protocol}" if protocol else "a root"
        raise ChainFullError(
            f"the chain would have {count} programs",
            why=f"{what} has {most} slots, and {len(state.chain.members)} programs are there",
            hint="unload a program first (xdpctl unload IFACE -i ID)"
            + (f", or leave out --protocol: then there are {MAX_SLOTS} slots" if protocol else ""),
        )


# iproute2's word for each mode; plain "xdp off" leaves a generic program where it is.
_IP_WORDS: dict[Mode, str] = {"native": "xdpdrv", "skb": "xdpgeneric", "hw": "xdpoffload"}


def _busy(state: State) -> HookBusyError:
    root, name = state.root, state.interface.name
    assert root is not None
    how = f"by bpf_link {root.link_id}" if root.link_id else "over netlink"
    who = f"program {root.id} ({root.name}), attached {how}"
    if root.config is not None:  # a dispatcher, or a fused root
        return HookBusyError(
            f"{name} runs a chain whose pins are not in this BPF file system",
            why=f"its hook holds {who}, which has nothing pinned here",
            hint="--bpffs PATH names the one that it was loaded with (ip netns exec hides the "
            f"usual one, --netns does not); or {_way_out(root, name)}",
        )
    return HookBusyError(
        f"another tool's program is on the XDP hook of {name}",
        why=f"its hook holds {who}",
        hint=_way_out(root, name),
    )


def _way_out(root: Root, name: str) -> str:
    remove = f"have the owner of the link close it (bpftool link show id {root.link_id})"
    if not root.link_id:
        remove = f"have its owner remove it (ip link set dev {name} {_IP_WORDS[root.mode]} off)"
    if root.config is not None or root.mode == "hw":
        return remove
    force = " --force" if root.link_id else ""
    if root.name == "xsk_def_prog":  # of an application with XDP sockets
        force += " (FILE: xsk_def_xdp_prog.o or xsk_def_xdp_prog_5.3.o of its libxdp)"
    return f"make it a member of a chain: xdpctl adopt {name} FILE{force}; or {remove}"
