"""metrics: what was sent is told, through every change of the chain, and Prometheus agrees."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import net, oracle, served
from tests.kernel.api_holder import Holder
from tests.kernel.conftest import Objects, needs, one_guest
from tests.kernel.test_holders import until
from tests.kernel.tool import ROOT, Tool
from xdpctl.traffic.monitor import Monitor

pytestmark = one_guest
_WAIT = 180.0
DASHBOARD = json.loads((ROOT / "contrib/grafana/xdpctl.json").read_text())


def samples(text: str) -> dict[str, float]:
    """The series of a text, each with its value."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return {
        series: float(value) for series, _blank, value in (one.rpartition(" ") for one in lines)
    }


def series(name: str, **labels: str) -> str:
    told = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"xdpctl_{name}{{{told}}}" if told else f"xdpctl_{name}"


def passed(tool: Tool, dev: str, program: str) -> float:
    """How many packets a program passed, as the metrics tell it."""
    labels = {"interface": dev, "program": program, "verdict": "XDP_PASS"}
    return samples(tool("metrics").out)[series("program_packets_total", **labels)]


def test_counters_go_on_when_the_chain_changes(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """A swap, a replacement, counting off and on, a rollback; and bytes add up with the packets."""
    dev = veth.dev
    tool("load", dev, objects["count"])
    tool("load", dev, objects["pass"], "-P", 60)
    tool("stats", dev, "--on")
    sent = 0

    def send(packets: int) -> None:
        nonlocal sent
        net.exchange(veth, net.udps(packets))
        sent += packets
        until(lambda: passed(tool, dev, "count") == sent)

    send(100)
    tool("swap-dispatcher", dev)
    send(10)
    tool("replace", dev, "count", objects["count"])
    send(10)
    tool("stats", dev, "--off")
    assert series("chain_end_packets_total", interface=dev) not in samples(tool("metrics").out)
    tool("stats", dev, "--on")
    send(10)
    tool("rollback", dev)
    tool("rollback", dev)
    tool("stats", dev, "--on")
    send(10)
    tool("set", dev, "count", "--name", "wall")
    tool("metrics")
    tool("set", dev, "wall", "--name", "count")
    send(10)
    told = samples(tool("metrics").out)
    size = told[series("program_bytes_total", interface=dev, program="count")]
    assert size == sent * len(net.udps(1)[0])
    assert told[series("chain_end_packets_total", interface=dev)] == sent
    # A hint that is lost takes with it what the kernel does not know, and nothing else.
    shutil.rmtree(Path(tool.bpffs).with_name("run"))
    assert passed(tool, dev, "count") == 20


def test_state(tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path) -> None:
    """What a chain lacks, waits for, and when it changed and failed."""
    dev, began = veth.dev, time.time() - 1

    def told(name: str) -> float | None:
        return samples(tool("metrics", dev).out).get(series(name, interface=dev))

    assert told("chain_generation") == 0
    assert told("last_change_timestamp_seconds") is None
    tool("load", dev, objects["count"])
    assert told("chain_generation") == 2  # the first was that nothing ran
    changed = told("last_change_timestamp_seconds")
    assert changed is not None
    assert began < changed <= time.time() + 1
    assert told("last_failure_timestamp_seconds") is None
    assert tool.try_("load", dev, objects["refuse"]).code != 0
    failed = told("last_failure_timestamp_seconds")
    assert failed is not None
    assert began < failed <= time.time() + 1
    assert told("last_change_timestamp_seconds") == changed
    tool("load", dev, objects["pass"], "--confirm-within", 60, "--json")
    assert (told("chain_generation"), told("change_unconfirmed")) == (3, 1)
    tool("confirm", dev)
    assert told("change_unconfirmed") == 0
    with Holder(objects["drop"], dev, priority=70) as holder:
        assert told("chain_programs") == 3
        os.kill(holder.pid, signal.SIGKILL)
        until(lambda: told("chain_vacant_slots") == 1)
    tool("swap-dispatcher", dev)
    assert told("chain_vacant_slots") == 0


@contextlib.contextmanager
def serving(*words: str) -> Iterator[str]:
    """xdpctl metrics --listen on a free port; gives its address. It ends by a signal, with 0."""
    pytest.importorskip("prometheus_client", reason="missing: prometheus_client")
    command = [sys.executable, "-m", "xdpctl", "metrics", "--listen", "127.0.0.1:0", *words]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with served.Program(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            found = re.search(r"http://([\d.:]+)/metrics", process.stdout.readline())
            assert found
            yield found[1]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def fetched(url: str, accept: str = "") -> str:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def test_each_scrape_tells_what_is_so(tool: Tool, veth: net.Veth, objects: Objects) -> None:
    """Though what has not changed is not read anew: a change just before a scrape is in it."""
    dev = veth.dev
    with serving() as address:

        def told() -> dict[str, float]:
            return samples(fetched(f"http://{address}/metrics"))

        def programs() -> set[str]:
            return {
                name
                for one in told()
                for name in re.findall(r'^xdpctl_program_info\{.*program="(\w+)"', one)
            }

        assert programs() == set()
        changes: list[tuple[tuple[object, ...], set[str]]] = [
            (("load", dev, objects["count"]), {"count"}),
            (("load", dev, objects["pass"], "-P", 60), {"count", "pass"}),
            (("swap-dispatcher", dev), {"count", "pass"}),
            (("set", dev, "pass", "--name", "last"), {"count", "last"}),
            (("unload", dev, "count"), {"last"}),
            (("unload", dev, "--all"), set()),
            (("load", dev, objects["count"], "--attach", "netlink"), {"count"}),
            (("load", dev, objects["drop"], "-P", 60), {"count", "drop"}),
            (("unload", dev, "--all"), set()),
        ]
        for words, wanted in changes:
            tool(*words)
            for _ in range(2):
                assert programs() == wanted, words
        # Long enough ago to be kept; then by other means, behind xdpctl's back.
        tool("load", dev, objects["count"])
        time.sleep(0.3)
        assert [programs() for _ in range(3)] == [{"count"}] * 3
        with net.Veth() as other:
            series_of = series("interface_readable", interface=other.dev)
            assert told()[series_of] == 1
            foreign = oracle.xdp_attach(oracle.xdp_load(oracle.returning(2)), other.ifindex)
            labels = f'xdpctl_root_info{{interface="{other.dev}",'
            assert any(one.startswith(labels) and 'owner="other"' in one for one in told())
            os.close(foreign)
            assert not any(one.startswith(labels) for one in told())
        assert series_of not in told()


@needs("bcc")
def test_incidents_are_those_that_monitor_counts(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """Of the monitor that has run for longest; one that was killed is no monitor."""
    tool("load", veth.dev, objects["ret"], "-n", "ret_0")
    labels = {"interface": veth.dev, "event": "exception", "reason": "XDP_ABORTED"}
    name = series("incident_packets_total", **labels)

    def told() -> dict[str, float]:
        return samples(tool("metrics").out)

    assert told()["xdpctl_monitor_running"] == 0
    with Monitor():
        net.exchange(veth, net.udps(7))
        until(lambda: told().get(name) == 7)
        with Monitor():
            net.exchange(veth, net.udps(5))
            until(lambda: told()[name] == 12)
    assert told()["xdpctl_monitor_running"] == 0
    run = Path(tool.bpffs).with_name("run")
    (run / "monitor-1").write_text(json.dumps({"map": 1 << 30}))
    assert told()["xdpctl_monitor_running"] == 0
    assert not (run / "monitor-1").exists()


def prometheus() -> Path:
    """Debian's prometheus: installed, or fetched by tests/peers."""
    done = subprocess.run([ROOT / "tests/peers", "prometheus"], capture_output=True, text=True)
    path = Path(done.stdout.strip()) if done.returncode == 0 else None
    if path is None and (found := shutil.which("prometheus")):
        path = Path(found).parent
    if path is None:
        pytest.skip("missing: prometheus (tests/peers fetch)")
    return path


def test_a_prometheus_scrapes_what_was_sent(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """It asks for the metrics, a query returns what was sent, and promtool finds nothing odd."""
    dev, programs = veth.dev, prometheus()
    tool("load", dev, objects["count"])
    tool("load", dev, objects["drop"], "-P", 60)
    tool("stats", dev, "--on")
    file = tmp_path / "xdpctl.prom"
    net.exchange(veth, net.udps(123))
    until(lambda: passed(tool, dev, "count") == 123)
    assert tool.try_("metrics", "nosuch*", "--textfile", file).code == 3
    assert not file.exists()
    tool("metrics", "--textfile", file)
    assert file.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in tmp_path.glob("*.prom*")] == ["xdpctl.prom"]
    with file.open() as text:
        checked = subprocess.run(
            [programs / "promtool", "check", "metrics"],
            stdin=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (checked.stdout + checked.stderr, checked.returncode) == ("", 0)
    assert samples(file.read_text()) == samples(tool("metrics").out)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving() as address:
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "xdp", "static_configs": [{"targets": [address]}]}],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))
        command = [
            str(programs / "prometheus"),
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        with subprocess.Popen(command) as process:
            try:

                def asked(query: str) -> dict[str, float]:
                    url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(query)}"
                    try:
                        found: dict[str, Any] = json.loads(fetched(url))
                    except urllib.error.HTTPError as error:
                        if error.code == 400:  # no query
                            raise
                        return {}
                    except (urllib.error.URLError, ConnectionError):
                        return {}
                    return {
                        one["metric"].get("program", ""): float(one["value"][1])
                        for one in found["data"]["result"]
                    }

                def answers(query: str, wanted: dict[str, float]) -> None:
                    end = time.monotonic() + _WAIT
                    while (found := asked(query)) != wanted:
                        assert time.monotonic() < end, (query, found)
                        time.sleep(0.2)

                answers("up", {"": 1})
                query = f'sum by (program) (xdpctl_program_packets_total{{interface="{dev}"}})'
                answers(query, {"count": 123, "drop": 123})
                net.exchange(veth, net.udps(77))
                answers(query, {"count": 200, "drop": 200})
                tool("replace", dev, "count", objects["count"])
                net.exchange(veth, net.udps(50))
                answers(query, {"count": 250, "drop": 250})
                answers("sum(increase(xdpctl_program_packets_total[5m])) > bool 0", {"": 1})
                answers('xdpctl_program_packets_total{verdict="XDP_DROP"} > 0', {"drop": 250})
                for panel in DASHBOARD["panels"]:
                    for target in panel["targets"]:
                        words = target["expr"].replace("$__rate_interval", "1m")
                        asked(words.replace("$interface", ".*"))  # which is an error if it is none
                assert asked("sum(resets(xdpctl_program_packets_total[5m]))") == {"": 0}
            finally:
                process.terminate()
                process.wait(30)
