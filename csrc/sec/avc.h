/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The access vector cache: (source SID, target SID, class) -> vectors. A fixed number of entries in sets of four, so a look-up
 * reads two cache lines at most and never walks a chain, whatever is in the cache. An entry of another epoch is no entry.
 */
#ifndef PM_AVC_H
#define PM_AVC_H

#include "base/pool.h"

#define AVC_WAYS 4

struct avc_vector { uint32_t allowed, auditallow, auditdeny, report; };
struct avc_entry { uint32_t ssid, tsid, tclass, epoch; struct avc_vector vector; };
struct avc {
    struct heap *heap;
    struct avc_entry *entries;
    uint32_t sets, victim;
    uint64_t seed;
    uint64_t inserts, evictions, refused;
};

bool avc_init(struct avc *avc, struct heap *heap, uint32_t entries, uint64_t seed) pm_must_check;
void avc_destroy(struct avc *avc);
/* Forgets everything: for when the epoch counter itself begins anew. */
void avc_flush(struct avc *avc);

static inline struct avc_entry *avc_set(const struct avc *avc, uint32_t ssid, uint32_t tsid, uint32_t tclass) {
    uint64_t key = ((uint64_t)ssid << 32 | tsid) ^ ((uint64_t)tclass << 17) ^ avc->seed;
    uint32_t hash = (uint32_t)((key * 0x9e3779b97f4a7c15u) >> 32);
    hash ^= hash >> 16; /* the lower half knows the lower half of ssid only */
    return &avc->entries[AVC_WAYS * (hash & (avc->sets - 1))];
}

static inline const struct avc_entry *avc_find(const struct avc *avc, uint32_t epoch, uint32_t ssid, uint32_t tsid,
                                               uint32_t tclass) {
    const struct avc_entry *entry = avc_set(avc, ssid, tsid, tclass);
    for (int way = 0; way < AVC_WAYS; way++, entry++)
        if (entry->ssid == ssid && entry->tsid == tsid && entry->tclass == tclass && entry->epoch == epoch) return entry;
    return NULL;
}

/* Refused (and counted) where the answer belongs to another epoch than `now`. */
void avc_insert(struct avc *avc, uint32_t now, const struct avc_entry *answer);

#endif
