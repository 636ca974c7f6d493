# SPDX-License-Identifier: BSD-2-Clause
"""The kernel: tasks, policies, audit and trace in one object, independent of any other.

Everything a kernel does is done in the thread that asks. It has one lock, in the core, which is
never held while Python code runs.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

from . import batch, decisions
from ._binding import adopt, borrow
from ._closing import Closing
from ._ffi import ffi, lib
from .clock import NS, SimulatedClock
from .decisions import AccessDecision
from .enums import ObjectClass, SpecialPort
from .errors import (
    AccessDenied,
    InvalidName,
    KernelClosed,
    VerifyError,
    check,
    exception,
)
from .interfaces import Declaration, Interfaces
from .label import EMPTY, choose
from .policy.base import PolicyModule
from .policy.engine import Policies
from .port import Right
from .survey import Survey, survey
from .task import Quota, Task

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt

    from .audit import Audit
    from .audit.watch import Watch
    from .bootstrap import Bootstrap, NameServer
    from .inspect import Context, ControlSocket, Snapshot
    from .inspect.server import Labels, Limits
    from .trace.live import Trace

__all__ = ["AccessDecision", "Kernel", "SimulatedClock"]

_log = logging.getLogger("pympi.kernel")

_CLOCKS = {None: lib.PM_CLOCK_COARSE, "coarse": lib.PM_CLOCK_COARSE, "exact": lib.PM_CLOCK_EXACT}
_VIOLATIONS = ("audit", "log", "raise")
_AUDIT_RECORDS = 16384


class _Borrowed:
    """A label's SID, for the time of a `with` block."""

    __slots__ = ("_kernel", "_sid")

    def __init__(self, kernel: Kernel, sid: int) -> None:
        self._kernel = kernel
        self._sid = sid

    def __enter__(self) -> int:
        return self._sid

    def __exit__(self, *_: object) -> None:
        if self._sid and not self._kernel.closed:
            lib.pm_sid_release(self._kernel._pointer, self._sid)


