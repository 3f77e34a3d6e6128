"""What the files of completion/ ask for and get, the same for each shell and version of click.

Import it before click looks at _XDPCTL_COMPLETE, whose value `lines_complete` means this.
"""

from __future__ import annotations

import os

from click.shell_completion import (
    CompletionItem,
    ShellComplete,
    add_completion_class,
    split_arg_string,
)


class Lines(ShellComplete):
    """COMP_WORDS has the words up to the cursor, as typed, a line each.

    The answer is a line for each completion: type (plain, file or dir), value and help, with tabs
    between. click's own formats differ from shell to shell and from version to version.
    """

    name = "lines"
    source_template = ""  # the files are there already

    def get_completion_args(self) -> tuple[list[str], str]:
        typed = os.environ.get("COMP_WORDS", "").split("\n")
        words = ["".join(split_arg_string(word)[:1]) for word in typed]
        return words[1:-1], words[-1]

    def format_completion(self, item: CompletionItem) -> str:
        told = (item.type, str(item.value), item.help or "")
        return "\t".join(" ".join(one.split()) for one in told)


add_completion_class(Lines)
