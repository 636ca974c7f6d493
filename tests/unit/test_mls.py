# SPDX-License-Identifier: BSD-2-Clause
"""`mls`: its labels as text, their order, and what goes up and down through a kernel."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi import AccessDenied, Kernel, LabelError, MachError, Task, mach
from pympi.enums import CLASSES, PortRight
from pympi.policy import MLS, SelfTest
from pympi.policy.levels import EQUAL, HIGH, LONGEST, LOW, Element, Label, Range
from pympi.policy.mls import dominates, format, parse  # noqa: A004

NAMED = st.sampled_from([LOW, HIGH, EQUAL])
LEVEL = st.builds(
    Element,
    st.just("level"),
    st.integers(0, 65535),
    st.sets(st.integers(1, 256), max_size=12).map(lambda numbers: sum(1 << n for n in numbers)),
)
SMALL = st.builds(
    Element, st.just("level"), st.integers(0, 3), st.integers(0, 7).map(lambda bits: bits << 1)
)
ELEMENTS = NAMED | LEVEL | SMALL
ORDERED = st.sampled_from([LOW, HIGH]) | SMALL


def ranges() -> st.SearchStrategy[Range]:
    pairs = st.tuples(ELEMENTS, ELEMENTS).filter(lambda pair: pair[1].dominates(pair[0]))
    return pairs.map(lambda pair: Range(*pair))


LABELS = st.builds(Label, ELEMENTS, st.none() | ranges()) | st.builds(Label, st.none(), ranges())


# ---- text ----


@given(LABELS)
def test_what_is_written_is_read(label: Label) -> None:
    assert parse(format(label)) == label


@given(LABELS, LABELS)
def test_a_label_has_one_text(a: Label, b: Label) -> None:
    assert (format(a) == format(b)) == (a == b)
    assert format(parse(format(a))) == format(a)


@given(st.lists(st.integers(1, 256), min_size=1, max_size=20), st.randoms())
def test_order_and_repetition_do_not_matter(numbers: list[int], random: object) -> None:
    shuffled = numbers + numbers[:3]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    texts = ["5:" + "+".join(map(str, n)) for n in (numbers, shuffled)]
    assert format(parse(texts[0])) == format(parse(texts[1]))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("low", "low"),
        ("lo", "low"),
        ("hi", "high"),
        ("eq", "equal"),
        ("0", "0"),
        ("00005", "5"),
        ("65535:256", "65535:256"),
        ("5:3+1", "5:1+3"),
        ("5:2+1", "5:1+2"),
        ("5:1+2+3", "5:1++3"),
        ("5:1+2+4+5+6+9", "5:1+2+4++6+9"),
        ("5:1++256", "5:1++256"),
        ("20:1++5++9", "20:1++9"),
        ("20:5++1", "20:5"),
        ("3:7++7", "3:7"),
        ("20:9++5++7", "20:5++7+9"),
        ("20:5++1+3", "20:3+5"),
        ("lo(lo-hi)", "low(low-high)"),
        ("5:1+2(5-7:2+1)", "5:1+2(5-7:1+2)"),
        ("(eq-hi)", "(equal-high)"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert format(parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"an element as in 5:1\+3"),
        ("secret", "low, high, equal or LEVEL"),
        ("LOW", "not 'LOW'"),
        ("65536", "a level is 0 to 65535, not '65536'"),
        ("9" * 30, "a level is 0 to 65535"),
        ("-1", "not '-1'"),
        ("+1", r"not '\+1'"),
        (" 5", "not ' 5'"),
        ("\u0665", "LEVEL"),
        ("low:1", "low takes no compartments"),
        ("eq:1", "equal takes no compartments"),
        ("5:", "joined by"),
        ("5:1+", "joined by"),
        ("5:+1", "joined by"),
        ("5:1+++2", "joined by"),
        ("5:1,2", "joined by"),
        ("5:0", "a compartment is 1 to 256, not 0"),
        ("5:257", "a compartment is 1 to 256, not 257"),
        ("5:1++999", "not 999"),
        ("10+2(low-high)", r"not '10\+2'"),
        ("5(low)", r"a range is \(LOW-HIGH\)"),
        ("5(low-high", r"a range is \(LOW-HIGH\)"),
        ("5(low-high)x", r"a range is \(LOW-HIGH\)"),
        ("5()", r"a range is \(LOW-HIGH\)"),
        ("5(-high)", "not ''"),
        ("5(high-low)", "'low' does not dominate 'high'"),
        ("5(3:1-7:2)", "'7:2' does not dominate '3:1'"),
        ("5:" + "1+" * LONGEST, f"at most {LONGEST} characters"),
    ],
)
def test_wrong_text_is_refused_with_what_would_be_right(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse(text)
    assert len(str(caught.value)) < 250


@given(st.text(alphabet="0123456789:+-()lohiequa ,", max_size=40))
def test_any_text_is_a_label_or_an_error(text: str) -> None:
    try:
        label = parse(text)
    except ValueError:
        return
    assert parse(format(label)) == label


def test_the_longest_canonical_label_is_read() -> None:
    pairs = "+".join(f"{n}+{n + 1}" for n in range(1, 256, 3))
    text = f"65535:{pairs}(65535:{pairs}-65535:{pairs})"
    assert format(parse(text)) == text
    assert len(text) < LONGEST / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("middle",), "not 'middle'"),
        (("low", 1), "neither"),
        (("equal", 0, 2), "neither"),
        (("level", 65536), "0 to 65535"),
        (("level", -1), "0 to 65535"),
        (("level", 0, 1), "1 to 256"),
        (("level", 0, 1 << 257), "1 to 256"),
        (("level", 0, -2), "1 to 256"),
    ],
)
def test_elements_that_are_none(arguments: tuple[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Element(*arguments)


# ---- order ----


@given(ELEMENTS, ELEMENTS)
def test_low_high_and_equal(a: Element, b: Element) -> None:
    assert HIGH.dominates(a)
    assert a.dominates(LOW)
    assert a.dominates(EQUAL)
    assert EQUAL.dominates(a)
    if a not in (LOW, EQUAL):
        assert not LOW.dominates(a)
    if a not in (HIGH, EQUAL):
        assert not a.dominates(HIGH)
    assert dominates(Label(a), Label(b)) == a.dominates(b)


@given(ORDERED, ORDERED, ORDERED)
def test_dominance_is_a_partial_order_without_equal(a: Element, b: Element, c: Element) -> None:
    assert a.dominates(a)
    assert not (a.dominates(b) and b.dominates(a)) or a == b
    assert not (a.dominates(b) and b.dominates(c)) or a.dominates(c)


def test_equal_is_not_part_of_the_order() -> None:
    assert LOW.dominates(EQUAL)
    assert EQUAL.dominates(HIGH)
    assert not LOW.dominates(HIGH)


@given(SMALL, SMALL)
def test_levels_by_level_and_compartments(a: Element, b: Element) -> None:
    more = a.compartments | b.compartments == a.compartments
    assert a.dominates(b) == (a.level >= b.level and more)


def test_labels_without_effective_element_are_not_compared() -> None:
    with pytest.raises(ValueError, match="effective"):
        dominates(parse("(low-high)"), parse("5"))


@pytest.mark.parametrize(
    ("text", "privileged"),
    [
        ("equal", True),
        ("5(equal-high)", True),
        ("5(low-equal)", True),
        ("5(low-high)", True),
        ("low", False),
        ("high", False),
        ("5(0-high)", False),
        ("5(low-65535:1++256)", False),
    ],
)
def test_who_is_privileged(text: str, privileged: bool) -> None:
    assert parse(text).privileged == privileged


# ---- through a kernel ----


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    watch = SelfTest()
    with Kernel(policies=[MLS(), watch]) as kernel:
        yield kernel
        kernel.verify()
        assert kernel.policies.failures == {}
    assert watch.violations == []


def task(kernel: Kernel, label: str) -> Task:
    return kernel.create_task(f"t {label}", label=f"mls/{label}")


def test_writing_up_is_allowed(kernel: Kernel) -> None:
    high, low = task(kernel, "7:1+2"), task(kernel, "3:1")
    inbox = high.allocate_port()
    inbox.make_send(low).send(b"report")
    assert inbox.receive().body == b"report"


def test_writing_down_is_refused_even_to_hold_the_right(kernel: Kernel) -> None:
    high, low = task(kernel, "7:1+2"), task(kernel, "3:1")
    with pytest.raises(AccessDenied) as caught:
        low.allocate_port().make_send(high)
    assert (caught.value.permission, caught.value.name) == ("hold_send", "KERN_NO_ACCESS")


@pytest.mark.parametrize(("one", "other"), [("5:1", "5:2"), ("5:1", "7:2"), ("low", "0:1")])
def test_one_way_at_most(kernel: Kernel, one: str, other: str) -> None:
    a, b = task(kernel, one), task(kernel, other)
    ways = [
        bool(kernel.access(a, b.allocate_port(), "mach_port", "send")),
        bool(kernel.access(b, a.allocate_port(), "mach_port", "send")),
    ]
    assert ways == [one == "low", False]


def test_a_right_held_before_a_rise_cannot_be_used_after_it(kernel: Kernel) -> None:
    """SEDarwin asked at the time of use too: the level of now counts, not that of then."""
    climber, low = task(kernel, "3(3-high)"), task(kernel, "3")
    right = low.allocate_port().make_send(climber)
    right.send(b"still low")
    climber.relabel("mls/7(7-high)")
    with pytest.raises(AccessDenied) as caught:
        right.send(b"secret")
    assert caught.value.name == "MACH_SEND_INVALID_DEST"
    assert "send" in caught.value.permission.split()


def test_receiving_from_a_port_that_has_risen(kernel: Kernel) -> None:
    owner = task(kernel, "3(3-high)")
    boss = task(kernel, "low(low-high)")
    port = owner.allocate_port()
    port.make_send(owner).send(b"secret by now")
    port.relabel("mls/high", caller=boss)
    with pytest.raises(AccessDenied) as caught:
        port.receive(timeout=0)
    assert (caught.value.permission, caught.value.name) == ("use_recv", "MACH_RCV_INVALID_NAME")


def test_a_port_labelled_equal_does_not_carry_secrets_down(kernel: Kernel) -> None:
    """SEDarwin's module had no opinion on receiving: this went through."""
    trusted, low, high = (task(kernel, label) for label in ("equal", "low", "high"))
    port = trusted.allocate_port()
    assert port.label == "mls/equal"
    right = port.make_send(high)
    moved = port.move_receive(low)
    right.send(b"secret")
    with pytest.raises(AccessDenied) as caught:
        moved.receive(timeout=0)
    assert (caught.value.permission, caught.value.name) == ("recv", "MACH_RCV_INVALID_DATA")


