# SPDX-License-Identifier: BSD-2-Clause
"""Labels of several modules: what is written is read back equal, all of it or nothing.

And relabelling, of ports and of tasks: relabelfrom of the old label, relabelto of the new one.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pympi import AccessDenied, Kernel, LabelError
from pympi.enums import ALL
from pympi.label import choose, format_label, parse_label
from pympi.policy import MLS, Decision, Partition, PolicyModule, SelfTest

NAMES = ("anything", "folded", "mls", "partition")


class Anything(PolicyModule):
    """Takes any text at all, commas, slashes and backslashes included."""

    name = "anything"


class Folded(PolicyModule):
    """Writes its values otherwise than they may be read: in small letters."""

    name = "folded"

    def parse(self, text: str) -> Hashable:
        if not text.isascii() or not text.isalpha():
            raise ValueError(f"letters, not {text!r}")
        return text.lower()


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
VALUES = {
    "anything": TEXT.filter(lambda text: len(text.encode()) < 500),
    "folded": st.text("abcABC", min_size=1, max_size=9),
    "mls": st.sampled_from(["low", "5", "hi", "3:1+2+3+7", "eq", "2(lo-4:1++9)"]),
    "partition": st.text("ab c", min_size=1, max_size=5).filter(lambda text: text == text.strip()),
}
LABELS = st.fixed_dictionaries({}, optional=VALUES)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def kernel() -> Any:
    with Kernel(policies=[Anything(), Folded(), MLS(), Partition(), SelfTest()]) as kernel:
        yield kernel


@given(values=LABELS)
def test_what_is_written_is_read_back_equal(kernel: Kernel, values: dict[str, str]) -> None:
    with kernel.create_task("task", label=format_label(values)) as task:
        written = task.label
        assert set(parse_label(written)) == set(values)
        assert kernel.label_text(written) == written == kernel.label_text(task)
        with kernel.create_task("again", label=written) as again:
            assert (again.label, again.sid) == (written, task.sid)


@given(values=LABELS, order=st.permutations(NAMES))
def test_there_is_one_way_to_write_a_label(
    kernel: Kernel, values: dict[str, str], order: list[str]
) -> None:
    shuffled = [format_label({name: values[name]}) for name in order if name in values]
    text = ",".join(shuffled) or "-"
    assert kernel.label_text(text) == kernel.label_text(format_label(values))


@given(
    values=LABELS, asked=st.lists(st.sampled_from(NAMES), min_size=1, unique=True), data=st.data()
)
def test_a_part_of_a_label(
    kernel: Kernel, values: dict[str, str], asked: list[str], data: st.DataObject
) -> None:
    optional = {name for name in asked if data.draw(st.booleans())}
    names = ",".join(f"?{name}" if name in optional else name for name in asked)
    whole = kernel.label_text(format_label(values))
    missing = [name for name in asked if name not in values and name not in optional]
    if missing:
        with pytest.raises(LabelError, match="has no value of"):
            kernel.label_text(whole, names)
        return
    part = kernel.label_text(whole, names)
    everything = parse_label(whole)
    assert parse_label(part) == {n: everything[n] for n in asked if n in everything}
    assert kernel.label_text(part) == part


@pytest.mark.parametrize(
    "names",
    ["", "?", ",", "mls,", "mls,,te", "MLS", "mls/low", "*,mls", "?*", "mls,mls", "mls,?mls"],
)
def test_lists_of_names_that_are_none(names: str) -> None:
    with pytest.raises(LabelError, match="expected as in 'te,\\?mls' or '\\*'"):
        choose("mls/low,te/u:r:t", names)


def test_the_core_gives_labels_by_task_right_text_and_number(kernel: Kernel) -> None:
    with kernel.create_task("task", label="mls/low,partition/a") as task:
        port = task.allocate_port()
        for thing in (task, port, "partition/a,mls/low", task.sid):
            assert kernel.label_text(thing, "partition,?anything") == "partition/a"
        assert kernel.label_text(task, "?anything") == "-"


@settings(max_examples=50)
@given(values=LABELS, wrong=st.sampled_from(["folded/1", "mls/x", "te/a", "partition/ a"]))
def test_a_label_is_taken_whole_or_not_at_all(
    kernel: Kernel, values: dict[str, str], wrong: str
) -> None:
    values.pop(wrong.split("/")[0], None)
    bad = format_label(values) + "," + wrong if values else wrong
    with kernel.create_task("task", label="partition/before") as task:
        port = task.allocate_port()
        sids = kernel.stats()["sids"]
        for thing in (task, port):
            before = thing.sid  # type: ignore[attr-defined]
            with pytest.raises(LabelError):
                thing.relabel(bad)  # type: ignore[attr-defined]
            assert thing.sid == before  # type: ignore[attr-defined]
        assert kernel.stats()["sids"] == sids


# ---- relabelling ----


class Guard(PolicyModule):
    """Refuses one permission on one label."""

    name = "guard"
    uncached = True

    def __init__(self) -> None:
        self.refused: tuple[str, str] | None = None

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        allowed = ALL
        for permission in ("relabelfrom", "relabelto"):
            if permission in tclass.bits and (permission, target) == self.refused:
                allowed &= ~tclass.bits[permission]
        return Decision(allowed=allowed)


@pytest.mark.parametrize("tclass", ["mach_port", "mach_task"])
def test_relabelling_asks_both_permissions_of_the_right_labels(tclass: str) -> None:
    guard = Guard()
    with Kernel(policies=[guard]) as kernel:
        task = kernel.create_task("task", label="guard/old")
        thing: Any = task if tclass == "mach_task" else task.allocate_port()
        kernel.audit.everything()
        kernel.audit.drain()
        thing.relabel("guard/new")
        records = [
            record for record in kernel.audit.batch(kernel.audit.drain())
            if record.operation == "relabel"
        ]  # fmt: skip
        assert {(r.tclass, r.asked, r.subject, r.object) for r in records} == {
            (tclass, ("relabelfrom",), "guard/old", "guard/old"),
            (tclass, ("relabelto",), "guard/old", "guard/new"),
        }
        assert thing.label == "guard/new"


@pytest.mark.parametrize("tclass", ["mach_port", "mach_task"])
@pytest.mark.parametrize(
    ("refused", "target"), [("relabelfrom", "old"), ("relabelto", "new")], ids=str
)
def test_each_of_them_can_be_refused(tclass: str, refused: str, target: str) -> None:
    guard = Guard()
    with Kernel(policies=[guard, SelfTest()]) as kernel:
        task = kernel.create_task("task", label="guard/old")
        thing: Any = task if tclass == "mach_task" else task.allocate_port()
        guard.refused = (refused, target)
        with pytest.raises(AccessDenied) as caught:
            thing.relabel("guard/new")
        assert (caught.value.permission, caught.value.tclass) == (refused, tclass)
        assert caught.value.name == "KERN_NO_ACCESS"
        assert thing.label == "guard/old"
        swapped = "old" if target == "new" else "new"
        guard.refused = (refused, swapped)
        thing.relabel("guard/new")
        assert thing.label == "guard/new"


def test_a_queued_message_keeps_the_label_it_was_sent_under() -> None:
    with Kernel(policies=[Anything()]) as kernel:
        server = kernel.create_task("server", label="anything/s")
        client = kernel.create_task("client", label="anything/before")
        inbox = server.allocate_port()
        inbox.make_send(client).send(b"")
        client.relabel("anything/after")
        assert inbox.receive().sender.label == "anything/before"
