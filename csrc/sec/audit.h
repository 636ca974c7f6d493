/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The audit trail's core: which operations are recorded, and a bounded ring of records. It never decides and never formats.
 *
 * Every record and every record that could not be kept takes a sequence number, so a gap is a loss. One slot of the ring is kept
 * for the record that says how many were lost; it is written first when there is room again, and when records are taken out.
 *
 * Who drains may sleep until there is something to drain. Whether it is to be woken, whether there is room, and whether anything
 * else is to be seen to is one comparison for the shortest path: with `ready_until`.
 */
#ifndef PM_AUDIT_H
#define PM_AUDIT_H

#include "base/list.h"
#include "base/lock.h"
#include "base/pool.h"
#include "pympi.h"
#include "sec/sample.h"
#include "sec/selection.h"

struct audit {
    struct heap *heap;
    struct pm_audit_record *ring;
    uint32_t room;                      /* a power of two */
    uint64_t head, tail;                /* next to write, next to read */
    uint64_t ready_until;               /* a record may be written by audit_next() while head is below this */
    uint64_t sample_until;              /* the same where records are sampled */
    uint64_t wake_at;                   /* who waits is woken when head gets here */
    struct list waiters;                /* struct audit_waiter */
    bool woken;                         /* while nobody waited */
    uint64_t sequence, lost, lost_total;
    uint64_t drained;                   /* sequence up to which records were handed out by earlier calls of audit_drain */
    uint64_t handed_out;
    bool everything, errors, synchronous, halted;
    enum pm_audit_full full;
    pm_drainer drainer;
    void *drainer_context;
    struct sample sample;
    struct selection selection;
};

/* A thread that sleeps until there are records, on its own stack. */
struct audit_waiter { struct list in_waiters; struct sleeper sleeper; uint32_t records; };

bool audit_init(struct audit *audit, struct heap *heap, uint32_t records) pm_must_check;
void audit_destroy(struct audit *audit);
void audit_options(struct audit *audit, bool synchronous, enum pm_audit_full full);
/* On: nothing is done that would be recorded. */
void audit_halt(struct audit *audit, bool halted);

static inline uint64_t audit_waiting(const struct audit *audit) { return audit->head - audit->tail; }
static inline bool audit_has_room(const struct audit *audit, uint32_t records) {
    return audit_waiting(audit) + records + 1 <= audit->room;
}
/* Room for this many records, or what the embedder chose to happen instead: true, false, or no return. */
bool audit_reserve(struct audit *audit, uint32_t records) pm_must_check;
/* NULL: all that is selected is kept. False where memory is short: then nothing has changed. */
bool audit_sample(struct audit *audit, const struct pm_audit_sampling *wanted, struct sample_clock clock) pm_must_check;
/* Fills in the sequence; counts a loss where there is no room. What is sampled may not be kept at all. */
void audit_append(struct audit *audit, const struct pm_audit_record *record);
/* Before records are taken out: of what was lost since is told, though nothing may follow. */
void audit_tell_loss(struct audit *audit, uint64_t time, uint32_t epoch);
/* Can one record be written at once: there is room, and nothing else to be done before or after. */
static inline bool audit_ready(const struct audit *audit) { return audit->head < audit->ready_until; }
/* The same where records are sampled, and this one may not be kept. */
static inline bool audit_sample_ready(const struct audit *audit) { return audit->head < audit->sample_until; }
/* The next slot, after audit_ready(); the caller fills in everything. */
static inline struct pm_audit_record *audit_next(struct audit *audit) {
    return &audit->ring[audit->head++ & (audit->room - 1)];
}
/* Copies the oldest `count`. Who writes does not touch these, so the kernel need not be locked meanwhile. */
void audit_copy(const struct audit *audit, struct pm_audit_record *records, size_t count);
/* They were taken out. */
void audit_taken(struct audit *audit, size_t count);

/* Gets in line to be woken when `records` are there; false where there is no need to sleep. */
bool audit_wait_enter(struct audit *audit, struct audit_waiter *waiter, uint32_t records);
void audit_wait_leave(struct audit *audit, struct audit_waiter *waiter);
/* Wakes all who wait, or else whoever waits next. */
void audit_wake(struct audit *audit);

#endif
