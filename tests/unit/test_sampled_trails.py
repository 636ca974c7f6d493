# SPDX-License-Identifier: BSD-2-Clause
"""Trails that were sampled: what counts records counts for how many they stand, and says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import audit_files as make
import numpy as np
import pytest

from pympi import Kernel, SimulatedClock, audit
from pympi.audit import RECORD, Batch, batches, sampling
from pympi.audit.calibrate import calibrate, samplings_of
from pympi.audit.sampling import TOLD, told
from pympi.audit.stats import stats
from pympi.cli import main
from pympi.enums import Operation
from pympi.policy.author.certificate import CertificateError, check
from pympi.policy.author.learn import learn
from pympi.policy.author.recording import read_recording
from pympi.policy.te import TypeEnforcement
from pympi.report import gather, page
from pympi.report.tally import Tally
from pympi.trace.graph import Graph, from_audit

SYSTEM = """
(user u) (role r) (userrole u r) (type app) (type srv) (roletype r app) (roletype r srv)
(allow app srv (mach_port (send copy_send hold_send)))
(allow srv srv (mach_port (make_send use_recv))) (allow srv app (mach_port (recv)))
"""
MESSAGES = 3000


def run(path: Path, messages: int = MESSAGES, one_in: int = 0) -> list[Batch]:
    """Send messages of 4 bytes; return what was recorded of them, which is in the file too."""
    recorded: list[Batch] = []
    policy, clock = TypeEnforcement.from_text(SYSTEM), SimulatedClock()
    with Kernel(policies=[policy], clock=clock) as kernel:
        kernel.audit.everything()
        kernel.audit.attach(audit.File(path), when_full="block")
        kernel.audit.attach(recorded.append, when_full="block")
        if one_in:
            kernel.audit.sample(one_in=one_in, seed=7)
        inbox = kernel.create_task("server", label="te/u:r:srv").allocate_port()
        right = inbox.make_send(kernel.create_task("client", label="te/u:r:app"))
        for _ in range(messages):
            right.send(b"page", msgh_id=5)
            inbox.receive()
            clock.advance(0.001)
    return recorded


def thinned(recorded: list[Batch]) -> list[Batch]:
    """Of sends and of receives keep one each, which stands for all."""
    records = np.concatenate([batch.records for batch in recorded])
    kept = [records[~np.isin(records["operation"], (Operation.SEND, Operation.RECEIVE))]]
    for operation in (Operation.SEND, Operation.RECEIVE):
        these = records[records["operation"] == operation]
        these["flags"] |= np.uint32(len(these) << 16)
        kept.append(these[:1])
    return [replace(recorded[0], records=np.concatenate(kept))]


def counts(graph: Graph) -> list[object]:
    return [
        (e.source, e.target, e.events, e.methods, e.bytes, e.replies, e.transfers, e.asks)
        for e in graph.edges
    ]


# ---- what stands for all is counted as all ----


def test_a_graph_of_weights_is_that_of_everything(tmp_path: Path) -> None:
    everything = run(tmp_path / "all", 20)
    whole, few = from_audit(everything), from_audit(thinned(everything))
    assert counts(few) == counts(whole)
    assert [node.own for node in few.nodes] == [node.own for node in whole.nodes]
    assert whole.notes == []
    assert few.notes == ["2 records were sampled by chance: counts are estimates"]


def test_a_report_of_weights_is_that_of_everything(tmp_path: Path) -> None:
    everything, whole, few = run(tmp_path / "all", 20), Tally(), Tally()
    for batch in everything:
        whole.add(batch)
    few.add(*thinned(everything))
    assert (few.messages, int(few.rates.sent.sum())) == (20, 20)
    assert (whole.messages, int(whole.rates.sent.sum())) == (20, 20)
    assert (few.sampled, whole.sampled) == (2, 0)


def test_a_policy_learned_from_weights_is_that_of_everything(tmp_path: Path) -> None:
    everything = run(tmp_path / "all", 20)
    with audit.File(tmp_path / "few") as file:
        for batch in thinned(everything):
            file(batch)
    whole, few = learn([tmp_path / "all"]), learn([tmp_path / "few"])
    assert few.recorded == whole.recorded
    assert [each.sampled for each in (*few.recordings, *whole.recordings)] == [2, 0]
    assert "sampled" not in whole.certificate


# ---- what chance left of a run ----


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    run(tmp_path / "run.audit", one_in=10)
    return tmp_path / "run.audit"


def test_estimates_are_near_the_truth(sampled: Path) -> None:
    with sampled.open("rb") as file:
        graph = from_audit(audit.Reader(file))
    assert 0.8 * MESSAGES < graph.edges[0].messages < 1.2 * MESSAGES
    assert graph.edges[0].bytes == 4 * graph.edges[0].messages
    found = gather(sampled.parent)
    assert found.tally is not None
    assert found.tally.messages == graph.edges[0].messages
    assert found.tally.missing == 0
    assert b"messages, estimated" in page(found)


def test_the_certificate_is_of_estimates_and_holds(sampled: Path) -> None:
    one = learn([sampled])
    assert check(one.text.encode(), one.certificate.encode(), [sampled]) == len(one.grants)
    claims = json.loads(one.certificate)
    assert claims["recordings"][0]["sampled"] == read_recording(sampled).sampled > 100
    assert max(row[-1] for row in claims["recorded"]) > 0.8 * MESSAGES
    del claims["recordings"][0]["sampled"]
    with pytest.raises(CertificateError, match="recordings"):
        check(one.text.encode(), json.dumps(claims).encode(), [sampled])


@pytest.mark.parametrize(
    "verb",
    [["policy", "learn"], ["trace", "summary"], ["trace", "timeline"], ["trace", "sequence"]],
)
def test_tools_say_that_a_trail_was_sampled(
    sampled: Path, verb: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb, str(sampled)]) == 0
    assert "was sampled by chance" in capfd.readouterr().err
    run(sampled, 20)
    assert main([*verb, str(sampled)]) == 0
    assert "sampled" not in capfd.readouterr().err


# ---- strata, which a file is told of ----


class Log:
    """A sink that notes what it is called for."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.strata_told: list[dict[str, Any]] = []

    def __call__(self, batch: Batch) -> None:
        self.order.append("batch")

    def strata(self, strata: dict[str, Any]) -> None:
        self.order.append("strata")
        self.strata_told.append(strata)

    def close(self) -> None:
        self.order.append("close")


