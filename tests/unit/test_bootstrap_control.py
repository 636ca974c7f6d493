# SPDX-License-Identifier: BSD-2-Clause
"""The name server under the sample policy: three ways of control, and what the trail says."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest

from pympi import AccessDenied, Kernel, Task
from pympi.bootstrap import (
    NotPrivileged,
    ServiceContexts,
    Status,
    UnknownService,
    sentence,
)
from pympi.errors import LabelError, PolicyError
from pympi.policy import Budget, Partition, Rules, TypeEnforcement

EXAMPLE = Path(__file__).parents[2] / "examples" / "names.py"
DATA = resources.files("pympi") / "data"
PRINT, VAULT = "com.example.print", "com.example.vault"
OBJECT = "te/system_u:object_r:"


def load_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("names_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Scene:
    """The example's kernel, with both services registered."""

    def __init__(self, kernel: Kernel) -> None:
        example = load_example()
        self.kernel = kernel
        self.tasks: dict[str, Task] = example.set_up(kernel)
        for server, name in (("printd", PRINT), ("vaultd", VAULT)):
            label = f"{example.OBJECT}{server[:-1]}_port_t"
            port = self.tasks[server].allocate_port(label=label)
            self.tasks[server].bootstrap.register(name, port)
        kernel.audit.drain()

    def __getattr__(self, name: str) -> Task:
        return self.tasks[name]

    def trail(self) -> list[str]:
        records = self.kernel.audit.batch(self.kernel.audit.drain())
        return [sentence(record, self.kernel).split(" ", 1)[1] for record in records]


@pytest.fixture
def scene() -> Iterator[Scene]:
    policy = TypeEnforcement.from_text((DATA / "names.cil").read_text("utf-8"))
    with Kernel(policies=[policy]) as kernel:
        yield Scene(kernel)
        kernel.verify()


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_example().main() == [
        "done",
        "done",
        "NotPrivileged: BOOTSTRAP_NOT_PRIVILEGED",
        "NotPrivileged: BOOTSTRAP_NOT_PRIVILEGED",
        "done",
        "AccessDenied: MACH_SEND_MSG_FILTERED",
        "AccessDenied: MACH_SEND_MSG_FILTERED",
        "UnknownService: BOOTSTRAP_UNKNOWN_SERVICE",
        "UnknownService: BOOTSTRAP_UNKNOWN_SERVICE",
        "UnknownService: BOOTSTRAP_UNKNOWN_SERVICE",
        "done",
        "['com.example.print', 'com.example.vault']",
        "['com.example.clipboard', 'com.example.print']",
        "['com.example.clipboard', 'com.example.diary', 'com.example.print', 'com.example.vault']",
    ]
    printed = capsys.readouterr().out
    assert f'look_up "com.example.vault" ({OBJECT}vault_service_t): refused by te' in printed
    assert "(te/system_u:object_r:other_service_t): allowed, and failed: BOOTSTRAP_UNK" in printed


def test_by_routine(scene: Scene) -> None:
    with pytest.raises(AccessDenied) as caught:
        scene.user.bootstrap.register("com.example.mine", None)
    assert (caught.value.tclass, caught.value.permission) == ("mi_bootstrap", "bootstrap_register")
    [line] = scene.trail()
    assert line == (
        "user (te/user_u:user_r:user_t) bootstrap_register on port 4, class mi_bootstrap"
        f" ({OBJECT}user_names_t): refused by te"
    )


def test_by_name(scene: Scene) -> None:
    with pytest.raises(NotPrivileged):
        scene.printd.bootstrap.register("com.example.vault.key", scene.printd.allocate_port())
    assert scene.trail() == [
        (
            'printd (te/system_u:system_r:printd_t) register "com.example.vault.key"'
            f" ({OBJECT}vault_service_t): refused by te"
        )
    ]


@pytest.mark.parametrize("name", [VAULT, "com.example.nothing"])
def test_what_may_not_be_seen_is_as_what_is_not_there(scene: Scene, name: str) -> None:
    user = scene.user.bootstrap
    codes = []
    for ask in (user.look_up, user.status):
        with pytest.raises(UnknownService) as caught:
            ask(name)
        codes.append((type(caught.value), caught.value.code, caught.value.args[1]))
    assert codes == [(UnknownService, 1102, name)] * 2
    assert user.look_up_array([name]) == [None]
    assert name not in [info.name for info in user.info()]


def test_three_name_spaces(scene: Scene) -> None:
    seen = {who: [i.name for i in scene.tasks[who].bootstrap.info()] for who in scene.tasks}
    assert sorted(seen["init"]) == [PRINT, VAULT]
    assert sorted(seen["user"]) == ["com.example.clipboard", PRINT]
    assert len(seen["secret"]) == 4


def test_a_change_that_is_refused_does_not_tell_what_is_there(scene: Scene) -> None:
    for name in (PRINT, "com.example.print.never"):
        with pytest.raises(NotPrivileged):
            scene.vaultd.bootstrap.check_in(name)


