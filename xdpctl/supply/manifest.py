"""Manifests of images, as data: what a registry says, checked before it is believed.

Sources: the OCI image specification 1.1, and bpfman's document on shipping bytecode.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import BadObjectError, RegistryError, listed
from ..host.text import Json
from .reference import Labels, is_digest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

LIMIT = 4 << 20
"""The most bytes of a manifest, as the distribution specification has it."""
CONFIG_LIMIT = 1 << 20

TITLE = "org.opencontainers.image.title"
"""The annotation of a layer that says what its file is called."""

_MACHINES = {
    "x86_64": "amd64",
    "i686": "386",
    "aarch64": "arm64",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
}


def architecture() -> str:
    """What images call this machine."""
    import platform

    return _MACHINES.get(platform.machine(), platform.machine())


class Descriptor(NamedTuple):
    """A thing in a registry: its kind, its digest, its size in bytes, and what is said of it."""

    kind: str
    digest: str
    size: int
    annotations: Mapping[str, str] = {}

    @classmethod
    def parse(cls, what: str, value: object, limit: int) -> Descriptor:
        """Of an image that is called `what`. Raises RegistryError, also if it is too large."""
        if not isinstance(value, dict):
            raise wrong(what, "a part of its manifest is no object")
        digest, size, notes = value.get("digest"), value.get("size"), value.get("annotations") or {}
        if not is_digest(digest):
            raise wrong(what, "a part of its manifest has no digest of SHA-256")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise wrong(what, "a part of its manifest has no size")
        if size > limit:
            raise BadObjectError(
                f"{what} is too large",
                why=f"a part of it has {size} bytes, and may have {limit}",
                hint="see whether it is the image that was meant",
            )
        if not isinstance(notes, dict):
            raise wrong(what, "annotations of it are no object")
        texts = {name: text for name, text in notes.items() if isinstance(text, str)}
        return cls(str(value.get("mediaType") or ""), str(digest), size, texts)


def wrong(what: str, why: str) -> RegistryError:
    """The error for what no honest registry says of an image."""
    return RegistryError(
        f"what the registry has as {what} cannot be used",
        why=why,
        hint="push the image anew, or name another one",
    )


def parsed(what: str, data: bytes) -> Json:
    """A document of a registry's. Raises RegistryError."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise wrong(what, "it is not JSON") from error
    if not isinstance(found, dict):
        raise wrong(what, "it is no JSON object")
    return found


def is_index(what: str, document: Json) -> bool:
    """Whether a manifest leads to others. Raises RegistryError for one that may be read both ways.

    The kind that a registry tells is not looked at: the digest, and so a signature, does not cover
    it.
    """
    if "manifests" in document and ("layers" in document or "config" in document):
        raise wrong(what, "its manifest may be read in two ways")
    return "manifests" in document


def chosen(what: str, index: Json) -> Descriptor:
    """The image for this machine, of one for several. Raises RegistryError, BadObjectError."""
    entries = index["manifests"]
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise wrong(what, "the list of its images is none")
    wanted, there = architecture(), list[str]()
    for entry in entries:
        machine = _machine(entry)
        if machine == wanted or (machine is None and len(entries) == 1):
            return Descriptor.parse(what, entry, LIMIT)
        if machine not in (None, "unknown"):  # what builders say of how they built it
            there.append(str(machine))
    raise BadObjectError(
        f"{what} has no object for this machine",
        why=f"it has images for {listed(there)}, and this is {wanted}",
    )


def _machine(entry: Json) -> object:
    """The architecture that an image is for, if it is for Linux; None if it does not say."""
    system = entry.get("platform")
    if not isinstance(system, dict):
        return None
    if system.get("os") not in ("linux", "", None):
        return "unknown"
    return system.get("architecture")


def layer_of(what: str, manifest: Json, limit: int) -> Descriptor:
    """The one layer of a program's image. Raises RegistryError, BadObjectError."""
    layers = manifest.get("layers")
    if not isinstance(layers, list):
        raise wrong(what, "its manifest has no layers")
    if len(layers) != 1:
        raise BadObjectError(
            f"{what} is no image of a program",
            why=f"it has {len(layers)} layers, and one of a program has a single one",
            hint="xdpctl image push makes such an image of an object",
        )
    return Descriptor.parse(what, layers[0], limit)


def labels_of(what: str, config: Json) -> Labels:
    """Of an image's configuration. Raises BadObjectError for labels that make no sense.

    bpfman's form has JSON in ``io.ebpf.programs`` and ``io.ebpf.maps``; its earlier one has one
    program, in ``io.ebpf.bpf_function_name`` and ``io.ebpf.program_type``.
    """
    inner = config.get("config")
    found: Any = inner.get("Labels") if isinstance(inner, dict) else None
    if not isinstance(found, dict):
        return Labels()
    name = found.get("io.ebpf.filename")
    programs = _named(what, found, "io.ebpf.programs")
    function, kind = found.get("io.ebpf.bpf_function_name"), found.get("io.ebpf.program_type")
    if not programs and isinstance(function, str) and isinstance(kind, str):
        programs = {function: kind}
    return Labels(
        name if isinstance(name, str) else "", programs, _named(what, found, "io.ebpf.maps")
    )


def _named(what: str, labels: Json, key: str) -> dict[str, str]:
    text = labels.get(key)
    if text is None:
        return {}
    try:
        found = json.loads(text)
        if isinstance(found, dict) and all(isinstance(one, str) for one in found.values()):
            return found
    except (ValueError, TypeError, RecursionError):
        pass
    raise BadObjectError(
        f"the labels of {what} cannot be read",
        why=f"{key} is not JSON with names and types",
        hint="push the image anew: xdpctl image push",
    )
