"""docs/pins.md: the code makes these names, and no others."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.unit.docs.names import last, meant, named, pin_a_file
from tests.unit.docs.pages import page, read
from tests.unit.samples import INTERFACE, running, state_of
from xdpctl.bpffs import homes
from xdpctl.bpffs.history import History
from xdpctl.bpffs.mount import Bpffs
from xdpctl.change import settle
from xdpctl.host import interfaces
from xdpctl.host.interfaces import Interface
from xdpctl.kernel import libbpf
from xdpctl.kernel.descriptor import Descriptor
from xdpctl.model.chain import Chain, Rules
from xdpctl.model.generation import Generation
from xdpctl.model.labels import Asked, Made, Origin
from xdpctl.model.plan import make_plan
from xdpctl.model.state import State
from xdpctl.model.terms import Pending, Terms


def test_the_names_in_bpffs_are_those_of_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Made by the code, each is in the table; and each of the table's is made."""
    monkeypatch.setattr(libbpf, "pin", pin_a_file)
    bpffs = Bpffs(str(tmp_path))
    for netns in ("4711", "ino4026531840"):
        paths = homes.of(bpffs, Interface("veth7", 7, netns))
        root = 500 + len(netns)
        with paths.locked():
            paths.make_dispatch(root, "link")
            paths.make_dispatch(root + 100, "netlink")
            paths.borrow(root, 0, Origin(31, 77, "some one"))
            paths.borrow(root, 1, Origin(32, 0, ""))
            for counting_pin in (paths.counts, paths.masks, paths.counter(9, "exit")):
                pin_a_file(0, counting_pin)
            paths.label(root, 1, Asked("fw", ("a", "b")))
            paths.label(root, 2, Asked(image=f"oci://r.example/a:1@sha256:{'0' * 64}"))
            paths.rule(root, Rules(0, 1))
            paths.note_made(root, 0, Made(None, "/sys/fs/bpf/maps"))
            paths.note_made(root, 1, Made(21, "/sys/fs/bpf/maps/packets"))
            paths.keep_beside("map", 11, "callees", Descriptor(-1))
            paths.keep_beside("callee", 11, "dropper", Descriptor(-1))
            for path in (paths.link(root, 9), paths.program(root, 9), paths.root_link, paths.stage):
                libbpf.pin(-1, path)
            os.symlink("77", paths.adopting)
            chains = History(paths)
            state = state_of(
                [running("a", 9, tag=""), running("b", 10, tag="", label="fw", after=("a",))]
            )
            plan = make_plan(state, Chain())
            past = Generation.of(
                chains.next_number(), state, plan, None, Terms("unload", keeps=True)
            )
            chains.record(past)
            assert chains.recorded() == [past]
            libbpf.pin(-1, f"{paths.directory}/kept-1-9")
            chains.note(chains.confirm, Pending(1, 10**12, 4711))
            went = f"{paths.directory}/went-1"
            chains.note(went, "1 600 1700000000 - late load removed a, b: priority 1 to 2")
            chains.note(chains.back, "1 700 1700000000 1000 asked - ")
    moved = homes.of(bpffs, Interface("veth8", 8, "4711"))
    os.mkdir(moved.directory)
    assert settle.rehome(moved, State(INTERFACE, None, (), moved.home, stranded=503))
    top = tmp_path / "xdp"
    found = {meant(top, path) for path in top.rglob("*")}
    assert found == set(named())


def test_the_manual_has_the_same_names() -> None:
    described = set()
    for found in re.findall(
        r"^\.It Pa (xdp/.+)$", page("xdpctl-pins.5")["FILES"], flags=re.MULTILINE
    ):
        text = re.sub(r"\bAr \S+", "*", found)
        described.add(last(re.sub(r" (?:Ns|Pa)\b| ", "", text)))
    assert described - {"xdp"} == {last(re.sub(r"<\w+>", "*", name)) for name in named()}


@pytest.mark.parametrize("path", ["docs/pins.md", "docs/change.md", "docs/records.md"])
def test_names_that_are_cut_short_are_those_of_the_table(path: str) -> None:
    """`map-…` and the like."""
    known = [last(name) for name in named()]
    used = set(re.findall(r"`([\w-]+)…`", read(path)))
    assert [one for one in used if not any(name.startswith(one) for name in known)] == []


def test_the_number_of_the_socket_option_is_the_code_s() -> None:
    (number,) = re.findall(r"`SO_NETNS_COOKIE`, (\d+)", read("docs/pins.md"))
    assert int(number) == interfaces._SO_NETNS_COOKIE
