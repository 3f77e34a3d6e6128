"""Package build: compile the general dispatchers, for machines that have no clang of their own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class DispatcherHook(BuildHookInterface):  # type: ignore[misc]
    """Makes them in bpf/ and has the wheel carry them, where there is clang with its BPF target."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if shutil.which("clang") is None:
            print(
                "xdpctl: without clang the package has no compiled dispatchers: "
                "on a machine that has no clang either, only fused roots will work",
                file=sys.stderr,
            )
            return
        sys.path.insert(0, self.root)
        from xdpctl.model.record import PROTOCOLS
        from xdpctl.roots.dispatcher import compile_c, general

        bpf = Path(self.root) / "bpf"
        source = (bpf / "dispatcher.c").read_bytes()
        for protocol in PROTOCOLS:
            image = compile_c(source, f"-DPROTOCOL={protocol}")
            (bpf / general(protocol)).write_bytes(image)
            build_data["artifacts"].append(f"/bpf/{general(protocol)}")
