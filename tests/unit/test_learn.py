# SPDX-License-Identifier: BSD-2-Clause
"""pympi.policy.author.learn: a learned policy allows what was recorded, and exactly that."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from importlib import resources
from pathlib import Path

import audit_files
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pympi import AccessDenied, Kernel, TimedOut, audit
from pympi.cli import main
from pympi.enums import CLASSES
from pympi.message import Carried
from pympi.mig import Interface
from pympi.policy import Decision, PolicyModule
from pympi.policy.author.certificate import check
from pympi.policy.author.closure import Grant, asked, grants, recorded
from pympi.policy.author.learn import FAMILIES, Forbidden, learn
from pympi.policy.author.recording import RecordingError, _distinct, read_recording
from pympi.policy.te import TypeEnforcement
from pympi.port import ReceiveRight, SendRight
from pympi.trace import (
    Labels,
    TraceRecord,
    make_plan,
    read_trace,
    sedarwin_records,
    write_full,
    write_sedarwin,
)
from pympi.trace.operations import introduction, introductions, operations
from pympi.trace.plan import How, Plan, Step
from pympi.trace.replay import System, replay

DEMO = Path(str(resources.files("pympi") / "data" / "demo.trace"))


class Exactly(PolicyModule):
    """Allows given permissions between types, which are all there is in a label."""

    name = "rules"

    def __init__(self, allowed: set[Grant]) -> None:
        super().__init__()
        self._vectors: dict[tuple[str, str, str], int] = defaultdict(int)
        for source, target, tclass, permission in allowed:
            self._vectors[source, target, tclass] |= CLASSES[tclass].bits[permission]

    def parse(self, text: str) -> str:
        return text

    def decide(self, source, target, tclass) -> Decision:
        return Decision(allowed=self._vectors.get((source, target, tclass.name), 0))


def te(text: str) -> TypeEnforcement:
    return TypeEnforcement.from_text(text)


def record(event: str, task: str, owner: str, number: int = 1, count: int = 1, kind: int = 0):
    return TraceRecord(event, task, owner, kind, number, count)


@pytest.fixture
def written(tmp_path: Path):
    """Writes records as a trace of SEDarwin's form."""

    def write(*records: TraceRecord, name: str = "small.trace") -> Path:
        with (tmp_path / name).open("wb") as file:
            write_sedarwin(file, records)
        return tmp_path / name

    return write


MIXED = [
    record("copy_send", "/a", "/b", 1, 20),
    record("send", "/a", "/b", 1, 30),
    record("send", "/b", "/b", 2, 6),
    record("copy_send", "/c", "/b", 1, 3),
    record("move_recv", "/b", "/b", 1, 2),
    record("send", "/c", "/b", 1, 9),
    record("move_recv", "/c", "/b", 2, 4),
    record("move_recv", "/idle", "/a", 7, 1),
    record("send", "/b", "/c", 4, 12),
]

names = st.sampled_from(["/a", "/b", "/c", "mach_kernel"])
recordings = st.dictionaries(
    st.tuples(
        st.sampled_from(["send", "copy_send", "move_recv"]), names, names,
        st.sampled_from([0, 2]), st.integers(0, 2),
    ),
    st.integers(1, 9), max_size=12,
).map(lambda counts: [TraceRecord(*key, count) for key, count in counts.items()])  # fmt: skip


# --- the closure is what a replay asks ------------------------------------------------------------


def asked_in_a_replay(plan: Plan, allowed: set[Grant]) -> set[Grant]:
    """What the core asked, from its audit records, in a replay where all of it was allowed."""
    batches: list[audit.Batch] = []
    with System(plan, policies=[Exactly(allowed)]) as system:
        system.kernel.audit.drain()
        system.kernel.audit.everything()
        system.kernel.audit.attach(batches.append)
        done = system.round()
        assert (done.refused, done.not_performed, system.denials()) == (frozenset(), 0, [])
        system.kernel.audit.flush()
    seen = set()
    for each in (r for batch in batches for r in batch if r.tclass):
        for permission in each.asked:
            joined = permission == "recv" and "use_recv" in each.asked
            target = each.peer if joined else each.object
            labels = (label.partition("/")[2] for label in (each.subject, target))
            seen.add(Grant(*labels, each.tclass, permission))
    return seen


@settings(max_examples=40)
@given(recordings)
def test_a_replay_asks_the_closure_and_nothing_else(records: list[TraceRecord]) -> None:
    plan = make_plan(records)
    needed = set(asked(plan))
    assert set(recorded(plan.records)) <= needed
    assert asked_in_a_replay(plan, needed) == needed


def test_the_demo_asks_its_closure() -> None:
    plan = make_plan(read_trace(DEMO))
    needed = set(asked(plan))
    assert asked_in_a_replay(plan, needed) == needed
    assert {g.permission for g in needed} > {"carry_rights", "request_notification", "hold_recv"}


