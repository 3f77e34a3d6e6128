"""Metrics over HTTP, for Prometheus to fetch.

The library prometheus_client says in which format a client wants them. Connections are few and
short: those beyond some have to wait, and one that lasts too long is let go, whether its client
says nothing, says it slowly, or does not read the answer.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import click

from ..errors import Interrupted, UnsupportedError, UsageError, XdpctlError, explained
from ..host import output, service
from ..metrics.families import Families
from ..view import metrics, words
from ..view.style import say
from .settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from ..metrics.scrape import Scrape

PATH = "/metrics"
_LOOPBACK = "127.0.0.1"
_LIFE = 30.0
"""Seconds that a connection may last."""
_TICK = 0.5
"""Seconds between two looks at that."""
_AT_ONCE = 16
_PAGE = b"xdpctl: the metrics are at /metrics\n"


class Address(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``ADDR:PORT``, ``[ADDR]:PORT``, ``:PORT`` or ``PORT``; the last two are of this machine."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        host, _colon, port = str(value).rpartition(":")
        if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
            self.fail(f"{value!r} is no ADDR:PORT.", param, ctx)
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            self.fail(f"{value!r} is no ADDR:PORT: an IPv6 address is in brackets.", param, ctx)
        return host or _LOOPBACK, int(port)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, found: tuple[Any, ...], busy: threading.Semaphore) -> None:
        self.address_family, *_rest, address = found
        self._busy = busy
        self._open: dict[socket.socket, float] = {}
        super().__init__(address[:2], _Handler)

    def server_bind(self) -> None:
        """Without what WSGIServer does besides: it asks for the name of the address."""
        self.allow_reuse_address = True
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        host, port, *_more = self.socket.getsockname()
        self.server_address = self.server_name, self.server_port = host, port
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        while not self._busy.acquire(timeout=_TICK):
            self.service_actions()
        self._open[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._done(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._done(request)

    def _done(self, request: socket.socket) -> None:
        self._open.pop(request, None)
        self._busy.release()

    def service_actions(self) -> None:
        """Let clients go whose connection has lasted too long."""
        for request, began in list(self._open.items()):
            if time.monotonic() > began + _LIFE:
                with contextlib.suppress(OSError):  # it has just gone
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Of a client that went away, or was let go, nobody has to hear."""


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Not a line for each request."""


class _Pages:
    """The WSGI application: the metrics, gathered anew for each request, one at a time."""

    def __init__(self, scrape: Scrape, settings: Settings, choose: Callable[..., Any]) -> None:
        self._scrape, self._settings, self._choose = scrape, settings, choose
        self._lock = threading.Lock()
        self._told = ""

    def __call__(self, request: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        status, body = "200 OK", _PAGE
        if request.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", b"GET is all there is\n"
        elif request.get("PATH_INFO") == PATH:
            _encoder, content_type = self._choose(request.get("HTTP_ACCEPT", ""))
            headers = [("Content-Type", content_type)]
            with self._lock:
                families = self._families().told()
            is_open = content_type.startswith("application/openmetrics-text")
            body = metrics.text(families, openmetrics=is_open).encode()
        elif request.get("PATH_INFO") != "/":
            status, body = "404 Not Found", _PAGE
        start(status, [*headers, ("Content-Length", str(len(body)))])
        return [body] if request.get("REQUEST_METHOD") != "HEAD" else []

    def _families(self) -> Families:
        """What there is to tell; an error is told once, until it is another one or over."""
        told, families = "", Families()
        try:
            families = self._scrape.families()
        except (XdpctlError, OSError) as error:
            known = error if isinstance(error, XdpctlError) else explained(error)
            told = words.error_text(known, self._settings)
            families.success.add([], 0)
        if told and told != self._told:
            output.say(f"{self._settings.program}: {told}", err=True)
        self._told = told
        return families


def serve(scrape: Scrape, address: tuple[str, int], settings: Settings) -> None:
    """Serve the metrics until a signal ends it.

    Raises UnsupportedError without prometheus_client, UsageError for an address that is not to be
    had.
    """
    try:
        from prometheus_client.exposition import choose_encoder
    except ImportError as error:
        raise UnsupportedError(
            "--listen needs the library prometheus_client",
            why=str(error),
            hint="install xdpctl[metrics] (Debian: python3-prometheus-client), or have --textfile "
            "write for node_exporter, which needs neither",
        ) from error
    host, port = address
    try:
        found, *_others = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        server = _Server(found, threading.Semaphore(_AT_ONCE))
    except (OSError, UnicodeError) as error:  # the latter for a name that can be none
        raise UsageError(
            f"cannot listen on {host}:{port}",
            why=str(getattr(error, "strerror", None) or error),
            hint="name an address of this machine and a port that is free",
        ) from error
    with contextlib.suppress(Interrupted), server:
        server.set_app(_Pages(scrape, settings, choose_encoder))
        if not settings.quiet:
            where = f"[{host}]" if ":" in host else host
            say(f"metrics at http://{where}:{server.server_port}{PATH}", flush=True)
        sys.stdout.flush()
        service.notify("READY=1")
        server.serve_forever()
    service.notify("STOPPING=1")
