# SPDX-License-Identifier: BSD-2-Clause
"""`te`: contexts, new labels, methods, booleans, explanations, and a kernel that is held to it."""

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest

from pympi import AccessDenied, Kernel
from pympi.enums import ALL, CLASSES, ObjectClass, first_routine
from pympi.errors import LabelError, PolicyError
from pympi.mig import Interface
from pympi.policy import Decision, TypeEnforcement
from pympi.policy.cil import Budget, compile_policy
from pympi.policy.cil.contexts import format_context, parse_context
from pympi.policy.cil.evaluate import Evaluator
from pympi.policy.cil.policydb import RuleKind

PORT, TASK = CLASSES["mach_port"], CLASSES["mach_task"]
BASE = """(user u) (role r) (userrole u r)
(typeattribute every) (typeattributeset every (all)) (roletype r every)
(type editor_t) (type printer_t) (type spool_t)
"""
LEVELS = """(mls true)
(sensitivity s0) (sensitivity s1) (sensitivity s2) (sensitivityorder (s0 s1 s2))
(sensitivityalias low) (sensitivityaliasactual low s0)
(category c0) (category c1) (category c2) (category c3) (category c4) (category c5)
(categoryorder (c0 c1 c2 c3 c4 c5))
(categoryalias secret) (categoryaliasactual secret c3)
(sensitivitycategory s0 (range c0 c5)) (sensitivitycategory s1 (range c0 c5))
(sensitivitycategory s2 (c0))
(userlevel u (s0)) (userrange u ((s0) (s1 (range c0 c5))))
"""
EDITOR, PRINTER, SPOOL = "u:r:editor_t", "u:r:printer_t", "u:object_r:spool_t"


def te(text: str, levels: bool = False) -> TypeEnforcement:
    """Return the policy of some rules about three types."""
    return TypeEnforcement.from_text(BASE + (LEVELS if levels else "") + text, "test.cil")


# ---- contexts ----


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("u:r:editor_t:s0", "u:r:editor_t:s0"),
        ("u:r:editor_t:s0-s0", "u:r:editor_t:s0"),
        ("u:r:editor_t:low-s1", "u:r:editor_t:s0-s1"),
        ("u:r:editor_t:s0:c1,c0", "u:r:editor_t:s0:c0,c1"),
        ("u:r:editor_t:s0:c0,c1,c2", "u:r:editor_t:s0:c0.c2"),
        ("u:r:editor_t:s0:c0.c1", "u:r:editor_t:s0:c0,c1"),
        ("u:r:editor_t:s0:c0.c2,c4,c5", "u:r:editor_t:s0:c0.c2,c4,c5"),
        ("u:r:editor_t:s0:c1,secret", "u:r:editor_t:s0:c1,c3"),
        ("u:r:editor_t:s0:c0.secret-s1:c0.c5", "u:r:editor_t:s0:c0.c3-s1:c0.c5"),
        ("u:object_r:spool_t:s2:c0", "u:object_r:spool_t:s2:c0"),
    ],
)
def test_a_context_has_one_text(text: str, canonical: str) -> None:
    policy = te("", levels=True)
    assert policy.parse(text) == canonical
    assert policy.parse(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("u:r:editor_t", "user:role:type:low[-high]"),
        ("x:r:editor_t:s0", "no user 'x'; there are: system_u, u"),
        ("u:x:editor_t:s0", "no role 'x'"),
        ("u:r:editer_t:s0", "no type 'editer_t'; did you mean editor_t"),
        ("u:r:every:s0", "'every' is an attribute"),
        ("u:r:editor_t:s9", "no sensitivity 's9'"),
        ("u:r:editor_t:", "no sensitivity ''"),
        ("u:r:editor_t:s0:c9", "no category 'c9'"),
        ("u:r:editor_t:s0:", "no category ''"),
        ("u:r:editor_t:s0:c2.c2", "c2 does not come before c2"),
        ("u:r:editor_t:s0:c2.c0", "c2 does not come before c0"),
        ("u:r:editor_t:s0:c2.c9", "no category 'c9'"),
        ("u:r:editor_t:s1-s0", "level s0 does not dominate s1"),
        ("u:r:editor_t:s0:c0-s1:c1", "does not dominate"),
        ("u:object_r:editor_t:s2:c1,c2", "sensitivity s2 has no categories c1,c2"),
        ("u:r:editor_t:s2", "user u has the levels s0-s1:c0.c5"),
        ("u:system_r:kernel_t:s0", "user u may not have role system_r"),
        ("system_u:system_r:editor_t:s0", "role system_r may not have type editor_t"),
    ],
)
def test_what_is_no_context_says_why(text: str, wrong: str) -> None:
    with pytest.raises(ValueError) as caught:
        te("", levels=True).parse(text)
    assert wrong in str(caught.value)


def test_a_policy_without_levels_takes_none() -> None:
    policy = te("")
    assert policy.parse(EDITOR) == EDITOR
    with pytest.raises(ValueError, match="it has no levels"):
        policy.parse(EDITOR + ":s0")


