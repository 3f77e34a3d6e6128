"""The cards of a guest that tests/vm started with --cards: each with the card that sends to it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from tests.guests.cards import PLUG
from tests.guests.guest import GUEST_DIR
from tests.kernel import net

NAMES = tuple(os.environ.get("XDPCTL_CARDS", "").split())
"""The names of the cards that there are, in their order; see tests/guests/cards.py."""
_DRIVERS = ("virtio_net", "vmxnet3", "e1000e", "igb")


class Wire(net.Veth):
    """An interface and one that sends to it, as net.Veth has them; none is made or deleted here."""

    def __init__(self, dev: str, peer: str) -> None:
        self.dev, self.peer = dev, peer
        self.ifindex = socket.if_nametoindex(dev)
        self.peer_ifindex = socket.if_nametoindex(peer)

    def delete(self) -> None:
        """Others need it."""

    def up(self, mtu: int = 1500) -> None:
        """Both ends are up, with this MTU; returns when frames get through."""
        lines = [
            f"link set {one} addrgenmode none arp off mtu {mtu} up" for one in (self.dev, self.peer)
        ]
        net.ip("-batch", "-", batch="\n".join(lines))
        self.settle()

    def settle(self) -> None:
        """Wait until frames get through, as after a reset of the card."""
        self._wait_up()
        end = time.monotonic() + 60
        while True:
            before = net.counters(self.dev)["rx_packets"]
            with net._out(self.peer) as out:
                out.send(net.udp(0))
            # e1000e brings its numbers up to date every two seconds.
            until = time.monotonic() + 3
            while time.monotonic() < until:
                if net.counters(self.dev)["rx_packets"] > before:
                    return
                time.sleep(0.05)
            if time.monotonic() > end:
                raise RuntimeError(f"no frame reaches {self.dev}")


@cache
def _interfaces() -> dict[str, tuple[str, str]]:
    """By the names of cards: the interface, and the one that sends to it."""
    for driver in _DRIVERS:
        subprocess.run(["modprobe", driver], check=False)
    end = time.monotonic() + 30
    while True:
        places = {
            os.path.realpath(one / "device"): one.name
            for one in Path("/sys/class/net").iterdir()
            if (one / "device").exists()
        }
        if len(places) == 2 * len(NAMES):
            break
        if time.monotonic() > end:
            raise RuntimeError(f"of {len(NAMES)} cards and their senders there are {places}")
        time.sleep(0.1)
    # They were put into slots one after another: a card, and who sends to it.
    found = [places[one] for one in sorted(places)]
    return dict(zip(NAMES, zip(found[::2], found[1::2], strict=True), strict=True))


@contextmanager
def wire(name: str) -> Iterator[Wire]:
    """A card, up, with nothing of what an earlier test did to it."""
    for one in _interfaces()[name]:
        net._keep_apart(one)
        Path(f"/proc/sys/net/ipv6/conf/{one}/disable_ipv6").write_text("1")
    made = Wire(*_interfaces()[name])
    made.up()
    try:
        yield made
    finally:
        with suppress(RuntimeError):  # what a link holds goes with its pin
            net.ip("link", "set", made.dev, "xdp", "off")
        for one in (made.dev, made.peer):
            net.ip("link", "set", one, "down")


def plug(name: str, state: str) -> None:
    """Pull a card's plug ("off") or put it back ("on")."""
    asked = Path(GUEST_DIR, PLUG)
    asked.with_suffix(".new").write_text(f"{name} {state}")
    asked.with_suffix(".new").rename(asked)
    end = time.monotonic() + 30
    while asked.exists():
        if time.monotonic() > end:
            raise RuntimeError("tests/vm does not answer")
        time.sleep(0.05)


def ethtool(*words: str) -> str:
    """What ethtool(8) says if it refuses; empty if it did what was asked."""
    done = subprocess.run(["ethtool", *words], capture_output=True, text=True, check=False)
    return (done.stderr.strip() or "refused") if done.returncode else ""
