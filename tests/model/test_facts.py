# SPDX-License-Identifier: BSD-2-Clause
"""Facts of Mach, one test each, that hold on the model and on the core.

Most were measured on a running GNU Mach or read in XNU (osfmk/ipc); where the two differ the
choice is XNU's, but for the deviations that model.py lists. Groups: a0 the right algebra, a1 names,
a2 user references, a3 the calls, a4 notifications, b1 sending, b2 receiving, b3 trailers and
memory, b4 circularity.
"""

from __future__ import annotations

import struct

import mach_numbers as m
import pytest
from party import Party, refused
from wire import GUARDED, MEMORY, PORT, PORTS, RAW, Letter
from worlds import World

SEND_RECEIVE = m.TYPE_SEND | m.TYPE_RECEIVE
BAD_NAMES = (m.NULL, m.DEAD)


# ---- A0: the algebra ------------------------------------------------------------------------


def test_a0_made_send_lands_on_the_receive_name(a: Party) -> None:
    name = a.port(sends=2)
    assert a.kind(name) == SEND_RECEIVE
    assert a.refs(name) == 2
    assert len(a.names_now()) == 1


def test_a0_second_send_right_coalesces(a: Party, b: Party) -> None:
    name = a.port(sends=1)
    first = b.take(a, name, m.COPY_SEND)
    assert b.take(a, name, m.MAKE_SEND) == first
    assert b.refs(first) == 2


def test_a0_receive_right_lands_on_the_send_name(a: Party, b: Party) -> None:
    name = a.port(sends=1)
    send = b.take(a, name, m.MOVE_SEND)
    assert b.take(a, name, m.MOVE_RECEIVE) == send
    assert b.kind(send) == SEND_RECEIVE
    assert a.names_now() == {}


def test_a0_send_right_lands_on_the_receive_name_from_elsewhere(a: Party, b: Party) -> None:
    name = a.port(sends=1)
    send = b.take(a, name, m.MOVE_SEND)
    back = a.take(b, send, m.MOVE_SEND)
    assert back == name
    assert b.names_now() == {}


def test_a0_send_once_rights_never_coalesce(a: Party) -> None:
    name = a.port(sends=1)
    first, second = a.once(name), a.once(name)
    assert len({name, first, second}) == 3
    assert a.kind(first) == a.kind(second) == m.TYPE_SEND_ONCE


def test_a0_naked_sends_are_counted_by_space(a: Party, b: Party) -> None:
    name = a.port(sends=3)
    other = b.take(a, name, m.COPY_SEND)
    a.mod_refs(name, m.RIGHT_SEND, -3)
    assert a.status(name)["srights"] == 1
    b.deallocate(other)
    assert a.status(name)["srights"] == 0


def test_a0_queued_message_holds_a_send_right(a: Party) -> None:
    name, notify = a.port(), a.port()
    assert a.send(name, m.MAKE_SEND) == m.SUCCESS
    a.notify(name, m.NOTIFY_NO_SENDERS, 0, notify)
    assert a.empty(notify)
    a.receive(name)
    assert a.told(notify) == [(m.NOTIFY_NO_SENDERS, 1)]


def test_a0_make_send_counts_insert_header_and_descriptor(a: Party) -> None:
    name = a.port(sends=1)
    assert a.status(name)["mscount"] == 1
    a.send(name, m.MAKE_SEND)
    assert a.status(name)["mscount"] == 2
    a.send(name, m.MAKE_SEND, items=((PORT, name, m.MAKE_SEND),))
    assert a.status(name)["mscount"] == 4


def test_a0_copies_and_send_once_do_not_count_as_made(a: Party) -> None:
    name = a.port(sends=1)
    a.send(name, m.COPY_SEND)
    a.send(name, m.MAKE_SEND_ONCE)
    a.once(name)
    assert a.status(name)["mscount"] == 1


def test_a0_moving_the_receive_right_resets_counts_and_keeps_the_queue(a: Party, b: Party) -> None:
    name = a.port(sends=1)
    a.limit(name, 7)
    a.send(name, data=b"one.")
    a.send(name, data=b"two.")
    a.receive(name)
    moved = b.take(a, name, m.MOVE_RECEIVE)
    status = b.status(moved)
    assert (status["seqno"], status["mscount"]) == (0, 0)
    assert (status["msgcount"], status["qlimit"]) == (1, 7)
    assert b.receive(moved).data == b"two."


def test_a0_moved_receive_right_leaves_its_sets(a: Party, b: Party) -> None:
    name = a.port()
    pset = a.set(name)
    b.take(a, name, m.MOVE_RECEIVE)
    assert a.get_set_status(pset) == []


def test_a0_moved_receive_right_loses_guard_and_context(a: Party, b: Party) -> None:
    name = a.port()
    a.guard(name, 77, True)
    moved = b.take(a, name, m.MOVE_RECEIVE)
    assert b.get_context(moved) == 0
    b.mod_refs(moved, m.RIGHT_RECEIVE, -1)
    assert b.names_now() == {}


def test_a0_send_to_a_port_in_transit_queues(a: Party) -> None:
    name, carrier = a.port(sends=1), a.port(sends=1)
    assert a.send(carrier, items=((PORT, name, m.MOVE_RECEIVE),)) == m.SUCCESS
    assert a.kind(name) == m.TYPE_SEND
    assert a.send(name, data=b"late") == m.SUCCESS
    assert a.receive(carrier).items == ((PORT, name, m.PORT_RECEIVE),)
    assert a.receive(name).data == b"late"


def test_a0_port_death_leaves_a_dead_name_with_the_same_urefs(a: Party, b: Party) -> None:
    name = a.port(sends=1)
    send = b.take(a, name, m.MAKE_SEND)
    b.mod_refs(send, m.RIGHT_SEND, 2)
    a.destroy(name)
    assert b.kind(send) == m.TYPE_DEAD_NAME
    assert b.refs(send, m.RIGHT_DEAD_NAME) == 3


def test_a0_send_once_right_dies_to_one_dead_name(a: Party, b: Party) -> None:
    name = a.port()
    once = b.take(a, name, m.MAKE_SEND_ONCE)
    a.destroy(name)
    assert b.kind(once) == m.TYPE_DEAD_NAME
    assert b.refs(once, m.RIGHT_DEAD_NAME) == 1


def test_a0_port_death_destroys_queued_messages_and_their_rights(a: Party) -> None:
    name, reply = a.port(), a.port()
    a.send(name, m.MAKE_SEND, reply=reply, reply_type=m.MAKE_SEND_ONCE)
    a.mod_refs(name, m.RIGHT_RECEIVE, -1)
    assert a.told(reply) == [(m.NOTIFY_SEND_ONCE, 0)]


def test_a0_chain_of_ports_dies_whole(a: Party) -> None:
    notify = a.port()
    outer = a.port(sends=1)
    port = outer
    for _ in range(200):
        inner = a.port(sends=1)
        assert a.send(port, items=((PORT, inner, m.MOVE_RECEIVE),)) == m.SUCCESS
        port = inner
    a.notify(port, m.NOTIFY_DEAD_NAME, 0, notify)
    a.destroy(outer)
    assert a.told(notify) == [(m.NOTIFY_DEAD_NAME, port)]
    assert a.refs(port, m.RIGHT_DEAD_NAME) == 2


def test_a0_task_death_kills_its_ports(a: Party, b: Party) -> None:
    name = a.port()
    send = b.take(a, name, m.MAKE_SEND)
    a.terminate()
    assert b.kind(send) == m.TYPE_DEAD_NAME


def test_a0_task_death_drops_its_sends(a: Party, b: Party) -> None:
    name, notify = a.port(), a.port()
    b.take(a, name, m.MAKE_SEND)
    a.notify(name, m.NOTIFY_NO_SENDERS, 0, notify)
    b.terminate()
    assert a.told(notify) == [(m.NOTIFY_NO_SENDERS, 1)]


def test_a0_task_death_notifies_send_once(a: Party, b: Party) -> None:
    name = a.port()
    b.take(a, name, m.MAKE_SEND_ONCE)
    b.terminate()
    assert a.told(name) == [(m.NOTIFY_SEND_ONCE, 0)]


def test_a0_dead_task_is_refused(a: Party) -> None:
    name = a.port()
    a.terminate()
    refused(m.INVALID_TASK, a.type, name)
    refused(m.INVALID_TASK, a.allocate, m.RIGHT_RECEIVE)


# ---- A1: names ------------------------------------------------------------------------------


def test_a1_first_names(a: Party) -> None:
    assert [a.port() for _ in range(3)] == [0x103, 0x203, 0x303]


def test_a1_freed_index_is_used_next_with_another_generation(a: Party) -> None:
    first, _ = a.port(), a.port()
    a.destroy(first)
    assert a.port() == first + 4


def test_a1_free_list_is_last_in_first_out(a: Party) -> None:
    names = [a.port() for _ in range(3)]
    for name in names:
        a.destroy(name)
    assert [a.port() for _ in range(3)] == [name + 4 for name in reversed(names)]


def test_a1_generation_comes_round_after_64(a: Party) -> None:
    seen = []
    for _ in range(65):
        seen.append(a.port())
        a.destroy(seen[-1])
    assert len(set(seen[:64])) == 64
    assert seen[64] == seen[0]


def test_a1_stale_name_is_invalid(a: Party) -> None:
    name = a.port()
    a.destroy(name)
    again = a.port()
    refused(m.INVALID_NAME, a.type, name)
    refused(m.INVALID_NAME, a.deallocate, name)
    assert a.kind(again) == m.TYPE_RECEIVE


def test_a1_name_of_another_task_is_invalid(a: Party, b: Party) -> None:
    a.port()
    refused(m.INVALID_NAME, b.type, a.port())


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a1_chosen_null_and_dead(a: Party, name: int) -> None:
    refused(m.INVALID_VALUE, a.allocate_name, m.RIGHT_RECEIVE, name)


@pytest.mark.parametrize("name", [0x500, 0x501, 0x502])
def test_a1_chosen_name_needs_its_low_bits(a: Party, name: int) -> None:
    refused(m.INVALID_VALUE, a.allocate_name, m.RIGHT_RECEIVE, name)


def test_a1_chosen_index_zero(a: Party) -> None:
    refused(m.FAILURE, a.allocate_name, m.RIGHT_RECEIVE, 0x07)


