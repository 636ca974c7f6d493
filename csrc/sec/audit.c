/* SPDX-License-Identifier: BSD-2-Clause */
#include "sec/audit.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct pm_audit_record) == 104, "the layout of records is a file format");

/* After a change of anything that stands in the way of writing at once. */
static void marks_renew(struct audit *audit) {
    bool plain = !audit->lost && !audit->halted && !audit->synchronous;
    uint64_t wanted = UINT64_MAX;
    list_each(&audit->waiters, node) {
        const struct audit_waiter *waiter = container_of(node, struct audit_waiter, in_waiters);
        if (waiter->records < wanted) wanted = waiter->records;
    }
    audit->wake_at = wanted == UINT64_MAX ? wanted : audit->tail + wanted;
    uint64_t full = audit->tail + audit->room;
    uint64_t until = plain ? (full < audit->wake_at ? full : audit->wake_at) - 1 : 0;
    audit->ready_until = sample_on(&audit->sample) ? 0 : until;
    audit->sample_until = sample_on(&audit->sample) ? until : 0;
}

bool audit_init(struct audit *audit, struct heap *heap, uint32_t records) {
    memset(audit, 0, sizeof *audit);
    audit->heap = heap;
    audit->room = round_up_power(records < 4 ? 4 : records);
    audit->errors = true;
    list_init(&audit->waiters);
    audit->ring = heap_alloc(heap, audit->room * sizeof *audit->ring);
    selection_init(&audit->selection, heap);
    selection_select(&audit->selection, &audit->selection.first, 0, 0, UINT32_MAX);
    selection_select(&audit->selection, &audit->selection.first, PM_CLASS_SERVICE, UINT32_MAX, UINT32_MAX);
    marks_renew(audit);
    return audit->ring != NULL;
}

void audit_destroy(struct audit *audit) {
    selection_destroy(&audit->selection);
    sample_stop(&audit->sample);
    heap_free(audit->heap, audit->ring, audit->room * sizeof *audit->ring);
}

void audit_options(struct audit *audit, bool synchronous, enum pm_audit_full full) {
    audit->synchronous = synchronous;
    audit->full = full;
    marks_renew(audit);
}

void audit_halt(struct audit *audit, bool halted) {
    audit->halted = halted;
    marks_renew(audit);
}

bool audit_reserve(struct audit *audit, uint32_t records) {
    if (audit->halted) return false;
    if (audit_has_room(audit, records) || audit->full == PM_AUDIT_DROP) return true;
    if (audit->full == PM_AUDIT_ABORT) abort();
    return false;
}

static void put(struct audit *audit, const struct pm_audit_record *record, uint64_t sequence) {
    struct pm_audit_record *slot = &audit->ring[audit->head++ & (audit->room - 1)];
    *slot = *record;
    slot->sequence = sequence;
}

static void put_loss(struct audit *audit, uint64_t time, uint32_t epoch) {
    struct pm_audit_record loss = {.time = time, .epoch = epoch, .operation = PM_OP_LOSS, .flags = PM_AUDIT_LOSS};
    loss.result = audit->lost > INT32_MAX ? INT32_MAX : (int32_t)audit->lost;
    put(audit, &loss, audit->sequence++);
    audit->lost = 0;
    marks_renew(audit);
}

void audit_tell_loss(struct audit *audit, uint64_t time, uint32_t epoch) {
    if (audit->lost && audit_has_room(audit, 0)) put_loss(audit, time, epoch);
}

bool audit_sample(struct audit *audit, const struct pm_audit_sampling *wanted, struct sample_clock clock) {
    if (!wanted) sample_stop(&audit->sample);
    bool done = !wanted || sample_start(&audit->sample, audit->heap, wanted, clock);
    marks_renew(audit);
    return done;
}

static void record_put(struct audit *audit, const struct pm_audit_record *record) {
    if (!audit_has_room(audit, 1)) {
        audit->sequence++;
        audit->lost_total++;
        if (!audit->lost++) marks_renew(audit);
        return;
    }
    if (audit->lost) put_loss(audit, record->time, record->epoch);
    put(audit, record, audit->sequence++);
    if (pm_unlikely(audit->head >= audit->wake_at)) audit_wake(audit);
}

void audit_append(struct audit *audit, const struct pm_audit_record *record) {
    if (pm_likely(!sample_on(&audit->sample))) {
        record_put(audit, record);
        return;
    }
    struct sample_event event = sample_event_of(record);
    struct pm_audit_record sampled = *record;
    uint32_t weight;
    if (!sample_admits(&audit->sample, &event, &weight)) return;
    sampled.flags |= weight;
    record_put(audit, &sampled);
}

void audit_copy(const struct audit *audit, struct pm_audit_record *records, size_t count) {
    size_t first = audit->tail & (audit->room - 1);
    size_t straight = audit->room - first < count ? audit->room - first : count;
    memcpy(records, &audit->ring[first], straight * sizeof *records);
    memcpy(records + straight, audit->ring, (count - straight) * sizeof *records);
}

void audit_taken(struct audit *audit, size_t count) {
    audit->tail += count;
    audit->drained = audit->handed_out;
    audit->handed_out = audit->head == audit->tail ? audit->sequence : audit->ring[audit->tail & (audit->room - 1)].sequence;
    marks_renew(audit);
}

bool audit_wait_enter(struct audit *audit, struct audit_waiter *waiter, uint32_t records) {
    uint32_t most = audit->room - 1;
    waiter->records = records < most ? records : most;
    bool sleep = !audit->woken && audit_waiting(audit) < waiter->records;
    audit->woken = false;
    list_init(&waiter->in_waiters);
    if (!sleep) return false;
    sleeper_init(&waiter->sleeper);
    list_append(&audit->waiters, &waiter->in_waiters);
    marks_renew(audit);
    return true;
}

void audit_wait_leave(struct audit *audit, struct audit_waiter *waiter) {
    list_remove(&waiter->in_waiters);
    sleeper_destroy(&waiter->sleeper);
    marks_renew(audit);
}

void audit_wake(struct audit *audit) {
    audit->woken = list_empty(&audit->waiters);
    list_each_safe(&audit->waiters, node, next) {
        list_remove(node);
        sleeper_wake(&container_of(node, struct audit_waiter, in_waiters)->sleeper);
    }
    marks_renew(audit);
}
