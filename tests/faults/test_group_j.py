# SPDX-License-Identifier: BSD-2-Clause
"""Group J, hostile trace files: refused with the byte and what was expected, nothing of it used.

Files whose hashes are wrong, and forged ones whose hashes are right: whoever makes those can write
anything, and what they wrote must do no harm to who reads it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import audit_files as make
import numpy as np
import pytest

from pympi import audit
from pympi.audit import AuditError, Batch, Reader, verify
from pympi.audit.avc import avc_lines
from pympi.audit.chain import BLOCK, LARGEST_BLOCK, Block
from pympi.audit.content import FRAME
from pympi.audit.lineage import find
from pympi.cli import main
from pympi.policy.author.recording import read_recording
from pympi.trace.graph.paths import of_audit

GOOD = [
    make.text("LABL", 1, "te/system_u:system_r:client_t"),
    make.text("LABL", 2, "te/system_u:object_r:port_t"),
    make.text("CLAS", make.PORT.number, " ".join([make.PORT.name, *make.PORT.permissions])),
]


def recs(*arrays: Any) -> list[tuple[bytes, bytes]]:
    return [(b"RECS", array.tobytes()) for array in arrays]


def refused(raw: bytes, message: str, *, check: bool = True) -> int:
    """Assert that a file is refused, and where; return how many records came before."""
    found: list[Batch] = []
    with pytest.raises(AuditError, match=rf"^hostile, byte \d+: .*{message}"):
        found.extend(Reader(io.BytesIO(raw), "hostile", check=check))
    return len(make.numbers(found))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.audit"


@pytest.fixture
def parts(path: Path) -> list[bytes]:
    """The header and the blocks of a small file."""
    return make.write(path, (20, 3))


SMALL = make.small_header()
TINY = make.pieces(
    make.forged([make.text("LABL", 1, "a"), *recs(make.records(18))], [], header=SMALL)
)


class TestAuditFiles:
    def test_j1_empty_one_byte_wrong_magic(self, path: Path) -> None:
        for raw in (
            b"",
            b"p",
            b"pympi audit 2",
            b"pympi audit 0\n",
            b"pympi audit 02\n",
            b"\0" * 99,
        ):
            assert refused(raw, "expected the line 'pympi audit 2'") == 0
            path.write_bytes(raw)
            for ask in (verify, read_recording):
                with pytest.raises(ValueError, match="expected"):
                    ask(path)  # type: ignore[operator]
        assert refused(b"pympi audit 2\n", "expected a header") == 0
        assert refused(b"pympi audit 2\n" + b" " * (1 << 20), "expected a header") == 0
        assert refused(b"pympi audit 2\n{}\n", "missing required field") == 0
        assert refused(b"pympi audit 2\n" + b"[" * 60_000 + b"\n", "expected a header") == 0

    def test_j2_future_versions(self, parts: list[bytes]) -> None:
        for form in (b"3", b"10", b"999999999"):
            refused(
                b"pympi audit " + form + b"\n", f"a file of form {form.decode()}; this pympi reads"
            )
        layout = "expected records that begin with"
        for old, new, message in (
            (b'"sha256"', b'"sha999"', "expected hashes sha256 over .*16 records, found 'sha999'"),
            (b'"leaf": 16', b'"leaf": 32', "expected hashes sha256"),
            (b'["sequence", "<u8", 0]', b'["sequence", "<u4", 0]', layout),
            (b'"size": 104', b'"size": 96', layout),
        ):  # fmt: skip
            assert old in parts[0]
            refused(parts[0].replace(old, new), message)
        raw = make.forged(GOOD, flags=8)
        refused(raw, "block 1 has flags 0x8, which this pympi does not know")

    def test_j3_truncated_at_every_byte(self, path: Path) -> None:
        """A reader says so but where a block ends; verify says what is sound up to there."""
        raw = b"".join(TINY)
        ends = {len(b"".join(TINY[: n + 1])): n for n in range(len(TINY))}
        have = {-1: 0, 0: 0, 1: 18, 2: 18}
        sound = -1
        path.write_bytes(raw)
        for cut in reversed(range(len(raw))):
            sound = max((n for end, n in ends.items() if end <= cut), default=-1)
            if cut in ends:
                assert len(make.numbers(Reader(io.BytesIO(raw[:cut])))) == have[sound]
            else:
                assert refused(raw[:cut], "") == have[sound]
            os.truncate(path, cut)
            if sound < 0:
                with pytest.raises(AuditError, match="expected"):
                    verify(path)
            else:
                verdict = verify(path)
                assert (verdict.state, verdict.head[0]) == ("open", sound)
                assert (verdict.records, verdict.torn) == (have[sound], cut - verdict.end)

    def test_j4_every_bit_flipped(self, path: Path) -> None:
        """A reader returns what was written before it; verify names the block."""
        raw = b"".join(TINY)
        ends = [len(b"".join(TINY[: n + 1])) for n in range(len(TINY))]
        path.write_bytes(raw)
        with path.open("r+b", buffering=0) as file:
            for bit in range(8 * len(raw)):
                at, flipped = bit // 8, bytes([raw[bit // 8] ^ 1 << bit % 8])
                found = refused(raw[:at] + flipped + raw[at + 1 :], "")
                assert found == (18 if at >= ends[1] else 0)
                os.pwrite(file.fileno(), flipped, at)
                self.check_located(path, next(n for n, end in enumerate(ends) if at < end), ends)
                os.pwrite(file.fileno(), raw[at : at + 1], at)

    def check_located(self, path: Path, part: int, ends: list[int]) -> None:
        """Assert that verify names the block that was changed, and no other."""
        try:
            verdict = verify(path)
        except AuditError as error:
            if part or not re.search(r"byte (0|14): ", str(error)):
                raise
            return
        if part == 0:
            assert [(each.kind, each.at) for each in verdict.findings] == [("header", 0)]
            return
        assert {finding.block for finding in verdict.findings} == {part}
        assert all(ends[part - 1] <= each.at < ends[part] for each in verdict.findings)
        assert verdict.blocks == len(ends) - 2

    @pytest.mark.parametrize("check", [True, False])
    def test_j5_a_length_that_is_huge(self, parts: list[bytes], check: bool) -> None:
        tracemalloc.start()
        for length in (LARGEST_BLOCK, LARGEST_BLOCK + 1, 1 << 40, (1 << 64) - 1):
            refused(make.forged(GOOD, length=length), "", check=check)
        for tag in (b"LABL", b"RECS"):
            content = [(tag, b"x" * 8)]
            block, raw = make.forged_block(content, 1, make.digest(make.HEADER), b"")
            huge = raw.replace(tag + b"\x08\0\0\0", tag + b"\xff\xff\xff\xff")
            sealed = block._replace(file=make.digest(make.HEADER)[:16]).sealed(None)
            refused(make.HEADER + sealed.packed() + huge, "", check=check)
            for size in (b"\xff\xff\xff\xff", b"\0\0\0\x40"):
                refused(b"pympi audit 1\n" + tag + size, "")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 << 20

    @pytest.mark.parametrize("check", [True, False])
    def test_j5_lengths_that_do_not_fit(self, check: bool) -> None:
        for frames, message in (
            ([(b"LABL", b"x")], "at least 4 bytes"),
            ([(b"RECS", b"x" * 16)], "records have 104 bytes each, found 16"),
            ([(b"WHAT", b"x" * 8)], "expected a frame LABL, .*, found b'WHAT'"),
        ):
            assert refused(make.forged(GOOD, frames), message, check=check) == 0
        refused(
            make.forged([*GOOD, *recs(make.records(3))], records=4),
            "expected 4 records, from 1 to 3",
        )
        refused(
            make.forged([*GOOD, *recs(make.records(3))], first=2), "expected 3 records, from 2 to 3"
        )
        refused(make.forged(GOOD, leaves=1 << 20), "")

    def test_j6_numbers_that_stand_for_nothing(self, path: Path) -> None:
        """Read as what they are: a label may be gone before its record is written."""
        odd = make.records(3, effective_sid=77, tclass=999, task=5, operation=99, flags=1 << 31)
        path.write_bytes(make.forged([*GOOD, *recs(odd)]))
        record = next(iter(audit.read(path)))
        assert (record.subject, record.tclass, record.asked) == ("sid:77", "", ())
        assert (record.operation, record.task_name) == ("operation 99", "")
        assert verify(path).state == "open"
        with pytest.raises(ValueError, match="there is no class 999 in it"):
            read_recording(path)
        wide = " ".join(["many", *(f"p{n}" for n in range(33))])
        refused(make.forged([make.text("CLAS", 1, wide)]), "at most 32 permissions, not 33")

    def test_j7_sequence_numbers_that_do_not_rise(self, path: Path) -> None:
        back = make.records(5)
        back["sequence"] = [1, 2, 5, 4, 6]
        same = make.records(2, first=5)
        same["sequence"] = 5
        for blocks, before, message in (
            ([[*GOOD, *recs(back)]], 0, "expected a record after 5, found 4"),
            ([[*GOOD, *recs(same)]], 0, "expected a record after 5, found 5"),
            ([[*GOOD, *recs(make.records(3), make.records(3, 3))]], 0, "after 3, found 3"),
            ([[*GOOD, *recs(make.records(9))], recs(make.records(3))], 9, "after 9, found 1"),
        ):
            raw = make.forged(*blocks)
            assert refused(raw, message) == before
            path.write_bytes(raw)
            (finding,) = verify(path).findings
            assert (finding.kind, finding.block) == ("order", len(blocks))
        opened = [(b"OPEN", b"{}"), *recs(make.records(3))]
        assert len(make.numbers(Reader(io.BytesIO(make.forged(opened, opened))))) == 6
        refused(make.forged([(b"OPEN", b"[]")]), "expected an object in JSON")
        refused(make.forged([(b"OPEN", b"{" * 9999)]), "expected an object in JSON")

    def test_j8_a_number_that_stands_for_two_things(self) -> None:
        for tag, one, two in (
            ("LABL", "a", "b"), ("TASK", "a", "b"), ("CLAS", "a x", "a y"),
        ):  # fmt: skip
            twice = [make.text(tag, 1, one), make.text(tag, 1, two)]
            assert refused(make.forged(twice), f"{tag} 1 stands for something else") == 0
            assert not list(Reader(io.BytesIO(make.forged([twice[0], twice[0]]))))
            assert not list(Reader(io.BytesIO(make.forged([twice[0]], [twice[1]]))))

    def test_j9_tasks_and_ports_that_were_never_made(self, path: Path) -> None:
        odd = make.records(2, task=0xFFFFFFFF, port=1 << 63, provenance=1 << 60, transfer=1 << 62)
        path.write_bytes(make.forged([*GOOD, *recs(odd)]))
        record = next(iter(audit.read(path)))
        assert (record.task, record.task_name, record.port) == (0xFFFFFFFF, "", 1 << 63)
        assert record.provenance == 1 << 60

    def test_j10_blocks_out_of_place(self, path: Path, parts: list[bytes]) -> None:
        other = make.write(path, (20, 3))
        h, one, two, three, four = parts
        cases: list[tuple[list[bytes], set[tuple[str, int]]]] = [
            ([h, two, three, four], {("removed", 1)}),
            ([h, one, three, four], {("removed", 2)}),
            ([h, one, four], {("removed", 2)}),
            ([h, two, one, three, four], {("moved", 1)}),
            ([h, one, three, two, four], {("moved", 2)}),
            ([h, one, four, three, two], {("moved", 3), ("moved", 2)}),
            ([h, one, two, two, three, four], {("again", 2)}),
            ([h, one, two, three, four, one], {("again", 1)}),
            ([h, one, other[2], three, four], {("foreign", 2), ("removed", 2)}),
            ([h, one, two, other[2], three, four], {("foreign", 2)}),
            ([other[0], one, two, three, four], {("header", 0)}),
            ([h, other[1], two, three, four], {("foreign", 1), ("removed", 1)}),
            ([h, one, b"junk" * 50, two, three, four], {("inserted", 0)}),
            ([h, one, two, three, four, b"junk" * 60], {("header", 5)}),
            ([h, one, two[:-40], three, four], {("changed", 2)}),
            ([h, one, two[:-40] + b"x" * 80, three, four], {("changed", 2)}),
            ([h, one, two[:150], three, four], {("header", 2)}),
        ]  # fmt: skip
        for pieces, expected in cases:
            raw = b"".join(pieces)
            refused(raw, "")
            path.write_bytes(raw)
            verdict = verify(path)
            assert verdict.state == "damaged"
            assert {(each.kind, each.block) for each in verdict.findings} == expected

    def test_j10_a_record_changed_and_hashed_again(self, path: Path, parts: list[bytes]) -> None:
        """By somebody who knows the form: the block after it tells; of the last, a noted hash."""
        was = Block.read(parts[2][: BLOCK.size])
        changed, content = make.forged_block(
            recs(make.records(20, size=1)), 2, was.previous, was.file
        )
        path.write_bytes(b"".join([*parts[:2], changed.packed(), content, *parts[3:]]))
        (finding,) = verify(path).findings
        assert (finding.kind, finding.block) == ("rewritten", 3)
        path.write_bytes(b"".join([*parts[:2], changed.packed(), content]))
        assert verify(path).state == "open"
        (finding,) = verify(path, head=was.hash.hex()).findings
        assert finding.kind == "head"

    def test_j12_time_that_goes_back(self, path: Path) -> None:
        """Clocks do that; it is kept as it was recorded."""
        back = make.records(5)
        back["time"] = [5, 4, (1 << 64) - 1, 0, 2]
        path.write_bytes(make.forged([*GOOD, *recs(back)]))
        assert [round(record.time * 1e9) for record in audit.read(path)][:2] == [5, 4]
        assert verify(path).state == "open"

    @pytest.mark.parametrize("form", [1, 2])
    def test_j13_more_records_than_memory(self, form: int) -> None:
        assert streamed(form, 2_000_000) < 64 << 20

    @pytest.mark.long
    @pytest.mark.timeout(3600)
    @pytest.mark.parametrize("form", [1, 2])
    def test_j13_a_thousand_million_records(self, form: int) -> None:
        assert streamed(form, 1_000_000_000, trace=False) < 64 << 20

    def test_a_header_that_is_no_text(self, path: Path) -> None:
        """Also in what is not known here: a proof has all of it."""
        at = make.HEADER.index(b"{") + 1
        header = make.HEADER[:at] + b'"new": "\xff", ' + make.HEADER[at:]
        path.write_bytes(make.forged(recs(make.records(3)), header=header))
        refused(path.read_bytes(), "expected a header, an object in JSON")
        for ask in (verify, lambda path: audit.prove(path, 2)):
            with pytest.raises(AuditError, match="expected a header, an object in JSON"):
                ask(path)

    # ---- what goes for all ----

    def test_no_harm_to_a_terminal(
        self, path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        evil = "\x1b[31mred\n\u202e"
        label = [make.text("LABL", 1, evil), make.text("LABL", 2, evil)]
        path.write_bytes(make.forged([*label, *recs(make.records(3))]))
        monkeypatch.chdir(path.parent)
        assert main(["audit", "prove", path.name, "2"]) == 0
        assert main(["audit", "verify", "--proof", "proof.json"]) == 0
        assert main(["audit", "verify", "--proof", "proof.json", "--json"]) == 0
        assert not set("\x1b\u202e") & set(capsys.readouterr().out)

    @pytest.mark.parametrize("seed", range(20))
    def test_any_damage_at_all(self, path: Path, parts: list[bytes], seed: int) -> None:
        """Cut, doubled, overwritten at random: no error but AuditError, no record that was not
        there, and verify finds something, unless what is left is the beginning of the file."""
        rng = np.random.default_rng(seed)
        raw = b"".join(parts)
        for _ in range(40):
            damaged = raw
            for _ in range(int(rng.integers(1, 4))):
                damaged = mangle(damaged, rng)
            found: list[Batch] = []
            with contextlib.suppress(AuditError):
                found.extend(Reader(io.BytesIO(damaged), "hostile"))
            assert make.numbers(found) == [*range(1, 1 + len(make.numbers(found)))]
            path.write_bytes(damaged)
            try:
                verdict = verify(path)
            except AuditError:
                continue
            beginning = raw.startswith(damaged[: verdict.end]) and verdict.state == "open"
            assert damaged == raw or verdict.state == "damaged" or beginning

    @pytest.mark.parametrize("piece", ["magic", "headers", "long headers"])
    def test_time_is_linear(self, path: Path, piece: str) -> None:
        """Files that would have a naive search hash the same bytes again and again."""
        file = make.digest(make.HEADER)
        block, _ = make.forged_block([], 1, file, file[:16])
        fake = {
            "magic": make.MAGIC,
            "headers": block._replace(length=0).sealed(None).packed(),
            "long headers": block._replace(length=1 << 20).sealed(None).packed(),
        }[piece]
        hashed = []
        for size in (1 << 18, 1 << 20):
            path.write_bytes(make.HEADER + fake * (size // len(fake)))
            hashed.append(self.bytes_read(path))
        assert hashed[1] < 6 * hashed[0]

    def test_gaps_without_end(self, path: Path) -> None:
        """Every other block is missing, and each of them comes again and again."""
        previous = make.digest(make.HEADER)
        blocks = [make.forged_block([], n, previous, previous[:16])[0] for n in range(2, 5000, 2)]
        again = [make.forged_block([], 2, previous, previous[:16])[0]] * 5000
        path.write_bytes(make.HEADER + b"".join(block.packed() for block in [*blocks, *again]))
        verdict = verify(path)
        assert (len(verdict.findings), verdict.unlisted) == (1000, 2499 + 5000 - 1000)

    @pytest.mark.parametrize("kind", ["LABL", "RECS"])
    def test_wrong_leaves_take_linear_time(self, path: Path, kind: str) -> None:
        """Every other leaf of a block has not the hash that is told of it."""

        def work(count: int) -> None:
            one = [make.text("LABL", 1, "a")] if kind == "LABL" else recs(make.records(1))
            raw = make.forged(one * count)
            step = len(make.padded(one)[0])
            start = len(make.HEADER) + BLOCK.size
            changed = bytearray(raw)
            for at in range(start + step - 5, start + step * count, 2 * step):
                changed[at] ^= 1
            path.write_bytes(changed)
            verdict = verify(path)
            assert len(verdict.findings) + verdict.unlisted == count // 2

        assert times_as_long(work, 1000, 8) < 24

    def test_blocks_that_moved_take_linear_time(self, path: Path) -> None:
        """Every other block of those that are missing is found behind."""
        previous = make.digest(make.HEADER)

        def work(count: int) -> None:
            numbers = [1, 10**9, *range(4, 2 * count, 2)]
            blocks = [make.forged_block([], n, previous, previous[:16])[0] for n in numbers]
            path.write_bytes(make.HEADER + b"".join(block.packed() for block in blocks))
            verdict = verify(path)
            assert {each.kind for each in verdict.findings} == {"moved"}

        assert times_as_long(work, 2000, 8) < 24

    @pytest.mark.parametrize(
        "use",
        [
            lambda batches: [record for batch in batches for record in batch],
            lambda batches: [line for batch in batches for line in avc_lines(batch)],
            of_audit,
            lambda batches: find(batches, "t1:0x203"),
            lambda batches: [len(batch.tasks) for batch in batches],
        ],
        ids=["records", "avc", "graph", "lineage", "size"],
    )
    def test_words_before_each_record_take_linear_time(
        self, use: Callable[[Iterator[Batch]], object]
    ) -> None:
        def work(count: int) -> None:
            frames: list[tuple[bytes, bytes]] = []
            for n in range(1, 1 + count):
                frames += [make.text("TASK", n, f"t{n}"), make.text("CLAS", n + 1000, f"mi_{n} a")]
                numbers = {"task": n, "tclass": n + 1000, "object_sid": n, "name": 0x203, "port": n}
                frames += [make.text("LABL", n, f"l{n}"), *recs(make.records(1, n, **numbers))]
            use(iter(Reader(io.BytesIO(make.forged(frames)), "hostile")))

        assert times_as_long(work, 500, 8) < 20

    def test_j4_a_length_that_was_changed_is_where_it_is(self, path: Path) -> None:
        """It moves the end of its frame: what is found there was changed before."""
        raw = bytearray(make.forged([*GOOD, *recs(make.records(3))]))
        at = len(make.HEADER) + BLOCK.size + 4
        for length in range(4, 200):
            raw[at] = length
            path.write_bytes(raw)
            for finding in verify(path).findings:
                assert at - 4 <= finding.at <= at, (length, finding)

    def bytes_read(self, path: Path) -> int:
        done = 0
        real = os.pread

        def pread(*arguments: Any) -> bytes:
            nonlocal done
            piece = real(*arguments)
            done += len(piece)
            return piece

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "pread", pread)
            assert verify(path).state in ("damaged", "open")
        return done


def times_as_long(work: Callable[[int], object], size: int, times: int) -> float:
    """Return how much longer something takes that is so many times as large."""
    taken = []
    for count in (size, size * times):
        starts = []
        for _ in range(2):
            start = time.process_time()
            work(count)
            starts.append(time.process_time() - start)
        taken.append(min(starts))
    return taken[1] / taken[0]


def mangle(raw: bytes, rng: np.random.Generator) -> bytes:
    start, stop = sorted(rng.integers(0, len(raw) + 1, 2).tolist())
    stop = min(stop, start + 600)
    how = int(rng.integers(0, 4))
    middle = (b"", raw[start:stop] * 2, rng.bytes(stop - start), bytes(stop - start))[how]
    return raw[:start] + middle + raw[stop:]


class Endless:
    """A file that is made while it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def _fill(self, size: int) -> None:
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece

    def read(self, size: int) -> bytes:
        self._fill(size)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def readline(self, limit: int) -> bytes:
        self._fill(limit)
        return self.read(min(limit, self._rest.find(b"\n") + 1))


