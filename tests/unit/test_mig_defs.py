# SPDX-License-Identifier: BSD-2-Clause
"""`.defs` files: what they say, numbered as MIG numbers it, and errors that say where."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi import Kernel, PympiError
from pympi.mig import DefsError, Interface, Limits, Subsystem, parse_type, read_defs, read_defs_text

PORT = "type port_t = MACH_MSG_TYPE_COPY_SEND;\n"

# Files that both readers take. MIG knows no standard types but int, short and char.
DEFS = {
    "plain": f"subsystem plain 1200; {PORT} routine a(p: port_t); routine b(p: port_t; x: int);",
    "skips": f"""subsystem skips 100; {PORT}
        skip; routine a(p: port_t); skip 3; simpleroutine b(p: port_t); skip 0; skip;
        routine c(p: port_t);""",
    "words": f"""SubSystem KernelServer KernelUser words 400; {PORT}
        ROUTINE a(p: port_t); SimpleRoutine b(p: port_t);
        UserPrefix u_; serverprefix s_; serverdemux d; rcsid "1.1"; error e;
        import <x.h>; uimport "y.h"; simport <z.h>; waittime 3; nowaittime; msgoption M;;
        Skip; routine c(p: port_t);""",
    "types": f"""subsystem types 7; {PORT}
        type q = polymorphic|MACH_MSG_TYPE_PORT_SEND ctype: mach_port_t;
        type z = array[2*(3+1)-8/4] of int; type pa = ^array[] of port_t; type w = array[] of int;
        type pb = array[3] of port_t; type v = array[*:2] of z; type st = struct[3] of int;
        type s = c_string[*:20]; type s2 = c_string[20]; type i = (MACH_MSG_TYPE_INTEGER_32, 32);
        type t = int intran: a f(b) destructor: d(a);
        routine a(p: port_t; q: q; z: z; pa: pa; pb: pb; w: w; s: s; out s2: s2);
        simpleroutine b(p: port_t; v: v; st: st; i: i; t: t);
        routine c(p: port_t; out d: data_t = ^array[] of char, dealloc; inout n: int);""",
    "kinds": f"""subsystem kinds 900; {PORT} type once_t = MACH_MSG_TYPE_MAKE_SEND_ONCE;
        routine a(requestport p: port_t; replyport r: once_t; waittime t: int; msgoption o: int);
        skip 2;
        routine b(sreplyport r: once_t; p: port_t; msgseqno s: int; in x: int; out y: int);
        routine c(ureplyport r: once_t; p: port_t);""",
    "comments": f"""/* subsystem other 1; */ subsystem /**/ comments 3; {PORT}
        /* routine a(p: port_t);
           skip; */ routine b /* ( */ (p /* : */ : port_t);""",
    "many": f"subsystem many 5000; {PORT}"
    + "".join(f"skip {i % 3}; routine r{i}(p: port_t);" for i in range(150)),
}  # fmt: skip


def numbers(subsystem: Subsystem) -> list[tuple[str, int, int]]:
    """Return name, number of the request, and of the answer, 0 for none."""
    return [
        (routine.name, number, 0 if routine.simple else number + 100)
        for number, routine in enumerate(subsystem.routines, subsystem.base)
        if routine is not None
    ]


MIGS = ("mig", "x86_64-gnu-mig", "i686-gnu-mig")  # as distributions name it


def numbers_by_mig(path: Path) -> list[tuple[str, int, int]]:
    """Return the same as MIG has it. It succeeds silently even where it read nothing."""
    program = next(filter(None, map(shutil.which, MIGS)), None)
    if program is None:
        pytest.skip("no mig to compare with (Debian's mig-x86-64-gnu or mig-i686-gnu)")
    if shutil.which("gcc") is None:
        pytest.skip("mig needs gcc for its preprocessor, and there is none")
    made = ["-n", "-list", "list", "-header", "h", "-server", "s", "-user", "u"]
    command = [program, *made, path.name]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    listing = path.parent / "list"
    assert done.returncode == 0, done.stderr
    assert listing.exists(), done.stderr
    rows = [line.split() for line in listing.read_text().splitlines()]
    return [(row[2], int(row[4]), int(row[5])) for row in rows]


@pytest.mark.parametrize("name", DEFS)
def test_numbers_are_migs(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.defs"
    path.write_text(DEFS[name])
    found = read_defs(path)
    assert found.name == name
    assert numbers(found)
    assert numbers(found) == numbers_by_mig(path)


NAMES = st.lists(st.sampled_from(["routine", "simpleroutine", "skip", "skip 2"]), max_size=12)


@given(words=NAMES, base=st.integers(0, 1 << 30))
def test_numbers_count_everything(words: list[str], base: int) -> None:
    statements = [
        word if word.startswith("skip") else f"{word} r{i}(p: mach_port_t)"
        for i, word in enumerate([*words, "routine"])
    ]
    found = read_defs_text(f"subsystem x {base}; {'; '.join(statements)};")
    expected, number = [], base
    for i, word in enumerate([*words, "routine"]):
        if word.startswith("skip"):
            number += 2 if word.endswith("2") else 1
            continue
        expected.append((f"r{i}", number, 0 if word == "simpleroutine" else number + 100))
        number += 1
    assert numbers(found) == expected


# ---- what is said ----


def test_what_a_subsystem_says() -> None:
    found = read_defs_text(DEFS["words"])
    assert (found.kernel_server, found.kernel_user) == (True, True)
    assert (found.user_prefix, found.server_prefix) == ("u_", "s_")
    assert [(w.word, w.value) for w in found.words] == [
        ("serverdemux", "d"), ("rcsid", '"1.1"'), ("error", "e"), ("import", "<x.h>"),
        ("uimport", '"y.h"'), ("simport", "<z.h>"), ("waittime", "3"), ("nowaittime", ""),
        ("msgoption", "M"),
    ]  # fmt: skip


def test_types_and_what_is_said_of_them() -> None:
    found = read_defs_text(DEFS["types"])
    assert {name: str(kind) for name, kind in found.types.items()} == {
        "port_t": "MACH_MSG_TYPE_COPY_SEND",
        "q": "polymorphic|MACH_MSG_TYPE_MOVE_SEND",
        "z": "array[6] of int32_t",
        "pa": "^array[] of MACH_MSG_TYPE_COPY_SEND",
        "w": "^array[] of int32_t",
        "pb": "array[3] of MACH_MSG_TYPE_COPY_SEND",
        "v": "array[*:2] of array[6] of int32_t",
        "st": "struct[3] of int32_t",
        "s": "c_string[*:20]",
        "s2": "c_string[20]",
        "i": "int32_t",
        "t": "int32_t",
        "data_t": "^array[] of char",
    }
    assert [(w.about, w.word, w.value) for w in found.words] == [
        ("q", "ctype", "mach_port_t"), ("t", "intran", "a f(b)"), ("t", "destructor", "d(a)")
    ]  # fmt: skip


def test_arguments() -> None:
    routine = read_defs_text(DEFS["types"]).routines[2]
    assert routine is not None
    assert routine.arguments is not None
    assert [(a.name, a.kind, a.flags) for a in routine.arguments] == [
        ("p", "requestport", ()), ("d", "out", ("dealloc",)), ("n", "inout", ())
    ]  # fmt: skip


def test_a_word_may_name_an_argument() -> None:
    text = "subsystem x 1; routine f(in: mach_port_t; out: int; out inout: int);"
    routine = read_defs_text(text).routines[0]
    assert routine is not None
    assert [(a.name, a.kind) for a in routine.arguments or ()] == [
        ("in", "requestport"), ("out", "in"), ("inout", "out")
    ]  # fmt: skip


def test_access_control_of_sedarwin() -> None:
    found = read_defs_text("""
        subsystem mtest 1200;
        type msg_labels_t = struct[2] of int;
        routine printi(server: mach_port_t; accessflag access: int; n: int;
                       servermsglabels label: msg_labels_t);
        routine printia checkaccess (server: mach_port_t; x: array_t = array[*:16] of int);
    """)
    one, two = found.routines
    assert one is not None
    assert two is not None
    assert (one.protected, two.protected) == (False, True)
    assert [a.name for a in one.given] == ["n"]
    assert [a.name for a in one.served] == ["access", "n", "label"]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("int", "int32_t"), ("unsigned", "uint32_t"), ("mach_port_t", "MACH_MSG_TYPE_COPY_SEND"),
        ("MACH_MSG_TYPE_CHAR", "char"), ("(MACH_MSG_TYPE_REAL, 64)", "double"),
        ("(MACH_MSG_TYPE_STRING_C, 8*80)", "c_string[80]"),
        ("(MACH_MSG_TYPE_UNSTRUCTURED, 64)", "array[8] of byte"),
        ("^ array [ * ] of char", "^array[] of char"), ("array[*] of int", "^array[] of int32_t"),
        ("^array[4] of int", "^array[4] of int32_t"),
        ("^struct[2] of int", "^struct[2] of int32_t"),
        ("MACH_MSG_TYPE_PORT_RECEIVE", "MACH_MSG_TYPE_MOVE_RECEIVE"),
        ("mach_port_move_send_once_t", "MACH_MSG_TYPE_MOVE_SEND_ONCE"),
        ("^int", "^array[1] of int32_t"), ("array[10-3*3] of int", "array[1] of int32_t"),
    ],
)  # fmt: skip
def test_types(text: str, meaning: str) -> None:
    assert str(parse_type(text)) == meaning


# ---- the preprocessor ----


def test_what_the_preprocessor_left_is_read() -> None:
    """Its line markers give the places of errors."""
    text = '# 1 "a.defs"\n# 3 "a.defs" 2\nsubsystem x 1;\nrotine f();\n#line 90 "b.defs"\n'
    with pytest.raises(DefsError) as caught:
        read_defs_text(text)
    assert str(caught.value).startswith("a.defs:4:1: expected one of type routine ")
    with pytest.raises(DefsError) as caught:
        read_defs_text('subsystem x 1;\n#line 90 "b.defs"\n  routine;')
    assert (caught.value.file, caught.value.line, caught.value.column) == ("b.defs", 90, 10)


def test_the_standard_types_need_no_include() -> None:
    text = "#include <mach/std_types.defs>\n#include <mach/mach_types.defs>\n"
    found = read_defs_text(text + "subsystem x 1; routine f(p: mach_port_t; n: natural_t);")
    assert numbers(found) == [("f", 1, 101)]


@pytest.mark.parametrize(
    "line",
    ["#include <servers/x.defs>", "#if KERNEL", "#define X 1", "#endif", "#pragma once", "#"],
)
def test_directives_are_refused(line: str) -> None:
    with pytest.raises(DefsError, match="put the file through `cc -E") as caught:
        read_defs_text(f"subsystem x 1;\n {line}\n")
    assert (caught.value.line, caught.value.column, caught.value.found) == (2, 2, line)


# ---- errors ----

HEAD = "subsystem x 1;"
WRONG = [
    ("", 1, 1, "expected 'subsystem', found the end"),
    ("routine f();", 1, 1, "expected 'subsystem', found 'routine'"),
    ("subsystem 5 5;", 1, 11, "expected the subsystem's name, found '5'"),
    ("subsystem x;", 1, 12, "expected the subsystem's base, found ';'"),
    ("subsystem x 0x10;", 1, 14, "expected ';', found 'x10'"),
    ("subsystem x 2147483648;", 1, 13, "outside 0 to 2147483647"),
    ("subsystem x 99999999999999999999;", 1, 13, "outside 0 to"),
    (HEAD, 1, 15, "no routine"),
    (f"{HEAD} skip 4;", 1, 23, "no routine"),
    (f"{HEAD} subsystem y 2;", 1, 16, "only one subsystem"),
    (f"{HEAD}\n\n  rotine f();", 3, 3, "expected one of type routine"),
    (f"{HEAD} routine f(p: mach_port_t)", 1, 41, "expected ';', found the end"),
    (f"{HEAD} routine f();", 1, 24, "no port to send its request to"),
    (f"{HEAD} routine f(n: int; p: mach_port_t);", 1, 24, "no port"),
    (f"{HEAD} routine f(p: mach_port_t;);", 1, 41, "expected an argument, found ')'"),
    (f"{HEAD} routine f(p: mach_port_t n: int);", 1, 41, "expected ';' or ')', found 'n'"),
    (f"{HEAD} routine f(p: nothing_t);", 1, 29, "expected a type, found 'nothing_t'"),
    (f"{HEAD} routine f(p: mach_port_t; x: array[3] of int);", 1, 45, "expected a type"),
    (f"{HEAD} routine f(p: mach_port_t; p: int);", 1, 24, "two arguments"),
    (f"{HEAD} routine f(p: mach_port_t, free);", 1, 42, "expected a flag"),
    (f"{HEAD} simpleroutine f(p: mach_port_t; out n: int);", 1, 30, "would answer"),
    (f"{HEAD} routine f(p: mach_port_t; accessflag a: short);", 1, 53, "takes an int"),
    (f"{HEAD} routine f(p: mach_port_t; msglabels a: int);", 1, 52, "64 bits"),
    (f"{HEAD} routine f(p: mach_port_t; replyport a: int);", 1, 52, "takes a port"),
    (f"{HEAD} routine ioctl(p: mach_port_t);", 1, 24, "reserved"),
    (f"{HEAD} routine f(p: mach_port_t); routine f(p: mach_port_t);", 1, 51, "a second routine"),
    (f"{HEAD} type t = array[0] of int;", 1, 31, "0 elements"),
    (f"{HEAD} type t = array[1/0] of int;", 1, 33, "division by 0"),
    (f"{HEAD} type t = array[1-2] of int;", 1, 33, "outside 0"),
    (f"{HEAD} type t = array[99999999] of int;", 1, 25, "at most"),
    (f"{HEAD} type t = array[2] of c_string[*:4];", 1, 25, "cannot be an element"),
    (f"{HEAD} type t = array[2] of array[*:4] of int;", 1, 25, "cannot be an element"),
    (f"{HEAD} type t = c_string[];", 1, 25, "room"),
    (f"{HEAD} type t = (MACH_MSG_TYPE_INTEGER_32, 16);", 1, 26, "not of 16 bits"),
    (f"{HEAD} type t = MACH_MSG_TYPE_UNSTRUCTURED;", 1, 25, "size, in bits"),
    (f"{HEAD} type t = MACH_MSG_TYPE_WHAT;", 1, 25, "expected MACH_MSG_TYPE_"),
    (f"{HEAD} type t = polymorphic|MACH_MSG_TYPE_CHAR;", 1, 37, "a port's"),
    (f"{HEAD} type t = ^mach_port_t;", 1, 25, "single right"),
    (f"{HEAD} import ;", 1, 23, "expected what import says"),
    (f"{HEAD} $", 1, 16, "expected a word of MIG's, found '$'"),
    (f'{HEAD} rcsid "open;', 1, 22, "expected a word of MIG's"),
    (f"{HEAD} /* open", 1, 16, "a comment that does not end"),
    (f"{HEAD} /*/", 1, 16, "a comment that does not end"),
    (f'# 1 "\x1b[2J"\n{HEAD}', 1, 1, "no preprocessor directive"),
    (f"subsystem x {(1 << 31) - 1}; skip; routine f(p: mach_port_t);", 1, 39, "over 2147483647"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "column", "why"), WRONG, ids=lambda v: repr(v)[:50])
def test_errors_say_where_and_what(text: str, line: int, column: int, why: str) -> None:
    with pytest.raises(DefsError) as caught:
        read_defs_text(text, "x.defs")
    error = caught.value
    assert why in str(error)
    assert (error.file, error.line, error.column) == ("x.defs", line, column)
    assert str(error).startswith(f"x.defs:{line}:{column}: ")
    assert isinstance(error, (PympiError, ValueError))


def test_an_error_has_its_parts() -> None:
    with pytest.raises(DefsError) as caught:
        read_defs_text("subsystem x y;")
    assert (caught.value.expected, caught.value.found) == ("the subsystem's base", "y")


# A line for each type, all but the first of the one before it.
NESTED = "type t1 = array[1] of int;" + "".join(
    f"\ntype t{n} = array[1] of t{n - 1};" for n in range(2, 500)
)
DOUBLED = "type t1 = array[2] of char;" + "".join(
    f"\ntype t{n} = array[2] of t{n - 1};" for n in range(2, 30)
)


@pytest.mark.parametrize(
    ("text", "limits", "why"),
    [
        (HEAD + " " * 100, Limits(size=50), "more than 50 characters"),
        (f"{HEAD} type t = {'^' * 40} int;", Limits(), "more than 32 inside each other"),
        (f"{HEAD} type t = array[{'(' * 40}1{')' * 40}] of int;", Limits(), "more than 32"),
        (f"{HEAD} type t = {'array[1] of ' * 40} int;", Limits(), "more than 32"),
        (f"{HEAD} {NESTED}", Limits(), r"^<text>:32:12: more than 32 types inside each other$"),
        (
            f"{HEAD} {NESTED}",
            Limits(depth=3),
            r"^<text>:3:11: more than 3 types inside each other$",
        ),
        (f"{HEAD} {DOUBLED}", Limits(), r"^<text>:25:12: an array has at most 16777216 bytes$"),
        (f"{HEAD} skip 5000;", Limits(), "more than 4096 routines"),
        (f"{HEAD} skip; skip;", Limits(routines=1), "more than 1 routines"),
        (f"{HEAD} routine f(p: mach_port_t; a: int; b: int);", Limits(arguments=2), "2 arguments"),
        (f"{HEAD} type a = int; type b = int;", Limits(types=1), "more than 1 types"),
    ],
)
def test_limits(text: str, limits: Limits, why: str) -> None:
    with pytest.raises(DefsError, match=why):
        read_defs_text(text, limits=limits)


def test_what_is_as_deep_as_it_may_be_travels() -> None:
    text = f"{HEAD} {NESTED.splitlines()[0]}" + "".join(NESTED.splitlines(True)[1:31])
    made = read_defs_text(f"{text} routine f(p: mach_port_t; x: t31; y: u = ^array[] of t30);")
    value: object = 7
    for _ in range(31):
        value = (value,)
    (_, inner, outer) = made.routines[0].arguments  # type: ignore[union-attr,misc]
    assert (inner.type.depth, outer.type.depth) == (32, 32)
    assert inner.type.unpack(memoryview(inner.type.pack(value))) == value
    assert str(outer.type).count("array") == 31


def test_comments_that_do_not_end_are_looked_for_once() -> None:
    """Each would be looked through to the end of the text: an hour for a megabyte."""
    with pytest.raises(DefsError, match="does not end"):
        read_defs_text("/* " * 300_000)


def test_an_error_shows_a_part_of_what_is_long() -> None:
    with pytest.raises(DefsError) as caught:
        read_defs_text(f"subsystem {'9' * 100_000} 1;")
    assert len(str(caught.value)) < 200
    assert len(caught.value.found) == 100_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(MACH_MSG_TYPE_COPY_SEND|MACH_MSG_TYPE_PORT_SEND, 32, dealloc)", "COPY_SEND"),
        ("(polymorphic|MACH_MSG_TYPE_PORT_SEND_ONCE, 32)", "MOVE_SEND_ONCE"),
        ("MACH_MSG_TYPE_MAKE_SEND|MACH_MSG_TYPE_PORT_SEND", "MAKE_SEND"),
    ],
)
def test_how_a_right_leaves_and_arrives(text: str, said: str) -> None:
    """As in MIG's grammar, which has both in the parentheses."""
    made = read_defs_text(f"{HEAD} type t = {text}; routine f(p: mach_port_t; x: t);")
    assert str(made.types["t"]).endswith(said)
    with pytest.raises(DefsError, match=r"expected ';', found '\|'"):
        read_defs_text(f"{HEAD} type t = (MACH_MSG_TYPE_COPY_SEND, 32)|MACH_MSG_TYPE_PORT_SEND;")


