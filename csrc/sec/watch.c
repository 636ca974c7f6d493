/* SPDX-License-Identifier: BSD-2-Clause */
#include "sec/watch.h"

#include <string.h>

#define NOBODY UINT32_MAX               /* in a table of what is left out: no task's number, no label's */

void watches_init(struct watches *watches, struct heap *heap) { *watches = (struct watches){.heap = heap}; }

static void watch_free(struct heap *heap, struct watch *watch) {
    heap_free(heap, watch->ring, watch->room * sizeof *watch->ring);
    heap_free(heap, watch, sizeof *watch);
}

void watches_destroy(struct watches *watches) {
    for (uint32_t i = 0; i < PM_WATCHES_MAX; i++)
        if (watches->open[i]) watch_free(watches->heap, watches->open[i]);
}

static void look_anew(struct watches *watches) {
    watches->count = 0;
    watches->any_granted = watches->any_errors = false;
    for (uint32_t i = 0; i < PM_WATCHES_MAX; i++) {
        const struct watch *watch = watches->open[i];
        if (!watch) continue;
        watches->count++;
        watches->any_granted |= watch->any_granted;
        watches->any_errors |= watch->errors;
    }
}

static struct watch *watch_new(struct heap *heap, uint32_t records) {
    struct watch *watch = heap_alloc(heap, sizeof *watch);
    if (!watch) return NULL;
    memset(watch, 0, offsetof(struct watch, left_out));
    memset(watch->left_out, 0xff, sizeof watch->left_out);
    watch->room = round_up_power(records < 2 ? 2 : records);
    watch->ring = heap_alloc(heap, watch->room * sizeof *watch->ring);
    if (watch->ring) return watch;
    heap_free(heap, watch, sizeof *watch);
    return NULL;
}

struct watch *watch_open(struct watches *watches, uint32_t records, uint64_t sequence) {
    for (uint32_t i = 0; i < PM_WATCHES_MAX; i++) {
        if (watches->open[i]) continue;
        struct watch *watch = watches->open[i] = watch_new(watches->heap, records);
        if (!watch) return NULL;
        watch->number = ++watches->numbers;
        watch->drained = watch->handed_out = sequence;
        look_anew(watches);
        return watch;
    }
    return NULL;
}

void watch_close(struct watches *watches, struct watch *watch) {
    for (uint32_t i = 0; i < PM_WATCHES_MAX; i++)
        if (watches->open[i] == watch) watches->open[i] = NULL;
    watch_free(watches->heap, watch);
    look_anew(watches);
}

struct watch *watch_find(const struct watches *watches, uint64_t number) {
    for (uint32_t i = 0; i < PM_WATCHES_MAX; i++)
        if (watches->open[i] && watches->open[i]->number == number) return watches->open[i];
    return NULL;
}

void watch_select(struct watches *watches, struct watch *watch, uint32_t tclass, uint32_t granted, uint32_t denied) {
    for (uint32_t i = tclass; i <= (tclass ? tclass : PM_CLASSES_MAX - 1); i++) {
        watch->granted[i] = granted & (i == PM_CLASS_MACH_PORT ? ~(uint32_t)PM_MACH_PORT__recv : UINT32_MAX);
        watch->denied[i] = denied;
    }
    watch->any_granted = false;
    for (uint32_t i = 1; i < PM_CLASSES_MAX; i++) watch->any_granted |= watch->granted[i] && i != PM_CLASS_SERVICE;
    look_anew(watches);
}

void watch_errors(struct watches *watches, struct watch *watch, bool errors) {
    watch->errors = errors;
    look_anew(watches);
}

static uint32_t *place_of_number(struct watch *watch, uint32_t kind, uint32_t number) {
    return &watch->left_out[kind][number & (WATCH_LEFT_OUT - 1)];
}

void watch_leave_out(struct watch *watch, uint32_t kind, const uint32_t *numbers, size_t count) {
    for (size_t i = 0; i < count; i++) *place_of_number(watch, kind, numbers[i]) = numbers[i];
}

