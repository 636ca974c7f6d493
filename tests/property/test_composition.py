# SPDX-License-Identifier: BSD-2-Clause
"""Modules compose the same in whatever order they are loaded (TrustedBSD's MAC framework).

Allowed is the AND of the answers, auditallow the OR, auditdeny the OR over those that refused, in
earnest or in word only; of codes the written precedence chooses one.
"""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pympi import Kernel, MachError, mach
from pympi.enums import ALL, MachPort, ObjectClass
from pympi.errors import code_name
from pympi.policy import Decision, PolicyModule
from pympi.policy.answers import PRECEDENCE, compose

vectors = st.integers(0, ALL)
decisions = st.builds(Decision, vectors, vectors, vectors, vectors)


class Fixed(PolicyModule):
    """Answers one thing, or fails."""

    def __init__(self, name: str, answer: Any, code: Any = 0) -> None:
        self.name = name
        self.answer = answer
        self.code = code

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]

    def check_relabel(self, subject: Any, old: Any, new: Any, tclass: ObjectClass) -> int:
        return self.code  # type: ignore[no-any-return]


def vector(modules: list[PolicyModule]) -> dict[str, int]:
    """Return what a kernel with these modules, loaded in this order, decides."""
    with Kernel() as kernel:
        for module in modules:
            kernel.policies.load(module)
        task = kernel.create_task("task")
        found = kernel.access(task, task, "mach_port", ALL)
        return {
            "allowed": found.vector, "audited": found.audited, "reported": found.reported,
            "denied": len(found.denied),
        }  # fmt: skip


@given(st.lists(decisions, max_size=6), st.randoms(use_true_random=False))
def test_order_changes_nothing(answers: list[Decision], random: Any) -> None:
    mixed = random.sample(answers, len(answers))
    assert compose(mixed) == compose(answers)


@given(st.lists(decisions, max_size=4), st.lists(decisions, max_size=4))
def test_it_is_what_is_written(first: list[Decision], second: list[Decision]) -> None:
    """Bit by bit, and said another way than the code does."""
    answers = first + second
    found = compose(answers)
    for bit in (1 << n for n in (0, 1, 7, 22, 31)):
        refusing = [answer for answer in answers if not answer.allowed & bit]
        assert bool(found.allowed & bit) == (not refusing)
        assert bool(found.auditallow & bit) == any(answer.auditallow & bit for answer in answers)
        heard = [answer for answer in answers if answer.report & bit] + refusing
        assert bool(found.auditdeny & bit) == any(answer.auditdeny & bit for answer in heard)
        assert bool(found.report & bit) == any(answer.report & bit for answer in answers)


@given(st.lists(decisions, min_size=1, max_size=5), decisions)
def test_another_module_never_allows_more(answers: list[Decision], another: Decision) -> None:
    assert compose([*answers, another]).allowed & ~compose(answers).allowed == 0


@given(st.lists(decisions, max_size=5))
def test_no_opinion_changes_nothing(answers: list[Decision]) -> None:
    assert compose([*answers, Decision()]) == compose(answers)


@settings(max_examples=25)
@given(st.lists(decisions, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_in_a_kernel_too(answers: list[Decision], random: Any) -> None:
    """Through loading, the decider and the cache, with names that sort otherwise."""
    names = random.sample("abcdefgh", len(answers))
    modules = [Fixed(name, answer) for name, answer in zip(names, answers, strict=True)]
    mixed = random.sample(modules, len(modules))
    assert vector(modules) == vector(mixed)
    assert vector(modules)["allowed"] == compose(answers).allowed


FAILURES = [
    ValueError("broken"), KeyError("x"), SystemExit(3), None, "all", 1.5, float("nan"), True, 2**40,
    Decision(allowed=-1), Decision(allowed=2**32), Decision(auditdeny=1.5),  # type: ignore[arg-type]
    Decision(allowed=None), Decision(report=True),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_failing_module_denies_wherever_it_stands(failure: Any) -> None:
    for before, after in ((0, 1), (1, 0), (1, 1), (0, 0)):
        first, last = Fixed("a", Decision()), Fixed("z", Decision())  # they are asked by name
        modules = [first] * before + [Fixed("m", failure)] + [last] * after
        assert vector(modules)["allowed"] == 0


def test_a_permissive_module_refuses_nothing_and_reports() -> None:
    soft, hard = Fixed("soft", Decision(allowed=0)), Fixed("hard", Decision())
    soft.permissive = True
    for modules in itertools.permutations([soft, hard]):
        with Kernel(policies=modules) as kernel:
            task = kernel.create_task("task")
            found = kernel.access(task, task, "mach_port", "send")
            assert (found.allowed, found.reported) == (True, True)


def relabel_code(modules: list[PolicyModule]) -> int:
    """Return the code of a relabelling, 0 if it is allowed."""
    with Kernel(policies=modules) as kernel:
        task = kernel.create_task("task")
        inbox = task.allocate_port()
        try:
            inbox.relabel(f"{modules[0].name}/new")
        except MachError as error:
            return error.code
        return 0


codes = st.lists(
    st.sampled_from([0, *PRECEDENCE, mach.KERN_FAILURE, mach.KERN_NO_SPACE]), min_size=1, max_size=4
)


@settings(max_examples=40)
@given(codes, st.randoms(use_true_random=False))
def test_precedence_of_codes(answers: list[int], random: Any) -> None:
    """The same code in each order: the first of PRECEDENCE, else the smallest other."""
    names = random.sample("abcdefgh", len(answers))
    modules = [Fixed(n, Decision(), code) for n, code in zip(names, answers, strict=True)]
    refusals = [code for code in answers if code]
    known = [code for code in PRECEDENCE if code in refusals]
    wanted = (known or sorted(refusals) or [0])[0]
    assert code_name(relabel_code(modules)) == code_name(wanted)
    assert relabel_code(random.sample(modules, len(modules))) == wanted


def test_precedence_has_every_class_of_error() -> None:
    """What is wrong with the call, what must not be seen, access, privilege: in this order."""
    order = [code_name(code) for code in PRECEDENCE]
    assert order.index("KERN_INVALID_ARGUMENT") < order.index("KERN_INVALID_NAME")
    assert order.index("KERN_INVALID_NAME") < order.index("KERN_NO_ACCESS")
    assert order.index("KERN_NO_ACCESS") < order.index("KERN_DENIED")
    for first, second in itertools.pairwise(PRECEDENCE):
        pair = [Fixed("a", Decision(), second), Fixed("b", Decision(), first)]
        assert relabel_code(pair) == first  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["no", None, 1.5, True, object()])
def test_a_relabel_answer_that_is_no_code_denies(code: object) -> None:
    assert relabel_code([Fixed("a", Decision(), code)]) == mach.KERN_NO_ACCESS


def test_audit_masks_of_modules_reach_the_trail() -> None:
    """dontaudit of one module does not silence the refusal of another."""
    silent = Fixed("silent", Decision(allowed=ALL & ~int(MachPort.send), auditdeny=0))
    loud = Fixed("loud", Decision(allowed=ALL & ~int(MachPort.send)))
    for modules, records in (([silent], 0), ([silent, loud], 1), ([loud, silent], 1)):
        with Kernel() as kernel:
            task = kernel.create_task("task")
            right = task.allocate_port().make_send(task)
            kernel.policies.load(*modules)
            kernel.audit.drain()
            with pytest.raises(MachError):
                right.send(b"", timeout=0)
            assert len(kernel.audit.drain()) == records
