# SPDX-License-Identifier: BSD-2-Clause
"""Fault group C: counters and overflow. They refuse or saturate; nothing wraps into a free."""

import itertools
import math

import pytest
from faults.world import (
    COPY_SEND,
    HEADER,
    MAKE_SEND,
    MOVE_SEND,
    RECEIVE,
    SEND,
    World,
    differences,
    message,
    outcome,
    port,
    refused,
    state,
)

from pympi import Kernel, Quota, mach
from pympi._ffi import ffi, lib
from pympi.enums import AuditFlag
from pympi.errors import LabelError, LimitExceeded
from pympi.policy import PolicyModule

UREFS_MAX = 65535
INT_MIN, INT_MAX = -(2**31), 2**31 - 1


def fill_references(world: World, name: int) -> None:
    refs = mach.mach_port_get_refs(world.client, name, 0)
    mach.mach_port_mod_refs(world.client, name, 0, UREFS_MAX - refs)


def test_c1_user_references_end_at_65535(world: World) -> None:
    """The deviation from XNU, which pegs: GNU Mach's code, and the count unchanged."""
    kernel, client = world.kernel, world.client
    for name in (world.dest, world.own):
        fill_references(world, name)
        add = lambda n=name: mach.mach_port_mod_refs(client, n, 0, 1)  # noqa: E731
        copy = lambda n=name: mach.mach_port_insert_right(client, n, n, COPY_SEND)  # noqa: E731
        for call in (add, copy):
            refused(kernel, call, "KERN_UREFS_OVERFLOW")
    make = lambda: mach.mach_port_insert_right(client, world.own, world.own, MAKE_SEND)  # noqa: E731
    refused(kernel, make, "KERN_UREFS_OVERFLOW")
    mach.mach_port_mod_refs(client, world.dead, 4, UREFS_MAX - 1)
    add = lambda: mach.mach_port_mod_refs(client, world.dead, 4, 1)  # noqa: E731
    refused(kernel, add, "KERN_UREFS_OVERFLOW")
    mach.mach_port_mod_refs(client, world.dest, 0, -UREFS_MAX)
    assert world.dest not in client.names()


def test_c1_a_reference_too_many_arrives(world: World) -> None:
    """On copyout it is dropped, the name delivered, counted and audited; nothing leaks."""
    kernel, client = world.kernel, world.client
    fill_references(world, world.dest)
    raw = message(world.own, COPY_SEND, descriptors=(port(world.dest, COPY_SEND),))
    assert world.send(raw)[0] == 0
    kernel.audit.drain()
    got = client.receive(world.own, timeout=0)
    assert [right.name for right in got.rights if right] == [world.dest]
    assert mach.mach_port_get_refs(client, world.dest, 0) == UREFS_MAX
    records = kernel.audit.drain()
    assert [flags & AuditFlag.UREFS for flags in records["flags"].tolist()] == [AuditFlag.UREFS]
    assert kernel.stats()["urefs_dropped"] == 1
    kernel.verify()


@pytest.mark.parametrize("delta", [INT_MIN, INT_MIN + 1, -3, INT_MAX, INT_MAX - 1, 65534])
def test_c2_extreme_deltas(world: World, delta: int) -> None:
    for name, right in ((world.dest, 0), (world.own, 0), (world.dead, 4)):
        call = lambda n=name, r=right: mach.mach_port_mod_refs(world.client, n, r, delta)  # noqa: E731
        code = "KERN_INVALID_VALUE" if delta < 0 else "KERN_UREFS_OVERFLOW"
        refs = mach.mach_port_get_refs(world.client, name, right)
        if 0 <= refs + delta <= UREFS_MAX:
            continue
        refused(world.kernel, call, code)
    for name, right in ((world.plain, 1), (world.once, 2), (world.pset, 3)):
        call = lambda n=name, r=right: mach.mach_port_mod_refs(world.client, n, r, delta)  # noqa: E731
        refused(world.kernel, call, "KERN_INVALID_VALUE")


