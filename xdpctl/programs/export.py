"""A chain that runs, as a file that `xdpctl apply` makes it of again."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence

from ..errors import NotFoundError, UnsupportedError, XdpctlError
from ..host import files
from ..kernel.program import Program
from ..model.chain import ON_END, ON_VACANT, USUAL, Member, action_names
from ..model.kinds import TRAITS
from ..model.record import PROTOCOL
from ..model.source import Image, Recipe
from ..model.state import Root, State
from ..supply.reference import is_image
from . import given, image
from .clang import is_source

_UNKNOWN = "Which file it was loaded from is not known."


class Objects:
    """The programs whose files are not there as they were, to be written into a `directory`.

    `files` has them by name.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.files: dict[str, bytes] = {}

    def path_of(self, program: Program, code: Image, name: str) -> str:
        """Where a program is to be written. Raises UnsupportedError."""
        from . import written

        data = written.of_running(program, code, name)
        # There may be several of one name. The name is what another's object says.
        called = re.sub(r"[^A-Za-z0-9_]", "_", name)
        file = f"{called}-{hashlib.sha256(data).hexdigest()[:12]}.o"
        self.files[file] = data
        return os.path.join(os.path.abspath(self.directory), file)


def text(state: State, bpffs: str, objects: Objects | None = None) -> str:
    """The chain file of an interface, in TOML; comments tell what it cannot say.

    It names `objects` where the file of a program is not known, or is not as it was.

    Raises NotFoundError where no chain runs, UnsupportedError for a program without a root of
    xdpctl's, and KernelError where a program is gone meanwhile.
    """
    root, name = state.root, state.interface.name
    if root is None:
        raise NotFoundError(f"no program is loaded on {name}", hint="see xdpctl status -a")
    if root.owner == "other" or TRAITS[root.kind].alone:
        raise UnsupportedError(
            f"program {root.id} ({root.name}) on {name} is no chain",
            why="a chain file describes programs that share an interface",
            hint=f"xdpctl adopt {name} FILE makes a chain of it",
        )
    lines = [f"# The chain of {name}, as it ran.", *_rules(root, state)]
    members = state.chain.members
    if not members:
        lines.append("program = []")
    for member in members:
        lines += ["", *_program(member, bpffs, objects)]
    return "\n".join(lines) + "\n"


def _rules(root: Root, state: State) -> Iterator[str]:
    rules = root.rules
    if root.mode != "native":
        yield f"mode = {_text(root.mode)}"
    if root.attach != "link":
        yield f"attach = {_text(root.attach)}"
    if state.sharing:
        yield "shared = true"
    config = root.config
    if root.kind == "fused" and config and not config.why:
        yield 'root = "fused"'
    bound = any(member.devbound for member in state.chain.members)
    if config and root.kind == "ext" and config.protocol != PROTOCOL and not bound:
        yield f"protocol = {config.protocol}"
    for key, verdict, usual, known in (
        ("on-end", rules.on_end, USUAL.on_end, ON_END),
        ("on-vacant", rules.on_vacant, USUAL.on_vacant, ON_VACANT),
    ):
        if verdict != usual:
            yield f"{key} = {_text(next(word for word, one in known.items() if one == verdict))}"


def _program(member: Member, bpffs: str, objects: Objects | None) -> Iterator[str]:
    called = json.dumps(member.known_as)  # no name leaves its comment
    if member.held:
        yield f"# {called} belongs to the process that holds it, and is not in this file."
        return
    yield "[[program]]"
    with Program.by_id(member.id) as running:
        found = image.of(running.info)
        recipe = found.recipe if found else None
        remark = _remark(recipe)
        path = None
        if remark and objects and found:
            try:
                path = objects.path_of(running, found, recipe.program if recipe else member.name)
            except UnsupportedError as error:
                yield f"# It cannot be written as an object: {json.dumps(error.why)}"
    if path is not None:
        yield f"# As it ran; its maps begin empty. {remark}"
        yield f"file = {_text(path)}"
        if recipe and recipe.pin_path:
            yield f"# No map of it asks for its pin in {json.dumps(recipe.pin_path)}."
        recipe = None  # what was said of constants and entries is in it
    elif recipe is None or remark == _UNKNOWN:
        yield f"# Which file {called} was loaded from is not known: name it."
        yield '# file = ""'
        yield f"prog-name = {_text(member.name)}"
    else:
        if remark:
            yield f"# {remark}"
        yield f"file = {_text(recipe.file)}"
        yield f"prog-name = {_text(recipe.program)}"
    yield f"prio = {member.priority}"
    yield f"actions = {_texts([one.removeprefix('XDP_').lower() for one in _actions(member)])}"
    if member.label:
        yield f"name = {_text(member.label)}"
    for key, names in (("before", member.before), ("after", member.after)):
        if names:
            yield f"{key} = {_texts(names)}"
    if recipe:
        yield from _loading(recipe, bpffs)


def _actions(member: Member) -> list[str]:
    return [one for one in action_names(member.actions) if not one.isdecimal()]


def _loading(recipe: Recipe, bpffs: str) -> Iterator[str]:
    """How the program was made."""
    for key, option in (("include", "-I"), ("define", "-D")):
        if found := [one[2:] for one in recipe.flags if one.startswith(option)]:
            yield f"{key} = {_texts(found)}"
    if recipe.bcc is not None:
        yield f"bcc = {str(recipe.bcc).lower()}"
    if recipe.pin_path not in (None, bpffs):
        yield f"pin-path = {_text(recipe.pin_path or '')}"
    if recipe.constants:
        yield f"constants = {_table({name: _text(value) for name, value in recipe.constants})}"
    if recipe.entries:
        yield f"entries = {_table({name: str(value) for name, value in recipe.entries})}"
    if recipe.tails:
        yield f"tail = {_table({name: _text(value) for name, value in recipe.tails})}"


def _remark(recipe: Recipe | None) -> str:
    """What is to be known of the file, if it is not as it was."""
    if recipe is None or recipe.file == files.STANDARD_INPUT or not _can_be_written(recipe):
        return _UNKNOWN
    if is_image(recipe.file):
        return ""  # its digest says what it is, wherever the registry is
    if not os.path.exists(recipe.file):
        return "The file is gone."
    if is_source(recipe.file) or not recipe.digest:
        return ""
    try:
        digest = hashlib.sha256(given.read(recipe.file)).hexdigest()
    except XdpctlError:
        return "The file cannot be read."
    return "" if digest == recipe.digest else "The file has changed since the program was loaded."


def _can_be_written(recipe: Recipe) -> bool:
    """Whether the path is text: TOML has no other bytes."""
    try:
        return bool(recipe.file.encode())
    except UnicodeEncodeError:
        return False


def _text(value: str) -> str:
    """A basic string of TOML: as JSON's, with escapes for all that is not to be seen."""
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(one if one.isprintable() else _escape(ord(one)) for one in quoted)


def _escape(number: int) -> str:
    return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"


def _texts(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"


def _table(values: Mapping[str, str]) -> str:
    return f"{{ {', '.join(f'{_text(name)} = {value}' for name, value in values.items())} }}"
