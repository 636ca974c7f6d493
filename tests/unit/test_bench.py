# SPDX-License-Identifier: BSD-2-Clause
"""`pympi bench`: its tables, what it keeps, what changed since, and the command."""

import csv
import io
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pympi.bench import cases, compiled, kernels, plots, runs
from pympi.bench.cases import CASES
from pympi.bench.harness import Result, Run, Runner, Skip
from pympi.bench.kernels import Crew
from pympi.bench.loops import DRAIN_EVERY, LOOPS, loop, scattered
from pympi.bench.peers import JUDGES, QUEUES
from pympi.bench.systems import AUDIT, OBJECTS, STACKS, Setting, System

NEEDS_MATPLOTLIB = pytest.mark.skipif(
    find_spec("matplotlib") is None, reason="matplotlib, of the extra `bench`, is not installed"
)


# ---- the tables ----


def test_names_say_axis_and_value() -> None:
    for name, case in CASES.items():
        assert name == f"{case.axis}/{case.value}" == case.row.number
    assert next(iter(CASES)) == runs.CONTROL


def test_every_axis_of_the_pictures_has_cases() -> None:
    axes = {case.axis for case in CASES.values()}
    assert {axis for names, _ in plots.PICTURES.values() for axis in names} <= axes


@pytest.fixture
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    try:
        made = System(request.param)
    except Skip as skip:
        pytest.skip(str(skip))
    with made.kernel:
        yield made
        made.kernel.verify()


@pytest.mark.parametrize(
    "system",
    [
        *(Setting(stack=stack, senders=3, ports=5, labels=2) for stack in STACKS),
        Setting(stack="te", senders=5, sender_labels=2, ports=3),
        *(Setting(stack="te", audit=audit) for audit in AUDIT),
        *(Setting(stack="te", size=size) for size in (0, 1, 300)),
        Setting(stack="te+mls", rights=8, through="carrying"),
        Setting(stack="te", interface=True),
        Setting(trace=True),
    ],
    indirect=True,
    ids=str,
)
def test_messages_go_as_a_setting_says(system: System) -> None:
    before = system.kernel.stats()
    assert loop(system)(10) > 0
    after = system.kernel.stats()
    warm = len(system.senders) if len(system.senders) > 1 else 0
    assert after["sent"] - before["sent"] == after["received"] - before["received"] == 10 + warm
    assert after["denials"] == after["messages_queued"] == 0


@pytest.mark.parametrize("through", LOOPS)
@pytest.mark.parametrize("system", [Setting(stack="te")], indirect=True, ids=str)
def test_each_loop_sends_and_receives(system: System, through: str) -> None:
    if through in ("pybind11", "numba"):
        pytest.skip("takes seconds to compile; `pympi bench --only through` runs it")
    try:
        run = LOOPS[through](system)
    except Skip as skip:
        pytest.skip(str(skip))
    before = system.kernel.stats()["received"]
    assert run(512) > 0
    assert system.kernel.stats()["received"] - before == 512
    assert system.kernel.stats()["messages_queued"] == 0


