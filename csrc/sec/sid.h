/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Labels interned to security identifiers. A SID is index (20 bits) and generation (12 bits) of a table slot; 0 is no label.
 *
 * A label whose last reference went stays for a while without being alive, so that audit records not yet read can still be put
 * into words; interning its text again revives it. How long is decided by whoever calls sids_collect(), but no more than
 * SIDS_RESTING_MAX rest at a time.
 */
#ifndef PM_SID_H
#define PM_SID_H

#include "base/pool.h"

#define SIDS_RESTING_MAX 4096

struct sid_slot {
    char *text;                         /* NULL: free */
    uint32_t length, hash, refs, generation;
    uint32_t next;                      /* free list, or list of resting labels */
    uint32_t rules, rules_stamp;        /* sec/selection.c: which rules are about it */
    uint64_t rests_since;
    void *payer;                        /* who is charged; a counted reference of the caller's */
    void *values;                       /* sec/native.c: what modules see of it; NULL none */
    uint32_t values_size;
};
struct sids {
    struct heap *heap;
    struct sid_slot *slots;
    uint32_t *buckets;                  /* open addressing; 0 empty, ~0 was used */
    uint32_t used, room, free, bucket_room, filled, alive;
    uint32_t resting_first, resting_last, resting;
    uint32_t valued;                    /* labels that have values, and the memory for these */
    uint64_t values_bytes;
    uint64_t seed, wraps;               /* wraps: how often a generation began anew */
};

void sids_init(struct sids *sids, struct heap *heap, uint64_t seed);
void sids_destroy(struct sids *sids);
/* Returns: the SID with one more reference; 0 where memory or numbers are short. *fresh: nobody is charged
 * for it. */
uint32_t sids_intern(struct sids *sids, const char *text, uint32_t length, bool *fresh) pm_must_check;
/* NULL for a SID that was never given out or is gone. */
struct sid_slot *sids_find(const struct sids *sids, uint32_t sid);
static inline bool sids_alive(const struct sids *sids, uint32_t sid) {
    struct sid_slot *slot = sids_find(sids, sid);
    return slot && slot->refs;
}
void sids_retain(struct sids *sids, uint32_t sid);
/* Drops a reference; with the last one the label rests, and its payer comes back to be relieved. `now` is what
 * sids_collect() will compare with. */
void *sids_release(struct sids *sids, uint32_t sid, uint64_t now);
/* Frees the labels that rest since before `before`, and the oldest where too many rest. */
void sids_collect(struct sids *sids, uint64_t before);
/* Takes memory of its heap as a label's values, in place of those there were. They go with the label. */
void sids_set_values(struct sids *sids, struct sid_slot *slot, void *values, uint32_t size);

#endif
