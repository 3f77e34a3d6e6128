"""Pictures of what a terminal shows, as SVG: rich draws them, and their text can be read out."""

from __future__ import annotations

import html
import io
import re

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.unit.terminal import without_colour

# rich's own has fonts in it that a browser would fetch from elsewhere, and a window's buttons.
FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" xml:space="preserve">
<title>{title}</title>
<desc>{shown}</desc>
<style>
.{unique_id}-matrix {{ font: {char_height}px monospace; white-space: pre }}
{styles}
</style>
<defs>{lines}</defs>
<rect width="100%" height="100%" rx="8" fill="#292929"/>
<text x="{terminal_x}" y="26" fill="#c5c8c6" class="{unique_id}-matrix">$ {title}</text>
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""

LETTER = 12.2
"""How wide rich draws one."""


def svg(command: str, printed: str, columns: int) -> str:
    """A picture of a command and what it prints, with the colours in that."""
    text = Text.from_ansi(printed.rstrip("\n"))
    console = Console(
        record=True,
        width=columns,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(text, no_wrap=True)
    form = FORMAT.replace("{title}", literal(command)).replace("{shown}", literal(text.plain))
    made = console.export_svg(title=command, theme=MONOKAI, unique_id="t", code_format=form)
    return re.sub(r"[ \t]+$", "", made, flags=re.MULTILINE)


def literal(text: str) -> str:
    """A text as it stands in a format of an SVG."""
    return html.escape(text, quote=False).replace("{", "{{").replace("}", "}}")


def command_of(picture: str) -> str:
    """The command whose picture it is."""
    (title,) = re.findall(r"<title>(.*?)</title>", picture, re.DOTALL)
    return html.unescape(title)


def text_of(picture: str) -> str:
    """What was printed, as its description has it."""
    (shown,) = re.findall(r"<desc>(.*?)</desc>", picture, re.DOTALL)
    return html.unescape(shown)


def drawn_text(picture: str) -> str:
    """What is drawn, line by line, without the command."""
    (matrix,) = re.findall(r'<g class="t-matrix">(.*?)</g>', picture, re.DOTALL)
    lines: dict[float, str] = {}
    for x, y, said in re.findall(r'<text[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', matrix):
        before = lines.get(float(y), "").ljust(round(float(x) / LETTER))
        lines[float(y)] = before + html.unescape(said).replace("\xa0", " ")
    return "\n".join(line for _y, line in sorted(lines.items()))


def alike(text: str) -> str:
    """The words of a text, without what is another number each time: ids, tags and counts.

    Where lines break depends on how wide these are, so the words stand in an order of their own.
    """
    text = re.sub(r"\b[0-9a-f]{16}\b", "TAG", without_colour(text))
    text = re.sub(r"[\d.:]*\d\b", "N", text)
    return " ".join(sorted(re.sub(r"[─│]", " ", text).split()))
