"""``python -m xdpctl``."""

from .cli import main

main()
