"""Signatures and the policy: who is believed, and that nothing comes in past them."""

from __future__ import annotations

import base64
import builtins
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.registry import Liar, archive
from tests.signing import Signer, beside, referring
from tests.unit.samples import built
from tests.unit.test_images import ELF, NOBODY
from xdpctl.cli import hostfiles
from xdpctl.errors import (
    BadObjectError,
    NotFoundError,
    RegistryError,
    RightsError,
    UnsupportedError,
    UntrustedError,
    XdpctlError,
)
from xdpctl.model.source import Source
from xdpctl.programs import chainfile, given, loading, objects
from xdpctl.supply import images, keys, policy
from xdpctl.supply.reference import Reference

pytestmark = pytest.mark.heavy


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "cosign.pub")


@pytest.fixture
def other(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "other.pub")


@pytest.fixture
def prog(tmp_path: Path) -> Path:
    path = tmp_path / "prog.o"
    path.write_bytes(ELF)
    return path


def check(path: Path, *keys: Signer) -> bytes:
    return given.given(str(path), keys=[str(one.path) for one in keys]).data


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
@pytest.mark.parametrize("bundle", [False, True])
def test_a_file_that_is_signed(tmp_path: Path, prog: Path, kind: str, bundle: bool) -> None:
    signer = Signer(tmp_path / "key.pub", kind)
    signer.file(prog, bundle=bundle)
    assert check(prog, signer) == ELF
    prog.write_bytes(ELF + b"x")
    with pytest.raises(UntrustedError, match="not signed by"):
        check(prog, signer)


def test_any_of_several_keys(prog: Path, signer: Signer, other: Signer) -> None:
    other.file(prog)
    assert check(prog, signer, other) == ELF
    with pytest.raises(UntrustedError, match="is not signed by"):
        check(prog, signer)


def test_a_file_without_a_signature(prog: Path, signer: Signer) -> None:
    with pytest.raises(UntrustedError, match=r"prog\.o is not signed") as caught:
        check(prog, signer)
    assert "cosign sign-blob" in caught.value.hint
    assert "--verify-key wants a signature by" in caught.value.why


def cut(path: Path, text: str) -> None:
    path.write_text(text[:-6])


def instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILED: dict[str, Callable[[Path, str], object]] = {
    "cut": cut,
    "empty": lambda path, _text: path.write_text(""),
    "text": lambda path, _text: path.write_text("signed, me"),
    "bytes": lambda path, _text: path.write_bytes(bytes(range(256))),
    "zeros": lambda path, text: path.write_text(base64.b64encode(bytes(len(text))).decode()),
    "huge": lambda path, text: path.write_text(text * 10_000),
    "directory": lambda path, _text: instead(path),
    "list": lambda path, _text: path.write_text("[1]"),
    "object": lambda path, _text: path.write_text("{}"),
    "broken": lambda path, _text: path.write_text("{" * 50_000),
    "other bundle": lambda path, text: path.write_text(json.dumps({"dsseEnvelope": text})),
    "number": lambda path, _text: path.write_text('{"messageSignature": {"signature": 5}}'),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_signatures_that_are_none(prog: Path, signer: Signer, spoil: str) -> None:
    path = signer.file(prog)
    SPOILED[spoil](path, path.read_text())
    with pytest.raises(UntrustedError):
        check(prog, signer)


def test_what_cosign_and_openssl_write(prog: Path, signer: Signer) -> None:
    """Line breaks are no part of it."""
    path = signer.file(prog)
    text = path.read_text()
    path.write_text(f"{text[:64]}\n{text[64:]}\n")
    assert check(prog, signer) == ELF


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key"),
        (b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "private one"),
        (bytes(keys.LIMIT + 1), "too large"),
    ],
)
def test_keys_that_are_none(tmp_path: Path, prog: Path, text: bytes, words: str) -> None:
    path = tmp_path / "bad.pub"
    path.write_bytes(text)
    with pytest.raises(BadObjectError) as caught:
        given.given(str(prog), keys=[str(path)])
    assert words in f"{caught.value.what} {caught.value.why}"


