"""What this machine can do: the facts that `doctor` judges, some of them found by trying."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..bpffs.mount import Bpffs
from ..errors import BpffsError, Interrupted, KernelError, UnsupportedError, XdpctlError
from ..host import cache, rights
from ..host.interfaces import Interface
from ..kernel import libbpf, libc, netlink
from ..model.chain import Member
from ..programs import clang
from ..roots import dispatcher
from . import ethtool, experiments
from .experiments import NOT_TRIED, Experiment
from .features import Features

CONFIG_OPTIONS = ("BPF_SYSCALL", "BPF_JIT", "XDP_SOCKETS", "DEBUG_INFO_BTF")


@dataclass
class Nic:
    """An interface; `driver` and `kind` (veth, bond, …) are empty where nobody tells them.

    `runs` says what is on its XDP hook, `busy` why no chain of xdpctl's can have it. `lro` and
    `vlan` tell whether the card joins packets and takes VLAN tags out, `split` whether it parts
    headers from data; `channels` how many queues are in use, as (receive, transmit), also of the
    `peer` of a veth. None: nobody tells.
    """

    name: str
    driver: str = ""
    kind: str = ""
    mtu: int = 0
    rx: int = 0
    tx: int = 0
    features: Features | None = None
    lro: bool | None = None
    vlan: bool | None = None
    split: bool | None = None
    channels: tuple[int, int] | None = None
    peer: netlink.Neighbour | None = None
    peer_channels: tuple[int, int] | None = None
    runs: str = ""
    busy: XdpctlError | None = None


@dataclass
class Machine:
    """What was found. None and NOT_TRIED: it could not be found out; empty: it is not there.

    `device` is what roots were attached to, `netdev` why interfaces' features are not told,
    `cache_safe` None where the cache's directory is yet to be made, `cache_bad` the names in it
    that are no entries to be used.
    """

    release: str = ""
    arch: str = ""
    missing: list[str] = field(default_factory=list)
    own_user_namespace: bool = False
    libbpf: str = ""
    libbpf_problem: str = ""
    xdp: Experiment = NOT_TRIED
    jited: bool | None = None
    ext: Experiment = NOT_TRIED
    fused: Experiment = NOT_TRIED
    device: str = ""
    link: Experiment = NOT_TRIED
    netlink: Experiment = NOT_TRIED
    generic: Experiment = NOT_TRIED
    frags: Experiment = NOT_TRIED
    frags_native: Experiment = NOT_TRIED
    grace_period: bool = False
    btf: bool = False
    lockdown: str = ""
    lsms: str = ""
    config: dict[str, str] = field(default_factory=dict)
    bpffs: str = ""
    bpffs_problem: BpffsError | None = None
    bpffs_mountable: bool = False
    clang: str = ""
    clang_problem: str = ""
    general_dispatcher: bool = False
    processors: int = 1
    cache: str = ""
    cache_safe: bool | None = None
    cache_bad: list[str] = field(default_factory=list)
    bcc: str = ""
    headers: str = ""
    xdp_tools: str = ""
    libxdp: str = ""
    netdev: str = ""
    nics: list[Nic] = field(default_factory=list)

    @property
    def may_try(self) -> bool:
        """Whether the kernel's answers mean anything: the rights and libbpf are there."""
        return not self.missing and not self.libbpf_problem


def gather(bpffs: Bpffs, interfaces: Sequence[Interface]) -> Machine:
    """Try everything, and look at these interfaces of the current network namespace."""
    found = Machine(release=os.uname().release, arch=os.uname().machine)
    found.missing = rights.missing()
    # user_namespaces(7): what the initial one's map says.
    found.own_user_namespace = _text("/proc/self/uid_map").split() != ["0", "0", "4294967295"]
    try:
        found.libbpf = libbpf.version()
    except (UnsupportedError, AttributeError) as error:
        found.libbpf_problem = getattr(error, "why", "") or f"it is older than 1.0: {error}"
    _look_around(found)
    _look_at_bpffs(found, bpffs)
    _look_at_interfaces(found, bpffs, interfaces)
    if found.may_try:
        _try_kernel(found, bpffs)
    return found


# --- files --------------------------------------------------------------------------------------


