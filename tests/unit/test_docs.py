"""The documentation says what the code does: compared by name, in both directions."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import os
import re
import shutil
import struct
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import click
import pytest

import xdpctl
from tests.unit.samples import INTERFACE, ROOT, fresh, running, state_of
from xdpctl import errors
from xdpctl.api.attachment import Attachment, attach
from xdpctl.api.maps import Map
from xdpctl.bpffs import homes
from xdpctl.bpffs.directory import InterfacePins
from xdpctl.bpffs.history import History
from xdpctl.bpffs.mount import DEFAULT_BPFFS, Bpffs
from xdpctl.change import planning, settle, transact
from xdpctl.change.confirm import Confirmed
from xdpctl.change.report import Report, Step
from xdpctl.change.settle import Rehooked
from xdpctl.change.sweep import Event
from xdpctl.cli import COMMANDS, cli
from xdpctl.cli.common import Settings
from xdpctl.cli.many import change_each
from xdpctl.doctor.checks import Check, Diagnosis
from xdpctl.doctor.features import Features
from xdpctl.host import interfaces, locks, rights
from xdpctl.host.cache import CACHE
from xdpctl.host.holders import Holder
from xdpctl.host.interfaces import Interface
from xdpctl.kernel import libbpf, libc, records
from xdpctl.kernel.records import Handle
from xdpctl.model import record as protocol_code
from xdpctl.model.chain import VACANT, XDP_PASS, Chain, Kind, Rules
from xdpctl.model.generation import Generation
from xdpctl.model.labels import Label, Made, Origin
from xdpctl.model.plan import make_plan
from xdpctl.model.record import FUSED, FUSED_RECORD, MAX_SLOTS, PROTOCOLS
from xdpctl.model.request import Request
from xdpctl.model.state import State
from xdpctl.model.terms import Pending, Terms
from xdpctl.observe.reading import View
from xdpctl.programs import chainfile, image, loading
from xdpctl.programs.image import Image
from xdpctl.roots import counting, dispatcher, fused
from xdpctl.roots.count_code import Counted
from xdpctl.roots.hook import Hook
from xdpctl.traffic import incidents, trace
from xdpctl.traffic.pcap import Packet
from xdpctl.trial.trial import Fate, Outcome, Trial
from xdpctl.trial.tried import Tried
from xdpctl.view import (
    change,
    doctor,
    events,
    features,
    history,
    packets,
    stats,
    status,
    steps,
)
from xdpctl.view.document import SCHEMA
from xdpctl.view.incidents import incident_data

PAGE = ROOT / "man/xdpctl.8"
PACKAGE = ROOT / "xdpctl"
PROSE = ["README.md", "docs/architecture.md", "docs/protocol.md", "examples/README.md"]
WATCH, APPLY = UNITS = ("systemd/xdpctl-watch.service", "systemd/xdpctl-apply@.service")
# Read by what xdpctl stands on: clang is looked for in PATH, rich reads NO_COLOR, click the last.
FOREIGN_VARIABLES = {"PATH", "BCC_KERNEL_SOURCE", "NO_COLOR", "_XDPCTL_COMPLETE"}


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def sections(macro: str, text: str) -> dict[str, str]:
    """The text of a page's sections (Sh) or of a section's subsections (Ss), by heading."""
    parts = re.split(rf"^\.{macro} (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@cache
def page() -> dict[str, str]:
    return sections("Sh", read("man/xdpctl.8"))


def described_options(text: str) -> set[str]:
    """The options that a list of the page describes: `.It Fl m , Fl -mode Ar mode`."""
    items = re.findall(r"^\.It (Fl .*)", text, flags=re.MULTILINE)
    return {f"-{name}" for item in items for name in re.findall(r"\bFl (-?[\w-]+)", item)}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by name, the group itself as an empty one."""
    context = click.Context(cli)
    yield "", cli
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command


def options(command: click.Command) -> Iterator[click.Option]:
    context = click.Context(command, info_name="xdpctl", help_option_names=["-h", "--help"])
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option):
            yield parameter


def names(command: click.Command) -> set[str]:
    return {name for option in options(command) for name in (*option.opts, *option.secondary_opts)}


def command_pages() -> dict[str, str]:
    """The subsections that describe commands, by the command's name."""
    found = sections("Ss", page()["COMMANDS"])
    return {heading.split()[0]: text for heading, text in found.items() if heading[0].islower()}


def global_options() -> set[str]:
    return described_options(sections("Ss", page()["COMMANDS"])["Global options"])


