# SPDX-License-Identifier: BSD-2-Clause
"""The operation table: what a random run may do, and how arguments for it are drawn.

An operation is drawn looking at the model only, so a seed gives the same steps whatever the core
answers. Names appear in steps as `Ref`, the n-th name that came to a task in some earlier step;
a step therefore means the same after other steps have been taken away.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import mach_numbers as m
from model import ASKED_OF_SPACE, Entry, Name, Port, PortSet, Task
from wire import GUARDED, MEMORY, PORT, PORTS, RAW, VOLATILE, Arrived, Letter, decode
from worlds import ModelWorld, Refused, World

T = TypeVar("T")

TASKS_MAX = 5
NAMES_MAX = 48
GARBAGE = (0x4203, 0xFFFF03, 0x7FFFFFFF, 0x80000003, 1, 3, 0x100)
PORT_TYPES = m.TYPE_SEND | m.TYPE_RECEIVE | m.TYPE_SEND_ONCE
ANY_TYPE = PORT_TYPES | m.TYPE_PORT_SET | m.TYPE_DEAD_NAME
LABELS = ("a", "b", "c", "d")
ADDRESSED = {MEMORY, VOLATILE, PORTS}  # items that are an address of something


class Draw(Protocol):
    """Where choices come from: a seeded generator, or Hypothesis."""

    def below(self, bound: int) -> int:
        """An integer from 0 to bound - 1."""
        ...


class Seeded:
    """Choices of a seeded generator."""

    def __init__(self, seed: int | str) -> None:
        self.random = random.Random(seed)

    def below(self, bound: int) -> int:
        return int(self.random.random() * bound)


class Ref(NamedTuple):
    """The name that came to `task` as the `place`-th new name of step `step`."""

    task: int
    step: int
    place: int


class Step(NamedTuple):
    """One thing to do. `task` is the number of the step that created the acting task."""

    number: int
    operation: str
    task: int
    arguments: tuple[Any, ...]


class Scene:
    """A model and a world that go through the same steps."""

    def __init__(self, model: ModelWorld, other: World | None = None) -> None:
        self.worlds: list[World] = [model] if other is None else [model, other]
        self.tasks: dict[int, list[Any]] = {}
        self.names: dict[Ref, int] = {}
        self.refs: dict[tuple[int, int], Ref] = {}
        self.dead_refs: list[Ref] = []
        self.arrivals: list[tuple[Task, int]] = []
        self.model = model.model
        self.model.added = self.arrivals

    # ---- drawing ----------------------------------------------------------------------

    def table(self, task: int) -> dict[int, Entry]:
        """The names of a task, as the model sees them."""
        table: dict[int, Entry] = self.tasks[task][0].table
        return table

    def names_of(self, task: int, types: int) -> list[int]:
        return [name for name, entry in self.table(task).items() if entry.types & types]

    def ref(self, task: int, name: int) -> Ref | int:
        return self.refs.get((task, name), name)

    # ---- doing ------------------------------------------------------------------------

    def resolve(self, argument: Any) -> Any:
        """The argument with every `Ref` replaced by the name it stands for."""
        if isinstance(argument, Ref):
            return self.names.get(argument, GARBAGE[0])
        if isinstance(argument, Letter):
            return Letter(*(self.resolve(each) for each in argument))
        if isinstance(argument, Name):
            return Name(*(self.resolve(each) for each in argument))
        if isinstance(argument, tuple):
            return tuple(self.resolve(each) for each in argument)
        return argument

    def perform(self, step: Step) -> list[Any]:
        """Does the step in every world; the outcomes, which ought to be equal.

        None at all if the acting task is gone, as it may be after other steps were taken away.
        """
        orphan = step.operation == "create_task" and not step.arguments[2]
        if step.task not in self.tasks and not orphan:
            return []
        outcomes = [self.outcome(step, place) for place in range(len(self.worlds))]
        self.note_arrivals(step.number)
        return outcomes

    def outcome(self, step: Step, place: int) -> Any:
        """What the step does in one world."""
        arguments = self.resolve(step.arguments)
        try:
            return OPERATIONS[step.operation].run(self, place, step, arguments)
        except Refused as refusal:
            return "refused", refusal.code

    def perform_short(self, step: Step, at: int) -> list[Any]:
        """Does the step with the at-th allocation of the core failing.

        No outcomes if it was refused for that: then nothing may have changed. Steps are left alone
        that hand memory out, where Mach has codes for half a success.
        """
        if step.task not in self.tasks or step.operation not in UNDONE or self.hands_out(step):
            return self.perform(step)
        self.worlds[1].fault = at
        outcome = self.outcome(step, 1)
        self.worlds[1].fault = 0
        if outcome in SHORTAGES:
            return []
        if self.came_back_as_sent(step, outcome):
            return self.perform(step) if gives_receive(outcome[1]) else []
        outcomes = [self.outcome(step, 0), outcome]
        self.note_arrivals(step.number)
        return outcomes

    def came_back_as_sent(self, step: Step, outcome: Any) -> bool:
        """Was there no memory to hand a message back? Then it still says what was to be sent."""
        if step.operation not in ("send", "send_bytes") or outcome[0] != m.SEND_TIMED_OUT:
            return False
        letter = self.resolve(step.arguments[0])
        sent = letter.encode(lambda data: 0) if isinstance(letter, Letter) else letter
        return bool(outcome[1] == decode(sent, lambda address, size: bytes(size)))

    def hands_out(self, step: Step) -> bool:
        """May this step have to find memory for what is received or handed back?"""
        letters = [each for each in step.arguments if isinstance(each, Letter)]
        kinds = {item[0] for letter in letters for item in letter.items}
        entries = self.table(step.task).values() if step.operation == "receive" else ()
        ports = [entry.object for entry in entries if isinstance(entry.object, Port)]
        waiting = any(kmsg.has_memory() for port in ports for kmsg in port.queue)
        return waiting or bool(ADDRESSED & kinds)

    def note_arrivals(self, number: int) -> None:
        """Gives a `Ref` to every name that came into being in this step."""
        if not self.arrivals:
            return
        keys = {id(handles[0]): key for key, handles in self.tasks.items()}
        for place, (task, name) in enumerate(self.arrivals):
            key = keys.get(id(task))
            if key is not None:
                ref = Ref(key, number, place)
                self.names[ref] = name
                self.refs[key, name] = ref
                self.dead_refs = [*self.dead_refs[-40:], ref]
        self.arrivals.clear()


# ---- generators ------------------------------------------------------------------------------


class Chooser:
    """Draws the arguments of one step."""

    def __init__(self, scene: Scene, draw: Draw, task: int) -> None:
        self.scene, self.draw, self.task = scene, draw, task

    def chance(self, percent: int) -> bool:
        return self.draw.below(100) < percent

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.draw.below(len(choices))]

    def held(self, types: int) -> int | Ref:
        """A name the task holds, of one of these types if there is one."""
        scene = self.scene
        names = scene.names_of(self.task, types) or scene.names_of(self.task, ANY_TYPE)
        return scene.ref(self.task, self.pick(names)) if names else GARBAGE[0]

    def name(self, types: int) -> int | Ref:
        """Mostly a name of these types; else of other types, stale, null, dead or garbage."""
        kind = self.draw.below(100)
        if kind < 82:
            return self.held(types)
        if kind < 90:
            return self.held(ANY_TYPE)
        if kind < 95:
            return self.pick(self.scene.dead_refs) if self.scene.dead_refs else m.NULL
        return self.pick((m.NULL, m.DEAD, self.pick(GARBAGE)))

    def value(self, name: int | Ref) -> Entry | None:
        resolved = self.scene.resolve(name)
        return self.scene.table(self.task).get(resolved)

    def disposition(self, name: int | Ref, moves: int = 25) -> int:
        """A disposition that fits the name, usually."""
        entry = self.value(name)
        types = entry.types if entry and not self.chance(6) else 0
        fits = [m.MAKE_SEND, m.MAKE_SEND_ONCE] * bool(types & m.TYPE_RECEIVE)
        fits += [m.COPY_SEND, m.MOVE_SEND] * bool(types & (m.TYPE_SEND | m.TYPE_DEAD_NAME))
        fits += [m.MOVE_SEND_ONCE] * bool(types & m.TYPE_SEND_ONCE)
        if types & m.TYPE_RECEIVE and self.chance(moves):
            fits.append(m.MOVE_RECEIVE)
        return self.pick(fits or [*m.DISPOSITIONS, 0, 15, 22])

    def word(self) -> int:
        return self.pick((0, 1, 2, 5, 7, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))

    def guard(self) -> int:
        return self.pick((0, 1, 2, 0xDEAD_BEEF_0000_0001))

    def guarded(self) -> int | Ref:
        """A name to receive from, of a guarded port if there is one."""
        guarded = [
            name
            for name, entry in self.scene.table(self.task).items()
            if isinstance(entry.object, Port)
            and entry.types & m.TYPE_RECEIVE
            and entry.object.guarded
        ]
        if guarded and self.chance(60):
            return self.scene.ref(self.task, self.pick(guarded))
        return self.name(m.TYPE_RECEIVE)

    def guard_of(self, name: int | Ref) -> int:
        """The port's guard, usually."""
        entry = self.value(name)
        if entry and isinstance(entry.object, Port) and self.chance(70):
            return entry.object.context
        return self.guard()

    def right(self) -> int:
        return self.pick((0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 17))

    def right_of(self, name: int | Ref) -> int:
        """A right the name holds, usually."""
        entry = self.value(name)
        types = entry.types if entry and not self.chance(10) else 0
        held = [right for right in range(5) if types & 0x10000 << right]
        return self.pick(held) if held else self.right()

    def delta(self, right: int) -> int:
        if right in (m.RIGHT_SEND, m.RIGHT_DEAD_NAME):
            return self.pick((-1, 1, 1, -2, 3, 0, -65535, 65534, -(2**31), 2**31 - 1))
        return self.pick((-1, -1, -1, -1, 0, 1, -2))

    def other_task(self) -> int:
        return self.pick(list(self.scene.tasks))

    def as_task(self, task: int) -> Chooser:
        return Chooser(self.scene, self.draw, task)

    def data(self, length: int) -> bytes:
        return bytes(self.draw.below(256) for _ in range(length))

    def letter(self) -> Letter:
        """A message, now and then a broken one."""
        dest = self.name(PORT_TYPES)
        reply: int | Ref = 0
        reply_type = 0
        if self.chance(35):
            reply = dest if self.chance(10) else self.name(PORT_TYPES)
            reply_type = self.disposition(reply, moves=1)
        items = tuple(self.item() for _ in range(self.pick((0, 0, 0, 1, 1, 2, 3))))
        if any(item[0] == RAW for item in items):
            items = without_addresses(items)
        letter = Letter(
            dest,  # type: ignore[arg-type]
            self.disposition(dest, moves=1),
            reply,  # type: ignore[arg-type]
            reply_type,
            self.pick((0, 1, 100, 100, 101, 102, 103, -1, 2**31 - 1, -(2**31))),
            items,
            self.data(4 * self.draw.below(5)),
        )
        return self.broken(letter) if self.chance(4) else letter

    def broken(self, letter: Letter) -> Letter:
        how = self.draw.below(5)
        if how == 0:
            return letter._replace(cut=1 + self.draw.below(30))
        if how == 1:
            items = without_addresses(letter.items)
            return letter._replace(items=items, claimed=self.draw.below(6))
        if how == 2:
            return letter._replace(more_bits=1 << self.draw.below(32))
        if how == 3:
            return letter._replace(voucher=self.word())
        return letter._replace(voucher=self.word(), more_bits=self.pick((17, 19, 18)) << 16)

    def item(self) -> tuple[Any, ...]:
        kind = self.draw.below(100)
        if kind < 60:
            name = self.name(PORT_TYPES | m.TYPE_DEAD_NAME)
            return PORT, name, self.disposition(name)
        if kind < 75:
            memory = VOLATILE if self.chance(20) else MEMORY
            return memory, self.data(self.draw.below(9)), self.chance(50)
        if kind < 90:
            return self.ports()
        if kind < 98:
            name, flags = self.name(m.TYPE_RECEIVE), self.pick((0, 0, 1, 2))
            return GUARDED, name, m.MOVE_RECEIVE, self.guard_of(name), flags
        return RAW, self.raw()

    def raw(self) -> bytes:
        """A descriptor that nobody would write, of one of the types, or nearly."""
        type_ = self.draw.below(6)
        address = self.pick((0, 1, 0x103, 0xFFFFFFFF, 2**64 - 1))
        flags = self.pick((0, 1, 3, 4)), self.pick((0, 0, 1, 2))
        head = struct.pack("<QBB", address, *flags)
        head += bytes((self.pick((0, *m.DISPOSITIONS, 22)), type_))
        if type_ == m.DESCRIPTOR_PORT or self.chance(20):
            return head
        sizes = (0, 0, 1, m.MESSAGE_PORTS_MAX + 1, m.MESSAGE_MAX, m.MESSAGE_MAX + 1, 0xFFFFFFFF)
        return head + struct.pack("<I", self.pick(sizes))

    def ports(self) -> tuple[Any, ...]:
        """An array of port rights, all with the disposition of the first."""
        names = tuple(self.name(PORT_TYPES) for _ in range(self.draw.below(4)))
        disposition = self.disposition(names[0]) if names else m.COPY_SEND
        return PORTS, names, disposition, self.chance(50)

    def waiting(self) -> int | Ref:
        """A name to receive from, one with messages if there is one."""
        busy = [
            name
            for name, entry in self.scene.table(self.task).items()
            if isinstance(entry.object, Port)
            and entry.types & m.TYPE_RECEIVE
            and entry.object.queue
        ]
        sets = self.scene.names_of(self.task, m.TYPE_PORT_SET)
        if busy and self.chance(75):
            return self.scene.ref(self.task, self.pick(busy))
        if sets and self.chance(60):
            return self.scene.ref(self.task, self.pick(sets))
        return self.name(m.TYPE_RECEIVE | m.TYPE_PORT_SET)

    def receive_option(self) -> int:
        trailer = self.pick((0, 1, 2, 3, 4, 7)) if self.chance(95) else self.pick((5, 9, 0x10))
        option = trailer << 24 | m.OPTION_RCV_GUARDED_DESC * self.chance(80)
        if self.chance(30):
            option |= m.OPTION_RCV_LARGE
        if self.chance(30):
            option |= m.OPTION_RCV_LARGE_IDENTITY
        return option

    def receive_size(self) -> int:
        return 4096 if self.chance(90) else self.draw.below(80)


