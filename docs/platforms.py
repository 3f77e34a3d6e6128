#!/usr/bin/python3
"""Write the tables of platforms and versions: docs/platforms.py [REPORT.xml|versions.json]...

Reports of kernel tests (build/reports/*.xml, from tests/run and tests/versions) and the results of
tests/versions go to docs/platforms.json, each in place of an earlier one of the same platform. From
that file, and from nothing else, come docs/platforms.md and the table in README.md. A test compares
them.
"""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
DATA, PAGE = HERE / "platforms.json", HERE / "platforms.md"
BEGIN, END = "<!-- docs/platforms.py -->\n", "<!-- end -->\n"
FEATURES = (
    "EXT root",
    "fused root",
    "link",
    "netlink",
    "generic mode",
    "frags",
    "device-bound",
    "held programs",
    "counting",
    "monitor",
    "trace",
    "trial",
    "going back",
    "BCC sources",
)
SHORT = ("EXT root", "fused root", "link", "netlink", "frags", "counting", "monitor", "trace")
"""The features that README.md has room for."""
CARDS = (
    "mode",
    "swaps",
    "down and up",
    "plug",
    "rings",
    "queues",
    "MTU",
    "jumbo frames",
)
"""What tests/kernel/test_drivers.py tells of a card."""
LIBRARIES = ("python", "click", "rich", "pyroute2", "libbpf", "clang")

ANSWERS = ("", "native", "skb", "yes", "runs on", "refused", "swap")
"""What is told of a card, the worst last."""

Data = dict[str, dict[str, Any]]

HEAD = """# Platforms

Each feature has kernel tests that show it (`tests/kernel/platforms.py`). **yes**: some of them ran,
and all that ran passed; the figure counts them. **no**: the kernel or the system lacks what they
need, so that none could run. **fails**: one failed. **not run**: nobody has tried.

`make test-matrix`, `make platforms` and `make test-versions` fill `docs/platforms.json`. From that
`docs/platforms.py` writes this page and the table in [README](../README.md), and nothing is written
by hand.

## Kernels and systems

The own kernel is that of the machine that the tests ran on. Here it refuses EXT programs. The
others are Debian's, in guests.

"""
CARDS_HEAD = """
## Network cards

What `tests/kernel/test_drivers.py` saw with QEMU's cards, with what stands on one of them, and with
a tap and WireGuard. A chain was loaded in this mode. **swaps**: under a flood no packet missed a
program while roots were swapped. Then the card went down and up, its plug was pulled, and its
rings, queues (`ethtool -G`, `-L`) and MTU were changed under the chain. **runs on**: each program
counted every packet afterwards. **refused**: the driver did not do it. **swap**: the driver lost
the program, and `xdpctl swap-dispatcher` gave it another.

"""
VERSIONS_HEAD = """
## Versions

The unit tests, and those kernel tests that could tell versions apart, on the own kernel
(`tests/versions`).

"""


def parsed(path: Path) -> tuple[ET.Element | None, dict[str, str]]:
    """A report's suite, and what it tells of what it ran on."""
    suite = ET.parse(path).find(".//testsuite")
    told = [] if suite is None else suite.iterfind("./properties/*")
    return suite, {str(one.get("name")): one.get("value", "") for one in told}


def report(path: Path) -> tuple[str, dict[str, Any]] | None:
    """A platform's name, and what its report shows of it; None if it tells no platform."""
    suite, told = parsed(path)
    if suite is None or "kernel" not in told or told.get("cards"):
        return None
    counts: dict[str, dict[str, int]] = {}
    for case in suite.iterfind("testcase"):
        tags = {child.tag for child in case}
        result = "failed" if tags & {"failure", "error"} else "passed"
        result = "skipped" if "skipped" in tags and result == "passed" else result
        for one in case.iterfind("./properties/property[@name='feature']"):
            of_feature = counts.setdefault(str(one.get("value")), {})
            of_feature[result] = of_feature.get(result, 0) + 1
    series = ".".join(told["kernel"].split(".")[:2])
    found: dict[str, Any] = {
        "kernel": told["kernel"] if told["where"] == "guest" else series,
        "series": series,
        "where": told["where"],
        "machine": told["machine"],
        "system": told["system"],
        "date": str(suite.get("timestamp"))[:10],
        "features": {name: counts[name] for name in FEATURES if name in counts},
    }
    return ", ".join((found["system"], found["where"], series, found["machine"])), found


def cards(path: Path) -> Data:
    """By the names of cards, what a report shows of them; empty with none, or if a test failed."""
    suite, told = parsed(path)
    found: Data = {}
    if suite is None or not told.get("cards"):
        return found
    if suite.find("testcase/failure") is not None or suite.find("testcase/error") is not None:
        print(f"docs/platforms.py: {path}: tests failed, so it tells nothing of cards")
        return found
    general = {"kernel": told["kernel"], "date": str(suite.get("timestamp"))[:10]}
    for one in suite.iterfind("testcase/properties/property[@name='card']"):
        name, what, result = str(one.get("value")).split(": ")
        seen = found.setdefault(name, {**general, "seen": {}})["seen"]
        # Of several answers, to both kinds of root or to two MTUs, the worst counts.
        seen[what] = max(seen.get(what, ""), result, key=ANSWERS.index)
    return found


