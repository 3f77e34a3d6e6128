"""Several XDP programs on one network interface, swapped without losing a packet.

with xdpctl.attach("prog.o", "eth0") as attachment:
    attachment.wait()
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Attachment", "attach"]

if TYPE_CHECKING:
    from .attachment import Attachment as Attachment
    from .attachment import attach as attach


def __getattr__(name: str) -> Any:
    # Imported when it is used: most of what imports this package is the command line.
    if name in __all__:
        from . import attachment

        return getattr(attachment, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