# --- the man page -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lint",
    [["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-mdoc", "-ww", "-z"]],
    ids=lambda lint: str(lint[0]),
)
def test_the_page_is_clean(lint: list[str]) -> None:
    if shutil.which(lint[0]) is None:
        pytest.skip(f"missing: {lint[0]}")
    done = subprocess.run([*lint, PAGE], capture_output=True, text=True, check=False)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


def test_every_command_has_its_place() -> None:
    assert set(command_pages()) == set(COMMANDS)
    for name in COMMANDS:
        assert f"\n.Cm {name}\n" in page()["SYNOPSIS"], name


def test_global_options_are_those_of_the_group() -> None:
    assert global_options() == names(cli)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_described_where_its_command_is(name: str) -> None:
    command = dict(commands())[name]
    own = described_options(command_pages()[name])
    assert own == names(command) - global_options()


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_explains_every_option(name: str) -> None:
    command = dict(commands())[name]
    assert command.help
    for option in options(command):
        assert option.help, f"{name or 'xdpctl'} {option.opts[-1]} has no help"


def test_every_key_of_a_chain_file_is_described() -> None:
    described = re.findall(r"^\.It Li ([\w-]+)", command_pages()["apply"], flags=re.MULTILINE)
    assert sorted(described) == sorted([*chainfile._INTERFACE, *chainfile._PROGRAM])


def test_the_examples_of_chain_files_say_what_can_be() -> None:
    (of_readme,) = re.findall(r"```toml\n(.*?)```", read("README.md"), flags=re.DOTALL)
    of_page = page()["EXAMPLES"].split("# cat /etc/xdpctl/va.toml\n")[1].split("\n# xdpctl")[0]
    for text in (of_readme, of_page):
        document = tomllib.loads(text)
        programs = document.pop("program")
        assert len(programs) == 2
        assert chainfile._values("", document, chainfile._INTERFACE)
        assert all(chainfile._values("", one, chainfile._PROGRAM)["file"] for one in programs)


def error_classes(base: type[errors.XdpctlError] = errors.XdpctlError) -> Iterator[tuple[str, str]]:
    code = "128+n" if base is errors.Interrupted else str(base.exit_code)
    yield base.__name__, code
    for derived in base.__subclasses__():
        yield from error_classes(derived)


def test_every_error_class_has_its_exit_code() -> None:
    items = re.findall(
        r"^\.It Li ([\d+]+)(?: Ns \+ Ns Ar (n))?(?: Pq Li (\w+))?$",
        page()["EXIT STATUS"],
        flags=re.MULTILINE,
    )
    described = {name: code + (n and f"+{n}") for code, n, name in items if name}
    assert described == dict(error_classes())
    codes = [code for code, _n, _name in items]
    assert len(codes) == len(set(codes)) == page()["EXIT STATUS"].count("\n.It ")
    assert "0" in codes


def test_signals_end_a_command_with_the_documented_code() -> None:
    for number, name in re.findall(r"^(\d+):\n\.Dv SIG(\w+)", page()["EXIT STATUS"], re.MULTILINE):
        signal = {"HUP": 1, "INT": 2, "TERM": 15}[name]
        assert errors.Interrupted(signal).exit_code == int(number)