def counted(path: Path) -> dict[str, Any]:
    found = stats(batches([path]))
    calibrate(found, samplings_of([path]), batches([path]))
    return {
        "all": found.total, "messages": found.messages, "bytes": found.size,
        **{name: tally.totals for name, tally in found.tallies.items()},
    }  # fmt: skip


def test_with_strata_what_follows_from_them_is_exact(sampled: Path, tmp_path: Path) -> None:
    run(tmp_path / "all")
    whole, few = counted(tmp_path / "all"), counted(sampled)
    for name in ("operations", "outcomes", "classes", "results", "pairs"):
        assert {k: t.weight for k, t in few[name].items()} == {
            k: t.weight for k, t in whole[name].items()
        }
        assert all(total.exact for total in few[name].values())
    for name in ("all", "messages", "bytes"):
        assert (few[name].weight, few[name].exact) == (whole[name].weight, True)
        assert few[name].records < whole[name].records / 5
    assert not all(total.exact for total in few["tasks"].values())


@pytest.mark.parametrize("before", [0, 3])
def test_bytes_are_those_of_the_strata(tmp_path: Path, before: int) -> None:
    """Sizes differ, so that no weights give their sum; what was sent before leaves an estimate."""
    path, clock = tmp_path / "run.audit", SimulatedClock()
    with Kernel(clock=clock) as kernel:
        kernel.audit.select("granted", "mach_port", "send")
        kernel.audit.attach(audit.File(path), when_full="block")
        inbox = kernel.create_task("server").allocate_port()
        right = inbox.make_send(kernel.create_task("client"))
        for number in range(before + 1000):
            if number == before:
                kernel.audit.sample(one_in=10, seed=1)
            right.send(b"x" * (number % 97))
            inbox.receive()
            clock.advance(0.001)
    size = counted(path)["bytes"]
    truth = sum(number % 97 for number in range(before + 1000))
    assert size.exact is (before == 0)
    assert abs(size.weight - truth) <= (3 * size.half if before else 0)


def test_a_reader_has_the_last_word_on_each_sampling(sampled: Path) -> None:
    with sampled.open("rb") as file:
        reader = audit.Reader(file)
        assert sum(map(len, reader)) == reader.strata["kept"]
    assert reader.strata["seen"] == 2 * MESSAGES + 2
    assert reader.samplings == [reader.strata]
    [send, receive] = ([*zip(TOLD, row, strict=True)] for row in reader.strata["rows"])
    assert {("operation", "send"), ("seen", MESSAGES), ("asked", "send copy_send")} <= {*send}
    assert {("operation", "receive"), ("peer", "te/u:r:app")} <= {*receive}


