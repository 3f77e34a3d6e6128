"""Objects whose maps are defined as before BTF: made into what libbpf reads since 1.0.

Such a definition is a structure in a section "maps", or in one "maps/..." for each map, and begins
with five numbers: type, key size, value size, entries and flags. What follows is each loader's own.
All of this works on an object's bytes, in the child process.
"""

from __future__ import annotations

import bisect
import errno
import os
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from ..errors import KernelError
from ..kernel import uapi
from ..kernel.btf import BTF_KIND_DATASEC, BTF_VAR_GLOBAL_ALLOCATED, Btf
from ..kernel.elf import (
    SHF_EXECINSTR,
    SHT_REL,
    SHT_SYMTAB,
    STB_GLOBAL,
    STB_LOCAL,
    STT_NOTYPE,
    STT_OBJECT,
    STT_SECTION,
    Elf,
    Relocation,
    Section,
    Symbol,
)
from .words import LEGACY

_MAPS = b".maps"
_MEMBERS = ("type", "key_size", "value_size", "max_entries", "map_flags")
_LEAST, _PLAIN, _MOST = 16, 20, 8192
"""Bytes of a definition: without the flags, as the first ones were; with them; with a path, too."""

_MORE: dict[int, tuple[str, ...]] = {
    28: ("id", "pinning"),
    36: ("id", "pinning", "inner_id", "inner_idx"),
}
"""What follows in aya's definitions, and in iproute2's struct bpf_elf_map, by the size of all.

The first is also as long as that of the kernel's old samples, with inner_map_idx and numa_node.
"""
_BY_NAME = 1
_WIDTH = 8
"""Bytes of a pointer, which is what each member is in BTF."""
_SIZE = _WIDTH * (len(_MEMBERS) + 1)
_TAKEN = b"legacy_maps"
"""How sections are called that nothing refers to any more; libbpf passes them by."""
_MAPS_OF_MAPS = (uapi.BPF_MAP_TYPE_ARRAY_OF_MAPS, uapi.BPF_MAP_TYPE_HASH_OF_MAPS)


class _Definition(NamedTuple):
    """A map of the object, and where it is defined: a symbol by its number, and bytes."""

    name: bytes
    symbol: int
    section: int
    start: int
    data: bytes

    def __str__(self) -> str:
        return f"map {os.fsdecode(self.name)}"

    @property
    def words(self) -> tuple[int, ...]:
        """The five numbers."""
        return struct.unpack("=5I", self.data[:_PLAIN].ljust(_PLAIN, b"\0"))

    @property
    def more(self) -> dict[str, int]:
        """What else is said, by the name of the member, or else its place; without zeroes."""
        rest = self.data[_PLAIN:]
        if names := _MORE.get(len(self.data)):
            said = dict(zip(names, struct.unpack(f"={len(names)}I", rest), strict=True))
        else:
            said = {f"byte {_PLAIN + place}": value for place, value in enumerate(rest)}
        return {name: value for name, value in said.items() if value}

    @property
    def is_pinned(self) -> bool:
        """By its name: aya knows no other pins, and iproute2's definition is longer."""
        asked = self.more.get("pinning") == _BY_NAME and len(self.data) == 28
        return asked and not self.words[4] & uapi.BPF_F_NUMA_NODE

    def wrong(self, sections: Sequence[bytes]) -> Iterator[str]:
        """What of it cannot be said in BTF, or means something to its own loader alone."""
        kind, more = self.words[0], self.more
        if len(self.data) != _LEAST and not _PLAIN <= len(self.data) <= _MOST:
            yield f"its definition has {len(self.data)} bytes, a plain one {_PLAIN}"
            return
        if not kind:
            yield "its definition has no type"
        if kind in _MAPS_OF_MAPS:
            yield "it holds maps, and what these are to be is said nowhere that libbpf reads"
        if self.is_pinned:
            del more["pinning"]
        number = more.pop("id", 0)
        if kind == uapi.BPF_MAP_TYPE_PROG_ARRAY and any(
            name.startswith(b"%d/" % number) for name in sections if number
        ):
            yield f"id is {number}, so iproute2 fills it with the programs of sections {number}/..."
        for name, value in more.items():
            yield f"{name} is {value}, which means something to the loader that it was written for"
            return


