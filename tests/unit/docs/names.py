"""The table of names in docs/pins.md, to compare a directory with."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.unit.docs.pages import table

# What stands for what in the table of names: <word>.
_PLACEHOLDERS = {
    "netns": r"(?:ino)?\d+",
    "name": r"\w+",
    "path": r"/.+",
    "process": r".*",
    "members": r"[^;]+(?:;[^;]+)*",
    "deadline": r"\d+",
    "bits": "[0-3]",
    "mode": "(?:native|skb|hw)",
    "attach": "(?:link|netlink)",
    "kind": "(?:ext|fused|bare)",
    "command": r"[a-z-]*",
    "user": r"(?:\d+|-)",
    "reason": r"(?:asked|late|ended)",
    "changes": r".*",
    "part": r"\d+",
    "time": r"\d+",
    "protocol": r"\d+",
    "label": r"[\w.:-]*",
    "image": r"(?: oci://\S+)?",
    **dict.fromkeys(("before", "after"), r"[\w.:,-]*"),
    **dict.fromkeys(("end", "vacant"), r"[0-4]"),
    "counted": r"[01]",
    "which": r"(?:entry|exit)",
    **dict.fromkeys(("ifindex", "root", "slot", "program", "number", "link", "pid", "map"), r"\d+"),
}
_KINDS: dict[str, Callable[[str], bool]] = {
    "symbolic link": os.path.islink,
    "directory": os.path.isdir,
    "pin": os.path.isfile,
}


def pattern(text: str) -> str:
    """A regular expression for a name such as `dispatch-<ifindex>-<root>`."""
    words = re.split(r"<(\w+)>", text)
    return "".join(
        _PLACEHOLDERS[word] if place % 2 else re.escape(word) for place, word in enumerate(words)
    )


@cache
def named() -> dict[str, tuple[str, str]]:
    """The table of names: by name the kind and a regular expression for its text."""
    return {
        row["Name"].strip("`"): (
            row["Kind"],
            "|".join(map(pattern, re.findall(r"`([^`]+)`", row["Text"]))),
        )
        for row in table("docs/pins.md", "Name")
    }


def meant(top: Path, path: Path) -> str:
    """The name in the table that is meant by what is at a path; it has the kind and text."""
    name = str(path.relative_to(top))
    (found,) = [one for one in named() if re.fullmatch(pattern(one), name)] or [""]
    assert found, f"{name} is not in the table"
    kind, text = named()[found]
    assert next(kind for kind, is_it in _KINDS.items() if is_it(str(path))) == kind, name
    if kind == "symbolic link":
        assert re.fullmatch(text, os.readlink(path)), name
    return found


def last(name: str) -> str:
    """The last part of a name's path."""
    return name.rstrip("/").rpartition("/")[2]


def pin_a_file(_fd: int, path: str) -> None:
    """In the place of BPF_OBJ_PIN, where there is no BPF file system."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
