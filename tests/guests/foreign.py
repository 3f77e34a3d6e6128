"""A guest of another architecture: Debian's userland of it, with this checkout in it at its place.

The initrd is a static busybox with the modules that it takes to mount the userland by 9p. All but
the shares is read-only, with a layer in memory over it.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from . import userland
from .common import CHECKOUT, call, die, place
from .guest import GUEST_DIR, Guest
from .kernels import version

PYCACHE = "/var/cache/xdpctl-pycache"
"""Where a guest keeps what Python compiled, for the next one: Debian does so at installation."""
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
CACHED = {"kernel": " ,cache=loose,ro", "pycache": " ,cache=loose"}
"""How what nobody else writes meanwhile is mounted."""
QEMU = {"arm64": "qemu-system-aarch64 -M virt -cpu cortex-a76 -accel tcg,thread=multi,tb-size=1024"}
CONSOLE = {"arm64": "ttyAMA0"}
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /bin /proc /sys /dev /lower /over /new
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
# share TAG PATH: as it is; layer TAG PATH: read-only, with a layer in memory over it
share() {
    mkdir -p /new$2
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,access=any$3 $1 /new$2
}
layer() {
    mkdir -p /lower/$1 /over/$1
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,access=any,cache=loose,ro $1 /lower/$1
    mount -t tmpfs tmpfs /over/$1
    mkdir -p /over/$1/upper /over/$1/work /new$2
    mount -t overlay -o lowerdir=/lower/$1,upperdir=/over/$1/upper,workdir=/over/$1/work \\
        overlay /new$2
}
layer userland ""
for one in run tmp dev/shm dev/pts; do mkdir -p /new/$one; done
mount -t tmpfs -o mode=755 tmpfs /new/run
mount -t tmpfs tmpfs /new/tmp
@MOUNTS@
mount --move /proc /new/proc
mount --move /sys /new/sys
mount --move /dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts
mount -t tmpfs tmpfs /new/dev/shm
ln -sfn ../../run/xdpctl-kernel/lib/modules /new/usr/lib/modules
ln -sfn ../run/xdpctl-kernel/src /new/usr/src
ln -sfn /proc/self/fd /new/dev/fd
cp -r /new/run/xdpctl-kernel/boot/. /new/boot 2>/dev/null
exec switch_root /new /bin/sh -c '@RUN@; sync; echo o >/proc/sysrq-trigger; sleep 60'
"""


def shares(guest: Guest, shared: Path) -> Iterator[tuple[str, Path, str, str]]:
    """The tag of each directory that a guest has of this machine, the directory, its place, how."""
    yield "userland", userland.root(guest.arch), "", "layer"
    yield "checkout", CHECKOUT, str(CHECKOUT), "layer"
    yield "kernel", place(guest.arch) / guest.series, "/run/xdpctl-kernel", "share"
    pycache = place(guest.arch) / "pycache"
    pycache.mkdir(exist_ok=True)
    yield "pycache", pycache, PYCACHE, "share"
    yield "shared", shared, GUEST_DIR, "share"
    for number, path in enumerate(guest.shares):
        yield f"share{number}", path, str(path), "share"


def initrd(guest: Guest, shared: Path, *, shell: bool) -> Path:
    """Write the initrd of a guest; where it is."""
    root, path = shared / "initrd", shared / "initrd.cpio"
    modules = root / "modules"
    (root / "bin").mkdir(parents=True)
    modules.mkdir()
    shutil.copy(userland.root(guest.arch) / "usr/bin/busybox", root / "bin/busybox")
    kernel = place(guest.arch) / guest.series
    names: dict[str, None] = {}
    for module in MODULES:
        wanted = ["-S", str(version(guest.series, guest.arch)), "-d", str(kernel), module]
        for line in call("modprobe", "--show-depends", *wanted).splitlines():
            if found := re.match(r"insmod (\S+)", line):  # the others are built in
                shutil.copy(found[1], modules)
                names[Path(found[1]).name] = None
    (modules / "order").write_text("".join(f"{name}\n" for name in names))
    mounts = [
        shlex.join([how, tag, where]) + CACHED.get(tag, "")
        for tag, _, where, how in shares(guest, shared)
        if where
    ]
    job = f"{GUEST_DIR}/job"
    console = f"/dev/{CONSOLE[guest.arch]}"
    run = f"setsid -c {job} <{console} >{console} 2>&1" if shell else job
    text = INIT.replace("@MOUNTS@", "\n".join(mounts)).replace("@RUN@", run)
    (root / "init").write_text(text)
    (root / "init").chmod(0o755)
    with path.open("wb") as out:
        names_of_all = b"\0".join(
            os.fsencode(one.relative_to(root)) for one in sorted(root.rglob("*"))
        )
        packing = ["cpio", "--quiet", "-0", "-o", "-H", "newc"]
        subprocess.run(packing, cwd=root, input=names_of_all, stdout=out, check=True)
    shutil.rmtree(root)
    return path


def command(guest: Guest, shared: Path, *, shell: bool) -> list[str]:
    """The command line that starts a guest, which runs the job in `shared`."""
    argv = QEMU[guest.arch].split()
    if not shutil.which(argv[0]):
        die(f"{argv[0]} is missing (Debian: apt install qemu-system-arm)")
    guest.env["PYTHONPYCACHEPREFIX"] = PYCACHE
    kernel = place(guest.arch) / guest.series / f"boot/vmlinuz-{version(guest.series, guest.arch)}"
    argv += ["-smp", str(guest.cpus), "-m", guest.memory, "-nographic", "-no-reboot", "-nodefaults"]
    argv += ["-serial", "mon:stdio", "-kernel", str(kernel)]
    argv += ["-initrd", str(initrd(guest, shared, shell=shell))]
    # Kernel messages from warnings up: enough to see a crash, and a serial line is slow.
    argv += ["-append", f"console={CONSOLE[guest.arch]} loglevel=5 panic=-1"]
    for tag, path, _, _ in shares(guest, shared):
        said = f"local,id={tag},path={path},security_model=none,multidevs=remap"
        argv += ["-fsdev", said, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    return argv