def variables(path: Path) -> Iterator[str]:
    """The environment variables that a module reads: environ.get(…), environ[…], getenv(…), in.

    By their names, or by constants of the module.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="get" | "pop", value=value), args=[key, *_]):
                pass
            case ast.Call(func=ast.Attribute(attr="getenv") as value, args=[key, *_]):
                pass
            case ast.Subscript(value=value, slice=key):
                pass
            case ast.Compare(left=key, comparators=[value]):
                pass
            case _:
                continue
        if ast.unparse(value) in ("os.environ", "environ", "os.getenv"):
            # A name that is put together cannot be looked up here, so it fails.
            named = constants.get(key.id, key) if isinstance(key, ast.Name) else key
            yield str(ast.literal_eval(named))


def test_every_environment_variable_is_described() -> None:
    read = {name for path in PACKAGE.rglob("*.py") for name in variables(path)}
    assert {"LIBXDP_BPFFS", "XDPCTL_CACHE"} <= read, "the search itself is broken"
    described = set(re.findall(r"^\.It Ev (\w+)$", page()["ENVIRONMENT"], flags=re.MULTILINE))
    assert described == read | FOREIGN_VARIABLES


def test_the_search_sees_every_way_to_read_a_variable(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(
        'E = "F"\n'
        'os.environ.get("A"), os.environ["B"], os.getenv("C", ""), "D" in os.environ, os.getenv(E)'
    )
    assert sorted(variables(path)) == ["A", "B", "C", "D", "F"]
    used = re.compile(r"\b(environ|getenv)\b")
    for module in PACKAGE.rglob("*.py"):
        assert len(used.findall(module.read_text(encoding="utf-8"))) == len(
            list(variables(module))
        ), module


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

    def work(interface: Interface, _view: View | None) -> Report:
        if interface != INTERFACE:
            raise errors.VanishedError("it went away")
        return report

    with pytest.raises(click.exceptions.Exit) as caught:
        change_each(style, "load", [INTERFACE, Interface("other", 8, "4711")], work, View({}))
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
    history.history([(state, [generation])], style)
    yield printed()
    yield {"schema": SCHEMA, "command": "status", "interfaces": [status.state_data(state)]}
    yield {"error": errors.UsageError("what", why="why", hint="hint").as_dict()}
    yield {"command": "features", "interfaces": [features.features_data(Features(INTERFACE, 1))]}
    read = counting.Reading(1.0, 2.0, {9: Counted(640, 2, ((1, 1, 1),) * 6)})
    look = stats.data(stats.Look(state, read))
    path = (trace.Step(member, 2),)
    packets.packet(trace.Packet(10**18, b"abc", 3, 2, path, member), style)
    for document in (look["programs"][0],):
        for field in ("verdicts", "last_word"):
            # Named by verdicts.
            document[field] = list(document[field].values())
    yield {"command": "stats", "interfaces": [look]}
    program = incidents.Program(7, "xdp_dispatcher", "ext", (member,))
    for to in (incidents.INTERFACE, incidents.ENTRY, incidents.CPU):
        incident = incidents.Incident(
            "redirect", "why", 1, 2, 0.5, program=program, map=incidents.Map(5, "m"), to=(to, 1)
        )
        yield {"time": 1.0, **incident_data(incident)}
    yield printed()
    checks = (Check("xdp", "ok", "it loads"),)
    yield {"command": "doctor", **doctor.diagnosis_data(Diagnosis(checks, "ext"))}


def test_every_field_of_the_json_documents_is_described(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page()["JSON OUTPUT"]
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
    assert f"is the number of the schema, now {SCHEMA}.\n" in page()["JSON OUTPUT"]


def test_no_root_is_null_and_has_no_programs() -> None:
    document = status.state_data(state_of(None))
    assert document["root"] is None
    assert document["programs"] == []


def test_the_python_api_is_described() -> None:
    text = page()["PYTHON API"].partition(".Ss ")[0]
    items = re.findall(r"^\.It Fa (.*)$", text, flags=re.MULTILINE)
    parameters = [name for item in items for name in re.findall(r"\w+", item)]
    assert parameters == list(inspect.signature(attach).parameters)
    described = re.findall(r"^\.It (?:Va|Fn) (\w+)", text, flags=re.MULTILINE)
    assert described.pop(0) == "attach"
    made = re.findall(r"self\.([a-z]\w*) =", inspect.getsource(Attachment.__init__))
    public = {name for name in vars(Attachment) if not name.startswith("_")}
    assert sorted(described) == sorted(public | set(made))


def api_items(text: str) -> list[str]:
    """The names that the lists of a part of PYTHON API describe, in order."""
    items = re.findall(r"^\.It (?:Va|Fn) (.*)$", text, flags=re.MULTILINE)
    return [name for item in items for name in re.findall(r"^\w+|(?<= , )\w+", item)]


KINDS_OF_CHAIN = set(get_args(Kind)) - {"bare"}

# What the rest of the package needs of these classes and nobody else.
INNER = {
    "State": {"home", "live", "stranded"},
    "Root": {"btf_id", "config"},
    "Slot": {"function_btf_id", "handle"},
    "Chain": {"find", "with_added", "with_changed", "with_replaced", "without"},
    "Member": {
        *("array_id", "devbound", "handed_on", "held", "instead_of", "load_time", "order"),
        *("replaces", "size", "source"),
    },
    "Rules": set[str](),
    "Plan": {"adopts", "auto", "gives_back", "protocol", "why"},
}


def test_the_data_of_the_python_api_are_described() -> None:
    text = sections("Ss", page()["PYTHON API"])["Chain, plan and status"]
    functions, *parts = re.split(r"^Of a?\n\.Vt (\w+)", text, flags=re.MULTILINE)
    assert api_items(functions) == ["look", "make_plan"]
    described = dict(zip(parts[::2], parts[1::2], strict=True))
    assert set(described) == set(INNER)
    for name, part in described.items():
        kind = getattr(xdpctl, name)
        fields = getattr(kind, "_fields", None) or kind.__dataclass_fields__
        found = {one for one in (*fields, *vars(kind)) if not one.startswith("_")}
        assert found - INNER[name] == set(api_items(part)), name
        assert INNER[name] <= found
    methods = set(re.findall(r"^\.Fn (\w+)", described["Chain"], flags=re.MULTILINE))
    assert methods == INNER["Chain"] - {"with_replaced"}
    asked = set(inspect.signature(xdpctl.make_plan).parameters) - {"state", "target"}
    assert set(re.findall(r"^\.Fa (\w+)", functions, flags=re.MULTILINE)) == asked


def test_maps_of_the_python_api_are_described() -> None:
    text = sections("Ss", page()["PYTHON API"])["Maps"]
    public = {name for name in vars(Map) if not name.startswith("_")}
    assert sorted(api_items(text)) == sorted(public)


def test_all_that_the_package_offers_is_described() -> None:
    text = page()["PYTHON API"]
    named = set(re.findall(r"^\.(?:Vt|It Fn) (\w+)", text, flags=re.MULTILINE))
    assert set(xdpctl.__all__) <= named


def test_defaults_are_the_code_s() -> None:
    every = page()["COMMANDS"]
    found = {option.name: option.default for _, one in commands() for option in options(one)}
    for option, default in (
        ("lock-timeout", locks.DEFAULT_TIMEOUT),
        ("interval", found["interval"]),
    ):
        item = every.split(f".It Fl -{option} ")[1].split(".It ")[0]
        assert f"\nDefault: {default:g}.\n" in item, option
    item = page()["PYTHON API"].split(".It Fa lock_timeout\n")[1]
    assert re.search(rf"by default {locks.DEFAULT_TIMEOUT:g}\n", item)


# --- docs/protocol.md ---------------------------------------------------------------------------

# What stands for what in the table of names: <word>.
_PLACEHOLDERS = {
    "netns": r"(?:ino)?\d+",
    "name": r"\w+",
    "path": r"/.+",
    "process": r".*",
    "members": r"[^;]+(?:;[^;]+)*",
    "deadline": r"\d+",
    "keeps": "[01]",
    "mode": "(?:native|skb|hw)",
    "attach": "(?:link|netlink)",
    "kind": "(?:ext|fused|bare)",
    "command": r"[a-z-]*",
    "part": r"\d+",
    "time": r"\d+",
    "protocol": r"\d+",
    "label": r"[\w.:-]*",
    **dict.fromkeys(("before", "after"), r"[\w.:,-]*"),
    **dict.fromkeys(("end", "vacant"), r"[0-4]"),
    "counted": r"[01]",
    "which": r"(?:entry|exit)",
    **dict.fromkeys(("ifindex", "root", "slot", "program", "number", "link", "pid", "map"), r"\d+"),
}
_KINDS: dict[str, Callable[[str], bool]] = {
    "symbolic link": os.path.islink,
    "directory": os.path.isdir,
    "pin": os.path.isfile,
}


@cache
def protocol() -> dict[str, str]:
    """The sections of docs/protocol.md, by heading."""
    parts = re.split(r"^## (.*)\n", read("docs/protocol.md"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def pattern(text: str) -> str:
    """A regular expression for a name such as `dispatch-<ifindex>-<root>`."""
    words = re.split(r"<(\w+)>", text)
    return "".join(
        _PLACEHOLDERS[word] if place % 2 else re.escape(word) for place, word in enumerate(words)
    )


def named() -> dict[str, tuple[str, str]]:
    """The table of names: by name the kind and a regular expression for its text."""
    found = {}
    table = protocol()["What is pinned where"]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|([^|]*)\|", table, flags=re.MULTILINE)
    for name, kind, texts in rows:
        found[name] = (kind, "|".join(map(pattern, re.findall(r"`([^`]+)`", texts))))
    return found


def meant(top: Path, path: Path) -> str:
    """The name in the table that is meant by what is at a path; it has the kind and text."""
    name = str(path.relative_to(top))
    (found,) = [one for one in named() if re.fullmatch(pattern(one), name)] or [""]
    assert found, f"{name} is not in the table"
    kind, text = named()[found]
    assert next(kind for kind, is_it in _KINDS.items() if is_it(str(path))) == kind, name
    if kind == "symbolic link":
        assert re.fullmatch(text, os.readlink(path)), name
    return found


def pin_a_file(_fd: int, path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))


def test_the_names_in_bpffs_are_those_of_the_protocol(
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
            paths.label(root, 1, Label("fw", ("a", "b")))
            paths.rule(root, Rules(0, 1))
            paths.note_made(root, 0, Made(0, "/sys/fs/bpf/maps"))
            paths.note_made(root, 1, Made(21, "/sys/fs/bpf/maps/packets"))
            paths.keep_map(11, "callees", -1)
            for path in (paths.link(root, 9), paths.program(root, 9), paths.root_link, paths.stage):
                libbpf.pin(-1, path)
            os.symlink("77", paths.adopting)
            chains = History(paths)
            state = state_of(
                [running("a", 9, tag=""), running("b", 10, tag="", label="fw", after=("a",))]
            )
            plan = make_plan(state, Chain())
            past = Generation.of(chains.next_number(), state, plan, 0, Terms("unload", keeps=True))
            chains.record(past)
            assert chains.recorded() == [past]
            libbpf.pin(-1, f"{paths.directory}/kept-1-9")
            chains.note(chains.confirm, Pending(1, 10**12, 4711))
            chains.note(chains.back, "1 700")
    moved = homes.of(bpffs, Interface("veth8", 8, "4711"))
    os.mkdir(moved.directory)
    assert settle.rehome(moved, State(INTERFACE, None, (), moved.home, stranded=503))
    top = tmp_path / "xdp"
    found = {meant(top, path) for path in top.rglob("*")}
    assert found == set(named())


def test_the_manual_has_the_same_names() -> None:
    def last(name: str) -> str:
        return name.rstrip("/").rpartition("/")[2]

    described = set()
    for item in re.findall(r"^\.It Pa (xdp/.+)$", page()["FILES"], flags=re.MULTILINE):
        text = re.sub(r"\bAr \S+", "*", item)
        described.add(last(re.sub(r" (?:Ns|Pa)\b| ", "", text)))
    assert described - {"xdp"} == {last(re.sub(r"<\w+>", "*", name)) for name in named()}


@pytest.mark.parametrize("kind", ["ext", "fused"])
def test_a_change_takes_its_steps_in_the_order_of_the_protocol(
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
    root = dispatcher.Root(some(), 600, 1, (1, 2), ("prog0", "prog1"))
    instead(rights, "require", lambda: None)
    instead(Bpffs, "check", lambda _self: None)
    instead(InterfacePins, "locked", locked)
    instead(transact, "observe", lambda *_, **__: state)
    instead(dispatcher, "build", lambda *_: root)
    instead(dispatcher.Root, "hook", lambda _self, program, _slot: some(ids[program]))
    instead(
        loading,
        "load",
        lambda *_, **__: loading.Loaded(some(30), {"a": some()}, {str(wanted): some()}),
    )
    instead(libbpf, "get", lambda _path: some())
    instead(libbpf, "prog_fd", some)
    info = records.ProgInfo(0, libbpf.BPF_PROG_TYPE_EXT, "", "", 0, 0, 0, (), gpl=True)
    instead(libbpf, "prog_info", lambda fd: info._replace(id=ids[fd]))
    instead(Image, "of", lambda _fd: Image(b"", frags=False, gpl=True))
    instead(fused, "build", lambda *_: (root.fd, info._replace(id=root.id)))
    instead(libbpf, "link_info", lambda fd: records.LinkInfo(fd, 2, ids[fd], (0, 600, 1)))
    instead(libbpf, "map_info", lambda _fd: records.MapInfo(40, 3, "", 4))
    instead(libbpf, "link_update", lambda *_: None)
    instead(libc, "grace_period", lambda: None)
    instead(libbpf, "pin", pin)
    instead(settle, "links_elsewhere", lambda _bpffs: iter(()))
    for owner, name, step in (
        (transact, "observe", "Read"),
        (transact, "repair", "Repair"),
        (transact, "rehome", "Move"),
        (planning, "make_plan", "Plan"),
        (dispatcher, "build", "Load"),
        (loading, "load", "Load"),
        (fused, "build", "Load"),
        (dispatcher.Root, "hook", "Hook"),
        (History, "record", "Record"),
        (InterfacePins, "make_dispatch", "Record"),
        (InterfacePins, "note_made", "Pin maps"),
        (Hook, "flip", "Flip"),
        (libc, "grace_period", "Wait"),
        (settle, "links_elsewhere", "Re-hook"),
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
    told = re.findall(r"^\d+\. \*\*([\w -]+)\*\*", protocol()["The order of a change"], re.M)
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
        "was-<number>",
        "was-<number>-<part>",
    }


def layouts(section: str) -> list[list[tuple[int, int]]]:
    """The tables of offsets and sizes that a section of the protocol has, in its order."""
    tables = re.findall(r"^\| Offset .*\n(?:\|.*\n)+", protocol()[section], re.MULTILINE)
    rows = [re.findall(r"^\| (\d+) \| (\d+) \|", one, flags=re.MULTILINE) for one in tables]
    return [[(int(offset), int(size)) for offset, size in table] for table in rows]


def fields(record: struct.Struct) -> list[tuple[int, int]]:
    """The offset and size of each field of a structure."""
    found, offset = [], 0
    for text in re.findall(
        r"\d*s|[A-Z]", re.sub(r"(\d+)I", lambda m: "I" * int(m[1]), record.format)
    ):
        size = struct.calcsize(f"={text}")
        found.append((offset, size))
        offset += size
    assert offset == record.size
    return found


WIDE_SECTION = "A dispatcher of more than ten slots"


def test_the_layouts_of_records_are_the_code_s() -> None:
    own, fused_slot, wide_slot = (
        fields(one)
        for one in (protocol_code._OWN, protocol_code._FUSED_SLOT, protocol_code._WIDE_SLOT)
    )
    assert layouts("A fused root") == [own, fused_slot, fields(image._HEAD)]
    assert layouts(WIDE_SECTION) == [own, wide_slot]


def test_the_names_and_sizes_of_a_wide_dispatcher() -> None:
    text = re.sub(r"\s+", " ", protocol()[WIDE_SECTION])
    head, slot = protocol_code._OWN, protocol_code._WIDE_SLOT
    for said in (
        f"`{protocol_code.WIDE}`",
        f"up to {MAX_SLOTS}, has another name",
        f"`prog{MAX_SLOTS - 1}`",
        f"{head.size} bytes, then {slot.size} for each slot",
        f"| 4 | `{protocol_code._WIDE_MAGIC.decode()}` |",
        f"| version, {protocol_code._OWN_VERSION} |",
        f"`BPF_F_XDP_HAS_FRAGS` ({libbpf.BPF_F_XDP_HAS_FRAGS})",
        f"`BPF_F_XDP_DEV_BOUND_ONLY` ({libbpf.BPF_F_XDP_DEV_BOUND_ONLY})",
    ):
        assert said in text, said
    assert protocol_code.WIDE in page()["KINDS OF ROOT"]
    assert f"#define xdp_dispatcher {protocol_code.WIDE}\n" in read("bpf/dispatcher.c")


def test_the_names_and_sizes_of_a_fused_root() -> None:
    text = re.sub(r"\s+", " ", protocol()["A fused root"])
    head, slot, held = protocol_code._OWN, protocol_code._FUSED_SLOT, image._HEAD
    for said in (
        f"with the name `{FUSED}`",
        f"map `{FUSED_RECORD}`",
        f"map `{image.NAME}`",
        f"{head.size} bytes, then {slot.size} for each slot",
        f"{held.size} bytes, then the code",
        f"`BPF_F_XDP_HAS_FRAGS` ({libbpf.BPF_F_XDP_HAS_FRAGS})",
        f"answers {VACANT}",
        "`xdpctl_held`",
    ):
        assert said in text, said
    for magic, version in (
        (protocol_code._FUSED_MAGIC, protocol_code._OWN_VERSION),
        (image._MAGIC, image._VERSION),
    ):
        assert f"| 4 | `{magic.decode()}` |" in text
        assert f"| version, {version} |" in text
    assert '"xdpctl_held"' in read("xdpctl/roots/fused.py")


def test_the_limits_of_both_kinds_are_the_code_s() -> None:
    text = re.sub(r"\n", " ", page()["KINDS OF ROOT"])
    for kind in KINDS_OF_CHAIN:
        item = text.split(f".It Cm {kind} ")[1].split(".It ")[0]
        assert f"At most {MAX_SLOTS} programs." in item
    few = protocol_code.LIBXDP_SLOTS
    assert f"With up to {few} it is one of libxdp's protocol." in text
    semantics = re.sub(r"\n", " ", page()["CHAIN SEMANTICS"])
    assert f"at most {MAX_SLOTS} programs. If it has more than {few}," in semantics
    # A refusal's hint is the short form of the page's list.
    said = [
        node.value
        for node in ast.walk(ast.parse(inspect.getsource(fused._explain)))
        if isinstance(node, ast.Constant) and "verifier steps" in str(node.value)
    ]
    assert len(said) == 1
    for limit in ("512 bytes of stack", "one million verifier steps", "64 maps", "8 levels"):
        assert limit in str(said)
        assert limit in text.lower()


def test_kinds_of_root_are_named_where_they_are_chosen() -> None:
    kinds = KINDS_OF_CHAIN | {"auto"}
    listed = " | ".join(("ext", "fused", "auto"))
    for name in ("load", "swap-dispatcher"):
        (option,) = [one for one in options(dict(commands())[name]) if one.name == "root"]
        assert isinstance(option.type, click.Choice)
        assert set(option.type.choices) == kinds
        assert f".It Fl -root Cm {listed}\n" in command_pages()[name]
    item = page()["ENVIRONMENT"].split(".It Ev XDPCTL_ROOT\n")[1].split(".It ")[0]
    assert set(re.findall(r"^\.Cm (\w+)", item, flags=re.MULTILINE)) == kinds


def test_protocols_are_named_where_they_are_chosen() -> None:
    listed = " | ".join(map(str, PROTOCOLS))
    for name in ("load", "adopt", "swap-dispatcher"):
        (option,) = [one for one in options(dict(commands())[name]) if one.name == "protocol"]
        assert isinstance(option.type, click.IntRange)
        assert (option.type.min, option.type.max) == (PROTOCOLS[0], PROTOCOLS[-1])
        assert f".It Fl -protocol Cm {listed}\n" in command_pages()[name]
    assert f"for a first dispatcher {protocol_code.PROTOCOL}, which" in command_pages()["load"]


def test_the_records_of_libxdps_protocols_are_as_long_as_described() -> None:
    text = protocol()["Other implementations"]
    rows = re.findall(r"^\| (\d) \| [^|]+ \| (\d+) \|", text, flags=re.MULTILINE)
    packed = {one: protocol_code.Config.of([fresh()], one).pack() for one in PROTOCOLS}
    assert {int(one): int(size) for one, size in rows} == {
        one: len(record) for one, record in packed.items()
    }
    assert f"A new root has protocol {protocol_code.PROTOCOL} unless" in text
    assert f"{protocol_code.MAGIC} at 0; 2 at 1" in text
    assert f"(`BPF_F_XDP_DEV_BOUND_ONLY`, {libbpf.BPF_F_XDP_DEV_BOUND_ONLY})" in text


def test_numbers_of_the_protocol() -> None:
    text = re.sub(r"\s+", " ", read("docs/protocol.md"))
    timeout = errors.LockTimeoutError
    for said in (
        f"(`SO_NETNS_COOKIE`, {interfaces._SO_NETNS_COOKIE})",
        f"After {locks.DEFAULT_TIMEOUT:g} seconds (`--lock-timeout`)",
        f"exit code {timeout.exit_code} ({timeout.__name__})",
        f"refuses (exit code {errors.BpffsError.exit_code})",
    ):
        assert said in text, said


# --- the services -------------------------------------------------------------------------------


@cache
def unit(path: str) -> dict[str, list[str]]:
    """The settings of a unit file; those that may be repeated add up."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", read(path), flags=re.MULTILINE):
        found.setdefault(name, []).extend(value.split())
    return found


