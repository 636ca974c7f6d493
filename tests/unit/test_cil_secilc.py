# SPDX-License-Identifier: BSD-2-Clause
"""What we accept, SELinux's compiler accepts, and it means the same to both.

The policy's text goes through secilc; checkpolicy writes the binary policy as CIL again, which is
plain enough for our reader; then the two databases are compared decision by decision.
"""

from __future__ import annotations

import importlib.util
import itertools
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pympi import PolicyError
from pympi.policy.cil import PolicyDatabase, compile_policy
from pympi.policy.cil.policydb import SELF, Comparison, Rule, TypeRule

pytestmark = [
    pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")
    for tool in ("secilc", "checkpolicy")
]

VERSION = "33"

LEVELS = (
    "(mls true)(sensitivity s0)(sensitivity s1)(sensitivityorder (s0 s1))(category c0)"
    "(category c1)(category c2)(categoryorder (c0 c1 c2))(sensitivitycategory s0 (c0))"
    "(sensitivitycategory s1 (all))"
)
TYPES = (
    "(type a)(type b)(type c)(typeattribute ab)(typeattributeset ab (a b))"
    "(typeattribute rest)(typeattributeset rest (not (ab)))(typeattribute none)"
)
MI = "(class mi_x (r ioctl))"

POLICIES = {
    "nothing": "",
    "comments": "; one\r\n(type a) ; two\r\n\r\n;;; three (\r\n",
    "allow": TYPES + "(allow a b (mach_port (send recv)))(allow ab rest (service (all)))"
    "(allow rest self (mach_task (not (create))))(allow none a (mach_port (send)))",
    "audit": TYPES + "(auditallow a ab (mach_port (send)))(dontaudit ab c (mach_port (all)))"
    "(allow a ab (mach_port (send)))",
    "sets": TYPES + "(typeattribute x)(typeattributeset x (xor ab (b c)))(typeattributeset x"
    " (and (not a) (not (or b c))))(allow x x (mach_port (send)))",
    "all": "(type a)(typeattribute x)(typeattributeset x (all))(allow x x (kernel (inspect)))",
    "aliases": "(type a)(typealias l)(typealias m)(typealiasactual l m)(typealiasactual m a)"
    "(allow l m (mach_port (send)))(typepermissive l)",
    "classes": "(type a)(class d (x y))(common k (p q))(class c (z))(classcommon c k)"
    "(classorder (c d))(allow a a (c (all)))(allow a a (d (xor (x y) y)))(class e ())",
    "maps": "(type a)(classmap m (x y))(classmapping m x (mach_port (send recv)))(classmapping m x"
    " (service (list)))(classmapping m y set)(classpermission set)(classpermissionset set"
    " (mach_task (create)))(allow a a (m (x)))(neverallow a a (m (y)))(dontaudit a a set)",
    "transitions": TYPES + "(typetransition ab c mach_port b)(typechange a self mach_task c)"
    "(typetransition rest rest mach_port a)(typetransition a c mach_port b)",
    "booleans": TYPES + "(boolean x true)(boolean y false)"
    "(booleanif (and x (not y)) (true (allow a b (mach_port (send)))) (false (dontaudit a b"
    " (mach_port (recv))) (typechange a b mach_port c)))(booleanif (xor x (eq y x)) (false"
    " (allow ab self (service (list)))))(booleanif (neq x y) (true (auditallow ab c (service"
    " (list)))))",
    "branches": TYPES + "(boolean x true)(booleanif x (true (typechange a b mach_port a)) (false"
    " (typechange a b mach_port c)))(booleanif (not (not x)) (true (allow a a (service (list)))))",
    "extended": "(type a)" + MI + "(allow a a (mi_x (ioctl)))(allowx a self (ioctl mi_x (1 (range"
    " 0x10 0x20))))(permissionx px (ioctl mi_x (not (range 1 0xfffe))))(allowx a a px)",
    "blocks": "(type t)(block b (type t)(block d (type x))(typeattribute k)(typeattributeset k"
    " (t d.x .t))(allow k .b.d.x (mach_port (send))))(in b.d (type y)(allow y x (service (list))))"
    "(allow b.t b.d.y (mach_port (recv)))(block empty)",
    "constraints": TYPES + "(role r)(user u)(roleattribute ra)(roleattributeset ra (not (r)))"
    "(constrain (mach_port (send recv)) (or (eq u1 u2) (and (neq t1 (a rest)) (eq r1 (r)))))"
    "(constrain (service (all)) (not (or (dom r1 r2) (eq u2 u))))(constrain (mach_task (create))"
    " (and (incomp r1 r2) (neq t2 none)))",
    "levels": LEVELS + TYPES + "(mlsconstrain (mach_port (send)) (and (domby l1 l2) (dom h1 l1)))"
    .replace("(dom h1 l1)", "(dom h1 h2)")
    + "(mlsconstrain (mach_port (recv)) (or (incomp l1 h2) (or (eq l2 h2) (neq l1 h1))))"
    "(user u)(role r)(userrole u r)(roletype r ab)(categoryset k (c0 (range c1 c2)))(level high"
    " (s1 k))(levelrange span ((s0 (c0)) high))(userlevel u (s0 (c0)))(userrange u span)"
    "(context x (u r a ((s0 (c0)) (s1 (not (c1))))))(sid s)(sidcontext s x)",
    "level aliases": LEVELS + "(sensitivityalias low)(sensitivityaliasactual low s0)"
    "(categoryalias zero)(categoryaliasactual zero c0)(user u)(userlevel u (low (zero)))"
    "(userrange u ((low (zero)) (s1 (zero))))(level unused (low))",
    "levels without mls": LEVELS.replace("(mls true)", "") + "(user u)(role r)(userrole u r)"
    "(type t)(roletype r t)(sid s)(sidcontext s (u r t ((s0) (s1 (c2)))))"
    "(mlsconstrain (mach_port (send)) (domby l1 l2))",
    "orders": "(mls true)" + "".join(f"(sensitivity s{n})" for n in range(4))
    + "(sensitivityorder (s2 s3))(sensitivityorder (s0 s3))(sensitivityorder (s0 s1 s2))"
    .replace("(sensitivityorder (s0 s3))", "(sensitivityorder (s1 s2 s3))"),
    "people": "(type t)(role r)(role q)(roleattribute ra)(roleattributeset ra (r q))(user u)"
    "(userrole u ra)(roletype ra t)(user v)(userrole v q)(userrole v object_r)",
    "unknown": "(handleunknown allow)(policycap open_perms)(policycap ioctl_skip_cloexec)",
    "own classes": "(class service (list mine look_up register check_in create status))(type a)"
    "(allow a a (service (mine)))(classorder (service mach_port))",
    "words": "(type true)(type dom)(type t2)(type a-_9)(constrain (mach_port (send)) (neq t1"
    " (t2 dom)))(boolean t1 true)(booleanif t1 (true (allow dom t2 (service (list)))))",
    "bounds of depth": "(type a)(boolean x true)(constrain (mach_port (send)) (and (eq u1 u2)"
    " (and (eq u1 u2) (and (eq u1 u2) (and (eq u1 u2) (eq r1 r2))))))(booleanif "
    + "(and x " * 9 + "x" + ")" * 9 + " (true (allow a a (mach_port (send)))))",
    "long name": f"(type {'a' * 2047})(block {'b' * 1000} (type {'c' * 1046}))",
}  # fmt: skip


