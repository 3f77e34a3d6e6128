"""xdpctl.errors: what a caller can rely on."""

from __future__ import annotations

import errno

import pytest

from xdpctl import errors


def classes() -> list[type[errors.XdpctlError]]:
    return [errors.XdpctlError, *errors.XdpctlError.__subclasses__()]


def test_exit_codes_are_one_each() -> None:
    codes = {kind.__name__: kind.exit_code for kind in classes()}
    assert len(set(codes.values())) == len(codes)
    assert all(0 < code < 256 for code in codes.values())
    # Promised to scripts.
    assert (codes["XdpctlError"], codes["UsageError"], codes["NotFoundError"]) == (1, 2, 3)


@pytest.mark.parametrize("kind", [kind for kind in classes() if kind is not errors.Interrupted])
def test_an_error_as_data(kind: type[errors.XdpctlError]) -> None:
    assert kind.__doc__
    assert kind("what", why="why", hint="hint", details="log").as_dict() == {
        "error": kind.__name__,
        "what": "what",
        "why": "why",
        "hint": "hint",
        "details": "log",
        "exit_code": kind.exit_code,
    }


def test_a_signal_ends_as_shells_say_it() -> None:
    error = errors.Interrupted(15)
    assert error.exit_code == error.as_dict()["exit_code"] == 143
    assert errors.Interrupted.exit_code == 130


def test_a_kernel_error_names_the_call_and_the_number() -> None:
    error = errors.KernelError("bpf_link_update", errno.EPERM, "log")
    assert isinstance(error, OSError)
    assert str(error) == "bpf_link_update: Operation not permitted (EPERM)"
    assert str(errors.KernelError("x", 524)).endswith("(524)")  # ENOTSUPP, the kernel's own


def test_a_kernel_error_as_an_error_of_the_command() -> None:
    """Why is what the kernel said, if it said anything."""
    for log, why in (
        ("", "bpf_prog_load: Cannot allocate memory (ENOMEM)"),
        ("no room\n", "no room"),
    ):
        error = errors.KernelError("bpf_prog_load", errno.ENOMEM, log).explained()
        assert type(error) is errors.XdpctlError
        assert (error.what, error.why) == ("a kernel call failed: bpf_prog_load", why)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EPERM, errno.EINVAL])
def test_a_refusal_is_an_answer(code: int) -> None:
    with errors.unless_short():
        raise errors.KernelError("bpf_prog_get_fd_by_id", code)


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN])
def test_a_want_of_something_is_none(code: int) -> None:
    with pytest.raises(OSError, match=errno.errorcode[code]), errors.unless_short():
        raise errors.KernelError("bpf_prog_get_fd_by_id", code)
