"""Metrics as text: OpenMetrics, or the older format that node_exporter and promtool read.

https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md,
https://prometheus.io/docs/instrumenting/exposition_formats/. The library prometheus_client has
writers of both, and takes 16 us a sample on one of them, half a second for 1,000 interfaces; this
takes 1 us. tests/unit/test_metrics.py holds the one against the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from ..host.text import Json
from ..metrics.families import SUFFIXES, Family

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def text(families: Iterable[Family], *, openmetrics: bool = True) -> str:
    """All samples of some metrics, in one of the two formats."""
    lines = [line for family in families for line in _lines(family, openmetrics)]
    if openmetrics:
        lines.append("# EOF")
    return "".join(f"{line}\n" for line in lines)


def _lines(family: Family, openmetrics: bool) -> Iterator[str]:
    name, kind = family.name, str(family.kind)
    suffixes = [name + suffix for suffix in SUFFIXES[family.kind]]
    if not openmetrics and family.kind in ("counter", "info"):
        # There a metric is called as its samples are, and there is no type of this name.
        name, kind = suffixes[0], "counter" if family.kind == "counter" else "gauge"
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {kind}"
    if openmetrics and family.unit:
        yield f"# UNIT {name} {family.unit}"
    told = ",".join(f'{label}="%s"' for label in family.labels)
    lines = [f"{suffix}{{{told}}} %s" if told else f"{suffix} %s" for suffix in suffixes]
    for labels, values in family.samples:
        shown = tuple(map(_escaped, labels))
        for line, value in zip(lines, values, strict=True):
            yield line % (*shown, value)


@lru_cache(1 << 14)
def _escaped(label: str) -> str:
    return label.translate(_ESCAPES)


def data(families: Iterable[Family]) -> list[Json]:
    """The same as ``metrics --json`` gives it."""
    return [
        {
            "name": family.name,
            "type": family.kind,
            "help": family.help,
            "unit": family.unit or None,
            "samples": [
                {
                    "name": family.name + suffix,
                    "labels": dict(zip(family.labels, labels, strict=True)),
                    "value": value,
                }
                for labels, values in family.samples
                for suffix, value in zip(SUFFIXES[family.kind], values, strict=True)
            ],
        }
        for family in families
    ]
