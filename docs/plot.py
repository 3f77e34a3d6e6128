#!/usr/bin/python3
"""Draw docs/cost.svg, what chains add to the cost of a packet, from docs/cost.json: docs/plot.py

`bench/run floor --save` writes the figures. The table of docs/compare.md is made of them, too. A
test compares both with what this script makes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

HERE = Path(__file__).parent
WIDTH, HEIGHT, LEFT, TOP, BETWEEN = 330, 250, 60, 50, 110
COLOURS = {
    "fused": "#1f6fb4",
    "ext": "#2a9d4a",
    "libxdp": "#c77700",
    "tail calls": "#b3261e",
    "one program": "#444444",
}
NAMES = {
    "fused": "xdpctl, fused",
    "ext": "xdpctl, EXT",
    "libxdp": "libxdp",
    "tail calls": "tail calls, as l3afd's",
    "one program": "one C program (the floor)",
}
PLACES = {
    "machine": "Linux {kernel} on a machine: ns",
    "guest": "Linux {kernel} in emulation: instructions",
}
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def text(x: float, y: float, said: str, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}"{more}>{escape(said)}</text>'


def panel(left: float, place: str, figures: Mapping[str, Any]) -> list[str]:
    """The lines of one place, over the number of members, with axes from 0."""
    lines: Mapping[str, Mapping[str, float]] = figures["added"]["member"]
    sizes = sorted({int(size) for line in lines.values() for size in line})
    most = max(max(line.values()) for line in lines.values())
    step = next(step for step in STEPS if most / step <= 6)

    def at(size: float, added: float) -> tuple[float, float]:
        top = step * (int(most / step) + 1)
        return left + WIDTH * size / sizes[-1], TOP + HEIGHT * (1 - max(added, 0) / top)

    parts = [text(left, TOP - 16, PLACES[place].format(**figures), ' font-weight="bold"')]
    for tick in range(0, int(most) + step, step):
        _x, y = at(0, tick)
        parts.append(f'<path d="M{left:g} {y:g}h{WIDTH}" stroke="#ddd"/>')
        parts.append(text(left - 8, y + 4, str(tick), ' text-anchor="end"'))
    for size in sizes:
        parts.append(text(at(size, 0)[0], TOP + HEIGHT + 18, str(size), ' text-anchor="middle"'))
    middle = ' text-anchor="middle"'
    parts.append(text(left + WIDTH / 2, TOP + HEIGHT + 36, "programs in the chain", middle))
    for who, line in lines.items():
        points = [
            at(int(size), added) for size, added in sorted(line.items(), key=lambda i: int(i[0]))
        ]
        dashes = ' stroke-dasharray="6 4"' if who == "one program" else ""
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{drawn}" fill="none" stroke="{COLOURS[who]}"'
            f' stroke-width="2"{dashes}/>'
        )
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[who]}"/>' for x, y in points
        ]
    return parts


def legend(y: float, ways: Sequence[str], right: float) -> list[str]:
    """What each line is, in as many rows as it takes."""
    parts, x = list[str](), float(LEFT)
    for who in ways:
        wide = 24 + 7.3 * len(NAMES[who])
        if x + wide > right:
            x, y = float(LEFT), y + 18
        parts.append(f'<path d="M{x:g} {y - 4:g}h18" stroke="{COLOURS[who]}" stroke-width="3"/>')
        parts.append(text(x + 24, y, NAMES[who]))
        x += wide + 16
    return parts


def drawn(figures: Mapping[str, Any]) -> str:
    """The plot as SVG; the figures are those of docs/cost.json."""
    places = [place for place in PLACES if place in figures]
    width = LEFT + len(places) * (WIDTH + BETWEEN)
    height = TOP + HEIGHT + 100
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        ' font-family="monospace" font-size="12">',
        "<title>What a chain adds to the cost of a packet</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, place in enumerate(places):
        parts += panel(LEFT + number * (WIDTH + BETWEEN), place, figures[place])
    ways = [who for who in COLOURS if any(who in figures[one]["added"]["member"] for one in places)]
    return "\n".join([*parts, *legend(TOP + HEIGHT + 62, ways, width), "</svg>", ""])


SORTS = {"member": "each with a map", "least": "each hardly anything"}


def rows(figures: Mapping[str, Any]) -> list[str]:
    """The table of docs/compare.md: what ten programs add, in both places."""
    found = ["| Ten programs | machine, ns | emulated, instructions |", "|---|---|---|"]
    for sort, kind in SORTS.items():
        for who in COLOURS:
            cells = [
                f"{figures[place]['added'][sort][who]['10']:g}"
                if place in figures and who in figures[place]["added"][sort]
                else "-"
                for place in PLACES
            ]
            found.append(f"| {who}, {kind} | {' | '.join(cells)} |")
    return found


def main() -> None:
    figures = json.loads((HERE / "cost.json").read_text(encoding="utf-8"))
    (HERE / "cost.svg").write_text(drawn(figures), encoding="utf-8")
    page = (HERE / "compare.md").read_text(encoding="utf-8")
    table = "\n".join(rows(figures)) + "\n"
    page = re.sub(r"^\| Ten programs \|.*\n(\|.*\n)*", table, page, flags=re.MULTILINE)
    (HERE / "compare.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
