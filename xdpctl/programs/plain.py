"""What the verifier's common refusals mean, in one plain sentence, and the source line.

The patterns are the messages of kernel/bpf/verifier.c, tried on Linux 6.1 and 6.18. A message that
is not among them gets no sentence: a wrong one would be worse than none.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class _Refusal(NamedTuple):
    """A message at the beginning of a line; {1} in the sentence is the group of its pattern.

    `located` says whether the verifier refuses at the instruction that it looks at. What it says of
    the whole program, or before it has looked at any, is of no line.
    """

    pattern: str
    sentence: str
    located: bool = True


_REFUSALS = (
    _Refusal(
        r"invalid access to packet,",
        "the program uses packet bytes before a comparison with data_end shows that they are there",
    ),
    _Refusal(
        r"R\d+ invalid mem access '\w*_or_null'|R\d+ type=\w*_or_null expected="
        r"|Possibly NULL pointer passed to",
        "what a lookup, or another helper, returned is used without a test for NULL",
    ),
    _Refusal(r"R\d+ invalid mem access '(?:scalar|inv)'", "the program uses a number as a pointer"),
    _Refusal(
        r"R\d+ !read_ok",
        "the program uses a value that it has not set: a variable, a result, or what a call "
        "before has overwritten",
    ),
    _Refusal(
        r"infinite loop detected at insn|back-edge from insn",
        "the program has a loop of which the verifier sees no end",
    ),
    _Refusal(
        r"BPF program is too large\. Processed|The sequence of \d+ jumps is too complex",
        "the verifier needs too many steps to look at every path through the program: loops "
        "with fewer rounds, or bpf_loop(), need fewer",
        located=False,
    ),
    _Refusal(
        r"misaligned (?:\w+ )?access",
        "the program reads or writes at an address that is no multiple of the size",
    ),
    _Refusal(
        r"invalid (?:indirect )?read from stack (?:R\d+ )?off -?\d+\+\d+",
        "the program reads bytes of its stack, or hands them to a helper, that it has not set",
    ),
    _Refusal(
        r"invalid (?:variable-offset )?(?:read from|write to|indirect access to) stack R\d+ ",
        "the program uses memory outside of its stack, which has 512 bytes",
    ),
    _Refusal(
        r"combined stack size of \d+ calls is",
        "functions that call each other have more than 512 bytes of stack together",
        located=False,
    ),
    _Refusal(
        r"tail_calls are not allowed when call stack of previous frames is",
        "a function that makes tail calls is called by others that have too much stack",
        located=False,
    ),
    _Refusal(
        r"the call stack of \d+ frames is too deep",
        "functions call each other on more levels than the kernel allows",
        located=False,
    ),
    _Refusal(
        r"(?:program of this type cannot use helper|unknown func) (bpf_\w+)#\d+",
        "this kernel has no helper {1} for programs of this type",
    ),
    _Refusal(
        r"cannot call GPL-restricted function from non-GPL compatible program",
        "the program calls a helper that the kernel keeps for programs with a licence that is "
        "compatible with the GPL",
    ),
    _Refusal(
        r"calling kernel function (\w+) is not allowed",
        "this kernel does not let programs of this type call its function {1}",
    ),
    _Refusal(
        r"unreachable insn", "the program has instructions that nothing leads to", located=False
    ),
    _Refusal(
        r"(?:insn #\d+: )?last insn is not an exit or jmp",
        "a function runs past its end: on some path it does not return, often because the "
        "compiler found a value that is used before it is set",
        located=False,
    ),
    _Refusal(
        r"Unreleased reference id=|.* would lead to reference leak",
        "what a helper handed out, such as a socket or room in a ring buffer, is not given "
        "back on some path",
    ),
    _Refusal(
        r"invalid bpf_context access off=",
        "struct xdp_md has no such field, or not of this size, or it may not be written",
    ),
    _Refusal(
        r"invalid access to map value, value_size=",
        "the program reads or writes outside of the value of a map, or of its global variables",
    ),
    _Refusal(
        r"R\d+ unbounded memory access|R\d+ (?:min|max) value is (?:negative|outside of)"
        r"|math between \w+ pointer and register with unbounded",
        "a number that decides where, or how much, memory is used has no bound: compare it "
        "with the size first, as an unsigned number",
    ),
    _Refusal(
        r"write into map forbidden",
        "the program writes to a map that it may only read, such as that of its constants",
    ),
    _Refusal(
        r"R\d+ pointer arithmetic (?:with|on) .* prohibited|R\d+ bitwise operator .* on pointer"
        r"|R\d+ 32-bit pointer arithmetic prohibited",
        "the program calculates with a pointer in a way that is not allowed: numbers may be "
        "added to most pointers, and subtracted, and that is all",
    ),
    _Refusal(
        r"R\d+ type=\w+ expected=", "a helper gets an argument of a kind that it does not take"
    ),
    _Refusal(
        r"dereference of modified ctx ptr",
        "the context (struct xdp_md) is used by a pointer that was moved",
    ),
    _Refusal(
        r"Extension program changes packet data, while original does not",
        "the program changes packets, and the dispatcher that it is to run in was made for "
        "programs that do not",
        located=False,
    ),
)

# Older kernels say the text alone.
_SOURCE = r"(?:\d+: )?; (.*?)(?: @ ([^@]*):(\d+))?$"
_MOST = 100
"""How many characters of a source line are shown."""


def sentence(log: str) -> str:
    """What a refusal means, in the form of a compiler's message; "" if it is not known.

    ``prog.c:12: the program …``, and the text of that line below it: as far as the log names them,
    which it does for objects that have line numbers.
    """
    lines = log.splitlines()
    known = [(re.compile(one.pattern), one) for one in _REFUSALS]
    for at in reversed(range(len(lines))):
        for pattern, refusal in known:
            if found := pattern.match(lines[at]):
                told = refusal.sentence.replace("{1}", found[1] if found.groups() else "")
                return _located(told, lines[:at]) if refusal.located else told
    return ""


def _located(told: str, before: list[str]) -> str:
    """A sentence with the source line that the verifier named last."""
    for line in reversed(before):
        found = re.match(_SOURCE, line)
        # The compiler puts its own instructions on line 0, which has no text.
        if not found or not found[1].strip():
            continue
        text, file, number = found.groups()
        text = text.strip() if len(text.strip()) <= _MOST else f"{text.strip()[:_MOST]} ..."
        return f"{file}:{number}: {told}:\n    {text}" if file else f"{told}:\n    {text}"
    return told
