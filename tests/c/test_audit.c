/* SPDX-License-Identifier: BSD-2-Clause */
/* The ring of records: order, what is lost and how that shows, room that was promised, who waits for records. */
#include "base/lock.c"
#include "base/pool.c"
#include "sec/audit.c"
#include "sec/sample.c"
#include "sec/selection.c"
#include "sec/sid.c"

#include <assert.h>

#define ROOM 8

static struct heap heap;
static struct audit audit;
static struct pm_audit_record out[4 * ROOM];

static void begin(void) {
    assert(audit_init(&audit, &heap, ROOM));
    audit_options(&audit, false, PM_AUDIT_DROP);
}

static void end(void) {
    audit_destroy(&audit);
    assert(heap.bytes == 0);
}

static void append(uint32_t count, uint32_t first_name) {
    for (uint32_t i = 0; i < count; i++) audit_append(&audit, &(struct pm_audit_record){.name = first_name + i});
}

static size_t drain(struct pm_audit_record *records, size_t capacity) {
    size_t count = audit_waiting(&audit) < capacity ? audit_waiting(&audit) : capacity;
    audit_copy(&audit, records, count);
    audit_taken(&audit, count);
    return count;
}

static void test_records_come_out_in_order(void) {
    for (uint32_t round = 0; round < 5; round++) {
        append(5, 10 * round);
        assert(drain(out, 2) == 2 && drain(out + 2, ROOM) == 3);
        for (uint32_t i = 0; i < 5; i++) assert(out[i].name == 10 * round + i && out[i].sequence == 5 * round + i);
    }
    assert(drain(out, ROOM) == 0);
}

static void test_one_slot_is_kept(void) {
    append(ROOM + 3, 0);
    assert(drain(out, ROOM) == ROOM - 1 && audit.lost == 4 && audit.lost_total == 4);
}

static void test_a_loss_is_a_gap_and_a_record(void) {
    append(ROOM + 3, 0);
    assert(drain(out, ROOM) == ROOM - 1);
    append(1, 99);
    assert(drain(out, ROOM) == 2 && audit.lost == 0);
    assert(out[0].operation == PM_OP_LOSS && out[0].flags == PM_AUDIT_LOSS && out[0].result == 4);
    assert(out[0].sequence == ROOM - 1 + 4 && out[1].sequence == out[0].sequence + 1 && out[1].name == 99);
}

static void test_a_loss_is_told_of_though_nothing_follows(void) {
    append(ROOM + 3, 0);
    audit_tell_loss(&audit, 7, 1);
    audit_tell_loss(&audit, 8, 1);
    assert(audit.lost == 0 && drain(out, ROOM) == ROOM);
    assert(out[ROOM - 1].operation == PM_OP_LOSS && out[ROOM - 1].result == 4 && out[ROOM - 1].time == 7);
    assert(out[ROOM - 1].sequence == ROOM - 1 + 4);
}

/* Whoever was promised room for a record has it, though a loss is to be told of as well. */
static void test_room_for_a_record_is_room_beside_a_loss(void) {
    audit.full = PM_AUDIT_FAIL;
    append(ROOM, 0);
    assert(audit.lost == 1 && !audit_reserve(&audit, 1));
    assert(drain(out, 1) == 1 && audit_reserve(&audit, 1) && !audit_reserve(&audit, 2));
    append(1, 99);
    assert(audit.lost == 0 && drain(out, ROOM) == ROOM && out[ROOM - 1].name == 99);
}

static void test_what_a_full_ring_does_is_chosen(void) {
    append(ROOM, 0);
    audit.full = PM_AUDIT_DROP;
    assert(audit_reserve(&audit, 1));
    audit.full = PM_AUDIT_FAIL;
    assert(!audit_reserve(&audit, 1));
    audit.full = PM_AUDIT_BLOCK;
    assert(!audit_reserve(&audit, 1));
}

