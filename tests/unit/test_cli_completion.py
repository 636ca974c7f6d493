# SPDX-License-Identifier: BSD-2-Clause
"""pympi completion: the script of each shell; verbs, options and files are completed in bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pympi.cli import cli
from pympi.cli.audit import audit
from pympi.cli.policy import policy

BASH = shutil.which("bash")
HERE = Path(sys.executable).parent
COMPLETE = """
compopt() {{ echo "files: $2"; }}
eval "$(pympi completion bash)"
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_pympi_completion pympi
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(pympi: Callable[..., Any], shell: str) -> None:
    done = pympi("completion", shell)
    assert done.code == 0
    assert f"_PYMPI_COMPLETE={shell}_complete" in done.out


def test_an_unknown_shell(pympi: Callable[..., Any]) -> None:
    assert pympi("completion", "tcsh").code == 2


@pytest.mark.skipif(BASH is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("pympi po", "policy ports"),
        ("pympi bootstrap ''", "dump look-up"),
        ("pympi policy re", "reload"),
        ("pympi audit st", "stats"),
        ("pympi audit print ''", "files: default"),
        ("pympi audit query --sq", "--sql"),
        ("pympi audit export --format ''", "jsonl csv avc parquet"),
        ("pympi ports --at", "--attach"),
        ("pympi completion ''", "bash zsh fish"),
        ("pympi ports ''", "files: default"),
        ("pympi ports --attach ''", "files: default"),
        ("pympi leaks a.snap ''", "files: default"),
        ("pympi diff ''", "files: default"),
    ],
)
def test_bash_completes(words: str, completed: str) -> None:
    done = subprocess.run(
        ["bash", "--norc", "-c", COMPLETE.format(words=words)], capture_output=True, text=True,
        env={**os.environ, "PATH": f"{HERE}:{os.environ['PATH']}"}, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.split("\n")[0] == completed


@pytest.mark.parametrize("verb", [*cli.verbs, *(f"policy {verb}" for verb in policy.verbs),  # type: ignore[attr-defined]
                                  *(f"audit {verb}" for verb in audit.verbs),  # type: ignore[attr-defined]
                                  "bootstrap dump", "bootstrap look-up"])  # fmt: skip
def test_help_fits_a_screen(pympi: Callable[..., Any], verb: str) -> None:
    done = pympi(*verb.split(), "--help")
    assert done.code == 0
    assert [line for line in done.out.splitlines() if len(line) > 80 and "--kind" not in line] == []
