/* SPDX-License-Identifier: BSD-2-Clause */
#include "sec/report.h"

#include <string.h>

static size_t index_size(const struct reports *reports) { return 2 * (size_t)reports->room * sizeof *reports->index; }

void reports_stop(struct reports *reports) {
    if (!reports->rows) return;
    heap_free(reports->heap, reports->rows, reports->room * sizeof *reports->rows);
    heap_free(reports->heap, reports->index, index_size(reports));
    *reports = (struct reports){0};
}

bool reports_start(struct reports *reports, struct heap *heap, uint32_t room) {
    struct reports made = {.heap = heap, .room = round_up_power(room)};
    if (room) {
        made.rows = heap_alloc(heap, made.room * sizeof *made.rows);
        made.index = heap_alloc(heap, index_size(&made));
        if (!made.rows || !made.index) {
            heap_free(heap, made.rows, made.room * sizeof *made.rows);
            heap_free(heap, made.index, index_size(&made));
            return false;
        }
        memset(made.index, 0, index_size(&made));
    }
    reports_stop(reports);
    *reports = made;
    return true;
}

static bool same_row(const struct pm_report *row, const struct pm_audit_record *record) {
    return row->ssid == record->effective_sid && row->tsid == record->object_sid && row->tclass == record->tclass &&
           row->report == record->report;
}

/* The place of a record's row in the index, or the empty one where it belongs. */
static uint32_t *place_of(const struct reports *reports, const struct pm_audit_record *record) {
    uint64_t pair = (uint64_t)record->effective_sid << 32 | record->object_sid;
    uint64_t kind = (uint64_t)record->tclass << 32 | record->report;
    for (uint32_t at = (uint32_t)mix64(pair ^ mix64(kind));; at++) {
        uint32_t *place = &reports->index[at & (2 * reports->room - 1)];
        if (!*place || same_row(&reports->rows[*place - 1], record)) return place;
    }
}

void reports_count(struct reports *reports, const struct pm_audit_record *record) {
    uint32_t *place = place_of(reports, record);
    if (!*place && reports->used == reports->room) {
        reports->lost++;
        return;
    }
    if (!*place) {
        reports->rows[reports->used++] = (struct pm_report){.ssid = record->effective_sid, .tsid = record->object_sid,
            .tclass = record->tclass, .report = record->report, .operation = record->operation};
        *place = reports->used;
    }
    reports->rows[*place - 1].count++;
}

size_t reports_take(struct reports *reports, struct pm_report *rows, uint64_t *lost) {
    size_t used = reports->used;
    *lost = reports->lost;
    reports->lost = reports->used = 0;
    if (!used) return 0;
    memcpy(rows, reports->rows, used * sizeof *rows);
    memset(reports->index, 0, index_size(reports));
    return used;
}
