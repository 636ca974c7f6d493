# SPDX-License-Identifier: BSD-2-Clause
"""pympi.trace.plan, .replay, .demo: a plan repeats its recording exactly, and so does its run."""

from __future__ import annotations

import errno
import io
import json
import re
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pympi import Kernel, audit
from pympi.cli import main
from pympi.cli._artefacts import publish
from pympi.enums import CLASSES
from pympi.policy import Rules
from pympi.trace import (
    KOBJECTS,
    SEDARWIN_EVENTS,
    Labels,
    TraceReader,
    TraceRecord,
    demo,
    read_trace,
    sedarwin_records,
    task_label,
    write_full,
    write_sedarwin,
)
from pympi.trace.plan import MAX_EVENTS, MAX_RIDERS, How, Plan, Rider, Step, make_plan
from pympi.trace.replay import System, replay

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
        assert len(moved) <= 1
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


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800"])
def test_a_name_that_no_task_can_have(name: str) -> None:
    with pytest.raises(ValueError, match=r"a name that a task can have|whose every port is"):
        make_plan([record("send", "/a", name, 1, 1)])


def test_names_as_wild_as_the_full_form_allows() -> None:
    wild = [
        "tab\tbar | colon : end ",
        "line\nbreak\x1b[31m",
        "\udcff",
        "\u202eright to left",
        "a" * 1023,
    ]
    records = [record("send", name, name, n, 2) for n, name in enumerate(wild)]
    assert replay(make_plan(records), policies=[all_but()]).replayed == []
    report = replay(make_plan(records))
    assert report.exact
    file = io.BytesIO()
    write_full(file, report.recorded)
    file.seek(0)
    assert list(TraceReader(file)) == report.recorded


def test_an_empty_recording_is_an_empty_plan() -> None:
    assert make_plan([]) == ([], [], [], [])


# --- the demo's recording -------------------------------------------------------------------------


def test_the_packaged_files_are_what_their_script_makes() -> None:
    data = resources.files("pympi") / "data"
    for name, contents in demo.files().items():
        assert (data / name).read_bytes() == contents


def test_the_packaged_trace_shows_every_case() -> None:
    plan = make_plan(demo.boot())
    assert {step.how for step in plan.steps} >= {How.COPY_SEND, How.MOVE_SEND_ONCE, How.MOVE_SEND}
    assert {rider.event for step in plan.steps for rider in step.riders} == {
        "copy_send",
        "move_recv",
    }
    active = {record.task for record in plan.records}
    assert {name for name in plan.tasks if name not in active} == {demo.GREETER}


# --- the run --------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(recordings)
def test_a_run_records_what_was_recorded_and_nothing_else(records: list[TraceRecord]) -> None:
    plan = make_plan(records)
    with System(plan) as system:
        for _ in range(2):
            done = system.round()
            again = sedarwin_records(system.kernel.trace.records())
            assert Counter(again) == Counter(plan.records)
            assert done.messages == sum(step.how is not How.EXTRACT for step in plan.steps)
            assert not done.refused
            assert system.kernel.trace.lost == 0  # the kernel is made with room for every path
        system.kernel.verify()


def test_a_run_finds_the_paths_in_recorded_order() -> None:
    records = [record("send", f"/task {n}", "/server", n, 30 - n) for n in range(20)]
    assert replay(make_plan(records)).replayed == records


def test_the_full_form_shows_what_the_three_events_imply() -> None:
    plan = make_plan([record("copy_send", "/a", "/b", 1, 4), record("send", "/a", "/b", 1, 9)])
    assert replay(plan).events_by_kind == {
        "send": 9,
        "recv": 9,
        "make_send": 5,
        "copy_send": 4,
        "move_send": 5,
        "hold_send": 5,
    }


