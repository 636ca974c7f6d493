# SPDX-License-Identifier: BSD-2-Clause
"""Trails that were sampled: what counts records counts for how many they stand, and says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pympi import Kernel, SimulatedClock, audit
from pympi.audit import Batch
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
    batches: list[Batch] = []
    policy, clock = TypeEnforcement.from_text(SYSTEM), SimulatedClock()
    with Kernel(policies=[policy], clock=clock) as kernel:
        kernel.audit.everything()
        kernel.audit.attach(audit.File(path), when_full="block")
        kernel.audit.attach(batches.append, when_full="block")
        if one_in:
            kernel.audit.sample(one_in=one_in, seed=7)
        inbox = kernel.create_task("server", label="te/u:r:srv").allocate_port()
        right = inbox.make_send(kernel.create_task("client", label="te/u:r:app"))
        for _ in range(messages):
            right.send(b"page", msgh_id=5)
            inbox.receive()
            clock.advance(0.001)
    return batches


def thinned(batches: list[Batch]) -> list[Batch]:
    """Of sends and of receives keep one each, which stands for all."""
    records = np.concatenate([batch.records for batch in batches])
    kept = [records[~np.isin(records["operation"], (Operation.SEND, Operation.RECEIVE))]]
    for operation in (Operation.SEND, Operation.RECEIVE):
        these = records[records["operation"] == operation]
        these["flags"] |= np.uint32(len(these) << 16)
        kept.append(these[:1])
    return [replace(batches[0], records=np.concatenate(kept))]


def counts(graph: Graph) -> list[object]:
    return [
        (e.source, e.target, e.events, e.methods, e.bytes, e.replies, e.transfers, e.asks)
        for e in graph.edges
    ]


# ---- what stands for all is counted as all ----


def test_a_graph_of_weights_is_that_of_everything(tmp_path: Path) -> None:
    batches = run(tmp_path / "all", 20)
    whole, few = from_audit(batches), from_audit(thinned(batches))
    assert counts(few) == counts(whole)
    assert [node.own for node in few.nodes] == [node.own for node in whole.nodes]
    assert whole.notes == []
    assert few.notes == ["2 records were sampled by chance: counts are estimates"]


def test_a_report_of_weights_is_that_of_everything(tmp_path: Path) -> None:
    batches, whole, few = run(tmp_path / "all", 20), Tally(), Tally()
    for batch in batches:
        whole.add(batch)
    few.add(*thinned(batches))
    assert (few.messages, int(few.rates.sent.sum())) == (20, 20)
    assert (whole.messages, int(whole.rates.sent.sum())) == (20, 20)
    assert (few.sampled, whole.sampled) == (2, 0)


def test_a_policy_learned_from_weights_is_that_of_everything(tmp_path: Path) -> None:
    batches = run(tmp_path / "all", 20)
    with audit.File(tmp_path / "few") as file:
        for batch in thinned(batches):
            file(batch)
    whole, few = learn([tmp_path / "all"]), learn([tmp_path / "few"])
    assert few.recorded == whole.recorded
    [sample], [everything] = few.recordings, whole.recordings
    assert (sample.sampled, everything.sampled) == (2, 0)
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
