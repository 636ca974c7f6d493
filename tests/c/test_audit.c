/* SPDX-License-Identifier: BSD-2-Clause */
/* The ring of records: order, what is lost and how that shows, room that was promised. */
#include "base/pool.c"
#include "sec/audit.c"

#include <assert.h>

#define ROOM 8

static struct heap heap;
static struct audit audit;
static struct pm_audit_record out[4 * ROOM];

static void begin(void) {
    assert(audit_init(&audit, &heap, ROOM));
    audit.full = PM_AUDIT_DROP;
}

static void end(void) {
    audit_destroy(&audit);
    assert(heap.bytes == 0);
}

static void append(uint32_t count, uint32_t first_name) {
    for (uint32_t i = 0; i < count; i++) audit_append(&audit, &(struct pm_audit_record){.name = first_name + i});
}

static void test_records_come_out_in_order(void) {
    for (uint32_t round = 0; round < 5; round++) {
        append(5, 10 * round);
        assert(audit_drain(&audit, out, 2) == 2 && audit_drain(&audit, out + 2, ROOM) == 3);
        for (uint32_t i = 0; i < 5; i++) assert(out[i].name == 10 * round + i && out[i].sequence == 5 * round + i);
    }
    assert(audit_drain(&audit, out, ROOM) == 0);
}

static void test_one_slot_is_kept(void) {
    append(ROOM + 3, 0);
    assert(audit_drain(&audit, out, ROOM) == ROOM - 1 && audit.lost == 4 && audit.lost_total == 4);
}

static void test_a_loss_is_a_gap_and_a_record(void) {
    append(ROOM + 3, 0);
    assert(audit_drain(&audit, out, ROOM) == ROOM - 1);
    append(1, 99);
    assert(audit_drain(&audit, out, ROOM) == 2 && audit.lost == 0);
    assert(out[0].operation == PM_OP_LOSS && out[0].flags == PM_AUDIT_LOSS && out[0].result == 4);
    assert(out[0].sequence == ROOM - 1 + 4 && out[1].sequence == out[0].sequence + 1 && out[1].name == 99);
}

/* Whoever was promised room for a record has it, though a loss is to be told of as well. */
static void test_room_for_a_record_is_room_beside_a_loss(void) {
    audit.full = PM_AUDIT_FAIL;
    append(ROOM, 0);
    assert(audit.lost == 1 && !audit_reserve(&audit, 1));
    assert(audit_drain(&audit, out, 1) == 1 && audit_reserve(&audit, 1) && !audit_reserve(&audit, 2));
    append(1, 99);
    assert(audit.lost == 0 && audit_drain(&audit, out, ROOM) == ROOM && out[ROOM - 1].name == 99);
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
    audit_select(&audit, 0, 0, 0);
    assert(!audit.any_granted && audit.denied[PM_CLASSES_MAX - 1] == 0);
    audit_select(&audit, PM_CLASS_MACH_TASK, 5, 6);
    assert(audit.granted[PM_CLASS_MACH_TASK] == 5 && audit.denied[PM_CLASS_MACH_TASK] == 6);
    assert(audit.granted[PM_CLASS_MACH_PORT] == 0 && audit.any_granted);
}

static void test_what_was_handed_out_is_known_until_the_next_call(void) {
    append(3, 0);
    assert(audit_drain(&audit, out, 2) == 2 && audit.drained == 0);
    assert(audit_drain(&audit, out, 2) == 1 && audit.drained == 2);
    assert(audit_drain(&audit, out, 2) == 0 && audit.drained == 3);
}

static void (*const tests[])(void) = {
    test_records_come_out_in_order, test_one_slot_is_kept, test_a_loss_is_a_gap_and_a_record,
    test_room_for_a_record_is_room_beside_a_loss, test_what_a_full_ring_does_is_chosen, test_a_class_is_selected_alone,
    test_what_was_handed_out_is_known_until_the_next_call,
};

int main(void) {
    for (size_t i = 0; i < array_count(tests); i++) {
        begin();
        tests[i]();
        end();
    }
    return 0;
}
