"""man/xdpctl-json.5: every field of every document, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click
import pytest

from tests.unit.docs.pages import one_line, page
from tests.unit.samples import INTERFACE, fresh, running, state_of
from xdpctl import errors
from xdpctl.change.batch import Batch
from xdpctl.change.confirm import Confirmed
from xdpctl.change.report import Report, Step
from xdpctl.change.settle import Rehooked
from xdpctl.change.sweep import Event
from xdpctl.cli.many import change_each
from xdpctl.cli.settings import Settings
from xdpctl.doctor.check import Check, Diagnosis
from xdpctl.doctor.features import Features
from xdpctl.host.holders import Holder
from xdpctl.host.interfaces import Interface
from xdpctl.kernel.records import Handle
from xdpctl.metrics.families import Families
from xdpctl.model.chain import XDP_PASS, Chain
from xdpctl.model.generation import Generation, WentBack
from xdpctl.model.labels import Origin
from xdpctl.model.plan import make_plan
from xdpctl.model.source import EmptyArray, SharedMap
from xdpctl.model.terms import Pending, Terms
from xdpctl.observe.reading import View
from xdpctl.roots import counting
from xdpctl.roots.count_code import Counted
from xdpctl.traffic import incidents, trace
from xdpctl.traffic.pcap import Packet
from xdpctl.trial.fates import Fate, Outcome, Trial
from xdpctl.trial.tried import Tried
from xdpctl.view import (
    change,
    doctor,
    events,
    features,
    history,
    image,
    metrics,
    packets,
    stats,
    status,
    steps,
)
from xdpctl.view.document import SCHEMA
from xdpctl.view.incidents import incident_data


def keys(value: Any) -> Iterator[str]:
    """The names of all fields in a JSON document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


def documents(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """A document of each kind, with every field there is."""

    def printed() -> dict[str, Any]:
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert document.pop("schema") == SCHEMA
        return document

    member = running("count", 9)
    state = state_of([member, None], residue=("/bpffs/xdp/dispatch-7-400",))
    assert state.root is not None
    borrowed = replace(state.root.slots[0], origin=Origin(50, 77, "agent"))
    state = replace(state, root=replace(state.root, slots=(borrowed, *state.root.slots[1:])))
    plan = make_plan(state, Chain((member, fresh())))
    ids = {"root": 1, "btf": 2, "program": 3, "link": 4, "function": 5, "root_link": 6}
    taken = [Step("4", "loaded", {**ids, "X": 7, "Y": 8}, 0.1)]
    report = Report(plan, state, plan.target.members, 600, taken, state.residue)
    report.rehooked.append(Rehooked("/bpffs/app", 101))
    report.renewed[9] = 90
    report.empty.append(EmptyArray(9, "jumps", ("dropper",)))
    report.shared.append(SharedMap(9, "packets", 70, "/packets", 12, "count", "veth8"))
    fate = Fate(XDP_PASS, None, (XDP_PASS, XDP_PASS), b"shorter", (0,))
    outcome = Outcome(Packet("packet-1", b"long enough"), fate, fate)
    report = Tried.of(report, Trial(plan.target, state.chain, (outcome,)))
    held: dict[Handle, list[Holder]] = {("link_id", 100): [Holder(77, "agent", 5)]}
    style = Settings()
    style.json = True
    steps.swap(report, held, True, style)
    document = printed()
    # Named by the id of a link.
    document["holders"] = list(document["holders"].values())
    yield document
    assert set(change.report_data("load", report)) <= set(document)

    def work(interface: Interface, _batch: Batch | None) -> Report:
        if interface != INTERFACE:
            raise errors.VanishedError("it went away")
        return report

    with pytest.raises(click.exceptions.Exit) as caught:
        change_each(
            style,
            "load",
            [INTERFACE, Interface("other", 8, "4711")],
            work,
            Batch(View({})),
        )
    assert caught.value.exit_code == errors.VanishedError.exit_code
    many = printed()
    assert set(many) == {"command", "interfaces", "dry_run"}
    assert set(many["interfaces"][1]) == {"interface", "error"}
    yield many
    event = Event("eth0", "removed something", "its interface is gone")
    events.events("clean", [event], style)
    yield printed()
    events.event_printer(style)(event)
    line = printed()
    assert set(line) == {"where", "what", "why"}
    yield line
    generation = Generation.of(1, state, plan, 600, Terms("load"))
    monkeypatch.setattr(history, "is_there", lambda _program_id: True)
    history.confirmed([(INTERFACE, Confirmed(generation))], style)
    yield printed()
    state = replace(state, pending=Pending(1, 0, 4711))
    history.history([history.Past(state, [generation], [WentBack(1, 0, "late", "", "")])], style)
    yield printed()
    shared = status.document_of([replace(state, sharing=("eth0", "eth1"))])
    yield {"schema": SCHEMA, "command": "status", **shared}
    yield {"error": errors.UsageError("what", why="why", hint="hint").as_dict()}
    yield {"command": "features", "interfaces": [features.features_data(Features(INTERFACE, 1))]}
    read = counting.Reading(1.0, 2.0, {9: Counted(640, 2, ((1, 1, 1),) * 6)})
    families = Families()
    families.build.add(["1"], 1)
    told = metrics.data(families.told())
    told[0]["samples"][0]["labels"] = []  # named by what they are of
    yield {"command": "metrics", "metrics": told}
    look = stats.data(stats.Look(state, read))
    path = (trace.Answer(member, 2),)
    packets.packet(trace.TracedPacket(10**18, b"abc", 3, 2, path, member), style)
    for document in (look["programs"][0],):
        for field in ("verdicts", "last_word"):
            # Named by verdicts.
            document[field] = list(document[field].values())
    yield {"command": "stats", "interfaces": [look]}
    program = incidents.NamedProgram(7, "xdp_dispatcher", "ext", (member,))
    for to in (incidents.INTERFACE, incidents.ENTRY, incidents.CPU):
        incident = incidents.Incident(
            "redirect",
            "why",
            1,
            2,
            0.5,
            program=program,
            map=incidents.NamedMap(5, "m"),
            to=(to, 1),
        )
        yield {"time": 1.0, **incident_data(incident)}
    yield printed()
    image.pushed("oci://r.example/a@sha256:0", "sha256:0", style)
    yield printed()
    checks = (Check("xdp", "ok", "it loads"),)
    yield {"command": "doctor", **doctor.diagnosis_data(Diagnosis(checks, "ext"))}


def test_every_field_of_the_json_documents_is_described(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(page("xdpctl-json.5").values())
    described = {
        name
        for line in re.findall(r"^\.(?:It )?Li (.*)$", text, flags=re.MULTILINE)
        for name in re.findall(r"\w+", line)
    }
    fields = {name for document in documents(capsys, monkeypatch) for name in keys(document)}
    assert fields - described == set()
    # What else stands in this way: the value null.
    assert described - fields == {"null"}


def test_the_schema_version_is_the_code_s() -> None:
    told = re.findall(
        r"number of the schema, now (\d+)", one_line(page("xdpctl-json.5")["DESCRIPTION"])
    )
    assert told == [str(SCHEMA)]


def test_no_root_is_null_and_has_no_programs() -> None:
    document = status.state_data(state_of(None))
    assert document["root"] is None
    assert document["programs"] == []
