"""xdpctl features."""

from __future__ import annotations

import click

from ...doctor.features import read
from ...host.interfaces import Interface, is_several
from ...view import document, features
from .. import complete
from ..settings import Settings, common_options


@click.command("features")
@click.argument(
    "interface", required=False, metavar="[INTERFACE|PATTERN]", shell_complete=complete.interfaces
)
@common_options()
@click.pass_obj
def command(settings: Settings, interface: str | None) -> None:
    """Show what the driver of an interface, or of each, can do with XDP.

    The kernel tells it from Linux 6.3 on.

    \b
    Examples:
      xdpctl features
      xdpctl features eth0 | grep ZEROCOPY
    """
    settings.enter()
    one = interface is not None and not is_several(interface)
    found = read(Interface.matching(interface) if interface else Interface.all())
    if settings.json:
        data = [features.features_data(each) for each in found]
        document.show("features", {"interfaces": data})
    else:
        features.features(found, named=not one, plain=settings.plain)
