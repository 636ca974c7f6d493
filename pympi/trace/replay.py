# SPDX-License-Identifier: BSD-2-Clause
"""A recorded system, rebuilt in a kernel of its own and run again.

Tasks get their rights by calls of the owners (insert_right), which are no messages, so that of
SEDarwin's three events only the recorded ones happen. A receive right that was sent away is
destroyed where it arrived and comes back by port-destroyed: the kernel's own messages are neither
checked nor traced.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, NoReturn

import numpy as np

from .. import mach
from ..enums import Disposition, Notification
from ..errors import AccessDenied, MachError, TimedOut
from ..kernel import Kernel
from ..message import Carried
from ..policy import PolicyModule
from ..port import ReceiveRight, SendOnceRight, SendRight
from ..task import Task
from .labels import Labels
from .plan import How, Plan, Port, Rider, Step
from .report import Denial, Report

BODY = bytes(64)
#: Steps between two looks at the audit ring, which has room for the denials of so many.
_CHUNK = 512
#: What makes denials the same: fields of an audit record.
_SAME = ["effective_sid", "object_sid", "tclass", "denied"]

_Act = Callable[[], object]


class Round(NamedTuple):
    """One run of the plan.

    Attributes:
        seconds: how long it took.
        messages: how many were received.
        refused: the steps that could not be done, by their place in the plan.
    """

    seconds: float
    messages: int
    refused: frozenset[int]


class _Port:
    """A recorded port: who holds its receive right, and what waits in its queue."""

    def __init__(self, right: ReceiveRight) -> None:
        self.home = right.task
        self.limit = right.qlimit
        self.waiting = 0
        self.received = 0
        self.hold(right)

    def hold(self, right: ReceiveRight | None) -> None:
        """The receive right is this one now; None while it travels."""
        self._right = right
        self._receive = right.receiver(timeout=0) if right else self._away

    @staticmethod
    def _away() -> NoReturn:
        raise AccessDenied(mach.MACH_RCV_INVALID_NAME, "the receive right did not come back")

    @property
    def travels(self) -> bool:
        """Whether nobody holds the receive right."""
        return self._right is None

    @property
    def right(self) -> ReceiveRight:
        """The receive right. A policy can keep it from coming back; AccessDenied then."""
        return self._right or self._away()

    def drain(self) -> None:
        """Receive all that waits. Raises AccessDenied if nobody may receive here at all."""
        while self.waiting:
            try:
                self._receive()
                self.received += 1
            except AccessDenied as refusal:
                if refusal.code == mach.MACH_RCV_INVALID_NAME:
                    raise
            self.waiting -= 1

    def make_room(self) -> None:
        """Drain the queue if it is full."""
        if self.waiting >= self.limit:
            self.drain()


def _most_paths(plan: Plan) -> int:
    """How many paths (task, port) a run of `plan` can touch: ipctrace needs room for them all."""
    number = {name: task for task, name in enumerate(plan.tasks)}
    owners = [number[port.owner] for port in plan.ports]
    paths = set(enumerate(owners))
    for step in dict.fromkeys(plan.steps):
        for port in (step.port, *(rider.port for rider in step.riders)):
            paths |= {(port, step.task), (port, owners[step.port])}
    return len(paths) + 2 * len(plan.tasks)


class System:
    """The system of `plan` in a kernel of its own, able to run it again and again.

    Args:
        plan: what to build and to do.
        policies: modules to check against; without any nothing is checked.
        labels: of tasks and ports, where there are policies; by default the mangled names.
    """

    def __init__(
        self, plan: Plan, *, policies: Sequence[PolicyModule] = (), labels: Labels | None = None
    ) -> None:
        self.plan = plan
        self._labels = (labels or Labels()) if policies else None
        self._known: dict[tuple[int, int], SendRight] = {}
        self._denied: Counter[tuple[int, int, int, int]] = Counter()
        self.kernel = Kernel(policies=list(policies), trace_paths=_most_paths(plan))
        try:
            self._build()
        except BaseException:
            self.kernel.close()
            raise

    def __enter__(self) -> System:
        return self

    def __exit__(self, *_: object) -> None:
        self.kernel.close()

    # --- building ---------------------------------------------------------------------------------

    def _build(self) -> None:
        self.kernel.policies.permissive = True  # the builder is none of the tasks: it is not asked
        self._tasks = [self._create_task(name) for name in self.plan.tasks]
        by_name = dict(zip(self.plan.tasks, self._tasks, strict=True))
        self._ports = [_Port(self._allocate(by_name[p.owner], p)) for p in self.plan.ports]
        self._mailboxes = {task: self._mailbox(task) for task in self._movers()}
        self.kernel.policies.permissive = False
        self._introduce()
        self._acts = self._bind(self.plan.steps)

    def _create_task(self, name: str) -> Task:
        label = self._labels.task(name) if self._labels else None
        return self.kernel.create_task(name, label=label)

    def _allocate(self, task: Task, port: Port) -> ReceiveRight:
        label = self._labels.port(port.owner, port.kind) if self._labels else None
        return task.allocate_port(label=label, trace=(port.owner, port.kind, port.number))

    def _movers(self) -> Iterator[Task]:
        """Tasks that send receive rights, and those to whom these come home."""
        for step in self.plan.steps:
            for rider in step.riders:
                if rider.event == "move_recv":
                    yield self._tasks[step.task]
                    yield self._ports[rider.port].home

    def _mailbox(self, task: Task) -> ReceiveRight:
        """A port of the task's for receive rights that come home; it has a number of its own."""
        used = [port.number for port in self.plan.ports if port.owner == task.name]
        return self._allocate(task, Port(task.name, 0, max(used, default=0) + 1))

    def _introduce(self) -> None:
        """Give tasks the send rights they will copy. One that is refused is asked for again."""
        for step in dict.fromkeys(self.plan.steps):
            copied = [r.port for r in step.riders if r.event == "copy_send"]
            for port in copied + [step.port] * (step.how is How.COPY_SEND):
                try:
                    self._know(step.task, port)
                except AccessDenied:
                    continue

    def _know(self, task: int, port: int) -> SendRight:
        """The task's standing send right to the port."""
        if (task, port) not in self._known:
            self._known[task, port] = self._ports[port].right.make_send(self._tasks[task])
        return self._known[task, port]

    def _bind(self, steps: Iterable[Step]) -> list[_Act]:
        """One callable for each step; equal steps are one object and share it."""
        bound: dict[int, _Act] = {}
        return [bound.get(id(s)) or bound.setdefault(id(s), self._act(s)) for s in steps]

    def _act(self, step: Step) -> _Act:
        if step.how is How.EXTRACT:
            return partial(self._extract, step.task, step.riders[0])
        if step.riders:
            return partial(self._carry, step)
        return self._copier(step) if step.how is How.COPY_SEND else partial(self._post, step)

    # --- running ----------------------------------------------------------------------------------

    def round(self, advance: Callable[[int], object] | None = None) -> Round:
        """Run the plan once, with ipctrace on from its beginning to its end.

        Args:
            advance: called now and then with the number of things done since, `Plan.work` in all;
                its time does not count, nor that of looking at denials.
        """
        self.kernel.audit.drain()
        self._denied.clear()
        self.kernel.trace.reset()
        self.kernel.trace.start()
        before = sum(port.received for port in self._ports)
        refused: list[int] = []
        seconds = 0.0
        for first, acts in self._chunks():
            started = time.perf_counter()
            refused += self._run(acts, first)
            seconds += time.perf_counter() - started
            if self._labels:
                self._note_denials()
            if advance:
                advance(len(acts))
        self.kernel.trace.stop()
        messages = sum(port.received for port in self._ports) - before
        steps = len(self._acts)
        return Round(seconds, messages, frozenset(at for at in refused if at < steps))

    def _chunks(self) -> Iterator[tuple[int, list[_Act]]]:
        """All there is to do, and at the end what is left in the queues to receive."""
        acts = [*self._acts, *(port.drain for port in self._ports)]
        return ((at, acts[at : at + _CHUNK]) for at in range(0, len(acts), _CHUNK))

    @staticmethod
    def _run(acts: list[_Act], first: int) -> list[int]:
        """Do all of `acts`; return which were refused, counted from `first`."""
        refused = []
        for at, act in enumerate(acts, first):
            try:
                act()
            except AccessDenied:
                refused.append(at)
        return refused

    def _note_denials(self) -> None:
        records = self.kernel.audit.drain()
        kinds, counts = np.unique(records[records["denied"] != 0][_SAME], return_counts=True)
        self._denied.update(dict(zip(kinds.tolist(), counts.tolist(), strict=True)))

    def denials(self) -> list[Denial]:
        """What the last round was refused, most frequent first, with the policy's reason."""
        return [self._denial(times, *kind) for kind, times in self._denied.most_common()]

    def _denial(self, times: int, subject: int, target: int, tclass: int, denied: int) -> Denial:
        kind = self.kernel.object_class(tclass)
        names = kind.names(denied)
        labels = self.kernel.label(subject), self.kernel.label(target)
        _, *reasons = self.kernel.explain(*labels, kind.name, names[0]).splitlines()
        reason = "; ".join(line.strip() for line in reasons)
        return Denial(times, labels[0], " ".join(names), labels[1], reason)

    def _copier(self, step: Step) -> _Act:
        """A message by COPY_SEND: most of any recording, so with nothing in between."""
        port = self._ports[step.port]
        send: Callable[[bytes], None] | None = None

        def act() -> None:
            nonlocal send
            if port.waiting >= port.limit:
                port.drain()
            if send is None:
                send = self._know(step.task, step.port).sender(timeout=0)
            send(BODY)
            port.waiting += 1

        return act

    def _post(self, step: Step) -> None:
        port = self._ports[step.port]
        port.make_room()
        self._send(step)
        port.waiting += 1

    def _send(self, step: Step, rights: Sequence[Carried] = ()) -> None:
        """Send by the right that the step says, made by the port's owner if it is for once."""
        if step.how is How.COPY_SEND:
            self._know(step.task, step.port).send(BODY, rights=rights, timeout=0)
            return
        port, task = self._ports[step.port], self._tasks[step.task]
        once = step.how is How.MOVE_SEND_ONCE
        right = port.right.make_send_once(task) if once else port.right.make_send(task)
        try:
            right.use_up(BODY, rights=rights, timeout=0)
        except MachError:
            self._discard(right, port)
            raise

    @staticmethod
    def _discard(right: SendRight | SendOnceRight, port: _Port) -> None:
        right.close()
        if isinstance(right, SendOnceRight):  # its port is told, by a message that is not ours
            port.waiting += 1
            port.received -= 1

    # --- rights that travel -----------------------------------------------------------------------

    def _carry(self, step: Step) -> None:
        """A message with rights in it, received at once."""
        port = self._ports[step.port]
        port.drain()
        moved = [self._ports[r.port] for r in step.riders if r.event == "move_recv"]
        for lent in moved:
            self._lend(lent, self._tasks[step.task])
        try:
            self._send(step, [self._boarded(step.task, rider) for rider in step.riders])
            for lent in moved:
                lent.hold(None)
            self._unload(port)
        finally:
            for lent in moved:
                self._bring_home(lent)

    def _boarded(self, task: int, rider: Rider) -> Carried:
        if rider.event == "copy_send":
            return self._know(task, rider.port).copy_send()
        return self._ports[rider.port].right.move_receive()

    @staticmethod
    def _unload(port: _Port) -> None:
        """Receive one message and drop the rights in it."""
        port.waiting += 1
        try:
            with port.right.receive(timeout=0):
                port.received += 1
        except AccessDenied as refusal:
            if refusal.code == mach.MACH_RCV_INVALID_NAME:
                raise
        port.waiting -= 1

    def _extract(self, task: int, rider: Rider) -> None:
        """Copy or move a right out of the task's own space: an event without a message."""
        if rider.event == "copy_send":
            right = self._know(task, rider.port)
            SendRight(right.task, self._pulled(right, Disposition.COPY_SEND)).close()
            return
        port = self._ports[rider.port]
        self._lend(port, self._tasks[task])
        try:
            port.hold(
                ReceiveRight(port.right.task, self._pulled(port.right, Disposition.MOVE_RECEIVE))
            )
        finally:
            self._bring_home(port)

    @staticmethod
    def _pulled(right: SendRight | ReceiveRight, disposition: Disposition) -> int:
        name, _ = mach.mach_port_extract_right(right.task, right.name, disposition)
        return name

    def _lend(self, port: _Port, task: Task) -> None:
        """Let `task` hold the receive right, and have it come home when it is destroyed."""
        if port.right.task is not task:
            self._will_go_to(port, task)
            port.right.close()
            port.hold(self._arrived(task))
        self._will_go_to(port, port.home)

    def _will_go_to(self, port: _Port, task: Task) -> None:
        notify = self._mailboxes[task]
        port.right.request_notification(Notification.PORT_DESTROYED, notify, caller=task)

    def _bring_home(self, port: _Port) -> None:
        """Destroy the receive right if it never left; in any case take it from the notification."""
        if not port.travels:
            port.right.close()
        port.hold(self._arrived(port.home))

    def _arrived(self, task: Task) -> ReceiveRight | None:
        """The receive right that a port-destroyed notification brought to `task`."""
        found: ReceiveRight | None = None
        try:
            while True:
                for right in self._mailboxes[task].receive(timeout=0).rights:
                    if isinstance(right, ReceiveRight):
                        found = right
        except (AccessDenied, TimedOut):
            return found


