# SPDX-License-Identifier: BSD-2-Clause
"""pympi.policy.author.cache: what was compiled is read back the same, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pympi.errors import PolicyError
from pympi.policy.author import cache
from pympi.policy.cil import compile_policy, read_files

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = [*sorted((ROOT / "tests" / "policy").glob("*.cil")), ROOT / "pympi/data/desktop.cil"]
LARGE = """(type a_t) (type b_t) (typealias old_t) (typealiasactual old_t a_t)
(typeattribute all_t) (typeattributeset all_t (all))
(allow a_t b_t (mach_port (send recv))) (neverallow b_t a_t (mach_port (send)))
(boolean open false) (booleanif (not open) (true (allow a_t self (mach_port (recv)))))
(typetransition a_t b_t mach_port b_t)
(class mi_x (one two ioctl)) (allow a_t b_t (mi_x (all)))
(allowx a_t b_t (ioctl mi_x ((range 0 1))))
(constrain (mach_port (send))
    (and (or (eq u1 u2) (neq t1 all_t)) (not (eq r1 (object_r system_r)))))
(typepermissive b_t)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PYMPI_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(cache, "SMALLEST", 1)
    return tmp_path / "caches" / "pympi"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "large.cil"
    path.write_text(LARGE)
    return path


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was compiled, each time it was."""
    seen: list[str] = []

    def counted(sources: list[tuple[str, str]]) -> object:
        seen.append(sources[0][0])
        return compile_policy(sources)

    monkeypatch.setattr(cache, "compile_policy", counted)
    return seen


def test_what_many_rows_share_is_kept_once() -> None:
    """A set of many types in many constraints, numbers in many rules, a class map of many."""
    text = "(class mi_x (ioctl))(classmap m (x))(typeattribute g)(typeattributeset g (all))\n"
    text += "".join(f"(type t{n})" for n in range(400)) + "\n"
    numbers = " ".join(str(2 * n) for n in range(400))
    text += f"(permissionx p (ioctl mi_x ({numbers})))\n" + "(allowx g g p)\n" * 400
    text += "".join(f"(class c{n} (p))(classmapping m x (c{n} (p)))" for n in range(100)) + "\n"
    text += "(constrain (m (x)) (and (eq t1 g) (neq t2 g)))\n" * 4
    text += "".join(f"(role r{n})(roletype r{n} g)" for n in range(400))
    sources = [("shared.cil", text)]
    db = compile_policy(sources)
    data = cache.pack(db, sources)
    assert len(data) < 4 * len(text)
    again = cache.unpack(data, sources)
    assert again == db
    assert len({id(rule.ranges) for rule in again.extended_rules}) == 1
    assert len({id(rule.expression) for rule in again.constraints}) == 4
    assert len({id(role.types) for role in again.roles if role.name[1:].isdigit()}) == 1


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_what_is_unpacked_is_what_was_packed(path: Path) -> None:
    sources = read_files([path])
    db = compile_policy(sources)
    assert repr(cache.unpack(cache.pack(db, sources), sources)) == repr(db)


def test_every_kind_of_statement_survives() -> None:
    sources = [("one.cil", LARGE.replace("\n", "\r\n")), ("two.cil", "(type c_t)")]
    db = compile_policy(sources)
    made = cache.unpack(cache.pack(db, sources), sources)
    assert made == db
    assert made.text == db.text
    assert made.type("old_t").name == "a_t"
    assert made.constraints[0].expression == db.constraints[0].expression


def test_second_time_nothing_is_compiled(home: Path, source: Path, compiles: list[str]) -> None:
    first = cache.compiled([source])
    assert compiles == [str(source)]
    assert cache.compiled([source]) == first
    assert compiles == [str(source)]
    assert home.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in home.iterdir()] == [0o600]


@pytest.mark.usefixtures("home")
def test_another_text_is_compiled_again(source: Path, compiles: list[str]) -> None:
    cache.compiled([source])
    source.write_text(LARGE + "(type c_t)")
    assert cache.compiled([source]).type("c_t").name == "c_t"
    assert len(compiles) == 2


def test_small_policies_are_not_kept(
    home: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SMALLEST", len(LARGE) + 1)
    cache.compiled([source])
    assert list(home.iterdir()) == []


def test_wrong_policies_are_not_kept(home: Path, source: Path) -> None:
    source.write_text("(type a_t")
    with pytest.raises(PolicyError, match="is open"):
        cache.compiled([source])
    assert list(home.iterdir()) == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def share(path: Path) -> None:
    path.chmod(0o664)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


@pytest.mark.parametrize("spoil", [flip, cut, share, link, lambda path: path.write_bytes(b"")])
def test_spoilt_file_counts_as_absent(
    home: Path, source: Path, compiles: list[str], spoil: Callable[[Path], object]
) -> None:
    first = cache.compiled([source])
    (kept,) = home.iterdir()
    spoil(kept)
    assert cache.compiled([source]) == first
    assert len(compiles) == 2
    assert cache.compiled([source]) == first
    assert len(compiles) == 2, "the file was made anew"


@pytest.mark.usefixtures("home")
def test_file_with_a_right_sum_and_nonsense_in_it(
    source: Path, compiles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "pack", lambda db, sources: cache._MARK + bytes(8) + b"[]")
    cache.compiled([source])
    cache.compiled([source])
    assert len(compiles) == 2


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777])
def test_directory_open_to_others_is_not_used(home: Path, source: Path, mode: int) -> None:
    home.mkdir(parents=True)
    home.chmod(mode)
    assert cache.cache_directory() is None
    cache.compiled([source])
    assert list(home.iterdir()) == []


def test_link_to_a_directory_is_not_used(home: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    home.parent.mkdir()
    home.symlink_to(tmp_path / "elsewhere")
    assert cache.cache_directory() is None


@pytest.mark.parametrize("value", ["off", "relative/place"])
def test_no_directory(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PYMPI_CACHE", value)
    assert cache.cache_directory() is None


def test_directory_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PYMPI_CACHE", str(tmp_path / "file" / "cache"))
    assert cache.cache_directory() is None


def test_answer_is_out_before_the_policy_is_kept(
    home: Path, source: Path, pympi: Callable[..., Any], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    printed, write = [], cache._write

    def look(path: Path, body: bytes) -> None:
        printed.append(capsys.readouterr().out)
        write(path, body)

    monkeypatch.setattr(cache, "_write", look)
    words = ("policy", "query", "--kind", "allow", "--policy", source)
    assert pympi(*words).out == ""  # it was seen before
    assert [file.suffix for file in home.iterdir()] == [".policy"]
    assert printed == [pympi(*words).out]
    assert "(allow " in printed[0]


def test_policy_is_kept_although_the_question_was_wrong(
    home: Path, source: Path, pympi: Callable[..., Any]
) -> None:
    assert pympi("policy", "query", "--source", "nobody_t", "--policy", source).code == 2
    assert [file.suffix for file in home.iterdir()] == [".policy"]


def test_oldest_goes(home: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "KEPT", 2)
    for number in range(4):
        source.write_text(f"{LARGE}(type c{number}_t)")
        cache.compiled([source])
        for age, path in enumerate(sorted(home.iterdir(), key=lambda p: p.stat().st_mtime_ns)):
            os.utime(path, ns=(age, path.stat().st_mtime_ns - 10**9))
    assert len(list(home.iterdir())) == 2
    before = sorted(home.iterdir())
    cache.compiled([source])
    assert sorted(home.iterdir()) == before, "the newest was kept"
