"""An environment: a layer over a bare image of Debian, and a copy of this checkout in it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

from tests.environments.rows import Row

CHECKOUT = Path(__file__).resolve().parents[2]
IMAGE = CHECKOUT / "tests/image"
CACHE = Path(os.environ.get("XDPCTL_VM_CACHE") or "/var/cache/xdpctl-vm").absolute() / "versions"
REPORTS = CHECKOUT / "build/reports"
INSIDE = "/srv/xdpctl"  # some tests run as a user who may not look into /root
PLACE = "/run/xdpctl-versions"
HEADERS = "/usr/src/xdpctl-headers"
PACKAGES = (
    "ca-certificates ethtool file fish git groff iproute2 kmod libbpf-dev libbpf1 linux-libc-dev"
    " make mandoc procps python3 python3-bpfcc python3-pip python3-venv shellcheck strace tcpdump"
    " xdp-tools zsh"
)
DEBIAN_LIBRARIES = (
    "python3-click python3-cryptography python3-hatchling python3-jsonschema"
    " python3-prometheus-client python3-pyroute2 python3-pytest python3-pytest-xdist"
    " python3-requests python3-rich"
)
ENVIRONMENT = {
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
    "XDPCTL_CACHE": f"{INSIDE}/build/cache",
    "XDPCTL_BCC_HEADERS": HEADERS,
    "BCC_KERNEL_SOURCE": HEADERS,
}
VERSIONS = """
import importlib.metadata, json, platform, re, subprocess
def said(*words):
    return subprocess.run(words, capture_output=True, text=True).stdout
found = {"python": platform.python_version()}
for name in ("click", "rich", "pyroute2"):
    found[name] = importlib.metadata.version(name)
