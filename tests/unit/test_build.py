# SPDX-License-Identifier: BSD-2-Clause
"""The build: what a machine lacks is said in one line, and glue is made from the header."""

import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from pympi._version import __version__

ROOT = Path(__file__).resolve().parents[2]

HEADER = """
int pm_hidden(int a);
/* cdef-begin */
struct pm_wait { int64_t timeout_ns; int (*interrupted)(void *context); void *context; };
typedef int (*pm_decider)(void *context, size_t count);
typedef int (*pm_handler)(void *context, struct pm_received *received);
int pm_plain(int a);            /* a comment that says "const struct pm_wait *wait);" */
int64_t pm_take(struct pm_task *task, uint32_t names[4],
                const struct pm_wait *wait);
/* cdef-end */
"""


def load(path: str) -> ModuleType:
    """Return the program at `path`, below the checkout, as a module."""
    spec = spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def build_ffi() -> ModuleType:
    return load("csrc/build_ffi.py")


def check_environment(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools/environment.py")],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_missing_compiler_is_one_line_that_says_what_to_install() -> None:
    result = check_environment(CC="no-such-compiler -pthread")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "a C compiler (no-such-compiler)" in result.stderr
    assert "apt install gcc" in result.stderr


def test_all_that_is_missing_is_said_at_once() -> None:
    environment = load("tools/environment.py")
    checks = (lambda: "a C compiler", lambda: None, lambda: "Python.h")
    assert "missing a C compiler, Python.h; on Debian" in environment.complaint(checks)
    assert environment.complaint((lambda: None,)) is None


def test_waiting_functions_get_a_wrapper(build_ffi: ModuleType) -> None:
    public = build_ffi.public_declarations(HEADER)
    declared = build_ffi.declarations(public)
    prototype = (
        r"int64_t pm_block_take\(struct pm_task \*task, uint32_t names\[4\], int64_t timeout_ns\)"
    )
    assert re.search(prototype + ";", declared)
    assert "pm_block_plain" not in declared
    source = build_ffi.source(public)
    assert re.search("static " + prototype + r"\n\{", source)
    assert "pm_take(task, names, NULL)" in source
    assert "pm_take(task, names, &pause.wait)" in source


def test_callbacks_get_a_python_function(build_ffi: ModuleType) -> None:
    declared = build_ffi.declarations(build_ffi.public_declarations(HEADER))
    assert 'extern "Python" int pm_python_decider(void *context, size_t count);' in declared
    assert "pm_python_handler" not in declared  # which callables.h is


def test_what_is_outside_the_marks_is_not_read(build_ffi: ModuleType) -> None:
    assert "pm_hidden" not in build_ffi.public_declarations(HEADER)


@pytest.mark.parametrize("header", ["", "/* cdef-begin */", "/* cdef-end *//* cdef-begin */"])
def test_header_without_marks_is_refused(build_ffi: ModuleType, header: str) -> None:
    with pytest.raises(SystemExit, match="cdef-begin"):
        build_ffi.public_declarations(header)


def test_switches_name_the_build(build_ffi: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYMPI_SANITIZE", *build_ffi.SWITCHES):
        monkeypatch.delenv(name, raising=False)
    assert build_ffi.macros() == [("PM_BUILD", '"release"')]
    monkeypatch.setenv("PYMPI_SANITIZE", "thread")
    monkeypatch.setenv("PYMPI_DEBUG", "1")
    assert build_ffi.macros() == [("PM_BUILD", '"thread debug"'), ("PM_DEBUG", None)]
    assert "-fsanitize=thread" in build_ffi.compile_flags()


def test_version_is_said_once() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"{__version__}"' not in project
    assert 'dynamic = ["version"]' in project
