"""The pictures of docs/pictures, from real runs.

    python -m tests.kernel.pictures DIRECTORY

Runs in the network and mount namespaces that it is started in (`make pictures`), on a fused root,
which every kernel allows, in a terminal of 80 columns.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.kernel import net
from tests.kernel.tool import ROOT, Tool
from tests.picture import svg
from xdpctl.change.planning import KIND_VARIABLE
from xdpctl.model.chain import Kind

KIND: Kind = "fused"
COLUMNS, LINES = 80, 50
DEV = "eth0"
NEW = "build/tests/bpf/shrink.o"
COMMANDS = {
    "status": f"status {DEV}",
    "show": f"show {DEV}",
    "stats": f"stats {DEV} --watch",
    "test": f"test {DEV} load {NEW} --prio 20",
}
RATE = 5000
_AGAIN = re.compile(r"(?:\r|\x1b\[2K|\x1b\[1A)*\x1b\[1A(?:\r|\x1b\[2K|\x1b\[1A)*")
"""How rich goes back to the first line of what it shows live."""


class Shown(NamedTuple):
    """A command as a user types it, and what it printed, with colours."""

    command: str
    printed: str


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal's two ends: where to read what it shows, and what a process is given."""
    reading, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", LINES, COLUMNS, 0, 0))
    try:
        yield reading, slave
    finally:
        os.close(reading)
        os.close(slave)


def run(words: str, frames: int = 0, limit: float = 120) -> Shown:
    """Run a command line of xdpctl on a terminal; what is shown live ends after so many frames."""
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "xdpctl", *words.split()]
    said, end = "", time.monotonic() + limit
    with terminal() as (reading, slave):
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=slave, stdout=slave, stderr=subprocess.PIPE
        )
        while select.select([reading], [], [], 0.1)[0] or process.poll() is None:
            if select.select([reading], [], [], 0)[0]:
                said += os.read(reading, 1 << 16).decode(errors="replace")
            if (frames and len(_AGAIN.findall(said)) >= frames) or time.monotonic() > end:
                process.send_signal(signal.SIGINT)
                frames, end = 0, end + limit
        errors = process.communicate()[1].decode()
    if process.returncode:
        raise RuntimeError(f"xdpctl {words} ended with {process.returncode}: {errors}")
    last = _AGAIN.split(said.replace("\r\n", "\n"))[-1]
    return Shown(f"xdpctl {words}", re.sub(r"\x1b\[\?25[lh]", "", last).strip("\n") + "\n")


def scenes(tool: Tool, interval: float = 1) -> dict[str, Shown]:
    """Each command once, on two programs of the examples, under traffic."""
    with net.NetNs() as space, space.entered(), net.Veth(name=DEV) as veth:
        tool("load", DEV, ROOT / "examples/ratelimit.c", "--prio", "10")
        tool("load", DEV, ROOT / "examples/counter.c")
        shown = {name: run(COMMANDS[name]) for name in ("status", "show", "test")}
        tool("stats", DEV, "--on")
        with net.Flood(veth, rate=RATE):
            stats = run(f"{COMMANDS['stats']} --interval {interval:g}", frames=4)
        shown["stats"] = Shown(f"xdpctl {COMMANDS['stats']}", stats.printed)
        tool("unload", DEV, "--all")
    return shown


def main() -> None:
    os.environ[KIND_VARIABLE] = KIND
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        bpffs = Path(directory) / "bpffs"
        bpffs.mkdir()
        subprocess.run(["mount", "-t", "bpf", "bpf", bpffs], check=True)
        try:
            shown = scenes(Tool(bpffs, KIND))
        finally:
            subprocess.run(["umount", "-l", bpffs], check=True)
    target.mkdir(exist_ok=True)
    for name, (command, printed) in shown.items():
        (target / f"{name}.svg").write_text(svg(command, printed, COLUMNS), encoding="utf-8")


if __name__ == "__main__":
    main()
