"""Debian's packages of any release and architecture, to be unpacked and never installed.

They come from the mirrors that apt uses already, into directories of their own.
"""

from collections.abc import Sequence
from pathlib import Path

from .common import CHECKOUT, call


class Packages:
    """Those of some suites for one architecture; what is fetched lies below `work`."""

    def __init__(self, work: Path, suites: Sequence[str], arch: str) -> None:
        self._debs, archives = work / "debs", work / "cache/archives"
        for directory in (work / "lists/partial", archives / "partial", self._debs):
            directory.mkdir(parents=True)
        (work / "sources.list").write_text(call(CHECKOUT / "tests/image", "sources", *suites))
        self._archives = archives
        self._flags = ["-q", "-oAPT::Sandbox::User=root", "-oDebug::NoLocking=true"]
        self._flags += [f"-oAPT::Architecture={arch}", f"-oAPT::Architectures={arch}"]
        self._flags += [f"-oDir::Etc::sourcelist={work}/sources.list"]
        self._flags += ["-oDir::Etc::sourceparts=/dev/null", f"-oDir::State::lists={work}/lists"]
        self._flags += ["-oDir::State::status=/dev/null", f"-oDir::Cache={work}/cache"]
        # What cannot be reached is an error, not a warning and a list without packages.
        call("apt-get", *self._flags, "-oAPT::Update::Error-Mode=any", "update")

    def names(self, beginning: str) -> set[str]:
        return {*call("apt-cache", *self._flags, "pkgnames", beginning).split()}

    def fetch(self, names: Sequence[str]) -> list[Path]:
        """The files of these packages."""
        call("apt-get", *self._flags, "download", *names, cwd=self._debs)
        return list(self._debs.iterdir())

    def fetch_with_depends(self, names: Sequence[str]) -> list[Path]:
        """The files of these packages and of all that they depend on."""
        flags = ["--no-install-recommends", "--download-only", "--yes"]
        call("apt-get", *self._flags, *flags, "install", *names)
        return list(self._archives.glob("*.deb"))
