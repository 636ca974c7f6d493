# SPDX-License-Identifier: BSD-2-Clause
"""Runs a page of the documentation: what stands in it happens, from top to bottom.

    python tests/docs/pages.py docs/policy.md       (in an empty directory)

- ```python: statements of one program, on the lines where they stand in the page.
- ```console: a line that begins with "$ pympi" or "$ python" is run, and "$ cat FILE" shows a file.
  What it prints is what stands below it, word for word but for blanks at ends of lines. Where the
  exit code is not 0, a last line says so: "[exit code 1]". A line "..." stands for any lines, for
  what is not the same each time. "$ python PROGRAM &" goes on until the page is done; what stands
  below it is its first line. Files of this checkout are there as docs/NAME.
- ```cil with a first line "; FILE.cil": the file is written.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(python|console|cil)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANY = re.compile(r"^\.\.\.\n", re.MULTILINE)
FILE = re.compile(r"; (\w+\.cil)\n")


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block, and what it is said to print."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


@contextlib.contextmanager
def arguments_of(*arguments: str) -> Iterator[None]:
    """What the program's arguments are, in here."""
    before, sys.argv = sys.argv, list(arguments)
    try:
        yield
    finally:
        sys.argv = before


def run_pympi(arguments: list[str]) -> int:
    """The command line, in this process."""
    from pympi.cli import main

    with arguments_of("pympi", *arguments):
        return main(arguments)


def run_python(arguments: list[str]) -> int:
    """A program of this checkout."""
    try:
        with arguments_of(*arguments):
            runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0


def show(arguments: list[str]) -> int:
    """Files, of the page or of this checkout."""
    for name in arguments:
        path = Path(name) if Path(name).exists() else ROOT / name
        print(path.read_text(), end="")
    return 0


running = contextlib.ExitStack()


def start_python(arguments: list[str]) -> int:
    """A program of this checkout, in the background; print its first line, which says it is up."""
    command = [sys.executable, str(ROOT / arguments[0]), *arguments[1:]]
    program = running.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    running.callback(program.terminate)
    assert program.stdout is not None
    print(program.stdout.readline(), end="")
    return 0


PROGRAMS: dict[str, Callable[[list[str]], int]] = {
    "pympi": run_pympi, "python": run_python, "&": start_python, "cat": show,
}  # fmt: skip


def run(command: str) -> str:
    """Return what a command prints, on both streams, as one reads it in a terminal."""
    program, *arguments = shlex.split(command)
    if arguments[-1:] == ["&"]:
        program, arguments = "&", arguments[:-1]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = PROGRAMS[program](arguments)
    lines = [line.rstrip() for line in printed.getvalue().splitlines()]
    return "\n".join([*lines, *([f"[exit code {code}]"] if code else []), ""])


def compare(path: Path, block: str, line: int) -> None:
    """Run the commands of a console block; complain about the first that prints something else."""
    for command, said in commands(block):
        printed = run(command)
        if not re.fullmatch(r"(?:.*\n)*".join(map(re.escape, ANY.split(said))), printed):
            raise AssertionError(f"{path.name}:{line}: $ {command}\n{printed}\nis not\n{said}")


def write(block: str) -> None:
    """Write the file that a cil block is, if it is one."""
    if named := FILE.match(block):
        Path(named[1]).write_text(block)


def program(path: Path) -> str:
    """Return the page as one program, whose statements are on the lines where the page has them."""
    text = path.read_text()
    lines = [""] * (text.count("\n") + 2)
    for match in BLOCK.finditer(text):
        first = text.count("\n", 0, match.start(2))
        if match[1] == "python":
            for offset, line in enumerate(match[2].splitlines()):
                lines[first + offset] = line
        elif match[1] == "console":
            lines[first] = f"__compare__({match[2]!r}, {first + 1})"
        else:
            lines[first] = f"__write__({match[2]!r})"
    return "\n".join(lines)


def main(name: str) -> None:
    """Run a page. Tracebacks have the page's lines."""
    path = Path(name).resolve()
    Path("docs").symlink_to(ROOT / "docs")
    names = {
        "__name__": "__main__",
        "__compare__": lambda block, line: compare(path, block, line),
        "__write__": write,
    }
    with running:
        exec(compile(program(path), str(path), "exec"), names)  # noqa: S102


if __name__ == "__main__":
    main(sys.argv[1])
