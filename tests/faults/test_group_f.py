# SPDX-License-Identifier: BSD-2-Clause
"""Group F, policy modules that misbehave: deny, counted; never allow, never crash, never hang."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from background import LONG, Run

from pympi import AccessDenied, Kernel, KernelClosed, MachError, SendRight, Task, mach
from pympi._ffi import ffi, lib
from pympi.enums import ALL, CLASSES, MachPort
from pympi.policy import Decision, Partition, PolicyModule, Rules, Stub
from pympi.port import ReceiveRight
from pympi.testing import allow_all

pytestmark = pytest.mark.timeout(60, method="thread")


class Scripted(PolicyModule):
    """Allows everything, until it is given something else to do in place of an answer."""

    name = "scripted"

    def __init__(self, *, uncached: bool = True) -> None:
        self.uncached = uncached
        self.act: Callable[[Any, Any, Any], Any] | None = None

    def decide(self, source: Any, target: Any, tclass: Any) -> Any:
        return self.act(source, target, tclass) if self.act else Decision()

    def once(self, act: Callable[[], Any], answer: Any = None) -> None:
        """Do something once, when next asked."""

        def run(*_asked: Any) -> Any:
            self.act = None
            act()
            return answer or Decision()

        self.act = run


class Scene:
    """A client with a send right to a server's port, and a module that decides about it."""

    def __init__(self, *others: PolicyModule) -> None:
        self.module = Scripted()
        self.kernel = Kernel(policies=[self.module, *others])
        self.server: Task = self.kernel.create_task("server")
        self.client: Task = self.kernel.create_task("client")
        self.inbox: ReceiveRight = self.server.allocate_port(qlimit=100)
        self.right: SendRight = self.inbox.make_send(self.client)

    def sends(self) -> MachError | None:
        """Send once; return what was raised."""
        try:
            self.right.send(b"x", timeout=0)
        except MachError as error:
            return error
        return None

    @property
    def queued(self) -> int:
        """How many messages wait; nobody is asked for leave to know."""
        return self.kernel.stats()["messages_queued"]

    @property
    def failures(self) -> int:
        return sum(self.kernel.policies.failures.values())


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.module.act = None
    if not scene.kernel.closed:
        scene.kernel.verify()
    scene.kernel.close()


def raising(error: BaseException) -> Callable[..., Any]:
    def act(*_asked: Any) -> Any:
        raise error

    return act


# ---- what it raises and answers ----


@pytest.mark.parametrize("error", [ValueError("no"), OSError(5, "disk"), MemoryError()], ids=repr)
def test_f1_raises(scene: Scene, error: Exception) -> None:
    scene.module.act = raising(error)
    assert isinstance(scene.sends(), AccessDenied)
    assert scene.failures == 1
    assert scene.queued == 0
    scene.module.act = None
    assert scene.sends() is None, "what failed is asked again"


def test_f1_a_failure_is_not_remembered() -> None:
    """Answers are cached, failures are not: a module that comes to itself is heard."""
    module = Scripted(uncached=False)
    with Kernel(policies=[module]) as kernel:
        task = kernel.create_task("task")
        module.act = raising(ValueError("no"))
        assert not kernel.access(task, task, "mach_port", "send")
        module.act = None
        assert kernel.access(task, task, "mach_port", "send")


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit()], ids=repr)
def test_f2_raises_base_exceptions(scene: Scene, error: BaseException) -> None:
    scene.module.act = raising(error)
    assert isinstance(scene.sends(), AccessDenied)
    assert scene.failures == 1


