# SPDX-License-Identifier: BSD-2-Clause
"""For tests of programs that use pympi."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .audit import AuditRecord, Memory
from .kernel import Kernel
from .policy import Rules, TypeEnforcement
from .policy.author.closure import Grant
from .policy.author.coverage import Coverage, coverage
from .policy.author.recording import Recording, Tally

__all__ = ["PolicyCoverage", "allow_all", "capture_audit"]


def allow_all() -> Rules:
    """Return a policy that is asked everything and allows everything."""
    return Rules([("*", "*", "*", "*")])


@contextmanager
def capture_audit(kernel: Kernel) -> Iterator[list[AuditRecord]]:
    """Record everything for the time of a `with` block, into a list that is filled at its end.

    Afterwards is recorded what was selected before.

    Example:
        >>> with Kernel() as kernel:
        ...     inbox = kernel.create_task("server").allocate_port()
        ...     printer = inbox.make_send(kernel.create_task("client"))
        ...     with capture_audit(kernel) as records:
        ...         printer.send(b"page")
        ...     [record.operation for record in records]
        ['send']
    """
    records: list[AuditRecord] = []
    memory = Memory(capacity=None)
    kernel.audit.flush()
    kernel.audit.drain()
    kernel.audit.attach(memory, when_full="block")
    try:
        with kernel.audit.everything_meanwhile():
            yield records
    finally:
        kernel.audit.detach(memory)
        records.extend(memory.records)


class PolicyCoverage:
    """Which allow rules of a policy were exercised, in as many kernels and tests as there are.

    Args:
        policy: the module `te`, as it is now.

    Example:
        >>> policy = TypeEnforcement.from_text('''
        ...     (type a) (roletype system_r a) (userrole system_u system_r)
        ...     (allow a self (mach_port (make_send hold_send send copy_send recv use_recv)))
        ... ''')
        >>> exercised = PolicyCoverage(policy)
        >>> with Kernel(policies=[policy]) as kernel, exercised.record(kernel):
        ...     task = kernel.create_task("task", label="te/system_u:system_r:a")
        ...     task.allocate_port().make_send(task).send(b"page")
        >>> print(exercised.result())
        1 of 1 rules exercised, 4 of 6 permissions: 66.6 %
        >>> exercised.result().rules[0].idle
        ('recv', 'use_recv')
    """

    def __init__(self, policy: TypeEnforcement) -> None:
        self._database = policy.database
        self._used: set[Grant] = set()

    @contextmanager
    def record(self, kernel: Kernel) -> Iterator[None]:
        """Count what is done in `kernel` in the time of a `with` block; what is refused is not.

        It records everything; afterwards is recorded what was selected before.
        """
        recording = Recording(f"{kernel!r}")
        tally = Tally(recording)
        kernel.audit.flush()
        kernel.audit.drain()
        kernel.audit.attach(tally.add, when_full="block")
        try:
            with kernel.audit.everything_meanwhile():
                yield
        finally:
            kernel.audit.detach(tally.add)
            for failure in kernel.audit.failures:
                if failure.sink == tally.add:
                    raise failure.exception or RuntimeError(failure.error)
            tally.settle()
            self._used.update(recording.used)

    def result(self) -> Coverage:
        """Return what was exercised up to now."""
        return coverage(self._database, self._used)
