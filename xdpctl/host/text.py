"""Text from outside: one way in, one way out.

Names of processes, files, interfaces, programs, maps and sections are bytes to the kernel. They
come in as Python takes file names: what is no UTF-8 is kept, so that the same bytes go out to the
kernel again (PEP 383). What people read has none of it, and nothing that a terminal would obey.
"""

from __future__ import annotations

import os
from typing import Any

Json = dict[str, Any]
"""A JSON document with keys, or such a part of one; its schema (xdpctl/schema) has the types."""


def decoded(data: bytes) -> str:
    """Bytes from outside as text, whatever they are; `os.fsencode` gives them back."""
    return os.fsdecode(data)


def printable(text: str, keep: str = "") -> str:
    r"""A text of somebody else's on one line: what cannot be printed is written as an escape.

    Control characters (``\x1b``, ``\n``), marks of writing from right to left (``\u202e``), and
    bytes that are no text (``\xe9``). The characters to `keep` stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escaped(one) for one in text)


def lines(text: str) -> str:
    """The same of a text of several lines, such as the verifier's; tabs stay as well."""
    return printable(text, keep="\n\t")


def plain(value: Any) -> Any:
    """A value for a JSON document, whose strings are Unicode: bytes that are no text are escaped.

    Control characters stay: JSON escapes them itself.
    """
    if isinstance(value, str):
        return value if value.isascii() or not _has_bytes(value) else _without_bytes(value)
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def _has_bytes(text: str) -> bool:
    return any("\ud800" <= one <= "\udfff" for one in text)


def _without_bytes(text: str) -> str:
    return "".join(_escaped(one) if "\ud800" <= one <= "\udfff" else one for one in text)


def _escaped(one: str) -> str:
    if "\udc80" <= one <= "\udcff":
        return f"\\x{ord(one) - 0xDC00:02x}"  # a byte that is no text
    return one.encode("unicode_escape").decode()