def replay(
    plan: Plan,
    *,
    policies: Sequence[PolicyModule] = (),
    labels: Labels | None = None,
    rounds: int = 1,
    pairs: int = 0,
    advance: Callable[[int], object] | None = None,
) -> Report:
    """Run `plan` and report on the last round.

    Args:
        plan, policies, labels: as for `System`.
        rounds: how often to run it.
        pairs: rounds with and without the policies, to measure what the checks cost; 0 for none.
        advance: called now and then with the number of things done since.
    """
    with System(plan, policies=policies, labels=labels) as system:
        done = [system.round(advance) for _ in range(rounds)]
        report = Report(
            plan=plan,
            recorded=system.kernel.trace.records(),
            lost=system.kernel.trace.lost,
            messages=done[-1].messages,
            seconds=[one.seconds for one in done],
            denied=system.denials(),
            check_cost=None,
            checked=bool(policies),
        )
    if not (policies and pairs):
        return report
    steps = [step for at, step in enumerate(plan.steps) if at not in done[-1].refused]
    allowed = plan._replace(steps=steps)
    return report._replace(check_cost=_check_cost(allowed, policies, labels, pairs, advance))


def _check_cost(
    plan: Plan,
    policies: Sequence[PolicyModule],
    labels: Labels | None,
    pairs: int,
    advance: Callable[[int], object] | None,
) -> float:
    """Time with the policies over time without: the median of paired rounds, in turn.

    The first pair warms up and is not counted; each next one starts with the other of the two.
    """
    with System(plan, policies=policies, labels=labels) as checked, System(plan) as unchecked:
        order, ratios = [checked, unchecked], []
        for _ in range(pairs + 1):
            seconds = {system: system.round(advance).seconds for system in order}
            ratios.append(seconds[checked] / seconds[unchecked])
            order.reverse()
    return statistics.median(ratios[1:])
