#!/usr/bin/python3
"""Draw docs/architecture.svg, the way of a load, from the text in this file: docs/drawing.py

A box is a line of its module and lines of what happens there; places are in units of a letter's
width and a line's height. A test compares the file with what this script draws.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

LETTER, LINE, SIZE = 7.0, 18, 12
WIDTH, HEIGHT = 118, 49
COLOURS = {
    "cli": "#e3eefb",
    "view": "#e3eefb",
    "change": "#fdeed3",
    "observe": "#e5f4e1",
    "roots": "#f6e1ee",
    "programs": "#ece6f7",
    "bpffs": "#e0f2f1",
    "model": "#ffffff",
}


class Box(NamedTuple):
    """A box of a module, whose folder gives the colour; x, y and width in letters and lines."""

    x: int
    y: int
    width: int
    module: str
    lines: tuple[str, ...]

    @property
    def height(self) -> int:
        return len(self.lines) + 1


class Arrow(NamedTuple):
    """A way through points, with a text at the last but one."""

    points: tuple[tuple[float, float], ...]
    text: str = ""
    dashed: bool = False


# x, y, width and module; then what happens there.
TEXT = """
3 1 54 cli/commands/load
  reads the command line
  target = the chain, with a.o in its place
63 1 52 programs/objects
  reads a.o in a child process
  → a Member without an id
3 6 54 change/transact
  locks the interface, and tries up to 8 times:
8 10 49 observe/reading
  kernel + BPF file system → State
8 13 49 change/settle
  finishes what an interrupted command left
8 16 49 model/chain
  target(State) → Chain: order, limits
8 19 49 model/plan
  State + Chain → Plan: attach, update, detach
3 23 54 change/commit
  carries the plan out; before 6 it takes all back:
8 27 49 roots/construct
  makes root Y, attached nowhere, and members:
8 31 49 roots/dispatcher
  4  loads Y
  2  programs/loading: a.o → EXT program
  5  hooks every member onto Y, those on X too
63 31 52 roots/fused
  4' finds the code of the members that stay
  2  programs/loading: a.o → XDP program
  4  loads Y, made of the code of all
8 37 49 bpffs/directory
  records Y, pins links, programs, users' maps
3 41 112 roots/hook
  6  COMMIT POINT: X → Y in one system call that names X; a first load attaches Y (1')
3 45 54 change/settle
  7  waits until no CPU runs X, re-hooks the pins
     of others, removes the links onto X: X goes
63 45 52 view/change
  says what was done: for people, for
  scripts, or as JSON
"""


def boxes() -> list[Box]:
    """The boxes of the text."""
    found: list[Box] = []
    for line in TEXT.strip().splitlines():
        if line.startswith("  "):
            found[-1] = found[-1]._replace(lines=(*found[-1].lines, line[2:]))
        else:
            x, y, width, module = line.split()
            found.append(Box(int(x), int(y), int(width), module, ()))
    return found


ARROWS = (
    Arrow(((63, 2.5), (57, 2.5))),
    Arrow(((32, 4), (32, 6))),
    Arrow(((32, 8), (32, 10))),
    Arrow(((32, 12), (32, 13))),
    Arrow(((32, 15), (32, 16))),
    Arrow(((32, 18), (32, 19))),
    Arrow(((32, 21), (32, 23))),
    Arrow(((32, 25), (32, 27))),
    Arrow(((32, 29), (32, 31)), "a dispatcher"),
    Arrow(((57, 28), (89, 28), (89, 31)), "or a fused root"),
    Arrow(((32, 35), (32, 37))),
    Arrow(((89, 35), (89, 38), (57, 38))),
    Arrow(((32, 39), (32, 41))),
    Arrow(((32, 43), (32, 45))),
    Arrow(((57, 46.5), (63, 46.5))),
    Arrow(((115, 42), (117, 42), (117, 7), (57, 7)), dashed=True),
)
NOTE = (62, 6.6, "another root is there: all again")


def across(letters: float) -> str:
    return f"{letters * LETTER:g}"


def down(lines: float) -> str:
    return f"{lines * LINE:g}"


def text(x: float, y: float, said: str, more: str = "") -> str:
    return f'<text x="{across(x)}" y="{down(y)}"{more}>{escape(said)}</text>'


def drawn() -> str:
    """The drawing as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across(WIDTH)} {down(HEIGHT)}"'
        f' font-family="monospace" font-size="{SIZE}" xml:space="preserve">',
        "<title>The way of a load</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8"'
        ' markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for box in boxes():
        colour = COLOURS[box.module.split("/")[0]]
        parts.append(
            f'<rect x="{across(box.x)}" y="{down(box.y)}" width="{across(box.width)}"'
            f' height="{down(box.height)}" rx="4" fill="{colour}" stroke="#555"/>'
        )
        parts.append(text(box.x + 1, box.y + 0.75, box.module, ' font-weight="bold"'))
        parts += [
            text(box.x + 1, box.y + 1.75 + number, line) for number, line in enumerate(box.lines)
        ]
    for arrow in ARROWS:
        points = " ".join(f"{across(x)},{down(y)}" for x, y in arrow.points)
        dashes = ' stroke-dasharray="5 4"' if arrow.dashed else ""
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="#000"{dashes}'
            ' marker-end="url(#tip)"/>'
        )
        if arrow.text:
            x, y = arrow.points[-2]
            parts.append(text(x + 1, y + 1, arrow.text, ' font-style="italic"'))
    x, y, said = NOTE
    parts.append(text(x, y, said, ' font-style="italic"'))
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    Path(__file__).with_name("architecture.svg").write_text(drawn(), encoding="utf-8")


if __name__ == "__main__":
    main()
