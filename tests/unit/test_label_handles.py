# SPDX-License-Identifier: BSD-2-Clause
"""The ten calls of SEDarwin's `security` subsystem, and the ports they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pympi import AccessDenied, Kernel, MachError, Quota, Task, mach
from pympi.enums import ALL, CLASSES, KOBJECTS
from pympi.labelh import LabelHandles
from pympi.policy import Decision, Partition, PolicyModule, SelfTest, TypeEnforcement

PORT = CLASSES["mach_port"]
LABEL = "p/a,partition/x"


class Refuses(PolicyModule):
    """Refuses what it is told to, by class; labels new things by their maker."""

    name = "p"

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self.only_target: str | None = None

    def refuse(self, tclass: str, permissions: str, target: str | None = None) -> None:
        self.refused = {tclass: permissions}
        self.only_target = target
        self.changed()

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        if self.only_target not in (None, target):
            return Decision()
        return Decision(allowed=~tclass.mask(self.refused.get(tclass.name, 0)) & ALL)

    def label_new_task(self, parent: Any) -> Any:
        return f"child of {parent}" if parent else None


class Scene:
    def __init__(self) -> None:
        self.policy = Refuses()
        self.watch = SelfTest()
        self.kernel = Kernel(policies=[self.policy, Partition(), self.watch])
        self.task: Task = self.kernel.create_task("task", label=LABEL)
        self.other: Task = self.kernel.create_task("other", label="p/o")
        self.port = self.task.allocate_port("p/port,partition/x")

    def text(self, name: int, namespaces: str = "*") -> str:
        return mach.mach_get_label_text(self.task, name, namespaces)


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    with scene.kernel:
        yield scene
        scene.kernel.verify()
    assert scene.watch.violations == []


def code(call: Callable[[], object]) -> str:
    with pytest.raises(MachError) as caught:
        call()
    return caught.value.name


# ---- 4800 to 4804: labels of tasks and ports ----


def test_a_task_has_a_handle_of_its_own_label(scene: Scene) -> None:
    name = mach.mach_get_task_label(scene.task)
    assert scene.text(name) == LABEL
    again = mach.mach_get_task_label(scene.task)
    assert again == name
    assert mach.mach_port_get_refs(scene.task, name, mach.MACH_PORT_RIGHT_SEND) == 2
    held = mach.MACH_PORT_TYPE_SEND | mach.MACH_PORT_TYPE_RECEIVE
    assert mach.mach_port_type(scene.task, name) == held


def test_a_relabelled_task_has_another_handle_and_the_old_one_the_old_label(scene: Scene) -> None:
    old = mach.mach_get_task_label(scene.task)
    scene.task.relabel("p/new")
    new = mach.mach_get_task_label(scene.task)
    assert new != old
    assert (scene.text(old), scene.text(new)) == (LABEL, "p/new")


def test_a_handle_that_was_let_go_is_made_anew(scene: Scene) -> None:
    name = mach.mach_get_task_label(scene.task)
    mach.mach_port_deallocate(scene.task, name)  # the receive right stays
    assert scene.text(mach.mach_get_task_label(scene.task)) == LABEL
    for _ in range(3):
        mach.mach_port_destroy(scene.task, mach.mach_get_task_label(scene.task))
    assert scene.text(mach.mach_get_task_label(scene.task)) == LABEL


def test_text_of_a_task(scene: Scene) -> None:
    assert mach.mach_get_task_label_text(scene.task) == LABEL
    assert mach.mach_get_task_label_text(scene.task, "partition,?te") == "partition/x"
    for names in ("te", "p,te", "", "p,,partition", "p,p", "?", "*,p", "p/", "P", "p" * 513):
        wrong = code(lambda names=names: mach.mach_get_task_label_text(scene.task, names))  # type: ignore[misc]
        assert wrong == "KERN_INVALID_ARGUMENT", names


def test_a_terminated_task(scene: Scene) -> None:
    scene.task.terminate()
    assert code(lambda: mach.mach_get_task_label(scene.task)) == "KERN_INVALID_TASK"
    assert code(lambda: mach.mac_label_new(scene.task, "p/a")) == "KERN_INVALID_TASK"


def test_label_of_a_port(scene: Scene) -> None:
    name = mach.mach_get_label(scene.task, scene.port.name)
    assert scene.text(name) == scene.text(scene.port.name) == "p/port,partition/x"
    scene.port.relabel("p/changed")
    assert scene.text(name) == "p/port,partition/x", "a handle never changes"
    assert scene.text(scene.port.name) == "p/changed"
    assert code(lambda: mach.mach_get_label(scene.task, name)) == "KERN_INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "call",
    [
        mach.mach_get_label,
        mach.mach_get_label_text,
        lambda task, name: mach.mach_set_port_label(task, name, "p/a"),
        lambda task, name: mach.mac_check_name_port_access(task, "p/a", name, "mach_port", "send"),
        lambda task, name: mach.mac_check_port_access(task, name, name, "mach_port", "send"),
        lambda task, name: mach.mac_request_label(task, name, name, "mach_port"),
    ],
)
def test_names_that_denote_no_port(scene: Scene, call: Callable[[Task, int], object]) -> None:
    dying = scene.other.allocate_port()
    dead = dying.make_send(scene.task).name
    dying.close()
    wrong = {
        0x7F0003: "KERN_INVALID_NAME",
        mach.MACH_PORT_NULL: "KERN_INVALID_NAME",
        scene.task.create_port_set().name: "KERN_INVALID_RIGHT",
        dead: "KERN_INVALID_RIGHT",
    }
    assert {name: code(lambda name=name: call(scene.task, name)) for name in wrong} == wrong  # type: ignore[misc]


def test_setting_a_label_changes_the_access_label_alone(scene: Scene) -> None:
    name = mach.mac_label_new(scene.task, "p/stored")
    mach.mach_set_port_label(scene.task, name, "p/access")
    assert scene.task.right(name).label == "p/access"
    assert scene.text(name) == "p/stored"
    for text in ("te/x", "p", "p/a,p/b", "", "p/" + "x" * 511):
        wrong = code(lambda text=text: mach.mach_set_port_label(scene.task, name, text))  # type: ignore[misc]
        assert wrong == "KERN_INVALID_ARGUMENT"
    scene.policy.refuse("mach_port", "relabelto", "forbidden")
    with pytest.raises(AccessDenied) as caught:
        mach.mach_set_port_label(scene.task, name, "p/forbidden")
    assert (caught.value.name, caught.value.permission) == ("KERN_NO_ACCESS", "relabelto")
    assert scene.task.right(name).label == "p/access"


# ---- 4805 to 4807: would it be allowed ----


def test_what_the_policy_says_of_labels_ports_and_handles(scene: Scene) -> None:
    task, port = scene.other, scene.port.make_send(scene.other).name
    one = mach.mac_label_new(task, "partition/1")
    two = mach.mac_label_new(task, "partition/2")
    mach.mach_set_port_label(task, two, "partition/1")  # the stored label is what counts
    asked = ("mach_port", "send")
    mach.mac_check_named_access(task, "partition/1", "p/a,partition/1", *asked)
    mach.mac_check_name_port_access(task, "partition/1", one, *asked)
    mach.mac_check_name_port_access(task, "partition/x", port, *asked)
    mach.mac_check_port_access(task, one, one, *asked)
    refused = [
        lambda: mach.mac_check_named_access(task, "partition/1", "partition/2", *asked),
        lambda: mach.mac_check_name_port_access(task, "partition/1", two, *asked),
        lambda: mach.mac_check_port_access(task, one, two, *asked),
        lambda: mach.mac_check_port_access(task, one, port, *asked),
    ]
    assert {code(call) for call in refused} == {"KERN_NO_ACCESS"}
    scene.kernel.policies.permissive = True
    for call in refused:
        call()


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing", "p/a", "mach_port", "send"), ("p/a", "te/a", "mach_port", "send"),
        ("p/a", "p/a", "file", "send"), ("p/a", "p/a", "mach_port", "read"),
        ("p/a", "p/a", "mach_port", ""), ("p/a", "p/a", "mach_port", " "),
        ("p/" + "x" * 511, "p/a", "mach_port", "send"), ("p/a", "p/a", "x" * 513, "send"),
        ("p/a\0", "p/a", "mach_port", "send"),
    ],
)  # fmt: skip
def test_questions_that_make_no_sense(scene: Scene, arguments: tuple[str, ...]) -> None:
    asked = code(lambda: mach.mac_check_named_access(scene.task, *arguments))
    assert asked == "KERN_INVALID_ARGUMENT"


# ---- 4808 and 4809: new labels ----


def test_a_new_handle_stores_the_canonical_label(scene: Scene) -> None:
    name = mach.mac_label_new(scene.task, "partition/z,p/b")
    assert scene.text(name) == "p/b,partition/z"
    assert mach.mac_label_new(scene.task, "p/b,partition/z") != name
    for text in ("te/x", "p/", "p/b,", "p/" + "x" * 511):
        wrong = code(lambda text=text: mach.mac_label_new(scene.task, text))  # type: ignore[misc]
        assert wrong == "KERN_INVALID_ARGUMENT"


def test_a_label_for_something_new(scene: Scene) -> None:
    maker = mach.mac_label_new(scene.task, "p/maker,partition/m")
    owner = mach.mac_label_new(scene.task, "p/owner,partition/o")
    asked = {
        tclass: scene.text(mach.mac_request_label(scene.task, maker, owner, tclass))
        for tclass in ("mach_task", "mach_port")
    }
    assert asked == {
        "mach_task": "p/child of maker,partition/o",
        "mach_port": "p/owner,partition/o",
    }
    wrong = code(lambda: mach.mac_request_label(scene.task, maker, owner, "file"))
    assert wrong == "KERN_INVALID_ARGUMENT"


CLASS_RULES = """
(allow a_t a_t (mach_port (all)))
(allow a_t p_t (mach_port (all)))
(role r) (user u) (userrole u r) (type a_t) (type b_t) (roletype r a_t) (roletype r b_t)
(type svc_t) (type p_t) (type tsk_t) (type m_t) (roletype r tsk_t)
(class mi_shop (buy)) (classorder (mi_shop))
(typechange a_t b_t service svc_t) (typechange a_t b_t mach_port p_t)
(typechange a_t b_t mach_task tsk_t) (typetransition a_t b_t mi_shop m_t)
"""


@pytest.mark.parametrize(
    ("tclass", "label"),
    [
        ("mach_port", "u:object_r:p_t"),
        ("mach_task", "u:r:tsk_t"),
        ("service", "u:object_r:svc_t"),
        ("kernel", "u:object_r:b_t"),
        ("mi_shop", "u:object_r:m_t"),
    ],
)
def test_a_label_for_each_class_is_by_rules_about_that_class(tclass: str, label: str) -> None:
    policy = TypeEnforcement.from_text(CLASS_RULES)
    with Kernel(policies=[policy]) as kernel:
        kernel.create_interface("shop", 5000, ["buy"])
        task = kernel.create_task("task", label="te/u:r:a_t")
        maker = mach.mac_label_new(task, "te/u:r:a_t")
        owner = mach.mac_label_new(task, "te/u:r:b_t")
        made = mach.mac_request_label(task, maker, owner, tclass)
        assert mach.mach_get_label_text(task, made) == f"te/{label}"
        assert kernel.policies.new_label("te/u:r:a_t", "te/u:r:b_t", tclass) == f"te/{label}"


class Maker(PolicyModule):
    name = "maker"

    def label_new(self, source: Any, target: Any, tclass: Any) -> Any:
        return f"{tclass.name} of {source} for {target}"


class PortMaker(Maker):
    def label_new_port(self, issuer: Any, owner: Any) -> Any:
        return f"own {super().label_new_port(issuer, owner)}"


def test_a_module_labels_all_classes_with_one_method() -> None:
    for module, port in (
        (Maker(), "mach_port of a for a"),
        (PortMaker(), "own mach_port of a for a"),
    ):
        with Kernel(policies=[module]) as kernel:
            task = kernel.create_task("task", label="maker/a")
            assert kernel.label_text(task.allocate_port()) == f"maker/{port}"
            child = kernel.create_task("child", parent=task)
            assert kernel.label_text(child) == "maker/mach_task of a for a"
            assert kernel.policies.new_label(task.sid, task.sid, "mach_port") == f"maker/{port}"
            service = kernel.policies.new_label("maker/a", "maker/b", "service")
            assert service == "maker/service of a for b"


def test_who_labels_ports_alone_is_asked_about_ports_alone(scene: Scene) -> None:
    new_label = scene.kernel.policies.new_label
    assert new_label("p/maker", "p/owner", "mach_task") == "p/child of maker"
    assert new_label("p/maker", "p/owner", "service") == "p/owner"


def test_a_module_that_fails_gives_no_label(scene: Scene) -> None:
    class Broken(PolicyModule):
        name = "broken"

        def label_new_port(self, issuer: Any, owner: Any) -> Any:
            raise OSError("disk")

    handle = mach.mac_label_new(scene.task, "p/a")
    scene.kernel.policies.load(Broken())
    call = lambda: mach.mac_request_label(scene.task, handle, handle, "mach_port")  # noqa: E731
    assert code(call) == "KERN_NO_ACCESS"
    scene.kernel.policies.unload("broken")


# ---- what a handle is ----


def test_a_handle_is_a_kernel_object(scene: Scene) -> None:
    name = mach.mac_label_new(scene.task, "p/a")
    scene.kernel.trace.start()
    right = scene.task.receive_right(name).make_send(scene.other)
    right.send(b"hello?")
    assert scene.kernel.stats()["messages_queued"] == 0, "it has no queue"
    with pytest.raises(MachError):
        right.call(b"hello?", timeout=1)
    with pytest.raises(MachError):
        scene.task.receive(name, timeout=0)
    with pytest.raises(MachError):
        scene.task.receive_right(name).move_receive(scene.other)
    assert {record.kind for record in scene.kernel.trace.records()} >= {32}
    assert KOBJECTS[32] == "labelh"


def test_a_handle_travels_and_means_the_same_elsewhere(scene: Scene) -> None:
    name = mach.mac_label_new(scene.task, "p/far")
    there = scene.task.receive_right(name).make_send(scene.other)
    assert mach.mach_get_label_text(scene.other, there.name) == "p/far"
    mach.mach_port_destroy(scene.task, name)
    wrong = code(lambda: mach.mach_get_label_text(scene.other, there.name))
    assert wrong == "KERN_INVALID_RIGHT"


def test_nobody_can_make_a_port_that_passes_for_a_handle(scene: Scene) -> None:
    fake = scene.task.create_handler(lambda request: None, kind="labelh", label="p/fake")
    assert scene.text(fake.name) == "p/fake", "its own label"
    mach.mach_get_label(scene.task, fake.name)  # not a handle


def test_a_name_that_is_used_again_is_no_handle(scene: Scene) -> None:
    name = mach.mac_label_new(scene.task, "p/old")
    mach.mach_port_destroy(scene.task, name)
    mach.mach_port_allocate_name(scene.task, mach.MACH_PORT_RIGHT_RECEIVE, name)
    assert scene.text(name) == LABEL


def test_labels_of_dead_handles_are_let_go(scene: Scene) -> None:
    handles = LabelHandles.of(scene.kernel)
    assert LabelHandles.of(scene.kernel) is handles
    before = scene.kernel.stats()["sids"]
    kept = mach.mac_label_new(scene.task, "p/kept")
    for number in range(2000):
        name = mach.mac_label_new(scene.task, f"p/{number}")
        mach.mach_port_destroy(scene.task, name)
    assert scene.kernel.stats()["sids"] - before < 200
    assert scene.text(kept) == "p/kept"
    with scene.kernel.create_task("short") as short:
        for number in range(50):
            mach.mac_label_new(short, f"p/s{number}")
    for number in range(200):
        mach.mach_port_destroy(scene.task, mach.mac_label_new(scene.task, f"p/t{number}"))
    assert scene.kernel.stats()["sids"] - before < 200


def test_what_cannot_be_made_leaves_nothing(scene: Scene) -> None:
    scene.policy.refuse("mach_port", "set_attributes")
    names, sids = scene.task.names(), scene.kernel.stats()["sids"]
    assert code(lambda: mach.mac_label_new(scene.task, "p/new")) == "KERN_NO_ACCESS"
    assert code(lambda: mach.mach_get_task_label(scene.task)) == "KERN_NO_ACCESS"
    assert scene.task.names() == names
    assert scene.kernel.stats()["sids"] == sids


# ---- who may ----


def test_the_access_label_says_who_may_read_a_handle(scene: Scene) -> None:
    name = mach.mac_label_new(scene.task, "p/secret")
    mach.mach_set_port_label(scene.task, name, "p/closed")
    there = scene.task.receive_right(name).make_send(scene.other)
    scene.policy.refuse("mach_port", "get_attributes", "closed")
    scene.kernel.audit.drain()
    with pytest.raises(AccessDenied) as caught:
        mach.mach_get_label_text(scene.other, there.name)
    assert (caught.value.name, caught.value.permission) == ("KERN_NO_ACCESS", "get_attributes")
    (record,) = scene.kernel.audit.batch(scene.kernel.audit.drain())
    assert (record.subject, record.object) == ("p/o", "p/closed")
    assert (record.denied, record.result) == (("get_attributes",), "KERN_NO_ACCESS")
    assert (record.task, record.name) == (scene.other.id, there.name)
    scene.kernel.policies.permissive = True
    assert mach.mach_get_label_text(scene.other, there.name) == "p/secret"


def test_nothing_else_tells_of_a_handle_that_may_not_be_read(scene: Scene) -> None:
    name = mach.mac_label_new(scene.task, "p/secret")
    mach.mach_set_port_label(scene.task, name, "p/closed")
    there = scene.task.receive_right(name).make_send(scene.other).name
    scene.policy.refuse("mach_port", "get_attributes", "closed")
    own = scene.other.allocate_port().name
    names = scene.other.names()
    calls: list[Callable[[], object]] = [
        lambda: mach.mac_request_label(scene.other, there, there, "mach_task"),
        lambda: mach.mac_request_label(scene.other, own, there, "mach_port"),
        lambda: mach.mac_check_name_port_access(scene.other, "p/o", there, "mach_port", "send"),
        lambda: mach.mac_check_port_access(scene.other, there, own, "mach_port", "send"),
        lambda: mach.mac_check_port_access(scene.other, own, there, "mach_port", "send"),
    ]
    for call in calls:
        with pytest.raises(AccessDenied) as caught:
            call()
        assert (caught.value.name, caught.value.permission) == ("KERN_NO_ACCESS", "get_attributes")
    assert scene.other.names() == names


def test_reading_a_concealed_handle() -> None:
    policy = Refuses()
    with Kernel(policies=[policy], conceal_denials=True) as kernel:
        task = kernel.create_task("task", label="p/a")
        name = mach.mac_label_new(task, "p/b")
        policy.refuse("mach_port", "get_attributes")
        with pytest.raises(MachError) as caught:
            mach.mach_get_label_text(task, name)
        assert not isinstance(caught.value, AccessDenied)
        assert caught.value.name == "KERN_NO_ACCESS"


def test_another_task_is_asked_before_it_looks_or_puts(scene: Scene) -> None:
    task, other, port = scene.task, scene.other, scene.port.name
    reading: list[Callable[[], object]] = [
        lambda: mach.mach_get_task_label(task, caller=other),
        lambda: mach.mach_get_task_label_text(task, caller=other),
        lambda: mach.mach_get_label(task, port, caller=other),
        lambda: mach.mach_get_label_text(task, port, caller=other),
    ]
    putting: list[Callable[[], object]] = [
        lambda: mach.mach_get_task_label(task, caller=other),
        lambda: mach.mach_get_label(task, port, caller=other),
        lambda: mach.mach_set_port_label(task, port, LABEL, caller=other),
        lambda: mach.mac_label_new(task, "p/a", caller=other),
        lambda: mach.mac_request_label(task, port, port, "mach_port", caller=other),
    ]
    for permission, calls in (("observe", reading), ("insert_right", putting)):
        scene.policy.refuse("mach_task", permission)
        for call in calls:
            with pytest.raises(AccessDenied) as caught:
                call()
            assert caught.value.permission == permission
    scene.policy.refuse("mach_task", "")
    for call in reading + putting:
        call()


def test_the_quota_of_the_maker_pays(scene: Scene) -> None:
    scene.task.set_quota(Quota(sids=scene.task.usage.sids + 2))
    for number in range(2):
        mach.mac_label_new(scene.task, f"p/n{number}")
    assert code(lambda: mach.mac_label_new(scene.task, "p/n2")) == "KERN_RESOURCE_SHORTAGE"
