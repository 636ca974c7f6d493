# SPDX-License-Identifier: BSD-2-Clause
"""Composition: every module asked, no order, and failure means refusal."""

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from background import LONG, Run
from hypothesis import given
from hypothesis import strategies as st

from pympi import AccessDenied, Kernel, KernelClosed, MachError, PolicyError, Task, mach
from pympi.enums import ALL, CLASSES, AuditFlag
from pympi.policy import (
    MLS,
    Count,
    Decision,
    NoHooks,
    Partition,
    PolicyModule,
    Rules,
    SelfTest,
    Stub,
)
from pympi.policy.answers import PRECEDENCE, compose, first_code
from pympi.testing import allow_all

PORT = CLASSES["mach_port"]
VECTORS = st.integers(0, ALL)
DECISIONS = st.builds(Decision, VECTORS, VECTORS, VECTORS, VECTORS)


class Answer(PolicyModule):
    """Answers what it is told to, or raises it."""

    def __init__(self, answer: Any, name: str = "answer") -> None:
        self.name = name
        self.answer = answer

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


@given(st.lists(DECISIONS, max_size=5), st.randoms())
def test_the_order_of_modules_changes_nothing(answers: list[Decision], random: Any) -> None:
    shuffled = list(answers)
    random.shuffle(shuffled)
    assert compose(shuffled) == compose(answers)


@given(st.lists(DECISIONS, min_size=1, max_size=5))
def test_composition_bit_by_bit(answers: list[Decision]) -> None:
    whole = compose(answers)
    for bit in (1 << i for i in range(32)):
        refusing = [a for a in answers if not a.allowed & bit]
        assert bool(whole.allowed & bit) == (not refusing)
        assert bool(whole.auditallow & bit) == any(a.auditallow & bit for a in answers)
        reporting = [a for a in answers if a.report & bit]
        assert bool(whole.auditdeny & bit) == any(a.auditdeny & bit for a in refusing + reporting)
        assert bool(whole.report & bit) == any(a.report & bit for a in answers)


def test_no_module_has_no_opinion() -> None:
    assert compose([]).allowed == ALL
    assert compose([Decision()]).allowed == ALL


@given(st.lists(st.sampled_from([0, *PRECEDENCE, 5, 46, 99]), max_size=6), st.randoms())
def test_one_code_wins_whatever_the_order(codes: list[int], random: Any) -> None:
    shuffled = list(codes)
    random.shuffle(shuffled)
    winner = first_code(codes)
    assert first_code(shuffled) == winner
    assert (winner == 0) == (not any(codes))
    assert winner in [0, *codes]
    for code in PRECEDENCE:
        if code in codes:
            assert winner == code
            break


def test_every_order_of_real_modules_gives_the_same_vector() -> None:
    seen = set()
    parts = [
        lambda: Rules.from_text("allow a b mach_port { send recv };"),
        Partition,
        lambda: Answer(Decision(allowed=0xFF, auditallow=4)),
    ]
    for order in itertools.permutations(parts):
        with Kernel(policies=[make() for make in order]) as kernel:
            answer = kernel.access(
                "rules/a,partition/p", "partition/p,rules/b", "mach_port", "send"
            )
            seen.add((answer.vector, answer.audited, answer.allowed))
    assert seen == {(PORT.mask("send recv"), True, True)}


NONSENSE = [
    None,
    True,
    5,
    "allow",
    Decision(allowed=True),
    Decision(allowed=-1),
    Decision(allowed=1 << 32),
    Decision(allowed=1 << 200),
    Decision(allowed="all"),  # type: ignore[arg-type]
    Decision(auditdeny=None),  # type: ignore[arg-type]
    Decision(report=1.5),  # type: ignore[arg-type]
    ValueError("no"),
    SystemExit(3),
    MemoryError(),
    RecursionError(),
]