@pytest.mark.parametrize("delta", [INT_MIN - 1, INT_MAX + 1, 2**63, -(2**63)])
def test_c2_deltas_that_are_no_32_bits(world: World, delta: int) -> None:
    before = state(world.kernel)
    with pytest.raises(OverflowError):
        mach.mach_port_mod_refs(world.client, world.dest, 0, delta)
    assert differences(before, state(world.kernel)) == {}


@pytest.mark.parametrize("delta", [1, INT_MIN, -2, INT_MAX])
def test_c2_destruct_with_an_extreme_delta(world: World, delta: int) -> None:
    call = lambda: mach.mach_port_destruct(world.client, world.own, delta, 0)  # noqa: E731
    refused(world.kernel, call, "KERN_INVALID_VALUE")


def test_c3_send_rights_without_number() -> None:
    pytest.skip("2**32 send rights take a name or a message each: 256 GiB before the count is full")


def test_c4_the_make_send_count_wraps_as_in_mach(world: World) -> None:
    """It is a number to compare with, no reference count: nothing is freed by it."""
    mach.mach_port_set_mscount(world.client, world.own, 2**32 - 1)
    mach.mach_port_insert_right(world.client, world.own, world.own, MAKE_SEND)
    status = world.client.receive_right(world.own).status
    assert (status.mscount, status.send_rights) == (0, True)
    assert mach.mach_port_get_refs(world.client, world.own, 0) == 2
    world.kernel.verify()


def test_c5_more_send_once_rights_than_16_bits(world: World) -> None:
    count = 70_000
    client = world.client._pointer
    for _ in range(count):
        assert lib.pm_port_transfer(client, world.plain, 21, client) > 0
    assert world.client.receive_right(world.plain).status.send_once_rights == count
    world.kernel.verify()
    mach.mach_port_destroy(world.client, world.plain)
    world.kernel.verify()


def test_c6_sequence_numbers_wrap(world: World) -> None:
    mach.mach_port_set_seqno(world.server, world.inbox, 2**32 - 1)
    for number in range(3):
        assert world.send(message(world.dest, msgh_id=number))[0] == 0
    inbox = world.server.receive_right(world.inbox)
    assert [inbox.peek(2**32 - 1), inbox.peek(1)] == [(2**32 - 1, 32, 0), (1, 32, 2)]
    got = [inbox.receive(timeout=0) for _ in range(3)]
    assert [(m.seqno, m.msgh_id) for m in got] == [(2**32 - 1, 0), (0, 1), (1, 2)]
    world.kernel.verify()


def test_c6_counts_begin_anew_where_a_receive_right_arrives(world: World) -> None:
    """As in Mach: who takes a port over cannot tell from them what was before."""
    inbox = world.server.receive_right(world.inbox)
    assert world.send(message(world.dest))[0] == world.receive()[0] == 0
    assert (inbox.status.seqno, inbox.status.mscount > 0) == (1, True)
    moved = inbox.move_receive(world.client)
    assert (moved.status.seqno, moved.status.mscount) == (0, 0)


def test_c7_trace_sequence() -> None:
    pytest.skip("sequences of records are 64 bits: 500 years at a record a nanosecond and less")


@pytest.mark.parametrize("limit", [0, 1, 1024])
def test_c8_queue_limits(world: World, limit: int) -> None:
    inbox = world.server.receive_right(world.inbox)
    inbox.qlimit = limit
    for _ in range(limit):
        assert world.send(message(world.dest, COPY_SEND))[0] == 0
    call = lambda: world.client.send(world.dest, b"", timeout=0)  # noqa: E731
    refused(world.kernel, call, "MACH_SEND_TIMED_OUT", records=0)
    assert inbox.status.msgcount == limit


@pytest.mark.parametrize("limit", [1025, 65535, 2**31, 2**32 - 1])
def test_c8_queue_limits_out_of_range(world: World, limit: int) -> None:
    info = mach.MACH_PORT_LIMITS_INFO
    call = lambda: mach.mach_port_set_attributes(world.client, world.own, info, [limit])  # noqa: E731
    refused(world.kernel, call, "KERN_INVALID_VALUE")
    options = mach.PortOptions(mach.MPO_QLIMIT, limit)
    refused(
        world.kernel, lambda: mach.mach_port_construct(world.client, options), "KERN_INVALID_VALUE"
    )


