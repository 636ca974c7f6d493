/* SPDX-License-Identifier: BSD-2-Clause */
/* The path of a message, for those who speak it: the short calls (sys_msg.c) and the wire (sys_wire.c). */
#ifndef PM_MSG_H
#define PM_MSG_H

#include "sys/call.h"

/* A message to be sent. The kmsg carries body and cargo; rights in the cargo are names and dispositions still. */
struct send {
    struct call call;
    uint32_t dest, dest_disposition, reply, reply_disposition, option, effective_sid;
    bool carries_memory, waited;
    bool hand_back;                     /* pseudo-receive: what Mach does with a message that found no room */
    struct kmsg *kmsg;
    /* made by the attempt, valid while the lock is held */
    struct entry *dest_entry, *reply_entry;
    struct port *dest_port;
    const struct disposition *dest_how, *reply_how;
    uint32_t made_send_once;
    /* a message handed back: names again, and the dispositions of rights received */
    bool handed_back;
    uint32_t dest_name, reply_name;
};

/* A message to be received. */
struct receive {
    struct call call;
    uint32_t name, effective_sid;
    uint64_t room;                      /* a larger message is left alone, MACH_RCV_TOO_LARGE */
    uint64_t (*need)(const struct receive *receive, const struct kmsg *kmsg);   /* of that room */
    bool discard_too_large;             /* or destroyed, but for its header */
    bool for_handler;
    struct kmsg *kmsg;                  /* received: the caller's, to be freed */
    uint32_t local, seqno, reply, reply_disposition, denied, needed;
    uint64_t context;
    int32_t too_large_id;
};

/* Takes send->kmsg on success; on any code it is still there and holds nothing but memory. */
int send_run(struct send *send, const struct pm_wait *wait);
int receive_run(struct receive *receive, const struct pm_wait *wait);
/* Frees a message that was not sent. */
void message_drop(struct pm_kernel *kernel, struct kmsg *kmsg);
/* Frees a message that was received; it held a reference on the kernel. */
void message_received(struct pm_kernel *kernel, struct kmsg *kmsg);
/* pm_receive() by the defining path. */
int64_t receive_bytes(struct pm_task *task, uint32_t name, void *body, uint64_t capacity, const struct pm_wait *wait);
/* Destroys the names which a received message brought: its reader failed. */
void message_refuse(struct pm_task *task, const struct pm_received *received);
/* For a receive that takes any size. */
uint64_t need_nothing(const struct receive *receive, const struct kmsg *kmsg);
void received_fill(struct pm_received *received, const struct receive *receive);

#endif
