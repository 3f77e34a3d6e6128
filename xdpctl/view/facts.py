"""How `features` and `doctor` are shown: lines for scripts, tables on terminals, JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..doctor.checks import Check, Diagnosis, verdict
from ..doctor.features import RX_METADATA, XDP_ACT, XSK, Features, Flags

if TYPE_CHECKING:
    from rich.table import Table


_VALUE_COLUMN = 32
_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}

# --- features -----------------------------------------------------------------------------------


def _set(flags: Flags, value: int | None) -> list[str] | None:
    if value is None:
        return None
    return [name for name, is_set in flags.answers(value).items() if is_set]


def features_data(one: Features) -> dict[str, Any]:
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
    if sys.stdout.isatty() and not plain:
        from rich.console import Console

        Console().print(_features_table(found))
        return
    for one in found:
        for line in feature_lines(one)[: len(XDP_ACT.names) if plain else None]:
            print(f"{one.interface.name:<16} {line}" if named else line)


def _features_table(found: Sequence[Features]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def cell(flags: Flags, value: int | None) -> Text:
        names = _set(flags, value)
        if names is None:
            return Text("not told", style="dim")
        return Text(", ".join(name.removeprefix(flags.prefix) for name in names) or "none")

    table = Table(box=box.SIMPLE_HEAD)
    for title in ("Interface", "XDP", "Fragments", "Metadata", "XDP sockets"):
        table.add_column(title, overflow="fold")
    for one in found:
        table.add_row(
            Text(one.interface.name),
            cell(XDP_ACT, one.xdp),
            Text("" if one.zc_max_segs is None else str(one.zc_max_segs)),
            cell(RX_METADATA, one.rx_metadata),
            cell(XSK, one.xsk),
        )
    return table


# --- doctor -------------------------------------------------------------------------------------


def diagnosis_data(diagnosis: Diagnosis) -> dict[str, Any]:
    """The fields of ``doctor --json`` beside the command."""
    return {
        "works": diagnosis.kind is not None,
        "kind": diagnosis.kind,
        "exit_code": diagnosis.exit_code,
        "checks": [check._asdict() for check in diagnosis.checks],
    }


def _subject(check: Check) -> str:
    return f"{check.interface}:{check.name}" if check.interface else check.name


def check_lines(check: Check) -> list[str]:
    """A check's state, name and what was found; then its consequence and remedy, if any."""
    lines = [f"{check.state:<8} {_subject(check):<12} {_one_line(check.found)}"]
    lines += [f"         so: {_one_line(check.consequence)}"] if check.consequence else []
    lines += [f"         do: {_one_line(check.remedy)}"] if check.remedy else []
    return lines


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def diagnosis(found: Diagnosis, *, quiet: bool) -> None:
    """All checks and the verdict; if `quiet`, those that are not in order."""
    shown = [check for check in found.checks if not quiet or check.state != "ok"]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        console = Console()
        console.print(_checks_table(shown))
        console.print(Text(verdict(found), style="bold" if found.kind else "bold red"))
        return
    for check in shown:
        print("\n".join(check_lines(check)))
    print(verdict(found))


def _checks_table(checks: Sequence[Check]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for title in ("", "Check", "Found"):
        table.add_column(title, overflow="fold")
    for check in checks:
        # Names come from drivers and files: text, never markup.
        text = Text(check.found)
        if check.consequence:
            text.append(f"\nso: {check.consequence}", style="dim")
        if check.remedy:
            text.append(f"\ndo: {check.remedy}")
        table.add_row(Text(check.state, style=_STYLES[check.state]), Text(_subject(check)), text)
    return table
