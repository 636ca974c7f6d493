# SPDX-License-Identifier: BSD-2-Clause
"""Every example in the README and in docs/ does what the page says: see pages.py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNNER = Path(__file__).with_name("pages.py")
EXAMPLE = re.compile(r"^```(python|console)\n", re.MULTILINE)
WITH_EXAMPLES = [page for page in PAGES if EXAMPLE.search(page.read_text())]
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)  # a lambda of C++ looks like a link


NEEDS = {"audit-tools.md": ("pyarrow", "duckdb"), "simulation.md": ("simpy",)}
"""Packages that the examples of a page need, and that a default installation does not have."""


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path) -> None:
    for package in NEEDS.get(page.name, ()):
        pytest.importorskip(package, reason=f"no {package} here")
    if "--out graph.svg" in page.read_text() and not shutil.which("dot"):
        pytest.skip("no Graphviz here")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(RUNNER), str(page)], cwd=tmp_path, capture_output=True,
        text=True, timeout=120, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 0, f"{page.name}: the line numbers are the page's\n{done.stderr}"


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```console\n$ pympi policy\n...\nnothing\n```\n", "is not"),
        ("```console\n$ pympi --version\nsomething else\n```\n", "is not"),
        ("```console\n$ pympi nonsense\n```\n", "No such command 'nonsense'"),
        ("\n```python\nassert not 1\n```\n", 'page.md", line 3'),
    ],
)
def test_what_is_not_so_is_found(page: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(page)
    done = subprocess.run(
        [sys.executable, str(RUNNER), "page.md"], cwd=tmp_path, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert complaint in done.stderr


def test_files_and_exit_codes(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "```cil\n; a.cil\n(type a_t)\n```\n```console\n$ cat a.cil\n; a.cil\n(type a_t)\n```\n"
        "```console\n$ pympi nonsense\nUsage: pympi [OPTIONS] COMMAND [ARGS]...\n"
        "Try 'pympi --help' for help.\n\npympi: No such command 'nonsense'.\n[exit code 2]\n```\n"
        "```console\n$ pympi --help\nUsage: pympi [OPTIONS] COMMAND [ARGS]...\n...\n```\n"
        "```console\n$ cat docs/graph.rules\n...\noption ignore ^names$\n...\n```\n"
    )
    done = subprocess.run(
        [sys.executable, str(RUNNER), "page.md"], cwd=tmp_path, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a.cil").read_text() == "; a.cil\n(type a_t)\n"


COMMAND = re.compile(r"^ {4,}(?:\$ )?pympi (?!trace 1:|audit 2)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_to_be_typed_is_run(page: Path) -> None:
    """Indented examples are not; they stand in a block ```console, with what they print."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not COMMAND.findall(text)


def test_the_tutorial_can_be_begun_with(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "policy.md").read_text()
    (tutorial,) = re.findall(r"^## Tutorial.*?(?=^## )", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "tutorial.md").write_text(tutorial)
    done = subprocess.run(
        [sys.executable, str(RUNNER), "tutorial.md"], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_programs_in_the_background_end_with_the_page(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "```console\n$ python examples/live_system.py --socket run/control &\n"
        "Ask at run/control, for 60 seconds.\n$ pympi --version\nsomething else\n```\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(RUNNER), "page.md"], cwd=tmp_path, capture_output=True,
        text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "is not\nsomething else" in done.stderr
    assert (tmp_path / "run").is_dir()


@pytest.mark.parametrize("name", ["courier", "proxy"])
def test_examples_are_shown(name: str) -> None:
    """What they print stands in a page, where `test_examples_run` compares it."""
    shown = [page.name for page in PAGES if f"$ python examples/{name}.py\n" in page.read_text()]
    assert shown == ["policy.md"]
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) < 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(BLOCK.sub("", page.read_text())):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_list_of_hooks_is_up_to_date() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "hooks.py")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert made == (ROOT / "docs" / "hooks.md").read_text(), (
        "run: python tools/hooks.py > docs/hooks.md"
    )