def test_a1_chosen_name_in_use(a: Party) -> None:
    name = a.port()
    refused(m.NAME_EXISTS, a.allocate_name, m.RIGHT_RECEIVE, name)


def test_a1_chosen_index_in_use(a: Party) -> None:
    name = a.port()
    refused(m.FAILURE, a.allocate_name, m.RIGHT_RECEIVE, name + 4)


def test_a1_chosen_name_far_outside(a: Party) -> None:
    refused(m.NO_SPACE, a.allocate_name, m.RIGHT_RECEIVE, 0xFFFFFF03)


def test_a1_chosen_name_and_its_successor(a: Party) -> None:
    a.allocate_name(m.RIGHT_RECEIVE, 0x30B)
    assert a.kind(0x30B) == m.TYPE_RECEIVE
    a.destroy(0x30B)
    assert a.port() == 0x30F


def test_a1_chosen_bad_right_comes_first(a: Party) -> None:
    refused(m.INVALID_VALUE, a.allocate_name, m.RIGHT_SEND, a.port())


# ---- A2: user references --------------------------------------------------------------------


def test_a2_send_overflow_is_an_error(a: Party) -> None:
    name = a.port(sends=1)
    a.mod_refs(name, m.RIGHT_SEND, m.UREFS_MAX - 1)
    refused(m.UREFS_OVERFLOW, a.mod_refs, name, m.RIGHT_SEND, 1)
    assert a.refs(name) == m.UREFS_MAX


def test_a2_dead_name_overflow_is_an_error(a: Party) -> None:
    name = a.dead_name()
    a.mod_refs(name, m.RIGHT_DEAD_NAME, m.UREFS_MAX - 1)
    refused(m.UREFS_OVERFLOW, a.mod_refs, name, m.RIGHT_DEAD_NAME, 1)
    assert a.refs(name, m.RIGHT_DEAD_NAME) == m.UREFS_MAX


def test_a2_insert_right_overflow_is_an_error(a: Party) -> None:
    name = a.port(sends=1)
    a.mod_refs(name, m.RIGHT_SEND, m.UREFS_MAX - 1)
    refused(m.UREFS_OVERFLOW, a.insert_right, name, name, m.COPY_SEND)
    assert a.refs(name) == m.UREFS_MAX


def test_a2_copyout_drops_the_reference_too_many(a: Party) -> None:
    name, carrier = a.port(sends=1), a.port()
    a.mod_refs(name, m.RIGHT_SEND, m.UREFS_MAX - 1)
    a.send(carrier, m.MAKE_SEND, items=((PORT, name, m.COPY_SEND),))
    assert a.receive(carrier).items == ((PORT, name, m.PORT_SEND),)
    assert a.refs(name) == m.UREFS_MAX


@pytest.mark.parametrize("delta", [-3, -(2**31)])
def test_a2_underflow_changes_nothing(a: Party, delta: int) -> None:
    name = a.port(sends=2)
    refused(m.INVALID_VALUE, a.mod_refs, name, m.RIGHT_SEND, delta)
    assert a.refs(name) == 2


def test_a2_int_max_overflows(a: Party) -> None:
    name = a.port(sends=2)
    refused(m.UREFS_OVERFLOW, a.mod_refs, name, m.RIGHT_SEND, 2**31 - 1)
    assert a.refs(name) == 2


# ---- A3: allocate, type, names, refs --------------------------------------------------------


def test_a3_fresh_port(a: Party) -> None:
    status = a.status(a.port())
    assert status.pop("qlimit") == m.QLIMIT_DEFAULT
    assert set(status.values()) == {0}


def test_a3_allocate_set_and_dead_name(a: Party) -> None:
    pset, dead = a.allocate(m.RIGHT_PORT_SET), a.allocate(m.RIGHT_DEAD_NAME)
    assert a.kind(pset) == m.TYPE_PORT_SET
    assert a.get_set_status(pset) == []
    assert a.kind(dead) == m.TYPE_DEAD_NAME
    assert a.refs(dead, m.RIGHT_DEAD_NAME) == 1


@pytest.mark.parametrize("right", [m.RIGHT_SEND, m.RIGHT_SEND_ONCE, 5, 6, 99])
def test_a3_allocate_other_rights(a: Party, right: int) -> None:
    refused(m.INVALID_VALUE, a.allocate, right)


def test_a3_type_of_null_and_unknown(a: Party) -> None:
    refused(m.INVALID_NAME, a.type, m.NULL)
    refused(m.INVALID_NAME, a.type, 0x4203)


def test_a3_type_of_dead(a: Party) -> None:
    assert a.kind(m.DEAD) == m.TYPE_DEAD_NAME


def test_a3_names_lists_all_with_types(a: Party) -> None:
    port, pset, dead = a.port(sends=1), a.set(), a.dead_name()
    assert a.names_now() == {
        port: SEND_RECEIVE,
        pset: m.TYPE_PORT_SET,
        dead: m.TYPE_DEAD_NAME,
    }


def test_a3_get_refs(a: Party) -> None:
    port, pset = a.port(sends=4), a.set()
    once = a.once(port)
    assert a.refs(port, m.RIGHT_RECEIVE) == 1
    assert a.refs(port, m.RIGHT_SEND) == 4
    assert a.refs(once, m.RIGHT_SEND_ONCE) == 1
    assert a.refs(pset, m.RIGHT_PORT_SET) == 1


def test_a3_get_refs_of_a_right_not_held_is_zero(a: Party) -> None:
    port = a.port()
    assert [a.refs(port, right) for right in (0, 2, 3, 4)] == [0, 0, 0, 0]


def test_a3_get_refs_refusals(a: Party) -> None:
    port = a.port()
    refused(m.INVALID_VALUE, a.get_refs, port, m.RIGHT_NUMBER)
    refused(m.INVALID_NAME, a.get_refs, 0x4203, m.RIGHT_SEND)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a3_get_refs_of_null_and_dead(a: Party, name: int) -> None:
    assert a.refs(name, m.RIGHT_SEND) == 1
    assert a.refs(name, m.RIGHT_SEND_ONCE) == 1
    refused(m.INVALID_NAME, a.get_refs, name, m.RIGHT_RECEIVE)


# ---- A3: mod_refs, deallocate, destroy, destruct --------------------------------------------


def test_a3_mod_refs_send(a: Party) -> None:
    name = a.port(sends=1)
    a.mod_refs(name, m.RIGHT_SEND, 5)
    assert a.refs(name) == 6
    a.mod_refs(name, m.RIGHT_SEND, -6)
    assert a.kind(name) == m.TYPE_RECEIVE


def test_a3_mod_refs_zero_is_fine(a: Party) -> None:
    name = a.port(sends=1)
    for right in (m.RIGHT_SEND, m.RIGHT_RECEIVE):
        a.mod_refs(name, right, 0)
    assert a.kind(name) == SEND_RECEIVE


@pytest.mark.parametrize("right", [m.RIGHT_RECEIVE, m.RIGHT_SEND_ONCE, m.RIGHT_PORT_SET])
@pytest.mark.parametrize("delta", [1, -2, 7])
def test_a3_mod_refs_of_single_rights(a: Party, right: int, delta: int) -> None:
    port = a.port()
    name = {m.RIGHT_RECEIVE: port, m.RIGHT_SEND_ONCE: a.once(port)}.get(right) or a.set()
    refused(m.INVALID_VALUE, a.mod_refs, name, right, delta)


def test_a3_mod_refs_not_held(a: Party) -> None:
    port = a.port()
    for right in (m.RIGHT_SEND, m.RIGHT_SEND_ONCE, m.RIGHT_PORT_SET, m.RIGHT_DEAD_NAME):
        refused(m.INVALID_RIGHT, a.mod_refs, port, right, -1)


def test_a3_mod_refs_bad_right(a: Party) -> None:
    refused(m.INVALID_VALUE, a.mod_refs, a.port(), m.RIGHT_NUMBER, -1)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a3_mod_refs_of_null_and_dead(a: Party, name: int) -> None:
    a.mod_refs(name, m.RIGHT_SEND, -1)
    a.mod_refs(name, m.RIGHT_SEND_ONCE, -1)
    refused(m.INVALID_NAME, a.mod_refs, name, m.RIGHT_DEAD_NAME, -1)


def test_a3_mod_refs_receive_kills_the_port_and_keeps_sends_as_dead(a: Party) -> None:
    name = a.port(sends=3)
    a.mod_refs(name, m.RIGHT_RECEIVE, -1)
    assert a.kind(name) == m.TYPE_DEAD_NAME
    assert a.refs(name, m.RIGHT_DEAD_NAME) == 3


def test_a3_mod_refs_send_once_notifies_its_port(a: Party) -> None:
    port = a.port()
    a.mod_refs(a.once(port), m.RIGHT_SEND_ONCE, -1)
    assert a.told(port) == [(m.NOTIFY_SEND_ONCE, 0)]


def test_a3_mod_refs_guarded_receive(a: Party) -> None:
    name = a.port()
    a.guard(name, 5, False)
    refused(m.INVALID_RIGHT, a.mod_refs, name, m.RIGHT_RECEIVE, -1)
    assert a.kind(name) == m.TYPE_RECEIVE


def test_a3_deallocate_each_kind(a: Party) -> None:
    port = a.port(sends=2)
    a.deallocate(port)
    assert a.refs(port) == 1
    a.deallocate(port)
    assert a.kind(port) == m.TYPE_RECEIVE
    refused(m.INVALID_RIGHT, a.deallocate, port)
    once, dead, pset = a.once(port), a.dead_name(2), a.set()
    for name in (once, dead, dead, pset):
        a.deallocate(name)
    assert a.names_now() == {port: m.TYPE_RECEIVE}
    assert a.told(port) == [(m.NOTIFY_SEND_ONCE, 0)]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a3_deallocate_and_destroy_null_and_dead(a: Party, name: int) -> None:
    a.deallocate(name)
    a.destroy(name)
    assert a.names_now() == {}


def test_a3_destroy_frees_the_name_even_with_sends(a: Party) -> None:
    name = a.port(sends=3)
    a.destroy(name)
    refused(m.INVALID_NAME, a.type, name)


