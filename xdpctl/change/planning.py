"""Plans for one transaction: what nobody asked for is found out, and EXT refused means fused."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from ..errors import HookBusyError, UsageError
from ..model.chain import Chain
from ..model.kinds import CHOICES, TRAITS, AskedKind
from ..model.plan import Plan, make_plan
from ..model.request import Request
from ..model.state import State
from ..observe.reading import View
from ..roots import dispatcher

KIND_VARIABLE = "XDPCTL_ROOT"
"""The environment variable that says which kind a first root is of, where nobody does."""


def default_kind() -> AskedKind | None:
    """What the environment says; None where it says nothing. Raises UsageError."""
    value = os.environ.get(KIND_VARIABLE)
    if not value or value in CHOICES:
        return next((kind for kind in CHOICES if kind == value), None)
    *others, last = CHOICES
    raise UsageError(
        f"{KIND_VARIABLE}={value} names no kind of root",
        hint=f"it may be {', '.join(others)} or {last}",
    )


class Planner:
    """Makes the plans of one transaction. `refused` is how EXT programs are, once it is known."""

    def __init__(
        self, target: Callable[[State], Chain], request: Request, view: View | None
    ) -> None:
        self.target, self.request, self.view = target, request, view
        self.refused = view.refused if view else None

    def plan(self, state: State) -> Plan:
        """Plan the step from a state to the target. Raises what `make_plan` does."""
        plan = self._planned(state)
        # An empty root has no EXT program that could be refused. The first one would be, later,
        # when the kind of the root is settled.
        empty = plan.flip in ("attach", "update") and plan.target.kept
        unknown = empty and self.refused is None
        return self._planned(state) if unknown and self.falls_back(plan) else plan

    def _planned(self, state: State) -> Plan:
        request = self.request
        if request.kind is None and (state.root is None or state.root.config is None):
            request = replace(request, kind=default_kind())
        try:
            target = self.target(state)
            return make_plan(state, target, request=request, refused=self.refused or 0)
        except HookBusyError as error:
            _name_holders(error, state)
            raise

    def falls_back(self, plan: Plan) -> bool:
        """Whether the next plan is one of another kind, in the place of this.

        So it is if the choice is free and this kernel refuses EXT programs. That is tried here.
        """
        if not plan.auto or TRAITS[plan.kind].instead is None:
            return False
        self.refused = dispatcher.refused()
        if self.view:
            self.view.refused = self.refused
        return bool(self.refused)


def _name_holders(error: HookBusyError, state: State) -> None:
    """Add the processes that hold the program on the hook."""
    from ..host.holders import holders

    root = state.root
    found = holders([("link_id", root.link_id), ("prog_id", root.id)]) if root else {}
    names = {f"{one.pid} ({one.name})" for holding in found.values() for one in holding}
    if names:
        error.why += f"; held by process {', '.join(sorted(names))}"