def test_a_type_alias_is_written_as_the_type() -> None:
    policy = te("(typealias ed_t) (typealiasactual ed_t editor_t)")
    assert policy.parse("u:r:ed_t") == EDITOR


def test_categories_in_a_label_are_escaped() -> None:
    policy = te("", levels=True)
    with Kernel(policies=[policy]) as kernel:
        task = kernel.create_task("editor", label=r"te/u:r:editor_t:s0:c1\,c0")
        assert task.label == r"te/u:r:editor_t:s0:c0\,c1"
        with pytest.raises(LabelError, match="user u has the levels"):
            kernel.create_task("editor", label="te/u:r:editor_t:s2")


# ---- what has no label, what the policy does not know ----


def test_what_has_no_label_is_unlabeled() -> None:
    policy = te("(allow unlabeled_t printer_t (mach_port (send)))")
    assert policy.decide(None, PRINTER, PORT).allowed == PORT.mask("send")
    assert policy.decide(EDITOR, None, PORT).allowed == 0


@pytest.mark.parametrize(("how", "allowed"), [("deny", 0), ("allow", ALL)])
def test_unknown_classes_are_handled_as_the_policy_says(how: str, allowed: int) -> None:
    policy = te(f"(handleunknown {how})")
    method = ObjectClass(99, "mi_other", ("print_page",))
    assert policy.decide(EDITOR, PRINTER, method) == Decision(allowed, 0, ALL)
    text = policy.explain(EDITOR, PRINTER, method, "print_page")
    assert f"has no class mi_other; (handleunknown {how})" in text
    assert text.endswith("(class mi_other (print_page)) and a rule would allow it") is (not allowed)


@pytest.mark.parametrize(("how", "allowed"), [("deny", 0b01), ("allow", ALL & ~0b10)])
def test_unknown_permissions_are_handled_as_the_policy_says(how: str, allowed: int) -> None:
    policy = te(
        f"(handleunknown {how}) (class mi_printing (print_page cancel)) (classorder (mi_printing))"
        "(allow editor_t printer_t (mi_printing (print_page)))"
    )
    method = ObjectClass(99, "mi_printing", ("print_page", "cancel", "status"))
    assert policy.decide(EDITOR, PRINTER, method).allowed == allowed
    text = policy.explain(EDITOR, PRINTER, method, "status")
    assert "the policy has no permission status of class mi_printing" in text
    remedy = "the class at test.cil:4 with it, and a rule, would allow it"
    assert text.endswith(remedy) is (how == "deny")
    assert policy.explain(EDITOR, PRINTER, method, "cancel").startswith("refuses: no rule")


def test_kernels_may_have_different_classes_of_one_name() -> None:
    policy = te(
        "(class mi_printing (print_page cancel)) (classorder (mi_printing))"
        "(allow editor_t printer_t (mi_printing (cancel)))"
    )
    one = ObjectClass(90, "mi_printing", ("print_page", "cancel"))
    other = ObjectClass(90, "mi_printing", ("cancel", "print_page"))
    for _ in range(2):
        assert policy.decide(EDITOR, PRINTER, one).allowed == 0b10
        assert policy.decide(EDITOR, PRINTER, other).allowed == 0b01


def test_a_policy_that_rejects_unknowns_must_have_our_classes() -> None:
    assert te("(handleunknown reject)").decide(EDITOR, PRINTER, PORT).allowed == 0
    db = te("(handleunknown reject)").database
    port = db.tclass("mach_port")
    cut = dataclasses.replace(port, permissions=port.permissions[:-1])
    classes = tuple(cut if each is port else each for each in db.classes)
    with pytest.raises(PolicyError, match=r"class mach_port lacks .*: request_notification"):
        TypeEnforcement.from_database(dataclasses.replace(db, classes=classes, _index={}))


def test_backends() -> None:
    db = te("").database
    with pytest.raises(PolicyError, match="no backend 'perl'; there are: python, libsepol"):
        TypeEnforcement(db, backend="perl")
    assert TypeEnforcement(db, backend="python").database is db


def test_a_backend_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from pympi.policy import te as module

    monkeypatch.setitem(module._BACKENDS, "libsepol", "pympi.policy.not_there")
    with pytest.raises(PolicyError, match="'libsepol' is not available here"):
        TypeEnforcement(te("").database, backend="libsepol")


# ---- methods ----

METHODS = """
(class mi_printing (print_page cancel status ioctl)) (classorder (mi_printing))
(allow editor_t printer_t (mi_printing (print_page cancel status)))
"""
PRINTING = ObjectClass(90, "mi_printing", ("print_page", "cancel", "status"))


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        ("", "print_page cancel status"),
        ("(allowx editor_t printer_t (ioctl mi_printing (0)))", "print_page"),
        ("(allowx editor_t printer_t (ioctl mi_printing ((range 1 5))))", "cancel status"),
        ("(allowx editor_t printer_t (ioctl mi_printing (0 2)))", "print_page status"),
        (
            (
                "(allowx editor_t printer_t (ioctl mi_printing (0)))"
                "(allowx every printer_t (ioctl mi_printing (1)))"
            ),
            "print_page cancel",
        ),
        ("(allowx editor_t self (ioctl mi_printing (0)))", "print_page cancel status"),
        ("(allowx printer_t editor_t (ioctl mi_printing (0)))", "print_page cancel status"),
        ("(allowx editor_t printer_t (ioctl mi_printing (7)))", ""),
    ],
)
def test_extended_rules_narrow_to_routines(rules: str, allowed: str) -> None:
    policy = te(METHODS + rules)
    assert policy.decide(EDITOR, PRINTER, PRINTING).allowed == PRINTING.mask(allowed)
    for name in PRINTING.permissions:
        verb = "allows" if name in allowed.split() else "refuses"
        assert policy.explain(EDITOR, PRINTER, PRINTING, name).startswith(verb)