def test_a_product_that_explodes() -> None:
    with pytest.raises(DefsError, match="outside"):
        read_defs_text(f"{HEAD} type t = array[{'*'.join(['2147483647'] * 1000)}] of int;")


VOCABULARY = """
    subsystem x 1 ; type t = int ^ array [ ] * : 3 of c_string ( ) routine simpleroutine skip , p |
    mach_port_t out inout requestport accessflag checkaccess + - / dealloc MACH_MSG_TYPE_CHAR struct
    polymorphic ctype # <b> /* */ // $ "a" \0 \u00e9
"""
WORDS = st.sampled_from([*VOCABULARY.split(), "\n"])


@given(st.lists(WORDS, max_size=60).map(" ".join) | st.text(max_size=60), st.booleans())
def test_nonsense_is_an_error_and_nothing_else(text: str, headed: bool) -> None:
    found = read_or_fail(f"{HEAD} routine f(p: mach_port_t); {text}" if headed else text)
    if isinstance(found, DefsError):
        assert found.line >= 1
        assert found.column >= 1
    else:
        assert Interface(found.name, found.base, found.routines).routines


PLACES = st.floats(0, 1, exclude_max=True)
EDITS = st.lists(st.tuples(PLACES, PLACES, WORDS), min_size=1, max_size=4)


