"""Debian's kernels, with their modules and headers, in one layout whatever the release."""

import contextlib
import fcntl
import os
import re
import shutil
import tarfile
import time
from pathlib import Path
from subprocess import PIPE, Popen

from . import userland
from .common import CACHE, OWN, call, die, place
from .debian import Packages

SUITES = {
    "5.10": ("bullseye", "bullseye-security"),
    "6.1": ("bookworm", "bookworm-security"),
    "6.12": ("bookworm-security", "bookworm-backports"),
    "6.18": ("trixie-backports",),
    "7": ("trixie-backports",),
}
# All of networking, of the rest what a guest or BCC needs: unpacking everything takes far longer.
WANTED = re.compile(
    r"boot/(vmlinuz|config)|lib/modules/[^/]+/(vmlinuz|config|build|source|modules\.[^/]*)$"
    r"|lib/modules/[^/]+/kernel/((arch|crypto|kernel|lib|mm|net)/|drivers/(virtio|char)/"
    r"|drivers/net/([^/]+$|(bonding|ipvlan|netdevsim|team|vmxnet3|vxlan|wireguard)/)"
    r"|drivers/(net/ethernet/intel/(e1000e|igb)|dca|i2c/algos|pps|ptp)/"
    r"|fs/(9p|fuse|netfs|fscache|overlayfs)/)"
    r"|src/linux-headers-[^/]+/(include|arch/(x86|arm64)/(include|Makefile)|Makefile|\.config)"
)
# Debian 12's BCC cannot read all headers of later kernels. XDP programs need nothing new in them.
BCC_SERIES = "6.1"


def is_whole(series: str, arch: str) -> bool:
    """Whether a kernel is there with all that is wanted of it now."""
    stamp = place(arch) / series / "wanted"
    if arch != OWN and not userland.is_whole(arch):
        return False
    return stamp.exists() and stamp.read_text() == WANTED.pattern


def version(series: str, arch: str = OWN) -> str | None:
    """The version in a kernel's directory: boot/vmlinuz-VERSION, lib/modules and src/."""
    images = list((place(arch) / series / "boot").glob("vmlinuz-*"))
    return images[0].name.removeprefix("vmlinuz-") if images else None


def newest(series: str, arch: str, known: set[str]) -> list[str]:
    """The packages of the newest generic kernel of a series, with its headers."""
    name = rf"linux-image-({re.escape(series)}\.[\d.]+[^-]*(?:-\d[^-]*)?-{arch})"
    matches = filter(None, (re.fullmatch(name, package) for package in known))
    versions = [match[1] for match in matches if match[1].count(".") > 1]  # 7.3: no kernel itself
    if not versions:
        die(f"the mirror has no generic kernel of series {series} for {arch}")
    found = max(versions, key=lambda text: [int(part) for part in re.findall(r"\d+", text)])
    # In Linux 7 Debian's image package is empty; the next ones carry the kernel.
    parts = [f"linux-{part}-{found}" for part in ("image", "binary", "modules", "base", "headers")]
    parts += [f"linux-headers-{found.removesuffix(arch)}common"]
    return [part for part in parts if part in known]


def unpack(package: Path, root: Path) -> None:
    """Unpack what is wanted of a package, in one layout whatever the Debian release."""
    with (
        Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=PIPE) as dpkg,
        tarfile.open(fileobj=dpkg.stdout, mode="r|") as tar,
    ):
        for member in tar:
            name = member.name.removeprefix("./").removeprefix("usr/")
            if not WANTED.match(name) or member.isdir():
                continue
            if found := re.fullmatch(r"lib/modules/([^/]+)/(vmlinuz|config)", name):
                name = f"boot/{found[2]}-{found[1]}"
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.issym():  # lib/modules/VERSION/build and its like: src/ is beside lib/ here
                path.symlink_to(member.linkname.replace("/usr/src/", "../../../src/"))
            elif (content := tar.extractfile(member)) is not None:
                path.write_bytes(content.read())
    if dpkg.returncode:
        die(f"{package.name} cannot be unpacked: fetched only in part?")


def fetch(series: str, arch: str = OWN) -> None:
    began = time.monotonic()
    home = place(arch)
    home.mkdir(parents=True, exist_ok=True)
    # The lock is for two that fetch at once, the rename at the end for one that is interrupted.
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if arch != OWN:
            userland.fetch(arch)
        if is_whole(series, arch):  # by the one that had the lock
            return
        work, root = home / f"{series}.part", home / f"{series}.part/root"
        shutil.rmtree(work, ignore_errors=True)
        root.mkdir(parents=True)
        packages = Packages(work, SUITES[series], arch)
        wanted = newest(series, arch, packages.names("linux-"))
        new = wanted[0].removeprefix("linux-image-")
        print(f"tests/vm: {series}: fetching {new}", flush=True)
        for package in packages.fetch(wanted):
            unpack(package, root)
        # The guest's loader takes no compressed modules.
        for suffix, tool in (("xz", ["xz", "-dq"]), ("zst", ["zstd", "-dq", "--rm"])):
            if packed := list(root.glob(f"lib/modules/**/*.ko.{suffix}")):
                call(*tool, *packed)
        call("depmod", "-b", root, new)
        (root / "wanted").write_text(WANTED.pattern)
        shutil.rmtree(home / series, ignore_errors=True)  # of before WANTED was changed
        root.rename(home / series)
        shutil.rmtree(work)
    print(f"tests/vm: {series}: {new} ready in {time.monotonic() - began:.0f} s", flush=True)


def headers() -> Path | None:
    """In one directory, where Debian has two; made when first asked for. None: nothing fetched."""
    root = CACHE / BCC_SERIES
    path, work = root / "headers", root / "headers.part"
    if not version(BCC_SERIES):
        return None
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            shutil.rmtree(work, ignore_errors=True)
            # What is of this architecture goes over what is of all.
            for part in sorted((root / "src").iterdir(), key=lambda one: "common" not in one.name):
                shutil.copytree(part, work, True, copy_function=linked, dirs_exist_ok=True)
            work.rename(path)
    return path


def linked(old: str, new: str) -> None:
    """Instead of a copy."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    os.link(old, new)
