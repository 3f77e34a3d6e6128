"""What a loader of its own would set in an object before it loads it: constants, and map sizes.

What it would put into program arrays is looked at, too (tails.py puts it there).

All of this works on an object that libbpf has open, in the child process.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator

from ..errors import KernelError
from ..kernel.btf import (
    BTF_KIND_CONST,
    BTF_KIND_DATASEC,
    BTF_KIND_ENUM,
    BTF_KIND_ENUM64,
    BTF_KIND_INT,
    BTF_KIND_TYPEDEF,
    BTF_KIND_VAR,
    BTF_KIND_VOLATILE,
    Btf,
)
from ..kernel.object import Object, ObjectMap
from ..model.source import Tuning
from ..value import Value
from . import tails

TUNING = "setting values"
"""What a KernelError calls it; its log has the reason, a line each."""

_SIGNED, _BOOL = 1 << 0, 1 << 2
_TRANSPARENT = (BTF_KIND_TYPEDEF, BTF_KIND_CONST, BTF_KIND_VOLATILE)
_SPECIAL = (".kconfig", ".ksyms", ".maps")
_BOOLS = {"false": 0, "true": 1}


class _Variable(Value):
    section: str
    type_id: int
    offset: int
    size: int


def tune(parsed: Object, asked: Tuning) -> dict[ObjectMap, str]:
    """Set what is asked for; the maps whose contents that concerns, each with a name.

    Raises KernelError of TUNING.
    """
    wrong = [*_resize(parsed, asked)] if asked.entries else []
    touched: dict[ObjectMap, str] = {}
    if asked.constants:
        wrong += _set_all(parsed, asked, touched)
    wrong += tails.wrong(parsed, asked.tails)
    if wrong:
        raise KernelError(TUNING, errno.EINVAL, "\n".join(wrong))
    return touched


def _resize(parsed: Object, asked: Tuning) -> Iterator[str]:
    maps = {one.name: one for one in parsed.maps}
    for name, entries in asked.entries:
        if name not in maps or "." in name:
            known = ", ".join(one for one in maps if "." not in one)
            yield f"there is no map {name}; there is {known or 'none'}"
        elif error := maps[name].resize(entries):
            yield f"map {name} cannot have {entries} entries: {os.strerror(error)}"


def _set_all(parsed: Object, asked: Tuning, touched: dict[ObjectMap, str]) -> Iterator[str]:
    btf = parsed.btf
    if btf is None:
        yield "the object has no type information (clang -g): its variables are not known"
        return
    known = dict(_variables(btf))
    maps = {one.name: one for one in parsed.maps}
    for name, text in asked.constants:
        if name not in known:
            yield f"there is no variable {name}; there is {', '.join(known) or 'none'}"
            continue
        variable = known[name]
        found = [
            one for called, one in maps.items() if called.partition(".")[2] == variable.section[1:]
        ]
        try:
            value = _value(btf, variable, text)
        except ValueError as error:
            yield f"{name}: {error}"
            continue
        if not found:
            yield f"{name}: no map has the section {variable.section}"
            continue
        data = found[0].contents
        changed = data[: variable.offset] + value + data[variable.offset + variable.size :]
        found[0].fill(changed)
        touched[found[0]] = name


def _variables(btf: Btf) -> Iterator[tuple[str, _Variable]]:
    """The variables of an object's data sections by name."""
    for number in range(1, btf.count):
        found = btf.type(number)
        section = btf.string(found.name_off)
        if found.kind != BTF_KIND_DATASEC or section in _SPECIAL or section[:1] != ".":
            continue
        for variable, offset, size in btf.records(found, found.vlen, 3):
            one = btf.type(variable)
            if one.kind == BTF_KIND_VAR:
                place = _Variable(section, one.size_or_type, offset, size)
                yield btf.string(one.name_off), place


def _value(btf: Btf, variable: _Variable, text: str) -> bytes:
    """A value as it is in memory. Raises ValueError with what is wrong with it."""
    type_id = variable.type_id
    while (found := btf.type(type_id)).kind in _TRANSPARENT:
        type_id = found.size_or_type
    signed, names = False, dict[str, int]()
    if found.kind == BTF_KIND_INT:
        ((encoding,),) = btf.records(found, 1, 1)
        encoding = encoding >> 24 & 0x0F
        signed, names = bool(encoding & _SIGNED), _BOOLS if encoding & _BOOL else {}
    elif found.kind in (BTF_KIND_ENUM, BTF_KIND_ENUM64):
        signed = bool(found.info >> 31)
        names = {
            btf.string(record[0]): record[1] | (record[2] << 32 if len(record) > 2 else 0)
            for record in btf.records(found, found.vlen, 2 + (found.kind == BTF_KIND_ENUM64))
        }
        limit = 1 << 8 * found.size_or_type
        names = {
            name: value - limit if signed and value >= limit >> 1 else value
            for name, value in names.items()
        }
    else:
        raise ValueError("it is no number, truth value or enumeration: such are not set here")
    number = names.get(text)
    try:
        number = int(text, 0) if number is None else number
    except ValueError:
        listing = f"; {', '.join(names)} are" if names else ""
        raise ValueError(f"{text!r} is no value of it{listing}") from None
    size = found.size_or_type
    low, high = (-1 << 8 * size - 1, 1 << 8 * size - 1) if signed else (0, 1 << 8 * size)
    if names is _BOOLS:
        high = 2
    if not low <= number < high:
        raise ValueError(f"{number} does not fit: it takes {low} to {high - 1}")
    return number.to_bytes(size, sys.byteorder, signed=signed)
