# SPDX-License-Identifier: BSD-2-Clause
"""Policy files: what is read, and what is refused before it is read."""

import os
from pathlib import Path

import pytest

from pympi import PolicyError
from pympi.policy.cil import Budget, compile_policy, read_files


def refused(*paths: Path, **options: object) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        read_files(paths, **options)  # type: ignore[arg-type]
    return caught.value


def test_reads_in_order(tmp_path: Path) -> None:
    for name, text in (("a.cil", "(type a)\r\n"), ("b.cil", "; é")):
        (tmp_path / name).write_bytes(text.encode())
    paths = [tmp_path / "b.cil", tmp_path / "a.cil"]
    texts = read_files(paths)
    assert texts == [(str(paths[0]), "; é"), (str(paths[1]), "(type a)\r\n")]
    assert compile_policy(texts).type("a").origin.file == str(paths[1])


def test_what_is_no_file(tmp_path: Path) -> None:
    assert "No such file" in str(refused(tmp_path / "absent"))
    assert "expected a regular file" in str(refused(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    assert "expected a regular file" in str(refused(tmp_path / "pipe"))
    assert "expected a regular file" in str(refused(Path("/dev/zero")))
    assert refused(Path("nul\0")).file == "nul\0"


def test_size_is_of_all_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("(type a)")
    two.write_text("(type b)")
    assert len(read_files([one, two], budget=Budget(bytes=16))) == 2
    error = refused(one, two, budget=Budget(bytes=15))
    assert "Budget.bytes" in str(error)
    assert error.file == str(two)


@pytest.mark.parametrize(
    ("data", "line", "column", "words"),
    [
        (b"\xef\xbb\xbf(type a)", 1, 1, "byte order mark"),
        (b"(type a)\n(\xc3\xa9\xff)", 2, 3, "found the byte 0xff"),
        (b"\xff\xfe(\0", 1, 1, "found the byte 0xff"),
        (b"(\xed\xa0\x80)", 1, 2, "found the byte 0xed"),
        (bytes.fromhex("8cff7cf908000000"), 1, 1, "found a compiled policy"),
    ],
)
def test_encoding(tmp_path: Path, data: bytes, line: int, column: int, words: str) -> None:
    path = tmp_path / "a.cil"
    path.write_bytes(data)
    error = refused(path)
    assert (error.file, error.line, error.column) == (str(path), line, column)
    assert words in str(error)


def test_the_same_file_twice(tmp_path: Path) -> None:
    path, link = tmp_path / "a.cil", tmp_path / "b.cil"
    path.write_text("(type a)")
    link.symlink_to(path)
    assert "given twice" in str(refused(path, link))


def test_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside.cil"
    root.mkdir()
    outside.write_text("(type a)")
    (root / "link.cil").symlink_to(outside)
    (root / "inner.cil").write_text("(type b)")
    assert read_files([root / "inner.cil"], root=root)
    assert read_files([root / "link.cil"]), "nothing is outside of nothing"
    for path in (root / "link.cil", root / ".." / "outside.cil"):
        assert "outside" in str(refused(path, root=root))
