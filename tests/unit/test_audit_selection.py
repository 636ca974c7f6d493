# SPDX-License-Identifier: BSD-2-Clause
"""What is recorded: by class, label, task, routine and operation; presets; rules side by side."""

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from background import output

from pympi import AccessDenied, Kernel, SendRight, SimulatedClock, Task
from pympi._ffi import ffi, lib
from pympi.audit import AuditRecord, Rule
from pympi.errors import LimitExceeded, check
from pympi.policy import Partition, Stub
from pympi.port import ReceiveRight
from pympi.testing import allow_all

LABELS = "rules/red", "rules/blue"


def taken(kernel: Kernel) -> list[AuditRecord]:
    return list(kernel.audit.batch(kernel.audit.drain()))


def operations(kernel: Kernel) -> list[str]:
    return [record.operation for record in taken(kernel)]


class Pair:
    """A server and a client of labels of their own, and a way from one to the other."""

    def __init__(self, kernel: Kernel, client: str, server: str, names: str = "pair") -> None:
        self.server = kernel.create_task(f"{names} server", label=server)
        self.client = kernel.create_task(f"{names} client", label=client)
        self.port = self.server.allocate_port()
        self.right = self.port.make_send(self.client)

    def talk(self) -> None:
        self.right.send(b"word", msgh_id=7)
        self.port.receive()


@pytest.fixture
def silent() -> Iterator[Kernel]:
    """A kernel that allows everything and records nothing."""
    with Kernel(policies=[allow_all(), Stub()]) as kernel:
        kernel.audit.select("none")
        yield kernel
        kernel.verify()


# ---- what lists nothing ----


LISTS = "classes", "permissions", "labels", "tasks", "routines", "operations"


@pytest.mark.parametrize(
    ("name", "empty"),
    [*((name, empty) for name in LISTS for empty in ([], (), iter(()))), ("permissions", " ")],
)
def test_an_empty_list_is_not_everything(silent: Kernel, name: str, empty: object) -> None:
    """A program that computed a list of nobody must not get the records of everybody."""
    classes = {"classes": "mach_port"} if name == "permissions" else {}
    before = str(silent.audit.selection)
    with pytest.raises(
        ValueError, match=f"^{name}=.* is about nothing: name some, or leave it away"
    ):
        silent.audit.select("granted", **{**classes, name: empty})  # type: ignore[arg-type]
    assert str(silent.audit.selection) == before


def test_a_list_is_read_once_for_all_classes(silent: Kernel) -> None:
    silent.audit.select("granted", ["mach_port", "mach_task"], iter(["relabelfrom"]))
    said = silent.audit.selection.outcomes
    assert said["mach_port"] == said["mach_task"] == (("relabelfrom",), ())


# ---- labels ----


@pytest.mark.parametrize(
    ("pattern", "who"),
    [
        ("rules/red", "rc rs"),
        ("rules/*", "rc rs bb"),
        ("rules/b?ue", "rs bb"),
        ("stub/a", "rc"),
        ("rules/red,stub/a", "rc"),
        ("*", "rc rs bb"),
        ("red", ""),
        ("rules/[rb]*", ""),
    ],
)
def test_labels(silent: Kernel, pattern: str, who: str) -> None:
    pairs = {
        "rc": Pair(silent, "rules/red,stub/a", "rules/green"),
        "rs": Pair(silent, "rules/blue", "rules/red"),
        "bb": Pair(silent, "rules/blue", "rules/blue"),
    }
    silent.audit.select("granted", "mach_port", "send", labels=pattern)
    for name, pair in pairs.items():
        for _ in range(3):  # the first is decided, the others by a hint
            pair.talk()
        assert operations(silent) == ["send"] * 3 * (name in who.split())


def test_labels_that_come_later(silent: Kernel) -> None:
    silent.audit.select("all", labels=["rules/late*"])
    Pair(silent, "rules/blue", "rules/later").talk()
    assert {record.object for record in taken(silent)} == {"rules/later"}


def test_a_relabel_takes_effect_at_once(silent: Kernel) -> None:
    silent.audit.select("granted", "mach_port", "send", labels="rules/red")
    pair = Pair(silent, "rules/blue", "rules/blue")
    pair.talk()
    pair.client.relabel("rules/red")
    pair.talk()
    pair.client.relabel("rules/blue")
    pair.talk()
    assert [record.subject for record in taken(silent)] == ["rules/red"]


def test_the_sender_of_a_message_has_a_label_as_well(silent: Kernel) -> None:
    silent.audit.select("granted", "mach_port", ["recv", "use_recv"], labels="rules/red")
    Pair(silent, "rules/red", "rules/blue").talk()
    (record,) = taken(silent)
    assert (record.operation, record.asked, record.object) == ("receive", ("recv",), "rules/red")


