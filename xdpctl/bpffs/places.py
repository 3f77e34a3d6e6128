"""The paths of an interface's pins, and which roots are recorded (see directory.py)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Literal, Self

from ..model.labels import Attach, Home, is_number
from . import pin
from .mount import Bpffs

Beside = Literal["map", "callee"]


class Places:
    """Where the pins of one interface are; `ifindex` is that of the paths of its roots."""

    def __init__(
        self,
        bpffs: Bpffs,
        directory: str,
        ifindex: int,
        what: str,
        listing: tuple[str, ...] | None = None,
    ) -> None:
        self.bpffs = bpffs
        self._listing = listing
        self.directory = directory
        self.ifindex = ifindex
        self.what = what
        self.root_link = f"{directory}/root_link"
        self.stage = f"{directory}/stage"
        self.adopting = f"{directory}/adopting"
        self.counts = f"{directory}/counts"
        self.masks = f"{directory}/masks"

    @property
    def home(self) -> Home:
        """The same as data."""
        return Home(self.directory, self.ifindex, self.what)

    def with_ifindex(self, ifindex: int) -> Self:
        """The same directory, for roots that were recorded under another number."""
        return type(self)(self.bpffs, self.directory, ifindex, self.what, self._listing)

    def listed(self) -> Self:
        """The same, read once: what is asked of it is answered by what is there now.

        For a look, or for clean-up under the lock, which asks many things of a small directory.
        """
        there = tuple(self._entries())
        return type(self)(self.bpffs, self.directory, self.ifindex, self.what, there)

    def ifindexes(self) -> set[int]:
        """The numbers that roots are recorded under: more than one if the interface moved."""
        names = (re.fullmatch(r"dispatch-(\d+)-\d+", name) for name in self.entries())
        return {int(name[1]) for name in names if name}

    def _dispatch_name(self, root_id: int) -> str:
        return f"dispatch-{self.ifindex}-{root_id}"

    def record(self, root_id: int) -> str:
        return f"{self.directory}/{self._dispatch_name(root_id)}"

    def dispatch(self, root_id: int) -> str:
        return f"{self.bpffs.xdp}/{self._dispatch_name(root_id)}"

    def link(self, root_id: int, slot: int) -> str:
        return f"{self.dispatch(root_id)}/prog{slot}-link"

    def program(self, root_id: int, slot: int) -> str:
        return f"{self.dispatch(root_id)}/prog{slot}-prog"

    def beside_pin(self, kind: Beside, program_id: int, name: str) -> str:
        # An object may call a program by any bytes at all.
        name = re.sub(r"[^\w-]", "_", name, flags=re.ASCII)[:200]
        return f"{self.directory}/{kind}-{program_id}-{name}"

    def entries(self) -> Sequence[str]:
        """What is in the interface's directory, by name."""
        return self._entries() if self._listing is None else self._listing

    def _entries(self) -> list[str]:
        """Without directories, which nothing here makes."""
        try:
            with os.scandir(self.directory) as found:
                return sorted(one.name for one in found if not one.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def recorded(self) -> dict[int, Attach]:
        """The roots that xdpctl made pins for, the live one and any left over, by id."""
        prefix = self._dispatch_name(0).removesuffix("0")
        found: dict[int, Attach] = {}
        for name in self.entries():
            number = name.removeprefix(prefix)
            if number != name and is_number(number):
                text = pin.text(f"{self.directory}/{name}")
                if text is not None:
                    found[int(number)] = "netlink" if text == "netlink" else "link"
        return found

    def roots(self) -> dict[int, Attach]:
        """The same, under whatever number of the interface they were recorded."""
        found: dict[int, Attach] = {}
        for ifindex in self.ifindexes():
            found |= self.with_ifindex(ifindex).recorded()
        return found

    def chains(self) -> set[int]:
        """The ids of those roots that are of a chain: a bare one has no directory."""
        homes = map(self.with_ifindex, self.ifindexes())
        return {
            root_id
            for home in homes
            for root_id in home.recorded()
            if os.path.isdir(home.dispatch(root_id))
        }