@pytest.mark.parametrize("path", UNITS)
def test_a_service_is_as_systemd_wants_it(path: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("missing: systemd-analyze")
    name = Path(path).name.replace("@.", "@eth0.")
    # The program need not be installed where the tests run.
    (tmp_path / name).write_text(re.sub(r"=/\S*/xdpctl ", "=/bin/true ", read(path)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("path", UNITS)
def test_a_service_runs_a_command_that_exists(path: str) -> None:
    starts = [value for name in ("ExecStart", "ExecReload") for value in unit(path).get(name, [])]
    program, verb, *words = unit(path)["ExecStart"]
    assert starts == [program, verb, *words] * (1 if path == WATCH else 2)
    assert f" {program}\n" in read("README.md")
    assert f"install -m 0644 {path} /etc/systemd/system/\n" in read("README.md")
    assert program.endswith("/xdpctl")
    command = dict(commands())[verb]
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert given <= names(command)
    arguments = [one for one in command.params if isinstance(one, click.Argument) and one.required]
    assert len([word for word in words if not word.startswith("-")]) == len(arguments)


def test_the_watch_says_when_it_is_ready() -> None:
    assert unit(WATCH)["Type"] == ["notify"]
    assert "sd_notify" in read("xdpctl/change/watch.py")


def test_a_chain_comes_with_its_interface_and_before_the_network() -> None:
    settings = unit(APPLY)
    device = "sys-subsystem-net-devices-%i.device"
    assert (settings["Type"], settings["RemainAfterExit"]) == (["oneshot"], ["yes"])
    assert settings["BindsTo"] == [device]
    assert device in settings["After"]
    assert device in settings["WantedBy"]
    assert "network-pre.target" in settings["Before"]
    assert settings["Wants"] == ["network-pre.target"]
    # Without it the unit waits for basic.target, and some of that for the network.
    assert settings["DefaultDependencies"] == ["no"]
    assert "ExecStop" not in settings
    # Not %i: a dash in a name is escaped there.
    interface, path = settings["ExecStart"][-2:]
    assert (interface, path) == ("%I", "/etc/xdpctl/%I.toml")
    directory = path.rpartition("/")[0]
    assert f".It Pa {directory}/ Ns Ar interface Ns Pa .toml\n" in page()["FILES"]
    assert f"{directory}/eth0.toml" in read("README.md")
    (seconds,) = settings["TimeoutStartSec"]
    assert int(seconds) > locks.DEFAULT_TIMEOUT


@pytest.mark.parametrize("path", UNITS)
def test_a_service_may_do_what_it_has_to(path: str) -> None:
    settings = unit(path)
    assert set(rights.NEEDED) <= set(settings["CapabilityBoundingSet"])
    families = {
        one for path in PACKAGE.rglob("*.py") for one in re.findall(r"\bAF_\w+", path.read_text())
    }
    assert families == set(settings["RestrictAddressFamilies"])
    assert settings["RestrictNamespaces"] == ["net"]
    assert settings["RequiresMountsFor"] == [DEFAULT_BPFFS]
    (cache_name,) = settings["CacheDirectory"]
    assert f"/var/cache/{cache_name}" == CACHE
    # Each of them would hide what it has to see, or /sys/fs/bpf from its hands.
    blind = {"PrivateNetwork", "PrivateUsers", "PrivatePIDs", "ProtectProc", "ProcSubset"}
    assert not settings.keys() & {*blind, "ProtectKernelTunables", "MemoryDenyWriteExecute"}


def test_the_services_are_shut_in_alike() -> None:
    """What a command may do does not depend on who starts it."""
    watching, applying = (
        {
            name: value
            for name, value in unit(path).items()
            if re.match("Capab|Limit|Lock|NoNew|Private|Protect|Restrict[A-Z]|System|UMask", name)
        }
        for path in UNITS
    )
    assert watching == applying


# --- prose --------------------------------------------------------------------------------------


def test_readme_names_the_two_targets_and_they_exist() -> None:
    text, makefile = read("README.md"), read("Makefile")
    for target in ("demo", "test"):
        assert f"make {target}\n" in text
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    for target in re.findall(r"\bmake ([a-z-]+)\b", text):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_readme_never_recommends_the_wrong_bcc() -> None:
    assert not re.search(r"pip3? install[^\n]*\bbcc\b", read("README.md"))


def test_the_example_of_the_readme_calls_what_there_is() -> None:
    example, data = re.findall(r"```python\n(.*?)```", read("README.md"), flags=re.DOTALL)
    assert set(re.findall(r"xdpctl\.(\w+)", data)) <= set(xdpctl.__all__)
    tree = ast.parse(example)
    (call,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "xdpctl.attach"
    ]
    inspect.signature(attach).bind(*call.args, **{str(one.arg): one for one in call.keywords})
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "attachment"
    }
    assert used <= {*vars(Attachment), "program_id"}


@pytest.mark.parametrize("path", [*PROSE, "man/xdpctl.8", *UNITS])
def test_no_path_of_one_machine_stands_in_the_documentation(path: str) -> None:
    assert not re.search(r"(?<![\w.])/(?:work|home|root|tmp)/", read(path))


@pytest.mark.parametrize("path", PROSE)
def test_links_lead_to_files(path: str) -> None:
    here = (ROOT / path).parent
    for target in re.findall(r"\]\(([^)#:]+)\)", read(path)):
        assert (here / target).exists(), target


def test_every_module_stands_in_the_architecture() -> None:
    text = read("docs/architecture.md")
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    assert {name for name in modules if f"`{name}`" not in text} == set()
    named = {name for name in re.findall(r"`([\w/]+\.py)`", text) if not name.startswith("tests/")}
    assert named <= modules


def test_the_licence_is_the_one_that_is_declared() -> None:
    assert 'license = "GPL-2.0-only"' in read("pyproject.toml")
    text = read("LICENSE")
    assert "GNU GENERAL PUBLIC LICENSE" in text
    assert "Version 2, June 1991" in text
