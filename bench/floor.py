"""Cost a packet beside the floor: the same members in one C program, which clang inlines.

    bench/run floor [--turns N] [--repeat N] [--unit UNIT] [--save PLACE]

Chains of 1 to 10 members of two sorts (member.c and least.c), each member with a number of its own:
fused, with EXT programs, by xdp-loader, as a chain of tail calls such as l3afd builds, and as one
program. Test runs in turns; of each the mean of the fastest quarter, since a turn is a whole number
of nanoseconds. With `--save` the figures go to docs/cost.json, as those of a place, from which
docs/plot.py draws docs/cost.svg.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import socket
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from bench import tools
from bench.packets import LOADS, root_of
from bench.tools import LOADER, ROOT, interface, ratio, refusal, run
from xdpctl.cli.run import run as xdpctl
from xdpctl.kernel import libbpf
from xdpctl.programs import clang, loading, objects

SIZES = (1, 2, 4, 6, 8, 10)
SORTS = ("member", "least")
FLOOR, TAILS = "one program", "tail calls"
WAYS = (*LOADS, TAILS, FLOOR)
FIGURES = ROOT / "docs/cost.json"
PACKET = (
    bytes(12) + b"\x08\x00\x45\x00\x00\x32" + bytes(8) + socket.inet_aton("192.0.2.7") + bytes(34)
)
END = 'char _license[] SEC("license") = "GPL";\n'
NEXT = """
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next SEC(".maps");
"""

Key = tuple[str, str, int]


class Builder:
    """Objects of one sort of members, in a directory."""

    def __init__(self, directory: Path, sort: str) -> None:
        text = Path(__file__).with_name(f"{sort}.c").read_text()
        parts = re.split(r"^(?=struct|static)", text, maxsplit=1, flags=re.MULTILINE)
        self.directory, self.sort, (self.head, self.body) = directory, sort, parts

    def members(self, numbers: Sequence[int]) -> str:
        """The head, and what each member has of its own."""
        return self.head + "\n".join(self.body.replace("NUMBER", str(one)) for one in numbers)

    def compiled(self, name: str, text: str) -> Path:
        source = self.directory / f"{self.sort}-{name}.c"
        source.write_text(text)
        made = source.with_suffix(".o")
        made.write_bytes(clang.compiled(str(source)))
        return made

    def alone(self, number: int) -> Path:
        main = f'SEC("xdp") int one(struct xdp_md *ctx)\n{{ return member_{number}(ctx); }}\n'
        return self.compiled(f"{number}", self.members([number]) + main + END)

    def calling(self, number: int) -> Path:
        main = (
            f'SEC("xdp") int one(struct xdp_md *ctx)\n{{\n\tint verdict = member_{number}(ctx);\n'
            "\tif (verdict == XDP_PASS)\n\t\tbpf_tail_call(ctx, &next, 0);\n\treturn verdict;\n}\n"
        )
        return self.compiled(f"{number}-tail", self.members([number]) + NEXT + main + END)

    def whole(self, size: int) -> Path:
        calls = "".join(
            f"\tif ((verdict = member_{number}(ctx)) != XDP_PASS)\n\t\treturn verdict;\n"
            for number in range(size)
        )
        main = (
            'SEC("xdp") int all(struct xdp_md *ctx)\n{\n\tint verdict;\n'
            f"{calls}\treturn XDP_PASS;\n}}\n"
        )
        return self.compiled(f"all{size}", self.members(range(size)) + main + END)


class Roots:
    """What is measured, by its way, its members' sort and their number; and what is missing."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack, self.fds, self.missing = stack, dict[Key, int](), list[str]()

    def load(self, path: Path) -> loading.Loaded:
        source = objects.member(str(path)).source
        assert source is not None
        return self.stack.enter_context(loading.load(source, frags=False))

    def fill(self, builder: Builder) -> None:
        sort = builder.sort
        alone = [builder.alone(number) for number in range(max(SIZES))]
        calling = [builder.calling(number) for number in range(max(SIZES))]
        for who in LOADS:
            for size in SIZES:
                if not self.chain(who, sort, alone[:size]):
                    break
        for size in SIZES:
            self.fds[FLOOR, sort, size] = self.load(builder.whole(size)).program.fd
            chain = [self.load(path) for path in calling[:size]]
            for one, following in pairwise(chain):
                one.arrays["next"].update(bytes(4), following.program.fd.to_bytes(4, "little"))
            self.fds[TAILS, sort, size] = chain[0].program.fd

    def chain(self, who: str, sort: str, paths: Sequence[Path]) -> bool:
        """Load a chain with a tool; whether that went well."""
        dev = self.stack.enter_context(interface(f"{who}{sort[0]}{len(paths)}"))
        if who == "libxdp":
            why = refusal(*LOADS[who], dev, *paths)
        else:
            why = here("load", "--root", who, dev, *paths)
        if why:
            self.missing.append(f"{who} has no chain of {len(paths)}: {why}")
            return False
        if who == "libxdp":
            self.stack.callback(run, *LOADER, "unload", dev, "--all")
        else:
            self.stack.callback(here, "unload", dev, "--all")
        self.fds[who, sort, len(paths)] = self.stack.enter_context(libbpf.owned(root_of(dev)))
        return True


