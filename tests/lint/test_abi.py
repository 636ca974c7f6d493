# SPDX-License-Identifier: BSD-2-Clause
"""The binary interface does not change while its number stays: abi.txt is what it was."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
BEFORE = ["PM_ABI_VERSION = 7", "struct a: 8 bytes", "struct a.x at 0: int", "pm_f: int(*)(int)"]


@pytest.fixture(scope="module")
def abi() -> SimpleNamespace:
    """What tools/abi.py defines."""
    pytest.importorskip("pympi._core")
    return SimpleNamespace(**runpy.run_path(str(ROOT / "tools" / "abi.py")))


@pytest.mark.skipif(sys.maxsize < 2**32, reason="abi.txt is of machines with 64 bits")
def test_interface_is_the_recorded_one(abi: SimpleNamespace) -> None:
    recorded, now = abi.FILE.read_text(encoding="utf-8").splitlines(), abi.lines()
    broken = abi.breaks(recorded, now)
    assert not broken, f"raise PM_ABI_VERSION in csrc/pympi.h, then `make abi`; changed: {broken}"
    gone, new = abi.differences(recorded, now)
    assert [*gone, *new] == [], "`make abi` records this"


@pytest.mark.parametrize(
    "line", ["struct a: 16 bytes", "struct a.x at 4: int", "pm_f: int(*)(long)"]
)
def test_a_change_is_found(abi: SimpleNamespace, line: str) -> None:
    subject = line.split(":", maxsplit=1)[0].split(" at")[0]
    changed = [line if known.startswith(subject) else known for known in BEFORE]
    assert abi.breaks(BEFORE, changed)
    assert not abi.breaks(BEFORE, ["PM_ABI_VERSION = 8", *changed[1:]])


def test_what_is_gone_is_a_change_and_what_is_new_is_not(abi: SimpleNamespace) -> None:
    assert abi.breaks(BEFORE, BEFORE[:-1]) == BEFORE[-1:]
    assert not abi.breaks(BEFORE, [*BEFORE, "pm_g: int(*)(int)"])


def test_nothing_is_recorded_that_would_break(
    abi: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "abi.txt"
    old.write_text("\n".join([*abi.lines(), "pm_gone: int(*)(int)"]))
    abi.main.__globals__["FILE"] = old
    assert abi.main(["--record"]) == 1
    assert "raise PM_ABI_VERSION" in capsys.readouterr().out
    assert "pm_gone" in old.read_text()
    assert abi.main(["--record", "--unreleased"]) == 0
    assert old.read_text().splitlines() == abi.lines()
