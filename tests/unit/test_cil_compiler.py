# SPDX-License-Identifier: BSD-2-Clause
"""Names, sets, classes, levels and rules: what a text means, and what is wrong with others."""

import pytest

from pympi import PolicyError
from pympi.policy.cil import Budget, PolicyDatabase, compile_policy
from pympi.policy.cil.policydb import SELF, Level, Range, RuleKind

PORT = "(mach_port (send))"


def compiled(text: str, **limits: int) -> PolicyDatabase:
    return compile_policy([("a.cil", text)], budget=Budget(**limits))


def refused(text: str, **limits: int) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        compiled(text, **limits)
    assert caught.value.line
    assert caught.value.column
    return caught.value


def members(db: PolicyDatabase, name: str) -> set[str]:
    bits = db.type(name).members
    return {datum.name for datum in db.types[: db.type_count] if bits >> datum.number & 1}


def rules(db: PolicyDatabase) -> list[str]:
    return [db.rule_text(rule) for rule in db.rules]


# ---- names ----


def test_order_is_free() -> None:
    db = compiled(f"(allow a b {PORT})(typeattributeset b (a))(typeattribute b)(type a)")
    assert rules(db) == ["(allow a b (mach_port (send)))"]
    assert members(db, "b") == {"a"}


def test_several_texts_are_one_policy() -> None:
    db = compile_policy([("a.cil", "(allow a a (service (list)))"), ("b.cil", "\n(type a)")])
    assert db.files == ("a.cil", "b.cil", "<base>")
    assert str(db.origin(db.rules[0])) == "a.cil:1"
    assert str(db.type("a").origin) == "b.cil:2"


@pytest.mark.parametrize(
    ("rule", "source", "target"),
    [
        ("(block b (type x) (allow x t PORT))", "b.x", "t"),
        ("(block b (type t) (allow t .t PORT))", "b.t", "t"),
        ("(block b (type x)) (allow b.x t PORT)", "b.x", "t"),
        ("(block b (block d (type x)) (allow d.x b.d.x PORT))", "b.d.x", "b.d.x"),
        ("(block b (type x)) (in b (type y) (allow x y PORT))", "b.x", "b.y"),
        ("(in b.d (allow x x PORT)) (block b (block d) (type x))", "b.x", "b.x"),
        ("(block b) (in b (block d (type x))) (allow b.d.x t PORT)", "b.d.x", "t"),
    ],
)
def test_blocks(rule: str, source: str, target: str) -> None:
    db = compiled("(type t)" + rule.replace("PORT", PORT))
    assert rules(db) == [f"(allow {source} {target} (mach_port (send)))"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(type a)(type a)", "expected a new name, found 'a': a.cil:1 declares a type"),
        ("(type a)(typeattribute a)", "declares a type of this name"),
        ("(block b)(block b)", "declares a block"),
        ("(type 1a)", "begins with a letter, found '1a'"),
        ("(type a.b)", "without '.'"),
        ("(type self)", "'self', which is a word of CIL"),
        ("(in b (type x))", "expected a block, found 'b'"),
        ("(block b)(in b (in b (type x)))", "'in' may not stand in another"),
        ("(block b (class c (p)))", "'class' may not stand in a block"),
        ("(type client_t)(allow cliemt_t self (service (list)))", "did you mean 'client_t'?"),
        ("(role r)(type t)(roletype t t)", "expected a role or a role attribute, found 't'"),
        ("(boolean b yes)", "expected one of true false, found 'yes'"),
        ("(mls true)(mls true)", "'mls' has been said already"),
        ("(handleunknown maybe)", "expected one of allow deny reject"),
        ("(policycap nonsense)", "expected one of network_peer_controls"),
        ("(typealias a)", "alias 'a' stands for nothing: no typealiasactual"),
        ("(typealias a)(typealias b)(typealiasactual a b)(typealiasactual b a)", "of itself"),
        ("(type t)(typealias a)(typealiasactual a t)(typealiasactual a t)", "already"),
    ],
)
def test_names_refused(text: str, words: str) -> None:
    assert words in str(refused(text))