def test_a3_destroy_unknown(a: Party) -> None:
    refused(m.INVALID_NAME, a.destroy, 0x4203)


def test_a3_destroy_guarded(a: Party) -> None:
    name = a.port(sends=1)
    a.guard(name, 5, True)
    refused(m.INVALID_RIGHT, a.destroy, name)
    assert a.kind(name) == SEND_RECEIVE


def test_a3_destroyed_set_frees_its_members(a: Party) -> None:
    name = a.port()
    pset = a.set(name)
    a.destroy(pset)
    assert a.status(name)["psets"] == 0


def test_a3_destruct_takes_sends_and_receive(a: Party) -> None:
    name = a.port(sends=3)
    a.destruct(name, -3, 0)
    assert a.names_now() == {}


def test_a3_destruct_leaves_the_other_sends_dead(a: Party) -> None:
    name = a.port(sends=3)
    a.destruct(name, -1, 0)
    assert a.kind(name) == m.TYPE_DEAD_NAME
    assert a.refs(name, m.RIGHT_DEAD_NAME) == 2


def test_a3_destruct_refusals(a: Party) -> None:
    name, bare, dead = a.port(sends=1), a.port(), a.dead_name()
    refused(m.INVALID_RIGHT, a.destruct, dead, 0, 0)
    refused(m.INVALID_RIGHT, a.destruct, bare, -1, 0)
    refused(m.INVALID_VALUE, a.destruct, name, 1, 0)
    refused(m.INVALID_VALUE, a.destruct, name, -2, 0)
    refused(m.INVALID_NAME, a.destruct, m.NULL, 0, 0)
    refused(m.INVALID_NAME, a.destruct, m.DEAD, 0, 0)
    a.guard(name, 9, False)
    refused(m.INVALID_ARGUMENT, a.destruct, name, 0, 8)
    assert a.refs(name) == 1
    a.destruct(name, -1, 9)


# ---- A3: construct, insert, extract ---------------------------------------------------------


def test_a3_construct_with_send_right_and_qlimit(a: Party) -> None:
    name = a.construct(m.MPO_INSERT_SEND_RIGHT | m.MPO_QLIMIT, 9, 0)
    assert a.kind(name) == SEND_RECEIVE
    status = a.status(name)
    assert (status["mscount"], status["qlimit"], status["srights"]) == (1, 9, 1)


def test_a3_construct_guarded(a: Party) -> None:
    name = a.construct(m.MPO_CONTEXT_AS_GUARD | m.MPO_STRICT, 0, 0x55)
    assert a.status(name)["flags"] == m.STATUS_GUARDED | m.STATUS_STRICT_GUARD
    assert a.get_context(name) == 0
    a.destruct(name, 0, 0x55)


def test_a3_construct_qlimit_too_large(a: Party) -> None:
    refused(m.INVALID_VALUE, a.construct, m.MPO_QLIMIT, m.QLIMIT_MAX + 1, 0)
    assert a.names_now() == {}


def test_a3_insert_right_under_another_name_of_the_port(a: Party) -> None:
    name = a.port(sends=1)
    refused(m.RIGHT_EXISTS, a.insert_right, 0x4203, name, m.COPY_SEND)
    assert a.status(name)["srights"] == 1


def test_a3_insert_right_on_a_taken_name(a: Party, b: Party) -> None:
    name, other = a.port(), a.port()
    once = a.once(name)
    refused(m.NAME_EXISTS, a.insert_right, other, once, m.MOVE_SEND_ONCE)
    refused(m.NAME_EXISTS, a.insert_right, other, name, m.MAKE_SEND_ONCE)
    port = b.port()
    refused(m.NAME_EXISTS, a.insert_right, other, port, m.MAKE_SEND, caller=b.task)


def test_a3_insert_right_from_another_task(a: Party, b: Party) -> None:
    port = b.port()
    a.insert_right(0x503, port, m.MAKE_SEND, caller=b.task)
    assert a.kind(0x503) == m.TYPE_SEND
    a.insert_right(0x503, port, m.MOVE_RECEIVE, caller=b.task)
    assert a.kind(0x503) == SEND_RECEIVE
    assert b.names_now() == {}


def test_a3_insert_right_refusals(a: Party) -> None:
    port, dead, pset = a.port(), a.dead_name(), a.set()
    refused(m.INVALID_VALUE, a.insert_right, port, port, 22)
    refused(m.INVALID_VALUE, a.insert_right, m.NULL, port, m.MAKE_SEND)
    refused(m.INVALID_VALUE, a.insert_right, m.DEAD, port, m.MAKE_SEND)
    refused(m.INVALID_CAPABILITY, a.insert_right, port, m.NULL, m.MAKE_SEND)
    refused(m.INVALID_CAPABILITY, a.insert_right, port, m.DEAD, m.MAKE_SEND)
    refused(m.INVALID_CAPABILITY, a.insert_right, 0x4203, dead, m.COPY_SEND)
    refused(m.INVALID_RIGHT, a.insert_right, port, port, m.COPY_SEND)
    refused(m.INVALID_RIGHT, a.insert_right, port, pset, m.MAKE_SEND)


def test_a3_failed_insert_right_changes_nothing(a: Party) -> None:
    name, other = a.port(sends=1), a.port()
    once = a.once(name)
    before = a.status(name)
    refused(m.NAME_EXISTS, a.insert_right, other, once, m.MOVE_SEND_ONCE)
    refused(m.RIGHT_EXISTS, a.insert_right, other, name, m.MAKE_SEND)
    assert a.status(name) == before
    assert a.kind(once) == m.TYPE_SEND_ONCE


@pytest.mark.parametrize(
    ("disposition", "type_"),
    [
        (m.MAKE_SEND, m.PORT_SEND),
        (m.COPY_SEND, m.PORT_SEND),
        (m.MOVE_SEND, m.PORT_SEND),
        (m.MOVE_RECEIVE, m.PORT_RECEIVE),
    ],
)
def test_a3_extract_right_comes_back_under_its_name(a: Party, disposition: int, type_: int) -> None:
    name = a.port(sends=2)
    assert tuple(a.extract_right(name, disposition)) == (name, type_)
    assert a.kind(name) == SEND_RECEIVE


def test_a3_extract_send_once_is_a_fresh_name(a: Party) -> None:
    name = a.port()
    once, type_ = a.extract_right(name, m.MAKE_SEND_ONCE)
    assert once != name
    assert type_ == m.PORT_SEND_ONCE


def test_a3_extract_right_refusals(a: Party) -> None:
    port = a.port()
    refused(m.INVALID_VALUE, a.extract_right, port, 15)
    refused(m.INVALID_RIGHT, a.extract_right, port, m.COPY_SEND)
    refused(m.INVALID_NAME, a.extract_right, 0x4203, m.COPY_SEND)
    refused(m.INVALID_RIGHT, a.extract_right, m.NULL, m.COPY_SEND)
    refused(m.INVALID_RIGHT, a.extract_right, m.DEAD, m.COPY_SEND)


def test_a3_extract_right_of_a_dead_name(a: Party) -> None:
    dead = a.dead_name(2)
    assert a.extract_right(dead, m.MOVE_SEND) == (m.DEAD, m.PORT_SEND)
    assert a.refs(dead, m.RIGHT_DEAD_NAME) == 1
    refused(m.INVALID_RIGHT, a.extract_right, dead, m.MAKE_SEND)


@pytest.mark.parametrize("disposition", [m.MOVE_SEND, m.MOVE_RECEIVE])
def test_a3_insert_right_moves_a_right_onto_its_own_name(a: Party, disposition: int) -> None:
    name = a.port(sends=1)
    send = disposition == m.MOVE_SEND
    a.mod_refs(name, m.RIGHT_SEND, 0 if send else -1)
    a.insert_right(name, name, disposition)
    assert a.kind(name) == SEND_RECEIVE if send else m.TYPE_RECEIVE
    assert a.port() == 0x203


def test_a3_insert_right_of_the_last_send_onto_its_own_name(a: Party, b: Party) -> None:
    port = b.port()
    name = a.take(b, port, m.MAKE_SEND)
    a.insert_right(name, name, m.MOVE_SEND)
    assert a.refs(name) == 1
    assert a.port() != name
    assert b.status(port)["srights"] == 1


def test_a3_insert_right_move_overflows_too(a: Party, b: Party) -> None:
    port = a.port(sends=1)
    send = b.take(a, port, m.COPY_SEND)
    a.mod_refs(port, m.RIGHT_SEND, m.UREFS_MAX - 1)
    refused(m.UREFS_OVERFLOW, a.insert_right, port, send, m.MOVE_SEND, caller=b.task)
    assert b.refs(send) == 1


# ---- A3: sets -------------------------------------------------------------------------------


def test_a3_port_in_many_sets(a: Party) -> None:
    name = a.port()
    sets = [a.set(name) for _ in range(3)]
    assert a.status(name)["psets"] == 3
    assert all(a.get_set_status(pset) == [name] for pset in sets)


def test_a3_set_status_is_sorted(a: Party) -> None:
    ports = [a.port() for _ in range(4)]
    assert a.get_set_status(a.set(*reversed(ports))) == ports


def test_a3_insert_member_refusals(a: Party) -> None:
    name, pset, send_only = a.port(), a.set(), a.dead_name()
    a.insert_member(name, pset)
    refused(m.ALREADY_IN_SET, a.insert_member, name, pset)
    refused(m.INVALID_RIGHT, a.insert_member, send_only, pset)
    refused(m.INVALID_RIGHT, a.insert_member, name, name)
    refused(m.INVALID_NAME, a.insert_member, 0x4203, pset)
    refused(m.INVALID_NAME, a.insert_member, name, 0x4203)
    refused(m.INVALID_RIGHT, a.insert_member, m.NULL, pset)
    refused(m.INVALID_RIGHT, a.insert_member, name, m.DEAD)


def test_a3_extract_member(a: Party) -> None:
    name = a.port()
    first, second = a.set(name), a.set(name)
    a.extract_member(name, first)
    assert a.get_set_status(first) == []
    assert a.get_set_status(second) == [name]
    refused(m.NOT_IN_SET, a.extract_member, name, first)


