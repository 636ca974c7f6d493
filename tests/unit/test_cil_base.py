# SPDX-License-Identifier: BSD-2-Clause
"""What the base supplies, and that it never declares what the policy did."""

import re

import pytest

from pympi import PolicyError
from pympi.enums import CLASSES
from pympi.policy.cil import PolicyDatabase, compile_policy
from pympi.policy.cil.policydb import Level, Range, RuleKind

PERMISSIONS = " ".join(CLASSES["service"].permissions)


def compiled(text: str) -> PolicyDatabase:
    return compile_policy([("a.cil", text)])


def contexts(db: PolicyDatabase) -> dict[str, str]:
    return {
        sid: f"{db.users[c.user].name}:{db.roles[c.role].name}:{db.types[c.type].name}"
        for sid, c in db.initial_sids.items()
    }


def supplied(db: PolicyDatabase) -> str:
    """Return what the base added."""
    return db.text.partition("; what the policy leaves out")[2]


def test_nothing_is_a_policy() -> None:
    db = compiled("")
    assert [tclass.name for tclass in db.classes] == list(CLASSES)
    for name, tclass in CLASSES.items():
        assert db.tclass(name).permissions == tclass.permissions
    assert contexts(db) == {
        "kernel": "system_u:object_r:kernel_t",
        "unlabeled": "system_u:object_r:unlabeled_t",
    }
    assert [role.name for role in db.roles] == ["object_r", "system_r"]
    assert [each.name for each in db.sensitivities] == ["s0"]
    assert (db.handle_unknown, db.mls, db.files[-1]) == ("deny", False, "<base>")
    assert {rule.kind for rule in db.rules} == {RuleKind.AUDITALLOW}, "the base allows nothing"
    assert db.type("kernel_t").origin.file == "<base>"


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("(type kernel_t)(type unlabeled_t)", r"\(type "),
        ("(role object_r)(role system_r)", r"\(role "),
        ("(user system_u)", r"\(user "),
        ("(sid kernel)(sid unlabeled)(sidorder (kernel unlabeled))", r"\(sid |sidorder"),
        (("(sidcontext kernel (u r kernel_t ((s0) (s0))))(user u)(role r)(userrole u r)"
         "(roletype r kernel_t)"), r"sidcontext kernel"),
        ("(sensitivity s0)(sensitivityorder (s0))", r"sensitivity"),
        ("(handleunknown allow)(mls true)", r"handleunknown|\(mls"),
        (f"(class service ({PERMISSIONS}))", r"\(class service"),
        ((f"(common c (list))(class service ({PERMISSIONS.replace('list', '')}))"
         "(classcommon service c)"), r"\(class service"),
        ("(user u)(userlevel u (s0))(userrange u ((s0) (s0)))", r"user(level|range) u "),
    ],
)  # fmt: skip
def test_what_is_declared_is_not_supplied(text: str, absent: str) -> None:
    assert not re.search(absent, supplied(compiled(text)))
    assert re.search(absent, supplied(compiled("(user u)")) + "(user u "), "else it is"


def test_what_is_supplied_may_be_used() -> None:
    db = compiled(
        "(class c (x))(classorder (c service))(typealias k)(typealiasactual k kernel_t)"
        "(sensitivityalias low)(sensitivityaliasactual low s0)(userlevel system_u (low))"
        "(allow k self (service (list)))(roletype system_r k)(sidorder (unlabeled kernel))"
    )
    assert [tclass.name for tclass in db.classes][:2] == ["c", "service"]
    assert db.type("kernel_t").aliases == ("k",)
    assert db.role("system_r").types == db.type("k").members
    assert supplied(db).count("userlevel") == 0


@pytest.mark.parametrize(
    ("rule", "supplies"),
    [
        ("(allow a a (service (list)))", False),
        ("(dontaudit a self (service (list)))", False),
        ("(neverallow a a (service (list)))", True),
        ("(allow none a (service (list)))", True),
        ("(allow a none (service (list)))", True),
        ("(allow a a (service (not (all))))", True),
        ("(booleanif x (true (allow a a (service (list)))))", True),
    ],
)
def test_a_rule_is_supplied_where_none_is_in_force(rule: str, supplies: bool) -> None:
    db = compiled(f"(type a)(typeattribute none)(boolean x true){rule}")
    assert ("(auditallow kernel_t self" in supplied(db)) == supplies
    assert [each.kind.value for each in db.rules].count("auditallow") == supplies


def test_classes_keep_their_order() -> None:
    db = compiled("(class d (x))(class c (x))(class b (x))(classorder (c d))")
    assert [tclass.name for tclass in db.classes] == ["c", "d", "b", *CLASSES]


def test_users_have_levels_where_levels_mean_nothing() -> None:
    db = compiled("(user u)(block b (user v))")
    assert db.user("u").range == db.user("b.v").range == Range(Level(0), Level(0))
    with pytest.raises(PolicyError, match="user u has no userlevel"):
        compiled("(mls true)(user u)")


def test_system_user_has_every_level() -> None:
    db = compiled(
        "(mls true)(sensitivity low)(sensitivity high)(sensitivityorder (low high))"
        "(category c0)(category c1)(categoryorder (c0 c1))(sensitivitycategory high (c0 c1))"
    )
    assert db.user("system_u").range == Range(Level(0), Level(1, 3))
    assert db.initial_sids["kernel"].range == Range(Level(0), Level(0))


@pytest.mark.parametrize("name", CLASSES)
def test_own_classes_must_have_our_permissions(name: str) -> None:
    first, *rest = CLASSES[name].permissions
    with pytest.raises(PolicyError, match=f"class {name} lacks permissions of pympi's: {first}"):
        compiled(f"(class {name} ({' '.join(rest)}))")
    extra = compiled(f"(class {name} ({' '.join([*rest, first])} mine))")
    assert extra.tclass(name).permissions == (*rest, first, "mine")


def test_names_of_the_base_must_be_what_it_needs() -> None:
    with pytest.raises(PolicyError, match="expected a type, found 'kernel_t', an attribute"):
        compiled("(typeattribute kernel_t)")
