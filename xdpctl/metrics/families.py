"""The metrics by name: what each is called, counts and is labelled by, and its samples.

Names and units are as Prometheus asks for: https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["counter", "gauge", "info", "summary"]
Value = int | float
Labels = tuple[str, ...]

SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "counter": ("_total",),
    "gauge": ("",),
    "info": ("_info",),
    "summary": ("_sum", "_count"),
}
"""What the names of samples end with: a sample of a summary has two values."""


@dataclass
class Family:
    """A metric. `samples` has the values of its labels, and a value for each suffix."""

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    unit: str = ""
    samples: list[tuple[Labels, tuple[Value, ...]]] = field(default_factory=list)

    def add(self, labels: Sequence[str], *values: Value) -> None:
        self.samples.append((tuple(labels), values))


_ONE: Labels = ("interface",)
_PROGRAM: Labels = ("interface", "program")
_VERDICT: Labels = ("interface", "program", "verdict")


class Families:
    """All of them, each without a sample at first."""

    def __init__(self) -> None:
        self.build = Family("xdpctl_build", "info", "The xdpctl that tells this.", ("version",))
        self.success = Family(
            "xdpctl_scrape_success", "gauge", "Whether the interfaces could be looked at: 1 or 0."
        )
        self.readable = Family(
            "xdpctl_interface_readable",
            "gauge",
            "1 if the interface could be read; else 0, and nothing else is told of it.",
            _ONE,
        )
        self.root = Family(
            "xdpctl_root",
            "info",
            "The program on the interface's XDP hook, if there is one.",
            (*_ONE, "name", "kind", "mode", "attach", "owner"),
        )
        self.programs = Family(
            "xdpctl_chain_programs", "gauge", "Programs in the interface's chain.", _ONE
        )
        self.program = Family(
            "xdpctl_program",
            "info",
            "A program of a chain: its slot, kernel id, tag and priority.",
            (*_PROGRAM, "slot", "id", "tag", "priority"),
        )
        self.vacant = Family(
            "xdpctl_chain_vacant_slots",
            "gauge",
            "Slots whose program is gone: packets pass them by or end there.",
            _ONE,
        )
        self.left_over = Family(
            "xdpctl_left_over_pins",
            "gauge",
            "Pins that an interrupted command left; the next change removes them.",
            _ONE,
        )
        self.generation = Family(
            "xdpctl_chain_generation",
            "gauge",
            "Number of the chain that runs, as xdpctl history counts; 0 if there is none.",
            _ONE,
        )
        self.unconfirmed = Family(
            "xdpctl_change_unconfirmed",
            "gauge",
            "Whether a change waits for its confirmation: 1 or 0.",
            _ONE,
        )
        self.changed = Family(
            "xdpctl_last_change_timestamp_seconds",
            "gauge",
            "When the interface's chain was changed last, as far as it is known.",
            _ONE,
            "seconds",
        )
        self.failed = Family(
            "xdpctl_last_failure_timestamp_seconds",
            "gauge",
            "When a change of the interface failed or went back last, as far as it is known.",
            _ONE,
            "seconds",
        )
        self.counting = Family(
            "xdpctl_chain_counting",
            "gauge",
            "Whether the interface's packets are counted (xdpctl stats --on): 1 or 0.",
            _ONE,
        )
        self.packets = Family(
            "xdpctl_program_packets",
            "counter",
            "Packets by the verdict that the program answered.",
            _VERDICT,
            "packets",
        )
        self.last_words = Family(
            "xdpctl_program_last_word_packets",
            "counter",
            "Packets whose way through the chain ended with the program's verdict.",
            _VERDICT,
            "packets",
        )
        self.size = Family(
            "xdpctl_program_bytes",
            "counter",
            "Bytes of the packets when they came to the program.",
            _PROGRAM,
            "bytes",
        )
        self.run_time = Family(
            "xdpctl_program_run_time_seconds",
            "summary",
            "Time that the program took for a packet, of one packet in 64.",
            _PROGRAM,
            "seconds",
        )
        self.at_end = Family(
            "xdpctl_chain_end_packets",
            "counter",
            "Packets that went past the chain's last program.",
            _ONE,
            "packets",
        )
        self.monitored = Family(
            "xdpctl_monitor_running",
            "gauge",
            "Whether xdpctl monitor runs, which counts incidents: 1 or 0.",
        )
        self.incidents = Family(
            "xdpctl_incident_packets",
            "counter",
            "Packets that something went wrong with, since xdpctl monitor began.",
            (*_ONE, "event", "reason"),
            "packets",
        )

    def told(self) -> list[Family]:
        """Those that have samples."""
        found: list[Family] = [*vars(self).values()]
        return [one for one in found if one.samples]