def test_a_key_that_is_not_there(prog: Path) -> None:
    with pytest.raises(NotFoundError):
        given.given(str(prog), keys=["/nowhere/key.pub"])


def test_a_key_that_is_too_short(tmp_path: Path, prog: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    public = rsa.generate_private_key(65537, 1024).public_key()
    path = tmp_path / "short.pub"
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(public.public_bytes(serialization.Encoding.PEM, form))
    with pytest.raises(BadObjectError, match="too short"):
        given.given(str(prog), keys=[str(path)])


def test_without_the_library(prog: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    signer.file(prog)
    real = builtins.__import__

    def importing(name: str, *more: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(UnsupportedError, match="cryptography is missing"):
        check(prog, signer)


def test_nothing_is_parsed_before(
    prog: Path, signer: Signer, other: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(*_: object) -> None:
        raise AssertionError("it was looked into")

    for name in ("_inspect", "_check_elf"):
        monkeypatch.setattr(objects, name, parsed)
    other.file(prog)
    with pytest.raises(UntrustedError):
        objects.member(str(prog), keys=[str(signer.path)])


def test_what_cannot_be_signed(tmp_path: Path, signer: Signer) -> None:
    source = tmp_path / "prog.c"
    source.write_text("int x;")
    signer.file(source)
    with pytest.raises(UntrustedError, match="is not signed") as caught:
        check(source, signer)
    assert "what it includes" in caught.value.why
    with pytest.raises(UntrustedError, match="is not signed"):
        given.given("<stdin>", ELF, [str(signer.path)])
    with pytest.raises(UntrustedError, match="is not signed"):
        given.check_module([str(signer.path)])


def test_the_key_of_a_chain_file(tmp_path: Path, signer: Signer, other: Signer) -> None:
    """A path is relative to the file's directory."""
    data = Path(built("count")).read_bytes()
    (tmp_path / "count.o").write_bytes(data)
    signer.file(tmp_path / "count.o")
    path = tmp_path / "chain.toml"
    path.write_text('program = [{ file = "count.o", verify-key = ["cosign.pub"] }]')
    with chainfile.read(str(path)).opened("/bpffs") as found:
        assert [member.name for member, _maps in found.members] == ["count"]
    path.write_text('program = [{ file = "count.o", verify-key = "other.pub" }]')
    with (
        pytest.raises(UntrustedError) as caught,
        chainfile.read(str(path)).opened("/bpffs"),
    ):
        pass
    assert caught.value.what.startswith(f"{path}: program 1: {tmp_path}/count.o is not signed by")


# --- images -------------------------------------------------------------------------------------


def fetch(liar: Liar, *signers: Signer, digest: str = "") -> images.Fetched:
    demand = keys.asked([str(one.path) for one in signers])
    return images.fetch(Reference.parse(liar.name("1", digest)), demand)


@pytest.fixture
def digest(liar: Liar) -> str:
    return liar.image(archive({"prog.o": ELF}))


def test_an_image_that_is_signed(liar: Liar, digest: str, signer: Signer, other: Signer) -> None:
    beside(liar, digest, other.simple(digest), signer.simple(digest))
    assert fetch(liar, signer).data == ELF
    assert fetch(liar, signer, digest=digest).data == ELF


@pytest.mark.parametrize("api", [False, True])
def test_an_image_with_a_bundle(
    liar: Liar, digest: str, signer: Signer, other: Signer, api: bool
) -> None:
    referring(liar, digest, other.envelope(digest), signer.envelope(digest), api=api)
    assert fetch(liar, signer).data == ELF


def test_a_list_of_images_is_signed_as_a_whole(liar: Liar, signer: Signer) -> None:
    inner = liar.image(archive({"prog.o": ELF}), tag="inner")
    size = len(liar.answers["/v2/x/prog/manifests/inner"].body)  # type: ignore[union-attr, arg-type]
    whole = liar.manifest({"manifests": [{"digest": inner, "size": size}]})
    beside(liar, inner, signer.simple(inner))
    with pytest.raises(UntrustedError):
        fetch(liar, signer)
    beside(liar, whole, signer.simple(whole))
    assert fetch(liar, signer).data == ELF


def refused(liar: Liar, signer: Signer, *words: str) -> None:
    """Before the layer was asked for."""
    liar.asked.clear()
    with pytest.raises(UntrustedError) as caught:
        fetch(liar, signer)
    for word in words:
        assert word in f"{caught.value.what} {caught.value.why}"
    body = archive({"prog.o": ELF})
    assert f"/v2/x/prog/blobs/{layer_digest(body)}" not in liar.asked


def layer_digest(data: bytes) -> str:
    from xdpctl.supply.reference import digest_of

    return digest_of(data)


def test_an_image_without_a_signature(liar: Liar, digest: str, signer: Signer) -> None:
    refused(liar, signer, "is not signed", "no signature of it")


def test_a_signature_by_another_key(liar: Liar, digest: str, signer: Signer, other: Signer) -> None:
    beside(liar, digest, other.simple(digest))
    referring(liar, digest, other.envelope(digest))
    refused(liar, signer, "is not signed by", "2 signatures")


def test_a_signature_of_another_image(liar: Liar, digest: str, signer: Signer) -> None:
    beside(liar, digest, signer.simple(NOBODY))
    referring(liar, digest, signer.envelope(NOBODY))
    refused(liar, signer, "is not signed by")


def test_a_signature_that_was_for_something_else(liar: Liar, digest: str, signer: Signer) -> None:
    """Signed by the key, of this image, and no word that it may run."""
    beside(liar, digest, signer.simple(digest, type="atomic container signature"))
    built_so = signer.envelope(digest, predicateType="https://slsa.dev/provenance/v1")
    referring(liar, digest, built_so, signer.envelope(digest, "text/plain"))
    refused(liar, signer, "is not signed by")


def test_a_signature_of_the_tag_that_moved(liar: Liar, digest: str, signer: Signer) -> None:
    beside(liar, digest, signer.simple(digest))
    assert fetch(liar, signer).data == ELF
    liar.image(archive({"prog.o": ELF + b"2"}))
    refused(liar, signer, "is not signed")


def spoiled(signer: Signer, digest: str) -> Iterator[tuple[bytes, str]]:
    payload, text = signer.simple(digest)
    yield payload, text[:-8]
    yield payload, ""
    yield payload, "no base64"
    yield payload + b" ", text
    yield b"[]", signer.text(b"[]")
    yield b"x", signer.text(b"x")
    yield b'{"critical": 5}', signer.text(b'{"critical": 5}')


def test_signatures_that_are_no_signatures(liar: Liar, digest: str, signer: Signer) -> None:
    beside(liar, digest, *spoiled(signer, digest))
    good = signer.envelope(digest)
    inner = good["dsseEnvelope"]
    bad = [
        {},
        {"dsseEnvelope": 5},
        {"dsseEnvelope": {**inner, "payloadType": "text/plain"}},
        {"dsseEnvelope": {**inner, "payload": "?"}},
        {"dsseEnvelope": {**inner, "signatures": 5}},
        {"dsseEnvelope": {**inner, "signatures": [5, {}]}},
        {"messageSignature": {"signature": signer.text(digest.encode())}},
    ]
    referring(liar, digest, *bad)
    refused(liar, signer, "is not signed by")


def test_a_list_of_signatures_that_is_none(liar: Liar, digest: str, signer: Signer) -> None:
    for name in (f"{digest.replace(':', '-')}.sig", digest.replace(":", "-")):
        liar.manifest(b"no json", name)
        with pytest.raises(RegistryError):
            fetch(liar, signer)
        liar.manifest({"layers": 5, "manifests": 5}, name)
    refused(liar, signer, "is not signed")


@pytest.mark.long
def test_many_signatures_are_not_all_looked_at(
    liar: Liar, digest: str, signer: Signer, other: Signer
) -> None:
    beside(liar, digest, *[other.simple(digest, number=number) for number in range(500)])
    refused(liar, signer, "32 signatures")


# --- the policy ---------------------------------------------------------------------------------


ALL = 'rule = [{ source = "*", unsigned = true }]'


class Policy:
    """The policy of the machine, for a test."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, text: str) -> None:
        self.path.write_text(text)
        self.path.chmod(0o644)


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Policy:
    directory = tmp_path / "etc"
    directory.mkdir(mode=0o755)
    monkeypatch.setattr(policy, "FILE", str(directory / "policy.toml"))
    return Policy(directory / "policy.toml")


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_directory_above_that_others_may_write(
    rules: Policy, prog: Path, tmp_path: Path, mode: int
) -> None:
    """It could be renamed, and another one put in its place; not in one like /tmp."""
    rules(ALL)
    tmp_path.chmod(mode)
    if mode & 0o1000:
        assert check(prog) == ELF
    else:
        with pytest.raises(RightsError, match="may be written by others"):
            check(prog)


def test_without_a_policy(rules: Policy, prog: Path) -> None:
    assert check(prog) == ELF


def test_the_first_rule_that_fits_decides(
    rules: Policy, tmp_path: Path, prog: Path, signer: Signer, other: Signer
) -> None:
    (rules.path.parent / "team.pub").write_bytes(signer.path.read_bytes())
    rules(
        f"""
        rule = [
            {{ source = ["{tmp_path}/free/*", "/nowhere/*"], unsigned = true }},
            {{ source = "{tmp_path}/*", keys = ["team.pub", "{other.path}"] }},
        ]
        """
    )
    with pytest.raises(UntrustedError, match="is not signed") as caught:
        check(prog)
    assert str(rules.path) in caught.value.why
    for one in (signer, other):
        one.file(prog)
        assert check(prog) == ELF
    free = tmp_path / "free"
    free.mkdir()
    (free / "prog.o").write_bytes(ELF)
    assert check(free / "prog.o") == ELF
    with pytest.raises(UntrustedError, match="policy of this machine refuses"):
        check(Path("/etc/hostname"))


def test_where_a_link_leads_decides(rules: Policy, tmp_path: Path, prog: Path) -> None:
    free = tmp_path / "free"
    free.mkdir()
    rules(f'rule = [{{ source = "{free}/*", unsigned = true }}]')
    (free / "prog.o").symlink_to(prog)
    (free / "way").symlink_to("/etc")
    for path in (
        "prog.o",
        "../prog.o",
        "way/hostname",
        "way/../etc/hostname",
        "./../free/../prog.o",
    ):
        with pytest.raises(UntrustedError, match="policy of this machine refuses"):
            check(free / path)
    (free / "real.o").write_bytes(ELF)
    (tmp_path / "link.o").symlink_to(free / "real.o")
    assert check(tmp_path / "link.o") == ELF


def test_both_the_policy_and_the_user_are_obeyed(
    rules: Policy, tmp_path: Path, prog: Path, signer: Signer, other: Signer
) -> None:
    """A key on the command line is no way around the policy's."""
    rules(f'rule = [{{ source = "{tmp_path}/*", keys = "{signer.path}" }}]')
    signer.file(prog)
    assert check(prog) == ELF
    with pytest.raises(UntrustedError, match=r"other\.pub"):
        check(prog, other)
    other.file(prog)
    with pytest.raises(UntrustedError, match=r"cosign\.pub"):
        check(prog, other)


def test_images_by_their_repository(rules: Policy, liar: Liar, digest: str, signer: Signer) -> None:
    rules(f'rule = [{{ source = "oci://{liar.host}/x/*", keys = "{signer.path}" }}]')
    with pytest.raises(UntrustedError, match="is not signed"):
        given.given(liar.name())
    beside(liar, digest, signer.simple(digest))
    assert given.given(liar.name()).data == ELF
    liar.asked.clear()
    with pytest.raises(UntrustedError, match="policy of this machine refuses"):
        given.given(liar.name(repository="y/prog"))
    assert liar.asked == [], "no registry is asked that no rule names"


def test_an_image_that_the_policy_and_the_user_want_signed(
    rules: Policy, liar: Liar, digest: str, signer: Signer, other: Signer
) -> None:
    """By both: the signature that one wants is none for the other."""
    rules(f'rule = [{{ source = "oci://{liar.host}/x/*", keys = "{signer.path}" }}]')
    for one, missing in ((signer, other), (other, signer)):
        beside(liar, digest, one.simple(digest))
        with pytest.raises(UntrustedError, match=f"is not signed by {missing.path}"):
            given.given(liar.name(), keys=[str(other.path)])
    beside(liar, digest, signer.simple(digest), other.simple(digest))
    assert given.given(liar.name(), keys=[str(other.path)]).data == ELF


def test_every_way_in_is_asked(rules: Policy, tmp_path: Path, prog: Path) -> None:
    """Each is refused by a policy that has no rule, and let in by one that lets all in."""
    source = tmp_path / "prog.c"
    source.write_text("int x;")
    ways: dict[str, Callable[[], object]] = {
        "object": lambda: given.given(str(prog)),
        "source": lambda: given.given(str(source)),
        "bytes": lambda: given.given("<stdin>", ELF),
        "module": given.check_module,
        "completion": lambda: objects.candidates(built("count")),
        "member": lambda: objects.member(built("count")),
        "image": lambda: given.given("oci://127.0.0.1:9/a:1"),
    }
    for name, way in ways.items():
        rules("")
        with pytest.raises(UntrustedError, match="policy of this machine refuses"):
            way()
        rules(ALL)
        try:
            way()
        except RegistryError:
            assert name == "image"


def test_what_was_not_vetted_is_not_loaded(rules: Policy) -> None:
    source = Source("prog.o", ELF, "prog")
    rules(ALL)
    with pytest.raises(UntrustedError, match="policy of this machine refuses") as refused:
        loading.load(source, False)
    assert "came in past" in refused.value.why
    rules.path.unlink()
    with pytest.raises(XdpctlError) as caught:
        loading.load(source, False)
    assert not isinstance(caught.value, UntrustedError)


def test_every_source_is_vetted(prog: Path) -> None:
    """Nothing but these makes one, and each asks the policy."""
    root = Path(objects.__file__).parents[1]
    made = {
        f"{path.relative_to(root)}": path.read_text().count("Source(")
        - path.read_text().count("class Source(")
        for path in root.rglob("*.py")
    }
    assert {path: count for path, count in made.items() if count} == {
        "api/attach.py": 1,
        "programs/objects.py": 2,
        # What runs already, to see that what is written of it is the same; it is let go again.
        "programs/written.py": 1,
    }
    for path in ("api/attach.py", "programs/objects.py"):
        text = (root / path).read_text()
        assert text.count("vetted=True") == made[path]


BAD: dict[str, tuple[str, str]] = {
    "no toml": ("x", "not TOML"),
    "unknown": ("allow = true", "unknown key 'allow'"),
    "no tables": ("rule = 5", "no array of tables"),
    "no source": ("rule = [{ unsigned = true }]", "source: not a text"),
    "no keys": ('rule = [{ source = "*" }]', "keys, or unsigned"),
    "both": ('rule = [{ source = "*", keys = "a", unsigned = true }]', "keys, or unsigned"),
    "word": ('rule = [{ source = "*", unsigned = "yes" }]', "neither true nor false"),
    "empty": ('rule = [{ source = "*", keys = [] }]', "keys: not a text"),
    "list": ("rule = [{ source = [], unsigned = true }]", "source: not a text"),
    "misspelt": ('rule = [{ source = "*", unsignedd = true }]', "unknown key"),
    "no key": ('rule = [{ source = "*", keys = "nowhere.pub" }]', "no such file"),
    "huge": ("#" * (policy.LIMIT + 1), "too large"),
}


@pytest.mark.parametrize("case", BAD)
def test_policies_that_are_wrong(rules: Policy, prog: Path, case: str) -> None:
    text, words = BAD[case]
    rules(text)
    with pytest.raises((BadObjectError, NotFoundError)) as caught:
        check(prog)
    assert words in f"{caught.value.what} {caught.value.why}"


def test_a_policy_that_others_may_write(
    rules: Policy, prog: Path, signer: Signer, tmp_path: Path
) -> None:
    rules(f'rule = [{{ source = "*", keys = "{signer.path}" }}]')
    signer.file(prog)
    assert check(prog) == ELF
    for path in (rules.path, rules.path.parent, signer.path, signer.path.parent):
        mode = path.stat().st_mode
        for bits in (0o020, 0o002):
            path.chmod(mode | bits)
            with pytest.raises(RightsError, match="may be written by others"):
                check(prog)
        path.chmod(mode)
        if os.geteuid() == 0:
            os.chown(path, 1234, -1)
            with pytest.raises(RightsError, match="may be written by others"):
                check(prog)
            os.chown(path, 0, -1)
    assert check(prog) == ELF


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """A directory that others may write, with one below that they may not."""
    found = tmp_path / "loose"
    (found / "own").mkdir(parents=True, mode=0o755)
    found.chmod(0o777)
    return found


WAYS: dict[str, Callable[[Path, Path], Path]] = {
    "there": lambda loose, key: Path(shutil.copy(key, loose / "key.pub")),
    "below": lambda loose, key: Path(shutil.copy(key, loose / "own/key.pub")),
    "link": lambda loose, key: linked(loose / "key.pub", key),
    "link below": lambda loose, key: linked(loose / "own/key.pub", key),
    "links": lambda loose, key: linked(
        loose.parent / "key.pub", linked(loose / "key.pub", key), relative=True
    ),
    "directory": lambda loose, key: linked(loose / "keys", key.parent) / key.name,
    "directories": lambda loose, key: (
        linked(loose.parent / "keys", linked(loose / "keys", key.parent)) / key.name
    ),
    "dots": lambda loose, key: loose / "own/../.." / key.name,
}


def linked(path: Path, target: Path, *, relative: bool = False) -> Path:
    path.symlink_to(os.path.relpath(target, path.parent) if relative else target)
    return path


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o755])
@pytest.mark.parametrize("way", WAYS)
def test_a_key_to_which_others_may_lay_another_way(
    rules: Policy, prog: Path, signer: Signer, loose: Path, way: str, mode: int
) -> None:
    """By a directory anywhere on it, and by a link; those in one like /tmp are root's."""
    path = WAYS[way](loose, signer.path)
    loose.chmod(mode)
    rules(f'rule = [{{ source = "*", keys = "{path}" }}]')
    signer.file(prog)
    if mode == 0o755 or (mode == 0o1777 and way in ("below", "link below", "dots")):
        assert check(prog) == ELF
    else:
        with pytest.raises(RightsError, match=f"{loose} may be written by others"):
            check(prog)


def test_a_key_that_links_lead_to_in_a_circle(rules: Policy, prog: Path, tmp_path: Path) -> None:
    linked(tmp_path / "a.pub", linked(tmp_path / "b.pub", tmp_path / "a.pub"))
    rules(f'rule = [{{ source = "*", keys = "{tmp_path}/a.pub" }}]')
    with pytest.raises(NotFoundError, match="cannot be read"):
        check(prog)


@pytest.mark.parametrize("kind", ["dangling", "directory", "pipe"])
def test_a_policy_that_cannot_be_read_is_one(rules: Policy, prog: Path, kind: str) -> None:
    if kind == "dangling":
        rules.path.symlink_to("/nowhere/policy.toml")
    elif kind == "directory":
        rules.path.mkdir(mode=0o755)
    else:
        os.mkfifo(rules.path, 0o644)
    with pytest.raises((NotFoundError, BadObjectError, RightsError)):
        check(prog)


def test_the_policy_is_no_chain_file(rules: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    rules(ALL)
    (rules.path.parent / "eth0.toml").write_text("program = []")
    names = [os.path.basename(one) for one in hostfiles.files_in(str(rules.path.parent))]
    assert names == ["eth0.toml"]
