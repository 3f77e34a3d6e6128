"""xdpctl metrics --listen: addresses, what is answered, and clients that are slow or many."""

from __future__ import annotations

import builtins
import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest

from xdpctl.cli import serving
from xdpctl.cli.run import run
from xdpctl.cli.serving import Address, serve
from xdpctl.cli.settings import Settings
from xdpctl.errors import Interrupted, UnsupportedError, UsageError, XdpctlError
from xdpctl.metrics.families import Families


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.1:9723", ("192.0.2.1", 9723)),
        (":9723", ("127.0.0.1", 9723)),
        ("9723", ("127.0.0.1", 9723)),
        ("0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("host.example:80", ("host.example", 80)),
    ],
)
def test_an_address(text: str, found: tuple[str, int]) -> None:
    assert Address().convert(text, None, None) == found


@pytest.mark.parametrize(
    "text", ["", "x", "1.2.3.4", "1.2.3.4:", "::1:80", "a:65536", "a:-1", "a:²", "9" * 5000]
)
def test_no_address(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Address().convert(text, None, None)


class Scrape:
    """Tells how often it was asked."""

    def __init__(self) -> None:
        self.asked = self.many = 0
        self.error: Exception | None = None

    def families(self) -> Families:
        self.asked += 1
        if self.error:
            raise self.error
        families = Families()
        families.build.add([str(self.asked)], 1)
        families.at_end.add(["eth0"], 5)
        for number in range(self.many):
            families.left_over.add([f"eth{number}"], 0)
        return families


class Server:
    """A server in a thread of its own, which ends as by a signal."""

    def __init__(self) -> None:
        self.scrape, self.port = Scrape(), 0

    def ask(
        self, path: str = "/metrics", method: str = "GET", accept: str = ""
    ) -> tuple[int, str, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, headers={"Accept": accept})
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Server]:
    pytest.importorskip("prometheus_client", reason="missing: prometheus_client")
    made: list[Any] = []
    begun = threading.Event()
    run_forever = serving._Server.serve_forever

    def serve_forever(self: Any, poll_interval: float = 0.05) -> None:
        made.append(self)
        begun.set()
        run_forever(self, poll_interval)
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(serving._Server, "serve_forever", serve_forever)
    found = Server()
    thread = threading.Thread(
        target=lambda: serve(found.scrape, ("127.0.0.1", 0), Settings())  # type: ignore[arg-type]
    )
    thread.start()
    assert begun.wait(20)
    found.port = made[0].server_port
    yield found
    made[0].shutdown()
    thread.join(20)
    assert not thread.is_alive()


def test_the_format_is_the_one_that_is_asked_for(server: Server) -> None:
    status, kind, text = server.ask(accept="application/openmetrics-text; version=1.0.0")
    assert (status, text.splitlines()[-1]) == (200, "# EOF")
    assert kind.startswith("application/openmetrics-text")
    status, kind, text = server.ask()
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert 'xdpctl_build_info{version="2"} 1\n' in text
    assert "# TYPE xdpctl_chain_end_packets_total counter\n" in text


def test_other_questions(server: Server) -> None:
    assert server.ask("/")[0] == 200
    assert "/metrics" in server.ask("/")[2]
    assert server.ask("/other")[0] == 404
    assert server.ask(method="POST")[0] == 405
    assert server.scrape.asked == 0
    assert server.ask(method="HEAD")[::2] == (200, "")


