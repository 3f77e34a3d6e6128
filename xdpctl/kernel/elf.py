"""ELF objects in memory, read and changed by libelf, with which libbpf reads them itself.

What is changed goes behind all that is there already. So nothing else moves, and no number of a
corrupt file decides how large the result gets.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterable, Sequence
from ctypes import (
    c_char_p,
    c_int,
    c_size_t,
    c_uint,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from functools import cache
from typing import Any, Self, TypeVar

from ..errors import KernelError

EM_NONE, EM_BPF = 0, 247
SHT_PROGBITS, SHT_SYMTAB, SHT_NOBITS, SHT_REL = 1, 2, 8, 9
SHF_EXECINSTR = 1 << 2
STB_LOCAL, STB_GLOBAL = 0, 1
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION = 0, 1, 2, 3
_ELFDATA = {"little": 1, "big": 2}
_EI_DATA = 5
_EV_CURRENT = 1
_ELF_C_RDWR, _ELF_C_WRITE, _ELF_C_SET = 2, 3, 5
_ELF_F_DIRTY, _ELF_F_LAYOUT = 1 << 0, 1 << 2
_ALIGNED = 8


class Header(ctypes.Structure):
    """Elf64_Ehdr."""

    _fields_ = [
        ("e_ident", c_uint8 * 16),
        ("e_type", c_uint16),
        ("e_machine", c_uint16),
        ("e_version", c_uint32),
        ("e_entry", c_uint64),
        ("e_phoff", c_uint64),
        ("e_shoff", c_uint64),
    ]


class SectionHeader(ctypes.Structure):
    """Elf64_Shdr."""

    _fields_ = [
        ("sh_name", c_uint32),
        ("sh_type", c_uint32),
        ("sh_flags", c_uint64),
        ("sh_addr", c_uint64),
        ("sh_offset", c_uint64),
        ("sh_size", c_uint64),
        ("sh_link", c_uint32),
        ("sh_info", c_uint32),
        ("sh_addralign", c_uint64),
        ("sh_entsize", c_uint64),
    ]


class Symbol(ctypes.Structure):
    """Elf64_Sym."""

    _fields_ = [
        ("st_name", c_uint32),
        ("st_info", c_uint8),
        ("st_other", c_uint8),
        ("st_shndx", c_uint16),
        ("st_value", c_uint64),
        ("st_size", c_uint64),
    ]

    @property
    def bind(self) -> int:
        return int(self.st_info) >> 4

    @property
    def kind(self) -> int:
        return int(self.st_info) & 0xF


class Relocation(ctypes.Structure):
    """Elf64_Rel; its info in memory is a number, whose upper half is the symbol's index."""

    _fields_ = [("r_offset", c_uint64), ("r_info", c_uint64)]

    @property
    def symbol(self) -> int:
        return int(self.r_info) >> 32

    def refer_to(self, symbol: int) -> None:
        self.r_info: int = symbol << 32 | int(self.r_info) & 0xFFFFFFFF


class _Data(ctypes.Structure):
    """Elf_Data."""

    _fields_ = [
        ("d_buf", c_void_p),
        ("d_type", c_int),
        ("d_version", c_uint),
        ("d_size", c_size_t),
        ("d_off", ctypes.c_int64),
        ("d_align", c_size_t),
    ]


_POINTER = ctypes.POINTER
_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "elf_version": (c_uint, [c_uint]),
    "elf_begin": (c_void_p, [c_int, c_int, c_void_p]),
    "elf_end": (c_int, [c_void_p]),
    "elf_errmsg": (c_char_p, [c_int]),
    "elf64_getehdr": (_POINTER(Header), [c_void_p]),
    "elf64_getshdr": (_POINTER(SectionHeader), [c_void_p]),
    "elf_getshdrstrndx": (c_int, [c_void_p, _POINTER(c_size_t)]),
    "elf_getscn": (c_void_p, [c_void_p, c_size_t]),
    "elf_nextscn": (c_void_p, [c_void_p, c_void_p]),
    "elf_newscn": (c_void_p, [c_void_p]),
    "elf_ndxscn": (c_size_t, [c_void_p]),
    "elf_strptr": (c_char_p, [c_void_p, c_size_t, c_size_t]),
    "elf_getdata": (_POINTER(_Data), [c_void_p, c_void_p]),
    "elf_newdata": (_POINTER(_Data), [c_void_p]),
    "elf_flagelf": (c_uint, [c_void_p, c_int, c_uint]),
    "elf_flagscn": (c_uint, [c_void_p, c_int, c_uint]),
    "elf_update": (ctypes.c_int64, [c_void_p, c_int]),
}

Record = TypeVar("Record", bound=ctypes.Structure)


@cache
def _lib() -> ctypes.CDLL:
    """libelf, which is there wherever libbpf is."""
    try:
        library = ctypes.CDLL("libelf.so.1")
    except OSError as error:
        raise KernelError("libelf", errno.ENOENT, str(error)) from error
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.elf_version(_EV_CURRENT)
    return library


def _failed() -> KernelError:
    text: bytes | None = _lib().elf_errmsg(-1)
    return KernelError("libelf", errno.EINVAL, f"elf: {(text or b'').decode(errors='replace')}")


def is_swapped(data: bytes) -> bool:
    """Whether an object, by its first bytes, is of the byte order that this machine has not."""
    other = _ELFDATA["big" if sys.byteorder == "little" else "little"]
    return data[_EI_DATA : _EI_DATA + 1] == bytes([other])


