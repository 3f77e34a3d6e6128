"""Which rights the process has, and what a refusal by the kernel means."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from ..errors import KernelError, NotFoundError, RightsError, UnsupportedError, XdpctlError

# Bits of capabilities(7). CAP_SYS_ADMIN because ids are looked up (BPF_*_GET_FD_BY_ID).
NEEDED = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
_CAP_SYS_PTRACE = 19


_INITIAL_USER_NAMESPACE = 0xEFFFFFFD


def missing() -> list[str]:
    """The capabilities that xdpctl needs and this process lacks, from /proc/self/status.

    Those of a user namespace count in there alone (user_namespaces(7)): BPF wants the machine's.
    """
    if _in_user_namespace():
        return list(NEEDED)
    effective = _effective()
    # Before Linux 5.8 CAP_SYS_ADMIN alone stood for what CAP_BPF and CAP_PERFMON are now.
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as last:
        known = int(last.read())
    return [name for name, bit in NEEDED.items() if bit <= known and not effective >> bit & 1]


def sees_others() -> bool:
    """Whether this process may look at the namespaces of others (CAP_SYS_PTRACE; proc(5))."""
    return bool(_effective() >> _CAP_SYS_PTRACE & 1)


def _effective() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))


def _in_user_namespace() -> bool:
    with contextlib.suppress(OSError):
        return os.stat("/proc/self/ns/user").st_ino != _INITIAL_USER_NAMESPACE
    return False  # a kernel without them


def _refused(what: str, lacking: list[str]) -> RightsError:
    if _in_user_namespace():
        return RightsError(
            what,
            why="this process is in a user namespace, whose capabilities count in there alone",
            hint="run xdpctl as root outside of it",
        )
    why = f"this process lacks {', '.join(lacking)}"
    return RightsError(what, why=why, hint="run xdpctl as root")


def require() -> None:
    """Raise RightsError where a capability is missing."""
    if lacking := missing():
        raise _refused("not enough rights", lacking)


def explain_refusal(error: KernelError, what: str, *, ext: bool = False) -> XdpctlError | None:
    """What EPERM without a verifier's reason means; None for any other errno.

    `ext` tells that a plain XDP program was loaded just before and an EXT one refused.
    """
    if error.errno != errno.EPERM:
        return None
    if lacking := missing():
        return _refused(f"the kernel refused {what}", lacking)
    if ext:
        return UnsupportedError(
            f"this kernel refuses EXT programs ({what})",
            why="loading it as type EXT gave EPERM, although no capability is missing and a plain "
            "XDP program loaded just before: a security policy of this machine forbids EXT",
            hint="--root fused runs the chain without EXT programs",
        )
    return UnsupportedError(
        f"the kernel refused {what}",
        why=f"{error}, although no capability is missing: a security policy (lockdown, LSM, "
        "seccomp) forbids loading BPF programs",
        hint="see dmesg and /sys/kernel/security/lockdown",
    )


_NOBODY = 0xFFFFFFFF


def user() -> int | None:
    """The id of the user who logged in (loginuid, proc(5)); None where nobody did."""
    with (
        contextlib.suppress(OSError, ValueError),
        open("/proc/self/loginuid", encoding="ascii") as file,
    ):
        number = int(file.read())
        return number if number != _NOBODY else None
    return None


# --- files that root obeys ------------------------------------------------------------------------

_MOST_LINKS = 40
"""As many as the kernel follows."""


def check_own(path: str, why: str, *, may_stick: bool = False) -> None:
    """Raise RightsError for what somebody else may write, and NotFoundError if it is not there.

    `why` says what others could do by it. A directory that `may_stick` may be one like /tmp, in
    which nobody renames what is another's.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read", why=str(error.strerror)) from error
    if not (may_stick and found.st_mode & stat.S_ISVTX):
        _check(path, found, why)


def read_own(path: str, limit: int, why: str) -> bytes:
    """The bytes of a file that nobody else may write or have another one stand for, up to a limit.

    The path is absolute. Raises what `files.read` raises, and RightsError as `check_own` does, of
    the file that is read and of each directory on the way to it.
    """
    from . import files

    for directory, may_stick in _way(path):
        check_own(directory, why, may_stick=may_stick)
    return files.read(path, limit, check=lambda found: _check(path, found, why))


def _way(path: str) -> Iterator[tuple[str, bool]]:
    """The directories in which a name is looked up on the way to a file; links are followed.

    With each, whether it may be one like /tmp: a directory in it is checked next, which a link, or
    the file at the end, is not.
    """
    names, here, links = path.split("/")[::-1], "/", 0
    while names:
        name = names.pop()
        if name == "..":
            here = os.path.dirname(here)
        if name in ("", ".", ".."):
            continue
        one = os.path.join(here, name)
        is_link = os.path.islink(one)
        yield here, bool(names) and not is_link
        if not is_link:
            here = one
            continue
        links += 1
        if links > _MOST_LINKS:
            raise NotFoundError(f"{path} cannot be read", why="too many links lead to it")
        target = os.readlink(one)
        here = "/" if target.startswith("/") else here
        names += target.split("/")[::-1]


def _check(path: str, found: os.stat_result, why: str) -> None:
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise RightsError(
            f"{path} may be written by others",
            why=why,
            hint=f"chown root {path}; chmod go-w {path}",
        )
