/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/space.h"

#include <string.h>

#include "ipc/port.h"
#include "ipc/right.h"

_Static_assert(sizeof(struct entry) == 64, "a name is one cache line");

#define ROOM_FIRST 16u
/* A chosen name may make the table grow this far, no further. */
#define NAMED_INDEX_MAX (1u << 16)

bool space_init(struct space *space, struct ipc *ipc) {
    memset(space, 0, sizeof *space);
    space->refs = 1;
    space->used = 1;
    space->alive = true;
    list_init(&space->waiters);
    list_init(&space->tasks);
    return space_reserve(space, ipc, 1) == 0;
}

void space_destroy(struct space *space, struct ipc *ipc) {
    heap_free(ipc->names_heap, space->table, space->room * sizeof *space->table);
    heap_free(ipc->names_heap, space->buckets, space->bucket_room * sizeof *space->buckets);
    heap_free(ipc->names_heap, space->past_sids, space->past_room * sizeof *space->past_sids);
    heap_free(ipc->names_heap, space->regions, space->regions_room * sizeof *space->regions);
}

void space_ref(struct space *space) { space->refs++; }

void space_unref(struct ipc *ipc, struct space *space) {
    if (--space->refs == 0) space_free(ipc, space);
}

struct entry *space_lookup(struct ipc *ipc, struct space *space, uint32_t name) {
    struct entry *entry = space_entry(space, name);
    if (entry && (entry_type(entry) & (MACH_PORT_TYPE_SEND | MACH_PORT_TYPE_SEND_ONCE)) &&
        !port_active(entry->object))
        right_bury(ipc, space, entry);
    return entry;
}

/* ---- send rights by port: open addressing, backward shift on removal ---- */

static uint32_t bucket_home(const struct space *space, const void *port) {
    return (uint32_t)mix64((uintptr_t)port) & (space->bucket_room - 1);
}

static void bucket_put(struct space *space, const void *port, uint32_t index) {
    uint32_t at = bucket_home(space, port);
    while (space->buckets[at]) at = (at + 1) & (space->bucket_room - 1);
    space->buckets[at] = index;
}

void space_index_add(struct space *space, const struct entry *entry) {
    bucket_put(space, entry->object, (uint32_t)(entry - space->table));
    space->bucket_used++;
}

void space_index_remove(struct space *space, const struct entry *entry) {
    uint32_t mask = space->bucket_room - 1, at = bucket_home(space, entry->object);
    while (space->buckets[at] != (uint32_t)(entry - space->table)) at = (at + 1) & mask;
    for (uint32_t next = (at + 1) & mask; space->buckets[next]; next = (next + 1) & mask) {
        uint32_t home = bucket_home(space, space->table[space->buckets[next]].object);
        if (((next - home) & mask) < ((next - at) & mask)) continue;
        space->buckets[at] = space->buckets[next];
        at = next;
    }
    space->buckets[at] = 0;
    space->bucket_used--;
}

struct entry *space_find(const struct space *space, const struct port *port) {
    if (port_received(port) && port->rest->receiver == space) return &space->table[port->rest->receiver_name >> 8];
    if (!space->bucket_used) return NULL;
    for (uint32_t at = bucket_home(space, port); space->buckets[at]; at = (at + 1) & (space->bucket_room - 1))
        if (space->table[space->buckets[at]].object == port) return &space->table[space->buckets[at]];
    return NULL;
}

static bool buckets_reserve(struct space *space, struct ipc *ipc, uint32_t count) {
    if (4 * (space->bucket_used + count) <= 3 * space->bucket_room) return true;
    uint32_t room = round_up_power(2 * (space->bucket_used + count) + 8);
    uint32_t *buckets = heap_alloc(ipc->names_heap, room * sizeof *buckets), *old = space->buckets, old_room = space->bucket_room;
    if (!buckets) return false;
    memset(buckets, 0, room * sizeof *buckets);
    space->buckets = buckets;
    space->bucket_room = room;
    for (uint32_t i = 0; i < old_room; i++)
        if (old[i]) bucket_put(space, space->table[old[i]].object, old[i]);
    heap_free(ipc->names_heap, old, old_room * sizeof *old);
    return true;
}

