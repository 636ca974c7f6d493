# SPDX-License-Identifier: BSD-2-Clause
"""pympi.policy.author.certificate: whatever is changed, the checker says what is wrong."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import random
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pympi import Kernel, audit
from pympi.cli import main
from pympi.policy.author import certificate as checker
from pympi.policy.author.certificate import CertificateError, check
from pympi.policy.author.learn import Learned, learn
from pympi.policy.te import TypeEnforcement
from pympi.trace import read_trace, write_sedarwin

DEMO = Path(str(resources.files("pympi") / "data" / "demo.trace"))


@cache
def learned(*generalise: str) -> Learned:
    return learn([DEMO], generalise=generalise)


def texts(one: Learned) -> tuple[bytes, bytes]:
    return one.text.encode(), one.certificate.encode()


def signed(policy: str, certificate: str) -> tuple[bytes, bytes]:
    """Both, with the digest of the policy in the certificate put right."""
    claims = json.loads(certificate)
    claims["policy"] = hashlib.sha256(policy.encode()).hexdigest()
    return policy.encode(), json.dumps(claims).encode()


# --- what holds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "generalise", [(), ("families",), ("sources", "targets"), ("families", "sources", "targets")]
)
def test_what_was_learned_holds(generalise: tuple[str, ...]) -> None:
    one = learned(*generalise)
    assert check(*texts(one), [DEMO]) == len(one.grants)


@pytest.mark.real_data
def test_the_recorded_boot_is_certified(shared_data: Path) -> None:
    path = shared_data / "ipctrace" / "darwin-boot.trace"
    one = learn([path], generalise=["families", "sources"])
    assert check(*texts(one), [path]) == len(one.grants)


def test_with_neverallows(tmp_path: Path) -> None:
    never = tmp_path / "never.cil"
    never.write_text(
        "(type bad.one)(typeattribute all_bad)(typeattributeset all_bad (bad.one))"
        "(neverallow all_bad self (mach_port (send)))"
    )
    one = learn([DEMO], neverallow=never)
    TypeEnforcement.from_text(one.text)
    assert check(*texts(one), [DEMO]) == len(one.grants)


SYSTEM = """
(user u) (role r) (userrole u r) (block a (type t) (block b (type t))) (type plain)
(roletype r a.t) (roletype r a.b.t) (roletype r plain)
(allow a.t plain (mach_port (send copy_send hold_send)))
(allow a.b.t plain (mach_port (send copy_send hold_send)))
(allow plain plain (mach_port (make_send use_recv)))
(allow plain a.t (mach_port (recv))) (allow plain a.b.t (mach_port (recv)))
"""


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    with Kernel(policies=[TypeEnforcement.from_text(SYSTEM)]) as kernel:
        inbox = kernel.create_task("server", label="te/u:r:plain").allocate_port()
        kernel.audit.everything()
        kernel.audit.attach(audit.File(tmp_path / "run.audit"))
        for type_ in ("a.t", "a.b.t"):
            client = kernel.create_task("client", label=f"te/u:r:{type_}")
            inbox.make_send(client).send(b"hello")
            inbox.receive()
    return tmp_path / "run.audit"


def test_audit_files_and_types_in_blocks(recorded: Path) -> None:
    one = learn([recorded, DEMO])
    TypeEnforcement.from_text(one.text)
    assert check(*texts(one), [recorded, DEMO]) == len(one.grants)
    with pytest.raises(CertificateError):
        check(*texts(one), [DEMO, recorded])


# --- the checker stands alone ---------------------------------------------------------------------


def test_the_checker_is_small_and_shares_nothing_with_the_learner() -> None:
    source = inspect.getsource(checker)
    assert source.count("\n") < 200
    imports = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom)]
    own = {node.module for node in imports if node.level == 1}
    assert own == {"closure"}
    assert not any("policy" in (node.module or "") for node in imports)


# --- what does not hold ---------------------------------------------------------------------------


def refused(policy: bytes, certificate: bytes, *recordings: Path) -> str:
    with pytest.raises(CertificateError) as caught:
        check(policy, certificate, list(recordings or (DEMO,)))
    return str(caught.value)


@given(st.data())
def test_any_byte_of_the_policy(data: st.DataObject) -> None:
    policy, certificate = texts(learned("families"))
    at = data.draw(st.integers(0, len(policy) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != policy[at]))
    how = data.draw(st.sampled_from(["change", "insert", "delete"]))
    rest = policy[at + (how != "insert") :]
    edited = policy[:at] + (b"" if how == "delete" else bytes([byte])) + rest
    message = refused(edited, certificate)
    assert message.startswith(("policy", "certificate: policy"))


@given(st.data())
def test_any_byte_of_the_certificate(data: st.DataObject) -> None:
    policy, certificate = texts(learned("families"))
    at = data.draw(st.integers(0, len(certificate) - 1))
    byte = data.draw(st.integers(0, 255))
    edited = certificate[:at] + bytes([byte]) + certificate[at + 1 :]
    assume(edited != certificate)
    assert refused(policy, edited).startswith("certificate: ")


Edit = Callable[[dict[str, Any], random.Random], object]


def row(key: str) -> Callable[[dict[str, Any], random.Random], list[Any]]:
    return lambda claims, rng: rng.choice(claims[key])


EDITS: dict[str, Edit] = {
    "a count": lambda claims, rng: row("recorded")(claims, rng).__setitem__(4, 10**6),
    "a count that is no integer": lambda claims, rng: (
        lambda one: one.__setitem__(4, float(one[4]))
    )(row("recorded")(claims, rng)),
    "a name": lambda claims, rng: row("closure")(claims, rng).__setitem__(0, "task-nobody"),
    "a closure row as generalised": lambda claims, rng: claims["generalised"].append(
        claims["closure"].pop(rng.randrange(100))
    ),
    "a generalised row as closure": lambda claims, rng: claims["closure"].append(
        claims["generalised"].pop(rng.randrange(100))
    ),
    "a row less": lambda claims, rng: claims["recorded"].pop(rng.randrange(100)),
    "a row twice": lambda claims, rng: claims["closure"].append(claims["closure"][-1]),
    "another order": lambda claims, rng: claims["closure"].reverse(),
    "a key less": lambda claims, rng: claims.pop(rng.choice(sorted(claims))),
    "a key more": lambda claims, rng: claims.update(note="fine"),
    "a promise": lambda claims, rng: claims["neverallows"].append("(neverallow a b (c (d)))"),
    "a digest": lambda claims, rng: claims["recordings"][0].update(sha256="0" * 64),
    "losses": lambda claims, rng: claims["recordings"][0].update(lost=False),
    "a recording more": lambda claims, rng: claims["recordings"].append({}),
    "the form": lambda claims, rng: claims.update(format="pympi policy certificate 2"),
    "a list for a text": lambda claims, rng: claims.update(format=[claims["format"]]),
}


def as_written(claims: dict[str, Any]) -> str:
    """Return claims in the form of a certificate: a row of a list in a line."""
    rows = {key: [value] if isinstance(value, str) else value for key, value in claims.items()}
    texts = {key: ",\n  ".join(map(json.dumps, value)) for key, value in rows.items()}
    lists = {key: f"[\n  {texts[key]}\n ]" if value else "[]" for key, value in rows.items()}
    said = texts | {key: text for key, text in lists.items() if isinstance(claims[key], list)}
    return "{\n" + ",\n".join(f' "{key}": {text}' for key, text in said.items()) + "\n}\n"


def test_the_form_of_a_certificate() -> None:
    one = learned("families")
    assert as_written(json.loads(one.certificate)) == one.certificate


@pytest.mark.parametrize("what", EDITS)
def test_a_false_claim(what: str, rng: random.Random) -> None:
    one = learned("families")
    claims = json.loads(one.certificate)
    EDITS[what](claims, rng)
    message = refused(one.text.encode(), as_written(claims).encode())
    assert message.startswith("certificate: ")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"{", b"{ "), (b"\n", b"\r\n"), (b"]\n}", b"] }"), (b", ", b","),
        (b"task-boot", b"task\\u002dboot"),
    ],
)  # fmt: skip
def test_true_claims_in_another_form(old: bytes, new: bytes) -> None:
    policy, certificate = texts(learned("families"))
    edited = certificate.replace(old, new, 1)
    assert json.loads(edited) == json.loads(certificate)
    assert "not as learn writes" in refused(policy, edited)


@pytest.mark.parametrize("text", [b"[]", b"", b"null", b"\xff", b'{"format": 1, "format": 2}'])
def test_a_certificate_that_is_none(text: bytes) -> None:
    assert refused(learned().text.encode(), text).startswith("certificate: expected")


def test_a_key_that_is_there_twice() -> None:
    policy, certificate = texts(learned())
    twice = certificate.replace(b"{\n", b'{\n "format": "pympi policy certificate 1",\n', 1)
    assert "rows twice" in refused(policy, twice)


def rules(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.startswith("(allow ")]


def test_a_permission_more_is_found_though_the_digest_fits(rng: random.Random) -> None:
    one = learned()
    rule = rng.choice([r for r in rules(one.text) if "mach_port (" in r])
    edited = one.text.replace(rule, rule.replace(")))", " specify)))"))
    message = refused(*signed(edited, one.certificate))
    assert "generalised" in message
    assert "specify" in message


def test_a_permission_less_is_found_though_the_digest_fits(rng: random.Random) -> None:
    one = learned()
    rule = rng.choice(rules(one.text))
    grant = rule.replace("(", " ").replace(")", " ").split()
    less = " ".join(grant[4:-1])
    edited = rule.replace(" ".join(grant[4:]), less) + "\n" if less else ""
    message = refused(*signed(one.text.replace(rule + "\n", edited), one.certificate))
    assert "is needed, and not allowed" in message
    assert repr((*grant[1:4], grant[-1])) in message


TRANSITION = "(typetransition task-boot-first task-boot-first mach_port port-boot-first)"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(type task-boot-first)", "(type task-boot-fir5t)"),
        ("(type task-boot-first)\n", ""),
        ("(roletype system_r task-boot-first)\n", ""),
        (f"{TRANSITION}\n", ""),
        (TRANSITION, TRANSITION.replace("port-boot-first", "task-boot-first")),
        (TRANSITION, TRANSITION.replace("mach_port", "mach_task")),
        (TRANSITION, f"{TRANSITION}\n{TRANSITION.replace('first mach', 'names mach')}"),
        ("(role system_r)\n", "(role system_r)\n(role sysadm_r)\n"),
        ("(user system_u)\n", "(user system_u)\n(userrole system_u sysadm_r)\n"),
        ("(user system_u)\n", "(user system_u)\n(class mi_x (y))\n"),
        ("(allow ", "(auditallow "),
        ("(allow ", "(allow  "),
        ("(allow ", " (allow "),
        ("(mach_port (", "(mach_port ( "),
        ("(mach_port (", "(mach_port (not ("),
        ("(user system_u)\n", "(user system_u)\n(typepermissive task-boot-first)\n"),
        ("(user system_u)\n", "(user system_u)\n(user system_u)\n"),
        ("(user system_u)\n", '(user system_u)\n(booleanif b (true (allow a b (c (d)))))\n'),
        ("(user system_u)\n", "(user system_u)\n(allow a b (mach_port (send)))\n"),
        ("(user system_u)\n", "(user system_u)(handleunknown allow)\n"),
        ("(user system_u)\n", "(user system_u)\r(handleunknown allow)\n"),
        ("(user system_u)\n", "(user system_u)\n(\n"),
    ],
)  # fmt: skip
def test_a_policy_in_another_form(old: str, new: str) -> None:
    one = learned()
    assert old in one.text
    edited = one.text.replace(old, new, 1)
    assert refused(*signed(edited, one.certificate)).startswith("policy:")


def test_a_broken_neverallow_is_found() -> None:
    one = learned()
    rule = rules(one.text)[0]
    text = one.text.replace(rule, rule.replace("(allow", "(neverallow") + "\n" + rule, 1)
    message = refused(*signed(text, one.certificate))
    assert "is broken" in message


def test_a_grant_by_an_attribute_is_found() -> None:
    one = learned()
    lines = "(typeattribute x)\n(typeattributeset x (task-boot-first task-boot-names))\n"
    more = lines + "(allow x self (mach_task (terminate)))\n"
    first = rules(one.text)[0]
    message = refused(*signed(one.text.replace(first, more + first, 1), one.certificate))
    assert "generalised" in message
    assert "terminate" in message


def test_another_recording_is_told(tmp_path: Path) -> None:
    records = read_trace(DEMO)
    for changed in (records[:-1], [records[0]._replace(count=1000), *records[1:]]):
        with (tmp_path / "other").open("wb") as file:
            write_sedarwin(file, changed)
        refused(*texts(learned()), tmp_path / "other")
    refused(*texts(learned()), DEMO, DEMO)


# --- the command ----------------------------------------------------------------------------------


def test_certify(tmp_path: Path, capsys) -> None:
    policy, certificate = tmp_path / "p.cil", tmp_path / "c.json"
    policy.write_text(learned().text)
    certificate.write_text(learned().certificate)
    arguments = ["policy", "certify", str(policy), str(certificate), str(DEMO)]
    assert main(arguments) == 0
    assert "every claim holds: 641 permissions" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "holds": True, "permissions": 641, "reason": "",
    }  # fmt: skip
    policy.write_text(learned().text.replace("copy_send", "move_send", 1))
    assert main(arguments) == 1
    assert "is needed, and not allowed" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["holds"]
    assert main([*arguments[:-1], str(policy)]) == 2
    assert "expected" in capsys.readouterr().err