def test_extended_rules_allow_nothing_themselves() -> None:
    policy = te(METHODS + "(allowx printer_t editor_t (ioctl mi_printing ((range 0 2))))")
    assert policy.decide(PRINTER, EDITOR, PRINTING).allowed == 0


def test_routines_are_numbered_as_in_the_kernel() -> None:
    policy = te(
        "(class mi_printing (ioctl status cancel print_page)) (classorder (mi_printing))"
        "(allow editor_t printer_t (mi_printing (all)))"
        "(allowx editor_t printer_t (ioctl mi_printing (0)))"
    )
    assert policy.decide(EDITOR, PRINTER, PRINTING).allowed == PRINTING.mask("print_page")


def test_the_second_class_of_an_interface_begins_at_31() -> None:
    names = [f"routine_{n}" for n in range(40)]
    policy = te(
        f"(class mi_big ({' '.join(names[:31])} ioctl)) (class mi_big_2 ({' '.join(names[31:])}"
        " ioctl)) (class mi_small (a)) (class mi_small_2 (b ioctl))"
        "(classorder (mi_big mi_big_2 mi_small mi_small_2))"
        "(allow editor_t printer_t (mi_big_2 (all)))"
        "(allowx editor_t printer_t (ioctl mi_big_2 ((range 32 33))))"
    )
    assert first_routine("mi_big") == first_routine("mi_big_0") == first_routine("mach_port_2") == 0
    assert (first_routine("mi_big_2"), first_routine("mi_big_12")) == (31, 341)
    second = ObjectClass(91, "mi_big_2", tuple(names[31:]))
    assert policy.decide(EDITOR, PRINTER, second).allowed == second.mask("routine_32 routine_33")


@pytest.mark.parametrize(
    "first",
    ["", "(class mi_big (routine_0 ioctl))", "(class mi_big (routine_30 routine_3 routine_7))"],
)
def test_whatever_a_policy_declares_of_the_first(first: str) -> None:
    """Numbers are those of the interface: a rule does not come to mean other routines."""
    names = [f"routine_{n}" for n in range(31, 40)]
    order = "mi_big mi_big_2" if first else "mi_big_2"
    policy = te(
        f"{first} (class mi_big_2 (routine_33 routine_31 ioctl)) (classorder ({order}))"
        "(allow editor_t printer_t (mi_big_2 (all)))"
        "(allowx editor_t printer_t (ioctl mi_big_2 (33)))"
    )
    second = ObjectClass(91, "mi_big_2", tuple(names))
    assert policy.decide(EDITOR, PRINTER, second).allowed == second.mask("routine_33")


# ---- new labels ----

NEW = "(typetransition editor_t printer_t mach_port spool_t)"


def test_a_new_port_has_the_type_of_a_transition() -> None:
    policy = te(NEW, levels=True)
    issuer, owner = "u:r:editor_t:s0:c1-s1:c0,c1", "system_u:object_r:printer_t:s2"
    assert policy.label_new_port(issuer, owner) == "u:object_r:spool_t:s0:c1"
    assert policy.label_new_port(owner, issuer) is None


@pytest.mark.parametrize("tclass", ["mach_port", "service", "kernel"])
@pytest.mark.parametrize("change_first", [True, False])
def test_a_typechange_counts_before_a_transition(tclass: str, change_first: bool) -> None:
    """SEDarwin labels by typechange, and so do we; even if it is the broader rule."""
    change = f"(typechange every printer_t {tclass} printer_t)"
    transition = f"(typetransition editor_t printer_t {tclass} spool_t)"
    both = change + transition if change_first else transition + change
    for rules, made in (
        (transition, SPOOL),
        (change, "u:object_r:printer_t"),
        (both, "u:object_r:printer_t"),
    ):
        assert te(rules).label_new(EDITOR, PRINTER, CLASSES[tclass]) == made


def test_each_class_has_a_rule_of_its_own() -> None:
    kinds = {"mach_port": "spool_t", "mach_task": "printer_t", "service": "editor_t"}
    rules = "".join(f"(typechange editor_t printer_t {c} {t})" for c, t in kinds.items())
    policy = te(rules, levels=True)
    source, target = "u:r:editor_t:s0-s1", "system_u:object_r:printer_t:s2"
    asked = {name: policy.label_new(source, target, CLASSES[name]) for name in CLASSES}
    assert asked == {
        "mach_port": "u:object_r:spool_t:s0",
        "mach_task": "u:r:printer_t:s0-s1",
        "service": "u:object_r:editor_t:s0",
        "kernel": "u:object_r:printer_t:s0",  # without a rule as SELinux labels it
    }
    assert policy.label_new_port(source, target) == asked["mach_port"]
    assert policy.label_new_task(source) is None  # that rule is not about the parent alone