def test_a3_move_member(a: Party) -> None:
    name = a.port()
    first, second = a.set(name), a.set(name)
    a.move_member(name, second)
    assert a.get_set_status(first) == []
    a.move_member(name, second)
    assert a.get_set_status(second) == [name]
    a.move_member(name, m.NULL)
    assert a.status(name)["psets"] == 0
    refused(m.NOT_IN_SET, a.move_member, name, m.NULL)


def test_a3_move_member_refusals(a: Party) -> None:
    name, pset = a.port(), a.set()
    refused(m.INVALID_RIGHT, a.move_member, name, name)
    refused(m.INVALID_RIGHT, a.move_member, pset, pset)
    refused(m.INVALID_NAME, a.move_member, 0x4203, pset)
    refused(m.INVALID_RIGHT, a.move_member, name, m.DEAD)


def test_a3_dead_members_vanish(a: Party) -> None:
    name, other = a.port(), a.port()
    pset = a.set(name, other)
    a.destroy(name)
    assert a.get_set_status(pset) == [other]


def test_a3_set_status_of_no_set(a: Party) -> None:
    refused(m.INVALID_RIGHT, a.get_set_status, a.port())


# ---- A3: attributes, counts, contexts, guards -----------------------------------------------


def test_a3_limits(a: Party) -> None:
    name = a.port()
    assert tuple(a.get_attributes(name, m.LIMITS_INFO)) == (m.QLIMIT_DEFAULT,)
    for qlimit in (0, 1, m.QLIMIT_MAX):
        a.limit(name, qlimit)
        assert tuple(a.get_attributes(name, m.LIMITS_INFO)) == (qlimit,)
    refused(m.INVALID_VALUE, a.limit, name, m.QLIMIT_MAX + 1)


def test_a3_limits_refusals(a: Party) -> None:
    name, dead = a.port(), a.dead_name()
    refused(m.INVALID_RIGHT, a.limit, dead, 1)
    refused(m.INVALID_RIGHT, a.get_attributes, dead, m.LIMITS_INFO)
    refused(m.FAILURE, a.set_attributes, name, m.LIMITS_INFO, [])
    refused(m.INVALID_ARGUMENT, a.get_attributes, name, 99)
    refused(m.INVALID_ARGUMENT, a.set_attributes, name, 99, [1])
    refused(m.INVALID_RIGHT, a.get_attributes, m.NULL, m.RECEIVE_STATUS)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a3_limits_of_null_and_dead_are_none(a: Party, name: int) -> None:
    assert tuple(a.get_attributes(name, m.LIMITS_INFO)) == ()


def test_a3_lowering_the_limit_drops_nothing(a: Party) -> None:
    name = a.port()
    a.fill(name)
    a.limit(name, 1)
    assert a.status(name)["msgcount"] == m.QLIMIT_DEFAULT


def test_a3_receive_status_counts_rights(a: Party) -> None:
    name = a.port(sends=2)
    a.once(name)
    a.once(name)
    status = a.status(name)
    assert (status["srights"], status["sorights"]) == (1, 2)


def test_a3_receive_status_shows_requests(a: Party) -> None:
    name, notify = a.port(sends=1), a.port()
    a.notify(name, m.NOTIFY_NO_SENDERS, 0, notify)
    a.notify(name, m.NOTIFY_PORT_DESTROYED, 0, notify)
    status = a.status(name)
    assert (status["nsrequest"], status["pdrequest"]) == (1, 1)


def test_a3_set_mscount_and_seqno(a: Party) -> None:
    name, dead = a.port(), a.dead_name()
    a.set_mscount(name, 41)
    a.set_seqno(name, 42)
    status = a.status(name)
    assert (status["mscount"], status["seqno"]) == (41, 42)
    refused(m.INVALID_RIGHT, a.set_mscount, dead, 1)
    refused(m.INVALID_NAME, a.set_seqno, 0x4203, 1)
    refused(m.INVALID_RIGHT, a.set_seqno, m.NULL, 1)


def test_a3_seqno_and_mscount_wrap(a: Party) -> None:
    name = a.port()
    a.set_seqno(name, 0xFFFFFFFF)
    a.set_mscount(name, 0xFFFFFFFF)
    a.send(name, m.MAKE_SEND)
    a.receive(name)
    status = a.status(name)
    assert (status["mscount"], status["seqno"]) == (0, 0)


def test_a3_context(a: Party) -> None:
    name = a.port()
    assert a.get_context(name) == 0
    a.set_context(name, 2**64 - 1)
    assert a.get_context(name) == 2**64 - 1
    refused(m.INVALID_RIGHT, a.get_context, m.NULL)


def test_a3_strict_guard_hides_and_holds_the_context(a: Party) -> None:
    name = a.port()
    a.guard(name, 0x1234, True)
    assert a.get_context(name) == 0
    refused(m.INVALID_ARGUMENT, a.set_context, name, 1)
    a.unguard(name, 0x1234)


def test_a3_guard_refusals(a: Party) -> None:
    name = a.port()
    refused(m.INVALID_ARGUMENT, a.unguard, name, 0)
    refused(m.INVALID_ARGUMENT, a.swap_guard, name, 0, 1)
    a.set_context(name, 3)
    refused(m.INVALID_ARGUMENT, a.guard, name, 4, False)
    a.set_context(name, 0)
    a.guard(name, 4, False)
    refused(m.INVALID_ARGUMENT, a.unguard, name, 5)
    refused(m.INVALID_ARGUMENT, a.swap_guard, name, 5, 6)
    a.swap_guard(name, 4, 6)
    a.unguard(name, 6)
    refused(m.INVALID_RIGHT, a.guard, a.dead_name(), 1, False)


def test_a3_swap_of_a_strict_guard(a: Party) -> None:
    name = a.port()
    a.guard(name, 4, True)
    refused(m.INVALID_ARGUMENT, a.swap_guard, name, 4, 5)


def test_a3_immovable_receive_is_sticky(a: Party, b: Party) -> None:
    name, carrier = a.port(), a.port()
    a.guard_with_flags(name, 4, m.MPG_IMMOVABLE_RECEIVE)
    a.unguard(name, 4)
    refused(m.INVALID_RIGHT, a.extract_right, name, m.MOVE_RECEIVE, caller=b.task)
    code = a.send(carrier, m.MAKE_SEND, items=((PORT, name, m.MOVE_RECEIVE),))
    assert code == m.SEND_INVALID_RIGHT


# ---- A4: notifications ----------------------------------------------------------------------


def test_a4_no_senders_fires_at_once_without_senders(a: Party) -> None:
    name, notify = a.port(), a.port()
    assert a.notify(name, m.NOTIFY_NO_SENDERS, 0, notify) == 0
    assert a.told(notify) == [(m.NOTIFY_NO_SENDERS, 0)]
    assert a.status(name)["nsrequest"] == 0


def test_a4_no_senders_waits_for_its_sync(a: Party) -> None:
    name, notify = a.port(), a.port()
    a.notify(name, m.NOTIFY_NO_SENDERS, 1, notify)
    assert a.empty(notify)
    a.insert_right(name, name, m.MAKE_SEND)
    a.deallocate(name)
    assert a.told(notify) == [(m.NOTIFY_NO_SENDERS, 1)]


def test_a4_no_senders_fires_once(a: Party) -> None:
    name, notify = a.port(sends=1), a.port()
    a.notify(name, m.NOTIFY_NO_SENDERS, 0, notify)
    a.deallocate(name)
    a.insert_right(name, name, m.MAKE_SEND)
    a.deallocate(name)
    assert a.told(notify) == [(m.NOTIFY_NO_SENDERS, 1)]


def test_a4_no_senders_again_returns_the_previous(a: Party) -> None:
    name, first, second = a.port(sends=1), a.port(), a.port()
    a.notify(name, m.NOTIFY_NO_SENDERS, 0, first)
    previous = a.notify(name, m.NOTIFY_NO_SENDERS, 0, second)
    assert a.kind(previous) == m.TYPE_SEND_ONCE
    a.deallocate(previous)
    assert a.told(first) == [(m.NOTIFY_SEND_ONCE, 0)]
    a.deallocate(name)
    assert a.told(second) == [(m.NOTIFY_NO_SENDERS, 1)]


def test_a4_no_senders_cancelled(a: Party) -> None:
    name, notify = a.port(sends=1), a.port()
    a.notify(name, m.NOTIFY_NO_SENDERS, 0, notify)
    previous = a.request_notification(name, m.NOTIFY_NO_SENDERS, 0, 0, m.MAKE_SEND_ONCE)
    assert a.kind(previous) == m.TYPE_SEND_ONCE
    a.deallocate(name)
    assert a.empty(notify)


def test_a4_no_senders_of_a_dying_port(a: Party) -> None:
    name, notify = a.port(sends=1), a.port()
    a.notify(name, m.NOTIFY_NO_SENDERS, 0, notify)
    a.mod_refs(name, m.RIGHT_RECEIVE, -1)
    assert a.told(notify) == [(m.NOTIFY_SEND_ONCE, 0)]


def test_a4_no_senders_refusals(a: Party) -> None:
    notify = a.port()
    refused(m.INVALID_RIGHT, a.notify, a.set(), m.NOTIFY_NO_SENDERS, 0, notify)
    refused(m.INVALID_RIGHT, a.notify, a.dead_name(), m.NOTIFY_NO_SENDERS, 0, notify)
    refused(m.INVALID_NAME, a.notify, 0x4203, m.NOTIFY_NO_SENDERS, 0, notify)


def test_a4_dead_name_on_send_and_its_reference(a: Party, b: Party) -> None:
    name, notify = a.port(), b.port()
    send = b.take(a, name, m.MAKE_SEND)
    b.notify(send, m.NOTIFY_DEAD_NAME, 0, notify)
    assert b.kind(send) == m.TYPE_SEND | m.TYPE_DNREQUEST
    a.destroy(name)
    assert b.told(notify) == [(m.NOTIFY_DEAD_NAME, send)]
    assert b.kind(send) == m.TYPE_DEAD_NAME
    assert b.refs(send, m.RIGHT_DEAD_NAME) == 2


def test_a4_dead_name_on_send_once(a: Party, b: Party) -> None:
    name, notify = a.port(), b.port()
    once = b.take(a, name, m.MAKE_SEND_ONCE)
    b.notify(once, m.NOTIFY_DEAD_NAME, 0, notify)
    a.destroy(name)
    assert b.told(notify) == [(m.NOTIFY_DEAD_NAME, once)]
    assert b.refs(once, m.RIGHT_DEAD_NAME) == 2


