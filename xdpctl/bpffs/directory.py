"""What xdpctl keeps in bpffs. The paths are the protocol (docs/pins.md):

    <bpffs>/xdp/                                   locked (flock) while pins are made or removed
    <bpffs>/xdp/dispatch-<ifindex>-<root id>/      one a root, as libxdp has them
            prog<slot>-link, prog<slot>-prog
    <bpffs>/xdp/xdpctl-<netns>-<ifindex>/          one an interface, locked while xdpctl changes it
            root_link                              the bpf_link that attaches the root
            dispatch-<ifindex>-<root id>           a symbolic link: this directory of xdp/ is ours;
                                                   its text says how the root is attached
            borrowed-<root id>-<slot>              a symbolic link: whose program the slot runs
            label-<root id>-<slot>                 a symbolic link: what its user calls the program,
                                                   and what it has to run before and after
            rules-<root id>                        a symbolic link: verdicts where no program is
            map-<program id>-<name>                a member's program array, which the kernel
                                                   empties when no descriptor or pin is left
            callee-<program id>-<name>             a program of its object that may go into it
            counts, masks                          maps: what is counted, and of whom
            counter-<program id>-<entry|exit>      a link of what counts an EXT program's packets
            made-<root id>-<number>                a symbolic link: a pin that a load made elsewhere
            stage                                  a pin on its way to where it replaces another
            adopting                               a symbolic link: root_link is another's, and was
                                                   pinned to exchange its program
            was-<number>, was-<number>-<part>      symbolic links: a chain that ran before, and its
                                                   programs (history.py)
            kept-<number>-<program id>             a program of such a chain that is no member now
            confirm                                a symbolic link: a change goes back unless it is
                                                   confirmed
            back                                   a symbolic link: a chain that is gone back to

The symbolic link is made before the directory it names and removed after it. Whatever is named so
and is not the root that the interface runs is left over from an interrupted command.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Collection

from ..kernel import libbpf
from ..kernel.descriptor import Descriptor
from ..model.labels import Attach, is_number
from . import pin
from .lock import Lock
from .notes import Notes
from .places import Beside

_BESIDE: tuple[Beside, ...] = ("map", "callee")
CALLED = "xdpctl_called"
"""The array through which a fused root calls a member that is no function of it."""


class InterfacePins(Lock, Notes):
    """The pins of one interface."""

    # --- roots ----------------------------------------------------------------------------------

    def make_record(self, root_id: int, attach: Attach) -> None:
        """Record a root as one of xdpctl's."""
        with pin.failing("make a record in", self.bpffs.path):
            os.symlink(attach, self.record(root_id))

    def make_dispatch(self, root_id: int, attach: Attach) -> None:
        """Record a root and make its directory."""
        self.make_record(root_id, attach)
        with pin.failing("make a directory in", self.bpffs.path):
            os.mkdir(self.dispatch(root_id), 0o700)

    def programs(self, root_id: int) -> set[int]:
        """The ids of the programs that are pinned for a root."""
        found = set()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(self.dispatch(root_id)):
                path = f"{self.dispatch(root_id)}/{name}"
                pinned = pin.opened(path, Descriptor) if name.endswith("-prog") else None
                with pinned or contextlib.nullcontext():
                    if pinned and pinned.is_of("prog"):
                        found.add(libbpf.prog_info(pinned.fd).id)
        return found

    def remove_dispatch(self, root_id: int) -> None:
        """Remove a root's pins, its directory and its record; what is gone already is fine."""
        directory = self.dispatch(root_id)
        with pin.failing("remove pins from", self.bpffs.path):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                for name in os.listdir(directory):
                    pin.remove(f"{directory}/{name}")
                try:
                    os.rmdir(directory)
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:  # a directory of somebody else's in it
                        raise
            for name in self.entries():
                if re.fullmatch(rf"(borrowed|label|made)-{root_id}-\d+|rules-{root_id}", name):
                    pin.remove(f"{self.directory}/{name}")
            pin.remove(self.record(root_id))

    def remove_root_link(self) -> None:
        with pin.failing("remove a pin from", self.bpffs.path):
            pin.remove(self.root_link)

    # --- maps -----------------------------------------------------------------------------------

    def kept_maps(self) -> dict[str, int]:
        """The pins of members' program arrays and callees, each with the member's program id."""
        found = {}
        for name in self.entries():
            kind, _, rest = name.partition("-")
            number = rest.partition("-")[0]
            if kind in _BESIDE and is_number(number):
                found[f"{self.directory}/{name}"] = int(number)
        return found

    def beside(self, program_id: int) -> dict[str, tuple[Beside, str]]:
        """The same pins of one member, each with its kind and what it is called."""
        return {
            path: (kind, path.removeprefix(prefix))
            for path, number in self.kept_maps().items()
            for kind in _BESIDE
            if number == program_id
            and path.startswith(prefix := self.beside_pin(kind, program_id, ""))
        }

    def kept_programs(self) -> set[int]:
        """The ids of the programs of earlier chains that are kept in the kernel."""
        names = (re.fullmatch(r"kept-\d+-(\d+)", name) for name in self.entries())
        return {int(name[1]) for name in names if name}

    def keep_beside(self, kind: Beside, program_id: int, name: str, what: Descriptor) -> None:
        """Pin a member's program array, or a program that may go into one."""
        with pin.failing("pin a map in", self.bpffs.path):
            what.pin(self.beside_pin(kind, program_id, name))

    def remove_maps_but(self, program_ids: Collection[int]) -> None:
        """Remove arrays and callees of programs that are neither members (any longer) nor kept."""
        with pin.failing("remove a pin from", self.bpffs.path):
            wanted = self.kept_programs().union(program_ids)
            for path, program_id in self.kept_maps().items():
                if program_id not in wanted:
                    pin.remove(path)

    # --- what is counted ------------------------------------------------------------------------

    def counter(self, program_id: int, which: str) -> str:
        return f"{self.directory}/counter-{program_id}-{which}"

    def counters(self) -> dict[str, int | None]:
        """The pins of what counts, each with the program's id, or None for the maps."""
        found = {}
        for name in self.entries():
            if match := re.fullmatch(r"counts|masks|counter-(\d+)-(entry|exit)", name):
                found[f"{self.directory}/{name}"] = int(match[1]) if match[1] else None
        return found

    def remove_counters(self, counted: bool = False, program_ids: Collection[int] = ()) -> None:
        """Remove what counts, but the maps of a chain that is `counted` and these programs'."""
        with pin.failing("remove a pin from", self.bpffs.path):
            for path, program_id in self.counters().items():
                if not (counted and (program_id is None or program_id in program_ids)):
                    pin.remove(path)