def test_without_a_rule_ports_and_tasks_inherit_and_the_rest_is_computed() -> None:
    policy = te("(class process (fork)) (classorder (process))", levels=True)
    source, target = "u:r:editor_t:s0-s1", "system_u:object_r:printer_t:s2"
    process, unknown = ObjectClass(90, "process", ("fork",)), ObjectClass(91, "mi_x", ("x",))
    asked = [CLASSES["mach_port"], CLASSES["mach_task"], CLASSES["service"], process, unknown]
    assert [policy.label_new(source, target, tclass) for tclass in asked] == [
        None, None, "u:object_r:printer_t:s0", source, None,
    ]  # fmt: skip


def test_a_new_task_keeps_all_but_the_type() -> None:
    policy = te("(typetransition editor_t editor_t mach_task spool_t)", levels=True)
    assert policy.label_new_task("u:r:editor_t:s0-s1") == "u:r:spool_t:s0-s1"
    assert policy.label_new_task("u:r:printer_t:s0") is None


def test_a_new_task_whose_role_may_not_have_the_type_is_refused() -> None:
    policy = te("(roletype system_r editor_t) (typetransition editor_t self mach_task printer_t)")
    with pytest.raises(ValueError, match="role system_r may not have type printer_t"):
        policy.label_new_task("system_u:system_r:editor_t")


def test_conditional_transitions_follow_the_booleans() -> None:
    policy = te(f"(boolean spooling false) (booleanif spooling (true {NEW}))")
    assert policy.label_new_port(EDITOR, PRINTER) is None
    policy.set_booleans(spooling=True)
    assert policy.label_new_port(EDITOR, PRINTER) == SPOOL


@pytest.mark.parametrize(
    ("kind", "tclass", "expected"),
    [
        (RuleKind.TYPETRANSITION, "mach_port", "u:object_r:spool_t:s0"),
        (RuleKind.TYPECHANGE, "mach_port", "u:object_r:printer_t:s0"),
        (RuleKind.TYPETRANSITION, "mach_task", "u:object_r:printer_t:s0"),
        (RuleKind.TYPETRANSITION, "process", "u:r:editor_t:s0-s1"),
    ],
)
def test_compute_sid(kind: RuleKind, tclass: str, expected: str) -> None:
    text = "(class process (transition)) (classorder (process))"
    db = compile_policy([("test.cil", BASE + LEVELS + NEW + text)])
    source = parse_context(db, "u:r:editor_t:s0-s1")
    target = parse_context(db, "system_u:object_r:printer_t:s2")
    made = Evaluator(db).compute_sid(kind, source, target, db.tclass(tclass).number)
    assert format_context(db, made) == expected


class Unwalked(tuple[Any, ...]):
    """Types that are looked up, and neither copied nor walked."""

    __slots__ = ()

    def __getitem__(self, at: Any) -> Any:
        assert isinstance(at, int)
        return super().__getitem__(at)

    def __iter__(self) -> Any:
        yield pytest.fail("walked")


def test_a_context_is_read_without_a_look_at_every_type() -> None:
    db = compile_policy([("test.cil", BASE + LEVELS)])
    parse_context(db, "u:r:editor_t:s0")  # names are put in order when the first is asked for
    object.__setattr__(db, "types", Unwalked(db.types))  # frozen
    assert format_context(db, parse_context(db, "u:r:editor_t:s0")) == "u:r:editor_t:s0"


def test_a_transition_to_another_role_needs_a_rule_that_there_is_not() -> None:
    policy = te(
        "(class process (transition fork)) (classorder (process))"
        "(allow editor_t printer_t (process (transition fork)))"
    )
    process = ObjectClass(77, "process", ("transition", "fork"))
    assert policy.decide(EDITOR, PRINTER, process).allowed == 0b11
    assert policy.decide(EDITOR, "u:object_r:printer_t", process).allowed == 0b10
    assert "change of role" in policy.explain(EDITOR, "u:object_r:printer_t", process, "transition")


# ---- booleans ----

NIGHT = """
(boolean night_work false) (boolean holiday false)
(booleanif night_work (true (allow editor_t printer_t (mach_port (send)))))
"""


def test_booleans_are_read_and_not_written() -> None:
    policy = te(NIGHT)
    assert dict(policy.booleans) == {"night_work": False, "holiday": False}
    with pytest.raises(TypeError):
        policy.booleans["holiday"] = True  # type: ignore[index]


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ({"holiday": True, "nite_work": True}, PolicyError, "did you mean night_work?"),
        ({"holiday": True, "night_work": 1}, TypeError, "True or False, not 1"),
    ],
)
def test_booleans_are_set_all_or_none(
    values: dict[str, Any], error: type[Exception], text: str
) -> None:
    policy = te(NIGHT)
    with pytest.raises(error) as caught:
        policy.set_booleans(**values)
    assert text in str(caught.value)
    assert not any(policy.booleans.values())


