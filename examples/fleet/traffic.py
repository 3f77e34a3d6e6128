#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Numbered packets to some hosts, and what becomes of them, counted on both sides.

    python3 traffic.py send ADDRESS...
    python3 traffic.py answer

Both go on until SIGTERM, and then print what they counted as JSON. The first byte of a packet is 0
when it is sent: firewall.c writes its version there.
"""

import json
import signal
import socket
import struct
import sys
import time
from collections import Counter

PORT = 7007
PERIOD = 0.01
"""Seconds between two packets to a host."""
_PACKET = struct.Struct("!BI")
_NO_CHECKSUM = 11
_ROOM = 33
"""SO_NO_CHECK and SO_RCVBUFFORCE of asm-generic/socket.h: a program that writes into a packet has
no checksum to correct, and root gets as large a buffer as it asks for."""


stopping = False


def stop(*_: object) -> None:
    global stopping
    stopping = True


def opened() -> socket.socket:
    """A socket that holds what comes in while the processors have other things to do."""
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.setsockopt(socket.SOL_SOCKET, _NO_CHECKSUM, 1)
    found.setsockopt(socket.SOL_SOCKET, _ROOM, 1 << 22)
    return found


def answers(out: socket.socket, seconds: float) -> int:
    """How many have come, once none came for so long."""
    found = 0
    out.settimeout(seconds)
    while True:
        try:
            out.recv(_PACKET.size)
        except (TimeoutError, BlockingIOError):
            return found
        found += 1


def send(addresses: list[str]) -> None:
    """Print packets sent and answered, by address."""
    sockets = {address: opened() for address in addresses}
    for address, out in sockets.items():
        out.connect((address, PORT))
    sent = 0
    came = dict.fromkeys(addresses, 0)
    print("sending", flush=True)
    while not stopping:
        for address, out in sockets.items():
            out.send(_PACKET.pack(0, sent))
            came[address] += answers(out, 0)
        sent += 1
        time.sleep(PERIOD)
    for address, out in sockets.items():
        came[address] += answers(out, 1)
    print(json.dumps({address: {"sent": sent, "answered": came[address]} for address in came}))


def answer() -> None:
    """Print packets that came, by the version of the firewall that saw them; 0 for none."""
    counts = Counter[int]()
    with opened() as here:
        here.bind(("", PORT))
        here.settimeout(0.2)
        print("answering", flush=True)
        while not stopping:
            try:
                data, sender = here.recvfrom(_PACKET.size)
            except TimeoutError:
                continue
            counts[data[0]] += 1
            here.sendto(data, sender)
    print(json.dumps(counts))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    match sys.argv[1:]:
        case ["send", *addresses] if addresses:
            send(addresses)
        case ["answer"]:
            answer()
        case _:
            sys.exit("usage: traffic.py send ADDRESS... | traffic.py answer")
