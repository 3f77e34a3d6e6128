"""Where things lie, and how a command is called."""

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from subprocess import DEVNULL
from typing import NoReturn

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDPCTL_VM_CACHE") or "/var/cache/xdpctl-vm").absolute()
FAILED = 125
"""The exit status if the guest failed, not the command."""
MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "s390x": "s390x"}
"""What uname(2) calls an architecture of Debian's."""
OWN = next((arch for arch, name in MACHINES.items() if name == platform.machine()), "amd64")


class GuestError(Exception):
    """The guest ended without telling how its command did."""


def die(message: str) -> NoReturn:
    print(f"tests/vm: {message}", file=sys.stderr)
    sys.exit(FAILED)


def call(*argv: str | Path, cwd: Path | None = None) -> str:
    """What a command prints; one that fails ends all."""
    done = subprocess.run(argv, cwd=cwd, stdin=DEVNULL, capture_output=True, text=True)
    if done.returncode:
        die(f"{shlex.join(map(str, argv))} failed:\n{(done.stderr or done.stdout).strip()}")
    return done.stdout


def place(arch: str) -> Path:
    """The directory of an architecture: that of this machine's own is the cache itself."""
    return CACHE if arch == OWN else CACHE / arch