@pytest.mark.real_data
def test_the_recorded_boot_asks_its_closure(shared_data: Path) -> None:
    plan = make_plan(read_trace(shared_data / "ipctrace" / "darwin-boot.trace"))
    needed = set(asked(plan))
    assert asked_in_a_replay(plan, needed) == needed


# --- a permission less ----------------------------------------------------------------------------


def without(plan: Plan, missing: Grant) -> tuple[int, int]:
    """How many operations are refused, and how many are not possible then: step by step."""
    pairs = introductions(plan)
    had = {pair for pair in pairs if missing not in grants(introduction(plan, *pair))}
    outcomes: dict[int, tuple[int, int]] = {}
    refused, left = len(pairs) - len(had), 0
    for step in plan.steps:
        if id(step) not in outcomes:
            outcomes[id(step)] = outcome(plan, step, missing, had)
        refused += outcomes[id(step)][0]
        left += outcomes[id(step)][1]
    return refused, left


def outcome(plan: Plan, step: Step, missing: Grant, had: set[tuple[int, int]]) -> tuple[int, int]:
    rights = {(step.task, r.port) for r in step.riders if r.event == "copy_send"}
    rights |= {(step.task, step.port)} if step.how is How.COPY_SEND else set()
    steps = operations(plan, step)
    if not rights <= had:
        return 0, len(steps)
    refused = left = 0
    over, lent = False, True
    for operation in steps:
        possible = lent if operation.name == "return" else not over
        if not possible:
            left += 1
        elif missing in grants(operation):
            refused += 1
            over |= operation.name not in ("take", "return")
            lent &= operation.name not in ("request", "fetch")
    return refused, left


def sample(needed: Counter[Grant], rng: random.Random, more: int) -> list[Grant]:
    """One of each permission, and some more."""
    by_permission: defaultdict[tuple[str, str], list[Grant]] = defaultdict(list)
    for grant in sorted(needed):
        by_permission[grant.tclass, grant.permission].append(grant)
    return [rng.choice(same) for same in by_permission.values()] + rng.sample(sorted(needed), more)


def exactly_refused(plan: Plan, text: str, missing: Grant) -> None:
    """Take `missing` out of the policy `text`; just what needs it is refused, and names it."""
    source, target, tclass, permission = missing
    head = f"(allow {source} {target} ({tclass} ("
    (line,) = (line for line in text.split("\n") if line.startswith(head))
    words = line.removeprefix(head).removesuffix(")))").split()
    words.remove(permission)
    less = f"{head}{' '.join(words)})))" if words else ""
    report = replay(plan, policies=[te(text.replace(line, less))], labels=Labels("te"))
    named = {
        (d.subject.split(":")[-1], d.object.split(":")[-1], d.tclass, d.permission)
        for d in report.denied
    }
    assert named == {missing}
    denials = sum(denial.times for denial in report.denied)
    assert (denials, report.not_performed) == without(plan, missing), missing
    assert denials > 0
    result = report.as_dict()
    assert (result["denials"], result["not_performed"]) == (denials, report.not_performed)


def test_a_permission_less_in_every_way(written) -> None:
    plan, text = make_plan(MIXED), learn([written(*MIXED)]).text
    for missing in sorted(asked(plan)):
        exactly_refused(plan, text, missing)


def test_a_permission_less_in_the_demo(rng: random.Random) -> None:
    plan, text = make_plan(read_trace(DEMO)), learn([DEMO]).text
    for missing in sample(asked(plan), rng, 12):
        exactly_refused(plan, text, missing)


@pytest.mark.slow
@pytest.mark.real_data
def test_a_permission_less_in_the_recorded_boot(shared_data: Path, rng: random.Random) -> None:
    path = shared_data / "ipctrace" / "darwin-boot.trace"
    plan, text = make_plan(read_trace(path)), learn([path]).text
    for missing in sample(asked(plan), rng, 3):
        exactly_refused(plan, text, missing)


def test_refusals_are_the_same_in_each_round() -> None:
    plan = make_plan(MIXED)
    needed = set(asked(plan))
    for missing in (g for g in needed if g.permission in ("make_send", "use_recv", "move_recv")):
        with System(plan, policies=[Exactly(needed - {missing})]) as system:
            rounds = []
            for _ in range(3):
                done = system.round()
                rounds.append((sum(d.times for d in system.denials()), done.not_performed))
            system.kernel.verify()
        assert rounds == [without(plan, missing)] * 3


# --- the policy -----------------------------------------------------------------------------------


def replayed(path: Path, text: str):
    return replay(make_plan(read_trace(path)), policies=[te(text)], labels=Labels("te"))