def test_a4_dead_name_on_receive_is_deleted_with_it(a: Party) -> None:
    name, notify = a.port(), a.port()
    a.notify(name, m.NOTIFY_DEAD_NAME, 0, notify)
    a.mod_refs(name, m.RIGHT_RECEIVE, -1)
    assert a.told(notify) == [(m.NOTIFY_PORT_DELETED, name)]


def test_a4_dead_name_on_a_dead_name(a: Party) -> None:
    dead, notify = a.dead_name(), a.port()
    refused(m.INVALID_ARGUMENT, a.notify, dead, m.NOTIFY_DEAD_NAME, 0, notify)
    assert a.notify(dead, m.NOTIFY_DEAD_NAME, 1, notify) == 0
    assert a.told(notify) == [(m.NOTIFY_DEAD_NAME, dead)]
    assert a.refs(dead, m.RIGHT_DEAD_NAME) == 2


def test_a4_dead_name_refusals(a: Party) -> None:
    notify = a.port()
    refused(m.INVALID_RIGHT, a.notify, a.set(), m.NOTIFY_DEAD_NAME, 0, notify)
    refused(m.INVALID_NAME, a.notify, 0x4203, m.NOTIFY_DEAD_NAME, 0, notify)
    refused(m.INVALID_ARGUMENT, a.notify, m.NULL, m.NOTIFY_DEAD_NAME, 0, notify)
    refused(m.INVALID_ARGUMENT, a.notify, m.DEAD, m.NOTIFY_DEAD_NAME, 0, notify)


def test_a4_cancel_of_nothing(a: Party) -> None:
    name = a.port(sends=1)
    assert a.request_notification(name, m.NOTIFY_DEAD_NAME, 0, 0, m.MAKE_SEND_ONCE) == 0


def test_a4_freed_name_with_request_is_port_deleted(a: Party, b: Party) -> None:
    name, notify = a.port(), b.port()
    send = b.take(a, name, m.MAKE_SEND)
    b.notify(send, m.NOTIFY_DEAD_NAME, 0, notify)
    b.deallocate(send)
    assert b.told(notify) == [(m.NOTIFY_PORT_DELETED, send)]


def test_a4_moved_name_with_request_is_port_deleted(a: Party, b: Party) -> None:
    name, notify = a.port(), b.port()
    send = b.take(a, name, m.MAKE_SEND)
    b.notify(send, m.NOTIFY_DEAD_NAME, 0, notify)
    a.take(b, send, m.MOVE_SEND)
    assert b.told(notify) == [(m.NOTIFY_PORT_DELETED, send)]


def test_a4_dropping_only_the_send_part_does_not_fire(a: Party) -> None:
    name, notify = a.port(sends=1), a.port()
    a.notify(name, m.NOTIFY_DEAD_NAME, 0, notify)
    a.deallocate(name)
    assert a.empty(notify)
    assert a.kind(name) == m.TYPE_RECEIVE | m.TYPE_DNREQUEST


def test_a4_two_tasks_ask_about_one_port(a: Party, b: Party) -> None:
    name, notify_a, notify_b = a.port(sends=1), a.port(), b.port()
    send = b.take(a, name, m.MAKE_SEND)
    a.notify(name, m.NOTIFY_DEAD_NAME, 0, notify_a)
    b.notify(send, m.NOTIFY_DEAD_NAME, 0, notify_b)
    a.mod_refs(name, m.RIGHT_RECEIVE, -1)
    assert a.told(notify_a) == [(m.NOTIFY_DEAD_NAME, name)]
    assert b.told(notify_b) == [(m.NOTIFY_DEAD_NAME, send)]
    assert a.refs(name, m.RIGHT_DEAD_NAME) == 2


def test_a4_port_destroyed_carries_the_receive_right(a: Party, b: Party) -> None:
    name, notify = a.port(sends=1), a.port()
    send = b.take(a, name, m.COPY_SEND)
    a.send(name, data=b"kept")
    a.notify(name, m.NOTIFY_PORT_DESTROYED, 0, notify)
    a.mod_refs(name, m.RIGHT_RECEIVE, -1)
    assert a.kind(name) == m.TYPE_SEND
    assert b.kind(send) == m.TYPE_SEND
    note = a.receive(notify)
    assert note.id == m.NOTIFY_PORT_DESTROYED
    assert note.items == ((PORT, name, m.PORT_RECEIVE),)
    assert a.receive(name).data == b"kept"


def test_a4_port_destroyed_to_a_dead_port(a: Party) -> None:
    name, notify = a.port(sends=1), a.port()
    a.notify(name, m.NOTIFY_PORT_DESTROYED, 0, notify)
    a.destroy(notify)
    a.mod_refs(name, m.RIGHT_RECEIVE, -1)
    assert a.kind(name) == m.TYPE_DEAD_NAME


def test_a4_port_destroyed_refusals(a: Party) -> None:
    name, notify = a.port(), a.port()
    refused(m.INVALID_VALUE, a.notify, name, m.NOTIFY_PORT_DESTROYED, 1, notify)
    a.notify(name, m.NOTIFY_PORT_DESTROYED, 0, notify)
    refused(m.FAILURE, a.notify, name, m.NOTIFY_PORT_DESTROYED, 0, notify)
    refused(m.INVALID_RIGHT, a.notify, a.dead_name(), m.NOTIFY_PORT_DESTROYED, 0, notify)


def test_a4_send_possible_fires_at_once_when_there_is_room(a: Party) -> None:
    name, notify = a.port(sends=1), a.port()
    a.notify(name, m.NOTIFY_SEND_POSSIBLE, 1, notify)
    assert a.told(notify) == [(m.NOTIFY_SEND_POSSIBLE, name)]


def test_a4_send_possible_fires_when_the_queue_gets_room(a: Party) -> None:
    name, notify = a.port(sends=1), a.port()
    a.fill(name)
    a.notify(name, m.NOTIFY_SEND_POSSIBLE, 1, notify)
    assert a.empty(notify)
    a.receive(name)
    assert a.told(notify) == [(m.NOTIFY_SEND_POSSIBLE, name)]
    a.fill(name)
    a.receive(name)
    assert a.empty(notify)


def test_a4_send_possible_waits_where_the_right_given_fills_the_queue(a: Party) -> None:
    """The name of the right that is given is gone before there is anything to be told of room."""
    name = a.port(sends=1)
    a.limit(name, 1)
    once = a.once(name)
    a.notify(once, m.NOTIFY_SEND_POSSIBLE, 0, name)
    a.request_notification(name, m.NOTIFY_SEND_POSSIBLE, 1, once, m.MOVE_SEND_ONCE)
    assert a.kind(name) & m.TYPE_SPREQUEST
    assert a.told(name) == [(m.NOTIFY_PORT_DELETED, once), (m.NOTIFY_SEND_POSSIBLE, name)]


def test_a4_send_possible_armed_by_a_send(a: Party) -> None:
    name, notify = a.port(sends=1), a.port()
    a.notify(name, m.NOTIFY_SEND_POSSIBLE, 0, notify)
    a.fill(name)
    a.receive(name)
    assert a.empty(notify)
    a.fill(name)
    assert a.send(name, option=m.OPTION_SEND_NOTIFY) == m.SEND_TIMED_OUT
    a.receive(name)
    assert a.told(notify) == [(m.NOTIFY_SEND_POSSIBLE, name)]


def test_a4_send_possible_of_a_dying_port_is_dead_name(a: Party, b: Party) -> None:
    name, notify = a.port(), b.port()
    send = b.take(a, name, m.MAKE_SEND)
    b.notify(send, m.NOTIFY_SEND_POSSIBLE, 0, notify)
    a.destroy(name)
    assert b.told(notify) == [(m.NOTIFY_DEAD_NAME, send)]
    assert b.refs(send, m.RIGHT_DEAD_NAME) == 2


def test_a4_bad_id(a: Party) -> None:
    name, notify = a.port(), a.port()
    for id_ in (0, 65, 67, 71, 73):
        refused(m.INVALID_VALUE, a.notify, name, id_, 0, notify)


def test_a4_dead_notify_port(a: Party) -> None:
    name, dead = a.port(), a.dead_name()
    id_ = m.NOTIFY_NO_SENDERS
    refused(m.INVALID_CAPABILITY, a.notify, name, id_, 0, m.DEAD)
    request = a.request_notification
    refused(m.INVALID_CAPABILITY, request, name, id_, 0, dead, m.MOVE_SEND_ONCE)


def test_a4_failed_request_leaves_the_notify_right(a: Party) -> None:
    notify = a.port()
    once = a.once(notify)
    request = a.request_notification
    refused(m.INVALID_NAME, request, 0x4203, m.NOTIFY_DEAD_NAME, 0, once, m.MOVE_SEND_ONCE)
    assert a.kind(once) == m.TYPE_SEND_ONCE
    assert a.empty(notify)


def test_a4_notify_right_cannot_be_the_name_it_is_about(a: Party) -> None:
    once = a.once(a.port())
    request = a.request_notification
    for id_, sync in ((m.NOTIFY_DEAD_NAME, 0), (m.NOTIFY_SEND_POSSIBLE, 1)):
        refused(m.INVALID_NAME, request, once, id_, sync, once, m.MOVE_SEND_ONCE)
    assert a.kind(once) == m.TYPE_SEND_ONCE


def test_a4_cancel_when_the_table_is_full(a: Party) -> None:
    name, notify = a.port(sends=1), a.port()
    a.notify(name, m.NOTIFY_DEAD_NAME, 0, notify)
    for _ in range(60):
        previous = a.request_notification(name, m.NOTIFY_DEAD_NAME, 0, 0, m.MAKE_SEND_ONCE)
        assert a.kind(previous) == m.TYPE_SEND_ONCE
        a.request_notification(name, m.NOTIFY_DEAD_NAME, 0, previous, m.MOVE_SEND_ONCE)
        a.port()