def _text(path: str) -> str:
    """A file's contents; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _look_around(found: Machine) -> None:
    found.btf = os.path.exists("/sys/kernel/btf/vmlinux")
    found.lockdown = bracketed(_text("/sys/kernel/security/lockdown"))
    found.lsms = _text("/sys/kernel/security/lsm")
    found.config = kernel_config(found.release)
    found.grace_period = bool(libc.membarrier_commands() & libc.MEMBARRIER_CMD_GLOBAL)
    found.clang, found.clang_problem = _clang()
    found.general_dispatcher = dispatcher.has_general()
    found.processors = os.cpu_count() or 1
    found.cache, found.cache_safe = cache.state()
    found.cache_bad = cache.bad_entries()
    found.bcc = _bcc()
    for path in (f"/lib/modules/{found.release}/build", "/sys/kernel/kheaders.tar.xz"):
        if os.path.exists(path):
            found.headers = path
            break
    found.xdp_tools, found.libxdp = _xdp_tools()


def bracketed(text: str) -> str:
    """The choice that is marked: `none [integrity] confidentiality`."""
    match = re.search(r"\[(\w+)\]", text)
    return match[1] if match else text


def kernel_config(release: str) -> dict[str, str]:
    """Those of CONFIG_OPTIONS that the running kernel's configuration sets; empty: unknown."""
    with contextlib.suppress(OSError, EOFError):
        import gzip

        with gzip.open("/proc/config.gz", "rt", encoding="utf-8") as file:
            return config_of(file.read())
    return config_of(_text(f"/boot/config-{release}"))


def config_of(text: str) -> dict[str, str]:
    """From the text of a kernel configuration; an option that is not set is "n"."""
    if not text:
        return {}
    given = dict(re.findall(r"^CONFIG_(\w+)=(\S+)$", text, flags=re.MULTILINE))
    return {name: given.get(name, "n") for name in CONFIG_OPTIONS}


def _clang() -> tuple[str, str]:
    """The version of a clang that compiles for BPF as dispatcher.py does, or what is wrong."""
    source = b'const char version[] = "<version " __clang_version__ ">";'
    try:
        compiled = dispatcher.compile_c(source)
    except clang.NoClangError as error:
        return "", str(error)
    except UnsupportedError as error:
        return "", error.why or error.what
    match = re.search(rb"<version ([^>]*)>", compiled)
    return (match[1].decode(errors="replace").strip() if match else "of some version"), ""


def _bcc() -> str:
    """Where the distribution's bcc is; the project of that name on PyPI is another one."""
    from importlib.util import find_spec

    with contextlib.suppress(ImportError, ValueError):
        spec = find_spec("bcc")
        for path in (spec.submodule_search_locations or ()) if spec else ():
            if os.path.exists(f"{path}/libbcc.py"):
                return path
    return ""


def _xdp_tools() -> tuple[str, str]:
    """xdp-loader and libxdp, as they are installed: a path or a file's name with a version."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    loader = shutil.which("xdp-loader", path=path) or ""
    library = ""
    for directory in (*_library_directories(), "/usr/lib64", "/usr/lib", "/usr/local/lib"):
        if os.path.exists(file := f"{directory}/libxdp.so.1"):
            library = os.path.basename(os.path.realpath(file))
            break
    if loader and (packaged := debian_version(_text("/var/lib/dpkg/status"), "xdp-tools")):
        loader += f" ({packaged})"
    return loader, library


def _library_directories() -> Iterator[str]:
    """Debian's directories for libraries, such as /usr/lib/x86_64-linux-gnu."""
    machine = os.uname().machine
    yield f"/usr/lib/{machine}-linux-gnu"


def debian_version(status: str, package: str) -> str:
    """An installed package's version by the text of dpkg's status file; empty: not installed."""
    match = re.search(
        rf"^Package: {re.escape(package)}\n(?:\S.*\n|[ \t].*\n)*", status + "\n", flags=re.MULTILINE
    )
    if not match or "\nStatus: install ok installed\n" not in match[0]:
        return ""
    version = re.search(r"^Version: (\S+)$", match[0], flags=re.MULTILINE)
    return version[1] if version else ""


def _look_at_bpffs(found: Machine, bpffs: Bpffs) -> None:
    found.bpffs = bpffs.path
    try:
        bpffs.check()
    except BpffsError as error:
        found.bpffs_problem = error
        wanted = os.environ.get("LIBXDP_BPFFS_AUTOMOUNT") == "1"
        found.bpffs_mountable = wanted and not bpffs.is_mounted()


# --- interfaces ---------------------------------------------------------------------------------


