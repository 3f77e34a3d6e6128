"""C sources: compiled by clang for BPF as libbpf wants it, once for the same text and flags.

What is written in BCC's dialect is for bcc.py to compile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Sequence

from ..errors import BadObjectError, UnsupportedError, UsageError
from ..host import cache
from ..supply.reference import is_image
from ..value import Value

SUFFIX = ".c"
FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3")
"""What everything is compiled with."""
# What is not declared would be called as a function of another object's, which nobody links.
_CFLAGS = (*FLAGS, "-Werror=implicit-function-declaration")

LIMIT = 300.0
"""Seconds that the compiler may take: what is compiled for an interface takes less than one."""

_COMMENTS = r"(?s)/\*.*?\*/|//[^\n]*"
_DEFINE = r"(?m)^[ \t]*#[ \t]*define[ \t]+(\w+)((?:[^\n\\]|\\.|\\\n)*)"
# Each program and map of libbpf's stands in a section that is named; one of BCC's never does.
_SECTION = r"\bSEC\s*\(|\b(?:__)?section(?:__)?\s*\("
_TABLE = (
    r"(?m)^\s*BPF_(TABLE\w*|F_TABLE|ARRAY\w*|HASH\w*|PERCPU_\w+|LRU_\w+|LPM_TRIE|HISTOGRAM|DEVMAP"
    r"|CPUMAP|XSKMAP|PROG_ARRAY|PERF_ARRAY|PERF_OUTPUT|RINGBUF_OUTPUT|STACK\w*|QUEUE\w*)\s*\("
)


class NoClangError(Exception):
    """There is no compiler that could be run; the text says why."""


class ClangError(Exception):
    """The compiler has ended with an error; the text is what it said."""


class Build(Value):
    """How C is compiled: flags for the compiler, and whether it is BCC's (None: as it looks)."""

    flags: tuple[str, ...] = ()
    bcc: bool | None = None

    def is_bcc(self, text: bytes) -> bool:
        """Whether a text is for BCC to compile."""
        return is_bcc(text) if self.bcc is None else self.bcc

    def check_used(self, paths: Sequence[str]) -> None:
        """Raise UsageError if there are flags, and none of the files is one to be compiled."""
        if (self.flags or self.bcc is not None) and not any(map(is_source, paths)):
            raise UsageError(
                f"nothing is compiled: {', '.join(paths)}",
                why="-I, -D, --bcc and --no-bcc are for C sources, which are known by their names: "
                f"those end in {SUFFIX}",
                hint="leave them out, or give the source",
            )
        for empty in {"-I", "-D"} & set(self.flags):
            raise UsageError(f"{empty} has no value", hint=f"leave {empty} out")


def absolute(flags: Sequence[str]) -> tuple[str, ...]:
    """Flags that mean the same in another directory."""
    return tuple(f"-I{os.path.abspath(one[2:])}" if one.startswith("-I") else one for one in flags)


def is_source(path: str) -> bool:
    """Whether a file is one to be compiled, by its name."""
    return path.endswith(SUFFIX) and not is_image(path)


def is_bcc(text: bytes) -> bool:
    """Whether a source is in BCC's dialect: it declares maps as BCC does and names no section.

    Without a section libbpf would find neither a program nor a map in it.
    """
    whole = re.sub(_COMMENTS, " ", text.decode(errors="replace"))
    # A macro says nothing until it is used: one may be defined that names sections, for others.
    macros, code = dict(re.findall(_DEFINE, whole)), re.sub(_DEFINE, "", whole)
    named = [re.escape(name) for name, body in macros.items() if re.search(_SECTION, body)]
    if re.search(_SECTION, code) or (named and re.search(rf"\b(?:{'|'.join(named)})\b", code)):
        return False
    return any(f"BPF_{found[1]}" not in macros for found in re.finditer(_TABLE, code))


def looks_like_bcc(text: bytes) -> bool:
    """Whether something in a source is of BCC's dialect, though not all that it is told by."""
    code = re.sub(_COMMENTS, " ", text.decode(errors="replace"))
    return bool(re.search(_TABLE, code) or re.search(r"#\s*include\s*[<\"](?:uapi|bcc)/", code))


def environment() -> dict[str, str]:
    """What compilers get of the environment: nothing that adds flags, headers or libraries."""
    kept = {
        "PATH": os.environ.get("PATH"),
        "TMPDIR": os.environ.get("TMPDIR"),
        "BCC_KERNEL_SOURCE": os.environ.get("BCC_KERNEL_SOURCE"),
    }
    return {"LC_ALL": "C"} | {name: value for name, value in kept.items() if value is not None}


