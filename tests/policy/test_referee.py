# SPDX-License-Identifier: BSD-2-Clause
"""libsepol is the referee: our compiler and evaluator do as SELinux's own do, policy by policy.

Compared are, over pairs of contexts and every class: what is allowed, audited and not audited; new
contexts; extended permissions; with all booleans as they are and flipped. What one refuses, the
other refuses, on the same line. A seed that fails is in the name of the test; generate.py prints
its policy.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import generate
import pytest

from pympi.errors import PolicyError
from pympi.policy import sepol
from pympi.policy.cil import PolicyDatabase, compile_policy
from pympi.policy.cil.contexts import fault, format_context
from pympi.policy.cil.evaluate import Evaluator
from pympi.policy.cil.policydb import Context, Level, Range, RuleKind

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.cil"))
SEEDS = range(210)
MORE_SEEDS = range(1000, 4000)
CONTEXTS = 9
"""So many contexts of a policy are compared, each with each: every type is in one at least."""
KINDS = (RuleKind.TYPETRANSITION, RuleKind.TYPECHANGE)

pytestmark = pytest.mark.skipif(
    not sepol.AVAILABLE, reason="pympi was built without libsepol (Debian: libsepol-dev)"
)
needs_secilc = pytest.mark.skipif(shutil.which("secilc") is None, reason="there is no secilc")


class Tally(Counter[str]):
    """Counts what is compared, and the differences that are found."""

    def __init__(self) -> None:
        super().__init__(differences=0)
        self._found: list[object] = []

    def same(self, ours: object, theirs: object, *where: object) -> None:
        """Compare two answers; what differs is counted, and reported by `settle`."""
        if ours != theirs:
            self["differences"] += 1
            self._found.append((*where, ours, theirs))

    def settle(self) -> None:
        """Fail if there were differences since the last time."""
        found, self._found = self._found, []
        assert not found, f"{len(found)} differences, the first ones: {found[:3]}"


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Counts what is compared; the sums stand in the report of the run."""
    counts = Tally()
    yield counts
    words = ", ".join(f"{count} {what}" for what, count in counts.items())
    plugins = request.config.pluginmanager
    reporter, capture = (plugins.get_plugin(p) for p in ("terminalreporter", "capturemanager"))
    with capture.global_and_fixture_disabled():
        reporter.ensure_newline()
        reporter.write_line(f"compared with libsepol: {words}")


# ---- contexts ----


def some_level(db: PolicyDatabase, rng: random.Random, within: int, low: int = 0) -> Level:
    """Return a level with a sensitivity at least `low` and categories of `within`."""
    rank = rng.randrange(low, len(db.sensitivities))
    return Level(rank, rng.getrandbits(len(db.categories)) & within if db.categories else 0)


def some_context(db: PolicyDatabase, rng: random.Random, kind: int) -> Context:
    """Return a context with this type, perhaps not a valid one."""
    every = (1 << len(db.categories)) - 1
    low = high = Level(0, 0)
    if db.mls:
        high = some_level(db, rng, every)
        low = Level(rng.randint(0, high.sensitivity), high.categories & rng.getrandbits(8))
    if db.mls and rng.random() < 0.1:
        low = some_level(db, rng, every)
    user, role = rng.randrange(len(db.users)), rng.randrange(len(db.roles))
    return Context(user, role, kind, Range(low, high))


def a_valid_context(db: PolicyDatabase, rng: random.Random, kind: int) -> Context:
    """Return a valid context with this type."""
    for _ in range(30):
        context = some_context(db, rng, kind)
        if not fault(db, context):
            return context
    lowest = Range(Level(0), Level(0))
    return Context(rng.randrange(len(db.users)), db.role("object_r").number, kind, lowest)


def contexts_of(db: PolicyDatabase, rng: random.Random) -> list[Context]:
    """Return valid contexts: each type at least once, then others."""
    kinds = [*range(db.type_count)]
    kinds += rng.choices(kinds, k=max(0, CONTEXTS - len(kinds)))
    return [a_valid_context(db, rng, kind) for kind in kinds]


# ---- comparisons ----


def merged(ranges: tuple[tuple[int, int], ...] | None) -> set[int] | None:
    """Return the numbers in ranges, which may overlap."""
    if ranges is None:
        return None
    return {number for low, high in ranges for number in range(low, high + 1)}