@pytest.mark.parametrize("answer", NONSENSE, ids=repr)
def test_failing_modules_deny(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    with Kernel(policies=[Answer(answer), allow_all()]) as kernel:
        task = kernel.create_task("task")
        port = task.allocate_port()
        with pytest.raises(AccessDenied):
            port.make_send(task)
        assert kernel.policies.failures["answer"] >= 1
        assert "policy module answer failed, denied" in caplog.text
        assert not kernel.access(task, port, "mach_port", "send")
        kernel.verify()


def test_ctrl_c_in_a_module_denies_and_is_not_lost() -> None:
    with Kernel(policies=[Answer(KeyboardInterrupt())]) as kernel:
        task = kernel.create_task("task")
        port = task.allocate_port()
        with pytest.raises(KeyboardInterrupt):
            port.make_send(task)
        with pytest.raises(KeyboardInterrupt):
            kernel.access(task, port, "mach_port", "send")


class Wrong(PolicyModule):
    """Fails where labels are chosen and changed."""

    name = "wrong"

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        return Decision()

    def check_relabel(self, subject: Any, old: Any, new: Any, tclass: Any) -> int:
        raise OSError("disk")

    def label_new_port(self, issuer: Any, owner: Any) -> Any:
        raise OSError("disk")


def test_failing_relabels_are_refused() -> None:
    with Kernel(policies=[Wrong(), Partition()]) as kernel:
        task = kernel.create_task("task", label="partition/a")
        with pytest.raises(AccessDenied):
            task.relabel("partition/b")
        assert task.label == "partition/a"
        assert kernel.policies.failures


def test_failing_port_labels_make_no_port() -> None:
    with Kernel(policies=[Wrong()]) as kernel:
        task = kernel.create_task("task")
        with pytest.raises(MachError):
            task.allocate_port()
        assert task.names() == {}


class Labels(PolicyModule):
    """Labels new things; each of its methods fails as often as it is told to."""

    name = "labels"

    def __init__(self, **failing: int) -> None:
        self.failing = failing
        self.error: BaseException = OSError("disk")

    def _may_fail(self, method: str) -> None:
        if self.failing.get(method):
            self.failing[method] -= 1
            raise self.error

    def parse(self, text: str) -> Any:
        self._may_fail("parse")
        return text

    def format(self, value: Any) -> str:
        self._may_fail("format")
        return str(value)

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        return Decision()

    def label_new_port(self, issuer: Any, owner: Any) -> Any:
        self._may_fail("label_new_port")
        return "port"

    def label_new_task(self, parent: Any) -> Any:
        self._may_fail("label_new_task")
        return "child"

    def check_relabel(self, subject: Any, old: Any, new: Any, tclass: Any) -> int:
        self._may_fail("check_relabel")
        return 0


ACTS: dict[str, Callable[[Task], Any]] = {
    "label_new_port": lambda task: task.allocate_port(),
    "label_new_task": lambda task: task.kernel.create_task("child", parent=task),
    "check_relabel": lambda task: task.relabel("labels/other"),
    "format": lambda task: task.allocate_port(),
}


@pytest.mark.parametrize("method", ACTS)
def test_what_fails_is_counted_for_its_module_and_asked_again(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    module = Labels()
    with Kernel(policies=[module, Partition()]) as kernel:
        task = kernel.create_task("task", "labels/a,partition/p")
        with kernel.borrowed("labels/other"):
            module.failing[method] = 1
            with pytest.raises(MachError) as caught:
                ACTS[method](task)
            assert caught.value.name == "KERN_NO_ACCESS"
            assert kernel.policies.failures == {"labels": 1}
            assert "policy module labels failed, denied: OSError('disk')" in caplog.text
            ACTS[method](task)
            assert kernel.policies.failures == {"labels": 1}
        kernel.verify()


@pytest.mark.parametrize("error", [OSError("disk"), MemoryError(), KeyError("x"), SystemExit()])
def test_a_value_that_could_not_be_read_once_is_read_again(error: BaseException) -> None:
    module = Labels()
    with Kernel(policies=[module]) as kernel:
        task = kernel.create_task("task", "labels/a")
        epoch = kernel.policies.epoch
        module.failing["parse"], module.error = 1, error
        assert not kernel.access(task, task, "mach_port", "send")
        assert kernel.policies.failures == {"labels": 1}
        assert kernel.access(task, task, "mach_port", "send")
        assert kernel.policies.epoch == epoch
        kernel.policies.reload()
        module.failing["parse"] = 1
        with pytest.raises(MachError):
            task.allocate_port()
        assert task.allocate_port().label == "labels/port"


def test_a_value_that_is_none_is_read_once(caplog: pytest.LogCaptureFixture) -> None:
    module = Labels()
    with Kernel(policies=[module]) as kernel:
        task = kernel.create_task("task", "labels/a")
        module.failing["parse"], module.error = 1, ValueError("no value")
        for _ in range(3):
            assert not kernel.access(task, task, "mach_port", "send")
            lines = kernel.explain(task, task, "mach_port", "send").splitlines()
            assert lines[1:] == [
                "  labels: refuses everything: there is a value its module cannot read"
            ]
        assert kernel.policies.failures == {"labels": 1}
        (logged,) = caplog.records
        assert "labels cannot read 'a', denied: ValueError('no value')" in logged.getMessage()
        assert logged.exc_info is None


def test_a_shadow_reads_again_what_it_could_not_read_once() -> None:
    trial = Labels()
    with Kernel(policies=[Labels()]) as kernel:
        task = kernel.create_task("task", "labels/a")
        shadow = kernel.policies.replace("labels", trial, shadow=True)
        trial.failing["parse"] = 1
        for reported in (True, False):
            assert kernel.access(task, task, "mach_port", "send").reported == reported
        assert shadow.failures == 1


@pytest.mark.parametrize("error", [OSError("disk"), None])
def test_who_asks_for_a_new_label_is_told_that_its_module_failed(error: Any) -> None:
    module = Labels(label_new_port=1 if error else 0)
    with Kernel(policies=[module]) as kernel:
        ask = functools.partial(kernel.policies.new_label, "labels/a", "labels/a", "mach_port")
        if error:
            with pytest.raises(MachError, match="labels failed"):
                ask()
            assert kernel.policies.failures == {"labels": 1}
        assert ask() == "labels/port"


class Scribbles(PolicyModule):
    """Labels what is new by values of which it writes what it does not read back."""

    name = "scribbles"

    def __init__(self, written: Any, read: Any) -> None:
        self.written, self.read = written, read

    def parse(self, text: str) -> Any:
        if isinstance(self.read, BaseException):
            raise self.read
        return self.read

    def format(self, value: Any) -> str:
        return self.written  # type: ignore[no-any-return]

    def label_new_port(self, issuer: Any, owner: Any) -> Any:
        return "chosen"

    def label_new_task(self, parent: Any) -> Any:
        return "chosen"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("x", "other"), ("x", ValueError("what is x?")), ("x", OSError("disk")), ("", "chosen"),
        ("a\0b", "chosen"), (None, "chosen"), (5, "chosen"), (b"x", "chosen"), (["x"], "chosen"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_chosen_label_that_is_not_read_back_is_refused(written: Any, read: Any) -> None:
    with Kernel(policies=[Scribbles(written, read), Partition()]) as kernel:
        task = kernel.create_task("task", "partition/p")
        for count, make in enumerate((ACTS["label_new_port"], ACTS["label_new_task"]), 1):
            with pytest.raises(MachError) as caught:
                make(task)
            assert caught.value.name == "KERN_NO_ACCESS"
            assert kernel.policies.failures == {"scribbles": count}
        assert (task.names(), list(kernel.tasks.values())) == ({}, [task])
        kernel.policies.replace("scribbles", Scribbles("x", "chosen"))
        assert task.allocate_port().label == "partition/p,scribbles/x"


class Fixed(PolicyModule):
    """Lets no label change, by code alone; remembers what it was asked."""

    name = "fixed"

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def check_relabel(self, subject: Any, old: Any, new: Any, tclass: Any) -> int:
        self.asked.append((subject, old, new, tclass.name))
        return mach.KERN_DENIED


def test_a_label_that_is_chosen_at_birth_is_a_relabelling() -> None:
    with Kernel(policies=[Fixed()]) as kernel:
        task = kernel.create_task("task", label="fixed/a")
        port = task.allocate_port()
        for change in (
            lambda: task.allocate_port("fixed/b"),
            lambda: port.relabel("fixed/b"),
            lambda: task.relabel("fixed/b"),
            lambda: kernel.create_task("child", "fixed/b", parent=task),
        ):
            with pytest.raises(MachError) as caught:
                change()
            assert caught.value.code == mach.KERN_DENIED
        assert (task.names(), task.label, port.label) == (
            {port.name: 0x20000},
            "fixed/a",
            "fixed/a",
        )
        asked = kernel.policies["fixed"].asked  # type: ignore[attr-defined]
        tclasses = ["mach_port", "mach_port", "mach_task", "mach_task"]
        assert asked == [("a", "a", "b", tclass) for tclass in tclasses]
        assert task.allocate_port("fixed/a").label == "fixed/a", "that is no change"
        assert kernel.create_task("child", "fixed/a", parent=task).label == "fixed/a"


class Children(PolicyModule):
    """Labels what is new: ports by their issuer, tasks a generation below their parent."""

    name = "kin"

    def label_new_port(self, issuer: Any, owner: Any) -> Any:
        return f"port of {issuer}"

    def label_new_task(self, parent: Any) -> Any:
        return f"{parent}, child" if parent else None


def test_new_things_are_labelled_by_their_module() -> None:
    with Kernel(policies=[Children(), Partition()]) as kernel:
        task = kernel.create_task("task", label="kin/a,partition/p")
        assert task.allocate_port().label == "kin/port of a,partition/p"
        child = kernel.create_task("child", parent=task)
        assert child.label == r"kin/a\, child,partition/p"
        assert kernel.create_task("told", label="kin/b", parent=task).label == "kin/b"


def test_who_refused_a_relabelling_and_why() -> None:
    count = Count()
    with Kernel(policies=[MLS(), Partition(), count]) as kernel:
        task = kernel.create_task("t", label="mls/5(low-high)")
        port = task.allocate_port()
        told = functools.partial(kernel.explain_relabel, task, port)
        assert told("mls/6", "mach_port").splitlines()[-3:] == [
            "mls/5(low-high) from mls/5 to mls/6, mach_port relabel: allowed",
            "  count: allows",
            "  mls: allows, as relabelfrom and relabelto do",
        ]
        with pytest.raises(AccessDenied) as caught:
            port.relabel("mls/6(low-high)")
        assert caught.value.name == "KERN_INVALID_ARGUMENT"
        (record,) = kernel.audit.batch(kernel.audit.drain())
        text = kernel.explain_relabel(record.subject, port, record.object, record.tclass)
        assert text == told("mls/6(low-high)", "mach_port")
        head, *lines = text.splitlines()[-3:]
        assert head.endswith(
            "to mls/6(low-high), mach_port relabel: refused by mls (KERN_INVALID_ARGUMENT)"
        )
        why = "a port has an effective element alone, 6, not 6(low-high)"
        assert lines == ["  count: allows", f"  mls: refuses (KERN_INVALID_ARGUMENT): {why}"]
        count.relabel_code = mach.KERN_DENIED
        assert "refused by count, mls (KERN_INVALID_ARGUMENT)" in told("-", "mach_port")
        assert "low(low-high), which is what no value stands for" in told("-", "mach_port")
        assert "refused by count (KERN_DENIED)" in told("mls/6", "mach_port")


def test_an_explanation_of_a_birth_has_what_was_asked() -> None:
    count = Count()
    count.refuse("mach_task", "create")
    with Kernel(policies=[count]) as kernel:
        parent = kernel.create_task("parent", label="count/a")
        with pytest.raises(AccessDenied):
            kernel.create_task("child", label="count/b", parent=parent)
        (record,) = kernel.audit.batch(kernel.audit.drain())
        assert record.denied == ("create",)
        told = functools.partial(kernel.explain_relabel, parent, parent, record.object)
        heads = [line for line in told("mach_task", birth=True).splitlines() if line[0] != " "]
        assert heads == [
            "count/a to count/b, mach_task create: refused by count",
            "count/a from count/a to count/b, mach_task relabel: allowed",
        ]
        assert "mach_task create" not in told("mach_task")
        assert told("mach_port", birth=True) == told("mach_port")


def test_an_explanation_of_a_relabelling_has_its_permissions() -> None:
    count = Count(uncached=True)
    count.refuse("mach_task", "relabelfrom")
    with Kernel(policies=[count, MLS()]) as kernel:
        low = kernel.create_task("low", label="mls/1")
        high = kernel.create_task("high", label="mls/9")
        lines = kernel.explain_relabel(low, high, "mls/8(1-3)", "mach_task").splitlines()
        heads = [line.partition(", ")[2] for line in lines if not line.startswith(" ")]
        assert heads == [
            "mach_task relabelfrom: refused by count, mls",
            "mach_task relabelto: refused by mls",
            "mach_task relabel: refused by mls (KERN_INVALID_ARGUMENT)",
        ]
        assert (
            "mls: refuses (KERN_INVALID_ARGUMENT): the effective element lies outside" in lines[-1]
        )
        assert "refuses (KERN_DENIED), as" in kernel.explain_relabel(
            low, high, "mls/8", "mach_task"
        )


@pytest.mark.parametrize("how", ["module", "kernel"])
def test_an_explanation_tells_what_only_something_permissive_lets_pass(how: str) -> None:
    count = Count()
    count.relabel_code = mach.KERN_DENIED
    with Kernel(policies=[count]) as kernel:
        if how == "module":
            kernel.policies.set_permissive("count")
        else:
            kernel.policies.permissive = True
        task = kernel.create_task("t", label="count/a")
        text = kernel.explain_relabel(task, task, "count/b", "mach_task")
        assert "relabel: allowed, only because of what is permissive\n" in text
        task.relabel("count/b")


def test_a_module_that_says_nothing_more_tells_its_code() -> None:
    with Kernel(policies=[Fixed()]) as kernel:
        task = kernel.create_task("t", label="fixed/a")
        text = kernel.explain_relabel(task, task, "fixed/b", "mach_task")
        assert text.endswith("fixed: refuses (KERN_DENIED) 'b' for 'a'")


def test_a_module_that_fails_refuses_a_relabelling_and_cannot_explain() -> None:
    with Kernel(policies=[Wrong()]) as kernel:
        task = kernel.create_task("t", label="wrong/a")
        text = kernel.explain_relabel(task, task, "wrong/b", "mach_task")
        assert text.splitlines()[-2:] == [
            "wrong/a from wrong/a to wrong/b, mach_task relabel: refused by wrong (KERN_NO_ACCESS)",
            "  wrong: cannot explain: OSError",
        ]


def test_codes_of_a_relabel_follow_the_precedence() -> None:
    for order in (0, 1):
        first, second = Count(), Count()
        second.name = "second"
        first.relabel_code, second.relabel_code = mach.KERN_DENIED, mach.KERN_INVALID_VALUE
        with Kernel(policies=[first, second][:: 1 - 2 * order]) as kernel:
            task = kernel.create_task("task")
            with pytest.raises(MachError) as caught:
                task.relabel("count/x")
            assert caught.value.name == "KERN_INVALID_VALUE"
            assert first.counts["relabel"] == second.counts["relabel"] == 1


# ---- loading, unloading, replacing ----


def test_policies_are_listed_and_named() -> None:
    with Kernel() as kernel:
        stub = Stub()
        kernel.policies.load(stub, Partition())
        assert sorted(kernel.policies) == ["partition", "stub"]
        assert len(kernel.policies) == 2
        assert kernel.policies["stub"] is stub
        assert "stub" in kernel.policies
        kernel.policies.unload("stub")
        assert list(kernel.policies) == ["partition"]
        with pytest.raises(KeyError, match="no policy module 'stub'; loaded: partition"):
            kernel.policies.unload("stub")


@pytest.mark.parametrize("name", ["", "Big", "with space", "a@2", "a/b", "9"])
def test_wrong_names_are_refused(name: str) -> None:
    with Kernel() as kernel, pytest.raises(PolicyError):
        kernel.policies.load(Answer(Decision(), name))


def test_a_name_is_taken_once() -> None:
    with Kernel(policies=[Stub()]) as kernel:
        epoch = kernel.policies.epoch
        with pytest.raises(PolicyError, match="loaded already"):
            kernel.policies.load(Stub())
        with pytest.raises(PolicyError, match="cannot replace"):
            kernel.policies.replace("stub", Partition())
        assert kernel.policies.epoch == epoch


def test_each_change_moves_the_epoch_and_decides_anew() -> None:
    with Kernel(policies=[Partition()]) as kernel:
        red = kernel.create_task("red", label="partition/red")
        port = kernel.create_task("blue", label="partition/blue").allocate_port()
        epochs = [kernel.policies.epoch]
        assert not kernel.access(red, port, "mach_port", "send")
        kernel.policies.replace("partition", Blind())
        epochs.append(kernel.policies.epoch)
        assert kernel.access(red, port, "mach_port", "send")
        kernel.policies.unload("partition")
        epochs.append(kernel.policies.epoch)
        assert kernel.access(red, port, "mach_port", "send")
        kernel.policies.load(Answer(Decision(allowed=0)))
        epochs.append(kernel.policies.epoch)
        assert not kernel.access(red, port, "mach_port", "send")
        assert epochs == sorted(set(epochs))


class Blind(Partition):
    """A partition that sees none."""

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        return Decision()


def test_values_vanish_with_their_module() -> None:
    with Kernel(policies=[Partition(), SelfTest()]) as kernel:
        task = kernel.create_task("task", label="partition/a,selftest/b")
        kernel.policies.unload("partition")
        assert task.label == "selftest/b"
        kernel.policies.load(Partition())
        assert task.label == "selftest/b"
        other = kernel.create_task("other", label="partition/z")
        assert other.label == "partition/z"
        assert kernel.access(other, task, "mach_port", "send")
        again = kernel.create_task("again", label="partition/a,selftest/b")
        assert again.label == "partition/a,selftest/b"
        assert again.sid != task.sid


def test_labels_stay_when_a_module_is_replaced() -> None:
    with Kernel(policies=[Partition()]) as kernel:
        task = kernel.create_task("task", label="partition/a")
        kernel.policies.replace("partition", Partition())
        assert task.label == "partition/a"


class Digits(Partition):
    """Takes numbers only."""

    def parse(self, text: str) -> str:
        if not text.isdigit():
            raise ValueError("digits only")
        return text


def test_what_a_new_module_cannot_read_is_refused_everything() -> None:
    with Kernel(policies=[Partition()]) as kernel:
        old = kernel.create_task("old", label="partition/a")
        new = kernel.create_task("new", label="partition/1")
        kernel.policies.replace("partition", Digits())
        assert not kernel.access(old, old, "mach_port", "send")
        assert kernel.access(new, new, "mach_port", "send")
        assert old.allocate_port().label == "partition/a"
        with pytest.raises(AccessDenied):
            old.relabel("partition/2")


# ---- how often modules are asked ----


def test_answers_are_cached_until_the_policy_changes() -> None:
    count = Count(uncached=False)
    with Kernel(policies=[count]) as kernel:
        task = kernel.create_task("task")
        port = task.allocate_port(qlimit=100)
        right = port.make_send(task)
        for _ in range(50):
            right.send(b"")
            port.receive()
        assert count.counts["mach_port"] == 1
        kernel.policies.permissive = False
        right.send(b"")
        assert count.counts["mach_port"] == 2


def test_an_uncached_module_sees_every_operation() -> None:
    count = Count()
    with Kernel(policies=[count]) as kernel:
        task = kernel.create_task("task")
        port = task.allocate_port(qlimit=100)
        right = port.make_send(task)
        before = count.counts["mach_port"]
        for _ in range(10):
            right.send(b"")
        assert count.counts["mach_port"] - before >= 10
        count.refuse("mach_port", "send")
        with pytest.raises(AccessDenied):
            right.send(b"")
        count.refuse("mach_port", "")
        right.send(b"")


def test_a_module_becomes_uncached_and_cached_again_at_once() -> None:
    count = Count(uncached=False)
    with Kernel(policies=[count]) as kernel:
        task = kernel.create_task("task")
        right = task.allocate_port(qlimit=100).make_send(task)
        for uncached, asked in ((True, 3), (False, 1)):
            count.uncached = uncached
            before = count.counts["mach_port"]
            for _ in range(3):
                right.send(b"")
            assert count.counts["mach_port"] - before == asked


def test_modules_without_hooks_are_not_asked() -> None:
    with Kernel(policies=[NoHooks()]) as kernel:
        task = kernel.create_task("task")
        task.allocate_port().make_send(task).send(b"")
        assert kernel.stats()["decider_calls"] == 0
    with Kernel(policies=[Stub()]) as kernel:
        task = kernel.create_task("task")
        task.allocate_port().make_send(task).send(b"")
        assert kernel.stats()["decider_calls"] > 0


# ---- permissive ----


def test_a_permissive_kernel_allows_and_records() -> None:
    with Kernel(policies=[Rules()]) as kernel:
        kernel.policies.permissive = True
        task = kernel.create_task("task")
        port = task.allocate_port()
        kernel.audit.drain()
        port.make_send(task).send(b"")
        records = list(kernel.audit.batch(kernel.audit.drain()))
        assert records
        assert all(AuditFlag.PERMISSIVE in record.flags for record in records)
        assert kernel.policies.permissive
        kernel.policies.permissive = False
        with pytest.raises(AccessDenied):
            port.make_send(task)


def test_a_permissive_module_is_reported() -> None:
    rules = Rules()
    rules.permissive = True
    with Kernel(policies=[rules, Partition()]) as kernel:
        task = kernel.create_task("task")
        answer = kernel.access(task, task, "mach_port", "send")
        assert (answer.allowed, answer.reported) == (True, True)
        port = task.allocate_port()
        kernel.audit.drain()
        port.make_send(task)
        reported = [r for r in kernel.audit.batch(kernel.audit.drain()) if r.reported]
        assert reported


# ---- threads ----


def test_a_policy_is_replaced_while_others_use_it() -> None:
    with Kernel(policies=[allow_all()]) as kernel:
        stop, started = threading.Event(), threading.Barrier(3)

        def use() -> None:
            """What raises anything but AccessDenied ends the thread, and fails the test."""
            task = kernel.create_task("user", label="rules/user")
            port = task.allocate_port()
            started.wait(LONG)
            while not stop.is_set():
                with contextlib.suppress(AccessDenied):
                    port.make_send(task).close()

        runs = [Run(use) for _ in range(2)]
        started.wait(LONG)
        for _ in range(100):
            kernel.policies.replace("rules", Rules())
            kernel.policies.replace("rules", allow_all())
        stop.set()
        for run in runs:
            run.result()
        assert kernel.policies.failures == {}
        kernel.verify()


def test_a_decider_may_use_its_kernel() -> None:
    class Curious(PolicyModule):
        name = "curious"

        def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
            kernel.stats()
            kernel.create_task("helper").allocate_port()
            return Decision()

    with Kernel(policies=[Curious()]) as kernel:
        task = kernel.create_task("task")
        right = task.allocate_port().make_send(task)
        right.send(b"")
        assert kernel.policies.failures == {}


@pytest.mark.parametrize("form", ["access", "checker", "check_many"])
def test_closing_a_kernel_without_tasks_from_within_a_decision(form: str) -> None:
    class Closer(PolicyModule):
        name = "closer"

        def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
            kernel.close()
            return Decision()

    kernel = Kernel(policies=[Closer()])
    with kernel.borrowed("closer/a") as sid:
        if form == "access":
            with pytest.raises(KernelClosed):
                kernel.explain("closer/a", "closer/a", "mach_port", "send")
        elif form == "checker":
            assert kernel.checker("mach_port", "send")(sid, sid) is False
        else:
            assert not kernel.check_many([sid] * 3, sid, "mach_port", "send").any()
    assert kernel.closed


def test_closing_from_within_a_decision() -> None:
    class Closer(PolicyModule):
        name = "closer"

        def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
            kernel.close()
            return Decision()

    kernel = Kernel(policies=[Closer()])
    task = kernel.create_task("task")
    port = task.allocate_port()
    with pytest.raises(MachError):
        port.make_send(task)
    assert kernel.closed
    with pytest.raises(KernelClosed):
        kernel.stats()
