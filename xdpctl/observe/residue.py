"""What is left over: of interrupted commands, of interfaces that were there before, or moved."""

from __future__ import annotations

import contextlib
import os
import time

from ..bpffs import homes, pin
from ..bpffs.directory import InterfacePins
from ..bpffs.history import History
from ..kernel import records
from ..model.state import Foreign, Root
from .elsewhere import may_run_elsewhere

_NEW = 1.0
"""Seconds."""


def left_over(
    root: Root | None, own: InterfacePins, *, at_home: bool
) -> tuple[list[str], int | None]:
    """What interrupted commands or an earlier interface left, as paths; a root that runs elsewhere.

    `own` is the interface's own place, listed; `at_home` tells that its root is recorded there. The
    second value is the id of a root that is recorded there and runs on another interface.
    """
    is_chain = root is not None and root.owner != "other"
    live = root.id if root and is_chain and at_home else None
    entries = own.entries()
    if not entries:
        return [] if homes.is_alien(own) else _empty(own.directory), None
    link = pin.pinned_link(own.root_link) if "root_link" in entries else None
    stale, stranded = _roots(root, own, live, link)
    if link and link.prog_id not in (live, stranded):
        stale.append(own.root_link)
    if not stranded:
        stale += _belongings(root, own, live)
    if "stage" in entries:
        stale.append(own.stage)
    return stale, stranded


def _roots(
    root: Root | None, own: InterfacePins, live: int | None, link: records.LinkInfo | None
) -> tuple[list[str], int | None]:
    """What is left of roots that are not the live one, and which of them runs elsewhere."""
    stale = []
    stranded = link.prog_id if link and link.ifindex and not live else None
    if "adopting" in own.entries():
        stale.append(own.adopting)
        if root and stranded == root.id:
            stranded = None  # not ours yet: the pin was made to adopt it
    for root_id, attach in own.recorded().items():
        if root_id in (live, stranded):
            continue
        if attach == "netlink" and not live and may_run_elsewhere(own.bpffs, root_id):
            stranded = root_id
            continue
        stale.append(own.dispatch(root_id))
    for root_id, made in own.made().items():
        notes = [f"{own.directory}/made-{root_id}-*"]
        stale += notes if root_id == live else [one.path for one in made]
    return stale, stranded


def _belongings(root: Root | None, own: InterfacePins, live: int | None) -> list[str]:
    """What is left of programs that are no members: their maps, what counts them, old chains."""
    slots = root.slots if root and live else ()
    members = {slot.member.id for slot in slots if slot.member}
    stale = History(own).left_over(live or (Foreign() if root else None))
    members |= own.kept_programs()
    stale += [path for path, program in own.kept_maps().items() if program not in members]
    counted = root is not None and bool(live and root.rules.counted)
    traced = {slot.member.id for slot in slots if slot.member and slot.link_id}
    stale += [
        path
        for path, program in own.counters().items()
        if not (counted and (program is None or program in traced))
    ]
    return stale


def _empty(directory: str) -> list[str]:
    """The interface's directory, if it has nothing in it.

    A new one is not left over: who has made it will take the lock and fill it.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if time.time() - os.stat(directory).st_ctime > _NEW:
            return [directory]
    return []
