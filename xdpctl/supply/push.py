"""Making an image of an object, as bpfman has them, and bringing it to a registry."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import replace
from typing import NamedTuple

from ..host.text import Json
from . import manifest
from .reference import Labels, Reference, digest_of


class Image(NamedTuple):
    """The parts of an image; the same object with the same labels gives the same bytes."""

    layer: bytes
    config: bytes
    manifest: bytes

    @classmethod
    def of(cls, name: str, data: bytes, labels: Labels, architecture: str) -> Image:
        """An image of an object file."""
        plain = _archive(name, data)
        layer = gzip.compress(plain, mtime=0)
        config = _json(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {"Labels": _texts(name, labels)},
                "rootfs": {"type": "layers", "diff_ids": [digest_of(plain)]},
            }
        )
        whole = {
            "schemaVersion": 2,
            "mediaType": manifest.MANIFEST,
            "config": _descriptor(manifest.CONFIG, config),
            "layers": [
                {**_descriptor(manifest.LAYER, layer), "annotations": {manifest.TITLE: name}}
            ],
        }
        return cls(layer, config, _json(whole))

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)


def push(image: Reference, made: Image) -> Reference:
    """Bring an image to a registry under a tag; what it is called there, with its digest.

    Raises RegistryError, NotFoundError, UnsupportedError.
    """
    from . import images

    def work() -> tuple[Json, list[int]]:
        from .client import Registry

        registry = Registry(image, "pull,push")
        for part in (made.layer, made.config):
            registry.put_blob(part)
        registry.put_manifest(made.manifest, image.tag)
        return {}, []

    images.apart(image, work)
    return replace(image, digest=made.digest)


def _archive(name: str, data: bytes) -> bytes:
    """A file at the root of an archive, with nothing of this machine or this time."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        one = tarfile.TarInfo(name)
        one.size, one.mode = len(data), 0o644
        archive.addfile(one, io.BytesIO(data))
    return out.getvalue()


def _texts(name: str, labels: Labels) -> dict[str, str]:
    """Labels in bpfman's form, and for one program in its earlier one as well."""
    found = {
        "io.ebpf.filename": name,
        "io.ebpf.programs": _json(dict(labels.programs)).decode(),
        "io.ebpf.maps": _json(dict(labels.maps)).decode(),
    }
    if len(labels.programs) == 1:
        ((program, kind),) = labels.programs.items()
        found["io.ebpf.program_name"] = program
        found["io.ebpf.bpf_function_name"] = program
        found["io.ebpf.program_type"] = kind
    return found


def _descriptor(kind: str, data: bytes) -> Json:
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}


def _json(value: Json) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