@pytest.mark.parametrize("limit", [-1, 2**32, -(2**31)])
def test_c8_queue_limits_that_are_no_32_bits(world: World, limit: int) -> None:
    with pytest.raises(OverflowError):
        world.client.receive_right(world.own).qlimit = limit
    with pytest.raises(OverflowError):
        world.client.allocate_port(qlimit=limit)
    world.kernel.verify()


def test_c8_limits_without_words(world: World) -> None:
    info, status = mach.MACH_PORT_LIMITS_INFO, mach.MACH_PORT_RECEIVE_STATUS
    kernel, client = world.kernel, world.client
    call = lambda: mach.mach_port_set_attributes(client, world.own, info, [])  # noqa: E731
    refused(kernel, call, "KERN_FAILURE")
    for count in (0, 9):
        call = lambda c=count: mach.mach_port_get_attributes(client, world.own, status, c)  # noqa: E731
        refused(kernel, call, "KERN_FAILURE")
    for flavor in (0, 9, 2**31, 2**32 - 1):
        call = lambda f=flavor: mach.mach_port_get_attributes(client, world.own, f)  # noqa: E731
        refused(kernel, call, "KERN_INVALID_ARGUMENT")
        call = lambda f=flavor: mach.mach_port_set_attributes(client, world.own, f, [1])  # noqa: E731
        refused(kernel, call, "KERN_INVALID_ARGUMENT")
    assert len(mach.mach_port_get_attributes(client, world.own, status, 2**31)) == 10


def test_c9_the_policy_epoch() -> None:
    pytest.skip("2**32 policy changes take hours: tests/c/test_kernel.c begins at the last one")


class Named(PolicyModule):
    """A module of any name, for labels with many values."""

    def __init__(self, name: str) -> None:
        self.name = name


def test_c10_more_label_slots_than_32() -> None:
    """Labels are interned whole: there are no slots to run out of."""
    modules = [Named(f"m{number}") for number in range(40)]
    label = ",".join(f"m{number}/v{number}" for number in range(40))
    with Kernel(policies=modules) as kernel:
        task = kernel.create_task("task", label)
        assert sorted(task.label.split(",")) == sorted(label.split(","))
        kernel.policies.unload("m39")
        assert "m39" not in task.label
        assert "m38/v38" in task.label
        kernel.verify()


def test_c11_labels_run_out_for_who_mints_them() -> None:
    with Kernel(policies=[Named("m")]) as kernel:
        minter = kernel.create_task("minter", "m/start", quota=Quota(sids=10))
        other = kernel.create_task("other", "m/start")
        ports = [minter.allocate_port(f"m/v{number}") for number in range(10)]
        call = lambda: minter.allocate_port("m/one_more")  # noqa: E731
        refused(kernel, call, "KERN_RESOURCE_SHORTAGE", records=0)
        assert other.allocate_port("m/one_more").label == "m/one_more"
        assert minter.allocate_port("m/v3").label == "m/v3"
        ports[0].close()
        for _ in range(2):  # a label stays until whoever drained has come back for more
            kernel.audit.drain()
        assert minter.allocate_port("m/another").label == "m/another"
        kernel.verify()


@pytest.mark.long
def test_c11_all_labels_there_are() -> None:
    with Kernel() as kernel:
        cell, made = kernel.pointer, 0
        for made in itertools.count():
            text = str(made).encode()
            if lib.pm_sid_intern(cell, ffi.NULL, text, len(text)) < 0:
                break
        assert made > 1 << 19
        assert lib.pm_sid_intern(cell, ffi.NULL, b"0", 1) > 0
        kernel.verify()


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, math.inf, -math.inf, 2.0**63, 1e300])
def test_c12_timeouts_that_are_none(world: World, timeout: float) -> None:
    """The object API: seconds; what is no time is a ValueError, before anything is done."""
    client, inbox = world.client, world.server.receive_right(world.inbox)
    dest = client.right(world.dest)
    before = state(world.kernel)
    for call in (
        lambda: dest.send(b"", timeout=timeout),  # type: ignore[attr-defined]
        lambda: dest.call(b"", timeout=timeout),  # type: ignore[attr-defined]
        lambda: dest.sender(timeout=timeout),  # type: ignore[attr-defined]
        lambda: inbox.receive(timeout=timeout),
        lambda: inbox.receiver(timeout=timeout),
    ):
        with pytest.raises(ValueError, match="timeout"):
            call()
    assert differences(before, state(world.kernel)) == {}


