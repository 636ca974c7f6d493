/* SPDX-License-Identifier: BSD-2-Clause */
#include "sec/sample.h"

#include <string.h>

#define OVERFLOW_ROWS 2
#define CERTAIN_OPERATIONS (1u << PM_OP_GIVE | 1u << PM_OP_TAKE | 1u << PM_OP_INSERT_RIGHT | 1u << PM_OP_EXTRACT_RIGHT | \
                            1u << PM_OP_TASK | 1u << PM_OP_RELABEL | 1u << PM_OP_GUARD | 1u << PM_OP_LOSS | 1u << PM_OP_SERVICE)

static size_t sample_index_size(const struct sample *sample) { return 2 * (size_t)sample->room * sizeof *sample->index; }

static void tables_free(const struct sample *sample) {
    heap_free(sample->heap, sample->rows, sample->room * sizeof *sample->rows);
    heap_free(sample->heap, sample->index, sample_index_size(sample));
}

void sample_stop(struct sample *sample) {
    if (!sample_on(sample)) return;
    tables_free(sample);
    *sample = (struct sample){0};
}

static void rows_begin(struct sample *sample) {
    memset(sample->rows, 0, OVERFLOW_ROWS * sizeof *sample->rows);
    memset(sample->index, 0, sample_index_size(sample));
    for (uint32_t i = 0; i < OVERFLOW_ROWS; i++) sample->rows[i].flags = PM_STRATUM_OVERFLOW | (i ? PM_STRATUM_CERTAIN : 0);
    sample->used = OVERFLOW_ROWS;
}

bool sample_start(struct sample *sample, struct heap *heap, const struct pm_audit_sampling *wanted, struct sample_clock clock) {
    struct sample made = {.heap = heap, .clock = clock, .room = round_up_power(wanted->strata + OVERFLOW_ROWS),
                          .by_message = wanted->by_message, .one_in = wanted->budget ? 1 : wanted->one_in,
                          .salt = mix64(wanted->seed + 1), .state = mix64(wanted->seed), .budget = wanted->budget,
                          .period = wanted->period_ns, .enough = wanted->budget};
    made.rows = heap_alloc(heap, made.room * sizeof *made.rows);
    made.index = heap_alloc(heap, sample_index_size(&made));
    if (!made.rows || !made.index) {
        tables_free(&made);
        return false;
    }
    rows_begin(&made);
    sample_stop(sample);
    *sample = made;
    return true;
}

void sample_forget_labels(struct sample *sample) {
    if (sample_on(sample)) memset(sample->index, 0, sample_index_size(sample));
}

size_t sample_read(const struct sample *sample, struct pm_audit_stratum *rows, size_t capacity) {
    size_t count = sample->used < capacity ? sample->used : capacity;
    if (count) memcpy(rows, sample->rows, count * sizeof *rows);
    return sample->used;
}

/* ---- strata ---- */

/* What goes wrong, what is refused or would be, and what changes who may do what. */
static bool is_certain(const struct pm_audit_record *record) {
    return record->denied || record->report || record->result || record->flags & ~(uint32_t)PM_AUDIT_RECEIVE ||
           record->operation >= 32 || CERTAIN_OPERATIONS >> record->operation & 1;
}

struct sample_event sample_event_of(const struct pm_audit_record *record) {
    return (struct sample_event){.ssid = record->effective_sid, .tsid = record->object_sid, .peer_sid = record->peer_sid,
                                 .tclass = record->tclass, .asked = record->asked, .operation = record->operation,
                                 .size = record->size, .msgh_id = record->msgh_id, .certain = is_certain(record)};
}

struct pm_audit_stratum *sample_meet(struct sample *sample, const struct sample_event *event, int32_t msgh_id, uint32_t *place) {
    if (sample->used == sample->room) return &sample->rows[event->certain];
    struct pm_audit_stratum *row = &sample->rows[sample->used];
    *row = (struct pm_audit_stratum){.ssid = event->ssid, .tsid = event->tsid, .peer_sid = event->peer_sid,
        .tclass = event->tclass, .asked = event->asked, .operation = event->operation, .msgh_id = msgh_id,
        .flags = event->certain ? PM_STRATUM_CERTAIN : 0, .first = sample->clock.now(sample->clock.context)};
    *place = ++sample->used;
    return row;
}

/* ---- chance ---- */

/* The rate that would have kept the budget in the periods that are over. */
static uint32_t rate_of(const struct sample *sample, uint64_t periods) {
    uint64_t seen = sample->seen / periods, wanted = seen / sample->budget + (seen % sample->budget != 0);
    return wanted < 1 ? 1 : wanted > SAMPLE_WEIGHT_MAX ? SAMPLE_WEIGHT_MAX : (uint32_t)wanted;
}

void sample_follow(struct sample *sample) {
    uint64_t now = sample->clock.now(sample->clock.context);
    if (now < sample->began) sample->began = now;       /* the clock was set back */
    uint64_t periods = (now - sample->began) / sample->period;
    if (!periods) return;
    sample->one_in = rate_of(sample, periods);
    sample->began += periods * sample->period;
    sample->seen = sample->kept = 0;
    sample->enough = sample->budget;
}

void sample_halve(struct sample *sample) {
    sample->one_in = sample->one_in > SAMPLE_WEIGHT_MAX / 2 ? SAMPLE_WEIGHT_MAX : 2 * sample->one_in;
    sample->enough += sample->budget / 4 ? sample->budget / 4 : 1;
}
