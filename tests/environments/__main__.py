"""Run the tests with other versions of what xdpctl uses: tests/versions [--all|--fresh] [NAME]...

tests/versions --list               the environments
tests/versions --part unit NAME...  one part of the tests: unit, mypy, ruff or kernel

For each environment, a row of tests/environments/rows.py: a layer over a bare image of Debian
(tests/image) with Python, clang, libbpf and the Python libraries of some versions; in it, in a copy
of this checkout, the objects of tests/bpf by that clang, the unit tests, linters if the libraries
are the newest, and native kernel tests. Of the kernel tests those run that could tell versions
apart (KERNEL_TESTS there says which, and why); with --all every one, and the long unit tests.

What is made is kept in /var/cache/xdpctl-vm, or what XDPCTL_VM_CACHE says; --fresh makes it anew
from what the mirrors have now. The results are printed as a table and written to
build/reports/versions.json, where those of environments that did not run stay as they are; what was
said lies in build/reports/versions/. As root.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.environments.layer import INSIDE, PLACE, REPORTS, Environment, NotHadError, said
from tests.environments.rows import KERNEL_TESTS, MISSING, ROWS, Row

PARTS = ("unit", "mypy", "ruff", "kernel")
MOST = 10
"""How many failed tests of an environment are named at the end."""


@dataclass
class Step:
    """How a part of the tests went: "passed", "failed", or what keeps it from running."""

    result: str
    counts: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    seconds: int = 0


@dataclass
class Result:
    """What became of an environment."""

    environment: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)
    everything: bool = False
    steps: dict[str, Step] = field(default_factory=dict)
    not_had: str = ""

    def good(self) -> bool:
        return not self.not_had and all(one.result == "passed" for one in self.steps.values())


def counted(path: Path) -> tuple[dict[str, int], list[str]]:
    """What a report of pytest's counts, and the names of what failed."""
    counts, failed = {"passed": 0, "failed": 0, "skipped": 0}, []
    try:
        cases = list(ET.parse(path).iter("testcase"))
    except (OSError, ET.ParseError):
        return counts, ["no report"]
    for case in cases:
        kinds = {child.tag for child in case}
        result = "failed" if kinds & {"failure", "error"} else "passed"
        result = "skipped" if "skipped" in kinds else result
        counts[result] += 1
        if result == "failed":
            failed.append(f"{case.get('classname')}::{case.get('name')}")
    return counts, failed


def kept(report: Path, name: str) -> None:
    """Keep a report beside the log: docs/platforms.py reads those of kernel tests."""
    if report.exists():
        shutil.copy(report, REPORTS / "versions" / f"{name}-{report.name}")


def steps(row: Row, everything: bool) -> dict[str, str]:
    """The commands of the parts, by name."""
    python = ".venv/bin/python -m"
    marks, chosen = "", "tests/kernel"
    if not everything:
        marks = "-m 'not long'"
        chosen = " ".join(f"tests/kernel/{name}.py" for name in KERNEL_TESTS)
    parts = {
        "objects": f"make -s -C tests/bpf && {python} tests.kernel.warm",
        # The pages that this run is to fill are looked at when it has.
        "unit": f"{python} pytest -q -n 2 {marks} --junitxml=build/unit.xml tests/unit "
        "--ignore=tests/unit/docs/test_platforms.py",
    }
    if row.libraries == "newest":  # older ones have other types
        parts["mypy"] = f"{python} mypy"
        parts["ruff"] = ".venv/bin/ruff check -q . && .venv/bin/ruff format --check -q ."
    return parts | {
        "kernel": f"tests/alone {python} pytest -q -p no:cacheprovider -m 'not soak' "
        f"--junitxml=build/kernel.xml {chosen}",
    }