@pytest.mark.parametrize("timeout", ["1", [], object(), 1j])
def test_c12_timeouts_that_are_no_numbers(world: World, timeout: object) -> None:
    with pytest.raises(TypeError):
        world.server.receive(world.inbox, timeout=timeout)  # type: ignore[arg-type]


def test_c12_polls(world: World) -> None:
    for zero in (0, 0.0, -0.0, False):
        call = lambda z=zero: world.server.receive(world.inbox, timeout=z)  # noqa: E731
        assert outcome(call) == "MACH_RCV_TIMED_OUT"


def test_c12_the_shortest_wait_ends(world: World) -> None:
    for timeout in (1e-300, 1e-9, 0.001):
        call = lambda t=timeout: world.server.receive(world.inbox, timeout=t)  # noqa: E731
        assert outcome(call) == "MACH_RCV_TIMED_OUT"


@pytest.mark.parametrize("timeout", [2**63 / 1e9 * 0.99, 1e9, 2**33])
def test_c12_the_longest_wait_takes_what_is_there(world: World, timeout: float) -> None:
    world.client.send(world.dest, b"here", timeout=timeout)
    assert world.server.receive(world.inbox, timeout=timeout).body == b"here"


@pytest.mark.parametrize("timeout", [-1, -(2**31), 2**32, 2**63, 2**64, math.inf, math.nan, 0.5])
def test_c12_mach_timeouts_that_are_none(world: World, timeout: object) -> None:
    before = state(world.kernel)
    with pytest.raises((OverflowError, TypeError)):
        mach.mach_msg(world.server, b"", RECEIVE, 100, world.inbox, timeout)  # type: ignore[arg-type]
    assert differences(before, state(world.kernel)) == {}


def test_c12_the_longest_mach_timeout(world: World) -> None:
    raw = message(world.dest, MOVE_SEND)
    assert mach.mach_msg(world.client, raw, SEND, timeout=2**32 - 1)[0] == 0
    code, got = mach.mach_msg(world.server, b"", RECEIVE, 100, world.inbox, 2**32 - 1)
    assert (code, HEADER.unpack_from(got)[1]) == (0, 24)


@pytest.mark.parametrize("size", [0, 2**32, 2**63, 2**64 - 1])
def test_c_sizes_of_memory(world: World, size: int) -> None:
    call = lambda: mach.vm_allocate(world.client, size)  # noqa: E731
    refused(world.kernel, call, "KERN_INVALID_ARGUMENT")
    for call in (
        lambda: mach.vm_deallocate(world.client, world.memory, size),
        lambda: mach.vm_read(world.client, world.memory, size),
    ):
        if size:
            refused(world.kernel, call, "KERN_INVALID_ARGUMENT")


@pytest.mark.parametrize("text", ["m/" + "x" * 4095, "m/" + "x" * (1 << 20), "", "/", "m/", "\0"])
def test_c_labels_out_of_range(text: str) -> None:
    with Kernel(policies=[Named("m")]) as kernel:
        before = state(kernel)
        with pytest.raises((LabelError, LimitExceeded)):
            kernel.create_task("task", text)
        assert differences(before, state(kernel)) == {}


@pytest.mark.parametrize("which", [0, 10, 99, 2**31, 2**32 - 1])
def test_c_special_ports_out_of_range(world: World, which: int) -> None:
    client = world.client
    for call in (
        lambda: mach.task_set_special_port(client, which, world.dest),
        lambda: mach.task_get_special_port(client, which),
    ):
        refused(world.kernel, call, "KERN_INVALID_ARGUMENT")


@pytest.mark.parametrize("count", [4, 5, 1000])
def test_c_more_registered_ports_than_three(world: World, count: int) -> None:
    call = lambda: mach.mach_ports_register(world.client, [world.dest] * count)  # noqa: E731
    refused(world.kernel, call, "KERN_INVALID_ARGUMENT")
