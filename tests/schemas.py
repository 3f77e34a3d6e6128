"""The JSON Schemas of the wheel, and whether a document that was printed keeps to its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[1] / "xdpctl/schema"
SHARED = {"common", "change"}
"""Files that others refer to; the rest are the documents of a command, and of an error."""

# Documents on a line say of what kind they are by a field that no other has.
_LINES = {"where": "watch", "event": "monitor", "path": "trace", "error": "error"}


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """All schemas by the names of their files."""
    paths = sorted(DIRECTORY.glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


@cache
def _validator(name: str) -> Any:
    import jsonschema

    reference = {"$ref": f"{name}.json"}
    try:
        from referencing import Registry, Resource
    except ImportError:  # jsonschema before 4.18, as Debian 12 has it
        store = {f"{other}.json": schema for other, schema in schemas().items()}
        resolver = jsonschema.RefResolver("", reference, store=store)
        return jsonschema.Draft202012Validator(reference, resolver=resolver)
    found: Registry[Any] = Registry().with_resources(
        (f"{other}.json", Resource.from_contents(schema)) for other, schema in schemas().items()
    )
    return jsonschema.Draft202012Validator(reference, registry=found)


def errors(name: str, document: object) -> list[str]:
    """What is wrong with a document of a command; nothing if it keeps to the schema."""
    return [
        f"{name}: {error.json_path}: {error}" for error in _validator(name).iter_errors(document)
    ]


def kept(document: dict[str, Any]) -> dict[str, Any]:
    """The document, which has to keep to the schema of its command.

    One of a shape that was looked at before is not looked at again: that takes as long as the
    command itself.
    """
    kinds = [name for field, name in _LINES.items() if field in document]
    name = document.get("command") or kinds[0]
    shape = name, _shape(document)
    if shape not in _seen:
        assert errors(name, document) == []
        _seen.add(shape)
    return document


_seen: set[tuple[str, object]] = set()


def _shape(value: object) -> object:
    """The fields of a document and the types of their values."""
    if isinstance(value, dict):
        return frozenset((name, _shape(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return frozenset(map(_shape, value))
    return type(value)


def fields(schema: object) -> Iterator[str]:
    """The names of all fields that a schema has."""
    if isinstance(schema, dict):
        for key, inner in schema.items():
            if key == "properties":
                yield from inner
            yield from fields(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from fields(inner)
