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
    """Show what an interface's driver can do with XDP, or those of all interfaces.

    The kernel tells it from Linux 6.3 on. For one interface the first seven lines are those of
    xdp-loader; for several each line begins with the interface's name.
    """
    settings.enter()
    one = interface is not None and not is_several(interface)
    found = read(Interface.matching(interface) if interface else Interface.all())
    if settings.json:
        data = [features.features_data(each) for each in found]
        document.show("features", {"interfaces": data})
    else:
        features.features(found, named=not one, plain=settings.plain)
