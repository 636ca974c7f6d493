# SPDX-License-Identifier: BSD-2-Clause
"""Files of a finished run: all of them are in place, or none is."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path


def publish(directory: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Put `files` (name to contents) into `directory`, made with its parents where absent.

    They are written beside it first. A new directory appears by one rename; in one that has other
    files in it, each file is replaced by a rename of its own once all are written.

    Returns:
        The paths, in the order of `files`.

    Raises:
        OSError: nothing has changed in `directory` then.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = directory.parent / f".{directory.name}.{secrets.token_hex(8)}"
    staging.mkdir()
    try:
        for name, contents in files.items():
            (staging / name).write_bytes(contents)
        if directory.is_dir() and any(directory.iterdir()):
            for name in files:
                (staging / name).replace(directory / name)
        else:
            staging.rename(directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [directory / name for name in files]


def publish_files(files: Mapping[Path, bytes]) -> None:
    """Write files, each where it belongs; each is replaced by a rename once all are written.

    Raises:
        OSError: no file has changed then, unless it is a rename that failed.
    """
    staged = {path: path.with_name(f".{path.name}.{secrets.token_hex(8)}") for path in files}
    try:
        for path, contents in files.items():
            staged[path].write_bytes(contents)
        for path, written in staged.items():
            written.replace(path)
    finally:
        for written in staged.values():
            written.unlink(missing_ok=True)
