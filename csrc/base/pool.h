/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * All memory of the core. A heap counts what is out and is the one place where an allocation can be made to fail; a pool hands
 * out pieces of one size from chunks of its heap.
 *
 * A pool can keep pieces in reserve: whoever must not fail later reserves a piece while failing is still allowed, and takes it
 * when the time comes. Every send-once right has a notification message reserved in this way.
 */
#ifndef PM_POOL_H
#define PM_POOL_H

#include "base/base.h"

struct heap {                           /* counters are atomic: large bodies are allocated before the lock is taken */
    struct heap *whole;                 /* a part counts its own bytes, and has the whole count them and fail; NULL: the whole */
    uint64_t asked, bytes;
    uint64_t fault_at;                  /* the allocation to fail, in terms of asked; 0 none */
    bool fault_sticky;
};
void *heap_alloc(struct heap *heap, size_t size) pm_must_check;         /* on a cache line where size is a multiple of one */
void *heap_grow(struct heap *heap, void *memory, size_t old_size, size_t size) pm_must_check;
void heap_free(struct heap *heap, void *memory, size_t size);
void heap_fault(struct heap *heap, uint64_t at, bool sticky);
#ifdef PM_DEBUG
#include <assert.h>
#define heap_assert_empty(heap) assert((heap)->bytes == 0)
#else
#define heap_assert_empty(heap) ((void)(heap))
#endif

struct pool_node { struct pool_node *next; };
struct pool {
    struct pool_node *free;
    size_t free_count, reserved;
    struct heap *heap;
    size_t size, per_chunk;
    void **chunks;
    size_t chunk_count, chunk_room;
};
void pool_init(struct pool *pool, struct heap *heap, size_t size, size_t per_chunk);
void pool_destroy(struct pool *pool);
bool pool_grow(struct pool *pool) pm_must_check;
bool pool_reserve(struct pool *pool, size_t count) pm_must_check;       /* all or nothing */
static inline void pool_unreserve(struct pool *pool, size_t count) { pool->reserved -= count; }

/* How many pieces are out. */
static inline size_t pool_live(const struct pool *pool) { return pool->chunk_count * pool->per_chunk - pool->free_count; }

static inline void *pool_pop(struct pool *pool) {
    struct pool_node *node = pool->free;
    memory_unpoison(node, pool->size);
    pool->free = node->next;
    pool->free_count--;
    return node;
}

/* A piece with undefined contents, or NULL. Never touches the reserve. */
static inline void *pool_take(struct pool *pool) {
    if (pm_unlikely(pool->free_count <= pool->reserved) && !pool_grow(pool)) return NULL;
    return pool_pop(pool);
}

/* Cannot fail: the piece was reserved. */
static inline void *pool_take_reserved(struct pool *pool) {
    pool->reserved--;
    return pool_pop(pool);
}

static inline void pool_give(struct pool *pool, void *piece) {
    struct pool_node *node = piece;
    node->next = pool->free;
    pool->free = node;
    pool->free_count++;
    memory_poison(node, pool->size);
}

#endif
