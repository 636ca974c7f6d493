/* SPDX-License-Identifier: BSD-2-Clause */
#include "sec/avc.h"

#include <string.h>

_Static_assert(sizeof(struct avc_entry) == 32, "two entries to a cache line");

bool avc_init(struct avc *avc, struct heap *heap, uint32_t entries, uint64_t seed) {
    uint32_t rounded = round_up_power(entries < AVC_WAYS ? AVC_WAYS : entries);
    *avc = (struct avc){.heap = heap, .sets = rounded / AVC_WAYS, .seed = mix64(seed)};
    avc->entries = heap_alloc(heap, rounded * sizeof *avc->entries);
    if (avc->entries) avc_flush(avc);
    return avc->entries != NULL;
}

void avc_destroy(struct avc *avc) {
    heap_free(avc->heap, avc->entries, (size_t)avc->sets * AVC_WAYS * sizeof *avc->entries);
}

void avc_flush(struct avc *avc) { memset(avc->entries, 0, (size_t)avc->sets * AVC_WAYS * sizeof *avc->entries); }

/* The entry of the same question, else one that is out of date, else the next in turn. */
static struct avc_entry *place_for(struct avc *avc, uint32_t now, const struct avc_entry *answer) {
    struct avc_entry *set = avc_set(avc, answer->ssid, answer->tsid, answer->tclass), *stale = NULL;
    for (int way = 0; way < AVC_WAYS; way++) {
        struct avc_entry *entry = &set[way];
        if (entry->ssid == answer->ssid && entry->tsid == answer->tsid && entry->tclass == answer->tclass) return entry;
        if (entry->epoch != now) stale = entry;
    }
    if (stale) return stale;
    avc->evictions++;
    return &set[avc->victim++ % AVC_WAYS];
}

void avc_insert(struct avc *avc, uint32_t now, const struct avc_entry *answer) {
    if (answer->epoch != now) {
        avc->refused++;
        return;
    }
    *place_for(avc, now, answer) = *answer;
    avc->inserts++;
}
