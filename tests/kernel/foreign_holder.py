"""A process that knows nothing of xdpctl and holds an EXT program on a root, unpinned.

    python -m tests.kernel.foreign_holder --root ID --func prog0 [--count] [--code N]

prints one JSON line {"pid", "prog", "link", "map", "func"} (ids; map null without --count), waits
for a line or the end of its standard input, and exits, which closes its link. At a line "close" it
closes that and lives on. Tests start it with `Foreign`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kernel import oracle, served


class Foreign:
    """The process, as a context manager: ids in `prog_id`, `link_id`, `map_id`, `func_id`."""

    def __init__(
        self,
        root_id: int,
        func: str = "prog0",
        *,
        count: bool = True,
        code: int = oracle.XDP_PASS,
        name: str = "foreign",
    ) -> None:
        command = [sys.executable, "-m", "tests.kernel.foreign_holder"]
        command += ["--root", str(root_id), "--func", func, "--code", str(code), "--name", name]
        self._process = served.Program(
            [*command, *(["--count"] if count else [])],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the foreign holder failed with {self._process.wait()}")
        ids = json.loads(line)
        self.pid: int = ids["pid"]
        self.prog_id: int = ids["prog"]
        self.link_id: int = ids["link"]
        self.func_id: int = ids["func"]
        self.map_id: int | None = ids["map"]

    def packets(self) -> int:
        """How many packets its program has counted."""
        assert self.map_id is not None
        return oracle.array_counter(self.map_id)

    def close(self) -> None:
        """Have it close its link and its program, and live on."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("close\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "closed\n"
        assert self._process.poll() is None

    def release(self) -> None:
        """Let it end in an orderly way; returns when it is gone."""
        self._process.communicate("go\n")

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=int, required=True, help="id of the root program")
    parser.add_argument("--func", default="prog0", help="function of the root to take the place of")
    parser.add_argument("--count", action="store_true", help="count packets in an array map")
    parser.add_argument("--code", type=int, default=oracle.XDP_PASS, help="return code")
    parser.add_argument("--name", default="foreign", help="program name")
    arguments = parser.parse_args()
    held = oracle.hold_unpinned(
        arguments.root,
        arguments.func,
        count=arguments.count,
        code=arguments.code,
        name=arguments.name,
    )
    ids = {"prog": held.prog_id, "link": held.link_id, "map": held.map_id, "func": held.func_id}
    print(json.dumps({"pid": os.getpid(), **ids}), flush=True)
    if sys.stdin.readline() == "close\n":
        held.close()
        print("closed", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main()
