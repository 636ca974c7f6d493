# SPDX-License-Identifier: BSD-2-Clause
"""Killed at any moment: the file verifies up to its last durable block, and is continued."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import audit_files as make
import audit_killed
import pytest

from pympi.audit import AuditError, File, Reader, verify

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork()")
PROGRAM = Path(audit_killed.__file__)
# What has to be in the file after a kill: what the system was given, of which a kill takes nothing,
# what the disk has, and what a call has returned for.
PROMISED = {
    "none": ("written",),
    "interval": ("written", "synced"),
    "record": ("written", "synced", "returned"),
}


class Victims:
    """Processes that write, and are killed."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            bufsize=0, env={**os.environ, "PYTHONPATH": str(PROGRAM.parent)},
        )  # fmt: skip

    def kill_one(self, order: str, steps: int) -> dict[str, int]:
        """Have one write; kill it after so many steps. Return what it had said last of each."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{order}\n".encode())
        output = io.BufferedReader(self.process.stdout)  # type: ignore[arg-type]
        last: dict[str, int] = {}
        pid = 0
        while (line := output.readline()) != b"dead\n":
            assert line, "the program died"
            what, number = line.split()
            last[what.decode()] = int(number)
            pid = last.get("pid", 0)
            steps -= 1
            if steps == 0 or (steps < 0 and pid and "killed" not in last):
                last["killed"] = 1
                os.kill(pid, signal.SIGKILL)
        output.detach()
        return last

    def end(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def victims() -> Iterator[Victims]:
    victims = Victims()
    yield victims
    victims.end()


def check_killed(path: Path, promised: int) -> int:
    """Assert that a file has what was promised, in order; return how many bytes are torn."""
    verdict = verify(path, key=audit_killed.KEY)
    assert (verdict.state, verdict.findings) == ("open", [])
    found: list[int] = []
    torn = pytest.raises(AuditError, match="cut off") if verdict.torn else contextlib.nullcontext()
    with torn:
        for batch in Reader(io.BytesIO(path.read_bytes()), str(path)):
            found += batch.records["sequence"].tolist()
    assert found == [*range(1, len(found) + 1)]
    assert len(found) == verdict.records >= promised
    return verdict.torn


def continue_it(path: Path, torn: int) -> None:
    before = path.stat().st_size
    with File(path, key=audit_killed.KEY, append=True) as file:
        file(make.batch(10))
    verdict = verify(path, key=audit_killed.KEY)
    assert verdict.state == "closed"
    beside = path.with_name(f"{path.name}.torn")
    assert (beside.stat().st_size if beside.exists() else 0) == torn
    assert verdict.size > before - torn


def kill(victims: Victims, directory: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(count):
        durability = [*PROMISED][number % 3]
        path = directory / f"{number}.audit"
        said = victims.kill_one(f"{path} {durability} {number}", chance.randrange(2, 120))
        promised = max(said.get(what, 0) for what in PROMISED[durability])
        continue_it(path, check_killed(path, promised))
        path.unlink()


@pytest.mark.timeout(600)
def test_20_kills(victims: Victims, tmp_path: Path) -> None:
    kill(victims, tmp_path, 20, seed=20)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_200_kills(victims: Victims, tmp_path: Path) -> None:
    kill(victims, tmp_path, 200, seed=200)


@pytest.mark.timeout(600)
def test_killed_again_and_again(victims: Victims, tmp_path: Path) -> None:
    """The same file, continued each time: nothing of what was promised is lost on the way."""
    path, chance, records = tmp_path / "run.audit", random.Random(1), 0
    for number in range(8):
        said = victims.kill_one(f"{path} record {number} append", chance.randrange(4, 60))
        verdict = verify(path, key=audit_killed.KEY)
        assert verdict.state == "open"
        assert verdict.records >= records + max(said.get(w, 0) for w in PROMISED["record"])
        records = verdict.records


@pytest.mark.timeout(600)
@pytest.mark.parametrize("durability", [*PROMISED])
def test_a_kernel_whose_process_is_killed(
    victims: Victims, tmp_path: Path, durability: str
) -> None:
    """With "record", every operation that has returned is in the file."""
    chance, returned = random.Random(durability), 0
    for number in range(4):
        path = tmp_path / f"{number}.audit"
        said = victims.kill_one(f"{path} {durability} 0 kernel", chance.randrange(40, 150))
        returned += said.get("returned", 0)
        verdict = verify(path, key=audit_killed.KEY)
        assert (verdict.state, verdict.findings, verdict.missing) == ("open", [], 0)
        assert verdict.last >= max(said.get(what, 0) for what in ("written", "synced"))
        raw = path.read_bytes()[: verdict.end]
        sent = [r.msgh_id for b in Reader(io.BytesIO(raw)) for r in b if r.operation == "send"]
        assert sent == [*range(1, len(sent) + 1)]
        assert durability != "record" or len(sent) >= said.get("returned", 0)
    assert returned