def here(*words: object) -> str:
    """Run a command of xdpctl in this process, which spares a guest its start: why it failed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        failed = xdpctl([str(word) for word in words])
    return err.getvalue().partition("\n")[0] if failed else ""


def lower_quarter(values: Sequence[int]) -> float:
    """The mean of the fastest quarter."""
    fastest = sorted(values)[: max(len(values) // 4, 1)]
    return sum(fastest) / len(fastest)


def measured(turns: int, repeat: int) -> tuple[dict[Key, float], list[str]]:
    """The cost of each root, and what is missing; the key of a bare program is ("bare", "", 0)."""
    bare = 'SEC("xdp") int bare(struct xdp_md *ctx)\n{ return XDP_PASS; }\n'
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ.setdefault("XDPCTL_CACHE", str(directory))  # what is compiled there is used
        stack.enter_context(tools.bpffs())
        roots = Roots(stack)
        for sort in SORTS:
            builder = Builder(directory, sort)
            roots.fill(builder)
        roots.fds["bare", "", 0] = roots.load(
            builder.compiled("bare", builder.head + bare + END)
        ).program.fd
        taken: dict[Key, list[int]] = {key: [] for key in roots.fds}
        for _ in range(turns):
            for key, fd in roots.fds.items():
                verdict, _packet, duration = libbpf.prog_test_run(fd, PACKET, repeat)
                assert verdict == 2, f"{key} answered {verdict}"
                taken[key].append(duration)
    return {key: lower_quarter(values) for key, values in taken.items()}, roots.missing


def report(cost: dict[Key, float], unit: str) -> None:
    bare = cost["bare", "", 0]
    for sort in SORTS:
        print(f"\n{sort}.c: {unit} a packet added to a bare program's {bare:.1f}, and to the floor")
        print(f"{'members':>8} " + " ".join(f"{who:>16}" for who in WAYS))
        for size in SIZES:
            floor = cost[FLOOR, sort, size] - bare
            cells = []
            for who in WAYS:
                added = cost[who, sort, size] - bare if (who, sort, size) in cost else None
                cells.append("-" if added is None else f"{added:.1f} ({ratio(added, floor)})")
            print(f"{size:>8} " + " ".join(f"{cell:>16}" for cell in cells))


def save(cost: dict[Key, float], place: str, unit: str, path: Path = FIGURES) -> None:
    """Put the figures of a place into the file, beside those of others."""
    bare = cost["bare", "", 0]
    figures = json.loads(path.read_text()) if path.exists() else {}
    figures[place] = {
        "kernel": re.match(r"\d+\.\d+", os.uname().release)[0],  # type: ignore[index]
        "unit": unit,
        "bare": round(bare, 1),
        "added": {
            sort: {
                who: {
                    str(size): round(cost[who, sort, size] - bare, 1)
                    for size in SIZES
                    if (who, sort, size) in cost
                }
                for who in WAYS
                if (who, sort, SIZES[-1]) in cost
            }
            for sort in SORTS
        },
    }
    path.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=20000)
    parser.add_argument("--unit", default="ns", help="what a nanosecond is here")
    parser.add_argument("--save", metavar="PLACE", choices=("machine", "guest"))
    parser.add_argument("--into", type=Path, default=FIGURES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["PATH"] = f"/usr/sbin:/sbin:{os.environ['PATH']}"
    cost, missing = measured(arguments.turns, arguments.repeat)
    report(cost, arguments.unit)
    print(*missing, sep="\n", flush=True)
    if arguments.save:
        save(cost, arguments.save, arguments.unit, arguments.into)


if __name__ == "__main__":
    main()
