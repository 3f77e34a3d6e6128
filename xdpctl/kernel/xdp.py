"""The XDP hook of an interface over netlink: attach, detach, and what is there."""

from __future__ import annotations

import ctypes

from . import abi, libbpf, uapi
from .descriptor import Descriptor


def attach(ifindex: int, root: Descriptor, flags: int, expected: Descriptor | None = None) -> None:
    """Attach a root over netlink: in the place of the expected program, or else of none.

    Linux kernel commit 92234c8f15c8 "xdp: Support specifying expected existing program when
    attaching XDP" (in v5.7). EEXIST where another program is there, EBUSY where a bpf_link is.
    """
    flags |= uapi.XDP_FLAGS_REPLACE if expected else uapi.XDP_FLAGS_UPDATE_IF_NOEXIST
    options = abi.XdpAttachOpts(old_prog_fd=expected.fd if expected else 0)
    libbpf.call("bpf_xdp_attach", ifindex, root.fd, flags, ctypes.byref(options))


def detach(ifindex: int, flags: int, expected: Descriptor) -> None:
    """Detach the expected program over netlink; EEXIST where another one is there."""
    options = abi.XdpAttachOpts(old_prog_fd=expected.fd)
    libbpf.call("bpf_xdp_detach", ifindex, flags | uapi.XDP_FLAGS_REPLACE, ctypes.byref(options))


def query(ifindex: int) -> tuple[int, int]:
    """The id of the XDP program that an interface runs (0: none) and its XDP_ATTACHED_ mode.

    With programs in several modes at once the driver's comes first: packets meet it first.
    """
    options = abi.XdpQueryOpts()
    libbpf.call("bpf_xdp_query", ifindex, 0, ctypes.byref(options))
    if options.attach_mode != uapi.XDP_ATTACHED_MULTI:
        return options.prog_id, options.attach_mode
    for number, mode in (
        (options.hw_prog_id, uapi.XDP_ATTACHED_HW),
        (options.drv_prog_id, uapi.XDP_ATTACHED_DRV),
        (options.skb_prog_id, uapi.XDP_ATTACHED_SKB),
    ):
        if number:
            return number, mode
    return 0, uapi.XDP_ATTACHED_NONE
