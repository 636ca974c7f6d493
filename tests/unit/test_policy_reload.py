# SPDX-License-Identifier: BSD-2-Clause
"""A policy that changes: when the call returns, nothing completes on what was decided before."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from background import LONG, Run, output, settle

from pympi import AccessDenied, Kernel, MachError, PolicyError
from pympi._ffi import lib
from pympi.enums import ALL, CLASSES
from pympi.policy import (
    Budget,
    Decision,
    Partition,
    PolicyModule,
    Rules,
    Stub,
    TypeEnforcement,
    engine,
)
from pympi.policy.engine import Policies

pytestmark = pytest.mark.timeout(60, method="thread")
PORT = CLASSES["mach_port"]


class Switch(PolicyModule):
    """Refuses some permissions on ports, and answers from the cache as other modules do."""

    name = "switch"

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.before: Callable[[], object] = lambda: None
        self.after: Callable[[], object] = lambda: None

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        self.before()
        allowed = ~PORT.mask(self.refused) & ALL if tclass is PORT else ALL
        self.after()
        return Decision(allowed=allowed)

    def turn(self, refused: str) -> None:
        self.refused = refused
        self.changed()


def pair(kernel: Kernel) -> tuple[Any, Any]:
    inbox = kernel.create_task("server").allocate_port(qlimit=1)
    return inbox, inbox.make_send(kernel.create_task("client"))


# ---- changed() ----


def test_a_module_that_changed_is_asked_again() -> None:
    switch = Switch()
    with Kernel(policies=[switch]) as kernel:
        inbox, right = pair(kernel)
        right.send(b"")
        inbox.receive()
        switch.refused = "send"
        right.send(b"")  # the answer is remembered: nobody was told
        inbox.receive()
        epoch = kernel.policies.epoch
        switch.changed()
        assert kernel.policies.epoch == epoch + 1
        with pytest.raises(AccessDenied):
            right.send(b"")


def test_every_kernel_with_the_module_is_told_and_no_other() -> None:
    switch = Switch()
    switch.changed()  # in force nowhere
    with Kernel(policies=[switch]) as one, Kernel(policies=[Stub(), switch]) as two, Kernel() as no:
        kernels = (one, two, no)
        before = [kernel.policies.epoch for kernel in kernels]
        switch.changed()
        moved = [kernel.policies.epoch - e for kernel, e in zip(kernels, before, strict=True)]
        assert moved == [1, 1, 0]
        one.policies.unload("switch")
        before = [kernel.policies.epoch for kernel in kernels]
        switch.changed()
        moved = [kernel.policies.epoch - e for kernel, e in zip(kernels, before, strict=True)]
        assert moved == [0, 1, 0]
        two.close()
        switch.changed()  # closed meanwhile
        assert no.policies.epoch == before[2]


def test_modules_that_are_equal_or_cannot_be_hashed_are_told_apart() -> None:
    class Equal(Switch):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    one, two = Equal(), Equal()
    with Kernel(policies=[one]) as kernel:
        epoch = kernel.policies.epoch
        two.changed()
        assert kernel.policies.epoch == epoch
        one.changed()
        assert kernel.policies.epoch == epoch + 1


def test_a_module_keeps_no_kernel_alive() -> None:
    switch = Switch()
    kernel = Kernel(policies=[switch])
    policies = weakref.ref(kernel.policies)
    kernel.close()
    del kernel
    gc.collect()
    assert policies() is None
    switch.changed()


def test_a_module_changes_while_it_is_asked() -> None:
    switch = Switch()

    def once() -> None:
        switch.after = lambda: None
        switch.turn("send")

    with Kernel(policies=[switch]) as kernel:
        _, right = pair(kernel)
        switch.changed()
        switch.after = once
        with pytest.raises(AccessDenied):
            right.send(b"")
        assert kernel.stats()["messages_queued"] == 0


def test_a_decider_in_the_middle_is_asked_again() -> None:
    """It looked at the old policy, and answers when the new one is in force."""
    switch = Switch()
    asked, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        switch.after = lambda: None
        asked.set()
        assert go_on.wait(LONG)

    with Kernel(policies=[switch]) as kernel:
        _, right = pair(kernel)
        switch.changed()
        switch.after = wait
        run = Run(lambda: right.send(b"", timeout=0))
        assert asked.wait(LONG)
        switch.turn("send")
        assert kernel.stats()["messages_queued"] == 0
        go_on.set()
        assert isinstance(run.error(), AccessDenied)
        assert kernel.stats()["messages_queued"] == 0


def test_a_decider_that_is_interrupted_leaves_nothing_behind() -> None:
    switch = Switch()

    def interrupt() -> None:
        switch.after = lambda: None
        switch.turn("send")
        raise KeyboardInterrupt

    with Kernel(policies=[switch]) as kernel:
        _, right = pair(kernel)
        switch.changed()
        switch.after = interrupt
        with pytest.raises(KeyboardInterrupt):
            right.send(b"", timeout=0)
        with pytest.raises(AccessDenied):
            right.send(b"", timeout=0)
        switch.turn("")
        right.send(b"", timeout=0)
        assert kernel.stats()["messages_queued"] == 1
        kernel.verify()


def test_a_sender_that_waits_is_asked_when_it_goes_on() -> None:
    switch = Switch()
    with Kernel(policies=[switch]) as kernel:
        inbox, right = pair(kernel)
        right.send(b"first")
        run = Run(lambda: right.send(b"second"))
        settle(run)
        switch.turn("send")
        assert inbox.receive(timeout=0).body == b"first"
        assert isinstance(run.error(), AccessDenied)
        assert kernel.stats()["messages_queued"] == 0


def test_a_receiver_that_waits_is_asked_when_a_message_comes() -> None:
    switch = Switch()
    with Kernel(policies=[switch]) as kernel:
        inbox, right = pair(kernel)
        run = Run(inbox.receive)
        settle(run)
        switch.turn("recv")
        right.send(b"secret")
        assert isinstance(run.error(), AccessDenied)


def test_threads_see_no_old_answer_after_a_change() -> None:
    """What completes between two changes was decided by the policy between them.

    The refusing spans are marked: nothing may be sent that began in one and ended in the same.
    """
    switch = Switch()
    refusing = 0
    violations: list[int] = []
    stop = threading.Event()
    with Kernel(policies=[switch]) as kernel:

        def use() -> None:
            inbox, right = pair(kernel)
            while not stop.is_set():
                began = refusing
                try:
                    right.send(b"", timeout=0)
                except AccessDenied:
                    continue
                if began % 2 and refusing == began:
                    violations.append(began)
                inbox.receive(timeout=0)

        runs = [Run(use) for _ in range(3)]
        for _ in range(60):
            switch.turn("send")
            refusing += 1
            for _ in range(20):
                kernel.stats()
            refusing += 1
            switch.turn("")
        stop.set()
        for run in runs:
            run.result()
        assert violations == []
        kernel.verify()


# ---- reload() ----


class FromFile(Switch):
    """Reads what it refuses from a place that can be unreadable."""

    name = "fromfile"

    def __init__(self, name: str = "fromfile") -> None:
        super().__init__()
        self.name = name
        self.source: str | Exception = ""

    def reload(self) -> None:
        if isinstance(self.source, Exception):
            raise self.source
        self.refused = self.source


def test_reload_reads_anew() -> None:
    module = FromFile()
    with Kernel(policies=[module]) as kernel, Kernel(policies=[module]) as other:
        _, right = pair(kernel)
        _, elsewhere = pair(other)
        module.source = "send"
        kernel.policies.reload("fromfile")
        for refused in (right, elsewhere):
            with pytest.raises(AccessDenied):
                refused.send(b"")


def test_a_reload_that_fails_leaves_the_old_policy_in_force() -> None:
    good, bad = FromFile("a"), FromFile("b")
    with Kernel(policies=[good, bad]) as kernel:
        _, right = pair(kernel)
        good.source, bad.source = "send", OSError("gone")
        with pytest.raises(OSError, match="gone"):
            kernel.policies.reload("b")
        right.send(b"")
        with pytest.raises(OSError, match="gone"):
            kernel.policies.reload()
        with pytest.raises(AccessDenied):  # a was reloaded before b failed
            right.send(b"")


def test_reload_moves_the_epoch_once_and_names_what_is_missing() -> None:
    with Kernel(policies=[Stub(), Partition()]) as kernel:
        epoch = kernel.policies.epoch
        kernel.policies.reload("stub")
        assert kernel.policies.epoch > epoch
        with pytest.raises(KeyError, match="no policy module 'none'"):
            kernel.policies.reload("none")


# ---- other texts ----

CIL = """
(type a_t) (role r) (roletype r a_t) (user u) (userrole u r) (boolean sends false)
(booleanif sends (true (allow a_t self (mach_port (send)))))
"""
LABEL = "te/u:r:a_t"


def test_a_module_of_another_text_keeps_all_else(tmp_path: Path) -> None:
    file = tmp_path / "p.cil"
    file.write_text(CIL)
    module = TypeEnforcement.from_file(file, budget=Budget(bytes=1000))
    module.set_booleans(sends=True)
    module.permissive = True
    more = CIL + "(allow a_t self (mach_port (use_recv)))"
    with Kernel(policies=[module]) as kernel, Kernel(policies=[module]) as other:
        kernel.policies.rewrite([("more.cil", more)])
        made = kernel.policies["te"]
        assert made is not module
        assert other.policies["te"] is module
        assert (made.permissive, made.text_limit, made.booleans["sends"]) == (True, 1000, True)
        module.permissive = made.permissive = False
        assert kernel.access(LABEL, LABEL, "mach_port", "send use_recv")
        assert other.access(LABEL, LABEL, "mach_port", "send use_recv").denied == ("use_recv",)
        kernel.policies.reload()  # the files that it was made from
        assert kernel.access(LABEL, LABEL, "mach_port", "send use_recv").denied == ("use_recv",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("(type a_t", "more.cil:1:1: "), ("(allow a_t b_t (mach_port (send)))", "more.cil:1:8: "),
     (CIL * 9, "Budget.bytes")],
)  # fmt: skip
def test_a_text_that_is_none_changes_nothing(text: str, complaint: str) -> None:
    module = TypeEnforcement.from_text(CIL, budget=Budget(bytes=1000))
    with Kernel(policies=[module]) as kernel:
        epoch = kernel.policies.epoch
        for shadow in (False, True):
            with pytest.raises(PolicyError, match=complaint):
                kernel.policies.rewrite([("more.cil", text)], "te", shadow=shadow)
        assert (kernel.policies["te"], kernel.policies.epoch) == (module, epoch)


def test_which_module_is_of_text() -> None:
    with Kernel(policies=[Rules(), TypeEnforcement.from_text(CIL), Partition()]) as kernel:
        rewrite = partial(kernel.policies.rewrite, [("x", "")])
        with pytest.raises(PolicyError, match=r"which policy module\? Made of text: rules, te"):
            rewrite()
        with pytest.raises(PolicyError, match="'partition' is not made of text"):
            rewrite("partition")
        with pytest.raises(KeyError, match="'mls'; loaded: "):
            rewrite("mls")
        with pytest.raises(PolicyError, match="one text, not of 2"):
            kernel.policies.rewrite([("x", ""), ("y", "")], "rules")
        kernel.policies.unload("te")
        rewrite()


def test_what_is_replaced_meanwhile_is_not_replaced_again() -> None:
    class Slow(Rules):
        def rewritten(self, texts: Any) -> Rules:
            kernel.policies.replace("rules", newer)
            return super().rewritten(texts)

    newer = Rules()
    with Kernel(policies=[Slow()]) as kernel:
        with pytest.raises(PolicyError, match="'rules' was replaced meanwhile"):
            kernel.policies.rewrite([("x", "")])
        assert kernel.policies["rules"] is newer


def test_closing_while_a_module_changes(rng: random.Random) -> None:
    """A kernel that is being closed by one thread is not touched by another any more."""
    switch = Switch()
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            switch.changed()

    run = Run(change)
    for _ in range(100):
        kernel = Kernel(policies=[switch])
        for _ in range(rng.randrange(5)):
            kernel.stats()
        kernel.close()
    stop.set()
    run.result()


class Window:
    """The core's functions, and something that happens just before the policy's flags are set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
        self.happens = happens
        monkeypatch.setattr(engine, "lib", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(lib, name)

    def pm_kernel_set_policy(self, pointer: Any, flags: int) -> int:
        happens, self.happens = self.happens, lambda: None
        happens()
        return int(lib.pm_kernel_set_policy(pointer, flags))


def test_no_operation_is_half_of_one_policy_and_half_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each policy lets one right be used and another be given; only a mix of them does both."""

    def allows(*allowed: str) -> Rules:
        rest = "allow * * mach_port { use_recv make_send hold_send recv carry_rights };"
        return Rules.from_text(rest + "".join(f"allow client {line};" for line in allowed))

    used, given = "one mach_port { send copy_send }", "two mach_port { copy_send }"
    with Kernel(policies=[allows(used)]) as kernel:
        client = kernel.create_task("client", "rules/client")
        rights = [
            kernel.create_task(name, f"rules/{name}").allocate_port().make_send(client)
            for name in ("one", "two")
        ]
        send = partial(rights[0].send, b"", rights=[rights[1].copy_send()], timeout=0)
        kernel.policies.reload()
        assert kernel.access(client, rights[0], "mach_port", "send copy_send"), "and remembered"
        runs = []

        def begin() -> None:
            runs.append(Run(send))
            settle(*runs)

        Window(monkeypatch, begin)
        kernel.policies.replace("rules", allows(given))
        with pytest.raises(AccessDenied):
            runs[0].result()
        kernel.verify()


def test_what_is_done_until_a_shadow_ends_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    with Kernel(policies=[Switch()]) as kernel:
        inbox, right = pair(kernel)
        inbox.qlimit = 10
        shadow = kernel.policies.replace("switch", Switch("send"), shadow=True)
        right.send(b"")
        Window(monkeypatch, lambda: right.send(b""))
        shadow.drop()
        right.send(b"")
        assert shadow.count == 2


def test_threads_send_while_policies_are_loaded_and_unloaded(rng: random.Random) -> None:
    """Whatever is in force when a change returns, nothing that it refuses is done after it."""
    policies = [Rules.from_text("allow * * mach_port { * };"), Rules()]
    with Kernel(policies=[policies[0]]) as kernel:
        pairs = [pair(kernel) for _ in range(2)]
        stop = threading.Event()

        def use(inbox: Any, right: Any) -> None:
            while not stop.is_set():
                with suppress(MachError):
                    right.send(b"", timeout=0)
                with suppress(MachError):
                    inbox.receive(timeout=0)

        runs = [Run(partial(use, *each)) for each in pairs]
        change = kernel.policies
        for _ in range(150):
            rng.choice([
                lambda: change.replace("rules", rng.choice(policies)),
                lambda: change.replace("rules", policies[1], shadow=True).commit(),
                lambda: change.replace("rules", policies[0], shadow=True).drop(),
                lambda: (change.unload("rules"), change.load(policies[1])),
                lambda: change.set_permissive("rules", rng.random() < 0.5),
                lambda: setattr(policies[1], "permissive", rng.random() < 0.5),
                lambda: setattr(change, "permissive", rng.random() < 0.5),
                change.reload,
            ])()  # fmt: skip
            enforced = change["rules"] is policies[1] and not change.is_permissive("rules")
            before = kernel.stats()["sent"]
            for _ in range(rng.randrange(30)):
                kernel.stats()
            assert not enforced or kernel.stats()["sent"] == before
        stop.set()
        for run in runs:
            run.result()
        assert change.failures == {}
        kernel.verify()


# ---- permissive, module by module; who refused ----


def test_one_module_is_permissive_and_another_is_not() -> None:
    with Kernel(policies=[Switch("send"), Partition()]) as kernel:
        inbox, right = pair(kernel)
        with pytest.raises(AccessDenied):
            right.send(b"")
        kernel.policies.set_permissive("switch")
        assert kernel.policies.is_permissive("switch")
        assert not kernel.policies.is_permissive("partition")
        kernel.audit.drain()
        right.send(b"")
        assert {"send"} == {
            permission for record in kernel.audit.batch(kernel.audit.drain())
            for permission in record.reported
        }  # fmt: skip
        inbox.receive()
        assert not kernel.access("partition/a", "partition/b", "mach_port", "send")
        kernel.policies.set_permissive("switch", False)
        with pytest.raises(AccessDenied):
            right.send(b"")


def test_permissive_belongs_to_the_name_and_goes_with_it() -> None:
    with Kernel(policies=[Switch("send")]) as kernel:
        kernel.policies.set_permissive("switch", True)
        kernel.policies.replace("switch", Switch("recv"))
        assert kernel.policies.is_permissive("switch")
        kernel.policies.unload("switch")
        kernel.policies.load(Switch("recv"))
        assert not kernel.policies.is_permissive("switch")
        with pytest.raises(KeyError):
            kernel.policies.set_permissive("other", True)


def test_a_setting_of_one_kernel_is_none_of_another() -> None:
    switch = Switch("send")
    with Kernel(policies=[switch]) as one, Kernel(policies=[switch]) as two:
        one.policies.set_permissive("switch", True)
        assert one.access("-", "-", "mach_port", "send")
        assert not two.access("-", "-", "mach_port", "send")


def test_a_permissive_module_that_fails_refuses() -> None:
    class Broken(PolicyModule):
        name = "broken"

        def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
            raise OSError("disk")

    with Kernel(policies=[Broken()]) as kernel:
        kernel.policies.set_permissive("broken", True)
        answer = kernel.access("-", "-", "mach_port", "send")
        assert not answer
        assert answer.refused_by == ("broken",)


def test_who_refused_is_told() -> None:
    with Kernel(policies=[Switch("send recv"), Partition(), Stub()]) as kernel:
        one = kernel.create_task("one", label="partition/1")
        two = kernel.create_task("two", label="partition/2")
        port = two.allocate_port()
        assert kernel.access(one, port, "mach_port", "send").refused_by == ("partition", "switch")
        assert kernel.access(one, port, "mach_port", "make_send").refused_by == ("partition",)
        assert kernel.access(two, port, "mach_port", "send").refused_by == ("switch",)
        assert kernel.access(two, port, "mach_port", "make_send").refused_by == ()
        text = kernel.explain(one, port, "mach_port", "send")
        assert "refused by partition, switch" in text.splitlines()[0]
        kernel.policies.set_permissive("switch", True)
        assert kernel.access(one, port, "mach_port", "send").refused_by == ("partition",)
        assert "switch (permissive): refuses" in kernel.explain(one, port, "mach_port", "send")


def test_who_refused_a_record_is_told() -> None:
    with Kernel(policies=[Switch("send"), Partition()]) as kernel:
        _, right = pair(kernel)
        kernel.audit.drain()
        with pytest.raises(MachError):
            right.send(b"", timeout=0)
        records = kernel.audit.drain()
        (record,) = kernel.audit.batch(records)
        (raw,) = records
        policies = kernel.policies
        by_text = policies.refused_by(record.subject, record.object, record.tclass, record.denied)
        fields = ("effective_sid", "object_sid", "tclass", "denied")
        by_number = policies.refused_by(*(int(raw[field]) for field in fields))
        assert by_text == by_number == ("switch",)


def test_a_decider_may_ask_who_refused() -> None:
    """It asks what it is being asked: bounded, and denied."""

    class Circular(PolicyModule):
        name = "circular"
        asked = 0

        def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
            Circular.asked += 1
            kernel.access("-", "-", "mach_port", "send")
            return Decision()

    with Kernel(policies=[Circular()]) as kernel:
        kernel.access("-", "-", "mach_port", "send")
        assert Circular.asked < 100


def test_every_policies_object_is_an_enforcer() -> None:
    with Kernel(policies=[Stub()]) as kernel:
        assert isinstance(kernel.policies, Policies)
        assert kernel.policies.has(kernel.policies["stub"])
        assert not kernel.policies.has(Stub())


# ---- fork ----


def test_in_a_child_of_fork_there_is_nothing_to_tell() -> None:
    """Whatever lock another thread held at the time, the child hangs on none and can close."""
    lines = output(
        """
        import os, threading, time
        from pympi import ForkedError, Kernel
        from pympi.policy import Stub

        stub = Stub()
        kernel = Kernel(policies=[stub])
        shadow = kernel.policies.replace("stub", Stub(), shadow=True)
        held, done = threading.Event(), threading.Event()

        def hold():
            with kernel.policies._lock:
                held.set()
                done.wait()

        threading.Thread(target=hold, daemon=True).start()
        held.wait()
        child = os.fork()
        if not child:
            stub.changed()
            stub.permissive = True
            try:
                kernel.policies.reload()
                kernel.policies.replace("stub", Stub())
            except ForkedError:
                assert kernel.policies["stub"] is stub and shadow.active
                assert not kernel.policies.is_permissive("stub")
                kernel.close()
                assert not shadow.active
                Kernel(policies=[Stub()]).close()
                os._exit(7)
            os._exit(1)
        done.set()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        kernel.close()
        """
    )
    assert lines == ["7"]