def _look_at_interfaces(found: Machine, bpffs: Bpffs, interfaces: Sequence[Interface]) -> None:
    from ..kernel import rings
    from . import features

    told: dict[int, Features] = {}
    try:
        told = {one.interface.ifindex: one for one in features.read(interfaces)}
    except Interrupted:
        raise
    except XdpctlError as error:
        found.netdev = error.why or error.what
    try:
        split = rings.data_split(one.ifindex for one in interfaces)
    except KernelError:
        split = {}  # no such family
    with netlink.route() as route:
        links = {link["index"]: link for link in route.get_links()}
    for interface in interfaces:
        if (link := links.get(interface.ifindex)) is None:
            continue  # gone meanwhile
        nic = nic_of(interface.name, link)
        nic.driver = ethtool.driver(interface.name)
        nic.lro, nic.vlan = ethtool.offloads(interface.name)
        nic.split = split.get(interface.ifindex)
        nic.channels = ethtool.channels(interface.name)
        nic.peer = netlink.veth_peer(interface.ifindex) if nic.kind == "veth" else None
        if nic.peer and nic.peer.name:
            nic.peer_channels = ethtool.channels(nic.peer.name)
        nic.features = told.get(interface.ifindex)
        found.nics.append(nic)
    if found.may_try:
        _look_at_hooks(found, bpffs, interfaces)


def nic_of(name: str, link: Any) -> Nic:
    """From an interface's message, as pyroute2 gives it."""
    info = link.get_attr("IFLA_LINKINFO")
    return Nic(
        name,
        kind=(info.get_attr("IFLA_INFO_KIND") if info else "") or "",
        mtu=link.get_attr("IFLA_MTU") or 0,
        rx=link.get_attr("IFLA_NUM_RX_QUEUES") or 0,
        tx=link.get_attr("IFLA_NUM_TX_QUEUES") or 0,
    )


def _look_at_hooks(found: Machine, bpffs: Bpffs, interfaces: Sequence[Interface]) -> None:
    """What the interfaces run, and whether a load onto it would be refused, by the plan for one."""
    from ..model.plan import make_plan
    from ..observe.reading import View, observe

    view = View()
    by_name = {nic.name: nic for nic in found.nics}
    for interface in interfaces:
        if (nic := by_name.get(interface.name)) is None:
            continue
        try:
            state = observe(interface, bpffs, view=view)
            if root := state.root:
                whose = {"xdpctl": "a chain of xdpctl's", "libxdp": "a dispatcher of libxdp's"}
                nic.runs = f"{whose.get(root.owner, 'a program of another tool')}: {root.name} "
                nic.runs += f"(id {root.id}), {root.mode} mode, attached by {root.attach}"
                if root.owner != "xdpctl" and root.link_id:
                    nic.runs += _held(root.link_id)
            make_plan(state, state.chain.with_added([Member(experiments.NAME)]))
        except Interrupted:
            raise
        except XdpctlError as error:
            nic.busy = error
        except KernelError as error:
            nic.busy = error.explained("cannot see what runs")


def _held(link_id: int) -> str:
    """Which processes hold a link, as far as that can be seen."""
    from ..host.holders import holders

    (holding,) = holders([("link_id", link_id)]).values()
    names = sorted({f"process {one.pid} ({one.name})" for one in holding})
    return f", held by {', '.join(names)}" if names else ""


# --- the kernel ---------------------------------------------------------------------------------


def _try_kernel(found: Machine, bpffs: Bpffs) -> None:
    def plain() -> None:
        with experiments.load() as program:
            found.jited = program.is_jited

    found.xdp = experiments.tried(plain)
    if not found.xdp.works:
        return
    found.frags = experiments.tried(lambda: experiments.load(frags=True).close())
    found.ext = experiments.ext()
    found.fused = experiments.tried(experiments.fuse)
    if found.bpffs_problem is None:
        with experiments.load() as program:
            try:
                experiments.pin_and_remove(program, bpffs.path)
            except OSError as error:
                found.bpffs_problem = BpffsError(
                    f"nothing can be pinned in {bpffs.path}",
                    why=str(error),
                    hint="see whether it is full, and its mount options: findmnt -t bpf",
                )
    trials = experiments.in_namespace(found.frags.works)
    found.device = trials.device
    found.link, found.netlink = trials.link, trials.netlink
    found.generic, found.frags_native = trials.generic, trials.frags
