"""What a command asks of a change, beside the chain itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ..value import Value
from .kinds import AskedKind
from .labels import Attach
from .state import Mode
from .terms import UNRECORDED, Terms

AskedMode = Mode | Literal["unspecified"]
"""`unspecified` leaves the choice to the kernel: native where the driver can, else generic."""

MODES = ("native", "skb", "hw", "unspecified")
MODE_WORDS = {
    **dict.fromkeys(("driver", "xdpdrv"), "native"),
    **dict.fromkeys(("generic", "xdpgeneric"), "skb"),
    **dict.fromkeys(("offload", "xdpoffload"), "hw"),
    "xdp": "unspecified",
}
"""Modes in the words of ip-link(8) and bpftool-net(8), and in those of xdp-loader."""


class Request(Value):
    """What is asked of the new root, and of the change that brings it.

    None means what is there, whoever made it; for a first root native mode, a link, `auto` and what
    most of libxdp's tools read. `attach` is asked of any root, `first_attach` of a first one alone.
    `adopts` allows to take over from a program without a dispatcher. With `unless_same` a chain
    that is there already, whole and on a root as is asked for, keeps its root. A root that is to be
    `shared` is that of other interfaces with the same target. `dry_run` plans and changes nothing.
    `terms` say how the change can be taken back.
    """

    mode: AskedMode | None = None
    attach: Attach | None = None
    first_attach: Attach | None = None
    kind: AskedKind | None = None
    protocol: int | None = None
    adopts: bool = False
    unless_same: bool = False
    shared: bool = False
    dry_run: bool = False
    terms: Terms = UNRECORDED

    def completed(self, other: Request) -> Request:
        """The same, with what `other` asks of the root where this asks nothing."""
        return replace(
            self,
            mode=self.mode or other.mode,
            attach=self.attach or other.attach,
            kind=self.kind or other.kind,
            protocol=self.protocol or other.protocol,
            shared=self.shared or other.shared,
        )


USUAL_REQUEST = Request()
"""A root like the one that is there, and a change that is not recorded."""
