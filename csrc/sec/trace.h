/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ipctrace: who talked to whom, as counts over distinct paths (task, port owner, kind, number), each with a count per event.
 * A path is looked up once and from then on counted through the right entry that remembers it. Path 0 takes what finds no room,
 * so nothing is dropped silently. After SEDarwin's ipctrace, without its linear search.
 */
#ifndef PM_TRACE_H
#define PM_TRACE_H

#include "base/pool.h"
#include "pympi.h"

struct trace_path {
    uint32_t task, owner, kind;
    int32_t number;
    uint64_t count[PM_EVENTS];
    uint32_t order[PM_EVENTS];          /* of first occurrence, from 1 */
};
struct trace_text { char *text; uint32_t length, hash; };
struct trace {
    struct heap *heap;
    struct trace_path *paths;
    uint32_t *buckets;
    uint32_t used, room, limit, bucket_room;
    struct trace_text *texts;           /* identities, from 1 */
    uint32_t texts_used, texts_room;
    uint32_t *text_buckets;
    uint32_t text_bucket_room;
    uint32_t order, stamp;              /* stamp: which recording the numbers of paths belong to; 0 none */
    bool on;
    uint64_t seed;
};

void trace_init(struct trace *trace, struct heap *heap, uint32_t paths, uint64_t seed);
void trace_destroy(struct trace *trace);
bool trace_start(struct trace *trace) pm_must_check;
void trace_reset(struct trace *trace);
/* The number of a text, made if new; 0 where memory is short. */
uint32_t trace_identity(struct trace *trace, const char *text, uint32_t length);
/* The number of a path, made if new; 0 (overflow) where there is no room. */
uint32_t trace_path(struct trace *trace, uint32_t task, uint32_t owner, uint32_t kind, int32_t number);

static inline void trace_count(struct trace *trace, uint32_t path, uint32_t event) {
    struct trace_path *row = &trace->paths[path];
    if (pm_unlikely(row->count[event]++ == 0)) row->order[event] = ++trace->order;
}

/* Rows with a count, in order of first occurrence. Returns how many there are in all. */
uint64_t trace_read(const struct trace *trace, uint64_t first, struct pm_trace_record *records, size_t capacity);

#endif
