"""Who one is at a registry: the files that container tools keep their logins in.

`docker login`, `podman login`, `skopeo login` and `oras login` write them: containers-auth.json(5).
Helper programs (``credsStore``, ``credHelpers``) are not run.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import NotFoundError, XdpctlError
from ..host import files
from ..host.text import Json
from .reference import HUB, Reference

LIMIT = 1 << 20
"""The most bytes of such a file."""

_HUB_KEY = "https://index.docker.io/v1/"
"""What Docker's own registry is called in these files."""


class Login(NamedTuple):
    """A name and a password for a registry."""

    user: str
    password: str

    @property
    def header(self) -> str:
        """The value of a header Authorization."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def places() -> Iterator[str]:
    """The files in which logins are looked for; the first that knows the registry decides."""
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        yield named
        return
    home = os.path.expanduser("~")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield f"{runtime}/containers/auth.json"
    yield f"/run/containers/{os.geteuid()}/auth.json"
    yield f"{os.environ.get('XDG_CONFIG_HOME') or f'{home}/.config'}/containers/auth.json"
    yield f"{os.environ.get('DOCKER_CONFIG') or f'{home}/.docker'}/config.json"


def login(image: Reference) -> Login | None:
    """The login for an image's registry; None if no file has one.

    Raises XdpctlError for a file that cannot be used, and NotFoundError for one that is named in
    the environment and is not there.
    """
    for path in places():
        try:
            found = _logins(path)
        except NotFoundError:
            if path == os.environ.get("REGISTRY_AUTH_FILE"):
                raise
            continue
        for key in _keys(image):
            if (entry := found.get(key)) is not None and (login := _login(path, entry)) is not None:
                return login
    return None


def _keys(image: Reference) -> Iterator[str]:
    """What an entry for an image may be called, the most particular first."""
    parts = image.repository.split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join([image.host, *parts[:count]])
    yield image.host
    yield f"https://{image.host}"
    yield f"https://{image.host}/v1/"
    if image.host == HUB:
        yield _HUB_KEY


def _logins(path: str) -> Json:
    data = files.read(path, LIMIT)
    try:
        found = json.loads(data)
        logins = found.get("auths") or {}
        if isinstance(logins, dict):
            return logins
    except (ValueError, AttributeError, RecursionError):
        pass
    raise _unusable(path, "it is not what container tools write")


def _login(path: str, entry: object) -> Login | None:
    """The login of an entry; None for one that leaves it to a helper program."""
    if not isinstance(entry, dict):
        raise _unusable(path, "an entry in it is no object")
    text = entry.get("auth")
    if text:
        try:
            name, colon, secret = base64.b64decode(text, validate=True).decode().partition(":")
        except (binascii.Error, ValueError, TypeError) as error:
            raise _unusable(path, "an entry in it is not in base64") from error
        if colon:
            return Login(name, secret.rstrip("\0"))
    user, password = entry.get("username"), entry.get("password")
    if isinstance(user, str) and isinstance(password, str):
        return Login(user, password)
    return None


def _unusable(path: str, why: str) -> XdpctlError:
    return XdpctlError(
        f"the logins in {path} cannot be used",
        why=why,
        hint="log in anew with podman, docker or oras, or name another file in REGISTRY_AUTH_FILE",
    )
