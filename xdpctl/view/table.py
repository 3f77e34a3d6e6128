"""The one table: fitted to a terminal and painted by rich there, else aligned rows.

A table that is too wide for a terminal first goes without the columns that say so, then breaks
the cells that are prose between words. If that is not enough, or the terminal is narrow, each row
is a list of its own. Nothing is cut, and no name, id or path is broken, so that all can be copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .style import Line, Span, can_print, on_terminal, paint, printable, say, width

NARROW = 50
"""A terminal of fewer columns gets lists."""

_GAP = 2
_HARD = "\u00a0"
"""A blank that no line ends at; it is never printed."""


class Column(NamedTuple):
    """A column's title, and how it behaves."""

    title: str
    right: bool = False
    """Its cells stand at the right."""
    drop: int = 0
    """It may go if room is short, 1 before 2; 0: it stays."""
    prose: bool = False
    """Its cells may be broken between words."""
    head: bool = False
    """In a list it stands in the first line of a row."""


class Row(NamedTuple):
    """A row of a table: cells, the rich style of the whole, and lines below that are not cells."""

    cells: Sequence[str | Span]
    style: str = ""
    below: Sequence[Span] = ()


@dataclass(eq=False, repr=False)
class Table:
    """What is shown in rows and columns, with a line above and others below."""

    columns: Sequence[Column]
    rows: list[Row] = field(default_factory=list)
    title: str | None = None
    notes: Sequence[str] = ()

    def add(self, *cells: str | Span, style: str = "", below: Sequence[Span] = ()) -> None:
        """Add a row, a cell for each column."""
        self.rows.append(Row(cells, style, below))


def show(table: Table) -> None:
    """Print a table in the form that standard output takes."""
    if on_terminal():
        paint(picture(table))
    else:
        say(*lines(table))


def lines(table: Table) -> Iterator[str]:
    """The aligned rows of a table, below its columns' titles, for whoever is no terminal."""
    cells = [[_text(cell) for cell in row.cells] for row in table.rows]
    written = [[column.title for column in table.columns], *cells]
    widths = [max(map(_wide, column)) for column in zip(*written, strict=True)]
    if table.title:
        yield table.title
    for line in written:
        yield _joined(table.columns, line, widths)
    yield from table.notes


def picture(table: Table) -> list[Line]:
    """The lines of a table for a terminal of this width."""
    room = width()
    drawn: list[Line] = [[Span(table.title, "italic")]] if table.title else []
    widths = _fitted(table, room) if room >= NARROW else None
    if table.rows:
        drawn += _list(table, room) if widths is None else _grid(table, widths)
    for note in table.notes:
        drawn += ([Span(line, "dim")] for line in _broken(note, max(room, 1)))
    return drawn


# --- as a table ---------------------------------------------------------------------------------


