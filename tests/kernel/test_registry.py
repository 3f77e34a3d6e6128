"""Programs from a registry: Debian's docker-registry, on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import registry
from tests.kernel import net
from tests.kernel.conftest import Objects, kinds, one_guest
from tests.kernel.test_bad_input import unchanged
from tests.kernel.tool import Tool
from xdpctl.supply import layer
from xdpctl.supply.reference import digest_of

pytestmark = [
    one_guest,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="missing: docker-registry"),
]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("requests")
    monkeypatch.setenv("XDPCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with registry.debian(tmp_path) as found:
        yield found


def pushed(tool: Tool, name: str, path: Path) -> str:
    """Push an object; the image's name with its digest."""
    found = tool("image", "push", name, path, "--json").json["image"]
    assert isinstance(found, str)
    return found


def programs(tool: Tool, dev: str) -> list[tuple[str, str | None]]:
    return [(one["name"], one["image"]) for one in tool.status(dev)["programs"]]


def test_a_life_of_images(
    tool: Tool, veth: net.Veth, host: str, objects: Objects, tmp_path: Path
) -> None:
    """Pushed, applied, moved on, exported: what runs is named by its digest."""
    name = f"oci://{host}/xdp/count:1"
    first = pushed(tool, name, objects["count"])
    assert pushed(tool, name, objects["count"]) == first, "the same object, the same image"
    file = tmp_path / "chain.toml"
    file.write_text(f'program = [{{ file = "{name}" }}]\n')

    tool("apply", veth.dev, file)
    assert programs(tool, veth.dev) == [("count", first)]
    (before,) = tool.status(veth.dev)["programs"]
    tool("apply", veth.dev, file, "--check")
    # A change of something else carries it along.
    tool("load", veth.dev, f"oci://{host}/xdp/count:1", "-P", 60, "--name", "second")
    assert programs(tool, veth.dev) == [("count", first), ("count", first)]
    tool("unload", veth.dev, "second")
    assert tool.status(veth.dev)["programs"][0]["id"] == before["id"]

    second = pushed(tool, name, objects["recount"])
    assert second.partition("@")[0] == first.partition("@")[0]
    assert tool.try_("apply", veth.dev, file, "--check").code == 17
    tool("apply", veth.dev, file)
    assert [image for _name, image in programs(tool, veth.dev)] == [second]

    past = tool("history", veth.dev, "--json").json["interfaces"][0]["generations"]
    assert [one["image"] for one in past[0]["programs"]] == [first]
    assert first.partition("@")[2][:19] in tool("history", veth.dev).out

    text = tool("export", veth.dev).out
    assert json.dumps(second) in text
    file.write_text(text)
    assert pushed(tool, name, objects["pass"]) != second
    tool("apply", veth.dev, file, "--check")
    tool("unload", veth.dev, "--all")


@kinds("fused")  # it is not about a root
def test_a_namespace_that_reaches_nobody(
    tool: Tool, host: str, objects: Objects, tmp_path: Path
) -> None:
    """The registry is asked from where the command was given."""
    name = f"oci://{host}/xdp/count:1"
    pushed(tool, name, objects["count"])
    with net.NetNs() as space:
        net.ip("link", "add", "x0", "type", "veth", "peer", "name", "x1", netns=space.name)
        tool("--netns", space.name, "load", "x0", name)
        tool("--netns", space.name, "unload", "x0", "--all")


@kinds("fused")  # it is not about a root
def test_registries_that_lie(
    tool: Tool, veth: net.Veth, objects: Objects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each lie by itself is tests/unit/test_images.py's; here, that nothing is changed."""
    pytest.importorskip("requests")
    monkeypatch.setenv("XDPCTL_CACHE", str(tmp_path / "cache"))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    tool("load", veth.dev, objects["pass"])
    data = objects["count"].read_bytes()
    liar = registry.Liar()
    try:
        good = registry.archive({"count.o": data})
        slow = registry.Says(registry.dripping(b"{" + b" " * 900, 0.05))
        bomb = registry.archive({"count.o": bytes(layer.OBJECT + (8 << 20))})
        cases: list[tuple[bytes, dict[str, str], int, str]] = [
            (good, {"io.ebpf.programs": '{"other": "xdp"}'}, 4, "not true"),
            (registry.archive({}), {}, 4, "no object"),
            (registry.archive({"a.o": data, "b.o": data}), {}, 4, "several files"),
            (bomb, {}, 4, "too large"),
            (good[: len(good) // 2], {}, 4, "cannot be read"),
            (registry.archive({"count.o": data[: len(data) // 2]}), {}, 4, "not a usable"),
        ]
        with unchanged(tool, veth):
            for content, labels, code, words in cases:
                liar.image(content, labels)
                result = tool.try_("load", veth.dev, liar.name())
                assert (result.code, words in result.err) == (code, True), result.err
            new = registry.archive({"new.o": data})  # which is not in the cache
            liar.image(new)
            liar.answers[f"/v2/x/prog/blobs/{digest_of(new)}"] = registry.Says(bytes(len(new)))
            assert tool.try_("load", veth.dev, liar.name()).code == 18
            monkeypatch.setenv("XDPCTL_REGISTRY_TIMEOUT", "2")
            liar.answers["/v2/x/prog/manifests/1"] = slow
            began = time.monotonic()
            assert tool.try_("load", veth.dev, liar.name()).code == 18
            assert time.monotonic() - began < 30
            monkeypatch.delenv("XDPCTL_REGISTRY_TIMEOUT")
            liar.answers["/v2/x/prog/manifests/1"] = registry.Says(
                status=307, headers={"Location": "http://127.0.0.2/"}
            )
            assert tool.try_("load", veth.dev, liar.name()).code == 18
    finally:
        liar.close()
    tool("unload", veth.dev, "--all")


def test_what_a_registry_cannot_give(
    tool: Tool, veth: net.Veth, host: str, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool("load", veth.dev, objects["pass"])
    pushed(tool, f"oci://{host}/xdp/count:1", objects["count"])
    cases = [
        (f"oci://{host}/xdp/count:2", 3, "no image"),
        (f"oci://{host}/xdp/count:1@sha256:{'0' * 64}", 3, "no image"),
        (f"oci://{host}/xdp/Count", 2, "is no image"),
        ("oci://127.0.0.1:9/xdp/count:1", 18, "cannot be reached"),
    ]
    with unchanged(tool, veth):
        for name, code, words in cases:
            for command in (("load", veth.dev, name), ("replace", veth.dev, "pass", name)):
                result = tool.try_(*command)
                assert (result.code, words in result.err) == (code, True), result.err
    tool("unload", veth.dev, "--all")
