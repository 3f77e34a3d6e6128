"""Which kernel tests show a feature: what the table of platforms in README.md is filled by.

A report (--junitxml) names with each test the features that it shows, and with all of them the
kernel, the processor and the system that they ran on. docs/platforms.py reads that.

XDPCTL_FEATURES=3 leaves only the first three tests of each feature: enough to see whether a
platform has it. A guest with network cards is no platform: what test_drivers.py sees of each card
is in a table of its own.
"""

from __future__ import annotations

import os
import platform
import re
from collections import Counter

import pytest

from tests.kernel import oracle, wires

FEATURES = {
    "EXT root": r"test_chain\.py.*\[ext",
    "fused root": r"test_chain\.py.*\[fused",
    "link": r"test_packets\.py::test_no_packet_misses_a_program_that_stays.*\blink",
    "netlink": r"test_packets\.py::test_no_packet_misses_a_program_that_stays.*\bnetlink",
    "generic mode": r"test_packets\.py::test_no_packet_misses_a_program_that_stays.*\bskb",
    "frags": "",
    "device-bound": "",
    "held programs": "",
    "counting": r"test_stats\.py",
    "monitor": r"test_monitor\.py",
    "trace": r"test_trace\.py.*\[ext",
    "trial": r"test_trial\.py",
    "going back": r"test_confirm\.py",
    "BCC sources": "",
}
"""What a test's id looks like that shows the feature; "": see NEEDED."""

NEEDED = {
    "frags": "frags",
    "device-bound": "bound",
    "held programs": "link_target",
    "BCC sources": "bcc",
}
"""The capability that a test needs (oracle.PROBES) if it shows the feature."""


def features_of(item: pytest.Item) -> list[str]:
    """The features that a test shows if it passes."""
    needed = {one for mark in item.iter_markers("needs") for one in mark.args}
    return [
        name
        for name, form in FEATURES.items()
        if (re.search(form, item.nodeid) if form else NEEDED[name] in needed)
    ]


def tell_features(items: list[pytest.Item]) -> None:
    """Have the report say of each test which features it shows."""
    for item in items:
        item.user_properties += [("feature", name) for name in features_of(item)]


def first_of_each(items: list[pytest.Item]) -> list[pytest.Item]:
    """What is left with XDPCTL_FEATURES: so many tests of each feature and kind; else all."""
    most, chosen = int(os.environ.get("XDPCTL_FEATURES") or 0), list[pytest.Item]()
    if not most:
        return items
    seen = Counter[tuple[str, object]]()
    for item in items:
        spec = getattr(item, "callspec", None)
        kind = spec.params.get("kind") if spec else None
        shown = [(name, kind) for name in features_of(item)]
        if not item.get_closest_marker("soak") and any(seen[one] < most for one in shown):
            chosen.append(item)
            seen.update(shown)
    return chosen


def this_platform() -> dict[str, str]:
    """What these tests run on."""
    release = platform.freedesktop_os_release()
    number = release.get("VERSION_ID") or release["PRETTY_NAME"].split()[-1]  # forky/sid has none
    return {
        "kernel": platform.release(),
        "where": "own" if oracle.lacks("own_machine") else "guest",
        "machine": platform.machine(),
        "system": f"{release.get('NAME', 'Linux').split()[0]} {number}".strip(),
        "cards": " ".join(wires.NAMES),
    }