def run(*command: object) -> str:
    """Run a tool; return what it says."""
    result = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, errors="replace",
        timeout=120, check=False,
    )  # fmt: skip
    return "" if result.returncode == 0 else result.stdout + result.stderr


def compiled_by_secilc(text: str, directory: Path) -> tuple[str, Path]:
    """Compile a text; return what secilc says, nothing if it accepts it, and the policy."""
    source, binary = directory / "policy.cil", directory / "policy.33"
    source.write_text(text, encoding="utf-8")
    return run("secilc", "-c", VERSION, "-o", binary, "-f", "/dev/null", source), binary


def decompiled(db: PolicyDatabase, directory: Path) -> PolicyDatabase:
    """Return what SELinux's tools make of a policy's text."""
    complaint, binary = compiled_by_secilc(db.text, directory)
    assert complaint == ""
    again = directory / "again.cil"
    mls = ["-M"] if db.mls else []
    complaint = run("checkpolicy", "-b", "-C", *mls, "-o", again, binary)
    assert again.is_file(), complaint
    text = again.read_text(encoding="utf-8")
    # It writes the names of blocks' types as they are, which no declaration may have.
    text = re.sub(r"(?<=[A-Za-z0-9_])\.(?=[A-Za-z])", "_", text)
    text = text.replace("(categoryorder ())", "")  # which secilc itself refuses
    return compile_policy([("again.cil", text)])


