/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/pool.h"

#include <stdlib.h>
#include <string.h>

#define LINE 64

void heap_fault(struct heap *heap, uint64_t at, bool sticky) {
    heap->fault_sticky = sticky;
    heap->fault_at = at ? __atomic_load_n(&heap->asked, __ATOMIC_RELAXED) + at : 0;
}

static bool heap_refuses(struct heap *heap) {
    uint64_t number = __atomic_add_fetch(&heap->asked, 1, __ATOMIC_RELAXED);
    if (pm_likely(!heap->fault_at)) return false;
    return number == heap->fault_at || (heap->fault_sticky && number > heap->fault_at);
}

static struct heap *whole_of(struct heap *heap) { return heap->whole ? heap->whole : heap; }

/* Unsigned, so that what is given back is added, too. */
static void heap_count(struct heap *heap, uint64_t bytes) {
    __atomic_add_fetch(&heap->bytes, bytes, __ATOMIC_RELAXED);
    if (heap->whole) __atomic_add_fetch(&heap->whole->bytes, bytes, __ATOMIC_RELAXED);
}

void *heap_alloc(struct heap *heap, size_t size) {
    if (heap_refuses(whole_of(heap))) return NULL;
    void *memory = NULL;
    if (size % LINE) memory = malloc(size);
    else if (posix_memalign(&memory, LINE, size)) memory = NULL;
    if (memory) heap_count(heap, size);
    return memory;
}

void *heap_grow(struct heap *heap, void *memory, size_t old_size, size_t size) {
    if (heap_refuses(whole_of(heap))) return NULL;
    void *grown = realloc(memory, size);
    if (grown) heap_count(heap, size - old_size);
    return grown;
}

void heap_free(struct heap *heap, void *memory, size_t size) {
    if (!memory) return;
    heap_count(heap, -(uint64_t)size);
    free(memory);
}

void pool_init(struct pool *pool, struct heap *heap, size_t size, size_t per_chunk) {
    *pool = (struct pool){.heap = heap, .size = size, .per_chunk = per_chunk};
}

void pool_destroy(struct pool *pool) {
    for (size_t i = 0; i < pool->chunk_count; i++) {
        memory_unpoison(pool->chunks[i], pool->size * pool->per_chunk);
        heap_free(pool->heap, pool->chunks[i], pool->size * pool->per_chunk);
    }
    heap_free(pool->heap, pool->chunks, pool->chunk_room * sizeof *pool->chunks);
    pool_init(pool, pool->heap, pool->size, pool->per_chunk);
}

static bool directory_grow(struct pool *pool) {
    size_t room = pool->chunk_room ? 2 * pool->chunk_room : 8;
    void **chunks = heap_grow(pool->heap, pool->chunks, pool->chunk_room * sizeof *chunks, room * sizeof *chunks);
    if (!chunks) return false;
    pool->chunks = chunks;
    pool->chunk_room = room;
    return true;
}

pm_noinline bool pool_grow(struct pool *pool) {
    if (pool->chunk_count == pool->chunk_room && !directory_grow(pool)) return false;
    char *chunk = heap_alloc(pool->heap, pool->size * pool->per_chunk);
    if (!chunk) return false;
    pool->chunks[pool->chunk_count++] = chunk;
    /* Zeroed once: a piece that was never used can be told from a live one. Listed backwards: handed out in address order. */
    memset(chunk, 0, pool->size * pool->per_chunk);
    for (size_t i = pool->per_chunk; i-- > 0;) pool_give(pool, chunk + i * pool->size);
    return true;
}

bool pool_reserve(struct pool *pool, size_t count) {
    while (pool->free_count < pool->reserved + count)
        if (!pool_grow(pool)) return false;
    pool->reserved += count;
    return true;
}
