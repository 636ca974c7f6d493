/* SPDX-License-Identifier: BSD-2-Clause */
/* One right under one name, and the table of dispositions. The only writer of right counts. */
#ifndef PM_RIGHT_H
#define PM_RIGHT_H

#include "ipc/kmsg.h"

/* What a disposition needs, asks and makes. */
struct disposition {
    uint32_t needs;                     /* type bit the name must have */
    uint8_t result;                     /* MACH_MSG_TYPE_PORT_*: the right that travels */
    bool takes;                         /* the right leaves the name */
    uint32_t give;                      /* permission asked of who gives it */
    uint32_t event;                     /* of ipctrace */
};
/* NULL for a value that is no disposition. */
const struct disposition *disposition_of(uint32_t value);
/* By MACH_MSG_TYPE_PORT_*: what the one who takes the right is asked, and the trace event. */
struct taking { uint32_t take, event; };
const struct taking *taking_of(uint8_t type);

/* Can this name give a right by this disposition, after what the same message takes from it already? A dead name gives a dead
 * name, where a send or send-once right is wanted. */
bool right_can_give(const struct entry *entry, const struct disposition *how);
/* Notes in the entry what giving will take; right_forget() undoes all notes of an entry. */
void right_note(struct entry *entry, const struct disposition *how);
static inline void right_forget(struct entry *entry) { entry->pending = 0; }

/*
 * Purpose: takes the right out of the name, or makes or copies it. Cannot fail after right_can_give().
 * Conditions: for a send-once right that is made, a kmsg is reserved.
 * Returns: the port with a reference and the right counted, or PORT_DEAD.
 */
struct port *right_give(struct ipc *ipc, struct space *space, struct entry *entry, const struct disposition *how,
                        struct after *after);
/*
 * Purpose: puts a right in flight under a name, by the rules of coalescing. Cannot fail: one name is reserved.
 * Conditions: consumes the reference and the count; the port may have died.
 * Returns: the name; MACH_PORT_DEAD for a send right to a dead port.
 */
uint32_t right_take(struct ipc *ipc, struct space *space, struct port *port, uint8_t type, uint64_t transfer,
                    struct after *after, bool *dropped);
/* Puts a right in flight under this entry, which is new or already holds rights of the same port. */
void right_place(struct ipc *ipc, struct space *space, struct entry *entry, struct port *port, uint8_t type,
                 uint64_t transfer);
/* Destroys a right in flight. */
void right_destroy(struct ipc *ipc, struct port *port, uint8_t type, struct after *after);
/* Another send right to port, for the kernel to keep or a message to carry. */
void right_copy_send(struct port *port);
/* The message was taken off its queue: its right to the port is used up. */
void right_used(struct ipc *ipc, struct port *port, uint8_t type, struct after *after);
/* A send-once right stops being one that may have to tell of its death: it is now the way of a queued message. */
static inline void right_send_once_used(struct ipc *ipc) { pool_unreserve(&ipc->kmsgs, 1); }

/* MACH_PORT_TYPE_* by MACH_PORT_RIGHT_*; 0 for the one that is no more. */
extern const uint32_t type_of_right[MACH_PORT_RIGHT_NUMBER];

/* ---- a task's own calls on a name; codes as in mach_port_* ---- */
/* Changes the user references of one right of the name; the last one frees it. */
int right_delta(struct ipc *ipc, struct space *space, struct entry *entry, uint32_t right, int32_t delta,
                struct after *after);
int right_deallocate(struct ipc *ipc, struct space *space, struct entry *entry, struct after *after);
/* Everything the name holds goes. */
void right_free(struct ipc *ipc, struct space *space, struct entry *entry, struct after *after);
/* The receive right of the name goes, after `drop` user references of its send right. */
void right_destruct(struct ipc *ipc, struct space *space, struct entry *entry, uint32_t drop, struct after *after);
/* Turns a name whose port died into a dead name. */
void right_bury(struct ipc *ipc, struct space *space, struct entry *entry);

#endif
