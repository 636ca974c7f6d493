# SPDX-License-Identifier: BSD-2-Clause
"""The tables: what `pympi bench` measures, and beside what.

A case is a value on an axis. Most are two settings, of which the second is the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from time import thread_time_ns

from .. import Kernel
from ..policy import Rules
from .harness import Pair, Row, Timed
from .kernels import WORKS, counts, side_by_side
from .loops import loop
from .peers import JUDGES, QUEUES, RULES
from .systems import STACKS, Setting, System
from .threads import CORES, THREADS

PAIR = "send + receive"
BOUND = "sender() + receiver()"


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        axis: of the table, and of a picture.
        value: on that axis.
        row: what it is called, and its budget.
        make: makes the two sides, in a process of its own.
        series: those of a picture that belong together.
        at: the value as a number, where the axis has numbers.
        long: left out of a quick run.
        peer: left out unless peers are asked for.
    """

    axis: str
    value: str
    row: Row
    make: Callable[[], Pair]
    series: str = ""
    at: float | None = None
    long: bool = False
    peer: bool = False

    @property
    def name(self) -> str:
        """What the case is chosen by: axis/value."""
        return self.row.case


def pair(
    subject: Setting, baseline: Setting,
    besides: Callable[[System], dict[str, float]] = lambda system: {},
) -> Pair:  # fmt: skip
    """Return two settings; what is kept besides is what a pair of calls had the checks do."""
    system, count = System(subject), 0
    ours = loop(system)

    def counted(pairs: int) -> float:
        nonlocal count
        count += pairs
        return ours(pairs)

    before = system.counts()

    def notes() -> dict[str, float]:
        done = {name: (value - before[name]) / count for name, value in system.counts().items()}
        return {**done, **besides(system)}

    return Pair(counted, loop(System(baseline)), notes=notes)


def settings(
    axis: str, value: str, what: str, against: str, subject: Setting, baseline: Setting,
    **more: object,
) -> Case:  # fmt: skip
    """Return a case of two settings."""
    name = f"{axis}/{value}"
    row = Row(name, name, what, against)
    return Case(axis, value, row, lambda: pair(subject, baseline), **more)  # type: ignore[arg-type]


# ---- the axes ----

SIZES = (0, 16, 64, 256, 1024, 4096, 16384, 65536)
LONG_SIZES = (16, 256, 4096, 16384)
"""Bytes; those that are left out of a quick run."""
RIGHTS = (1, 8, 64)
PORTS = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)
LONG_PORTS = (10, 100, 1_000_000)
PORT_LABELS, SENDERS = 256, 16
TASKS = (1, 10, 100, 1000, 10_000, 100_000)
LABELS = (1, 10, 100, 1000, 10_000)
QUICK_TASKS, QUICK_LABELS, QUICK_GROWTH = (1, 10_000), (1, 10_000), (1, 1000, 10_000)
QUICK_THREADS = ("compute", "c", "submit-more")
LARGE = 10_000
"""Things, of which to make as many or more takes so long that one process does it."""
LABELLED = 10_000
"""Ports, and tasks that send, whatever number of labels they have."""
TASKS_OF, LABELS_OF = 10, 100
"""As everything grows: there is a task to so many ports, and a label to so many."""
MANY, FEW = 512, 64
"""Labels of senders, whom the kernel's table of who receives from whom has no room for; and
decisions, fewer than those need."""
ANSWERS = {
    "hint": ("remembered beside the right", Setting()),
    "avc": (f"found in the cache: {MANY} senders", Setting(senders=MANY)),
    "miss": (f"not found: {MANY} senders, room for {FEW}", Setting(senders=MANY, avc=FEW)),
}
AUDITS = {
    "denials": ("denials selected, none happens", "denials"),
    "other": ("selected of a label that nobody has", "other"),
    "everything": ("every operation recorded, drained between timings", "everything"),
}
CHECKED = ("stub", "te")
THROUGH = {
    "c": "a loop in C", "numba": "a loop by Numba", "batch": "send_many + receive_many of 256",
    "submit": "submit of 256 operations", "cffi": "cffi, the functions of the core",
    "cffi-stock": "cffi as it comes", "pybind11": "pybind11, bytes in and out",
    "methods": "methods: send, and receive -> Message",
}  # fmt: skip


def control() -> Iterator[Case]:
    """Yield what a machine is judged by: a thing beside itself."""
    yield settings("control", "same", PAIR, "itself", Setting(), Setting())


def stacks() -> Iterator[Case]:
    """Yield what policies cost, from Python and from C."""
    for through, kind in (("callables", "stack"), ("c", "stack-c")):
        base = Setting(through=through)
        for name, stack in STACKS.items():
            if name not in ("none", "te-many"):  # the second costs what te does
                subject = replace(base, stack=name)
                what = f"{stack.what}{', in C' if through == 'c' else ''}"
                yield settings(kind, name, what, "no policy", subject, base)