def test_a4_notify_right_moves(a: Party) -> None:
    name, notify = a.port(sends=1), a.port()
    once = a.once(notify)
    a.request_notification(name, m.NOTIFY_NO_SENDERS, 0, once, m.MOVE_SEND_ONCE)
    refused(m.INVALID_NAME, a.type, once)
    a.deallocate(name)
    assert a.told(notify) == [(m.NOTIFY_NO_SENDERS, 1)]


def test_a4_notifications_ignore_the_queue_limit(a: Party) -> None:
    notify = a.port()
    a.limit(notify, 0)
    for _ in range(3):
        a.deallocate(a.once(notify))
    assert a.status(notify)["msgcount"] == 3


def test_a4_layouts_and_kernel_identity(a: Party) -> None:
    name, notify = a.port(), a.port()
    a.notify(name, m.NOTIFY_NO_SENDERS, 0, notify)
    note = a.receive(notify, option=m.TRAILER_AUDIT << 24)
    assert note.bits == m.PORT_SEND_ONCE << 8
    assert note.size == 36
    assert note.data == m.NDR_RECORD + struct.pack("<I", 0)
    assert note.trailer[12:20] == struct.pack("<2I", 0, 1)
    assert note.trailer[20:52] == bytes(32)


def test_a4_send_once_notification_is_a_bare_header(a: Party) -> None:
    notify = a.port()
    a.deallocate(a.once(notify))
    note = a.receive(notify)
    assert (note.bits, note.size, note.remote, note.local) == (0x1200, 24, 0, notify)


def test_a4_names_of_a_task_that_ends_tell_in_their_order(a: Party, b: Party) -> None:
    """The port of the first name is dead when the second goes: its asker hears that, and then."""
    told = a.port()
    once = b.once(b.port())
    notify, last = b.take(a, told, m.MAKE_SEND_ONCE), b.take(a, told, m.MAKE_SEND_ONCE)
    assert once < notify < last
    b.request_notification(once, m.NOTIFY_DEAD_NAME, 0, notify, m.MOVE_SEND_ONCE)
    b.terminate()
    assert a.told(told) == [(m.NOTIFY_DEAD_NAME, once), (m.NOTIFY_SEND_ONCE, 0)]


# ---- B1: sending ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 4, 20, 23, 25, 26, 27])
def test_b1_bad_sizes(a: Party, size: int) -> None:
    assert a.send_bytes(bytes(size)) == m.SEND_MSG_TOO_SMALL


def test_b1_complex_without_room_for_the_count(a: Party) -> None:
    name = a.port(sends=1)
    assert a.send(name, more_bits=m.BITS_COMPLEX) == m.SEND_MSG_TOO_SMALL


@pytest.mark.parametrize("count", [1, 2, 0x10000, 0xFFFFFFFF])
def test_b1_descriptor_count_beyond_the_message(a: Party, count: int) -> None:
    name = a.port(sends=1)
    assert a.send(name, claimed=count) == m.SEND_MSG_TOO_SMALL
    assert a.status(name)["msgcount"] == 0


def test_b1_descriptor_cut_short(a: Party) -> None:
    name = a.port(sends=1)
    item = (MEMORY, b"", False)
    assert a.send(name, items=(item,), cut=4) == m.SEND_MSG_TOO_SMALL


def test_b1_unknown_descriptor(a: Party) -> None:
    name = a.port(sends=1)
    raw = struct.pack("<IIHBB", name, 0, 0, m.COPY_SEND, 9)
    assert a.send(name, items=((RAW, raw),)) == m.SEND_INVALID_TYPE


def test_b1_bad_copy_option(a: Party) -> None:
    name = a.port(sends=1)
    raw = struct.pack("<QBBBBI", 0, 0, 2, 0, m.DESCRIPTOR_OOL, 0)
    assert a.send(name, items=((RAW, raw),)) == m.SEND_INVALID_TYPE


@pytest.mark.parametrize(("disposition", "flags"), [(m.COPY_SEND, 0), (m.MOVE_RECEIVE, 4)])
def test_b1_bad_guarded_descriptor(a: Party, disposition: int, flags: int) -> None:
    name = a.port(sends=1)
    items = ((GUARDED, name, disposition, 0, flags),)
    assert a.send(name, items=items) == m.SEND_INVALID_TYPE


def test_b1_too_many_ports(a: Party) -> None:
    name = a.port(sends=1)
    items = ((PORTS, (0,) * (m.MESSAGE_PORTS_MAX + 1), m.COPY_SEND, False),)
    assert a.send(name, items=items) == m.SEND_TOO_LARGE


def test_b1_ports_array_of_two_billion(a: Party) -> None:
    name = a.port(sends=1)
    raw = struct.pack("<QBBBBI", 16, 0, 1, m.COPY_SEND, m.DESCRIPTOR_OOL_PORTS, 2**31)
    assert a.send(name, items=((RAW, raw),)) == m.SEND_TOO_LARGE


@pytest.mark.parametrize("bits", [0x20, 0x2000, 0x00200000, 0x01000000, 0x40000000])
def test_b1_unknown_header_bits(a: Party, bits: int) -> None:
    assert a.send(a.port(sends=1), more_bits=bits) == m.SEND_INVALID_HEADER


def test_b1_reply_name_without_a_type(a: Party) -> None:
    name = a.port(sends=1)
    assert a.send(name, reply=name) == m.SEND_INVALID_HEADER


@pytest.mark.parametrize("disposition", [0, m.MOVE_RECEIVE, 5, 22, 31])
def test_b1_destination_type_is_no_send_kind(a: Party, disposition: int) -> None:
    assert a.send(a.port(sends=1), disposition) == m.SEND_INVALID_HEADER


@pytest.mark.parametrize("disposition", [m.MOVE_RECEIVE, 5, 22])
def test_b1_reply_type_is_no_send_kind(a: Party, disposition: int) -> None:
    name = a.port(sends=1)
    assert a.send(name, reply=name, reply_type=disposition) == m.SEND_INVALID_HEADER


def test_b1_bad_voucher_type(a: Party) -> None:
    code = a.send(a.port(sends=1), more_bits=m.MAKE_SEND << 16)
    assert code == m.SEND_INVALID_VOUCHER


def test_b1_unknown_voucher(a: Party) -> None:
    name = a.port(sends=1)
    code = a.send(name, more_bits=m.COPY_SEND << 16, voucher=name)
    assert code == m.SEND_INVALID_VOUCHER


@pytest.mark.parametrize("name", BAD_NAMES)
def test_b1_null_and_dead_destination(a: Party, name: int) -> None:
    assert a.send(name) == m.SEND_INVALID_DEST


def test_b1_destination_that_is_none(a: Party) -> None:
    for name in (0x4203, a.set(), a.dead_name(), a.port()):
        assert a.send(name) == m.SEND_INVALID_DEST


def test_b1_destination_and_reply_are_one_send_once(a: Party) -> None:
    once = a.once(a.port())
    for reply_type in (m.MOVE_SEND_ONCE, m.MAKE_SEND_ONCE):
        code = a.send(once, m.MOVE_SEND_ONCE, reply=once, reply_type=reply_type)
        assert code == m.SEND_INVALID_DEST
    assert a.kind(once) == m.TYPE_SEND_ONCE


def test_b1_bad_reply_is_found_before_the_destination_is_used(a: Party) -> None:
    name = a.port(sends=1)
    for reply in (0x4203, a.set(), a.port()):
        code = a.send(name, m.MOVE_SEND, reply=reply, reply_type=m.COPY_SEND)
        assert code == m.SEND_INVALID_REPLY
    assert a.refs(name) == 1


def test_b1_bad_reply_is_found_before_a_destination_without_the_right(a: Party) -> None:
    name = a.port()
    code = a.send(name, m.COPY_SEND, reply=0x4203, reply_type=m.COPY_SEND)
    assert code == m.SEND_INVALID_REPLY


def test_b1_unknown_destination_comes_before_an_unknown_reply(a: Party) -> None:
    code = a.send(0x4203, m.COPY_SEND, reply=0x4303, reply_type=m.COPY_SEND)
    assert code == m.SEND_INVALID_DEST


def test_b1_both_move_one_send_right_needs_two(a: Party) -> None:
    name = a.port(sends=1)
    both = {"reply": name, "reply_type": m.MOVE_SEND}
    assert a.send(name, m.MOVE_SEND, **both) == m.SEND_INVALID_DEST
    assert a.refs(name) == 1
    a.mod_refs(name, m.RIGHT_SEND, 1)
    assert a.send(name, m.MOVE_SEND, **both) == m.SUCCESS
    assert a.kind(name) == m.TYPE_RECEIVE


@pytest.mark.parametrize(
    ("dest_type", "reply_type"),
    [(m.MOVE_SEND, m.COPY_SEND), (m.COPY_SEND, m.MOVE_SEND)],
)
def test_b1_move_and_copy_of_one_send_right(a: Party, dest_type: int, reply_type: int) -> None:
    name = a.port(sends=1)
    assert a.send(name, dest_type, reply=name, reply_type=reply_type) == m.SUCCESS
    assert a.kind(name) == m.TYPE_RECEIVE


@pytest.mark.parametrize("reply", BAD_NAMES)
def test_b1_null_and_dead_reply(a: Party, reply: int) -> None:
    name = a.port(sends=1)
    assert a.send(name, reply=reply, reply_type=m.MAKE_SEND_ONCE) == m.SUCCESS
    arrived = a.receive(name)
    assert arrived.bits == 0x1112
    assert (arrived.remote, arrived.local) == (reply, name)


def test_b1_dead_name_as_reply(a: Party) -> None:
    name, dead = a.port(sends=1), a.dead_name(2)
    assert a.send(name, reply=dead, reply_type=m.MOVE_SEND) == m.SUCCESS
    assert a.receive(name).remote == m.DEAD
    assert a.refs(dead, m.RIGHT_DEAD_NAME) == 1