def test_aliases() -> None:
    db = compiled(
        "(type t)(typealias a)(typealias b)(typealiasactual a b)(typealiasactual b t)"
        "(allow a b (service (list)))"
    )
    assert rules(db) == ["(allow t t (service (list)))"]
    assert set(db.type("t").aliases) == {"a", "b"}
    assert db.type("a") is db.type("b") is db.type("t")


# ---- sets ----


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("a", "a"), ("(a b)", "a b"), ("(and (a b) (b c))", "b"), ("(or a (b))", "a b"),
        ("(xor (a b) (b c))", "a c"), ("(not (a))", "b c kernel_t unlabeled_t"),
        ("(all)", "a b c kernel_t unlabeled_t"), ("(not (all))", ""),
        ("(and (not a) (k))", "c"), ("((a) (and b c))", "a"), ("(alias)", "b"),
    ],
)  # fmt: skip
def test_set_expressions(expression: str, names: str) -> None:
    db = compiled(
        "(type a)(type b)(type c)(typealias alias)(typealiasactual alias b)"
        "(typeattribute k)(typeattributeset k (a c))"
        f"(typeattribute x)(typeattributeset x {expression})"
    )
    assert members(db, "x") == set(names.split())


def test_sets_of_one_attribute_add_up() -> None:
    db = compiled(
        "(type a)(type b)(typeattribute x)(typeattributeset x a)(typeattributeset x (b))"
        "(typeattribute empty)"
    )
    assert members(db, "x") == {"a", "b"}
    assert members(db, "empty") == set()
    assert [each.name for each in db.attributes_of(db.type("a").number)] == ["x"]


def test_long_chain_of_attributes() -> None:
    count = 3000
    chain = "".join(f"(typeattribute x{n})(typeattributeset x{n} (x{n + 1}))" for n in range(count))
    db = compiled(f"(type a){chain}(typeattribute x{count})(typeattributeset x{count} (a))")
    assert members(db, "x0") == {"a"}


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("()", "expected a name or an operator, found ')'"),
        ("(and a)", "expected 2 operands of 'and', found 1"),
        ("(not a b)", "expected ')' after 1 operands of 'not', found 'b'"),
        ("(a and)", "found 'and', which is not declared"),
        ("(x)", "'x' contains itself: x > x"),
        ("(y)", "'x' contains itself: x > y > x"),
        ("(range a b)", "found 'range', which is not declared"),
    ],
)
def test_set_expressions_refused(expression: str, words: str) -> None:
    text = f"(typeattributeset x {expression})(typeattribute y)(typeattributeset y (x))"
    assert words in str(refused("(type a)(type b)(typeattribute x)" + text))


def test_only_attributes_have_sets() -> None:
    assert "expected an attribute, found 't'" in str(refused("(type t)(typeattributeset t (t))"))


# ---- classes and permissions ----

CLASSES = "(type t)(class c (p q))(common k (shared))(classcommon c k)(class d (z))"
MAP = "(classmap m (x y))(classmapping m x (c (p)))(classmapping m x (d (z)))(classmapping m y set)"
SET = "(classpermission set)(classpermissionset set (c (q shared)))"


@pytest.mark.parametrize(
    ("permissions", "vectors"),
    [
        ("(c (p))", "c:p"), ("(c (q p))", "c:p q"), ("(c (all))", "c:shared p q"),
        ("(c (not (p)))", "c:shared q"), ("(c (and (p q) (not p)))", "c:q"),
        ("(m (x))", "c:p d:z"), ("(m (y))", "c:shared q"), ("(m (all))", "c:shared p q d:z"),
        ("set", "c:shared q"), ("(c (not (all)))", ""),
    ],
)  # fmt: skip
def test_permissions(permissions: str, vectors: str) -> None:
    db = compiled(f"{CLASSES}{MAP}{SET}(allow t t {permissions})")
    allowed = [(db.classes[r.tclass], r) for r in db.rules if r.kind is RuleKind.ALLOW]
    found = [f"{tclass.name}:{' '.join(tclass.names(r.permissions))}" for tclass, r in allowed]
    assert " ".join(found) == vectors


