"""What an image in a registry is called: oci://HOST[:PORT]/NAME[:TAG][@sha256:DIGEST]."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from ..errors import UsageError
from ..value import Value

SCHEME = "oci://"
USUAL_TAG = "latest"
HUB = "docker.io"
"""Docker's own registry, which has several names."""
_HUBS = ("index.docker.io", "registry-1.docker.io", HUB)
MOST = 1000
"""The most characters of a reference."""

# As the OCI distribution specification has names and tags. No part begins where another may end,
# so that a text of any kind is looked at once.
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}"
_FORM = rf"oci://({_HOST})/({_PART}(?:/{_PART})*)(?::({_TAG}))?(?:@({_DIGEST}))?"


class Reference(Value):
    """An image in a registry. If it has a digest, that decides, and the tag is for people."""

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises UsageError."""
        match = re.fullmatch(_FORM, text, re.ASCII) if len(text) <= MOST else None
        if not match:
            raise UsageError(
                f"{text[:MOST]} is no image in a registry",
                why="names are in lower case, and a digest is sha256: and 64 digits of base 16",
                hint="write oci://HOST[:PORT]/NAME[:TAG][@sha256:DIGEST]",
            )
        host, repository, tag, digest = (found or "" for found in match.groups())
        found = cls(_host(host), repository, tag or ("" if digest else USUAL_TAG), digest)
        if found.host == HUB and "/" not in repository:
            return replace(found, repository=f"library/{repository}")
        return found

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.source}{tag}{'@' if self.digest else ''}{self.digest}"

    @property
    def source(self) -> str:
        """The repository, which a rule of the policy is for: without tag and digest."""
        return f"{SCHEME}{self.host}/{self.repository}"

    @property
    def wanted(self) -> str:
        """What the registry is asked for."""
        return self.digest or self.tag

    @property
    def hostname(self) -> str:
        """The host without its port."""
        return re.sub(r":[0-9]+$", "", self.host).strip("[]")

    @property
    def is_local(self) -> bool:
        """Whether the registry is on this machine, which is spoken to over plain HTTP."""
        import ipaddress

        if self.hostname == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.hostname).is_loopback
        except ValueError:
            return False


def _host(text: str) -> str:
    """A host as all its spellings are written: a rule of the policy is for each of them."""
    host = text.lower()
    if not Reference(host, "").is_local:
        host = host.removesuffix(":443")
    return HUB if host in _HUBS else host


def is_image(path: str) -> bool:
    """Whether a FILE is an image in a registry, and not a path."""
    return path.startswith(SCHEME)


def digest_of(data: bytes) -> str:
    """How registries name what they keep."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def is_digest(text: object) -> bool:
    return isinstance(text, str) and bool(re.fullmatch(_DIGEST, text))


class Labels(NamedTuple):
    """What an image says of its object: names of programs and maps, each with its type.

    `name` is what its file is called. Each may be empty: then nothing is said.
    """

    name: str = ""
    programs: Mapping[str, str] = {}
    maps: Mapping[str, str] = {}
