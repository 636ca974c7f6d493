/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The names of a task. A name is index << 8 | generation; the two low bits of a generation are always set and it moves on by four
 * whenever an index is freed, so a stale name is no name (for the next 63 uses of its index). As in XNU osfmk/ipc/ipc_entry.c.
 *
 * An entry is one cache line and carries, beside the right, everything the path of a message wants to know: the decision
 * remembered for it, its path in the trace, and which transfer created it.
 */
#ifndef PM_SPACE_H
#define PM_SPACE_H

#include "ipc/ipc.h"

#define ENTRY_TYPES 0x1f0000u
#define ENTRY_GENERATION 0xffu
#define GENERATION_FIRST 3u
#define GENERATION_STEP 4u
#define SPACE_INDEX_MAX (1u << 24)

struct entry {
    void *object;                       /* port or set; for a dead name NULL */
    uint32_t bits;                      /* MACH_PORT_TYPE_* and the generation */
    uint16_t urefs;                     /* of a send right or dead name */
    uint16_t pending;                   /* while one send is prepared: what earlier rights of the message will take away */
    struct request *request;            /* dead-name or send-possible request */
    struct hint hint;
    uint32_t trace_path, trace_stamp;
    uint64_t provenance;                /* of a free entry: the next free index */
};

#define PENDING_RECEIVE 0x8000u
#define PENDING_UREFS 0x7fffu           /* more than the rights of a message, header and body */

struct region { uint64_t address, size; };

/* The part of a task that mechanism knows. What the path of a message touches comes first: with the pointer before it in a task
 * it is two cache lines. */
struct space {
    struct entry *table;
    uint32_t used, room, free, names;   /* used: entries below this index were in use once */
    uint32_t refs, id, sid;
    uint32_t in_flight;                 /* messages sent by this task and not yet gone */
    uint32_t past_used, past_room;
    uint32_t trace_identity;
    bool alive;
    struct pm_quota quota;
    struct pm_usage usage;
    uint32_t *past_sids;                /* labels that queued messages may still bear */
    uint32_t *buckets;                  /* port -> index of the name of its send rights; 0 empty */
    uint32_t bucket_room, bucket_used;
    uint32_t next_port_number;
    struct pm_identity identity;
    struct pm_violation violation;
    struct region *regions;             /* sorted by address */
    uint32_t regions_used, regions_room;
    struct list waiters;                /* struct waiter, by in_space */
    struct list tasks;                  /* in the kernel's list */
};

static inline uint32_t entry_type(const struct entry *entry) { return entry->bits & ENTRY_TYPES; }
static inline uint32_t entry_name(const struct space *space, const struct entry *entry) {
    return (uint32_t)(entry - space->table) << 8 | (entry->bits & ENTRY_GENERATION);
}

/* NULL for a name that is not in use. */
static inline struct entry *space_entry(const struct space *space, uint32_t name) {
    uint32_t index = name >> 8;
    if (pm_unlikely(index >= space->used)) return NULL;
    struct entry *entry = &space->table[index];
    if (pm_unlikely((entry->bits & ENTRY_GENERATION) != (name & ENTRY_GENERATION) || !entry_type(entry))) return NULL;
    return entry;
}
/* As space_entry, after turning a name whose port has died into the dead name that it is. */
struct entry *space_lookup(struct ipc *ipc, struct space *space, uint32_t name);

bool space_init(struct space *space, struct ipc *ipc) pm_must_check;
void space_destroy(struct space *space, struct ipc *ipc);

/*
 * Purpose: make sure that `count` names can be taken without failing.
 * Returns: 0; KERN_NO_SPACE (quota or index range); KERN_RESOURCE_SHORTAGE.
 */
int space_reserve(struct space *space, struct ipc *ipc, uint32_t count) pm_must_check;
/* Takes a reserved name. The entry has no type yet: the caller sets it. */
struct entry *space_take(struct space *space, struct ipc *ipc);
/* KERN_SUCCESS and an entry under exactly this name, or the codes of mach_port_allocate_name. */
int space_take_named(struct space *space, struct ipc *ipc, uint32_t name, struct entry **entry) pm_must_check;
/* The name is free again; the right must be gone. */
void space_give(struct space *space, struct ipc *ipc, struct entry *entry);

/* The entry that holds rights to port: the receive right, or send rights. NULL: none. */
struct entry *space_find(const struct space *space, const struct port *port);
void space_index_add(struct space *space, const struct entry *entry);
void space_index_remove(struct space *space, const struct entry *entry);

void space_ref(struct space *space);
void space_unref(struct ipc *ipc, struct space *space);         /* frees the task with the last reference */
void space_free(struct ipc *ipc, struct space *space);          /* sys/task.c: what is around the space */

#endif
