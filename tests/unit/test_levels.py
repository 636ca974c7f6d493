# SPDX-License-Identifier: BSD-2-Clause
"""The page of decisions: complete, up to date, and what a real kernel answers, row by row."""

import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pympi import Kernel
from pympi.enums import CLASSES, hooks
from pympi.mig import Interface
from pympi.policy import MLS, Biba, Partition
from pympi.policy.levels import EQUAL, HIGH, LOW, Element, Label, Levels, Range

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "levels.md").read_text()
SECTION = re.compile(r"^### (\w+).*?\n\n(.*?)\n\n", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `?([\w ]+?)`? \| (\w+) \| (\w+) \| (\w+) \| (.+) \|$", re.MULTILINE)

# (class, permission, word of mls, of biba, of partition), as the page has them.
ROWS = [
    (section[1], *row.groups()[:4])
    for section in SECTION.finditer(PAGE.partition("## Decisions")[2])
    for row in ROW.finditer(section[2])
    if row[1] != "permission"
]

LEVELS = [
    "low", "3", "5:1", "5:1+2", "7:2", "7:1++3", "high", "equal",
    "low(low-high)", "5:1(low-7:1++3)", "equal(5-high)", "3(equal-high)", "high(3-high)", "3(5-7)",
]  # fmt: skip
PARTITIONS = ["red", "blue"]


# ---- what the words mean, written a second time and differently: by rank and sets ----

Point = tuple[int, frozenset[int]]
POINTS: dict[str, Point] = {
    "low": (-1, frozenset()),
    "3": (3, frozenset()),
    "5": (5, frozenset()),
    "7": (7, frozenset()),
    "5:1": (5, frozenset({1})),
    "5:1+2": (5, frozenset({1, 2})),
    "7:2": (7, frozenset({2})),
    "7:1++3": (7, frozenset({1, 2, 3})),
    "high": (1 << 20, frozenset(range(1, 257))),
}


def above(a: str, b: str) -> bool:
    """Whether element a dominates element b."""
    if "equal" in (a, b):
        return True
    (rank_a, set_a), (rank_b, set_b) = POINTS[a], POINTS[b]
    return rank_a >= rank_b and set_a >= set_b


def parts(label: str | None, default: str) -> tuple[str, str, str]:
    """Effective element, and the ends of the range."""
    effective, *rest = re.split(r"[(-]", (label or default).rstrip(")"))
    low, high = rest or [effective, effective]
    return effective, low, high


def write_up(subject: tuple[str, str, str], target: tuple[str, str, str]) -> bool:
    return above(target[0], subject[0])


def write_down(subject: tuple[str, str, str], target: tuple[str, str, str]) -> bool:
    return above(subject[0], target[0])


def in_range(subject: tuple[str, str, str], target: tuple[str, str, str]) -> bool:
    return above(subject[2], target[0]) and above(target[0], subject[1])


def assume(subject: tuple[str, str, str], target: tuple[str, str, str]) -> bool:
    if subject == target:
        return True
    privileged = "equal" in subject or subject[1:] == ("low", "high")
    inner = above(subject[2], target[2]) and above(target[1], subject[1])
    return in_range(subject, target) and inner and (privileged or "equal" not in target)


def oracle(write: Any) -> dict[str, Any]:
    return {
        "write": write,
        "read": lambda s, t: write(t, s),
        "both": lambda s, t: write(s, t) and write(t, s),
        "range": in_range,
        "assume": assume,
        "none": lambda s, t: True,
    }


ORACLES = {"mls": oracle(write_up), "biba": oracle(write_down)}
DEFAULTS = {"mls": "low(low-high)", "biba": "high(low-high)"}


def expected(module: str, word: str, subject: str | None, target: str | None) -> bool:
    if module == "partition":
        assert word == "same"
        return subject is None or target is None or subject == target
    default = DEFAULTS[module]
    return bool(ORACLES[module][word](parts(subject, default), parts(target, default)))


# ---- the page ----


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("levels_tool", ROOT / "tools" / "levels.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date() -> None:
    assert tool().made(PAGE) == PAGE, "run: python tools/levels.py"


def test_the_page_has_every_hook_once() -> None:
    listed = [(row[0], row[1]) for row in ROWS]
    assert listed == [*((h.class_name, h.permission) for h in hooks()), ("mi_", "every routine")]


# ---- the page and the kernel ----

Answers = dict[tuple[str | None, str | None, str], tuple[str, ...]]


@pytest.fixture(scope="module")
def answers() -> dict[str, Answers]:
    """What kernels say of each pair of labels and each class: the permissions they allow."""
    found: dict[str, Answers] = {}
    modules: list[tuple[Callable[[], Any], list[str]]] = [
        (MLS, LEVELS), (Biba, LEVELS), (Partition, PARTITIONS)
    ]  # fmt: skip
    for make, values in modules:
        module = make()
        with Kernel(policies=[module]) as kernel:
            Interface("x", 100, ["one", "two"]).number(kernel)
            found[module.name] = {
                (subject, target, tclass): allowed(kernel, module.name, subject, target, tclass)
                for subject in [None, *values]
                for target in [None, *values]
                for tclass in {row[0] for row in ROWS if row[0] != "mi_"} | {"mi_x"}
            }
    return found


def allowed(
    kernel: Kernel, name: str, subject: str | None, target: str | None, tclass: str
) -> tuple[str, ...]:
    source, sink = (f"{name}/{value}" if value else "-" for value in (subject, target))
    answer = kernel.access(source, sink, tclass, "*")
    return kernel.object_class(tclass).names(answer.vector)


@pytest.mark.parametrize("column", ["mls", "biba", "partition"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}.{row[1].replace(' ', '_')}")
def test_a_kernel_answers_as_the_page_says(
    row: tuple[str, ...], column: str, answers: dict[str, Answers]
) -> None:
    tclass, permission = row[:2]
    word = row[2 + ["mls", "biba", "partition"].index(column)]
    tclass, permissions = ("mi_x", {"one", "two"}) if tclass == "mi_" else (tclass, {permission})
    asked = 0
    for (subject, target, kind), granted in answers[column].items():
        if kind == tclass:
            asked += 1
            says = permissions <= set(granted)
            assert says == expected(column, word, subject, target), (subject, target)
    assert asked >= 9


def test_every_relation_refuses_something_and_allows_something() -> None:
    """Else the test above could not tell them apart."""
    for module, words in ORACLES.items():
        for word in set(words) - {"none"}:
            seen = {expected(module, word, s, t) for s in LEVELS for t in LEVELS}
            assert seen == {True, False}, (module, word)


# ---- what an explanation says would be allowed ----

ORDER = re.compile(r"a subject of (at \w+ )?(\S+) or an object of (at \w+ )?(\S+)")
RANGE = re.compile(
    r"a subject whose range has (\S+)(?: and \((\S+)-(\S+)\))? in it "
    r"or an object(?: and its range)? within \((\S+)-(\S+)\)"
)
FREE = "a subject of equal or with the range (low-high)"
ELEMENTS = [Element.from_text(text) for text in (*POINTS, "equal")]


def meant(amount: str | None, text: str) -> list[Element]:
    """Return elements that "at most", "at least" or none of both, and an element, are about."""
    bound = Element.from_text(text)
    if amount is None:
        return [bound]
    some = [e for e in ELEMENTS if (bound.dominates(e) if "most" in amount else e.dominates(bound))]
    assert bound in some
    return some


def remedied(remedy: str, subject: Label, target: Label) -> Iterator[tuple[Label, Label]]:
    """Yield pairs that are as a remedy says."""
    if remedy == FREE:
        yield Label(EQUAL), target
        yield Label(subject.effective, Range(LOW, HIGH)), target
    elif order := ORDER.fullmatch(remedy):
        yield from ((Label(e, subject.range), target) for e in meant(order[1], order[2]))
        yield from ((subject, Label(e)) for e in meant(order[3], order[4]))
    else:
        spread = RANGE.fullmatch(remedy)
        assert spread
        inside, *ends = (Element.from_text(text) for text in spread.groups() if text)
        least, own = Range(*(ends[:-2] or [inside] * 2)), Range(*ends[-2:])
        yield from ((Label(LOW, r), target) for r in (least, Range(LOW, HIGH)) if r.has(inside))
        yield from ((subject, Label(element)) for element in own if own.has(element))


@pytest.mark.parametrize("module", [MLS(), Biba()], ids=["mls", "biba"])
def test_what_would_be_allowed_is(module: Levels) -> None:
    tried: Counter[str] = Counter()
    for a, b in product(LEVELS, repeat=2):
        subject, target = module.parse(a), module.parse(b)
        for tclass, permission in (("mach_port", "send"), ("mach_port", "recv"),
                                   ("mach_task", "extract_right"), ("mach_port", "relabelfrom"),
                                   ("mach_port", "specify")):  # fmt: skip
            bit = CLASSES[tclass].mask(permission)
            told = module.explain(subject, target, CLASSES[tclass], permission)
            if told.startswith("refuses"):
                remedy = told.rpartition("; ")[2].removesuffix(" would be allowed")
                for pair in remedied(remedy, subject, target):
                    tried[permission] += 1
                    assert module.decide(*pair, CLASSES[tclass]).allowed & bit, (told, *pair)
            else:
                assert "would be" not in told
    assert len(tried) == 5
