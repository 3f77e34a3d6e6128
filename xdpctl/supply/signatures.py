"""Signatures as cosign writes them with a key pair, beside a file and beside an image.

These forms are known, and no others:

- beside a file, in FILE.sig: base64 of the signature of its bytes (``cosign sign-blob
  --output-signature``), or a bundle of sigstore's with the same (``--bundle``);
- beside an image, under the tag sha256-DIGEST.sig: payloads of simple signing as layers, each with
  its signature in an annotation (cosign up to 2, and 3 if asked for);
- beside an image, as what refers to it: bundles with an envelope of DSSE (cosign 3).

Certificates, transparency logs and timestamps are not looked at: who has the key decides alone.
Nothing that a signature is of is parsed before the signature is found good.

Sources: cosign's SIGNATURE_SPEC.md and BUNDLE_SPEC.md, the protocol of DSSE, and what cosign 2.5
and 3.1 write.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import BadObjectError, NotFoundError, UntrustedError
from ..host import files
from . import manifest
from .keys import LIMIT, Demand, wanted
from .manifest import Descriptor
from .reference import Reference

if TYPE_CHECKING:
    from .client import Registry

SUFFIX = ".sig"
_MOST = 32
"""How many signatures of an image are looked at."""
_ANNOTATION = "dev.cosignproject.cosign/signature"
_SIMPLE_TYPE = "cosign container image signature"
_BUNDLE_KIND = "application/vnd.dev.sigstore.bundle"
_STATEMENT_KIND = "application/vnd.in-toto+json"
_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
"""What a statement says that is a signature, and not of how something was built."""


# --- files --------------------------------------------------------------------------------------


def check_file(path: str, data: bytes, demands: Sequence[Demand]) -> None:
    """Raise UntrustedError unless a file is signed as demanded, in a file beside it."""
    if not demands:
        return
    beside = path + SUFFIX
    try:
        text = files.read(beside, LIMIT)
    except NotFoundError as error:
        raise UntrustedError(
            f"{path} is not signed",
            why=f"there is no {beside}, and {wanted(demands)}",
            hint=f"cosign sign-blob --key cosign.key --output-signature {beside} {path}",
        ) from error
    except BadObjectError as error:
        raise UntrustedError(f"{beside} is no signature", why=error.why) from error
    signature = _detached(text)
    if signature is None:
        raise UntrustedError(
            f"{beside} is no signature",
            why="it is neither base64 nor a bundle with the signature of a file",
            hint=f"cosign sign-blob --key cosign.key --output-signature {beside} {path}",
        )
    for demand in demands:
        if not demand.is_met(signature, data):
            raise UntrustedError(
                f"{path} is not signed by {demand.names}",
                why=f"the signature in {beside} is by another key, or of another file",
                hint=f"{demand.by} wants it; see that key, file and signature belong together",
            )


def _detached(text: bytes) -> bytes | None:
    """The signature in a file of its own; None if there is none."""
    if text.lstrip().startswith(b"{"):
        return _decoded(_get(_json(text), "messageSignature", "signature"))
    return _decoded(b"".join(text.split()))  # openssl breaks lines


def _decoded(text: object) -> bytes | None:
    if isinstance(text, str | bytes) and text:
        with contextlib.suppress(ValueError, binascii.Error):
            return base64.b64decode(text, validate=True)
    return None


def _json(data: bytes) -> Any:
    """A document; None for what is none."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(data)
    return None


