"""A small Debian of another architecture: packages unpacked together, and none installed."""

import shlex
import shutil
import time
from pathlib import Path

from .common import call, place
from .debian import Packages

SUITES = {"arm64": ("trixie",), "s390x": ("bookworm",)}
# What the unit tests want.
PYTHON = [
    "base-files",
    "base-passwd",
    "coreutils",
    "dash",
    "libc-bin",
    "python3",
    "python3-click",
    "python3-rich",
    "python3-pyroute2",
    "python3-requests",
    "python3-cryptography",
    "python3-prometheus-client",
    "python3-pytest",
    "python3-jsonschema",
    "libbpf1",
]
# And what a guest and the kernel tests want.
GUEST = [
    "bash",
    "findutils",
    "grep",
    "sed",
    "gawk",
    "util-linux",
    "mount",
    "kmod",
    "busybox-static",
    "procps",
    "make",
    "strace",
    "file",
    "iproute2",
    "ethtool",
    "tcpdump",
    "xdp-tools",
    "bpftool",
    "clang",
    "llvm",
    "libbpf-dev",
    "linux-libc-dev",
    "python3-bpfcc",
]
PACKAGES = {"arm64": PYTHON + GUEST, "s390x": PYTHON}
# tcpdump reads a file as a user of its own, which its installation would make.
USERS = {
    "passwd": "tcpdump:x:100:100::/nonexistent:/usr/sbin/nologin\n",
    "group": "tcpdump:x:100:\n",
}
BUNDLE = "etc/ssl/certs/ca-certificates.crt"
LINKS = {"usr/bin/sh": "dash", "usr/bin/awk": "gawk"}


def root(arch: str) -> Path:
    return place(arch) / "userland"


def _wanted(arch: str) -> str:
    return repr((SUITES[arch], PACKAGES[arch], USERS, LINKS, BUNDLE))


def is_whole(arch: str) -> bool:
    """Whether it is there with all that is wanted of it now."""
    stamp = root(arch) / "wanted"
    return stamp.exists() and stamp.read_text() == _wanted(arch)


def fetch(arch: str) -> None:
    """Make it, unless it is there; whoever calls this holds the lock of the cache."""
    path = root(arch)
    if is_whole(arch):
        return
    began, work = time.monotonic(), path.with_name("userland.part")
    shutil.rmtree(work, ignore_errors=True)
    new = work / "root"
    new.mkdir(parents=True)
    print(f"tests/vm: fetching a userland for {arch}", flush=True)
    debs = Packages(work, SUITES[arch], arch).fetch_with_depends(PACKAGES[arch])
    for name in ("bin", "lib", "lib64", "sbin"):
        (new / "usr" / name).mkdir(parents=True)
        (new / name).symlink_to(f"usr/{name}")
    for deb in debs:
        # dpkg-deb would put a directory in the place of a link.
        unpack = shlex.join(["dpkg-deb", "--fsys-tarfile", str(deb)])
        call("sh", "-c", f"{unpack} | tar -x --keep-directory-symlink -C {shlex.quote(str(new))}")
    # What the installation of ca-certificates would make.
    trusted = sorted((new / "usr/share/ca-certificates").rglob("*.crt"))
    (new / BUNDLE).parent.mkdir(parents=True, exist_ok=True)
    (new / BUNDLE).write_bytes(b"".join(one.read_bytes() for one in trusted))
    for name, line in USERS.items():
        master = (new / f"usr/share/base-passwd/{name}.master").read_text()
        (new / "etc" / name).write_text(master + line)
    for link, target in LINKS.items():
        if not (new / link).exists():
            (new / link).symlink_to(target)
    (new / "wanted").write_text(_wanted(arch))
    shutil.rmtree(path, ignore_errors=True)  # of before more was wanted
    new.rename(path)
    shutil.rmtree(work)
    took = time.monotonic() - began
    print(f"tests/vm: a userland for {arch} of {len(debs)} packages ready in {took:.0f} s")
