# SPDX-License-Identifier: BSD-2-Clause
"""The binding of libsepol: policies in and out, states, explanations, and its absence."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from pympi import AccessDenied, Kernel
from pympi.errors import PolicyError
from pympi.policy import TypeEnforcement, sepol
from pympi.policy.cil import compile_policy
from pympi.policy.cil.contexts import format_context, parse_context
from pympi.policy.cil.evaluate import AccessVectors
from pympi.policy.cil.policydb import Context, RuleKind

POLICY = """
(type a_t) (type b_t) (role r_r) (user u_u)
(roletype r_r a_t) (roletype r_r b_t) (userrole u_u r_r)
(class mi_x (first second third ioctl))
(allow a_t b_t (mach_port (send hold_send)))
(allow a_t b_t (mi_x (first second third)))
(allowx a_t b_t (ioctl mi_x (range 1 2)))
(auditallow a_t b_t (mach_port (send)))
(dontaudit a_t b_t (mach_port (recv)))
(typetransition a_t b_t mach_port a_t)
(constrain (mach_port (hold_send)) (eq t1 t2))
(boolean extra false)
(booleanif extra (true (allow a_t b_t (mach_port (recv)))))
(typepermissive b_t)
"""
A, B = "u_u:r_r:a_t", "u_u:r_r:b_t"

needs_libsepol = pytest.mark.skipif(
    not sepol.AVAILABLE, reason="pympi was built without libsepol (Debian: libsepol-dev)"
)


class Asked:
    """A policy and who judges by it, asked by names."""

    def __init__(self, text: str = POLICY) -> None:
        self.db = compile_policy([("p.cil", text)])
        self.judge = sepol.Evaluator(self.db)
        self.a, self.b = self.context(A), self.context(B)

    def context(self, text: str) -> Context:
        return parse_context(self.db, text)

    def names(self, vector: int, tclass: str = "mach_port") -> tuple[str, ...]:
        return self.db.tclass(tclass).names(vector)

    def access(self, judge: sepol.Evaluator | None = None) -> AccessVectors:
        number = self.db.tclass("mach_port").number
        return (judge or self.judge).access(self.a, self.b, number)


@pytest.fixture
def asked() -> Asked:
    return Asked()


# ---- decisions ----


@needs_libsepol
def test_vectors(asked: Asked) -> None:
    vectors = asked.access()
    assert asked.names(vectors.allowed) == ("send",)
    assert asked.names(vectors.auditallow) == ("send",)
    assert asked.names(~vectors.auditdeny) == ("recv",)


@needs_libsepol
def test_booleans_are_of_a_state(asked: Asked) -> None:
    other = asked.judge.with_booleans({"extra": True})
    for _ in range(2):
        assert asked.names(asked.access().allowed) == ("send",)
        assert asked.names(asked.access(other).allowed) == ("send", "recv")
    assert (asked.judge.booleans, other.booleans) == ({"extra": False}, {"extra": True})


@needs_libsepol
def test_an_unknown_boolean_is_refused(asked: Asked) -> None:
    with pytest.raises(KeyError, match="nothing"):
        asked.judge.with_booleans({"nothing": True})


@needs_libsepol
def test_extended_rules_leave_ranges(asked: Asked) -> None:
    method, port = (asked.db.tclass(name).number for name in ("mi_x", "mach_port"))
    assert asked.judge.routines(asked.a, asked.b, method) == ((1, 2),)
    assert asked.judge.routines(asked.b, asked.a, method) is None
    assert asked.judge.numbers(asked.a, asked.b, port) is None


@needs_libsepol
def test_new_contexts(asked: Asked) -> None:
    number = asked.db.tclass("mach_port").number
    made = [asked.judge.compute_sid(kind, asked.a, asked.b, number) for kind in
            (RuleKind.TYPETRANSITION, RuleKind.TYPECHANGE)]  # fmt: skip
    assert [format_context(asked.db, each) for each in made] == [
        "u_u:object_r:a_t",
        "u_u:object_r:b_t",
    ]


@needs_libsepol
def test_reasons(asked: Asked) -> None:
    port = asked.db.tclass("mach_port")
    held = asked.judge.reason(asked.a, asked.b, port.number, port.mask(("hold_send",)))
    assert held.about == ("constraint",)
    assert "t1 == t2 -Fail-" in held.text
    received = asked.judge.reason(asked.a, asked.b, port.number, port.mask(("recv",)))
    assert received == (("rule",), received.text)
    granted = asked.judge.reason(asked.a, asked.b, port.number, port.mask(("send",)))
    assert granted.about == ()


@needs_libsepol
def test_what_the_policy_says_of_itself(asked: Asked) -> None:
    assert asked.judge.permissive == 1 << asked.db.type("b_t").number
    assert asked.judge.handle_unknown == "deny"


@needs_libsepol
def test_a_context_that_is_not_valid_is_refused(asked: Asked) -> None:
    wrong = asked.a._replace(role=asked.db.role("system_r").number)
    with pytest.raises(ValueError, match="no valid context to libsepol"):
        asked.judge.access(wrong, asked.b, 0)


@needs_libsepol
def test_contexts_are_forgotten_when_there_are_many(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sepol, "_KEPT", 2)
    first = asked.judge._state
    expected = asked.access()
    for kind in range(asked.db.type_count):
        context = asked.context(f"u_u:object_r:{asked.db.types[kind].name}")
        asked.judge.access(context, asked.b, 0)
    assert asked.judge._state is not first
    assert len(asked.judge._state.sids) <= 3
    assert asked.access() == expected


@needs_libsepol
def test_policies_do_not_mix(asked: Asked) -> None:
    other = Asked(POLICY.replace("(mach_port (send hold_send))", "(mach_port (relabelto))"))
    for _ in range(3):
        assert asked.names(asked.access().allowed) == ("send",)
        assert other.names(other.access().allowed) == ("relabelto",)


@needs_libsepol
def test_threads_do_not_mix(asked: Asked) -> None:
    other = asked.judge.with_booleans({"extra": True})
    wrong: list[AccessVectors] = []

    def ask(judge: sepol.Evaluator) -> None:
        expected = asked.access(judge)
        wrong.extend(v for _ in range(300) if (v := asked.access(judge)) != expected)

    threads = [threading.Thread(target=ask, args=(judge,)) for judge in (asked.judge, other) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert asked.names(asked.access().allowed) == ("send",)


# ---- through te ----


@needs_libsepol
def test_te_runs_on_it() -> None:
    policy = TypeEnforcement.from_text(POLICY, backend="libsepol")
    with Kernel(policies=[policy]) as kernel:
        a, b = f"te/{A}", f"te/{B}"
        assert kernel.access(a, b, "mach_port", "send")
        assert not kernel.access(a, b, "mach_port", "recv")
        policy.set_booleans(extra=True)
        assert kernel.access(a, b, "mach_port", "recv")
        subject = kernel.create_task("subject", label=a)
        with pytest.raises(AccessDenied, match="no relabelfrom on mach_port"):
            subject.allocate_port(label=b)


# ---- binaries ----


@needs_libsepol
def test_a_binary_decides_as_its_text(asked: Asked, tmp_path: Path) -> None:
    path = tmp_path / "policy.33"
    path.write_bytes(sepol.compile_binary([("p.cil", asked.db.text)]))
    read = sepol.load_binary(path)
    assert read.version == 33
    assert read.initial_sids.keys() == {"kernel", "unlabeled"}
    judge = TypeEnforcement.from_database(read, backend="libsepol")
    port = compile_policy([("p.cil", POLICY)])
    embedded = TypeEnforcement.from_database(port)
    with Kernel(policies=[judge]) as one, Kernel(policies=[embedded]) as other:
        for permission in ("send", "recv", "hold_send"):
            verdicts = [
                k.access(f"te/{A}", f"te/{B}", "mach_port", permission) for k in (one, other)
            ]
            assert bool(verdicts[0]) == bool(verdicts[1])


@needs_libsepol
def test_initial_sids_of_a_binary_are_named(tmp_path: Path) -> None:
    path = tmp_path / "policy.33"
    text = POLICY + "(sid own) (sidcontext own (u_u r_r a_t ((s0) (s0))))"
    path.write_bytes(sepol.compile_binary([("p", compile_policy([("p", text)]).text)]))
    read = sepol.load_binary(path, sids=list(compile_policy([("p", text)]).initial_sids))
    assert format_context(read, read.initial_sids["own"]) == A


@needs_libsepol
@pytest.mark.parametrize("image", [b"", b"no policy at all", b"\x8c\xff\x7c\xf9" + bytes(60)])
def test_what_is_no_binary_is_refused(image: bytes, tmp_path: Path) -> None:
    path = tmp_path / "policy.33"
    path.write_bytes(image)
    with pytest.raises(PolicyError) as caught:
        sepol.load_binary(path)
    assert caught.value.file == str(path)


@needs_libsepol
def test_only_files_of_bounded_size_are_binaries(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    for path, words in (("/dev/zero", "a regular file"), (large, r"Budget\.bytes")):
        with pytest.raises(PolicyError, match=words):
            sepol.load_binary(path)


@needs_libsepol
def test_damaged_binaries_are_refused_or_read(asked: Asked, tmp_path: Path) -> None:
    image = sepol.compile_binary([("p.cil", asked.db.text)])
    path = tmp_path / "policy.33"
    refused = 0
    for size in range(0, len(image), 97):
        path.write_bytes(image[:size])
        with pytest.raises(PolicyError):
            sepol.load_binary(path)
        refused += 1
    assert refused > 10


@needs_libsepol
def test_errors_have_a_place(asked: Asked) -> None:
    bad = f"{asked.db.text}\n(neverallow a_t b_t (mach_port (send)))"
    with pytest.raises(PolicyError, match="neverallow check failed") as caught:
        sepol.compile_binary([("first.cil", ""), ("p.cil", bad)])
    assert (caught.value.file, caught.value.line) == ("p.cil", bad.count("\n") + 1)
    assert "(allow a_t b_t (mach_port (send hold_send)))" in str(caught.value)


# ---- without it ----


def test_without_it_the_backend_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sepol, "AVAILABLE", False)
    with pytest.raises(PolicyError, match="built without libsepol; install libsepol-dev"):
        TypeEnforcement.from_text(POLICY, backend="libsepol")
    with pytest.raises(PolicyError, match="libsepol-dev"):
        sepol.load_binary("/nonexistent")
    with pytest.raises(PolicyError, match="libsepol-dev"):
        sepol.compile_binary([])


def test_it_is_loaded_when_asked_for() -> None:
    import subprocess

    program = "import sys, pympi, pympi.policy; print('pympi._sepol' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@needs_libsepol
def test_a_policy_lives_as_long_as_its_states() -> None:
    db = compile_policy([("<text>", POLICY)])
    evaluator = sepol.Evaluator(db, {"extra": False})
    policy, state = evaluator._policy, evaluator._state
    sepol.ffi.release(policy.handle)  # as a garbage collector may, which knows no order
    assert sepol.lib.pm_sepol_sid(state.handle, A.encode()) != 0
    sepol.ffi.release(state.handle)
