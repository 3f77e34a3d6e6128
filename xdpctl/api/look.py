"""What an interface runs, for Python: what `xdpctl status --json` is made of."""

from __future__ import annotations

from ..bpffs.mount import Bpffs
from ..errors import explained
from ..host import rights
from ..host.interfaces import Interface
from ..model.state import State
from ..observe.reading import observe


def look(interface: str, *, bpffs: str | None = None) -> State:
    """An interface as it is now; nothing is changed, and nobody waits for a lock.

    `bpffs` defaults to LIBXDP_BPFFS or /sys/fs/bpf. Raises any XdpctlError (xdpctl.errors).
    """
    rights.require()
    pinned = Bpffs.chosen(bpffs)
    pinned.check_safe()
    try:
        return observe(Interface.named(interface), pinned)
    except OSError as error:
        raise explained(error) from error
