/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How often operations met permissions that the policy reports (struct avc_vector, `report`): what a permissive type or module
 * let pass, and what a shadow policy would have decided otherwise. Counted where an operation is recorded, so once for each, and
 * whether or not the record is kept. A bounded table, off unless asked for; what does not fit is counted as lost.
 */
#ifndef PM_REPORT_H
#define PM_REPORT_H

#include "base/pool.h"
#include "pympi.h"

struct reports {
    struct heap *heap;
    struct pm_report *rows;             /* NULL: off */
    uint32_t *index;                    /* twice as many places as rows; row + 1, 0 empty */
    uint32_t room, used;
    uint64_t lost;
};

/* room 0: off. What was counted is forgotten. False where memory is short: then nothing has changed. */
bool reports_start(struct reports *reports, struct heap *heap, uint32_t room) pm_must_check;
void reports_stop(struct reports *reports);
static inline bool reports_on(const struct reports *reports) { return reports->rows != NULL; }
void reports_count(struct reports *reports, const struct pm_audit_record *record);
/* Moves all rows out; rows has room for as many as were asked for at the start. */
size_t reports_take(struct reports *reports, struct pm_report *rows, uint64_t *lost);

#endif
