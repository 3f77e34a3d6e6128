"""docs/change.md: a change takes these steps, and these are waited for."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.docs.names import last, meant, named, pin_a_file
from tests.unit.docs.pages import headings, one_line, read, table
from tests.unit.samples import INTERFACE, fresh, running, state_of
from xdpctl.bpffs import homes
from xdpctl.bpffs.directory import InterfacePins
from xdpctl.bpffs.history import LIMIT, History
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change import batch, planning, transact, watchdog
from xdpctl.host import locks, rights
from xdpctl.kernel import libbpf, libc, records, uapi
from xdpctl.kernel.link import Link
from xdpctl.kernel.maps import Map
from xdpctl.kernel.program import Program
from xdpctl.model.chain import Kind
from xdpctl.model.request import Request
from xdpctl.model.source import Image
from xdpctl.model.terms import Terms
from xdpctl.programs import image, loading
from xdpctl.roots import dispatcher, fused
from xdpctl.roots.hook import Hook

PAGE = "docs/change.md"
ENDS = "Who ends it"


def steps() -> dict[str, int]:
    """The numbered steps of a change, by name."""
    text = headings(PAGE)["The order of a change"]
    found = re.findall(r"^(\d+)\. \*\*([\w -]+)\*\*", text, flags=re.MULTILINE)
    return {name: int(number) for number, name in found}


@pytest.mark.parametrize("kind", ["ext", "fused"])
def test_a_change_takes_its_steps_in_the_order_that_is_told(
    kind: Kind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A swap that loads a program with a program array and a map that wants a pin."""
    done: list[str] = []
    top = tmp_path / "xdp"
    wanted = tmp_path / "packets"
    ids: dict[int, int] = {}

    def did(step: str) -> None:
        done.append(step)
        for path in top.rglob("*"):
            meant(top, path)  # nothing has another name at any time

    def some(number: int = 0) -> int:
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        ids[fd] = number
        return fd

    def before(owner: object, name: str, step: str) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            did(step)
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    def instead(owner: object, name: str, call: Callable[..., Any]) -> None:
        monkeypatch.setattr(owner, name, call)

    lock = InterfacePins.locked

    @contextlib.contextmanager
    def locked(paths: InterfacePins) -> Iterator[None]:
        with lock(paths):
            did("Lock")
            yield
        did("Unlock")

    def pin(fd: int, path: str) -> None:
        pin_a_file(fd, path)
        if path.endswith("-prog"):
            did("Pin")

    bpffs = Bpffs(str(tmp_path))
    paths = homes.of(bpffs, INTERFACE)
    state = replace(state_of([running("old", 9)], kind=kind), home=paths.home)
    root = dispatcher.Dispatcher(Program(some()), 600, 1, (1, 2), ("prog0", "prog1"))
    instead(rights, "require", lambda: None)
    instead(Bpffs, "check", lambda _self: None)
    instead(InterfacePins, "locked", locked)
    instead(transact, "observe", lambda *_, **__: state)
    instead(dispatcher, "build", lambda *_: root)
    instead(
        dispatcher.Dispatcher, "hook", lambda _self, program, _slot: Link(some(ids[program.fd]))
    )
    instead(
        loading,
        "load",
        lambda *_, **__: loading.Loaded(
            Program(some(30)),
            {"a": Map(some())},
            {str(wanted): Map(some())},
            {"b": Program(some())},
        ),
    )
    instead(libbpf, "get", lambda _path: some())
    instead(libbpf, "prog_fd", some)
    info = records.ProgInfo(0, uapi.BPF_PROG_TYPE_EXT, "", "", 0, 0, 0, (), gpl=True)
    instead(libbpf, "prog_info", lambda fd: info._replace(id=ids[fd]))
    instead(image, "of", lambda _info: Image(b"", frags=False, gpl=True))
    instead(fused, "attempt", lambda *_, **__: (root.program, info._replace(id=root.id)))
    instead(libbpf, "link_info", lambda fd: records.LinkInfo(fd, 2, ids[fd], (0, 600, 1)))
    instead(libbpf, "map_info", lambda _fd: records.MapInfo(40, 3, "", 4))
    instead(libbpf, "link_update", lambda *_: None)
    instead(libc, "grace_period", lambda: None)
    instead(libbpf, "pin", pin)
    instead(batch, "links_elsewhere", lambda _bpffs: iter(()))
    for owner, name, step in (
        (transact, "observe", "Read"),
        (transact, "repair", "Repair"),
        (transact, "rehome", "Move"),
        (planning, "make_plan", "Plan"),
        (dispatcher, "build", "Load"),
        (loading, "load", "Load"),
        (fused, "attempt", "Load"),
        (dispatcher.Dispatcher, "hook", "Hook"),
        (History, "record", "Record"),
        (InterfacePins, "make_dispatch", "Record"),
        (InterfacePins, "note_made", "Pin maps"),
        (Hook, "flip", "Flip"),
        (libc, "grace_period", "Wait"),
        (batch, "links_elsewhere", "Re-hook"),
        (InterfacePins, "remove_dispatch", "Remove"),
        (InterfacePins, "forget_made", "Forget"),
    ):
        before(owner, name, step)
    report = transact.transact(
        bpffs,
        INTERFACE,
        lambda state: state.chain.with_added([fresh()]),
        Request(terms=Terms("load")),
    )
    assert (report.root_id, report.unsettled) == (600, "")
    assert wanted.exists()
    told = list(steps())
    links = {"prog<slot>-link"}
    if kind == "fused":
        told = [step for step in told if step != "Hook"]
        links = set()
    assert list(dict.fromkeys(done)) == told
    left = {meant(top, path).rpartition("/")[2] for path in top.rglob("*")}
    assert left == links | {
        "dispatch-<ifindex>-<root>",
        "prog<slot>-prog",
        "xdpctl-<netns>-<ifindex>",
        "map-<program>-<name>",
        "callee-<program>-<name>",
        "was-<number>",
        "was-<number>-<part>",
    }