@pytest.fixture
def closing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the kernels of cases, which in a process of their own go with it."""
    made: list[System] = []

    def make(setting: Setting) -> System:
        made.append(System(setting))
        return made[-1]

    monkeypatch.setattr(cases, "System", make)
    yield
    for system in made:
        system.kernel.close()


@pytest.mark.usefixtures("closing")
def test_answers_are_found_where_the_table_says() -> None:
    per_pair = {}
    for name in ("hint", "avc", "miss"):
        made = CASES[f"answer/own-{name}"].make()
        made.subject(2000)
        per_pair[name] = made.notes()
    assert per_pair["hint"]["misses"] < 0.1
    assert per_pair["avc"]["misses"] < 0.1
    assert per_pair["miss"]["misses"] > 0.5
    header = Path(__file__).resolve().parents[2] / "csrc" / "sec" / "mac.h"
    recent = re.search(r"#define MAC_RECENT (\d+)", header.read_text())
    assert recent
    assert 2 * int(recent[1]) <= cases.MANY, "the hints about who receives from whom hold them all"


@pytest.mark.parametrize(
    "system", [Setting(stack="te", audit="everything")], indirect=True, ids=str
)
def test_what_is_recorded_is_drained_between_timings(system: System) -> None:
    loop(system)(3 * DRAIN_EVERY)
    stats = system.kernel.stats()
    assert (stats["audit_records"], stats["audit_lost"]) == (6 * DRAIN_EVERY, 0)


@pytest.mark.parametrize("variable", ["CC", "CXX"])
def test_the_compiler_is_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"{sys.executable} -v")
    assert compiled.compiler(variable) == [sys.executable, "-v"]
    monkeypatch.setenv(variable, "absent-cc -O1")
    with pytest.raises(Skip, match=rf"compiler 'absent-cc -O1'; {variable}=COMMAND names another"):
        compiled.compiler(variable)


@pytest.mark.parametrize(
    "system", [Setting("te", 40, 3, 30, 2), Setting("mls", 2, ports=700)], indirect=True, ids=str
)
def test_all_are_sent_to_before_anything_is_timed(system: System) -> None:
    run, before = scattered(system), system.kernel.stats()
    assert before["sent"] >= len(system.outlets)
    assert run(300) > 0
    after = system.kernel.stats()
    assert after["sent"] > before["sent"]
    assert after["misses"] == before["misses"] > 0


@pytest.mark.usefixtures("closing")
def test_what_grows_tells_the_memory_of_its_objects() -> None:
    made = CASES["growth/te-many-1000"].make()
    made.subject(2000)
    notes = made.notes()
    assert (notes["labels"], made.large) == (11, False)
    assert 64 < notes["bytes/port"] < notes["bytes/task"] < notes["bytes"]


def test_how_far_everything_grows() -> None:
    most: dict[str, float] = {}
    for case in CASES.values():
        most[case.axis] = max(case.at or 0, most.get(case.axis, 0))
    grown = {axis: most[axis] for axis in ("ports", "tasks", "labels", "growth")}
    assert grown == {"ports": 1e6, "tasks": 1e5, "labels": 1e4, "growth": 1e6}


# ---- kernels side by side ----


def test_threads_work_at_once_and_in_turn() -> None:
    running, seen, both = [0], [0], threading.Barrier(2)

    def work(_: int) -> float:
        running[0] += 1
        if not both.broken:
            both.wait(10)
        seen[0] = max(seen[0], running[0])
        running[0] -= 1
        return 0.0

    crew = Crew([work, work])
    assert crew.together(1) > 0
    assert seen == [2]
    both.abort()
    seen[0] = 0
    assert crew.in_turn(1) > 0
    assert seen == [1]


def test_what_goes_wrong_in_a_thread_is_told() -> None:
    def fail(_: int) -> float:
        raise RuntimeError("broken")

    crew = Crew([fail, lambda count: 0.0])
    with pytest.raises(RuntimeError, match="broken"):
        crew.together(1)


@pytest.mark.parametrize(
    ("cores", "counted"), [(1, [2]), (2, [2]), (4, [2, 4]), (6, [2, 4, 6]), (9, [2, 4, 8, 9])]
)
def test_how_many_threads_are_measured(
    monkeypatch: pytest.MonkeyPatch, cores: int, counted: list[int]
) -> None:
    monkeypatch.setattr(kernels, "CORES", cores)
    assert list(kernels.counts()) == counted


@pytest.mark.parametrize("name", [*QUEUES, *JUDGES])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # their sockets go with the process
def test_peers_do_what_is_measured(name: str) -> None:
    _, make = (QUEUES | JUDGES)[name]
    try:
        run = make()
    except Skip as skip:
        pytest.skip(str(skip))
    assert run(3) > 0


SMALL = (
    "threads/call", "threads/bound", "threads/busy", "check/dict", "kernels/compute-2",
    "kernels/c-2", "kernels/submit-2", "kernels/callables-2",
)  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_cases_run_in_a_process_of_their_own(name: str) -> None:
    found = Runner(["-m", "pympi.bench"], runs.ROOT, 2, 1).run_case(name)
    assert not found.crashed
    if found.skipped:
        pytest.skip(found.skipped)
    assert len(found.ratios) == 2
    assert min(found.ratios) > 0


# ---- what is chosen ----


def names(*patterns: str, **options: Any) -> list[str]:
    return [case.name for case in runs.Selection(patterns, **options).cases()]


def test_a_selection() -> None:
    assert names("stack/te") == [runs.CONTROL, "stack/te"]
    assert {name.partition("/")[0] for name in names("check", "trace")} == {
        "control", "check", "trace",
    }  # fmt: skip
    assert not [name for name in names() if CASES[name].peer]
    assert set(names(quick=True, peers=True)) == {c.name for c in CASES.values() if not c.long}
    with pytest.raises(ValueError, match="no case is named 'nothing'; --list"):
        names("nothing")


# ---- what changed ----

THEN = (1.0, 1.1, 1.2)


def run(*ratios: float, **more: Any) -> Run:
    return Run(subject=list(ratios), baseline=[1.0] * len(ratios), **more)


@pytest.mark.parametrize(
    ("found", "change"),
    [
        ([run(1.15, 1.16)], ""),
        ([run(1.19, 1.3)], "slower"),
        ([run(1.5, 1.6), run(1.7, 1.8)], "slower"),
        ([run(0.5, 0.6), run(0.7, 0.8)], "faster"),
        ([run(1.5, 1.6), run(1.1, 1.1)], "noisy"),
    ],
)
def test_a_change_is_one_beyond_both_spreads_in_every_run(found: list[Run], change: str) -> None:
    assert runs.change(found, THEN) == change


class Fake(Runner):
    """Gives what it was told, and notes what it was asked."""

    __slots__ = ()
    told: dict[str, list[Run]] = {}
    asked: list[str] = []

    def run_case(self, case: str) -> Run:
        self.asked.append(case)
        known = self.told.get(case) or [run(1.0, 1.0)]
        return known.pop(0)


@pytest.fixture
def fake() -> Fake:
    Fake.told, Fake.asked = {}, []
    return Fake([], Path(), 2)


def test_what_seems_to_have_changed_is_measured_again(fake: Fake) -> None:
    Fake.told = {"stack/te": [run(2.0, 2.1), run(2.0, 2.1)], "stack/mls": [run(2.0), run(1.1)]}
    selected = runs.Selection(("stack/te", "stack/mls", "stack/stub")).cases()
    found = list(runs.measure(selected, fake, dict.fromkeys(CASES, THEN)))
    assert {f.case.name: f.change for f in found} == {
        "stack/stub": "", "stack/te": "slower", "stack/mls": "noisy", runs.CONTROL: "",
    }  # fmt: skip
    assert fake.asked[0] == fake.asked[-1] == runs.CONTROL
    assert fake.asked.count("stack/te") == fake.asked.count("stack/mls") == 2
    assert fake.asked.count("stack/stub") == 1


def test_what_is_kept_can_be_compared_with(fake: Fake, tmp_path: Path) -> None:
    Fake.told = {"trace/te": [Run(skipped="no =trace")]}
    found = list(runs.measure(runs.Selection(("trace",)).cases(), fake, {}))
    kept = tmp_path / "old.json"
    kept.write_text(json.dumps(runs.summary(found)))
    assert runs.load(kept).rows == {"trace/none": (1.0, 1.0, 1.0), runs.CONTROL: (1.0, 1.0, 1.0)}
    table = list(csv.DictReader(io.StringIO(runs.to_csv(found).decode(), newline="")))
    assert [line["verdict"] for line in table] == ["", "skipped", ""]
    assert table[1]["remark"] == "no =trace"
    assert (table[0]["ratio"], table[0]["unit"]) == ("1.0", "ns")


def test_a_second_run_that_cannot_be_says_why(fake: Fake) -> None:
    Fake.told = {"peer/deque": [run(9.0, 9.0), Run(crashed="Traceback\nMemoryError: gone\n")]}
    found, _ = runs.measure(runs.Selection(("peer/deque",)).cases(), fake, {})
    assert (found.result.verdict, found.remark) == ("crashed", "MemoryError: gone")


# ---- pictures ----


def finding(name: str, *ratios: float) -> runs.Finding:
    case = CASES[name]
    notes = {f"bytes/{what}": 100.0 for what in OBJECTS}
    return runs.Finding(case, Result(case.row, [run(*ratios, notes=notes)]))


@NEEDS_MATPLOTLIB
@pytest.mark.parametrize("form", ["png", "svg"])
def test_pictures_are_drawn_of_what_was_measured(form: str) -> None:
    found = [finding(name, 1.0, 1.5, 700.0) for name in CASES]
    drawn = plots.draw(found, form)
    assert set(drawn) == {f"{name}.{form}" for name in plots.PICTURES}
    start = b"\x89PNG" if form == "png" else b"<?xml"
    assert all(data.startswith(start) for data in drawn.values())
    assert plots.draw([finding("trace/te", 1.0)], form) == {}


# ---- the command ----


def test_one_case_from_end_to_end(pympi: Callable[..., Any], tmp_path: Path) -> None:
    table = tmp_path / "out.csv"
    words = ("bench", "--quick", "--rounds", 2, "--only", "trace/none")
    done = pympi(*words, "--csv", table)
    assert done.code == 0
    assert [line[0] for line in done.lines if line and "/" in line[0]] == [
        "trace/none", "control/same",
    ]  # fmt: skip
    assert "ipctrace on" in table.read_text()
    result = pympi(*words, "--json")
    assert result.code == 0
    assert [row["case"] for row in result.json["rows"]] == ["trace/none", "control/same"]
    assert all(0 < row["ratio"][1] < 100 for row in result.json["rows"])
    assert result.json["machine"]["cores"] > 0
    old = tmp_path / "old.json"
    old.write_text(result.out)
    assert "THEN" in pympi(*words, "--compare", old).out


def test_cases_are_listed(pympi: Callable[..., Any]) -> None:
    assert "ports/te-1000000" in pympi("bench", "--list").out
    assert "ports/te-1000000" not in pympi("bench", "--list", "--quick").out
    listed = pympi("bench", "--list", "--json", "--only", "peer/deque").json["cases"]
    assert [(case["case"], case["must"]) for case in listed] == [
        (runs.CONTROL, None), ("peer/deque", 8),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--only nothing", "no case is named 'nothing'"),
        ("--rounds 1", "1 is not in the range"),
        ("--rounds many", "'many' is not a valid"),
        ("--compare absent.json", "absent.json"),
        ("--compare wrong.json", "wrong.json: no figures"),
        ("--compare list.json", "list.json: no figures"),
        ("--compare nan.json", "nan.json: no figures"),
        ("--compare deep.json", "deep.json: no figures"),
        ("--compare back.json", "back.json: trace/te has quartiles of 3.0, 2.0 and 1.0"),
        ("--compare nothing.json", "none of these cases is in the earlier run"),
        ("--csv absent/a.csv --quick", "absent/a.csv: No such file"),
        ("--csv old.json --compare old.json --quick", "old.json: would be written twice, or over"),
        pytest.param("--plot /proc/absent", "/proc/absent", marks=NEEDS_MATPLOTLIB),
        ("--compare /dev/zero", "/dev/zero: larger than 1 MB"),
        ("--plot-format gif", "'gif' is not one of"),
        ("--plot wrong.json", "wrong.json"),
        ("extra", "unexpected extra argument"),
    ],
)
def test_bad_use(
    pympi: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str,
    complaint: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("wrong.json").write_bytes(b"\xff{")
    monkeypatch.setattr(runs, "LARGEST", 1 << 20)
    Path("list.json").write_text("[1]")
    Path("deep.json").write_text('{"rows": [], "deep": ' + "[" * 100_000)
    Path("back.json").write_text('{"rows": [{"case": "trace/te", "ratio": [3, 2, 1]}]}')
    Path("nothing.json").write_text('{"rows": [{"case": "control/same", "ratio": [1, 1, 1]}]}')
    Path("old.json").write_text('{"rows": [{"case": "trace/te", "ratio": [1, 1, 1]}]}')
    Path("nan.json").write_text('{"rows": [{"case": "a", "ratio": [NaN, 1, 1]}]}')
    quick = "--quick" in words or "--plot" in words  # complains before anything is measured
    done = pympi("bench", "--quick" if quick else "--list", *words.split())
    assert done.code == 2
    assert complaint in done.err


def test_no_pictures_without_matplotlib(
    pympi: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda _: None)
    done = pympi("bench", "--only", "trace/none", "--plot", tmp_path / "pictures")
    assert done.code == 2
    assert "pip install 'pympi-mach[bench]'" in done.err
    assert not (tmp_path / "pictures").exists()


def test_an_earlier_run_is_not_written_over(
    pympi: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: Fake
) -> None:
    monkeypatch.setattr(runs.Selection, "runner", lambda self: fake)
    old, rows = tmp_path / "old.json", '{"rows": [{"case": "trace/none", "ratio": [1, 1, 1]}]}'
    old.write_text(rows)
    done = pympi("bench", "--only", "trace/none", "--compare", old, "--csv", old)
    assert done.code == 2
    assert old.read_text() == rows
    assert fake.asked == []


def test_a_run_that_was_made_elsewhere(
    pympi: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: Fake
) -> None:
    monkeypatch.setattr(runs.Selection, "runner", lambda self: fake)
    here = pympi("bench", "--only", "trace/none", "--json").json
    old = tmp_path / "old.json"
    old.write_text(json.dumps(here))
    same = pympi("bench", "--only", "trace/none", "--compare", old)
    assert "elsewhere" not in same.err
    old.write_text(json.dumps(here | {"machine": {"processor": "Z80\x1b[1m", "cores": 1}}))
    done = pympi("bench", "--only", "trace/none", "--compare", old)
    assert done.code == 0
    assert "the earlier run was made elsewhere: processor Z80" in done.err
    assert f"; cores 1 then, {here['machine']['cores']} now" in done.err
    assert "\x1b" not in done.err


@NEEDS_MATPLOTLIB
def test_a_run_without_pictures_says_so(
    pympi: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: Fake
) -> None:
    monkeypatch.setattr(runs.Selection, "runner", lambda self: fake)
    done = pympi("bench", "--only", "trace/none", "--plot", tmp_path / "pictures")
    assert done.code == 0
    assert "pictures: nothing was measured that there is a picture of" in done.err


def test_a_crash_is_told_and_fails(
    pympi: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crashing(Fake):
        __slots__ = ()

        def run_case(self, case: str) -> Run:
            return Run(crashed="Traceback\nRuntimeError: \x1b[31mbroken")

    monkeypatch.setattr(runs.Selection, "runner", lambda self: Crashing([], Path(), 2))
    done = pympi("bench", "--only", "trace/none")
    assert done.code == 1
    assert "trace/none crashed" in done.err
    assert "\x1b" not in done.out + done.err


def test_a_noisy_machine_is_told(
    pympi: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Fake.told = {runs.CONTROL: [run(0.5, 1.0, 2.0), run(0.5, 1.0, 2.0)]}
    monkeypatch.setattr(runs.Selection, "runner", lambda self: Fake([], Path(), 2))
    done = pympi("bench", "--only", "trace/none")
    assert done.code == 0
    assert "too noisy to conclude" in done.err


def test_shared_cores_are_told(pympi: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    Fake.told = {"kernels/compute-2": [run(1.0, 1.5, 2.0)]}
    monkeypatch.setattr(runs.Selection, "runner", lambda self: Fake([], Path(), 2))
    done = pympi("bench", "--only", "kernels/compute-2", "--only", "kernels/c-2")
    assert done.code == 0
    said = " ".join(done.err.split())
    assert "cannot be judged: threads that only compute took 1.50 times as long" in said
    assert "too noisy" not in said
