"""contrib/grafana: the dashboard is what Grafana takes, and asks for metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.samples import ROOT
from xdpctl.metrics.families import SUFFIXES, Families, Family

DASHBOARD: dict[str, Any] = json.loads((ROOT / "contrib/grafana/xdpctl.json").read_text())


def missing(wanted: object, found: object, path: str = "") -> Iterator[str]:
    """What of a JSON value another one lacks, or has otherwise."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            if key in found:
                yield from missing(value, found[key], f"{path}.{key}")
            elif value is not None:
                yield f"{path}.{key}"
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from missing(one, other, f"{path}[{number}]")
    elif wanted != found:
        yield path


def lost(document: dict[str, Any]) -> list[str]:
    """What Grafana's types have no place for: it does not come out again as it went in."""
    models = pytest.importorskip(
        "grafana_foundation_sdk.models.dashboard", reason="missing: grafana_foundation_sdk"
    )
    encoder = pytest.importorskip(
        "grafana_foundation_sdk.cog.encoder", reason="missing: grafana_foundation_sdk"
    )
    plugins = pytest.importorskip(
        "grafana_foundation_sdk.cog.plugins", reason="missing: grafana_foundation_sdk"
    )
    plugins.register_default_plugins()
    read = models.Dashboard.from_json(json.loads(json.dumps(document)))
    return [*missing(document, json.loads(json.dumps(read, cls=encoder.JSONEncoder)))]


def test_grafana_s_types_have_a_place_for_all_of_it() -> None:
    assert lost(DASHBOARD) == []
    wrong = json.loads(json.dumps(DASHBOARD))
    wrong["panels"][0]["nosuch"] = wrong["panels"][6]["options"]["legend"]["nosuch"] = 1
    assert lost(wrong) == [".panels[0].nosuch", ".panels[6].options.legend.nosuch"]


def expressions() -> list[str]:
    queries = [one["query"] for one in DASHBOARD["templating"]["list"]]
    return [*queries, *(one["expr"] for panel in DASHBOARD["panels"] for one in panel["targets"])]


def test_it_asks_for_metrics_and_labels_that_there_are() -> None:
    families: list[Family] = [*vars(Families()).values()]
    there = {
        family.name + suffix: set(family.labels)
        for family in families
        for suffix in SUFFIXES[family.kind]
    }
    asked = set()
    for expression in expressions():
        for name, labels in re.findall(r"(xdpctl_\w+)(?:\{([^}]*)\})?", expression):
            asked.add(name)
            assert set(re.findall(r"(\w+)=", labels)) <= there[name], expression
    # All counters, whatever else.
    counted = {name for name in there if name.endswith(("_total", "_sum"))}
    assert counted - asked == {"xdpctl_chain_end_packets_total"}


def test_panels_stand_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