def test_common_comes_first() -> None:
    db = compiled(CLASSES)
    assert db.tclass("c").permissions == ("shared", "p", "q")
    assert db.tclass("c").common == "k"
    assert [c.name for c in db.classes][:2] == ["c", "d"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(allow t t (c ()))", "expected a name or an operator, found ')'"),
        ("(allow t t (c p))", "expected (CLASS (PERMISSION...)), found 'p'"),
        ("(allow t t (c (p) (q)))", "expected (CLASS (PERMISSION...)), found a list"),
        ("(allow t t (c (nope)))", "expected a permission of c: shared p q, found 'nope'"),
        ("(allow t t (e (p)))", "expected a class or a class map, found 'e'"),
        ("(allow t t c)", "expected a classpermission, found 'c'"),
        ("(allow (t) t (c (p)))", "expected a type or an attribute, found a list"),
        ("(allow self t (c (p)))", "found 'self'"),
        ("(classmap n (x))", "class map n has no classmapping for x"),
        ("(classmap n (x))(classmapping n z (c (p)))", "expected a permission of n: x"),
        ("(classmap n (x))(classmapping n x (n (x)))", "'n x' contains itself"),
        ("(classpermission e)", "classpermission e has no classpermissionset"),
        ("(classpermission e)(classpermissionset e e)", "'e' contains itself"),
        ("(class e (p p))", "expected a new permission, found 'p' again"),
        ("(common e ())", "expected at least one permission"),
        ("(classcommon c k)", "class c has a common: k"),
        ("(common k2 (z))(classcommon d k2)", "has permissions of its common: z"),
        ("(classorder (c nope))", "expected a class, found 'nope'"),
        ("(classorder (c d))(classorder (d c))", "contradict each other"),
        ("(class e ())(classorder (c d))(classorder (c e))", "do not say which"),
        ("(classorder (unordered c))", "outside the subset"),
        ("(classorder (c c))", "'c' is twice"),
    ],
)
def test_permissions_refused(text: str, words: str) -> None:
    assert words in str(refused(CLASSES + text))


# ---- rules ----


def test_kinds_of_rules() -> None:
    db = compiled(
        f"(type a)(type b)(auditallow a b {PORT})(dontaudit a self {PORT})(allow a b {PORT})"
        f"(neverallow b a {PORT})(typetransition a b mach_port b)(typechange a a mach_task b)"
    )
    a, b = db.type("a").number, db.type("b").number
    assert [(r.kind.value, r.source, r.target) for r in db.rules] == [
        ("allow", a, b), ("auditallow", a, b), ("dontaudit", a, SELF),
    ]  # fmt: skip
    assert [rule.kind for rule in db.neverallows] == [RuleKind.NEVERALLOW]
    assert [(r.kind.value, r.source, r.target, r.result) for r in db.type_rules] == [
        ("typetransition", a, b, b), ("typechange", a, a, b),
    ]  # fmt: skip


def test_conditional_rules() -> None:
    db = compiled(
        "(type a)(boolean x true)(boolean y false)"
        "(booleanif x (true (allow a a (service (list)))) (false (allow a a (service (create)))))"
        "(booleanif (and (not x) (y)) (false (typechange a a service a)))"
    )
    assert [rule.condition for rule in db.rules if rule.kind is RuleKind.ALLOW] == [1, -1]
    assert [rule.condition for rule in db.type_rules] == [-2]
    assert [c.expression for c in db.conditions] == ["x", ("and", ("not", "x"), "y")]
    assert db.booleans == {"x": True, "y": False}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(booleanif x (true))", "expected a statement, found ')'"),
        ("(booleanif x (maybe (type b)))", "expected (true STATEMENT...) or (false STATEMENT"),
        ("(booleanif x (true (type b)))", "'type' may not stand in a booleanif"),
        ("(booleanif z (true (allow a a (service (list)))))", "expected a boolean, found 'z'"),
        ("(booleanif (x x) (true (allow a a (service (list)))))", "expected a boolean, or one of"),
        ("(booleanif (and x) (true (allow a a (service (list)))))", "expected 2 operands"),
        (
            "(booleanif x (true (allow a a (service (list)))) (true (allow a a (service (list)))))",
            "expected (false STATEMENT...)",
        ),
    ],
)
def test_conditional_rules_refused(text: str, words: str) -> None:
    assert words in str(refused("(type a)(boolean x true)" + text))


