# SPDX-License-Identifier: BSD-2-Clause
"""What a replay does for each step of a plan, operation by operation, and what each is asked.

An operation is one call that is done whole or refused whole. Those of a step follow each other:
what is refused ends the step, but for the taking of rights, which are taken one by one, and for the
receive right that was lent, which comes home in any case. What asks nothing is no operation here:
closing a right, and what the kernel itself sends.

| step | its operations |
|---|---|
| message by COPY_SEND | send, receive |
| message by MOVE_SEND or MOVE_SEND_ONCE | obtain, send, receive |
| rights in a message | lend before it (a receive right); take after it (each); return |
| EXTRACT | extract; of a receive right: lend, extract, return |

To lend a receive right is: request, and where another task holds it before that request, fetch.

The standing send rights that tasks copy are introduced once, before the first step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .plan import How, Plan, Port, Rider, Step

__all__ = ["Ask", "Operation", "introductions", "mailbox", "operations"]


class Ask(NamedTuple):
    """One question: may the task `subject` do this to `object`, a port or the task of that name?"""

    subject: str
    object: Port | str
    tclass: str
    permission: str


class Operation(NamedTuple):
    """A call, and what it asks, in that order."""

    name: str
    asks: tuple[Ask, ...]


#: By which right a message goes: what its maker is asked, and what its taker, to obtain it.
_OBTAIN = {
    How.MOVE_SEND: ("make_send", "hold_send"),
    How.MOVE_SEND_ONCE: ("make_send_once", "hold_send_once"),
}
#: What the receiver of a right is asked, by the event of the one who gives it.
_TAKE = {"copy_send": "hold_send", "move_recv": "hold_recv"}


def mailbox(task: str) -> Port:
    """The port of a task's own to which receive rights come home; its number does not matter."""
    return Port(task, 0, 0)


def _port(subject: str, port: Port, *permissions: str) -> tuple[Ask, ...]:
    return tuple(Ask(subject, port, "mach_port", permission) for permission in permissions)


def _handed(name: str, giver: str, taker: str, port: Port, give: str, take: str) -> Operation:
    return Operation(name, _port(giver, port, give) + _port(taker, port, take))


def introductions(plan: Plan) -> list[tuple[int, int]]:
    """The pairs (task, port) that need a standing send right, in the order of the steps."""
    pairs: dict[tuple[int, int], None] = {}
    for step in dict.fromkeys(plan.steps):
        copied = [rider.port for rider in step.riders if rider.event == "copy_send"]
        for port in copied + [step.port] * (step.how is How.COPY_SEND):
            pairs[step.task, port] = None
    return list(pairs)


def introduction(plan: Plan, task: int, port: int) -> Operation:
    """How a task gets the standing send right to a port: its owner makes it one."""
    made = plan.ports[port]
    return _handed("introduce", made.owner, plan.tasks[task], made, "make_send", "hold_send")


def operations(plan: Plan, step: Step) -> list[Operation]:
    """What a step consists of, in order."""
    task = plan.tasks[step.task]
    lent = [plan.ports[rider.port] for rider in step.riders if rider.event == "move_recv"]
    main = _extract(plan, step) if step.how is How.EXTRACT else _message(plan, step)
    before = [operation for port in lent for operation in _lend(port, task)]
    return [*before, *main, *(_come(port.owner, "return") for port in lent)]


def _message(plan: Plan, step: Step) -> Iterator[Operation]:
    task, port = plan.tasks[step.task], plan.ports[step.port]
    if step.how in _OBTAIN:
        yield _handed("obtain", port.owner, task, port, *_OBTAIN[step.how])
    asks = _port(task, port, "send", step.how.value)
    if step.riders:
        asks += _port(task, port, "carry_rights")
    for rider in step.riders:
        asks += _port(task, plan.ports[rider.port], rider.event)
    yield Operation("send", asks)
    from_whom = Ask(port.owner, task, "mach_port", "recv")
    yield Operation("receive", (*_port(port.owner, port, "use_recv"), from_whom))
    for rider in step.riders:
        yield Operation("take", _port(port.owner, plan.ports[rider.port], _TAKE[rider.event]))


def _extract(plan: Plan, step: Step) -> Iterator[Operation]:
    rider: Rider
    (rider,) = step.riders
    task, port = plan.tasks[step.task], plan.ports[rider.port]
    yield _handed("extract", task, task, port, rider.event, _TAKE[rider.event])


def _lend(port: Port, task: str) -> Iterator[Operation]:
    """The task gets the receive right, and sees to it that it comes home when it is destroyed."""
    if task != port.owner:
        yield _request(port, task, held_by=port.owner)
        yield _come(task, "fetch")
    yield _request(port, port.owner, held_by=task)


def _request(port: Port, caller: str, held_by: str) -> Operation:
    """Ask for port-destroyed, which brings the receive right to the caller's mailbox."""
    asks = _port(caller, mailbox(caller), "make_send_once")
    asks += _port(caller, port, "request_notification", "move_recv")
    if caller != held_by:
        asks = (Ask(caller, held_by, "mach_task", "insert_right"), *asks)
    return Operation("request", asks)


def _come(task: str, name: str) -> Operation:
    return Operation(name, _port(task, mailbox(task), "use_recv"))
