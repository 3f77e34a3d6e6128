"""The step from the chain that is to the chain that shall be: data in, data out.

Commands differ in the target chain alone; what has to happen to the kernel follows from it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .chain import Chain, Member
from .errors import HookBusyError, UnsupportedError
from .observe import Mode, State
from .pins import Attach

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


@dataclass(frozen=True)
class Plan:
    """What a transaction will do. Members stand in slot order."""

    interface: str
    current: Chain
    target: Chain
    mode: AskedMode
    attach: Attach
    flip: Flip

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
    state: State, target: Chain, mode: AskedMode | None = None, attach: Attach | None = None
) -> Plan:
    """Plan the change; `mode` and `attach` are what the command asked for.

    None means what is there; for a first root native mode and a link.

    Raises HookBusyError where the hook is not xdpctl's to change, UnsupportedError for a mode that
    cannot be had.
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
    return Plan(
        interface=name,
        current=state.chain,
        target=target,
        mode=root.mode if root else mode or "native",
        attach=root.attach if root else attach or "link",
        flip=_FLIPS[bool(root), bool(target.members)],
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
