/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The audit trail's core: which operations are recorded, and a bounded ring of records. It never decides and never formats.
 *
 * Every record and every record that could not be kept takes a sequence number, so a gap is a loss. One slot of the ring is kept
 * for the record that says how many were lost; it is written first when there is room again.
 */
#ifndef PM_AUDIT_H
#define PM_AUDIT_H

#include "base/pool.h"
#include "pympi.h"

#define PM_CLASSES_MAX 2048

struct audit {
    struct heap *heap;
    struct pm_audit_record *ring;
    uint32_t room;                      /* a power of two */
    uint64_t head, tail;                /* next to write, next to read */
    uint64_t sequence, lost, lost_total;
    uint64_t drained;                   /* sequence up to which records were handed out by earlier calls of audit_drain */
    uint64_t handed_out;
    uint32_t granted[PM_CLASSES_MAX], denied[PM_CLASSES_MAX];
    bool any_granted, everything, errors;
    enum pm_audit_full full;
    pm_drainer drainer;
    void *drainer_context;
};

bool audit_init(struct audit *audit, struct heap *heap, uint32_t records) pm_must_check;
void audit_destroy(struct audit *audit);
/* tclass 0: every class. */
void audit_select(struct audit *audit, uint32_t tclass, uint32_t granted, uint32_t denied);

static inline bool audit_has_room(const struct audit *audit, uint32_t records) {
    return audit->head - audit->tail + records + 1 <= audit->room;
}
/* Room for this many records, or what the embedder chose to happen instead: true, false, or no return. */
bool audit_reserve(struct audit *audit, uint32_t records) pm_must_check;
/* Fills in the sequence; counts a loss where there is no room. */
void audit_append(struct audit *audit, const struct pm_audit_record *record);
/* Can one record be written at once: there is room, and no loss to be told of first. */
bool audit_ready(const struct audit *audit);
/* The next slot, after audit_ready(); the caller fills in everything. */
static inline struct pm_audit_record *audit_next(struct audit *audit) {
    return &audit->ring[audit->head++ & (audit->room - 1)];
}
size_t audit_drain(struct audit *audit, struct pm_audit_record *records, size_t capacity);

#endif
