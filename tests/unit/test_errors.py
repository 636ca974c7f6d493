# SPDX-License-Identifier: BSD-2-Clause
"""Codes and exceptions."""

import pickle

import pytest

from pympi import errors
from pympi._ffi import ffi, lib
from pympi.errors import AccessDenied, MachError, PolicyError, check, code_name, exception

CODES = ffi.typeof("enum pm_code").relements


@pytest.mark.parametrize("name", CODES)
def test_every_code_has_a_sentence_of_its_own(name: str) -> None:
    error = exception(CODES[name], "task 'x'")
    assert (error.code, error.name) == (CODES[name], name)
    assert str(error).startswith("task 'x': ")
    assert str(error).endswith(f"({name})")
    assert "unknown" not in str(error)


def test_the_table_has_no_codes_that_there_are_not() -> None:
    assert set(errors._CODES) == set(CODES)


@pytest.mark.parametrize(
    ("code", "kind", "builtin"),
    [
        (lib.MACH_RCV_TIMED_OUT, errors.TimedOut, TimeoutError),
        (lib.MACH_SEND_TIMED_OUT, errors.QueueFull, TimeoutError),
        (lib.MACH_RCV_PORT_DIED, errors.PortDied, MachError),
        (lib.KERN_INVALID_NAME, errors.InvalidName, LookupError),
        (lib.KERN_INVALID_RIGHT, errors.InvalidRight, MachError),
        (lib.KERN_UREFS_OVERFLOW, errors.LimitExceeded, MachError),
        (lib.PM_FORKED, errors.ForkedError, RuntimeError),
        (lib.PM_AUDIT_FULL, errors.AuditFull, errors.LimitExceeded),
    ],
)
def test_codes_become_the_fitting_exception(
    code: int, kind: type[Exception], builtin: type[Exception]
) -> None:
    for sign in (1, -1):
        error = exception(sign * code)
        assert type(error) is kind
        assert isinstance(error, builtin)
        assert isinstance(error, errors.PympiError)
        assert error.code == code


def test_bits_that_mach_adds_are_named() -> None:
    code = lib.MACH_RCV_BODY_ERROR | lib.MACH_MSG_IPC_SPACE
    assert code_name(code) == "MACH_RCV_BODY_ERROR|MACH_MSG_IPC_SPACE"
    assert "body" in str(exception(code))
    assert code_name(0x123456) == "0x123456"
    assert "unknown code" in str(exception(0x123456))


def test_success_raises_nothing() -> None:
    check(0)
    with pytest.raises(MachError):
        check(lib.KERN_FAILURE)


@pytest.mark.parametrize(
    "error",
    [
        exception(lib.KERN_INVALID_NAME, "task 'x', name 0x103"),
        AccessDenied(lib.KERN_NO_ACCESS, "task 'x'", "relabel", "relabelto", "mach_port"),
        PolicyError("expected ';'", "a.rules", 3, 9),
        errors.VerifyError(["port 1"]),
    ],
)
def test_exceptions_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_policy_errors_say_where() -> None:
    assert str(PolicyError("expected ';'", "a.rules", 3, 9)) == "a.rules:3:9: expected ';'"
