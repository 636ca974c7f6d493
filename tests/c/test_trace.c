/* SPDX-License-Identifier: BSD-2-Clause */
/* Paths and their counts: found again, in order, bounded, with a row for what found no room. Interfaces, which are as small. */
#include "base/pool.c"
#include "sec/iface.c"
#include "sec/trace.c"

#include <assert.h>
#include <stdio.h>

#define LIMIT 300

static struct heap heap;
static struct trace trace;
static struct pm_trace_record rows[2 * LIMIT];

static void begin(void) {
    trace_init(&trace, &heap, LIMIT, 1);
    assert(trace_start(&trace));
}

static void end(void) {
    trace_destroy(&trace);
    assert(heap.bytes == 0);
}

static void test_a_text_has_one_number(void) {
    char text[16];
    for (uint32_t i = 1; i <= 200; i++) assert(trace_identity(&trace, text, (uint32_t)snprintf(text, sizeof text, "task %u", i)) == i);
    for (uint32_t i = 1; i <= 200; i++) assert(trace_identity(&trace, text, (uint32_t)snprintf(text, sizeof text, "task %u", i)) == i);
}

static void test_a_path_is_found_again(void) {
    uint32_t path = trace_path(&trace, 1, 2, 3, 4);
    assert(path && path == trace_path(&trace, 1, 2, 3, 4));
    assert(trace_path(&trace, 2, 2, 3, 4) != path && trace_path(&trace, 1, 1, 3, 4) != path);
    assert(trace_path(&trace, 1, 2, 4, 4) != path && trace_path(&trace, 1, 2, 3, 5) != path);
}

static void test_events_are_counted_in_the_order_they_first_came(void) {
    uint32_t one = trace_path(&trace, 1, 1, 0, 1), two = trace_path(&trace, 1, 1, 0, 2);
    trace_count(&trace, two, PM_EVENT_SEND);
    trace_count(&trace, one, PM_EVENT_RECV);
    trace_count(&trace, two, PM_EVENT_SEND);
    trace_count(&trace, two, PM_EVENT_RECV);
    assert(trace_read(&trace, 0, rows, LIMIT) == 3);
    assert(rows[0].number == 2 && rows[0].event == PM_EVENT_SEND && rows[0].count == 2 && rows[0].order == 1);
    assert(rows[1].number == 1 && rows[1].event == PM_EVENT_RECV && rows[1].count == 1);
    assert(rows[2].number == 2 && rows[2].event == PM_EVENT_RECV);
    assert(trace_read(&trace, 1, rows, 1) == 3 && rows[0].number == 1);
}

static void test_what_finds_no_room_is_counted_apart(void) {
    for (int32_t i = 0; i < LIMIT + 50; i++) trace_count(&trace, trace_path(&trace, 1, 1, 0, i), PM_EVENT_SEND);
    assert(trace.used == LIMIT + 1 && trace.paths[0].count[PM_EVENT_SEND] == 50);
    assert(trace_read(&trace, 0, rows, 2 * LIMIT) == LIMIT + 1);
    assert(rows[LIMIT].task == 0 && rows[LIMIT].count == 50);
    for (int32_t i = 0; i < LIMIT; i++) assert(rows[i].number == i && rows[i].count == 1);
}

static void test_paths_without_memory_are_counted_apart(void) {
    while (trace.used < trace.room) trace_path(&trace, 1, 1, 0, (int32_t)trace.used);
    heap_fault(&heap, 1, true);
    assert(trace_path(&trace, 9, 9, 9, 9) == 0 && trace_identity(&trace, "new", 3) == 0);
    heap_fault(&heap, 0, false);
    assert(trace_path(&trace, 9, 9, 9, 9) != 0 && trace_identity(&trace, "new", 3) != 0);
}

static void test_a_new_recording_begins_at_nothing(void) {
    uint32_t stamp = trace.stamp;
    trace_count(&trace, trace_path(&trace, 1, 1, 0, 1), PM_EVENT_SEND);
    trace_reset(&trace);
    assert(trace.stamp != stamp && trace_read(&trace, 0, rows, LIMIT) == 0);
    assert(trace_path(&trace, 1, 1, 0, 2) == 1);
}

static void test_methods_are_numbered_by_routine(void) {
    struct interfaces interfaces;
    struct method method;
    uint64_t before = heap.bytes;
    interfaces_init(&interfaces, &heap);
    uint32_t first = interface_create(&interfaces, 400, 40, 0, NULL), second = interface_create(&interfaces, -5, 3, 0, NULL);
    const struct interface *large = interface_find(&interfaces, first), *small = interface_find(&interfaces, second);
    assert(first == 1 && second == 2 && !interface_find(&interfaces, 0) && !interface_find(&interfaces, 3));
    assert(interface_method(large, 430, &method) && method.tclass == large->tclass && method.permission == 1u << 30);
    assert(interface_method(large, 431, &method) && method.tclass == large->tclass + 1 && method.permission == 1);
    assert(!interface_method(large, 440, &method) && !interface_method(large, 399, &method));
    assert(!interface_method(large, INT32_MIN, &method) && !interface_method(large, INT32_MAX, &method));
    assert(small->tclass == large->tclass + 2 && interface_method(small, -5, &method) && method.permission == 1);
    uint32_t third = interface_create(&interfaces, 10, 3, 0, (const uint8_t[]){2});
    const struct interface *holed = interface_find(&interfaces, third);
    assert(interface_method(holed, 10, &method) && !interface_method(holed, 11, &method) && interface_method(holed, 12, &method));
    interfaces_destroy(&interfaces);
    assert(heap.bytes == before);
}

static void test_classes_run_out(void) {
    struct interfaces interfaces;
    uint32_t made = 0;
    interfaces_init(&interfaces, &heap);
    static const uint8_t holes[PM_ROUTINES_PER_CLASS * 100 / 8 + 1] = {1};
    while (interface_create(&interfaces, 0, PM_ROUTINES_PER_CLASS * 100, 0, holes)) made++;
    assert(made == (PM_CLASSES_MAX - PM_CLASS_INTERFACE) / 100);
    interfaces_destroy(&interfaces);
}

static void (*const tests[])(void) = {
    test_a_text_has_one_number, test_a_path_is_found_again, test_events_are_counted_in_the_order_they_first_came,
    test_what_finds_no_room_is_counted_apart, test_paths_without_memory_are_counted_apart,
    test_a_new_recording_begins_at_nothing, test_methods_are_numbered_by_routine, test_classes_run_out,
};

int main(void) {
    for (size_t i = 0; i < array_count(tests); i++) {
        begin();
        tests[i]();
        end();
    }
    return 0;
}
