"""Real interfaces and packets: veth pairs, frames, senders and receivers.

Frames are bytes from the Ethernet header on, without checksum trailer. Each carries `COOKIE` and a
sequence number of 32 bits in network order behind it, wherever its protocol's payload begins, so
that ours are known from anybody else's and from each other. Lengths are in bytes, times in seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import json
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.kernel import rtnl

COOKIE = b"xdpctl\xbe\xef"
DEV_MAC, PEER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0003, 0x0800, 0x0806, 0x86DD
# veth_xmit queues to a ring of 256 frames while native XDP runs: larger bursts could overflow it.
BURST = 64

_SOL_PACKET, _PACKET_QDISC_BYPASS, _PACKET_OUTGOING = 263, 20, 4
_SO_RCVBUFFORCE = 33
_SIOCETHTOOL, _ETHTOOL_SGRO, _CLONE_NEWNET = 0x8946, 0x2C, 0x40000000
_SIOCGIFFLAGS, _IFF_RUNNING = 0x8913, 0x40
_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*words: str, netns: str | None = None, batch: str | None = None) -> str:
    """Run iproute2's ip, in the namespace of this name if one is given; its standard output.

    A `batch` has a command a line, for one process: starting one is dear in an emulated guest.
    What each test needs, rtnl.py does without any.
    """
    command = ["ip", *(["-n", netns] if netns else []), *words]
    done = subprocess.run(command, capture_output=True, text=True, input=batch)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def at_home() -> Iterator[None]:
    """Bring the calling thread back to the network namespace that it is in now."""
    with open("/proc/thread-self/ns/net") as home:
        try:
            yield
        finally:
            _setns(home.fileno())


class NetNs:
    """A named network namespace, deleted at the end; `lo` is up in it."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name or f"xt{os.getpid() % 10000}n{next(_numbers)}"
        ip("netns", "add", self.name)
        with self.entered():
            rtnl.set_up("lo")

    @property
    def path(self) -> Path:
        """The file that stands for it."""
        return Path("/run/netns") / self.name

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread into it for the length of a with statement."""
        with open(self.path) as there, at_home():
            _setns(there.fileno())
            yield

    def delete(self) -> None:
        """Delete it; its devices go once nothing else holds it."""
        if self.path.exists():
            ip("netns", "del", self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.delete()


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


class Veth:
    """A quiet veth pair in the current namespace: XDP goes on `dev`, frames go out of `peer`.

    `MAC`s are DEV_MAC and PEER_MAC; no IPv6, no ARP, no addresses. Deleted at the end. `name` and
    `ifindex` are those of `dev`, chosen by the kernel or here if they are not given.
    """

    def __init__(
        self,
        mtu: int | None = None,
        queues: int | None = None,
        *,
        name: str = "",
        ifindex: int = 0,
    ) -> None:
        stem = f"xt{os.getpid() % 10000}v{next(_numbers)}"
        self.dev, self.peer = name or f"{stem}a", f"{stem}b"
        try:
            # Without IPv6: the kernel's own packets stay off them.
            with sysctl("net/ipv6/conf/default/disable_ipv6", "1"):
                rtnl.add_veth(self.dev, self.peer, ifindex=ifindex, queues=queues)
                for one, mac in ((self.dev, DEV_MAC), (self.peer, PEER_MAC)):
                    rtnl.set_up(one, mac, mtu, quiet=True)
            for one in (self.dev, self.peer):
                _keep_apart(one)
            self.ifindex = socket.if_nametoindex(self.dev)
            self.peer_ifindex = socket.if_nametoindex(self.peer)
            self._wait_up()
        except BaseException:
            self.delete()
            raise

    def _wait_up(self) -> None:
        """Wait for the carrier: a frame sent before it is lost."""
        end = time.monotonic() + 30
        while not all(_is_running(one) for one in (self.dev, self.peer)):
            if time.monotonic() > end:
                raise RuntimeError(f"{self.dev} does not come up")
            time.sleep(0.01)

    def delete(self) -> None:
        """Delete the pair; XDP programs on it go with it."""
        with contextlib.suppress(OSError):
            rtnl.delete(self.dev)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.delete()


def link_facts(name: str) -> dict[str, Any]:
    """`ip -j -d link show` of one interface: see there for the shape."""
    facts: dict[str, Any] = json.loads(ip("-j", "-d", "link", "show", "dev", name))[0]
    return facts


@contextlib.contextmanager
def sysctl(name: str, value: str) -> Iterator[None]:
    """Give what /proc/sys has by this name another value meanwhile, if there is such a thing."""
    switch = Path("/proc/sys") / name
    before = switch.read_text() if switch.exists() else None
    try:
        if before is not None:
            switch.write_text(value)
        yield
    finally:
        if before is not None:
            switch.write_text(before)


def _is_running(name: str) -> bool:
    """Whether an interface has a carrier (netdevice(7), SIOCGIFFLAGS)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        answer = fcntl.ioctl(s, _SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
    return bool(struct.unpack_from("16xH", answer)[0] & _IFF_RUNNING)


def _keep_apart(name: str) -> None:
    """Do not let the kernel merge packets that come in."""
    value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_SGRO, 0))
    request = struct.pack("16sQ16x", name.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s, contextlib.suppress(OSError):
        fcntl.ioctl(s, _SIOCETHTOOL, request)


def counters(name: str) -> dict[str, int]:
    """rx_packets, rx_dropped, tx_packets, tx_dropped … of an interface, since it was made.

    Taken from /proc of the calling thread, since /sys shows the namespace that it was mounted in.
    A veth device counts in rx_packets what native XDP has seen, whatever the verdict, and in
    tx_dropped what its peer had no room for: such frames no program ever saw.
    """
    columns = ("bytes", "packets", "errors", "dropped", "fifo", "frame", "compressed", "multicast")
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        left, colon, right = line.partition(":")
        if colon and left.strip() == name:
            numbers = [int(one) for one in right.split()]
            found = {f"rx_{c}": n for c, n in zip(columns, numbers[:8], strict=True)}
            return found | {f"tx_{c}": n for c, n in zip(columns, numbers[8:], strict=True)}
    raise OSError(errno.ENODEV, f"no interface {name}")


# Frames


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of some bytes, in host order."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _payload(seq: int, payload: bytes, room: int) -> bytes:
    """Cookie, number and payload, filled up to `room` bytes with zeros."""
    return (COOKIE + struct.pack("!I", seq) + payload).ljust(room, b"\0")


def ethernet(ethertype: int, body: bytes, dst: bytes = DEV_MAC, src: bytes = PEER_MAC) -> bytes:
    """A frame around `body`, from `peer` to `dev`."""
    return dst + src + struct.pack("!H", ethertype) + body


def ipv4(protocol: int, src: str, dst: str, body: bytes) -> bytes:
    """An IPv4 packet."""
    addresses = socket.inet_aton(src) + socket.inet_aton(dst)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, 64, protocol, 0)
    total = checksum(head + addresses)
    return head[:10] + struct.pack("!H", total) + addresses + body