@settings(max_examples=20)
@given(recordings)
def test_nothing_is_refused_under_what_was_learned(tmp_path_factory, records) -> None:
    path = tmp_path_factory.mktemp("learn") / "trace"
    with path.open("wb") as file:
        write_sedarwin(file, sedarwin_records(records))
    report = replayed(path, learn([path]).text)
    assert (report.exact, report.denied, report.not_performed) == (True, [], 0)


@pytest.mark.real_data
def test_the_recorded_boot_runs_under_what_was_learned(shared_data: Path) -> None:
    path = shared_data / "ipctrace" / "darwin-boot.trace"
    report = replayed(path, learn([path]).text)
    assert (report.exact, report.denied, report.not_performed) == (True, [], 0)


def test_the_rules_are_one_for_each_pair_and_sorted(written) -> None:
    path = written(record("send", "/a", "/b", 1, 3), record("copy_send", "/a", "/b", 1, 3))
    learned = learn([path])
    assert learned.text == learn([path]).text
    assert [line for line in learned.text.split("\n") if "allow" in line] == [
        "(allow task-a port-b (mach_port (copy_send hold_send send)))",
        "(allow task-b port-b (mach_port (make_send use_recv)))",
        "(allow task-b task-a (mach_port (recv)))",
    ]
    assert learned.recorded == {
        Grant("task-a", "port-b", "mach_port", "send"): 3,
        Grant("task-a", "port-b", "mach_port", "copy_send"): 3,
    }
    assert learned.generalised == frozenset()


def test_several_recordings_add_up(written) -> None:
    first = written(record("send", "/a", "/b", 1, 3), name="first")
    second = written(
        record("send", "/a", "/b", 1, 4), record("copy_send", "/b", "/a", 1, 1), name="second"
    )
    learned = learn([first, second])
    assert learned.recorded[Grant("task-a", "port-b", "mach_port", "send")] == 7
    assert learned.grants == learn([first]).grants | learn([second]).grants
    for path in (first, second):
        assert replayed(path, learned.text).denied == []


def test_a_full_trace_says_more_itself(tmp_path: Path) -> None:
    path = tmp_path / "full"
    with path.open("wb") as file:
        write_full(file, replay(make_plan(MIXED)).recorded, lost=3)
    learned = learn([path])
    assert {"hold_recv", "use_recv", "make_send"} < {g.permission for g in learned.recorded}
    # A trace does not say from whom a message was, nor what asks about messages and requests.
    assert {"recv", "carry_rights", "insert_right"} < {g.permission for g in learned.closure}
    assert (learned.recordings[0].kind, learned.recordings[0].lost) == ("full", 3)
    assert replayed(path, learned.text).denied == []


def test_a_trace_that_cannot_be_replayed_is_refused(written) -> None:
    path = written(record("send", "/a", "/b", -1, 1))
    with pytest.raises(RecordingError, match="cannot be replayed: expected port numbers"):
        learn([path])


