"""What others pinned, and what may run in other network namespaces."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from ..bpffs.mount import Bpffs
from ..errors import KernelError
from ..host import interfaces
from ..kernel import libbpf, netlink, records
from ..kernel.link import Link


def links_elsewhere(bpffs: Bpffs) -> Iterator[tuple[str, records.LinkInfo]]:
    """The EXT links that others pinned in the bpffs, each with its path."""
    for path in bpffs.pins_elsewhere():
        with contextlib.suppress(KernelError, OSError), Link.pinned(path) as found:
            if found.is_of("link") and (info := found.info).is_ext:
                yield path, info


def may_run_elsewhere(root_id: int) -> bool:
    """Whether another network namespace's interface runs a root, or might, unseen from here.

    For roots attached over netlink: a link tells by itself whether its interface is there.
    """
    here = interfaces.current()
    refused: list[str] = []
    try:
        os.close(libbpf.prog_fd(root_id))
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return False  # gone from the kernel: others have taken its place
        raise
    for name, path in interfaces.visible(refused):
        if name != here:
            try:
                with interfaces.entered(path):
                    programs = netlink.xdp_programs()
            except (FileNotFoundError, ProcessLookupError):
                continue  # gone meanwhile
            except OSError:
                refused.append(path)
                continue
            if any(root_id == number for number, _mode in programs.values()):
                return True
    return bool(refused)
