/* SPDX-License-Identifier: BSD-2-Clause */
/* In the place of audit.c: an audit trail in which nothing is selected or kept. The benchmarks compare the core with it. */
#include "sec/audit.h"

#include <string.h>

bool audit_init(struct audit *audit, struct heap *heap, uint32_t records) {
    (void)records;
    memset(audit, 0, sizeof *audit);
    audit->heap = heap;
    selection_init(&audit->selection, heap);
    return true;
}

void audit_destroy(struct audit *audit) { selection_destroy(&audit->selection); }

bool audit_sample(struct audit *audit, const struct pm_audit_sampling *wanted, struct sample_clock clock) {
    (void)audit, (void)wanted, (void)clock;
    return true;
}

void audit_options(struct audit *audit, bool synchronous, enum pm_audit_full full) {
    (void)audit, (void)synchronous, (void)full;
}

void audit_halt(struct audit *audit, bool halted) { (void)audit, (void)halted; }

bool audit_reserve(struct audit *audit, uint32_t records) {
    (void)audit, (void)records;
    return true;
}

void audit_append(struct audit *audit, const struct pm_audit_record *record) { (void)audit, (void)record; }

void audit_tell_loss(struct audit *audit, uint64_t time, uint32_t epoch) { (void)audit, (void)time, (void)epoch; }

void audit_copy(const struct audit *audit, struct pm_audit_record *records, size_t count) {
    (void)audit, (void)records, (void)count;
}

void audit_taken(struct audit *audit, size_t count) { (void)audit, (void)count; }

bool audit_wait_enter(struct audit *audit, struct audit_waiter *waiter, uint32_t records) {
    (void)audit, (void)waiter, (void)records;
    return false;
}

void audit_wait_leave(struct audit *audit, struct audit_waiter *waiter) { (void)audit, (void)waiter; }

void audit_wake(struct audit *audit) { (void)audit; }
