"""What `image push` has pushed."""

from __future__ import annotations

from . import document
from .style import Style, say


def pushed(image: str, digest: str, style: Style) -> None:
    """An image that a registry has now, or would have, by its name with the digest."""
    if style.json:
        fields = {"action": "push", "image": image, "digest": digest}
        document.show_change("image", fields, style)
    elif not style.quiet or style.dry_run:
        say(f"{'would push' if style.dry_run else 'pushed'} {image}")