def gathered(data: Data, paths: Iterable[Path]) -> Data:
    """The data with what reports and results of versions say."""
    new = {part: dict(data.get(part, {})) for part in ("platforms", "cards", "versions")}
    for path in paths:
        if path.suffix == ".json":
            new["versions"] |= json.loads(path.read_text(encoding="utf-8"))
        elif (found := report(path)) is not None:
            new["platforms"][found[0]] = found[1]
        else:
            new["cards"] |= cards(path)
    return new


# --- the tables ----------------------------------------------------------------------------------


def cell(counts: Mapping[str, int] | None, *, count: bool = False) -> str:
    """What a table says of a feature."""
    if not counts:
        return "not run"
    if counts.get("failed"):
        return "fails"
    passed = counts.get("passed", 0)
    if not passed:
        return "no"
    return f"yes {passed}" if count else "yes"


def markdown(rows: list[list[str]]) -> str:
    """A table whose first row is its heading."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def order(one: Mapping[str, Any]) -> tuple[Any, ...]:
    """Guests before the own kernel, then by system, processor and kernel."""
    number = [int(part) for part in one["series"].split(".")]
    return one["machine"], one["where"], one["system"], number


def kernel_name(one: Mapping[str, Any]) -> str:
    return f"own ({one['series']})" if one["where"] == "own" else str(one["series"])


def grouped(platforms: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Rows of README.md's table: platforms that have the same features are in one."""
    kernels: dict[tuple[str, ...], list[str]] = {}
    for one in sorted(platforms, key=order):
        cells = [cell(one["features"].get(name)) for name in SHORT]
        key = (one["machine"], one["where"], one["system"], *cells)
        kernels.setdefault(key, []).append(kernel_name(one))
    systems: dict[tuple[str, ...], list[str]] = {}
    for (machine, _where, system, *cells), names in kernels.items():
        systems.setdefault((machine, ", ".join(names), *cells), []).append(system)
    rows = []
    for (machine, of_kernels, *shown), found in systems.items():
        first, *others = found
        name, _, _ = first.partition(" ")
        told = [first, *(one.removeprefix(f"{name} ") for one in others), machine]
        rows.append([", ".join(told), of_kernels, *shown])
    return rows


def short(data: Data) -> str:
    """README.md's table."""
    return markdown([["system", "Linux", *SHORT], *grouped(data["platforms"].values())])


def tests(step: Mapping[str, Any] | None) -> str:
    """What a table says of a part of the tests in an environment."""
    if not step:
        return "not run"
    counts = step["counts"]
    if not counts:
        return str(step["result"])
    return ", ".join(f"{counts[one]} {one}" for one in ("passed", "failed") if counts[one])


def page(data: Data) -> str:
    """docs/platforms.md."""
    platforms = sorted(data["platforms"].values(), key=order)
    rows = [["system", "Linux", "processor", "tested", *FEATURES]]
    for one in platforms:
        told = [cell(one["features"].get(name), count=True) for name in FEATURES]
        kernel = one["kernel"] if one["where"] == "guest" else kernel_name(one)
        rows.append([one["system"], kernel, one["machine"], one["date"], *told])
    of_cards = [["card", "Linux", "tested", *CARDS]]
    for name, one in data["cards"].items():
        told = [one["seen"].get(what, "not run") for what in CARDS]
        of_cards.append([name, one["kernel"], one["date"], *told])
    versions = [["environment", *LIBRARIES, "unit tests", "kernel tests"]]
    for name, one in data["versions"].items():
        if one["not_had"]:
            continue
        told = [tests(one["steps"].get(part)) for part in ("unit", "kernel")]
        versions.append([name, *(one["versions"][library] for library in LIBRARIES), *told])
    tables = (HEAD, rows), (CARDS_HEAD, of_cards), (VERSIONS_HEAD, versions)
    return "".join(head + markdown(lines) for head, lines in tables)


def in_readme(text: str, data: Data) -> str:
    """README.md with the table between its two marks."""
    form = re.escape(BEGIN) + ".*?" + re.escape(END)
    new, count = re.subn(form, lambda _: BEGIN + short(data) + END, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"README.md has {count} places for the table")
    return new


def main(words: list[str]) -> None:
    data = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    data = gathered(data, [Path(word) for word in words if Path(word).exists()])
    DATA.write_text(json.dumps(data, indent=1, sort_keys=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(data), encoding="utf-8")
    README.write_text(in_readme(README.read_text(encoding="utf-8"), data), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