def test_steps_are_numbered_one_by_one() -> None:
    assert list(steps().values()) == list(range(1, len(steps()) + 1))


def test_the_crash_table_speaks_of_steps_that_there_are() -> None:
    rows = table(PAGE, "Killed")
    numbers = {
        int(number)
        for row in rows
        for number in re.findall(r"\b(?:in|after|before|and|or|of) (\d+)\b", row["Killed"])
    }
    assert numbers <= set(steps().values())
    # Each step that leaves something, and the one that makes the change live.
    assert numbers >= {steps()[name] for name in ("Lock", "Move", "Record", "Pin", "Flip")}
    assert len({row["Killed"] for row in rows}) == len(rows)
    for row in rows:
        assert all(row.values()), row["Killed"]
        assert re.match("next|the next change|the watchdog|from the deadline|nothing", row[ENDS])


def test_the_crash_table_has_every_name_that_a_change_makes() -> None:
    """But for what lies inside of a root's directory."""
    whole = one_line("".join(" ".join(row.values()) for row in table(PAGE, "Killed")))
    inner = {"link", "prog<slot>-link", "prog<slot>-prog", "xdpctl-<netns>-<ifindex>"}
    for name in {last(name) for name in named()} - inner:
        word = re.split("<", name)[0]
        assert f"`{word}" in whole, name


def test_who_waits_does_so_as_long_as_the_code() -> None:
    told: dict[str, list[float]] = {}
    for row in table(PAGE, "Who waits"):
        seconds = re.findall(r"([\d.]+) s\b", f"{row['How long']} {row['Then']}")
        if seconds:
            told[f"{row['Who waits']}: {row['For whom']}"] = [float(one) for one in seconds]
    assert list(told.values()) == [
        [locks.DEFAULT_TIMEOUT, locks._QUIET],
        [locks.DEFAULT_TIMEOUT],
        [watchdog._PATIENCE],
        [watchdog._LOOK, watchdog._AGAIN],
    ]


def test_as_many_generations_are_kept_as_is_told() -> None:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    assert f"\n- {words[LIMIT].capitalize()} are kept.\n" in read(PAGE)
