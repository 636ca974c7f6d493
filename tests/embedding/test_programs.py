# SPDX-License-Identifier: BSD-2-Clause
"""Programs in C find the core by `pympi config`, by pkg-config and by CMake, wherever it lies."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from embedding.building import (
    PROGRAMS,
    compiled,
    environment,
    need,
    run,
)

import pympi
from pympi import embedding
from pympi._ffi import lib
from pympi.cli import main

HELLO = PROGRAMS / "hello.c"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """The prefix, moved to another place, with a blank in its name."""
    return Path(shutil.copytree(pympi.embedding.get_prefix(), tmp_path / "moved away"))


def test_what_is_installed() -> None:
    include = Path(pympi.get_include())
    assert (include / "pympi.h").is_file()
    assert (include / "pympi.hpp").is_file()
    assert Path(pympi.get_library()).is_file()
    assert (Path(embedding.get_cmake_dir()) / "pympi-config.cmake").is_file()
    assert (Path(embedding.get_pkgconfig_dir()) / "pympi.pc").is_file()


def test_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "__file__", str(tmp_path / "embedding.py"))
    with pytest.raises(FileNotFoundError, match="pympi is not built; run `pip install`"):
        pympi.get_include()


def test_config_prints_what_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--include", "--library"]) == 0
    assert capsys.readouterr().out == f"{pympi.get_include()} {pympi.get_library()}\n"
    assert main(["config", "--cflags", "--libs"]) == 0
    assert shlex.split(capsys.readouterr().out)[0] == f"-I{pympi.get_include()}"


def test_python_m_pympi() -> None:
    printed = run(sys.executable, "-m", "pympi", "config", "--cmakedir")
    assert printed == f"{embedding.get_cmake_dir()}\n"


def test_the_program_of_a_c_compiler(tmp_path: Path) -> None:
    assert run(compiled(HELLO, tmp_path / "hello")) == "hello\n"


def test_pkg_config_wherever_the_package_lies(tmp_path: Path, moved: Path) -> None:
    asked = [need("pkg-config"), "--cflags", "--libs", "pympi"]
    found = run(*asked, env=environment(PKG_CONFIG_PATH=str(moved / "lib" / "pkgconfig")))
    assert embedding.get_prefix() not in found
    run(need("gcc"), HELLO, "-o", tmp_path / "hello", *shlex.split(found))
    assert run(tmp_path / "hello") == "hello\n"


@pytest.mark.parametrize("program", ["hello.c"])
def test_cmake_wherever_the_package_lies(program: str, tmp_path: Path, moved: Path) -> None:
    cmake, build = need("cmake"), tmp_path / "build"
    need("g++")
    run(cmake, "-S", PROGRAMS, "-B", build, f"-DCMAKE_PREFIX_PATH={moved}", f"-DPROGRAM={program}")
    run(cmake, "--build", build)
    assert run(build / "program") == "hello\n"


def test_cmake_refuses_another_version(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.15)\nproject(newer LANGUAGES NONE)\n"
        "find_package(pympi 99 CONFIG REQUIRED)\n"
    )
    where = f"-Dpympi_DIR={embedding.get_cmake_dir()}"
    done = subprocess.run(
        [need("cmake"), "-S", tmp_path, "-B", tmp_path / "build", where],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert 'compatible with requested version "99"' in " ".join(done.stderr.split())


def other_header(directory: Path) -> Path:
    """Copy the headers to a directory, as those of the next version of the interface."""
    headers = Path(shutil.copytree(pympi.get_include(), directory / "include"))
    text = (headers / "pympi.h").read_text()
    now, then = (f"#define PM_ABI_VERSION {lib.PM_ABI_VERSION + i} " for i in (0, 1))
    assert now in text
    (headers / "pympi.h").write_text(text.replace(now, then))
    return headers


def test_c_with_another_header_is_refused(tmp_path: Path) -> None:
    headers = other_header(tmp_path)
    where = Path(pympi.get_library()).parent
    run(
        need("gcc"), f"-I{headers}", HELLO, "-o", tmp_path / "hello",
        f"-L{where}", "-lpympi", f"-Wl,-rpath,{where}",
    )  # fmt: skip
    done = subprocess.run([tmp_path / "hello"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    now = lib.PM_ABI_VERSION
    assert f"this program is for version {now + 1}, the library has {now}" in done.stderr
    assert "kernel: 0x70000003" in done.stderr


def test_python_with_another_library_is_refused(tmp_path: Path) -> None:
    """A library that is found first, and is another: the import says so, and calls nothing."""
    source = tmp_path / "other.c"
    source.write_text("unsigned pm_abi_version(void) { return 4711; }\n")
    run(need("gcc"), "-shared", "-fPIC", source, "-o", tmp_path / "other.so")
    done = subprocess.run(
        [sys.executable, "-c", "from pympi import Kernel"], capture_output=True, text=True,
        env=environment(LD_PRELOAD=str(tmp_path / "other.so")), check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert (
        f"ImportError: pympi's module was compiled for version {lib.PM_ABI_VERSION} of the core's "
        "interface, and the library it found has version 4711"
    ) in done.stderr


@pytest.mark.parametrize(
    ("program", "flags", "printed"),
    [("tour.cpp", (), "all is well\n"), ("codes.cpp", ("-fno-exceptions",), "hello\n")],
)
def test_the_program_of_a_cpp_compiler(
    program: str, flags: tuple[str, ...], printed: str, tmp_path: Path
) -> None:
    assert run(compiled(PROGRAMS / program, tmp_path / "program", *flags)) == printed


def test_cpp_with_another_header_is_refused(tmp_path: Path) -> None:
    headers = other_header(tmp_path)
    program, libraries = tmp_path / "refused", shlex.split(embedding.libs())
    source = PROGRAMS / "refused.cpp"
    run(need("g++"), "-std=c++17", f"-I{headers}", source, "-o", program, *libraries)
    assert (
        run(program)
        == ("pympi.h and the library are of different versions; compile again: PM_ABI_MISMATCH\n")
        * 2
    )


def test_the_example_prints_what_the_guide_says(tmp_path: Path) -> None:
    cmake, build = need("cmake"), tmp_path / "build"
    need("g++")
    example = ROOT / "examples" / "embedding"
    run(cmake, "-S", example, "-B", build, f"-Dpympi_DIR={embedding.get_cmake_dir()}")
    run(cmake, "--build", build)
    guide = (ROOT / "docs" / "embedding.md").read_text()
    assert f"It prints\n\n```\n{run(build / 'hello')}```\n" in guide