def test_a_receive_right_does_not_go_down(kernel: Kernel) -> None:
    high, low = task(kernel, "high"), task(kernel, "low")
    with pytest.raises(AccessDenied) as caught:
        high.allocate_port().move_receive(low)
    assert caught.value.permission == "hold_recv"
    assert low.allocate_port().move_receive(high).label == "mls/low"


def test_a_call_upwards_arrives_without_the_way_back(kernel: Kernel) -> None:
    high, low = task(kernel, "high"), task(kernel, "low")
    inbox, answer = high.allocate_port(), low.allocate_port()
    inbox.make_send(low).send(b"question", reply=answer.make_send_once())
    message = inbox.receive()
    assert (message.body, message.reply_right) == (b"question", None)
    assert message.denied


def test_a_port_has_its_issuers_effective_element(kernel: Kernel) -> None:
    owner = task(kernel, "5:1+3(low-high)")
    assert owner.allocate_port().label == "mls/5:1+3"
    assert kernel.create_task("unlabelled").allocate_port().label == "mls/low"
    equal = task(kernel, "equal")
    name = mach.mach_port_allocate(owner, PortRight.RECEIVE, caller=equal)
    assert owner.receive_right(name).label == "mls/equal"


def test_a_child_has_its_parents_label(kernel: Kernel) -> None:
    parent = task(kernel, "5:1(low-7:1)")
    assert kernel.create_task("child", parent=parent).label == "mls/5:1(low-7:1)"
    assert kernel.create_task("low", label="mls/3", parent=parent).label == "mls/3"
    for label in ("mls/high", "mls/3(low-high)", "mls/equal", "mls/5:2"):
        with pytest.raises(AccessDenied) as caught:
            kernel.create_task("child", label=label, parent=parent)
        assert caught.value.permission == "create"
    orphan = kernel.create_task("orphan")
    assert kernel.create_task("child", parent=orphan).label == "mls/low(low-high)"


