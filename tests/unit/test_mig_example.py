# SPDX-License-Identifier: BSD-2-Clause
"""examples/printing.py does what it says."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from pympi.mig import Interface
from pympi.policy.cil import compile_policy

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "printing.py"


def test_the_protected_routine_is_refused_before_it_reaches_the_server(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printer = runpy.run_path(str(EXAMPLE))["main"]()
    assert printer.calls == ["print_page", "print_page", "set_default"]
    lines = capsys.readouterr().out.splitlines()
    (audit,) = [line for line in lines if line.startswith("audit: ")]
    assert audit == (
        "audit: te/system_u:system_r:editor_t method mi_printing { set_default } msgh_id=1202 "
        "MACH_SEND_MSG_FILTERED"
    )
    assert "editor: job 100" in lines
    assert "admin: queued are (100, 101)" in lines
    assert any("editor: " in line and "no set_default on mi_printing" in line for line in lines)


def test_selinux_takes_the_classes(tmp_path: Path) -> None:
    """With the order that `te` needs not be told, beside a policy that has classes of its own."""
    secilc = shutil.which("secilc")
    if secilc is None:
        pytest.skip("no secilc to ask")
    many = Interface("many", 100, [f"r{i}" if i != 3 else None for i in range(40)])
    policy, classes = tmp_path / "policy.cil", tmp_path / "classes.cil"
    policy.write_text(compile_policy([("x", "(type a_t) (roletype system_r a_t)")]).text)
    classes.write_text(many.cil(order=True) + "(allow a_t a_t (mi_many_2 (r35 ioctl)))\n")
    outputs = ["-o", str(tmp_path / "out"), "-f", str(tmp_path / "contexts")]
    command = [secilc, *outputs, str(policy), str(classes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
