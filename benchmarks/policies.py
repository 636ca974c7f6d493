# SPDX-License-Identifier: BSD-2-Clause
"""Policies of a given size, in CIL: the same seed gives the same text.

    python -m benchmarks.policies --types 4000 --rules 150000 > large.cil
    python -m benchmarks.policies --measure

They are shaped like policies that people write: domains that talk to a few servers each, types of
objects, attributes that group both, some neverallows, booleans, transitions and constraints.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

PORT = [
    "send", "recv", "make_send", "copy_send", "move_send", "hold_send", "hold_send_once",
    "use_recv", "set_reply",
]  # fmt: skip
TASK = ["terminate", "create", "insert_right", "extract_right", "observe"]
FORBIDDEN = "(mach_task (relabelfrom relabelto))"


@dataclass(frozen=True)
class Size:
    """How large a policy is.

    Attributes:
        types, rules: how many; rules are allow rules outside booleans.
        attributes: how many, each with some types in it.
        neverallows, transitions, booleans: how many.
        levels: sensitivities, and as many categories; 0 is a policy without.
    """

    types: int = 4000
    rules: int = 150_000
    attributes: int = 200
    neverallows: int = 100
    transitions: int = 2000
    booleans: int = 50
    levels: int = 0


def policy(size: Size = Size(), seed: int = 0) -> str:
    """Return the text of a policy."""
    rng = random.Random(seed)
    names = [f"{'domain' if n % 4 == 0 else 'object'}_{n}_t" for n in range(size.types)]
    parts = (_levels(size), _types(size, names, rng), _rules(size, names, rng))
    return "\n".join([line for part in parts for line in part]) + "\n"


def _levels(size: Size) -> Iterator[str]:
    user_range = "((s0) (s0))"
    if size.levels:
        yield "(mls true)"
        sensitivities = [f"s{n}" for n in range(size.levels)]
        categories = [f"c{n}" for n in range(size.levels)]
        for kind, names in (("sensitivity", sensitivities), ("category", categories)):
            yield from (f"({kind} {name})" for name in names)
            yield f"({kind}order ({' '.join(names)}))"
        yield from (f"(sensitivitycategory {s} (all))" for s in sensitivities)
        user_range = f"((s0) ({sensitivities[-1]} (all)))"
        yield "(mlsconstrain (mach_port (send)) (domby l1 l2))"
        yield "(mlsconstrain (mach_port (recv)) (dom l1 l2))"
    else:
        yield "(sensitivity s0)"
        yield "(sensitivityorder (s0))"
    yield "(user user_u)"
    yield "(role user_r)"
    yield "(userrole user_u user_r)"
    yield "(userlevel user_u (s0))"
    yield f"(userrange user_u {user_range})"


def _types(size: Size, names: list[str], rng: random.Random) -> Iterator[str]:
    yield from (f"(type {name})" for name in names)
    yield "(typeattribute everything)"
    yield "(typeattributeset everything (all))"
    yield "(roletype user_r everything)"
    for number in range(size.attributes):
        members = rng.sample(names, min(len(names), rng.randint(2, 40)))
        yield f"(typeattribute group_{number})"
        yield f"(typeattributeset group_{number} ({' '.join(members)}))"
    yield "(typeattribute trusted)"
    yield f"(typeattributeset trusted ({names[0]}))"
    yield "(typeattribute untrusted)"
    yield "(typeattributeset untrusted (not (trusted)))"


def _rule(size: Size, names: list[str], rng: random.Random) -> str:
    source = rng.choice(names)
    target = rng.choice(names)
    if size.attributes and rng.random() < 0.05:
        source = f"group_{rng.randrange(size.attributes)}"
    tclass, permissions = ("mach_task", TASK) if rng.random() < 0.1 else ("mach_port", PORT)
    some = rng.sample(permissions, rng.randint(1, 4))
    return f"(allow {source} {target} ({tclass} ({' '.join(some)})))"


def _rules(size: Size, names: list[str], rng: random.Random) -> Iterator[str]:
    yield from (_rule(size, names, rng) for _ in range(size.rules))
    for number in range(size.neverallows):
        group = f"group_{number % size.attributes}" if size.attributes else "untrusted"
        yield f"(neverallow {group if number else 'untrusted'} everything {FORBIDDEN})"
    pairs: set[tuple[str, str]] = set()
    for _ in range(size.transitions):
        pair = (rng.choice(names), rng.choice(names))
        if pair not in pairs:
            pairs.add(pair)
            yield f"(typetransition {pair[0]} {pair[1]} mach_port {rng.choice(names)})"
    for number in range(size.booleans):
        yield f"(boolean switch_{number} {'true' if number % 2 else 'false'})"
        rule = _rule(size, names, rng)
        yield f"(booleanif switch_{number} (true {rule}))"
    yield "(constrain (mach_port (relabelfrom relabelto)) (eq u1 u2))"


def main() -> None:
    """Print a policy, or what it costs to compile it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--types", type=int, default=Size.types)
    parser.add_argument("--rules", type=int, default=Size.rules)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    text = policy(Size(types=options.types, rules=options.rules), options.seed)
    if not options.measure:
        sys.stdout.write(text)
        return
    from pympi.policy.cil import compile_policy

    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    db = compile_policy([("large.cil", text)])
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{len(text) / 1e6:.1f} MB, {db.type_count} types, {len(db.rules)} rules:"
        f" {seconds:.2f} s of CPU, peak {peak / 1024:.0f} MB ({before / 1024:.0f} MB before)"
    )


if __name__ == "__main__":
    main()
