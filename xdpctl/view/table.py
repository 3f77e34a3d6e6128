"""The one table: drawn by rich on a terminal, else aligned rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .style import on_terminal, printable, say

if TYPE_CHECKING:
    from rich.table import Table as Picture
    from rich.text import Text


class Span(NamedTuple):
    """A part of a cell; the style is rich's."""

    text: str
    style: str = ""


Cell = str | Sequence[Span]


class Column(NamedTuple):
    """A column's title, and whether its cells stand at the right."""

    title: str
    right: bool = False


class Row(NamedTuple):
    """A line of a table; the style is rich's."""

    cells: Sequence[Cell]
    style: str = ""


@dataclass
class Table:
    """What is shown in rows and columns, with a line above and one below."""

    columns: Sequence[Column]
    rows: list[Row] = field(default_factory=list)
    title: str | None = None
    caption: str | None = None
    boxed: bool = False
    """With lines between all columns."""

    def add(self, *cells: Cell, style: str = "") -> None:
        """Add a row, a cell for each column."""
        self.rows.append(Row(cells, style))


def show(table: Table) -> None:
    """Print a table in the form that standard output takes."""
    if on_terminal():
        from rich.console import Console

        Console().print(picture(table))
    else:
        say(*lines(table))


def picture(table: Table) -> Picture:
    """A table for a terminal."""
    from rich import box
    from rich.table import Table as Picture

    drawn = Picture(
        title=table.title,
        caption=table.caption,
        box=box.HEAVY_HEAD if table.boxed else box.SIMPLE_HEAD,
    )
    for column in table.columns:
        # Folded, not cut: an id or a tag that is cut serves nobody.
        justify = "right" if column.right else "left"
        drawn.add_column(column.title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in table.rows:
        drawn.add_row(*map(_text, row.cells), style=row.style)
    return drawn


def _text(cell: Cell) -> Text:
    """Names come from programs: text, never markup."""
    from rich.text import Text

    spans = [Span(cell)] if isinstance(cell, str) else cell
    return Text.assemble(*((printable(text, keep="\n"), style) for text, style in spans))


def lines(table: Table) -> Iterator[str]:
    """The aligned rows of a table, below its columns' titles."""
    cells = [[printable(_plain(cell)) for cell in row.cells] for row in table.rows]
    written = [[column.title for column in table.columns], *cells]
    widths = [max(map(len, column)) for column in zip(*written, strict=True)]
    if table.title:
        yield table.title
    for line in written:
        yield "  ".join(
            cell.rjust(width) if column.right else cell.ljust(width)
            for column, cell, width in zip(table.columns, line, widths, strict=True)
        ).rstrip()
    if table.caption:
        yield table.caption


def _plain(cell: Cell) -> str:
    return cell if isinstance(cell, str) else "".join(text for text, _style in cell)
