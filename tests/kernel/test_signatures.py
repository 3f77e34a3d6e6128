"""Signatures and the policy: cosign itself where it can be had, and nothing changed if refused."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import xdpctl
from tests.kernel import net
from tests.kernel.conftest import ROOT, Objects, kinds, one_guest
from tests.kernel.test_bad_input import unchanged
from tests.kernel.test_registry import host, programs, pushed
from tests.kernel.tool import Tool
from xdpctl.cli import xdp_loader
from xdpctl.errors import UntrustedError
from xdpctl.supply import policy

pytestmark = one_guest
__all__ = ["host"]  # a fixture


class Cosign:
    """The real one, with a key pair without a password; it asks no service for anything."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program, self._directory = program, directory
        self.run("generate-key-pair")
        self.key = directory / "cosign.pub"

    def run(self, *words: object) -> None:
        subprocess.run(
            [self._program, *map(str, words)],
            cwd=self._directory,
            env={**os.environ, "COSIGN_PASSWORD": "", "HOME": str(self._directory)},
            check=True,
            capture_output=True,
        )

    def sign(self, what: str, *words: object) -> None:
        offline = ("--use-signing-config=false", "--tlog-upload=false", "--key", "cosign.key")
        self.run(what, "-y", *offline, *words)


@pytest.fixture
def cosign(tmp_path: Path) -> Cosign:
    done = subprocess.run(
        [ROOT / "tests/peers", "path"], capture_output=True, text=True, check=False
    )
    path = f"{done.stdout.strip()}/cosign"
    if done.returncode or not os.path.exists(path):
        pytest.skip("missing: cosign")
    pytest.importorskip("cryptography")
    return Cosign(path, tmp_path)


@pytest.fixture
def file(tmp_path: Path, objects: Objects) -> Path:
    path = tmp_path / "count.o"
    path.write_bytes(objects["count"].read_bytes())
    return path


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the policy is to be, for what this process runs."""
    directory = tmp_path / "etc"
    directory.mkdir(mode=0o755)
    monkeypatch.setattr(policy, "FILE", str(directory / "policy.toml"))
    return directory / "policy.toml"


@kinds("fused")  # it is not about a root
@pytest.mark.parametrize("form", ["payload", "bundle"])
def test_an_image_that_cosign_has_signed(
    tool: Tool, veth: net.Veth, host: str, objects: Objects, cosign: Cosign, form: str
) -> None:
    image = pushed(tool, f"oci://{host}/xdp/count:1", objects["count"])
    tool("load", veth.dev, objects["pass"])
    with unchanged(tool, veth):
        result = tool.try_("load", veth.dev, image, "--verify-key", cosign.key)
        assert (result.code, "is not signed" in result.err) == (19, True), result.err
    old = () if form == "bundle" else ("--new-bundle-format=false",)
    cosign.sign("sign", *old, "--allow-http-registry", image.removeprefix("oci://"))
    name = f"oci://{host}/xdp/count:1"
    tool("replace", veth.dev, "pass", name, "--verify-key", cosign.key)
    assert programs(tool, veth.dev) == [("count", image)]
    pushed(tool, name, objects["recount"])
    with unchanged(tool, veth):
        assert tool.try_("load", veth.dev, name, "--verify-key", cosign.key).code == 19
    tool("unload", veth.dev, "--all")


@kinds("fused")  # it is not about a root
@pytest.mark.parametrize("form", ["signature", "bundle"])
def test_a_file_that_cosign_has_signed(
    tool: Tool, veth: net.Veth, file: Path, cosign: Cosign, form: str
) -> None:
    beside = f"{file}.sig"
    old = ("--new-bundle-format=false", "--output-signature", beside)
    cosign.sign("sign-blob", *(("--bundle", beside) if form == "bundle" else old), file)
    with unchanged(tool, veth):
        tool("load", veth.dev, file, "--verify-key", cosign.key, "--dry-run")
        Path(beside).write_text(Path(beside).read_text()[:-9])
        result = tool.try_("load", veth.dev, file, "--verify-key", cosign.key)
        assert result.code == 19, result.err


def signed_by_openssl(directory: Path, path: Path) -> Path:
    """Sign a file; the public key."""
    private, public, raw = (directory / name for name in ("key.pem", "key.pub", "raw"))
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    for words in (
        ("genpkey", *curve, "-out", private),
        ("pkey", "-in", private, "-pubout", "-out", public),
        ("dgst", "-sha256", "-sign", private, "-out", raw, path),
        ("base64", "-in", raw, "-out", f"{path}.sig"),
    ):
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    return public


@kinds("fused")  # it is not about a root
def test_nothing_comes_in_past_the_policy(
    tool: Tool,
    veth: net.Veth,
    objects: Objects,
    file: Path,
    rules: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By none of the ways that it lists; and what is signed does."""
    pytest.importorskip("cryptography")
    key = signed_by_openssl(tmp_path, file)
    tool("load", veth.dev, objects["pass"])
    rules.write_text(f'[[rule]]\nsource = "{tmp_path}/*"\nkeys = "{key}"\n')
    rules.chmod(0o644)
    loose = tmp_path / "loose.o"
    loose.write_bytes(objects["drop"].read_bytes())
    source = tmp_path / "source.c"
    source.write_text("int x;")
    chain = tmp_path / "chain.toml"
    chain.write_text(f'program = [{{ file = "{loose}" }}]')
    with unchanged(tool, veth):
        for words in (
            ("load", veth.dev, objects["drop"]),
            ("load", veth.dev, loose),
            ("load", veth.dev, source),
            ("load", veth.dev, file, loose),
            ("load", veth.dev, "oci://127.0.0.1:9/a:1"),
            ("replace", veth.dev, "pass", loose),
            ("adopt", veth.peer, "--object", loose),
            ("apply", veth.dev, chain),
            ("test", veth.dev, "load", loose),
            ("load", veth.dev, loose, "--verify-key", key),
        ):
            result = tool.try_(*words)
            assert result.code == 19, (words, result.err)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(loose.open("rb")))
        assert tool.try_("load", veth.dev, "-").code == 19
        for what in (str(loose), loose.read_bytes()):
            with pytest.raises(UntrustedError):
                xdpctl.attach(what, veth.dev)
        assert xdp_loader.run(["load", veth.dev, str(loose)]) == 243
        rules.chmod(0o666)
        assert tool.try_("load", veth.dev, file).code == 6
        rules.chmod(0o644)
    tool("load", veth.dev, file)
    tool("rollback", veth.dev)
    tool("unload", veth.dev, "--all")


@kinds("fused")  # it is not about a root
def test_the_policy_is_where_it_is_said_to_be(
    tool: Tool, veth: net.Veth, objects: Objects, tmp_path: Path
) -> None:
    """In the real place, in a mount namespace in which something else is mounted there."""
    below = tmp_path / "below"
    (below / "xdpctl").mkdir(parents=True)
    (below / "xdpctl/policy.toml").write_text("")
    script = f'mount --bind "{below}" /etc && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", script, "sh")
    with unchanged(tool, veth):
        result = tool.process("load", veth.dev, objects["pass"], prefix=prefix)
        assert (result.code, "/etc/xdpctl/policy.toml" in result.err) == (19, True), result.err
