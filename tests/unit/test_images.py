"""Programs from a registry: what is fetched, and what is refused, by a registry that lies."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import platform
import resource
import shutil
import socket
import ssl
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.registry import Liar, Says, archive, dripping
from tests.unit.samples import built
from xdpctl.errors import (
    BadObjectError,
    NotFoundError,
    RegistryError,
    UnsupportedError,
    UsageError,
    XdpctlError,
)
from xdpctl.host import cache
from xdpctl.programs import objects
from xdpctl.supply import client, credentials, images, layer, manifest
from xdpctl.supply.reference import Reference, digest_of

ELF = b"\x7fELF" + bytes(100)
NOBODY = "sha256:" + "0" * 64

LOADED = client.Registry
"""What is loaded here, each process that fetches has at once."""


def fetch(name: str) -> images.Fetched:
    return images.fetch(Reference.parse(name))


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("oci://r.example/a", ("r.example", "a", "latest", "")),
        ("oci://r.example:5000/a/b-c__d:1.2_x", ("r.example:5000", "a/b-c__d", "1.2_x", "")),
        (f"oci://[::1]:5/a@{NOBODY}", ("[::1]:5", "a", "", NOBODY)),
        (f"oci://localhost/a:v@{NOBODY}", ("localhost", "a", "v", NOBODY)),
        ("oci://R.Example:443/a:1", ("r.example", "a", "1", "")),
        ("oci://localhost:443/a:1", ("localhost:443", "a", "1", "")),
        ("oci://docker.io/a:1", ("docker.io", "library/a", "1", "")),
        ("oci://index.docker.io/a/b:1", ("docker.io", "a/b", "1", "")),
    ],
)
def test_names(text: str, parts: tuple[str, ...]) -> None:
    found = Reference.parse(text)
    assert (found.host, found.repository, found.tag, found.digest) == parts
    assert Reference.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "oci://",
        "oci://host",
        "oci://host/",
        "oci://host/Upper",
        "oci://user:pw@host/a",
        "oci://host/a?x=1",
        "oci://host/../a",
        "oci://host/a:b:c",
        "oci://host/a@sha256:00",
        "oci://host/a@md5:00",
        "oci://host/a b",
        "oci://host/a\n",
        "oci://hö/a",
        "oci://host./a",
        "oci://host/" + "a" * 2000,
        "oci://host/" + "a-" * 400 + "!",
    ],
)
def test_no_names(text: str) -> None:
    with pytest.raises(UsageError, match="is no image"):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("127.9.9.9:1", True),
        ("[::1]:5", True),
        ("localhost.example", False),
        ("10.0.0.1", False),
        ("127.0.0.1.example", False),
        ("0x7f000001", False),
    ],
)
def test_what_is_on_this_machine(host: str, local: bool) -> None:
    """Nothing else is spoken to without TLS."""
    assert Reference(host, "a").is_local is local


# --- what is fetched ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["prog.o", "./prog.o", "/prog.o", "../../prog.o"])
def test_an_image_as_container_tools_make_it(liar: Liar, path: str) -> None:
    digest = liar.image(archive({path: ELF}), {"io.ebpf.filename": "prog.o"})
    found = fetch(liar.name())
    assert (str(found.image), found.data) == (f"{liar.name()}@{digest}", ELF)
    assert found.name == "prog.o"


def test_an_artifact_of_oras(liar: Liar) -> None:
    digest = liar.artifact(ELF, "dir/prog.o")
    found = fetch(liar.name())
    assert (found.image.digest, found.data, found.name) == (digest, ELF, "prog.o")


def test_the_image_for_this_machine(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    entries = []
    for arch in ("amd64", "arm64", "s390x"):
        data = ELF + arch.encode()
        digest = liar.image(archive({"prog.o": data}), tag=arch)
        size = len(liar.answers[f"/v2/x/prog/manifests/{digest}"].body)  # type: ignore[union-attr, arg-type]
        entry = {"mediaType": manifest.MANIFEST, "digest": digest, "size": size}
        entries.append({**entry, "platform": {"os": "linux", "architecture": arch}})
    index = {"schemaVersion": 2, "mediaType": manifest.INDEX, "manifests": entries}
    digest = liar.manifest(index)
    found = fetch(liar.name())
    assert found.data == ELF + b"arm64"
    assert found.image.digest == digest, "what a signature is of"
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(BadObjectError, match="no object for this machine") as caught:
        fetch(liar.name())
    assert "amd64, arm64, s390x" in caught.value.why


def test_one_that_is_named_by_its_digest_needs_the_registry_once(liar: Liar) -> None:
    digest = liar.image(archive({"prog.o": ELF}))
    name = liar.name("", digest)
    assert fetch(name).data == ELF
    liar.answers.clear()
    asked = len(liar.asked)
    assert fetch(name).data == ELF
    assert len(liar.asked) == asked
    with pytest.raises(NotFoundError, match="no image"):
        fetch(liar.name())  # what a tag means is always asked


def test_what_the_cache_has_is_looked_at(liar: Liar) -> None:
    data = archive({"prog.o": ELF})
    liar.image(data)
    cache.kept("image", digest_of(data).encode(), lambda: b"something else")
    assert fetch(liar.name()).data == ELF


def test_nothing_of_an_archive_is_written(liar: Liar, tmp_path: Path) -> None:
    link = tarfile.TarInfo("way")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    liar.image(archive({"../../../evil.o": ELF}, link))
    before = sorted(tmp_path.rglob("*"))
    assert fetch(liar.name()).name == "evil.o"
    new = set(tmp_path.rglob("*")) - set(before)
    assert all(one.is_relative_to(tmp_path / "cache") for one in new)


# --- what is refused ----------------------------------------------------------------------------


def refused(name: str, kind: type[XdpctlError], *words: str) -> None:
    """In plain words, within a few seconds."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        fetch(name)
    assert type(caught.value) is kind
    said = f"{caught.value.what} {caught.value.why} {caught.value.hint}"
    for word in words:
        assert word in said
    assert "object at 0x" not in said
    assert time.monotonic() - began < 50