def translated(data: bytes) -> bytes:
    """An object's bytes with its legacy maps as libbpf reads maps; the same if it has none.

    What libelf cannot read, or is of another machine, is left to libbpf. Raises KernelError of
    LEGACY, its log a line for each map that is not plain, or else of libelf or of BTF.
    """
    try:
        elf = Elf(data)
    except KernelError:
        return data
    with elf:
        sections = elf.sections if elf.is_for_bpf else []
        old = [one for one in sections if one.name == b"maps" or one.name.startswith(b"maps/")]
        if not old:
            return data
        elf.check(sections)
        found = _Object(elf, sections, old)
        found.refer()
        found.define()
        return elf.written()


def _refused(*lines: str) -> KernelError:
    return KernelError(LEGACY, errno.EINVAL, "\n".join(lines))


class _Object:
    """An open object with sections of legacy maps. Raises KernelError where these are not plain."""

    def __init__(self, elf: Elf, sections: Sequence[Section], old: Sequence[Section]) -> None:
        self.elf, self.sections, self.old = elf, sections, old
        table = next((one for one in sections if one.head.sh_type == SHT_SYMTAB), None)
        self.symbols = table.records(Symbol) if table else ()
        strings = table.head.sh_link if table else 0
        self.names = {
            number: name
            for number, one in enumerate(self.symbols)
            if one.kind in (STT_NOTYPE, STT_OBJECT) and (name := elf.string(strings, one.st_name))
        }
        self.maps = [one for section in old for one in self._defined(section)]
        titles = [one.name for one in sections]
        wrong = [f"{one}: {what}" for one in self.maps for what in one.wrong(titles)]
        if wrong := [*wrong, *self._ambiguous()]:
            raise _refused(*wrong)

    def _defined(self, section: Section) -> list[_Definition]:
        """The maps of a section: what its symbols name."""
        contents, where = section.contents, os.fsdecode(section.name)
        mine = {
            number: int(symbol.st_value)
            for number in self.names
            if (symbol := self.symbols[number]).st_shndx == section.index
            and (symbol.kind == STT_OBJECT or symbol.bind != STB_LOCAL)
        }
        starts = sorted({*mine.values(), len(contents)})
        found, end = [], 0
        for number, start in sorted(mine.items(), key=lambda item: item[1]):
            # Without a size, as early compilers wrote it, it reaches to the next one.
            following = starts[min(bisect.bisect_right(starts, start), len(starts) - 1)]
            past = start + int(self.symbols[number].st_size or following - start)
            data = contents[start:past]
            one = _Definition(self.names[number], number, section.index, start, data)
            if not end <= start < past <= len(contents):
                raise _refused(
                    f"{one}: its definition overlaps another, or is not in section {where}"
                )
            found.append(one)
            if any(contents[end:start]):
                break
            end = past
        if any(contents[end:]) or not found:
            raise _refused(f"section {where} has something in it that no symbol names")
        return found

    def _ambiguous(self) -> Iterator[str]:
        """libbpf finds the symbol of a map by its name; static ones may be called as others are."""
        ours = {one.symbol for one in self.maps}
        known = Counter(
            name
            for number, name in self.names.items()
            if number in ours
            or (self.symbols[number].kind == STT_OBJECT and self.symbols[number].bind != STB_LOCAL)
        )
        for one in self.maps:
            if known[one.name] > 1:
                yield f"{one}: something else in the object has this name, too"

    def refer(self) -> None:
        """Have code refer to maps by their own symbols."""
        legacy = {one.index for one in self.old}
        by_index = {one.index: one for one in self.sections}
        for section in self.sections:
            target = by_index.get(section.head.sh_info)
            if section.head.sh_type != SHT_REL or target is None:
                continue
            if target.index in legacy:
                name = os.fsdecode(target.name)
                raise _refused(f"section {name} has addresses in its definitions")
            if target.head.sh_flags & SHF_EXECINSTR:
                self._refer_in(section, target)

    def _refer_in(self, section: Section, target: Section) -> None:
        """The same in one section: to static maps code refers by the section's symbol.

        Where in the section is then said in the instruction.
        """
        maps = {(one.section, one.start): one.symbol for one in self.maps}
        legacy = {one.index for one in self.old}
        code = target.contents
        for one in section.records(Relocation):
            symbol = self.symbols[one.symbol] if one.symbol < len(self.symbols) else None
            if symbol is None or symbol.st_shndx not in legacy:
                continue
            start = int(symbol.st_value)
            if symbol.kind == STT_SECTION and one.r_offset + 8 <= len(code):
                start += struct.unpack_from("=I", code, one.r_offset + 4)[0]
            if (symbol.st_shndx, start) not in maps:
                name = os.fsdecode(target.name)
                raise _refused(f"section {name}: its code refers to no beginning of a map")
            one.refer_to(maps[symbol.st_shndx, start])

    def define(self) -> None:
        """Put the maps into a section .maps, behind what is there, and describe them in BTF."""
        place = next((one for one in self.sections if one.name == _MAPS), self.old[0])
        before = place.contents if place.name == _MAPS else b""
        start = len(before) + -len(before) % _WIDTH
        titles = {os.fsdecode(one.name) for one in (*self.old, place)}
        for section in self.old:
            section.rename(_TAKEN)
        self._describe(titles, place.index, start)
        place.rename(_MAPS)
        place.replace(before.ljust(start + _SIZE * len(self.maps), b"\0"))
        for offset, one in enumerate(self.maps):
            symbol = self.symbols[one.symbol]
            symbol.st_shndx, symbol.st_other = place.index, 0
            symbol.st_value, symbol.st_size = start + _SIZE * offset, _SIZE
            symbol.st_info = (symbol.bind or STB_GLOBAL) << 4 | STT_OBJECT

    def _describe(self, titles: Collection[str], place: int, start: int) -> None:
        """In BTF: the section .maps, with the maps that it has, and not those with these titles."""
        types = next((one for one in self.sections if one.name == b".BTF"), None)
        with _types(types.contents if types else b"") as btf:
            gone = [
                number
                for number in range(1, btf.count)
                if (found := btf.type(number)).kind == BTF_KIND_DATASEC
                and btf.string(found.name_off) in titles
            ]
            kept = [*self._kept(btf, gone, place)]
            new = _add_maps(btf, self.maps)
            btf.add("datasec", _MAPS, start + _SIZE * len(new))
            for variable, offset, size in kept:
                btf.add("datasec_var_info", variable, offset, size)
            for number, variable in enumerate(new):
                btf.add("datasec_var_info", variable, start + _SIZE * number, _SIZE)
            for number in gone:
                btf.take_out(number, {variable for variable, _offset, _size in kept})
            contents = btf.packed()
        if types:
            types.replace(contents)
            return
        self.elf.add(b".BTF", contents)
        for one in self.sections:
            if one.name == b".BTF.ext":  # it is about types that are not there
                one.rename(_TAKEN)

    def _kept(
        self, btf: Btf, sections: Sequence[int], place: int
    ) -> Iterator[tuple[int, int, int]]:
        """The variables of .maps as it is: type, offset and size. A compiler leaves offsets out."""
        starts = {
            name: int(self.symbols[number].st_value)
            for number, name in self.names.items()
            if self.symbols[number].st_shndx == place
        }
        for number in sections:
            section = btf.type(number)
            if btf.string(section.name_off) != os.fsdecode(_MAPS):
                continue
            for variable, offset, size in btf.records(section, section.vlen, 3):
                known = starts.get(os.fsencode(btf.name(variable)), offset)
                yield variable, offset if section.size_or_type else known, size


def _types(contents: bytes) -> Btf:
    try:
        return Btf.of_bytes(contents)
    except KernelError as error:
        raise _refused("the type information (BTF) of the object cannot be read") from error


def _add_maps(btf: Btf, maps: Sequence[_Definition]) -> list[int]:
    """A variable for each: a structure of pointers to arrays, whose lengths are the values."""
    byte, word = btf.add("int", b"char", 1, 0), btf.add("int", b"unsigned int", 4, 0)
    pointers = dict[int, int]()
    found = []
    for one in maps:
        members = dict(zip(_MEMBERS, one.words, strict=True))
        if one.is_pinned:
            members["pinning"] = _BY_NAME
        for value in {*members.values()} - {*pointers}:
            pointers[value] = btf.add("ptr", btf.add("array", word, byte, value))
        structure = btf.add("struct", None, _SIZE)
        for place, (name, value) in enumerate(members.items()):
            btf.add("field", name.encode(), pointers[value], 8 * _WIDTH * place, 0)
        found.append(btf.add("var", one.name, BTF_VAR_GLOBAL_ALLOCATED, structure))
    return found
