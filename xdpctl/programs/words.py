"""What libbpf and the verifier say of an object, as errors of the command: what, why, what to do.

libbpf's messages are the only thing that tells most of these cases apart. They differ a little from
release to release (1.0 to 1.6): the patterns hold what stays.
"""

from __future__ import annotations

import errno
import re
import sys
from typing import NamedTuple

from ..errors import BadObjectError, KernelError, UnsupportedError, VerifierError, XdpctlError
from ..host.rights import explain_refusal
from . import plain

LOG_LINES = 12
"""How many lines of the verifier's log an error shows."""

LEGACY = "translating legacy maps"
"""What a KernelError calls it; its log has the reason, a line a map."""

_TARGET = "bpfel" if sys.byteorder == "little" else "bpfeb"


class _Case(NamedTuple):
    """A message; the groups of its pattern stand in `why` and `hint` by number.

    What the kernel or its configuration lacks is `missing`, everything else the file's fault.
    """

    pattern: str
    why: str
    hint: str
    missing: bool = False


_CASES = (
    _Case(
        r"failed to find BTF for extern '(.+?)'|'(.+?)' not found in .*symbol table",
        "it uses {1}, which is not defined in it and is not declared as one of the kernel's",
        "include the header that declares it, if it is a helper; link the object that defines it "
        "(bpftool gen object); or declare it __ksym, if it is a function of the kernel's",
    ),
    _Case(
        r"program '(.+?)' is static",
        "its program {1} is a static function, which no loader can find",
        "leave out static, and compile it again",
    ),
    _Case(
        r"endianness (?:mismatch|is not supported)|byte order",
        f"it is for machines of the other byte order than this one ({sys.byteorder} endian)",
        f"compile it again: clang -target {_TARGET}",
    ),
    _Case(
        r"not a valid eBPF object file",
        "it is an object file for another machine than BPF",
        "compile it again: clang -O2 -g -target bpf -c prog.c -o prog.o",
    ),
    _Case(
        r"BTF is required",
        "it describes its maps in BTF, which it lacks",
        "compile it again with clang -g, and do not strip it (llvm-strip -g keeps BTF)",
    ),
    _Case(
        r"extern \(func ksym\) '(bpf_xdp_metadata_.+?)': not found",
        "it asks the device about packets, by {1}, which this kernel does not have",
        "Linux has such functions from 6.3 on, the later ones from later; a program can do without "
        "what it declares __weak",
        missing=True,
    ),
    _Case(
        r"extern \((?:func|var) ksym\) '(.+?)': not found",
        "this kernel and its modules have no {1}, which it uses",
        "it wants another kernel, or a module that is not loaded; a program can do without what it "
        "declares __weak",
        missing=True,
    ),
    _Case(
        r"extern \((?:func|var) ksym\) '(.+?)':.* incompatible",
        "{1} has other arguments or another type in this kernel than it declares",
        'take the declaration from this kernel\'s types: #include "vmlinux.h"',
        missing=True,
    ),
    _Case(
        r"extern '(CONFIG_.+?)' \(strong\): not resolved",
        "it wants to know {1}, and the configuration of this kernel does not say",
        "declare it __weak, and it is 0 where it is not set; the configuration is read from "
        "/proc/config.gz and /boot/config-$(uname -r)",
        missing=True,
    ),
    _Case(
        r"failed to open system Kconfig",
        "it wants to know the configuration of this kernel, which is not to be read here",
        "the configuration is read from /proc/config.gz and /boot/config-$(uname -r)",
        missing=True,
    ),
    _Case(
        r"extern '(.+?)' \(strong\): not resolved",
        "this kernel has no symbol {1}, which it uses",
        "it wants another kernel; a program can do without what it declares __weak",
        missing=True,
    ),
    _Case(
        r"map '(.+?)' has 0 entries",
        "map {1} has 0 entries: the loader that it was written for says how many",
        "--entries {1}=N says it here (in the file of apply: entries)",
    ),
    _Case(
        r"(?:kernel BTF is missing|find valid kernel BTF|[Ee]rror loading vmlinux BTF)",
        "it wants the types of the kernel, and this kernel does not have them",
        "the kernel has to be built with CONFIG_DEBUG_INFO_BTF",
        missing=True,
    ),
    _Case(
        r"^elf: |^libelf|invalid `Elf' handle|corrupt|truncated",
        "",
        "it may be truncated or corrupt: compile it, or copy it, again",
    ),
)

