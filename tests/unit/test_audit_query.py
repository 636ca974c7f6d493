# SPDX-License-Identifier: BSD-2-Clause
"""Questions about recorded files: filters, and SQL that can do nothing but read."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded import HOSTILE, record

from pympi.audit import AuditError, batches
from pympi.audit.parquet import write_parquet
from pympi.audit.query import Answer, QueryError, Question, select, sql
from pympi.audit.table import COLUMNS, rows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("query") / "run.audit"
    record(path)
    return path


def sequences(path: Path, *words: str) -> list[int]:
    return [row[0] for batch in select([path], words) for row in rows(batch, ["sequence"])]


# ---- filters ----


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["task=editor"], "task_name = 'editor'"),
        (["task=3"], "task = 3"),
        (["task=edit*"], "task_name LIKE 'edit%'"),
        (["label=who/printd"], "subject = 'who/printd' OR object = 'who/printd'"),
        (["class=mach_task"], "class = 'mach_task'"),
        (["permission=copy_send"], "list_contains(string_split(asked, ' '), 'copy_send')"),
        (["routine=bootstrap_*"], "routine LIKE 'bootstrap_%'"),
        (["service=com.*"], "service LIKE 'com.%'"),
        (["outcome=denied"], "outcome = 'denied'"),
        (["operation=give", "port=4"], "operation = 'give' AND port = 4"),
        (["result=MACH_*"], "result LIKE 'MACH_%'"),
        (["flag=RECEIVE"], "flags = 'RECEIVE'"),
        (["transfer=9..12"], "transfer BETWEEN 9 AND 12"),
        (["transfer=0x9..", "name=0x103"], "transfer >= 9 AND name = 259"),
        (["msgh_id=..-1"], "msgh_id < 0"),
        (["size=1..10"], "size BETWEEN 1 AND 10"),
        (["sequence=..10"], "sequence <= 10"),
        (["time=1.5..2"], "epoch_ns(time) BETWEEN 1500000000 AND 2000000000"),
        (["time=1970-01-01..1970-01-01T00:00:01.25"], "epoch_ns(time) <= 1250000000"),
    ],
)
def test_filters_and_sql_agree(run: Path, words: list[str], where: str) -> None:
    pytest.importorskip("duckdb", reason="the extra `analysis` is not installed")
    with sql([run], f"SELECT sequence FROM records WHERE {where} ORDER BY 1") as answer:  # noqa: S608
        found = [row[0] for row in answer]
    assert sequences(run, *words) == found
    assert bool(found) == (where != "msgh_id < 0")


def test_who_received(run: Path) -> None:
    found = sequences(run, "to=printd", "operation=send", "outcome=granted", "size=4..6")
    assert len(found) == 3
    assert sequences(run, "to=nobody") == []


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("colour=red", "no filter 'colour=red'; there are: task="),
        ("port=many", "port= is a number, or FIRST..LAST, not 'many'"),
        ("port=99999999999999999999", "out of range"),
        ("time=5", "time= is FIRST..LAST"),
        ("time=..", "time= is FIRST..LAST, of which one may be left out"),
        ("port=..", "port= is FIRST..LAST, of which one may be left out"),
        ("time=noon..", "a time is seconds, or YYYY-MM-DDThh:mm:ss of UTC, not 'noon'"),
        ("time=NaN..", "a time is seconds"),
        ("outcome=maybe", "no outcome 'maybe'"),
    ],
)
def test_wrong_filters(word: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Question([word])


# ---- SQL ----


@pytest.fixture
def _duckdb() -> None:
    pytest.importorskip("duckdb", reason="the extra `analysis` is not installed")
    pytest.importorskip("pyarrow", reason="the extra `analysis` is not installed")


@pytest.mark.usefixtures("_duckdb")
def test_sql_over_files_of_all_forms(run: Path, tmp_path: Path) -> None:
    stored = tmp_path / "run.parquet"
    with stored.open("wb") as file:
        write_parquet(file, batches(run))
    count = sum(map(len, batches(run)))
    query = "SELECT count(*), count(DISTINCT sequence) FROM records"
    for files, times in (([run], 1), ([stored], 1), ([run, stored, run], 3)):
        with sql(files, query) as answer:
            assert list(answer) == [(count * times, count)]
    query = "SELECT * FROM records ORDER BY sequence"
    with sql([run], query) as one, sql([stored], query) as other:
        assert one.columns == tuple(COLUMNS)
        assert list(one) == list(other)


@pytest.mark.usefixtures("_duckdb")
def test_sql_with_filters(run: Path) -> None:
    with sql([run], "SELECT DISTINCT task_name FROM records", ["task=editor"]) as answer:
        assert list(answer) == [("editor",)]


@pytest.mark.usefixtures("_duckdb")
def test_both_halves_join(run: Path) -> None:
    query = """
        SELECT s.task_name, r.task_name FROM records s JOIN records r USING (transfer)
        WHERE s.operation = 'send' AND r.operation = 'receive' AND s.msgh_id = 1200
    """
    with sql([run], query) as answer:
        assert list(answer) == [("editor", "printd")]


@pytest.mark.usefixtures("_duckdb")
@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM read_blob('{file}')",
        "SELECT * FROM read_parquet('{file}')",
        "SELECT * FROM '{file}'",
        "SELECT * FROM glob('{directory}/*')",
        "SELECT * FROM sniff_csv('{file}')",
        "SELECT * FROM read_csv('https://127.0.0.1:1/x')",
        "COPY records TO '{directory}/out.csv'",
        "EXPORT DATABASE '{directory}/out'",
        "ATTACH '{directory}/out.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '10GB'",
        "SET enable_external_access = true",
        "PRAGMA enable_profiling",
        "CREATE TABLE mine AS SELECT 1",
        "DROP VIEW records",
        "DELETE FROM records",
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY records TO '{directory}/out.csv'",
        "",
        "SELECT nothing FROM records",
        "SELECT * FROM run",
        "SELECT * FROM answer",
        "SELECT * FROM duckdb_secrets()",
        "WITH x AS (SELECT * FROM read_text('{file}')) SELECT * FROM x",
        "SELECT * FROM enable_logging(storage = 'file', storage_path = '{directory}/log')",
        "CALL enable_logging(storage = 'file', storage_path = '{directory}/log')",
        "SELECT * FROM query('SELECT * FROM read_text(''{file}'')')",
    ],
)
def test_sql_reaches_nothing_else(run: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "secret.csv").write_text("password\nopen sesame\n")
    query = text.format(file=tmp_path / "secret.csv", directory=tmp_path)
    with pytest.raises(QueryError), sql([run], query) as answer:
        list(answer)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


@pytest.mark.usefixtures("_duckdb")
def test_larger_than_memory(run: Path) -> None:
    query = """
        SELECT max(n) FROM (SELECT a.sequence * 100000 + b.range AS k, count(*) AS n
                            FROM records a, range(20000) b GROUP BY k)
    """
    with sql([run], query, memory="120MB") as answer:
        assert list(answer) == [(1,)]


@pytest.mark.usefixtures("_duckdb")
def test_a_damaged_file_is_told_of(run: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.audit"
    cut.write_bytes(run.read_bytes()[:-7])
    query, told = "SELECT count(*) FROM records", r"cut\.audit, byte"
    with pytest.raises(AuditError, match=told), sql([cut], query) as answer:
        list(answer)


@pytest.mark.usefixtures("_duckdb")
def test_a_query_that_is_not_read_to_its_end(run: Path) -> None:
    with sql([run] * 50, "SELECT * FROM records") as answer:
        assert next(iter(answer))[0] == 0


@pytest.mark.usefixtures("_duckdb")
def test_ctrl_c() -> None:
    class Interrupted:
        """What DuckDB does when a signal came."""

        description = ()

        def fetchmany(self, _: int) -> None:
            raise RuntimeError("Query interrupted")

    with pytest.raises(KeyboardInterrupt):
        list(Answer(Interrupted(), lambda: None))


def test_without_duckdb(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "duckdb", None)
    told = r"duckdb.*pip install 'pympi-mach\[analysis\]'"
    with pytest.raises(AuditError, match=told), sql([run], "SELECT 1"):
        pass


def test_hostile_names_are_words_as_others(run: Path) -> None:
    found = [r for b in select([run], [f"task={HOSTILE[:4]}*"]) for r in rows(b, ["task_name"])]
    assert {*found} == {(HOSTILE,)}


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("port=5..3", "port= is FIRST..LAST, and 5 is after 3"),
        ("time=20..1", "20 is after 1"),
        ("operation=sent", "no operation 'sent'; there are: none, send, receive"),
        ("flag=permissive", "no flag 'permissive'; there are: PERMISSIVE"),
    ],
)
def test_what_nothing_can_match_is_refused(word: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Question([word])
    Question(["operation=s*", "flag=*IVE", "port=5..5"])
