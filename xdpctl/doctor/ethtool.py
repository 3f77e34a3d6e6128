"""What a driver tells of an interface of this network namespace, which /sys may not show."""

from __future__ import annotations

import array
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946
# <linux/ethtool.h>
_ETHTOOL_GDRVINFO, _ETHTOOL_GFLAGS, _ETHTOOL_GCHANNELS = 0x3, 0x25, 0x3C
_ETH_FLAG_RXVLAN, _ETH_FLAG_LRO = 1 << 8, 1 << 15


def driver(name: str) -> str:
    """The driver's name; empty if nobody tells it."""
    # struct ethtool_drvinfo, 196 bytes; the driver's name follows the command.
    answer = _asked(name, struct.pack("=I192x", _ETHTOOL_GDRVINFO))
    return answer[4:36].split(b"\0")[0].decode(errors="replace") if answer else ""


def offloads(name: str) -> tuple[bool | None, bool | None]:
    """Whether large receive offload is on, and whether VLAN tags are taken out; None: not told."""
    answer = _asked(name, struct.pack("=II", _ETHTOOL_GFLAGS, 0))
    if not answer:
        return None, None
    (flags,) = struct.unpack("=4xI", answer)
    return bool(flags & _ETH_FLAG_LRO), bool(flags & _ETH_FLAG_RXVLAN)


def channels(name: str) -> tuple[int, int] | None:
    """How many receive and transmit queues are in use; None if nobody tells."""
    answer = _asked(name, struct.pack("=I32x", _ETHTOOL_GCHANNELS))
    if not answer:
        return None
    # struct ethtool_channels: the command, four maxima, then rx, tx, other and combined.
    rx, tx, _other, combined = struct.unpack("=20x4I", answer)
    return rx + combined, tx + combined


def _asked(name: str, request: bytes) -> bytes:
    """The answer to a request of the same form; empty if there is none."""
    answer = array.array("B", request)
    words = struct.pack("16sQ16x", name.encode(errors="surrogateescape"), answer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        try:
            fcntl.ioctl(channel, _SIOCETHTOOL, words)
        except OSError:
            return b""
    return answer.tobytes()