def test_an_error_is_told_once(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.scrape.error = XdpctlError("it broke", why="so")
    for _ in range(3):
        assert server.ask()[2].endswith("\nxdpctl_scrape_success 0\n")
    server.scrape.error = None
    assert "xdpctl_chain_end_packets_total" in server.ask()[2]
    server.scrape.error = OSError(5, "no more")
    server.ask()
    told = capsys.readouterr().err
    assert told.count("it broke") == 1
    assert told.count("no more") == 1
    assert "Traceback" not in told


@pytest.mark.long
def test_a_client_that_says_nothing_is_let_go(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And as many of them as there is room for twice do not keep others away."""
    monkeypatch.setattr(serving, "_LIFE", 0.3)
    monkeypatch.setattr(serving, "_TICK", 0.05)
    with contextlib.ExitStack() as closing:
        silent = [
            closing.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            for _ in range(2 * serving._AT_ONCE)
        ]
        silent[0].sendall(b"GET /metr")
        began = time.monotonic()
        assert server.ask()[0] == 200
        assert time.monotonic() - began < 10
        assert silent[0].recv(100) == b""
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.long
def test_a_client_that_is_slow_is_let_go(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that says a little again and again, and one that does not read what it asked for."""
    monkeypatch.setattr(serving, "_LIFE", 0.5)
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() < began + 10:
                slow.sendall(b"G")
                time.sleep(0.02)
    assert time.monotonic() < began + 5
    server.scrape.many = 200_000
    with socket.create_connection(("127.0.0.1", server.port)) as deaf:
        deaf.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        end = time.monotonic() + 10
        while threading.active_count() > 2 and time.monotonic() < end:
            time.sleep(0.02)
        assert threading.active_count() == 2  # this one, and the server's own
    server.scrape.many = 0
    assert server.ask()[0] == 200
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\r\n", b""),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\n\n", b"400"),
        (b"GET /metrics HTTP/9.9\r\n\r\n", b" 505 "),
        (b"GET " + b"/" * 70_000 + b" HTTP/1.0\r\n\r\n", b" 414 "),
        (b"GET /metrics HTTP/1.0\r\n" + b"A: b\r\n" * 200 + b"\r\n", b" 431 "),
        (b"GET /metrics HTTP/1.0\r\nContent-Length: x\r\n\r\n", b" 200 "),
        (b"GET /%2e%2e/metrics HTTP/1.0\r\n\r\n", b" 404 "),
        (b"GET /metrics\xff HTTP/1.0\r\n\r\n", b" 404 "),
        (b"GET /metrics?name=\xff HTTP/1.0\r\nAccept: \xff;q=\r\n\r\n", b" 200 "),
        (b"DELETE /metrics HTTP/1.0\r\n\r\n", b" 405 "),
    ],
)
def test_a_request_that_is_none(
    server: Server, sent: bytes, answer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(1 << 16):
                found += data
    assert answer in found
    assert server.ask()[0] == 200
    assert capsys.readouterr().err == ""


def test_an_address_that_is_taken() -> None:
    pytest.importorskip("prometheus_client", reason="missing: prometheus_client")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot listen on 127"):
            serve(Scrape(), ("127.0.0.1", taken.getsockname()[1]), Settings())  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["a" * 70, "a..b", "\udce9", "é" * 300, "198.51.100.1", "1.2.3"])
def test_an_address_that_is_none_of_this_machine(host: str) -> None:
    pytest.importorskip("prometheus_client", reason="missing: prometheus_client")
    with pytest.raises(UsageError, match="cannot listen on"):
        serve(Scrape(), (host, 9723), Settings())  # type: ignore[arg-type]


def test_without_the_library_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UnsupportedError, match="needs the library") as caught:
        serve(Scrape(), ("127.0.0.1", 0), Settings())  # type: ignore[arg-type]
    assert "xdpctl[metrics]" in caught.value.hint
    assert "--textfile" in caught.value.hint


Words = Callable[..., tuple[int, str]]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--listen", "9", "--textfile", "x"], "no other way"),
        (["--listen", "9", "--json"], "no other way"),
        (["--textfile", "x", "--json"], "no JSON document"),
        (["--listen", "nowhere"], "is no ADDR:PORT"),
    ],
)
def test_what_does_not_go_together(
    words: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["metrics", *words]) == UsageError.exit_code
    assert what in capsys.readouterr().err
    assert not os.path.exists("x")
