"""An application as libxdp's users write them: it opens a socket and has libxdp do the rest.

    libxdp_app.py INTERFACE

Says on standard output what libxdp answers, and closes the socket when standard input ends.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_uint16, c_uint32, c_uint64, c_void_p

FRAMES, FRAME, XDP_COPY = 4096, 2048, 2


class Config(ctypes.Structure):
    """struct xsk_socket_config of <xdp/xsk.h>."""

    _fields_ = (
        ("rx_size", c_uint32),
        ("tx_size", c_uint32),
        ("libxdp_flags", c_uint32),
        ("xdp_flags", c_uint32),
        ("bind_flags", c_uint16),
    )


def main(interface: str) -> None:
    library = ctypes.CDLL("libxdp.so.1")
    library.xsk_umem__create.argtypes = (POINTER(c_void_p), c_void_p, c_uint64, *[c_void_p] * 3)
    library.xsk_socket__create.argtypes = (
        *(POINTER(c_void_p), c_char_p, c_uint32, c_void_p, c_void_p, c_void_p, POINTER(Config)),
    )
    memory = mmap.mmap(-1, FRAMES * FRAME)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    rings = [ctypes.create_string_buffer(256) for _ring in range(4)]
    umem, socket = c_void_p(), c_void_p()
    answer = library.xsk_umem__create(byref(umem), address, len(memory), rings[0], rings[1], None)
    if not answer:
        config = Config(2048, 2048, bind_flags=XDP_COPY)
        answer = library.xsk_socket__create(
            byref(socket), interface.encode(), 0, umem, rings[2], rings[3], byref(config)
        )
    print(os.strerror(-answer) if answer else "open", flush=True)
    sys.stdin.read()
    if not answer:
        library.xsk_socket__delete(socket)


if __name__ == "__main__":
    main(sys.argv[1])
