# SPDX-License-Identifier: BSD-2-Clause
"""pympi.trace.text and .mangle: exact round trips, and precise errors for broken files."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi.trace import (
    EVENTS,
    KOBJECTS,
    SEDARWIN_EVENTS,
    TraceError,
    TraceReader,
    TraceRecord,
    labels,
    mangle,
    port_label,
    read_labels,
    read_trace,
    sedarwin_records,
    task_label,
    text,
    unmangle,
    write_full,
    write_sedarwin,
)

LONG = "/Applications/" + "x" * 60
RECORDS = [
    TraceRecord("send", "/sbin/init", "mach_kernel", KOBJECTS.index("task"), 0, 3),
    TraceRecord("copy_send", "/sbin/init", "/srv/names", 0, 17, 1),
    TraceRecord("move_recv", "mach_kernel", LONG, 0, 123456, 12345678),
    TraceRecord("send", LONG, "/App Two.app/x", 0, 5, 2),
]


def sedarwin(records: list[TraceRecord]) -> bytes:
    file = io.BytesIO()
    write_sedarwin(file, records)
    return file.getvalue()


def full(records: list[TraceRecord], lost: int = 0) -> bytes:
    file = io.BytesIO()
    write_full(file, records, lost=lost)
    return file.getvalue()


def read(data: bytes) -> list[TraceRecord]:
    return list(TraceReader(io.BytesIO(data), "t"))


def error(data: bytes) -> TraceError:
    with pytest.raises(TraceError) as caught:
        read(data)
    return caught.value


def test_sedarwin_form_byte_for_byte() -> None:
    assert sedarwin(RECORDS).decode().splitlines() == [
        "4 trace records:",
        "send      /sbin/init" + " " * 56 + " | mach_kernel:task" + " " * 50 + ":    0      3",
        "copy_send /sbin/init" + " " * 56 + " | /srv/names" + " " * 56 + ":   17      1",
        "move_recv mach_kernel" + " " * 55 + " | " + LONG + ":123456 12345678",
        "send      " + LONG + " | /App Two.app/x" + " " * 52 + ":    5      2",
    ]


def test_full_form_byte_for_byte() -> None:
    records = [TraceRecord("hold_recv", "a\t\\|", "x : y\n", 99, -1, 7), RECORDS[0]]
    assert full(records, lost=5).decode() == (
        "pympi trace 1: 2 records, 5 lost\n"
        "event\ttask\towner\tkind\tnumber\tcount\n"
        "hold_recv\ta\\u{9}\\\\|\tx : y\\u{a}\t99\t-1\t7\n"
        "send\t/sbin/init\tmach_kernel\ttask\t0\t3\n"
    )


@pytest.mark.parametrize("write", [sedarwin, full])
def test_round_trip(write) -> None:
    assert read(write(RECORDS)) == RECORDS
    assert read(write([])) == []


def test_full_header_tells_what_was_lost() -> None:
    reader = TraceReader(io.BytesIO(full(RECORDS, lost=42)))
    assert (reader.form, reader.expected, reader.lost) == ("full", 4, 42)


@pytest.mark.real_data
def test_recorded_boot_reads_and_writes_identically(shared_data: Path) -> None:
    path = shared_data / "ipctrace" / "darwin-boot.trace"
    records = read_trace(path)
    assert len(records) == int(path.read_bytes().split()[0])
    assert sedarwin(records) == path.read_bytes()
    assert read(full(records)) == records


names = st.text(min_size=1, max_size=90)
keys = st.tuples(
    st.sampled_from(EVENTS),
    names | st.just("mach_kernel"),
    names | st.just("mach_kernel"),
    st.integers(0, 40),
    st.integers(-1, text.MAX_NUMBER),
)
records_strategy = st.dictionaries(keys, st.integers(1, text.MAX_COUNT), max_size=6).map(
    lambda counts: [TraceRecord(*key, count) for key, count in counts.items()]
)


@given(records_strategy)
def test_full_form_says_every_record(records: list[TraceRecord]) -> None:
    assert read(full(records)) == records


@given(records_strategy)
def test_sedarwin_form_says_it_exactly_or_refuses(records: list[TraceRecord]) -> None:
    try:
        data = sedarwin(records)
    except TraceError:
        return
    assert read(data) == records


@pytest.mark.parametrize(
    "record",
    [
        RECORDS[0]._replace(event="recv"),
        RECORDS[0]._replace(task="ends in a blank "),
        RECORDS[0]._replace(task="a\nb"),
        RECORDS[0]._replace(task=""),
        RECORDS[0]._replace(task="x" * 66 + " | y", owner="z"),
        RECORDS[0]._replace(owner="mach_kernel:task"),
        RECORDS[0]._replace(owner="/a", kind=3),
        RECORDS[0]._replace(kind=99),
        RECORDS[0]._replace(number=-2),
        RECORDS[0]._replace(count=0),
        RECORDS[0]._replace(count=text.MAX_COUNT + 1),
        RECORDS[0]._replace(task="x" * (text.MAX_NAME + 1)),
        RECORDS[0]._replace(task="\ud800"),
    ],
)
def test_writer_refuses_what_would_not_read_back(record: TraceRecord) -> None:
    file = io.BytesIO()
    with pytest.raises(TraceError, match=r"^trace:3:"):
        write_sedarwin(file, [RECORDS[1], record])
    assert file.getvalue() == b""


def test_projection_adds_up_what_becomes_equal() -> None:
    records = [
        RECORDS[1]._replace(kind=3, count=2),
        RECORDS[0]._replace(event="recv"),
        RECORDS[1],
        RECORDS[0],
    ]
    assert sedarwin_records(records) == [RECORDS[1]._replace(count=3), RECORDS[0]]


# --- broken files ---------------------------------------------------------------------------------


def test_error_names_file_line_column_and_expectation() -> None:
    caught = error(sedarwin(RECORDS).replace(b":   17 ", b":   x7 "))
    assert (caught.file, caught.line, caught.column) == ("t", 3, 150)
    assert caught.expected.startswith("a port number from -1")
    assert str(caught).startswith("t:3:150: expected a port number from -1 to 2147483647, found")
    assert isinstance(caught, ValueError)


LINE = sedarwin(RECORDS[:1]).split(b"\n")[1]
BROKEN_SEDARWIN = {
    "empty": (b"", 1, 1, "a header"),
    "one byte": (b"1", 1, 2, "a line of at most"),
    "wrong magic": (b"PK\x03\x04\n", 1, 1, "'<N> trace records:'"),
    "carriage return": (b"1 trace records:\r\n" + LINE + b"\n", 1, 1, "'<N> trace records:'"),
    "huge count": (b"9999999999 trace records:\n", 1, 1, "at most 1048576 records"),
    "leading zero": (b"01 trace records:\n" + LINE + b"\n", 1, 1, "'<N> trace records:'"),
    "fewer": (b"2 trace records:\n" + LINE + b"\n", 3, 1, "record 2 of 2"),
    "more": (b"0 trace records:\n" + LINE + b"\n", 2, 1, "the end of the file after 0"),
    "duplicate": (b"2 trace records:\n" + LINE + b"\n" + LINE[:-1] + b"9\n", 3, 1, "each path"),
    "endless line": (b"1 trace records:\n" + b"x" * 99999, 2, 16386, "a line of at most 16384"),
}
BROKEN_LINES = {
    "action": (LINE.replace(b"send", b"sent"), 1, "one of send, copy_send, move_recv"),
    "unsupported action": (LINE.replace(b"send     ", b"make_send"), 1, "one of"),
    "bar": (LINE.replace(b"|", b"/"), 77, "' | '"),
    "bar moved": (LINE.replace(b"  | ", b" |  "), 77, "' | '"),
    "no task": (LINE.replace(b"/sbin/init", b"          "), 11, "a task"),
    "kernel object": (LINE.replace(b":task", b":tusk"), 80, "mach_kernel:<kernel object kind>"),
    "bare kernel": (LINE.replace(b":task", b"     "), 80, "mach_kernel:<kernel object kind>"),
    "colon": (LINE[:145] + b" " + LINE[146:], 146, "':' after the port owner"),
    "no count": (LINE[:-7], 152, "a port number and a count"),
    "count": (LINE[:-1] + b"y", 158, "a count from 1"),
    "zero count": (LINE[:-1] + b"0", 158, "a count from 1"),
    "negative count": (LINE[:-2] + b"-3", 157, "a count from 1"),
    "count overflow": (LINE + b"0" * 19, 158, "a count from 1"),
    "digits that are not ours": (LINE[:-1] + "٣".encode(), 158, "a count from 1"),
    "number overflow": (LINE[:146] + b"99999999999" + LINE[151:], 147, "a port number"),
    "layout": (LINE[:-2] + b"03", 157, "dumptrace's layout"),
    "narrow": (LINE[:146] + LINE[147:], 150, "dumptrace's layout"),
    "bytes": (LINE.replace(b"/sbin/init ", b"/sbin/\xffinit"), 17, "UTF-8"),
    "control": (LINE.replace(b"/sbin/init ", b"/sbin/\x1binit"), 17, "no control character"),
    "empty line": (b"", 1, "one of"),
}


@pytest.mark.parametrize("case", BROKEN_SEDARWIN)
def test_broken_file(case: str) -> None:
    data, line, column, expected = BROKEN_SEDARWIN[case]
    caught = error(data)
    assert (caught.line, caught.column) == (line, column)
    assert caught.expected.startswith(expected)


@pytest.mark.parametrize("case", BROKEN_LINES)
def test_broken_line(case: str) -> None:
    line, column, expected = BROKEN_LINES[case]
    caught = error(b"1 trace records:\n" + line + b"\n")
    assert (caught.line, caught.column) == (2, column)
    assert caught.expected.startswith(expected)


ROW = b"send\t/a\tmach_kernel\ttask\t0\t3"
BROKEN_ROWS = {
    "event": (ROW.replace(b"send", b"sent"), 1, "one of send, recv"),
    "fields": (ROW + b"\t", 1, "6 fields"),
    "escape": (ROW.replace(b"/a", b"\\n"), 6, "a name with"),
    "escape of a plain letter": (ROW.replace(b"/a", b"\\u{61}"), 6, "a name with"),
    "escape beyond unicode": (ROW.replace(b"/a", b"\\u{ffffff}"), 6, "a name with"),
    "bare control": (ROW.replace(b"/a", b"\x1b"), 6, "a name with"),
    "bytes": (ROW.replace(b"/a", b"/\xff"), 7, "UTF-8"),
    "kind": (ROW.replace(b"task", b"tusk"), 21, "a kernel object kind"),
    "kind by number": (ROW.replace(b"task", b"2"), 21, "a kernel object kind"),
    "number": (ROW.replace(b"\t0", b"\t-2"), 26, "a port number"),
    "count": (ROW.replace(b"\t3", b"\t"), 28, "a count"),
    "zeros": (ROW.replace(b"\t3", b"\t03"), 21, "numbers without leading zeros"),
    "long name": (ROW.replace(b"/a", b"/" + b"a" * text.MAX_NAME), 6, "a name of at most"),
}


@pytest.mark.parametrize("case", BROKEN_ROWS)
def test_broken_row(case: str) -> None:
    row, column, expected = BROKEN_ROWS[case]
    caught = error(full(RECORDS[:1]).rsplit(b"\n", 2)[0] + b"\n" + row + b"\n")
    assert (caught.line, caught.column) == (3, column)
    assert caught.expected.startswith(expected)


def test_future_version_is_refused_at_its_number() -> None:
    caught = error(full(RECORDS).replace(b"trace 1:", b"trace 2:"))
    assert (caught.line, caught.column, caught.expected) == (1, 13, "version 1")


def test_other_titles_are_refused() -> None:
    assert error(full(RECORDS).replace(b"owner", b"Owner")).line == 2


@pytest.mark.parametrize("write", [sedarwin, full])
def test_truncated_at_every_byte(write) -> None:
    data = write(RECORDS)
    for size in range(len(data)):
        caught = error(data[:size])
        assert caught.line == max(1, data[:size].count(b"\n") + 1)


def test_every_bit_flipped_is_an_error_or_another_exact_trace() -> None:
    exact = 0
    for data in (sedarwin(RECORDS), full(RECORDS)):
        for bit in range(len(data) * 8):
            broken = bytearray(data)
            broken[bit // 8] ^= 1 << bit % 8
            try:
                reader = TraceReader(io.BytesIO(broken))
                records = list(reader)
            except TraceError:
                continue
            again = full(records, reader.lost) if reader.form == "full" else sedarwin(records)
            assert again == broken
            exact += 1
    assert exact > 0


@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    for head in (b"1 trace records:\n", full([]).replace(b": 0", b": 1")):
        with pytest.raises(TraceError):
            read(head + noise)


def test_reader_streams() -> None:
    """The first record is there before the second line was read."""

    class Slow(io.BytesIO):
        lines = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            self.lines += 1
            return super().readline(size)

    file = Slow(sedarwin(RECORDS))
    assert next(iter(TraceReader(file))) == RECORDS[0]
    assert file.lines == 2


def test_errors_from_a_file_name_its_path(tmp_path: Path) -> None:
    path = tmp_path / "broken.trace"
    path.write_bytes(b"nonsense\n")
    with pytest.raises(TraceError, match=re.escape(f"{path}:1:1: expected")):
        read_trace(path)


# --- names ----------------------------------------------------------------------------------------


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_mangling_is_injective_and_gives_identifiers(name: str) -> None:
    assert unmangle(mangle(name)) == name
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", task_label(name))


@pytest.mark.parametrize("broken", ["_", "_2", "_2E", "_61", "a.b", "_ff", "/", "é"])
def test_unmangle_refuses_what_mangle_never_makes(broken: str) -> None:
    with pytest.raises(ValueError):
        unmangle(broken)


def test_labels_as_documented() -> None:
    assert task_label("/sbin/mach_init") == "task-sbin-mach__init"
    assert task_label("mach_kernel") == "task_mach__kernel"
    assert port_label("/System/A.app") == "port-System-A_2eapp"
    assert port_label("mach_kernel", KOBJECTS.index("host_priv")) == "kobject_host__priv"


@given(st.lists(st.text("/_-a2e.", max_size=5), unique=True, max_size=30))
def test_labels_of_different_names_differ(names: list[str]) -> None:
    labels = [task_label(name) for name in names] + [port_label(name) for name in names]
    assert len(set(labels)) == len(labels)


TABLE = """# who is who
task rules/first_t /sbin/init

