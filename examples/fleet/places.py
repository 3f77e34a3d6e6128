# SPDX-License-Identifier: GPL-2.0-only
"""What a fleet needs around it: hosts that are namespaces, a registry, prometheus."""

import json
import os
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WORK = Path("/mnt")
"""A file system in memory, of this run alone; chain.yml and inventory.yml name it, too."""
HOSTS = {f"h{number}": f"10.99.{number}.2" for number in range(1, 6)}
"""Address by name, as in inventory.yml."""
HERE_ADDRESS = "10.99.0.1"
REGISTRY = f"{HERE_ADDRESS}:5000"
METRICS = 9723
SERVICE = 7007
PROMETHEUS = "127.0.0.1:9090"
_PATIENCE = 60.0
"""Seconds."""


class FleetError(Exception):
    """Something is not as it has to be."""


def run(*words: object, **options: Any) -> str:
    """What a command prints; FleetError with that if it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    if done.returncode:
        raise FleetError(f"{words[0]} ended with {done.returncode}:\n{done.stdout}")
    return str(done.stdout)


def started(*words: object, log: str, answers: str = "") -> subprocess.Popen[str]:
    """A process in the background. With `answers`, it has printed that when this returns."""
    with (WORK / log).open("w") as err:
        process = subprocess.Popen(
            [str(word) for word in words],
            stdout=subprocess.PIPE if answers else err,
            stderr=err,
            text=True,
        )
    if process.stdout and process.stdout.readline() != f"{answers}\n":
        raise FleetError(f"{words[0]} did not start:\n{(WORK / log).read_text()}")
    return process


def listens(address: str, port: int, log: str) -> None:
    """Wait until somebody does, who writes this log."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            with socket.create_connection((address, port), 1):
                return
        except OSError as error:
            if time.monotonic() > end:
                why = (WORK / log).read_text()
                raise FleetError(f"{address}:{port}: {error}\n{why}") from None
            time.sleep(0.1)


def on(name: str, *words: object) -> list[object]:
    """A command of a host."""
    return [WORK / name / "shell", "-c", 'exec "$0" "$@"', *words]


def host(name: str, address: str) -> None:
    """Make a host: a bpffs and a /run of its own, eth0 with its other end here, and services."""
    (WORK / name).mkdir()
    setup = "mount -t bpf bpf /sys/fs/bpf && mount -t tmpfs tmpfs /run && ip link set lo up"
    alone = ("unshare", "--net", "--mount", "sh", "-c", f"{setup} && echo up && exec sleep inf")
    pid = started(*alone, log=f"{name}/log", answers="up").pid
    shell = WORK / name / "shell"
    shell.write_text(f'#!/bin/sh\nexec nsenter -t {pid} -n -m /bin/sh "$@"\n')
    shell.chmod(0o755)
    gateway = address.removesuffix("2") + "1"
    run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", pid)
    run("ip", "addr", "add", f"{gateway}/24", "dev", name)
    run("ip", "link", "set", name, "up")
    run(*on(name, "ip", "addr", "add", f"{address}/24", "dev", "eth0"))
    run(*on(name, "ip", "link", "set", "eth0", "up"))
    run(*on(name, "ip", "route", "add", "default", "via", gateway))
    listen = f"{address}:{METRICS}"
    started(*on(name, "xdpctl", "metrics", "--listen", listen), log=f"{name}/metrics.log")


def registry() -> None:
    """Debian's docker-registry, over TLS, as the hosts reach it over their network."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "addr", "add", f"{HERE_ADDRESS}/32", "dev", "lo")
    certificate, key = WORK / "registry.crt", WORK / "registry.key"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-x509")
    names = ("-subj", "/CN=registry", "-addext", f"subjectAltName=IP:{HERE_ADDRESS}")
    run("openssl", "req", *curve, *names, "-days", 2, "-keyout", key, "-out", certificate)
    os.environ["SSL_CERT_FILE"] = str(certificate)  # for xdpctl and cosign
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(WORK / "images")}},
        "http": {"addr": REGISTRY, "tls": {"certificate": str(certificate), "key": str(key)}},
    }
    file = WORK / "registry.yml"
    file.write_text(json.dumps(config))  # which is YAML as well
    started("docker-registry", "serve", file, log="registry.log")
    listens(HERE_ADDRESS, 5000, "registry.log")


def prometheus() -> None:
    """It asks each host for the metrics of xdpctl, every two seconds."""
    targets = [f"{address}:{METRICS}" for address in HOSTS.values()]
    config = {
        "global": {"scrape_interval": "2s"},
        "scrape_configs": [{"job_name": "xdpctl", "static_configs": [{"targets": targets}]}],
    }
    file = WORK / "prometheus.yml"
    file.write_text(json.dumps(config))
    started(
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={WORK}/data",
        f"--web.listen-address={PROMETHEUS}",
        log="prometheus.log",
    )


def asked(query: str, wanted: float) -> None:
    """Wait until prometheus answers a query with this, and nothing besides."""
    url = f"http://{PROMETHEUS}/api/v1/query?query={urllib.parse.quote(query)}"
    end = time.monotonic() + _PATIENCE
    found: list[float] = []
    while found != [wanted]:
        if time.monotonic() > end:
            raise FleetError(f"prometheus answers {query} with {found} and not {wanted}")
        time.sleep(0.2)
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                result = json.load(answer)["data"]["result"]
        except (urllib.error.URLError, ConnectionError):
            continue  # it is not up yet
        found = [float(one["value"][1]) for one in result]


def must_pass(file: Path) -> None:
    """A pcap with what every version has to let through: a packet to the service."""
    data = bytes(5)
    udp = struct.pack("!HHHH", 40000, SERVICE, 8 + len(data), 0) + data
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), bytes(4))
    frame = bytes(12) + b"\x08\x00" + ip + udp
    header = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    file.write_bytes(header + struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame)


def mounted() -> None:
    """Put the file system of this run in its place, and what this run leaves at home into it."""
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", WORK)
    home = os.environ.get("HOME", "/root")
    os.environ["HOME"] = str(WORK)
    os.environ.setdefault("XDPCTL_CACHE", str(WORK / "cache"))
    # A collection that was installed is found, too, if this is no checkout.
    found = [WORK / "collections", f"{home}/.ansible/collections", "/usr/share/ansible/collections"]
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = ":".join(map(str, found))
    collections = WORK / "collections/ansible_collections/xdpctl"
    collections.mkdir(parents=True)
    if (checkout := HERE.parents[1] / "ansible").is_dir():
        (collections / "xdp").symlink_to(checkout)
    os.environ["ANSIBLE_CONFIG"] = str(HERE / "ansible.cfg")
    os.environ.pop("LIBXDP_BPFFS", None)