def test_an_evaluator_wants_booleans_that_there_are() -> None:
    with pytest.raises(KeyError, match="evening"):
        Evaluator(te(NIGHT).database, {"evening": True})


def test_a_view_taken_before_stays_as_it_was() -> None:
    policy = te(NIGHT)
    before = policy.booleans
    policy.set_booleans(night_work=True)
    assert (before["night_work"], policy.booleans["night_work"]) == (False, True)


# ---- files ----


def test_files_together_are_one_policy_and_are_read_again(tmp_path: Path) -> None:
    one, two = tmp_path / "one.cil", tmp_path / "two.cil"
    one.write_text(BASE + NIGHT)
    two.write_text("(allow editor_t spool_t (mach_port (send)))")
    policy = TypeEnforcement.from_file(one, two)
    policy.set_booleans(night_work=True)
    two.write_text("(boolean late true) (allow editor_t spool_t (mach_port (recv)))")
    policy.reload()
    assert policy.decide(EDITOR, SPOOL, PORT).allowed == PORT.mask("recv")
    assert policy.booleans == {"night_work": True, "holiday": False, "late": True}
    two.write_text("(allow nobody_t spool_t (mach_port (recv)))")
    with pytest.raises(PolicyError):
        policy.reload()
    assert policy.decide(EDITOR, SPOOL, PORT).allowed == PORT.mask("recv")


def test_values_mean_the_same_after_types_were_renumbered(tmp_path: Path) -> None:
    path = tmp_path / "policy.cil"
    path.write_text(BASE + "(allow editor_t printer_t (mach_port (send)))")
    policy = TypeEnforcement.from_file(path)
    editor, printer = policy.parse(EDITOR), policy.parse(PRINTER)
    path.write_text("(type aaa_t) (type aab_t)" + path.read_text())
    policy.reload()
    assert policy.decide(editor, printer, PORT).allowed == PORT.mask("send")


def test_a_budget_holds_when_files_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "policy.cil"
    path.write_text(BASE)
    policy = TypeEnforcement.from_file(path, budget=Budget(bytes=1000))
    path.write_text(BASE + ";" * 1000)
    with pytest.raises(PolicyError):
        policy.reload()
    with pytest.raises(PolicyError):
        TypeEnforcement.from_text(BASE, budget=Budget(bytes=10))


def test_a_larger_budget_holds_for_files_too(tmp_path: Path) -> None:
    path = tmp_path / "policy.cil"
    path.write_text(BASE + f"; {'x' * 900_000}\n" * 38)
    with pytest.raises(PolicyError, match=r"Budget\.bytes"):
        TypeEnforcement.from_file(path)
    policy = TypeEnforcement.from_file(path, budget=Budget(bytes=64 << 20))
    policy.reload()
    assert policy.database.rules


def test_no_file_is_no_policy() -> None:
    with pytest.raises(TypeError, match="a file at least"):
        TypeEnforcement.from_file()


def test_a_policy_of_text_has_nothing_to_read_again() -> None:
    policy = te(NIGHT)
    before = policy.database
    policy.reload()
    assert policy.database is before


# ---- explanations ----

EXPLAINED = """
(boolean night_work false) (boolean strict true)
(allow editor_t printer_t (mach_port (send recv copy_send)))
(booleanif night_work (true (allow editor_t printer_t (mach_port (make_send)))))
(booleanif strict (false (allow editor_t printer_t (mach_port (hold_send)))))
(booleanif (and strict (not night_work))
    (true (allow editor_t printer_t (mach_port (move_send)))))
(constrain (mach_port (recv)) (or (eq t1 t2) (and (eq u1 u2) (not (eq r1 r2)))))
(dontaudit editor_t spool_t (mach_port (recv)))
(typepermissive spool_t)
(typeattribute things) (typeattributeset things (printer_t spool_t))
(neverallow things things (mach_port (use_recv hold_recv)))
(neverallow spool_t self (mach_port (use_recv send)))
(neverallow printer_t self (mach_port (recv)))
"""


