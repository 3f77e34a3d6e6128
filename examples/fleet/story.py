# SPDX-License-Identifier: GPL-2.0-only
"""The story that `run` tells, inside namespaces of its own."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import places
from places import HERE, HOSTS, REGISTRY, WORK, FleetError, run

_BEGAN = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - _BEGAN:5.1f} s] {text}", flush=True)


def image(version: int) -> str:
    return f"oci://{REGISTRY}/xdp/firewall:{version}"


def keys() -> None:
    """Make a key pair: cosign's, or where there is none openssl's."""
    if shutil.which("cosign"):
        os.environ["COSIGN_PASSWORD"] = ""
        run("cosign", "generate-key-pair", cwd=WORK)
        return
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    run("openssl", "genpkey", *curve, "-out", WORK / "key.pem")
    run("openssl", "pkey", "-in", WORK / "key.pem", "-pubout", "-out", WORK / "cosign.pub")


def sign(name: str) -> None:
    """Sign an image, named without oci:// and with its digest."""
    if shutil.which("cosign"):
        # The key is on this machine, and no service is told of the signature.
        offline = ("--use-signing-config=false", "--tlog-upload=false", "--key", "cosign.key")
        run("cosign", "sign", "-y", *offline, name, cwd=WORK)
        return
    url = f"https://{REGISTRY}/xdp/firewall@{name.partition('@')[2]}"
    run(sys.executable, HERE / "sign.py", WORK / "key.pem", url)


def publish(version: int, *macros: str, signed: bool = True) -> None:
    """Compile a version of the firewall, push it and sign it."""
    path = WORK / f"firewall-{version}.o"
    headers = Path(f"/usr/include/{platform.machine()}-linux-gnu")
    where = [f"-I{headers}"] if headers.is_dir() else []
    flags = ("-O2", "-g", "-target", "bpf", f"-DVERSION={version}", *macros, *where)
    run("clang", *flags, "-c", HERE / "firewall.c", "-o", path)
    pushed = json.loads(run("xdpctl", "image", "push", image(version), path, "--json"))["image"]
    if signed:
        sign(pushed.removeprefix("oci://"))
    say(f"version {version} is pushed{' and signed' * signed}: {pushed.partition('@')[2][:19]}")


def play(version: int) -> tuple[int, str, dict[str, int]]:
    """Play chain.yml; the exit code, what was printed, and how much changed on each host."""
    done = subprocess.run(
        ["ansible-playbook", "chain.yml", "-e", f"image={image(version)}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=HERE,
    )
    changed = re.findall(r"^(h\d) +:.* changed=(\d+)", done.stdout, re.MULTILINE)
    return done.returncode, done.stdout, {name: int(count) for name, count in changed}


def brought_to(version: int, *, again: bool = False) -> None:
    """Play it, which is to change all hosts, or if it is played again none."""
    code, told, changed = play(version)
    as_wanted = {name for name, count in changed.items() if (count == 0) == again}
    if code or as_wanted != set(HOSTS):
        raise FleetError(f"the play of version {version} ended with {code}:\n{told}")
    if again:
        say("a second play changes nothing")
        return
    places.asked('count by (tag) (xdpctl_program_info{program="firewall"})', len(HOSTS))
    say(f"all hosts run version {version}, and prometheus sees it")


def refused(version: int, words: str) -> None:
    """The play has to fail with these words, with each host on the chain that it had."""
    before = chains()
    code, told, changed = play(version)
    if code == 0 or words not in told or any(changed.values()):
        raise FleetError(f"the play of version {version} was to be refused: {words}\n{told}")
    if chains() != before:
        raise FleetError(f"version {version} was refused, and chains are not what they were")


def everywhere(*words: str) -> dict[str, str]:
    """What a command prints on each host."""
    asking = {
        name: subprocess.Popen(
            [str(word) for word in places.on(name, *words)], stdout=subprocess.PIPE, text=True
        )
        for name in HOSTS
    }
    told = {name: one.communicate()[0] for name, one in asking.items()}
    if failed := [name for name, one in asking.items() if one.returncode]:
        raise FleetError(f"{' '.join(words)} failed on {', '.join(failed)}")
    return told


def chains() -> dict[str, Any]:
    """The ids and images that each host runs."""
    found: dict[str, Any] = {}
    for name, told in everywhere("xdpctl", "status", "eth0", "--json").items():
        (one,) = json.loads(told)["interfaces"]
        found[name] = [one["root"]["id"], [(prog["id"], prog["image"]) for prog in one["programs"]]]
    return found


class Traffic:
    """Packets to all hosts, a hundred a second to each, from here on."""

    def __init__(self) -> None:
        script = (sys.executable, HERE / "traffic.py")
        self._hosts = {
            name: places.started(
                *places.on(name, *script, "answer"), log=f"{name}/traffic.log", answers="answering"
            )
            for name in HOSTS
        }
        words = (*script, "send", *HOSTS.values())
        self._sender = places.started(*words, log="traffic.log", answers="sending")

    @staticmethod
    def _ended(process: subprocess.Popen[str]) -> Any:
        process.terminate()
        return json.loads(process.communicate(timeout=20)[0])

    def missed(self, *versions: int) -> tuple[int, int]:
        """End it: how many packets no firewall saw, or did not come; and how many were sent.

        Each host has to have got packets from each of these versions.
        """
        sent = self._ended(self._sender)
        missed = total = 0
        for name, address in HOSTS.items():
            came: dict[str, int] = self._ended(self._hosts[name])
            by_version = [came.get(str(version), 0) for version in versions]
            seen = sum(by_version)
            out, answered = sent[address]["sent"], sent[address]["answered"]
            told = ", ".join(
                f"{count} by {version}" for version, count in zip(versions, by_version, strict=True)
            )
            say(f"{name}: {out} sent, seen {told}, {answered} answered")
            if not all(by_version):
                raise FleetError(f"{name} did not change under traffic")
            missed += max(out - seen, out - answered)
            total += out
        return missed, total


def fleet() -> None:
    """All that there is before the first program."""
    places.mounted()
    places.registry()
    keys()
    say(f"a registry, and a key pair of {'cosign' if shutil.which('cosign') else 'openssl'}'s")
    for name, address in HOSTS.items():
        places.host(name, address)
    for name, address in HOSTS.items():
        places.listens(address, places.METRICS, f"{name}/metrics.log")
    places.must_pass(WORK / "must-pass.pcap")
    places.prometheus()
    places.asked("sum(up)", len(HOSTS))
    say(f"hosts {', '.join(HOSTS)}, and prometheus, which reaches them")


def story() -> None:
    fleet()
    publish(1)
    brought_to(1)
    everywhere("xdpctl", "stats", "eth0", "--on")
    publish(2)
    traffic = Traffic()
    busy = 'rate(xdpctl_program_packets_total{program="firewall"}[20s])'
    places.asked(f"count(sum by (instance) ({busy}) > 10)", len(HOSTS))
    say("traffic to all hosts, which prometheus sees; they change to version 2, two at a time")
    brought_to(2)
    brought_to(2, again=True)
    publish(3, f"-DBLOCKED={places.SERVICE}")
    refused(3, "would not pass")
    say("version 3 drops what has to pass: refused by the trial, and no host has changed")
    publish(4, signed=False)
    refused(4, "is not signed")
    say("version 4 is not signed: refused, and no host has changed")
    missed, total = traffic.missed(1, 2)
    say(f"{missed} of {total} packets missed")
    if missed:
        raise FleetError("packets were missed")


if __name__ == "__main__":
    try:
        story()
    except FleetError as error:
        sys.exit(f"run: {error}")
