"""xdpctl help."""

from __future__ import annotations

import click

from ..group import check_command
from ..settings import common_options


@click.command("help")
@click.argument("name", metavar="[COMMAND]", required=False)
@common_options()
@click.pass_context
def command(context: click.Context, name: str | None) -> None:
    """Show this help, or a command's."""
    group = context.find_root()
    assert isinstance(group.command, click.Group)
    if name is None:
        click.echo(group.get_help())
        return
    check_command(group.command, group, [name])
    found = group.command.get_command(group, name)
    assert found is not None
    with click.Context(found, info_name=found.name, parent=group) as inner:
        click.echo(found.get_help(inner))