# The same of the verifier's log, where that alone does not say what to do.
_VERIFIER = (
    (
        r"cannot call GPL-restricted function|non-GPL compatible program",
        "it has no licence that goes together with the GPL: say which, as in "
        'char LICENSE[] SEC("license") = "GPL";',
    ),
    (
        r"failed to resolve CO-RE relocation \S+ (?:\[\d+\] )?(.+?) \(",
        "this kernel has no {1}: a program can ask with bpf_core_field_exists() or "
        "bpf_core_type_exists()",
    ),
    (
        r"invalid func unknown#(\d+)",
        "helper {1} is one of another kernel; a function that is to be in line has to be static or "
        "declared",
    ),
)


def unusable(path: str, error: KernelError) -> XdpctlError:
    """Why libbpf cannot open an object."""
    if error.is_shortage():
        return error.explained(f"cannot open {path}")
    what = f"{path} is not a usable BPF object"
    if found := _recognised(what, error):
        return found
    return BadObjectError(
        what,
        why=libbpf_words(error) or str(error),
        hint="compile it again, with clang -g (maps want BTF, and the section .maps); the file "
        "may also be truncated or corrupt",
    )


def refused(what: str, error: KernelError, *, ext: bool) -> XdpctlError:
    """Why a program could not be loaded."""
    refusal = explain_refusal(error, what, ext=ext)
    if refusal and error.call != "verifier":
        return refusal
    if error.call == "verifier":
        return VerifierError(
            f"the verifier refused {what}",
            why=reason(error.log),
            hint=_advice(error.log) or "-v shows the verifier's whole log",
            details=error.log,
        )
    if error.is_shortage():
        return error.explained(f"cannot load {what}")
    if found := _recognised(f"cannot load {what}", error):
        return found
    if error.errno in (errno.EOPNOTSUPP, errno.ENOTSUP):
        return UnsupportedError(f"this kernel cannot load {what}", why=libbpf_words(error))
    return BadObjectError(f"cannot load {what}", why=libbpf_words(error) or str(error))


def _recognised(what: str, error: KernelError) -> XdpctlError | None:
    """One of the cases that are known."""
    if error.call == LEGACY:
        return BadObjectError(
            what,
            why=error.log,
            hint='of legacy definitions, SEC("maps"), type, sizes, entries and flags are read; '
            'define the maps in SEC(".maps"), and compile it again, with clang -g',
        )
    said = libbpf_words(error)
    for case in _CASES:
        if found := re.search(case.pattern, said, re.MULTILINE):
            given = next((text for text in found.groups() if text), "")
            words = [text.replace("{1}", given) for text in (case.why or said, case.hint)]
            kind = UnsupportedError if case.missing else BadObjectError
            return kind(what, why=words[0], hint=words[1], details=said)
    return None


def _advice(log: str) -> str:
    for pattern, hint in _VERIFIER:
        if found := re.search(pattern, log):
            return hint.replace("{1}", found[1]) if found.groups() else hint
    return ""


def reason(log: str) -> str:
    """Why the verifier refused a program: its last words, and what they mean if that is known."""
    return "\n".join(filter(None, [_last_words(log), plain.sentence(log)]))


def _last_words(log: str) -> str:
    """The part of a verifier's log that says why: its end, but for newer kernels (seen on 7.3).

    Those explain the reason in a report behind it, which starts with "Verification failed".
    """
    lines = [line for line in log.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if line.startswith("Verification failed"):
            return "\n".join(lines[max(number - 3, 0) : number + LOG_LINES])
    return "\n".join(lines[-LOG_LINES:])


_NOISE = (
    r"(?ms)^[^\n]*BEGIN BTF LOAD LOG.*?END BTF LOAD LOG[^\n]*$|^BTF loading error[^\n]*$"
    r"|^[^\n]*BTF is optional, ignoring[^\n]*$|^failed to load object [^\n]*$"
)
"""What libbpf says of every failure, and of what it can do without."""


def libbpf_words(error: KernelError) -> str:
    """libbpf's warnings that say something, without its debug lines."""
    lines = [line.strip().removeprefix("libbpf: ") for line in error.log.splitlines()]
    said = "\n".join(line for line in lines if line)
    short = "\n".join(line for line in re.sub(_NOISE, "", said).splitlines() if line)
    return (short or said)[-2000:]