/* ---- names ---- */

static bool table_grow(struct space *space, struct ipc *ipc, uint32_t least) {
    uint32_t room = space->room ? space->room : ROOM_FIRST;
    while (room < least) room *= 2;
    struct entry *table = heap_alloc(ipc->names_heap, room * sizeof *table);
    if (!table) return false;
    if (space->table) memcpy(table, space->table, space->used * sizeof *table);
    else memset(table, 0, sizeof *table);
    heap_free(ipc->names_heap, space->table, space->room * sizeof *table);
    space->table = table;
    space->room = room;
    return true;
}

static uint32_t free_names(const struct space *space) { return space->room - 1 - space->names; }

int space_reserve(struct space *space, struct ipc *ipc, uint32_t count) {
    lock_assert_held(ipc->lock);
    if (space->quota.names && space->names + count > space->quota.names) {
        ipc->quota_refusals++;
        return KERN_NO_SPACE;
    }
    if (space->names + (uint64_t)count >= SPACE_INDEX_MAX) return KERN_NO_SPACE;
    if (!space->room || free_names(space) < count) {
        if (!table_grow(space, ipc, space->names + count + 1)) return KERN_RESOURCE_SHORTAGE;
    }
    return buckets_reserve(space, ipc, count) ? 0 : KERN_RESOURCE_SHORTAGE;
}

static void entry_clear(struct entry *entry, uint32_t generation) {
    memset(entry, 0, sizeof *entry);
    entry->bits = generation;
}

static struct entry *entry_begin(struct space *space, struct ipc *ipc, uint32_t index, uint32_t generation) {
    entry_clear(&space->table[index], generation);
    space->names++;
    ipc->names++;
    return &space->table[index];
}

struct entry *space_take(struct space *space, struct ipc *ipc) {
    lock_assert_held(ipc->lock);
    uint32_t index = space->free;
    if (!index) return entry_begin(space, ipc, space->used++, GENERATION_FIRST);
    space->free = (uint32_t)space->table[index].provenance;
    return entry_begin(space, ipc, index, space->table[index].bits & ENTRY_GENERATION);
}

void space_give(struct space *space, struct ipc *ipc, struct entry *entry) {
    uint32_t generation = (entry->bits + GENERATION_STEP) & ENTRY_GENERATION;
    entry_clear(entry, generation);
    entry->provenance = space->free;
    space->free = (uint32_t)(entry - space->table);
    space->names--;
    ipc->names--;
}

/* Indexes skipped on the way to a chosen one become free, the lowest to be taken first. */
static void extend_to(struct space *space, uint32_t index) {
    uint32_t below = space->free;
    for (uint32_t i = index; i-- > space->used;) {
        entry_clear(&space->table[i], GENERATION_FIRST);
        space->table[i].provenance = below;
        below = i;
    }
    space->free = below;
    space->used = index + 1;
}

static void unlink_free(struct space *space, uint32_t index) {
    uint32_t at = space->free, before = 0;
    for (; at != index; at = (uint32_t)space->table[at].provenance) before = at;
    if (before) space->table[before].provenance = space->table[at].provenance;
    else space->free = (uint32_t)space->table[at].provenance;
}

int space_take_named(struct space *space, struct ipc *ipc, uint32_t name, struct entry **entry) {
    uint32_t index = name >> 8, generation = name & ENTRY_GENERATION;
    if ((name & GENERATION_FIRST) != GENERATION_FIRST || name == MACH_PORT_DEAD) return KERN_INVALID_VALUE;
    if (index == 0) return KERN_FAILURE;
    if (index < space->used && entry_type(&space->table[index]))
        return space_entry(space, name) ? KERN_NAME_EXISTS : KERN_FAILURE;
    if (index >= NAMED_INDEX_MAX && index >= space->used) return KERN_NO_SPACE;
    int code = space_reserve(space, ipc, 1);
    if (code) return code;
    if (index >= space->room && !table_grow(space, ipc, index + 1)) return KERN_RESOURCE_SHORTAGE;
    if (index >= space->used) extend_to(space, index);
    else unlink_free(space, index);
    *entry = entry_begin(space, ipc, index, generation);
    return 0;
}
