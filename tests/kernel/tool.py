"""The tool under test, run as a user would: in this process for speed, or as one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kernel import net, oracle, served
from tests.schemas import kept
from xdpctl.cli.run import run
from xdpctl.model.chain import Kind

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """What a command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The document that it printed, which keeps to its schema."""
        return kept(json.loads(self.out))


class Tool:
    """xdpctl with a bpffs of the test's own."""

    def __init__(self, bpffs: Path, kind: Kind) -> None:
        self.bpffs, self.kind = bpffs, kind
        os.environ["LIBXDP_BPFFS"] = str(bpffs)
        os.environ["XDPCTL_RUN"] = str(bpffs.with_name("run"))

    def try_(self, *words: object) -> Result:
        """Run a command line in this process, whatever comes of it."""
        out, err = io.StringIO(), io.StringIO()
        # --netns is for the rest of a process, which here runs other tests, too.
        with net.at_home(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run([str(word) for word in words])
        assert "Traceback" not in err.getvalue(), err.getvalue()
        return Result(code, out.getvalue(), err.getvalue())

    def __call__(self, *words: object) -> Result:
        """Run a command line that has to succeed."""
        result = self.try_(*words)
        assert result.code == 0, result.err
        return result

    def process(self, *words: object, prefix: tuple[str, ...] = ()) -> Result:
        """Run a command line in a process of its own, behind a prefix such as strace's."""
        command = [*prefix, sys.executable, "-m", "xdpctl", *map(str, words)]
        done = served.run(command, cwd=ROOT)
        return Result(done.returncode, done.stdout, done.stderr)

    def xdp_loader(self, *words: object) -> str:
        """Run the real xdp-loader on the same bpffs; what it prints. It has to succeed."""
        return subprocess.run(
            ["xdp-loader", *map(str, words)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        ).stdout

    def status(self, dev: str) -> dict[str, Any]:
        """An interface as status --json gives it."""
        (interface,) = self("status", dev, "--json").json["interfaces"]
        assert isinstance(interface, dict)
        return interface

    def ids(self, dev: str) -> list[int]:
        """The ids of the programs of an interface, in the order in which they run."""
        return [program["id"] for program in self.status(dev)["programs"]]

    def chain(self, ifindex: int) -> list[int]:
        """The same by the oracle, without xdpctl: whom the live root's functions call.

        Where link info does not tell (before Linux 5.13), what is pinned for the root has to do.
        A root that goes while it is looked at is no answer: the one that took its place is.
        """
        while root := oracle.xdp_prog_id(ifindex)[0]:
            try:
                return self._chain_of(root, ifindex)
            except OSError:
                if oracle.xdp_prog_id(ifindex)[0] == root:
                    raise
        return []

    def _chain_of(self, root: int, ifindex: int) -> list[int]:
        if self.kind == "ext" and oracle.lacks("link_target"):
            found = self.bpffs.glob(f"xdp/dispatch-{ifindex}-{root}/prog*-link")
            pins = sorted(found, key=lambda pin: (len(pin.name), pin.name))
            return [oracle.pinned_link(pin).prog_id for pin in pins]
        info = oracle.prog(root)
        if info.name == "xdpctl_fused":
            return oracle.fused_chain(info)
        if not info.btf_id:
            return []
        names = {number: name for name, number in oracle.btf_funcs(info.btf_id).items()}
        hooked = oracle.ext_chain(root)
        order = sorted(hooked, key=lambda number: (len(names[number]), names[number]))
        return [hooked[number] for number in order]

    def pins(self) -> list[str]:
        """The paths below the bpffs, relative to it, without libxdp's lock directory."""
        # Others may be removing some: what is gone by the time that it is looked into is not there.
        found = os.walk(self.bpffs / "xdp")
        return sorted(
            os.path.relpath(f"{top}/{name}", self.bpffs)
            for top, directories, files in found
            for name in (*directories, *files)
        )