def test_a_label_chosen_at_birth_is_asked_about(kernel: Kernel) -> None:
    owner = task(kernel, "5(3-7)")
    assert owner.allocate_port("mls/3").label == "mls/3"
    for label in ("mls/high", "mls/low", "mls/equal"):
        with pytest.raises(AccessDenied) as caught:
            owner.allocate_port(label)
        assert caught.value.permission == "relabelto"


def test_acting_under_another_label(kernel: Kernel) -> None:
    spokesman = task(kernel, "5(3-7)")
    right = task(kernel, "7").allocate_port().make_send(spokesman)
    right.send(b"as 7", effective="mls/7")
    with pytest.raises(AccessDenied) as caught:
        right.send(b"as 2", effective="mls/2")
    assert "specify" in caught.value.permission.split()
    inbox = spokesman.allocate_port()
    inbox.make_send(spokesman).send(b"to 5")
    with pytest.raises(AccessDenied) as caught:
        inbox.receive(timeout=0, effective="mls/high")
    assert "interpose" in caught.value.permission.split()
    assert inbox.receive(timeout=0, effective="mls/7").body == b"to 5"


# ---- relabelling ----


def relabel_code(kernel: Kernel, subject: str, label: str) -> str:
    """The name of the code with which a task so labelled relabels itself."""
    who = task(kernel, subject)
    try:
        who.relabel(f"mls/{label}")
    except MachError as error:
        assert who.label == f"mls/{subject}"
        return error.name
    assert who.label == f"mls/{label}"
    return "KERN_SUCCESS"


