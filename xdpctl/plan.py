"""The step from the chain that is to the chain that shall be: data in, data out.

Commands differ in the target chain alone; what has to happen to the kernel follows from it here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from .chain import Chain, Kind, Member
from .errors import ChainFullError, HookBusyError, UnsupportedError, UsageError
from .observe import Mode, State
from .pins import Attach
from .protocol import MAX_SLOTS

Flip = Literal["attach", "update", "detach", "none"]
# (a root is there, members shall be there): what happens to the root.
_FLIPS: dict[tuple[bool, bool], Flip] = {
    (False, True): "attach",
    (True, True): "update",
    (True, False): "detach",
    (False, False): "none",
}
AskedMode = Mode | Literal["unspecified"]
"""`unspecified` leaves the choice to the kernel: native where the driver can, else generic."""


AskedKind = Kind | Literal["auto"]
"""`auto` takes EXT programs where the kernel allows them."""

KIND_VARIABLE = "XDPCTL_ROOT"
"""The environment variable that says which kind a first root is of, where nobody does."""


def default_kind() -> AskedKind | None:
    """What the environment says; None where it says nothing. Raises UsageError."""
    value = os.environ.get(KIND_VARIABLE)
    known: tuple[AskedKind, ...] = ("ext", "fused", "auto")
    if not value or value in known:
        return next((kind for kind in known if kind == value), None)
    raise UsageError(
        f"{KIND_VARIABLE}={value} names no kind of root", hint="it may be ext, fused or auto"
    )


@dataclass(frozen=True)
class Plan:
    """What a transaction will do. Members stand in slot order.

    `kind` is the new root's; with `auto` the transaction takes the other where EXT programs are
    refused. `why` is the errno of such a refusal.
    """

    interface: str
    current: Chain
    target: Chain
    mode: AskedMode
    attach: Attach
    flip: Flip
    kind: Kind = "ext"
    auto: bool = False
    why: int = 0

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
    state: State,
    target: Chain,
    mode: AskedMode | None = None,
    attach: Attach | None = None,
    kind: AskedKind | None = None,
    refused: int = 0,
) -> Plan:
    """Plan the change; `mode`, `attach` and `kind` are what the command asked for.

    None means what is there; for a first root native mode, a link and `auto`. `refused` is the
    errno with which the kernel refuses EXT programs, as far as that is known.

    Raises HookBusyError where the hook is not xdpctl's to change, UnsupportedError for a mode that
    cannot be had, ChainFullError for more programs than a root of the kind takes.
    """
    root, name = state.root, state.interface.name
    if mode == "hw":
        raise UnsupportedError(
            "a chain cannot be offloaded to the card",
            why="offload hardware takes one plain program and no EXT programs",
            hint="use -m native",
        )
    if root is not None and root.owner != "xdpctl":
        raise _busy(state)
    if root is not None and mode not in (None, "unspecified", root.mode) and target.members:
        raise UnsupportedError(
            f"{name} runs its chain in {root.mode} mode",
            why="the mode of an attached root cannot be changed",
            hint=f"use -m {root.mode}, or unload everything first",
        )
    if root is not None and attach not in (None, root.attach) and target.members:
        raise UnsupportedError(
            f"the root of {name} is attached by {root.attach}",
            why="how a root is attached cannot be changed while it runs",
            hint=f"use --attach {root.attach}, or unload everything first",
        )
    auto = kind == "auto" or (kind is None and root is None)
    if kind is None and root is not None:
        chosen, why = root.kind, root.config.why if root.config else 0
    elif auto:
        chosen, why = "fused" if refused else "ext", refused
    else:
        chosen, why = "fused" if kind == "fused" else "ext", 0
    _check_count(state, target, chosen)
    return Plan(
        interface=name,
        current=state.chain,
        target=target,
        mode=root.mode if root else mode or "native",
        attach=root.attach if root else attach or "link",
        flip=_FLIPS[bool(root), bool(target.members)],
        kind=chosen,
        auto=auto,
        why=why,
    )


def _check_count(state: State, target: Chain, kind: Kind) -> None:
    count, most = len(target.members), MAX_SLOTS[kind]
    if count > most:
        raise ChainFullError(
            f"the chain would have {count} programs",
            why=f"a root of the {kind} kind has {most} slots, and {len(state.chain.members)} "
            "programs are there",
            hint="unload a program first (xdpctl unload IFACE -i ID)"
            + (f"; --root fused has {MAX_SLOTS['fused']} slots" if kind == "ext" else ""),
        )


# iproute2's word for each mode; plain "xdp off" leaves a generic program where it is.
_IP_WORDS: dict[Mode, str] = {"native": "xdpdrv", "skb": "xdpgeneric", "hw": "xdpoffload"}


def _busy(state: State) -> HookBusyError:
    root, name = state.root, state.interface.name
    assert root is not None
    how = f"by bpf_link {root.link_id}" if root.link_id else "over netlink"
    who = f"program {root.id} ({root.name}), attached {how}"
    if root.owner == "libxdp":
        return HookBusyError(
            f"{name} is run by libxdp's dispatcher",
            why=f"its hook holds {who}",
            hint=f"remove it with xdp-loader unload {name} --all, then load with xdpctl",
        )
    return HookBusyError(
        f"another tool's program is on the XDP hook of {name}",
        why=f"its hook holds {who}",
        hint=f"have the owner of the link close it (bpftool link show id {root.link_id})"
        if root.link_id
        else "have its owner remove it, or if nobody owns it: "
        f"ip link set dev {name} {_IP_WORDS[root.mode]} off",
    )