@pytest.mark.skipif(not shutil.which("secilc"), reason="secilc is not installed")
@pytest.mark.parametrize("generalise", [(), ("families", "sources", "targets")])
def test_secilc_takes_what_was_learned(tmp_path: Path, generalise) -> None:
    text = te(learn([DEMO], generalise=generalise).text).database.text
    (tmp_path / "policy.cil").write_text(text)
    done = subprocess.run(
        ["secilc", "-o", "policy", "-f", "contexts", "policy.cil"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- full traces: the run itself, again -----------------------------------------------------------


class Everything(PolicyModule):
    """Allows everything to everybody, by labels of the form that te has."""

    name = "te"

    def parse(self, text: str) -> str:
        return text

    def label_new_port(self, creator: str, task: str) -> str:
        return f"system_u:object_r:port_{task.removeprefix('system_u:system_r:task_')}"


def run_office(kernel: Kernel) -> None:
    """Requests and answers, rights of every kind and memory in messages, and calls for rights."""
    editor, spooler, printd = (
        kernel.create_task(name, label=f"te/system_u:system_r:task_{name}")
        for name in ("editor", "spooler", "printd")
    )
    queue, jobs, answers = spooler.allocate_port(), printd.allocate_port(), editor.allocate_port()
    spool, printer = queue.make_send(editor), jobs.make_send(spooler)
    spool.send(b"where does it print?", reply=answers)
    queue.receive().reply(b"there", rights=[printer.copy_send()])
    (found,) = answers.receive().rights
    found.send(b"page", memory=[b"a picture"])
    assert bytes(jobs.receive().memory[0]) == b"a picture"
    box = editor.allocate_port()
    found.send(
        b"my box, and who may fill it", rights=[answers.make_send_once(), box.move_receive()]
    )
    once, taken = jobs.receive().rights
    once.send(b"got it")
    assert answers.receive().body == b"got it"
    taken.make_send(spooler).send(b"full")
    assert taken.receive().body == b"full"
    spool.send(b"nobody takes it", reply=answers, rights=[found.move_send()])


def recorded_twice(tmp_path: Path, run: Callable[[Kernel], None]) -> tuple[Path, Path]:
    """A trace of a run, and what was asked in it."""
    trace, asked = tmp_path / "run.trace", tmp_path / "run.audit"
    with Kernel(policies=[Everything()]) as kernel:
        kernel.audit.everything()
        kernel.audit.attach(audit.File(asked))
        kernel.trace.start()
        run(kernel)
        kernel.trace.save(trace)
    return trace, asked


def test_a_run_goes_again_under_what_its_full_trace_gave(tmp_path: Path) -> None:
    trace, _ = recorded_twice(tmp_path, run_office)
    learned = learn([trace])
    with Kernel(policies=[te(learned.text)]) as kernel:
        run_office(kernel)
    assert check(learned.text.encode(), learned.certificate.encode(), [trace])
    assert replayed(trace, learned.text).denied == []


def test_what_a_full_trace_lacks_is_in_its_closure(tmp_path: Path) -> None:
    trace, asked = recorded_twice(tmp_path, run_office)
    learned, used = learn([trace]), read_recording(asked).used
    assert used.keys() <= learned.grants
    lacking = {g.permission for g in used.keys() - learned.recorded.keys()}
    assert lacking == {"recv", "set_reply", "carry_rights", "carry_memory"}
    assert used.keys() - learned.recorded.keys() <= learned.closure


acts = st.lists(
    st.tuples(
        st.sampled_from(["send", "send with a reply", "receive", "give by a call"]),
        st.integers(0, 2), st.integers(0, 2), st.integers(0, 2),
        st.sampled_from(["nothing", "copy_send", "make_send", "make_send_once", "memory"]),
    ), max_size=15,
)  # fmt: skip


def carried(load: str, own: ReceiveRight, known: SendRight) -> list[Carried]:
    loads = {"copy_send": known.copy_send, "make_send": own.make_send,
             "make_send_once": own.make_send_once}  # fmt: skip
    return [loads[load]()] if load in loads else []


def at_random(kernel: Kernel, what: list[tuple[str, int, int, int, str]]) -> None:
    tasks = [kernel.create_task(n, label=f"te/system_u:system_r:task_{n}") for n in "abc"]
    ports = [task.allocate_port(qlimit=16) for task in tasks]  # what does not fit leaves no trace
    pairs = [(task, port) for task in range(3) for port in range(3)]
    rights = {(task, port): ports[port].make_send(tasks[task]) for task, port in pairs}
    for act, task, to, about, load in what:
        own = ports[task]
        if act == "give by a call":
            ports[to].make_send(tasks[task])
        elif act != "receive":
            reply = own if act == "send with a reply" else None
            body = carried(load, own, rights[task, about])
            memory = [b"m"] * (load == "memory")
            rights[task, to].send(b"", reply=reply, rights=body, memory=memory, timeout=0)
        else:
            with suppress(TimedOut):
                got = own.receive(timeout=0)
                if got.reply_right:
                    got.reply(b"yes")


@settings(max_examples=60)
@given(acts)
def test_whatever_was_done_a_full_trace_is_completed(tmp_path_factory, what) -> None:
    path = tmp_path_factory.mktemp("run")
    trace, asked = recorded_twice(path, lambda kernel: at_random(kernel, what))
    learned = learn([trace])
    assert read_recording(asked).used.keys() <= learned.grants
    with Kernel(policies=[te(learned.text)]) as kernel:
        at_random(kernel, what)


def test_a_right_given_before_all_messages_was_in_none(tmp_path: Path) -> None:
    def run(kernel: Kernel) -> None:
        a, b = (kernel.create_task(n, label=f"te/system_u:system_r:task_{n}") for n in "ab")
        there, back = b.allocate_port(), a.allocate_port()
        send, answer = there.make_send(a), back.make_send(b)
        for _ in range(3):
            send.send(b"")
            there.receive()
            answer.send(b"")
            back.receive()

    closure = learn([recorded_twice(tmp_path, run)[0]]).closure
    assert {grant.permission for grant in closure} == {"recv", "carry_memory"}


def test_pairs_of_sender_and_receiver_are_bounded(tmp_path: Path, monkeypatch) -> None:
    trace, _ = recorded_twice(tmp_path, run_office)
    monkeypatch.setattr("pympi.policy.author.closure.MAX_PAIRS", 2)
    with pytest.raises(RecordingError, match="at most 2 pairs of a sender and a receiver"):
        learn([trace])


def test_what_traces_do_not_show_is_said(tmp_path: Path, capsys) -> None:
    trace, asked = recorded_twice(tmp_path, run_office)
    for path, said in ((trace, True), (asked, False)):
        assert main(["policy", "learn", str(path)]) == 0
        printed = capsys.readouterr()
        assert ("; Traces do not show methods (mi_ classes)" in printed.out) == said
        assert ("traces do not show methods (mi_ classes)" in printed.err) == said


# --- audit files ----------------------------------------------------------------------------------

OFFICE = """
(user staff_u) (role staff_r) (userrole staff_u staff_r)
(block office (type editor) (type printer)) (roletype staff_r office.editor)
(roletype staff_r office.printer)
(class mi_printing (print_page cancel))
(allow office.editor office.printer (mach_port (send copy_send hold_send)))
(allow office.editor office.printer (mi_printing (print_page)))
(allow office.printer office.printer (mach_port (use_recv make_send recv)))
(allow office.printer office.editor (mach_port (recv)))
"""


def office(tmp_path: Path, text: str, name: str = "office.audit", permissive: bool = False) -> Path:
    """Some printing under a policy, recorded; returns the audit file."""
    printing = Interface("printing", 400, ["print_page", "cancel"])
    with Kernel(policies=[te(text)]) as kernel:
        kernel.policies.permissive = permissive
        printer = kernel.create_task("p", label="te/staff_u:staff_r:office.printer")
        editor = kernel.create_task("e", label="te/staff_u:staff_r:office.editor")
        inbox = printer.allocate_port()
        kernel.audit.everything()
        kernel.audit.attach(audit.File(tmp_path / name))
        right = inbox.make_send(editor)
        if not permissive:
            with pytest.raises(AccessDenied):
                right.move_send(printer)
        for _ in range(3):
            right.send(b"page", msgh_id=400)
            inbox.receive()
        del printing
    return tmp_path / name


def test_an_audit_file_gives_what_was_done(tmp_path: Path) -> None:
    learned = learn([office(tmp_path, OFFICE)])
    editor, printer = "office.editor", "office.printer"
    assert learned.recorded == {
        Grant(printer, printer, "mach_port", "make_send"): 1,
        Grant(editor, printer, "mach_port", "hold_send"): 1,
        Grant(editor, printer, "mach_port", "send"): 3,
        Grant(editor, printer, "mach_port", "copy_send"): 3,
        Grant(printer, printer, "mach_port", "use_recv"): 3,
        Grant(printer, editor, "mach_port", "recv"): 3,
    }
    assert learned.closure == frozenset()
    again = learn([office(tmp_path, learned.text, "again.audit")])
    assert again.text == learned.text


BORN = """
(type a_t) (type b_t) (type p_t) (type q_t) (user system_u) (role system_r)
(userrole system_u system_r) (roletype system_r a_t) (roletype system_r b_t)
(typetransition a_t a_t mach_port p_t)
(allow a_t p_t (mach_port (make_send use_recv relabelfrom)))
(allow a_t q_t (mach_port (make_send use_recv relabelto)))
(allow b_t p_t (mach_port (hold_send copy_send send)))
(allow b_t q_t (mach_port (hold_send copy_send send)))
(allow a_t b_t (mach_port (recv)))
"""


def born(text: str, path: Path, label: str | None = None) -> None:
    """Give a message through a new port, under a policy, and record it."""
    with Kernel(policies=[te(text)]) as kernel:
        a, b = (kernel.create_task(n, f"te/system_u:system_r:{n}_t") for n in "ab")
        kernel.audit.everything()
        kernel.audit.attach(audit.File(path))
        port = a.allocate_port(label)
        port.make_send(b).send(b"page")
        port.receive()


def test_births_that_records_do_not_show_are_said(tmp_path: Path, capsys) -> None:
    asked, out = tmp_path / "born.audit", tmp_path / "born.cil"
    born(BORN, asked)
    line = "(typetransition a_t a_t mach_port p_t)"
    assert main(["policy", "learn", str(asked), "--out", str(out)]) == 0
    assert f"do not show births: the policy may need {line}" in capsys.readouterr().err
    assert f";   {line}\n" in out.read_text()
    assert main(["policy", "learn", str(asked), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["births"] == [line]
    check(out.read_bytes(), learn([asked]).certificate.encode(), [asked])
    with pytest.raises(AccessDenied):
        born(out.read_text(), tmp_path / "without.audit")
    born(out.read_text() + line, tmp_path / "again.audit")


def test_a_label_that_was_asked_for_is_no_unseen_birth(tmp_path: Path, capsys) -> None:
    asked, label = tmp_path / "asked.audit", "te/system_u:object_r:q_t"
    born(
        BORN.replace(
            "(typetransition a_t a_t mach_port p_t)", "(allow a_t a_t (mach_port (relabelfrom)))"
        ),
        asked,
        label,
    )
    learned = learn([asked])
    assert learned.births == []
    born(BORN.replace("mach_port p_t", "mach_port q_t"), tmp_path / "ruled.audit")
    for both in ([asked, tmp_path / "ruled.audit"], [tmp_path / "ruled.audit", asked]):
        assert learn(both).births == ["(typetransition a_t a_t mach_port q_t)"]
    born(learned.text, tmp_path / "again.audit", label)
    assert main(["policy", "learn", str(asked)]) == 0
    assert capsys.readouterr().err == ""


def test_what_was_refused_and_happened_all_the_same_was_used(tmp_path: Path) -> None:
    nothing = OFFICE[: OFFICE.index("(allow")]
    allowed = learn([office(tmp_path, OFFICE)])
    permissive = learn([office(tmp_path, nothing, "permissive.audit", permissive=True)])
    assert permissive.recorded == allowed.recorded


def test_methods_are_declared_with_their_class(tmp_path: Path) -> None:
    interface = Interface("printing", 400, ["print_page", "cancel"])
    text = OFFICE + "(allow office.printer office.printer (mach_port (set_attributes)))"
    with Kernel(policies=[te(text)]) as kernel:
        printer = kernel.create_task("p", label="te/staff_u:staff_r:office.printer")
        editor = kernel.create_task("e", label="te/staff_u:staff_r:office.editor")
        inbox = printer.allocate_port()
        inbox.serve(interface)
        kernel.audit.everything()
        kernel.audit.attach(audit.File(tmp_path / "audit"))
        inbox.make_send(editor).send(b"page", msgh_id=400)
    learned = learn([tmp_path / "audit"])
    assert "(allow office.editor office.printer (mi_printing (print_page)))" in learned.text
    assert "(class mi_printing (print_page cancel" in learned.text
    assert te(learned.text).database.tclass("mi_printing").permissions[:2] == (
        "print_page", "cancel",
    )  # fmt: skip


@pytest.mark.parametrize("label", ["-", "te/u:r:t:s0"])
def test_labels_of_no_use_are_told(tmp_path: Path, label: str) -> None:
    class Any(PolicyModule):
        name = "te"

        def parse(self, text: str) -> str:
            return text

    with Kernel(policies=[Any()]) as kernel:
        kernel.audit.everything()
        kernel.audit.attach(audit.File(tmp_path / "audit"))
        task = kernel.create_task("a", label=label)
        task.allocate_port().make_send(task).send(b"")
    with pytest.raises(RecordingError, match="module te" if label == "-" else "user:role:type"):
        learn([tmp_path / "audit"])


rows = st.lists(st.tuples(*[st.integers(0, 2**64 - 1)] * 3), min_size=1, max_size=40)


@given(rows)
def test_rows_are_counted(rows: list[tuple[int, int, int]]) -> None:
    import numpy as np

    rows = rows + rows[::2]
    columns = [np.array(column, dtype=np.uint64) for column in zip(*rows, strict=True)]
    assert dict(_distinct(*columns)) == Counter(rows)


def test_rows_that_are_mixed_to_the_same_number_are_counted() -> None:
    import numpy as np

    from pympi.policy.author.recording import _MIX

    inverse = pow(int(_MIX[1]), -1, 2**64)
    twin = (0, int(_MIX[0]) * inverse % 2**64, 0)  # mixes to what (1, 0, 0) mixes to
    rows = [(1, 0, 0), twin, twin]
    columns = [np.array(column, dtype=np.uint64) for column in zip(*rows, strict=True)]
    assert dict(_distinct(*columns)) == {(1, 0, 0): 1, twin: 2}


def test_numbers_may_stand_for_something_else_later(tmp_path: Path) -> None:
    first, second = office(tmp_path, OFFICE, "1"), office(tmp_path, OFFICE, "2")
    read = (audit.Reader(io.BytesIO(path.read_bytes())) for path in (first, second))
    old, new = map(audit_files.form_1, read)
    renamed = new[len(b"pympi audit 1\n") :].replace(b"editor", b"writer")
    (tmp_path / "both").write_bytes(old + renamed)
    used = read_recording(tmp_path / "both").used
    for who in ("office.editor", "office.writer"):
        assert used[Grant(who, "office.printer", "mach_port", "send")] == 3


# --- generalising, and what is never allowed ------------------------------------------------------


def test_families_are_widened_and_listed() -> None:
    plain, wide = learn([DEMO]), learn([DEMO], generalise=["families"])
    families = {permission: f for f in FAMILIES["mach_port"] for permission in f}
    expected = {
        grant._replace(permission=permission)
        for grant in plain.grants
        if grant.tclass == "mach_port"
        for permission in families.get(grant.permission, ())
    }
    assert wide.generalised == expected - plain.grants
    assert wide.grants == plain.grants | expected
    assert wide.generalised


@pytest.mark.parametrize("generalise", [["sources"], ["targets"], ["sources", "targets"]])
def test_attributes_grant_nothing_more(written, generalise: list[str]) -> None:
    path = written(
        *(record("send", client, "/server", 1, 3) for client in ("/a", "/b", "/c")),
        *(record("send", "/a", server, 1, 3) for server in ("/x", "/y")),
    )
    plain, shared = learn([path]), learn([path], generalise=generalise)
    assert shared.grants == plain.grants
    assert shared.generalised == frozenset()
    assert f"(typeattribute {generalise[0]}_1)" in shared.text
    assert shared.text.count("(allow") < plain.text.count("(allow")
    assert expanded(shared.text) == expanded(plain.text) == plain.grants


def expanded(text: str) -> set[Grant]:
    """What a policy grants, by the compiler's reading of it."""
    db = te(text).database

    def members(number: int) -> list[str]:
        bits = db.types[number].members
        return [t.name for t in db.types[: db.type_count] if bits >> t.number & 1]

    return {
        Grant(source, target, db.classes[rule.tclass].name, permission)
        for rule in db.rules
        if db.files[rule.file] != "<base>"
        for source in members(rule.source)
        for target in members(rule.target)
        for permission in db.classes[rule.tclass].names(rule.permissions)
    }


@pytest.fixture
def never(tmp_path: Path):
    def write(text: str) -> Path:
        (tmp_path / "never.cil").write_text(text)
        return tmp_path / "never.cil"

    return write


def test_a_neverallow_that_holds_is_in_the_policy(never) -> None:
    path = never(
        "(type intruder)\n(typeattribute bad)\n(typeattributeset bad (intruder))\n"
        "(neverallow bad kobject_host__priv (mach_port (send\n recv)))\n"
        "(neverallow bad self (mach_task (all)))"
    )
    learned = learn([DEMO], neverallow=path)
    assert "(neverallow bad kobject_host__priv (mach_port (recv send)))" in learned.text
    assert [rule.line for rule in learned.neverallows] == [4, 6]
    assert te(learned.text).database.neverallows


def test_a_neverallow_that_does_not_hold_forbids_the_policy(never, capsys) -> None:
    text = "(neverallow task-boot-first kobject_host__priv (mach_port (send hold_send)))"
    with pytest.raises(Forbidden, match=r"never.cil:1: .*forbids.*hold_send.*and 1 more") as caught:
        learn([DEMO], neverallow=never(text))
    assert {g.permission for g in caught.value.grants} == {"send", "hold_send"}
    assert main(["policy", "learn", str(DEMO), "--neverallow", str(never(text))]) == 1
    assert "forbids" in capsys.readouterr().err


def test_families_stop_at_a_neverallow(never) -> None:
    text = "(neverallow task-boot-first kobject_host__priv (mach_port (move_send)))"
    wide = learn([DEMO], generalise=["families"])
    limited = learn([DEMO], generalise=["families"], neverallow=never(text))
    forbidden = Grant("task-boot-first", "kobject_host__priv", "mach_port", "move_send")
    assert wide.generalised - limited.generalised == {forbidden}
    te(limited.text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("(allow a b (mach_port (send)))", "expected one of type, typeattribute"),
        ("(neverallow nobody task-boot-first (mach_port (send)))", r"\(type nobody\) declares it"),
        ("(neverallow task-boot-first self (mach_port (sned)))", "expected permissions of"),
        ("(neverallow task-boot-first self (port (send)))", "expected \\(class"),
        ("(neverallow task-boot-first self mach_port)", "in this form"),
        ("(typeattributeset a (b))", "no attribute declared above"),
        ("(typeattribute a)(typeattributeset a (and b c))", "'and' is no type"),
        ("(typeattribute a)(typeattribute a)", "declared already"),
        ("(type", "expected '\\)'"),
        ("()", "expected one of"),
    ],
)
def test_a_neverallow_file_in_another_form(never, text: str, problem: str, capsys) -> None:
    path = never(text)
    assert main(["policy", "learn", str(DEMO), "--neverallow", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{path}:1:" in error
    with pytest.raises(ValueError, match=problem):
        learn([DEMO], neverallow=path)


def test_an_unknown_generalisation() -> None:
    with pytest.raises(ValueError, match="families, sources, targets"):
        learn([DEMO], generalise=["all"])


# --- the command ----------------------------------------------------------------------------------


def test_learn_writes_both_files_and_replay_runs_under_them(tmp_path: Path, capsys) -> None:
    policy, certificate = tmp_path / "learned.cil", tmp_path / "learned.json"
    arguments = ["--out", str(policy), "--certificate", str(certificate)]
    assert main(["policy", "learn", str(DEMO), *arguments]) == 0
    assert "266 rules: 229 permissions recorded, 412 of the closure" in capsys.readouterr().out
    assert policy.read_text() == learn([DEMO]).text
    assert json.loads(certificate.read_text())["recordings"][0]["kind"] == "sedarwin"
    assert sorted(tmp_path.iterdir()) == [policy, certificate]
    assert main(["replay", str(DEMO), "--policy", str(policy), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["exact"], result["denials"], result["not_performed"]) == (True, 0, 0)


def test_learn_prints_the_policy_or_json(capsys) -> None:
    assert main(["policy", "learn", str(DEMO)]) == 0
    text = capsys.readouterr().out
    assert text == learn([DEMO]).text
    assert main(["policy", "learn", str(DEMO), "--generalise", "families", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["recorded"], result["closure"], result["generalised"]) == (229, 412, 269)
    assert result["text"] != text


def test_a_file_that_is_no_recording(tmp_path: Path, capsys) -> None:
    (tmp_path / "x").write_text("nothing\n")
    out = tmp_path / "out.cil"
    assert main(["policy", "learn", str(tmp_path / "x"), "--out", str(out)]) == 2
    assert "x:1:1: expected" in capsys.readouterr().err
    assert not out.exists()


def test_a_policy_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    out, other = tmp_path / "out.cil", tmp_path / "absent" / "certificate"
    assert main(["policy", "learn", str(DEMO), "--out", str(out), "--certificate", str(other)]) == 2
    assert list(tmp_path.iterdir()) == []


def test_losses_are_told(tmp_path: Path, capsys) -> None:
    with (tmp_path / "full").open("wb") as file:
        write_full(file, MIXED, lost=5)
    assert main(["policy", "learn", str(tmp_path / "full")]) == 0
    assert "lacks 5 events" in capsys.readouterr().err


# ---- where things go ----


def small_trace(tmp_path: Path) -> Path:
    trace = tmp_path / "run.trace"
    trace.write_bytes((resources.files("pympi") / "data" / "demo.trace").read_bytes())
    return trace


def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe, trace = tmp_path / "pipe", small_trace(tmp_path)
    os.mkfifo(pipe)
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        assert main(["policy", "learn", str(trace), "--out", str(pipe)]) == 0
        assert reader.read(8).startswith(b";")
    assert pipe.is_fifo()


def test_a_link_stays_and_a_mode_too(tmp_path: Path) -> None:
    trace, kept, link = small_trace(tmp_path), tmp_path / "kept.cil", tmp_path / "link.cil"
    kept.write_text("old")
    kept.chmod(0o600)
    link.symlink_to(kept)
    assert main(["policy", "learn", str(trace), "--out", str(link)]) == 0
    assert link.is_symlink()
    assert kept.read_text() != "old"
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("options", [["--out", "x", "--certificate", "x"], ["--out", "run.trace"]])
def test_nothing_is_written_twice_or_over_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    options: list[str],
) -> None:  # fmt: skip
    before = small_trace(tmp_path).read_bytes()
    monkeypatch.chdir(tmp_path)
    assert main(["policy", "learn", "run.trace", *options]) == 2
    assert "would be written twice, or over what is read" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.trace"]
    assert (tmp_path / "run.trace").read_bytes() == before


@pytest.mark.parametrize("place", range(3))
def test_certify_reads_regular_files_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: int
) -> None:
    endless = tmp_path / "endless"
    endless.symlink_to("/dev/zero")
    words = [str(small_trace(tmp_path))] * 3
    words[place] = str(endless)
    assert main(["policy", "certify", *words]) == 2
    assert "endless: expected a regular file" in capsys.readouterr().err


def test_neverallow_is_read_from_a_regular_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endless = tmp_path / "endless"
    endless.symlink_to("/dev/zero")
    trace = str(small_trace(tmp_path))
    assert main(["policy", "learn", "--neverallow", str(endless), trace]) == 2
    assert "endless: expected a regular file" in capsys.readouterr().err


def test_an_avc_log_teaches_what_it_says_was_done(tmp_path: Path) -> None:
    log = tmp_path / "avc.log"
    about = 'for  pid=4 comm="cat" scontext=u:r:cat tcontext=u:object_r:notes tclass=file'
    log.write_text(
        f"type=AVC msg=audit(5.0:1): avc:  denied  {{ read }} {about} permissive=1\n"
        f"type=AVC msg=audit(5.1:2): avc:  denied  {{ write }} {about} permissive=0\n"
        f"type=AVC msg=audit(5.2:3): avc:  granted  {{ open }} {about}\n"
    )
    learned = learn([log])
    assert "(allow cat notes (file (open read)))" in learned.text
    assert not learned.from_traces
    assert check(learned.text.encode(), learned.certificate.encode(), [log])
