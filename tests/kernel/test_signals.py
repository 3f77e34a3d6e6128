"""Signals at any instant of a change: it is made and said so, or undone and said so."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter

from tests.kernel import net
from tests.kernel.conftest import Objects
from tests.kernel.tool import ROOT, Tool
from xdpctl.host.signals import ENDING

ROUNDS = int(os.environ.get("XDPCTL_SIGNALS", "10"))
"""How many signals are sent; more with the environment's XDPCTL_SIGNALS=500."""

# What a signal does before the interpreter has come to the package is not for that to say.
_CODE = """
import os, signal, sys
from xdpctl import __main__ as entry
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, entry._end)
os.write(3, b"ready")
os.close(3)
entry.main()
"""


def _begin(*words: object) -> subprocess.Popen[str]:
    read, write = os.pipe()

    def as_three() -> None:
        os.dup2(write, 3)

    process = subprocess.Popen(
        [sys.executable, "-c", _CODE, *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[3, write],
        preexec_fn=as_three,
    )
    os.close(write)
    assert os.read(read, 5) == b"ready"
    os.close(read)
    return process


def test_signals_at_random_instants(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Changes of a chain, which fork a process each; the counts are printed."""
    tool("load", veth.dev, objects["count"])
    begin = time.monotonic()
    _begin("load", veth.dev, objects["pass"]).communicate()
    whole = time.monotonic() - begin
    tool("unload", veth.dev, "-n", "pass")
    seen: Counter[str] = Counter()
    seed = int(os.environ.get("XDPCTL_SEED", time.time_ns() % 1_000_000))
    chance = random.Random(seed)
    for _round in range(ROUNDS):
        number, instant = chance.choice(ENDING), chance.uniform(0, whole)
        process = _begin("load", veth.dev, objects["pass"])
        time.sleep(instant)
        process.send_signal(number)
        out, err = process.communicate()
        names = [one["name"] for one in tool.status(veth.dev)["programs"]]
        what = f"seed {seed}: signal {number} after {instant:.4f} s: {process.returncode}: {err}"
        assert process.returncode in (0, 128 + number), what
        made = process.returncode == 0
        assert names == ["count", *["pass"] * made], what
        assert ("loaded pass" in out) == made, what
        assert (f"interrupted by signal {number:d}" in err) != made, what
        assert err.count("\n") == (not made), what
        assert tool.status(veth.dev)["residue"] == [], what
        seen["made" if made else "undone"] += 1
        if made:
            tool("unload", veth.dev, "-n", "pass")
    print(f"{ROUNDS} signals: {dict(seen)}")