def answers() -> Iterator[Case]:
    """Yield what a check costs by where its answer is found."""
    for stack in ("te", "own", "stub"):
        for name, (what, setting) in ANSWERS.items():
            subject = replace(setting, stack=stack)
            against = replace(setting, avc=0)
            what = f"{STACKS[stack].what}, the answer {what}"
            yield settings(
                "answer",
                f"{stack}-{name}",
                what,
                "no policy",
                subject,
                against,
                long=stack == "stub",
            )


def audits() -> Iterator[Case]:
    """Yield what recording costs."""
    for name, (what, selection) in AUDITS.items():
        for through in ("callables", "c"):
            base = Setting(stack="te", through=through)
            value = name if through == "callables" else f"{name}-c"
            said = f"{what}{', in C' if through == 'c' else ''}"
            yield settings(
                "audit", value, said, "nothing selected", replace(base, audit=selection), base,
                long=through != "c" and name == "other",
            )  # fmt: skip


def traces() -> Iterator[Case]:
    """Yield what ipctrace costs."""
    for stack in ("none", "te"):
        base = Setting(stack=stack)
        what = f"ipctrace on, {STACKS[stack].what}"
        yield settings("trace", stack, what, "off", replace(base, trace=True), base)


def sizes() -> Iterator[Case]:
    """Yield what a message costs by its size."""
    for stack in ("none", "te"):
        for size in SIZES:
            what = f"{size:,} bytes, {STACKS[stack].what}"
            yield settings(
                "size", f"{stack}-{size}", what, "64 bytes, no policy",
                Setting(stack=stack, size=size), Setting(),
                series=STACKS[stack].what, at=size, long=size in LONG_SIZES,
            )  # fmt: skip


def rights() -> Iterator[Case]:
    """Yield what rights in the body cost."""
    base = Setting(through="carrying")
    for stack in ("none", "te"):
        for count in RIGHTS:
            what = f"{count} right{'s' * (count > 1)} in the body, {STACKS[stack].what}"
            yield settings(
                "rights", f"{stack}-{count}", what, "none, no policy",
                replace(base, stack=stack, rights=count), base,
                series=STACKS[stack].what, at=count,
            )  # fmt: skip


def methods() -> Iterator[Case]:
    """Yield what an interface on the port costs."""
    for stack in ("none", "te"):
        base = Setting(stack=stack)
        what = f"a port with an interface, {STACKS[stack].what}"
        yield settings("methods", stack, what, "without", replace(base, interface=True), base)


def ports() -> Iterator[Case]:
    """Yield what a message costs by how many ports there are, sent to at random."""
    for stack in ("none", "te"):
        for count in PORTS:
            yield grown(
                "ports", count, plural(count, "port"), count in LONG_PORTS,
                Setting(stack, SENDERS, ports=count, labels=PORT_LABELS),
            )  # fmt: skip


def tasks() -> Iterator[Case]:
    """Yield what a message costs by how many tasks there are, of which any may send."""
    for stack in ("none", "te"):
        for count in TASKS:
            labels = min(count, SENDERS)
            yield grown(
                "tasks", count, plural(count, "task"), count not in QUICK_TASKS,
                Setting(stack, count, labels),
            )  # fmt: skip


def labels() -> Iterator[Case]:
    """Yield what checks cost by how many labels there are, beyond those the cache holds."""
    for stack in ("te-many", "mls", "own"):
        for count in LABELS:
            subject = Setting(stack, LABELLED, count, LABELLED, count)
            yield grown(
                "labels", count, plural(count, "label"),
                count not in QUICK_LABELS or stack != "mls", subject,
                replace(subject, stack="none"), f"no policy, {LABELLED:,} ports and tasks",
            )  # fmt: skip


