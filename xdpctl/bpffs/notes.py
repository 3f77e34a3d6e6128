"""What is noted in symbolic links: whose programs are, what they are called, what a load makes."""

from __future__ import annotations

import contextlib
import os
import re

from ..model.chain import USUAL, Rules
from ..model.labels import Asked, Made, Origin
from . import pin
from .places import Places


class Notes(Places):
    """The records of an interface's roots, by slot or by number."""

    # --- whose programs slots run ---------------------------------------------------------------

    def borrowed(self, root_id: int) -> dict[int, Origin]:
        """The slots of a root that run somebody else's program, each with whose."""
        texts = self._texts("borrowed", root_id).items()
        return {slot: origin for slot, text in texts if (origin := Origin.parse(text))}

    def _texts(self, kind: str, root_id: int) -> dict[int, str]:
        """What the records of a kind say of a root's slots."""
        found = {}
        for name in self.entries():
            if match := re.fullmatch(rf"{kind}-{root_id}-(\d+)", name):
                text = pin.text(f"{self.directory}/{name}")
                if text is not None:
                    found[int(match[1])] = text
        return found

    def borrow(self, root_id: int, slot: int, origin: Origin) -> None:
        """Note whose program a slot runs."""
        with pin.failing("make a record in", self.bpffs.path):
            os.symlink(str(origin), f"{self.directory}/borrowed-{root_id}-{slot}")

    def give_back(self, root_id: int, slot: int) -> None:
        """The owner holds the slot's link: our pin goes, and the record after it."""
        with pin.failing("remove a pin from", self.bpffs.path):
            pin.remove(self.link(root_id, slot))
            pin.remove(f"{self.directory}/borrowed-{root_id}-{slot}")

    # --- what their user said of them -----------------------------------------------------------

    def labels(self, root_id: int) -> dict[int, Asked]:
        """What was said of the programs of a root, by slot."""
        return {slot: Asked.parse(text) for slot, text in self._texts("label", root_id).items()}

    def label(self, root_id: int, slot: int, asked: Asked) -> None:
        """Note what was said of a program."""
        with pin.failing("make a record in", self.bpffs.path):
            os.symlink(str(asked), f"{self.directory}/label-{root_id}-{slot}")

    def rules(self, root_id: int) -> Rules:
        """A root's verdicts where no program has one."""
        with contextlib.suppress(ValueError, TypeError):
            text = pin.text(f"{self.directory}/rules-{root_id}") or ""
            return Rules(*(int(word) for word in text.split(" ")))
        return USUAL

    def rule(self, root_id: int, rules: Rules) -> None:
        """Note a root's rules."""
        with pin.failing("make a record in", self.bpffs.path):
            os.symlink(" ".join(map(str, rules)), f"{self.directory}/rules-{root_id}")

    # --- what a load makes elsewhere ------------------------------------------------------------

    def note_made(self, root_id: int, number: int, made: Made) -> None:
        """Note that a load makes a pin, or a directory for it, at a path of its user's choice."""
        with pin.failing("make a record in", self.bpffs.path):
            os.symlink(str(made), f"{self.directory}/made-{root_id}-{number}")

    def made(self) -> dict[int, list[Made]]:
        """The pins that loads made elsewhere and did not get to forget, by root id, in order."""
        found: dict[int, list[tuple[int, Made]]] = {}
        for name in self.entries():
            match = re.fullmatch(r"made-(\d+)-(\d+)", name)
            if match and (text := pin.text(f"{self.directory}/{name}")):
                found.setdefault(int(match[1]), []).append((int(match[2]), Made.parse(text)))
        return {root: [made for _number, made in sorted(notes)] for root, notes in found.items()}

    def forget_made(self, root_id: int) -> None:
        """The load is done: what it pinned is the user's."""
        with pin.failing("remove a record from", self.bpffs.path):
            for name in self.entries():
                if re.fullmatch(rf"made-{root_id}-\d+", name):
                    pin.remove(f"{self.directory}/{name}")
