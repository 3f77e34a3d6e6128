"""xdpctl image push: the image that is made, and registries that do not take it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.registry import Answers, Liar, Says
from tests.schemas import kept
from tests.unit.samples import built, some
from tests.unit.test_images import keep_login
from xdpctl.cli.run import run
from xdpctl.programs import objects
from xdpctl.supply import manifest
from xdpctl.supply.push import Image
from xdpctl.supply.reference import Labels

pytestmark = pytest.mark.heavy


def test_the_image_of_an_object() -> None:
    """In bpfman's form, of nothing but the object."""
    name, data, labels = objects.labels(built("count"))
    made = Image.of(name, data, labels, "arm64")
    assert made == Image.of(name, data, labels, "arm64")
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(made.layer))) as archive:
        (one,) = archive.getmembers()
        assert (one.name, one.mtime, one.uid, one.mode) == ("count.o", 0, 0, 0o644)
        assert archive.extractfile(one).read() == data  # type: ignore[union-attr]
    config = json.loads(made.config)
    assert config["architecture"] == "arm64"
    told = config["config"]["Labels"]
    assert json.loads(told["io.ebpf.programs"]) == {"count": "xdp"}
    assert json.loads(told["io.ebpf.maps"]) == {"packets": "array"}
    assert told["io.ebpf.bpf_function_name"] == "count"
    assert manifest.labels_of("it", config) == labels
    found = manifest.parsed("it", made.manifest)
    assert manifest.layer_of("it", found, 1 << 20).kind == manifest.LAYER


def test_an_object_with_several_programs() -> None:
    name, data, labels = objects.labels(built("ret"))
    assert len(labels.programs) > 1
    told = json.loads(Image.of(name, data, labels, "amd64").config)["config"]["Labels"]
    assert "io.ebpf.bpf_function_name" not in told
    assert Labels.__name__ == type(labels).__name__


def test_nothing_is_pushed_with_dry_run(liar: Liar, capsys: pytest.CaptureFixture[str]) -> None:
    name = liar.name("2")
    assert run(["image", "push", name, built("count"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"would push {name}@sha256:")
    assert run(["image", "push", name, built("count"), "--dry-run", "--json"]) == 0
    document = kept(json.loads(capsys.readouterr().out))
    assert document["image"] in told
    assert document["image"].endswith(document["digest"])
    assert liar.asked == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["push", "oci://r.example/a@sha256:" + "0" * 64, "{count}"], 2, "has a digest"),
        (["push", "r.example/a", "{count}"], 2, "is no image"),
        (["pull", "oci://r.example/a", "{count}"], 2, "pull"),
        (["push", "oci://r.example/a", "x.c"], 2, "is no object file"),
        (["push", "oci://r.example/a", "oci://r.example/b"], 2, "is no object file"),
        (["push", "oci://r.example/a", "nowhere.o"], 3, "no such file"),
        (["push", "oci://r.example/a", __file__], 4, "not an ELF"),
        (["push", "oci://r.example/a", "{wrongtype}"], 4, "no XDP program"),
        (["push", "oci://127.0.0.1:9/a", "{count}"], 18, "cannot be reached"),
    ],
)
def test_what_is_not_pushed(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    names = {name: built(name) for name in ("count", "wrongtype")}
    assert run(["image", *(word.format(**names) for word in words)]) == code
    assert said in capsys.readouterr().err


def takes(liar: Liar) -> Answers:
    """What a registry answers that takes the image of count.o."""
    made = Image.of(*objects.labels(built("count")), manifest.architecture())
    liar.answers["/v2/x/prog/blobs/uploads/"] = Says(
        status=202, headers={"Location": "/upload?state=1"}
    )
    liar.answers["/upload"] = Says(status=201)
    liar.answers["/v2/x/prog/manifests/1"] = Says(made.digest.encode(), 201)
    return liar.answers


def test_a_registry_that_takes_it(liar: Liar, capsys: pytest.CaptureFixture[str]) -> None:
    answers = takes(liar)
    assert run(["image", "push", liar.name(), built("count")]) == 0
    assert f"pushed {liar.name()}@sha256:" in capsys.readouterr().out
    assert len([path for path in liar.asked if path.startswith("/upload?state=1&digest=")]) == 2
    assert liar.asked[-1] in answers


@pytest.mark.parametrize("where", ["http://127.0.0.2:9/upload", "https://r.example/upload", "x:/"])
def test_an_upload_to_elsewhere(liar: Liar, capsys: pytest.CaptureFixture[str], where: str) -> None:
    """It would take the login along."""
    path = "/v2/x/prog/blobs/uploads/"
    takes(liar)[path] = Says(status=202, headers={"Location": where})
    assert run(["image", "push", liar.name(), built("count")]) == 18
    assert "another host" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/v2/x/prog/blobs/uploads/", "/upload", "/v2/x/prog/manifests/1"])
@pytest.mark.parametrize("status", some(2, [307, 401, 403, 405, 413, 500]))
def test_a_registry_that_does_not_take_it(
    liar: Liar,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    path: str,
    status: int,
) -> None:
    headers = {"Location": "http://127.0.0.2:9/", "WWW-Authenticate": "Basic"}
    takes(liar)[path] = Says(status=status, headers=headers)
    keep_login(tmp_path / ".docker/config.json", liar.host)
    assert run(["image", "push", liar.name(), built("count")]) == 18
    assert liar.host in capsys.readouterr().err