def test_a_receive_right_comes_home_whoever_sent_it() -> None:
    plan = make_plan(
        [
            record("move_recv", "/guest", "/owner", 1, 3),
            record("send", "/guest", "/other", 1, 5),
            record("send", "/guest", "/owner", 1, 5),
        ]
    )
    with System(plan) as system:
        for _ in range(3):
            system.round()
            assert Counter(sedarwin_records(system.kernel.trace.records())) == Counter(plan.records)
        system.kernel.verify()


def test_what_finds_no_room_is_counted_and_told(tmp_path) -> None:
    with Kernel(trace_paths=2) as kernel:
        task = kernel.create_task("/a")
        rights = [task.allocate_port().make_send(task) for _ in range(5)]
        kernel.trace.start()
        for right in rights:
            right.send(b"")
        assert len(kernel.trace.records()) == 4
        assert kernel.trace.lost == 6
        kernel.trace.save(tmp_path / "full")
        with (tmp_path / "full").open("rb") as file:
            assert TraceReader(file).lost == 6


# --- under a policy -------------------------------------------------------------------------------

ALL_BUT = """
allow * * mach_task {{ * }};
allow * port-b mach_port {{ {permissions} }};
allow * port-c mach_port {{ * }};
allow * port-a mach_port {{ * }};
allow * task-a mach_port {{ * }};
allow * task-b mach_port {{ * }};
allow * task-c mach_port {{ * }};
"""
EVERYTHING = [
    record("copy_send", "/a", "/b", 1, 20),
    record("send", "/a", "/b", 1, 30),
    record("send", "/b", "/b", 2, 6),
    record("copy_send", "/c", "/b", 1, 3),
    record("move_recv", "/b", "/b", 1, 2),
    record("send", "/b", "/c", 4, 12),
    record("send", "/c", "/a", 4, 12),
    record("send", "/b", "/a", 4, 12),
]


def all_but(*refused: str) -> Rules:
    allowed = [name for name in CLASSES["mach_port"].bits if name not in refused]
    return Rules.from_text(ALL_BUT.format(permissions=" ".join(allowed)))


def test_a_policy_that_allows_everything_changes_nothing() -> None:
    report = replay(make_plan(EVERYTHING), policies=[all_but()])
    assert report.exact
    assert report.denied == []


@pytest.mark.parametrize("permission", CLASSES["mach_port"].bits)
def test_a_run_goes_on_whatever_is_refused(permission: str) -> None:
    plan = make_plan(EVERYTHING)
    with System(plan, policies=[all_but(permission)]) as system:
        for _ in range(2):
            before = system.kernel.stats()["denials"]
            system.round()
            denied = sum(denial.times for denial in system.denials())
            assert denied == system.kernel.stats()["denials"] - before
            recorded = sedarwin_records(system.kernel.trace.records())
            assert record("send", "/b", "/a", 4, 12) in recorded or permission == "move_recv"
            most = {r.key: r.count for r in plan.records}
            assert all(r.count <= most.get(r.key, 0) for r in recorded)
        system.kernel.verify()


@settings(max_examples=40)
@given(recordings, st.sets(st.sampled_from(list(CLASSES["mach_port"].bits)), max_size=4))
def test_any_run_under_any_policy_leaves_a_sound_kernel(
    records: list[TraceRecord], refused: set[str]
) -> None:
    plan = make_plan(records)
    most = {r.key: r.count for r in plan.records}
    with System(plan, policies=[all_but(*refused)]) as system:
        for _ in range(2):
            system.round()
            recorded = sedarwin_records(system.kernel.trace.records())
            assert all(r.count <= most.get(r.key, 0) for r in recorded)
        system.kernel.verify()