# ---- tasks ----


def test_tasks_by_name_number_and_themselves(silent: Kernel) -> None:
    early = Pair(silent, *LABELS, names="early")
    other = Pair(silent, *LABELS, names="other")
    silent.audit.select(
        "granted", "mach_port", "send", tasks=[early.client, other.server.id, "late*"]
    )
    late = Pair(silent, *LABELS, names="late")
    for pair in (early, other, late):
        for _ in range(3):
            pair.talk()
    assert [record.task_name for record in taken(silent)] == ["early client"] * 3 + [
        "late client"
    ] * 3


def test_who_receives_is_told_apart_though_labels_are_the_same(silent: Kernel) -> None:
    meant, other = (Pair(silent, *LABELS, names=name) for name in ("meant", "other"))
    silent.audit.select("all", "mach_port", ["recv", "use_recv"], tasks="meant server")
    for pair in (other, meant, other, meant):
        pair.talk()
    assert [record.task_name for record in taken(silent)] == ["meant server"] * 2


def test_a_name_is_not_a_number(silent: Kernel) -> None:
    numbered = silent.create_task("7")
    silent.audit.select("all", tasks="7")
    numbered.allocate_port().make_send(numbered).send(b"")
    assert {record.task for record in taken(silent)} == {numbered.id}


# ---- routines and operations ----


def serve(port: ReceiveRight, interface: int) -> None:
    task = port.task
    check(lib.pm_port_set_interface(task._pointer, task._pointer, port.name, interface))


def test_routines(silent: Kernel) -> None:
    silent.audit.select("all", routines=["printing.sub*", "mi_later.stop"])
    pair = Pair(silent, *LABELS)
    routines = ["submit", "cancel", "substitute"]
    serve(pair.port, silent.create_interface("printing", 400, routines))
    for msgh_id in (400, 401, 402):
        pair.right.send(b"", msgh_id=msgh_id)
        pair.port.receive()
    assert [record.asked for record in taken(silent)] == [("submit",), ("substitute",)]
    serve(pair.port, silent.create_interface("later", 500, ["start", "stop"]))
    pair.right.send(b"", msgh_id=500)
    pair.right.send(b"", msgh_id=501)
    assert [record.asked for record in taken(silent)] == [("stop",)]


def test_routines_of_an_interface_in_several_classes(silent: Kernel) -> None:
    number = silent.create_interface("long", 100, [f"r{i}" for i in range(40)])
    silent.audit.select("all", routines="long.r39")
    pair = Pair(silent, *LABELS)
    serve(pair.port, number)
    pair.right.send(b"", msgh_id=138)
    pair.port.receive()
    pair.right.send(b"", msgh_id=139)
    assert [(r.tclass, r.asked) for r in taken(silent)] == [("mi_long_2", ("r39",))]


def test_operations(silent: Kernel) -> None:
    silent.audit.select("all", operations="give")
    pair = Pair(silent, *LABELS)
    extra = pair.client.allocate_port()
    pair.right.send(b"", rights=[extra.make_send()])
    pair.port.receive()
    assert set(operations(silent)) == {"give"}


# ---- side by side ----


def test_what_any_wants_is_recorded_and_once(silent: Kernel) -> None:
    red, blue, none = (Pair(silent, f"rules/{c}", f"rules/{c}") for c in ("red", "blue", "none"))
    first = silent.audit.select("granted", "mach_port", "send", labels="rules/red")
    second = silent.audit.select("granted", "mach_port", "send", labels=["rules/red", "rules/blue"])
    assert first is not None
    assert second is not None
    assert 0 < first < second
    assert silent.audit.select("granted", "kernel") is None
    for pair in (red, blue, none):
        pair.talk()
    assert [r.subject for r in taken(silent)] == ["rules/red", "rules/blue"]
    silent.audit.deselect(second)
    for pair in (red, blue, none):
        pair.talk()
    assert [r.subject for r in taken(silent)] == ["rules/red"]
    silent.audit.select("granted", "mach_port", "send")  # whole classes, rules beside
    none.talk()
    assert [r.subject for r in taken(silent)] == ["rules/none"]
    assert len(silent.audit.selection.rules) == 1
    silent.audit.select("none")  # all of all: in the place of everything
    red.talk()
    assert not taken(silent)
    assert silent.audit.selection.rules == ()


def test_denials_of_some_alone() -> None:
    with Kernel(policies=[Partition()]) as kernel:
        kernel.audit.select("none")
        kernel.audit.select("denied", labels="partition/b")
        for label in ("partition/a", "partition/b"):
            other = kernel.create_task("other", label="partition/c")
            with pytest.raises(AccessDenied):
                kernel.create_task("t", label=label).allocate_port().make_send(other)
        assert {r.object for r in taken(kernel)} == {"partition/b"}