def tried(row: Row, *, fresh: bool, everything: bool, parts: Collection[str]) -> Result:
    """Make an environment and run parts in it, all of them if none is named.

    Those that are not named keep the result that they have, if it is of the same versions.
    """
    told = {name: value for name, value in asdict(row).items() if value and name != "name"}
    result = Result(told, everything=everything)
    try:
        environment = Environment(row, fresh=fresh)
        result.versions = environment.versions()
    except NotHadError as error:
        result.not_had = str(error)
        print(f"{row.name}: not to be had: {error}", flush=True)
        return result
    print(f"{row.name}: " + ", ".join(f"{a} {b}" for a, b in result.versions.items()), flush=True)
    wanted = steps(row, everything)
    earlier = results_so_far().get(row.name, {})
    if parts and earlier.get("versions") == result.versions:
        known = earlier["steps"].items()
        result.steps = {name: Step(**one) for name, one in known if name in wanted}
    for name, command in wanted.items():
        if parts and name not in (*parts, "objects"):
            continue
        began, report = time.monotonic(), environment.root / INSIDE[1:] / f"build/{name}.xml"
        report.unlink(missing_ok=True)
        step = Step("passed" if environment.run(command) else "failed")
        if "junitxml" in command:
            step.counts, step.failed = counted(report)
            kept(report, row.name)
        step.seconds = round(time.monotonic() - began)
        result.steps[name] = step
        print(f"{row.name}: {name}: {shown(step)}, {step.seconds} s", flush=True)
    return result


def shown(step: Step) -> str:
    counts = step.counts
    if not counts or not counts["passed"]:
        return step.result
    text = f"{counts['passed']} passed"
    return text + "".join(f", {counts[one]} {one}" for one in ("failed", "skipped") if counts[one])


def table(results: dict[str, Result]) -> list[str]:
    """The results as lines, a row each, columns as wide as they have to be."""
    heads = ["environment", "python", "click", "rich", "pyroute2", "libbpf", "clang"]
    rows = [[*heads, *PARTS]]
    for name, one in results.items():
        if one.not_had:
            rows.append([name, f"not to be had: {one.not_had}"])
            continue
        cells = [one.versions.get(head, "") for head in heads[1:]]
        tests = [shown(one.steps[part]) if part in one.steps else "-" for part in PARTS]
        rows.append([name, *cells, *tests])
    whole = [row for row in rows if len(row) > 2]
    widths = [max(len(row[column]) for row in whole) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]
    for name, one in results.items():
        found = failures(one)
        lines += [f"failed: {name}: {test}" for test in found[:MOST]]
        if len(found) > MOST:
            lines.append(f"failed: {name}: {len(found) - MOST} more, which its log names")
    return lines + [f"not to be had: {what}: {why}" for what, why in MISSING.items()]


def failures(result: Result) -> list[str]:
    found = []
    for name, step in result.steps.items():
        found += step.failed or ([name] if step.result == "failed" else [])
    return found


def results_so_far() -> dict[str, Any]:
    path = REPORTS / "versions.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def save(name: str, result: Result) -> None:
    """Write a result beside those of environments that did not run now, in the order of ROWS."""
    known = results_so_far() | {name: asdict(result)}
    new = {row.name: known[row.name] for row in ROWS if row.name in known}
    (REPORTS / "versions.json").write_text(json.dumps(new, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tests/versions", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--all", action="store_true", dest="everything")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--part", action="append", default=[], choices=PARTS, dest="parts")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.list:
        for row in ROWS:
            print(*(f"{value or '-':<14}" for value in asdict(row).values()))
        return
    if unknown := set(arguments.names) - {row.name for row in ROWS}:
        parser.error(f"no such environment: {', '.join(sorted(unknown))}")
    if os.geteuid():
        sys.exit("versions: this needs root")
    if not arguments.inside:  # in mounts of its own, which end with it
        os.execvp("unshare", ["unshare", "--mount", *sys.orig_argv, "--inside"])
    (REPORTS / "versions").mkdir(parents=True, exist_ok=True)
    Path(PLACE).mkdir(exist_ok=True)
    said("mount", "-t", "tmpfs", "tmpfs", PLACE)
    results = {}
    for row in ROWS:
        if not arguments.names or row.name in arguments.names:
            results[row.name] = tried(
                row,
                fresh=arguments.fresh,
                everything=arguments.everything,
                parts=arguments.parts,
            )
            save(row.name, results[row.name])
    print("\n" + "\n".join(table(results)))
    sys.exit(not all(one.good() for one in results.values()))


if __name__ == "__main__":
    main()
