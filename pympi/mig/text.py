# SPDX-License-Identifier: BSD-2-Clause
"""MIG's notation: words, numbers, and types such as `^array[] of char`.

There is no preprocessor. What one has written is read, with its line markers, so a file that needs
one is put through it first. `#include` of <mach/std_types.defs> and <mach/mach_types.defs> does
nothing: the standard types are always known. Every other directive is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, NoReturn

from ..enums import Disposition
from ..errors import PympiError
from .types import Array, Port, Scalar, String, Type

__all__ = ["STANDARD", "DefsError", "Limits", "Source", "Token", "parse_type"]


class DefsError(PympiError, ValueError):
    """A subsystem that cannot be read.

    Attributes:
        file (str): its name.
        line, column (int): 1-based.
        expected (str): what would be right; "" where something else is wrong with what was found.
        found (str): what stands there.
    """

    def __init__(
        self, message: str, file: str = "<text>", line: int = 0, column: int = 0,
        expected: str = "", found: str = "",
    ) -> None:  # fmt: skip
        super().__init__(message, file, line, column, expected, found)
        self.file = file
        self.line = line
        self.column = column
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.args[0]}"


@dataclass(frozen=True)
class Limits:
    """How much of a subsystem is read, for those who read what strangers wrote.

    Attributes:
        size: characters of text.
        depth: of types and expressions inside each other.
        routines: with those that are skipped.
        arguments: of a routine.
        types: declared.
    """

    size: int = 1 << 20
    depth: int = 32
    routines: int = 4096
    arguments: int = 256
    types: int = 4096


class Token(NamedTuple):
    """A word, a number, a name of a file, or a sign; "" is the end."""

    text: str
    file: str
    line: int
    column: int


_TOKEN = re.compile(
    r"""(?P<gap>[ \t\r\f\v]+|//[^\n]*|/\*(?s:.*?)\*/)
    |(?P<newline>\n)
    |(?P<open>/\*)
    |(?P<directive>\#[^\n]*)
    |(?P<token>[A-Za-z_]\w*|\d+|"[^"\n]*"|<[^<>\s]+>|[:;,()\[\]*^|=+/-])""",
    re.VERBOSE | re.ASCII,
)
_MARKER = re.compile(r'#\s*(?:line\s+)?(\d{1,9})\s+"([^"\n]*)"[\d\s]*')
_INCLUDE = re.compile(r'#\s*include\s*[<"]mach/(?:std|mach)_types\.defs[>"]\s*')
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NUMBER_MAX = (1 << 31) - 1
_SHOWN = 80  # characters of what was found, in an error's words


class Source:
    """The tokens of a text, one after another.

    Args:
        text: of a subsystem, or part of one.
        file: its name, for errors.
        limits: what is too much.

    Raises:
        DefsError: here, a character or a directive that is not MIG's, or too much text.
    """

    def __init__(self, text: str, file: str = "<text>", limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._file = file
        self._line, self._start = 1, 0  # of the line that is being split
        self._at = 0
        if len(text) > self.limits.size:
            raise DefsError(f"more than {self.limits.size} characters", file, 1, 1)
        self._tokens = self._split(text)

    def _split(self, text: str) -> list[Token]:
        tokens, at = [], 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            here = Token(text[at], self._file, self._line, at - self._start + 1)
            if match is None:
                self.fail(here, "a word of MIG's")
            if match.lastgroup == "token":
                tokens.append(here._replace(text=match[0]))
            elif match.lastgroup == "directive":
                self._direct(here._replace(text=match[0].rstrip()))
            elif match.lastgroup == "open":
                self.refuse(here._replace(text="/*"), "a comment that does not end")
            else:
                self._skip(match[0], at)
            at = match.end()
        tokens.append(Token("", self._file, self._line, at - self._start + 1))
        return tokens

    def _skip(self, gap: str, at: int) -> None:
        if lines := gap.count("\n"):
            self._line += lines
            self._start = at + gap.rindex("\n") + 1

    def _direct(self, token: Token) -> None:
        marker = _MARKER.fullmatch(token.text)
        if marker and marker[2].isprintable():
            self._line, self._file = int(marker[1]) - 1, marker[2]
        elif not _INCLUDE.fullmatch(token.text):
            self.fail(token, "no preprocessor directive; put the file through `cc -E -x c` first")

    # ---- what is next ----

    def peek(self) -> Token:
        """Return the next token, without stepping over it."""
        return self._tokens[self._at]

    def next(self) -> Token:
        """Return the next token; the end as often as it is asked for."""
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def fail(self, token: Token, expected: str) -> NoReturn:
        """Raise a DefsError: `expected` would be right, and `token` stands there."""
        shown = token.text if len(token.text) <= _SHOWN else token.text[:_SHOWN] + "..."
        found = repr(shown) if token.text else "the end"
        message = f"expected {expected}, found {found}"
        raise DefsError(message, *token[1:], expected=expected, found=token.text)

    def refuse(self, token: Token, why: str) -> NoReturn:
        """Raise a DefsError about `token`."""
        raise DefsError(why, *token[1:], found=token.text)

    def accept(self, *words: str) -> str:
        """Step over one of `words`, keywords in any case; return it in lower case, else ""."""
        word = self.peek().text.lower()
        if word not in words:
            return ""
        self.next()
        return word

    def expect(self, *words: str) -> str:
        """Step over one of `words`; anything else is an error."""
        word = self.accept(*words)
        if not word:
            self.fail(self.peek(), " or ".join(map(repr, words)))
        return word

    def word(self, expected: str) -> Token:
        """Step over an identifier."""
        token = self.next()
        if not _WORD.fullmatch(token.text):
            self.fail(token, expected)
        return token

    def digits(self, expected: str) -> int:
        """Step over a number, 0 to 2**31-1."""
        token = self.next()
        if not token.text.isdigit():
            self.fail(token, expected)
        return self._bounded(token, int(token.text) if len(token.text) < 11 else _NUMBER_MAX + 1)

    def _bounded(self, token: Token, value: int) -> int:
        if not 0 <= value <= _NUMBER_MAX:
            self.refuse(token, f"a number outside 0 to {_NUMBER_MAX}")
        return value

    def deeper(self, depth: int) -> int:
        """Return one more than `depth`, if that is not too much."""
        if depth >= self.limits.depth:
            self.refuse(self.peek(), f"more than {self.limits.depth} inside each other")
        return depth + 1

    # ---- numbers: + - * / and parentheses ----

    def number(self, depth: int = 0) -> int:
        """Step over an expression, and return what it comes to."""
        value = self._product(self.deeper(depth))
        while sign := self.accept("+", "-"):
            token = self.peek()
            other = self._product(depth + 1)
            value = self._bounded(token, value + other if sign == "+" else value - other)
        return value

    def _product(self, depth: int) -> int:
        value = self._factor(depth)
        while sign := self.accept("*", "/"):
            token = self.peek()
            other = self._factor(depth)
            if sign == "/" and not other:
                self.refuse(token, "division by 0")
            value = self._bounded(token, value * other if sign == "*" else value // other)
        return value

    def _factor(self, depth: int) -> int:
        if not self.accept("("):
            return self.digits("a number")
        value = self.number(depth)
        self.expect(")")
        return value


# ---- types ----


def _integers() -> dict[str, Scalar]:
    forms = {8: "b", 16: "h", 32: "i", 64: "q"}
    signed = {f"int{bits}_t": Scalar(f"int{bits}_t", form) for bits, form in forms.items()}
    unsigned = {
        f"uint{bits}_t": Scalar(f"uint{bits}_t", form.upper(), octet=bits == 8)
        for bits, form in forms.items()
    }
    return signed | unsigned


_INTEGERS = _integers()
_INT, _UNSIGNED = _INTEGERS["int32_t"], _INTEGERS["uint32_t"]
_CHAR, _BYTE = Scalar("char", "B", octet=True), Scalar("byte", "B", octet=True)
_BOOLEAN = Scalar("boolean_t", "?")
_REALS = {32: Scalar("float", "f"), 64: Scalar("double", "d")}
_SEND = Disposition.COPY_SEND
_INT_LIKE = """
    int kern_return_t integer_t mach_msg_id_t mach_msg_options_t mach_port_delta_t
    mach_port_flavor_t vm_prot_t vm_behavior_t exception_type_t task_flavor_t thread_flavor_t
    host_flavor_t
"""
_UNSIGNED_LIKE = """
    unsigned natural_t mach_port_name_t mach_msg_type_number_t mach_msg_size_t mach_port_right_t
    mach_port_type_t mach_port_urefs_t mach_port_seqno_t mach_port_mscount_t mach_port_msgcount_t
    mach_port_qlimit_t mach_port_srights_t vm_inherit_t exception_mask_t
"""
_LONG_LIKE = "vm_address_t vm_offset_t vm_size_t mach_vm_address_t mach_vm_offset_t mach_vm_size_t"
_PORT_LIKE = """
    mach_port_t task_t task_name_t thread_t thread_act_t host_t host_priv_t processor_t
    processor_set_t semaphore_t lock_set_t clock_serv_t ledger_t memory_object_t vm_map_t
"""
_MOVED = {  # as what a right arrives, where the type says no more
    "receive": Disposition.MOVE_RECEIVE,
    "send": Disposition.MOVE_SEND,
    "send_once": Disposition.MOVE_SEND_ONCE,
}


def _ports() -> dict[str, Type]:
    how = {n.lower(): value for n, value in Disposition.__members__.items() if n != "NONE"}
    named: dict[str, Type] = {f"mach_port_{n}_t": Port(v) for n, v in (how | _MOVED).items()}
    return dict.fromkeys(_PORT_LIKE.split(), Port(_SEND)) | named


def _any_number(of: Type) -> Array:
    return Array(of, 0, variable=True, out_of_line=not isinstance(of, Port))


STANDARD: Mapping[str, Type] = {
    **_INTEGERS,
    **dict.fromkeys(_INT_LIKE.split(), _INT),
    **dict.fromkeys(_UNSIGNED_LIKE.split(), _UNSIGNED),
    **dict.fromkeys(_LONG_LIKE.split(), _INTEGERS["uint64_t"]),
    **_ports(),
    "short": _INTEGERS["int16_t"],
    "char": _CHAR,
    "byte": _BYTE,
    "boolean_t": _BOOLEAN,
    "float": _REALS[32],
    "double": _REALS[64],
    "mach_port_poly_t": Port(None, Disposition.MOVE_SEND),
    "pointer_t": _any_number(_BYTE),
    "mach_port_array_t": _any_number(Port(_SEND)),
    "mach_port_name_array_t": _any_number(_UNSIGNED),
    "mach_port_type_array_t": _any_number(_UNSIGNED),
    "mach_port_info_t": Array(_INT, 17, variable=True),
    "security_token_t": Array(_UNSIGNED, 2, word="struct"),
    "audit_token_t": Array(_UNSIGNED, 8, word="struct"),
    "msg_labels_t": Array(_UNSIGNED, 2, word="struct"),
}
"""The types that are always known: those of mach/std_types.defs, and of mach/mach_types.defs what
means something without its kernel; msg_labels_t is SEDarwin's. A file may declare them anew."""

# What MACH_MSG_TYPE_* stands for, with the bits that go without saying; 0 where they must be said.
_SCALARS: dict[str, dict[int, Type]] = {
    "BOOLEAN": {0: _BOOLEAN, 32: _BOOLEAN},
    "INTEGER_8": {0: _INTEGERS["int8_t"], 8: _INTEGERS["int8_t"]},
    "INTEGER_16": {0: _INTEGERS["int16_t"], 16: _INTEGERS["int16_t"]},
    "INTEGER_32": {0: _INT, 32: _INT},
    "INTEGER_64": {0: _INTEGERS["int64_t"], 64: _INTEGERS["int64_t"]},
    "CHAR": {0: _CHAR, 8: _CHAR},
    "BYTE": {0: _BYTE, 8: _BYTE},
    "REAL": {0: _REALS[32], **_REALS},
    "REAL_32": {0: _REALS[32], 32: _REALS[32]},
    "REAL_64": {0: _REALS[64], 64: _REALS[64]},
    "PORT_NAME": {0: _UNSIGNED, 32: _UNSIGNED},
}
_PORTS: dict[str, Disposition | None] = {
    **{name: value for name, value in Disposition.__members__.items() if name != "NONE"},
    "PORT_RECEIVE": Disposition.MOVE_RECEIVE,
    "PORT_SEND": Disposition.MOVE_SEND,
    "PORT_SEND_ONCE": Disposition.MOVE_SEND_ONCE,
    "POLYMORPHIC": None,
}
_PREFIX = "mach_msg_type_"
FLAGS = frozenset(
    ("dealloc", "notdealloc", "islong", "isnotlong", "servercopy", "countinout")
    + ("samecount", "overwrite", "physicalcopy", "auto", "const")
)


class TypeReader:
    """Reads types.

    Args:
        source: the tokens.
        known: types by name.
    """

    def __init__(self, source: Source, known: Mapping[str, Type]) -> None:
        self.source = source
        self.known = known

    def read(self, depth: int = 0) -> Type:
        """Step over a type."""
        source, token = self.source, self.source.peek()
        depth = source.deeper(depth)
        try:
            found = self._read(depth)
        except DefsError:
            raise
        except ValueError as error:
            source.refuse(token, str(error))
        if found.depth > source.limits.depth:  # also where a name stands for what is inside
            source.refuse(token, f"more than {source.limits.depth} types inside each other")
        return found

    def _read(self, depth: int) -> Type:
        source = self.source
        if source.accept("^"):
            return _by_reference(self.read(depth))
        if word := source.accept("array", "struct", "c_string"):
            return self._string() if word == "c_string" else self._array(word, depth)
        return self._sized() if source.accept("(") else self._named()

    def _bound(self) -> tuple[int, bool]:
        """Step over `[n]`, `[*:n]`, `[*]` or `[]`; return n, or 0, and whether it is variable."""
        source = self.source
        source.expect("[")
        if source.accept("]"):
            return 0, True
        variable = bool(source.accept("*"))
        count = 0
        if not variable or source.accept(":"):
            token = source.peek()
            count = source.number() or source.refuse(token, "nothing has 0 elements")
        source.expect("]")
        return count, variable

    def _string(self) -> Type:
        return String(*self._bound())

    def _array(self, word: str, depth: int) -> Type:
        count, variable = self._bound()
        self.source.expect("of")
        element = self.read(depth)
        unbounded = variable and not count and not isinstance(element, Port)
        return Array(element, count, variable, unbounded, word)

    def _sized(self) -> Type:
        """Step over the rest of `(MACH_MSG_TYPE_X|MACH_MSG_TYPE_Y, bits, flags)`."""
        token, bits = self.source.peek(), 0
        name = self._code()
        arrival = self._arrival()
        if self.source.accept(","):
            bits = self.source.number()
        self.flags()
        self.source.expect(")")
        return self._basic(token, name, bits, arrival)

    def flags(self) -> tuple[str, ...]:
        """Step over `, dealloc` and its like, which say who frees what, and change no layout."""
        found = []
        while self.source.accept(","):
            token = self.source.word("a flag")
            if token.text.lower() not in FLAGS:
                self.source.fail(token, f"a flag ({' '.join(sorted(FLAGS))})")
            if self.source.accept("["):
                self.source.expect("]")
            found.append(token.text.lower())
        return tuple(found)

    def _named(self) -> Type:
        token = self.source.peek()
        lower = token.text.lower()
        if lower.startswith(_PREFIX) or lower == "polymorphic":
            return self._basic(token, self._code(), 0, self._arrival())
        self.source.next()
        if token.text not in self.known:
            self.source.fail(token, "a type")
        return self.known[token.text]

    def _code(self) -> str:
        token = self.source.word("MACH_MSG_TYPE_... or polymorphic")
        name = token.text.lower().removeprefix(_PREFIX).upper()
        if name not in (*_SCALARS, *_PORTS, "STRING", "STRING_C", "UNSTRUCTURED"):
            self.source.fail(token, "MACH_MSG_TYPE_... or polymorphic")
        return name

    def _basic(self, token: Token, name: str, bits: int, arrival: Disposition | None) -> Type:
        if name in _PORTS:
            return Port(_PORTS[name], arrival)
        if name in _SCALARS:
            sizes = _SCALARS[name]
            return sizes.get(bits) or self.source.refuse(token, f"not of {bits} bits")
        if bits % 8 or not bits:
            self.source.refuse(token, "its size, in bits, a multiple of 8, must be given")
        return Array(_BYTE, bits // 8) if name == "UNSTRUCTURED" else String(bits // 8)

    def _arrival(self) -> Disposition | None:
        """Step over `|MACH_MSG_TYPE_Y`, if there is one: as what a right arrives."""
        if not self.source.accept("|"):
            return None
        token = self.source.peek()
        name = self._code()
        arrival = Port(_PORTS[name]).arrival if name in _PORTS else None
        if name not in _PORTS:
            self.source.fail(token, "a port's MACH_MSG_TYPE_...")
        return arrival


def _by_reference(of: Type) -> Type:
    if isinstance(of, Array):
        return of if of.out_of_line else replace(of, out_of_line=True)
    if isinstance(of, Port):
        raise ValueError("a single right is not passed by reference")
    return Array(of, 1, out_of_line=True)


def parse_type(text: str, known: Mapping[str, Type] = STANDARD) -> Type:
    """Return the type that `text` means in MIG's notation.

    Raises:
        DefsError: it means none.

    Example:
        >>> str(parse_type("^array[*:64] of int"))
        '^array[*:64] of int32_t'
        >>> parse_type("c_string[*:80]")
        String(room=80, variable=True)
    """
    source = Source(text)
    found = TypeReader(source, known).read()
    if source.peek().text:
        source.fail(source.peek(), "the end of the type")
    return found
