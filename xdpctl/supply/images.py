"""Programs from a registry: an image named, fetched and unpacked, in a process of its own.

The process has a limit in time, whatever the registry does, and what it reads has limits in size
(client.py, manifest.py, layer.py). Manifests and layers are kept by their digests (host/cache), so
one that is named by its digest needs the registry once.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import BadObjectError, RegistryError, UnsupportedError, UsageError, listed
from ..host import cache, files, interfaces
from ..host.child import in_child
from ..host.text import Json
from ..kernel import libbpf
from ..value import Value
from . import layer, manifest, signatures
from .keys import Demand
from .manifest import Descriptor
from .reference import Labels, Reference, digest_of

if TYPE_CHECKING:
    from .client import Registry

LIMIT = 60.0
"""Seconds that all of it may take, unless a variable says otherwise."""
LIMIT_NAME = "XDPCTL_REGISTRY_TIMEOUT"


class Fetched(Value):
    """The object of an image: which image it is, by its digest, and what that says of it."""

    image: Reference
    data: bytes
    name: str
    labels: Labels


def fetch(image: Reference, demands: Sequence[Demand] = ()) -> Fetched:
    """The object of an image, which is signed as demanded.

    Raises UsageError, NotFoundError, RegistryError, UntrustedError, BadObjectError, and
    UnsupportedError without the library that talks to registries.
    """

    def work() -> tuple[Json, list[int]]:
        from .client import Registry

        found = _Fetch(Registry(image), demands)()
        fd = os.memfd_create("object")
        with open(os.dup(fd), "wb") as file:
            file.write(found.data)
        said = {"digest": found.image.digest, "name": found.name, "labels": found.labels._asdict()}
        return said, [fd]

    answer, (fd,) = apart(image, work)
    with libbpf.owned(fd):
        os.lseek(fd, 0, os.SEEK_SET)
        data = b"".join(files.chunks(fd))
    found = replace(image, digest=answer["digest"])
    return Fetched(found, data, answer["name"], Labels(**answer["labels"]))


def apart(image: Reference, work: Callable[[], tuple[Json, list[int]]]) -> tuple[Json, list[int]]:
    """Have a process of its own talk to a registry. Raises what that raises, and RegistryError."""
    if importlib.util.find_spec("requests") is None:
        raise UnsupportedError(
            f"{image} cannot be fetched: the Python library requests is missing",
            hint="install it: apt install python3-requests, or pip install 'xdpctl[oci]'",
        )
    limit = _limit()

    def from_home() -> tuple[Json, list[int]]:
        # A command may be in a network namespace that reaches nobody.
        interfaces.go_home()
        return work()

    try:
        return in_child(str(image), from_home, "the library that fetches", limit)
    except TimeoutError as error:
        raise RegistryError(
            f"{image.host} does not answer in time",
            why=f"all of it has taken more than {limit:g} s",
            hint=f"try again, or give it longer: {LIMIT_NAME} in the environment has the seconds",
        ) from error


def _limit() -> float:
    text = os.environ.get(LIMIT_NAME)
    if not text:
        return LIMIT
    try:
        found = float(text)
    except ValueError:
        found = 0
    if not 0 < found <= 3600:
        raise UsageError(
            f"{LIMIT_NAME}: {text!r} is not a time", hint="write seconds, 3600 at most"
        )
    return found


class _Fetch:
    """In the child: an image, from its name to its object."""

    def __init__(self, registry: Registry, demands: Sequence[Demand]) -> None:
        self.registry, self.what = registry, str(registry.image)
        self.demands = demands

    def __call__(self) -> Fetched:
        named = self.registry.image
        if named.digest:
            data, digest = self._manifest(named.digest), named.digest
        else:
            data, digest = self.registry.manifest(named.tag)
        signatures.check_image(self.registry, digest, self.demands)
        found = manifest.parsed(self.what, data)
        if manifest.is_index(self.what, found):
            one = manifest.chosen(self.what, found)
            data = self._manifest(one.digest)
            if len(data) != one.size:
                raise manifest.wrong(self.what, "a manifest in it has another size than it says")
            found = manifest.parsed(self.what, data)
            if manifest.is_index(self.what, found):
                raise manifest.wrong(self.what, "a list of images in it leads to another list")
        wanted = manifest.layer_of(self.what, found, layer.OBJECT)
        labels = self._labels(found)
        name, data = layer.object_of(self.what, self._blob(wanted))
        name = name or os.path.basename(wanted.annotations.get(manifest.TITLE, "")) or labels.name
        if labels.name and labels.name != name:
            raise BadObjectError(
                f"the labels of {self.what} are not true",
                why=f"io.ebpf.filename and the file's name differ: {listed([labels.name, name])}",
                hint="push the image anew: xdpctl image push",
            )
        return Fetched(replace(named, digest=digest), data, name, labels)

    def _labels(self, found: Json) -> Labels:
        config = Descriptor.parse(self.what, found.get("config"), layer.OBJECT)
        if config.kind not in (manifest.CONFIG, manifest.DOCKER_CONFIG):
            return Labels()  # that of an artifact is anything
        config = Descriptor.parse(self.what, found.get("config"), manifest.CONFIG_LIMIT)
        return manifest.labels_of(self.what, manifest.parsed(self.what, self._blob(config)))

    def _manifest(self, digest: str) -> bytes:
        return _kept(digest, lambda: self.registry.manifest(digest).data)

    def _blob(self, wanted: Descriptor) -> bytes:
        return _kept(wanted.digest, lambda: self.registry.blob(wanted))


def _kept(digest: str, get: Callable[[], bytes]) -> bytes:
    """What has a digest, from the cache if it is there."""
    data = cache.kept("image", digest.encode(), get)
    return data if digest_of(data) == digest else get()
