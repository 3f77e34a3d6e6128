"""Objects and chain files that chance has changed: each is taken or refused, in words and in time.

What is at fault is said by a number, from which the same file can be made again.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import re
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import net
from tests.kernel.conftest import Objects, kinds, one_guest
from tests.kernel.tool import Tool

pytestmark = [kinds("fused"), one_guest]

LONGEST = 10.0
"""Seconds that a command may take."""
BATCH = 50
CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
BASES = (
    *("config", "core", "count", "devmap", "frags", "g0_legacies", "global", "legacies", "legacy"),
    *("longname", "mapkinds", "maps40", "metadata", "oddsection", "subprogs", "twins", "xsk"),
)
EXTREMES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
UNFIT = (b"\x1b[31m", b"\n", b"\x00", b"\xff\xfe", "\u202e".encode(), b"\r", b"%s%n", b"a" * 300)


# --- what chance changes ------------------------------------------------------------------------


def changed(chance: random.Random, data: bytes) -> bytes:
    """The bytes of a file, changed in one to four ways."""
    text = bytearray(data)
    for _change in range(chance.choice((1, 1, 2, 4))):
        if text:
            chance.choice(WAYS)(chance, text)
    return bytes(text)


def flip(chance: random.Random, text: bytearray) -> None:
    for _bit in range(chance.choice((1, 1, 3, 16))):
        text[chance.randrange(len(text))] ^= 1 << chance.randrange(8)


def number(chance: random.Random, text: bytearray) -> None:
    """A word of 32 bits becomes one that nobody expects."""
    at = chance.randrange(max(len(text) // 4, 1)) * 4
    text[at : at + 4] = struct.pack("<I", chance.choice((*EXTREMES, len(text), at)))


def head(chance: random.Random, text: bytearray) -> None:
    """The same among the first 64 bytes, where an object says where all else is."""
    at = chance.randrange(0, 64, 2)
    text[at : at + 2] = struct.pack("<H", chance.choice(EXTREMES) & 0xFFFF)


def cut(chance: random.Random, text: bytearray) -> None:
    del text[chance.randrange(len(text)) :]


def blank(chance: random.Random, text: bytearray) -> None:
    at, size = chance.randrange(len(text)), chance.randrange(1, 200)
    text[at : at + size] = bytes(len(text[at : at + size]))


def again(chance: random.Random, text: bytearray) -> None:
    """A part of it stands elsewhere as well."""
    source, at, size = (chance.randrange(len(text)) for _value in range(3))
    piece = text[source : source + size % 200]
    text[at : at + len(piece)] = piece


def name(chance: random.Random, text: bytearray) -> None:
    """A name has in it what a terminal obeys."""
    words = [*re.finditer(rb"[A-Za-z_.][\w.]{3,}", text)]
    if words:
        at = chance.choice(words).start()
        piece = chance.choice(UNFIT)[:8]
        text[at : at + len(piece)] = piece


WAYS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    *(flip, flip, number, head, cut, blank, again, name),
)

KEYS = (
    *("file", "prog-name", "section", "name", "prio", "actions", "before", "after", "maps"),
    *("pin-path", "include", "define", "bcc", "constants", "entries", "on-end", "on-vacant"),
    *("mode", "attach", "root", "protocol", "program", "tail", "nonsense"),
)
VALUES = (
    *('"x"', '""', "[]", "{}", "0", "-1", "50", "4294967296", "1e400", "nan", "true", "2026-11-28"),
    *(
        '["XDP_PASS"]',
        '"XDP_DROP"',
        '"\\u001b[2J"',
        '"\\u202e"',
        "[[[[]]]]",
        "{a.b.c = 1}",
        '"none"',
    ),
    *("9" * 5000, '"' + "n" * 5000 + '"', "[" * 200 + "]" * 200, '{ x = ["a", {}] }', '"\\u0000"'),
)


FITTING = {
    "actions": '["XDP_PASS", "XDP_TX"]',
    "name": '"its-name"',
    "prio": "7",
    "maps": '"new"',
    "entries": "{ flows = 64 }",
    "constants": "{ verdict = 2 }",
}


def said(chance: random.Random) -> str:
    """A line of a table: more often than not one that may stand there."""
    key = chance.choice([*FITTING] if chance.random() < 0.7 else KEYS)
    fits = key in FITTING and chance.random() < 0.8
    return f"{key} = {FITTING[key] if fits else chance.choice(VALUES)}"


def chain_file(chance: random.Random, paths: list[Path]) -> bytes:
    """A chain file with some keys that it may not have, some values that they may not have."""
    lines = []
    for _program in range(chance.choice((1, 1, 2, 3))):
        lines += ["[[program]]", f'file = "{chance.choice(paths)}"']
        lines += [said(chance) for _line in range(chance.randrange(3))]
    if chance.random() < 0.1:
        lines.insert(0, said(chance))
    if chance.random() < 0.1:
        lines.append(chance.choice(("[[program]", "a." * 3000 + "b = 1", "program = 1", "[x]")))
    text = "\n".join(lines).encode() + b"\n"
    return changed(chance, text) if chance.random() < 0.5 else text


# --- what comes of it ---------------------------------------------------------------------------


Work = Callable[[int], dict[str, Any]]


def in_batches(count: int, work: Work) -> tuple[Counter[str], list[str]]:
    """Do something for each number in processes that may die of it; exit codes and faults."""
    codes, wrong = Counter[str](), list[str]()
    start = 0
    while start < count:
        end = min(start + BATCH, count)
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                os.close(reading)
                faulthandler.disable()  # libbpf crashes, and a process is there for that
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                for place in range(start, end):
                    signal.alarm(int(LONGEST) * 3)
                    os.write(writing, json.dumps(work(place)).encode() + b"\n")
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading) as answers:
            told = [json.loads(line) for line in answers]
        _pid, status = os.waitpid(pid, 0)
        for answer in told:
            codes[str(answer["code"])] += 1
            wrong += answer["wrong"]
        if status:
            wrong.append(f"{start + len(told)}: ended with {status:#x}")
            start += len(told) + 1
        else:
            start = end
    return codes, wrong


def judged(tool: Tool, place: int, *words: object) -> dict[str, Any]:
    """Run a command; its exit code, and what is wrong with how it ended."""
    began = time.monotonic()
    wrong = []
    try:
        result = tool.try_(*words)
    except BaseException as error:
        return {"code": "raised", "wrong": [f"{place}: {type(error).__name__}: {error}"[:2000]]}
    seconds, text = time.monotonic() - began, result.out + result.err
    if seconds > LONGEST:
        wrong.append(f"{place}: took {seconds:.0f} s")
    if found := CONTROL.search(text):
        wrong.append(f"{place}: prints {found[0]!r}: {text[:1000]!r}")
    if result.code and not result.err.startswith("xdpctl: "):
        wrong.append(f"{place}: {result.code} without a word: {text[:1000]!r}")
    return {"code": result.code, "wrong": wrong}


@pytest.mark.parametrize("count", [24, pytest.param(10_000, marks=pytest.mark.soak)])
def test_objects(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path, count: int) -> None:
    """Loaded as they are, and unloaded again if that is so."""
    bases = [objects[one].read_bytes() for one in BASES]
    path = tmp_path / "changed.o"

    def work(place: int) -> dict[str, Any]:
        chance = random.Random(place)
        path.write_bytes(changed(chance, bases[place % len(bases)]))
        found = judged(tool, place, "load", veth.dev, path)
        if found["code"] == 0:
            found["wrong"] += judged(tool, place, "unload", veth.dev, "--all")["wrong"]
        return found

    codes, wrong = in_batches(count, work)
    print(f"\n{count} objects: exit codes {dict(sorted(codes.items()))}, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong[:20])
    assert codes["0"]


@pytest.mark.parametrize("count", [16, pytest.param(2_000, marks=pytest.mark.soak)])
def test_chain_files(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path, count: int
) -> None:
    """Applied as they are."""
    paths = [objects[one] for one in ("pass", "count", "global", "tuned")]
    path = tmp_path / "chain.toml"

    def work(place: int) -> dict[str, Any]:
        path.write_bytes(chain_file(random.Random(place), paths))
        return judged(tool, place, "apply", veth.dev, path)

    codes, wrong = in_batches(count, work)
    print(f"\n{count} chain files: exit codes {dict(sorted(codes.items()))}, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong[:20])
    assert codes["0"]
