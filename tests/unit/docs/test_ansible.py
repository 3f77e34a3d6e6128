"""ansible/: the collection says what chain files and the package say."""

from __future__ import annotations

import json
import re
import runpy
import sys
import tomllib
import types
from typing import Any

import pytest

import xdpctl
from tests.unit.docs.pages import read
from tests.unit.samples import ROOT
from xdpctl.programs import chainfile

EVIL = 'a"b\\c\n\t\x00\x1f\x7f\u2028é😀[[program]]'


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The globals of the module `chain`, without ansible."""
    places: dict[str, dict[str, object]] = {
        "ansible": {},
        "ansible.module_utils": {},
        "ansible.module_utils.basic": {"AnsibleModule": object},
        "ansible_collections": {},
        "ansible_collections.xdpctl": {},
        "ansible_collections.xdpctl.xdp": {},
        "ansible_collections.xdpctl.xdp.plugins": {},
        "ansible_collections.xdpctl.xdp.plugins.module_utils": {"xdpctl": object()},
    }
    for name, contents in places.items():
        stub = types.ModuleType(name)
        vars(stub).update(contents)
        monkeypatch.setitem(sys.modules, name, stub)
    return runpy.run_path(str(ROOT / "ansible/plugins/modules/chain.py"))


def test_the_collection_has_the_version() -> None:
    assert re.findall(r"^version: (.*)$", read("ansible/galaxy.yml"), re.MULTILINE) == [
        xdpctl.__version__
    ]


def test_a_program_has_the_keys_of_a_chain_file(module: dict[str, Any]) -> None:
    def keys(spec: dict[str, dict[str, Any]]) -> set[str]:
        return {name.replace("_", "-") for name in spec}

    assert keys(module["PROGRAM"]) == set(chainfile._PROGRAM)
    assert keys(module["INTERFACE"]) == set(chainfile._INTERFACE) - {"interface", "namespace"}
    for spec in (module["PROGRAM"], module["INTERFACE"]):
        for name, one in spec.items():
            assert one.get("aliases", []) == ([name.replace("_", "-")] if "_" in name else [])


def test_what_it_writes_is_a_chain_file(module: dict[str, Any]) -> None:
    spec = dict.fromkeys(module["INTERFACE"])
    program = {**dict.fromkeys(module["PROGRAM"]), "file": EVIL, "prio": 10, "bcc": False}
    tables = {"constants": {EVIL: 1, "on": True, "name": EVIL}, "actions": [], "before": [EVIL]}
    params = {**spec, "on_end": "drop", "programs": [{**program, **tables}, program]}
    read = tomllib.loads(module["written"](params))
    first = {"file": EVIL, "prio": 10, "bcc": False, **tables}
    second = {"file": EVIL, "prio": 10, "bcc": False}
    assert read == {"on-end": "drop", "program": [first, second]}
    assert tomllib.loads(module["written"]({**spec, "programs": []})) == {"program": []}


class FailedError(Exception):
    """A module that failed, with what it told."""


class Module:
    """As much of AnsibleModule as a command is run by."""

    def __init__(self, code: int, document: object, **params: object) -> None:
        self.params, self.words = {"executable": "/x/xdpctl", **params}, list[str]()
        self._done = code, json.dumps(document), "told"

    def run_command(self, words: list[str], data: str | None) -> tuple[int, str, str]:
        self.words = words
        return self._done

    def fail_json(self, **told: object) -> None:
        raise FailedError(told)


@pytest.fixture
def utils() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "ansible/plugins/module_utils/xdpctl.py"))


def test_a_name_is_no_option(utils: dict[str, Any]) -> None:
    module = Module(0, {"interface": "--all"}, netns="--dry-run")
    assert utils["run"](module, "confirm", ["--all"], ["--x"]) == (0, {"interface": "--all"})
    words = ["confirm", "--json", "--x", "--netns=--dry-run", "--", "--all"]
    assert module.words == ["/x/xdpctl", *words]


def test_what_failed_tells_what_was_changed(utils: dict[str, Any]) -> None:
    """Of several interfaces some may have been changed before another one was refused."""
    error = {"what": "it broke", "why": "so", "hint": ""}
    bad = {"interface": "eth1", "error": error}
    for flip, changed in (("link", True), ("none", False)):
        good = {"interface": "eth0", "plan": {"flip": flip}, "removed": []}
        with pytest.raises(FailedError) as caught:
            utils["run"](Module(1, {"interfaces": [good, bad]}), "apply", ["eth*", "-"])
        (told,) = caught.value.args
        assert told["changed"] == changed
        assert told["msg"] == "eth1: it broke. so"
        assert told["chains"] == [good, bad]
    with pytest.raises(FailedError) as caught:
        utils["run"](Module(1, {"error": error}), "apply", ["eth0", "-"])
    (told,) = caught.value.args
    assert (told["changed"], told["msg"], told["rc"]) == (False, "it broke. so", 1)


def test_every_parameter_of_the_role_is_described() -> None:
    described = set(
        re.findall(
            r"^      (xdpctl_\w+):$",
            read("ansible/roles/host/meta/argument_specs.yml"),
            re.MULTILINE,
        )
    )
    defaults = set(
        re.findall(r"^(xdpctl_\w+):", read("ansible/roles/host/defaults/main.yml"), re.MULTILINE)
    )
    used = set(re.findall(r"xdpctl_\w+", read("ansible/roles/host/tasks/main.yml")))
    assert described == defaults
    assert used - {"xdpctl_applied"} == described


def test_the_services_of_the_role_are_there() -> None:
    for path in ("ansible/roles/host/defaults/main.yml", "ansible/playbooks/host.yml"):
        for name in re.findall(r"[\w-]+\.service", read(path)):
            assert (ROOT / "systemd" / name).exists(), name
