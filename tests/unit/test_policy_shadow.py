# SPDX-License-Identifier: BSD-2-Clause
"""A policy on trial: asked beside the one in force, counted where it differs, never enforced."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from background import Run
from hypothesis import given, settings
from hypothesis import strategies as st

from pympi import AccessDenied, Kernel, LimitExceeded, MachError, PolicyError, Task
from pympi.enums import ALL, CLASSES
from pympi.policy import Decision, Partition, PolicyModule, Rules, Stub
from pympi.policy.shadow import Difference, Shadow
from pympi.testing import allow_all

PORT = CLASSES["mach_port"]


class Refuses(PolicyModule):
    """Refuses some permissions on ports."""

    name = "p"

    def __init__(self, refused: str = "", **more: Any) -> None:
        self.refused = refused
        self.act: Callable[[], Any] = lambda: None
        for name, value in more.items():
            setattr(self, name, value)

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        answer = self.act()
        if answer is not None:
            return answer  # type: ignore[no-any-return]
        refused = PORT.mask(self.refused) if tclass is PORT else 0
        return Decision(allowed=~refused & ALL)


class Scene:
    """A client with a send right to a server's port."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.server: Task = kernel.create_task("server", label="p/server")
        self.client: Task = kernel.create_task("client", label="p/client")
        self.inbox = self.server.allocate_port(qlimit=100)
        self.right = self.inbox.make_send(self.client)

    def send(self, times: int = 1) -> str:
        try:
            for _ in range(times):
                self.right.send(b"x", timeout=0)
        except AccessDenied:
            return "refused"
        return "sent"

    def try_out(self, module: PolicyModule) -> Shadow:
        return self.kernel.policies.replace("p", module, shadow=True)


def rows(shadow: Shadow) -> dict[str, tuple[tuple[str, ...], tuple[str, ...], int]]:
    return {d.operation: (d.only_present, d.only_shadow, d.count) for d in shadow.differences()}


def test_what_the_shadow_would_refuse_is_done_and_counted() -> None:
    with Kernel(policies=[Refuses()]) as kernel:
        scene = Scene(kernel)
        shadow = scene.try_out(Refuses("send"))
        assert kernel.policies.shadow("p") is shadow
        assert scene.send(7) == "sent"
        assert shadow.differences() == [
            Difference("p/client", "p/server", "mach_port", ("send",), (), 7, "send")
        ]
        assert (shadow.count, shadow.unlisted, shadow.failures) == (7, 0, 0)
        assert kernel.access(scene.client, scene.inbox, "mach_port", "send").allowed
        kernel.verify()


def test_what_the_shadow_would_allow_is_refused_and_counted() -> None:
    with Kernel(policies=[Refuses("send")]) as kernel:
        scene = Scene(kernel)
        shadow = scene.try_out(Refuses())
        assert [scene.send() for _ in range(3)] == ["refused"] * 3
        assert rows(shadow) == {"send": ((), ("send",), 3)}
        assert not kernel.access(scene.client, scene.inbox, "mach_port", "send")


def test_asking_is_not_counted_and_neither_is_agreement() -> None:
    with Kernel(policies=[Refuses("recv")]) as kernel:
        scene = Scene(kernel)
        shadow = scene.try_out(Refuses("recv make_send"))
        assert kernel.access(scene.server, scene.inbox, "mach_port", "make_send")
        assert scene.send(3) == "sent"
        with pytest.raises(AccessDenied):
            scene.inbox.receive(timeout=0)
        assert shadow.differences() == []
        scene.inbox.make_send(scene.client)
        assert shadow.count == 1


def test_an_operation_that_is_not_done_is_not_counted() -> None:
    with Kernel(policies=[Refuses()]) as kernel:
        scene = Scene(kernel)
        scene.inbox.qlimit = 1
        shadow = scene.try_out(Refuses("send"))
        assert scene.send() == "sent"
        for _ in range(5):
            with pytest.raises(MachError):
                scene.right.send(b"x", timeout=0)
        assert shadow.count == 1