def test_denials_are_counted_and_explained() -> None:
    report = replay(make_plan(EVERYTHING), policies=[all_but("send")])
    refused = sum(r.count for r in EVERYTHING if r.event == "send" and r.owner == "/b")
    assert sum(denial.times for denial in report.denied) == refused
    assert {denial.permission for denial in report.denied} == {"send"}
    assert {denial.object for denial in report.denied} == {"rules/port-b"}
    assert all(
        re.search(r"^rules: refuses: no rule; allow .* { send }; would allow it", each.reason)
        for each in report.denied
    )
    assert report.faithful
    assert not report.exact
    both = replay(make_plan(EVERYTHING), policies=[all_but("send", "copy_send")]).denied
    at_once = [each for each in both if each.permission == "send copy_send"]
    assert at_once
    assert all("{ send copy_send }; would allow it" in each.reason for each in at_once)


def test_labels_from_a_table_are_used() -> None:
    labels = Labels(given={("task", "/a", 0): "rules/first"})
    with System(make_plan(EVERYTHING), policies=[all_but()], labels=labels) as system:
        seen = {task.name: task.label for task in system.kernel.tasks.values()}
    assert seen == {"/a": "rules/first", "/b": "rules/task-b", "/c": "rules/task-c"}


def test_the_cost_of_the_checks_is_measured_on_what_was_allowed() -> None:
    report = replay(make_plan(EVERYTHING), policies=[all_but("move_recv")], pairs=3)
    assert report.check_cost is not None
    assert report.check_cost > 0


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "small.trace"
    with path.open("wb") as file:
        write_sedarwin(file, EVERYTHING)
    return path


