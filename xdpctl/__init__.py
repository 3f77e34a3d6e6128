"""Several XDP programs on one network interface, swapped without losing a packet.

with xdpctl.attach("prog.o", "eth0") as attachment:
    attachment.wait()
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api import look as look
    from .attachment import Attachment as Attachment
    from .attachment import attach as attach
    from .chain import Chain as Chain
    from .chain import Member as Member
    from .chain import Rules as Rules
    from .maps import Map as Map
    from .plan import Plan as Plan
    from .plan import make_plan as make_plan
    from .state import Root as Root
    from .state import Slot as Slot
    from .state import State as State

_HOMES = {
    "Attachment": "attachment",
    "Chain": "chain",
    "Map": "maps",
    "Member": "chain",
    "Plan": "plan",
    "Root": "state",
    "Rules": "chain",
    "Slot": "state",
    "State": "state",
    "attach": "attachment",
    "look": "api",
    "make_plan": "plan",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    # Imported when it is used: most of what imports this package is the command line.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