def test_both_checks_of_a_receive_are_counted_under_their_own_objects() -> None:
    """use_recv is asked about the port, recv about the sender: one record otherwise."""
    with Kernel(policies=[Refuses()]) as kernel:
        scene = Scene(kernel)
        shadow = scene.try_out(Refuses("recv"))
        kernel.audit.everything()
        scene.send(2)
        scene.inbox.receive(timeout=0)
        scene.inbox.receive(timeout=0)
        assert shadow.differences() == [
            Difference("p/server", "p/client", "mach_port", ("recv",), (), 2, "receive")
        ]


@pytest.mark.parametrize("outcome", ["none", "denied", "all"])
@pytest.mark.parametrize("present", ["", "send"])
def test_counts_do_not_depend_on_what_is_audited(outcome: str, present: str) -> None:
    with Kernel(policies=[Refuses(present)], audit_records=4) as kernel:
        scene = Scene(kernel)
        kernel.audit.select(outcome)
        kernel.audit.drain()
        shadow = scene.try_out(Refuses("" if present else "send"))
        for _ in range(50):
            scene.send()
        assert shadow.count == 50
        lost_or_kept = kernel.stats()["audit_records"]
        assert (lost_or_kept > 0) == (outcome != "none" or not present)


def test_counts_do_not_depend_on_the_cache() -> None:
    """Decisions are forgotten and asked again; no operation is counted twice for it."""
    with Kernel(policies=[Refuses()], avc_entries=4) as kernel:
        scene = Scene(kernel)
        shadow = scene.try_out(Refuses("send"))
        for number in range(20):
            scene.send()
            kernel.access(f"p/{number}", f"p/{number}", "mach_port", "send")
            if number % 5 == 0:
                kernel.policies.reload()
        assert shadow.count == 20


@pytest.mark.parametrize("form", ["sender", "send_many_times", "call"])
def test_fast_forms_are_counted_too(form: str) -> None:
    with Kernel(policies=[Refuses()]) as kernel:
        scene = Scene(kernel)
        scene.send()  # hints are warm
        shadow = scene.try_out(Refuses("send"))
        if form == "sender":
            post = scene.right.sender()
            for _ in range(10):
                post(b"x")
        elif form == "send_many_times":
            scene.send(10)
        else:
            echo = scene.server.create_handler(lambda request: request.reply(b"")).make_send
            right = echo(scene.client)
            for _ in range(5):
                right.call(b"")  # request and answer
        assert sum(d.count for d in shadow.differences() if "send" in d.only_present) == 10


def test_each_permission_of_a_message_is_told_apart() -> None:
    with Kernel(policies=[Refuses("carry_memory")]) as kernel:
        scene = Scene(kernel)
        shadow = scene.try_out(Refuses("send carry_rights"))
        scene.right.send(b"", timeout=0)
        scene.right.send(b"", rights=[scene.right.copy_send()], timeout=0)
        with pytest.raises(AccessDenied):
            scene.right.send(b"", memory=[b"x"], timeout=0)
        assert {(d.only_present, d.only_shadow): d.count for d in shadow.differences()} == {
            (("send",), ()): 1,
            (("send", "carry_rights"), ()): 1,
            (("send",), ("carry_memory",)): 1,
        }  # fmt: skip


# ---- commit, drop, and other ends ----


def test_commit_puts_it_in_force() -> None:
    with Kernel(policies=[Refuses()]) as kernel:
        scene = Scene(kernel)
        trial = Refuses("send")
        shadow = scene.try_out(trial)
        scene.send(2)
        epoch = kernel.policies.epoch
        shadow.commit()
        assert kernel.policies.epoch > epoch
        assert kernel.policies["p"] is trial
        assert scene.send() == "refused"
        assert scene.client.label == "p/client"
        assert (shadow.active, shadow.count) == (False, 2)
        with pytest.raises(KeyError, match="has no shadow"):
            kernel.policies.shadow("p")


