"""What BPF programs hand over as perf events."""

from __future__ import annotations

import ctypes
import errno

from ..errors import KernelError
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

    def poll(self, seconds: float) -> list[bytes]:
        """What there is, after a wait of so long at most if there is nothing yet."""
        self._samples.clear()
        try:
            libbpf.call("perf_buffer__poll", self._handle, round(seconds * 1000))
        except KernelError as error:
            if error.errno != errno.EINTR:
                raise
        return list(self._samples)

    def close(self) -> None:
        libbpf.lib().perf_buffer__free(self._handle)