# ---- what a policy decides, in names ----


def bits(mask: int) -> list[int]:
    return [n for n in range(mask.bit_length()) if mask >> n & 1]


def plain(name: str) -> str:
    return name.replace(".", "_")


def holds(expression: Any, values: dict[str, bool]) -> bool:
    """Evaluate the expression of a condition."""
    if isinstance(expression, str):
        return values[expression]
    operator, *parts = expression
    truths = [holds(part, values) for part in parts]
    if operator == "not":
        return not truths[0]
    return {
        "and": truths[0] and truths[-1], "or": truths[0] or truths[-1],
        "xor": truths[0] != truths[-1], "neq": truths[0] != truths[-1],
        "eq": truths[0] == truths[-1],
    }[operator]  # fmt: skip


def pairs(db: PolicyDatabase, rule: Any) -> list[tuple[str, str]]:
    names = [plain(datum.name) for datum in db.types]
    sources = bits(db.types[rule.source].members)
    if rule.target == SELF:
        return [(names[n], names[n]) for n in sources]
    targets = bits(db.types[rule.target].members)
    return [(names[n], names[m]) for n in sources for m in targets]


def in_force(db: PolicyDatabase, rule: Rule | TypeRule, values: dict[str, bool]) -> bool:
    if not rule.condition:
        return True
    expression = db.conditions[abs(rule.condition) - 1].expression
    return holds(expression, values) == (rule.condition > 0)


def vectors(db: PolicyDatabase, values: dict[str, bool]) -> dict[Any, set[str]]:
    """Return (kind, source, target, class) -> permissions, or the new type."""
    table: dict[Any, set[str]] = {}
    for rule in db.rules:
        if in_force(db, rule, values):
            tclass = db.classes[rule.tclass]
            for pair in pairs(db, rule):
                key = (rule.kind, *pair, tclass.name)
                table.setdefault(key, set()).update(tclass.names(rule.permissions))
    for each in db.type_rules:
        if in_force(db, each, values):
            for pair in pairs(db, each):
                key = (each.kind, *pair, db.classes[each.tclass].name)
                table.setdefault(key, set()).add(plain(db.types[each.result].name))
    return table


def extended(db: PolicyDatabase) -> dict[Any, set[int]]:
    table: dict[Any, set[int]] = {}
    for rule in db.extended_rules:
        for pair in pairs(db, rule):
            numbers = table.setdefault((*pair, db.classes[rule.tclass].name), set())
            numbers.update(n for low, high in rule.ranges for n in range(low, high + 1))
    return table


def constraints(db: PolicyDatabase) -> list[Any]:
    """Return class, permissions and expression of each constraint, names for numbers."""

    def named(expression: Any) -> Any:
        if not isinstance(expression, Comparison):
            return (expression[0], *(named(part) for part in expression[1:]))
        right: Any = expression.right
        if isinstance(right, int):
            table: Any = {"u": db.users, "r": db.roles, "t": db.types}[expression.left.what[0]]
            right = frozenset(plain(table[n].name) for n in bits(right))
        return (expression.operator, expression.left.what, right)

    return sorted(
        ((db.classes[c.tclass].name, db.classes[c.tclass].names(c.permissions), named(c.expression))
         for c in db.constraints), key=repr,
    )  # fmt: skip


