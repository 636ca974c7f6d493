# SPDX-License-Identifier: BSD-2-Clause
"""A recorded system, rebuilt in a kernel of its own and run again.

Tasks get their rights by calls of the owners (insert_right), which are no messages, so that of
SEDarwin's three events only the recorded ones happen. A receive right that was sent away is
destroyed where it arrived and comes back by port-destroyed: the kernel's own messages are neither
checked nor traced.

Whatever a policy refuses, every operation is tried that still can be: what a refusal leaves in the
wrong place is put right by the replay itself, which is not asked. So an operation is refused for
what it needs itself, and `operations` says what follows it in its step.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import mach
from ..enums import AuditFlag, Disposition, Notification
from ..errors import AccessDenied, MachError, TimedOut
from ..kernel import Kernel
from ..message import Carried
from ..policy import PolicyModule
from ..policy.reasons import together
from ..port import ReceiveRight, SendOnceRight, SendRight
from ..task import Task
from .labels import Labels
from .operations import introductions, operations
from .plan import How, Plan, Port, Rider, Step
from .report import Denial, Report

if TYPE_CHECKING:
    from ..audit import Batch

BODY = bytes(64)
#: Steps between two looks at the audit ring, which has room for the denials of so many.
_CHUNK = 512
#: Room in the queue of a port that is refused to its receiver: it has to be emptied less often.
_ROOM = 1024
#: What makes denials the same: fields of an audit record.
_SAME = ["effective_sid", "object_sid", "tclass", "denied"]

_Act = Callable[[], object]


class _Impossible(Exception):
    """A step cannot be tried, because of something that was refused before."""


class Round(NamedTuple):
    """One run of the plan.

    Attributes:
        seconds: how long it took.
        messages: how many were received.
        refused: the steps that could not be done, by their place in the plan.
        not_performed: operations that could not be tried because others were refused.
    """

    seconds: float
    messages: int
    refused: frozenset[int]
    not_performed: int


class _Port:
    """A recorded port: who holds its receive right, and what waits in its queue.

    Attributes:
        waiting: messages in the queue, with the kernel's.
        received: messages that were received, without the kernel's.
        notices: of those waiting, the kernel's about send-once rights that were not used.
        refused_notices: how many of the kernel's were refused to the receiver.
        kept: messages still in the queue that were refused to the receiver.
    """

    def __init__(self, right: ReceiveRight) -> None:
        self.home = right.task
        self.limit = right.qlimit
        self.waiting = self.received = self.notices = self.refused_notices = self.kept = 0
        self.hold(right)

    def hold(self, right: ReceiveRight) -> None:
        """The receive right is this one now."""
        self.right = right
        self.receive = right.receiver(timeout=0)

    def drain(self) -> None:
        """Try to receive each message that waits; one that may not be received at all is kept."""
        for _ in range(self.waiting):
            try:
                self.receive()
                self.received += 1
            except AccessDenied as refusal:
                self.kept += refusal.code == mach.MACH_RCV_INVALID_NAME
        self.waiting = 0
        if self.kept:
            self.refused_notices += self.notices
        else:
            self.received -= self.notices
        self.notices = 0


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
        clock: the kernel's.
    """

    def __init__(
        self, plan: Plan, *, policies: Sequence[PolicyModule] = (), labels: Labels | None = None,
        clock: str = "coarse",
    ) -> None:  # fmt: skip
        self.plan = plan
        self._labels = (labels or Labels()) if policies else None
        self._known: dict[tuple[int, int], SendRight] = {}
        self._done = 0  # operations of this round, but for what the fast path and receiving count
        self._denied: Counter[tuple[int, int, int, int]] = Counter()
        paths = _most_paths(plan)
        self.kernel = Kernel(policies=list(policies), trace_paths=paths, clock=clock)
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
        self.kernel.audit.when_full = "block"  # denials are counted from what is recorded
        self.kernel.audit.keeps = True  # and sinks may be there as well
        self._pairs = introductions(self.plan)
        self._acts = self._bind(self.plan.steps)
        self._quick = np.array([not s.riders and s.how is How.COPY_SEND for s in self.plan.steps])
        self._planned = len(self._pairs) + self._operations()

    def _operations(self) -> int:
        """How many there are in all steps; equal steps without riders are one object."""
        times = Counter(map(id, self.plan.steps))
        steps = {id(step): step for step in self.plan.steps}
        return sum(n * len(operations(self.plan, steps[key])) for key, n in times.items())

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
        """Give tasks the send rights they will copy. What is refused is asked for once a round."""
        for task, port in self._pairs:
            if (task, port) not in self._known:
                try:
                    right = self._ports[port].right.make_send(self._tasks[task])
                except AccessDenied:
                    continue
                self._known[task, port] = right

    def _standing(self, task: int, port: int) -> SendRight:
        """The task's standing send right to the port."""
        try:
            return self._known[task, port]
        except KeyError:
            raise _Impossible from None

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
        self._done = 0
        for port in self._ports:
            port.received = port.refused_notices = 0
        self._introduce()
        self.kernel.trace.reset()
        self.kernel.trace.start()
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
        messages = sum(port.received for port in self._ports)
        left = self._left(refused, messages)
        return Round(seconds, messages, frozenset(refused), left)

    def _left(self, refused: list[int], messages: int) -> int:
        """How many operations were neither done nor refused in this round."""
        sent = int(self._quick.sum() - self._quick[refused].sum()) if len(self._quick) else 0
        done = len(self._known) + self._done + sent + messages
        notices = sum(port.refused_notices for port in self._ports)
        return self._planned + notices - done - self._denied.total()

    def _chunks(self) -> Iterator[tuple[int, list[_Act]]]:
        """All there is to do, and at the end what is left in the queues to receive."""
        drains: list[_Act] = [partial(self._drain, port) for port in self._ports]
        acts = self._acts + drains
        return ((at, acts[at : at + _CHUNK]) for at in range(0, len(acts), _CHUNK))

    @staticmethod
    def _run(acts: list[_Act], first: int) -> list[int]:
        """Do all of `acts`; return which were refused, counted from `first`."""
        refused = []
        for at, act in enumerate(acts, first):
            try:
                act()
            except (AccessDenied, _Impossible):
                refused.append(at)
        return refused

    def _note_denials(self) -> None:
        records = self.kernel.audit.drain()
        refused = (records["denied"] != 0) & (records["flags"] & AuditFlag.PERMISSIVE == 0)
        kinds, counts = np.unique(records[refused][_SAME], return_counts=True)
        self._denied.update(dict(zip(kinds.tolist(), counts.tolist(), strict=True)))

    def denials(self) -> list[Denial]:
        """What the last round was refused, most frequent first, with the policy's reason."""
        return [self._denial(times, *kind) for kind, times in self._denied.most_common()]

    def _denial(self, times: int, subject: int, target: int, tclass: int, denied: int) -> Denial:
        kind = self.kernel.object_class(tclass)
        names = kind.names(denied)
        labels = self.kernel.label(subject), self.kernel.label(target)
        said = ((name, self.kernel.explain(*labels, kind.name, name)) for name in names)
        reasons = together((name, text.splitlines()[1:]) for name, text in said)
        reason = "; ".join(line.strip() for line in reasons)
        return Denial(times, labels[0], " ".join(names), labels[1], reason, kind.name)

    def _copier(self, step: Step) -> _Act:
        """A message by COPY_SEND: most of any recording, so with nothing in between."""
        port = self._ports[step.port]
        send: Callable[[bytes], None] | None = None

        def act() -> None:
            nonlocal send
            if port.waiting >= port.limit:
                self._drain(port)
            if send is None:
                send = self._standing(step.task, step.port).sender(timeout=0)
            send(BODY)
            port.waiting += 1

        return act

    def _post(self, step: Step) -> None:
        port = self._ports[step.port]
        if port.waiting >= port.limit:
            self._drain(port)
        self._send(step)
        port.waiting += 1

    def _send(self, step: Step, rights: Sequence[Carried] = ()) -> None:
        """Send by the right that the step says, made by the port's owner if it is for once."""
        if step.how is How.COPY_SEND:
            self._standing(step.task, step.port).send(BODY, rights=rights, timeout=0)
            self._done += 1
            return
        port, task = self._ports[step.port], self._tasks[step.task]
        once = step.how is How.MOVE_SEND_ONCE
        right = port.right.make_send_once(task) if once else port.right.make_send(task)
        self._done += 1
        try:
            right.use_up(BODY, rights=rights, timeout=0)
        except MachError:
            self._discard(right, port)
            raise
        self._done += 1

    @staticmethod
    def _discard(right: SendRight | SendOnceRight, port: _Port) -> None:
        right.close()
        if isinstance(right, SendOnceRight):  # its port is told, by a message that is not ours
            port.waiting += 1
            port.notices += 1

    def _drain(self, port: _Port) -> None:
        """Receive all that waits, and take away what the receiver may not."""
        port.drain()
        if port.kept:
            self._empty(port)

    def _empty(self, port: _Port) -> None:
        with self._unasked():
            while port.kept:
                port.receive()
                port.kept -= 1
            if port.limit < _ROOM:
                port.limit = port.right.qlimit = _ROOM

    @contextmanager
    def _unasked(self) -> Iterator[None]:
        """What is done in here is no part of the run: neither checked nor traced."""
        self.kernel.trace.stop()
        self.kernel.policies.permissive = True
        try:
            yield
        finally:
            self.kernel.policies.permissive = False
            self.kernel.trace.start()

    # --- rights that travel -----------------------------------------------------------------------

    def _carry(self, step: Step) -> None:
        """A message with rights in it, received at once."""
        port, task = self._ports[step.port], self._tasks[step.task]
        self._drain(port)
        for at in [r.port for r in step.riders if r.event == "copy_send"]:
            self._standing(step.task, at)
        if step.how is How.COPY_SEND:
            self._standing(step.task, step.port)
        with ExitStack() as lent:
            for rider in step.riders:
                if rider.event == "move_recv":
                    lent.enter_context(self._lent(self._ports[rider.port], task))
            self._send(step, [self._boarded(step.task, rider) for rider in step.riders])
            self._unload(port)

    def _boarded(self, task: int, rider: Rider) -> Carried:
        if rider.event == "copy_send":
            return self._standing(task, rider.port).copy_send()
        return self._ports[rider.port].right.move_receive()

    def _unload(self, port: _Port) -> None:
        """Receive one message and drop the rights in it."""
        try:
            with port.right.receive(timeout=0) as message:
                port.received += 1
                self._done += sum(right is not None for right in message.rights)
        except AccessDenied as refusal:
            port.kept = int(refusal.code == mach.MACH_RCV_INVALID_NAME)
            self._empty(port)
            raise

    def _extract(self, task: int, rider: Rider) -> None:
        """Copy or move a right out of the task's own space: an event without a message."""
        if rider.event == "copy_send":
            right = self._standing(task, rider.port)
            SendRight(right.task, self._pulled(right, Disposition.COPY_SEND)).close()
            return
        port = self._ports[rider.port]
        with self._lent(port, self._tasks[task]):
            name = self._pulled(port.right, Disposition.MOVE_RECEIVE)
            port.hold(ReceiveRight(port.right.task, name))

    def _pulled(self, right: SendRight | ReceiveRight, disposition: Disposition) -> int:
        name, _ = mach.mach_port_extract_right(right.task, right.name, disposition)
        self._done += 1
        return name

    @contextmanager
    def _lent(self, port: _Port, task: Task) -> Iterator[None]:
        """Let `task` hold the receive right, and have it come home at the end, in any case."""
        with self._put_back(port, task):
            if task is not port.home:
                self._will_go_to(port, task)
                port.right.close()
                self._fetch(port, task)
            self._will_go_to(port, port.home)
        try:
            yield
        finally:
            with self._put_back(port, task):
                port.right.close()
                self._fetch(port, port.home)

    @contextmanager
    def _put_back(self, port: _Port, task: Task) -> Iterator[None]:
        """If something in here is refused, put the receive right where it belongs."""
        try:
            yield
        except (AccessDenied, _Impossible):
            self._recover(port, task)
            raise

    def _will_go_to(self, port: _Port, task: Task) -> None:
        notify = self._mailboxes[task]
        port.right.request_notification(Notification.PORT_DESTROYED, notify, caller=task)
        self._done += 1

    def _fetch(self, port: _Port, task: Task) -> None:
        """The receive right comes to `task` by a port-destroyed notification."""
        if not self._arrived(port, task):
            raise _Impossible
        self._done += 1

    def _arrived(self, port: _Port, task: Task) -> bool:
        found = False
        try:
            while True:
                for right in self._mailboxes[task].receive(timeout=0).rights:
                    if isinstance(right, ReceiveRight):
                        port.hold(right)
                        found = True
        except TimedOut:
            return found

    def _recover(self, port: _Port, task: Task) -> None:
        """The receive right goes home from wherever a refusal left it."""
        with self._unasked():
            self._arrived(port, task)
            self._arrived(port, port.home)
            if port.right.task is not port.home:
                port.hold(port.right.move_receive(port.home))


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
            not_performed=done[-1].not_performed,
            check_cost=None,
            checked=bool(policies),
        )
    if not (policies and pairs):
        return report
    steps = [step for at, step in enumerate(plan.steps) if at not in done[-1].refused]
    allowed = plan._replace(steps=steps)
    return report._replace(check_cost=_check_cost(allowed, policies, labels, pairs, advance))