def _pseudo(protocol: int, src: str, dst: str, length: int) -> bytes:
    if ":" in src:
        both = socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst)
        return both + struct.pack("!II", length, protocol)
    return socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack("!BBH", 0, protocol, length)


def _udp_body(seq: int, sport: int, dport: int, src: str, dst: str, data: bytes) -> bytes:
    head = struct.pack("!HHH", sport, dport, 8 + len(data))
    total = checksum(_pseudo(17, src, dst, 8 + len(data)) + head + b"\0\0" + data)
    return head + struct.pack("!H", total or 0xFFFF) + data


def udp(
    seq: int,
    sport: int = 1000,
    dport: int = 2000,
    src: str = "10.9.0.2",
    dst: str = "10.9.0.1",
    payload: bytes = b"",
    size: int = 100,
) -> bytes:
    """A UDP frame of `size` bytes at least."""
    data = _payload(seq, payload, size - 42)
    return ethernet(ETH_P_IP, ipv4(17, src, dst, _udp_body(seq, sport, dport, src, dst, data)))


def tcp(
    seq: int,
    sport: int = 1000,
    dport: int = 2000,
    flags: int = 0x02,
    src: str = "10.9.0.2",
    dst: str = "10.9.0.1",
    payload: bytes = b"",
    size: int = 100,
) -> bytes:
    """A TCP frame, a SYN by default (flags: FIN 1, SYN 2, RST 4, PSH 8, ACK 16)."""
    data = _payload(seq, payload, size - 54)
    # TCP numbers that do not follow on each other: receive offload must not merge the segments.
    head = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, 0, 0x50, flags, 8192, 0, 0)
    total = checksum(_pseudo(6, src, dst, len(head) + len(data)) + head + data)
    head = head[:16] + struct.pack("!HH", total, 0)
    return ethernet(ETH_P_IP, ipv4(6, src, dst, head + data))


