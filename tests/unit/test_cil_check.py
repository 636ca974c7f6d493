# SPDX-License-Identifier: BSD-2-Clause
"""neverallow, and type rules that contradict each other."""

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pympi import PolicyError
from pympi.policy.cil import PolicyDatabase, compile_policy
from pympi.policy.cil.policydb import SELF, Rule

TYPES = (
    "(type a)(type b)(type c)(typeattribute ab)(typeattributeset ab (a b))"
    "(typeattribute none)(boolean x true)(boolean y true)"
)
SEND, OTHER = "(mach_port (send recv))", "(mach_port (hold_send))"


def compiled(text: str) -> PolicyDatabase:
    return compile_policy([("a.cil", TYPES + "\n" + text)])


def refused(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        compiled(text)
    return caught.value


@pytest.mark.parametrize(
    ("allow", "never", "broken"),
    [
        ("a b", "a b", True), ("a b", "b a", False), ("a b", "ab ab", True),
        ("ab c", "a c", True), ("ab c", "c c", False), ("none a", "a a", False),
        ("a a", "none a", False), ("a b", "a none", False),
        ("a a", "a self", True), ("a b", "a self", False), ("ab ab", "a self", True),
        ("a self", "a a", True), ("a self", "a b", False), ("ab self", "b ab", True),
        ("a self", "ab self", True), ("a self", "b self", False), ("ab self", "a b", False),
    ],
)  # fmt: skip
def test_neverallow(allow: str, never: str, broken: bool) -> None:
    text = f"(allow {allow} {SEND})\n (neverallow {never} (mach_port (send)))"
    if broken:
        error = refused(text)
        assert (error.file, error.line, error.column) == ("a.cil", 2, 1)
        assert f"(allow {allow} (mach_port (send recv))) breaks" in str(error)
        assert f"(neverallow {never} (mach_port (send))) at a.cil:3:2" in str(error)
    else:
        assert len(compiled(text).neverallows) == 1


def test_neverallow_is_about_permissions_and_allow_only() -> None:
    text = f"(allow a b {OTHER})(dontaudit a b {SEND})(auditallow a b {SEND})"
    assert compiled(f"{text}(neverallow a b {SEND})")


@pytest.mark.parametrize("branch", ["true", "false"])
def test_neverallow_looks_into_booleans(branch: str) -> None:
    text = f"(neverallow a b {SEND})(booleanif x ({branch} (allow a b {SEND})))"
    assert "breaks" in str(refused(text))


def pairs(db: PolicyDatabase, rule: Rule) -> set[tuple[int, int]]:
    """Return the pairs of types that a rule is about, one by one."""
    types = range(db.type_count)
    sources = [n for n in types if db.types[rule.source].members >> n & 1]
    if rule.target == SELF:
        return {(n, n) for n in sources}
    targets = [n for n in types if db.types[rule.target].members >> n & 1]
    return {(source, target) for source in sources for target in targets}


def random_rules(rng: random.Random, keyword: str, count: int) -> str:
    names = ["a", "b", "c", "ab", "none", "d", "e"]
    permissions = ["send", "recv", "send hold_send"]
    return "".join(
        f"({keyword} {rng.choice(names)} {rng.choice([*names, 'self'])}"
        f" (mach_port ({rng.choice(permissions)})))"
        for _ in range(count)
    )


def test_neverallow_agrees_with_the_long_way() -> None:
    rng = random.Random(11)
    more = "(type d)(typeattribute e)(typeattributeset e (not (ab)))"
    found = []
    for _ in range(300):
        allowed, forbidden = random_rules(rng, "allow", 3), random_rules(rng, "neverallow", 1)
        db, never = compiled(more + allowed), compiled(more + forbidden).neverallows[0]
        broken = any(
            rule.permissions & never.permissions and pairs(db, rule) & pairs(db, never)
            for rule in db.rules
        )
        found.append(broken)
        if broken:
            assert "breaks" in str(refused(more + allowed + forbidden))
        else:
            assert compiled(more + allowed + forbidden).neverallows == (never,)
    assert 30 < sum(found) < 270, "both answers occur"


CONFLICTS = [
    ("(typetransition a b mach_port a)(typetransition a b mach_port b)", True),
    ("(typetransition a b mach_port a)(typetransition a b mach_port a)", False),
    ("(typetransition a b mach_port a)(typechange a b mach_port b)", False),
    ("(typetransition a b mach_port a)(typetransition a b mach_task b)", False),
    ("(typetransition ab b mach_port a)(typetransition a b mach_port b)", True),
    ("(typetransition ab c mach_port a)(typetransition a b mach_port b)", False),
    ("(typetransition a self mach_port a)(typetransition a a mach_port b)", True),
    ("(typetransition ab self mach_port a)(typetransition a b mach_port b)", False),
    ("(booleanif x (true (typechange a b mach_port a)) (false (typechange a b mach_port b)))",
     False),
    (("(booleanif x (true (typechange a b mach_port a)))"
     "(booleanif y (false (typechange a b mach_port b)))"), True),
    (("(booleanif x (true (typechange a b mach_port a)))"
     "(booleanif x (false (typechange a b mach_port b)))"), False),
    ("(booleanif x (true (typechange a b mach_port a)))(typechange a b mach_port b)", True),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wrong"), CONFLICTS)
def test_type_rules(text: str, wrong: bool) -> None:
    if wrong:
        error = refused(text)
        assert "contradicts a.cil:2:" in str(error)
        assert error.line == 2
        assert error.column > 2
    else:
        assert compiled(text).type_rules


def generator() -> ModuleType:
    """Return benchmarks/policies.py, which is no part of the package."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "policies.py"
    spec = importlib.util.spec_from_file_location("policies", path)
    assert spec
    assert spec.loader
    module = sys.modules["policies"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_large_policies_pass() -> None:
    policies = generator()
    size = policies.Size(types=300, rules=5000, neverallows=40, transitions=100, levels=4)
    text = policies.policy(size, seed=3)
    assert text == policies.policy(size, seed=3), "the same seed, the same text"
    db = compile_policy([("large.cil", text)])
    assert len(db.rules) >= size.rules
    assert len(db.neverallows) == 40
    assert db.mls
