"""xdpctl help."""

from __future__ import annotations

import click

from .. import complete
from ..group import check_command
from ..settings import CommonOption, common_options


@click.command("help")
@click.argument(
    "name", metavar="[COMMAND|options]", shell_complete=complete.commands, required=False
)
@common_options()
@click.pass_context
def command(context: click.Context, name: str | None) -> None:
    """Show the help of xdpctl, of a command, or of the common options.

    \b
    Examples:
      xdpctl help load
      xdpctl help options
    """
    group = context.find_root()
    assert isinstance(group.command, click.Group)
    if name == "options":
        click.echo(_common(group))
        return
    if name is None:
        click.echo(group.get_help())
        return
    check_command(group.command, group, [name])
    found = group.command.get_command(group, name)
    assert found is not None
    with click.Context(found, info_name=found.name, parent=group) as inner:
        click.echo(found.get_help(inner))


def _common(group: click.Context) -> str:
    """The options that each command has."""
    formatter = group.make_formatter()
    formatter.write_text("These options stand before or after the name of a command.")
    options = [one for one in group.command.params if isinstance(one, CommonOption)]
    with formatter.section("Options of all commands"):
        rows = [one.described(group) for one in options]
        asking = group.command.get_help_option(group)
        rows.append(asking.get_help_record(group) if asking else None)
        formatter.write_dl([row for row in rows if row])
    formatter.write_paragraph()
    formatter.write_text("Manual: man xdpctl, COMMON OPTIONS")
    return formatter.getvalue().rstrip("\n")