def _fitted(table: Table, room: int) -> dict[int, int] | None:
    """The width of each column that is shown, by its place; None if they do not fit."""
    texts = [[_text(cell) for cell in row.cells] for row in table.rows]
    widths = {
        place: max([_wide(column.title), *(_wide(row[place]) for row in texts)])
        for place, column in enumerate(table.columns)
    }
    least = {
        place: max(_wide(word) for row in texts for word in [column.title, *_words(row[place])])
        for place, column in enumerate(table.columns)
        if column.prose and texts
    }
    for drop in sorted({0, *(column.drop for column in table.columns)}):
        gone = [place for place, column in enumerate(table.columns) if 0 < column.drop <= drop]
        shown = {place: wide for place, wide in widths.items() if place not in gone}
        while (over := _total(shown) - room) > 0:
            soft = [place for place, wide in shown.items() if wide > least.get(place, wide)]
            if not soft:
                break
            widest = max(soft, key=lambda place: shown[place])
            shown[widest] -= min(over, max(1, (shown[widest] - least[widest]) // 2))
        else:
            return shown
    return None


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def _grid(table: Table, widths: dict[int, int]) -> list[Line]:
    columns = [table.columns[place] for place in widths]
    titles = _joined(columns, [column.title for column in columns], [*widths.values()])
    rule = "─" if can_print("─") else "-"
    drawn: list[Line] = [[Span(titles, "bold")], [Span(rule * _total(widths), "dim")]]
    for row in table.rows:
        cells = [_broken(_text(row.cells[place]), wide) for place, wide in widths.items()]
        styles = [_style(row.cells[place]) for place in widths]
        for number in range(max(map(len, cells))):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            drawn.append(_spans(columns, parts, [*widths.values()], styles, row.style))
        drawn += _below(row, sum([*widths.values()][:-1]) + _GAP * (len(widths) - 1))
    return drawn


def _spans(
    columns: Sequence[Column],
    parts: Sequence[str],
    widths: Sequence[int],
    styles: Sequence[str],
    style: str,
) -> Line:
    """A line of cells that have styles of their own; blanks at its end are left out."""
    padded = [
        _padded(column, part, wide)
        for column, part, wide in zip(columns, parts, widths, strict=True)
    ]
    while padded and not padded[-1].strip():
        padded.pop()
    if padded:
        padded[-1] = padded[-1].rstrip()
    spans: Line = []
    for place, text in enumerate(padded):
        spans = [*spans, Span(" " * _GAP)] if place else spans
        spans = [*spans, Span(text, f"{style} {styles[place]}".strip())]
    return spans


def _broken(text: str, wide: int) -> list[str]:
    """A cell's lines: broken between words where it is wider than its column."""
    if _wide(text) <= wide:
        return [text]

    import textwrap

    parts = textwrap.wrap(_kept(text), wide, break_long_words=False, break_on_hyphens=False)
    return [part.replace(_HARD, " ") for part in parts]


def _words(text: str) -> list[str]:
    """What a cell is not broken within: words, and an id with what says that it is one."""
    return _kept(text).split(" ")


def _kept(text: str) -> str:
    return re.sub(r"\(id (\d+)\)", rf"(id{_HARD}\1)", text)


def _below(row: Row, indent: int) -> list[Line]:
    """What stands below a row: broken by nobody, so that it can be copied."""
    return [[Span(" " * indent + _text(span), span.style)] for span in row.below]


# --- as lists -----------------------------------------------------------------------------------


def _list(table: Table, room: int) -> list[Line]:
    drawn: list[Line] = []
    longest = max(_wide(column.title) for column in table.columns if not column.head)
    for row in table.rows:
        cells = [*zip(table.columns, row.cells, strict=True)]
        head = "  ".join(_text(cell).strip() for column, cell in cells if column.head)
        if head := head.strip():
            drawn.append([Span(head, row.style or "bold")])
        for column, cell in cells:
            if column.head or not (text := _text(cell)):
                continue
            # A row that goes on with the one above does not name its cells once more.
            title = f"  {column.title if head else '':<{longest}}  "
            space = max(room - len(title), 1)
            first, *rest = _broken(text, space) if column.prose else [text]
            drawn.append([Span(title, "dim"), Span(first, _style(cell))])
            drawn += [[Span(" " * len(title) + more, _style(cell))] for more in rest]
        drawn += _below(row, 2)
    return drawn


# --- cells --------------------------------------------------------------------------------------


def _text(cell: str | Span) -> str:
    """Names come from programs: one line of text, never markup."""
    return printable(cell if isinstance(cell, str) else cell.text)


def _style(cell: str | Span) -> str:
    return "" if isinstance(cell, str) else cell.style


def _wide(text: str) -> int:
    """How many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return wide - sum(unicodedata.combining(c) > 0 for c in text)


def _padded(column: Column, text: str, wide: int) -> str:
    blanks = " " * (wide - _wide(text))
    return blanks + text if column.right else text + blanks


def _joined(columns: Sequence[Column], texts: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(columns, texts, widths, strict=True)
    return (" " * _GAP).join(_padded(*cell) for cell in cells).rstrip()
