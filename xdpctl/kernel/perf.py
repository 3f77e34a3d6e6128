"""What BPF programs hand over as perf events."""

from __future__ import annotations

import ctypes
import select
from collections.abc import Sequence

from . import abi, libbpf


class PerfBuffer:
    """What BPF programs put into a map of perf events; what has no room is lost, and counted."""

    def __init__(self, map_fd: int, pages: int) -> None:
        self.lost = 0
        self._samples: list[bytes] = []
        # Kept here: the library calls them for as long as the buffer is there.
        self._calls = abi.SAMPLE_FN(self._sample), abi.LOST_FN(self._miss)
        self._handle = libbpf.pointer("perf_buffer__new", map_fd, pages, *self._calls, None, None)

    def _sample(self, _context: int, _cpu: int, data: int, size: int) -> None:
        self._samples.append(ctypes.string_at(data, size))

    def _miss(self, _context: int, _cpu: int, count: int) -> None:
        self.lost += count

    def fileno(self) -> int:
        """What can be waited for."""
        number: int = libbpf.lib().perf_buffer__epoll_fd(self._handle)
        return number

    def taken(self) -> list[bytes]:
        """What there is, whether or not it was waited for.

        The kernel tells a waiter of an event once (perf_poll() in kernel/events/core.c), and who
        waits for fileno() is that one: perf_buffer__poll() would find nothing.
        """
        self._samples.clear()
        libbpf.call("perf_buffer__consume", self._handle)
        return list(self._samples)

    def close(self) -> None:
        libbpf.lib().perf_buffer__free(self._handle)


def waited(buffers: Sequence[PerfBuffer], seconds: float) -> list[PerfBuffer]:
    """Those of some buffers that have something, after a wait of so long at most for the first."""
    by_number = {one.fileno(): one for one in buffers}
    polled = select.poll()  # select() takes no number from 1024 on
    for number in by_number:
        polled.register(number, select.POLLIN)
    return [by_number[number] for number, _event in polled.poll(seconds * 1000)]
