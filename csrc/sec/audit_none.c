/* SPDX-License-Identifier: BSD-2-Clause */
/* In the place of audit.c: an audit trail in which nothing is selected or kept. The benchmarks compare the core with it. */
#include "sec/audit.h"

#include <string.h>

bool audit_init(struct audit *audit, struct heap *heap, uint32_t records) {
    (void)records;
    memset(audit, 0, sizeof *audit);
    audit->heap = heap;
    return true;
}

void audit_destroy(struct audit *audit) { (void)audit; }

void audit_select(struct audit *audit, uint32_t tclass, uint32_t granted, uint32_t denied) {
    (void)audit, (void)tclass, (void)granted, (void)denied;
}

bool audit_reserve(struct audit *audit, uint32_t records) {
    (void)audit, (void)records;
    return true;
}

void audit_append(struct audit *audit, const struct pm_audit_record *record) { (void)audit, (void)record; }

bool audit_ready(const struct audit *audit) {
    (void)audit;
    return false;
}

size_t audit_drain(struct audit *audit, struct pm_audit_record *records, size_t capacity) {
    (void)audit, (void)records, (void)capacity;
    return 0;
}