def _get(value: Any, *names: str) -> Any:
    """What is inside of objects, by their keys; None if it is not there."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


# --- images -------------------------------------------------------------------------------------


def check_image(registry: Registry, digest: str, demands: Sequence[Demand]) -> None:
    """Raise UntrustedError unless the registry has signatures of an image as demanded.

    Raises what asking the registry raises, too.
    """
    if not demands:
        return
    unmet, seen = list(demands), 0
    for said in _said(registry, digest):
        seen += 1
        unmet = [one for one in unmet if not said.convinces(one, digest)]
        if not unmet:
            return
    what = str(replace(registry.image, digest=digest))
    raise UntrustedError(
        f"{what} is not signed by {unmet[0].names}" if seen else f"{what} is not signed",
        why=f"{seen} signature{'s' * (seen != 1)} beside it: by other keys, of other images, or "
        "of a form that is not known"
        if seen
        else f"the registry has no signature of it, and {wanted(unmet)}",
        hint=f"cosign sign --key cosign.key {_plain(registry.image, digest)}",
    )


def _plain(image: Reference, digest: str) -> str:
    return f"{image.host}/{image.repository}@{digest}"


class _Said:
    """Something that claims to be a signature of an image: signed bytes, and signatures of them."""

    def __init__(self, signed: bytes, signatures: Sequence[bytes], payload: bytes) -> None:
        self.signed, self.signatures, self.payload = signed, signatures, payload

    def convinces(self, demand: Demand, digest: str) -> bool:
        """Whether it is of this image, by a key that is demanded: in the other order."""
        if not any(demand.is_met(one, self.signed) for one in self.signatures):
            return False
        return self.names(_json(self.payload), digest)

    def names(self, document: Any, digest: str) -> bool:
        """Whether the document that is signed says that it is a signature of an image."""
        raise NotImplementedError


class _Simple(_Said):
    """A payload of simple signing."""

    def names(self, document: Any, digest: str) -> bool:
        kind = _get(document, "critical", "type")
        named = _get(document, "critical", "image", "docker-manifest-digest")
        return bool(kind == _SIMPLE_TYPE and named == digest)


class _Statement(_Said):
    """A statement of in-toto in an envelope."""

    def names(self, document: Any, digest: str) -> bool:
        subjects = _get(document, "subject")
        if _get(document, "predicateType") != _PREDICATE or not isinstance(subjects, list):
            return False
        return any(f"sha256:{_get(one, 'digest', 'sha256')}" == digest for one in subjects)


def _said(registry: Registry, digest: str) -> Iterator[_Said]:
    """All that the registry has beside an image that may be a signature of it."""
    with contextlib.suppress(NotFoundError):
        answer = registry.manifest(digest.replace(":", "-") + SUFFIX)
        yield from _simple(registry, manifest.parsed(str(registry.image), answer.data))
    with contextlib.suppress(NotFoundError):
        index = manifest.parsed(str(registry.image), registry.referrers(digest).data)
        yield from _bundles(registry, index)


def _parts(document: Any, name: str) -> list[Any]:
    found = document.get(name)
    return found[:_MOST] if isinstance(found, list) else []


def _simple(registry: Registry, document: Any) -> Iterator[_Said]:
    what = str(registry.image)
    for part in _parts(document, "layers"):
        one = Descriptor.parse(what, part, LIMIT)
        signature = _decoded(one.annotations.get(_ANNOTATION))
        if signature:
            payload = registry.blob(one)
            yield _Simple(payload, [signature], payload)


def _bundles(registry: Registry, index: Any) -> Iterator[_Said]:
    what = str(registry.image)
    for entry in _parts(index, "manifests"):
        one = Descriptor.parse(what, entry, manifest.LIMIT)
        document = manifest.parsed(what, registry.manifest(one.digest).data)
        for part in _parts(document, "layers"):
            layer = Descriptor.parse(what, part, manifest.LIMIT)
            if layer.kind.startswith(_BUNDLE_KIND) and (said := _envelope(registry.blob(layer))):
                yield said


def _envelope(bundle: bytes) -> _Said | None:
    """The statement in a bundle, with what DSSE signs for it; None if there is none."""
    found = _get(_json(bundle), "dsseEnvelope")
    kind, payload = _get(found, "payloadType"), _decoded(_get(found, "payload"))
    signatures = _get(found, "signatures")
    if kind != _STATEMENT_KIND or payload is None or not isinstance(signatures, list):
        return None
    decoded = [_decoded(_get(one, "sig")) for one in signatures[:_MOST]]
    words = (b"DSSEv1", b"%d" % len(kind), kind.encode(), b"%d" % len(payload), payload)
    return _Statement(b" ".join(words), [one for one in decoded if one], payload)
