# SPDX-License-Identifier: BSD-2-Clause
"""What else passes messages in one process, or decides who may do what; where it is installed.

A message is 64 bytes, put in and taken out in one thread. A check is one of a hundred rules' own
questions, each in turn. What is not installed is skipped, saying so.
"""

from __future__ import annotations

import collections
import queue
import socket
from collections.abc import Callable, Generator, Sequence
from importlib import import_module
from itertools import cycle, islice, repeat
from time import thread_time_ns
from typing import Any

from ..enums import CLASSES
from ..policy import TypeEnforcement, sepol
from .harness import Skip, Timed

BODY = b"as long as a message of the budget: sixty-four bytes, all told.\0"
RULES = 100


def installed(module: str, name: str) -> Any:
    """Return a module.

    Raises:
        Skip: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise Skip(f"{name} is not installed: pip install 'pympi-mach[bench]'") from None


# ---- messages ----


def pairs(put: Callable[[bytes], object], get: Callable[[], object]) -> Timed:
    """Return something that puts a message in and takes one out."""

    def run(count: int) -> float:
        start = thread_time_ns()
        for _ in repeat(None, count):
            put(BODY)
            get()
        return thread_time_ns() - start

    return run


def deque() -> Timed:
    """Return append and popleft of a collections.deque: the floor of what Python can do."""
    container: collections.deque[bytes] = collections.deque()
    return pairs(container.append, container.popleft)


def simple_queue() -> Timed:
    """Return put and get of a queue.SimpleQueue."""
    container: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    return pairs(container.put, container.get)


def queue_queue() -> Timed:
    """Return put and get of a queue.Queue."""
    container: queue.Queue[bytes] = queue.Queue()
    return pairs(container.put, container.get)


def zeromq() -> Timed:
    """Return send and recv of a PAIR of pyzmq's sockets, inproc."""
    zmq = installed("zmq", "pyzmq")
    context = zmq.Context()
    server, client = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    server.bind("inproc://pair")
    client.connect("inproc://pair")
    return pairs(client.send, server.recv)


def simpy_store() -> Timed:
    """Return put and get of a simpy.Store, by one process."""
    simpy = installed("simpy", "SimPy")
    environment = simpy.Environment()
    container = simpy.Store(environment)

    def process(count: int) -> Generator[Any, Any, None]:
        for _ in range(count):
            yield container.put(BODY)
            yield container.get()

    def run(count: int) -> float:
        start = thread_time_ns()
        environment.run(environment.process(process(count)))
        return thread_time_ns() - start

    return run


def socketpair() -> Timed:
    """Return send and recv of a pair of sockets that keep messages apart."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    receive = theirs.recv

    def get() -> bytes:
        return receive(len(BODY))

    return pairs(ours.send, get)


QUEUES: dict[str, tuple[str, Callable[[], Timed]]] = {
    "deque": ("collections.deque", deque),
    "simplequeue": ("queue.SimpleQueue", simple_queue),
    "queue": ("queue.Queue", queue_queue),
    "zeromq": ("pyzmq inproc", zeromq),
    "simpy": ("SimPy Store", simpy_store),
    "socketpair": ("a socketpair", socketpair),
}


# ---- decisions ----


def questions(check: Callable[..., object], asked: Sequence[tuple[Any, ...]]) -> Timed:
    """Return something that asks questions in turn, all of which are to be allowed."""
    if not all(check(*question) for question in asked):
        raise RuntimeError("a rule's own question is refused")
    turns = cycle(asked)

    def run(count: int) -> float:
        start = thread_time_ns()
        for question in islice(turns, count):
            check(*question)
        return thread_time_ns() - start

    return run


def table() -> Timed:
    """Return a look-up in a dict, in a function: the floor of what Python can do."""
    allowed = {(f"s{n}", f"o{n}"): {"send"} for n in range(RULES)}

    def check(subject: str, thing: str, action: str) -> bool:
        return action in allowed.get((subject, thing), ())

    return questions(check, [(f"s{n}", f"o{n}", "send") for n in range(RULES)])


MODEL = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act
"""


def casbin_enforce() -> Timed:
    """Return casbin's enforce, with a hundred rules."""
    casbin = installed("casbin", "casbin")
    model = casbin.Model()
    model.load_model_from_text(MODEL)
    enforcer = casbin.Enforcer(model)
    for number in range(RULES):
        enforcer.add_policy(f"s{number}", f"o{number}", "send")
    return questions(enforcer.enforce, [(f"s{n}", f"o{n}", "send") for n in range(RULES)])


def cedar() -> Timed:
    """Return cedarpy's is_authorized, with a hundred policies."""
    cedarpy = installed("cedarpy", "cedarpy")
    text = "\n".join(
        f'permit(principal == U::"s{n}", action == Action::"send", resource == P::"o{n}");'
        for n in range(RULES)
    )
    policies = cedarpy.PolicySet.from_str(text) if hasattr(cedarpy, "PolicySet") else text

    def check(number: int) -> bool:
        request = {
            "principal": f'U::"s{number}"', "action": 'Action::"send"',
            "resource": f'P::"o{number}"', "context": {},
        }  # fmt: skip
        return bool(cedarpy.is_authorized(request, policies, []).allowed)

    return questions(check, [(number,) for number in range(RULES)])


def libsepol() -> Timed:
    """Return libsepol's decisions as te asks for them, with a hundred rules.

    Raises:
        Skip: pympi was built without it.
    """
    if not sepol.AVAILABLE:
        raise Skip("pympi was built without libsepol")
    users = "(user user_u)(role user_r)(userrole user_u user_r)"
    lines = [
        f"(type s{n})(type o{n})(roletype user_r s{n})(roletype user_r o{n})"
        f"(allow s{n} o{n} (mach_port (send)))"
        for n in range(RULES)
    ]
    te = TypeEnforcement.from_text("\n".join([users, *lines]), backend="libsepol")
    decide, tclass, send = te.decide, CLASSES["mach_port"], CLASSES["mach_port"].mask("send")

    def check(source: str, target: str) -> bool:
        return bool(decide(source, target, tclass).allowed & send)

    label = "user_u:user_r:{}{}".format
    return questions(
        check, [(te.parse(label("s", n)), te.parse(label("o", n))) for n in range(RULES)]
    )


JUDGES: dict[str, tuple[str, Callable[[], Timed]]] = {
    "dict": ("a dict in a function", table),
    "casbin": ("casbin enforce", casbin_enforce),
    "cedarpy": ("cedarpy is_authorized", cedar),
    "libsepol": ("libsepol, through te", libsepol),
}