def gives_receive(message: Arrived) -> bool:
    """Does it carry a receive right? One that was taken and handed back looks as it was sent.

    It has lost its counts and guard, though. Doing it again comes to the same in either case.
    """
    kinds = (PORT, GUARDED)
    return any(item[0] in kinds and item[2] == m.MOVE_RECEIVE for item in message.items)


def without_addresses(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """What has no address in it: taken for something else, it would differ in each world."""
    return tuple(item for item in items if item[0] not in ADDRESSED)


Drawer = Callable[[Chooser], tuple[Any, ...]]
Runner = Callable[[Scene, int, Step, tuple[Any, ...]], Any]


class Operation(NamedTuple):
    """A line of the table."""

    weight: int
    draw: Drawer
    run: Runner


def mach_call(name: str) -> Runner:
    """An operation that is one Mach call of the acting task."""

    def run(scene: Scene, place: int, step: Step, arguments: tuple[Any, ...]) -> Any:
        world, task = scene.worlds[place], scene.tasks[step.task][place]
        return world.call(name, task, *arguments)

    return run


def mach_call_between(name: str) -> Runner:
    """A Mach call whose last argument is the number of the calling task."""

    def run(scene: Scene, place: int, step: Step, arguments: tuple[Any, ...]) -> Any:
        world, task = scene.worlds[place], scene.tasks[step.task][place]
        *rest, caller = arguments
        if caller not in scene.tasks:
            return None
        return world.call(name, task, *rest, caller=scene.tasks[caller][place])

    return run


def run_mach_msg(scene: Scene, place: int, step: Step, arguments: tuple[Any, ...]) -> Any:
    world, task = scene.worlds[place], scene.tasks[step.task][place]
    return world.mach_msg(task, *arguments)


def run_create_task(scene: Scene, place: int, step: Step, arguments: tuple[Any, ...]) -> Any:
    label, uid, child = arguments
    parent = scene.tasks[step.task][place] if child else None
    handle = scene.worlds[place].create_task(label, uid, parent)
    scene.tasks.setdefault(step.number, []).append(handle)


def run_reload(scene: Scene, place: int, _step: Step, arguments: tuple[Any, ...]) -> Any:
    scene.worlds[place].reload(*arguments)


def run_terminate(scene: Scene, place: int, step: Step, arguments: tuple[Any, ...]) -> Any:
    (caller,) = arguments
    if caller not in scene.tasks:
        return
    scene.worlds[place].terminate(scene.tasks[step.task][place], scene.tasks[caller][place])
    if place + 1 == len(scene.worlds):
        del scene.tasks[step.task]


def draw_create_task(c: Chooser) -> tuple[Any, ...]:
    child = c.chance(60)
    label = None if child and c.chance(50) else c.pick(LABELS)
    return label, c.draw.below(1000), child


def draw_with_caller(draw: Drawer) -> Drawer:
    """The arguments of a call, and who makes it."""
    return lambda c: (*draw(c), c.other_task())


def draw_peek(c: Chooser) -> tuple[Any, ...]:
    return c.waiting(), c.pick((0, 1, 2, 3, 3, 4, 9, 0x13)) << 24, c.pick((0, 0, 0, 1, 2, 3, 7))


def draw_assert(c: Chooser) -> tuple[Any, ...]:
    name = c.guarded()
    guard = c.guard_of(name)
    info = c.pick(((guard & 0xFFFFFFFF, guard >> 32),) * 5 + ((), (1,)))
    return name, c.pick((8, 8, 8, 2)), info


def draw_set_special(c: Chooser) -> tuple[Any, ...]:
    caller = c.other_task()
    which = c.pick((1, 2, 4, 4, 9, 0, 10))
    return which, c.as_task(caller).name(m.TYPE_SEND), caller


def draw_get_special(c: Chooser) -> tuple[Any, ...]:
    return c.pick((1, 2, 4, 4, 9, 0, 10)), c.other_task()


def draw_register(c: Chooser) -> tuple[Any, ...]:
    caller = c.other_task()
    giver = c.as_task(caller)
    return tuple(giver.name(m.TYPE_SEND) for _ in range(c.draw.below(5))), caller


def draw_request_by_other(c: Chooser) -> tuple[Any, ...]:
    """A request about a name of one task, to a port of another."""
    caller = c.other_task()
    name, id_, sync, _, _ = draw_request(c)
    notify = c.as_task(caller).name(m.TYPE_RECEIVE | m.TYPE_SEND_ONCE)
    return name, id_, sync, notify, c.pick((m.MAKE_SEND_ONCE, m.MOVE_SEND_ONCE)), caller


def draw_allocate(c: Chooser) -> tuple[Any, ...]:
    return (c.pick((1, 1, 1, 1, 1, 1, 3, 3, 4, 0, 2, 9)),)


def draw_allocate_name(c: Chooser) -> tuple[Any, ...]:
    index = c.pick((0, 5, 9, 20, 30, 31, 0xFFFFFF))
    low = c.pick((3, 7, 0x1B, 0xFF, 0, 1))
    return c.pick((1, 3, 4, 0)), c.name(ANY_TYPE) if c.chance(15) else index << 8 | low


def draw_construct(c: Chooser) -> tuple[Any, ...]:
    flags = c.pick((0, m.MPO_INSERT_SEND_RIGHT)) | c.pick((0, m.MPO_QLIMIT))
    flags |= c.pick((0, 0, m.MPO_CONTEXT_AS_GUARD, m.MPO_CONTEXT_AS_GUARD | m.MPO_STRICT))
    flags |= c.pick((0, 0, 0, m.MPO_IMMOVABLE_RECEIVE, m.MPO_TEMPOWNER))
    flags |= c.pick((0,) * 9 + (0x1000, 0x1000, 0x2000, 0x2000, 0x4000, 0x3000))
    return flags, c.pick((0, 1, 2, 1024, 1025)), c.guard()


def draw_mod_refs(c: Chooser) -> tuple[Any, ...]:
    name = c.name(ANY_TYPE)
    right = c.right_of(name)
    return name, right, c.delta(right)


def draw_destruct(c: Chooser) -> tuple[Any, ...]:
    name = c.name(m.TYPE_RECEIVE)
    return name, c.pick((0, 0, -1, -1, -2, 1, -(2**31))), c.guard_of(name)


def draw_insert_right(c: Chooser) -> tuple[Any, ...]:
    caller = c.task if c.chance(60) else c.other_task()
    giver = c.as_task(caller)
    poly = giver.name(PORT_TYPES)
    own = caller == c.task and c.chance(60)
    name = poly if own else c.name(PORT_TYPES) if c.chance(50) else c.draw.below(40) << 8 | 3
    return name, poly, giver.disposition(poly), caller


def draw_extract_right(c: Chooser) -> tuple[Any, ...]:
    name = c.name(PORT_TYPES)
    return name, c.disposition(name), c.task if c.chance(30) else c.other_task()


def draw_member(c: Chooser) -> tuple[Any, ...]:
    return c.name(m.TYPE_RECEIVE), c.name(m.TYPE_PORT_SET)


def draw_joined(c: Chooser) -> tuple[Any, ...]:
    """A port and a set it is in, usually."""
    sets = [
        (name, entry.object)
        for name, entry in c.scene.table(c.task).items()
        if isinstance(entry.object, PortSet)
    ]
    pairs = [(port.name, name) for name, pset in sets for port in pset.members]
    if not pairs or c.chance(40):
        return draw_member(c)
    return tuple(c.scene.ref(c.task, name) for name in c.pick(pairs))


def draw_move_member(c: Chooser) -> tuple[Any, ...]:
    name, after = draw_member(c)
    return name, m.NULL if c.chance(25) else after


def draw_guarded(c: Chooser) -> tuple[Any, ...]:
    name = c.guarded()
    return name, c.guard_of(name)


def draw_get_attributes(c: Chooser) -> tuple[Any, ...]:
    return c.name(m.TYPE_RECEIVE), c.pick((1, 2, 3, 7, 99))


def draw_set_attributes(c: Chooser) -> tuple[Any, ...]:
    limits = [(qlimit,) for qlimit in (0, 1, 2, 3, 5, 9, 1024, 1025, 0xFFFFFFFF)]
    flavor, info = c.pick(
        [(m.LIMITS_INFO, info) for info in (*limits, ())] + [(99, (1,)), (4, ()), (5, ())]
    )
    return c.name(m.TYPE_RECEIVE), flavor, info


def draw_request(c: Chooser) -> tuple[Any, ...]:
    id_ = c.pick((70, 70, 72, 72, 72, 66, 66, 69, 65, 71))
    receive = id_ in (m.NOTIFY_NO_SENDERS, m.NOTIFY_PORT_DESTROYED)
    name = c.name(m.TYPE_RECEIVE if receive else PORT_TYPES | m.TYPE_DEAD_NAME)
    notify = m.NULL if c.chance(10) else c.name(m.TYPE_RECEIVE | m.TYPE_SEND_ONCE)
    entry = c.value(notify)
    once = entry is not None and entry.types & m.TYPE_SEND_ONCE
    disposition = m.MOVE_SEND_ONCE if once else m.MAKE_SEND_ONCE
    return name, id_, c.pick((0, 0, 1, 2)), notify, c.pick((disposition,) * 20 + (17, 19, 0))


def draw_send(c: Chooser) -> tuple[Any, ...]:
    option = m.OPTION_SEND | (m.OPTION_SEND_NOTIFY if c.chance(15) else 0)
    return c.letter(), option


def draw_receive(c: Chooser) -> tuple[Any, ...]:
    return b"", m.OPTION_RCV | c.receive_option(), c.receive_size(), c.waiting()


def draw_send_receive(c: Chooser) -> tuple[Any, ...]:
    option = m.OPTION_SEND | m.OPTION_RCV | c.receive_option()
    return c.letter(), option, c.receive_size(), c.waiting()


def draw_short_send(c: Chooser) -> tuple[Any, ...]:
    id_ = c.pick((0, 100, 101, 102, 103))
    return c.name(m.TYPE_SEND | m.TYPE_SEND_ONCE), c.data(c.draw.below(9)), id_


def draw_short_receive(c: Chooser) -> tuple[Any, ...]:
    return c.waiting(), c.pick((0, 4, 8, 16, 100, 100, 100))


def draw_long_send(c: Chooser) -> tuple[Any, ...]:
    letter = c.letter()
    rights = tuple(item[1:3] for item in letter.items if item[0] == PORT)
    how = 0 if c.chance(60) else letter.dest_type
    dest, reply = Name(letter.dest, how), Name(letter.reply, letter.reply_type)
    return dest, reply, letter.id, rights, letter.data


def run_long_receive(scene: Scene, place: int, step: Step, arguments: tuple[Any, ...]) -> Any:
    """Without a policy labels mean nothing, so only whether there was a sender is compared."""
    found = list(mach_call("long_receive")(scene, place, step, arguments))
    if not scene.model.checked:
        found[5] = found[5] is not None
    return found


def draw_bytes(c: Chooser) -> tuple[Any, ...]:
    """Anything, or a good header before words that may be descriptors."""
    if c.chance(50):
        return c.data(c.draw.below(90)), m.OPTION_SEND
    dest = c.name(PORT_TYPES)
    words = b"".join(struct.pack("<I", c.word()) for _ in range(c.draw.below(6)))
    bits = c.pick((0, m.BITS_COMPLEX))
    letter = Letter(dest, c.disposition(dest, moves=1), data=words, more_bits=bits)  # type: ignore[arg-type]
    return letter, m.OPTION_SEND


def by_name(types: int) -> Drawer:
    return lambda c: (c.name(types),)


def by_receive(value: Callable[[Chooser], Any]) -> Drawer:
    return lambda c: (c.name(m.TYPE_RECEIVE), value(c))


def by_name_and_label(c: Chooser) -> tuple[Any, ...]:
    return c.name(PORT_TYPES), c.pick(LABELS)


def between(weight: int, call: str, draw: Drawer) -> tuple[str, Operation]:
    return call, Operation(weight, draw, mach_call_between(call))


def mach(weight: int, call: str, draw: Drawer) -> tuple[str, Operation]:
    return call, Operation(weight, draw, mach_call(f"mach_port_{call}"))


OPERATIONS: dict[str, Operation] = dict(
    [
        ("create_task", Operation(1, draw_create_task, run_create_task)),
        ("terminate", Operation(1, draw_with_caller(lambda c: ()), run_terminate)),
        mach(30, "allocate", draw_allocate),
        mach(6, "allocate_name", draw_allocate_name),
        mach(6, "construct", draw_construct),
        mach(1, "names", lambda c: ()),
        mach(6, "type", by_name(ANY_TYPE)),
        mach(6, "get_refs", lambda c: (c.name(ANY_TYPE), c.right())),
        mach(20, "mod_refs", draw_mod_refs),
        mach(12, "deallocate", by_name(ANY_TYPE)),
        mach(10, "destroy", by_name(ANY_TYPE)),
        mach(6, "destruct", draw_destruct),
        mach(6, "insert_member", draw_member),
        mach(4, "extract_member", draw_joined),
        mach(4, "move_member", draw_move_member),
        mach(3, "get_set_status", by_name(m.TYPE_PORT_SET)),
        mach(3, "get_attributes", draw_get_attributes),
        mach(8, "set_attributes", draw_set_attributes),
        mach(2, "set_mscount", by_receive(Chooser.word)),
        mach(2, "set_seqno", by_receive(Chooser.word)),
        mach(2, "get_context", by_name(m.TYPE_RECEIVE)),
        mach(2, "set_context", by_receive(Chooser.guard)),
        mach(3, "guard", lambda c: (c.name(m.TYPE_RECEIVE), c.guard(), c.chance(50))),
        mach(
            3,
            "guard_with_flags",
            lambda c: (c.name(m.TYPE_RECEIVE), c.guard(), c.pick((0, 1, 1, 2, 3, 4))),
        ),
        mach(4, "unguard", draw_guarded),
        mach(2, "swap_guard", lambda c: (*draw_guarded(c), c.guard())),
        mach(20, "request_notification", draw_request),
        mach(4, "peek", draw_peek),
        ("reload", Operation(2, lambda c: (c.draw.below(50),), run_reload)),
        ("serve", Operation(3, by_receive(lambda c: c.chance(60)), mach_call("serve"))),
        mach(2, "assert_attributes", draw_assert),
        between(4, "task_set_special_port", draw_set_special),
        between(4, "task_get_special_port", draw_get_special),
        between(2, "mach_ports_register", draw_register),
        between(2, "mach_ports_lookup", lambda c: (c.other_task(),)),
        between(2, "relabel_task", draw_with_caller(lambda c: (c.pick(LABELS),))),
        between(3, "relabel_port", draw_with_caller(by_name_and_label)),
        between(2, "mach_port_allocate", draw_with_caller(draw_allocate)),
        between(2, "mach_port_type", draw_with_caller(by_name(ANY_TYPE))),
        between(3, "mach_port_mod_refs", draw_with_caller(draw_mod_refs)),
        between(2, "mach_port_deallocate", draw_with_caller(by_name(ANY_TYPE))),
        between(2, "mach_port_destroy", draw_with_caller(by_name(ANY_TYPE))),
        between(2, "mach_port_get_attributes", draw_with_caller(draw_get_attributes)),
        between(2, "mach_port_set_attributes", draw_with_caller(draw_set_attributes)),
        between(4, "mach_port_request_notification", draw_request_by_other),
        (
            "insert_right",
            Operation(25, draw_insert_right, mach_call_between("mach_port_insert_right")),
        ),
        (
            "extract_right",
            Operation(15, draw_extract_right, mach_call_between("mach_port_extract_right")),
        ),
        ("send", Operation(70, draw_send, run_mach_msg)),
        ("receive", Operation(60, draw_receive, run_mach_msg)),
        ("send_receive", Operation(6, draw_send_receive, run_mach_msg)),
        ("short_send", Operation(40, draw_short_send, mach_call("short_send"))),
        ("short_receive", Operation(30, draw_short_receive, mach_call("short_receive"))),
        ("long_send", Operation(25, draw_long_send, mach_call("long_send"))),
        ("long_receive", Operation(25, lambda c: (c.waiting(),), run_long_receive)),
        ("send_bytes", Operation(2, draw_bytes, run_mach_msg)),
    ]
)
# The same by another task: whatever is asked of the one whose space is acted on.
OPERATIONS |= {
    call: Operation(1, draw_with_caller(OPERATIONS[plain].draw), mach_call_between(call))
    for call in ASKED_OF_SPACE
    if call not in OPERATIONS and (plain := call.removeprefix("mach_port_")) in OPERATIONS
}
# What an allocation that fails must undo, and the codes that say so.
UNDONE = set(OPERATIONS) - {"create_task", "terminate", "send_receive", "reload"}
SHORTAGES: list[Any] = [("refused", m.RESOURCE_SHORTAGE), (m.RESOURCE_SHORTAGE, None)]
NO_NAMES = m.RCV_HEADER_ERROR | m.IPC_SPACE
SHORTAGES += [("refused", NO_NAMES), (NO_NAMES, None)]
WHEEL = [name for name, operation in OPERATIONS.items() for _ in range(operation.weight)]
CROWDED = ("destroy", "deallocate", "mod_refs", "receive", "destruct")


def draw_step(scene: Scene, draw: Draw, number: int, operation: str | None = None) -> Step:
    """The next step: any, or one of this operation."""
    if not scene.tasks:
        return Step(number, "create_task", number, (LABELS[draw.below(len(LABELS))], 0, False))
    tasks = list(scene.tasks)
    task = tasks[draw.below(len(tasks))]
    chosen = operation or WHEEL[draw.below(len(WHEEL))]
    if operation is None and len(scene.table(task)) > NAMES_MAX and draw.below(2):
        chosen = CROWDED[draw.below(len(CROWDED))]
    if chosen == "create_task" and len(tasks) >= TASKS_MAX:
        chosen = "terminate"
    arguments = OPERATIONS[chosen].draw(Chooser(scene, draw, task))
    return Step(number, chosen, task, arguments)
