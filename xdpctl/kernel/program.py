"""Programs: found or loaded from code, as owners, and records that are bound to them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import re
from collections.abc import Mapping, Sequence
from typing import Self

from ..errors import KernelError
from . import abi, libbpf, maps, records, uapi
from .btf import of_functions
from .descriptor import Descriptor

LOG_SIZE = (1 << 24) - 1
# The verifier's log: with each step, or errors and statistics alone (BPF_LOG_STATS).
_STEPS, _BRIEF = 1, 4


class Program(Descriptor):
    """A program in the kernel, which stays there for as long as somebody holds it."""

    @classmethod
    def by_id(cls, program_id: int) -> Self:
        """Raises KernelError: ENOENT if it is gone."""
        return cls(libbpf.prog_fd(program_id))

    @classmethod
    def load(
        cls,
        kind: int,
        name: str,
        code: bytes,
        names: Mapping[int, str] | None = None,
        *,
        gpl: bool,
        frags: bool = False,
        device: int = 0,
        target: tuple[int, int] | None = None,
        attach_type: int | None = None,
    ) -> Self:
        """Load a program from code that names its maps by id.

        `names` calls functions by the number of their first instruction; those between are
        numbered. `target` is what an EXT program replaces, or with an `attach_type` a tracing
        program traces: a program's descriptor and a function's BTF id. With the number of a
        `device` it is bound to that. Raises KernelError with the verifier's log.
        """
        from . import asm  # who only looks at programs needs none of it

        found = asm.starts(code)
        if attach_type is None:
            attach_type = 0 if target else uapi.BPF_XDP
        root_fd, function = target or (0, 0)
        with contextlib.ExitStack() as closing:
            fds = {
                number: closing.enter_context(maps.Map.by_id(number)).fd
                for number in asm.maps_of(code)
            }
            btf, types = closing.enter_context(
                of_functions(_function_names(found, names or {0: name}))
            )
            pairs = [value for pair in zip(found, types, strict=True) for value in pair]
            functions = (ctypes.c_uint32 * len(pairs))(*pairs)
            options = abi.ProgLoadOpts(
                expected_attach_type=attach_type,
                prog_btf_fd=btf,
                prog_flags=uapi.BPF_F_XDP_HAS_FRAGS * frags
                | uapi.BPF_F_XDP_DEV_BOUND_ONLY * bool(device),
                prog_ifindex=device,
                attach_prog_fd=root_fd,
                attach_btf_id=function,
                func_info=ctypes.addressof(functions),
                func_info_cnt=len(found),
                func_info_rec_size=8,
            )
            return cls(_load(kind, name, asm.with_maps(code, fds), options, gpl=gpl))

    @classmethod
    def plain(cls, name: str, *, frags: bool = False) -> Self:
        """Load a program that passes everything, with nothing that an old kernel could lack.

        Raises KernelError.
        """
        from . import asm

        options = abi.ProgLoadOpts(
            expected_attach_type=uapi.BPF_XDP, prog_flags=uapi.BPF_F_XDP_HAS_FRAGS * frags
        )
        given = name.encode(), b"GPL", asm.PASS, asm.count(asm.PASS), ctypes.byref(options)
        return cls(libbpf.call("bpf_prog_load", uapi.BPF_PROG_TYPE_XDP, *given))

    @property
    def info(self) -> records.ProgInfo:
        return libbpf.prog_info(self.fd)

    @property
    def main_function(self) -> int:
        """The BTF type id of its first function, 0 if it has no BTF."""
        return libbpf.prog_main_function(self.fd)

    @property
    def is_jited(self) -> bool:
        """Whether it runs as machine code."""
        return libbpf.prog_is_jited(self.fd)

    def keep(self, name: str, record: bytes) -> None:
        """Bind a record to it for as long as it lives: a map that nobody can change."""
        kind = uapi.BPF_MAP_TYPE_ARRAY
        with maps.Map.create(kind, name, len(record), uapi.BPF_F_RDONLY_PROG) as kept:
            kept.update(bytes(4), record)
            libbpf.map_freeze(kept.fd)
            libbpf.bind_map(self.fd, kept.fd)


def _load(kind: int, name: str, code: bytes, options: abi.ProgLoadOpts, *, gpl: bool) -> int:
    """Without a log first, which takes time; once more if it is refused, to hear why."""
    from . import asm

    values = (
        kind,
        name.encode()[:15],
        b"GPL" if gpl else b"Proprietary",
        code,
        asm.count(code),
        ctypes.byref(options),
    )
    try:
        return libbpf.call("bpf_prog_load", *values)
    except KernelError as error:
        # A limit is hit: a log of each of a million steps takes long, and before Linux 6.4 is
        # itself too large.
        options.log_level = _BRIEF if error.errno == errno.E2BIG else _STEPS
    log = libbpf.log_buffer(LOG_SIZE)
    options.log_buf, options.log_size = ctypes.addressof(log), len(log)
    try:
        return libbpf.call("bpf_prog_load", *values)
    except KernelError as error:
        text = log.value.decode(errors="replace")
        call = "verifier" if text else error.call
        raise KernelError(call, error.errno or errno.EINVAL, text) from error


def kept_record(program: records.ProgInfo, name: str) -> bytes | None:
    """The record of a name that was bound to a program; None where there is none.

    What is bound comes behind the maps that the program's code names.
    """
    for number in reversed(program.map_ids):
        with maps.Map.by_id(number) as found:
            info = found.info
            flags = uapi.BPF_F_RDONLY_PROG
            record = maps.record(found.fd, info, flags) if info.name == name else None
            if record is not None:
                return record
    return None


def _function_names(found: Sequence[int], names: Mapping[int, str]) -> list[str]:
    """What functions are called: letters, digits and _ alone, as BTF wants it."""
    given, last, count = [], "", 0
    for start in found:
        if start in names:
            last, count = re.sub(r"\W", "_", names[start], flags=re.ASCII), 0
            given.append(last)
        else:
            count += 1
            given.append(f"{last}_{count}")
    return given
