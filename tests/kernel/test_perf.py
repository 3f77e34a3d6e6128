"""What BPF programs hand over as perf events is there at once."""

from __future__ import annotations

from contextlib import closing

from tests.kernel import net, oracle
from tests.kernel.conftest import Objects
from tests.kernel.tool import Tool
from xdpctl.kernel import perf
from xdpctl.kernel.maps import Map

FRAMES = net.udps(10)


def test_each_event_is_there_when_its_packet_is(
    tool: Tool, veth: net.Veth, objects: Objects
) -> None:
    """Not with a later one: perf_poll() in the kernel tells of an event once, whoever asks."""
    tool("load", veth.dev, objects["event"])
    (number,) = tool.ids(veth.dev)
    with (
        Map.by_id(oracle.prog_map(number, "events")) as events,
        closing(perf.PerfBuffer(events.fd, 8)) as buffer,
    ):
        for frame in FRAMES:
            assert net.exchange(veth, [frame]) == [frame]
            assert perf.waited([buffer], 10) == [buffer]
            (sample,) = buffer.taken()
            assert int.from_bytes(sample[:8], "little") == len(frame)
        assert buffer.lost == 0
