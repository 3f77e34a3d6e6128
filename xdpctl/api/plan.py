"""What a change would do, from data alone."""

from __future__ import annotations

from ..model import plan
from ..model.chain import Chain
from ..model.kinds import AskedKind
from ..model.labels import Attach
from ..model.plan import Plan
from ..model.request import AskedMode, Request
from ..model.state import State


def make_plan(
    state: State,
    target: Chain,
    mode: AskedMode | None = None,
    attach: Attach | None = None,
    kind: AskedKind | None = None,
    protocol: int | None = None,
) -> Plan:
    """Plan the change from a state to a chain: what `xdpctl` would do; the kernel is not asked.

    `mode`, `attach`, `kind` and `protocol` are what a command asks for with -m, --attach, --root
    and --protocol; None means what is there. Raises an XdpctlError for what cannot be.
    """
    request = Request(mode=mode, attach=attach, kind=kind, protocol=protocol)
    return plan.make_plan(state, target, request=request)