def test_rules_against_an_oracle() -> None:
    """What rules record of random traffic is what a look at all records finds they should."""
    dice = random.Random(5)
    for _ in range(12):
        wanted = [
            (dice.choice([None, "rules/red", "*a*"]), dice.choice([None, "t1*", "t?"]),
             dice.choice([None, "send", "receive"]))
            for _ in range(dice.randrange(1, 4))
        ]  # fmt: skip
        everything = traffic(lambda kernel: kernel.audit.select("all"), dice.getrandbits(32))
        seed = everything[0]

        def choose(kernel: Kernel, rules: list[tuple[str | None, ...]] = wanted) -> None:
            kernel.audit.select("none")
            for labels, tasks, done in rules:
                kernel.audit.select("all", labels=labels, tasks=tasks, operations=done)

        _, some = traffic(choose, seed)
        expected = [r for r in everything[1] if any(is_about(r, *rule) for rule in wanted)]
        # A receive asks two questions, of two labels; where both are recorded they are one record.
        assert acts(some) == acts(expected)


def traffic(choose: Callable[[Kernel], object], seed: int) -> tuple[int, list[AuditRecord]]:
    dice = random.Random(seed)
    with Kernel(policies=[allow_all()], clock=SimulatedClock()) as kernel:
        tasks = [kernel.create_task(f"t{i}", label=dice.choice(LABELS)) for i in range(12)]
        ports = [task.allocate_port(qlimit=8) for task in tasks]
        rights = [[port.make_send(task) for port in ports] for task in tasks]
        choose(kernel)
        for _ in range(150):
            sender, receiver = dice.randrange(12), dice.randrange(12)
            rights[sender][receiver].send(b"x")
            ports[receiver].receive()
        return seed, taken(kernel)


def is_about(record: AuditRecord, label: str | None, tasks: str | None, done: str | None) -> bool:
    red = "rules/red" in (record.subject, record.object, record.peer)
    labels = {None: True, "rules/red": red, "*a*": False}
    name = record.task_name
    named = {None: True, "t1*": name.startswith("t1"), "t?": len(name) == 2}
    return labels[label] and named[tasks] and done in (None, record.operation)


def acts(records: list[AuditRecord]) -> list[tuple[str, int, int, int]]:
    return [(r.operation, r.task, r.port, r.transfer) for r in records]


# ---- presets ----


def test_the_default_is_denials_and_acts_of_servers(kernel: Kernel) -> None:
    before = kernel.audit.selection
    kernel.audit.everything()
    kernel.audit.only_denials()
    assert kernel.audit.selection == before
    assert before.outcomes["service"] == (("all",), ("all",))
    assert before.outcomes["mach_port"] == before.outcomes["*"] == ((), ("all",))


def test_transfers(silent: Kernel) -> None:
    silent.audit.transfers()
    pair = Pair(silent, *LABELS)
    made = [(r.operation, r.asked) for r in taken(silent)]
    assert made == [("give", ("make_send",)), ("take", ("hold_send",))]
    pair.talk()
    assert taken(silent) == []
    extra = pair.client.allocate_port()
    pair.right.send(b"", rights=[extra.make_send()])
    message = pair.port.receive()
    said = [(r.operation, r.transfer) for r in taken(silent)][-2:]
    assert said == [("give", message.transfer), ("take", message.transfer)]
    pair.client.set_special_port(4, pair.right)
    assert operations(silent)[-1] == "task"


def test_a_broken_name_is_recorded_beside_transfers_unless_not_wanted(
    kernel: Kernel, client: Task
) -> None:
    for errors in (True, False):
        kernel.audit.transfers(errors=errors)
        with pytest.raises(LookupError):
            SendRight(client, 0x7703).send(b"")
        assert bool(taken(kernel)) == errors


# ---- in words and as data ----