def compare_validity(
    db: PolicyDatabase, judge: sepol.Evaluator, rng: random.Random, tally: Tally
) -> None:
    for kind in range(db.type_count):
        context = some_context(db, rng, kind)
        try:
            judge.access(context, context, 0)
        except ValueError:
            accepted = False
        else:
            accepted = True
        tally.same(not fault(db, context), accepted, format_context(db, context))


def compare_new(
    ours: Evaluator, judge: sepol.Evaluator, source: Context, target: Context, tclass: int,
    tally: Tally,
) -> None:  # fmt: skip
    for kind in KINDS:
        made: Context | None = ours.compute_sid(kind, source, target, tclass)
        if fault(ours.db, made):
            made = None
        try:
            theirs = judge.compute_sid(kind, source, target, tclass)
        except ValueError as error:
            if "valid" not in str(error):
                raise
            theirs = None
        tally.same(made, theirs, kind, source, target, ours.db.classes[tclass].name)


def compare_pairs(
    ours: Evaluator, judge: sepol.Evaluator, contexts: list[Context], tally: Tally
) -> None:
    db = ours.db
    for source in contexts:
        for target in contexts:
            for tclass in range(len(db.classes)):
                where = (source, target, db.classes[tclass].name)
                expected = judge.access(source, target, tclass)
                tally.same(ours.access(source, target, tclass), expected, *where)
                numbers = ours.routines(source, target, tclass)
                tally.same(merged(numbers), merged(judge.routines(source, target, tclass)), *where)
                compare_new(ours, judge, source, target, tclass, tally)
                tally["triples"] += 1
                tally["allowed bits"] += expected.allowed.bit_count()


def compare(db: PolicyDatabase, judge: sepol.Evaluator, seed: int, tally: Tally) -> None:
    """Compare all there is to a policy; the booleans as they are, and then all the other way."""
    rng = random.Random(seed)
    assert judge.permissive == db.permissive
    assert judge.handle_unknown == db.handle_unknown
    compare_validity(db, judge, rng, tally)
    contexts = contexts_of(db, rng)
    ours = Evaluator(db)
    compare_pairs(ours, judge, contexts, tally)
    if db.booleans:
        flipped = {name: not value for name, value in db.booleans.items()}
        compare_pairs(
            ours.with_booleans(flipped), judge.with_booleans(flipped), contexts[:CONTEXTS], tally
        )
        assert ours.access(contexts[0], contexts[1], 0) == judge.access(contexts[0], contexts[1], 0)
    tally["policies"] += 1
    tally.settle()


# ---- refusals ----


def refusal(text: str) -> PolicyError | None:
    """Return what our compiler has against a policy."""
    try:
        compile_policy([("p.cil", text)])
    except PolicyError as error:
        return error
    return None


def lines_of(message: str) -> set[int]:
    """Return the lines libsepol names."""
    places = re.findall(r"p\.cil:(\d+)|line (\d+)", message)
    return {int(number) for place in places for number in place if number}


def compare_refusal(text: str, base: str, ours: PolicyError | None) -> None:
    """Have libsepol refuse what we refuse, with our line among those it names, and take the rest.

    Args:
        text, base: the policy, and what our base adds; without it no policy is complete.
        ours: what we have against it.
    """
    if ours is None:
        assert sepol.compile_binary([("p.cil", text + base)])
        return
    with pytest.raises(PolicyError) as caught:
        sepol.compile_binary([("p.cil", text + base)])
    named = lines_of(str(caught.value))
    assert named, caught.value
    if ours.line not in named:
        # There are several faults, and the compilers came to different ones first.
        rest = without_lines(text, named)
        error = refusal(rest)
        assert error is not None, (ours, caught.value)
        compare_refusal(rest, base, error)


def without_lines(text: str, numbers: set[int]) -> str:
    """Return a text with some of its lines left blank."""
    lines = enumerate(text.splitlines(), 1)
    return "".join("\n" if number in numbers else f"{line}\n" for number, line in lines)


def base_of(text: str) -> str:
    """Return what our base adds to a policy."""
    whole = compile_policy([("p.cil", text)]).text
    assert whole.startswith(text)
    return whole[len(text) :]