class Kernel(Closing):
    """A secured Mach IPC kernel.

    Args:
        policies: modules to put in force from the start.
        clock: "coarse" (the default) or "exact" real time, or a `SimulatedClock`.
        conceal_denials: raise for a denial what would be raised if there were no such right.
        guard_violations: "audit" records misuse of guarded ports and invalid names, "log" also
            logs it, "raise" raises `GuardViolation`.
        audit_full: what becomes of an operation that must be recorded and cannot be: "drop" counts
            the loss, "fail" fails it with `AuditFull`, "block" drains first, "abort" aborts.
        audit_records: room of the audit ring; 16384 unless said.
        avc_entries: decisions remembered; 8192 unless said.
        trace_paths: paths ipctrace can count; 65536 unless said.
        seed: of the kernel's hash tables; the same seed and calls give the same trace.

    Raises:
        MachError: KERN_INVALID_ARGUMENT for sizes out of range, KERN_RESOURCE_SHORTAGE.
        ValueError: an option that is not one of those above.

    Attributes:
        policies (Policies): the modules in force.
        audit (Audit): what is recorded, and the records.
        trace (Trace): who talks to whom.
        tasks (dict[int, Task]): the living tasks by number.
        simulated (bool): whether its time is that of a `SimulatedClock`.
        conceals_denials (bool), guard_violations (str): as given.
        bootstrap_contexts (Callable[[], Iterable[Context]] | None): what tells a snapshot of the
            name server's contexts; the name server sets it.
    """

    _pointer: Any = None
    _borrowed = False
    conceals_denials = False
    guard_violations = "audit"

    def __init__(
        self, policies: Iterable[PolicyModule] = (), *,
        clock: str | SimulatedClock | None = None, conceal_denials: bool = False,
        guard_violations: str = "audit", audit_full: str = "drop", audit_records: int = 0,
        avc_entries: int = 0, trace_paths: int = 0, seed: int = 0, fast_path: bool = True,
    ) -> None:  # fmt: skip
        simulated = isinstance(clock, SimulatedClock)
        if not simulated and clock not in _CLOCKS:
            raise ValueError(f"clock must be 'coarse', 'exact' or a SimulatedClock, not {clock!r}")
        if guard_violations not in _VIOLATIONS:
            raise ValueError(f"guard_violations must be one of {_VIOLATIONS}")
        config = ffi.new("struct pm_config *")
        config.avc_entries, config.audit_records = avc_entries, audit_records
        config.trace_paths, config.seed = trace_paths, seed
        config.no_fast_path = not fast_path
        config.clock = lib.PM_CLOCK_SIMULATED if simulated else _CLOCKS[clock]  # type: ignore[index]
        cell = ffi.new("struct pm_kernel **")
        check(lib.pm_kernel_create(config, cell), "Kernel()")
        self._take(cell, simulated, audit_records)
        self.conceals_denials = conceal_denials
        self.guard_violations = guard_violations
        try:
            self._begin(policies, clock, audit_full)
        except BaseException:
            self.close()
            raise

    @classmethod
    def borrow(
        cls, pointer: Any, policies: Iterable[PolicyModule] = (), *, simulated: bool = False,
        audit_records: int = 0,
    ) -> Kernel:  # fmt: skip
        """Return a kernel that somebody else made, in C or C++, and keeps open meanwhile.

        Who decided there goes on to, until `policies` changes: then these modules do, in the place
        of a decider in C. So it is with a drainer in C, from the first use of `audit` on. Closing
        this object ends the tasks that were made with it, and leaves the kernel. Modules that are
        in force then, and not unloaded, can be asked no more: everything is refused.

        Args:
            pointer: the `struct pm_kernel *`, or its address.
            policies: modules to put in force.
            simulated: whether it was made with PM_CLOCK_SIMULATED: no threads are made for it.
            audit_records: room of the audit ring that it was made with; 16384 unless said.

        Raises:
            ValueError: the null pointer.
            TypeError: no pointer to a kernel, nor an address.
        """
        cell = ffi.new("struct pm_kernel **", _pointer_to("struct pm_kernel *", pointer))
        kernel = cls.__new__(cls)
        kernel._borrowed = True
        kernel._take(cell, simulated, audit_records)
        try:
            kernel._begin(policies, None, "drop")
        except BaseException:
            kernel.close()
            raise
        return kernel

    def _take(self, cell: Any, simulated: bool, audit_records: int) -> None:
        """Begin with the kernel that a `struct pm_kernel **` points to."""
        self.simulated = simulated
        self.tasks: dict[int, Task] = {}
        self._closing = threading.RLock()  # by who closes it
        self._audit: Audit | None = None
        self._audit_options = not simulated, audit_records or _AUDIT_RECORDS
        self._trace: Trace | None = None
        self._bootstrap: NameServer | None = None
        self._identities: dict[str, int] = {}
        self._controls: list[ControlSocket] = []
        self.bootstrap_contexts: Callable[[], Iterable[Context]] | None = None
        self._cell, self._pointer = cell, cell[0]
        self.policies = Policies(self._pointer, self._borrowed)
        self._interfaces = Interfaces(self.policies)

    def _begin(self, policies: Iterable[PolicyModule], clock: Any, audit_full: str) -> None:
        if isinstance(clock, SimulatedClock):
            clock._drive(self)
        if audit_full != "drop":
            self.audit.when_full = audit_full
        if modules := list(policies):
            self.policies.load(*modules)

    def _task_ended(self, task: Task) -> None:
        if self._audit is not None:
            self._audit.task_ends(task.id, task.name)
        self.tasks.pop(task.id, None)

    # ---- life ----

    @property
    def closed(self) -> bool:
        """Whether the kernel was closed."""
        return self._pointer is None

    @property
    def pointer(self) -> Any:
        """The core's `struct pm_kernel *`.

        Raises:
            KernelClosed: the kernel was closed.
        """
        if self._pointer is None:
            raise KernelClosed(lib.KERN_TERMINATED, "this kernel is closed")
        return self._pointer

    @property
    def address(self) -> int:
        """The address of the core's `struct pm_kernel`, for other languages; good until closed.

        Raises:
            KernelClosed: the kernel was closed.
        """
        return int(ffi.cast("uintptr_t", self.pointer))

    def close(self) -> None:
        """Terminate all tasks, hand what was recorded to the sinks, and free the kernel.

        One that is borrowed stays: `Kernel.borrow`. Closing a second time does nothing. Where
        another thread closes it, that is waited for, but not in a call of a sink, which that may
        wait for. Ctrl-C gives up what is not handed over yet, and the kernel is freed all the same,
        when the audit's thread has ended. A second one may come before that: then the kernel stays
        open, to be closed again.
        """
        wait = self._audit is None or self._audit.may_wait
        if self._pointer is None or not self._closing.acquire(blocking=wait):
            return
        try:
            if self._pointer is not None:
                self._close()
        finally:
            self._closing.release()

    def _close(self) -> None:
        for control in self._controls:
            control.close()
        try:
            if self._audit is not None:
                self._audit.close()
        finally:
            if self._audit is None or not self._audit.running:
                self._free()

    def _free(self) -> None:
        if self._bootstrap is not None:
            self._bootstrap.close()
        pointer, self._pointer = self._pointer, None
        self._cell[0] = ffi.NULL
        self.policies.close()
        for task in self.tasks.values():
            task._forget()
            if self._borrowed and task._made_here:
                lib.pm_task_terminate(task.pointer, task.pointer)
        self.tasks.clear()
        if not self._borrowed:
            lib.pm_kernel_destroy(pointer)

    def __del__(self) -> None:
        if self._pointer is not None:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self.tasks)} tasks"
        return f"<Kernel {state}>"

    def __reduce__(self) -> Any:
        raise TypeError("a kernel cannot be copied or pickled")

    # ---- tasks ----

    def create_task(
        self, name: str, label: str | None = None, *, uid: int | None = None,
        audit_token: Iterable[int] | None = None, parent: Task | None = None,
        quota: Quota | None = None,
    ) -> Task:  # fmt: skip
        """Make a task.

        Args:
            name: need not be unique; at most 1023 bytes.
            label: by default what the policy says, else the parent's; without a parent "-".
            uid: of the task's identity; by default the parent's, without a parent 0.
            audit_token: the identity in full, eight numbers: auid euid egid ruid rgid pid asid
                pidversion.
            parent: from whom special and registered ports come, and who is asked for `create`.
                Without one the bootstrap port is that of the name server's root, if there is one.
            quota: what the task may use.

        Raises:
            AccessDenied: the parent may not make a task with that label.
            LabelError: the label cannot be used.
        """
        identity = _identity(uid, audit_token)
        limits = ffi.new("struct pm_quota *", asdict(quota)) if quota else ffi.NULL
        made = ffi.new("struct pm_task **")
        above = parent._pointer if parent else ffi.NULL
        text = EMPTY if label is None and parent is None else label
        with self.borrowed(text, parent) as sid:
            code = lib.pm_task_create(
                self.pointer, above, _task_name(name), sid, identity, limits, made
            )
        if code:
            what = f"create_task({name!r})"
            raise parent.failure(code) if parent else exception(code, what)
        task = Task(self, made[0], parent.id if parent else 0)
        self.tasks[task.id] = task
        if parent is None and self._bootstrap is not None:
            self._introduce(task)
        return task

    def task_at(self, pointer: Any) -> Task:
        """Return a task that was made in C or C++, in this kernel.

        Args:
            pointer: a `struct pm_task *` that somebody has a handle of, or its address.

        Raises:
            ValueError: the null pointer.
            TypeError: no pointer to a task, nor an address.
        """
        found = _pointer_to("struct pm_task *", pointer)
        known = self.tasks.get(lib.pm_task_id(found))
        if known is not None:
            return known
        check(lib.pm_task_retain(found), "task_at()")
        task = self.tasks[lib.pm_task_id(found)] = Task(self, found)
        task._made_here = False
        return task

    # ---- the name server ----

    @property
    def bootstrap(self) -> NameServer:
        """The name server; the first look makes one as `start_bootstrap()` does."""
        return self._bootstrap or self.start_bootstrap()

    def start_bootstrap(self, **options: Any) -> NameServer:
        """Make the name server. Tasks without a parent have its root from now on.

        Args:
            options: as for `pympi.bootstrap.NameServer`: label, root_label, service_contexts,
                launch and limits.

        Raises:
            ValueError: there is one.
        """
        from .bootstrap import NameServer

        if self._bootstrap is not None:
            raise ValueError("this kernel has a name server")
        known = list(self.tasks.values())
        self._bootstrap = NameServer(self, **options)
        for task in known:
            if task.parent_id == 0 and task.alive:
                self._introduce(task)
        return self._bootstrap

    def _introduce(self, task: Task) -> None:
        """Give a task the root of the name server, unless it has another or may not hold it."""
        with suppress(AccessDenied):
            if task.get_special_port(SpecialPort.BOOTSTRAP) is None:
                self.bootstrap.give(task)

    def bootstrap_of(self, task: Task) -> Bootstrap:
        """Return the name server as a task sees it: `task.bootstrap`.

        Raises:
            InvalidName: the task has no bootstrap port.
        """
        from .bootstrap import Bootstrap

        _ = self.bootstrap
        port = task.get_special_port(SpecialPort.BOOTSTRAP)
        if port is None:
            raise InvalidName(lib.MACH_SEND_INVALID_DEST, f"{task!r} has no bootstrap port")
        return Bootstrap(port)

    # ---- labels ----

    def label(self, sid: int) -> str:
        """Return the label that a SID stands for; "-" for 0, which is the kernel's own."""
        return self.policies.text(sid)

    def label_text(self, thing: Task | Right | str | int, names: str = "*") -> str:
        """Return the label of something, or the part of it that belongs to some modules.

        Args:
            thing: a task, a right (its port is meant), a label, or a SID.
            names: of modules, separated by commas: "te,?mls". One that begins with "?" is left out
                where the label has no value of it; any other has to be there. "*" is all.

        Returns:
            A label in canonical form, which reads back as equal; "-" without any value.

        Raises:
            LabelError: a value that has to be there is missing; or `names` is no such list.
        """
        if isinstance(thing, str):
            with self.borrowed(thing) as sid:
                return choose(self.label(sid), names)
        return choose(self.label(thing if isinstance(thing, int) else thing.sid), names)

    def borrowed(self, label: str | None, payer: Task | None = None) -> _Borrowed:
        """Return a context manager that gives a label's SID; 0 for None.

        Args:
            label: text, as in "te/user:user_r:editor_t".
            payer: whose quota is charged if nobody has used the label before.

        Raises:
            LabelError: the label cannot be used.
        """
        if label is None:
            return _Borrowed(self, 0)
        pointer = payer._pointer if payer else ffi.NULL
        return _Borrowed(self, self.policies.intern(label, pointer))

    def _sid(self, thing: Task | Right | str | int) -> _Borrowed:
        """The same for whatever `label_text` takes."""
        if isinstance(thing, str):
            return self.borrowed(thing)
        sid = thing if isinstance(thing, int) else thing.sid
        check(lib.pm_sid_retain(self.pointer, sid), f"label of {thing!r}")
        return _Borrowed(self, sid)

    # ---- decisions ----

    def object_class(self, name: str | int) -> ObjectClass:
        """Return a class of objects by name or number: hooks.def's, or an interface's.

        Raises:
            ValueError: there is none.
        """
        return self.policies.object_class(name)

    @property
    def object_classes(self) -> tuple[ObjectClass, ...]:
        """The classes of objects: hooks.def's, and those of interfaces as they come."""
        return self._interfaces.classes

    def access(
        self, subject: Task | str | int, target: Task | Right | str | int, tclass: str,
        permissions: str | int | Iterable[str],
    ) -> AccessDecision:  # fmt: skip
        """Return whether `subject` may do something to `target`, without doing or recording it.

        The answer is what is enforced; what would be refused is in its `permissive`.

        Args:
            subject: a task, a label, or the SID of one.
            target: a right (its port is meant), a task, a label, or a SID.
            tclass: the class of the object.
            permissions: one or several, by name or as a vector.

        Example:
            >>> with Kernel() as kernel:
            ...     task = kernel.create_task("editor")
            ...     kernel.access(task, task.allocate_port(), "mach_port", "send").allowed
            True
        """
        return decisions.access(self, subject, target, tclass, permissions)

    def check_peer(
        self, peer: str, label: str | int, target: Task | Right | str | int, tclass: str,
        permissions: str | int | Iterable[str],
    ) -> bool:  # fmt: skip
        """Return whether somebody who is no task may do something to `target`, and record it.

        For servers that let others in from outside, as control sockets do. It is to them what
        `Task.sender_checker` is to servers whose clients are tasks: the record has the operation
        `service`, no task, the label, and in the place of a name who it is.

        Args:
            peer: who asks, for the record.
            label: that the server gave him, or its SID.
            target, tclass, permissions: as of `access`.

        Raises:
            AuditFull: it cannot be recorded and must be.

        Example:
            >>> from pympi.policy import Partition
            >>> with Kernel(policies=[Partition()]) as kernel:
            ...     red, blue = "partition/red", "partition/blue"
            ...     kernel.check_peer("user 7", red, blue, "mach_port", "send")
            ...     [record] = kernel.audit.batch(kernel.audit.drain())
            ...     (record.service, record.subject, record.denied)
            False
            ('user 7', 'partition/red', ('send',))
        """
        kind = self.object_class(tclass)
        question = ffi.new("struct pm_sender_question *")
        question.tclass, question.permissions = kind.number, kind.mask(permissions)
        question.name = self.audit.note(peer)
        with self._sid(label) as ssid, self._sid(target) as tsid:
            question.real_sid = question.sender_sid = ssid
            question.tsid = tsid
            verdict = lib.pm_check_peer(self.pointer, question)
        if verdict < 0:
            raise exception(verdict, "check_peer()")
        return bool(verdict)

    def explain(
        self, subject: Task | str | int, target: Task | Right | str | int, tclass: str,
        permission: str,
    ) -> str:  # fmt: skip
        """Return, in words, why `subject` may or may not do something to `target`."""
        return decisions.explain(self, subject, target, tclass, permission)

    def explain_relabel(
        self, subject: Task | str | int, old: Task | Right | str | int, new: str | int,
        tclass: str, *, birth: bool = False,
    ) -> str:  # fmt: skip
        """Return, in words, why `subject` may or may not give something of a class another label.

        That is the permissions that are asked, relabelfrom and relabelto, and what the modules'
        `check_relabel` says of the change.

        Args:
            subject: as of `explain`.
            old: a port or task, whose label is meant; or a label, or a SID.
            new: the label that it would have, or its SID.
            tclass: "mach_port" or "mach_task".
            birth: it is new, and `old` what it would get unasked, a task's parent. Of a task
                `create` is asked then, with the new label, in place of both permissions.
        """
        return decisions.explain_relabel(self, subject, old, new, tclass, birth)

    def checker(
        self, tclass: str, permissions: str | int | Iterable[str]
    ) -> Callable[[int, int], bool]:
        """Return a callable for inner loops: `check(source_sid, target_sid) -> bool`."""
        kind = self.object_class(tclass)
        slow = self._check_failed
        return adopt(
            lib.pm_callable_checker(
                borrow(self), borrow(slow), self._cell, kind.number, kind.mask(permissions)
            )
        )

    def _check_failed(self, code: int, _name: int) -> NoReturn:
        kind = KernelClosed if self.closed else exception
        raise kind(code, "check()")

    def check_many(
        self, sources: Any, targets: Any, classes: Any, permissions: Any
    ) -> npt.NDArray[np.bool_]:
        """Decide many questions in one call, without recording them.

        Args:
            sources, targets: SIDs, arrays or numbers.
            classes: class names or numbers; one for all, or an array.
            permissions: names of a single class's permissions, or an array of vectors.

        Returns:
            One verdict each; whatever is an array has to have the same length.
        """
        return decisions.check_many(self, sources, targets, classes, permissions)

    def submit(self, operations: npt.NDArray[np.void], data: Any) -> int:
        """Do many operations, of any tasks, in order, in one call (io_uring's idea). Never waits.

        Args:
            operations: an array of `pympi.batch.OPERATION`, contiguous and writable; what became of
                each is written into it.
            data: writable bytes-like: the bodies, at the offsets that the operations say. It can be
                neither resized nor freed before all is done.

        Returns:
            How many have the result 0.

        Raises:
            TypeError, ValueError, BufferError: these are not such arrays.

        Example:
            >>> from pympi import Kernel, batch
            >>> with Kernel() as kernel:
            ...     server, client = kernel.create_task("server"), kernel.create_task("client")
            ...     inbox = server.allocate_port()
            ...     ops, data = batch.operations(2), bytearray(b"page 1" + bytes(10))
            ...     ops["op"] = batch.SEND, batch.RECEIVE
            ...     ops["task"] = client.id, server.id
            ...     ops["name"] = inbox.make_send(client).name, inbox.name
            ...     ops["offset"], ops["length"] = (0, 6), (6, 10)
            ...     kernel.submit(ops, data), ops["length"].tolist(), bytes(data[6:12])
            (2, [6, 6], b'page 1')
        """
        return batch.submit(self, operations, data)

    # ---- interfaces ----

    def create_interface(
        self, name: str, base: int, routines: Iterable[str], *, allow_unknown: bool = False
    ) -> int:
        """Make the methods of a subsystem known; return the interface's number.

        Its classes are mi_<name>, mi_<name>_2 and so on, 31 routines each; bit 31 is `ioctl`, which
        a message of another number is refused with. A routine "" is none: its number is skipped.
        One that is known already keeps its number. `pympi.mig.Interface` does this for you.

        Raises:
            ValueError: names that cannot be used, or the name is another interface's, or could be
                that of a class of one.
            LimitExceeded: memory or classes are short.
        """
        said = Declaration(base, tuple(routines), allow_unknown)
        before = len(self.object_classes)
        number = self._interfaces.create(self.pointer, name, said)
        if self._audit is not None:
            self._audit.classes_came(self.object_classes[before:])
        return number

    # ---- audit, trace, state ----

    @property
    def audit(self) -> Audit:
        """What is recorded of operations, and the records."""
        if self._audit is None:
            from .audit import Audit

            self._audit = Audit(self, *self._audit_options)
        return self._audit

    def watch(self, *words: str, records: int = 4096) -> Watch:
        """Return a watch: records of what happens from now on, as it happens.

        It costs what it wants to see, and nothing else: what its filter leaves out is left out
        where it happens. What finds no room is lost, and counted; nothing ever waits.

        Args:
            words: what is wanted, as in "task=printd" or "outcome=denied"; all have to hold. Keys:
                task, to, label, class, permission, routine, service, outcome. * and ? stand for any
                characters.
            records: how many find room until they are taken.

        Raises:
            ValueError: words that are none; they name what there is.
            MachError: KERN_NO_SPACE: 16 watch already; KERN_INVALID_ARGUMENT: too many records.

        Example:
            >>> with Kernel() as kernel, kernel.watch("permission=send") as watch:
            ...     inbox = kernel.create_task("printd").allocate_port()
            ...     inbox.make_send(kernel.create_task("editor")).send(b"page 1")
            ...     [(seen.task_name, seen.receiver_name, seen.size) for seen in watch.take()]
            [('editor', 'printd', 6)]
        """
        from .audit.watch import Watch

        return Watch(self, words, records=records)

    @property
    def trace(self) -> Trace:
        """Who talks to whom: ipctrace."""
        if self._trace is None:
            from .trace.live import Trace

            self._trace = Trace(self)
        return self._trace

    def trace_identity(self, owner: str) -> int:
        """Return the number of a name under which ipctrace counts tasks and port owners."""
        if owner not in self._identities:
            raw = owner.encode(errors="surrogateescape")
            number = lib.pm_trace_identity(self.pointer, raw, len(raw))
            if number < 0:
                raise exception(number, f"trace identity {owner!r}")
            self._identities[owner] = number
        return self._identities[owner]

    @property
    def time(self) -> float:
        """The kernel's time in seconds."""
        return lib.pm_kernel_time(self.pointer) / NS

    def _set_time(self, now: int) -> None:
        if self._pointer is not None:
            check(lib.pm_kernel_set_time(self._pointer, now), "SimulatedClock")

    def verify(self) -> None:
        """Recount everything from scratch.

        Raises:
            VerifyError: something is off; it lists what.
            ForkedError: nothing was counted.
        """
        size = 1 << 16
        report = ffi.new("char[]", size)
        faults = lib.pm_kernel_verify(self.pointer, report, size)
        if faults == lib.PM_FORKED:
            raise exception(faults, "verify()")
        if faults:
            raise VerifyError(ffi.string(report, size).decode(errors="replace").splitlines())

    def stats(self) -> Mapping[str, int]:
        """Return the kernel's counters by name."""
        found = ffi.new("struct pm_stats *")
        check(lib.pm_kernel_stats(self.pointer, found), "stats()")
        return {name: getattr(found, name) for name, _ in ffi.typeof("struct pm_stats").fields}

    def survey(self, *, stop: bool = False) -> Survey:
        """Walk through all tasks, names and ports, and return them as numbers: numpy arrays.

        The kernel goes on meanwhile: each row is what its object was at one moment. What was made
        after the walk began is not in it.

        Args:
            stop: have the kernel stand still, so that all rows are of one moment.
        """
        return survey(self.pointer, stop)

    def snapshot(
        self, path: str | os.PathLike[str] | None = None, *, consistent: bool = False
    ) -> Snapshot:
        """Return the state of the kernel, and save it to a file.

        Each row is consistent in itself; `Snapshot.changes` tells what went on meanwhile.

        Args:
            path: of the file; None: only return it.
            consistent: have the kernel stand still, so that all rows are of one moment;
                `Snapshot.stopped_seconds` tells for how long.

        Raises:
            OSError: the file cannot be written.

        Example:
            >>> with Kernel() as kernel:
            ...     task = kernel.create_task("server")
            ...     kernel.snapshot().tasks[0].name
            'server'
        """
        from .inspect.take import take

        taken = take(self, consistent=consistent)
        if path is not None:
            taken.save(path)
        return taken

    def inspect_at(
        self, path: str | os.PathLike[str], *, label: Labels = None,
        kernel_label: str | None = None, allow: Iterable[int] | None = None,
        read_only: bool = True, limits: Limits | None = None,
    ) -> ControlSocket:  # fmt: skip
        """Open a control socket, at which tools ask about this kernel: `pympi.inspect.Connection`.

        Closing the kernel closes it. What a peer may see is what its label may: `kernel: inspect`
        for anything, `mach_task: observe` for each task, `mach_port: get_attributes` for each port.

        Args:
            path: of the socket. Its directory must be ours alone to write, and is made if absent.
            label: what label a peer has: one for all, or by user number, as a mapping or function;
                whoever has none is refused. Not given: "-", the label without any value.
            kernel_label: what class `kernel` is asked of; by default the peer's own label.
            allow: user numbers that may connect; by default our own and root. With others in it,
                the file lets everybody knock, and who is none of them is turned away.
            read_only: refuse what would change anything, or stop the kernel.
            limits: what peers may take.

        Raises:
            ValueError: no path for a socket: abstract, or too long.
            OSError: others could meddle with the directory; something else is there; a server
                listens there.
            LabelError: a label that cannot be used.
        """
        from .inspect.server import ControlSocket, Limits

        _ = self.audit, self.trace  # made here, not by a thread that looks
        control = ControlSocket(
            self, path, label=label, kernel_label=kernel_label, allow=allow,
            read_only=read_only, limits=limits or Limits(),
        )  # fmt: skip
        self._controls.append(control)
        return control