@given(name=st.sampled_from(sorted(DEFS.keys() - {"many"})), edits=EDITS, cut=PLACES | st.just(1.0))
def test_files_that_went_wrong(
    name: str, edits: list[tuple[float, float, str]], cut: float
) -> None:
    """Parts are missing, or in another place, or something else stands there."""
    text = DEFS[name]
    for where, to, word in edits:
        first, last = sorted(int(place * len(text)) for place in (where, to))
        text = text[:first] + f" {word} " + text[min(last, first + 30) :]
    found = read_or_fail(text[: int(cut * len(text))])
    if isinstance(found, Subsystem):
        interface = Interface(found.name, found.base, found.routines)
        assert interface.cil()
        assert repr(interface.table)
    else:
        assert str(found).startswith(f"<text>:{found.line}:{found.column}: ")


def read_or_fail(text: str) -> Subsystem | DefsError:
    """Return what a text says, or what is wrong with it."""
    try:
        return read_defs_text(text)
    except DefsError as error:
        return error


def test_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.defs"
    path.write_text(DEFS["skips"])
    interface = Interface.from_defs(path)
    assert (interface.name, interface.base) == ("skips", 100)
    assert interface.routines == (
        "unused0", "a", "unused2", "unused3", "unused4", "b", "unused6", "c"
    )  # fmt: skip
    path.write_bytes(b"subsystem x 1;\n\xff")
    with pytest.raises(DefsError, match=r"p\.defs:2:1: not UTF-8"):
        Interface.from_defs(path)
    with pytest.raises(FileNotFoundError):
        Interface.from_defs(tmp_path / "none")