def judged(seed: int, tally: Tally) -> PolicyDatabase:
    """Compare the refusals of a generated policy; return the most of it that is not refused."""
    texts = generate.candidates(seed)
    *_, least = texts.values()
    base, accepted = base_of(least), []
    for text in texts.values():
        error = refusal(text)
        compare_refusal(text, base, error)
        if error is None:
            accepted.append(text)
        else:
            tally["refused by both"] += 1
    assert least in accepted
    return compile_policy([("p.cil", max(accepted, key=len))])


# ---- tests ----


def test_differences_are_counted_and_fail() -> None:
    counts = Tally()
    counts.same(1, 1)
    counts.settle()
    for _ in range(2):
        counts.same(1, 2, "where")
    assert counts["differences"] == 2
    with pytest.raises(AssertionError, match="2 differences"):
        counts.settle()
    counts.settle()


@pytest.mark.parametrize("seed", SEEDS)
def test_generated(seed: int, tally: Tally) -> None:
    db = judged(seed, tally)
    compare(db, sepol.Evaluator(db), seed, tally)


@pytest.mark.long
@pytest.mark.parametrize("seed", MORE_SEEDS)
def test_generated_more(seed: int, tally: Tally) -> None:
    db = judged(seed, tally)
    compare(db, sepol.Evaluator(db), seed, tally)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_written(path: Path, tally: Tally) -> None:
    db = compile_policy([(path.name, path.read_text(encoding="utf-8"))])
    compare(db, sepol.Evaluator(db), 1, tally)


def test_there_are_many() -> None:
    assert len(SEEDS) + len(FILES) >= 200
    assert len({generate.candidates(seed)[()] for seed in SEEDS}) == len(SEEDS)


REFUSED = """
(allow a_t nothing_t (mach_port (send)))
(allow a_t b_t (nothing (send)))
(allow a_t b_t (mach_port (nothing)))
(allow a_t b_t picked)
(type a_t)
(typeattribute a_t)
(class other (x x))
(typealias a_t)
(typealiasactual nothing a_t)
(typeattributeset b_t (a_t))
(typeattributeset nothing (a_t))
(typeattributeset some (nothing_t))
(neverallow a_t b_t (mach_port (send recv)))
(neverallow some b_t (mach_port (send)))
(neverallow a_t self (mach_port (create)))
(allow self a_t (mach_port (send)))
(typetransition a_t b_t mach_port some)
(typetransition a_t b_t mach_port b_t)
(typetransition some b_t mach_port b_t)
(typechange a_t b_t nothing a_t)
(typepermissive nothing_t)
(boolean on true)
(booleanif off (true (allow a_t b_t (mach_port (recv)))))
(booleanif (nand on on) (true (allow a_t b_t (mach_port (recv)))))
(booleanif on (true (type c_t)))
(booleanif on (maybe (allow a_t b_t (mach_port (recv)))))
(booleanif on (true (neverallow a_t b_t (mach_port (recv)))))
(constrain (mach_port (send)) (eq u1 r2))
(constrain (mach_port (send)) (dom u1 u2))
(constrain (mach_port (send)) (eq t1 nothing_t))
(constrain (mach_port (send)) (eq u1 a_t))
(constrain (mach_port (send)) (and (eq u1 u2)))
(mlsconstrain (mach_port (send)) (greater l1 l2))
(mlsconstrain (mach_port (send)) (eq l1 s0))
(user u_u)
(userrole u_u nothing_r)
(userrole nothing_u r_r)
(roletype nothing_r a_t)
(roletype r_r nothing_t)
(sensitivity s0)
(sensitivity s7)
(category c7)
(sensitivityorder (s1 s0))
(categoryorder (c1 c0))
(sensitivitycategory s0 (c9))
(level high (s9))
(levelrange wrong ((s1) (s0)))
(sidcontext other (u_u r_r a_t ((s0) (s0))))
(context wrong (u_u r_r b_t ((s0) (s0))))
(classpermission empty)
(classmap empty (x))
(classmapping nothing x (mach_port (send)))
(allowx a_t b_t (ioctl mach_port (1)))
(allowx a_t b_t (ioctl mi_x (0x10000)))
(allowx a_t b_t (nlmsg mi_x (1)))
(permissionx p (ioctl nothing (1)))
(handleunknown perhaps)
(mls perhaps)
(block part (type x_t) (allow x_t nothing_t (mach_port (send))))
(in nothing (type x_t))
(frobnicate a_t)
(allow a_t b_t)
""".strip().splitlines()
REFUSED.append(f"(class other ({' '.join(f'p{n}' for n in range(33))}))")
"""Statements that make a policy one to be refused, on their line."""