void watches_forget_labels(struct watches *watches) {
    for (uint32_t i = 0; i < PM_WATCHES_MAX; i++)
        if (watches->open[i]) memset(watches->open[i]->left_out[PM_WATCH_LABELS], 0xff, sizeof watches->open[i]->left_out[0]);
}

/* ---- filters ---- */

static bool left_out(const struct watch *watch, uint32_t kind, uint32_t number) {
    return number != NOBODY && watch->left_out[kind][number & (WATCH_LEFT_OUT - 1)] == number;
}

/* A label is that of who did it, or of what it was done to. */
static bool about(const struct watch *watch, uint32_t task, uint32_t ssid, uint32_t tsid) {
    if (left_out(watch, PM_WATCH_TASKS, task)) return false;
    return !left_out(watch, PM_WATCH_LABELS, ssid) || (tsid && !left_out(watch, PM_WATCH_LABELS, tsid));
}

/* An operation with anything denied is denied. */
static bool selects(const struct watch *watch, const struct watch_event *event) {
    if (!event->tclass) return watch->errors;
    if (event->tclass >= PM_CLASSES_MAX) return false;  /* of a record that was made elsewhere */
    if ((event->denied | event->report) & watch->denied[event->tclass]) return true;
    return !event->denied && event->asked & watch->granted[event->tclass];
}

static bool wants(const struct watch *watch, const struct watch_event *event) {
    return selects(watch, event) && about(watch, event->task, event->ssid, event->tsid);
}

uint32_t watches_granted(const struct watches *watches, uint32_t task, uint32_t ssid, uint32_t tsid, uint32_t tclass) {
    uint32_t granted = 0;
    for (uint32_t i = 0; watches->any_granted && i < PM_WATCHES_MAX; i++) {
        const struct watch *watch = watches->open[i];
        if (watch && watch->granted[tclass] && about(watch, task, ssid, tsid)) granted |= watch->granted[tclass];
    }
    return granted;
}

bool watches_want(const struct watches *watches, const struct watch_event *event) {
    for (uint32_t i = 0; watches->count && i < PM_WATCHES_MAX; i++)
        if (watches->open[i] && wants(watches->open[i], event)) return true;
    return false;
}

/* ---- records ---- */

static void put_into(struct watch *watch, const struct pm_audit_record *record, uint32_t receiver) {
    uint64_t sequence = watch->sequence++;
    if (watch->head - watch->tail == watch->room) {
        watch->lost++;
        return;
    }
    struct watch_slot *slot = &watch->ring[watch->head++ & (watch->room - 1)];
    slot->record = *record;
    slot->record.sequence = sequence;
    slot->receiver = receiver;
}

void watches_offer(struct watches *watches, const struct watch_event *event, const struct pm_audit_record *record,
                   uint32_t receiver) {
    for (uint32_t i = 0; i < PM_WATCHES_MAX; i++)
        if (watches->open[i] && wants(watches->open[i], event)) put_into(watches->open[i], record, receiver);
}

void watches_lose(struct watches *watches, const struct watch_event *event) {
    for (uint32_t i = 0; i < PM_WATCHES_MAX; i++) {
        struct watch *watch = watches->open[i];
        if (!watch || !wants(watch, event)) continue;
        watch->sequence++;
        watch->lost++;
    }
}

size_t watch_drain(struct watch *watch, struct pm_audit_record *records, uint32_t *receivers, size_t capacity, uint64_t sequence) {
    size_t count = watch->head - watch->tail < capacity ? watch->head - watch->tail : capacity;
    for (size_t i = 0; i < count; i++) {
        const struct watch_slot *slot = &watch->ring[watch->tail++ & (watch->room - 1)];
        records[i] = slot->record;
        receivers[i] = slot->receiver;
    }
    watch->drained = watch->handed_out;
    if (watch->head == watch->tail) watch->handed_out = sequence;
    return count;
}

uint64_t watches_drained(const struct watches *watches, uint64_t drained) {
    for (uint32_t i = 0; watches->count && i < PM_WATCHES_MAX; i++) {
        const struct watch *watch = watches->open[i];
        if (watch && watch->drained < drained) drained = watch->drained;
    }
    return drained;
}