@pytest.mark.parametrize(
    ("subject", "label", "code"),
    [
        ("5(3-7)", "7(3-7)", "KERN_SUCCESS"),
        ("5(3-7)", "3", "KERN_SUCCESS"),
        ("5(3-7)", "6(5-6)", "KERN_SUCCESS"),
        ("5(3-7)", "8", "KERN_NO_ACCESS"),
        ("5(3-7)", "2", "KERN_NO_ACCESS"),
        ("5(3-7)", "5(2-7)", "KERN_NO_ACCESS"),
        ("5(3-7)", "5(3-8)", "KERN_NO_ACCESS"),
        ("5(3-7)", "5:1", "KERN_NO_ACCESS"),
        ("5(3-7)", "equal", "KERN_NO_ACCESS"),
        ("5(3-7)", "5(equal-7)", "KERN_NO_ACCESS"),
        ("5", "5", "KERN_SUCCESS"),
        ("5", "6", "KERN_NO_ACCESS"),
        ("5(low-high)", "equal", "KERN_SUCCESS"),
        ("5(3-equal)", "equal(3-high)", "KERN_SUCCESS"),
        ("5(low-high)", "3(5-7)", "KERN_INVALID_ARGUMENT"),
        ("5(3-7)", "3(5-7)", "KERN_INVALID_ARGUMENT"),
    ],
)
def test_a_task_relabels_itself(kernel: Kernel, subject: str, label: str, code: str) -> None:
    assert relabel_code(kernel, subject, label) == code


