# SPDX-License-Identifier: BSD-2-Clause
"""What the core decides by tables is what Python's `decide` answers, for every pair and class.

Python is the definition: each vector that a kernel decides natively is compared with what
`Composition.decide` says about the same two labels, over generated policies and labels, and after
every kind of change. Caches are so small that nearly every question is a miss.
"""

from __future__ import annotations

import random
import runpy
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from background import Run
from hypothesis import given, settings
from hypothesis import strategies as st

import pympi
from pympi import Kernel
from pympi._ffi import ffi, lib
from pympi.enums import CLASSES, ObjectClass
from pympi.errors import PolicyError, check
from pympi.policy import (
    MLS,
    Biba,
    Decision,
    Partition,
    PolicyModule,
    Rules,
    Stub,
    TypeEnforcement,
    native,
    sepol,
)
from pympi.policy.cil.contexts import fault, format_context
from pympi.policy.cil.policydb import Context, Level, Range
from pympi.policy.levels import Label

SEND = CLASSES["mach_port"].mask("send")
KIND = ("allowed", "auditallow", "auditdeny", "report")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are made with the first question."""
    monkeypatch.setattr(native, "PATIENCE", 1)


def vector(kernel: Kernel, source: int, target: int, tclass: int) -> tuple[int, ...]:
    """Return what the core decides, as it is enforced."""
    found = ffi.new("struct pm_decision *")
    check(lib.pm_decide(kernel.pointer, source, target, tclass, found), "decide")
    return tuple(getattr(found, name) for name in KIND)


def defined(kernel: Kernel, source: int, target: int, tclass: int) -> tuple[int, ...]:
    """Return what the modules answer in Python, as it is to be enforced."""
    composition = kernel.policies._composition
    texts = (kernel.policies._filed_text(sid) for sid in (source, target))
    decision = composition.decide(*texts, kernel.policies.object_class(tclass)).decision
    allowed, report = decision.allowed, decision.report
    if composition.permissive:
        allowed, report = 0xFFFFFFFF, report | ~allowed & 0xFFFFFFFF
    return allowed, decision.auditallow, decision.auditdeny, report


def compare(kernel: Kernel, sids: Sequence[int], classes: Iterable[int] = ()) -> None:
    """Compare all pairs and classes; at the end the core has decided, and not Python."""
    numbers = list(classes) or [tclass.number for tclass in CLASSES.values()]
    for _ in range(2):  # labels get their values by the first round
        before = kernel.stats()
        for source in sids:
            for target in sids:
                for tclass in numbers:
                    where = source, target, tclass
                    assert vector(kernel, *where) == defined(kernel, *where), [
                        kernel.policies.text(sid) for sid in where[:2]
                    ]
        after = kernel.stats()
    assert kernel.policies.native, kernel.policies.native.why
    assert after["decider_calls"] == before["decider_calls"]
    if len(sids) ** 2 * len(numbers) > 8:  # fewer may all be cached
        assert after["native_decisions"] > before["native_decisions"]
    kernel.verify()


@contextmanager
def policed(*modules: PolicyModule, labels: Iterable[str]) -> Iterator[tuple[Kernel, list[int]]]:
    """Make a kernel with the smallest cache, and labels in it."""
    with Kernel(policies=list(modules), avc_entries=1) as kernel:
        yield kernel, [kernel.policies.intern(label) for label in labels]


names = st.text("abc", min_size=1, max_size=2)


@settings(max_examples=20, deadline=None)
@given(st.lists(names, max_size=6, unique=True), st.booleans(), st.booleans())
def test_partition_and_stub(partitions: list[str], soft: bool, permissive: bool) -> None:
    labels = [f"partition/{name}" for name in partitions] + ["stub/x", "partition/a,stub/y"]
    with policed(Partition(), Stub(), labels=labels) as (kernel, sids):
        compare(kernel, sids)
        kernel.policies.set_permissive("partition", soft)
        kernel.policies.permissive = permissive
        compare(kernel, sids)


points = st.sampled_from(["low", "high", "equal"])
compartments = st.lists(st.sampled_from([1, 2, 31, 32, 33, 64, 255, 256]), max_size=3, unique=True)


@st.composite
def elements(draw: st.DrawFn) -> str:
    """Return an element of levels."""
    if draw(st.booleans()):
        return draw(points)
    level, inside = draw(st.sampled_from([0, 1, 2, 65535])), draw(compartments)
    return f"{level}:{'+'.join(map(str, inside))}" if inside else str(level)


@st.composite
def leveled(draw: st.DrawFn) -> str:
    """Return a label of levels, perhaps with a range."""
    low, high = draw(elements()), draw(st.one_of(st.just("high"), elements()))
    text = draw(elements()) + (f"({low}-{high})" if draw(st.booleans()) else "")
    try:
        return str(Label.from_text(text))
    except ValueError:  # high does not dominate low
        return f"{low}({low}-{low})"


@settings(max_examples=60, deadline=None)
@given(st.lists(leveled(), min_size=1, max_size=6, unique=True), st.booleans(), st.booleans())
def test_levels(texts: list[str], soft: bool, up: bool) -> None:
    module = MLS() if up else Biba()
    labels = [f"{module.name}/{text}" for text in texts] + ["stub/x"]
    with policed(module, Stub(), labels=labels) as (kernel, sids):
        kernel.policies.set_permissive(module.name, soft)
        compare(kernel, sids)


def test_levels_composed_with_others() -> None:
    labels = [
        "mls/low", "mls/5:1+3(low-high),biba/3", "biba/equal,partition/a", "mls/high,partition/b",
        "mls/5:1(5-5:1++9),biba/low(low-high),partition/a", "stub/nothing", "mls/equal",
    ]  # fmt: skip
    with policed(MLS(), Biba(), Partition(), Stub(), labels=labels) as (kernel, sids):
        compare(kernel, sids)
        kernel.policies.set_permissive("mls")
        compare(kernel, sids)
        kernel.policies.replace("mls", MLS())
        kernel.policies.unload("biba")
        compare(kernel, sids)


def test_what_has_no_value_is_the_default_of_the_module() -> None:
    labels = ["mls/low", "mls/7(3-9)", "mls/9", "stub/x"]
    with policed(MLS(), Stub(), labels=labels) as (kernel, sids):
        compare(kernel, sids)
        module = kernel.policies["mls"]
        module.default = Label.from_text("7(3-9)")  # type: ignore[attr-defined]
        module.changed()
        compare(kernel, sids)


def test_levels_that_were_changed_are_asked() -> None:
    with policed(MLS(), labels=["mls/low", "mls/high"]) as (kernel, sids):
        module: Any = kernel.policies["mls"]
        module.relations["read"] = module.relations["write"]
        module.changed()
        questions(kernel, sids)
        assert kernel.policies.native.why == "module mls has relations of its own"


# ---- type enforcement ----

GENERATE = runpy.run_path(str(Path(__file__).parents[1] / "policy" / "generate.py"))
FILES = sorted((Path(__file__).parents[1] / "policy").glob("*.cil"))


def enforcement(text: str) -> TypeEnforcement | None:
    """Return the policy, and None where it is one to be refused."""
    try:
        return TypeEnforcement.from_text(text)
    except PolicyError:
        return None


def some_contexts(module: TypeEnforcement, rng: random.Random, most: int = 7) -> list[str]:
    """Return labels with valid contexts, of all types if there are few."""
    db = module.database
    found: set[str] = set()
    for _ in range(300):
        high = Level(rng.randrange(len(db.sensitivities)), rng.getrandbits(len(db.categories) + 1))
        high = high._replace(categories=high.categories & (1 << len(db.categories)) - 1)
        low = Level(rng.randint(0, high.sensitivity), high.categories & rng.getrandbits(8))
        levels = Range(low, high) if db.mls and rng.random() < 0.7 else Range(Level(0), Level(0))
        numbers = (rng.randrange(len(each)) for each in (db.users, db.roles))
        context = Context(*numbers, rng.randrange(db.type_count), levels)
        if len(found) < most and not fault(db, context):
            found.add(format_context(db, context, lasting=True))
    return ["te/" + text.replace(",", r"\,") for text in sorted(found)] + ["stub/nothing"]


def everything_about(module: TypeEnforcement, seed: int) -> None:
    """Compare a policy as it is, with booleans flipped, permissive, and without."""
    rng = random.Random(seed)
    with policed(module, Stub(), labels=some_contexts(module, rng)) as (kernel, sids):
        kernel.policies.add_class(ObjectClass(40, "mi_service", SERVICE))
        kernel.policies.add_class(ObjectClass(41, "mi_unknown", ("one", "two")))
        classes = [1, 2, 3, 40, 41]
        compare(kernel, sids, classes)
        for name, value in list(module.booleans.items())[:2]:
            before = kernel.stats()["decider_calls"]
            module.set_booleans(**{name: not value})
            compare(kernel, sids, classes)
            assert kernel.stats()["decider_calls"] <= before + 1  # labels kept their values
        kernel.policies.set_permissive("te", rng.random() < 0.5)
        kernel.policies.permissive = rng.random() < 0.2
        compare(kernel, sids, classes)


SERVICE = (*(f"routine{n}" for n in range(7)), "ioctl")


@pytest.mark.parametrize("seed", range(40))
def test_generated_policies(seed: int) -> None:
    """Each as it was made, or without what it is refused for."""
    for text in GENERATE["candidates"](seed).values():
        if module := enforcement(text):
            return everything_about(module, seed)
    return pytest.fail(f"policy {seed} is refused, whatever it is without")


@pytest.mark.long
def test_many_generated_policies() -> None:
    for seed in range(1000, 2000):
        test_generated_policies(seed)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_policies_beside_their_tests(file: Path) -> None:
    module = enforcement(file.read_text(encoding="utf-8"))
    assert module
    everything_about(module, 0)


LEVELED = Path(pympi.__file__).parent / "data" / "desktop.cil"


def test_another_policy_in_its_place() -> None:
    """Numbers mean something else then: labels get new values, or none if they are not valid."""
    one, other = ("(type a_t) (type b_t)", "(type c_t) (type b_t) (type a_t)")
    common = """(role r) (user u) (userrole u r) (roletype r a_t) (roletype r b_t)
        (allow a_t b_t (mach_port (send))) (allow b_t self (mach_port (recv)))"""
    first, second = (TypeEnforcement.from_text(types + common) for types in (one, other))
    labels = ["te/u:r:a_t", "te/u:r:b_t"]
    with policed(first, labels=labels) as (kernel, sids):
        compare(kernel, sids)
        kernel.policies.replace("te", second)
        compare(kernel, sids)
        sids.append(kernel.policies.intern("te/u:object_r:c_t"))
        compare(kernel, sids)
        kernel.policies.replace("te", first)  # which cannot read the last label
        questions(kernel, sids)
        compare(kernel, sids[:2])
        assert vector(kernel, sids[0], sids[2], 1)[0] == 0
        assert kernel.stats()["native_labels"] == 3  # the last one's are of another scheme


def test_a_policy_beyond_the_limits_is_asked() -> None:
    text = """(type a_t) (role r) (user u) (userrole u r) (roletype r a_t)
        (allow a_t a_t (mach_port (send)))"""
    many = "(constrain (mach_port (send)) (eq u1 u2))" * (lib.PM_NATIVE_STEPS_MAX + 1)
    module = TypeEnforcement.from_text(text + many)
    with policed(module, Stub(), labels=some_contexts(module, random.Random(0))) as (kernel, sids):
        questions(kernel, sids)
        assert kernel.policies.native.why.startswith("the core takes no such tables")
        assert kernel.stats()["native_memory"] == 0


def test_libsepol_is_asked() -> None:
    if not sepol.AVAILABLE:
        pytest.skip("pympi was built without libsepol")
    module = TypeEnforcement.from_file(LEVELED, backend="libsepol")
    with policed(module, Stub(), labels=some_contexts(module, random.Random(0))) as (kernel, sids):
        questions(kernel, sids)
        assert kernel.policies.native.why == "module te is decided by libsepol"


def test_the_sample_policy() -> None:
    module = TypeEnforcement.from_file(LEVELED)
    labels = some_contexts(module, random.Random(0), 40)
    with policed(module, Stub(), labels=labels) as (kernel, sids):
        compare(kernel, sids)


# ---- rules ----

patterns = st.sampled_from(["a", "b", "c", "*"])
some_rules = st.lists(
    st.tuples(
        patterns,
        patterns,
        st.sampled_from(["mach_port", "mach_task", "mi_service", "*"]),
        st.sampled_from(["send", "create send", "routine1", "*", "no_such_thing"]),
    ).filter(lambda rule: rule[3] in ("send", "*") or rule[2] in ("mi_service", "*")),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(some_rules, some_rules)
def test_rules(rules: list[Any], others: list[Any]) -> None:
    for each in (rules, others):
        each[:] = [r for r in each if (r[2], r[3]) != ("mach_task", "send")]
    labels = ["rules/a", "rules/b", "rules/c", "rules/d", "stub/nothing"]
    with policed(Rules(rules), Stub(), labels=labels) as (kernel, sids):
        kernel.policies.add_class(ObjectClass(40, "mi_service", SERVICE))
        compare(kernel, sids, [1, 2, 3, 40])
        kernel.policies.replace("rules", Rules(others))
        compare(kernel, sids, [1, 2, 3, 40])


def test_rules_beside_levels() -> None:
    rules = Rules.from_text("allow a * mach_port { send recv }; allow * b * { * };")
    labels = ["rules/a,mls/3", "rules/b,mls/5", "rules/a", "mls/9:1", "stub/x"]
    with policed(rules, MLS(), Stub(), labels=labels) as (kernel, sids):
        compare(kernel, sids)
        kernel.policies.set_permissive("rules")
        compare(kernel, sids)


# ---- changes ----


class Curfew(PolicyModule):
    """Written in Python."""

    name = "curfew"

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        return Decision(allowed=5)


def questions(kernel: Kernel, sids: Sequence[int]) -> None:
    """Ask about every pair, and compare with Python, whoever decides."""
    for source in sids:
        for target in sids:
            assert vector(kernel, source, target, 1) == defined(kernel, source, target, 1)


PARTITIONS = ["partition/a", "partition/b", "stub/x"]


def test_modules_come_and_go() -> None:
    with policed(Partition(), labels=["partition/a", "partition/b"]) as (kernel, sids):
        compare(kernel, sids)
        kernel.policies.load(Curfew())
        questions(kernel, sids)
        assert kernel.policies.native == (False, "module curfew is written in Python")
        kernel.policies.unload("curfew")
        compare(kernel, sids)
        kernel.policies.load(Stub())
        compare(kernel, sids)
        shadow = kernel.policies.replace("partition", Partition(), shadow=True)
        questions(kernel, sids)
        assert "shadow policy of partition" in kernel.policies.native.why
        shadow.drop()
        compare(kernel, sids)
        kernel.policies.unload("partition")
        compare(kernel, sids)
        kernel.policies.load(Partition())
        compare(kernel, sids)
        kernel.policies.unload("stub")
        kernel.policies.unload("partition")
        assert kernel.policies.native.why == "no module decides"


def test_one_that_is_asked_about_everything_is() -> None:
    with policed(Partition(), labels=PARTITIONS[:2]) as (kernel, sids):
        compare(kernel, sids)
        kernel.policies["partition"].uncached = True
        questions(kernel, sids)
        assert "about every operation" in kernel.policies.native.why
        kernel.policies["partition"].uncached = False
        compare(kernel, sids)


def test_a_subclass_or_another_decide_is_a_module_of_its_own() -> None:
    class Own(Partition):
        def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
            return Decision(allowed=1)

    with policed(Own(), labels=PARTITIONS[:2]) as (kernel, sids):
        questions(kernel, sids)
        assert kernel.policies.native.why == "module partition is written in Python"
        changed = Partition()
        changed.decide = Curfew().decide  # type: ignore[method-assign]
        kernel.policies.replace("partition", changed)
        questions(kernel, sids)
        assert "another decide()" in kernel.policies.native.why


def test_a_label_that_is_reclaimed_and_one_in_its_place() -> None:
    with policed(Partition(), labels=["partition/a", "partition/b"]) as (kernel, sids):
        compare(kernel, sids)
        for number in range(6000):  # more than may rest: slots are used again
            sid = kernel.policies.intern(f"partition/{number % 3}x{number}")
            if number % 500 == 0:
                compare(kernel, [*sids, sid], [1])
            lib.pm_sid_release(kernel.pointer, sid)
        assert kernel.stats()["native_labels"] < 5000
        compare(kernel, sids)


def test_labels_minted_by_c() -> None:
    with policed(Partition(), Stub(), labels=["partition/a"]) as (kernel, sids):
        compare(kernel, sids)
        raws = (b"partition/a,stub/c", b"partition/b", b"no label", b"partition/ blank", b"gone/x")
        minted = [lib.pm_sid_intern(kernel.pointer, ffi.NULL, raw, len(raw)) for raw in raws]
        compare(kernel, [*sids, minted[0], minted[1], minted[4]])
        for sid in minted[2:4]:  # what Python cannot read is refused, and gets no values
            assert vector(kernel, sids[0], sid, 1)[0] == vector(kernel, sid, sids[0], 1)[0] == 0
        assert kernel.stats()["native_labels"] == 4


def test_labels_made_by_python_have_values_at_once() -> None:
    with policed(MLS(), labels=["mls/low", "mls/high"]) as (kernel, sids):
        compare(kernel, sids)
        asked = kernel.stats()["decider_calls"]
        made = [kernel.policies.intern(f"mls/{level}:1+{level}") for level in range(2, 20)]
        for sid in made:
            assert vector(kernel, sids[0], sid, 1) == defined(kernel, sids[0], sid, 1)
        assert kernel.stats()["decider_calls"] == asked
        compare(kernel, made[:3])


def test_tasks_and_ports_change_their_labels() -> None:
    with policed(Partition(), labels=["partition/a", "partition/b"]) as (kernel, sids):
        compare(kernel, sids)
        a, b = (kernel.create_task(name, f"partition/{name}") for name in "ab")
        inbox = a.allocate_port()
        send = inbox.make_send(a)
        for label, allowed in (("a", True), ("b", False), ("c", False)):
            kernel.policies.permissive = True
            inbox.relabel(f"partition/{label}")
            kernel.policies.permissive = False
            compare(kernel, sids)
            assert bool(kernel.access(a, inbox, "mach_port", "send")) is allowed
            assert bool(kernel.access(b, inbox, "mach_port", "send")) is (label == "b")
        send.close()


def test_a_class_that_comes_later() -> None:
    from pympi import mig

    with policed(Partition(), labels=PARTITIONS[:2]) as (kernel, sids):
        compare(kernel, sids)
        server = kernel.create_task("server", "partition/a")
        server.allocate_port().serve(mig.Interface("printing", 1200, ["print_page", "cancel"]))
        compare(kernel, sids, [1, kernel.policies.object_class("mi_printing").number])


def test_a_flip_counts_at_once_whoever_asks_meanwhile() -> None:
    """Threads keep tables being made and labels getting values while booleans are flipped."""
    text = """(type a_t) (role r) (user u) (userrole u r) (roletype r a_t) (boolean open false)
        (booleanif open (true (allow a_t a_t (mach_port (send)))))"""
    module, stop = TypeEnforcement.from_text(text), threading.Event()
    labels = ["te/u:r:a_t", *(f"te/u:object_r:a_t,stub/{n}" for n in range(40))]
    with policed(module, Stub(), labels=labels) as (kernel, sids):

        def ask() -> None:
            rng = random.Random()
            while not stop.is_set():
                vector(kernel, rng.choice(sids), rng.choice(sids), rng.choice((1, 2)))

        runs = [Run(ask) for _ in range(3)]
        before = kernel.stats()["native_decisions"]
        for turn in range(200):
            module.set_booleans(open=turn % 2 == 0)
            for target in sids[:8]:
                assert bool(vector(kernel, sids[0], target, 1)[0] & SEND) is (turn % 2 == 0)
        stop.set()
        for run in runs:
            run.result()
        assert kernel.stats()["native_decisions"] > before
        kernel.verify()


def test_without_fast_paths_python_is_asked() -> None:
    with Kernel(policies=[Partition()], avc_entries=1, fast_path=False) as kernel:
        for _ in range(2):
            questions(kernel, [kernel.policies.intern(label) for label in PARTITIONS[:2]])
            kernel.policies.renew()
        assert kernel.policies.native.why == "the kernel was made with fast_path=False"
        assert kernel.stats()["native_decisions"] == 0


def test_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "PATIENCE", 10)
    with policed(Partition(), labels=[f"partition/{n}" for n in range(4)]) as (kernel, sids):
        for target in sids:
            vector(kernel, sids[0], target, 1)
        assert kernel.policies.native.why.startswith("fewer than 10 questions")
        assert kernel.stats()["native"] == 0
        compare(kernel, sids)
        assert kernel.stats()["native"] == 1


def test_every_allocation_may_fail() -> None:
    """Then the question is Python's; nothing else changes, and later the core decides."""
    for at in range(1, 60):
        with policed(Partition(), labels=PARTITIONS[:2]) as (kernel, sids):
            kernel.policies.load(Stub())
            lib.pm_kernel_fault(kernel.pointer, at, 0)
            questions(kernel, sids)
            lib.pm_kernel_fault(kernel.pointer, 0, 0)
            compare(kernel, sids)


def test_random_changes() -> None:
    rng = random.Random(0)
    with policed(Partition(), labels=PARTITIONS[:2]) as (kernel, sids):
        for _ in range(150):
            change = rng.choice(["renew", "soft", "permissive", "label", "stub"])
            if change == "renew":
                kernel.policies["partition"].changed()
            elif change == "soft":
                kernel.policies.set_permissive("partition", rng.random() < 0.5)
            elif change == "permissive":
                kernel.policies.permissive = rng.random() < 0.5
            elif change == "label":
                sids[rng.randrange(2)] = kernel.policies.intern(f"partition/{rng.randrange(9)}")
            elif "stub" in kernel.policies:
                kernel.policies.unload("stub")
            else:
                kernel.policies.load(Stub())
            compare(kernel, sids, [rng.randrange(1, 4)])
