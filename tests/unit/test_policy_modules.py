# SPDX-License-Identifier: BSD-2-Clause
"""The modules that come along: partition, count, selftest, stub and none."""

from typing import Any

import pytest

from pympi.enums import ALL, CLASSES
from pympi.policy import Count, Decision, NoHooks, Partition, PolicyModule, SelfTest, Stub

PORT, TASK = CLASSES["mach_port"], CLASSES["mach_task"]
OPTIONAL = (
    "decide", "label_new", "label_new_port", "label_new_task", "check_relabel", "explain",
)  # fmt: skip


@pytest.mark.parametrize("method", OPTIONAL)
def test_stub_has_every_method_and_none_has_none(method: str) -> None:
    assert Stub.answers(method)
    assert not NoHooks.answers(method)


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [("a", "a", True), ("a", "b", False), (None, "a", True), ("a", None, True), (None, None, True)],
)
def test_partitions(source: Any, target: Any, allowed: bool) -> None:
    module = Partition()
    assert module.decide(source, target, PORT).allowed == (ALL if allowed else 0)
    assert module.explain(source, target, PORT, "send").startswith(
        "allows" if allowed else "refuses"
    )


def test_partitions_tell_who_would_be_allowed() -> None:
    assert Partition().explain("a", "b", PORT, "send") == (
        "refuses: subject in a, object in b; a subject in b or an object in a would be allowed"
    )


def test_partitions_have_no_hidden_blanks() -> None:
    with pytest.raises(ValueError, match="blanks"):
        Partition().parse(" a")


def test_count_counts_and_refuses() -> None:
    count = Count()
    count.refuse("mach_port", "send recv")
    assert count.decide(None, None, PORT).allowed == ALL & ~PORT.mask("send recv")
    assert count.decide(None, None, TASK).allowed == ALL
    assert "told" in count.explain(None, None, PORT, "send")
    assert count.counts == {"mach_port": 1, "mach_task": 1}


def test_selftest_notices_what_is_not_its_own() -> None:
    watch, other = SelfTest(), SelfTest()
    value = watch.parse("a")
    assert watch.decide(value, None, PORT).allowed == ALL
    assert watch.label_new_port(value, value) is watch.label_new(value, value, PORT) is value
    assert watch.violations == []
    for call in (
        lambda: watch.decide("a", None, PORT),
        lambda: watch.decide(other.parse("a"), None, PORT),
        lambda: watch.decide(value, None, "mach_port"),  # type: ignore[arg-type]
        lambda: watch.check_relabel(value, 5, value, PORT),
        lambda: watch.label_new(value, other.parse("a"), PORT),
        lambda: watch.label_new(value, value, None),  # type: ignore[arg-type]
        lambda: watch.format("a"),
        lambda: watch.parse(""),
    ):
        with pytest.raises(AssertionError):
            call()
    assert len(watch.violations) == 8


def test_a_base_module_has_no_opinion() -> None:
    class Nothing(PolicyModule):
        name = "nothing"

    assert not any(Nothing.answers(method) for method in OPTIONAL if method != "explain")
    assert Nothing().decide(None, None, PORT) == Decision()
    assert Nothing().label_new_port(None, None) is Nothing().label_new_task(None) is None
    assert Nothing().check_relabel(None, None, None, PORT) == 0
