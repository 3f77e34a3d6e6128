"""A program that runs, written as an object file: where the file that it came of is gone.

Its code is that of its image (image.py), as libbpf relocated it for this kernel, with the maps that
it uses by name. Maps come without what is in them, but for constants and data, which are as they
are now. What is written has been loaded once, and has the tag of the program that runs.

Source: the ELF specification; elf.h(5); the relocations of LLVM's BPF backend
(Documentation/bpf/llvm_reloc.rst in the kernel).
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..errors import KernelError, UnsupportedError, XdpctlError
from ..kernel import asm, elf, maps, records, uapi
from ..kernel.maps import Map
from ..kernel.program import Program
from ..model.source import Image, Source
from . import loading

_HEADER, _SECTION = struct.Struct("=16sHHIQQQIHHHHHH"), struct.Struct("=IIQQQQIIQQ")
_SYMBOL, _RELOCATION = struct.Struct("=IBBHQQ"), struct.Struct("=QQ")
_SHT_STRTAB, _ALLOC, _WRITE = 3, 2, 1
_R_64_64, _R_64_32 = 1, 10
_DEFINITION = struct.Struct("=5I")
_TO_MAPS = (uapi.BPF_PSEUDO_MAP_FD, uapi.BPF_PSEUDO_MAP_VALUE)
_OF_THIS_KERNEL = (
    (asm.CALL, uapi.BPF_PSEUDO_KFUNC_CALL),
    (asm.LD_IMM64, uapi.BPF_PSEUDO_BTF_ID),
)
_BY_KERNEL = uapi.BPF_F_RDONLY_PROG
"""What the kernel adds to the flags of device maps; maps of constants are no definitions here."""


class _Section(NamedTuple):
    name: str
    kind: int
    flags: int
    contents: bytes
    link: int = 0
    info: int = 0
    entry: int = 0
    size: int | None = None


class _Symbol(NamedTuple):
    name: str
    bind: int
    kind: int
    section: int
    value: int = 0
    size: int = 0


class UsedMap(NamedTuple):
    """A map that code uses: its name in full, its shape, and of one with data what is in it."""

    name: str
    info: records.MapInfo
    data: bytes = b""

    @property
    def section(self) -> str:
        """The section of the data that it is of; empty if it is defined as a map."""
        # libbpf calls these maps by the object and the section; no name in C has a dot.
        _object, dot, rest = self.name.partition(".")
        if not dot:
            return ""
        known = ("rodata", "data", "bss")
        return f".{rest}" if rest.split(".")[0] in known else f".rodata.{rest}"


def of_running(program: Program, code: Image, name: str) -> bytes:
    """The object file of a program that runs; the program in it has this name.

    Raises UnsupportedError where it cannot be written so that it means the same.
    """
    if asm.makes_tail_calls(code.code):
        raise _cannot(name, "it goes on in other programs, which are not in it")
    info = program.info
    used = {number: _used(code, number) for number in sorted(asm.maps_of(code.code))}
    found = written(name, code, used)
    # The code came in when the program was loaded, and the policy was asked then.
    source = Source(f"{name}.o", found, name, vetted=True)
    try:
        with loading.load(source, code.frags) as again:
            tag = again.program.info.tag
    except XdpctlError as error:
        raise _cannot(name, error.why or error.what) from error
    if tag != info.tag:
        raise _cannot(name, f"what it would be loaded to has the tag {tag}, and not {info.tag}")
    return found


def written(name: str, code: Image, used: Mapping[int, UsedMap]) -> bytes:
    """The object file of a program with this code, which calls the maps that are `used` by number.

    Raises UnsupportedError. A tag says nothing of maps: what would not be told apart is refused.
    """
    titles = [one.section or one.name for one in used.values()]
    if twice := {title for title in titles if titles.count(title) > 1}:
        raise _cannot(name, f"several maps of it are called {min(twice)}")
    for one in used.values():
        if one.section and len(one.data) != one.info.value_size:
            raise _cannot(name, f"map {one.name} is called as data is, and is none")
    return _Writer(name, code, used).written()


def _cannot(name: str, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"{name} cannot be written as an object file",
        why=why,
        hint="name the file that it was loaded from in the chain file",
    )


def _used(code: Image, number: int) -> UsedMap:
    try:
        with Map.by_id(number) as found:
            info = found.info
            one = UsedMap(dict(code.names).get(number) or info.name or f"map_{number}", info)
            if one.section and info.type == uapi.BPF_MAP_TYPE_ARRAY:
                return one._replace(data=maps.lookup(found.fd, info, bytes(4)))
            return one
    except KernelError as error:
        raise _cannot(f"a program with map {number}", str(error)) from error


class _Writer:
    """Sections and symbols, as they come together."""

    def __init__(self, name: str, code: Image, used: Mapping[int, UsedMap]) -> None:
        self.name, self.used = name, used
        starts = asm.starts(code.code)
        self.first = starts[1] if len(starts) > 1 else asm.count(code.code)
        """The number of the first instruction that is not of the program itself."""
        self.code = bytearray(code.code)
        self.sections = [_Section("", 0, 0, b"")]
        self.symbols = [_Symbol("", 0, 0, 0)]
        self.globals: list[_Symbol] = []
        self._add_data()
        title = "xdp.frags" if code.frags else "xdp"
        relocations = self._relocations()
        main, rest = bytes(self.code[: self.first * 8]), bytes(self.code[self.first * 8 :])
        executable = elf.SHF_EXECINSTR | _ALLOC
        self.program = self._add(_Section(title, elf.SHT_PROGBITS, executable, main))
        self.globals.append(_Symbol(name, elf.STB_GLOBAL, elf.STT_FUNC, self.program, 0, len(main)))
        self.text = 0
        if rest:
            self.text = self._add(_Section(".text", elf.SHT_PROGBITS, executable, rest))
            self.symbols.append(_Symbol("", elf.STB_LOCAL, elf.STT_SECTION, self.text))
            ends = [*starts[2:], asm.count(code.code)]
            for number, (start, end) in enumerate(zip(starts[1:], ends, strict=True), 1):
                place, size = (start - self.first) * 8, (end - start) * 8
                function = (elf.STB_LOCAL, elf.STT_FUNC, self.text, place, size)
                self.symbols.append(_Symbol(f"function_{number}", *function))
        licence = b"GPL\0" if code.gpl else b"not of the GPL\0"
        self._add(_Section("license", elf.SHT_PROGBITS, _ALLOC | _WRITE, licence))
        self._add_relocations(relocations)

    def _add(self, section: _Section) -> int:
        self.sections.append(section)
        return len(self.sections) - 1

    def _add_data(self) -> None:
        """Sections of data, and one of the definitions of maps."""
        self.places: dict[int, str] = {}
        definitions = bytearray()
        for number, one in self.used.items():
            if title := one.section:
                empty = title == ".bss"
                flags = _ALLOC | _WRITE * (not title.startswith(".rodata"))
                kind = elf.SHT_NOBITS if empty else elf.SHT_PROGBITS
                data = b"" if empty else one.data
                index = self._add(_Section(title, kind, flags, data, size=one.info.value_size))
                self.symbols.append(_Symbol("", elf.STB_LOCAL, elf.STT_SECTION, index))
                self.places[number] = title
        where = len(self.sections)
        for number, one in self.used.items():
            if number not in self.places:
                shape = one.info.shape
                kept = shape.flags & ~_BY_KERNEL
                size = _DEFINITION.size
                symbol = (elf.STB_GLOBAL, elf.STT_OBJECT, where, len(definitions), size)
                self.globals.append(_Symbol(one.name, *symbol))
                definitions += _DEFINITION.pack(
                    shape.type, shape.key_size, shape.value_size, shape.max_entries, kept
                )
        if definitions:
            self._add(_Section("maps", elf.SHT_PROGBITS, _ALLOC | _WRITE, bytes(definitions)))

    def _relocations(self) -> list[tuple[int, int, str]]:
        """What instructions refer to: their numbers, the kinds, and maps or .text by name."""
        found = []
        for one in asm.references(bytes(self.code)):
            if (one.opcode, one.src) in _OF_THIS_KERNEL:
                raise _cannot(self.name, "it names functions or variables of this very kernel")
            if one.opcode == asm.LD_IMM64 and one.src in _TO_MAPS:
                self._refer_to_map(one)
                name = self.places.get(one.imm) or self.used[one.imm].name
                found.append((one.number, _R_64_64, name))
            elif (one.opcode, one.src) == (asm.LD_IMM64, uapi.BPF_PSEUDO_FUNC):
                self._set(one.number, (one.number + 1 + one.imm - self.first) * 8)
                found.append((one.number, _R_64_64, ".text"))
            elif (
                (one.opcode, one.src) == (asm.CALL, uapi.BPF_PSEUDO_CALL)
                and one.number < self.first  # those in .text are as they were
            ):
                self._set(one.number, one.number + one.imm - self.first)
                found.append((one.number, _R_64_32, ".text"))
        return found

    def _refer_to_map(self, one: asm.Reference) -> None:
        offset = 0
        if one.src == uapi.BPF_PSEUDO_MAP_VALUE:
            (offset,) = struct.unpack_from("=i", self.code, (one.number + 1) * 8 + 4)
            self._set(one.number + 1, 0)
        if offset and one.imm not in self.places:
            raise _cannot(self.name, "it refers to the inside of a map")
        self._set(one.number, offset, named=False)

    def _set(self, number: int, value: int, *, named: bool = True) -> None:
        """Have an instruction say a number; and if it is not `named`, not what kind of thing."""
        struct.pack_into("=i", self.code, number * 8 + 4, value)
        if not named:
            registers = self.code[number * 8 + 1]
            self.code[number * 8 + 1] = registers & (0x0F if sys.byteorder == "little" else 0xF0)

    def _add_relocations(self, wanted: Iterable[tuple[int, int, str]]) -> None:
        """A table for the program's section, and one for that of the other functions."""
        symbols = [*self.symbols, *self.globals]
        numbers = {one.name: number for number, one in enumerate(symbols) if one.name}
        for number, one in enumerate(symbols):
            if one.kind == elf.STT_SECTION:
                numbers[self.sections[one.section].name] = number
        tables: dict[int, bytearray] = {}
        for number, kind, name in wanted:
            section, start = (self.program, 0) if number < self.first else (self.text, self.first)
            table = tables.setdefault(section, bytearray())
            table += _RELOCATION.pack((number - start) * 8, numbers[name] << 32 | kind)
        table_of_symbols = len(self.sections) + len(tables)
        for section, table in tables.items():
            name = f".rel{self.sections[section].name}"
            words = (table_of_symbols, section, _RELOCATION.size)
            self._add(_Section(name, elf.SHT_REL, 0, bytes(table), *words))

    def written(self) -> bytes:
        """The file: header, sections, their table."""
        strings = _Strings()
        symbols = b"".join(
            _SYMBOL.pack(
                strings.of(one.name), one.bind << 4 | one.kind, 0, one.section, one.value, one.size
            )
            for one in (*self.symbols, *self.globals)
        )
        words = (len(self.sections) + 1, len(self.symbols), _SYMBOL.size)
        self._add(_Section(".symtab", elf.SHT_SYMTAB, 0, symbols, *words))
        names = [strings.of(one.name) for one in (*self.sections, _Section(".strtab", 0, 0, b""))]
        self._add(_Section(".strtab", _SHT_STRTAB, 0, bytes(strings.all)))
        body, table = bytearray(_HEADER.size), bytearray()
        for one, title in zip(self.sections, names, strict=True):
            body += bytes(-len(body) % 8)
            size = len(one.contents) if one.size is None else one.size
            align = 8 if one.kind else 0
            where = (title, one.kind, one.flags, 0, len(body) if one.kind else 0, size)
            table += _SECTION.pack(*where, one.link, one.info, align, one.entry)
            body += one.contents
        body += bytes(-len(body) % 8)
        ident = b"\x7fELF" + bytes([2, 1 if sys.byteorder == "little" else 2, 1])
        sizes = (_HEADER.size, 0, 0, _SECTION.size, len(self.sections), len(self.sections) - 1)
        _HEADER.pack_into(body, 0, ident, 1, elf.EM_BPF, 1, 0, 0, len(body), 0, *sizes)
        return bytes(body + table)


class _Strings:
    """A table of strings, each with its place."""

    def __init__(self) -> None:
        self.all = bytearray(b"\0")

    def of(self, text: str) -> int:
        if not text:
            return 0
        place = len(self.all)
        self.all += os.fsencode(text) + b"\0"
        return place
