"""A guest of this machine's own architecture: virtme-ng shows it this machine's files."""

from pathlib import Path

from . import cards
from .common import CACHE, CHECKOUT, OWN, die, place
from .guest import GUEST_DIR, Guest
from .kernels import version

PYTHON = CHECKOUT / ".venv/bin/python"
OVERLAYS = [Path("/", name) for name in ("etc", "home", "opt", "root", "srv", "usr", "var", "tmp")]
# virtme-ng mounts its root without a cache. Python starts nearly twice as fast with one, and a
# root that is read-only has nothing to lose by it.
VIRTME = """
import sys
from virtme import mkinitramfs
from virtme.commands import run
mount = getattr(mkinitramfs, "_MOUNT_ROOT_HOST", "")
mkinitramfs._MOUNT_ROOT_HOST = mount.replace("access=any,", "access=any,cache=loose,")
sys.exit(run.main())
"""
# What makes emulation slow: wide vectors, which glibc takes where it finds them, a fifth level of
# page tables, copying with "rep movsb", which takes a step for each byte, and translating again
# what fell out of the translations kept (MB).
CPU = {"amd64": ["-cpu", "max,-avx,-avx2,-la57,-erms,-fsrm"]}.get(OWN, ["-cpu", "max"])
EMULATED = [*CPU, "-accel", "tcg,thread=single,tb-size=2048"]


def command(guest: Guest, shared: Path, kvm: bool | None, *, shell: bool) -> list[str]:
    """The command line that starts a guest, which runs the job in `shared`."""
    if not PYTHON.with_name("virtme-run").exists():
        die("virtme-ng is not in .venv; first: tests/setup test")
    image = place(guest.arch) / guest.series / f"boot/vmlinuz-{version(guest.series)}"
    argv = [str(PYTHON), "-c", VIRTME, "--kimg", str(image)]
    argv += ["--mods", "auto", "--force-9p", "--show-boot-console"]
    # Kernel messages from warnings up: enough to see a crash, and a serial line is slow.
    argv += ["--kopt", "loglevel=5", "--name", f"linux-{guest.series}"]
    argv += ["--cpus", str(guest.cpus), "--memory", guest.memory]
    argv += [f"--overlay-rwdir={path}" for path in (*OVERLAYS, CHECKOUT) if path.is_dir()]
    # The cache may lie where a guest has a fresh tmpfs. It is one directory for modules, headers
    # and peers: each takes three variables of the guest's first process, which may have 32.
    argv += [f"--rodir={CACHE}", f"--rwdir={GUEST_DIR}={shared}"]
    argv += [f"--rwdir={share}" for share in guest.shares]
    job = f"{GUEST_DIR}/job"
    argv += ["--shell", job] if shell else ["--script-sh", f"exec {job}"]
    extra = cards.options(shared) if guest.cards else []
    if not kvm:
        # CPUs emulated in several threads crashed when live code was patched, as swaps do.
        # Two CPUs that take turns would keep whoever waits for both of them waiting for long.
        argv += ["--kopt", "rcupdate.rcu_expedited=1", "--disable-kvm"]
        extra += EMULATED + (["-icount", "shift=0,sleep=off"] if guest.exact else [])
    argv += ["--qemu-opts", *extra] if extra else []
    return cards.wired(argv) if guest.cards else argv
