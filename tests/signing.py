"""Signatures of the tests: keys, and what cosign writes with them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from tests.registry import Liar, Says

SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT = "application/vnd.in-toto+json"


class Signer:
    """A key pair; the public half is in a file, as PEM."""

    def __init__(self, path: Path, kind: str = "ec") -> None:
        self.path = path
        self._sign: Callable[[bytes], bytes]
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
        if kind == "ec":
            curve = ec.generate_private_key(ec.SECP256R1())
            key, self._sign = curve, lambda data: curve.sign(data, ec.ECDSA(hashes.SHA256()))
        elif kind == "rsa":
            large = rsa.generate_private_key(65537, 2048)
            pad = padding.PKCS1v15()
            key, self._sign = large, lambda data: large.sign(data, pad, hashes.SHA256())
        else:
            short = ed25519.Ed25519PrivateKey.generate()
            key, self._sign = short, short.sign
        path.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        path.chmod(0o644)

    def text(self, data: bytes) -> str:
        """A signature in base64."""
        return base64.b64encode(self._sign(data)).decode()

    def file(self, path: Path, *, bundle: bool = False) -> Path:
        """Sign a file; where the signature is."""
        text = self.text(path.read_bytes())
        beside = path.with_name(f"{path.name}.sig")
        whole = {"mediaType": BUNDLE, "messageSignature": {"signature": text}}
        beside.write_text(json.dumps(whole) if bundle else text)
        return beside

    def simple(self, digest: str, **changed: object) -> tuple[bytes, str]:
        """A payload of simple signing with its signature."""
        critical = {
            "identity": {"docker-reference": "anything"},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        }
        payload = json.dumps({"critical": {**critical, **changed}, "optional": None}).encode()
        return payload, self.text(payload)

    def envelope(self, digest: str, kind: str = STATEMENT, **changed: object) -> dict[str, Any]:
        """A bundle with a statement in an envelope of DSSE."""
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": digest.removeprefix("sha256:")}}],
            "predicateType": "https://sigstore.dev/cosign/sign/v1",
            "predicate": {},
        }
        payload = json.dumps({**statement, **changed}).encode()
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
        text = base64.b64encode(payload).decode()
        found = {
            "payload": text,
            "payloadType": kind,
            "signatures": [{"sig": self.text(signed)}],
        }
        return {"mediaType": BUNDLE, "dsseEnvelope": found}


def beside(liar: Liar, digest: str, *signed: tuple[bytes, str]) -> None:
    """Have a registry keep payloads with signatures beside an image."""
    layers = [
        {
            "mediaType": SIMPLE,
            **liar.blob(payload),
            "annotations": {"dev.cosignproject.cosign/signature": text},
        }
        for payload, text in signed
    ]
    liar.manifest({"config": {}, "layers": layers}, digest.replace(":", "-") + ".sig")


def referring(liar: Liar, digest: str, *bundles: object, api: bool = False) -> None:
    """Have a registry keep bundles that refer to an image: under a tag, or by the newer `api`."""
    entries = []
    for number, bundle in enumerate(bundles):
        layer = {"mediaType": BUNDLE, **liar.blob(json.dumps(bundle).encode())}
        document = {"config": {}, "layers": [layer], "subject": {"digest": digest}}
        found = liar.manifest(document, f"bundle-{number}")
        entries.append({"digest": found, "size": len(json.dumps(document))})
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    if api:
        liar.answers[f"/v2/x/prog/referrers/{digest}"] = Says(index)
    else:
        liar.manifest(index, digest.replace(":", "-"))
