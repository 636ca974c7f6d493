# SPDX-License-Identifier: BSD-2-Clause
"""pympi.testing: PolicyCoverage, capture_audit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

import pytest

from pympi import AccessDenied, Kernel, SendRight
from pympi.mig import Interface
from pympi.policy import MLS, TypeEnforcement
from pympi.testing import PolicyCoverage, capture_audit

POLICY = """
(type a) (type b) (roletype system_r a) (roletype system_r b) (userrole system_u system_r)
(class mi_door (open close knock))
(allow a self (mach_port (make_send hold_send set_attributes)))
(allow a self (mach_port (send copy_send)))
(allow a self (mi_door (open close)))
(allow a b (mach_port (send)))
"""
WHOLE = {4: "make_send hold_send set_attributes", 5: "send copy_send", 6: "open close", 7: "send"}


Recorded = Callable[[Kernel], AbstractContextManager[Any]]


def te() -> TypeEnforcement:
    return TypeEnforcement.from_text(POLICY)


def loop(kernel: Kernel) -> SendRight:
    task = kernel.create_task("a", label="te/system_u:system_r:a")
    return task.allocate_port().make_send(task)


def idle(exercised: PolicyCoverage) -> dict[int, str]:
    return {each.origin.line: " ".join(each.idle) for each in exercised.result().unused}


def test_nothing_was_done() -> None:
    exercised = PolicyCoverage(te())
    assert idle(exercised) == WHOLE
    with Kernel(policies=[te()]) as kernel, exercised.record(kernel):
        pass
    assert idle(exercised) == WHOLE


def test_only_what_was_allowed_in_the_block_counts() -> None:
    exercised = PolicyCoverage(te())
    with Kernel(policies=[te(), MLS()]) as kernel:
        right = loop(kernel)
        with exercised.record(kernel):
            right.send(b"")
            with pytest.raises(AccessDenied):
                right.task.allocate_port().move_receive(right.task)
        right.task.allocate_port().make_send(right.task)
    assert idle(exercised) == {line: WHOLE[line] for line in (4, 6, 7)}


def test_kernels_add_up_though_their_classes_have_other_forms() -> None:
    exercised = PolicyCoverage(te())
    for routines in (["open"], ["close", "open"]):
        with Kernel(policies=[te()]) as kernel, exercised.record(kernel):
            door = Interface("door", 700, routines)
            right = loop(kernel)
            right.task.right(right.name).serve(door)
            getattr(door.client(right), routines[0])()
    assert idle(exercised) == {7: "send"}


def test_nothing_is_lost_where_there_is_little_room() -> None:
    exercised = PolicyCoverage(te())
    with Kernel(policies=[te()], audit_records=8) as kernel:
        with exercised.record(kernel):
            for _ in range(50):
                loop(kernel).send(b"")
        assert kernel.audit.stats["lost"] == 0
        assert kernel.audit.when_full == "drop"
    assert idle(exercised) == {4: "set_attributes", 6: "open close", 7: "send"}


def fail_after(step: Callable[[], None]) -> None:
    step()
    raise PermissionError


def test_a_block_that_fails_was_recorded() -> None:
    exercised = PolicyCoverage(te())
    with Kernel(policies=[te()]) as kernel:
        right = loop(kernel)
        with pytest.raises(PermissionError), exercised.record(kernel):
            fail_after(lambda: right.send(b""))
        kernel.audit.drain()
        loop(kernel).send(b"")
        assert len(kernel.audit.drain()) == 0, "grants are not recorded any more"
    assert 5 not in idle(exercised)


@pytest.mark.parametrize("recorded", [capture_audit, PolicyCoverage(te()).record])
def test_what_was_selected_is_selected_again(recorded: Recorded) -> None:
    with Kernel(policies=[te()]) as kernel:
        kernel.audit.everything(errors=False)
        kernel.audit.select("none", "mach_port")
        gone = kernel.audit.select("all", labels="te/*")
        kept = kernel.audit.select("granted", "mach_port", "send", tasks="a")
        assert gone is not None
        assert kept is not None
        kernel.audit.deselect(gone)  # the other keeps its number all the same
        before = kernel.audit.selection
        with suppress(ZeroDivisionError), recorded(kernel):
            assert kernel.audit.selection.everything
            assert kernel.audit.selection.errors
            right = loop(kernel)
            raise ZeroDivisionError
        assert kernel.audit.selection == before
        kernel.audit.drain()
        right.send(b"")
        assert [r.asked for r in kernel.audit.batch(kernel.audit.drain())] == [
            ("send", "copy_send")
        ]
        kernel.audit.deselect(kept)


def test_captures_within_each_other() -> None:
    with Kernel(policies=[te()]) as kernel:
        before = str(kernel.audit.selection)
        with capture_audit(kernel) as outer:
            with capture_audit(kernel) as inner:
                loop(kernel)
            loop(kernel)
        assert (len(inner), len(outer)) == (2, 4)
        assert str(kernel.audit.selection) == before
