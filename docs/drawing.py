#!/usr/bin/python3
"""Draw the way of a load, docs/architecture.svg, and the seven steps, docs/steps.svg.

Both are made from the text in this file. A box is a line of what it is and lines of what is in it;
places are in units of a letter's width and a line's height. A test compares the files with what
this script draws.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

LETTER, LINE, SIZE = 7.0, 18, 12
COLOURS = {
    "cli": "#e3eefb",
    "view": "#e3eefb",
    "change": "#fdeed3",
    "observe": "#e5f4e1",
    "roots": "#f6e1ee",
    "programs": "#ece6f7",
    "bpffs": "#e0f2f1",
    "model": "#ffffff",
    "eth0": "#e3eefb",
    "root": "#fdeed3",
    "count": "#e5f4e1",
    "new": "#ece6f7",
}


class Box(NamedTuple):
    """A box, whose first word or folder gives the colour; x, y and width in letters and lines."""

    x: int
    y: int
    width: int
    title: str
    lines: tuple[str, ...]

    @property
    def height(self) -> int:
        return len(self.lines) + 1


class Arrow(NamedTuple):
    """A way through points, with a text at the last but one."""

    points: tuple[tuple[float, float], ...]
    text: str = ""
    dashed: bool = False


class Note(NamedTuple):
    """A line of text by itself."""

    x: float
    y: float
    text: str
    style: str = ' font-style="italic"'


class Drawing(NamedTuple):
    """A picture; width and height in letters and lines."""

    title: str
    width: int
    height: int
    boxes: list[Box]
    arrows: tuple[Arrow, ...]
    notes: tuple[Note, ...]


# x, y, width and title; then what is in it.
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


def boxes(text: str, right: int = 0, down: int = 0) -> list[Box]:
    """The boxes of a text, moved."""
    found: list[Box] = []
    for line in text.strip().splitlines():
        if line.startswith("  "):
            found[-1] = found[-1]._replace(lines=(*found[-1].lines, line[2:]))
        else:
            x, y, width, title = line.split(maxsplit=3)
            found.append(Box(int(x) + right, int(y) + down, int(width), title, ()))
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
NOTE = Note(62, 6.6, "another root is there: all again")

# The seven steps: four states, each with what is there. Packets run from eth0 into a root; a
# program is hooked onto the roots that its arrows lead to.
ETH0 = "1 4 8 eth0\n"
X = "15 3 14 root X\n  count\n"
Y = "35 3 14 root Y\n  count\n  new\n"
COUNT = "15 10 14 count\n  program\n"
NEW = "35 10 14 new\n  program\n"
TO_X = Arrow(((9, 4.5), (15, 4.5)))
TO_Y = Arrow(((5, 4), (5, 2), (42, 2), (42, 3)))
COUNT_ON_X = Arrow(((22, 10), (22, 5)))
COUNT_ON_Y = Arrow(((25, 10), (25, 8), (39, 8), (39, 6)))
NEW_ON_Y = Arrow(((45, 10), (45, 6)))
BOTH = (COUNT_ON_X, COUNT_ON_Y, NEW_ON_Y)
STATES = (
    (ETH0 + X + COUNT, (TO_X, COUNT_ON_X), "1 1' 2 3", "the first load: X, and count on it"),
    (
        ETH0 + X + Y + COUNT + NEW,
        (TO_X, *BOTH),
        "4 4' 2 5",
        "Y beside X; count is hooked onto both",
    ),
    (
        ETH0 + X + Y + COUNT + NEW,
        (TO_Y, *BOTH),
        "6",
        "one system call that names X: packets run into Y",
    ),
    (
        ETH0 + Y + COUNT + NEW,
        (TO_Y, COUNT_ON_Y, NEW_ON_Y),
        "7",
        "no CPU runs X: its links go, and so does X",
    ),
)
PANEL_WIDTH, PANEL_HEIGHT = 58, 15
BOLD = ' font-weight="bold"'


def moved(arrow: Arrow, right: int, down: int) -> Arrow:
    return arrow._replace(points=tuple((x + right, y + down) for x, y in arrow.points))


def seven_steps() -> Drawing:
    """The states side by side, two in a row."""
    places, arrows, notes = list[Box](), list[Arrow](), list[Note]()
    for number, (text, ways, steps, said) in enumerate(STATES):
        right, down = 2 + number % 2 * PANEL_WIDTH, number // 2 * PANEL_HEIGHT
        places += boxes(text, right, down)
        arrows += [moved(way, right, down) for way in ways]
        notes.append(Note(right, down + 1.2, steps, BOLD))
        notes.append(Note(right + len(steps) + 2, down + 1.2, said))
    title = "The seven steps of a change"
    return Drawing(
        title, 2 * PANEL_WIDTH, 2 * PANEL_HEIGHT - 1, places, tuple(arrows), tuple(notes)
    )


def way_of_a_load() -> Drawing:
    return Drawing("The way of a load", 118, 49, boxes(TEXT), ARROWS, (NOTE,))


DRAWINGS = {"architecture.svg": way_of_a_load, "steps.svg": seven_steps}


def across(letters: float) -> str:
    return f"{letters * LETTER:g}"


def down(lines: float) -> str:
    return f"{lines * LINE:g}"


def text(x: float, y: float, said: str, more: str = "") -> str:
    return f'<text x="{across(x)}" y="{down(y)}"{more}>{escape(said)}</text>'


def drawn(drawing: Drawing) -> str:
    """The drawing as SVG."""
    width, height = across(drawing.width), down(drawing.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' font-family="monospace" font-size="{SIZE}" xml:space="preserve">',
        f"<title>{escape(drawing.title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8"'
        ' markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for box in drawing.boxes:
        colour = COLOURS[re.split("[/ ]", box.title)[0]]
        parts.append(
            f'<rect x="{across(box.x)}" y="{down(box.y)}" width="{across(box.width)}"'
            f' height="{down(box.height)}" rx="4" fill="{colour}" stroke="#555"/>'
        )
        parts.append(text(box.x + 1, box.y + 0.75, box.title, BOLD))
        parts += [
            text(box.x + 1, box.y + 1.75 + number, line) for number, line in enumerate(box.lines)
        ]
    for arrow in drawing.arrows:
        points = " ".join(f"{across(x)},{down(y)}" for x, y in arrow.points)
        dashes = ' stroke-dasharray="5 4"' if arrow.dashed else ""
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="#000"{dashes}'
            ' marker-end="url(#tip)"/>'
        )
        if arrow.text:
            x, y = arrow.points[-2]
            parts.append(text(x + 1, y + 1, arrow.text, ' font-style="italic"'))
    parts += [text(note.x, note.y, note.text, note.style) for note in drawing.notes]
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    for name, drawing in DRAWINGS.items():
        Path(__file__).with_name(name).write_text(drawn(drawing()), encoding="utf-8")


if __name__ == "__main__":
    main()
