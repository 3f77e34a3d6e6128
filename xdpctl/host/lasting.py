"""What outlives this process: mounts and namespaces that somebody else holds, too.

A mount goes with the last mount namespace that it is in, and a namespace with the last process in
it, unless a mount or a descriptor keeps it (mount_namespaces(7), proc_pid_ns(5)).
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator
from typing import Literal

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC

# Programs that do nothing after the command that they start but end.
_WRAPPERS = {
    *("chroot", "doas", "env", "flock", "ip", "ltrace", "nice", "nohup", "nsenter", "perf"),
    *("runuser", "script", "setpriv", "setsid", "stdbuf", "strace", "su", "sudo", "time"),
    *("timeout", "unshare", "xargs"),
}
_SHELLS = {"ash", "bash", "dash", "ksh", "mksh", "sh", "zsh"}

Kind = Literal["mnt", "net"]


def is_mounted_elsewhere(device: int) -> bool:
    """Whether a file system (`st_dev`) stays mounted if this process, and what it started, ends."""
    wanted = f" {os.major(device)}:{os.minor(device)} ".encode()
    seen: set[str] = set()
    for pid in _others():
        with contextlib.suppress(OSError):
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            # What a process sees of the mounts of a namespace depends on its root directory.
            key = f"{namespace} {os.readlink(f'/proc/{pid}/root')}"
            if key not in seen:
                seen.add(key)
                with open(f"/proc/{pid}/mountinfo", "rb") as mounts:
                    if any(wanted in line.partition(b" - ")[0] for line in mounts):
                        return True
    return False


def is_shared(kind: Kind) -> bool:
    """Whether a process that does not end with this one is in the same namespace."""
    own = os.readlink(f"/proc/self/ns/{kind}")
    with contextlib.suppress(OSError):
        # The usual case first: the machine's own, or a container's.
        if os.getpid() != 1 and os.readlink(f"/proc/1/ns/{kind}") == own:
            return True
    for pid in _others():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/{kind}") == own:
                return True
    return False


def is_kept(kind: Kind) -> bool:
    """Whether a mount, or a descriptor of another process, keeps the namespace."""
    own = os.readlink(f"/proc/self/ns/{kind}")
    for pid in _others():
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/mountinfo", "rb") as mounts:
                # nsfs has the namespace's name (mnt:[4026...]) as the root, the fourth.
                if any(line.split(b" ", 4)[3] == own.encode() for line in mounts):
                    return True
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{fd}") == own:
                        return True
    return False


def sees_all() -> bool:
    """Whether every process of the machine can be seen."""
    return os.stat("/proc/self/ns/pid").st_ino == _INITIAL_PID_NAMESPACE


def names(directory: str = "/run/netns") -> list[str]:
    """The names that ip-netns(8) has for the network namespace of this process."""
    found, own = [], os.stat("/proc/self/ns/net")
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(directory)):
            with contextlib.suppress(OSError):
                if os.path.samestat(own, os.stat(f"{directory}/{name}")):
                    found.append(name)
    return found


def is_older_than_us(path: str) -> bool:
    """Whether a file system was there before the first process that can be seen.

    Then somebody outside, who cannot be seen, has mounted it. Where all processes can be seen
    there is no outside.
    """
    if sees_all():
        return False
    try:
        status = os.stat(path)
        with open("/proc/1/stat", "rb") as stat:
            # proc_pid_stat(5): starttime is the 22nd; the name, the 2nd, may hold anything.
            ticks = int(stat.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError):
        return False
    begun = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    return min(status.st_atime, status.st_mtime, status.st_ctime) < begun


def _others() -> Iterator[int]:
    """The processes that do not end with this one, as far as can be told."""
    parents = _parents()
    top = own = os.getpid()
    while (above := parents.get(top, 0)) > 1 and _ends_with_us(above):
        top = above
    for pid in parents:
        # What a wrapper started beside us, such as the rest of a pipe, ends with it.
        if not _is_below(pid, top, parents) and pid != own:
            yield pid


def _parents() -> dict[int, int]:
    """The parent of every process that can be seen."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:
                found[int(name)] = int(stat.read().rpartition(b")")[2].split()[1])
    return found


def _is_below(pid: int, top: int, parents: dict[int, int]) -> bool:
    seen = set()
    while pid and pid not in seen:
        if pid == top:
            return True
        seen.add(pid)
        pid = parents.get(pid, 0)
    return False


def _ends_with_us(pid: int) -> bool:
    """Whether a process above us is a wrapper, or a shell that was given us as its last command."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = [os.fsdecode(word) for word in file.read().rstrip(b"\0").split(b"\0")]
    except OSError:
        return False
    name = os.path.basename(words[0])
    if name not in _SHELLS:
        return name in _WRAPPERS
    given = next((at for at, word in enumerate(words) if re.fullmatch(r"-[a-z]*c", word)), None)
    if given is None or given + 1 >= len(words):
        return False
    commands = re.split(r"[;&\n]+", words[given + 1].strip(" \t\n;"))
    return len(commands) == 1 or all(word in commands[-1] for word in sys.argv[1:])
