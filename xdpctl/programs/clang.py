"""C sources: compiled by clang for BPF as libbpf wants it, once for the same text and flags.

What is written in BCC's dialect is for bcc.py to compile.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sysconfig
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import BadObjectError, UnsupportedError
from ..host import cache

SUFFIX = ".c"
_CFLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3")

_COMMENTS = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
# Each program and map of libbpf's stands in a section that is named; one of BCC's never does.
_SECTION = re.compile(r"\bSEC\s*\(|\bsection\s*\(")
_TABLE = re.compile(
    r"^\s*BPF_(TABLE\w*|F_TABLE|ARRAY\w*|HASH\w*|PERCPU_\w+|LRU_\w+|LPM_TRIE|HISTOGRAM|DEVMAP"
    r"|CPUMAP|XSKMAP|PROG_ARRAY|PERF_ARRAY|PERF_OUTPUT|RINGBUF_OUTPUT|STACK\w*|QUEUE\w*)\s*\(",
    re.MULTILINE,
)


class Build(NamedTuple):
    """How C is compiled: flags for the compiler, and whether it is BCC's (None: as it looks)."""

    flags: tuple[str, ...] = ()
    bcc: bool | None = None

    def is_bcc(self, text: bytes) -> bool:
        """Whether a text is for BCC to compile."""
        return is_bcc(text) if self.bcc is None else self.bcc


def is_source(path: str) -> bool:
    """Whether a file is one to be compiled, by its name."""
    return path.endswith(SUFFIX)


def is_bcc(text: bytes) -> bool:
    """Whether a source is in BCC's dialect: it declares maps as BCC does and names no section.

    Without a section libbpf would find neither a program nor a map in it.
    """
    code = _COMMENTS.sub(" ", text.decode(errors="replace"))
    return bool(_TABLE.search(code)) and not _SECTION.search(code)


def compiled(path: str, flags: Sequence[str] = ()) -> bytes:
    """A source's object file, from the cache if the same text was compiled before.

    The text is that of the file and of all that it includes. Raises UnsupportedError without a
    clang, BadObjectError for what it refuses.
    """
    every = [*_CFLAGS, *_system(), *flags]
    named = os.path.join(os.curdir, path) if path.startswith("-") else path
    # Includes are put in their place and macros left alone, so that errors look as ever.
    text = _clang(path, [*every, "-E", "-frewrite-includes", "-x", "c", named])
    key = "\0".join([*every, ""]).encode(errors="surrogateescape") + text
    return cache.kept(
        "source", key, lambda: _clang(path, [*every, "-x", "c", "-c", "-", "-o", "-"], text)
    )


def _system() -> list[str]:
    """Flags for the C library's headers, which a multiarch distribution keeps in two places.

    For the target bpf clang looks in neither, and the headers take it for a machine of 32 bits.
    """
    machine = platform.machine()
    triplet = sysconfig.get_config_var("MULTIARCH") or f"{machine}-linux-gnu"
    places = [path for path in (f"/usr/include/{triplet}",) if os.path.isdir(path)]
    flags = [word for path in places for word in ("-idirafter", path)]
    return [*flags, "-D__x86_64__", "-D__TARGET_ARCH_x86"] if machine == "x86_64" else flags


def _clang(path: str, words: Sequence[str], text: bytes | None = None) -> bytes:
    try:
        done = subprocess.run(["clang", *words], input=text, capture_output=True, check=False)
    except (FileNotFoundError, PermissionError) as error:
        raise UnsupportedError(
            f"cannot compile {path}",
            why=f"clang: {os.strerror(error.errno or 0)}",
            hint="install clang (Debian: apt install clang libbpf-dev linux-libc-dev), or compile "
            "it elsewhere and give the object",
        ) from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        missing = "file not found" in said
        raise BadObjectError(
            f"clang cannot compile {path}",
            why=said or f"it ended with {done.returncode}",
            hint="-I DIR tells where headers are; Debian has bpf/bpf_helpers.h in libbpf-dev"
            if missing
            else "",
        )
    return done.stdout