def level(db: PolicyDatabase, value: Any) -> Any:
    categories = tuple(db.categories[n].name for n in bits(value.categories))
    return (db.sensitivities[value.sensitivity].name, categories)


def people(db: PolicyDatabase) -> Any:
    users = {}
    for user in db.users:
        # Every user has object_r in a binary policy.
        roles = {db.roles[n].name for n in bits(user.roles)} | {"object_r"}
        levels = [level(db, each) for each in (user.level, *user.range)] if db.mls else []
        users[plain(user.name)] = (roles, levels)
    types = {plain(datum.name): set(map(plain, datum.aliases)) for datum in db.types
             if not datum.attribute}  # fmt: skip
    roles = {role.name: {plain(db.types[n].name) for n in bits(role.types)} for role in db.roles}
    return users, types, roles


def contexts(db: PolicyDatabase) -> list[Any]:
    return sorted(
        (db.users[c.user].name, db.roles[c.role].name, plain(db.types[c.type].name),
         [level(db, each) for each in c.range])
        for c in db.initial_sids.values()
    )  # fmt: skip


def classes(db: PolicyDatabase) -> Any:
    return [(each.name, each.permissions) for each in db.classes]


def same(db: PolicyDatabase, other: PolicyDatabase) -> None:
    """Check that two policies decide alike, whatever the booleans are."""
    for truths in itertools.product((False, True), repeat=len(db.booleans)):
        values = dict(zip(db.booleans, truths, strict=True))
        names = {plain(name): value for name, value in values.items()}
        assert vectors(db, values) == vectors(other, names)
    assert {plain(name): value for name, value in db.booleans.items()} == other.booleans
    for aspect in (extended, constraints, people, classes):
        assert aspect(db) == aspect(other)
    assert (db.mls, db.handle_unknown) == (other.mls, other.handle_unknown)
    names = [{plain(each.types[n].name) for n in bits(each.permissive)} for each in (db, other)]
    assert names[0] == names[1]
    # It names initial SIDs after their numbers, by Linux's table.
    assert [c for c in contexts(db) if c not in contexts(other)] == []


@pytest.mark.parametrize("name", POLICIES)
def test_means_the_same(name: str, tmp_path: Path) -> None:
    db = compile_policy([("policy.cil", POLICIES[name])])
    same(db, decompiled(db, tmp_path))


