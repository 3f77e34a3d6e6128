"""A guest's network cards: each on a wire of its own to a plain card that sends to it.

A wire is a bridge of two taps in a network namespace made for the guest, and carries 9000 bytes. A
guest pulls a card's plug, and puts it back, by writing `NAME off` or `NAME on` to the file PLUG in
its GUEST_DIR; the file goes when that is done.
"""

import contextlib
import json
import re
import shlex
import socket
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

CARD_MAC, SENDER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
"""The same on each wire: those of tests/kernel/net.py."""
PLUG = "plug"
MTU = 9000


class Card(NamedTuple):
    """One of QEMU's: its options, and how many queues its tap has."""

    name: str
    device: str
    queues: int = 1


KNOWN = (
    Card("virtio", "virtio-net-pci,mq=on,vectors=10,host_mtu=9000", 4),
    # Its driver cannot turn off what the host may do to packets.
    Card("fixed", "virtio-net-pci,ctrl_guest_offloads=off,host_mtu=9000"),
    Card("vmxnet3", "vmxnet3"),
    Card("e1000e", "e1000e"),
    Card("igb", "igb"),
)
# A plain one takes frames as they are, and has no more to say.
SENDER = f"virtio-net-pci,mac={SENDER_MAC},host_mtu={MTU}"


@cache
def cards() -> tuple[Card, ...]:
    """Those that this machine's QEMU has."""
    words = ["qemu-system-x86_64", "-device", "help"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    names = set(re.findall(r'^name "([^"]+)"', said, re.MULTILINE))
    return tuple(card for card in KNOWN if card.device.split(",")[0] in names)


def wired(argv: list[str]) -> list[str]:
    """A command that makes the wires in a network namespace of its own, and runs `argv` there."""
    lines = ["set -e", "mount -t sysfs sysfs /sys"]
    # Nothing but what the guest sends is on a wire.
    lines += ["echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6 || true"]
    for card in cards():
        bridge = f"b-{card.name}"
        lines += [f"ip link add {bridge} type bridge forward_delay 0 mcast_snooping 0"]
        for tap, queues in ((f"c-{card.name}", card.queues), (f"s-{card.name}", 1)):
            many = " multi_queue" if queues > 1 else ""
            lines += [f"ip tuntap add dev {tap} mode tap{many}"]
            # As long as the card does not take them, frames wait here.
            lines += [f"ip link set {tap} mtu {MTU} txqueuelen 20000 master {bridge} up"]
        lines += [f"ip link set {bridge} up"]
    script = "\n".join([*lines, f"exec {shlex.join(argv)}"])
    return ["unshare", "--net", "--mount", "sh", "-c", script]


def options(shared: Path) -> list[str]:
    """QEMU's options for the cards. Each is in a slot of its own, as on a real machine."""
    argv = ["-M", "q35", "-qmp", f"unix:{shared}/qmp,server=on,wait=off"]
    number = 0
    for card in cards():
        ends = (
            (f"c-{card.name}", card.queues, f"{card.device},mac={CARD_MAC},id={card.name}"),
            (f"s-{card.name}", 1, f"{SENDER},id=sender-{card.name}"),
        )
        for tap, queues, device in ends:
            many = f",queues={queues}" if queues > 1 else ""
            number += 1
            argv += [
                "-netdev",
                f"tap,id={tap},ifname={tap},script=no,downscript=no,vhost=off{many}",
            ]
            argv += ["-device", f"pcie-root-port,id=port{number},slot={number}"]
            argv += ["-device", f"{device},netdev={tap},bus=port{number}"]
    return argv


def serve(shared: Path) -> None:
    """Do what the guest asks of a plug, if it asks."""
    asked = shared / PLUG
    if not asked.exists():
        return
    name, state = asked.read_text().split()
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(shared / "qmp"))
        answers = channel.makefile("r")
        link = {"name": name, "up": state == "on"}
        for command, arguments in (("qmp_capabilities", {}), ("set_link", link)):
            request = {"execute": command, "arguments": arguments}
            channel.sendall(json.dumps(request).encode() + b"\n")
        with contextlib.suppress(StopIteration):
            done = 0
            while done < 2:  # between the answers there may be events
                done += not {"return", "error"}.isdisjoint(json.loads(next(answers)))
    asked.unlink()
