"""What a guest is made of, and the job that it runs."""

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from .common import OWN

GUEST_DIR = "/run/xdpctl-vm"
"""Where a guest has the directory that it shares with tests/vm."""
# The command writes into a pipe, because one that opens /dev/stderr anew would cut a plain file
# short. What lives on after the command may hold the pipe open, hence the limit to the waiting.
RUN = f"""
mkfifo /run/xdpctl-output
cat /run/xdpctl-output >{GUEST_DIR}/output &
(prepare && exec -- %s) </dev/null >/run/xdpctl-output 2>&1
status=$?
for _ in {{1..100}}; do kill -0 $! 2>/dev/null || break; sleep 0.02; done
sync
echo $status >{GUEST_DIR}/status.new
mv {GUEST_DIR}/status.new {GUEST_DIR}/status
"""
SHELL = "prepare\nexec bash -i\n"


@dataclass
class Guest:
    """What a guest is made of, apart from its command."""

    series: str
    arch: str = OWN
    cpus: int = 2
    memory: str = "3G"
    timeout: float = 900
    shares: list[Path] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    exact: bool = False
    cards: bool = False


def write_job(guest: Guest, shared: Path, ending: str) -> None:
    """Write what a guest runs as root: the same preparation, and RUN or SHELL behind it."""
    job = f"""#!/bin/bash
# Written by tests/vm: runs in the guest, as root.
for name in $(compgen -e); do unset "$name"; done
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
export HOME {shlex.join(f"{key}={value}" for key, value in guest.env.items())}
prepare() {{
    mount -t bpf bpf /sys/fs/bpf
    mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
    mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
    modprobe veth
    echo 1 >/proc/sys/net/core/bpf_jit_enable
    ip link set lo up
    cd {shlex.quote(os.getcwd())}
}}
"""
    (shared / "job").write_bytes(os.fsencode(job + ending))
    (shared / "job").chmod(0o755)