REFUSED_ELSEWHERE = [
    "(typeattributeset some (not some))",  # libsepol names the declaration
    "(userrange u_u ((s1) (s0)))",  # the second one here; the first there
    "(allow a_t",  # the end of the text there
]
"""The same, but each compiler names its own line."""

STRICTER = [
    "(constrain (mach_port (send)) (eq l1 l2))",
    "(userlevel u_u (s0))",
    "(level high (s0 (c1)))",
    "(allowx a_t b_t (ioctl mi_x (range 5 4)))",
    "(mlsconstrain (mach_port (send)) (dom l2 l1))",
]
"""What we alone refuse: libsepol 3.4 takes it, and means something else or nothing."""

WORKING = """
(type a_t) (type b_t) (typeattribute some) (typeattributeset some (a_t b_t))
(class mi_x (first ioctl))
(user u_u) (role r_r) (roletype r_r a_t) (userrole u_u r_r)
(userlevel u_u (s0)) (userrange u_u ((s0) (s1 (c0))))
(mls true) (sensitivity s0) (sensitivity s1) (sensitivityorder (s0 s1))
(category c0) (category c1) (categoryorder (c0 c1)) (sensitivitycategory s1 (c0 c1))
(boolean on false)
(allow a_t b_t (mach_port (send)))
(allow some self (mach_port (move_send)))
(typetransition a_t b_t mach_port a_t)
"""
"""The policy they are put into, at its end."""


def test_what_is_refused_below_is_refused_for_its_own_sake() -> None:
    assert refusal(WORKING) is None
    assert sepol.compile_binary([("p.cil", compile_policy([("p.cil", WORKING)]).text)])


@pytest.mark.parametrize("statement", STRICTER)
def test_refused_by_us_alone(statement: str) -> None:
    error = refusal(f"{WORKING}{statement}\n")
    assert error is not None
    assert error.line == WORKING.count("\n") + 1


@pytest.mark.parametrize("statement", [*REFUSED, *REFUSED_ELSEWHERE])
def test_refused(statement: str, tally: Tally) -> None:
    text = f"{WORKING}{statement}\n"
    error = refusal(text)
    assert error is not None, "we take it"
    with pytest.raises(PolicyError) as caught:
        sepol.compile_binary([("p.cil", text + base_of(WORKING))])
    lines = lines_of(str(caught.value))
    same = error.line in lines or not lines or statement in REFUSED_ELSEWHERE
    assert same, (error, caught.value)
    tally["refused by both"] += 1


@needs_secilc
@pytest.mark.parametrize("start", range(0, len(SEEDS), 30))
def test_secilc_gives_the_same_binary(start: int, tmp_path: Path, tally: Tally) -> None:
    for seed in SEEDS[start : start + 30]:
        *_, text = generate.candidates(seed).values()
        db = compile_policy([("p.cil", text)])
        compare_binary(db, secilc(db.text, tmp_path), seed, tally)


@needs_secilc
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_secilc_takes_written(path: Path, tmp_path: Path, tally: Tally) -> None:
    db = compile_policy([(path.name, path.read_text(encoding="utf-8"))])
    compare_binary(db, secilc(db.text, tmp_path), 1, tally)


def secilc(text: str, directory: Path) -> Path:
    """Return the binary policy that secilc makes of a text."""
    source, binary = directory / "p.cil", directory / "p.33"
    source.write_text(text, encoding="utf-8")
    command = ["secilc", "-c", "33", "-o", binary, "-f", directory / "contexts", source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return binary


def compare_binary(db: PolicyDatabase, binary: Path, seed: int, tally: Tally) -> None:
    """Compare a binary with its source; where it is what libsepol makes, that was done already."""
    tally["binaries of secilc"] += 1
    if binary.read_bytes() == sepol.compile_binary([("p.cil", db.text)]):
        tally["binaries byte for byte the same"] += 1
    else:
        rng = random.Random(seed)
        names = list(db.initial_sids)
        read = sepol.load_binary(binary, sids=names)
        judge, other = sepol.Evaluator(db), sepol.Evaluator(read)
        for source in contexts_of(db, rng):
            for tclass in range(len(db.classes)):
                expected = judge.access(source, source, tclass)
                tally.same(other.access(source, source, tclass), expected, source, tclass)
        tally.settle()
