# SPDX-License-Identifier: BSD-2-Clause
"""pympi.trace.plan, .replay, .demo: a plan repeats its recording exactly, and so does its run."""

from __future__ import annotations

import io
from collections import Counter
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi.trace import KOBJECTS, SEDARWIN_EVENTS, TraceRecord, demo, write_sedarwin
from pympi.trace.plan import MAX_EVENTS, MAX_RIDERS, How, Plan, Rider, Step, make_plan

TASK = KOBJECTS.index("task")


def record(event: str, task: str, owner: str, number: int, count: int, kind: int = 0):
    return TraceRecord(event, task, owner, kind, number, count)


def recorded_by(plan: Plan) -> Counter[tuple[str, str, str, int, int]]:
    """What ipctrace would count for the steps of `plan`, by the rules of the message path."""
    counts: Counter[tuple[str, str, str, int, int]] = Counter()
    for step in plan.steps:
        events = [] if step.how is How.EXTRACT else [("send", step.port)]
        if step.how is How.COPY_SEND:
            events.append(("copy_send", step.port))
        for event, port in events + list(step.riders):
            counts[(event, plan.tasks[step.task], *plan.ports[port])] += 1
    return counts


names = st.sampled_from(["/a", "/b", "/c", "mach_kernel"])
recordings = st.dictionaries(
    st.tuples(
        st.sampled_from(SEDARWIN_EVENTS),
        names,
        names,
        st.sampled_from([0, TASK]),
        st.integers(0, 2),
    ),
    st.integers(1, 9),
    max_size=12,
).map(lambda counts: [TraceRecord(*key, count) for key, count in counts.items()])


def expected(records: list[TraceRecord]) -> Counter[tuple[str, str, str, int, int]]:
    return Counter({r.key: r.count for r in records})


# --- the plan -------------------------------------------------------------------------------------


@given(recordings)
def test_plan_repeats_every_count_and_nothing_else(records: list[TraceRecord]) -> None:
    plan = make_plan(records)
    assert recorded_by(plan) == expected(plan.records)


@given(recordings)
def test_riders_ride_where_they_can(records: list[TraceRecord]) -> None:
    for step in make_plan(records).steps:
        moved = [rider.port for rider in step.riders if rider.event == "move_recv"]
        assert len(set(moved)) == len(moved)
        assert len(step.riders) <= MAX_RIDERS
        assert step.how is How.EXTRACT or step.port not in moved


def test_as_many_copies_as_sends_go_by_copy_send() -> None:
    plan = make_plan([record("copy_send", "/a", "/b", 1, 3), record("send", "/a", "/b", 1, 3)])
    assert plan.steps == [Step(0, How.COPY_SEND, 0)] * 3
    assert (plan.tasks, plan.ports) == (["/a", "/b"], [("/b", 0, 1)])


def test_a_send_without_a_copy_is_a_reply_by_a_send_once_right() -> None:
    plan = make_plan([record("send", "/a", "/b", 1, 2)])
    assert plan.steps == [Step(0, How.MOVE_SEND_ONCE, 0)] * 2


def test_more_sends_than_copies_go_by_move_send() -> None:
    plan = make_plan([record("copy_send", "/a", "/b", 1, 1), record("send", "/a", "/b", 1, 3)])
    assert Counter(step.how for step in plan.steps) == {How.COPY_SEND: 1, How.MOVE_SEND: 2}


def test_a_copy_without_a_send_rides_in_the_next_message_of_its_task() -> None:
    plan = make_plan(
        [
            record("send", "/a", "/b", 1, 1),
            record("copy_send", "/a", "/c", 1, 1),
            record("send", "/other", "/b", 1, 1),
            record("send", "/a", "/b", 2, 1),
        ]
    )
    riders = [step.riders for step in plan.steps]
    assert riders == [(), (), (Rider("copy_send", 1),)]


def test_a_rider_after_the_last_message_takes_an_earlier_one() -> None:
    plan = make_plan([record("send", "/a", "/b", 1, 1), record("move_recv", "/a", "/a", 9, 1)])
    assert plan.steps == [Step(0, How.MOVE_SEND_ONCE, 0, (Rider("move_recv", 1),))]


def test_a_receive_right_never_rides_to_its_own_port() -> None:
    plan = make_plan([record("send", "/a", "/a", 9, 5), record("move_recv", "/a", "/a", 9, 1)])
    assert [step.riders for step in plan.steps if step.how is not How.EXTRACT] == [()] * 5
    assert plan.steps[-1] == Step(0, How.EXTRACT, 0, (Rider("move_recv", 0),))


def test_what_finds_no_message_is_extracted() -> None:
    plan = make_plan([record("copy_send", "/a", "/b", 1, 2)])
    assert plan.steps == [Step(0, How.EXTRACT, 0, (Rider("copy_send", 0),))] * 2


def test_paths_start_in_recorded_order_and_spread_over_the_run() -> None:
    plan = make_plan([record("send", "/a", "/a", number, 4) for number in (1, 2)])
    assert [step.port for step in plan.steps] == [0, 0, 0, 1, 1, 0, 1, 1]


def test_events_beyond_the_three_are_left_out() -> None:
    plan = make_plan([record("recv", "/a", "/b", 1, 1), record("send", "/a", "/b", 1, 2)])
    assert plan.records == [record("send", "/a", "/b", 1, 2)]


def test_a_plan_is_bounded() -> None:
    with pytest.raises(ValueError, match="at most"):
        make_plan([record("send", "/a", "/b", 1, MAX_EVENTS + 1)])


def test_a_task_port_cannot_be_rebuilt() -> None:
    with pytest.raises(ValueError, match="port numbers from 0"):
        make_plan([record("send", "/a", "/b", -1, 1)])


def test_an_empty_recording_is_an_empty_plan() -> None:
    assert make_plan([]) == ([], [], [], [])


# --- the demo's recording -------------------------------------------------------------------------


def test_the_packaged_trace_is_what_its_script_makes() -> None:
    file = io.BytesIO()
    write_sedarwin(file, demo.boot())
    assert (resources.files("pympi") / "data" / "demo.trace").read_bytes() == file.getvalue()


def test_the_packaged_trace_shows_every_case() -> None:
    plan = make_plan(demo.boot())
    assert {step.how for step in plan.steps} >= {How.COPY_SEND, How.MOVE_SEND_ONCE, How.MOVE_SEND}
    assert {rider.event for step in plan.steps for rider in step.riders} == {
        "copy_send",
        "move_recv",
    }
    active = {record.task for record in plan.records}
    assert {name for name in plan.tasks if name not in active} == {demo.GREETER}
