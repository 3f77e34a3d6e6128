"""xdpctl.programs.plain: what the verifier's messages mean, and where in the source."""

from __future__ import annotations

import errno

import pytest

from xdpctl.errors import KernelError
from xdpctl.programs import plain, words

END = "processed 9 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0\n"
BEFORE = "0: R1=ctx() R10=fp0\n; if (data + 4 > end) @ prog.c:7\n0: (61) r2 = *(u32 *)(r1 +4)\n"

# What kernels from 5.10 to 7.3 say, and words of the sentence for it.
MESSAGES = {
    "invalid access to packet, off=0 size=1, R1(id=0,off=0,r=0)": "data_end",
    "R0 invalid mem access 'map_value_or_null'": "without a test for NULL",
    "R0 invalid mem access 'ringbuf_mem_or_null'": "without a test for NULL",
    "R3 type=map_value_or_null expected=fp, pkt, pkt_meta": "without a test for NULL",
    "Possibly NULL pointer passed to helper arg3": "without a test for NULL",
    "R1 invalid mem access 'scalar'": "a number as a pointer",
    "R1 invalid mem access 'inv'": "a number as a pointer",
    "R0 !read_ok": "has not set",
    "infinite loop detected at insn 3": "no end",
    "back-edge from insn 5 to 2": "no end",
    "BPF program is too large. Processed 1000001 insn": "too many steps",
    "The sequence of 8193 jumps is too complex.": "too many steps",
    "misaligned stack access off (0x0; 0x0)+0+-12 size 8": "no multiple",
    "misaligned packet access off 2+(0x0; 0x0)+14+0 size 4": "no multiple",
    "invalid indirect read from stack R2 off -4+0 size 4": "has not set",
    "invalid indirect read from stack off -4+0 size 4": "has not set",
    "invalid read from stack R10 off -8+0 size 8": "has not set",
    "invalid write to stack R10 off=-520 size=8": "outside of its stack",
    "invalid variable-offset write to stack R2 var_off=(0x0; 0xff) off=-8 size=1": "outside of its",
    "combined stack size of 2 calls is 576. Too large": "512 bytes of stack together",
    "tail_calls are not allowed when call stack of previous frames is 288 bytes. Too large": "tail",
    "the call stack of 9 frames is too deep !": "more levels",
    "program of this type cannot use helper bpf_skb_store_bytes#9": "no helper bpf_skb_store_bytes",
    "unknown func bpf_skb_store_bytes#9": "no helper bpf_skb_store_bytes",
    "cannot call GPL-restricted function from non-GPL compatible program": "licence",
    "calling kernel function bpf_task_acquire is not allowed": "function bpf_task_acquire",
    "unreachable insn 5": "nothing leads to",
    "last insn is not an exit or jmp": "past its end",
    "Unreleased reference id=2 alloc_insn=12": "not given back",
    "tail_call would lead to reference leak": "not given back",
    "invalid bpf_context access off=64 size=4": "xdp_md",
    "invalid access to map value, value_size=8 off=8 size=8": "outside of the value",
    "R2 unbounded memory access, make sure to bounds check any such access": "no bound",
    "R2 max value is outside of the allowed memory range": "no bound",
    "R2 min value is negative, either use unsigned index or do a if (index >=0) check.": "no bound",
    "math between pkt pointer and register with unbounded min value is not allowed": "no bound",
    "write into map forbidden, value_size=4 off=0 size=4": "only read",
    "R1 pointer arithmetic with <<= operator prohibited": "calculates with a pointer",
    "R1 pointer arithmetic on pkt_end prohibited": "calculates with a pointer",
    "R1 bitwise operator |= on pointer prohibited": "calculates with a pointer",
    "R2 type=scalar expected=fp, pkt, pkt_meta": "an argument of a kind",
    "dereference of modified ctx ptr R1 off=8 disallowed": "a pointer that was moved",
    "Extension program changes packet data, while original does not": "the dispatcher",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_each_message_has_its_sentence(message: str) -> None:
    """Whatever the verifier says behind it: statistics, other states, a whole report."""
    for behind in ("", END, f"cur state: R1=1\n{END}", f"\nVerification failed: x: y\n\n{END}"):
        told = plain.sentence(f"{BEFORE}{message}\n{behind}")
        assert MESSAGES[message] in told
        assert "{" not in told


@pytest.mark.parametrize("log", ["", END, "R1 is of a kind that nobody knows\n", BEFORE + END])
def test_what_is_not_known_has_none(log: str) -> None:
    assert plain.sentence(log) == ""
    assert words.reason(log) == "\n".join(log.splitlines()[-words.LOG_LINES :])


def test_the_source_line_is_the_last_before_the_message() -> None:
    """In the words of newer and older kernels, and of those that look at jumps first."""
    what = "the program uses a number as a pointer"
    for log, told in {
        BEFORE + "R1 invalid mem access 'inv'": f"prog.c:7: {what}:\n    if (data + 4 > end)",
        "; return *a;\n1: (79) r1 = 1\nR1 invalid mem access 'inv'": f"{what}:\n    return *a;",
        "; a @ x @ y.c:3\nR1 invalid mem access 'inv'": f"y.c:3: {what}:\n    a @ x",
        "; a = b; @ p.c:3\n;  @ p.c:0\nR1 invalid mem access 'inv'": f"p.c:3: {what}:\n    a = b;",
        "1: (79) r1 = *(u64 *)(r1 +0)  ; R1=0\nR1 invalid mem access 'inv'": what,
    }.items():
        assert plain.sentence(log) == told
    log = "5: ; while (going) @ p.c:9\n2: ; while (going) @ p.c:9\nback-edge from insn 5 to 2\n"
    assert plain.sentence(log).startswith("p.c:9: the program has a loop")
    long = f"; {'a' * 300} @ p.c:1\nR1 invalid mem access 'inv'"
    assert len(plain.sentence(long).splitlines()[1]) < 120


def test_what_is_of_no_line_names_none() -> None:
    """The stack of all functions together, for instance, whatever was looked at last."""
    told = plain.sentence(f"{BEFORE}combined stack size of 2 calls is 576. Too large\n{END}")
    assert told.startswith("functions that call")
    assert "prog.c" not in told


def test_a_source_line_is_no_message() -> None:
    """It is the text of whoever wrote the object."""
    log = f"; unreachable insn @ p.c:1\n0: (95) exit\n; R0 !read_ok\nsomething new\n{END}"
    assert plain.sentence(log) == ""


def test_the_sentence_is_the_last_of_the_reason() -> None:
    log = f"{BEFORE}R1 invalid mem access 'scalar'\n{END}"
    error = words.refused("f of x.o", KernelError("verifier", errno.EACCES, log), ext=True)
    *own, sentence, source = error.why.splitlines()
    assert own == log.splitlines()
    assert sentence == "prog.c:7: the program uses a number as a pointer:"
    assert source == "    if (data + 4 > end)"
