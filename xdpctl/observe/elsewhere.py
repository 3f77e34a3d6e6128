"""What others pinned, and what may run in other network namespaces."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from ..bpffs import homes
from ..bpffs.mount import Bpffs
from ..errors import KernelError, unless_short
from ..host import interfaces
from ..host.interfaces import Interface
from ..kernel import libbpf, netlink, records
from ..kernel.link import Link


def links_elsewhere(bpffs: Bpffs) -> Iterator[tuple[str, records.LinkInfo]]:
    """The EXT links that others pinned in the bpffs, each with its path."""
    for path in bpffs.pins_elsewhere():
        with unless_short(), Link.pinned(path) as found:
            if found.is_of("link") and (info := found.info).is_ext:
                yield path, info


def may_run_elsewhere(bpffs: Bpffs, root_id: int, home: str = "") -> bool:
    """Whether an interface runs a root that is recorded in another one's home, or might, unseen.

    So does one that moved to another network namespace. One in whose own home the root is recorded
    shares it, unless that is `home`. For roots attached over netlink: a link tells by itself
    whether its interface is there.
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
        try:
            with interfaces.entered(path) if name != here else contextlib.nullcontext():
                programs = netlink.xdp_programs()
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone meanwhile
        except OSError:
            refused.append(path)
            continue
        running = (ifindex for ifindex, (number, _mode) in programs.items() if number == root_id)
        own = (homes.of(bpffs, Interface("", ifindex, name)) for ifindex in running)
        if any(one.directory == home or not os.path.lexists(one.record(root_id)) for one in own):
            return True
    return bool(refused)