@pytest.mark.parametrize(
    ("constraint", "needed"),
    [
        (
            "mlsconstrain dom l1 l2",
            "the source's low level, s0:c1, would have to dominate the target's low level, s1",
        ),
        (
            "mlsconstrain domby l2 h2",
            "",
        ),
        (
            "mlsconstrain incomp h1 h2",
            ("the source's high level, s1:c0,c1, would have to be incomparable with "
            "the target's high level, s1"),
        ),
        (
            "mlsconstrain eq l1 h1",
            "the source's low level, s0:c1, would have to be the source's high level, s1:c0,c1",
        ),
        (
            "constrain eq r1 r2",
            "the source's role, r, would have to be the target's role, object_r",
        ),
        (
            "constrain neq u1 u2",
            "the source's user, u, would have to be other than the target's user, u",
        ),
        ("constrain eq t2 editor_t", "the target's type, printer_t, would have to be editor_t"),
        (
            "constrain eq t2 (editor_t spool_t)",
            "the target's type, printer_t, would have to be one of (editor_t spool_t)",
        ),
        (
            "constrain neq t2 (editor_t printer_t)",
            "the target's type, printer_t, would have to be other than any of (editor_t printer_t)",
        ),
    ],
)  # fmt: skip
def test_what_would_meet_a_constraint(constraint: str, needed: str) -> None:
    word, _, leaf = constraint.partition(" ")
    allow = "(allow editor_t printer_t (mach_port (send)))"
    source, target = "u:r:editor_t:s0:c1-s1:c0,c1", "u:object_r:printer_t:s1"
    for expression in (f"({leaf})", f"(and (eq u1 u) (and (eq t1 editor_t) ({leaf})))"):
        policy = te(f"{allow} ({word} (mach_port (send)) {expression})", levels=True)
        text = policy.explain(source, target, PORT, "send")
        assert text.partition("-fails-")[2].partition(": ")[2] == needed
        assert text.startswith("refuses: test.cil:" if needed else "allows")


@pytest.mark.parametrize(
    "expression",
    ["(or (eq t1 t2) (eq r1 r2))", "(not (eq u1 u2))", "(and (eq t1 t2) (eq r1 r2))"],
)
def test_no_single_remedy_is_named_where_there_are_several(expression: str) -> None:
    policy = te(
        f"(allow editor_t printer_t (mach_port (send)))(constrain (mach_port (send)) {expression})"
    )
    text = policy.explain(EDITOR, "u:object_r:printer_t", PORT, "send")
    assert text.startswith("refuses: ")
    assert "would have to" not in text


@pytest.mark.parametrize(
    ("source", "target", "permission", "text"),
    [
        (
            EDITOR,
            PRINTER,
            "send",
            "allows by test.cil:6: (allow editor_t printer_t (mach_port (send recv copy_send)))",
        ),
        (
            EDITOR,
            PRINTER,
            "move_send",
            (
                "allows by test.cil:10: (allow editor_t printer_t (mach_port (move_send))), "
                "while (and strict (not night_work)) is true"
            ),
        ),
        (
            EDITOR,
            SPOOL,
            "send",
            "refuses: no rule; (allow editor_t spool_t (mach_port (send))) would allow it",
        ),
        (
            EDITOR,
            PRINTER,
            "make_send",
            (
                "refuses: test.cil:7: (allow editor_t printer_t (mach_port (make_send))) would "
                "allow it if night_work is true (now night_work=false)"
            ),
        ),
        (
            EDITOR,
            PRINTER,
            "hold_send",
            (
                "refuses: test.cil:8: (allow editor_t printer_t (mach_port (hold_send))) would "
                "allow it if strict is false (now strict=true)"
            ),
        ),
        (
            EDITOR,
            PRINTER,
            "recv",
            (
                "refuses: test.cil:11: (constrain (mach_port (recv)) (or (eq t1 t2 -fails-) "
                "(and (eq u1 u2) (not (eq r1 r2) -fails-))))"
            ),
        ),
        (
            PRINTER,
            EDITOR,
            "recv",
            (
                "refuses: no rule; (allow printer_t editor_t (mach_port (recv))) would be needed "
                "for it; test.cil:11: (constrain (mach_port (recv)) (or (eq t1 t2 -fails-) "
                "(and (eq u1 u2) (not (eq r1 r2) -fails-))))"
            ),
        ),
        (
            EDITOR,
            SPOOL,
            "recv",
            (
                "refuses: no rule; (allow editor_t spool_t (mach_port (recv))) would allow it; "
                "not recorded, by test.cil:12: (dontaudit editor_t spool_t (mach_port (recv)))"
            ),
        ),
        (
            "u:r:spool_t",
            PRINTER,
            "send",
            (
                "allows, and reports, because spool_t is permissive; otherwise refuses: no rule; "
                "(allow spool_t printer_t (mach_port (send))) would allow it"
            ),
        ),
        (
            PRINTER,
            SPOOL,
            "use_recv",
            (
                "refuses: no rule, and none may allow it: test.cil:15: "
                "(neverallow things things (mach_port (hold_recv use_recv)))"
            ),
        ),
        (
            "u:r:spool_t",
            SPOOL,
            "use_recv",
            (
                "allows, and reports, because spool_t is permissive; otherwise refuses: no rule, "
                "and none may allow it: test.cil:15: (neverallow things things (mach_port "
                "(hold_recv use_recv))), test.cil:16: (neverallow spool_t self (mach_port "
                "(send use_recv)))"
            ),
        ),
        (
            PRINTER,
            "u:object_r:printer_t",
            "recv",
            (
                "refuses: no rule, and none may allow it: test.cil:17: (neverallow printer_t self "
                "(mach_port (recv)))"
            ),
        ),
    ],
)
def test_explanations(source: str, target: str, permission: str, text: str) -> None:
    assert te(EXPLAINED).explain(source, target, PORT, permission) == text


