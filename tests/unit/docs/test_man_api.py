"""man/xdpctl.3: classes, functions and parameters are the package's."""

from __future__ import annotations

import inspect
import re

import xdpctl
from tests.unit.docs.pages import item, one_line, page, sections
from xdpctl.api.attach import attach
from xdpctl.api.attachment import Attachment
from xdpctl.api.maps import Map
from xdpctl.host import locks


def api() -> str:
    return page("xdpctl.3")["DESCRIPTION"]


def test_the_python_api_is_described() -> None:
    text = api().partition(".Ss Chain, plan")[0]
    items = re.findall(r"^\.It Fa (.*)$", text, flags=re.MULTILINE)
    parameters = [name for item in items for name in re.findall(r"\w+", item)]
    assert parameters == list(inspect.signature(attach).parameters)
    described = re.findall(r"^\.It (?:Va|Fn) (\w+)", text, flags=re.MULTILINE)
    assert described.pop(0) == "attach"
    made = re.findall(r"self\.([a-z]\w*) =", inspect.getsource(Attachment.__init__))
    public = {name for name in vars(Attachment) if not name.startswith("_")}
    assert sorted(described) == sorted(public | set(made))


def api_items(text: str) -> list[str]:
    """The names that the lists of a part of PYTHON API describe, in order."""
    items = re.findall(r"^\.It (?:Va|Fn) (.*)$", text, flags=re.MULTILINE)
    return [name for item in items for name in re.findall(r"^\w+|(?<= , )\w+", item)]


# What the rest of the package needs of these classes and nobody else.
INNER = {
    "State": {"home", "live", "stranded"},
    "Root": {"btf_id", "config"},
    "Slot": {"function_btf_id", "handle"},
    "Chain": {
        "check_asked",
        "find",
        "if_empty",
        "with_added",
        "with_changed",
        "with_replaced",
        "without",
    },
    "Member": {
        *("array_id", "devbound", "handed_on", "held", "instead_of", "load_time", "order"),
        *("replaces", "size", "source"),
    },
    "Rules": set[str](),
    "Plan": {"adopts", "auto", "gives_back", "protocol", "shared", "why"},
}


def test_the_data_of_the_python_api_are_described() -> None:
    text = sections("Ss", api())["Chain, plan and status"]
    functions, *parts = re.split(r"^Of a?\n\.Vt (\w+)", text, flags=re.MULTILINE)
    assert api_items(functions) == ["look", "make_plan"]
    described = dict(zip(parts[::2], parts[1::2], strict=True))
    assert set(described) == set(INNER)
    for name, part in described.items():
        kind = getattr(xdpctl, name)
        fields = getattr(kind, "_fields", None) or kind.__dataclass_fields__
        found = {one for one in (*fields, *vars(kind)) if not one.startswith("_")}
        assert found - INNER[name] == set(api_items(part)), name
        assert INNER[name] <= found
    methods = set(re.findall(r"^\.Fn (\w+)", described["Chain"], flags=re.MULTILINE))
    assert methods == INNER["Chain"] - {"check_asked", "with_replaced"}
    asked = set(inspect.signature(xdpctl.make_plan).parameters) - {"state", "target"}
    assert set(re.findall(r"^\.Fa (\w+)", functions, flags=re.MULTILINE)) == asked


def test_maps_of_the_python_api_are_described() -> None:
    text = sections("Ss", api())["Maps"]
    public = {name for name in vars(Map) if not name.startswith("_")}
    assert sorted(api_items(text)) == sorted(public)


def test_all_that_the_package_offers_is_described() -> None:
    text = api()
    named = set(re.findall(r"^\.(?:Vt|It Fn) (\w+)", text, flags=re.MULTILINE))
    assert set(xdpctl.__all__) <= named


def test_the_default_of_the_lock_timeout_is_the_code_s() -> None:
    text = item(api(), "Fa lock_timeout")
    assert re.findall(r"by default ([\d.]+)", one_line(text)) == [f"{locks.DEFAULT_TIMEOUT:g}"]
