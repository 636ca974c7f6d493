/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Watches: who looks on live, beside the audit trail. Each has a filter and a lossy ring of its own; nothing waits for it, and
 * what it wants changes neither what is audited nor what is allowed.
 *
 * A filter is a mask of permissions for each class, and two tables of what is left out: tasks and labels. These hold numbers that
 * the watcher has looked at and does not want; a number that is in none is wanted, so nothing is missed for being new. They are
 * as large as they are: one number takes another's place, which is then asked about again.
 */
#ifndef PM_WATCH_H
#define PM_WATCH_H

#include "base/pool.h"
#include "pympi.h"

#define WATCH_LEFT_OUT 16384
#define WATCH_RECORDS_MAX (1u << 20)

/* What is about to be recorded, as far as filters look at it. */
struct watch_event { uint32_t task, ssid, tsid, tclass, asked, denied, report; };      /* tclass 0: an error */

struct watch_slot { struct pm_audit_record record; uint32_t receiver; };
struct watch {
    struct watch_slot *ring;
    uint32_t room;                      /* a power of two */
    uint64_t number;                    /* never that of another */
    uint64_t head, tail;                /* next to write, next to read */
    uint64_t sequence, lost;
    uint64_t drained, handed_out;       /* the audit trail's sequence at the last but one and the last drain */
    bool errors, any_granted;
    uint32_t granted[PM_CLASSES_MAX], denied[PM_CLASSES_MAX];
    uint32_t left_out[PM_WATCH_KINDS][WATCH_LEFT_OUT];
};
struct watches {
    struct heap *heap;
    struct watch *open[PM_WATCHES_MAX];
    uint32_t count;                     /* of these */
    uint64_t numbers;                   /* given out so far */
    bool any_granted, any_errors;       /* wanted by one of them; of class `service`, grants do not count */
};

void watches_init(struct watches *watches, struct heap *heap);
void watches_destroy(struct watches *watches);
/* One with nothing selected. NULL where there are PM_WATCHES_MAX, or memory is short. */
struct watch *watch_open(struct watches *watches, uint32_t records, uint64_t sequence) pm_must_check;
void watch_close(struct watches *watches, struct watch *watch);
struct watch *watch_find(const struct watches *watches, uint64_t number);
/* tclass 0: every class. A receive that is granted is watched as use_recv, whomever it is from. */
void watch_select(struct watches *watches, struct watch *watch, uint32_t tclass, uint32_t granted, uint32_t denied);
void watch_errors(struct watches *watches, struct watch *watch, bool errors);
void watch_leave_out(struct watch *watch, uint32_t kind, const uint32_t *numbers, size_t count);
/* Numbers of labels mean others from here on. */
void watches_forget_labels(struct watches *watches);

/* Which of the permissions somebody wants to see granted to a subject. */
uint32_t watches_granted(const struct watches *watches, uint32_t task, uint32_t ssid, uint32_t tsid, uint32_t tclass);
bool watches_want(const struct watches *watches, const struct watch_event *event);
/* Hands a record to those that want it; each counts it, and whether it had room. */
void watches_offer(struct watches *watches, const struct watch_event *event, const struct pm_audit_record *record,
                   uint32_t receiver);
/* The same where there is no memory for the record. */
void watches_lose(struct watches *watches, const struct watch_event *event);

/* Moves records out, at most capacity; `sequence` is the audit trail's now. */
size_t watch_drain(struct watch *watch, struct pm_audit_record *records, uint32_t *receivers, size_t capacity, uint64_t sequence);
/* Labels that nobody uses since before this sequence of the audit trail are in no record that may still be put into words. */
uint64_t watches_drained(const struct watches *watches, uint64_t drained);

#endif
