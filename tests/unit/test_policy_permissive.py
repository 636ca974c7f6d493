# SPDX-License-Identifier: BSD-2-Clause
"""Permissive types, modules and kernels: what they would refuse is done, and told of."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from background import Run, settle

from pympi import AccessDenied, Kernel, KernelClosed, MachError, mach
from pympi.enums import ALL, CLASSES, AuditFlag
from pympi.policy import Decision, Partition, PolicyModule, TypeEnforcement

PORT = CLASSES["mach_port"]


class Guard(PolicyModule):
    """Refuses permissions, some of them without a word, and changes of label by a code."""

    name = "guard"

    def __init__(self, refused: str = "", silent: str = "", code: int = 0, **more: Any) -> None:
        self.refused, self.silent, self.code = refused, silent, code
        self.error: BaseException | None = None
        for name, value in more.items():
            setattr(self, name, value)

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        if tclass is not PORT:
            return Decision()
        refused, silent = PORT.mask(self.refused), PORT.mask(self.silent)
        return Decision(allowed=~(refused | silent) & ALL, auditdeny=~silent & ALL)

    def check_relabel(self, subject: Any, old: Any, new: Any, tclass: Any) -> int:
        if self.error:
            raise self.error
        return self.code


def te(rules: str) -> tuple[PolicyModule, str]:
    text = f"(type a) (roletype r a) (role r) (user u) (userrole u r) (typepermissive a) {rules}"
    return TypeEnforcement.from_text(text), "te/u:r:a"


class Scene:
    """A task with a send right to its own port."""

    def __init__(self, kernel: Kernel, label: str = "guard/a") -> None:
        self.kernel = kernel
        kernel.policies.permissive, before = True, kernel.policies.permissive
        self.task = kernel.create_task("task", label)
        self.inbox = self.task.allocate_port(qlimit=100)
        self.right = self.inbox.make_send(self.task)
        kernel.policies.permissive = before
        kernel.audit.drain()

    def sends(self) -> bool:
        try:
            self.right.send(b"", timeout=0)
        except AccessDenied:
            return False
        return True

    def records(self) -> list[Any]:
        return list(self.kernel.audit.batch(self.kernel.audit.drain()))


def soften_kernel(kernel: Kernel) -> None:
    kernel.policies.permissive = True


def soften_name(kernel: Kernel) -> None:
    kernel.policies.set_permissive("guard")


def soften_module(kernel: Kernel) -> None:
    kernel.policies["guard"].permissive = True


SOFTEN = pytest.mark.parametrize("soften", [soften_kernel, soften_name, soften_module])


# ---- it takes effect at once ----


def test_a_module_that_is_set_permissive_is_so_at_once_in_every_kernel() -> None:
    guard = Guard("send")
    with Kernel(policies=[guard]) as one, Kernel(policies=[guard, Partition()]) as two:
        scenes = Scene(one), Scene(two)
        for permissive in (True, False, True):
            guard.permissive = permissive
            assert [scene.sends() for scene in scenes] == [permissive] * 2
            assert one.policies.is_permissive("guard") == permissive
        epoch = one.policies.epoch
        guard.refused = ""
        assert one.policies.epoch == epoch, "only permissive is announced by itself"


def test_a_class_of_permissive_modules_is_permissive() -> None:
    class Soft(Guard):
        permissive = True

    soft = Soft("send")
    with Kernel(policies=[soft]) as kernel:
        scene = Scene(kernel)
        assert scene.sends()
        soft.permissive = False
        assert not scene.sends()


def test_a_module_that_changes_while_it_is_loaded_is_asked_again() -> None:
    """The kernel has looked at the setting already, and does not have the module yet."""

    class Watched(Guard):
        looked: Callable[[], object] = staticmethod(lambda: None)

        @classmethod
        def answers(cls, method: str) -> bool:
            cls.looked()
            return super().answers(method)

    guard, runs = Watched("send"), []

    def look() -> None:
        Watched.looked = staticmethod(lambda: None)
        runs.append(Run(lambda: setattr(guard, "permissive", True)))
        settle(*runs)

    with Kernel() as kernel:
        Watched.looked = staticmethod(look)
        kernel.policies.load(guard)
        runs[0].result()
        assert kernel.policies.is_permissive("guard")
        assert Scene(kernel).sends()


# ---- relabelling ----


def relabellings(scene: Scene) -> list[Callable[[], object]]:
    return [
        lambda: scene.inbox.relabel("guard/b"),
        lambda: scene.task.allocate_port("guard/c"),
        lambda: scene.kernel.create_task("child", "guard/d", parent=scene.task),
        lambda: scene.task.relabel("guard/e"),
    ]


@SOFTEN
def test_a_permissive_relabelling_is_done_and_recorded(soften: Callable[[Kernel], None]) -> None:
    with Kernel(policies=[Guard(code=mach.KERN_DENIED), Partition()]) as kernel:
        scene = Scene(kernel)
        for relabel in relabellings(scene):
            with pytest.raises(AccessDenied) as caught:
                relabel()
            assert caught.value.code == mach.KERN_DENIED
            (record,) = scene.records()
            assert record.denied == (caught.value.permission,)
            assert record.result == "KERN_DENIED"
        soften(kernel)
        for relabel in relabellings(scene):
            relabel()
            (record,) = scene.records()
            permission = "create" if record.operation == "task" else "relabelto"
            told = record.denied if soften is soften_kernel else record.reported
            flag = AuditFlag.PERMISSIVE if soften is soften_kernel else AuditFlag.REPORTED
            assert (told, record.flags, record.result) == ((permission,), flag, "KERN_SUCCESS")
        assert (scene.inbox.label, scene.task.label) == ("guard/b", "guard/e")
        assert kernel.policies.failures == {}


@pytest.mark.parametrize("soften", [soften_name, soften_module])
def test_a_permissive_module_that_fails_refuses_a_relabelling(
    soften: Callable[[Kernel], None],
) -> None:
    guard = Guard()
    with Kernel(policies=[guard]) as kernel:
        scene = Scene(kernel)
        soften(kernel)
        guard.error = OSError("disk")
        with pytest.raises(AccessDenied):
            scene.inbox.relabel("guard/b")
        assert kernel.policies.failures == {"guard": 1}
        guard.error = None
        scene.inbox.relabel("guard/b")


def test_one_permissive_module_does_not_soften_another() -> None:
    hard = Guard(code=mach.KERN_DENIED)
    hard.name = "hard"
    with Kernel(policies=[Guard(code=mach.KERN_INVALID_ARGUMENT), hard]) as kernel:
        scene = Scene(kernel)
        kernel.policies.set_permissive("guard")
        with pytest.raises(AccessDenied) as caught:
            scene.inbox.relabel("guard/b")
        assert caught.value.code == mach.KERN_DENIED


# ---- what access() says ----


@SOFTEN
def test_access_says_what_is_enforced_and_what_would_be_refused(
    soften: Callable[[Kernel], None],
) -> None:
    with Kernel(policies=[Guard("send copy_send")]) as kernel:
        scene = Scene(kernel)
        sids = scene.task.sid, scene.inbox.sid
        may = kernel.checker("mach_port", "send")
        for enforced in (True, False):
            answer = kernel.access(scene.task, scene.inbox, "mach_port", "send recv")
            assert answer.allowed == bool(answer) == scene.sends() == may(*sids) == (not enforced)
            assert bool(kernel.check_many(*sids, "mach_port", "send")) == (not enforced)
            assert answer.denied == (("send",) if enforced else ())
            assert answer.permissive == (() if enforced else ("send",))
            assert answer.refused_by == (("guard",) if enforced else ())
            assert answer.reported == (not enforced)
            assert bool(answer.vector & PORT.mask("copy_send")) == (not enforced)
            words = kernel.explain(scene.task, scene.inbox, "mach_port", "send").splitlines()[0]
            assert ("refused by guard" in words) == enforced
            assert ("only because of what is permissive" in words) == (not enforced)
            soften(kernel)


def test_access_says_so_of_a_permissive_type_too() -> None:
    policy, label = te("(allow a a (mach_port (send))) (dontaudit a a (mach_port (make_send)))")
    with Kernel(policies=[policy]) as kernel:
        scene = Scene(kernel, label)
        answer = kernel.access(scene.task, scene.inbox, "mach_port", "send recv make_send")
        assert (answer.allowed, answer.permissive) == (True, ("recv", "make_send"))
        assert answer.reported
        quiet = kernel.access(scene.task, scene.inbox, "mach_port", "make_send")
        assert (quiet.allowed, quiet.permissive, quiet.reported) == (True, ("make_send",), False)


@SOFTEN
def test_what_a_shadow_would_refuse_is_not_permissive(soften: Callable[[Kernel], None]) -> None:
    with Kernel(policies=[Guard("send")]) as kernel:
        scene = Scene(kernel)
        kernel.policies.replace("guard", Guard("send recv"), shadow=True)
        soften(kernel)
        answer = kernel.access(scene.task, scene.inbox, "mach_port", "send recv")
        assert (answer.allowed, answer.permissive, answer.reported) == (True, ("send",), True)


# ---- dontaudit ----


@SOFTEN
def test_what_is_not_to_be_recorded_is_not_reported(soften: Callable[[Kernel], None]) -> None:
    with Kernel(policies=[Guard("copy_send", silent="send")]) as kernel:
        scene = Scene(kernel)
        soften(kernel)
        assert scene.sends()
        (record,) = scene.records()
        assert {*record.denied, *record.reported} == {"copy_send"}
        kernel.policies["guard"].refused = ""
        kernel.policies.reload()
        assert scene.sends()
        assert scene.records() == []
        kernel.audit.everything()
        assert scene.sends()
        (record,) = scene.records()
        assert {*record.denied, *record.reported} == {"send"}


def test_what_a_permissive_type_need_not_record_is_not_reported() -> None:
    policy, label = te("(dontaudit a a (mach_port (send)))(allow a a (mach_port (copy_send)))")
    with Kernel(policies=[policy]) as kernel:
        scene = Scene(kernel, label)
        for _ in range(3):  # asked, remembered by the kernel, remembered by the right
            assert scene.sends()
            assert scene.records() == []
        kernel.audit.everything()
        assert scene.sends()
        assert [record.reported for record in scene.records()] == [("send",)]


def test_a_shadow_counts_what_is_not_to_be_recorded() -> None:
    with Kernel(policies=[Guard(silent="send")]) as kernel:
        scene = Scene(kernel)
        kernel.policies.set_permissive("guard")
        shadow = kernel.policies.replace("guard", Guard(), shadow=True)
        assert scene.sends()
        assert [(d.only_shadow, d.count) for d in shadow.differences()] == [(("send",), 1)]


def test_one_that_would_record_it_is_enough() -> None:
    loud = Guard("send")
    loud.name = "loud"
    with Kernel(policies=[Guard(silent="send"), loud]) as kernel:
        scene = Scene(kernel)
        kernel.policies.set_permissive("guard")
        kernel.policies.set_permissive("loud")
        assert scene.sends()
        assert [record.reported for record in scene.records()] == [("send",)]


# ---- a change that fails changes nothing ----


class Sulky(Guard):
    """Cannot be put in force while it sulks."""

    name = "sulky"
    sulks = False

    @property
    def uncached(self) -> bool:  # type: ignore[override]
        if self.sulks:
            raise MemoryError
        return False


CHANGES: dict[str, Callable[[Kernel], object]] = {
    "load": lambda kernel: kernel.policies.load(Partition()),
    "unload": lambda kernel: kernel.policies.unload("guard"),
    "replace": lambda kernel: kernel.policies.replace("guard", Guard("recv")),
    "shadow": lambda kernel: kernel.policies.replace("guard", Guard("recv"), shadow=True),
    "commit": lambda kernel: kernel.policies.shadow("guard").commit(),
    "drop": lambda kernel: kernel.policies.shadow("guard").drop(),
    "name": soften_name,
    "harden": lambda kernel: kernel.policies.set_permissive("sulky", False),
    "kernel": soften_kernel,
}


def state(kernel: Kernel) -> object:
    policies = kernel.policies
    shadow = None
    with suppress(KeyError):
        shadow = policies.shadow("guard")
    modules = {name: (policies[name], policies.is_permissive(name)) for name in policies}
    return modules, policies.permissive, shadow, shadow and shadow.active


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_fails_changes_nothing(change: str) -> None:
    sulky = Sulky()
    with Kernel(policies=[Guard("send"), sulky]) as kernel:
        kernel.policies.set_permissive("sulky")
        kernel.policies.replace("guard", Guard(), shadow=True)
        before, epoch = state(kernel), kernel.policies.epoch
        sulky.sulks = True
        with pytest.raises(MemoryError):
            CHANGES[change](kernel)
        assert (state(kernel), kernel.policies.epoch) == (before, epoch)
        sulky.sulks = False
        kernel.policies.reload()
        assert state(kernel) == before, "nor is it done later"
        CHANGES[change](kernel)
        assert state(kernel) != before
        kernel.verify()


def test_a_load_that_failed_does_not_count_as_one() -> None:
    """Else the values of the label, filed for the first module of the name, would be lost."""
    sulky = Sulky()
    with Kernel(policies=[sulky]) as kernel:
        sulky.sulks = True
        with pytest.raises(MemoryError):
            kernel.policies.load(Guard())
        sulky.sulks = False
        kernel.policies.load(Guard())
        sid = kernel.create_task("task", "guard/a").sid
        assert kernel.policies._filed_text(sid) == "guard/a"


@pytest.mark.parametrize("change", ["load", "unload", "replace", "name", "harden", "kernel"])
def test_a_closed_kernel_keeps_its_settings(change: str) -> None:
    kernel = Kernel(policies=[Guard("send"), Sulky()])
    kernel.policies.set_permissive("sulky")
    kernel.close()
    before = state(kernel)
    with pytest.raises(KernelClosed):
        CHANGES[change](kernel)
    assert state(kernel) == before


def test_label_handles_are_as_permissive_as_their_kernel() -> None:
    for soften, flag in (
        (soften_kernel, AuditFlag.PERMISSIVE),
        (soften_name, AuditFlag.REPORTED),
    ):
        with Kernel(policies=[Guard("get_attributes")]) as kernel:
            scene = Scene(kernel)
            name = mach.mac_label_new(scene.task, "guard/secret")
            with pytest.raises(MachError):
                mach.mach_get_label_text(scene.task, name)
            assert [record.denied for record in scene.records()] == [("get_attributes",)]
            soften(kernel)
            assert mach.mach_get_label_text(scene.task, name) == "guard/secret"
            (record,) = scene.records()
            assert (record.denied or record.reported) == ("get_attributes",)
            assert (record.flags, record.result) == (flag, "KERN_SUCCESS")
