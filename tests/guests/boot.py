"""Starting a guest, and learning how its command ended."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen

from . import cards, foreign, own
from .common import CACHE, OWN, GuestError
from .guest import RUN, SHELL, Guest, write_job
from .kernels import version


def start(guest: Guest, shared: Path, kvm: bool | None, ending: str) -> list[str]:
    """The command line that starts a guest, for which all is written down in `shared`."""
    shell = ending == SHELL
    if guest.arch == OWN:
        argv = own.command(guest, shared, kvm, shell=shell)
    else:
        argv = foreign.command(guest, shared, shell=shell)
    write_job(guest, shared, ending)
    return argv


def boot(guest: Guest, argv: list[str], kvm: bool | None) -> int:
    """Boot a guest, pass on the command's output as it comes, and return its exit status."""
    console: deque[bytes] = deque(maxlen=60)
    with contextlib.ExitStack() as stack:
        shared = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xdpctl-vm-")))
        (shared / "output").touch()
        output = stack.enter_context((shared / "output").open("rb", buffering=0))
        command = start(guest, shared, kvm, RUN % shlex.join(argv))
        child = Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True)
        # On any way out. Once the status is known nothing is gained by waiting for a shutdown.
        stack.callback(stop, child)
        reader = threading.Thread(target=console.extend, args=(child.stdout or (),), daemon=True)
        reader.start()
        deadline = time.monotonic() + guest.timeout
        status, problem = shared / "status", ""
        while not problem:
            time.sleep(0.05)
            if child.poll() is not None:
                problem = "crashed, or did not boot"
            elif time.monotonic() > deadline:
                problem = f"was stopped after {guest.timeout:g} seconds"
            if guest.cards:
                cards.serve(shared)
            done = status.exists()
            while chunk := output.read(1 << 20):
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
            if done:
                return int(status.read_text())
        stop(child)
        reader.join(5)
        tail = b"".join(console).decode(errors="replace").strip()
        known = version(guest.series, guest.arch)
        raise GuestError(f"{tail}\n\ntests/vm: the guest ({known}) {problem}")


def stop(child: Popen[bytes]) -> None:
    """End a guest's command and the qemu that it started: both are in the session made for them."""
    for number in (signal.SIGTERM, signal.SIGKILL):  # on the first, virtme-ng cleans up
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(child.pid, number)
            child.wait(5)


def use_kvm(series: str | None) -> bool | None:
    """Whether a guest really boots with KVM: the device alone is no proof. None: not known yet."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    path = CACHE / "kvm"
    key = f"{os.uname().release} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()} "
    known = path.read_text() if path.exists() else ""
    if known.startswith(key) or series is None:
        return known == key + "yes" if known.startswith(key) else None
    works = False
    with contextlib.suppress(GuestError):
        works = boot(Guest(series, OWN, 1, "1G", timeout=30), ["true"], kvm=True) == 0
    path.write_text(key + ("yes" if works else "no"))
    return works


def shell(guest: Guest, kvm: bool | None) -> int:
    """Boot a guest with a shell on this terminal."""
    with tempfile.TemporaryDirectory(prefix="xdpctl-vm-") as shared:
        return subprocess.call(start(guest, Path(shared), kvm, SHELL))
