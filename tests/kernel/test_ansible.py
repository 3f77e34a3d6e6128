"""ansible/: plays over five hosts: network and mount namespaces with a bpffs of their own."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import Objects, kinds, needs, one_of
from tests.kernel.tool import ROOT

# A play takes minutes in an emulated guest, and none of it depends on the kernel.
pytestmark = [
    needs("no_guest"),
    kinds("fused"),
    pytest.mark.usefixtures("kind"),
    one_of("fleet", 2),
]
PORT = 7007
"""As in tests/ansible/connection."""

_ECHO = f"""
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("", {PORT}))
    while True:
        data, sender = s.recvfrom(10)
        s.sendto(data, sender)
"""


@dataclass
class Host:
    """A host, as a process whose namespaces it is."""

    name: str
    address: str
    pid: int
    environment: dict[str, str]

    def run(self, *words: object) -> str:
        command = ["nsenter", "-t", self.pid, "-n", "-m", *words]
        return subprocess.run(
            [str(word) for word in command],
            stdout=subprocess.PIPE, text=True, check=True, env=self.environment,
        ).stdout  # fmt: skip

    def chain(self) -> tuple[int, list[int]]:
        """The ids of the root and of the programs that eth0 runs."""
        (found,) = json.loads(self.run("xdpctl", "status", "eth0", "--json"))["interfaces"]
        assert found["unconfirmed"] is None
        root = found["root"]
        return (root["id"] if root else 0), [one["id"] for one in found["programs"]]


class Fleet:
    """The hosts, and ansible to play to them."""

    def __init__(
        self, hosts: list[Host], directory: Path, ansible: Path, environment: dict[str, str]
    ) -> None:
        self.hosts, self.directory = hosts, directory
        self._ansible, self._environment = ansible, environment

    def chains(self) -> list[tuple[int, list[int]]]:
        return [host.chain() for host in self.hosts]

    def play(
        self, play: dict[str, Any], *options: str
    ) -> tuple[int, str, dict[str, dict[str, int]]]:
        """The exit code, what was printed, and the counts of each host by name."""
        path = self.directory / "play.yml"
        # JSON is YAML.
        path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, **play}]))
        done = subprocess.run(
            [self._ansible / "ansible-playbook", "-i", "hosts.json", path, *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            env=self._environment, cwd=self.directory,
        )  # fmt: skip
        recap = re.findall(r"^(h\d) +: (.*)$", done.stdout, re.MULTILINE)
        counts = {
            name: {one: int(number) for one, number in re.findall(r"(\w+)=(\d+)", rest)}
            for name, rest in recap
        }
        print(done.stdout)
        return done.returncode, done.stdout, counts


def started(number: int, environment: dict[str, str], closing: contextlib.ExitStack) -> Host:
    """A host with an interface eth0, whose other end is here, and somebody who answers."""
    setup = "mount -t bpf bpf /sys/fs/bpf && mount -t tmpfs tmpfs /run && ip link set lo up && echo"
    process = closing.enter_context(
        subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", f"{setup} && exec sleep 3600"],
            stdout=subprocess.PIPE,
        )
    )
    closing.callback(process.kill)
    assert process.stdout
    assert process.stdout.readline() == b"\n"
    host = Host(f"h{number}", f"10.99.{number}.2", process.pid, environment)
    here = f"xa{os.getpid()}h{number}"
    for words in (
        f"ip link add {here} type veth peer name eth0 netns {process.pid}",
        f"ip addr add 10.99.{number}.1/24 dev {here}",
        f"ip link set {here} up",
    ):
        subprocess.run(words.split(), check=True)
    closing.callback(subprocess.run, ["ip", "link", "del", here], check=False)
    host.run("ip", "addr", "add", f"{host.address}/24", "dev", "eth0")
    host.run("ip", "link", "set", "eth0", "up")
    echo = closing.enter_context(
        subprocess.Popen(["nsenter", "-t", str(process.pid), "-n", sys.executable, "-c", _ECHO])
    )
    closing.callback(echo.kill)
    return host


@functools.cache
def runs(ansible: Path) -> bool:
    """Whether there is an ansible, and one that this machine's Python is not too new for."""
    try:
        subprocess.run([ansible / "ansible-playbook", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


@pytest.fixture(params=["newest", "oldest"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path, clean_kernel: None) -> Iterator[Fleet]:
    ansible = ROOT / f".venv-ansible-{request.param}/bin"
    if not runs(ansible):
        pytest.skip(f"missing: ansible ({request.param}; tests/setup installs it)")
    bin_ = tmp_path / "bin"
    collections = tmp_path / "collections/ansible_collections/xdpctl"
    for path in (bin_, collections):
        path.mkdir(parents=True)
    (collections / "xdp").symlink_to(ROOT / "ansible")
    script = bin_ / "xdpctl"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m xdpctl "$@"\n')
    script.chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "XDPCTL_RUN"},
        "PATH": f"{bin_}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "LIBXDP_BPFFS": "/sys/fs/bpf",
        "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"),
        "ANSIBLE_CONNECTION_PLUGINS": str(ROOT / "tests/ansible/connection"),
        "ANSIBLE_HOME": str(tmp_path / "home"),
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
        # A command a task, where a module copied to the host beforehand takes five.
        "ANSIBLE_PIPELINING": "yes",
        "ANSIBLE_RETRY_FILES_ENABLED": "no",
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    with contextlib.ExitStack() as closing:
        hosts = [started(number, environment, closing) for number in range(1, 6)]
        variables = {
            "ansible_connection": "netns",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_remote_tmp": str(tmp_path / "remote"),
            "netns_patience": 60,
        }
        inventory = {
            one.name: {**variables, "netns_pid": one.pid, "netns_address": one.address}
            for one in hosts
        }
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": inventory}}))
        yield Fleet(hosts, tmp_path, ansible, environment)


def chain(**values: Any) -> dict[str, Any]:
    return {"name": "chain", "xdpctl.xdp.chain": {"interface": "eth0", **values}}


def programs(*paths: Path) -> list[dict[str, Any]]:
    return [{"file": str(path)} for path in paths]


GIVES_UP = ("-e", "netns_patience=1.5")
CONFIRM = [
    {
        "name": "Wait until the host can be reached",
        "ansible.builtin.wait_for_connection": {"timeout": 60, "sleep": 1},
        "listen": "confirm",
    },
    {
        "name": "Keep the chain",
        "xdpctl.xdp.chain": {"interface": "eth0", "state": "confirmed"},
        "listen": "confirm",
    },
]


def test_what_changed_is_what_the_kernel_runs(fleet: Fleet, objects: Objects) -> None:
    """Check mode tells and changes nothing; a second run changes nothing; info and absent."""
    first, last = programs(objects["count"], objects["pass"])
    last |= {"prio": 60, "name": "last", "actions": ["PASS", "DROP"]}
    play = {"tasks": [chain(on_vacant="drop", programs=[first, last])]}
    code, told, counts = fleet.play(play, "--check", "--diff")
    assert (code, [one["changed"] for one in counts.values()]) == (0, [1] * 5)
    assert '+  name: "count"' in told
    assert '+  label: "last"' in told
    assert fleet.chains() == [(0, [])] * 5
    code, _told, counts = fleet.play(play)
    assert (code, [one["changed"] for one in counts.values()]) == (0, [1] * 5)
    before = fleet.chains()
    assert [len(members) for _root, members in before] == [2] * 5
    (task,) = play["tasks"]
    code, _told, counts = fleet.play({"tasks": [task, {**task, "check_mode": True}]})
    assert (code, [one["changed"] for one in counts.values()]) == (0, [0] * 5)
    assert fleet.chains() == before
    info: dict[str, Any] = {"xdpctl.xdp.chain_info": {"interface": "eth0", "history": True}}
    checks = [
        "found.chains[0].root.on_vacant == 'drop'",
        "found.chains[0].programs | map(attribute='label') | list == [none, 'last']",
        "found.history[0].generations | length == 1",
    ]
    looks = [{**info, "register": "found"}, {"ansible.builtin.assert": {"that": checks}}]
    gone = [chain(state="absent"), {**chain(state="absent"), "register": "again"}]
    over = {"ansible.builtin.assert": {"that": ["again is not changed"]}}
    code, _told, counts = fleet.play({"tasks": [*looks, *gone, over]})
    assert (code, [one["changed"] for one in counts.values()]) == (0, [1] * 5)
    assert fleet.chains() == [(0, [])] * 5


def test_a_rolling_change_stops_at_what_is_refused(fleet: Fleet, objects: Objects) -> None:
    """Batch by batch, each confirmed; then a broken object, with every host on its old chain."""
    rolling = {"serial": 2, "max_fail_percentage": 0, "handlers": CONFIRM}
    change = chain(programs=programs(objects["count"]), confirm_within=120)
    code, told, counts = fleet.play({**rolling, "tasks": [{**change, "notify": "confirm"}]})
    assert (code, [one["changed"] for one in counts.values()]) == (0, [2] * 5)
    assert told.count("TASK [chain]") == 3
    before = fleet.chains()
    assert [len(members) for _root, members in before] == [1] * 5
    broken = chain(programs=programs(objects["count"], objects["refuse"]), confirm_within=120)
    code, told, counts = fleet.play({**rolling, "tasks": [{**broken, "notify": "confirm"}]})
    assert code == 2
    assert {name: one["failed"] for name, one in counts.items()} == {"h1": 1, "h2": 1}
    assert "the verifier refused refuse" in told
    assert fleet.chains() == before
    wrong = chain(programs=[{"file": "/nonexistent.o"}])
    code, told, _counts = fleet.play({**rolling, "tasks": [wrong]})
    assert (code, "no such file: /nonexistent.o" in told) == (2, True)
    assert fleet.chains() == before


@pytest.mark.parametrize("gives_up", [False, True])
def test_a_chain_that_cuts_a_host_off_comes_back(
    fleet: Fleet, objects: Objects, gives_up: bool
) -> None:
    """By itself, and the play says so: as a handler, or if the connection gives up, as tasks."""
    first = chain(programs=programs(objects["count"]))
    assert fleet.play({"tasks": [first]})[0] == 0
    before = [members for _root, members in fleet.chains()]
    cut = chain(programs=programs(objects["count"], objects["drop"]), confirm_within=8)
    cut = {**cut, "when": "inventory_hostname == 'h3'"}
    wait, keep = (
        {name: value for name, value in one.items() if name != "listen"} for one in CONFIRM
    )
    if gives_up:
        cut |= {"ignore_unreachable": True, "register": "cut"}
        keep["when"] = "cut is changed or cut is unreachable"
        code, told, counts = fleet.play({"tasks": [cut, wait, keep]}, *GIVES_UP)
    else:
        code, told, counts = fleet.play(
            {"tasks": [{**cut, "notify": "confirm"}], "handlers": CONFIRM}
        )
    assert code == 2
    assert ("UNREACHABLE" in told) == gives_up
    assert {name: one["failed"] for name, one in counts.items() if one["failed"]} == {"h3": 1}
    assert "no change of eth0 waits for its confirmation" in told
    assert "not confirmed in time (removed drop)" in told
    assert [members for _root, members in fleet.chains()] == before


def test_the_role_confirms_what_it_changed(fleet: Fleet, objects: Objects) -> None:
    """Without what it installs: that is for a machine of its own."""
    variables = {
        "xdpctl_package": "",
        "xdpctl_services": [],
        "xdpctl_chains": [{"interface": "eth0", "programs": programs(objects["count"])}],
    }
    play = {"roles": [{"role": "xdpctl.xdp.host", "vars": variables}]}
    code, _told, counts = fleet.play(play)
    assert (code, [one["changed"] for one in counts.values()]) == (0, [2] * 5)
    assert [len(members) for _root, members in fleet.chains()] == [1] * 5
    code, _told, counts = fleet.play(play)
    assert (code, [one["changed"] for one in counts.values()]) == (0, [0] * 5)
