/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A message in flight. The kmsg holds one right to its destination, one to the reply port if any, and, in its cargo, the rights
 * and the memory of its body. Rights in flight are pointers; names exist before the send and after the receive only.
 */
#ifndef PM_KMSG_H
#define PM_KMSG_H

#include "ipc/port.h"
#include "ipc/space.h"

#define KMSG_SIZE 256
#define KMSG_INLINE (KMSG_SIZE - 96)
#define BODY_POOLED (BODY_LEAST << (BODY_POOLS - 1))

struct right_in_flight { struct port *port; uint32_t name; uint8_t disposition, type, denied; };

struct descriptor {
    uint8_t type, disposition, copy, deallocate;
    uint16_t guard_flags;
    uint32_t count;                     /* rights, from rights[] of the cargo on */
    uint32_t first;
    uint64_t guard_context;
    struct pm_memory memory;            /* release NULL: the heap's own */
};

struct cargo {
    uint32_t descriptors_used, rights_used;
    size_t allocated;
    struct right_in_flight *rights;
    void (*release)(void *context);     /* of the body itself, when it was passed by reference */
    void *release_context;
    struct pm_received_right *received; /* filled when received */
    struct pm_memory *memories;
    uint32_t memory_used;
    struct descriptor descriptors[];
};

enum kmsg_flag { KMSG_METHOD = 1, KMSG_EFFECTIVE = 2, KMSG_CIRCULAR = 4, KMSG_KERNEL = 8 };

/* What is empty in a short message comes first and together: it is cleared by two stores. */
struct kmsg {
    struct kmsg *next;
    struct port *reply;                 /* NULL or PORT_DEAD where there is none */
    struct cargo *cargo;
    uint32_t voucher;
    uint8_t dest_type, reply_type;      /* MACH_MSG_TYPE_PORT_SEND or _SEND_ONCE */
    uint16_t flags;
    struct port *dest;                  /* NULL once received */
    char *body;
    struct space *sender;               /* NULL: the kernel. Counted in the sender's in_flight and queued_bytes */
    uint64_t transfer;
    uint32_t size, sid, real_sid, access;
    int32_t msgh_id;
    uint32_t charge;                    /* bytes charged to the sender */
    struct ipc *ipc;
    _Alignas(8) char inside[KMSG_INLINE];
};

/* Where a body comes from that does not fit inside: of pieces of 256 bytes, 512 and so on, the least that holds it. NULL: from the
 * heap, where each costs as much as a message. */
static inline struct pool *body_pool(struct ipc *ipc, uint64_t size) {
    if (size > BODY_POOLED) return NULL;
    return &ipc->bodies[size <= BODY_LEAST ? 0 : 64 - __builtin_clzll((size - 1) / BODY_LEAST)];
}

/* A message with room for size bytes of body; sender, sids and charge are not set. NULL where memory is short. */
struct kmsg *kmsg_create(struct ipc *ipc, uint64_t size) pm_must_check;
/* Cargo for this many descriptors and rights, or NULL. */
struct cargo *cargo_create(struct ipc *ipc, uint32_t descriptors, uint32_t rights) pm_must_check;
void cargo_free(struct ipc *ipc, struct cargo *cargo);
/* Who sent it, under which labels; charges the sender. */
void kmsg_set_sender(struct kmsg *kmsg, struct space *sender, uint32_t real_sid, uint32_t sid);
/* The sender is relieved of the charge: the message is no longer queued. */
void kmsg_uncharge(struct kmsg *kmsg);
/* Gives memory back; rights must be gone. What has release functions goes to after->finished. */
void kmsg_free(struct ipc *ipc, struct kmsg *kmsg, struct after *after);
/* Destroys rights and message; consequences into after. */
void kmsg_destroy(struct ipc *ipc, struct kmsg *kmsg, struct after *after);
static inline void after_doom(struct after *after, struct kmsg *kmsg) {
    kmsg->next = NULL;
    *after->doomed_end = kmsg;
    after->doomed_end = &kmsg->next;
}
/* Runs the release functions of a message, each once. Without the lock. */
void kmsg_release(struct kmsg *kmsg);

/* Works off all consequences that need the lock. */
void after_settle(struct ipc *ipc, struct after *after);

#endif
