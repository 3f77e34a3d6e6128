"""Several XDP programs on one network interface, swapped without losing a packet.

with xdpctl.attach("prog.o", "eth0") as attachment:
    attachment.wait()
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api.attach import attach as attach
    from .api.attachment import Attachment as Attachment
    from .api.look import look as look
    from .api.maps import Map as Map
    from .api.plan import make_plan as make_plan
    from .model.chain import Chain as Chain
    from .model.chain import Member as Member
    from .model.chain import Rules as Rules
    from .model.plan import Plan as Plan
    from .model.state import Root as Root
    from .model.state import Slot as Slot
    from .model.state import State as State

_HOMES = {
    "Attachment": "api.attachment",
    "Chain": "model.chain",
    "Map": "api.maps",
    "Member": "model.chain",
    "Plan": "model.plan",
    "Root": "model.state",
    "Rules": "model.chain",
    "Slot": "model.state",
    "State": "model.state",
    "attach": "api.attach",
    "look": "api.look",
    "make_plan": "api.plan",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    # Imported when it is used: most of what imports this package is the command line.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