def test_a_registry_that_is_away(liar: Liar) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{one.getsockname()[1]}"
        refused(f"oci://{host}/x/prog:1", RegistryError, "cannot be reached", "refused")


def test_a_registry_that_nobody_knows(liar: Liar) -> None:
    refused("oci://nowhere.invalid/x/prog:1", RegistryError, "cannot be reached")


@pytest.fixture
def hasty(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> Liar:
    """With a limit that a registry does not keep."""
    monkeypatch.setenv("XDPCTL_REGISTRY_TIMEOUT", "1.5")
    return liar


@pytest.mark.long
def test_a_registry_that_says_nothing(hasty: Liar) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        refused(f"oci://127.0.0.1:{port}/x/prog:1", RegistryError, "in time", "REGISTRY_TIMEOUT")


@pytest.mark.long
def test_a_registry_that_is_slow(hasty: Liar) -> None:
    """Each piece comes in time, and never the last."""
    hasty.answers["/v2/x/prog/manifests/1"] = Says(dripping(b"{" + b" " * 900, 0.05))
    refused(hasty.name(), RegistryError, "in time")


def test_a_registry_that_breaks_off(liar: Liar) -> None:
    liar.image(archive({"prog.o": ELF}))
    for path, says in liar.answers.items():
        assert isinstance(says, Says)
        if "/blobs/" in path:
            length = {"Content-Length": str(len(bytes(says.body)))}  # type: ignore[arg-type]
            liar.answers[path] = Says(iter([bytes(says.body)[:20]]), headers=length)  # type: ignore[arg-type]
    refused(liar.name(), RegistryError)


@pytest.mark.parametrize("status", [400, 418, 429, 500, 503])
def test_answers_that_are_none(liar: Liar, status: int) -> None:
    liar.answers["/v2/x/prog/manifests/1"] = Says(b"{}", status)
    refused(liar.name(), RegistryError, "does not give", str(status))


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries on this machine count as others."""
    monkeypatch.setattr(Reference, "is_local", property(lambda _reference: False))


@pytest.mark.usefixtures("remote")
def test_a_registry_elsewhere_without_tls(liar: Liar) -> None:
    liar.image(archive({"prog.o": ELF}))
    refused(liar.name(), RegistryError, "does not speak TLS")
    assert liar.asked == []


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """What registries here need for TLS, and the file with their certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("missing: openssl")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *words]
    subprocess.run([*made, "-keyout", key, "-out", cert], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, str(cert)


@pytest.mark.usefixtures("liar", "remote")
def test_a_registry_with_a_certificate_that_nobody_knows(
    tls: tuple[ssl.SSLContext, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not asked; with the certificate of its authority it is."""
    context, cert = tls
    other = Liar(context)
    try:
        other.image(archive({"prog.o": ELF}))
        refused(other.name(), RegistryError, "cannot be trusted", "self-signed", "ca.crt")
        assert other.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", cert)
        assert fetch(other.name()).data == ELF
    finally:
        other.close()


def test_an_image_that_is_not_there(liar: Liar) -> None:
    refused(liar.name(), NotFoundError, "no image", liar.name())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no json",
        b"[]",
        b"[" * 100_000,
        b'{"layers": 5, "config": {}}',
        b'{"config": null, "layers": [{}]}',
        b'{"layers": [{"digest": "sha256:xx", "size": 1}]}',
        b'{"layers": [{"digest": "sha512:' + b"0" * 128 + b'", "size": 1}]}',
        f'{{"layers": [{{"digest": "{NOBODY}", "size": -1}}]}}'.encode(),
        f'{{"layers": [{{"digest": "{NOBODY}", "size": true}}]}}'.encode(),
        f'{{"layers": [{{"digest": "{NOBODY}"}}]}}'.encode(),
        b'{"manifests": 5}',
        b'{"manifests": [5]}',
        b'{"manifests": [], "layers": []}',
    ],
)
def test_manifests_that_are_none(liar: Liar, data: bytes) -> None:
    liar.manifest(data)
    refused(liar.name(), RegistryError, "cannot be used")


def test_a_list_that_leads_to_a_list(liar: Liar) -> None:
    digest = liar.manifest({"manifests": []}, "inner")
    liar.manifest({"manifests": [{"digest": digest, "size": 17}]})
    refused(liar.name(), RegistryError, "another list")


def test_other_bytes_than_the_digest_that_was_asked_for(liar: Liar) -> None:
    digest = liar.image(archive({"prog.o": ELF}))
    liar.answers[f"/v2/x/prog/manifests/{NOBODY}"] = liar.answers["/v2/x/prog/manifests/1"]
    refused(liar.name("1", NOBODY), RegistryError, "asked for", digest)


def test_a_manifest_that_is_called_by_another_digest(liar: Liar) -> None:
    liar.image(archive({"prog.o": ELF}))
    says = liar.answers["/v2/x/prog/manifests/1"]
    assert isinstance(says, Says)
    says.headers = {"Docker-Content-Digest": NOBODY}
    refused(liar.name(), RegistryError, NOBODY)


@pytest.mark.parametrize("kind", ["layer", "config"])
def test_a_part_with_another_digest_or_size(liar: Liar, kind: str) -> None:
    good = archive({"prog.o": ELF})
    liar.image(good)
    for path in [path for path in liar.answers if "/blobs/" in path]:
        if path.endswith(digest_of(good)) == (kind == "layer"):
            body = liar.answers[path].body  # type: ignore[union-attr]
            liar.answers[path] = Says(bytes(len(body)))  # type: ignore[arg-type]
            refused(liar.name(), RegistryError, "asked for")
            liar.answers[path] = Says(bytes(body) + b"more")  # type: ignore[arg-type]
            refused(liar.name(), RegistryError, "announces")
            liar.answers[path] = Says(iter([bytes(body), b"more"]))  # type: ignore[arg-type]
            refused(liar.name(), RegistryError, "more comes")
            liar.answers[path] = Says(bytes(body)[:-1])  # type: ignore[arg-type]
            refused(liar.name(), RegistryError, "bytes, and has")
            return
    raise AssertionError(kind)


def endless() -> Iterator[bytes]:
    while True:
        yield bytes(1 << 20)


def test_a_manifest_without_end(liar: Liar) -> None:
    liar.answers["/v2/x/prog/manifests/1"] = Says(endless())
    refused(liar.name(), RegistryError, "more comes than")


def test_a_part_that_is_too_large(liar: Liar) -> None:
    large = {"digest": NOBODY, "size": layer.OBJECT + 1}
    liar.manifest({"config": liar.blob(b"{}"), "layers": [large]})
    refused(liar.name(), BadObjectError, "too large")
    size = manifest.CONFIG_LIMIT + 1
    config = {"mediaType": manifest.CONFIG, "digest": NOBODY, "size": size}
    liar.manifest({"config": config, "layers": [liar.blob(ELF)]})
    refused(liar.name(), BadObjectError, "too large")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "no object"),
        ({"a.o": ELF, "b.o": ELF}, "a.o, b.o"),
        ({"prog.o": ELF, "README": b"read"}, "several files"),
    ],
)
def test_an_image_without_an_object_or_with_two(
    liar: Liar, content: Mapping[str, bytes], words: str
) -> None:
    liar.image(archive(content))
    refused(liar.name(), BadObjectError, words, "xdpctl image push")


def test_names_that_look_like_messages(liar: Liar) -> None:
    """A line break in a name does not begin a line of ours."""
    liar.image(archive({"a\n  do: trust it": ELF, "b\x1b[31m.o": ELF}))
    with pytest.raises(BadObjectError) as caught:
        fetch(liar.name())
    assert caught.value.why.isprintable()
    liar.image(archive({"a.o": ELF}), {"io.ebpf.filename": "b\nc"})
    with pytest.raises(BadObjectError) as caught:
        fetch(liar.name())
    assert caught.value.why.isprintable()


def test_two_files_of_one_name(liar: Liar) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for data in (ELF, ELF + b"x"):
            one = tarfile.TarInfo("prog.o")
            one.size = len(data)
            tar.addfile(one, io.BytesIO(data))
    liar.image(out.getvalue())
    refused(liar.name(), BadObjectError, "several files")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_what_is_no_regular_file(liar: Liar, kind: bytes) -> None:
    one = tarfile.TarInfo("prog.o")
    one.type, one.linkname = kind, "/etc/shadow"
    liar.image(archive({}, one))
    refused(liar.name(), BadObjectError, "no regular file")


def test_several_layers(liar: Liar) -> None:
    liar.manifest({"config": {}, "layers": [liar.blob(ELF), liar.blob(ELF)]})
    refused(liar.name(), BadObjectError, "2 layers")
    liar.manifest({"config": {}, "layers": []})
    refused(liar.name(), BadObjectError, "0 layers")


@pytest.mark.parametrize("data", [b"", b"plain", b"\x1f\x8bnot gzip", archive({"a": ELF})[:60]])
def test_a_layer_that_is_no_archive(liar: Liar, data: bytes) -> None:
    liar.image(data)
    refused(liar.name(), BadObjectError)


def bombs() -> dict[str, bytes]:
    """Archives of a few KiB that unpack to more than an object may have."""
    import gzip

    size = layer.OBJECT + (8 << 20)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        one = tarfile.TarInfo("prog.o")
        one.size = size
        tar.addfile(one, io.BytesIO(bytes(size)))
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, size
    long_name = name.tobuf(tarfile.GNU_FORMAT) + bytes(size)
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, size
    pax = header.tobuf(tarfile.PAX_FORMAT) + bytes(size)
    many = io.BytesIO()
    with tarfile.open(fileobj=many, mode="w") as tar:
        for number in range(5000):
            tar.addfile(tarfile.TarInfo(f"{number}"))
    return {
        "file": gzip.compress(plain.getvalue(), 1),
        "long name": gzip.compress(long_name, 1),
        "pax": gzip.compress(pax, 1),
        "many": gzip.compress(many.getvalue(), 1),
    }


@pytest.mark.long
def test_bombs(liar: Liar) -> None:
    """None takes more memory than a few times what an object may have."""
    for kind, data in bombs().items():
        liar.image(data)
        began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        refused(liar.name(), BadObjectError, "too large")
        grown = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - began
        assert grown < 6 * (layer.OBJECT >> 10), kind


# --- labels that lie ----------------------------------------------------------------------------


def test_a_file_that_is_called_otherwise(liar: Liar) -> None:
    liar.image(archive({"prog.o": ELF}), {"io.ebpf.filename": "other.o"})
    refused(liar.name(), BadObjectError, "not true", "other.o")


@pytest.mark.parametrize("text", ["no json", "[]", '{"count": 5}', "5"])
def test_labels_that_are_none(liar: Liar, text: str) -> None:
    liar.image(archive({"prog.o": ELF}), {"io.ebpf.programs": text})
    refused(liar.name(), BadObjectError, "cannot be read")


def labelled(liar: Liar, name: str, labels: Mapping[str, object]) -> str:
    data = Path(built(name)).read_bytes()
    texts = {key: json.dumps(value) for key, value in labels.items()}
    liar.image(archive({f"{name}.o": data}), texts)
    return liar.name()


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        ({"io.ebpf.programs": {"other": "xdp"}}, "other"),
        ({"io.ebpf.programs": {"count": "xdp", "gone": "tc"}}, "gone"),
        ({"io.ebpf.maps": {"nothing": "hash"}}, "nothing"),
        ({"io.ebpf.maps": {"a\nb": "hash"}}, "a\\nb"),
        ({"io.ebpf.programs": {"a\nb": "x\nd"}}, "a\\nb (x\\nd)"),
    ],
)
def test_labels_that_lie(liar: Liar, labels: Mapping[str, object], word: str) -> None:
    with pytest.raises(BadObjectError, match="not true") as caught:
        objects.member(labelled(liar, "count", labels))
    assert word in caught.value.why


def test_a_program_of_another_type(liar: Liar) -> None:
    with pytest.raises(BadObjectError, match="not true"):
        objects.member(labelled(liar, "wrongtype", {"io.ebpf.programs": {"wrongtype": "xdp"}}))


def test_what_labels_say_is_meant(liar: Liar) -> None:
    """One of several programs; what the command line says has precedence."""
    name = labelled(liar, "ret", {"io.ebpf.programs": {"ret_1": "xdp"}})
    assert objects.member(name).name == "ret_1"
    assert objects.member(name, program="ret_2").name == "ret_2"


# --- redirects, logins --------------------------------------------------------------------------


def test_a_manifest_that_is_elsewhere(liar: Liar) -> None:
    other = Liar()
    try:
        other.image(archive({"prog.o": ELF}))
        where = f"http://{other.host}/v2/x/prog/manifests/1"
        liar.answers["/v2/x/prog/manifests/1"] = Says(status=307, headers={"Location": where})
        refused(liar.name(), RegistryError, "elsewhere")
        assert other.asked == []
    finally:
        other.close()


@pytest.mark.parametrize(
    "where",
    ["http://{other}/x", "file:///etc/shadow", "ftp://{other}/x", "http://[/x", "//{other}/x"],
)
def test_a_part_that_is_elsewhere_without_tls(liar: Liar, where: str) -> None:
    other = Liar()
    try:
        data = archive({"prog.o": ELF})
        liar.image(data)
        headers = {"Location": where.format(other=other.host)}
        liar.answers[f"/v2/x/prog/blobs/{digest_of(data)}"] = Says(status=307, headers=headers)
        refused(liar.name(), RegistryError)
        assert other.asked == []
    finally:
        other.close()


def test_a_part_that_is_elsewhere_on_the_same_host(liar: Liar) -> None:
    data = archive({"prog.o": ELF})
    liar.image(data)
    path = f"/v2/x/prog/blobs/{digest_of(data)}"
    liar.answers["/store"] = liar.answers[path]
    liar.answers[path] = Says(status=307, headers={"Location": "/store"})
    assert fetch(liar.name()).data == ELF


def test_redirects_in_a_circle(liar: Liar) -> None:
    data = archive({"prog.o": ELF})
    liar.image(data)
    path = f"/v2/x/prog/blobs/{digest_of(data)}"
    liar.answers[path] = Says(status=302, headers={"Location": path})
    refused(liar.name(), RegistryError)


BASIC = "Basic " + base64.b64encode(b"me:secret").decode()


def locked(liar: Liar, kind: str, wanted: str) -> None:
    """Have all of a registry's answers need a login."""

    def guarded(says: Says) -> object:
        def answer(headers: Mapping[str, str]) -> Says:
            if headers.get("Authorization") == wanted:
                return says
            return Says(b"{}", 401, {"WWW-Authenticate": kind})

        return answer

    for path, says in list(liar.answers.items()):
        assert isinstance(says, Says)
        liar.answers[path] = guarded(says)  # type: ignore[assignment]


def keep_login(path: Path, host: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = base64.b64encode(b"me:secret").decode()
    path.write_text(json.dumps({"auths": {host: {"auth": text}}}))


@pytest.mark.parametrize(
    ("place", "variable"),
    [
        (".docker/config.json", None),
        (".config/containers/auth.json", None),
        ("run/containers/auth.json", "XDG_RUNTIME_DIR"),
        ("any.json", "REGISTRY_AUTH_FILE"),
        ("docker/config.json", "DOCKER_CONFIG"),
    ],
)
def test_logins_of_container_tools(
    liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, variable: str | None
) -> None:
    liar.image(archive({"prog.o": ELF}))
    locked(liar, 'Basic realm="here"', BASIC)
    refused(liar.name(), RegistryError, "refuses", "401", "without a login")
    path = tmp_path / place
    keep_login(path, liar.host)
    if variable:
        base = {"XDG_RUNTIME_DIR": path.parents[1], "DOCKER_CONFIG": path.parent}
        monkeypatch.setenv(variable, str(base.get(variable, path)))
    assert fetch(liar.name()).data == ELF
    keep_login(path, f"{liar.host}/x")
    assert fetch(liar.name()).data == ELF
    keep_login(path, "other.example")
    refused(liar.name(), RegistryError, "without a login")


def test_a_login_by_a_token(liar: Liar, tmp_path: Path) -> None:
    liar.image(archive({"prog.o": ELF}))
    realm = f'Bearer realm="http://{liar.host}/token",service="here",scope="anything"'
    locked(liar, realm, "Bearer t0ken")
    asked = []

    def token(headers: Mapping[str, str]) -> Says:
        asked.append(headers.get("Authorization"))
        return Says(b'{"token": "t0ken"}')

    liar.answers["/token"] = token
    assert fetch(liar.name()).data == ELF
    keep_login(tmp_path / ".docker/config.json", liar.host)
    assert fetch(liar.name("1")).data == ELF
    assert asked == [None, BASIC]
    assert any("scope=repository%3Ax%2Fprog%3Apull" in path for path in liar.asked)


@pytest.mark.parametrize("realm", ["http://192.0.2.1/token", "file:///etc/passwd", "", "http://[/"])
def test_a_login_that_would_go_out_without_tls(liar: Liar, tmp_path: Path, realm: str) -> None:
    liar.image(archive({"prog.o": ELF}))
    keep_login(tmp_path / ".docker/config.json", liar.host)
    locked(liar, f'Bearer realm="{realm}"', "Bearer t0ken")
    refused(liar.name(), RegistryError)


@pytest.fixture
def trusted(
    liar: Liar, remote: None, tls: tuple[ssl.SSLContext, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Liar, Liar]]:
    """Two registries that speak TLS, as those of other machines do."""
    context, cert = tls
    monkeypatch.setenv("SSL_CERT_FILE", cert)
    with contextlib.closing(Liar(context)) as one, contextlib.closing(Liar(context)) as other:
        yield one, other


@pytest.mark.long
@pytest.mark.parametrize("kind", ["Basic", "Bearer"])
def test_a_login_does_not_go_where_a_part_is(
    trusted: tuple[Liar, Liar], tmp_path: Path, kind: str
) -> None:
    """Neither the password nor the token, and not if it is asked for there."""
    one, other = trusted
    data = archive({"prog.o": ELF})
    one.image(data)
    path = f"/v2/x/prog/blobs/{digest_of(data)}"
    other.answers["/store"] = one.answers[path]
    one.answers[path] = Says(status=307, headers={"Location": f"https://{other.host}/store"})
    wanted = BASIC if kind == "Basic" else "Bearer t0ken"
    locked(one, f'{kind} realm="https://{one.host}/token"', wanted)
    one.answers["/token"] = Says(b'{"token": "t0ken"}')
    keep_login(tmp_path / ".docker/config.json", one.host)
    asks = {"WWW-Authenticate": f'{kind} realm="https://{other.host}/token"'}
    good = other.answers["/store"]
    other.answers["/store"] = Says(b"{}", 401, asks)
    refused(one.name(), RegistryError, "401")
    other.answers["/store"] = good
    assert fetch(one.name()).data == ELF
    assert {BASIC, wanted} <= set(one.logins)
    assert other.asked == ["/store", "/store"]
    assert other.logins == [None, None]


@pytest.mark.long
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_login_does_not_go_where_the_maker_of_tokens_sends_one(
    trusted: tuple[Liar, Liar], tmp_path: Path, status: int
) -> None:
    one, other = trusted
    one.image(archive({"prog.o": ELF}))
    locked(one, f'Bearer realm="https://{one.host}/token"', "Bearer t0ken")
    headers = {"Location": f"https://{other.host}/token"}
    one.answers["/token"] = Says(status=status, headers=headers)
    keep_login(tmp_path / ".docker/config.json", one.host)
    refused(one.name(), RegistryError, "elsewhere")
    assert BASIC in one.logins
    assert other.asked == []


def realm_at(one: Liar, other: Liar, tmp_path: Path) -> None:
    """Tokens are made elsewhere, over plain HTTP: nobody is asked there."""
    one.image(archive({"prog.o": ELF}))
    locked(one, f'Bearer realm="http://{other.host}/token"', "Bearer t0ken")
    other.answers["/token"] = Says(b'{"token": "t0ken"}')
    keep_login(tmp_path / ".docker/config.json", one.host)
    refused(one.name(), RegistryError, "a login without TLS")
    assert other.asked == []


@pytest.mark.long
def test_tokens_of_a_registry_elsewhere_that_are_made_without_tls(
    trusted: tuple[Liar, Liar], liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even on this machine, which is another one for that registry."""
    one, _other = trusted
    local = property(lambda reference: reference.host != one.host)
    monkeypatch.setattr(Reference, "is_local", local)
    realm_at(one, liar, tmp_path)


def test_tokens_of_a_registry_here_that_are_made_elsewhere_without_tls(
    liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = property(lambda reference: reference.host == liar.host)
    monkeypatch.setattr(Reference, "is_local", local)
    with contextlib.closing(Liar()) as other:
        realm_at(liar, other, tmp_path)


@pytest.mark.parametrize("answer", [b"{}", b'{"token": 5}', b'{"token": "a\\nb"}', b"[]", b"x"])
def test_tokens_that_are_none(liar: Liar, answer: bytes) -> None:
    liar.image(archive({"prog.o": ELF}))
    locked(liar, f'Bearer realm="http://{liar.host}/token"', "Bearer t0ken")
    liar.answers["/token"] = Says(answer)
    refused(liar.name(), RegistryError)


@pytest.mark.parametrize(
    "text",
    ["x", "[]", '{"auths": [1]}', '{"auths": {"HOST": 5}}', '{"auths": {"HOST": {"auth": "?"}}}'],
)
def test_files_of_logins_that_are_none(liar: Liar, tmp_path: Path, text: str) -> None:
    liar.image(archive({"prog.o": ELF}))
    locked(liar, "Basic", BASIC)
    path = tmp_path / ".docker/config.json"
    path.parent.mkdir()
    path.write_text(text.replace("HOST", liar.host))
    with pytest.raises(XdpctlError, match=r"config\.json cannot be used"):
        fetch(liar.name())


def test_a_login_that_a_helper_program_keeps(tmp_path: Path, liar: Liar) -> None:
    """It is not run; another file may have the login."""
    path = tmp_path / ".docker/config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"credsStore": "evil", "auths": {liar.host: {}}}))
    assert credentials.login(Reference.parse(liar.name())) is None


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UnsupportedError, match="requests") as caught:
        fetch("oci://localhost/a")
    assert "python3-requests" in caught.value.hint


@pytest.mark.parametrize("text", ["x", "0", "-1", "nan", "1e9"])
def test_a_time_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("XDPCTL_REGISTRY_TIMEOUT", text)
    with pytest.raises(UsageError, match="is not a time"):
        fetch("oci://localhost/a")


def test_no_process_is_left(liar: Liar) -> None:
    refused("oci://127.0.0.1:9/x:1", RegistryError)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