def test_by_what_may_be_held(scene: Scene) -> None:
    secret = scene.secret.bootstrap
    secret.look_up(VAULT).close()
    policy = (DATA / "names.cil").read_text("utf-8")
    held = "(allow secret_t vault_port_t (mach_port (hold_send copy_send send)))"
    assert held in policy
    scene.kernel.policies.replace("te", TypeEnforcement.from_text(policy.replace(held, "")))
    scene.kernel.audit.drain()
    names = scene.secret.names()
    with pytest.raises(UnknownService):
        secret.look_up(VAULT)
    assert scene.secret.names() == names
    granted, refused = scene.trail()
    assert "look_up" in granted
    assert refused.endswith(f'hold_send "{VAULT}" ({OBJECT}vault_port_t): refused by te')


def test_who_may_not_hold_a_receive_right_loses_none(scene: Scene) -> None:
    scene.kernel.bootstrap.declare("com.example.vault.box")
    with pytest.raises(NotPrivileged):
        scene.vaultd.bootstrap.check_in("com.example.vault.box")
    assert scene.init.bootstrap.status("com.example.vault.box") is Status.INACTIVE
    scene.kernel.bootstrap.task.kernel.verify()


def test_the_trail_says_who_got_which_right(scene: Scene) -> None:
    right = scene.user.bootstrap.look_up(PRINT)
    [line] = scene.trail()
    assert line == (
        f'user (te/user_u:user_r:user_t) look_up "{PRINT}" ({OBJECT}print_service_t):'
        f" granted, port {right.port_id}"
    )


def test_request_and_decision_have_one_transfer(scene: Scene) -> None:
    scene.kernel.audit.everything()
    scene.user.bootstrap.look_up(PRINT)
    records = list(scene.kernel.audit.batch(scene.kernel.audit.drain()))
    [decision] = [record for record in records if record.operation == "service"]
    same = [r.operation for r in records if r.transfer == decision.transfer]
    assert {"send", "receive", "service"} <= set(same)


# ---- service contexts ----


def test_a_longer_beginning_counts_before_a_shorter() -> None:
    contexts = ServiceContexts.from_text("* c\ncom.* b\n# comment\n\ncom.example a\n")
    assert [contexts.label(name) for name in ("com.example", "com.example.x", "x")] == [
        "a", "b", "c",
    ]  # fmt: skip
    assert ServiceContexts({"x": "a"}).label("y") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "<text>:1:1: expected a pattern and a label"),
        ("\na b\na c", "<text>:3:1: pattern 'a' stands twice"),
        ("a*b c", "'*' stands at the end"),
    ],
)
def test_bad_service_contexts(text: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        ServiceContexts.from_text(text)
    assert said in str(caught.value)


def test_bad_files_of_service_contexts(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"a b\n\xff\xfe")
    os.mkfifo(tmp_path / "pipe")
    for name, said in (
        ("nothing", "nothing: No such file"),
        ("binary", "binary:2:1: expected UTF-8, found the byte 0xff"),
        ("pipe", "pipe: expected a regular file"),
    ):
        with pytest.raises(PolicyError, match=said):
            ServiceContexts.from_file(tmp_path / name)
    large = tmp_path / "large"
    large.write_text("a b\n# and nothing else\n")
    assert ServiceContexts.from_file(large).labels() == {"b"}
    with pytest.raises(PolicyError, match="larger"):
        ServiceContexts.from_file(large, budget=Budget(bytes=10))


def test_labels_of_services_can_change() -> None:
    with Kernel(policies=[Partition()]) as kernel:
        contexts = ServiceContexts({"a": "partition/one"})
        names = kernel.start_bootstrap(label="partition/one", service_contexts=contexts)
        task = kernel.create_task("task", "partition/one")
        task.bootstrap.create_service("a")
        [service] = names.services()
        assert (service.label, names.root.label) == ("partition/one", "partition/one")
        names.use_service_contexts(ServiceContexts({"a": "partition/two"}))
        assert service.label == "partition/two"
        with pytest.raises(UnknownService):
            task.bootstrap.look_up("a")
        with pytest.raises(LabelError):
            names.use_service_contexts(ServiceContexts({"a": "nomodule/x"}))
        assert service.label == "partition/two"


# ---- the same name, another service for each label ----


def test_each_label_has_its_own_service() -> None:
    labels = ("a", "b")
    classes = ("mach_port", "mach_task", "service", "mi_bootstrap")
    policy = " ".join(f"allow * * {tclass} {{ * }};" for tclass in classes)
    with Kernel(policies=[Rules.from_text(policy)]) as kernel:
        names = kernel.start_bootstrap(label="rules/names")
        clipboard = names.create_context(per_label=True)
        names.declare("shared", clipboard)
        ports = {}
        for label in labels:
            server = kernel.create_task("server", f"rules/{label}")
            names.give(server, clipboard)
            ports[label] = server.allocate_port()
            server.bootstrap.register("clipboard", ports[label])
        for label in labels:
            client = kernel.create_task("client", f"rules/{label}")
            names.give(client, clipboard)
            assert client.bootstrap.look_up("clipboard").port_id == ports[label].port_id
            assert sorted(info.name for info in client.bootstrap.info()) == ["clipboard", "shared"]
        other = kernel.create_task("other", "rules/c")
        names.give(other, clipboard)
        assert [info.name for info in other.bootstrap.info()] == ["shared"]
        assert [s.instance for s in names.services(clipboard)] == ["", "rules/a", "rules/b"]
        kernel.verify()
