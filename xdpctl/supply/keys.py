"""Public keys, and whether a signature is by one of them: with the library `cryptography`.

Keys are PEM, as `cosign generate-key-pair` and `openssl` write them. Hashes are SHA-256, which is
all that cosign signs with by default; Ed25519 has its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import BadObjectError, UnsupportedError, UntrustedError
from ..host import files
from ..value import Value

LIMIT = 1 << 16
"""The most bytes of a file with a key, and of one with a signature."""


class Key(Value):
    """A public key: the path that it was read from, and its PEM."""

    path: str
    pem: bytes

    @classmethod
    def read(cls, path: str) -> Key:
        """Raises NotFoundError, BadObjectError for what is no public key, UnsupportedError."""
        return cls.of(path, files.read(path, LIMIT))

    @classmethod
    def of(cls, path: str, pem: bytes) -> Key:
        """Of what was read. Raises BadObjectError and UnsupportedError."""
        key = cls(path, pem)
        key._loaded()
        return key

    def has_signed(self, signature: bytes, data: bytes) -> bool:
        """Whether a signature is of some bytes, and by this key."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

        key = self._loaded()
        try:
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
            elif isinstance(key, rsa.RSAPublicKey):
                key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
            elif isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def _loaded(self) -> object:
        try:
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
            from cryptography.hazmat.primitives.serialization import load_pem_public_key
        except ImportError as error:
            raise UnsupportedError(
                "no signature can be checked: the Python library cryptography is missing",
                hint="apt install python3-cryptography, or pip install 'xdpctl[verify]'",
            ) from error
        try:
            key = load_pem_public_key(self.pem)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            private = b"PRIVATE KEY" in self.pem
            raise BadObjectError(
                f"{self.path} is no public key",
                why="it has a private one" if private else "it is not what PEM has for one",
                hint="cosign public-key --key FILE prints the public one" if private else "",
            ) from error
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:
            raise BadObjectError(
                f"{self.path} is too short a key", why=f"it has {key.key_size} bits"
            )
        if not isinstance(
            key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
        ):
            raise BadObjectError(
                f"{self.path} cannot be used",
                why="it is no key for ECDSA, RSA or Ed25519",
            )
        return key


class Demand(Value):
    """That something is signed by one of some keys; `by` says who wants it."""

    by: str
    keys: tuple[Key, ...]

    def is_met(self, signature: bytes, data: bytes) -> bool:
        return any(one.has_signed(signature, data) for one in self.keys)

    @property
    def names(self) -> str:
        return ", ".join(one.path for one in self.keys)


def check_none(what: str, why: str, demands: Sequence[Demand]) -> None:
    """Raise UntrustedError for what cannot be signed, if a signature is demanded."""
    if demands:
        raise UntrustedError(
            f"{what} is not signed",
            why=f"{why}, and {wanted(demands)}",
            hint="give an object file with its signature beside it, or an image",
        )


def wanted(demands: Sequence[Demand]) -> str:
    """Demands in words."""
    return " and ".join(f"{one.by} wants a signature by {one.names}" for one in demands)


def asked(paths: Sequence[str]) -> list[Demand]:
    """What a user demands who names files with keys: a signature by any of them.

    Raises what `Key.read` raises.
    """
    found = tuple(Key.read(os.path.abspath(path)) for path in paths)
    return [Demand("--verify-key", found)] if found else []