def icmp(
    seq: int,
    src: str = "10.9.0.2",
    dst: str = "10.9.0.1",
    payload: bytes = b"",
    size: int = 100,
) -> bytes:
    """An ICMP echo request."""
    data = _payload(seq, payload, size - 42)
    rest = struct.pack("!HH", 1, seq & 0xFFFF) + data
    total = checksum(struct.pack("!BBH", 8, 0, 0) + rest)
    return ethernet(ETH_P_IP, ipv4(1, src, dst, struct.pack("!BBH", 8, 0, total) + rest))


def arp(
    seq: int,
    src: str = "10.9.0.2",
    dst: str = "10.9.0.1",
    payload: bytes = b"",
    size: int = 100,
) -> bytes:
    """An ARP request; the cookie is in what follows it."""
    head = struct.pack("!HHBBH", 1, ETH_P_IP, 6, 4, 1) + PEER_MAC + socket.inet_aton(src)
    body = head + bytes(6) + socket.inet_aton(dst)
    return ethernet(ETH_P_ARP, body + _payload(seq, payload, size - 42))


def ipv6(
    seq: int,
    sport: int = 1000,
    dport: int = 2000,
    src: str = "fd09::2",
    dst: str = "fd09::1",
    payload: bytes = b"",
    size: int = 100,
) -> bytes:
    """A UDP frame over IPv6."""
    data = _payload(seq, payload, size - 62)
    body = _udp_body(seq, sport, dport, src, dst, data)
    both = socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst)
    return ethernet(ETH_P_IPV6, struct.pack("!IHBB", 6 << 28, len(body), 17, 64) + both + body)


def udps(count: int, start: int = 0, size: int = 100) -> list[bytes]:
    """`count` UDP frames, numbered from `start`."""
    return [udp(start + i, size=size) for i in range(count)]


def seq_of(frame: bytes) -> int | None:
    """The sequence number of one of our frames, wherever the cookie is by now; else None."""
    at = frame.find(COOKIE)
    if at < 0 or len(frame) < at + len(COOKIE) + 4:
        return None
    return int.from_bytes(frame[at + len(COOKIE) : at + len(COOKIE) + 4], "big")


def seqs(frames: Sequence[bytes]) -> list[int | None]:
    """The sequence numbers of frames."""
    return [seq_of(one) for one in frames]


# Sending and receiving


def _out(name: str) -> socket.socket:
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.bind((name, 0))
    return s


def _grace_period() -> None:
    """Wait until every CPU is done with the packets that it is at now.

    membarrier(2) for all processes is an RCU grace period, which does not end within a softirq.
    """
    number = {"x86_64": 324, "aarch64": 283}[platform.machine()]
    _libc.syscall(ctypes.c_long(number), ctypes.c_long(1), ctypes.c_long(0), ctypes.c_long(0))


class Sniffer:
    """What comes in on `dev` and gets past XDP: an AF_PACKET receiver, listening at once."""

    def __init__(self, dev: str) -> None:
        self.dev = dev
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        # A frame takes about 1 KiB of it with the kernel's bookkeeping.
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 256 << 20)
        self._socket.bind((dev, ETH_P_ALL))
        self._socket.setblocking(False)

    def collect(self, expected: int, timeout: float) -> list[bytes]:
        """Our frames that came in, once there are `expected` or `timeout` is over."""
        frames: list[bytes] = []
        end = time.monotonic() + timeout
        while len(frames) < expected:
            try:
                frame, address = self._socket.recvfrom(1 << 16)
            except BlockingIOError:
                left = end - time.monotonic()
                if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                    break
                continue
            if address[2] != _PACKET_OUTGOING and seq_of(frame) is not None:
                frames.append(frame)
        return frames

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def send(veth: Veth, frames: Sequence[bytes], timeout: float = 30.0) -> None:
    """Send frames out of `peer` and wait until `dev` has counted all of them.

    RuntimeError when the pair itself lost some, so that a harness too fast for its machine is not
    mistaken for a program that missed packets.
    """
    before, lost = counters(veth.dev)["rx_packets"], counters(veth.peer)["tx_dropped"]
    with _out(veth.peer) as s:
        for start in range(0, len(frames), BURST):
            burst = frames[start : start + BURST]
            for frame in burst:
                s.send(frame)
            end = time.monotonic() + timeout
            while counters(veth.dev)["rx_packets"] - before < start + len(burst):
                dropped = counters(veth.peer)["tx_dropped"] - lost
                if dropped or time.monotonic() > end:
                    raise RuntimeError(f"{veth.dev}: of {len(frames)} frames {dropped} got lost")
                time.sleep(0.001)


