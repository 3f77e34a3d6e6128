"""Hosts that are network and mount namespaces of this machine: ansible's way into them, for tests.

Before each command, and behind it, a packet goes to the host and back over its network: without an
answer the host cannot be reached, though nsenter(1) would reach it. As a connection of ssh's that is
up, it waits for an answer for a while, which is a variable of the host.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: netns
short_description: a process's network and mount namespaces
description: For the tests of xdpctl.
author: xdpctl maintainers
extends_documentation_fragment: [connection_pipelining]
options:
  pid:
    description: The process whose namespaces the host is.
    type: int
    vars: [{name: netns_pid}]
  address:
    description: Where the host answers UDP packets, in its own network namespace.
    vars: [{name: netns_address}]
  patience:
    description: How many seconds an answer is waited for.
    type: float
    vars: [{name: netns_patience}]
"""

PORT = 7007
_AGAIN = 0.5
"""Seconds."""


class Connection(ConnectionBase):  # type: ignore[misc]
    transport = "netns"
    has_pipelining = True

    def _connect(self) -> Connection:
        return self

    def _reach(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.settimeout(_AGAIN)
            out.connect((self.get_option("address"), PORT))
            end = time.monotonic() + self.get_option("patience")
            while time.monotonic() < end:
                try:
                    out.send(b"?")
                    out.recv(1)
                    return
                except TimeoutError:
                    continue
                except OSError:
                    time.sleep(_AGAIN)
        raise AnsibleConnectionFailure(f"{self.get_option('address')} does not answer")

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        self._reach()
        words = ["nsenter", "-t", str(self.get_option("pid")), "-n", "-m", "/bin/sh", "-c", cmd]
        done = subprocess.run(words, input=in_data or b"", capture_output=True, check=False)
        self._reach()
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        super().put_file(in_path, out_path)
        self._reach()
        shutil.copyfile(in_path, out_path)  # /tmp is the same there

    def fetch_file(self, in_path: str, out_path: str) -> None:
        super().fetch_file(in_path, out_path)
        self._reach()
        shutil.copyfile(in_path, out_path)

    def close(self) -> None:
        self._connected = False

    def reset(self) -> Any:
        return None