def record(
    plan: Plan, sink: Callable[[Batch], object], *, policies: Sequence[PolicyModule] = (),
    labels: Labels | None = None, advance: Callable[[int], object] | None = None,
) -> None:  # fmt: skip
    """Run `plan` once in a kernel of its own, with every operation recorded, at its exact time.

    What the run itself does is in it, with the handing over of rights before it; making tasks and
    ports is not.

    Args:
        sink: gets the records; it is closed at the end, if it can be.
        plan, policies, labels, advance: as for `replay`.

    Raises:
        Exception: what the sink raised; the recording is not whole then.
    """
    kept = _Kept(sink)
    with System(plan, policies=policies, labels=labels, clock="exact") as system:
        system.kernel.audit.drain()  # what making the system left there
        system.kernel.audit.everything()
        system.kernel.audit.attach(kept)
        system.round(advance)
    kept.finish()


class _Kept:
    """Stands between a kernel and a sink: what the sink raises is raised at the end."""

    when_full = "block"

    def __init__(self, sink: Callable[[Batch], object]) -> None:
        self._sink = sink
        self._error: Exception | None = None

    def __call__(self, batch: Batch) -> None:
        if self._error is None:
            try:
                self._sink(batch)
            except Exception as error:
                self._error = error

    def finish(self) -> None:
        try:
            getattr(self._sink, "close", lambda: None)()
        finally:
            if self._error is not None:
                raise self._error


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