found["libbpf"] = said("dpkg-query", "-W", "-f", "${source:Upstream-Version}", "libbpf1")
found["clang"] = re.search(r"version (\\d+[.\\d]*)", said("clang", "--version"))[1]
print(json.dumps(found))
"""


class NotHadError(Exception):
    """What an environment is made of cannot be had; the text says what."""


def said(*words: str | Path) -> str:
    """What a command prints; this ends if it fails."""
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"versions: {' '.join(map(str, words))} failed")
    return done.stdout.strip()


class Environment:
    """A layer over an image, mounted for as long as this process's mounts."""

    def __init__(self, row: Row, *, fresh: bool) -> None:
        self.row, self.root = row, Path(PLACE, row.name)
        self.log = REPORTS / "versions" / f"{row.name}.log"
        self.log.unlink(missing_ok=True)
        place = CACHE / row.name
        wanted = json.dumps([asdict(row), PACKAGES, DEBIAN_LIBRARIES])
        stamp = place / "made"
        if fresh or not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(place, ignore_errors=True)
        upper, work = place / "upper", place / "work"
        for path in (self.root, upper, work):
            path.mkdir(parents=True, exist_ok=True)
        layers = f"lowerdir={said(IMAGE, 'base', row.suite)},upperdir={upper},workdir={work}"
        said("mount", "-t", "overlay", "-o", layers, "overlay", self.root)
        said(IMAGE, "mount", self.root)
        self.show_headers()
        if not stamp.exists():
            self.install()
            said(IMAGE, "mount", self.root)  # packages bring settings of their own
            stamp.write_text(wanted)
        self.check_out()
        self.make_virtual()

    def show_headers(self) -> None:
        """The kernel's headers that BCC compiles with, as tests/run has them on this machine."""
        asked = [str(CHECKOUT / "tests/vm"), "headers"]
        done = subprocess.run(asked, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            (self.root / HEADERS[1:]).mkdir(parents=True, exist_ok=True)
            said("mount", "--bind", "-o", "ro", done.stdout.strip(), self.root / HEADERS[1:])

    def tell(self, command: str) -> subprocess.CompletedProcess[bytes]:
        """Run a shell command in it, in the checkout, if there is one; what it says is captured."""
        mine = {
            name: told
            for name, told in os.environ.items()
            if re.match("PIP_|SSL_|.*_(CA|proxy)", name)
        }
        return subprocess.run(
            ["chroot", self.root, "bash", "-ec", f"cd {INSIDE} 2>/dev/null || cd /; {command}"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**mine, **ENVIRONMENT},
        )

    def run(self, command: str) -> bool:
        """Run a shell command in it, in the checkout; whether it went well. The log has all."""
        done = self.tell(command)
        with self.log.open("ab") as out:
            out.write(f"\n$ {command}\n".encode() + done.stdout)
        return done.returncode == 0

    def must(self, command: str, what: str) -> None:
        if not self.run(command):
            raise NotHadError(f"{what} (see {self.log.relative_to(CHECKOUT)})")

    def install(self) -> None:
        """Debian's packages, and clang under its usual name."""
        row = self.row
        if row.more:
            lines = said(IMAGE, "sources", row.more)
            (self.root / "etc/apt/sources.list.d/more.list").write_text(lines + "\n")
        self.must("apt-get -q update", "the mirror's lists")
        libraries = DEBIAN_LIBRARIES if row.libraries == "Debian" else ""
        self.must(f"apt-get -q install {PACKAGES} {libraries}", "Debian's packages")
        if row.more:
            self.must(f"apt-get -q install -t {row.more} libbpf1 libbpf-dev", "libbpf")
        number = f"-{row.clang}" if row.clang else ""
        self.must(f"apt-get -q install clang{number} llvm{number}", f"clang {row.clang}")
        for tool in ("clang", "llvm-objcopy") if number else ():
            self.must(f"ln -sf /usr/bin/{tool}{number} /usr/local/bin/{tool}", tool)
        if row.python and self.tell(f"apt-cache show python{row.python}").returncode == 0:
            packages = f"python{row.python} python{row.python}-venv"
            self.must(f"apt-get -q install {packages}", f"Python {row.python}")

    def interpreter(self) -> str:
        """The path of its Python in it: the suite's, or one of this machine's, shown to it."""
        if not self.row.python:
            return "/usr/bin/python3"
        name = f"python{self.row.python}"
        if (self.root / "usr/bin" / name).exists():
            return f"/usr/bin/{name}"
        root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
        for found in [shutil.which(name), *root.glob(f"versions/{self.row.python}.*/bin/{name}")]:
            asking = [str(found), "-c", "import sys; print(sys.base_prefix)"]
            done = subprocess.run(asking, check=False, capture_output=True, text=True)
            prefix = Path(done.stdout.strip() or "/usr")
            if done.returncode == 0 and prefix != Path("/usr"):
                inside = self.root / str(prefix)[1:]
                inside.mkdir(parents=True, exist_ok=True)
                said("mount", "--bind", "-o", "ro", prefix, inside)
                return str(prefix / "bin" / name)
        raise NotHadError(
            f"Python {self.row.python}: neither {self.row.suite} has it nor this machine"
        )

    def check_out(self) -> None:
        """A copy of what is here; what an earlier run built stays, unless it is older."""
        target = self.root / INSIDE[1:]
        for path in target.glob("*"):
            if path.name not in ("build", ".venv"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        listing = ["git", "-C", str(CHECKOUT), "ls-files", "-zco", "--exclude-standard"]
        names = subprocess.run(listing, check=True, stdout=subprocess.PIPE).stdout.split(b"\0")
        for name in map(os.fsdecode, filter(None, names)):
            if (CHECKOUT / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, target / name)
        self.run("git init -q . && git add -A")  # some tests ask git what there is

    def make_virtual(self) -> None:
        """A virtual environment with xdpctl as it stands there, made again if that is needed."""
        python, project = self.interpreter(), (CHECKOUT / "pyproject.toml").read_text()
        install = ".venv/bin/pip install -q"
        stamp = self.root / INSIDE[1:] / ".venv/made"
        wanted = f"{project}{(CHECKOUT / 'xdpctl/__init__.py').read_text()}"
        if not stamp.exists() or stamp.read_text() != wanted:
            self.must(f"rm -rf .venv && {python} -m venv --system-site-packages .venv", "venv")
            if self.row.libraries != "Debian":
                tools = "jsonschema pytest pytest-xdist mypy ruff"
                self.must(
                    f"{install} -e .[metrics,oci,verify] {tools} {self.bounds(project)}",
                    "Python packages",
                )
            stamp.write_text(wanted)
        if self.row.libraries == "Debian":  # by Debian's hatchling, which takes no editable one
            plain = "--no-index --no-deps --no-build-isolation --force-reinstall ."
            self.must(f"{install} {plain}", "xdpctl, built with Debian's packages")

    def bounds(self, project: str) -> str:
        """What pip is asked for beside xdpctl: its libraries, if they are to be the oldest."""
        if self.row.libraries != "oldest":
            return ""
        told = tomllib.loads(project)["project"]
        more: dict[str, list[str]] = told["optional-dependencies"]
        bounds = [*told["dependencies"], *more["metrics"], *more["oci"], *more["verify"]]
        return shlex.join(one.replace(">=", "==") for one in bounds)

    def versions(self) -> dict[str, str]:
        done = self.tell(f".venv/bin/python -c {shlex.quote(VERSIONS)}")
        try:
            found: dict[str, str] = json.loads(done.stdout)
        except ValueError:
            raise NotHadError(done.stdout.decode(errors="replace")) from None
        return found