def generator() -> ModuleType:
    """Return benchmarks/policies.py, which is no part of the package."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "policies.py"
    spec = importlib.util.spec_from_file_location("policies", path)
    assert spec
    assert spec.loader
    module = sys.modules["policies"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(3))
def test_generated_policies_mean_the_same(seed: int, tmp_path: Path) -> None:
    policies = generator()
    size = policies.Size(types=40, rules=300, attributes=8, neverallows=5, transitions=30,
                         booleans=3, levels=2 * (seed % 2))  # fmt: skip
    db = compile_policy([("policy.cil", policies.policy(size, seed))])
    same(db, decompiled(db, tmp_path))


def test_difference_is_found(tmp_path: Path) -> None:
    db = compile_policy([("policy.cil", POLICIES["allow"])])
    more = compile_policy([("policy.cil", POLICIES["allow"] + "(allow c b (service (list)))")])
    with pytest.raises(AssertionError):
        same(db, decompiled(more, tmp_path))


# ---- both refuse ----

REFUSED = [
    "(allow a a (service ()))", "(allow (a) a (service (list)))",
    "(allow a nobody (service (list)))",
    "(allow a a (service (nothing)))", "(allow a a (nothing (list)))", "(type a)", "(type 1a)",
    "(type self)", "(type x.y)", "(typealias x)", "(typeattribute x)(typeattributeset x (x))",
    "(typeattribute x)(typeattributeset x ())", "(typeattribute x)(typepermissive x)",
    "(class x (p p))", "(classmap x (y))", "(classpermission x)", "(common x ())",
    "(class x (p))(class y (q))(classorder (x y))(classorder (y x))",
    "(handleunknown deny)(handleunknown deny)", "(mls maybe)", "(policycap nonsense)",
    "(user x)(mls true)",
    "(boolean x true)(booleanif x (true))", "(boolean x true)(booleanif x (true (type y)))",
    "(allow a a (service (list)))(neverallow a self (service (list)))",
    "(typechange a a service a)(type x)(typechange a a service x)",
    "(sensitivity s1)", "(category c0)", "(level x (s0 ()))", "(level x s0)",
    "(role r)(context x (system_u r a ((s0) (s0))))", "(sid x)(sidcontext x (u r a ((s0) (s0))))",
    "(block x)(block x)", "(in x (type y))", "(allowx a a (ioctl service (1)))",
    "(constrain (service (list)) (eq u2 u1))", "(constrain (service (list)) (dom u1 u2))",
    "(constrain (service (list)) (all))", "(constrain (service (list)) (eq t1 (not a)))",
    "(constrain (service (list)) (eq l1 a))", "(typo x)", "(type x", "(type x))", "type",
    f"(class x ({' '.join(f'p{n}' for n in range(33))}))", f"(type {'a' * 2048})",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_both_refuse(text: str, tmp_path: Path) -> None:
    base = compile_policy([("policy.cil", "(type a)")]).text
    with pytest.raises(PolicyError):
        compile_policy([("policy.cil", "(type a)" + text)])
    declared = {word for word in ("mls", "handleunknown") if text.startswith(f"({word}")}
    kept = [line for line in base.split("\n") if line[1:].split(" ")[0] not in declared]
    if "(mls true)" in text:
        kept = [line for line in kept if not line.startswith("(mls")]
    complaint, _ = compiled_by_secilc("\n".join([*kept, text]), tmp_path)
    assert complaint != ""


@pytest.mark.parametrize("pair", [("l2", "l1"), ("h1", "l1"), ("u2", "l1"), ("t1", "l1")])
def test_comparisons_that_secilc_misreads(pair: tuple[str, str], tmp_path: Path) -> None:
    """secilc compiles these to another comparison; that is why they are refused here."""
    expression = f"(eq {pair[0]} {pair[1]})"
    base = compile_policy([("policy.cil", LEVELS)]).text
    complaint, _ = compiled_by_secilc(
        f"{base}\n(mlsconstrain (service (list)) {expression})", tmp_path
    )
    assert complaint == ""
    with pytest.raises(PolicyError):
        compile_policy([("p", f"{LEVELS}(mlsconstrain (service (list)) {expression})")])


def test_changed_texts_are_accepted_by_both(tmp_path: Path) -> None:
    """Of texts with a word changed, secilc accepts every one that we do."""
    sample = "".join(POLICIES[name] for name in ("maps", "blocks", "extended"))
    sample = (
        sample.replace("(type a)", "") + "(type a)" + POLICIES["booleans"].replace("(type a)", "")
    )
    compile_policy([("policy.cil", sample)])
    rng, accepted = random.Random(5), 0
    words = re.findall(r"[()]|[^\s()]+", sample)
    names = sorted(set(words) - {"(", ")"})
    for _ in range(1500):
        changed = list(words)
        at = rng.choice([n for n in range(len(words)) if words[n] not in "()"])
        changed[at] = rng.choice(names)
        try:
            db = compile_policy([("policy.cil", " ".join(changed))])
        except PolicyError:
            continue
        accepted += 1
        complaint, _ = compiled_by_secilc(db.text, tmp_path)
        assert complaint == "", " ".join(changed)
        if accepted == 30:
            break
    assert accepted > 10