static void test_a_class_is_selected_alone(void) {
    struct selection *selection = &audit.selection;
    selection_select(selection, &selection->first, 0, 0, 0);
    assert(!selection->any_granted && selection->denied[PM_CLASSES_MAX - 1] == 0);
    selection_select(selection, &selection->first, PM_CLASS_MACH_TASK, 5, 6);
    assert(selection->granted[PM_CLASS_MACH_TASK] == 5 && selection->denied[PM_CLASS_MACH_TASK] == 6);
    assert(selection->granted[PM_CLASS_MACH_PORT] == 0 && selection->any_granted);
}

static void test_what_was_handed_out_is_known_until_the_next_call(void) {
    append(3, 0);
    assert(drain(out, 2) == 2 && audit.drained == 0);
    assert(drain(out, 2) == 1 && audit.drained == 2);
    assert(drain(out, 2) == 0 && audit.drained == 3);
}

/* ---- who waits ---- */

static bool woken(const struct audit_waiter *waiter) { return list_empty(&waiter->in_waiters); }

static void test_who_waits_is_woken_by_the_last_record_wanted(void) {
    struct audit_waiter few, many;
    assert(audit_wait_enter(&audit, &few, 2) && audit_wait_enter(&audit, &many, 4));
    append(1, 0);
    assert(!woken(&few) && !audit_ready(&audit));       /* the next record is not for the shortest path: it wakes */
    append(1, 1);
    assert(woken(&few) && woken(&many) && audit_ready(&audit));
    audit_wait_leave(&audit, &few);
    audit_wait_leave(&audit, &many);
    assert(!audit_wait_enter(&audit, &few, 2) && audit_wait_enter(&audit, &many, 3));
    audit_wait_leave(&audit, &many);
}

static void test_who_wants_more_than_fits_is_woken_by_a_full_ring(void) {
    struct audit_waiter waiter;
    assert(audit_wait_enter(&audit, &waiter, 1000));
    append(ROOM - 2, 0);
    assert(!woken(&waiter));
    append(1, 0);
    assert(woken(&waiter) && !audit_has_room(&audit, 1));
    audit_wait_leave(&audit, &waiter);
}

static void test_a_wake_that_comes_too_soon_is_kept(void) {
    struct audit_waiter waiter;
    audit_wake(&audit);
    assert(!audit_wait_enter(&audit, &waiter, 1));
    assert(audit_wait_enter(&audit, &waiter, 1));
    audit_wake(&audit);
    assert(woken(&waiter));
    audit_wait_leave(&audit, &waiter);
    assert(audit_wait_enter(&audit, &waiter, 1));
    audit_wait_leave(&audit, &waiter);
}

static void test_nothing_is_written_at_once_where_more_is_to_be_done(void) {
    assert(audit_ready(&audit));
    audit_options(&audit, true, PM_AUDIT_DROP);
    assert(!audit_ready(&audit) && audit_reserve(&audit, 1));
    audit_options(&audit, false, PM_AUDIT_DROP);
    audit_halt(&audit, true);
    assert(!audit_ready(&audit) && !audit_reserve(&audit, 1));
    audit_halt(&audit, false);
    append(ROOM, 0);
    assert(!audit_ready(&audit) && drain(out, ROOM) == ROOM - 1 && !audit_ready(&audit));
    append(1, 0);
    assert(audit_ready(&audit));
    drain(out, ROOM);
    for (uint32_t i = 0; i < ROOM - 1; i++) {
        assert(audit_ready(&audit));
        append(1, i);
    }
    assert(!audit_ready(&audit) && !audit.lost);
}

static void (*const tests[])(void) = {
    test_records_come_out_in_order, test_one_slot_is_kept, test_a_loss_is_a_gap_and_a_record,
    test_a_loss_is_told_of_though_nothing_follows,
    test_room_for_a_record_is_room_beside_a_loss, test_what_a_full_ring_does_is_chosen, test_a_class_is_selected_alone,
    test_what_was_handed_out_is_known_until_the_next_call, test_who_waits_is_woken_by_the_last_record_wanted,
    test_who_wants_more_than_fits_is_woken_by_a_full_ring, test_a_wake_that_comes_too_soon_is_kept,
    test_nothing_is_written_at_once_where_more_is_to_be_done,
};

int main(void) {
    for (size_t i = 0; i < array_count(tests); i++) {
        begin();
        tests[i]();
        end();
    }
    return 0;
}