@pytest.mark.parametrize("first", [m.MOVE_SEND, m.COPY_SEND, m.MOVE_RECEIVE, m.MAKE_SEND])
def test_b1_bad_body_right_changes_nothing(a: Party, first: int) -> None:
    name, other = a.port(sends=1), a.port(sends=1)
    before = a.status(other)
    items = ((PORT, other, first), (PORT, 0x4203, m.COPY_SEND))
    code = a.send(name, m.MOVE_SEND, reply=other, reply_type=m.MAKE_SEND_ONCE, items=items)
    assert code == m.SEND_INVALID_RIGHT
    assert a.status(other) == before
    assert a.kind(other) == SEND_RECEIVE
    assert a.refs(name) == 1


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (m.MOVE_RECEIVE, m.MOVE_RECEIVE, m.SEND_INVALID_RIGHT),
        (m.MOVE_RECEIVE, m.MAKE_SEND, m.SEND_INVALID_RIGHT),
        (m.MOVE_RECEIVE, m.MOVE_SEND, m.SUCCESS),
        (m.MOVE_SEND, m.COPY_SEND, m.SEND_INVALID_RIGHT),
        (m.COPY_SEND, m.MOVE_SEND, m.SUCCESS),
        (m.MOVE_SEND, m.MOVE_SEND, m.SEND_INVALID_RIGHT),
        (m.MOVE_SEND, m.MAKE_SEND, m.SUCCESS),
    ],
)
def test_b1_two_uses_of_one_name(a: Party, first: int, second: int, code: int) -> None:
    name, other = a.port(sends=1), a.port(sends=1)
    assert a.send(name, items=((PORT, other, first), (PORT, other, second))) == code


def test_b1_more_moves_than_references(a: Party) -> None:
    """As many moves of one name as a message can hold, and one reference too few."""
    name, other = a.port(sends=1), a.port(sends=1)
    moves = m.MESSAGE_PORTS_MAX + 2
    a.mod_refs(other, m.RIGHT_SEND, moves - 2)
    items = ((PORTS, (other,) * m.MESSAGE_PORTS_MAX, m.MOVE_SEND, False),)
    both = {"reply": other, "reply_type": m.MOVE_SEND, "items": items}
    assert a.send(other, m.MOVE_SEND, **both) == m.SEND_INVALID_RIGHT
    assert a.refs(other) == moves - 1
    a.mod_refs(other, m.RIGHT_SEND, 1)
    assert a.send(other, m.MOVE_SEND, **both) == m.SUCCESS
    assert a.kind(other) == m.TYPE_RECEIVE
    assert a.send(name) == m.SUCCESS


def test_b1_one_send_once_twice(a: Party) -> None:
    name, once = a.port(sends=1), a.once(a.port())
    items = ((PORT, once, m.MOVE_SEND_ONCE),) * 2
    assert a.send(name, items=items) == m.SEND_INVALID_RIGHT
    assert a.kind(once) == m.TYPE_SEND_ONCE


@pytest.mark.parametrize("body", BAD_NAMES)
def test_b1_null_and_dead_in_the_body(a: Party, body: int) -> None:
    name = a.port(sends=1)
    assert a.send(name, items=((PORT, body, m.MOVE_SEND),)) == m.SUCCESS
    assert a.receive(name).items == ((PORT, body, m.PORT_SEND),)


def test_b1_dead_name_in_the_body(a: Party) -> None:
    name, dead = a.port(sends=1), a.dead_name(2)
    items = ((PORT, dead, m.COPY_SEND), (PORT, dead, m.MOVE_SEND))
    assert a.send(name, items=items) == m.SUCCESS
    assert a.refs(dead, m.RIGHT_DEAD_NAME) == 1
    assert a.receive(name).items == ((PORT, m.DEAD, m.PORT_SEND),) * 2


def test_b1_bad_memory(a: Party) -> None:
    name = a.port(sends=1)
    raw = struct.pack("<QBBBBI", 8, 0, 1, 0, m.DESCRIPTOR_OOL, 64)
    assert a.send(name, items=((RAW, raw),)) == m.SEND_INVALID_MEMORY
    raw = struct.pack("<QBBBBI", 0, 0, 1, 0, m.DESCRIPTOR_OOL, 64)
    assert a.send(name, items=((RAW, raw),)) == m.SEND_INVALID_MEMORY


def test_b1_full_queue(a: Party) -> None:
    name = a.port(sends=1)
    a.fill(name)
    assert a.send(name) == m.SEND_TIMED_OUT
    assert a.status(name)["msgcount"] == m.QLIMIT_DEFAULT


def test_b1_send_once_ignores_the_limit(a: Party) -> None:
    name = a.port()
    a.limit(name, 0)
    assert a.send(name, m.MAKE_SEND) == m.SEND_TIMED_OUT
    assert a.send(name, m.MAKE_SEND_ONCE) == m.SUCCESS
    assert a.send(a.once(name), m.MOVE_SEND_ONCE) == m.SUCCESS
    assert a.status(name)["msgcount"] == 2


def test_b1_raised_limit_lets_one_through(a: Party) -> None:
    name = a.port(sends=1)
    a.limit(name, 1)
    a.fill(name)
    a.limit(name, 2)
    assert a.send(name) == m.SUCCESS
    assert a.send(name) == m.SEND_TIMED_OUT


def test_b1_pseudo_receive_of_a_copied_destination_gains_a_reference(a: Party) -> None:
    name = a.port(sends=1)
    a.fill(name)
    code, back = a.send_back(name, m.COPY_SEND, id=7, data=b"mine")
    assert code == m.SEND_TIMED_OUT
    assert back is not None
    assert (back.remote, back.local, back.id, back.data) == (name, 0, 7, b"mine")
    assert back.bits == m.MOVE_SEND
    assert a.refs(name) == 2


def test_b1_pseudo_receive_of_a_moved_destination_gives_it_back(a: Party) -> None:
    name = a.port(sends=2)
    a.fill(name)
    code, back = a.send_back(name, m.MOVE_SEND)
    assert code == m.SEND_TIMED_OUT
    assert back is not None
    assert back.remote == name
    assert a.refs(name) == 2


def test_b1_pseudo_receive_gives_rights_back(a: Party) -> None:
    name, other = a.port(sends=1), a.port(sends=1)
    once = a.once(other)
    a.fill(name)
    items = ((PORT, other, m.MOVE_RECEIVE), (PORT, once, m.MOVE_SEND_ONCE))
    code, back = a.send_back(name, m.COPY_SEND, items=items)
    assert code == m.SEND_TIMED_OUT
    assert back is not None
    (_, receive, kind), (_, again, once_kind) = back.items
    assert (receive, kind) == (other, m.PORT_RECEIVE)
    assert again != once
    assert once_kind == m.PORT_SEND_ONCE
    assert a.kind(other) == SEND_RECEIVE
    assert a.kind(again) == m.TYPE_SEND_ONCE


def test_b1_pseudo_received_message_can_be_sent_again(a: Party) -> None:
    name, other = a.port(sends=1), a.port()
    a.fill(name)
    fields = {"reply": other, "reply_type": m.MAKE_SEND_ONCE, "data": b"mine"}
    code, back = a.send_back(name, m.MAKE_SEND, **fields)
    assert code == m.SEND_TIMED_OUT
    assert back is not None
    a.receive(name)
    again = Letter(back.remote, back.bits & 0x1F, back.local, back.bits >> 8 & 0x1F)
    assert a.world.send(a.task, again._replace(data=back.data)) == m.SUCCESS


def test_b1_failed_send_skips_the_receive(a: Party) -> None:
    name = a.port(sends=1)
    a.send(name)
    letter = Letter(0x4203, m.COPY_SEND)
    option = m.OPTION_SEND | m.OPTION_RCV
    assert a.world.mach_msg(a.task, letter, option, 4096, name)[0] == m.SEND_INVALID_DEST
    assert a.status(name)["msgcount"] == 1


# ---- B2: receiving --------------------------------------------------------------------------


def test_b2_receive_needs_a_receive_right_or_set(a: Party) -> None:
    for name in (0, m.DEAD, 0x4203, a.dead_name(), a.once(a.port())):
        assert a.receive_code(name) == m.RCV_INVALID_NAME


def test_b2_empty_port_and_set(a: Party) -> None:
    name = a.port()
    assert a.receive_code(name) == m.RCV_TIMED_OUT
    assert a.receive_code(a.set(name)) == m.RCV_TIMED_OUT
    assert a.receive_code(a.set()) == m.RCV_TIMED_OUT


def test_b2_header_is_swapped(a: Party, b: Party) -> None:
    name = a.port()
    send, reply = b.take(a, name, m.MAKE_SEND), b.port()
    b.send(send, reply=reply, reply_type=m.MAKE_SEND_ONCE, id=-5, data=b"body")
    arrived = a.receive(name)
    assert arrived.bits == m.PORT_SEND_ONCE | m.PORT_SEND << 8
    assert (arrived.local, arrived.id, arrived.size) == (name, -5, 28)
    assert a.kind(arrived.remote) == m.TYPE_SEND_ONCE
    assert arrived.data == b"body"


@pytest.mark.parametrize(
    ("dest_type", "reply_type", "bits"),
    [
        (m.MAKE_SEND, 0, 0x1100),
        (m.MAKE_SEND_ONCE, 0, 0x1200),
        (m.MAKE_SEND, m.MAKE_SEND, 0x1111),
        (m.COPY_SEND, m.MAKE_SEND_ONCE, 0x1112),
    ],
)
def test_b2_received_dispositions(a: Party, dest_type: int, reply_type: int, bits: int) -> None:
    name = a.port(sends=1)
    reply = name if reply_type else 0
    assert a.send(name, dest_type, reply=reply, reply_type=reply_type) == m.SUCCESS
    assert a.receive(name).bits == bits


def test_b2_fifo_and_seqno(a: Party) -> None:
    name = a.port()
    for index in range(4):
        a.send(name, m.MAKE_SEND, id=index)
    option = m.TRAILER_SEQNO << 24
    got = [a.receive(name, option) for _ in range(4)]
    assert [arrived.id for arrived in got] == [0, 1, 2, 3]
    assert [struct.unpack("<III", arrived.trailer)[2] for arrived in got] == [0, 1, 2, 3]


def test_b2_set_takes_its_members_in_turn(a: Party) -> None:
    first, second = a.port(), a.port()
    pset = a.set(first, second)
    for name in (first, first, second, second):
        a.send(name, m.MAKE_SEND)
    order = [a.receive(pset).local for _ in range(4)]
    assert order in ([first, second] * 2, [second, first] * 2)


def test_b2_member_can_be_received_from_directly(a: Party) -> None:
    name = a.port()
    a.set(name)
    a.send(name, m.MAKE_SEND, data=b"here")
    assert a.receive(name).data == b"here"


