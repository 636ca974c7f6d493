# SPDX-License-Identifier: BSD-2-Clause
"""pympi.policy.author.query: every rule that is about something, and no other."""

from __future__ import annotations

import pytest

from pympi.errors import PolicyError
from pympi.policy.author.query import condition_of, query, rule_text
from pympi.policy.cil import PolicyDatabase, compile_policy
from pympi.policy.cil.policydb import RuleKind

TEXT = """(type a_t) (type b_t) (type c_t) (typealias old_t) (typealiasactual old_t a_t)
(typeattribute ab) (typeattributeset ab (a_t b_t))
(typeattribute bc) (typeattributeset bc (b_t c_t))
(allow a_t b_t (mach_port (send recv)))
(allow ab c_t (mach_port (recv)))
(allow ab self (mach_port (use_recv)))
(allow bc a_t (mach_task (observe)))
(dontaudit a_t c_t (mach_port (send)))
(neverallow c_t ab (mach_port (make_send)))
(boolean open false)
(booleanif open (true (allow c_t b_t (mach_port (send))))(false (allow c_t a_t (mach_port (send)))))
(typetransition a_t ab mach_port c_t)
(class mi_x (one two ioctl)) (allow a_t c_t (mi_x (one)))
(allowx ab c_t (ioctl mi_x (0)))
"""


@pytest.fixture(scope="module")
def db() -> PolicyDatabase:
    return compile_policy([("q.cil", TEXT)])


def lines(db: PolicyDatabase, **asked: object) -> list[int]:
    return [rule.line for rule in query(db, **asked) if db.files[rule.file] == "q.cil"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, [4, 5, 6, 7, 8, 9, 11, 11, 12, 13, 14]),
        ({"source": "a_t"}, [4, 8, 12, 13]),
        ({"source": "old_t"}, [4, 8, 12, 13]),
        ({"source": "ab"}, [5, 6, 14]),
        ({"source": "a_t", "indirect": True}, [4, 5, 6, 8, 12, 13, 14]),
        ({"source": "c_t", "indirect": True}, [7, 9, 11, 11]),
        ({"source": "ab", "indirect": True}, [4, 5, 6, 7, 8, 12, 13, 14]),
        ({"target": "self"}, [6]),
        ({"target": "c_t"}, [5, 8, 13, 14]),
        ({"target": "a_t", "indirect": True}, [6, 7, 9, 11, 12]),
        ({"target": "c_t", "indirect": True}, [5, 8, 13, 14]),
        ({"tclass": "mach_task"}, [7]),
        ({"permissions": ["send"]}, [4, 8, 11, 11]),
        ({"permissions": ["observe", "use_recv"]}, [6, 7]),
        ({"permissions": ["one"], "kinds": [RuleKind.ALLOW]}, [13]),
        ({"kinds": [RuleKind.TYPETRANSITION, RuleKind.ALLOWX]}, [12, 14]),
        ({"kinds": [RuleKind.NEVERALLOW]}, [9]),
        ({"kinds": [RuleKind.AUDITALLOW]}, []),
        ({"boolean": "open"}, [11, 11]),
        ({"boolean": "open", "target": "b_t"}, [11]),
        ({"source": "a_t", "target": "c_t", "tclass": "mi_x"}, [13]),
    ],
)
def test_rules_found(db: PolicyDatabase, asked: dict[str, object], expected: list[int]) -> None:
    assert lines(db, **asked) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"source": "a"}, "no type or attribute 'a'"),
        ({"source": "self"}, "no type or attribute 'self'"),
        ({"target": "d_t"}, "no type or attribute 'd_t'; did you mean"),
        ({"tclass": "mach_prt"}, "no class 'mach_prt'; did you mean mach_port"),
        ({"permissions": ["sedn"]}, "no permission 'sedn'; did you mean send"),
        ({"permissions": ["send"], "tclass": "mach_task"}, "no permission 'send'"),
        ({"boolean": "opn"}, "no boolean 'opn'; did you mean open"),
    ],
)
def test_unknown_names(db: PolicyDatabase, asked: dict[str, object], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        query(db, **asked)  # type: ignore[arg-type]


def test_text_is_what_was_written(db: PolicyDatabase) -> None:
    texts = {rule_text(db, rule): condition_of(db, rule) for rule in query(db)}
    assert texts["(allow a_t b_t (mach_port (send recv)))"] == ""
    assert texts["(allow c_t b_t (mach_port (send)))"] == "open is true"
    assert texts["(allow c_t a_t (mach_port (send)))"] == "open is false"
    assert texts["(typetransition a_t ab mach_port c_t)"] == ""
    assert texts["(allow ab self (mach_port (use_recv)))"] == ""
    assert texts["(allowx ab c_t (ioctl mi_x ((range 0x0 0x0))))"] == ""
