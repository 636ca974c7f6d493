# SPDX-License-Identifier: BSD-2-Clause
"""`biba`: the dual of `mls`, and what comes down through a kernel."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi import AccessDenied, Kernel, MachError, Task
from pympi.enums import ALL, CLASSES, hooks
from pympi.policy import MLS, Biba, SelfTest
from pympi.policy.levels import EQUAL, HIGH, LOW, RULES, Element, Label, Range

MLS_MODULE, BIBA_MODULE = MLS(), Biba()

ELEMENTS = st.sampled_from([LOW, HIGH, EQUAL]) | st.builds(
    Element, st.just("level"), st.integers(0, 3), st.integers(0, 7).map(lambda bits: bits << 1)
)
RANGES = (
    st.tuples(ELEMENTS, ELEMENTS)
    .filter(lambda pair: pair[1].dominates(pair[0]))
    .map(lambda pair: Range(*pair))
)
LABELS = st.builds(Label, ELEMENTS, st.none() | RANGES)
CODES = st.sampled_from(["mach_port", "mach_task"])


def mask(tclass: str, relation: str) -> int:
    """The permissions of a class that need a relation."""
    names = [name for name, rule in RULES[tclass].items() if rule.relation == relation]
    return CLASSES[tclass].mask(names)


# ---- the dual ----


@given(LABELS, LABELS, CODES)
def test_who_writes_to_whom_is_turned_round(a: Label, b: Label, tclass: str) -> None:
    """What mls allows a to do to b by writing, biba allows b to do to a; and so for reading."""
    secrecy = MLS_MODULE.decide(a, b, CLASSES[tclass]).allowed
    integrity = BIBA_MODULE.decide(b, a, CLASSES[tclass]).allowed
    for relation in ("write", "read", "both"):
        vector = mask(tclass, relation)
        assert secrecy & vector == integrity & vector


@given(LABELS, LABELS, CODES)
def test_reading_is_writing_the_other_way(a: Label, b: Label, tclass: str) -> None:
    secrecy = MLS_MODULE.decide(a, b, CLASSES[tclass]).allowed
    integrity = BIBA_MODULE.decide(a, b, CLASSES[tclass]).allowed
    writes, reads = mask(tclass, "write"), mask(tclass, "read")
    assert bool(secrecy & writes) == bool(integrity & reads)
    assert bool(secrecy & reads) == bool(integrity & writes)


@given(LABELS, LABELS, LABELS, CODES)
def test_ranges_and_relabelling_are_the_same(a: Label, b: Label, c: Label, tclass: str) -> None:
    same = ~(mask(tclass, "write") | mask(tclass, "read") | mask(tclass, "both")) & ALL
    tables = [module.decide(a, b, CLASSES[tclass]).allowed for module in (MLS_MODULE, BIBA_MODULE)]
    assert tables[0] & same == tables[1] & same
    codes = [module.check_relabel(a, b, c, CLASSES[tclass]) for module in (MLS_MODULE, BIBA_MODULE)]
    assert codes[0] == codes[1]


@given(LABELS, LABELS)
def test_both_together_allow_only_equals(a: Label, b: Label) -> None:
    """Under mls and biba with the same values, who may write may be written to."""
    send = CLASSES["mach_port"].mask("send")
    ways = [
        bool(MLS_MODULE.decide(*pair, CLASSES["mach_port"]).allowed & send)
        and bool(BIBA_MODULE.decide(*pair, CLASSES["mach_port"]).allowed & send)
        for pair in ((a, b), (b, a))
    ]
    assert ways[0] == ways[1]
    exempt = EQUAL in (a.effective, b.effective)
    assert ways[0] == (exempt or a.effective == b.effective)


def test_every_hook_has_a_rule_and_no_other() -> None:
    ruled = {(tclass, name) for tclass, rules in RULES.items() for name in rules}
    assert ruled == {(hook.class_name, hook.permission) for hook in hooks()}
    words = {rule.relation for rules in RULES.values() for rule in rules.values()}
    assert words == set(MLS_MODULE.relations) == set(BIBA_MODULE.relations)


# ---- through a kernel ----


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    watch = SelfTest()
    with Kernel(policies=[Biba(), watch]) as kernel:
        yield kernel
        kernel.verify()
        assert kernel.policies.failures == {}
    assert watch.violations == []


def task(kernel: Kernel, label: str) -> Task:
    return kernel.create_task(f"t {label}", label=f"biba/{label}")


def test_writing_down_is_allowed(kernel: Kernel) -> None:
    high, low = task(kernel, "7:1+2"), task(kernel, "3:1")
    inbox = low.allocate_port()
    inbox.make_send(high).send(b"order")
    assert inbox.receive().body == b"order"


def test_writing_up_is_refused_even_to_hold_the_right(kernel: Kernel) -> None:
    high, low = task(kernel, "7:1+2"), task(kernel, "3:1")
    with pytest.raises(AccessDenied) as caught:
        high.allocate_port().make_send(low)
    assert (caught.value.permission, caught.value.name) == ("hold_send", "KERN_NO_ACCESS")


def test_a_receive_right_does_not_go_up(kernel: Kernel) -> None:
    high, low = task(kernel, "high"), task(kernel, "low")
    with pytest.raises(AccessDenied) as caught:
        low.allocate_port().move_receive(high)
    assert caught.value.permission == "hold_recv"
    assert high.allocate_port().move_receive(low).label == "biba/high"


def test_a_port_labelled_equal_does_not_carry_dirt_up(kernel: Kernel) -> None:
    trusted, low, high = (task(kernel, label) for label in ("equal", "low", "high"))
    port = trusted.allocate_port()
    right = port.make_send(low)
    moved = port.move_receive(high)
    right.send(b"dirt")
    with pytest.raises(AccessDenied) as caught:
        moved.receive(timeout=0)
    assert (caught.value.permission, caught.value.name) == ("recv", "MACH_RCV_INVALID_DATA")


def test_without_a_label_high_and_free(kernel: Kernel) -> None:
    nobody, low = kernel.create_task("nobody"), task(kernel, "low")
    assert nobody.allocate_port().label == "biba/high"
    assert kernel.create_task("child", parent=nobody).label == "biba/high(low-high)"
    assert kernel.access(nobody, low.allocate_port(), "mach_port", "send")
    assert not kernel.access(low, nobody.allocate_port(), "mach_port", "send")


@pytest.mark.parametrize(
    ("subject", "label", "code"),
    [
        ("5(3-7)", "3(3-5)", "KERN_SUCCESS"),
        ("5(3-7)", "8", "KERN_NO_ACCESS"),
        ("5(3-7)", "equal", "KERN_NO_ACCESS"),
        ("high(low-high)", "equal", "KERN_SUCCESS"),
        ("5(low-high)", "3(5-7)", "KERN_INVALID_ARGUMENT"),
    ],
)
def test_a_task_relabels_itself(kernel: Kernel, subject: str, label: str, code: str) -> None:
    who = task(kernel, subject)
    try:
        who.relabel(f"biba/{label}")
        found = "KERN_SUCCESS"
    except MachError as error:
        found = error.name
    assert found == code


def test_secrecy_and_integrity_in_one_kernel() -> None:
    with Kernel(policies=[MLS(), Biba()]) as kernel:
        a = kernel.create_task("a", label="mls/5,biba/5")
        port = kernel.create_task("b", label="mls/7,biba/3").allocate_port()
        back = a.allocate_port()
        assert kernel.access(a, port, "mach_port", "send")
        assert not kernel.access("mls/7,biba/3", back, "mach_port", "send")
        assert not kernel.access("mls/5,biba/2", port, "mach_port", "send")
        assert not kernel.access("mls/8,biba/5", port, "mach_port", "send")
