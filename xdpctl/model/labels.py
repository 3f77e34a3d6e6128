"""What is noted of programs and roots, as data: whose, called what, attached how."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ..value import Value

Attach = Literal["link", "netlink"]
"""How a root is attached: by a bpf_link, or over netlink, where others may replace it."""


TEXT = 4000
"""The most bytes of a record: a symbolic link's text, of which the kernel takes 4095."""
NUMBERS = (1 << 32) - 1
"""The largest number of a program, a map, a link or a process, and the largest priority."""


class Home(Value):
    """Where an interface has its pins: a directory, and the number that its roots are named by.

    `what` is what people call it: the interface's name, or the directory of one that is gone.
    """

    directory: str
    ifindex: int
    what: str


class Origin(Value):
    """Whose program a slot runs: the link that it was found by, and the process that held it."""

    link_id: int
    pid: int
    name: str

    @classmethod
    def parse(cls, text: str) -> Origin | None:
        link, pid, name = (*text.split(" ", 2), "", "", "")[:3]
        return cls(int(link), int(pid), name) if is_number(link) and is_number(pid) else None

    def __str__(self) -> str:
        return f"{self.link_id} {self.pid} {self.name}"

    @property
    def holder(self) -> str:
        return f"{self.pid} ({self.name})" if self.pid else "a holder that cannot be seen"


class Asked(Value):
    """What the user said of a program: its label, what it runs before and after, and its image."""

    label: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    image: str = ""

    @classmethod
    def parse(cls, text: str) -> Asked:
        label, before, after, image = (*text.split(" "), "", "", "", "")[:4]
        first, last = (tuple(filter(None, names.split(","))) for names in (before, after))
        return cls(label, first, last, image)

    def __str__(self) -> str:
        image = f" {self.image}" if self.image else ""
        return f"{self.label} {','.join(self.before)} {','.join(self.after)}{image}"


class Made(NamedTuple):
    """A map's pin that a load makes for its user; without the map's id a directory for one."""

    map_id: int | None
    path: str

    @classmethod
    def parse(cls, text: str) -> Made:
        number, _blank, path = text.partition(" ")
        return cls((int(number) or None) if is_number(number) else None, path)

    def __str__(self) -> str:
        return f"{self.map_id or 0} {self.path}"


def size(text: str) -> int:
    """How many bytes a text has as a file's name or a link's text."""
    return len(text.encode("utf-8", errors="surrogateescape"))


def is_number(text: str) -> bool:
    """Whether a text is a number of the kernel's, which has 32 bits."""
    return text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= NUMBERS


def in_range(text: str, most: int = NUMBERS) -> int:
    """A number of a record. Raises ValueError for what is none, or out of range."""
    found = int(text)
    if not 0 <= found <= most:
        raise ValueError(text)
    return found
