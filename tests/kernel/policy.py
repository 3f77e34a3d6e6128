"""A security policy that refuses EXT programs and nothing else, made with seccomp.

A filter hands each bpf(BPF_PROG_LOAD) of the command to a supervisor (seccomp_unotify(2)), which
looks at the program's type in the caller's memory: EPERM for EXT, the kernel's own answer
for every other.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
import subprocess
from collections.abc import Sequence
from fcntl import ioctl

from tests.kernel import oracle

SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
SET_MODE_FILTER, FLAG_NEW_LISTENER = 1, 1 << 3
NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101
USER_NOTIF_FLAG_CONTINUE = 1
RET_ALLOW, RET_USER_NOTIF = 0x7FFF0000, 0x7FC00000
LD_ABS, JEQ, RET = 0x20, 0x15, 0x06

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _install() -> int:
    """Put the filter on this process; the descriptor of its notifications."""
    machine = os.uname().machine
    code = b"".join(
        struct.pack("=HBBI", *one)
        for one in (
            (LD_ABS, 0, 0, 0),  # seccomp_data.nr
            (JEQ, 0, 3, oracle.SYS_BPF[machine]),
            (LD_ABS, 0, 0, 16),  # the low half of the first argument
            (JEQ, 0, 1, oracle.PROG_LOAD),
            (RET, 0, 0, RET_USER_NOTIF),
            (RET, 0, 0, RET_ALLOW),
        )
    )
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("@HP", 6, ctypes.addressof(buffer)))
    fd: int = _libc.syscall(SYS_SECCOMP[machine], SET_MODE_FILTER, FLAG_NEW_LISTENER, program)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return fd


def _answer(listener: int) -> None:
    """Take one notification and decide."""
    request = bytearray(80)
    ioctl(listener, NOTIF_RECV, request)
    ident, pid = struct.unpack_from("=QI", request)
    (attr,) = struct.unpack_from("=Q", request, 16 + 16 + 8)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(attr)
        (kind,) = struct.unpack("=I", memory.read(4))
    refused = kind == oracle.PROG_TYPE_EXT
    error, flags = (-errno.EPERM, 0) if refused else (0, USER_NOTIF_FLAG_CONTINUE)
    ioctl(listener, NOTIF_SEND, bytearray(struct.pack("=QqiI", ident, 0, error, flags)))


def refusing_ext(command: Sequence[str]) -> tuple[int, str, str]:
    """Run a command under the policy; its exit code, standard output and standard error."""
    ours, theirs = socket.socketpair()

    def prepare() -> None:
        socket.send_fds(theirs, [b"x"], [_install()])

    with ours, theirs:
        child = subprocess.Popen(
            command, preexec_fn=prepare, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        _data, (listener,), _flags, _address = socket.recv_fds(ours, 1, 1)
        try:
            poll = select.poll()
            poll.register(listener, select.POLLIN)
            while child.poll() is None:
                if any(events & select.POLLIN for _fd, events in poll.poll(50)):
                    _answer(listener)
        finally:
            os.close(listener)
        out, said = child.communicate()
    return child.returncode, out, said