def test_drop_forgets_it() -> None:
    present = Refuses()
    with Kernel(policies=[present]) as kernel:
        scene = Scene(kernel)
        shadow = scene.try_out(Refuses("send"))
        scene.send(2)
        shadow.drop()
        assert scene.send(2) == "sent"
        assert kernel.policies["p"] is present
        assert shadow.count == 2
        kernel.audit.drain()
        scene.send()
        assert len(kernel.audit.drain()) == 0, "nothing is reported any more"
        for again in (shadow.commit, shadow.drop):
            with pytest.raises(PolicyError, match="has ended"):
                again()


@pytest.mark.parametrize("end", ["unload", "replace", "another", "close"])
def test_a_shadow_ends_with_what_it_is_a_shadow_of(end: str) -> None:
    kernel = Kernel(policies=[Refuses()])
    with kernel:
        scene = Scene(kernel)
        shadow = scene.try_out(Refuses("send"))
        scene.send(3)
        if end == "unload":
            kernel.policies.unload("p")
        elif end == "replace":
            kernel.policies.replace("p", Refuses())
        elif end == "another":
            other = scene.try_out(Refuses("recv"))
            assert kernel.policies.shadow("p") is other
        if end != "close":
            scene.send(3)
            kernel.verify()
    assert not shadow.active
    assert [d.count for d in shadow.differences()] == [3]
    with pytest.raises(PolicyError):
        shadow.commit()


def test_shadows_of_several_modules_are_counted_apart() -> None:
    with Kernel(policies=[Refuses(), Partition()]) as kernel:
        scene = Scene(kernel)
        one = scene.try_out(Refuses("send"))
        two = kernel.policies.replace("partition", Narrow(), shadow=True)
        scene.send(4)
        assert (one.count, two.count) == (4, 4)
        one.drop()
        scene.send(3)
        assert (one.count, two.count) == (4, 7)
        assert two.differences()[0].only_present == ("send",)


class Narrow(Partition):
    """A partition nobody sends in."""

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        return Decision(allowed=ALL & ~PORT.mask("send") if tclass is PORT else ALL)


def test_a_module_without_a_say_may_have_a_shadow_with_one() -> None:
    class Silent(PolicyModule):
        name = "p"

    with Kernel(policies=[Silent()]) as kernel:
        scene = Scene(kernel)
        shadow = scene.try_out(Refuses("send"))
        assert scene.send(2) == "sent"
        assert shadow.count == 2


def test_names_have_to_fit() -> None:
    with Kernel(policies=[Refuses()]) as kernel:
        with pytest.raises(PolicyError, match="cannot replace"):
            kernel.policies.replace("p", Stub(), shadow=True)
        with pytest.raises(KeyError):
            kernel.policies.replace("stub", Stub(), shadow=True)
        with pytest.raises(KeyError):
            kernel.policies.shadow("stub")


def test_a_shadow_that_changes_is_asked_again() -> None:
    with Kernel(policies=[Refuses()]) as kernel:
        scene = Scene(kernel)
        trial = Refuses()
        shadow = scene.try_out(trial)
        scene.send(2)
        trial.refused = "send"
        trial.changed()
        scene.send(3)
        trial.refused = ""
        trial.changed()
        scene.send(4)
        assert rows(shadow) == {"send": (("send",), (), 3)}


def test_what_was_counted_before_a_change_stays_what_it_was() -> None:
    present, trial = Refuses(), Refuses("send")
    with Kernel(policies=[present]) as kernel:
        scene = Scene(kernel)
        shadow = scene.try_out(trial)
        scene.send(2)
        present.refused, trial.refused = "send", ""
        present.changed()
        for _ in range(3):
            scene.send()
        found = {(d.only_present, d.only_shadow): d.count for d in shadow.differences()}
        assert found == {(("send",), ()): 2, ((), ("send",)): 3}


# ---- labels ----


class Numbers(Refuses):
    """Takes numbers alone, and says no where it is 0."""

    def parse(self, text: str) -> int:
        return int(text)

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        return Decision(allowed=0 if source == 0 else ALL)


