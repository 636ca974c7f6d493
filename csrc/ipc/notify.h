/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Notifications: messages the kernel makes. Each travels by a send-once right, and for each send-once right one message is kept
 * in reserve, so telling somebody of a death never fails. Kernel-made messages are neither mediated nor traced.
 */
#ifndef PM_NOTIFY_H
#define PM_NOTIFY_H

#include "ipc/kmsg.h"

/* A dead-name or send-possible request, held by the name it was made for and by the port it is about. */
struct request {
    struct request *next, **link;       /* of the port */
    struct space *space;
    uint32_t name;
    bool send_possible, armed;
    struct port *notify;                /* a send-once right */
};

/* All consume the send-once right `notify`. */
void notify_send_once(struct ipc *ipc, struct port *notify, struct after *after);
void notify_name(struct ipc *ipc, struct port *notify, int32_t id, uint32_t name, struct after *after);
void notify_no_senders(struct ipc *ipc, struct port *notify, uint32_t mscount, struct after *after);
/* The receive right of port, which has just left its space, travels in it. */
void notify_port_destroyed(struct ipc *ipc, struct port *notify, struct port *port, struct cargo *cargo,
                           struct after *after);

void request_add(struct ipc *ipc, struct request *request, struct port *port);
/* Takes the request off its port; the caller has request->notify and must free it. */
void request_remove(struct request *request);
void request_free(struct ipc *ipc, struct request *request);
/* The name goes away while its request stands: tell so. */
void request_name_deleted(struct ipc *ipc, struct entry *entry, uint32_t name, struct after *after);
/* The port died: every request fires, and its name becomes a dead name with one more reference. */
void requests_port_died(struct ipc *ipc, struct port *port, struct after *after);
/* The port's queue has room: armed send-possible requests fire. */
void requests_send_possible(struct ipc *ipc, struct port *port, struct after *after);

#endif
