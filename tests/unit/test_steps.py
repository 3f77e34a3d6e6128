"""xdpctl.view.steps: the seven steps as swap-dispatcher shows them."""

from __future__ import annotations

import json

import pytest

from tests.unit.samples import running, state_of
from tests.unit.terminal import document
from tests.unit.test_change import CHANGE, report_of
from tests.unit.test_status import MEMBERS
from xdpctl.host.holders import Holder
from xdpctl.kernel.records import Handle
from xdpctl.view import steps
from xdpctl.view.style import Style


def test_a_swap_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    state = CHANGE[0]
    holding: dict[Handle, list[Holder]] = {
        ("link_id", 100): [Holder(42, "app", 5)],
        ("link_id", 101): [],
    }
    steps.swap(report_of(state, state.chain), holding, True, Style(json=True))
    data = document(capsys)
    assert data["command"] == "swap-dispatcher"
    assert data["holders"] == {"100": [{"pid": 42, "name": "app", "fd": 5}], "101": []}
    assert data["old_root_gone"] is True
    assert data["before"]["root"]["id"] == 500


def test_the_steps_of_others_and_who_holds_them(capsys: pytest.CaptureFixture[str]) -> None:
    state = state_of(MEMBERS)
    held: dict[Handle, list[Holder]] = {
        ("link_id", 100): [Holder(42, "app", 5)],
        ("link_id", 101): [],
        ("link_id", 103): [],
    }
    steps.first_steps(state, held)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 1   root X runs on veth7  [root=500 btf=40]"
    assert "[root_link=77] /bpffs/xdp/xdpctl-4711-7/root_link" in lines[1]
    assert lines[2].endswith(
        "held by pin /bpffs/xdp/dispatch-7-500/prog0-link, process 42 (app) fd 5"
    )
    assert lines[4] == "step 3   slot 2 of X is vacant"
    assert len(lines) == 6
    steps.first_steps(state_of([running("m", 8)], link_id=0), held)
    assert capsys.readouterr().out.splitlines()[1] == "step 1'  X is attached by netlink"
    steps.first_steps(state_of([running("m", 8)], pinned=False), {("link_id", 100): []})
    assert capsys.readouterr().out.splitlines()[2].endswith("held by nobody to be seen")


def test_the_steps_of_a_fused_root_and_who_holds_its_members(
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = state_of([running("own", 8), running("held", 9)], kind="fused", arrays={1: 70})
    held: dict[Handle, list[Holder]] = {("map_id", 70): [Holder(42, "app", 5)]}
    steps.first_steps(state, held)
    assert capsys.readouterr().out.splitlines()[2:] == [
        "step 3   own is fused into X as prog0  [program=8 root=500]  "
        "held by pin /bpffs/xdp/dispatch-7-500/prog0-prog",
        "step 3   held is fused into X as prog1  [program=9 root=500]  "
        "held by process 42 (app) fd 5",
    ]
    steps.swap(report_of(state, state.chain), held, True, Style(json=True))
    assert json.loads(capsys.readouterr().out)["holders"] == {
        "70": [{"pid": 42, "name": "app", "fd": 5}]
    }