# Types of mach/std_types.defs and mach/mach_types.defs, and what they are.
STANDARD_TYPES = {
    "pointer_t": "^array[] of byte",
    "mach_port_array_t": "array[] of MACH_MSG_TYPE_COPY_SEND",
    "mach_port_name_array_t": "^array[] of uint32_t",
    "mach_port_info_t": "array[*:17] of int32_t",
    "mach_port_receive_t": "MACH_MSG_TYPE_MOVE_RECEIVE",
    "mach_port_send_t": "MACH_MSG_TYPE_MOVE_SEND",
    "mach_port_send_once_t": "MACH_MSG_TYPE_MOVE_SEND_ONCE",
    "mach_port_make_send_t": "MACH_MSG_TYPE_MAKE_SEND",
    "task_t": "MACH_MSG_TYPE_COPY_SEND",
    "host_priv_t": "MACH_MSG_TYPE_COPY_SEND",
    "mach_port_right_t": "uint32_t",
    "mach_port_delta_t": "int32_t",
    "mach_msg_id_t": "int32_t",
    "vm_prot_t": "int32_t",
    "mach_vm_offset_t": "uint64_t",
    "audit_token_t": "struct[8] of uint32_t",
    "msg_labels_t": "struct[2] of uint32_t",
}


@pytest.mark.parametrize("name", STANDARD_TYPES)
def test_standard_types(name: str) -> None:
    assert str(parse_type(name)) == STANDARD_TYPES[name]


def test_a_file_may_declare_a_standard_type_anew() -> None:
    found = read_defs_text(
        "subsystem s 1; type task_t = int; routine r(p: mach_port_t; t: task_t);"
    )
    [routine] = found.routines
    assert str(routine.arguments[1].type) == "int32_t"


def test_a_pointer_takes_bytes() -> None:
    interface = Interface.from_text(
        "subsystem s 1; routine put(p: mach_port_t; data: pointer_t; out size: int);"
    )
    with Kernel() as kernel:
        server = interface.server({"put": lambda _, data: len(data)})
        port = kernel.create_task("server").create_handler(server)
        client = interface.client(port.make_send(kernel.create_task("client")))
        assert client.put(b"five!") == 5