@pytest.mark.parametrize("source", ["editor_t", "printer_t", "spool_t"])
@pytest.mark.parametrize("target", ["editor_t", "printer_t", "spool_t"])
def test_what_is_proposed_compiles_and_nothing_else_would(source: str, target: str) -> None:
    """For every permission: the policy takes the rule exactly if it is proposed."""
    policy = te(EXPLAINED)
    for permission in PORT.permissions:
        text = policy.explain(f"u:r:{source}", f"u:object_r:{target}", PORT, permission)
        rule = f"(allow {source} {target} (mach_port ({permission})))"
        if "no rule, and" in text:
            assert rule not in text
            with pytest.raises(PolicyError, match="breaks"):
                te(EXPLAINED + rule)
        elif "no rule; " in text:
            assert rule in text
            te(EXPLAINED + rule)


def test_an_explanation_of_several_permissions_names_each() -> None:
    text = te(EXPLAINED).explain(EDITOR, PRINTER, PORT, "send use_recv")
    assert "send: allows by" in text
    assert "use_recv: refuses: no rule" in text


def test_an_explanation_names_extended_rules() -> None:
    policy = te(METHODS + "(allowx editor_t printer_t (ioctl mi_printing ((range 1 2))))")
    text = policy.explain(EDITOR, PRINTER, PRINTING, "print_page")
    assert text == (
        "refuses: routine 0 is not among those left by test.cil:7: "
        "(allowx editor_t printer_t (ioctl mi_printing ((range 0x1 0x2))))"
    )


def test_a_rule_alone_does_not_help_where_extended_rules_leave_a_routine_out() -> None:
    rules = METHODS.replace("(mi_printing (print_page ", "(mi_printing (") + (
        "(allowx editor_t printer_t (ioctl mi_printing ((range 1 2))))"
    )
    text = te(rules).explain(EDITOR, PRINTER, PRINTING, "print_page")
    assert "(allow editor_t printer_t (mi_printing (print_page))) would be needed for it;" in text
    assert "routine 0 is not among those left by test.cil:7" in text


def test_a_permission_that_the_class_does_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match="no permission of class mach_port"):
        te("").explain(EDITOR, PRINTER, PORT, "fly")


# ---- in a kernel ----

OFFICE = """
(allow editor_t printer_t (mach_port (send hold_send copy_send)))
(allow printer_t printer_t (mach_port (make_send hold_send use_recv)))
(allow printer_t editor_t (mach_port (recv)))
"""


def office(kernel: Kernel) -> tuple[Any, Any, Any]:
    """Return an editor's send right to a printer's port, that port, and the editor."""
    printer = kernel.create_task("printer", label=f"te/{PRINTER}")
    editor = kernel.create_task("editor", label=f"te/{EDITOR}")
    inbox = printer.allocate_port()
    return inbox.make_send(editor), inbox, editor


def test_a_message_goes_where_rules_let_it() -> None:
    with Kernel(policies=[te(OFFICE)]) as kernel:
        right, inbox, _ = office(kernel)
        right.send(b"page")
        assert inbox.receive(timeout=0).body == b"page"
        assert kernel.policies.failures == {}
        kernel.verify()


def test_a_message_without_a_rule_is_refused() -> None:
    with Kernel(policies=[te(OFFICE.replace("(send ", "("))]) as kernel:
        right, inbox, editor = office(kernel)
        with pytest.raises(AccessDenied):
            right.send(b"page")
        text = kernel.explain(editor, inbox, "mach_port", "send")
        assert "refused by te" in text
        assert "(allow editor_t printer_t (mach_port (send))) would allow it" in text


def test_booleans_flip_while_messages_flow() -> None:
    rules = OFFICE.replace("(send ", "(") + NIGHT
    policy = te(rules)
    with Kernel(policies=[policy]) as kernel:
        right, inbox, _ = office(kernel)
        for night in (True, False, True):
            policy.set_booleans(night_work=night)
            if night:
                right.send(b"page")
                assert inbox.receive(timeout=0).body == b"page"
            else:
                with pytest.raises(AccessDenied):
                    right.send(b"page")


def test_flips_in_another_thread_are_seen_whole() -> None:
    """No decision mixes two states: of these two rules one is in force, never both or none."""
    policy = te(
        "(boolean day true) (booleanif day (true (allow editor_t printer_t (mach_port (send))))"
        "(false (allow editor_t printer_t (mach_port (recv)))))"
    )
    vectors, done = set(), threading.Event()

    def ask() -> None:
        while not done.is_set():
            vectors.add(policy.decide(EDITOR, PRINTER, PORT).allowed)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(300):
        policy.set_booleans(day=bool(number % 2))
    done.set()
    for thread in threads:
        thread.join(10)
    assert vectors
    assert vectors <= {PORT.mask("send"), PORT.mask("recv")}


def test_a_permissive_type_is_recorded_and_not_refused() -> None:
    rules = OFFICE.replace("(send ", "(") + "(typepermissive editor_t)"
    with Kernel(policies=[te(rules)]) as kernel:
        right, inbox, _ = office(kernel)
        kernel.audit.drain()
        right.send(b"page")
        (record,) = kernel.audit.batch(kernel.audit.drain())
        assert inbox.receive(timeout=0).body == b"page"
        assert (record.operation, record.reported, record.denied) == ("send", ("send",), ())