def test_replay_prints_json_and_writes_both_forms(recording, tmp_path, capsys) -> None:
    out = tmp_path / "deep" / "out"
    assert main(["replay", str(recording), "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["tasks"], result["ports"], result["records"]) == (3, 4, 8)
    assert result["events"] == sum(r.count for r in EVERYTHING)
    assert result["messages"] == sum(r.count for r in EVERYTHING if r.event == "send")
    assert (result["denials"], result["exact"]) == (0, True)
    assert result["seconds"] > 0
    assert sorted(read_trace(out / "replayed.trace")) == sorted(EVERYTHING)
    assert sedarwin_records(read_trace(out / "full.trace")) == read_trace(out / "replayed.trace")
    names = sorted(path.name for path in out.iterdir())
    assert names == ["full.trace", "replayed.trace", "run.json"]
    assert json.loads((out / "run.json").read_bytes())["messages"] == result["messages"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_replay_records_a_further_run(recording, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["replay", str(recording), "--audit"]) == 2
    assert "--audit needs --out" in capsys.readouterr().err
    assert main(["replay", str(recording), "--out", str(out), "--audit", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    sent = [record for record in audit.read(out / "run.audit") if record.operation == "send"]
    assert len(sent) == result["messages"]


def test_a_recording_that_is_not_whole_is_none(recording, tmp_path, capsys, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(audit.File, "__call__", full)
    out = tmp_path / "out"
    assert main(["replay", str(recording), "--out", str(out), "--audit"]) == 2
    assert capsys.readouterr().err == f"pympi: {out / 'run.audit'}: No space left on device\n"
    assert not out.exists()


def test_replay_of_its_own_full_trace(recording, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["replay", str(recording), "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["replay", str(out / "full.trace"), "--repeat", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exact"]


def test_replay_under_a_policy(recording, tmp_path, capsys) -> None:
    policy = tmp_path / "policy"
    policy.write_text(ALL_BUT.format(permissions="make_send"))
    labels = tmp_path / "labels"
    labels.write_text("task rules/visitor /a\n")
    arguments = ["--policy", str(policy), "--labels", str(labels), "--cost"]
    assert main(["replay", str(recording), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "rules/visitor" in printed
    assert "cost of the checks" in printed


def test_a_broken_trace_leaves_nothing_behind(recording, tmp_path, capsys) -> None:
    recording.write_bytes(recording.read_bytes()[:-1])
    out = tmp_path / "out"
    assert main(["replay", str(recording), "--out", str(out)]) == 2
    assert f"{recording}:{len(EVERYTHING) + 1}:" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["small.trace"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--policy", "absent"],
        ["--cost"],
        ["--repeat", "0"],
        ["--repeat", "many"],
        ["--out", "small.trace"],
        ["--unknown"],
    ],
)
def test_wrong_usage_is_told_from_failure(recording, monkeypatch, arguments) -> None:
    monkeypatch.chdir(recording.parent)
    assert main(["replay", "small.trace", *arguments]) == 2


def test_a_broken_policy_and_broken_labels_are_bad_input(recording, tmp_path, capsys) -> None:
    broken = tmp_path / "broken"
    broken.write_text("allow everyone everything\n")
    assert main(["replay", str(recording), "--policy", str(broken)]) == 2
    assert main(["replay", str(recording), "--labels", str(broken)]) == 2
    assert f"{broken}:1:1: expected 'task LABEL NAME'" in capsys.readouterr().err


def test_a_label_of_no_module_is_bad_input(recording, tmp_path, capsys) -> None:
    (tmp_path / "policy").write_text("allow * * * { * };")
    (tmp_path / "labels").write_text("task te/a_t /a\n")
    arguments = ["--policy", str(tmp_path / "policy"), "--labels", str(tmp_path / "labels")]
    assert main(["replay", str(recording), *arguments]) == 2
    assert "no policy module 'te'" in capsys.readouterr().err


def test_a_recording_that_sedarwin_cannot_say_is_replayed_and_refused_in_writing(
    tmp_path, capsys
) -> None:
    with (tmp_path / "full.trace").open("wb") as file:
        write_full(file, [record("send", "blank ", "/b", 1, 2)])
    assert main(["replay", str(tmp_path / "full.trace")]) == 0
    arguments = [str(tmp_path / "full.trace"), "--out", str(tmp_path / "out")]
    assert main(["replay", *arguments]) == 2
    assert (
        "replayed.trace:2:1: expected a record SEDarwin's form can say" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_made_is_an_error(recording) -> None:
    assert main(["replay", str(recording), "--out", str(recording / "out")]) == 2


def test_help_is_no_failure(capsys) -> None:
    assert main(["--help"]) == 0
    assert "replay" in capsys.readouterr().out


def test_publishing_into_a_directory_keeps_what_else_is_there(tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes").write_text("mine")
    assert publish(tmp_path / "out", {"a": b"1"}) == [tmp_path / "out" / "a"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a", "notes"}


def test_publishing_all_or_nothing(tmp_path) -> None:
    with pytest.raises(OSError, match="absent"):
        publish(tmp_path / "out", {"a": b"1", "absent/b": b"2"})
    assert list(tmp_path.iterdir()) == []


def test_demo_shows_denials_and_the_cost_of_checks(tmp_path, capsys) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    plan = make_plan(demo.boot())
    assert (result["tasks"], result["ports"]) == (len(plan.tasks), len(plan.ports))
    assert result["denials"] > 0
    assert {denial["subject"] for denial in result["denied"]} == {
        f"rules/{task_label(name)}" for name in (demo.UPDATER, demo.LOGIN)
    }
    assert result["check_cost"] > 0
    names = [Path(path).name for path in result["artefacts"]]
    assert names[-2:] == ["run.audit", "report.html"]
    assert sorted(names) == sorted(path.name for path in (tmp_path / "demo").iterdir())


@pytest.mark.real_data
def test_the_recorded_boot_runs_again(shared_data, tmp_path, capsys) -> None:
    path = shared_data / "ipctrace" / "darwin-boot.trace"
    assert main(["replay", str(path), "--out", str(tmp_path / "out"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["tasks"], result["ports"]) == (109, 1181)
    assert (result["records"], result["events"]) == (4172, 196614)
    replayed = (tmp_path / "out" / "replayed.trace").read_bytes().splitlines()
    assert sorted(replayed) == sorted(path.read_bytes().splitlines())