def run(words: Sequence[str], text: bytes | None = None) -> bytes:
    """What clang writes to its standard output; it reads `text` from its standard input.

    It is found in a directory of PATH that is given whole: as root nothing of the working directory
    is run. Raises NoClangError and ClangError.
    """
    given = environment()
    found = shutil.which("clang", path=given.get("PATH"))
    if found is None or not os.path.isabs(found):
        raise NoClangError(f"clang: {os.strerror(errno.ENOENT)}")
    import subprocess

    try:
        done = subprocess.run(
            [found, *words],
            input=text,
            capture_output=True,
            check=False,
            env=given,
            timeout=LIMIT,
        )
    except OSError as error:
        raise NoClangError(f"clang: {os.strerror(error.errno or 0)}") from error
    except subprocess.TimeoutExpired as error:
        raise ClangError(f"it did not end in {LIMIT:g} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise ClangError(said or f"it ended with {done.returncode}")
    return done.stdout


def compiled(path: str, flags: Sequence[str] = ()) -> bytes:
    """A source's object file, from the cache if the same text was compiled before.

    The text is that of the file and of all that it includes. Raises UnsupportedError without a
    clang, BadObjectError for what it refuses.
    """
    every = [*_CFLAGS, *_system(), *flags]
    # What begins with - would be an option, with @ a file of options.
    named = os.path.join(os.curdir, path) if path.startswith(("-", "@")) else path
    # Includes are put in their place and macros left alone, so that errors look as ever.
    words = ["-E", "-frewrite-includes", "-x", "c", named]
    try:
        text = _clang(path, [*every, *words])
    except BadObjectError as error:
        from . import vmlinux

        if f"'{vmlinux.NAME}' file not found" not in error.why:
            raise
        with vmlinux.directory(path) as place:
            text = _clang(path, [*every, "-idirafter", place, *words])
        # The same text is to be found in the cache, wherever the header was.
        text = text.replace(os.fsencode(place), b"/sys/kernel/btf")
    key = "\0".join([*every, ""]).encode(errors="surrogateescape") + text
    return cache.kept(
        "source", key, lambda: _clang(path, [*every, "-x", "c", "-c", "-", "-o", "-"], text)
    )


_MACHINES = {
    "aarch64": ("__aarch64__", "__TARGET_ARCH_arm64"),
    "s390x": ("__s390x__", "__TARGET_ARCH_s390"),
    "x86_64": ("__x86_64__", "__TARGET_ARCH_x86"),
}
"""What the headers of the C library and those of libbpf (bpf_tracing.h) call a machine."""


def _system() -> list[str]:
    """Flags for the C library's headers, which a multiarch distribution keeps in two places.

    For the target bpf clang looks in neither, and the headers take it for another machine.
    """
    import platform
    import sysconfig

    machine = platform.machine()
    triplet = sysconfig.get_config_var("MULTIARCH") or f"{machine}-linux-gnu"
    places = [path for path in (f"/usr/include/{triplet}",) if os.path.isdir(path)]
    flags = [word for path in places for word in ("-idirafter", path)]
    return [*flags, *(f"-D{name}" for name in _MACHINES.get(machine, ()))]


def _clang(path: str, words: Sequence[str], text: bytes | None = None) -> bytes:
    try:
        return run(words, text)
    except NoClangError as error:
        raise UnsupportedError(
            f"cannot compile {path}",
            why=str(error),
            hint="install clang (Debian: apt install clang libbpf-dev linux-libc-dev), or compile "
            "it elsewhere and give the object",
        ) from error
    except ClangError as error:
        raise BadObjectError(
            f"clang cannot compile {path}", why=str(error), hint=_advice(path, str(error))
        ) from error


def _advice(path: str, said: str) -> str:
    """What may help after clang has ended with an error."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if looks_like_bcc(file.read(1 << 20)):
            return "--bcc compiles it as a source in BCC's dialect"
    if "file not found" in said:
        return "-I DIR tells where headers are; Debian has bpf/bpf_helpers.h in libbpf-dev"
    if "implicit declaration" in said or "call to undeclared" in said:
        return "include the header that declares it, such as <bpf/bpf_helpers.h>"
    return ""
