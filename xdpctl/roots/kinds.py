"""The kinds of root, by name: the one place that a further kind is entered in."""

from __future__ import annotations

from functools import cache
from typing import assert_never

from ..model.chain import Kind
from .construct import Construction
from .kind import RootKind


@cache
def root_kind(name: Kind) -> RootKind:
    """The kind of a name. Its module is imported then: a command seldom meets another kind."""
    match name:
        case "ext":
            from .dispatcher import ExtKind

            return ExtKind()
        case "fused":
            from .fused import FusedKind

            return FusedKind()
        case "bare":
            from .bare import BareKind

            return BareKind()
    assert_never(name)


def build(made: Construction) -> Construction:
    """Build a root of the kind that the plan of a construction names."""
    root_kind(made.plan.kind).build(made)
    return made