def growth() -> Iterator[Case]:
    """Yield what a message costs as everything grows: ports, tasks and labels at once."""
    for stack in ("none", "te-many"):
        for count in PORTS:
            tasks, labels = (max(1, count // each) for each in (TASKS_OF, LABELS_OF))
            said = [plural(count, "port"), plural(tasks, "task"), plural(labels, "label")]
            yield grown(
                "growth", count, ", ".join(said if stack != "none" else said[:2]),
                count not in QUICK_GROWTH, Setting(stack, tasks, labels, count, labels),
            )  # fmt: skip


def plural(count: int, what: str) -> str:
    """Return so many things in words."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def grown(
    axis: str, count: int, what: str, long: bool, subject: Setting,
    baseline: Setting | None = None, against: str = "1 port, no policy",
) -> Case:  # fmt: skip
    """Return a case of what is sent to at random; what a kernel's objects take is kept besides."""
    stack, name = STACKS[subject.stack].what, f"{axis}/{subject.stack}-{count}"
    sides = (subject, baseline or Setting())

    def make() -> Pair:
        ours, theirs = (replace(each, through="scattered") for each in sides)
        made = pair(ours, theirs, lambda system: system.sizes())
        return replace(made, large=max(subject.ports, subject.senders) >= LARGE)

    row = Row(name, name, f"{what}, {stack}", against)
    return Case(axis, name.partition("/")[2], row, make, stack, count, long)


SCALE = round(1 / 0.9, 3)
"""In times of one thread alone: K kernels in K threads do 0.9 K times as much as one, or more."""


def threads() -> Iterator[Case]:
    """Yield the cases of two threads."""
    for name, (what, against, make, must, aim) in THREADS.items():
        case = f"threads/{name}"
        yield Case("threads", name, Row(case, case, what, against, must, aim), make)


def kernels() -> Iterator[Case]:
    """Yield what a message costs in so many kernels at once, each in a thread of its own."""
    for name, (what, make) in WORKS.items():
        for count in counts():
            value = f"{name}-{count}"
            case = f"kernels/{value}"
            said = f"{count} threads at once: {what}"
            must = SCALE if name == "c" else None
            yield Case(
                "kernels", value, Row(case, case, said, "one at a time", must),
                partial(side_by_side, make, count), series=what, at=count,
                long=count < CORES or name not in QUICK_THREADS,
            )  # fmt: skip


def through() -> Iterator[Case]:
    """Yield what a message costs by how it goes, and what a check costs there."""
    for name, what in THROUGH.items():
        long = name == "pybind11"  # takes long to compile
        yield settings("through", name, what, BOUND, Setting(through=name), Setting(), long=long)
    for name, what in {"callables": BOUND, **THROUGH}.items():
        if name not in ("cffi-stock", "c"):  # in C: stack-c
            base = Setting(through=name)
            subject = replace(base, stack="te")
            long = name == "pybind11"
            yield settings("checks", name, f"te, {what}", "no policy", subject, base, long=long)


# ---- peers ----

BUDGETS = {"deque": (8, 5), "zeromq": (0.6, 0.4), "queue": (0.25, 0.15), "simpy": (0.10, 0.05)}
CHECK_BUDGETS = {"casbin": (1 / 500, 1 / 1000)}


def system_loop(setting: Setting) -> Timed:
    """Return a setting's loop alone."""
    return loop(System(setting))


def checker() -> Timed:
    """Return `checker()`, of a kernel that knows the answers to the questions of a hundred rules.

    It is called as whoever uses it calls it: with two arguments.
    """
    text = "\n".join(f"allow s{n} o{n} mach_port {{ send }};" for n in range(RULES))
    kernel = Kernel(policies=[Rules.from_text(text)])
    intern = kernel.policies.intern
    asked = [(intern(f"rules/s{n}"), intern(f"rules/o{n}")) for n in range(RULES)]
    check, turns = kernel.checker("mach_port", "send"), cycle(asked)
    if not all(check(source, target) for source, target in asked):
        raise RuntimeError("a rule's own question is refused")

    def run(count: int) -> float:
        start = thread_time_ns()
        for source, target in islice(turns, count):
            check(source, target)
        return thread_time_ns() - start

    return run


def queues() -> Iterator[Case]:
    """Yield the same message through what else Python has."""
    for name, (what, make) in QUEUES.items():
        case, budget = f"peer/{name}", BUDGETS.get(name, (None, None))
        row = Row(case, case, BOUND, what, *budget)
        yield Case("peer", name, row, beside(lambda: system_loop(Setting()), make), peer=True)
    what, make = QUEUES["deque"]
    row = Row("peer-methods/deque", "peer-methods/deque", "send + receive -> Message", what, 20, 12)
    methods = beside(lambda: system_loop(Setting(through="methods")), make)
    yield Case("peer-methods", "deque", row, methods, peer=True)


def judges() -> Iterator[Case]:
    """Yield the same question to what else decides."""
    for name, (what, make) in JUDGES.items():
        case, budget = f"check/{name}", CHECK_BUDGETS.get(name, (None, None))
        row = Row(case, case, "checker(), 100 rules", what, *budget)
        yield Case("check", name, row, beside(checker, make), peer=True)


def beside(ours: Callable[[], Timed], theirs: Callable[[], Timed]) -> Callable[[], Pair]:
    """Return what makes a pair of two things."""
    return lambda: Pair(ours(), theirs())


TABLES = (
    control, stacks, answers, audits, traces, sizes, rights, methods, ports, tasks, labels, growth,
    threads, kernels, through, queues, judges,
)  # fmt: skip
CASES: dict[str, Case] = {case.name: case for table in TABLES for case in table()}