def functions(data: bytes, section: bytes) -> list[str]:
    """The names of the global functions in a section of an object. Raises KernelError."""
    with Elf(data) as elf:
        numbers = {one.index for one in elf.sections if one.name == section}
        return [
            elf.string(table.head.sh_link, one.st_name).decode(errors="replace")
            for table in elf.sections
            if table.head.sh_type == SHT_SYMTAB
            for one in table.records(Symbol)
            if (one.st_info >> 4, one.st_info & 15) == (STB_GLOBAL, STT_FUNC)
            and one.st_shndx in numbers
        ]


class Section:
    """A section of an open object, which has to outlive it."""

    def __init__(self, elf: Elf, handle: int) -> None:
        self._elf, self._handle = elf, handle
        self.index: int = _lib().elf_ndxscn(handle)
        found = _lib().elf64_getshdr(handle)
        if not found:
            raise _failed()
        self.head: SectionHeader = found.contents
        """As it will be written."""
        self.name = elf.string(elf.names, self.head.sh_name)

    @property
    def contents(self) -> bytes:
        """Empty if it has none in the file."""
        data = self._data()
        return ctypes.string_at(data.d_buf, data.d_size) if data else b""

    def records(self, kind: type[Record]) -> Sequence[Record]:
        """Its records in place: a change of one is a change of the object."""
        data = self._data()
        if not data:
            return ()
        _lib().elf_flagscn(self._handle, _ELF_C_SET, _ELF_F_DIRTY)
        count = data.d_size // ctypes.sizeof(kind)
        found: Sequence[Record] = (kind * count).from_address(data.d_buf)
        return found

    def replace(self, contents: bytes) -> None:
        """Give it other contents."""
        data = _lib().elf_getdata(self._handle, None) or _lib().elf_newdata(self._handle)
        if not data:
            raise _failed()
        buffer = ctypes.create_string_buffer(contents, max(len(contents), 1))
        self._elf.kept.append(buffer)
        data.contents.d_buf, data.contents.d_size = ctypes.addressof(buffer), len(contents)
        data.contents.d_off, data.contents.d_version = 0, _EV_CURRENT
        self.head.sh_size, self.head.sh_offset = len(contents), self._elf.room(len(contents))
        _lib().elf_flagscn(self._handle, _ELF_C_SET, _ELF_F_DIRTY)

    def rename(self, name: bytes) -> None:
        self.name, self.head.sh_name = name, self._elf.added(name)

    def _data(self) -> _Data | None:
        if self.head.sh_type == SHT_NOBITS:
            return None
        found = _lib().elf_getdata(self._handle, None)
        if not found:
            raise _failed()
        data: _Data = found.contents
        return data if data.d_buf and data.d_size else None


class Elf:
    """An object's bytes, opened to be changed. Raises KernelError, as all of it does."""

    def __init__(self, data: bytes) -> None:
        self._end = len(data) + -len(data) % _ALIGNED
        self._added = bytearray()
        self.kept: list[Any] = []
        self._fd = os.memfd_create("object", os.MFD_CLOEXEC)
        self._handle: int | None = None
        try:
            with open(self._fd, "wb", closefd=False) as file:
                file.write(data)
            self._handle = _lib().elf_begin(self._fd, _ELF_C_RDWR, None)
            head = _lib().elf64_getehdr(self._handle) if self._handle else None
            number = c_size_t(0)
            if not head or _lib().elf_getshdrstrndx(self._handle, ctypes.byref(number)):
                raise _failed()
            self.head: Header = head.contents
            self.names = number.value
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        if self._handle:
            _lib().elf_end(self._handle)
        os.close(self._fd)
        self._handle = None

    @property
    def is_for_bpf(self) -> bool:
        """Whether it is for BPF, and of this machine's byte order."""
        fits = self.head.e_machine in (EM_NONE, EM_BPF) and not is_swapped(bytes(self.head.e_ident))
        return bool(fits)

    @property
    def sections(self) -> list[Section]:
        found, handle = [], None
        while handle := _lib().elf_nextscn(self._handle, handle):
            found.append(Section(self, handle))
        return found

    def check(self, sections: Iterable[Section]) -> None:
        """Raise KernelError if not all sections are in the file: it would become that large."""
        for one in sections:
            size = 0 if one.head.sh_type == SHT_NOBITS else one.head.sh_size
            if one.head.sh_offset + size > self._end:
                raise KernelError("libelf", errno.EINVAL, "elf: a section is not in the file")

    def string(self, table: int, offset: int) -> bytes:
        """A string of a section of strings; empty where there is none."""
        text: bytes | None = _lib().elf_strptr(self._handle, table, offset)
        return text or b""

    def add(self, name: bytes, contents: bytes) -> None:
        """A section more, which is not loaded."""
        handle = _lib().elf_newscn(self._handle)
        if not handle:
            raise _failed()
        section = Section(self, handle)
        section.head.sh_type, section.head.sh_addralign = SHT_PROGBITS, _ALIGNED
        section.rename(name)
        section.replace(contents)

    def added(self, name: bytes) -> int:
        """Where the name of a section will stand among such names."""
        before = self._names_section().head.sh_size
        self._added += b"\0" + name
        return int(before) + len(self._added) - len(name)

    def room(self, size: int) -> int:
        """Where in the file something of a size can be."""
        start = self._end
        self._end += size + -size % _ALIGNED
        return start

    def written(self) -> bytes:
        """The object with all changes."""
        names = self._names_section()
        if self._added:
            names.replace(names.contents + bytes(self._added) + b"\0")
        self.head.e_shoff = self._end
        _lib().elf_flagelf(self._handle, _ELF_C_SET, _ELF_F_LAYOUT | _ELF_F_DIRTY)
        size: int = _lib().elf_update(self._handle, _ELF_C_WRITE)
        if size < 0:
            raise _failed()
        return os.pread(self._fd, size, 0)

    def _names_section(self) -> Section:
        handle = _lib().elf_getscn(self._handle, self.names)
        if not handle:
            raise _failed()
        return Section(self, handle)
