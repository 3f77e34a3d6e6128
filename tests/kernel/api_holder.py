"""A process that holds a program in a chain by xdpctl's Python API, told what to do line by line.

    python -m tests.kernel.api_holder OBJECT|SOURCE INTERFACE PRIORITY

prints a JSON line at first and after each word on its standard input; tests talk to it by `Holder`.
A SOURCE is in BCC's dialect: the process compiles it itself, as a script of BCC's does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.kernel import served

ROOT = Path(__file__).parents[2]


class Holder:
    """The process, as a context manager."""

    def __init__(self, path: Path, dev: str, priority: int = 50) -> None:
        self._process = served.Program(
            [sys.executable, "-m", "tests.kernel.api_holder", str(path), dev, str(priority)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        told = self._read()
        self.pid: int = told["pid"]
        self.prog_id: int = told["program"]
        self.held_id: int = told["held"]
        self.fd: int = told["fd"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the holder ended with {self._process.wait()}")
        told: dict[str, Any] = json.loads(line)
        return told

    def ask(self, word: str) -> dict[str, Any]:
        """Have it do something; returns what it says then."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._read()

    def settle(self, root: int, timeout: float = 30) -> dict[str, Any]:
        """What `look` says once its link is on a root; the process does nothing for it.

        The program array that a fused root calls is the same for all roots.
        """
        end = time.monotonic() + timeout
        while (told := self.ask("look"))["target"] not in (root, None):
            assert time.monotonic() < end, (told, root)
            time.sleep(0.05)
        return told

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def stop(self) -> None:
        """SIGSTOP: it holds what it holds and follows nothing."""
        self._process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.01)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()


def main(path: str, dev: str, priority: str) -> None:
    import xdpctl
    from xdpctl.kernel import libbpf

    module = None
    if path.endswith(".c"):
        from bcc import BPF

        module = BPF(text=Path(path).read_bytes())
        attachment = xdpctl.attach(module, dev, program="seen", priority=int(priority))
    else:
        attachment = xdpctl.attach(path, dev, priority=int(priority))
    fd = attachment.fd

    def held() -> dict[str, int | None]:
        """What is behind the descriptor, without the attachment's help; a map has no target."""
        try:
            what = os.readlink(f"/proc/self/fd/{fd}")
            if "map" in what:
                return {"held": libbpf.map_info(fd).id, "target": None}
            if "link" in what:
                link = libbpf.link_info(fd)
                return {"held": link.id, "target": link.target}
        except OSError:
            pass
        return {"held": 0, "target": 0}

    tell(pid=os.getpid(), program=attachment.program_id, fd=fd, slot=attachment.slot, **held())
    children: list[int] = []
    for word in map(str.strip, sys.stdin):
        if word == "look":
            tell(**held())
        elif word == "count":
            assert module is not None
            tell(count=module["packets_seen_by_bcc"][0].value)
        elif word == "use":
            tell(fd=attachment.fd, slot=attachment.slot, attached=attachment.attached)
        elif word == "wait":
            tell(ended=attachment.wait(10))
        elif word == "detach":
            attachment.detach()
            attachment.detach()
            tell(attached=attachment.attached)
        elif word == "close":
            os.close(fd)
            tell(attached=attachment.attached)
        elif word == "fork":
            child = os.fork()
            if not child:
                signal.pause()
            children.append(child)
            tell(child=child)
        elif word == "reap":
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            tell(children=len(children))


def tell(**values: object) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
