# SPDX-License-Identifier: BSD-2-Clause
"""Packages import what they export when it is asked for; each place that names it says the same."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import pympi
import pympi.audit
import pympi.policy
import pympi.trace

PACKAGES = [pympi, pympi.audit, pympi.policy, pympi.trace]
packages = pytest.mark.parametrize("package", PACKAGES, ids=lambda each: each.__name__)


def imports(package: ModuleType) -> Iterator[tuple[str, str, bool]]:
    """Yield the names in a package, where they come from, and whether checkers alone see that."""
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    unseen = [node for each in tree.body if isinstance(each, ast.If) for node in each.body]
    for node in [*tree.body, *unseen]:
        if isinstance(node, ast.ImportFrom) and node.level:
            parent = package.__name__.rsplit(".", node.level - 1)[0]
            home = f"{parent}.{node.module}" if node.module else parent
            yield from ((alias.name, home, node in unseen) for alias in node.names)


def loaded(code: str) -> set[str]:
    """Return the modules that a fresh Python has loaded after some code."""
    show = "import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@packages
def test_what_is_exported_is_what_type_checkers_see(package: ModuleType) -> None:
    seen = {name for name, _, _ in imports(package)} - {"lazily", "TYPE_CHECKING"}
    assert sorted(seen) == sorted(package.__all__)


@packages
def test_names_come_from_where_type_checkers_see_them(package: ModuleType) -> None:
    for name, home, _ in imports(package):
        module = importlib.import_module(home)
        if module is package:  # the name is a module's
            assert getattr(package, name) is importlib.import_module(f"{home}.{name}")
        else:
            assert getattr(package, name) is vars(module)[name], name


@packages
def test_no_lazy_name_is_that_of_a_module(package: ModuleType) -> None:
    modules = {path.stem for path in Path(str(package.__file__)).parent.iterdir()}
    lazy = {name for name, home, late in imports(package) if late and home != package.__name__}
    assert lazy
    assert not lazy & modules


@packages
def test_dir_has_what_is_not_imported_yet(package: ModuleType) -> None:
    code = f"import {package.__name__} as p; assert set(p.__all__) <= set(dir(p))"
    assert package.__name__ in loaded(code)


@packages
def test_unknown_names(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=rf"'{package.__name__}' has no attribute 'Kernal'"):
        getattr(package, "Kernal")  # noqa: B009
    with pytest.raises(AttributeError, match="__wrapped__"):
        getattr(package, "__wrapped__")  # noqa: B009
    assert not hasattr(package, "_no_such_module")


def test_modules_are_attributes() -> None:
    assert "pympi.policy.te" in loaded("import pympi; pympi.policy.te.TypeEnforcement")
    assert "pympi.kernel" in loaded("import pympi; pympi.kernel.Kernel")


def test_a_module_that_lacks_something_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pympi, "__path__", [*pympi.__path__, str(tmp_path)])
    (tmp_path / "broken.py").write_text("import no_such_module", encoding="utf-8")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        getattr(pympi, "broken")  # noqa: B009


def test_everything_at_once() -> None:
    assert "pympi.kernel" in loaded("from pympi import *; Kernel, policy, mach")


def test_a_kernel_needs_no_more_than_it_uses() -> None:
    spared = {"asyncio", "msgspec", "pympi.audit", "pympi.mig", "pympi.mach", "pympi.policy.te"}
    assert loaded("from pympi import Kernel; Kernel().close()") & spared == set()


HEAVY = {"numpy", "asyncio", "rich", "msgspec", "pympi.kernel", "pympi.audit", "pympi.mig"}


@pytest.mark.parametrize(
    "words",
    [["--version"], ["--help"], ["policy", "--help"], ["policy", "query", "--source", "editor_t"],
     ["policy", "flow", "editor_t", "printd_t"], ["policy", "check", "--help"],
     ["audit", "--help"]],
    ids=" ".join,
)  # fmt: skip
def test_verbs_import_what_they_use(words: list[str]) -> None:
    code = f"from pympi.cli import main; main({words})"
    assert loaded(code) & HEAVY == set()
