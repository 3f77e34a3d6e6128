"""xdpctl/schema: each document keeps to its schema, which says no more and no less."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import click
import jsonschema
import pytest

from tests.schemas import DIRECTORY, SHARED, errors, fields, schemas
from tests.unit.samples import INTERFACE, ROOT, fresh, plan_of, running, state_of
from xdpctl.change.batch import Batch
from xdpctl.change.confirm import Confirmed
from xdpctl.change.report import Report, Step
from xdpctl.change.settle import Rehooked
from xdpctl.change.sweep import Event
from xdpctl.cli.group import COMMANDS, cli
from xdpctl.cli.many import change_each
from xdpctl.cli.options import ChangingCommand
from xdpctl.cli.settings import Settings
from xdpctl.doctor.check import Check, Diagnosis
from xdpctl.doctor.features import Features
from xdpctl.errors import UsageError, VanishedError, XdpctlError
from xdpctl.host.holders import Holder
from xdpctl.host.interfaces import Failure, Interface
from xdpctl.kernel.records import Handle
from xdpctl.metrics.families import Families
from xdpctl.model.chain import XDP_PASS, Chain
from xdpctl.model.generation import Generation, WentBack
from xdpctl.model.labels import Origin
from xdpctl.model.source import EmptyArray, SharedMap
from xdpctl.model.state import Off, State
from xdpctl.model.terms import Pending, Terms
from xdpctl.observe.reading import View
from xdpctl.roots.count_code import Counted
from xdpctl.roots.counting import Reading
from xdpctl.traffic import incidents, trace
from xdpctl.traffic.pcap import Packet
from xdpctl.trial.fates import Fate, Outcome, Trial
from xdpctl.trial.tried import Tried
from xdpctl.view import (
    change,
    doctor,
    document,
    events,
    features,
    history,
    image,
    metrics,
    packets,
    show,
    stats,
    status,
    steps,
)
from xdpctl.view.incidents import incident_data
from xdpctl.view.style import Style

JSON = Style(json=True)
OTHER = Interface("other", 8, "4711")
DIGEST = f"sha256:{'0' * 64}"
COUNT = running("count", 9, label="wall", before=("drop",), image=f"oci://r.example/a@{DIGEST}")
CHANGES = ("load", "unload", "replace", "set", "apply", "adopt", "rollback", "stats")
TRIABLE = ("load", "unload", "replace", "set", "apply", "adopt")


def states() -> Iterator[State]:
    """Interfaces of all kinds."""
    state = state_of([COUNT, None], residue=("/bpffs/xdp/dispatch-7-400",))
    assert state.root is not None
    borrowed = replace(state.root.slots[0], origin=Origin(50, 77, "agent"))
    root = replace(state.root, slots=(borrowed, *state.root.slots[1:]))
    yield replace(state, root=root, pending=Pending(1, 0, 4711))
    yield state_of(None)
    yield replace(state_of(None), off=Off(Chain((COUNT,)), "ext", "link"))
    yield state_of([], owner="other", link_id=0)
    yield state_of([running("solo", 500)], kind="bare", mode="hw")
    yield state_of([COUNT, None], kind="fused", why=1, arrays={0: 70}, lost={1: 12})
    yield state_of([COUNT], owner="libxdp", mode="skb", link_id=0, pinned=False)


def report(*, tried: bool = False) -> Report:
    """A change with everything that there can be, or the trial of one."""
    state = next(states())
    plan = plan_of(state, Chain((COUNT, fresh())))
    ids = {"root": 1, "btf": 2, "program": 3, "link": 4, "function": 5, "root_link": 6}
    taken = [Step("4", "loaded", {**ids, "X": 7, "Y": 8}, 0.1), Step("7", "waited", {}, 0.1)]
    made = (COUNT, running("fresh", 10))
    done = Report(plan, state, made, 600, taken, state.residue, pending=Pending(1, 0, 4711))
    done.rehooked.append(Rehooked("/bpffs/app", 101))
    done.renewed[9] = 90
    done.gone = (COUNT,)
    done.unsettled = "it is busy"
    done.empty = [EmptyArray(10, "jumps", ("dropper",))]
    done.shared = [SharedMap(10, "packets", 70, "/bpffs/packets", 12, "count", "veth8")]
    if not tried:
        return done
    fate = Fate(XDP_PASS, 0, (XDP_PASS, 31), b"shorter", (0,))
    past = Fate(XDP_PASS, None, (), b"long enough", ())
    sample = Packet("packet-1", b"long enough")
    outcomes = (Outcome(sample, fate, past), Outcome(sample, None, None, why="too short"))
    return Tried.of(Report(plan, state), Trial(plan.target, state.chain, outcomes))


Printed = Callable[[], list[dict[str, Any]]]
Documents = Iterator[tuple[str, dict[str, Any]]]


def none() -> Batch:
    """Changes of interfaces of which nothing is known."""
    return Batch(View({}))


def changes(printed: Printed) -> Documents:
    """What commands print that change chains, or try a change."""

    def work(interface: Interface, _batch: Batch | None) -> Report:
        if interface == OTHER:
            raise VanishedError("it went away")
        return report()

    settings = Settings()
    settings.json = True
    for name in CHANGES:
        change.change(name, report(), JSON)
        with pytest.raises(click.exceptions.Exit):
            change_each(settings, name, [INTERFACE, OTHER], work, none())
        yield from ((name, one) for one in printed())
    for name in TRIABLE:
        change.change(name, report(tried=True), Style(json=True, dry_run=True))
        (one,) = printed()
        yield from ((name, one), ("test", one))
    held: dict[Handle, list[Holder]] = {("link_id", 100): [Holder(77, "agent", 5)]}
    steps.swap(report(), held, True, JSON)
    steps.swap(report(), {}, None, Style(json=True, dry_run=True))
    with pytest.raises(click.exceptions.Exit):
        change_each(settings, "swap-dispatcher", [INTERFACE, OTHER], work, Batch(View({})))
    yield from (("swap-dispatcher", one) for one in printed())


def looks(printed: Printed) -> Documents:
    """What commands print that look at chains."""
    failed = Failure(OTHER, XdpctlError("it broke", why="so"))
    seen: list[State | Failure] = [*states(), failed]
    document.show(
        "status", status.document_of([*seen, replace(next(states()), sharing=("a", "b"))])
    )
    yield "status", printed()[0]
    files = [{"interface": "eth0", "file": "program = []\n"}, failed.as_dict()]
    document.show("export", {"interfaces": files})
    yield "export", printed()[0]
    counts = {9: {"XDP_PASS": 3, "other": 1}}
    for counted in (counts, {}):
        drawn = [show.data(one, counted) for one in seen]
        document.show("show", {"interfaces": drawn, "shared": status.shared_data(seen)})
        yield "show", printed()[0]
    read = Reading(1.0, 2.0, {9: Counted(640, 2, ((1, 1, 1),) * 6)})
    first = stats.Look(next(states()), read)
    stats.show([first, first._replace(before=read._replace(now=1.5))], JSON)
    yield "stats", printed()[0]
    families = Families()
    families.size.add(["eth0", "count"], 5)
    families.run_time.add(["eth0", "count"], 0.5, 2)
    document.show("metrics", {"metrics": metrics.data(families.told())})
    yield "metrics", printed()[0]
    generation = Generation.of(1, first.state, report().plan, 600, Terms("load"))
    history.confirmed([(INTERFACE, Confirmed(generation, ("/left",)))], JSON)
    yield "confirm", printed()[0]
    bare = replace(generation, command="", kind="bare", mode="hw")
    back = WentBack(1, 0, "late", "load", "removed count")
    past = history.Past(first.state, [generation, bare], [back, replace(back, command="", user=0)])
    history.history([past, history.Past(state_of(None), [])], JSON)
    yield "history", printed()[0]


def traffic(printed: Printed) -> Documents:
    """What is printed of packets."""
    for last in (COUNT, None):
        path = (trace.Answer(COUNT, 2), trace.Answer(COUNT, 200))
        packets.packet(trace.TracedPacket(10**18, b"abc", 3, 2, path, last), JSON)
        yield "trace", printed()[0]
    program = incidents.NamedProgram(7, "xdp_dispatcher", "ext", (COUNT,))
    lost = incidents.Incident("exception", "XDP_ABORTED", 1, 2, 0.5, verdict="XDP_ABORTED")
    full = lost._replace(program=program, map=incidents.NamedMap(5))
    targets = (incidents.INTERFACE, incidents.ENTRY, incidents.CPU)
    for one in (lost, *(full._replace(to=(to, 1)) for to in targets)):
        document.line({"time": 1.0, **incident_data(one)})
        yield "monitor", printed()[0]


def rest(printed: Printed) -> Documents:
    """What is printed of machines, of what was put in order, and of errors."""
    events.events("clean", [Event("eth0", "removed something", "its interface is gone")], JSON)
    yield "clean", printed()[0]
    events.event_printer(JSON)(Event("-", "closed slot 1", "it was vacant"))
    yield "watch", printed()[0]
    told = [Features(INTERFACE, 1), Features(INTERFACE, 1, 8, 1 << 9, 0)]
    document.show("features", {"interfaces": [features.features_data(one) for one in told]})
    yield "features", printed()[0]
    image.pushed(f"oci://r.example/a:1@{DIGEST}", DIGEST, JSON)
    yield "image", printed()[0]
    checks = (Check("xdp", "ok", "it loads"), Check("mtu", "warning", "x", "y", "z", "eth0", 7))
    for found in (Diagnosis(checks, "ext"), Diagnosis(checks, None)):
        document.show("doctor", doctor.diagnosis_data(found))
        yield "doctor", printed()[0]
    document.show_error(UsageError("what", why="why", hint="hint", details="details"))
    (error,) = printed()
    yield from ((name, error) for name in sorted(set(schemas()) - SHARED))


@pytest.fixture
def documents(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, dict[str, Any]]]:
    """Documents of each command, with every field and every null that there is."""
    monkeypatch.setattr(history, "is_there", lambda _program_id: True)

    def printed() -> list[dict[str, Any]]:
        text, found = capsys.readouterr().out.strip(), []
        while text:
            one, end = json.JSONDecoder().raw_decode(text)
            found.append(one)
            text = text[end:].lstrip()
        return found

    kinds = (changes, looks, traffic, rest)
    return [one for kind in kinds for one in kind(printed)]


def test_each_document_keeps_to_its_schema(documents: list[tuple[str, dict[str, Any]]]) -> None:
    assert [error for name, one in documents for error in errors(name, one)] == []
    assert {name for name, _one in documents} == set(schemas()) - SHARED


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document, but those whose fields are named by verdicts, ids or labels."""
    if isinstance(value, dict):
        if not any(re.fullmatch(r"\d+|XDP_\w+|other", key) for key in value):
            yield value
        for key, inner in value.items():
            yield from objects(inner) if key != "labels" else ()
    elif isinstance(value, list):
        for inner in value:
            yield from objects(inner)


