"""The seven steps of a swap as they are shown: those that others took, and what came of X."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..model.kinds import TRAITS
from .change import change, report_data
from .document import show_change
from .status import state_data
from .style import Style, say

if TYPE_CHECKING:
    from ..change.report import Report
    from ..host.holders import Holder
    from ..kernel.records import Handle
    from ..model.state import State

    Held = Mapping[Handle, Sequence[Holder]]


def first_steps(state: State, held: Held) -> None:
    """Steps 1 to 3, which an earlier process took, as the kernel shows them now."""
    root = state.root
    assert root is not None
    say(f"step 1   root X runs on {state.interface.name}  [root={root.id} btf={root.btf_id}]")
    link = f"  [root_link={root.link_id}] {root.link_pin}" if root.link_id else ""
    say(f"step 1'  X is attached by {root.attach}{link}")
    for slot in root.slots:
        if slot.member is None:
            say(f"step 3   slot {slot.number} of X is vacant")
            continue
        holding = [f"pin {slot.pin}"] if slot.pin else []
        for one in held[slot.handle] if slot.handle else ():
            holding.append(f"process {one.pid} ({one.name}) fd {one.fd}")
        what, ids = "hooked onto", f"link={slot.link_id} root={root.id} "
        ids += f"function={slot.function_btf_id}"
        if not TRAITS[root.kind].hooked:
            what, ids = "fused into X as", f"root={root.id}"
        say(
            f"step 3   {slot.member.name} is {what} {slot.function}  [program={slot.member.id} "
            f"{ids}]  held by {', '.join(holding) or 'nobody to be seen'}"
        )


def swap(report: Report, held: Held, gone: bool | None, style: Style) -> None:
    """The end of a swap: what came of X, and who may still hold it."""
    old = report.before.root
    if style.json:
        links = {
            str(number): [{"pid": one.pid, "name": one.name, "fd": one.fd} for one in holding]
            for (_what, number), holding in held.items()
        }
        fields = {"before": state_data(report.before), "holders": links, "old_root_gone": gone}
        fields = {**report_data("swap-dispatcher", report), **fields}
        show_change("swap-dispatcher", fields, style)
        return
    change("swap-dispatcher", report, style)
    if old is None or style.quiet or style.dry_run:
        return
    if gone:
        say(f"step 7   X is gone from the kernel  [X={old.id}]")
    else:
        holding = [f"process {one.pid} ({one.name})" for some in held.values() for one in some]
        say(
            f"step 7   X stays until it is let go  [X={old.id}]  held by "
            f"{', '.join(holding) or 'somebody who cannot be seen'}"
        )
