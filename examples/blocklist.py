#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Edit the list of networks whose packets blocklist.c drops.

    xdpctl load eth0 blocklist.c
    python3 blocklist.py add 192.0.2.0/24 2001:db8::/32

All interfaces that it is loaded on have the same list. It stays when the program is unloaded, until
its pin is removed.
"""

import ipaddress
import sys

import click

import xdpctl
from xdpctl.errors import NotFoundError, XdpctlError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, where IPv4 addresses are


def key_of(network: Network) -> bytes:
    """The number of bits that count, as a u32, and the address."""
    address, bits = network.network_address.packed, network.prefixlen
    if network.version == 4:
        address, bits = MAPPED + address, bits + 96
    return bits.to_bytes(4, sys.byteorder) + address


def network_of(key: bytes) -> Network:
    bits, address = int.from_bytes(key[:4], sys.byteorder), key[4:]
    if bits >= 96 and address.startswith(MAPPED):
        return ipaddress.IPv4Network((address[12:], bits - 96))
    return ipaddress.IPv6Network((address, bits))


def parsed(
    _context: click.Context, _option: click.Parameter, words: tuple[str, ...]
) -> list[Network]:
    try:
        return [ipaddress.ip_network(word) for word in words]
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


networks_argument = click.argument(
    "networks", metavar="NETWORK...", nargs=-1, required=True, callback=parsed
)


class Group(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except XdpctlError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Group)
@click.option(
    "--bpffs",
    envvar="LIBXDP_BPFFS",
    default="/sys/fs/bpf",
    show_default=True,
    help="Where the list is pinned.",
)
@click.pass_context
def cli(context: click.Context, bpffs: str) -> None:
    """The networks whose packets are dropped."""
    context.obj = context.with_resource(xdpctl.Map.pinned(f"{bpffs}/blocked"))


@cli.command()
@networks_argument
@click.pass_obj
def add(blocked: xdpctl.Map, networks: list[Network]) -> None:
    """Drop what comes from these networks from now on."""
    for network in networks:
        blocked.setdefault(key_of(network), bytes(8))


@cli.command("del")
@networks_argument
@click.pass_obj
def delete(blocked: xdpctl.Map, networks: list[Network]) -> None:
    """Take networks off the list, each as it was added."""
    for network in networks:
        try:
            del blocked[key_of(network)]
        except KeyError:
            raise NotFoundError(f"{network} is not on the list") from None


@cli.command("list")
@click.pass_obj
def show(blocked: xdpctl.Map) -> None:
    """Show the networks, each with the packets that were dropped for it."""
    for key, dropped in blocked.items():
        click.echo(f"{network_of(key)} {int.from_bytes(dropped, sys.byteorder)}")


if __name__ == "__main__":
    cli()
