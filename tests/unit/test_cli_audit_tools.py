# SPDX-License-Identifier: BSD-2-Clause
"""pympi audit print, query, stats, export, tail, lineage: what they print, and to whom."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from recorded import HOSTILE, record

from pympi import Kernel
from pympi.audit import File, Reader, avc_lines, batches
from pympi.audit.follow import Growing, follow
from pympi.audit.imports.events import Event, batches_of
from pympi.audit.table import COLUMNS
from pympi.cli.audit import tail as tail_verb
from pympi.enums import Operation

Pympi = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tools") / "run.audit"
    record(path)
    return path


def harmless(text: str) -> bool:
    return not {"\x1b", "\u202e", "\x7f"} & {*text}


# ---- print ----


def test_print(pympi: Pympi, run: Path) -> None:
    done = pympi("audit", "print", run)
    assert (done.code, done.err) == (0, "")
    assert harmless(done.out)
    lines = done.out.splitlines()
    assert len(lines) == sum(map(len, batches(run)))
    said = (
        "3.000000000 #81 spy (5) who/spy send copy_send on port 4 (who/printd), "
        "name 0x103, message 1202 of 4 B: refused send"
    )
    assert said in lines
    assert any('register "com.example.print" (who/names): granted' in line for line in lines)
    assert r"=cmd\u{a}\u{1b}[31m\u{202e} (6)" in lines[-1]


@pytest.mark.parametrize("verb", ["print", "tail"])
def test_one_form_at_a_time(pympi: Pympi, run: Path, verb: str) -> None:
    done = pympi("audit", verb, run, "--raw", "--json")
    assert (done.code, done.json["error"]) == (2, "--json or --raw, not both")


@pytest.mark.parametrize(
    "words",
    [
        ["print"], ["print", "to=printd"], ["stats"], ["query", "outcome=denied"], ["verify"],
        ["export", "--format", "csv"], ["lineage", "helper:0x203"],
        ["query", "--sql", "SELECT count(*) FROM records"],
    ],
)  # fmt: skip
def test_records_may_come_by_a_pipe(
    pympi: Pympi, run: Path, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "--sql" in words:
        pytest.importorskip("duckdb")
    verb, *rest = words
    expected = pympi("audit", verb, run, *rest).out.split("run.audit")[-1].partition(" MB/s")[0]
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(run.read_bytes(),))
    writer.start()
    piped = pympi("audit", verb, tmp_path / "pipe", *rest)
    writer.join()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(run.read_bytes())))
    for done, name in (piped, "pipe"), (pympi("audit", verb, "-", *rest), "stdin"):
        assert done.code == 0
        said = done.out.split(f"/{name}")[-1].partition(" MB/s")[0]
        assert said.splitlines()[:5] == expected.splitlines()[:5]
    assert [*Path(tempfile.gettempdir()).glob("pympi-*/stdin")] == []


def test_a_pipe_is_not_followed(pympi: Pympi) -> None:
    done = pympi("audit", "tail", "-")
    assert (done.code, "- is a pipe, which print reads" in done.err) == (2, True)


def test_a_file_is_exported_in_the_form_that_it_is_called_after(
    pympi: Pympi, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run.csv"
    assert pympi("audit", "export", run, "--out", out).code == 0
    assert out.read_text() == pympi("audit", "export", run, "--format", "csv").out
    for words in ([], ["--out", tmp_path / "run.txt"]):
        done = pympi("audit", "export", run, *words)
        assert (done.code, "--format one of jsonl, csv, avc, parquet" in done.err) == (2, True)


def test_print_what_is_asked_for(pympi: Pympi, run: Path) -> None:
    done = pympi("audit", "print", run, "task=editor", "operation=send", "msgh_id=1200")
    assert [line.split()[1] for line in done.out.splitlines()] == ["#70"]
    done = pympi("audit", "print", run, "msgh_id=1200", "--json")
    sent, received = map(json.loads, done.out.splitlines())
    assert (sent["task_name"], received["task_name"]) == ("editor", "printd")
    assert (sent["time"], sent["asked"]) == (1.5, ["send", "copy_send"])
    assert sent["transfer"] == received["transfer"]
    done = pympi("audit", "print", run, "sequence=70", "--raw")
    assert "sequence=70 time=1500000000 transfer=14 " in done.out


def test_words_that_are_no_file(pympi: Pympi, run: Path, tmp_path: Path) -> None:
    for words, complaint in (
        (["nowhere.audit"], "'nowhere.audit' does not exist"),
        (["port=3"], "Missing argument 'FILE...'"),
        ([run, "port=x"], "port= is a number"),
        ([run, "sort=x"], "no filter 'sort'; there are: "),
        ([tmp_path], "no part was complete"),
    ):
        done = pympi("audit", "print", *words)
        assert done.code == 2
        assert complaint in " ".join(done.err.split())


# ---- query ----


def test_query(pympi: Pympi, run: Path) -> None:
    done = pympi("audit", "query", run, "outcome=denied")
    assert done.code == 0
    titles, row = done.lines
    assert (titles[0], row[0], row[3]) == ("SEQUENCE", "81", "denied")
    done = pympi("audit", "query", run, "task=nobody")
    assert (done.code, done.out, done.err) == (1, "", "0 rows\n")
    done = pympi("audit", "query", run, "outcome=denied", "--columns", "task,asked", "--json")
    assert done.json == {"rows": [{"task": 5, "asked": "send copy_send"}]}
    assert pympi("audit", "query", run, "--columns", "colour").code == 2
    assert pympi("audit", "query", run, "--csv", "--json").code == 2


def test_query_in_sql(pympi: Pympi, run: Path) -> None:
    pytest.importorskip("duckdb", reason="the extra `analysis` is not installed")
    query = "SELECT subject, count(*) AS n FROM records WHERE port = 4 GROUP BY ALL ORDER BY n DESC"
    done = pympi("audit", "query", run, "--sql", query)
    assert done.code == 0
    assert done.lines[0] == ["SUBJECT", "N"]
    done = pympi("audit", "query", run, "--sql", "SELECT time, [1, 2] AS l FROM records", "--json")
    assert done.json["rows"][0] == {"time": "1970-01-01T00:00:00", "l": [1, 2]}
    done = pympi("audit", "query", run, "--sql", "SELECT 1 WHERE false")
    assert (done.code, done.err) == (1, "0 rows\n")
    done = pympi("audit", "query", run, "--sql", "SELECT x FROM records")
    assert (done.code, done.out) == (2, "")
    assert "Binder Error" in done.err
    done = pympi("audit", "query", run, "--sql", "SELECT '\x1b[31m' AS \"a\x1bb\"")
    assert done.code == 0
    assert harmless(done.out)


# ---- export ----


def test_a_narrow_terminal_has_fewer_columns(
    pympi: Pympi, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pympi.cli._table.width", lambda: 80)
    done = pympi("audit", "query", run, "outcome=denied")
    assert all(len(line) <= 80 for line in done.out.splitlines())
    assert "OUTCOME" in done.out
    assert "No room for RESULT, " in done.err


def test_a_table_that_is_not_there(pympi: Pympi, run: Path) -> None:
    pytest.importorskip("duckdb", reason="SQL needs DuckDB")
    done = pympi("audit", "query", run, "--sql", "SELECT * FROM x")
    assert done.code == 2
    assert "the table is called records" in done.err


def test_lineage_tells_the_time_as_print_does(pympi: Pympi, tmp_path: Path) -> None:
    with Kernel() as kernel:
        kernel.audit.everything()
        kernel.audit.attach(File(tmp_path / "now.audit"))
        server, client = kernel.create_task("server"), kernel.create_task("client")
        server.allocate_port().make_send(client).send(b"")
    told = pympi("audit", "lineage", tmp_path / "now.audit", "--of-port", 1).out
    assert re.search(r"make_send at 2\d{3}-\d\d-\d\dT[\d:]{8}\.\d{6}Z \(#0\)", told)


def test_who_has_a_right_without_a_name_did_not_make_the_port(pympi: Pympi, tmp_path: Path) -> None:
    record = Event(1, Operation.SEND, (5, "app"), tclass="mach_port", asked=("send",), port=3)
    [batch] = batches_of(lambda: [record])
    with File(tmp_path / "bus.audit") as file:
        file(batch)
    told = pympi("audit", "lineage", tmp_path / "bus.audit", "--of-port", 3)
    assert "app (5) has a right to it, and no record says from where" in told.out


def test_export_csv(pympi: Pympi, run: Path) -> None:
    done = pympi("audit", "export", run, "--format", "csv", "--out", run.with_suffix(".csv"))
    assert (done.code, done.out) == (0, "")
    text = run.with_suffix(".csv").read_text()
    assert harmless(text)
    titles, *rows = csv.reader(io.StringIO(text))
    assert titles == [*COLUMNS]
    assert len(rows) == sum(map(len, batches(run)))
    names = {row[titles.index("task_name")] for row in rows}
    assert r"'=cmd\u{a}\u{1b}[31m\u{202e}" in names
    assert not [cell for row in rows for cell in row if cell[:1] in "=+@" and cell]


def test_export_and_back(pympi: Pympi, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra `analysis` is not installed")
    out = tmp_path / "run.parquet"
    assert pympi("audit", "export", run, "--format", "parquet", "--out", out).code == 0
    for verb in (["print"], ["stats"], ["lineage"]):
        right = ["helper:0x203"] if verb == ["lineage"] else []
        same = [pympi("audit", *verb, path, *right).out for path in (run, out)]
        assert same[0] == same[1] != ""


def test_export_avc_and_json(run: Path, capfdbinary: Any) -> None:
    from pympi.cli import main

    capfdbinary.readouterr()
    assert main(["audit", "export", str(run), "outcome=denied", "--format", "avc"]) == 0
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert lines == [
        line for batch in batches(run) for line in avc_lines(batch) if "denied" in line
    ]
    assert main(["audit", "export", str(run), "--format", "jsonl"]) == 0
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert {json.loads(line)["task_name"] for line in lines} >= {HOSTILE, "spy"}


def test_export_never_leaves_half(pympi: Pympi, run: Path, tmp_path: Path) -> None:
    cut, out = tmp_path / "cut.audit", tmp_path / "out.csv"
    cut.write_bytes(run.read_bytes()[:-1])
    out.write_text("precious")
    done = pympi("audit", "export", cut, "--format", "csv", "--out", out)
    assert done.code == 2
    assert "cut.audit, byte" in done.err
    assert out.read_text() == "precious"
    before = cut.read_bytes()
    done = pympi("audit", "export", cut, "--format", "csv", "--out", cut)
    assert (done.code, cut.read_bytes()) == (2, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.audit", "out.csv"]


# ---- stats and lineage ----


def test_stats(pympi: Pympi, run: Path) -> None:
    done = pympi("audit", "stats", run, "--top", "3")
    assert done.code == 0
    assert harmless(done.out)
    assert done.out.startswith("85 records, 28 records per second\n")
    assert "label pairs, 3 of " in done.out
    told = pympi("audit", "stats", run, "--json", "--top", "0").json
    assert (told["records"], told["lost"], told["missing"]) == (85, 0, 0)
    assert sum(pair["records"] for pair in told["pairs"]) == 85
    assert told["pairs_different"] == len(told["pairs"])
    filtered = pympi("audit", "stats", run, "outcome=denied", "--json").json
    assert filtered["outcomes"] == [{"outcome": "denied", "records": 1}]


def test_lineage(pympi: Pympi, run: Path) -> None:
    done = pympi("audit", "lineage", run, "helper:0x203")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == [
        "helper", "editor", "bootstrap", "printd",
    ]  # fmt: skip
    assert done.out.splitlines()[-1].endswith("made the port")
    told = pympi("audit", "lineage", run, "helper:0x203", "--json").json
    assert [holding["giver"] for holding in told["holdings"]] == [1, 2, 3, None]
    done = pympi("audit", "lineage", run, "--of-port", "4")
    assert harmless(done.out)
    assert [line.split()[0] for line in done.out.splitlines()[1:]][:4] == [
        "printd", "bootstrap", "editor", "helper",
    ]  # fmt: skip
    assert pympi("audit", "lineage", run, "--of-port", "4", "--json").json["port"] == 4
    assert pympi("audit", "lineage", run).code == 2
    assert pympi("audit", "lineage", run, "helper:0x203", "--of-port", "4").code == 2
    assert pympi("audit", "lineage", run, "helper").code == 2
    for words in (["helper:0x999"], ["nobody:0x203"], ["--of-port", "99"]):  # no, and that is said
        none = pympi("audit", "lineage", run, *words)
        assert (none.code, none.out) == (1, "")
        assert none.err.startswith("pympi: no record ")
        asked = pympi("audit", "lineage", run, *words, "--json")
        assert (asked.code, asked.json["error"]) == (1, none.err[7:].strip())


def test_lineage_over_files_that_were_rotated(pympi: Pympi, run: Path, tmp_path: Path) -> None:
    with File(tmp_path / "old") as old, File(tmp_path / "new") as new:
        for batch in batches(run):
            old(batch.part(batch.records["sequence"] < 60))
            new(batch.part(batch.records["sequence"] >= 60))
    told = pympi("audit", "lineage", tmp_path / "old", tmp_path / "new", "helper:0x203")
    assert told.out == pympi("audit", "lineage", run, "helper:0x203").out
    assert told.out != pympi("audit", "lineage", tmp_path / "new", "helper:0x203").out


# ---- tail ----


class _Done(BaseException):
    """Ends what would wait for ever."""


def test_tail(pympi: Pympi, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "live.audit"
    whole = run.read_bytes()
    path.write_bytes(whole[:-300])  # in the last of its three batches
    waits = iter([whole[-300:-7], whole[-7:]])

    def wait(_: float) -> None:
        more = next(waits, None)
        if more is None:
            raise KeyboardInterrupt
        with path.open("ab") as file:
            file.write(more)

    monkeypatch.setattr(tail_verb.time, "sleep", wait)
    done = pympi("audit", "tail", path, "-n", "2", "operation=send")
    assert done.code == 0
    assert [line.split()[1] for line in done.out.splitlines()] == ["#74", "#78", "#81", "#84"]


def test_a_file_that_is_replaced_or_cut_off(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "live.audit"
    path.write_bytes(run.read_bytes())
    steps = iter(
        [
            lambda: (tmp_path / "new").write_bytes(run.read_bytes()),
            path.unlink,
            lambda: (tmp_path / "new").rename(path),
            lambda: path.write_bytes(b""),
        ]
    )

    def idle() -> None:
        next(steps)()

    found = follow(path, idle)
    assert sum(map(len, islice(found, 6))) == 2 * 85
    with pytest.raises(ValueError, match="cut off while it was followed"):
        next(found)


def test_a_growing_file_is_read_as_others(run: Path) -> None:
    def idle() -> None:
        raise _Done

    with Growing(run, idle) as file:
        reader = iter(Reader(file, "x"))  # type: ignore[arg-type]
        assert [len(batch) for batch in islice(reader, 3)] == [len(b) for b in batches(run)]
        with pytest.raises(_Done):
            next(reader)


def test_what_cannot_be_followed(pympi: Pympi, run: Path, tmp_path: Path) -> None:
    assert "Only audit files" in pympi("audit", "tail", tmp_path).err
    assert "One file" in pympi("audit", "tail", run, run).err
    assert "to= needs the whole file" in pympi("audit", "tail", run, "to=x").err


@pytest.mark.parametrize("verb", [["verify"], ["prove"], ["tail"]])
def test_what_is_about_audit_files_alone(pympi: Pympi, tmp_path: Path, verb: list[str]) -> None:
    log = tmp_path / "avc.log"
    log.write_text("type=AVC msg=audit(5.0:1): nothing\n")
    done = pympi("audit", *verb, log, *["1"] * (verb == ["prove"]))
    assert done.code == 2
    assert "is a log of AVC messages; this is about audit files" in done.err


def test_sink_and_tools_know_the_same_file(tmp_path: Path, pympi: Pympi) -> None:
    path = tmp_path / "empty.audit"
    File(path).close()
    assert pympi("audit", "print", path).out == ""
    assert pympi("audit", "stats", path).out.startswith("0 records\n")
    assert pympi("audit", "query", path).code == 1


def test_bytes_that_are_no_text(tmp_path: Path, pympi: Pympi) -> None:
    recorded, path = tmp_path / "recorded.audit", tmp_path / "run.audit"
    record(recorded)
    file = File(path)
    for batch in batches(recorded):
        labels = {n: t.replace("helper", "hel\udcffer") for n, t in batch.labels.items()}
        tasks = {n: t.replace("helper", "hel\udcfeer") for n, t in batch.tasks.items()}
        file(replace(batch, labels=labels, tasks=tasks))
    file.close()
    line = pympi("audit", "print", path, "operation=give", "port=7", "--json").out
    found = json.loads(line)
    assert (found["subject"], found["task_name"]) == ("who/hel\\udcffer", "hel\\udcfeer")
    for verb in (["print"], ["query"], ["stats"], ["export", "--format", "csv", "--out", "-x"]):
        done = pympi("audit", verb[0], path, *verb[1:-1], *([tmp_path / "x"] if verb[1:] else []))
        assert done.code == 0
        done.out.encode()
    pytest.importorskip("duckdb", reason="the extra `analysis` is not installed")
    done = pympi("audit", "query", path, "--sql", "SELECT DISTINCT subject FROM records")
    assert "who/hel" in done.out


def test_the_sound_part_of_a_damaged_file(run: Path, tmp_path: Path, pympi: Pympi) -> None:
    path = tmp_path / "cut.audit"
    path.write_bytes(run.read_bytes()[:-100])
    whole = [len(batch) for batch in batches(run)]
    verbs: list[list[object]] = [["print"], ["query"], ["stats"], ["lineage", "helper:0x203"]]
    for verb, *more in verbs:
        assert pympi("audit", verb, path, *more).code == 2
        done = pympi("audit", verb, path, *more, "--sound")
        assert done.code == 0
        assert "bytes are missing; the rest is left out" in done.err.replace("\n", " ")
    assert pympi("audit", "stats", path, "--sound", "--json").json["records"] == sum(whole[:-1])
    out = tmp_path / "out.csv"
    assert pympi("audit", "export", path, "--sound", "--format", "csv", "--out", out).code == 0
    assert len(out.read_text().splitlines()) == 1 + sum(whole[:-1])
    pytest.importorskip("duckdb", reason="the extra `analysis` is not installed")
    query = "SELECT count(*) AS n FROM records"
    done = pympi("audit", "query", path, run, "--sound", "--json", "--sql", query)
    assert done.json == {"rows": [{"n": sum(whole[:-1]) + sum(whole)}]}