def streamed(form: int, count: int, *, trace: bool = True) -> int:
    """Read so many records; return the most memory that was used meanwhile, if it is traced."""
    file: Any = Endless(form_1(count) if form == 1 else form_2(count))
    if trace:
        tracemalloc.start()
    found = last = 0
    for batch in Reader(file, check=False):
        found += len(batch)
        last = int(batch.records["sequence"][-1])
    peak = tracemalloc.get_traced_memory()[1] if trace else 0
    tracemalloc.stop()
    assert (found, last) == (count, count)
    return peak


AT_ONCE = 20_000


def form_1(count: int) -> Iterator[bytes]:
    yield b"pympi audit 1\n"
    made = make.records(AT_ONCE)
    for _ in range(count // AT_ONCE):
        yield make.frame_1(b"RECS", made.tobytes())
        made["sequence"] += np.uint64(AT_ONCE)


def form_2(count: int) -> Iterator[bytes]:
    """With roots that are wrong: they are not checked."""
    yield make.HEADER
    previous = make.digest(make.HEADER)
    file = previous[:16]
    made = make.records(AT_ONCE)
    frame = FRAME.pack(b"RECS", made.nbytes)
    for number in range(1, count // AT_ONCE + 1):
        first, last = made["sequence"][[0, -1]].tolist()
        block = Block(
            make.MAGIC, file, number, 8 + made.nbytes, 0, 0, AT_ONCE, first, last, previous,
            bytes(32), bytes(32), bytes(32),
        ).sealed(None)  # fmt: skip
        previous = block.hash
        yield block.packed() + frame + made.tobytes()
        made["sequence"] += np.uint64(AT_ONCE)