def test_conditions_are_bounded() -> None:
    rule = "(true (allow a a (service (list))))"
    left = "(and " * 12 + "x" + " x)" * 12
    assert compiled(f"(type a)(boolean x true)(booleanif {left} {rule})").conditions
    right = "(and x " * 10 + "x" + ")" * 10
    error = refused(f"(type a)(boolean x true)(booleanif {right} {rule})")
    assert "stack of more than 10" in str(error)


@pytest.mark.parametrize(
    ("expression", "ranges"),
    [
        ("(1)", ((1, 1),)), ("(0x10 17)", ((16, 17),)), ("(range 2 9)", ((2, 9),)),
        ("((range 2 4) 7 (range 5 5))", ((2, 5), (7, 7))), ("(all)", ((0, 65535),)),
        ("(not (range 1 65534))", ((0, 0), (65535, 65535))),
        ("(and (range 0 9) (not (4)))", ((0, 3), (5, 9))),
    ],
)  # fmt: skip
def test_extended_rules(expression: str, ranges: object) -> None:
    named = "(permissionx px (ioctl mi_x EXPRESSION))(allowx a a px)"
    for rule in ("(allowx a self (ioctl mi_x EXPRESSION))", named):
        text = "(type a)(class mi_x (r ioctl))" + rule.replace("EXPRESSION", expression)
        assert [each.ranges for each in compiled(text).extended_rules] == [ranges]


@pytest.mark.parametrize(
    ("permission", "words"),
    [
        ("(nlmsg mi_x (1))", "expected the kind 'ioctl'"),
        ("(ioctl service (1))", "class service has no permission 'ioctl'"),
        ("(ioctl mi_x (range 3 1))", "expected a number not below 3, found 1"),
        ("(ioctl mi_x (65536))", "expected a number from 0 to 0xffff, found '65536'"),
        ("(ioctl mi_x (range 0 4294967295))", "expected a"),
        ("(ioctl mi_x (-1))", "expected a decimal number"),
        ("(ioctl mi_x (017))", "expected a decimal number"),
        ("(ioctl mi_x ())", "expected a name or an operator"),
        ("(ioctl mi_x (not (all)))", "found an empty set"),
        ("(ioctl mi_x 1)", "expected (ioctl CLASS (NUMBER...))"),
    ],
)
def test_extended_rules_refused(permission: str, words: str) -> None:
    text = f"(type a)(class mi_x (r ioctl))(allowx a a {permission})"
    assert words in str(refused(text))


def test_permissive() -> None:
    db = compiled("(type a)(type b)(typealias l)(typealiasactual l b)(typepermissive l)")
    assert db.permissive == db.type("b").members
    assert [str(db.type(name).permissive) for name in "ab"] == ["None", "a.cil:1"]
    assert "expected a type" in str(refused("(typeattribute k)(typepermissive k)"))


# ---- levels, users, contexts ----

LEVELS = (
    "(mls true)(sensitivity low)(sensitivity high)(sensitivityorder (low high))"
    "(category c0)(category c1)(category c2)(categoryorder (c0 c1 c2))"
    "(sensitivitycategory low (c0 c1))(sensitivitycategory high (all))"
)
PEOPLE = (
    "(user u)(role r)(type t)(userrole u r)(roletype r t)(userlevel u (low))"
    "(userrange u ((low) (high (c0 c1))))"
)


