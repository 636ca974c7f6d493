# SPDX-License-Identifier: BSD-2-Clause
"""Files of a finished run: all of them are in place, or none is."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Have errors in here name a path that was given, not a file beside it."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error


def publish(directory: Path, files: Mapping[str, bytes]) -> list[Path]:
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


def _fill(staging: Path, directory: Path, files: Mapping[str, bytes]) -> None:
    for name, contents in files.items():
        with _about(directory / name):
            (staging / name).write_bytes(contents)
    if directory.is_dir() and any(directory.iterdir()):
        for name in files:
            with _about(directory / name):
                (staging / name).replace(directory / name)
        return
    with _about(directory):
        staging.rename(directory)


def publish_files(files: Mapping[Path, bytes]) -> None:
    """Write files, each where it belongs; each is replaced by a rename once all are written.

    Raises:
        OSError: no file has changed then, unless it is a rename that failed.
    """
    staged = {path: path.with_name(f".{path.name}.{secrets.token_hex(8)}") for path in files}
    try:
        for path, contents in files.items():
            with _about(path):
                staged[path].write_bytes(contents)
        for path, written in staged.items():
            with _about(path):
                written.replace(path)
    finally:
        for written in staged.values():
            written.unlink(missing_ok=True)
