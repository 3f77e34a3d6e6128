"""The kinds of root, by name: the one place that a further kind is entered in."""

from __future__ import annotations

from ..model.chain import Kind
from .bare import BareKind
from .construct import Construction
from .dispatcher import ExtKind
from .fused import FusedKind
from .kind import RootKind

KINDS: dict[Kind, RootKind] = {one.name: one for one in (ExtKind(), FusedKind(), BareKind())}


def build(made: Construction) -> Construction:
    """Build a root of the kind that the plan of a construction names."""
    KINDS[made.plan.kind].build(made)
    return made