def test_the_selection_in_words(kernel: Kernel) -> None:
    kernel.audit.select("all", "mach_task")
    kernel.audit.select("granted", "mach_port", ["send", "recv"], labels="te/a*", tasks=["x\n", 5])
    assert str(kernel.audit.selection).splitlines() == [
        "mach_task, service: granted and denied all",
        "any other class: denied all",
        "rule 1: granted; mach_port send recv; labels te/a*; tasks x\\n 5",
        "denials that a policy keeps quiet: left out",
        "failures for other reasons than access: recorded",
    ]
    (rule,) = kernel.audit.selection.rules
    assert rule == Rule(1, "granted", {"mach_port": ("send", "recv")}, ("te/a*",), ("x\n", 5))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"outcome": "none", "labels": "x"}, "records nothing"),
        ({"labels": ""}, "1 to 4096 bytes"),
        ({"labels": "a\0b"}, "NUL"),
        ({"labels": ["x" * 4000] * 20}, "65536 bytes at most"),
        ({"tasks": 0}, "no task has the number 0"),
        ({"tasks": -1}, "no task has the number -1"),
        ({"tasks": ["x", ""]}, "name of a task"),
        ({"tasks": [1] * 70_000}, "65536 tasks at most"),
        ({"operations": "sned"}, "no operation 'sned'; there are: send"),
        ({"routines": "a.b", "classes": "mach_port"}, "leave classes away"),
        ({"permissions": "send", "labels": "x"}, "belong to a class"),
    ],
)
def test_wrong_rules_are_refused(
    kernel: Kernel, arguments: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        kernel.audit.select(**{"outcome": "all", **arguments})  # type: ignore[arg-type]
    assert kernel.audit.selection.rules == ()


def test_there_are_only_so_many_rules(kernel: Kernel) -> None:
    rules = [kernel.audit.select("all", labels=f"x/{i}") for i in range(31)]
    with pytest.raises(ValueError, match="at most 31 rules"):
        kernel.audit.select("all", labels="y")
    kernel.audit.deselect(rules[3])
    assert kernel.audit.select("all", labels="y") > rules[-1]
    with pytest.raises(ValueError, match=f"no rule {rules[3]}"):
        kernel.audit.deselect(rules[3])


def test_the_core_refuses_what_it_cannot_use(kernel: Kernel) -> None:
    rule = ffi.new("struct pm_audit_rule *")
    text = ffi.new("char[]", b"no end")
    rule.labels, rule.labels_size = text, 3
    for number in (
        lib.pm_audit_rule_add(kernel.pointer, ffi.NULL),
        lib.pm_audit_rule_add(kernel.pointer, rule),
    ):
        assert number == -lib.KERN_INVALID_ARGUMENT
    for code in (
        lib.pm_audit_rule_select(kernel.pointer, 0, 0, 0, 0),
        lib.pm_audit_rule_select(kernel.pointer, 99, 0, 0, 0),
        lib.pm_audit_rule_remove(kernel.pointer, 0),
    ):
        assert code == lib.KERN_INVALID_NAME
    assert lib.pm_audit_rule_select(kernel.pointer, 1, 1 << 20, 0, 0) == lib.KERN_INVALID_ARGUMENT


def test_memory_that_runs_out_leaves_the_selection_as_it_was(kernel: Kernel, client: Task) -> None:
    before = kernel.audit.selection
    for at in range(1, 10):
        lib.pm_kernel_fault(kernel.pointer, at, 0)
        try:
            kernel.audit.select("all", labels="x/y", tasks=["client", 3])
        except LimitExceeded:
            assert kernel.audit.selection == before
        else:
            break
    else:
        pytest.fail("it fails without an end")
    lib.pm_kernel_fault(kernel.pointer, 0, 0)
    assert at > 2
    assert client.name == "client"


def test_a_child_of_fork_changes_nothing() -> None:
    assert output("""
        import os
        from pympi import ForkedError, Kernel
        kernel = Kernel()
        kernel.audit.select("all", labels="a")
        kernel.audit.sample(10)
        child = os.fork()
        if child == 0:
            failed = 0
            for call in (
                lambda: kernel.audit.select("all", labels="b"), lambda: kernel.audit.deselect(1),
                lambda: kernel.audit.sample(10), kernel.audit.strata, kernel.audit.keep_all,
            ):
                try:
                    call()
                except ForkedError:
                    failed += 1
            os._exit(failed)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(kernel.audit.selection.rules))
        kernel.close()
    """) == ["5 1"]


def test_a_rule_of_what_is_recorded_keeps_no_batch_waiting(silent: Kernel) -> None:
    silent.audit.select("all", labels="rules/red")
    pair = Pair(silent, *LABELS)
    pair.talk()
    records = silent.audit.drain()
    assert np.all(np.diff(records["sequence"].astype(np.int64)) == 1)


def test_a_port_that_is_meant_by_label(silent: Kernel) -> None:
    owner = silent.create_task("owner", label="rules/blue")
    plain = owner.allocate_port()
    secret = owner.allocate_port(label="rules/secret")
    rights = [port.make_send(owner) for port in (plain, secret)]
    silent.audit.select("granted", "mach_port", "send", labels="rules/secret")
    for right in rights:
        right.send(b"")
    assert [r.object for r in taken(silent)] == ["rules/secret"]
