"""The first day with xdpctl, on a page: its commands run again, and what they print written there.

    tests/alone .venv/bin/python -m tests.kernel.first_day

The page says what is to be done. Below each command stands what it printed when this ran last: this
writes there what they print now. `test_readme.py` runs the commands as well, and compares.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from unittest.mock import patch

from tests.kernel import net, session
from tests.kernel.session import COLUMNS, Shown, blocks, command_on_path, printed, with_blocks
from xdpctl.bpffs.mount import DEFAULT_BPFFS as DEFAULT
from xdpctl.change.planning import KIND_VARIABLE
from xdpctl.host import cache

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/first-day.md"
_LOG = re.compile(r"(the verifier refused .*)\n  why: (?:.*\n)*? +(?:\S+\.c:\d+: )?(what a lookup)")


def is_of_this_machine(command: str) -> bool:
    """Whether what a command prints is of the machine, and another thing on another one."""
    return command.startswith("xdpctl doctor")


def alike(text: str) -> str:
    """What has to be alike: no numbers, and of the verifier's words those that xdpctl adds.

    The log is another one on each kernel, and older ones do not name the line of the source.
    """
    return session.alike(_LOG.sub(r"\1\n\2", text))


def blocks_now(
    page: str, bpffs: Path, directory: Path, *, everything: bool = True
) -> list[list[Shown]]:
    """The blocks of the page with what its commands print now.

    In a network namespace of their own, and a directory with the examples of the source. The BPF
    file system and the cache stand for the usual ones. What only shows this machine is left out
    unless `everything` is wanted.
    """
    day, tools = directory / "day", directory / "bin"
    for one in (day, tools):
        one.mkdir()
    (day / "examples").symlink_to(ROOT / "examples")
    command_on_path(tools)
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "LIBXDP_BPFFS": str(bpffs),
        "COLUMNS": str(COLUMNS),
        "TERM": "xterm",
        "PYTHONPATH": str(ROOT),
    }

    def now(command: str) -> Shown:
        if is_of_this_machine(command) and not everything:
            return Shown(command, "")
        text = printed(command.replace(DEFAULT, str(bpffs)), day).replace(str(bpffs), DEFAULT)
        print(f"# {command}\n{text}", end="", flush=True)
        return Shown(command, text.replace(cache.state()[0], cache.CACHE))

    with patch.dict(os.environ, environment), net.NetNs() as space, space.entered():
        return [[now(one.command) for one in block] for block in blocks(page)]


def main() -> None:
    os.environ[KIND_VARIABLE] = "fused"
    with tempfile.TemporaryDirectory() as directory:
        bpffs = Path(directory) / "bpffs"
        bpffs.mkdir()
        subprocess.run(["mount", "-t", "bpf", "bpf", bpffs], check=True)
        try:
            page = PAGE.read_text()
            text = with_blocks(page, blocks_now(page, bpffs, Path(directory)))
        finally:
            subprocess.run(["umount", "-l", bpffs], check=True)
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