def test_f2_keyboard_interrupt_is_raised_by_the_call(scene: Scene) -> None:
    scene.module.act = raising(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        scene.sends()
    assert scene.queued == 0


def test_f2_keyboard_interrupt_in_a_call_that_succeeds(scene: Scene) -> None:
    """What the module refuses by failing costs the receiver a right, not the message."""
    spare = scene.client.allocate_port("scripted/spare")
    scene.right.send(b"x", rights=[spare.make_send()])

    def interrupt(_source: Any, target: Any, _tclass: Any) -> Decision:
        if target == "spare":
            raise KeyboardInterrupt
        return Decision()

    scene.module.act = interrupt
    assert interrupted(lambda: scene.inbox.receive(timeout=0))
    scene.module.act = None
    assert scene.sends() is None, "it is raised once"


def test_f2_keyboard_interrupt_in_a_handler(scene: Scene) -> None:
    right = scene.server.create_handler(raising(KeyboardInterrupt())).make_send(scene.client)
    assert interrupted(lambda: right.send(b"x"))
    assert scene.kernel.stats()["handler_failures"] == 1


def interrupted(call: Callable[[], object]) -> bool:
    """Tell whether a KeyboardInterrupt is raised by a call, or soon after."""
    try:
        call()
        for _ in range(300):
            time.sleep(0.01)
    except KeyboardInterrupt:
        return True
    return False


class Lies(int):
    """An int that answers `&` as it likes."""

    def __and__(self, _other: int) -> int:
        return ALL

    __rand__ = __and__


class TwoFaced(Decision):
    """Refuses when it is looked at, and allows when it is looked at again."""

    _looks = 0

    @property
    def allowed(self) -> Any:  # type: ignore[override]
        self._looks += 1
        return 0 if self._looks == 1 else ALL

    @allowed.setter
    def allowed(self, value: Any) -> None:
        pass


@pytest.mark.parametrize(
    "answer",
    [
        None, float("nan"), 1 << 64, True, "allow", (ALL, 0, 0, 0), Decision, object(),
        Decision(allowed=float("nan")),  # type: ignore[arg-type]
        Decision(allowed=1 << 32), Decision(allowed=-1), Decision(report=None),  # type: ignore[arg-type]
    ],
    ids=repr,
)  # fmt: skip
def test_f3_answers_nonsense(scene: Scene, answer: Any) -> None:
    scene.module.act = lambda *_asked: answer
    assert isinstance(scene.sends(), AccessDenied)
    assert scene.failures == 1


def test_f3_answers_that_lie_do_not_speak_for_others() -> None:
    scene = Scene(Partition())
    with scene.kernel as kernel:
        scene.module.act = lambda *_asked: Decision(allowed=Lies(0))
        red = kernel.create_task("red", label="partition/red")
        blue = kernel.create_task("blue", label="partition/blue")
        assert not kernel.access(red, blue, "mach_port", "send")
        assert not kernel.access(red, red, "mach_port", "send"), "its value is 0"
        scene.module.act = lambda *_asked: TwoFaced()
        assert isinstance(scene.sends(), AccessDenied)


UNKNOWN_CODES = [999, -1, -(1 << 31), 0x7FFF0001, 0x7FFFFFFF, 1 << 32, 1 << 70]


@pytest.mark.parametrize("code", UNKNOWN_CODES, ids=hex)
def test_f4_answers_an_unknown_code(code: int) -> None:
    class Relabels(PolicyModule):
        name = "relabels"

        def check_relabel(self, subject: Any, old: Any, new: Any, tclass: Any) -> int:
            return code

    with Kernel(policies=[Relabels()]) as kernel:
        task = kernel.create_task("task", label="relabels/a")
        port = task.allocate_port()
        for thing in (task, port):
            with pytest.raises(MachError):
                thing.relabel("relabels/b")  # type: ignore[attr-defined]
            assert thing.label == "relabels/a"  # type: ignore[attr-defined]
        kernel.verify()


# ---- what it does meanwhile ----


def test_f5_recurses_into_send(scene: Scene) -> None:
    scene.module.once(lambda: scene.right.send(b"from the module"))
    assert scene.sends() is None
    bodies = [scene.inbox.receive(timeout=0).body for _ in range(2)]
    assert bodies == [b"from the module", b"x"]


def test_f6_recurses_into_the_same_check(scene: Scene) -> None:
    scene.module.act = lambda *_asked: scene.right.send(b"again") or Decision()
    assert isinstance(scene.sends(), AccessDenied)
    assert scene.queued == 0
    assert scene.failures > 0
    scene.module.act = None
    assert scene.sends() is None


def test_f7_destroys_the_port_under_check(scene: Scene) -> None:
    scene.module.once(scene.inbox.close)
    error = scene.sends()
    assert error is not None
    assert error.code == mach.MACH_SEND_INVALID_DEST
    assert scene.right.type == mach.MACH_PORT_TYPE_DEAD_NAME


def test_f7_destroys_the_port_that_is_received_from(scene: Scene) -> None:
    scene.right.send(b"x")
    scene.module.once(scene.inbox.close)
    with pytest.raises(MachError) as caught:
        scene.inbox.receive(timeout=0)
    assert caught.value.code in (mach.MACH_RCV_INVALID_NAME, mach.MACH_RCV_PORT_DIED)


def test_f7_frees_the_names_of_the_message_under_check(scene: Scene) -> None:
    spare = scene.client.allocate_port()
    carried = spare.make_send()
    scene.module.once(spare.close)
    with pytest.raises(MachError) as caught:
        scene.right.send(b"x", rights=[carried], timeout=0)
    assert caught.value.code == mach.MACH_SEND_INVALID_RIGHT
    assert scene.queued == 0


def test_f7_takes_the_message_under_check_away(scene: Scene) -> None:
    scene.right.send(b"first")
    scene.right.send(b"second")
    stolen = []
    scene.module.once(lambda: stolen.append(scene.inbox.receive(timeout=0).body))
    assert scene.inbox.receive(timeout=0).body == b"second"
    assert stolen == [b"first"]


@pytest.mark.parametrize("victim", ["caller", "target"])
def test_f8_kills_a_task(scene: Scene, victim: str) -> None:
    scene.module.once((scene.client if victim == "caller" else scene.server).terminate)
    error = scene.sends()
    assert error is not None
    expected = mach.KERN_INVALID_TASK if victim == "caller" else mach.MACH_SEND_INVALID_DEST
    assert error.code == expected


def test_f8_kills_the_task_that_is_given_a_right(scene: Scene) -> None:
    taker = scene.kernel.create_task("taker")
    scene.module.once(taker.terminate)
    with pytest.raises(MachError) as caught:
        scene.inbox.make_send(taker)
    assert caught.value.code in (mach.KERN_INVALID_TASK, mach.KERN_INVALID_CAPABILITY)


def test_f8_closes_the_kernel(scene: Scene) -> None:
    scene.module.once(scene.kernel.close)
    assert isinstance(scene.sends(), KernelClosed)


def test_f9_unloads_itself(scene: Scene) -> None:
    scene.module.once(lambda: scene.kernel.policies.unload("scripted"))
    assert scene.sends() is None, "no policy is left to refuse"
    assert list(scene.kernel.policies) == []


def test_f9_loads_another_that_refuses(scene: Scene) -> None:
    scene.module.once(lambda: scene.kernel.policies.load(Rules()))
    assert isinstance(scene.sends(), AccessDenied), "what the old policy answered is not used"


def test_f9_changes_the_policy_each_time_it_is_asked(scene: Scene) -> None:
    def reload(*_asked: Any) -> Decision:
        scene.kernel.policies.replace("scripted", scene.module)
        return Decision()

    scene.module.act = reload
    assert isinstance(scene.sends(), AccessDenied), "attempts are bounded"
    assert scene.kernel.stats()["retries_exhausted"] == 1


class Mutable(PolicyModule):
    """Has lists for values, and changes those it is given."""

    name = "mutable"

    def parse(self, text: str) -> Any:
        return [text]

    def format(self, value: Any) -> str:
        return str(value[0])

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        for value in (source, target):
            value.append("changed")
            value[0] = "root"
        return Decision()


def test_f10_mutates_the_labels_it_is_given() -> None:
    with Kernel(policies=[Mutable()]) as kernel:
        task = kernel.create_task("task", label="mutable/user")
        port = task.allocate_port()
        port.make_send(task).send(b"")
        assert (task.label, port.label) == ("mutable/user", "mutable/user")
        assert port.receive(timeout=0).sender.label == "mutable/user"


def test_f11_sleeps(scene: Scene) -> None:
    """One that never returns hangs its caller, and nobody else."""
    asleep, wake = threading.Event(), threading.Event()

    def sleep() -> None:
        asleep.set()
        assert wake.wait(LONG)

    scene.module.once(sleep)
    run = Run(scene.sends)
    assert asleep.wait(LONG)
    assert scene.sends() is None, "others go on"
    scene.kernel.verify()
    scene.kernel.policies.load(Stub())
    scene.kernel.policies.unload("stub")
    assert run.is_alive()
    wake.set()
    assert run.result() is None
    assert scene.queued == 2


def test_f12_lets_another_thread_reload_the_policy(scene: Scene) -> None:
    def reload() -> None:
        Run(lambda: scene.kernel.policies.load(Rules())).result()

    scene.module.once(reload)
    assert isinstance(scene.sends(), AccessDenied), "the answer was of an epoch that is over"
    assert scene.queued == 0


def test_f13_keeps_what_it_was_given() -> None:
    kept: list[Any] = []
    scene = Scene()
    with scene.kernel:
        scene.module.act = lambda *asked: kept.append(asked) or Decision()
        assert scene.sends() is None
    assert kept
    for _source, _target, tclass in kept:
        assert tclass is CLASSES["mach_port"]
        assert tclass.mask("send") == CLASSES["mach_port"].bits["send"]


def test_f14_answers_differently_each_time(scene: Scene, rng: random.Random) -> None:
    """Each send ends as it was answered, whatever was answered before."""
    scene.inbox.qlimit = 300
    answers: list[int] = []

    def act(*_asked: Any) -> Decision:
        answers.append(rng.getrandbits(32))
        return Decision(allowed=answers[-1])

    scene.module.act = act
    sent = [scene.sends() is None for _ in range(300)]
    needed = int(MachPort.send | MachPort.copy_send)
    assert sent == [answer & needed == needed for answer in answers]
    assert set(sent) == {False, True}


def test_f14_what_is_cached_is_asked_once(rng: random.Random) -> None:
    module = Scripted(uncached=False)
    with Kernel(policies=[module]) as kernel:
        module.act = lambda *_asked: Decision(allowed=rng.choice([0, ALL]))
        task = kernel.create_task("task")
        verdicts = {bool(kernel.access(task, task, "mach_port", "send")) for _ in range(50)}
        assert len(verdicts) == 1


class Hostile:
    """A label value, or an error, that cannot even be looked at."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __del__(self) -> None:
        raise RuntimeError("no end")


class HostileError(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class Unspeakable(PolicyModule):
    name = "unspeakable"

    def parse(self, text: str) -> Any:
        return Hostile()

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        return Decision()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_f15_values_that_cannot_be_shown_or_dropped() -> None:
    with Kernel(policies=[Unspeakable(), allow_all()]) as kernel:
        with pytest.raises(ValueError, match="unspeakable"):
            kernel.create_task("task", label="unspeakable/a")
        task = kernel.create_task("task", label="rules/a")
        task.allocate_port().make_send(task).send(b"")
        kernel.policies.unload("unspeakable")
        kernel.verify()


def test_f15_errors_that_cannot_be_shown(scene: Scene) -> None:
    scene.module.act = raising(HostileError())
    assert isinstance(scene.sends(), AccessDenied)
    assert scene.failures >= 1


def test_f15_an_explanation_that_fails_is_told(scene: Scene) -> None:
    class Mute(PolicyModule):
        name = "mute"

        def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
            return Decision()

        def explain(self, source: Any, target: Any, tclass: Any, permission: str) -> str:
            raise OSError("disk")

    scene.kernel.policies.load(Mute())
    lines = scene.kernel.explain(scene.client, scene.inbox, "mach_port", "send").splitlines()
    assert any("mute" in line and "OSError" in line for line in lines)
    assert any("scripted" in line and "allows" in line for line in lines)


# ---- the same, in modules that are replaced, on trial, permissive, or asked to read anew ----


def test_f9_replaces_itself_by_a_shadow_that_refuses(scene: Scene) -> None:
    """A shadow that the module itself puts up does not decide what the module is asked."""
    policies = scene.kernel.policies
    scene.module.once(lambda: policies.replace("scripted", Refuser(), shadow=True))
    assert scene.sends() is None
    assert policies.shadow("scripted").count == 1
    scene.module.once(policies.shadow("scripted").commit)
    assert isinstance(scene.sends(), AccessDenied), "in force now, and asked again"


class Refuser(Scripted):
    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        return Decision(allowed=0)


def test_f9_is_changed_each_time_it_is_asked(scene: Scene) -> None:
    def change(*_asked: Any) -> Decision:
        scene.module.changed()
        return Decision()

    scene.module.act = change
    assert isinstance(scene.sends(), AccessDenied), "attempts are bounded"
    assert scene.kernel.stats()["retries_exhausted"] == 1


def test_f12_a_reload_while_the_decider_sleeps(scene: Scene) -> None:
    """What it answers afterwards is of a policy that is over."""
    asleep, wake = threading.Event(), threading.Event()

    def sleep(*_asked: Any) -> Decision:
        scene.module.act = lambda *_again: Decision(allowed=0)
        asleep.set()
        assert wake.wait(LONG)
        return Decision()

    scene.module.act = sleep
    run = Run(scene.sends)
    assert asleep.wait(LONG)
    scene.kernel.policies.reload()
    wake.set()
    assert isinstance(run.result(), AccessDenied)
    assert scene.queued == 0


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), MemoryError()], ids=repr)
def test_f1_raises_where_it_should_read_anew(scene: Scene, error: BaseException) -> None:
    def reload() -> None:
        raise error

    scene.module.reload = reload  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        scene.kernel.policies.reload("scripted")
    assert scene.sends() is None, "the old policy is in force"


def test_f1_a_permissive_module_that_raises_refuses(scene: Scene) -> None:
    scene.kernel.policies.set_permissive("scripted", True)
    scene.module.act = lambda *_asked: Decision(allowed=0)
    assert scene.sends() is None
    scene.module.act = raising(ValueError("no"))
    assert isinstance(scene.sends(), AccessDenied)


def test_f14_a_shadow_that_answers_differently_each_time(scene: Scene, rng: random.Random) -> None:
    trial = Scripted()
    trial.act = lambda *_asked: Decision(allowed=rng.getrandbits(32))
    shadow = scene.kernel.policies.replace("scripted", trial, shadow=True)
    for _ in range(100):
        assert scene.sends() is None
        assert scene.inbox.receive(timeout=0).body == b"x"
    assert 0 < shadow.count <= 3 * 100, "a send is one record, a receive two"
    scene.kernel.verify()


def test_f11_a_shadow_that_sleeps_hangs_its_caller_alone(scene: Scene) -> None:
    asleep, wake = threading.Event(), threading.Event()
    trial = Scripted(uncached=False)

    def sleep() -> None:
        asleep.set()
        assert wake.wait(LONG)

    trial.once(sleep)
    shadow = scene.kernel.policies.replace("scripted", trial, shadow=True)
    run = Run(scene.sends)
    assert asleep.wait(LONG)
    assert scene.sends() is None
    shadow.drop()
    wake.set()
    assert run.result() is None
    assert scene.queued == 2


def test_f16_a_decider_in_c_that_takes_and_drops_the_lock() -> None:
    """The lock is not visible outside the core: a callback can only take and drop it by calls.

    One written against the C interface does so in each answer, moving the epoch, from two threads.
    """
    calls: Counter[str] = Counter()
    kernel = Kernel()
    with kernel:
        server, client = kernel.create_task("server"), kernel.create_task("client")
        inbox = server.allocate_port(qlimit=1000)
        right = inbox.make_send(client)

        @ffi.callback("int(void *, struct pm_query *, size_t, uint32_t)")  # type: ignore[untyped-decorator]
        def decider(_context: Any, queries: Any, count: int, _epoch: int) -> int:
            stats = ffi.new("struct pm_stats *")
            calls["asked"] += 1
            calls["locked"] += lib.pm_kernel_stats(kernel.pointer, stats) == 0
            if calls["asked"] % 3 == 0:
                lib.pm_kernel_set_policy(kernel.pointer, lib.PM_POLICY_LOADED)
            for index in range(count):
                queries[index].allowed, queries[index].uncached = ALL, 1
            return 0

        lib.pm_kernel_set_decider(kernel.pointer, decider, ffi.NULL)
        lib.pm_kernel_set_policy(kernel.pointer, lib.PM_POLICY_LOADED)

        def use() -> None:
            for _ in range(50):
                right.send(b"", timeout=0)

        for run in [Run(use), Run(use)]:
            run.result()
        assert kernel.stats()["messages_queued"] == 100
        assert calls["locked"] == calls["asked"] >= 100
        kernel.verify()