task rules/two_t,mls/5 /App Two.app/x
port rules/names_t /srv/names
port rules/host_t mach_kernel:host_priv
task rules/odd_t a\\u{9}b
"""


def test_labels_from_a_table(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_text(TABLE)
    labels = read_labels(path)
    assert labels.task("/sbin/init") == "rules/first_t"
    assert labels.task("/App Two.app/x") == "rules/two_t,mls/5"
    assert labels.task("a\tb") == "rules/odd_t"
    assert labels.port("/srv/names", 0) == "rules/names_t"
    assert labels.port("mach_kernel", KOBJECTS.index("host_priv")) == "rules/host_t"


def test_names_outside_the_table_keep_their_mangled_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_text(TABLE)
    labels = read_labels(path)
    assert labels.task("/srv/names") == "rules/task-srv-names"
    assert labels.port("/sbin/init", 0) == "rules/port-sbin-init"
    assert labels.port("mach_kernel", 2) == "rules/kobject_task"


@pytest.mark.parametrize(
    ("table", "line"),
    [
        (b"job a_t /a\n", 1),
        (b"task a_t\n", 1),
        (b"task a_t /a\nport a_t mach_kernel:tusk\n", 2),
        (b"task a_t /a\n# again\ntask b_t /a\n", 3),
        (b"task a_t \xff\n", 1),
        (b"task a_t a\\n\n", 1),
        (b"task a_t " + b"x" * text.MAX_LINE, 1),
    ],
)
def test_broken_tables_of_labels(tmp_path: Path, table: bytes, line: int) -> None:
    path = tmp_path / "labels"
    path.write_bytes(table)
    with pytest.raises(TraceError) as caught:
        read_labels(path)
    assert (caught.value.file, caught.value.line) == (str(path), line)


def test_tables_of_labels_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "labels"
    monkeypatch.setattr(labels, "MAX_RECORDS", 3)
    path.write_text("# three lines\n\ntask a_t /a\n")
    assert read_labels(path).task("/a").endswith("a_t")
    path.write_text("# four lines\n\ntask a_t /a\n\n")
    with pytest.raises(TraceError, match="at most 3 lines") as caught:
        read_labels(path)
    assert (caught.value.file, caught.value.line) == (str(path), 4)


def test_tables() -> None:
    assert set(SEDARWIN_EVENTS) < set(EVENTS)
    assert (KOBJECTS[1], KOBJECTS[4], KOBJECTS[20], KOBJECTS[32]) == (
        "thread",
        "host_priv",
        "act",
        "labelh",
    )