def _pointer_to(kind: str, pointer: Any) -> Any:
    if not isinstance(pointer, (int, ffi.CData)) or isinstance(pointer, bool):
        raise TypeError(f"a {kind} or its address is needed, not {pointer!r}")
    if isinstance(pointer, ffi.CData) and ffi.typeof(pointer).cname not in (kind, "void *"):
        raise TypeError(f"a {kind} or its address is needed, not {pointer!r}")
    found = ffi.cast(kind, pointer)
    if found == ffi.NULL:
        raise ValueError(f"the null pointer is no {kind}")
    return found


def _identity(uid: int | None, audit_token: Iterable[int] | None) -> Any:
    """Return a `struct pm_identity *`; NULL for the parent's."""
    if uid is None and audit_token is None:
        return ffi.NULL
    token = list(audit_token or (uid, uid, 0, uid, 0, 0, 0, 0))
    if len(token) != 8:
        raise ValueError(f"an audit token has 8 numbers, not {len(token)}")
    return ffi.new("struct pm_identity *", {"audit_token": token, "security_token": [token[1], 0]})


def _task_name(name: str) -> bytes:
    raw = name.encode(errors="surrogateescape")
    if b"\0" in raw or len(raw) > lib.PM_TASK_NAME_MAX:
        raise ValueError(f"a task's name has at most {lib.PM_TASK_NAME_MAX} bytes and no NUL")
    return raw
