/* SPDX-License-Identifier: BSD-2-Clause */
#include "sec/trace.h"

#include <string.h>

void trace_init(struct trace *trace, struct heap *heap, uint32_t paths, uint64_t seed) {
    *trace = (struct trace){.heap = heap, .limit = paths, .seed = mix64(seed + 1), .texts_used = 1, .used = 1, .stamp = 1};
}

void trace_destroy(struct trace *trace) {
    for (uint32_t i = 1; i < trace->texts_used; i++)
        heap_free(trace->heap, trace->texts[i].text, trace->texts[i].length + 1);
    heap_free(trace->heap, trace->texts, trace->texts_room * sizeof *trace->texts);
    heap_free(trace->heap, trace->text_buckets, trace->text_bucket_room * sizeof *trace->text_buckets);
    heap_free(trace->heap, trace->paths, trace->room * sizeof *trace->paths);
    heap_free(trace->heap, trace->buckets, trace->bucket_room * sizeof *trace->buckets);
}

static uint32_t *buckets_new(struct trace *trace, uint32_t room) {
    uint32_t *buckets = heap_alloc(trace->heap, room * sizeof *buckets);
    if (buckets) memset(buckets, 0, room * sizeof *buckets);
    return buckets;
}

/* ---- identities ---- */

static uint32_t *text_bucket(const struct trace *trace, const char *text, uint32_t length, uint32_t hash) {
    for (uint32_t at = hash;; at++) {
        uint32_t *bucket = &trace->text_buckets[at & (trace->text_bucket_room - 1)];
        if (!*bucket) return bucket;
        const struct trace_text *known = &trace->texts[*bucket];
        if (known->hash == hash && known->length == length && !memcmp(known->text, text, length)) return bucket;
    }
}

static bool texts_grow(struct trace *trace) {
    uint32_t room = trace->texts_room ? 2 * trace->texts_room : 64;
    uint32_t *buckets = buckets_new(trace, 2 * room);
    if (!buckets) return false;
    struct trace_text *texts = heap_grow(trace->heap, trace->texts, trace->texts_room * sizeof *texts, room * sizeof *texts);
    if (!texts) {
        heap_free(trace->heap, buckets, 2 * room * sizeof *buckets);
        return false;
    }
    heap_free(trace->heap, trace->text_buckets, trace->text_bucket_room * sizeof *buckets);
    trace->texts = texts;
    trace->texts_room = room;
    trace->text_buckets = buckets;
    trace->text_bucket_room = 2 * room;
    for (uint32_t i = 1; i < trace->texts_used; i++)
        *text_bucket(trace, texts[i].text, texts[i].length, texts[i].hash) = i;
    return true;
}

uint32_t trace_identity(struct trace *trace, const char *text, uint32_t length) {
    if (trace->texts_used >= trace->texts_room && !texts_grow(trace)) return 0;
    uint32_t hash = hash_text(trace->seed, text, length), *bucket = text_bucket(trace, text, length, hash);
    if (*bucket) return *bucket;
    char *copy = heap_alloc(trace->heap, length + 1);
    if (!copy) return 0;
    memcpy(copy, text, length);
    copy[length] = 0;
    trace->texts[trace->texts_used] = (struct trace_text){copy, length, hash};
    return *bucket = trace->texts_used++;
}

/* ---- paths ---- */

static uint32_t path_hash(const struct trace *trace, uint32_t task, uint32_t owner, uint32_t kind, int32_t number) {
    return (uint32_t)mix64(mix64(trace->seed ^ ((uint64_t)task << 32 | owner)) ^ ((uint64_t)kind << 32 | (uint32_t)number));
}

static uint32_t *path_bucket(const struct trace *trace, const struct trace_path *key) {
    for (uint32_t at = path_hash(trace, key->task, key->owner, key->kind, key->number);; at++) {
        uint32_t *bucket = &trace->buckets[at & (trace->bucket_room - 1)];
        if (!*bucket) return bucket;
        const struct trace_path *known = &trace->paths[*bucket];
        if (known->task == key->task && known->owner == key->owner && known->kind == key->kind &&
            known->number == key->number)
            return bucket;
    }
}

static bool paths_grow(struct trace *trace) {
    uint32_t room = trace->room ? 2 * trace->room : 256;
    uint32_t *buckets = buckets_new(trace, 2 * room);
    if (!buckets) return false;
    struct trace_path *paths = heap_grow(trace->heap, trace->paths, trace->room * sizeof *paths, room * sizeof *paths);
    if (!paths) {
        heap_free(trace->heap, buckets, 2 * room * sizeof *buckets);
        return false;
    }
    if (!trace->room) memset(paths, 0, sizeof *paths);
    heap_free(trace->heap, trace->buckets, trace->bucket_room * sizeof *buckets);
    trace->paths = paths;
    trace->room = room;
    trace->buckets = buckets;
    trace->bucket_room = 2 * room;
    for (uint32_t i = 1; i < trace->used; i++) *path_bucket(trace, &paths[i]) = i;
    return true;
}

bool trace_start(struct trace *trace) {
    if (!trace->room && !paths_grow(trace)) return false;
    trace->on = true;
    return true;
}

void trace_reset(struct trace *trace) {
    if (trace->room) memset(trace->paths, 0, sizeof *trace->paths);
    if (trace->buckets) memset(trace->buckets, 0, trace->bucket_room * sizeof *trace->buckets);
    trace->used = 1;
    trace->order = 0;
    trace->stamp++;
}

uint32_t trace_path(struct trace *trace, uint32_t task, uint32_t owner, uint32_t kind, int32_t number) {
    struct trace_path key = {.task = task, .owner = owner, .kind = kind, .number = number};
    uint32_t *bucket = path_bucket(trace, &key);
    if (*bucket) return *bucket;
    if (trace->used > trace->limit) return 0;
    if (trace->used == trace->room) {
        if (!paths_grow(trace)) return 0;
        bucket = path_bucket(trace, &key);
    }
    trace->paths[trace->used] = key;
    return *bucket = trace->used++;
}

/* Order numbers are dense: row n of the listing is the one whose order is n + 1. */
uint64_t trace_read(const struct trace *trace, uint64_t first, struct pm_trace_record *records, size_t capacity) {
    for (uint32_t i = 0; i < (trace->room ? trace->used : 0); i++) {
        const struct trace_path *path = &trace->paths[i];
        for (uint32_t event = 1; event < PM_EVENTS; event++) {
            uint64_t row = path->order[event] - (uint64_t)1;
            if (!path->count[event] || row < first || row - first >= capacity) continue;
            records[row - first] = (struct pm_trace_record){event, path->task, path->owner, path->kind, path->number, 0,
                                                            path->count[event], path->order[event]};
        }
    }
    return trace->order;
}