def figures(path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["audit", "stats", str(path), "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_parquet_tells_of_strata_as_an_audit_file_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    binary, parquet = tmp_path / "run.audit", tmp_path / "run.parquet"
    with Kernel(clock=SimulatedClock()) as kernel:
        for sink in (audit.File(binary), audit.Parquet(parquet)):
            kernel.audit.attach(sink, when_full="block")
        kernel.audit.everything()
        inbox = kernel.create_task("server").allocate_port(qlimit=1024)
        right = inbox.make_send(kernel.create_task("client"))
        for one_in in (10, 7):
            kernel.audit.sample(one_in=one_in, seed=7)
            for _ in range(2):
                for _ in range(200):
                    right.send(b"page")
                kernel.audit.flush()
        kernel.audit.sample(one_in=60_000, seed=7)
        right.send(b"page")
        kernel.audit.flush()
        right.send(b"page")  # of this one there is no record, only that it was
    assert [len(batch) for batch in batches(sorted(parquet.iterdir())[-1])] == []
    exported = tmp_path / "exported.parquet"
    assert (
        main(["audit", "export", str(binary), "--format", "parquet", "--out", str(exported)]) == 0
    )
    found = figures(binary, capsys)
    assert (found["messages"], "messages_low" in found) == (802, False)
    for other in (parquet, exported):
        assert {**figures(other, capsys), "runs": 1} == {**found, "runs": 1}
    some = tmp_path / "some.parquet"
    command = [
        "audit",
        "export",
        str(binary),
        "size=4..",
        "--format",
        "parquet",
        "--out",
        str(some),
    ]
    assert main(command) == 0
    assert "with filters, what was counted of it is left out" in capsys.readouterr().err
    assert "messages_low" in figures(some, capsys)


@pytest.mark.parametrize("said", [b"[", b"{}", b"[7]", b'[{"rows": 7}]', b"[" * 99_999, b"\xff"])
def test_parquet_may_say_anything_of_strata(tmp_path: Path, said: bytes) -> None:
    pytest.importorskip("pyarrow")
    from pympi.audit import arrow

    path = tmp_path / "run.parquet"
    with path.open("wb") as file:
        writer = arrow.ParquetWriter(file)
        for batch in thinned(run(tmp_path / "all", 20)):
            writer(batch)
        writer._writer.add_key_value_metadata({"pympi.strata": said})
        writer.close()
    assert not counted(path)["all"].exact


@pytest.mark.parametrize("spoil", ["late", "lost", "twice"])
def test_strata_that_are_not_whole_leave_estimates(tmp_path: Path, spoil: str) -> None:
    path, clock = tmp_path / "run.audit", SimulatedClock()
    pieces: list[Batch] = []
    with Kernel(clock=clock) as kernel:
        kernel.audit.select("granted", "mach_port", "send")
        kernel.audit.sample(one_in=10, seed=1)
        inbox = kernel.create_task("server").allocate_port()
        right = inbox.make_send(kernel.create_task("client"))
        if spoil != "late":
            kernel.audit.attach(audit.File(path) if spoil != "lost" else pieces.append)
        for at in range(1000):
            clock.advance(0.001)
            if at == 500:
                kernel.audit.drain()
                if spoil == "late":
                    kernel.audit.attach(audit.File(path))
                elif spoil == "twice":
                    kernel.audit.sample(one_in=7, seed=1)
            right.send(b"")
            inbox.receive()
        kernel.audit.flush()
        strata = told(kernel.audit.strata(), 1, "")
    if spoil == "lost":
        with audit.File(path) as file:
            for batch in pieces:
                file(batch.part(batch.records["sequence"] % 10 != 3))
            file.strata(strata)
    total = counted(path)["all"]
    assert total.exact is (spoil == "twice")
    assert total.weight == 1000 if total.exact else total.half > 0


def test_a_file_may_say_anything_of_strata(tmp_path: Path) -> None:
    few = thinned(run(tmp_path / "all", 20))
    row = ["te/u:r:app", "te/u:r:srv", "-", "mach_port", "send copy_send", "send", 0]
    good = {"sampling": 1, "by_message": False, "columns": [*TOLD]}
    for said in (
        {}, {"rows": 7}, {**good, "rows": [[]]}, {**good, "rows": [[*row, 1, 2, 0, 0]]},
        {**good, "rows": [[*row, -5, 2, 0, 0]]}, {**good, "rows": [[*row, 1 << 80, 2, 0, 0]]},
        {**good, "rows": [[*row, 99, 0, 0, 0]]}, {**good, "columns": [], "rows": []},
    ):  # fmt: skip
        with audit.File(tmp_path / "few") as file:
            for batch in few:
                file(batch)
            file.strata(said)
        assert not counted(tmp_path / "few")["all"].exact


def test_sinks_are_told_at_flush_detach_and_the_end() -> None:
    sink_log = Log()
    with Kernel() as kernel:
        kernel.audit.everything()
        kernel.audit.attach(sink_log)
        kernel.audit.flush()
        assert sink_log.strata_told == []
        kernel.audit.sample(one_in=2)
        inbox = kernel.create_task("server").allocate_port()
        right = inbox.make_send(kernel.create_task("client"))
        right.send(b"")
        kernel.audit.flush()
        kernel.audit.flush()
        assert [told["seen"] for told in sink_log.strata_told] == [3]
        inbox.receive()
        kernel.audit.detach(sink_log)
        assert [told["seen"] for told in sink_log.strata_told] == [3, 4]
        kernel.audit.attach(sink_log)
        right.send(b"")
    assert [told["seen"] for told in sink_log.strata_told][-1] == 5
    assert sink_log.order[-2:] == ["strata", "close"]


def test_what_is_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with Kernel() as kernel:
        kernel.audit.select("granted", "mach_port", "send")
        kernel.audit.sample(one_in=2, by_message=True)
        inbox = kernel.create_task("server").allocate_port()
        right = inbox.make_send(kernel.create_task("client"))
        for number in (1, 2, 2, 3):
            right.send(b"", msgh_id=number)
        monkeypatch.setattr(sampling, "_MOST_TOLD", 2)
        said = told(kernel.audit.strata(), 1, "")
        assert [row[TOLD.index("msgh_id")] for row in said["rows"]] == [2, 1]
        assert said["left_out"] == 1
        monkeypatch.setattr(sampling, "_MOST_LETTERS", 2)
        assert told(kernel.audit.strata(), 1, "")["left_out"] == 3


def test_stats_say_what_is_exact(sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "stats", str(sampled)]) == 0
    out = capsys.readouterr().out
    assert f"that stand for {2 * MESSAGES + 2:,}," in out
    assert f"{MESSAGES:,} messages sent" in out
    assert "What has ± is estimated, with its 95 % interval; the rest is exact." in out
    assert main(["audit", "stats", str(sampled), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["messages"] == MESSAGES
    assert "messages_low" not in found
    assert found["estimate"] == found["low"] == found["high"] == 2 * MESSAGES + 2
    assert main(["audit", "stats", str(sampled), "operation=send", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["messages_low"] < MESSAGES < found["messages_high"]


def test_very_many_different_strata() -> None:
    """As many as there are records, in each of five columns: the product is more than 64 bits."""
    count = 20_000
    records = make.records(count, flags=2 << 16)
    rng = np.random.default_rng(1)
    for field in ("effective_sid", "object_sid", "peer_sid", "asked", "msgh_id"):
        records[field] = rng.permutation(count) + 1
    found = stats([Batch(records, {}, {}, {})]).by_chance.totals
    pairs = {(subject, target, msgh_id) for subject, target, *_, msgh_id in found}
    sids = records[["effective_sid", "object_sid", "msgh_id"]].tolist()
    assert pairs == {(f"sid:{a}", f"sid:{b}", c) for a, b, c in sids}


def test_more_combinations_than_a_number_tells_apart() -> None:
    """Seven columns of 4096 different things each."""
    count = 4096
    records, each = np.zeros(count, RECORD), np.arange(1, count + 1)
    for name in ("effective_sid", "object_sid", "peer_sid", "asked", "msgh_id"):
        records[name] = each
    records["tclass"] = each + 100
    records["operation"] = 1 + each % 2
    records["flags"] = 7 << 16
    tally = stats([Batch(records, {}, {}, {})]).by_chance
    assert len(tally.totals) == count
    for label, other, peer, tclass, _, operation, message in tally.totals:
        assert label == other == peer == f"sid:{message}"
        assert (tclass, operation) == (f"class:{message + 100}", ("send", "receive")[message % 2])
    assert {total.weight for total in tally.totals.values()} == {7}
