"""Registries of the tests, on loopback: a small one that lies as it is told, and Debian's.

The small one answers in this process, so that a test can have it say anything, byte by byte.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import socket
import ssl
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from xdpctl.supply.manifest import CONFIG, LAYER, MANIFEST, TITLE
from xdpctl.supply.reference import digest_of

RAW = "application/vnd.oci.image.layer.v1.tar"
"""What `oras push` calls a file, which is no archive."""


@dataclass
class Says:
    """An answer: a body in pieces, each sent when the one before is gone."""

    body: bytes | Iterable[bytes] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Answers = dict[str, Says | Callable[[Mapping[str, str]], Says]]
"""By path; a callable gets the headers of the request."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20

    def do_GET(self) -> None:
        answers: Answers = self.server.answers  # type: ignore[attr-defined]
        asked: list[str] = self.server.asked  # type: ignore[attr-defined]
        asked.append(self.path)
        logins: list[str | None] = self.server.logins  # type: ignore[attr-defined]
        logins.append(self.headers.get("Authorization"))
        found = answers.get(self.path.partition("?")[0], Says(b"{}", 404))
        says = found if isinstance(found, Says) else found(dict(self.headers))
        self.send_response(says.status)
        for name, value in says.headers.items():
            self.send_header(name, value)
        with contextlib.suppress(OSError):
            if isinstance(says.body, bytes):
                if "Content-Length" not in says.headers:
                    self.send_header("Content-Length", str(len(says.body)))
                self.end_headers()
                self.wfile.write(says.body)
            else:
                self.end_headers()
                for piece in says.body:
                    self.wfile.write(piece)
                    self.wfile.flush()
                self.close_connection = True

    def do_HEAD(self) -> None:
        """Nothing is there yet."""
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Who asked has gone: it was to be so."""


class Liar:
    """A registry that says what its `answers` have.

    `asked` are the paths that it was asked for, and `logins` what each of these requests had as a
    login.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.answers: Answers = {}
        self.asked: list[str] = []
        self.logins: list[str | None] = []
        self._server.answers = self.answers  # type: ignore[attr-defined]
        self._server.asked = self.asked  # type: ignore[attr-defined]
        self._server.logins = self.logins  # type: ignore[attr-defined]
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def name(self, tag: str = "1", digest: str = "", repository: str = "x/prog") -> str:
        """What an image of it is called."""
        tag = f":{tag}" if tag else ""
        return f"oci://{self.host}/{repository}{tag}{'@' if digest else ''}{digest}"

    def blob(self, data: bytes) -> dict[str, Any]:
        """Keep some bytes; a descriptor of them, without a kind."""
        self.answers[f"/v2/x/prog/blobs/{digest_of(data)}"] = Says(data)
        return {"digest": digest_of(data), "size": len(data)}

    def manifest(self, document: object, tag: str = "1") -> str:
        """Have a tag mean a manifest, whose digest is returned."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = digest_of(data)
        says = Says(data, headers={"Docker-Content-Digest": digest})
        for wanted in (tag, digest):
            self.answers[f"/v2/x/prog/manifests/{wanted}"] = says
        return digest

    def image(
        self,
        layer: bytes,
        labels: Mapping[str, str] | None = None,
        *,
        tag: str = "1",
        layer_kind: str = LAYER,
    ) -> str:
        """Keep an image of one layer, as container tools make them; its digest."""
        config = {"architecture": "amd64", "os": "linux", "config": {"Labels": labels}}
        kept = self.blob(json.dumps(config).encode())
        return self.manifest(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": CONFIG, **kept},
                "layers": [{"mediaType": layer_kind, **self.blob(layer)}],
            },
            tag,
        )

    def artifact(self, data: bytes, title: str, *, tag: str = "1") -> str:
        """Keep a file as ORAS does; the digest of its manifest."""
        return self.manifest(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": "application/vnd.unknown.artifact.v1",
                "config": {"mediaType": "application/vnd.oci.empty.v1+json", **self.blob(b"{}")},
                "layers": [{"mediaType": RAW, **self.blob(data), "annotations": {TITLE: title}}],
            },
            tag,
        )


def archive(files: Mapping[str, bytes], *more: tarfile.TarInfo) -> bytes:
    """A layer with some files, and entries without content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            one = tarfile.TarInfo(name)
            one.size = len(data)
            tar.addfile(one, io.BytesIO(data))
        for one in more:
            tar.addfile(one)
    return gzip.compress(out.getvalue(), mtime=0)


def dripping(data: bytes, seconds: float) -> Iterator[bytes]:
    """Bytes that come one by one."""
    for one in data:
        yield bytes([one])
        time.sleep(seconds)


@contextlib.contextmanager
def debian(directory: Path) -> Iterator[str]:
    """Debian's docker-registry on loopback, which keeps its images in a directory; its host."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{found.getsockname()[1]}"
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "images")}},
        "http": {"addr": host},
    }
    (directory / "registry.yml").write_text(json.dumps(config))  # which is YAML as well
    with (
        (directory / "registry.log").open("wb") as log,
        subprocess.Popen(
            ["docker-registry", "serve", directory / "registry.yml"],
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            _wait_for(host, process)
            yield host
        finally:
            process.terminate()


def _wait_for(host: str, process: subprocess.Popen[bytes]) -> None:
    address, _, port = host.partition(":")
    for _ in range(1200):
        with contextlib.suppress(OSError), socket.create_connection((address, int(port)), 1):
            return
        assert process.poll() is None, "docker-registry ended"
        time.sleep(0.05)
    raise AssertionError("docker-registry does not listen")
