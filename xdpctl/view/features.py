"""What interfaces can do with XDP: lines for scripts, a table on terminals, JSON."""

from __future__ import annotations

from collections.abc import Sequence

from ..doctor.features import RX_METADATA, XDP_ACT, XSK, Features, Flags
from ..host.text import Json
from .style import Span, on_terminal, printable, say
from .table import Column, Table, show

_VALUE_COLUMN = 32
_COLUMNS = (
    Column("Interface", head=True),
    Column("XDP", prose=True),
    Column("Fragments", right=True),
    Column("Metadata", prose=True),
    Column("XDP sockets", prose=True),
)


def _set(flags: Flags, value: int | None) -> list[str] | None:
    if value is None:
        return None
    return [name for name, is_set in flags.answers(value).items() if is_set]


def features_data(one: Features) -> Json:
    """An interface as ``features --json`` gives it: the names of the flags that are set."""
    return {
        "interface": one.interface.name,
        "ifindex": one.interface.ifindex,
        "netns": one.interface.netns,
        "xdp_features": _set(XDP_ACT, one.xdp),
        "xdp_zc_max_segs": one.zc_max_segs,
        "xdp_rx_metadata_features": _set(RX_METADATA, one.rx_metadata),
        "xsk_features": _set(XSK, one.xsk),
    }


def feature_lines(one: Features) -> list[str]:
    """A line an answer: the name, a colon, tabs to column 32 as xdp-loader has them, the value."""
    lines = []
    for name, value in one.answers().items():
        tabs = max((_VALUE_COLUMN - len(name) - 1 + 7) // 8, 1)
        text = str(value) if not isinstance(value, bool) else "yes" if value else "no"
        lines.append(name + ":" + "\t" * tabs + text)
    return lines


def features(found: Sequence[Features], *, named: bool, plain: bool = False) -> None:
    """A table on a terminal; else lines, which begin with the interface's name if `named`.

    If `plain`, as from xdp-loader: the seven lines that it has, on a terminal, too.
    """
    if on_terminal() and not plain:
        show(_table(found))
        return
    for one in found:
        for line in feature_lines(one)[: len(XDP_ACT.names) if plain else None]:
            say(f"{printable(one.interface.name):<16} {line}" if named else line)


def _table(found: Sequence[Features]) -> Table:
    def cell(flags: Flags, value: int | None) -> str | Span:
        names = _set(flags, value)
        if names is None:
            return Span("not told", "dim")
        return ", ".join(name.removeprefix(flags.prefix) for name in names) or "none"

    shown = Table(_COLUMNS)
    for one in found:
        shown.add(
            one.interface.name,
            cell(XDP_ACT, one.xdp),
            "" if one.zc_max_segs is None else str(one.zc_max_segs),
            cell(RX_METADATA, one.rx_metadata),
            cell(XSK, one.xsk),
        )
    return shown
