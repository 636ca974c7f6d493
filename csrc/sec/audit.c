/* SPDX-License-Identifier: BSD-2-Clause */
#include "sec/audit.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct pm_audit_record) == 104, "the layout of records is a file format");

bool audit_init(struct audit *audit, struct heap *heap, uint32_t records) {
    memset(audit, 0, sizeof *audit);
    audit->heap = heap;
    audit->room = round_up_power(records < 4 ? 4 : records);
    audit->errors = true;
    audit->ring = heap_alloc(heap, audit->room * sizeof *audit->ring);
    audit_select(audit, 0, 0, UINT32_MAX);
    audit_select(audit, PM_CLASS_SERVICE, UINT32_MAX, UINT32_MAX);
    return audit->ring != NULL;
}

void audit_destroy(struct audit *audit) { heap_free(audit->heap, audit->ring, audit->room * sizeof *audit->ring); }

void audit_select(struct audit *audit, uint32_t tclass, uint32_t granted, uint32_t denied) {
    for (uint32_t i = tclass ? tclass : 0; i <= (tclass ? tclass : PM_CLASSES_MAX - 1); i++) {
        audit->granted[i] = granted;
        audit->denied[i] = denied;
    }
    audit->any_granted = false;
    for (uint32_t i = 0; i < PM_CLASSES_MAX; i++) audit->any_granted |= audit->granted[i] && i != PM_CLASS_SERVICE;
}

bool audit_reserve(struct audit *audit, uint32_t records) {
    if (audit_has_room(audit, records) || audit->full == PM_AUDIT_DROP) return true;
    if (audit->full == PM_AUDIT_ABORT) abort();
    return false;
}

static void put(struct audit *audit, const struct pm_audit_record *record, uint64_t sequence) {
    struct pm_audit_record *slot = &audit->ring[audit->head++ & (audit->room - 1)];
    *slot = *record;
    slot->sequence = sequence;
}

static void put_loss(struct audit *audit, const struct pm_audit_record *after) {
    struct pm_audit_record loss = {.time = after->time, .epoch = after->epoch, .operation = PM_OP_LOSS, .flags = PM_AUDIT_LOSS};
    loss.result = audit->lost > INT32_MAX ? INT32_MAX : (int32_t)audit->lost;
    put(audit, &loss, audit->sequence++);
    audit->lost = 0;
}

void audit_append(struct audit *audit, const struct pm_audit_record *record) {
    if (!audit_has_room(audit, 1)) {
        audit->sequence++;
        audit->lost++;
        audit->lost_total++;
        return;
    }
    if (audit->lost) put_loss(audit, record);
    put(audit, record, audit->sequence++);
}

bool audit_ready(const struct audit *audit) { return audit_has_room(audit, 1) && !audit->lost; }

size_t audit_drain(struct audit *audit, struct pm_audit_record *records, size_t capacity) {
    size_t count = audit->head - audit->tail < capacity ? audit->head - audit->tail : capacity;
    audit->drained = audit->handed_out;
    for (size_t i = 0; i < count; i++) records[i] = audit->ring[audit->tail++ & (audit->room - 1)];
    audit->handed_out = audit->head == audit->tail ? audit->sequence : audit->ring[audit->tail & (audit->room - 1)].sequence;
    return count;
}
