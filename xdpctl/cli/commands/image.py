"""xdpctl image."""

from __future__ import annotations

from dataclasses import replace

import click

from ...errors import UsageError
from ...view import image as view
from ..settings import Settings, common_options


@click.command("image")
@click.argument("action", metavar="push", type=click.Choice(["push"]))
@click.argument("image", metavar="IMAGE")
@click.argument("file", metavar="FILE", type=click.Path(readable=False))
@click.option(
    "--arch",
    metavar="NAME",
    help="The architecture that the image is for, as images call it [this machine's].",
)
@common_options(changes=True)
@click.pass_obj
def command(settings: Settings, action: str, image: str, file: str, arch: str | None) -> None:
    """Make an image of an object file and push it to a registry.

    IMAGE is oci://HOST[:PORT]/NAME[:TAG]. The image has bpfman's form, and its labels name the XDP
    programs and the maps of the object. What is printed is its name with its digest.

    \b
    Examples:
      xdpctl image push oci://registry.example/xdp/filter:1.2 filter.o
      xdpctl load eth0 oci://registry.example/xdp/filter:1.2
    """
    from ...programs import objects
    from ...supply import manifest, push
    from ...supply.reference import Reference

    wanted = Reference.parse(image)
    if wanted.digest:
        raise UsageError(
            f"{image} has a digest, which the object decides",
            hint="name a tag: oci://HOST/NAME:TAG",
        )
    made = push.Image.of(*objects.labels(file), arch or manifest.architecture())
    found = replace(wanted, digest=made.digest)
    if not settings.dry_run:
        push.push(wanted, made)
    view.pushed(str(found), made.digest, settings)
