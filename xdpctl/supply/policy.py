"""The policy of a machine: who has to sign the programs that come from a place.

The file /etc/xdpctl/policy.toml has rules. The first one that fits a source decides: programs from
there need a signature by one of its keys, or none. What no rule fits is refused. Without the file
there is no policy.

It is asked whenever a program comes in, for each way that there is:

=============================  ====================================================================
load, replace, adopt, test     each FILE, --object: by its path or its image (programs/given.py)
apply, watch --apply           each ``file`` of a chain file, in the same way
xdp-loader                     its files go the way of load
attach() of the Python API     paths in the same way; bytes are standard input
standard input                 has the name -; nothing can be signed beside it
C sources, BCC's among them    by their path; one that needs a signature is refused, since that
                               would not cover what it includes
a bcc.BPF                      has the name bcc; nothing can be signed beside it
--tail, callees, .rodata       are of the same object, and so covered by its signature
--maps, --like, --verify-key   bring in no program: --like joins a chain that runs
completion                     reads an object's names, and so asks as well
=============================  ====================================================================

What runs, or is kept in the kernel for a rollback, came in when it was loaded: the policy is not
asked again when a chain is changed, rolled back, counted or moved to another kind of root, or when
a chain of libxdp's is joined. What xdpctl itself loads (roots, counters, what monitor counts with)
is part of xdpctl.

So that no other way comes about unseen, what loads a program (programs/loading.py) refuses one that
was not `vetted`, while there is a policy. What export writes is loaded once to be compared with the
program that runs, and let go.

Root can remove the file, and has other ways to load programs. It is there so that nobody does by
mistake what was not meant, and so that who can write to a registry or a directory cannot.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..errors import BadObjectError, UntrustedError, XdpctlError, choices
from ..host import files, rights
from ..value import Value
from .keys import Demand, Key

FILE = "/etc/xdpctl/policy.toml"
LIMIT = 1 << 20

INPUT, MODULE = files.STANDARD_INPUT, "bcc"
"""What rules call standard input, and programs that a Python process compiled with BCC."""

_WHY = "it says which programs may be loaded"


class _Rule(Value):
    """Sources, and the keys for them; none if programs from there need no signature."""

    sources: tuple[str, ...]
    keys: tuple[str, ...]

    def fits(self, source: str) -> bool:
        import fnmatch

        return any(fnmatch.fnmatchcase(source, one) for one in self.sources)


def in_force() -> bool:
    """Whether there is a policy; one that cannot be read counts."""
    return os.path.lexists(FILE)


def demands(source: str, asked: Sequence[Demand] = ()) -> list[Demand]:
    """Who has to sign the programs from a source, besides those that a user has `asked` for.

    A `source` is the path of a file without symbolic links, an image without tag and digest, INPUT
    or MODULE. Raises UntrustedError if the policy refuses it, RightsError and BadObjectError for a
    policy that cannot be trusted or read.
    """
    if not in_force():
        return list(asked)
    rule = next((one for one in _rules() if one.fits(source)), None)
    if rule is None:
        raise UntrustedError(
            f"the policy of this machine refuses programs from {source}",
            why=f"no rule in {FILE} is for it",
            hint="load what a rule is for, or add one: see xdpctl-policy(5)",
        )
    if not rule.keys:
        return list(asked)
    directory = os.path.dirname(FILE)
    paths = [os.path.join(directory, path) for path in rule.keys]
    keys = tuple(Key.of(path, _own(path)) for path in paths)
    return [*asked, Demand(FILE, keys)]


def check_vetted(what: str, vetted: bool) -> None:
    """Raise UntrustedError for a program of which the policy, if there is one, was not asked."""
    if not vetted and in_force():
        raise UntrustedError(
            f"the policy of this machine refuses {what}", why=f"it came in past {FILE}"
        )


def _own(path: str) -> bytes:
    return rights.read_own(path, LIMIT, _WHY)


def _rules() -> list[_Rule]:
    """The rules of the file. Raises RightsError and BadObjectError."""
    try:
        data = _own(FILE)
    except XdpctlError as error:
        error.hint = error.hint or f"no program is loaded before {FILE} is in order"
        raise
    import tomllib

    try:
        found = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise _wrong("it is not TOML", str(error)) from error
    for key in found.keys() - {"rule"}:
        raise _wrong(f"unknown key {key!r}", hint="begin each rule with [[rule]]")
    rules = found.get("rule", [])
    if not isinstance(rules, list) or not all(isinstance(one, dict) for one in rules):
        raise _wrong("rule is no array of tables", hint="begin each rule with [[rule]]")
    return [_rule(number, one) for number, one in enumerate(rules, 1)]


def _rule(number: int, table: dict[str, Any]) -> _Rule:
    where = f"rule {number}"
    known = ("source", "keys", "unsigned")
    for key in table:
        if key not in known:
            raise _wrong(f"{where}: unknown key {key!r}", hint=choices(key, known))
    unsigned = table.get("unsigned", False)
    if not isinstance(unsigned, bool):
        raise _wrong(f"{where}: unsigned: neither true nor false")
    sources = _texts(where, "source", table.get("source"))
    if unsigned == ("keys" in table):
        raise _wrong(
            f"{where}: it has to have keys, or unsigned = true",
            hint='say keys = ["FILE"], any of which may have signed',
        )
    return _Rule(sources, () if unsigned else _texts(where, "keys", table["keys"]))


def _texts(where: str, key: str, value: object) -> tuple[str, ...]:
    found = value if isinstance(value, list) else [value]
    if not found or not all(isinstance(one, str) and one and "\0" not in one for one in found):
        raise _wrong(f"{where}: {key}: not a text or an array of texts")
    return tuple(found)


def _wrong(what: str, why: str = "", hint: str = "") -> BadObjectError:
    return BadObjectError(f"{FILE}: {what}", why=why, hint=hint)
