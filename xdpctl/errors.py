"""What can go wrong, as an interface: each class has an exit code, each error its remedy.

An error prints as up to three lines on standard error: what failed, why, what to do; its details,
such as the verifier's whole log, with -v. The exit codes are part of the contract and listed in
xdpctl(8); a test compares that list with this module.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator


class XdpctlError(Exception):
    """The command failed."""

    exit_code = 1

    def __init__(
        self, what: str, *, why: str = "", hint: str = "", details: str = "", number: int = 0
    ) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint
        self.details = details
        self.number = number
        """The errno of libxdp's for this case, where neither class nor cause tells it."""

    def as_dict(self) -> dict[str, object]:
        """The error as ``--json`` prints it."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "why": self.why,
            "hint": self.hint,
            "details": self.details,
            "exit_code": self.exit_code,
        }


class UsageError(XdpctlError):
    """The command line does not make sense."""

    exit_code = 2


class NotFoundError(XdpctlError):
    """An interface, a file, a program, a section or a namespace that was named does not exist."""

    exit_code = 3


class BadObjectError(XdpctlError):
    """A file cannot be used: an object without a fitting XDP program, a broken capture or chain."""

    exit_code = 4


class VerifierError(XdpctlError):
    """The kernel's verifier refused the program."""

    exit_code = 5


class RightsError(XdpctlError):
    """The process lacks a right."""

    exit_code = 6


class UnsupportedError(XdpctlError):
    """The kernel, its policy or the driver does not do this."""

    exit_code = 7


class HookBusyError(XdpctlError):
    """Another tool's program or link owns the interface's XDP hook."""

    exit_code = 8


class BpffsError(XdpctlError):
    """The BPF file system is missing, read-only, full or unsafe."""

    exit_code = 9


class ChainFullError(XdpctlError):
    """More programs than the root has slots, or the protocol that was asked for."""

    exit_code = 10


class RaceError(XdpctlError):
    """Somebody else kept changing the interface."""

    exit_code = 11


class VanishedError(XdpctlError):
    """The interface went away while the command ran."""

    exit_code = 12


class LockTimeoutError(XdpctlError):
    """Another process kept the lock of the interface for longer than this one would wait."""

    exit_code = 13


class GateError(XdpctlError):
    """A packet that has to pass would not pass the new chain; nothing was changed."""

    exit_code = 14


class UnconfirmedError(XdpctlError):
    """A change of the interface waits for its confirmation, or did not get it in time."""

    exit_code = 15


class OutputError(XdpctlError):
    """What was done could not be told: an output is closed, or full."""

    exit_code = 16


class DiffersError(XdpctlError):
    """A check has found an interface that does not run what its file says."""

    exit_code = 17


class RegistryError(XdpctlError):
    """A registry cannot be reached or refuses, or what it says is not so."""

    exit_code = 18


class UntrustedError(XdpctlError):
    """A signature is missing or wrong, or the policy of this machine refuses a program."""

    exit_code = 19


class Interrupted(XdpctlError):  # noqa: N818 - named after what happened, not a fault of its own
    """A signal ended the command before its change was live; what it had begun was undone."""

    exit_code = 130

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by signal {signum}")
        self.exit_code = 128 + signum


_LIBBPF = {
    4000: "libelf failed",
    4001: "the format of the object is invalid",
    4002: "the object's kernel version is missing or invalid",
    4003: "the object is of the other byte order",
    4004: "a fault in libbpf itself",
    4005: "a relocation failed",
    4006: "the program could not be loaded",
    4007: "the verifier refused the program",
    4008: "the program is too large",
    4009: "the program is for another version of the kernel",
    4010: "the kernel does not know this type of program",
    4011: "an answer over netlink was for another process",
    4012: "an answer over netlink was out of order",
    4013: "an answer over netlink cannot be read",
}
"""libbpf's own numbers, which go on where those of the system end (<bpf/libbpf.h>)."""


def _words(code: int) -> str:
    return _LIBBPF.get(code) or os.strerror(code)


_REMEDIES = {
    errno.EMFILE: "raise the limit of open files: ulimit -n 1024",
    errno.ENFILE: "the machine has no more open files: sysctl fs.file-max",
    errno.ENOMEM: "there is not enough memory: see ulimit -v, and the limits of the control group",
    errno.EAGAIN: "there are too many processes: see ulimit -u, and the control group's limit",
}


class KernelError(OSError):
    """A kernel call failed: `call` names it, `log` is what libbpf or the verifier said."""

    def __init__(self, call: str, code: int, log: str = "") -> None:
        super().__init__(code, _words(code))
        self.call = call
        self.log = log

    def is_shortage(self) -> bool:
        """Whether the kernel had too little of something: the same call may succeed elsewhere."""
        return self.errno in _REMEDIES

    def explained(self, what: str = "") -> XdpctlError:
        """As an error of the command, where nothing more is known of it."""
        return XdpctlError(
            what or f"a kernel call failed: {self.call}",
            why=self.log.strip() or str(self),
            hint=_REMEDIES.get(self.errno or 0, ""),
            number=self.errno or 0,
        )

    def __str__(self) -> str:
        name = errno.errorcode.get(self.errno or 0, str(self.errno))
        return f"{self.call}: {self.strerror} ({name})"


@contextlib.contextmanager
def unless_short() -> Iterator[None]:
    """Take what the kernel refuses for an answer, but not a want of memory or descriptors.

    That says nothing of what was asked: taken for "it is not there", it would change what is.
    """
    try:
        yield
    except KernelError as error:
        if error.is_shortage():
            raise


def explained(error: OSError) -> XdpctlError:
    """An error of the system as one of the command, where nothing more is known of it."""
    if isinstance(error, KernelError):
        return error.explained()
    hint = _REMEDIES.get(error.errno or 0, "")
    return XdpctlError("a system call failed", why=str(error), hint=hint, number=error.errno or 0)


def meant(word: str, known: Iterable[str]) -> str:
    """``did you mean count?`` for the word that is most like one, or "" if none is."""
    import difflib

    names = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower(), names, 1, _ALIKE)
    return f"did you mean {_one_line(names[found[0]])}?" if found else ""


def listed(known: Iterable[str], most: int = 12) -> str:
    """Names in a line, as many as one reads, or ``none``."""
    names = list(known)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(map(_one_line, names[:most])) or "none") + more


def choices(word: str, known: Iterable[str]) -> str:
    """What was meant by a word, and what there is."""
    names = list(known)
    return " ".join(filter(None, [meant(word, names), there(names)]))


def there(known: Iterable[str]) -> str:
    """``there is eth0``, ``there are eth0, eth1``, or ``there are none``."""
    names = list(known)
    return f"there {'is' if len(names) == 1 else 'are'} {listed(names)}"


def _one_line(name: str) -> str:
    """A name from outside within a text of several lines."""
    return name if name.isprintable() else ascii(name)[1:-1]


_ALIKE = 0.6


def errno_name(number: int) -> str | None:
    """EPERM for 1; None for 0, the number where it has no name."""
    # 524 is of the kernel alone; 95 has two names.
    names = {**errno.errorcode, 524: "ENOTSUPP", errno.EOPNOTSUPP: "EOPNOTSUPP"}
    return names.get(number, str(number)) if number else None