@pytest.mark.parametrize(
    ("subject", "old", "new", "code"),
    [
        ("5(3-7)", "3", "7", "KERN_SUCCESS"),
        ("5(3-7)", "equal", "5", "KERN_SUCCESS"),
        ("5(3-7)", "8", "5", "KERN_NO_ACCESS"),
        ("5(3-7)", "5", "8", "KERN_NO_ACCESS"),
        ("5(3-7)", "5", "equal", "KERN_NO_ACCESS"),
        ("low(low-high)", "5", "equal", "KERN_SUCCESS"),
        ("low(low-high)", "5", "5(low-high)", "KERN_INVALID_ARGUMENT"),
        ("5(3-7)", "5", "5(3-7)", "KERN_INVALID_ARGUMENT"),
    ],
)
def test_a_port_is_relabelled(kernel: Kernel, subject: str, old: str, new: str, code: str) -> None:
    port = task(kernel, subject).allocate_port()
    port.relabel(f"mls/{old}", caller=task(kernel, "equal"))
    try:
        port.relabel(f"mls/{new}")
        found = "KERN_SUCCESS"
    except MachError as error:
        found = error.name
    assert found == code
    assert port.label == f"mls/{old if code != 'KERN_SUCCESS' else new}"


@pytest.mark.parametrize(
    ("tclass", "subject", "old", "new", "code"),
    [
        ("mach_port", "5(3-7)", "5", "6", 0),
        ("mach_port", "5(3-7)", "5", "6(5-7)", mach.KERN_INVALID_ARGUMENT),
        ("mach_port", "5(3-7)", "8", "9(low-high)", mach.KERN_INVALID_ARGUMENT),
        ("mach_port", "5(3-7)", "8", "5", mach.KERN_DENIED),
        ("mach_port", "5(3-7)", "5", "equal", mach.KERN_DENIED),
        ("mach_task", "5(3-7)", "5(3-7)", "6(5-7)", 0),
        ("mach_task", "5(3-7)", "5(3-7)", "3(5-7)", mach.KERN_INVALID_ARGUMENT),
        ("mach_task", "5(3-7)", "5(3-7)", "8", mach.KERN_DENIED),
        ("mach_task", "5(3-7)", "8", "5", mach.KERN_DENIED),
        ("mach_task", "5(3-7)", "5(3-8)", "5", mach.KERN_DENIED),
    ],
)
def test_the_modules_own_code(tclass: str, subject: str, old: str, new: str, code: int) -> None:
    module = MLS()
    labels = [module.parse(text) for text in (subject, old, new)]
    assert module.check_relabel(*labels, CLASSES[tclass]) == code


def test_nobody_relabels_a_task_above(kernel: Kernel) -> None:
    high, low = task(kernel, "high"), task(kernel, "5(low-7)")
    with pytest.raises(AccessDenied) as caught:
        high.relabel("mls/low", caller=low)
    assert caught.value.permission == "relabelfrom"
    assert high.label == "mls/high"


# ---- labels of a kernel ----


def test_labels_are_canonical_in_a_kernel(kernel: Kernel) -> None:
    assert task(kernel, "5:3+2+1(lo-hi)").label == "mls/5:1++3(low-high)"


def test_a_range_alone_is_no_label_of_a_kernel(kernel: Kernel) -> None:
    with pytest.raises(LabelError, match=r"no effective element: write as in low\(low-high\)"):
        task(kernel, "(low-high)")


def test_without_a_label_low_and_free(kernel: Kernel) -> None:
    nobody, high = kernel.create_task("nobody"), task(kernel, "high")
    assert kernel.access(nobody, high.allocate_port(), "mach_port", "send")
    assert not kernel.access(high, nobody.allocate_port(), "mach_port", "send")
    nobody.relabel("mls/equal")
    assert kernel.access(high, nobody.allocate_port(), "mach_port", "send")


def test_explanations_name_the_relation_and_the_labels(kernel: Kernel) -> None:
    told = kernel.explain("mls/high", "mls/5", "mach_port", "send")
    assert "mls: refuses send (write), which needs that the object's effective" in told
    assert (
        "subject high, object 5; a subject of at most 5 or an object of at least high "
        "would be allowed"
    ) in told
    assert "mls: allows use_recv (read)" in kernel.explain(
        "mls/high", "mls/5", "mach_port", "use_recv"
    )
    assert "mls: has no opinion on look_up" in kernel.explain(
        "mls/high", "mls/5", "service", "look_up"
    )
