"""An AF_XDP socket that receives (Documentation/networking/af_xdp.rst), without libxdp.

Copy mode; one fill ring and one receive ring of SIZE entries, a frame of 2,048 bytes each.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import socket
import struct
import threading
from types import TracebackType
from typing import Self

from tests.kernel import oracle

AF_XDP, SOL_XDP = 44, 283
MMAP_OFFSETS, RX_RING, UMEM_REG, FILL_RING, COMPLETION_RING, STATISTICS = 1, 2, 4, 5, 6, 7
PGOFF_RX, PGOFF_FILL = 0, 0x100000000
COPY = 1 << 1
SIZE, FRAME = 16384, 2048

_libc = ctypes.CDLL(None, use_errno=True)


class Ring:
    """One ring in shared memory: the places of its counters and of its entries, in bytes."""

    def __init__(self, fd: int, page_offset: int, offsets: tuple[int, ...], entry: int) -> None:
        self.producer, self.consumer, self.desc, _flags = offsets
        self.memory = mmap.mmap(fd, self.desc + SIZE * entry, offset=page_offset)

    def get(self, place: int) -> int:
        (value,) = struct.unpack_from("=I", self.memory, place)
        return int(value)

    def set(self, place: int, value: int) -> None:
        struct.pack_into("=I", self.memory, place, value & 0xFFFFFFFF)


class Receiver:
    """Receives on queue 0 of an interface in a thread of its own; `count` frames so far.

    Without `room` it gives the kernel no frames to receive into.
    """

    def __init__(self, ifindex: int, xskmap: int, *, room: bool = True) -> None:
        self.count = 0
        self._socket = socket.socket(AF_XDP, socket.SOCK_RAW)
        self.fd = self._socket.fileno()
        self._memory = mmap.mmap(-1, SIZE * FRAME)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._set(UMEM_REG, struct.pack("=QQIIII", address, SIZE * FRAME, FRAME, 0, 0, 0))
        for ring in (FILL_RING, COMPLETION_RING, RX_RING):
            self._set(ring, struct.pack("=I", SIZE))
        raw = self._socket.getsockopt(SOL_XDP, MMAP_OFFSETS, 128)
        offsets = [struct.unpack_from("=4Q", raw, 32 * which) for which in range(4)]
        self._rx = Ring(self.fd, PGOFF_RX, offsets[0], 16)
        self._fill = Ring(self.fd, PGOFF_FILL, offsets[2], 8)
        frames = range(0, SIZE * FRAME, FRAME)
        struct.pack_into(f"={SIZE}Q", self._fill.memory, self._fill.desc, *frames)
        self._fill.set(self._fill.producer, SIZE if room else 0)
        name = struct.pack("=HHIII", AF_XDP, COPY, ifindex, 0, 0)
        if _libc.bind(self.fd, name, len(name)) < 0:
            raise OSError(ctypes.get_errno(), "bind")
        oracle.map_update(xskmap, bytes(4), struct.pack("=I", self.fd))
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _set(self, option: int, value: bytes) -> None:
        self._socket.setsockopt(SOL_XDP, option, value)

    def dropped(self) -> int:
        """What the socket had no room for, of whatever kind."""
        raw = self._socket.getsockopt(SOL_XDP, STATISTICS, 48)
        dropped, _invalid, _tx, full, empty, _tx_empty = struct.unpack("=6Q", raw.ljust(48, b"\0"))
        return int(dropped + full + empty)

    def _receive(self) -> None:
        waiting = select.poll()
        waiting.register(self.fd, select.POLLIN)
        waiting.register(self._stop, select.POLLIN)
        taken, filled = 0, SIZE
        while True:
            ready = [fd for fd, _event in waiting.poll()]
            produced = self._rx.get(self._rx.producer)
            for number in range(taken, taken + (produced - taken & 0xFFFFFFFF)):
                place = self._rx.desc + 16 * (number % SIZE)
                frame = struct.unpack_from("=Q", self._rx.memory, place)[0] // FRAME * FRAME
                place = self._fill.desc + 8 * (filled % SIZE)
                struct.pack_into("=Q", self._fill.memory, place, frame)
                filled += 1
                self.count += 1
            taken += produced - taken & 0xFFFFFFFF
            self._rx.set(self._rx.consumer, taken)
            self._fill.set(self._fill.producer, filled)
            if self._stop in ready:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._stop)
        for ring in (self._rx, self._fill):
            ring.memory.close()  # it is a socket as long as a ring of it is mapped
        self._socket.close()
