"""What the rights of this process and the kernel's answers mean."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from ..errors import RightsError, UnsupportedError
from ..host.rights import NEEDED
from .check import Check, Verdict, in_words
from .interface_checks import ONE_BUFFER
from .probes import Machine

# --- rights -------------------------------------------------------------------------------------


def of_rights(machine: Machine) -> Iterator[Check]:
    if machine.missing:
        yield Check(
            "rights",
            "failed",
            f"this process lacks {in_words(machine.missing)}",
            "no command on an interface works, and what the kernel can do was not tried",
            "run xdpctl as root",
            exit_code=RightsError.exit_code,
        )
    elif machine.own_user_namespace:
        yield Check(
            "rights",
            "warning",
            f"{in_words(NEEDED)}, in a user namespace",
            "the kernel wants most of them in the initial user namespace",
            "run xdpctl outside the container, or in a privileged one",
        )
    else:
        yield Check("rights", "ok", in_words(NEEDED))


# --- the kernel, by experiment ------------------------------------------------------------------


def of_kernel(machine: Machine) -> Iterator[Check]:
    yield Check("kernel", *_configuration(machine))
    if machine.libbpf_problem:
        yield Check(
            "libbpf",
            "failed",
            machine.libbpf_problem,
            "nothing can be loaded, and what the kernel can do was not tried",
            "install libbpf 1.1 or newer (Debian: apt install libbpf1)",
            exit_code=UnsupportedError.exit_code,
        )
    else:
        yield Check("libbpf", "ok", machine.libbpf)
    if not machine.may_try:
        for name in ("xdp", "jit", "ext", "fused", "link", "netlink", "generic", "frags"):
            yield Check(name, "warning", "not tried", "see the failure above")
        return
    yield _xdp(machine)
    if not machine.xdp.works:
        return
    yield _jit(machine)
    yield _ext(machine)
    yield _fused(machine)
    yield from _attaching(machine)
    yield _frags(machine)


def _configuration(machine: Machine) -> tuple[Verdict, str, str, str]:
    found = f"Linux {machine.release} on {machine.arch}"
    if machine.config:
        found += ", " + " ".join(f"{name}={value}" for name, value in machine.config.items())
    if machine.config.get("XDP_SOCKETS") == "n":
        return (
            "warning",
            found,
            "XDP sockets do not exist here: applications that want packets by them cannot run",
            "take a kernel with CONFIG_XDP_SOCKETS",
        )
    return "ok", found, "", ""


def _xdp(machine: Machine) -> Check:
    if machine.xdp.works:
        return Check("xdp", "ok", "a plain XDP program loads")
    return Check(
        "xdp",
        "failed",
        f"a plain XDP program is refused: {machine.xdp.refusal}",
        "no chain of any kind can be built; nothing else was tried in the kernel",
        policy_remedy(machine)
        if machine.xdp.errno == errno.EPERM
        else "take a kernel with CONFIG_BPF_SYSCALL",
        exit_code=UnsupportedError.exit_code,
    )


def policy_remedy(machine: Machine) -> str:
    """What to do about a policy that refuses programs."""
    if machine.own_user_namespace:
        return "run xdpctl in the initial user namespace"
    return "ask who made this machine's security policy: lockdown, an LSM, seccomp, or the kernel"


def _jit(machine: Machine) -> Check:
    if machine.jited:
        return Check("jit", "ok", "programs run as machine code")
    return Check(
        "jit",
        "warning",
        "programs are interpreted",
        "EXT programs are refused, and every packet takes many times as long",
        "sysctl net.core.bpf_jit_enable=1 (in the initial network namespace)",
    )


def _ext(machine: Machine) -> Check:
    if machine.ext.works:
        return Check("ext", "ok", "EXT programs load and hook onto a dispatcher")
    consequence = "chains cannot be built of EXT programs"
    if machine.fused.works:
        consequence = "chains run in fused roots, which libxdp's tools cannot read"
    if machine.ext.errno == errno.EPERM:
        found = f"a security policy refuses EXT programs: {machine.ext.refusal}, although no right "
        found += "is missing and plain XDP loads"
        remedy = policy_remedy(machine)
        if machine.fused.works:
            remedy = f"nothing: a fused root is taken by itself; to have EXT, {remedy}"
    elif machine.ext.errno:
        found = f"the kernel refuses EXT programs: {machine.ext.refusal}"
        remedy = f"take a newer kernel, if it has EXT on {machine.arch}"
        if not machine.jited:
            remedy = "turn the JIT on, see jit"
    else:
        found, remedy = f"no dispatcher can be made: {machine.ext.refusal}", "see clang"
        if machine.fused.works:
            consequence, remedy = "a load fails without --root fused", f"{remedy}, or --root fused"
    return Check("ext", "warning" if machine.fused.works else "failed", found, consequence, remedy)


def _fused(machine: Machine) -> Check:
    if machine.fused.works:
        return Check("fused", "ok", "members load as functions of one program")
    works = machine.ext.works
    return Check(
        "fused",
        "warning" if works else "failed",
        f"refused: {machine.fused.refusal}",
        "--root fused does not work" if works else "no chain of either kind can be built",
        "take Linux 5.10 or newer",
        exit_code=0 if works else UnsupportedError.exit_code,
    )


# name of the trial: what works, what it means where that does not, and what to do then.
_WAYS = {
    "link": (
        "a root is attached and exchanged by bpf_link",
        "a first load has to be told to attach over netlink",
        "load --attach netlink",
    ),
    "netlink": (
        "a root is attached and exchanged over netlink",
        "load --attach netlink does not work",
        "none is needed: a bpf_link serves",
    ),
    "generic": (
        "generic mode works",
        "interfaces without native XDP can have no chain",
        "take interfaces with native XDP",
    ),
}


def _attaching(machine: Machine) -> Iterator[Check]:
    trials = {"link": machine.link, "netlink": machine.netlink, "generic": machine.generic}
    no_way = all(trials[name].tried and not trials[name].works for name in ("link", "netlink"))
    for name, trial in trials.items():
        works, consequence, remedy = _WAYS[name]
        if trial.works:
            where = "a veth pair" if machine.device == "veth" else machine.device
            yield Check(name, "ok", f"{works} (tried on {where} in a namespace of its own)")
        elif not trial.tried:
            yield Check(name, "warning", f"not tried: {trial.refusal or 'there was no answer'}")
        elif no_way and name != "generic":
            yield Check(
                name,
                "failed",
                f"refused: {trial.refusal}",
                "no root can be attached",
                "take Linux 5.10 or newer",
                exit_code=UnsupportedError.exit_code,
            )
        else:
            yield Check(name, "warning", f"refused: {trial.refusal}", consequence, remedy)


def _frags(machine: Machine) -> Check:
    native = machine.frags_native
    if machine.frags.works and (native.works or not native.tried):
        tried = ", also at a large MTU" if native.works else ""
        return Check("frags", "ok", f"programs can take packets of several fragments{tried}")
    return Check(
        "frags",
        "warning",
        f"refused: {machine.frags.refusal or native.refusal}",
        f"in native mode the MTU has to stay below about {ONE_BUFFER}",
        "take Linux 5.18 or newer for larger ones",
    )
