"""Package build: compile the general dispatcher, for machines that have no clang of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class DispatcherHook(BuildHookInterface):  # type: ignore[misc]
    """Makes bpf/dispatcher.o and has the wheel carry it. Needs clang with its BPF target."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        from xdpctl.dispatcher import compile_c

        bpf = Path(self.root) / "bpf"
        (bpf / "dispatcher.o").write_bytes(compile_c((bpf / "dispatcher.c").read_bytes()))
        build_data["artifacts"].append("/bpf/dispatcher.o")
