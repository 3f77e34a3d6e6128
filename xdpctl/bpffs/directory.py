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
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from ..errors import BpffsError
from ..host import locks
from ..kernel import libbpf
from ..kernel.descriptor import Descriptor
from ..model.chain import USUAL, Rules
from ..model.labels import Attach, Home, Label, Made, Origin, is_number
from . import pin
from .mount import Bpffs

Beside = Literal["map", "callee"]
_BESIDE: tuple[Beside, ...] = ("map", "callee")
CALLED = "xdpctl_called"
"""The array through which a fused root calls a member that is no function of it."""


class InterfacePins:
    """The pins of one interface; `ifindex` is that of the paths of its roots."""

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

    def with_ifindex(self, ifindex: int) -> InterfacePins:
        """The same directory, for roots that were recorded under another number."""
        return InterfacePins(self.bpffs, self.directory, ifindex, self.what, self._listing)

    def listed(self) -> InterfacePins:
        """The same, read once: what is asked of it is answered by what is there now.

        For a look, or for clean-up under the lock, which asks many things of a small directory.
        """
        there = tuple(self._entries())
        return InterfacePins(self.bpffs, self.directory, self.ifindex, self.what, there)

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

    # --- the lock -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the interface's lock; its directory is there meanwhile, afterwards if it is used."""
        fds: list[int] = []
        try:
            self._lock(fds)
            yield
        finally:
            self._unlock(fds)

    def _unlock(self, fds: list[int]) -> None:
        # Still locked: whoever waits finds the directory gone and makes it anew.
        with contextlib.suppress(OSError):
            fd = fds[0] if fds else os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
            fds[:] = [fd]
            if locks.is_free(fd) and _is_at(fd, self.directory):
                os.rmdir(self.directory)
        for fd in fds:
            locks.drop(fd)

    def _lock(self, fds: list[int]) -> None:
        """Take the lock; its descriptor is put into `fds`."""
        while True:
            for path in (self.bpffs.xdp, self.directory):
                with (
                    pin.failing("make a directory in", self.bpffs.path),
                    contextlib.suppress(FileExistsError),
                ):
                    os.mkdir(path, 0o700)
                self.bpffs.check_safe()
            # It may be removed between mkdir and here, by one who held the lock before.
            with contextlib.suppress(FileNotFoundError):
                fds.append(self._opened())
                locks.take(fds[0], self.what, self.bpffs.patience)
                if _is_at(fds[0], self.directory):
                    return
            while fds:
                locks.drop(fds.pop())

    def _opened(self) -> int:
        """The directory's descriptor. Raises FileNotFoundError; BpffsError if it is none."""
        try:
            return os.open(
                self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
        except NotADirectoryError as error:
            raise BpffsError(
                f"{self.directory} is no directory",
                why="something else stands where the pins of an interface are kept",
                hint="see what it is, and remove it",
            ) from error

    def is_locked(self) -> bool:
        """Whether somebody changes the interface now. Takes no lock."""
        try:
            fd = self._opened()
        except (FileNotFoundError, BpffsError):
            return False
        with libbpf.owned(fd):
            return locks.is_held(fd)

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

    def labels(self, root_id: int) -> dict[int, Label]:
        """What was said of the programs of a root, by slot."""
        return {slot: Label.parse(text) for slot, text in self._texts("label", root_id).items()}

    def label(self, root_id: int, slot: int, label: Label) -> None:
        """Note what was said of a program."""
        with pin.failing("make a record in", self.bpffs.path):
            os.symlink(str(label), f"{self.directory}/label-{root_id}-{slot}")

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

    def beside_pin(self, kind: Beside, program_id: int, name: str) -> str:
        # An object may call a program by any bytes at all.
        name = re.sub(r"[^\w-]", "_", name, flags=re.ASCII)[:200]
        return f"{self.directory}/{kind}-{program_id}-{name}"

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


def _is_at(fd: int, path: str) -> bool:
    """Whether a path still names the directory that a descriptor is of."""
    status = os.stat(path)
    mine = os.fstat(fd)
    return (mine.st_dev, mine.st_ino) == (status.st_dev, status.st_ino)
