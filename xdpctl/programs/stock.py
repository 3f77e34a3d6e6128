"""Loaders that stay: for programs that a command loads once for each of several interfaces.

Each load runs in a child process (loading.py), which costs more than what it does there. What is
loaded a second time in the same way is loaded by a process that stays for the third.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..errors import KernelError
from ..host.child import Worker
from ..host.text import Json
from ..model.source import Source
from . import loading
from .loading import Loaded
from .refusal import explained

MOST = 64
"""Loads by one process: libbpf's memory of each stays with it."""


class Loader:
    """A process that loads a program of an object again and again. It has to be closed.

    What may differ is whose maps the program shares. It is to be plain: the process knows no pins
    of later. An EXT program is loaded for its first target.
    """

    def __init__(self, source: Source, frags: bool, target: tuple[int, str] | None) -> None:
        def work(question: Json) -> tuple[Json, list[int]]:
            asked = replace(source, maps_of=question["maps_of"])
            return loading.loaded(asked, frags, target, apart=False, device=None)

        loading.check_vetted(source)
        self._source, self._target = source, target
        self.loads = 0
        self._worker = Worker(source.path, work, keeping=[target[0]] if target else [])

    def load(self, maps_of: int) -> Loaded:
        """loading.load() for a source with these maps; raises what that does."""
        self.loads += 1
        try:
            told = self._worker.ask({"maps_of": maps_of})
        except KernelError as error:
            asked = replace(self._source, maps_of=maps_of)
            raise explained(asked, error, self._target, None) from error
        return loading.received(*told)

    def close(self) -> None:
        self._worker.close()


class _Wanted(NamedTuple):
    """What is loaded in the same way. An EXT program is for a `function` of a root of a `shape`."""

    source: Source
    frags: bool
    function: str
    shape: tuple[object, ...]


@dataclass(eq=False, repr=False)
class Stock:
    """The loaders of a command. It has to be closed."""

    _loaders: dict[_Wanted, Loader | None] = field(default_factory=dict)
    """For what was loaded once, and changed and needs nothing but itself."""

    def load(
        self,
        source: Source,
        frags: bool,
        target: tuple[int, str] | None = None,
        shape: tuple[object, ...] = (),
    ) -> Loaded:
        """loading.load(), perhaps for another root of the same `shape` that came earlier.

        An EXT program may be hooked onto another root than it was loaded for: Linux kernel commit
        4a1e7c0c63e0 "bpf: Support attaching freplace programs to multiple attach points" (v5.10).
        """
        wanted = _Wanted(replace(source, maps_of=0), frags, target[1] if target else "", shape)
        if source.image or wanted not in self._loaders:
            found = loading.load(source, frags, target)
            if found.is_plain:
                self._loaders[wanted] = None
            return found
        loader, self._loaders[wanted] = self._loaders[wanted], None
        if loader and loader.loads == MOST:
            loader.close()
            loader = None
        loader = loader or Loader(source, frags, target)
        try:
            found = loader.load(source.maps_of)
        except BaseException:
            loader.close()
            raise
        self._loaders[wanted] = loader
        return found

    def close(self) -> None:
        """Have the loaders end; may be called again."""
        for loader in filter(None, self._loaders.values()):
            loader.close()
        self._loaders.clear()
