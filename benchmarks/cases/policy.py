# SPDX-License-Identifier: BSD-2-Clause
"""What a question costs that no cache answers: `te` with 10,000 rules, beside no opinion."""

import functools
import itertools
import random
from collections.abc import Callable, Sequence
from time import thread_time_ns
from typing import Any

from benchmarks.policies import Size, policy
from pympi.bench.harness import Pair, Skip, Timed

SIZE = Size(types=400, rules=10_000, attributes=100, levels=4)
LABELS, PAIRS = 400, 1 << 14
MANY = 100_000
CACHE = 64
"""So few decisions are remembered that each of the pairs is asked again."""


@functools.cache
def enforcement() -> Any:
    """Return the policy.

    Raises:
        Skip: pympi is not built.
    """
    try:
        from pympi.policy import TypeEnforcement
    except ImportError as error:
        raise Skip(str(error)) from error
    return TypeEnforcement.from_text(policy(SIZE))


def contexts() -> list[str]:
    """Return the contexts asked about: every type, at some level."""
    rng, db = random.Random(0), enforcement().database
    types = [kind.name for kind in db.types[: db.type_count] if kind.name.endswith("_t")]
    named = [name for name in types if name.startswith(("domain_", "object_"))]
    return [f"user_u:user_r:{name}:s{rng.randrange(4)}" for name in rng.sample(named, LABELS)]


def pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    """Return pairs at random, always the same."""
    rng = random.Random(1)
    return [(rng.choice(values), rng.choice(values)) for _ in range(max(PAIRS, 2 * len(values)))]


def module(asked: Any) -> Timed:
    """Return a module's decisions, of values read already."""
    from pympi.enums import CLASSES

    questions = itertools.cycle(pairs([enforcement().parse(text) for text in contexts()]))
    tclass, decide = CLASSES["mach_port"], asked.decide
    for source, target in itertools.islice(questions, PAIRS):
        decide(source, target, tclass)  # the first question of a type is another matter

    def run(count: int) -> float:
        some = list(itertools.islice(questions, count))
        start = thread_time_ns()
        for source, target in some:
            decide(source, target, tclass)
        return thread_time_ns() - start

    return run


def missing(
    asked: Any, name: str, *, native: bool = False, labels: Sequence[str] = ()
) -> tuple[Timed, Callable[[], dict[str, float]]]:
    """Return checks of a kernel that miss, and how many of the checks did.

    Args:
        asked: the module.
        name: of its values.
        native: whether the core decides, or Python does.
        labels: the values; the contexts if there are none.
    """
    from pympi import Kernel

    kernel = Kernel(policies=[asked], avc_entries=CACHE, fast_path=native)
    values = labels or contexts()
    sids = [kernel.policies.intern(f"{name}/{text}".replace(",", r"\,")) for text in values]
    questions = itertools.cycle(pairs(sids))
    check = kernel.checker("mach_port", "send")
    for source, target in itertools.islice(questions, max(PAIRS, 2 * len(sids))):
        check(source, target)
    first = kernel.stats()
    before, decided, done = first["misses"], first["native_decisions"], [0]

    def run(count: int) -> float:
        some = list(itertools.islice(questions, count))
        done[0] += count
        start = thread_time_ns()
        for source, target in some:
            check(source, target)
        return thread_time_ns() - start

    return run, lambda: {
        "misses": (kernel.stats()["misses"] - before) / done[0],
        "native": (kernel.stats()["native_decisions"] - decided) / done[0],
        "bytes a label": kernel.stats()["native_memory"] / len(sids),
    }


def decisions() -> Pair:
    """Return the decisions of `te`, beside those of a module without opinion."""
    from pympi.policy import Stub

    return Pair(module(enforcement()), module(Stub()))


def misses() -> Pair:
    """Return misses decided by `te`, beside those decided by a module without opinion."""
    from pympi.policy import Stub

    subject, notes = missing(enforcement(), "te")
    return Pair(subject, missing(Stub(), "stub")[0], notes=notes)


def beside_libsepol() -> Timed:
    """Return libsepol's decisions about the same pairs, in C."""
    from benchmarks.peers.libsepol import compute_av

    return compute_av(enforcement().database.text, pairs(contexts()), "mach_port")


def misses_libsepol(*, native: bool) -> Pair:
    """Return misses decided by `te`, beside libsepol's decisions."""
    baseline = beside_libsepol()
    subject, notes = missing(enforcement(), "te", native=native)
    return Pair(subject, baseline, notes=notes)


def misses_many() -> Pair:
    """Return misses over labels of `mls` with a category set each, native beside Python."""
    from pympi.policy import MLS

    labels = [  # 8 levels, three compartments each, all different
        f"{n % 8}:{1 + n % 61}+{62 + n // 61 % 59}+{121 + n // 3599 % 97}" for n in range(MANY)
    ]
    subject, notes = missing(MLS(), "mls", native=True, labels=labels)
    return Pair(subject, missing(MLS(), "mls", labels=labels)[0], notes=notes)


def decisions_libsepol() -> Pair:
    """Return the decisions of `te`, beside libsepol's."""
    return Pair(module(enforcement()), beside_libsepol())


CASES: dict[str, Callable[[], Pair]] = {
    "te_decide": decisions,
    "te_miss": misses,
    "te_decide_libsepol": decisions_libsepol,
    "te_miss_libsepol": lambda: misses_libsepol(native=True),
    "te_miss_python_libsepol": lambda: misses_libsepol(native=False),
    "mls_miss_many": misses_many,
}