def test_a_new_port_has_the_label_of_a_transition() -> None:
    rules = OFFICE + "(typetransition printer_t printer_t mach_port spool_t)"
    with Kernel(policies=[te(rules)]) as kernel:
        printer = kernel.create_task("printer", label=f"te/{PRINTER}")
        assert printer.allocate_port().label == f"te/{SPOOL}"
        assert kernel.create_task("editor", label=f"te/{EDITOR}").allocate_port().label == (
            f"te/{EDITOR}"
        )


def test_a_child_has_the_label_of_a_transition() -> None:
    rules = (
        "(allow editor_t every (mach_task (create)))"
        "(typetransition editor_t editor_t mach_task printer_t)"
    )
    with Kernel(policies=[te(rules)]) as kernel:
        editor = kernel.create_task("editor", label=f"te/{EDITOR}")
        assert kernel.create_task("child", parent=editor).label == f"te/{PRINTER}"


def test_methods_are_refused_by_name() -> None:
    rules = OFFICE + METHODS.replace(" cancel status)))", ")))")
    with Kernel(policies=[te(rules)]) as kernel:
        right, inbox, _ = office(kernel)
        printing = Interface("printing", 1200, ["print_page", "cancel", "status"])
        serve(kernel, inbox, printing)
        client = printing.client(right)
        client.print_page(b"1")
        assert printing.routine(inbox.receive(timeout=0)) == "print_page"
        with pytest.raises(AccessDenied):
            client.cancel()


def serve(kernel: Kernel, inbox: Any, interface: Interface) -> None:
    """Have a port serve an interface though no rule lets its task: the kernel is permissive."""
    kernel.policies.permissive = True
    inbox.serve(interface)
    kernel.policies.permissive = False


def test_two_modules_of_one_database_share_it() -> None:
    db = te(NIGHT).database
    one, other = (TypeEnforcement.from_database(db) for _ in range(2))
    one.set_booleans(night_work=True)
    assert one.decide(EDITOR, PRINTER, PORT).allowed == PORT.mask("send")
    assert other.decide(EDITOR, PRINTER, PORT).allowed == 0


# ---- a policy that comes later ----

ORDERED = """
    (mls true)(sensitivity s0)(sensitivityorder (s0))
    (category c0)(category c1)(category c2)(category c3)(category c9)(category red)(category blue)
    (categoryorder ({order}))(sensitivitycategory s0 (all))
    (user u)(role r)(userrole u r)(userlevel u (s0))(userrange u ((s0) (s0 (all))))
    (type t)(roletype r t)(allow t t (mach_port (send)))
    (mlsconstrain (mach_port (send)) (dom h1 h2))
"""


def test_another_order_of_categories_gives_no_label_another_meaning(tmp_path: Path) -> None:
    path = tmp_path / "levels.cil"
    path.write_text(ORDERED.format(order="c0 c1 c2 c3 c9 red blue"))
    policy = TypeEnforcement.from_file(path)
    counted, listed, c9 = (rf"te/u:r:t:s0:{c}" for c in (r"c0.c3", r"c9.blue", "c9"))
    with Kernel(policies=[policy]) as kernel:
        high = kernel.create_task("high", label=counted)
        colours = kernel.create_task("colours", label=listed)
        assert colours.label == r"te/u:r:t:s0:c9\,red\,blue"
        low = kernel.create_task("low", label=c9)
        assert not kernel.access(high, low, "mach_port", "send")
        assert kernel.access(colours, low, "mach_port", "send")
        path.write_text(ORDERED.format(order="c0 c9 c1 c2 c3 blue red"))
        policy.reload()
        assert not kernel.access(high, low, "mach_port", "send"), "c0.c3 would hold c9 now"
        renamed = ORDERED.replace("(category c0)", "(category z)(categoryalias c0)")
        renamed += "(categoryaliasactual c0 z)"
        path.write_text(renamed.format(order="z c9 c1 c2 c3 blue red"))
        policy.reload()
        assert not kernel.access(high, low, "mach_port", "send"), "c0 is another's alias now"
        assert not kernel.access(high, high, "mach_port", "send"), "nobody knows what it means"
        assert kernel.access(colours, low, "mach_port", "send")


def test_reloading_a_policy_is_told_to_its_kernels(tmp_path: Path) -> None:
    path = tmp_path / "policy.cil"
    head = "(type a_t)(roletype system_r a_t)(userrole system_u system_r)"
    path.write_text(head + "(allow a_t a_t (mach_port (make_send hold_send send copy_send)))")
    policy = TypeEnforcement.from_file(path)
    with Kernel(policies=[policy]) as kernel:
        task = kernel.create_task("task", label="te/system_u:system_r:a_t")
        right = task.allocate_port().make_send(task)
        right.send(b"", timeout=0)
        path.write_text(head)
        policy.reload()
        with pytest.raises(AccessDenied):
            right.send(b"", timeout=0)
