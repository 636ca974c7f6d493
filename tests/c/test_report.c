/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of reported operations: counted apart, bounded, moved out whole, all or nothing without memory. */
#include <assert.h>
#include <string.h>

#include "base/pool.c"
#include "sec/report.c"

static struct pm_audit_record record(uint32_t ssid, uint32_t tsid, uint32_t tclass, uint32_t report) {
    return (struct pm_audit_record){.effective_sid = ssid, .object_sid = tsid, .tclass = tclass, .report = report,
                                    .operation = PM_OP_SEND};
}

static void count(struct reports *reports, uint32_t ssid, uint32_t tsid, uint32_t tclass, uint32_t report) {
    struct pm_audit_record made = record(ssid, tsid, tclass, report);
    reports_count(reports, &made);
}

static uint64_t count_of(const struct pm_report *rows, size_t used, uint32_t ssid, uint32_t tsid, uint32_t report) {
    for (size_t i = 0; i < used; i++)
        if (rows[i].ssid == ssid && rows[i].tsid == tsid && rows[i].report == report) return rows[i].count;
    return 0;
}

static void test_rows_are_kept_apart(void) {
    struct heap heap = {0};
    struct reports reports = {0};
    struct pm_report rows[8];
    uint64_t lost;
    assert(reports_start(&reports, &heap, 8) && reports_on(&reports));
    for (int i = 0; i < 5; i++) count(&reports, 1, 2, 1, 4);
    count(&reports, 1, 2, 1, 8);
    count(&reports, 2, 1, 1, 4);
    struct pm_audit_record later = record(1, 2, 1, 4);
    later.operation = PM_OP_GIVE;
    reports_count(&reports, &later);
    size_t used = reports_take(&reports, rows, &lost);
    assert(used == 3 && lost == 0);
    assert(count_of(rows, used, 1, 2, 4) == 6 && count_of(rows, used, 1, 2, 8) == 1 && count_of(rows, used, 2, 1, 4) == 1);
    assert(rows[0].operation == PM_OP_SEND);
    assert(reports_take(&reports, rows, &lost) == 0);
    count(&reports, 1, 2, 1, 4);
    assert(reports_take(&reports, rows, &lost) == 1 && rows[0].count == 1);
    reports_stop(&reports);
    assert(!reports_on(&reports) && heap.bytes == 0);
}

static void test_what_does_not_fit_is_lost_and_counted(void) {
    struct heap heap = {0};
    struct reports reports = {0};
    struct pm_report rows[64];
    uint64_t lost;
    assert(reports_start(&reports, &heap, 64));
    for (uint32_t i = 0; i < 1000; i++) count(&reports, i + 1, i * 77, 1 + i % 3, 1u << i % 32);
    for (uint32_t i = 0; i < 64; i++) count(&reports, i + 1, i * 77, 1 + i % 3, 1u << i % 32);
    assert(reports_take(&reports, rows, &lost) == 64 && lost == 936);
    for (int i = 0; i < 64; i++) assert(rows[i].count == 2);
    reports_stop(&reports);
    assert(heap.bytes == 0);
}

static void test_without_memory_nothing_changes(void) {
    struct heap heap = {0};
    struct reports reports = {0};
    struct pm_report rows[8];
    uint64_t lost;
    assert(reports_start(&reports, &heap, 8));
    count(&reports, 1, 2, 1, 4);
    for (uint64_t at = 1; at <= 2; at++) {
        heap_fault(&heap, at, false);
        assert(!reports_start(&reports, &heap, 16));
        heap_fault(&heap, 0, false);
    }
    assert(reports_take(&reports, rows, &lost) == 1);
    assert(reports_start(&reports, &heap, 0) && !reports_on(&reports) && heap.bytes == 0);
}

int main(void) {
    test_rows_are_kept_apart();
    test_what_does_not_fit_is_lost_and_counted();
    test_without_memory_nothing_changes();
    return 0;
}