def test_it_reads_the_values_of_the_module_in_force() -> None:
    with Kernel(policies=[Refuses()]) as kernel:
        shadow = kernel.policies.replace("p", Numbers(), shadow=True)
        for label in ("p/0", "p/1", "p/word"):
            task = kernel.create_task("task", label=label)
            port = task.allocate_port()
            port.make_send(task).close()
        refused = {d.source for d in shadow.differences()}
        assert refused == {"p/0", "p/word"}, "what it cannot read counts as refusing everything"
        assert shadow.failures == 0
        assert kernel.create_task("free", label="p/any text").label == "p/any text"
        shadow.commit()
        with pytest.raises(ValueError, match="p/word"):
            kernel.create_task("task", label="p/word")


def test_labels_of_listed_differences_stay_known() -> None:
    with Kernel(policies=[Refuses()]) as kernel:
        before = kernel.stats()["sids"]
        shadow = kernel.policies.replace("p", Refuses("make_send"), shadow=True)
        for number in range(30):
            with kernel.create_task(f"t{number}", label=f"p/{number}") as task:
                task.allocate_port().make_send(task)
        for _ in range(3):
            kernel.audit.drain()
        for number in range(200):
            kernel.create_task("x", label=f"p/other{number}").terminate()
        assert {d.source for d in shadow.differences()} == {f"p/{n}" for n in range(30)}
        shadow.drop()
        assert kernel.stats()["sids"] <= before + 1, "and are let go at the end"
        kernel.verify()


def test_the_list_is_bounded_and_says_so() -> None:
    with Kernel(policies=[Refuses()]) as kernel:
        shadow = kernel.policies.replace("p", Refuses("make_send"), shadow=True)
        for number in range(1200):
            with kernel.create_task("task", label=f"p/{number}") as task:
                task.allocate_port().make_send(task)
        assert len(shadow.differences()) == 1024
        assert shadow.count + shadow.unlisted == 1200
        kernel.verify()


# ---- a shadow that misbehaves ----