@pytest.mark.long
def test_no_document_may_have_another_field(documents: list[tuple[str, dict[str, Any]]]) -> None:
    """Wherever it is; nor may one miss the first field of an object."""
    tried = set()
    for name, one in documents:
        for place in range(len([*objects(one)])):
            changed = copy.deepcopy(one)
            target = [*objects(changed)][place]
            if not target:
                continue  # no verdicts were counted
            shape = (name, *target)
            if shape in tried:
                continue
            tried.add(shape)
            target["nosuch"] = 1
            assert errors(name, changed), (name, target)
            del target["nosuch"], target[next(iter(target))]
            assert errors(name, changed), (name, target)
    assert len(tried) > 50


def test_each_schema_has_the_fields_that_there_are(
    documents: list[tuple[str, dict[str, Any]]],
) -> None:
    found = {key for _name, one in documents for inner in objects(one) for key in inner}
    assert {name for schema in schemas().values() for name in fields(schema)} == found


def test_the_manual_page_describes_the_same_fields() -> None:
    text = (ROOT / "man/xdpctl-json.5").read_text(encoding="utf-8")
    described = {
        name
        for line in re.findall(r"^\.(?:It )?Li (.*)$", text, flags=re.MULTILINE)
        for name in re.findall(r"\w+", line)
    }
    told = {name for schema in schemas().values() for name in fields(schema)}
    # What else stands in this way: the value null.
    assert described - told == {"null"}
    assert told - described == set()


def json_commands() -> Iterator[str]:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        if any("--json" in parameter.opts for parameter in command.params):
            yield name


def test_each_command_has_a_schema() -> None:
    assert set(json_commands()) - {"help"} == set(schemas()) - SHARED - {"error"}


def test_what_can_be_tried_has_its_place_in_the_schema_of_test() -> None:
    context = click.Context(cli)
    changing = [
        name for name in COMMANDS if isinstance(cli.get_command(context, name), ChangingCommand)
    ]
    assert sorted(changing) == sorted(schemas()["test"]["properties"]["command"]["enum"])


@pytest.mark.parametrize("name", sorted(schemas()))
def test_each_schema_is_one(name: str) -> None:
    schema = schemas()[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert (DIRECTORY / f"{name}.json").read_text() == json.dumps(schema, indent=2) + "\n"


def test_the_number_of_the_schema_is_the_code_s() -> None:
    assert schemas()["common"]["$defs"]["schema"] == {"const": document.SCHEMA}


def test_the_wheel_has_the_schemas() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "xdpctl" in wheel["include"]  # with everything in it that git does not ignore
    assert DIRECTORY.parent == ROOT / "xdpctl"
