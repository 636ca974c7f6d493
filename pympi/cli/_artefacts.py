# SPDX-License-Identifier: BSD-2-Clause
"""Files of a finished run: all of them are in place, or none is."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Have errors in here name a path that was given, not a file beside it."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error


#: What is to be in a file, or what writes it, called with where to.
Contents = bytes | Callable[[Path], object]


def publish(directory: Path, files: Mapping[str, Contents]) -> list[Path]:
    """Put `files` (name to contents) into `directory`, made with its parents where absent.

    They are written beside it first. A new directory appears by one rename; in one that has other
    files in it, each file is replaced by a rename of its own once all are written.

    Returns:
        The paths, in the order of `files`.

    Raises:
        OSError: nothing has changed in `directory` then.
    """
    staging = directory.parent / f".{directory.name}.{secrets.token_hex(8)}"
    with _about(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
    try:
        _fill(staging, directory, files)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [directory / name for name in files]


def _fill(staging: Path, directory: Path, files: Mapping[str, Contents]) -> None:
    for name, contents in files.items():
        with _about(directory / name):
            if callable(contents):
                contents(staging / name)
            else:
                (staging / name).write_bytes(contents)
    if directory.is_dir() and any(directory.iterdir()):
        for name in files:
            with _about(directory / name):
                (staging / name).replace(directory / name)
        return
    with _about(directory):
        staging.rename(directory)


def publish_files(files: Iterable[tuple[Path, bytes]], inputs: Iterable[Path] = ()) -> None:
    """Write files, each where it belongs; each is replaced by a rename once all are written.

    A link stays, and what it leads to is replaced; what is no regular file, such as /dev/stdout, is
    written to. A file that is replaced keeps its mode.

    Args:
        files: where to, and what.
        inputs: files that must not be replaced.

    Raises:
        ValueError: two files of one name, or an input.
        OSError: no file has changed then, unless it is a rename that failed.
    """
    staged: list[tuple[Path, Path, Path]] = []  # as given, what it leads to, what is to be there
    files = list(files)
    _check_apart([path for path, _ in files], inputs)
    try:
        for path, contents in files:
            with _about(path):
                if path.exists() and not path.is_file():
                    path.write_bytes(contents)
                    continue
                target = path.resolve()
                written = _beside(target)
                staged.append((path, target, written))
                written.write_bytes(contents)
                _keep_mode(target, written)
        for path, target, written in staged:
            with _about(path):
                written.replace(target)
    finally:
        for _, _, written in staged:
            written.unlink(missing_ok=True)


def look_ahead(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Check that a file can be written, which is not made before much else is done.

    Raises:
        ValueError: `path` would be written over an input.
        OSError: it cannot be written.
    """
    _check_apart([path], inputs)
    if path.exists() and not path.is_file():
        return  # a pipe, a device: nobody knows before
    with _about(path):
        beside = _beside(path.resolve())
        beside.touch()
        beside.unlink()


@contextmanager
def replacing(path: Path, inputs: Iterable[Path] = ()) -> Iterator[BinaryIO]:
    """Yield a file to write to, which is there under its name once all is written, or not at all.

    What is no regular file, a pipe or a device, is written to as it is.

    Args:
        path: of the file; if it is there, it is replaced.
        inputs: what is read meanwhile.

    Raises:
        ValueError: `path` would be written over an input.
        OSError: it cannot be written; what was there still is.
    """
    _check_apart([path], inputs)
    with _about(path):
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        target = path.resolve()
        written = _beside(target)
        try:
            with written.open("wb") as file:
                yield file
            _keep_mode(target, written)
            written.replace(target)
        finally:
            written.unlink(missing_ok=True)


def _check_apart(paths: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Check that no file is written twice, or over one that is read."""
    taken = {path.resolve() for path in inputs}
    for path in paths:
        target = path.resolve()
        if target in taken and (path.is_file() or not path.exists()):
            raise ValueError(f"{path}: would be written twice, or over what is read")
        taken.add(target)


def _beside(target: Path) -> Path:
    """Return where to write what is to replace a file: beside it."""
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}")


def _keep_mode(target: Path, written: Path) -> None:
    """Give what is to replace a file, if there is one, the file's mode."""
    if target.exists():
        shutil.copymode(target, written)
