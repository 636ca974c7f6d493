# SPDX-License-Identifier: BSD-2-Clause
"""What every file in the checkout has, and what none has."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LICENCE = "SPDX-License-Identifier: BSD-2-Clause"
SOURCES = {".py", ".pyi", ".c", ".h", ".hpp", ".cpp", ".def", ".toml", ".cil"}
LARGEST = 1_000_000  # bytes
LONGEST = 2_000  # characters in a line: what is longer was written by a program


def pattern(*words: str) -> re.Pattern[str]:
    """Return a pattern for any of `words`, here written so that this file does not match them."""
    return re.compile("|".join(word.replace("~", "") for word in words))


MACHINE_PATH = pattern(r"(?<![\w.])/(wo~rk|ro~ot|ho~me/\w+|Us~ers/\w+)/")
REGISTRY = pattern(r"py~pi\.org", r"python~hosted\.org", r"registry\.np~mjs", r"index-u~rl")
UNFINISHED = pattern(r"\bTO~DO\b", r"\bFIX~ME\b", r"\bXX~X\b", r"\bHA~CK\b")
FOREIGN_DIRECTORIES = {"vendor", "third_party", "third-party", "node_modules"}


def tracked() -> list[Path]:
    """Return the files under version control, as far as they exist."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        return []
    return [ROOT / name for name in listing.stdout.split("\0") if (ROOT / name).is_file()]


def lacks_licence(path: Path, text: str) -> str:
    """A source file says its licence in its first line, after `#!`."""
    if path.suffix not in SOURCES and path.name != "Makefile" and not text.startswith("#!"):
        return ""
    head = [line for line in text.splitlines()[:2] if not line.startswith("#!")]
    return "" if head and LICENCE in head[0] else f"no '{LICENCE}' in the first line"


def is_foreign(path: Path, text: str) -> str:
    """Files are written here, by hand, and of a size that somebody reads."""
    if FOREIGN_DIRECTORIES & set(path.parts) or ".min." in path.name:
        return "somebody else's code, or minified"
    longest = max(map(len, text.splitlines()), default=0)
    return f"a line of {longest} characters" if longest > LONGEST else ""


def is_untidy(_path: Path, text: str) -> str:
    """Text ends with one newline; no line ends with a blank, a tab or a carriage return."""
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        return "the file does not end with one newline"
    blanks = [n for n, line in enumerate(text.split("\n"), 1) if line != line.rstrip()]
    return f"blanks at the end of line {blanks[0]}" if blanks else ""


def mentions(forbidden: re.Pattern[str], what: str) -> Callable[[Path, str], str]:
    """Return a rule: no line matches `forbidden`."""

    def rule(_path: Path, text: str) -> str:
        found = forbidden.search(text)
        return f"{what}: '{found[0]}'" if found else ""

    return rule


RULES: dict[str, Callable[[Path, str], str]] = {
    "licence": lacks_licence,
    "ours": is_foreign,
    "tidy": is_untidy,
    "no machine path": mentions(MACHINE_PATH, "a path of somebody's machine"),
    "no registry": mentions(REGISTRY, "a host of a package registry"),
    "finished": mentions(UNFINISHED, "a note of unfinished work"),
}


def read(path: Path) -> str | None:
    """Return a file's text, or None if it is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


@pytest.mark.parametrize("name", RULES)
def test_files(name: str) -> None:
    paths = tracked()
    if not paths:
        pytest.skip("not a git checkout: what belongs to the project is not known")
    texts = {path.relative_to(ROOT): read(path) for path in paths}
    found = {path: RULES[name](path, text) for path, text in texts.items() if text is not None}
    wrong = [f"{path}: {complaint}" for path, complaint in found.items() if complaint]
    assert not wrong, "\n".join(wrong)


def test_sizes() -> None:
    large = [f"{p.name}: {p.stat().st_size} bytes" for p in tracked() if p.stat().st_size > LARGEST]
    assert not large, "\n".join(large)


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        ("licence", "a.py", '"""Says nothing."""\n'),
        ("licence", "run", "#!/bin/sh\necho\n"),
        ("ours", "a.min.js", "x\n"),
        ("ours", "vendor/a.c", "x\n"),
        ("ours", "a.js", "x" * 3000 + "\n"),
        ("tidy", "a.c", "int x; \n"),
        ("tidy", "a.c", "int x;\r\n"),
        ("tidy", "a.c", "int x;"),
        ("no machine path", "a.py", "open('/wo" + "rk/x')\n"),
        ("no registry", "a.md", "https://py" + "pi.org/\n"),
        ("finished", "a.c", "/* TO" + "DO */\n"),
    ],
)
def test_rule_finds(rule: str, path: str, text: str) -> None:
    assert RULES[rule](Path(path), text)


@pytest.mark.parametrize("rule", RULES)
def test_rule_passes(rule: str) -> None:
    assert not RULES[rule](Path("a.py"), f"#!/usr/bin/env python3\n# {LICENCE}\nx = 'work/a'\n")
