/* SPDX-License-Identifier: BSD-2-Clause */
#include "sec/sid.h"

#include <string.h>

#define INDEX_BITS 20
#define INDEX_MASK ((1u << INDEX_BITS) - 1)
#define GENERATIONS (1u << (32 - INDEX_BITS))
#define EMPTY 0u
#define USED 0xffffffffu

void sids_init(struct sids *sids, struct heap *heap, uint64_t seed) {
    *sids = (struct sids){.heap = heap, .seed = seed, .used = 1};
}

void sids_destroy(struct sids *sids) {
    for (uint32_t i = 1; i < sids->used; i++) {
        sids_set_values(sids, &sids->slots[i], NULL, 0);
        heap_free(sids->heap, sids->slots[i].text, sids->slots[i].length + 1);
    }
    heap_free(sids->heap, sids->slots, sids->room * sizeof *sids->slots);
    heap_free(sids->heap, sids->buckets, sids->bucket_room * sizeof *sids->buckets);
}

static uint32_t slot_sid(const struct sids *sids, uint32_t index) {
    return sids->slots[index].generation << INDEX_BITS | index;
}

struct sid_slot *sids_find(const struct sids *sids, uint32_t sid) {
    uint32_t index = sid & INDEX_MASK;
    if (index == 0 || index >= sids->used) return NULL;
    struct sid_slot *slot = &sids->slots[index];
    return slot->text && slot_sid(sids, index) == sid ? slot : NULL;
}

/* Where text stands, or the first bucket where it may be put. */
static uint32_t *bucket_of(const struct sids *sids, const char *text, uint32_t length, uint32_t hash) {
    uint32_t *vacant = NULL;
    for (uint32_t at = hash;; at++) {
        uint32_t *bucket = &sids->buckets[at & (sids->bucket_room - 1)];
        if (*bucket == EMPTY) return vacant ? vacant : bucket;
        if (*bucket == USED) {
            if (!vacant) vacant = bucket;
            continue;
        }
        const struct sid_slot *slot = &sids->slots[*bucket];
        if (slot->hash == hash && slot->length == length && !memcmp(slot->text, text, length)) return bucket;
    }
}

static bool buckets_rebuild(struct sids *sids, uint32_t room) {
    uint32_t *buckets = heap_alloc(sids->heap, room * sizeof *buckets);
    if (!buckets) return false;
    memset(buckets, 0, room * sizeof *buckets);
    heap_free(sids->heap, sids->buckets, sids->bucket_room * sizeof *buckets);
    sids->buckets = buckets;
    sids->bucket_room = room;
    sids->filled = 0;
    for (uint32_t i = 1; i < sids->used; i++) {
        struct sid_slot *slot = &sids->slots[i];
        if (!slot->text) continue;
        *bucket_of(sids, slot->text, slot->length, slot->hash) = i;
        sids->filled++;
    }
    return true;
}

static bool slots_grow(struct sids *sids) {
    uint32_t room = sids->room ? 2 * sids->room : 64;
    if (sids->room > INDEX_MASK) return false;
    struct sid_slot *slots = heap_grow(sids->heap, sids->slots, sids->room * sizeof *slots, room * sizeof *slots);
    if (!slots) return false;
    memset(slots + sids->room, 0, (room - sids->room) * sizeof *slots);
    sids->slots = slots;
    sids->room = room;
    return true;
}

/* Room for one more label, in both tables. */
static bool tables_reserve(struct sids *sids) {
    if (!sids->free && sids->used == sids->room && !slots_grow(sids)) return false;
    if (!sids->room && !slots_grow(sids)) return false;
    if (4 * (sids->filled + 1) < 3 * sids->bucket_room) return true;
    uint32_t live = sids->alive + sids->resting + 1;
    return buckets_rebuild(sids, round_up_power(live < 32 ? 64 : 2 * live));
}

static uint32_t slot_take(struct sids *sids) {
    uint32_t index = sids->free;
    if (index) sids->free = sids->slots[index].next;
    else index = sids->used++;
    return index;
}

static void resting_remove(struct sids *sids, uint32_t index) {
    uint32_t *link = &sids->resting_first, before = 0;
    for (; *link != index; link = &sids->slots[*link].next) before = *link;
    *link = sids->slots[index].next;
    if (sids->resting_last == index) sids->resting_last = before;
    sids->resting--;
}

uint32_t sids_intern(struct sids *sids, const char *text, uint32_t length, bool *fresh) {
    uint32_t hash = hash_text(sids->seed, text, length);
    uint32_t *bucket = sids->bucket_room ? bucket_of(sids, text, length, hash) : NULL;
    *fresh = false;
    if (bucket && *bucket != EMPTY && *bucket != USED) {        /* a known label needs no room */
        *fresh = !sids->slots[*bucket].refs;
        sids_retain(sids, slot_sid(sids, *bucket));
        return slot_sid(sids, *bucket);
    }
    if (!tables_reserve(sids)) return 0;
    bucket = bucket_of(sids, text, length, hash);
    char *copy = heap_alloc(sids->heap, length + 1);
    if (!copy) return 0;
    memcpy(copy, text, length);
    copy[length] = 0;
    uint32_t index = slot_take(sids);
    struct sid_slot *slot = &sids->slots[index];
    *slot = (struct sid_slot){.text = copy, .length = length, .hash = hash, .refs = 1, .generation = slot->generation};
    if (*bucket == EMPTY) sids->filled++;
    *bucket = index;
    sids->alive++;
    *fresh = true;
    return slot_sid(sids, index);
}

void sids_retain(struct sids *sids, uint32_t sid) {
    struct sid_slot *slot = sids_find(sids, sid);
    if (!slot) return;
    if (slot->refs++ == 0) {
        resting_remove(sids, sid & INDEX_MASK);
        sids->alive++;
    }
}

void *sids_release(struct sids *sids, uint32_t sid, uint64_t now) {
    struct sid_slot *slot = sids_find(sids, sid);
    if (!slot || --slot->refs) return NULL;
    void *payer = slot->payer;
    slot->payer = NULL;
    uint32_t index = sid & INDEX_MASK;
    slot->rests_since = now;
    slot->next = 0;
    if (sids->resting) sids->slots[sids->resting_last].next = index;
    else sids->resting_first = index;
    sids->resting_last = index;
    sids->resting++;
    sids->alive--;
    return payer;
}

void sids_set_values(struct sids *sids, struct sid_slot *slot, void *values, uint32_t size) {
    heap_free(sids->heap, slot->values, slot->values_size);
    sids->valued += !!values - !!slot->values;
    sids->values_bytes += (uint64_t)size - slot->values_size;
    slot->values = values;
    slot->values_size = size;
}

static void slot_free(struct sids *sids, uint32_t index) {
    struct sid_slot *slot = &sids->slots[index];
    sids_set_values(sids, slot, NULL, 0);
    *bucket_of(sids, slot->text, slot->length, slot->hash) = USED;
    heap_free(sids->heap, slot->text, slot->length + 1);
    slot->text = NULL;
    slot->generation = (slot->generation + 1) % GENERATIONS;
    if (slot->generation == 0) sids->wraps++;
    slot->next = sids->free;
    sids->free = index;
}

void sids_collect(struct sids *sids, uint64_t before) {
    while (sids->resting) {
        uint32_t index = sids->resting_first;
        if (sids->slots[index].rests_since >= before && sids->resting <= SIDS_RESTING_MAX) return;
        resting_remove(sids, index);
        slot_free(sids, index);
    }
}
