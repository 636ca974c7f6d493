# SPDX-License-Identifier: BSD-2-Clause
"""Reads MIG's `.defs` files, with SEDarwin's words for access control.

Routines are numbered as MIG numbers them: in order, `skip` counts, and the first has the base of
the subsystem. What is read and changes nothing here (import, rcsid, error, ctype, intran, ...) is
kept for those who want to see it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .routine import KINDS, Argument, Routine
from .text import STANDARD, DefsError, Limits, Source, Token, TypeReader
from .types import Port, Type

__all__ = ["DefsError", "Limits", "Subsystem", "Word", "read_defs", "read_defs_text"]

_SUBSYSTEM_WORDS = ("kerneluser", "kernelserver")
_PREVIOUS = "only one subsystem in a file"


@dataclass(frozen=True)
class Word:
    """Something that was said, and changes nothing here.

    Attributes:
        word: what it is: "import", "ctype", "rcsid", ...
        value: what was said.
        about: the type it was said of; "" for the subsystem.
    """

    word: str
    value: str
    about: str = ""


@dataclass
class Subsystem:
    """What a `.defs` file says.

    Attributes:
        name, base: of the subsystem.
        routines: by number less base; None for one that is skipped.
        types: those declared in it, by name.
        kernel_user, kernel_server: whether those words were said.
        user_prefix, server_prefix: of the functions that MIG would generate.
        words: what else was said, in order.
    """

    name: str = ""
    base: int = 0
    routines: list[Routine | None] = field(default_factory=list)
    types: dict[str, Type] = field(default_factory=dict)
    kernel_user: bool = False
    kernel_server: bool = False
    user_prefix: str = ""
    server_prefix: str = ""
    words: list[Word] = field(default_factory=list)


def read_defs(path: str | os.PathLike[str], *, limits: Limits | None = None) -> Subsystem:
    """Read a `.defs` file.

    Raises:
        DefsError: it is not one, or larger than `limits`.
        OSError: it cannot be read.
    """
    limits = limits or Limits()
    with Path(path).open("rb") as file:
        raw = file.read(4 * limits.size + 1)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DefsError("not UTF-8", os.fspath(path), line, 1) from None
    return read_defs_text(text, os.fspath(path), limits=limits)


def read_defs_text(text: str, file: str = "<text>", *, limits: Limits | None = None) -> Subsystem:
    """Read what a `.defs` file says.

    Args:
        text: its text, or what the C preprocessor made of it.
        file: its name, for errors.
        limits: what is too much.

    Raises:
        DefsError: with the place, what was expected, and what was found.

    Example:
        >>> subsystem = read_defs_text('''
        ...     subsystem printing 1200;
        ...     routine print_page(printer: mach_port_t; page: page_t = ^array[] of char);
        ...     skip;
        ...     simpleroutine cancel checkaccess (printer: mach_port_t; job: int);
        ... ''')
        >>> [routine and routine.name for routine in subsystem.routines]
        ['print_page', None, 'cancel']
    """
    return _Reader(Source(text, file, limits)).read()


class _Reader:
    """Reads statements."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.found = Subsystem()
        self.known = dict(STANDARD)
        self.types = TypeReader(source, self.known)
        self.names: set[str] = set()
        self.statements: dict[str, Callable[[str], None]] = {
            "type": self._type,
            "routine": self._routine,
            "simpleroutine": self._routine,
            "skip": self._skip,
            "userprefix": self._prefix,
            "serverprefix": self._prefix,
            "import": self._word,
            "uimport": self._word,
            "simport": self._word,
            "rcsid": self._word,
            "serverdemux": self._word,
            "error": self._word,
            "waittime": self._word,
            "nowaittime": self._silent,
            "msgoption": self._word,
        }

    def read(self) -> Subsystem:
        source = self.source
        while source.accept(";"):
            pass
        source.expect("subsystem")
        self._subsystem()
        while text := source.peek().text:
            if text != ";":
                self._statement()
            source.expect(";")
        if not any(self.found.routines):
            source.refuse(source.peek(), f"subsystem {self.found.name} has no routine")
        return self.found

    def _statement(self) -> None:
        token = self.source.next()
        word = token.text.lower()
        if word == "subsystem":
            self.source.refuse(token, _PREVIOUS)
        if word not in self.statements:
            self.source.fail(token, f"one of {' '.join(self.statements)}")
        self.statements[word](word)

    def _subsystem(self) -> None:
        source = self.source
        while word := source.accept(*_SUBSYSTEM_WORDS):
            setattr(self.found, "kernel_user" if word == "kerneluser" else "kernel_server", True)
        self.found.name = source.word("the subsystem's name").text
        self.found.base = source.digits("the subsystem's base")
        source.expect(";")

    # ---- what is kept ----

    def _word(self, word: str) -> None:
        token = self.source.next()
        if token.text in ("", ";"):
            self.source.fail(token, f"what {word} says")
        self.found.words.append(Word(word, token.text))

    def _silent(self, word: str) -> None:
        self.found.words.append(Word(word, ""))

    def _prefix(self, word: str) -> None:
        attribute = "user_prefix" if word == "userprefix" else "server_prefix"
        setattr(self.found, attribute, self.source.word("a prefix").text)

    # ---- types ----

    def _type(self, _word: str) -> None:
        name = self.source.word("the type's name")
        self.source.expect("=")
        self._declare(name)

    def _declare(self, name: Token) -> Type:
        """Step over what a type is, and what is said of it."""
        if len(self.found.types) >= self.source.limits.types:
            self.source.refuse(name, f"more than {self.source.limits.types} types")
        made = self.types.read()
        while word := self.source.accept(
            "ctype", "cusertype", "cservertype", "intran", "outtran", "destructor"
        ):
            self.source.expect(":")
            self.found.words.append(Word(word, self._said(word), name.text))
        self.found.types[name.text] = self.known[name.text] = made
        return made

    def _said(self, word: str) -> str:
        """Step over a C type, or `type function(type)`, or `function(type)`."""
        said = self.source.word("a name").text
        if word in ("intran", "outtran"):
            said += f" {self.source.word('a function').text}"
        if word in ("intran", "outtran", "destructor"):
            self.source.expect("(")
            said += f"({self.source.word('a type').text})"
            self.source.expect(")")
        return said

    # ---- routines ----

    def _skip(self, _word: str) -> None:
        token = self.source.peek()
        count = self.source.digits("a number") if token.text.isdigit() else 1
        self._room(token, count)
        self.found.routines += [None] * count

    def _room(self, token: Token, count: int) -> None:
        routines = len(self.found.routines) + count
        if routines > self.source.limits.routines:
            self.source.refuse(token, f"more than {self.source.limits.routines} routines")
        if self.found.base + routines - 1 >= 1 << 31:
            self.source.refuse(token, "a message's number would be over 2147483647")

    def _routine(self, word: str) -> None:
        source = self.source
        token = source.word("the routine's name")
        self._room(token, 1)
        protected = bool(source.accept("checkaccess"))
        source.expect("(")
        arguments = self._with_port(token, self._arguments())
        if token.text in self.names:
            source.refuse(token, f"a second routine {token.text!r}")
        self.names.add(token.text)
        try:
            simple = word == "simpleroutine"
            made = Routine(token.text, arguments=arguments, simple=simple, protected=protected)
        except ValueError as error:
            source.refuse(token, str(error))
        self.found.routines.append(made)

    def _arguments(self) -> list[Argument]:
        source = self.source
        if source.accept(")"):
            return []
        arguments = [self._argument()]
        while source.expect(";", ")") == ";":
            if len(arguments) >= source.limits.arguments:
                source.refuse(source.peek(), f"more than {source.limits.arguments} arguments")
            arguments.append(self._argument())
        return arguments

    def _argument(self) -> Argument:
        source = self.source
        first = source.word("an argument")
        word = first.text.lower()
        kind = word if word in KINDS and source.peek().text != ":" else ""
        name = source.word("the argument's name") if kind else first
        source.expect(":")
        made = self._argument_type()
        flags = self.types.flags()
        try:
            return Argument(name.text, made, kind or "in", flags)
        except ValueError as error:
            source.refuse(name, str(error))

    def _argument_type(self) -> Type:
        """Step over a type's name, or `name = type`, which declares it."""
        token = self.source.word("a type")
        if self.source.accept("="):
            return self._declare(token)
        if token.text not in self.known:
            self.source.fail(token, "a type")
        return self.known[token.text]

    def _with_port(self, routine: Token, arguments: list[Argument]) -> tuple[Argument, ...]:
        """Return the arguments, the first that is in being the request port if none says it is."""
        if not any(a.kind == "requestport" for a in arguments):
            at = next((i for i, a in enumerate(arguments) if a.kind == "in"), None)
            if at is None or not isinstance(arguments[at].type, Port):
                self.source.refuse(
                    routine, f"routine {routine.text!r} has no port to send its request to"
                )
            first = arguments[at]
            arguments[at] = Argument(first.name, first.type, "requestport", first.flags)
        return tuple(arguments)