def test_b2_port_in_two_sets_delivers_once(a: Party) -> None:
    name = a.port()
    first, second = a.set(name), a.set(name)
    a.send(name, m.MAKE_SEND)
    a.receive(first)
    assert a.empty(second)


def test_b2_full_port_joins_a_set(a: Party) -> None:
    name = a.port()
    a.send(name, m.MAKE_SEND, id=3)
    assert a.receive(a.set(name)).id == 3


def test_b2_too_large_stays_with_large(a: Party) -> None:
    name = a.port()
    a.send(name, m.MAKE_SEND, data=bytes(100))
    option = m.OPTION_RCV_LARGE | m.OPTION_RCV_LARGE_IDENTITY
    code, head = a.world.receive(a.task, name, option, 48)
    assert code == m.RCV_TOO_LARGE
    assert head is not None
    assert (head.size, head.local) == (124, name)
    assert a.receive(name).size == 124


def test_b2_trailer_counts_for_the_size(a: Party) -> None:
    name = a.port()
    a.send(name, m.MAKE_SEND)
    assert a.receive_code(name, m.OPTION_RCV_LARGE, 31) == m.RCV_TOO_LARGE
    seqno = m.TRAILER_SEQNO << 24
    assert a.receive_code(name, m.OPTION_RCV_LARGE | seqno, 32) == m.RCV_TOO_LARGE
    assert a.receive_code(name, m.OPTION_RCV_LARGE | seqno, 36) == m.SUCCESS


def test_b2_too_large_is_destroyed_without_large(a: Party) -> None:
    name, reply = a.port(), a.port()
    fields = {"reply": reply, "reply_type": m.MAKE_SEND_ONCE, "data": bytes(100)}
    a.send(name, m.MAKE_SEND, **fields)
    assert a.receive_code(name, 0, 64) == m.RCV_TOO_LARGE
    assert a.empty(name)
    assert a.told(reply) == [(m.NOTIFY_SEND_ONCE, 0)]


def test_b2_reply_port_that_died_in_flight(a: Party) -> None:
    name, reply = a.port(), a.port()
    a.send(name, m.MAKE_SEND, reply=reply, reply_type=m.MAKE_SEND_ONCE)
    a.destroy(reply)
    assert a.receive(name).remote == m.DEAD


def test_b2_body_port_that_died_in_flight(a: Party) -> None:
    name, other = a.port(), a.port()
    a.send(name, m.MAKE_SEND, items=((PORT, other, m.MAKE_SEND),))
    a.destroy(other)
    assert a.receive(name).items == ((PORT, m.DEAD, m.PORT_SEND),)


def test_b2_send_and_receive_in_one_call(a: Party) -> None:
    name = a.port()
    letter = Letter(name, m.MAKE_SEND, id=12)
    option = m.OPTION_SEND | m.OPTION_RCV
    code, arrived = a.world.mach_msg(a.task, letter, option, 256, name)
    assert code == m.SUCCESS
    assert arrived is not None
    assert arrived.id == 12


def test_b2_short_receive_drops_what_came_along(a: Party) -> None:
    name, other, guarded = a.port(sends=1), a.port(sends=1), a.port()
    items = (
        (PORT, other, m.MOVE_RECEIVE),
        (PORT, other, m.MOVE_SEND),
        (GUARDED, guarded, m.MOVE_RECEIVE, 7, 0),
    )
    assert a.send(name, items=items, data=b"only") == m.SUCCESS
    assert a.world.call("short_receive", a.task, name, 100) == b"only"
    assert list(a.names_now()) == [name]


def test_b2_short_send_to_a_full_queue_changes_nothing(a: Party) -> None:
    name = a.port(sends=1)
    a.fill(name)
    refused(m.SEND_TIMED_OUT, a.world.call, "short_send", a.task, name, b"x", 1)
    assert a.refs(name) == 1


def test_b2_rights_arrive_in_order_of_the_message(a: Party, b: Party) -> None:
    name = a.port()
    send = b.take(a, name, m.MAKE_SEND)
    ports = [b.port(sends=1) for _ in range(3)]
    items = (
        (PORT, ports[0], m.MOVE_SEND),
        (PORTS, (ports[1], ports[2], 0), m.COPY_SEND, False),
    )
    assert b.send(send, items=items) == m.SUCCESS
    got = a.receive(name)
    (_, first, _), (_, names, kind, deallocate) = got.items
    assert (kind, deallocate) == (m.PORT_SEND, 1)
    assert names[2] == 0
    assert [a.kind(each) for each in (first, *names[:2])] == [m.TYPE_SEND] * 3
    assert first < names[0] < names[1]


# ---- B3: trailers, vouchers, memory ---------------------------------------------------------


@pytest.mark.parametrize(("element", "size"), [(0, 8), (1, 12), (2, 20), (3, 52), (4, 60), (7, 68)])
def test_b3_trailer_sizes(a: Party, element: int, size: int) -> None:
    name = a.port()
    a.set_context(name, 0xABCDEF)
    a.send(name, m.MAKE_SEND, data=b"data")
    arrived = a.receive(name, element << 24)
    assert arrived.size == 28
    assert len(arrived.trailer) == size
    assert struct.unpack_from("<II", arrived.trailer) == (0, size)
    if size >= 60:
        assert struct.unpack_from("<Q", arrived.trailer, 52) == (0xABCDEF,)


def test_b3_voucher_without_type_round_trips(a: Party) -> None:
    name = a.port()
    a.send(name, m.MAKE_SEND, voucher=0xCAFE)
    assert a.receive(name).voucher == 0xCAFE


def test_b3_memory_arrives_as_a_copy_to_free(a: Party) -> None:
    name = a.port()
    assert a.send(name, m.MAKE_SEND, items=((MEMORY, b"out of line", False),)) == m.SUCCESS
    assert a.receive(name).items == ((MEMORY, b"out of line", 1),)


def test_b3_deallocate_moves_the_region(a: Party) -> None:
    name = a.port()
    assert a.send(name, m.MAKE_SEND, items=((MEMORY, b"gone", True),)) == m.SUCCESS
    assert a.receive(name).items == ((MEMORY, b"gone", 1),)


def test_b3_empty_memory(a: Party) -> None:
    name = a.port()
    assert a.send(name, m.MAKE_SEND, items=((MEMORY, b"", False),)) == m.SUCCESS
    assert a.receive(name).items == ((MEMORY, b"", 1),)


def test_b3_complex_message_without_descriptors(a: Party) -> None:
    name = a.port()
    assert a.send(name, m.MAKE_SEND, claimed=0, data=b"data") == m.SUCCESS
    arrived = a.receive(name)
    assert (arrived.bits, arrived.size) == (m.BITS_COMPLEX | 0x1100, 32)
    assert (arrived.items, arrived.data) == ((), b"data")


def test_b3_empty_ports(a: Party) -> None:
    name = a.port()
    assert a.send(name, m.MAKE_SEND, items=((PORTS, (), m.COPY_SEND, False),)) == m.SUCCESS
    assert a.receive(name).items == ((PORTS, (), m.PORT_SEND, 1),)


def test_b3_memory_of_a_message_handed_back(a: Party) -> None:
    name = a.port(sends=1)
    a.fill(name)
    code, back = a.send_back(name, m.COPY_SEND, items=((MEMORY, b"mine", True),))
    assert code == m.SEND_TIMED_OUT
    assert back is not None
    assert back.items == ((MEMORY, b"mine", 1),)


# ---- B4: circularity ------------------------------------------------------------------------


def test_b4_port_into_its_own_queue(a: Party) -> None:
    name = a.port(sends=2)
    assert a.send(name, items=((PORT, name, m.MOVE_RECEIVE),)) == m.SUCCESS
    assert a.kind(name) == m.TYPE_DEAD_NAME
    assert a.refs(name, m.RIGHT_DEAD_NAME) == 2


def test_b4_two_ports_into_each_other(a: Party) -> None:
    first, second = a.port(sends=1), a.port(sends=1)
    assert a.send(second, items=((PORT, first, m.MOVE_RECEIVE),)) == m.SUCCESS
    assert a.send(first, items=((PORT, second, m.MOVE_RECEIVE),)) == m.SUCCESS
    assert a.kind(first) == a.kind(second) == m.TYPE_DEAD_NAME


def test_b4_three_ports_in_a_ring_of_arrays(a: Party) -> None:
    ports = [a.port(sends=1) for _ in range(3)]
    for port, dest in zip(ports, [*ports[1:], ports[0]], strict=True):
        assert a.send(dest, items=((PORTS, (port,), m.MOVE_RECEIVE, False),)) == m.SUCCESS
    assert [a.kind(port) for port in ports] == [m.TYPE_DEAD_NAME] * 3


def test_b4_chain_is_no_ring(a: Party) -> None:
    first, second, third = (a.port(sends=1) for _ in range(3))
    assert a.send(second, items=((PORT, first, m.MOVE_RECEIVE),)) == m.SUCCESS
    assert a.send(third, items=((PORT, second, m.MOVE_RECEIVE),)) == m.SUCCESS
    assert a.kind(first) == a.kind(second) == m.TYPE_SEND


def test_b4_port_destroyed_notification_to_the_port_itself(a: Party) -> None:
    name = a.port(sends=1)
    a.notify(name, m.NOTIFY_PORT_DESTROYED, 0, name)
    a.mod_refs(name, m.RIGHT_RECEIVE, -1)
    assert a.kind(name) == m.TYPE_DEAD_NAME


def test_b4_circular_message_to_a_full_queue_is_destroyed(a: Party) -> None:
    name = a.port(sends=1)
    a.fill(name)
    assert a.send(name, items=((PORT, name, m.MOVE_RECEIVE),)) == m.SUCCESS
    assert a.kind(name) == m.TYPE_DEAD_NAME


def test_b4_right_taken_out_breaks_the_chain(a: Party, world: World) -> None:
    first, second = a.port(sends=1), a.port(sends=1)
    a.send(second, items=((PORT, first, m.MOVE_RECEIVE),))
    a.receive(second)
    assert a.send(first, items=((PORT, second, m.MOVE_RECEIVE),)) == m.SUCCESS
    world.verify()
    assert a.kind(second) == m.TYPE_SEND