def exchange(veth: Veth, frames: Sequence[bytes], quiet: float = 0.1) -> list[bytes]:
    """Send frames out of `peer`; those that got past XDP on `dev`, in order of arrival.

    Returns once all came, or `quiet` seconds after `dev` had counted the last. A CPU that has
    counted a frame may not have handed it on yet: it is given the time for that.
    """
    with Sniffer(veth.dev) as sniffer:
        send(veth, frames)
        arrived: list[bytes] = []
        while more := sniffer.collect(len(frames) - len(arrived), quiet):
            arrived += more
        if len(arrived) < len(frames):
            _grace_period()
            arrived += sniffer.collect(len(frames) - len(arrived), 0)
        return arrived


class Flood:
    """A process that sends numbered UDP frames out of `peer` as fast as it can until `stop`.

    `sent` is then the number of frames that reached `dev` (programs on it must have seen just as
    many, less those still on their way for a moment), numbered from 0 with gaps of `lost`: frames
    that the pair had no room for. `rate`, frames a second, spares the machine.
    """

    def __init__(self, veth: Veth, size: int = 100, rate: float | None = None) -> None:
        self._veth, self._size, self._rate = veth, size, rate
        self.sent = self.lost = self._pid = 0

    def start(self) -> Self:
        """Begin; returns when the first frames are out."""
        self._dropped = counters(self._veth.peer)["tx_dropped"]
        self._received = counters(self._veth.dev)["rx_packets"]
        self._result, theirs = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            status = 1
            try:
                # A descriptor that the child inherits would keep links and programs alive.
                os.closerange(3, theirs)
                os.closerange(theirs + 1, 1 << 16)
                status = _flood(self._veth.peer, self._size, self._rate, theirs)
            finally:
                os._exit(status)
        os.close(theirs)
        if os.read(self._result, 1) != b"+":
            raise RuntimeError("the flood did not start")
        return self

    def stop(self) -> int:
        """End it and wait until `dev` has counted the last frame; returns `sent`."""
        os.kill(self._pid, signal.SIGTERM)
        said = b""
        while chunk := os.read(self._result, 64):
            said += chunk
        os.close(self._result)
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        if status or not said:
            raise RuntimeError(f"the flood ended with status {status}")
        attempts = int(said)
        self.lost = counters(self._veth.peer)["tx_dropped"] - self._dropped
        self.sent = attempts - self.lost
        end = time.monotonic() + 30
        while counters(self._veth.dev)["rx_packets"] - self._received < self.sent:
            if time.monotonic() > end:
                raise RuntimeError(f"{self._veth.dev} counted fewer than {self.sent} frames")
            time.sleep(0.005)
        return self.sent

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._result)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Mmsghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("length", ctypes.c_uint),
    )


def _flood(peer: str, size: int, rate: float | None, report: int) -> int:
    """The child's work; writes "+" after the first frames and the number of attempts at the end."""
    ending = False

    def end(_signal: int, _frame: object) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    batch = 32
    # No UDP checksum (zero is allowed in IPv4), so that only the number changes in a frame.
    frame = bytearray(udp(0, size=size))
    frame[40:42] = b"\0\0"
    at = frame.index(COOKIE) + len(COOKIE)
    length = len(frame)
    frames = (ctypes.c_char * (length * batch)).from_buffer(bytearray(bytes(frame) * batch))
    base = ctypes.addressof(frames)
    vectors = (_Iovec * batch)(*(_Iovec(base + i * length, length) for i in range(batch)))
    messages = (_Mmsghdr * batch)()
    for i in range(batch):
        messages[i].iov = ctypes.pointer(vectors[i])
        messages[i].iovlen = 1
    attempts, begin = 0, time.monotonic()
    with _out(peer) as s:
        s.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        while not ending:
            for i in range(batch):
                struct.pack_into("!I", frames, i * length + at, attempts + i & 0xFFFFFFFF)
            done = 0
            while done < batch:
                sent = _libc.sendmmsg(s.fileno(), ctypes.byref(messages[done]), batch - done, 0)
                if sent < 0:
                    # Since v6.9 veth says that its ring is full; it counts that frame as dropped.
                    if ctypes.get_errno() != errno.ENOBUFS:
                        raise OSError(ctypes.get_errno(), "sendmmsg")
                    sent = 1
                done += sent
            if not attempts:
                os.write(report, b"+")
            attempts += batch
            if rate and (ahead := attempts / rate - (time.monotonic() - begin)) > 0:
                time.sleep(ahead)
    os.write(report, str(attempts).encode())
    return 0