@pytest.mark.parametrize(
    ("level", "value"),
    [
        ("(low)", Level(0)), ("(high c2)", Level(1, 4)), ("(high (range c0 c2))", Level(1, 7)),
        ("(high (not c0))", Level(1, 6)), ("named", Level(1, 5)), ("(alias (k))", Level(1, 5)),
    ],
)  # fmt: skip
def test_levels(level: str, value: Level) -> None:
    db = compiled(
        f"{LEVELS}(categoryset k (c0 l))(categoryalias l)(categoryaliasactual l c2)"
        "(sensitivityalias alias)(sensitivityaliasactual alias high)(level named (high k))"
        f"(user u)(userlevel u {level})(userrange u ({level} {level}))"
    )
    assert db.user("u").level == value
    assert db.user("u").range == Range(value, value)
    assert [each.name for each in db.sensitivities] == ["low", "high"]
    assert db.sensitivities[1].aliases == ("alias",)


def test_contexts() -> None:
    db = compiled(
        f"{LEVELS}{PEOPLE}(context c (u r t ((low) (high (c0)))))(sid s)(sidcontext s c)"
        "(roleattribute ra)(roleattributeset ra (r))(user v)(userrole v ra)"
        "(userlevel v (low))(userrange v ((low) (low)))"
    )
    context = db.initial_sids["s"]
    assert db.users[context.user].name == "u"
    assert context.range == Range(Level(0), Level(1, 1))
    assert db.user("v").roles == 1 << db.role("r").number
    assert db.role("object_r").types == (1 << db.type_count) - 1


def test_levels_mean_nothing_without_mls() -> None:
    text = (LEVELS + PEOPLE).replace("(mls true)", "")
    db = compiled(text + "(sid s)(sidcontext s (u r t ((low) (high))))")
    assert db.initial_sids["s"].range == Range(Level(0), Level(0))
    assert not db.mls


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(level x (low (c2)))", "expected categories of low, found 'c2'"),
        ("(level x (high (range c2 c0)))", "expected a category not before 'c2', found 'c0'"),
        ("(level x (low c0 c1))", "expected (SENSITIVITY) or (SENSITIVITY CATEGORIES)"),
        ("(levelrange x ((high) (low)))", "expected a level that dominates the first"),
        ("(levelrange x ((low (c0)) (high)))", "expected a level that dominates the first"),
        ("(levelrange x ((low)))", "expected (LEVEL LEVEL)"),
        ("(sensitivity s9)", "sensitivity s9 is in no sensitivityorder"),
        ("(category c9)", "category c9 is in no categoryorder"),
        ("(categoryset k (k))", "'k' contains itself"),
        ("(user v)", "user v has no userlevel"),
        ("(user v)(userlevel v (low))", "user v has no userrange"),
        ("(userlevel u (low))", "user u has a userlevel already"),
        ("(context x (u r t ((low) (high (c2)))))", "not within that of user u"),
        ("(type z)(context x (u r z ((low) (low))))", "no roletype gives role r the type z"),
        ("(role z)(context x (u z t ((low) (low))))", "no userrole gives user u the role z"),
        ("(context x (u r t))", "expected (USER ROLE TYPE RANGE)"),
        ("(sid s)(sidcontext s nowhere)", "expected a context, found 'nowhere'"),
        (("(sidcontext kernel (u r t ((low) (low))))"
         "(sid kernel)(sidcontext kernel (u r t ((low) (low))))"), "has a context already"),
    ],
)  # fmt: skip
def test_levels_and_contexts_refused(text: str, words: str) -> None:
    assert words in str(refused(LEVELS + PEOPLE + text))


# ---- budgets ----


@pytest.mark.parametrize(
    ("text", "limits", "name"),
    [
        ("(type a)(type b)(type c)", {"types": 2}, "types"),
        ("(type a)" + "(allow a a (service (list)))" * 4, {"rules": 3}, "rules"),
        ("(type a)(typeattribute x)(typeattributeset x (a a a a))", {"operands": 3}, "operands"),
        (
            "(type a)(allow a a (service (list)))(neverallow a a (service (create)))",
            {"comparisons": 0},
            "comparisons",
        ),
    ],
)
def test_budget(text: str, limits: dict[str, int], name: str) -> None:
    assert compiled(text)
    assert f"Budget.{name}" in str(refused(text, **limits))
