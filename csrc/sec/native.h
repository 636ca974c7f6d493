/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Decisions by tables: a policy compiled, so that what the cache does not know needs no decider. pympi.h says what tables are.
 *
 * Tables never change. They are looked at with the kernel's lock, in bounded time: every index in them is checked when they are
 * made, every index in a label's values when it is used. What they do not cover is not answered; nothing is allowed for lack of
 * a table. Values belong to tables by `scheme`, a number that is never given twice to tables that number things differently.
 */
#ifndef PM_NATIVE_H
#define PM_NATIVE_H

#include "sec/avc.h"
#include "sec/selection.h"

struct native_module;
struct piece;
struct native {
    struct heap *heap;
    struct native_module *modules;
    uint8_t *known;
    uint32_t modules_count, classes_count, epoch;
    uint64_t scheme;
    struct piece *pieces;               /* of memory, all of it but this */
    bool short_of_memory;
    uint64_t bytes;
};

/* What all modules see of a label; what the words are, pympi.h says. */
struct values { uint64_t scheme; uint32_t count, words[]; };
static inline size_t values_size(size_t count) { return offsetof(struct values, words) + count * sizeof(uint32_t); }

/*
 * Purpose: copies tables; takes no lock. seed: of the hashes.
 * Returns: 0 and tables in *made, owned by the caller: native_destroy(); KERN_INVALID_ARGUMENT, KERN_RESOURCE_SHORTAGE.
 */
int native_create(struct heap *heap, const struct pm_native *given, uint64_t seed, struct native **made) pm_must_check;
void native_destroy(struct native *native);     /* NULL too */

/* 0 and values to be kept with a label (sids_set_values), in memory of values_size(count); else as native_create(). */
int native_values(struct heap *heap, uint64_t scheme, const uint32_t *words, size_t count, struct values **made) pm_must_check;

/* Composes what all modules say about two labels of `sids`. False: not covered. */
bool native_decide(const struct native *native, const struct sids *sids, uint32_t ssid, uint32_t tsid, uint32_t tclass,
                   struct avc_vector *vector) pm_must_check;

#endif