def fail(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


@pytest.mark.parametrize("error", [ValueError("no"), OSError("disk"), SystemExit(3)], ids=repr)
def test_a_shadow_that_raises_is_counted_and_enforces_nothing(error: BaseException) -> None:
    with Kernel(policies=[Refuses()]) as kernel:
        scene = Scene(kernel)
        trial = Refuses(act=fail(error))
        shadow = scene.try_out(trial)
        assert scene.send(3) == "sent"
        assert shadow.failures >= 3
        assert kernel.policies.failures == {}
        assert shadow.count == 3, "as if it refused: that is what it would do in force"
        kernel.verify()


@pytest.mark.parametrize("answer", ["allow", 5, True, Decision(allowed=-1)], ids=repr)
def test_a_shadow_that_answers_nonsense_is_counted(answer: Any) -> None:
    with Kernel(policies=[Refuses()]) as kernel:
        scene = Scene(kernel)
        shadow = scene.try_out(Refuses(act=lambda: answer))
        assert scene.send() == "sent"
        assert shadow.failures == 1


def test_a_ctrl_c_in_a_shadow_is_not_lost() -> None:
    with Kernel(policies=[Refuses()]) as kernel:
        scene = Scene(kernel)
        trial = Refuses(act=fail(KeyboardInterrupt()))
        shadow = scene.try_out(trial)
        with pytest.raises(KeyboardInterrupt):
            scene.send()
        trial.act = lambda: None
        assert shadow.failures == 1


def test_a_shadow_that_drops_or_commits_itself_while_it_is_asked() -> None:
    for how, then in (("drop", "sent"), ("commit", "refused")):
        with Kernel(policies=[Refuses()]) as kernel:
            scene = Scene(kernel)
            trial = Refuses("send")
            shadow = scene.try_out(trial)

            def act(trial: Refuses = trial, shadow: Shadow = shadow, how: str = how) -> None:
                trial.act = lambda: None
                getattr(shadow, how)()

            trial.act = act
            assert scene.send() == then
            kernel.verify()


def test_no_memory_to_count_in_leaves_everything_as_it_was() -> None:
    from pympi._ffi import lib

    with Kernel(policies=[Refuses()]) as kernel:
        scene = Scene(kernel)
        lib.pm_kernel_fault(kernel.pointer, 1, 0)
        with pytest.raises(LimitExceeded):
            scene.try_out(Refuses("send"))
        assert scene.send() == "sent"
        with pytest.raises(KeyError):
            kernel.policies.shadow("p")
        shadow = scene.try_out(Refuses("send"))
        scene.send()
        assert shadow.count == 1


def test_threads_send_while_shadows_come_and_go(rng: random.Random) -> None:
    """All that is counted was sent, and whatever is in force decides."""
    with Kernel(policies=[Refuses()]) as kernel:
        scenes = [Scene(kernel) for _ in range(3)]
        stop: list[int] = []
        outcomes: Counter[str] = Counter()

        def use(scene: Scene) -> None:
            while not stop:
                outcomes[scene.send()] += 1
                scene.inbox.receive(timeout=0)

        runs = [Run(lambda scene=scene: use(scene)) for scene in scenes]
        counted = 0
        for _ in range(60):
            shadow = kernel.policies.replace("p", Refuses("send"), shadow=True)
            for _ in range(rng.randrange(50)):
                kernel.stats()
            shadow.drop()
            counted += shadow.count + shadow.unlisted
        stop.append(1)
        for run in runs:
            run.result()
        assert outcomes["refused"] == 0
        assert counted <= outcomes["sent"]
        kernel.verify()


MASKS = st.integers(0, (1 << 22) - 1)


@settings(max_examples=40)
@given(present=MASKS, trial=MASKS, other=MASKS, asked=st.lists(MASKS, max_size=5))
def test_a_shadow_changes_no_verdict(present: int, trial: int, other: int, asked: Any) -> None:
    def module(name: str, allowed: int) -> PolicyModule:
        made = Refuses(act=lambda: Decision(allowed=allowed))
        made.name = name
        return made

    with Kernel(policies=[module("p", present), module("q", other)]) as kernel:
        before = [kernel.access("-", "-", "mach_port", mask) for mask in asked]
        kernel.policies.replace("p", module("p", trial), shadow=True)
        after = [kernel.access("-", "-", "mach_port", mask) for mask in asked]
        assert [(a.allowed, a.denied, a.vector) for a in after] == [
            (b.allowed, b.denied, b.vector) for b in before
        ]
        for answer, mask in zip(after, asked, strict=True):
            assert answer.reported == bool(mask & present & other & (present ^ trial))
        kernel.policies.shadow("p").commit()
        for mask in asked:
            assert bool(kernel.access("-", "-", "mach_port", mask)) == (
                mask & trial & other == mask
            )


# ---- labels, and slots ----


def test_a_slot_never_shows_old_contents() -> None:
    """Unloaded values stay gone through shadows and commits of a later module of the name."""
    with Kernel(policies=[Partition(), allow_all()]) as kernel:
        task = kernel.create_task("task", label="partition/old,rules/a")
        kernel.policies.unload("partition")
        kernel.policies.load(Partition())
        shadow = kernel.policies.replace("partition", Partition(), shadow=True)
        assert task.label == "rules/a"
        new = kernel.create_task("new", label="partition/new,rules/a")
        assert kernel.access(new, task, "mach_port", "send"), "it is in no partition"
        shadow.commit()
        assert task.label == "rules/a"
        assert new.label == "partition/new,rules/a"
        assert kernel.access(new, task, "mach_port", "send")
        assert not kernel.access(new, "partition/old", "mach_port", "send")


def test_a_rule_file_on_trial() -> None:
    old = "allow * * mach_port { * };"
    new = "allow * server mach_port { send hold_send }; allow server * mach_port { * };"
    with Kernel(policies=[Rules.from_text(old)]) as kernel:
        server = kernel.create_task("server", label="rules/server")
        client = kernel.create_task("client", label="rules/client")
        inbox = server.allocate_port()
        shadow = kernel.policies.replace("rules", Rules.from_text(new), shadow=True)
        right = inbox.make_send(client)
        right.send(b"hello")
        assert [(d.source, d.only_present) for d in shadow.differences()] == [
            ("rules/client", ("copy_send",))
        ]
