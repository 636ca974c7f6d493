/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/right.h"

#include "ipc/mqueue.h"
#include "ipc/notify.h"
#include "ipc/pset.h"

#define SEND MACH_PORT_TYPE_SEND
#define RECEIVE MACH_PORT_TYPE_RECEIVE
#define SEND_ONCE MACH_PORT_TYPE_SEND_ONCE
#define PORT_SET MACH_PORT_TYPE_PORT_SET
#define DEAD_NAME MACH_PORT_TYPE_DEAD_NAME

static const struct disposition dispositions[] = {
    {RECEIVE, MACH_MSG_TYPE_PORT_RECEIVE, true, PM_MACH_PORT__move_recv, PM_EVENT_MOVE_RECV},
    {SEND, MACH_MSG_TYPE_PORT_SEND, true, PM_MACH_PORT__move_send, PM_EVENT_MOVE_SEND},
    {SEND_ONCE, MACH_MSG_TYPE_PORT_SEND_ONCE, true, PM_MACH_PORT__move_send_once, PM_EVENT_MOVE_SEND_ONCE},
    {SEND, MACH_MSG_TYPE_PORT_SEND, false, PM_MACH_PORT__copy_send, PM_EVENT_COPY_SEND},
    {RECEIVE, MACH_MSG_TYPE_PORT_SEND, false, PM_MACH_PORT__make_send, PM_EVENT_MAKE_SEND},
    {RECEIVE, MACH_MSG_TYPE_PORT_SEND_ONCE, false, PM_MACH_PORT__make_send_once, PM_EVENT_MAKE_SEND_ONCE},
};
static const struct taking takings[] = {
    {PM_MACH_PORT__hold_recv, PM_EVENT_HOLD_RECV},
    {PM_MACH_PORT__hold_send, PM_EVENT_HOLD_SEND},
    {PM_MACH_PORT__hold_send_once, PM_EVENT_HOLD_SEND_ONCE},
};

const struct disposition *disposition_of(uint32_t value) {
    uint32_t row = value - MACH_MSG_TYPE_MOVE_RECEIVE;
    return row < array_count(dispositions) ? &dispositions[row] : NULL;
}

const struct taking *taking_of(uint8_t type) { return &takings[type - MACH_MSG_TYPE_PORT_RECEIVE]; }

/* ---- giving ---- */

static bool dead_name_serves(const struct disposition *how) { return how->needs & (SEND | SEND_ONCE); }

bool right_can_give(const struct entry *entry, const struct disposition *how) {
    uint32_t type = entry_type(entry), pending_urefs = entry->pending & PENDING_UREFS;
    if (type & DEAD_NAME) return dead_name_serves(how) && entry->urefs > pending_urefs;
    if (!(type & how->needs)) return false;
    if (how->needs == RECEIVE) {
        uint32_t flags = ((struct port *)entry->object)->flags;
        if (flags & PORT_REPLY && how->result != MACH_MSG_TYPE_PORT_SEND_ONCE) return false;
        return !(entry->pending & PENDING_RECEIVE) && !(how->takes && flags & (PORT_IMMOVABLE | PORT_HANDLER));
    }
    return (how->needs == SEND_ONCE ? 1 : entry->urefs) > pending_urefs;
}

void right_note(struct entry *entry, const struct disposition *how) {
    if (!how->takes) return;
    if (how->needs == RECEIVE) entry->pending |= PENDING_RECEIVE;
    else entry->pending++;
}

/* The name holds nothing any more. Its reference to the port is the caller's. */
static void name_free(struct ipc *ipc, struct space *space, struct entry *entry, struct after *after) {
    request_name_deleted(ipc, entry, entry_name(space, entry), after);
    space_give(space, ipc, entry);
}

static void dead_name_drop(struct ipc *ipc, struct space *space, struct entry *entry, uint32_t count,
                           struct after *after) {
    entry->urefs -= (uint16_t)count;
    if (!entry->urefs) name_free(ipc, space, entry, after);
}

/* Drops user references of a send right; with the last one the right comes to the caller, counted and referenced, else NULL. */
static struct port *send_drop(struct ipc *ipc, struct space *space, struct entry *entry, uint32_t count,
                              struct after *after) {
    struct port *port = entry->object;
    entry->urefs -= (uint16_t)count;
    if (entry->urefs) return NULL;
    entry->bits &= ~SEND;
    if (entry_type(entry) & RECEIVE) {
        port_ref(port);
        return port;
    }
    space_index_remove(space, entry);
    name_free(ipc, space, entry, after);
    return port;
}

/* The receive right leaves the name, with a reference. What remains, if anything, is a send right. */
static struct port *receive_leave(struct ipc *ipc, struct space *space, struct entry *entry, struct after *after) {
    struct port *port = entry->object;
    port_leave(ipc, port, after);
    entry->bits &= ~RECEIVE;
    if (entry_type(entry) & SEND) {
        space_index_add(space, entry);
        port_ref(port);
    } else {
        name_free(ipc, space, entry, after);
    }
    return port;
}

void right_copy_send(struct port *port) {
    port->srights++;
    port_ref(port);
}

static struct port *make(struct port *port, uint8_t type) {
    if (type == MACH_MSG_TYPE_PORT_SEND) {
        port->rest->mscount++;
        port->srights++;
    } else {
        port->sorights++;
    }
    port_ref(port);
    return port;
}

static struct port *move_send(struct ipc *ipc, struct space *space, struct entry *entry, struct after *after) {
    struct port *port = entry->object, *last = send_drop(ipc, space, entry, 1, after);
    if (!last) right_copy_send(port);
    return port;
}

static struct port *move_send_once(struct ipc *ipc, struct space *space, struct entry *entry, struct after *after) {
    struct port *port = entry->object;
    name_free(ipc, space, entry, after);
    return port;
}

struct port *right_give(struct ipc *ipc, struct space *space, struct entry *entry, const struct disposition *how,
                        struct after *after) {
    lock_assert_held(ipc->lock);
    right_forget(entry);
    if (entry_type(entry) & DEAD_NAME) {
        if (how->takes) dead_name_drop(ipc, space, entry, 1, after);
        return PORT_DEAD;
    }
    if (!how->takes && how->needs == RECEIVE) return make(entry->object, how->result);
    if (!how->takes) {
        right_copy_send(entry->object);
        return entry->object;
    }
    if (how->needs == RECEIVE) return receive_leave(ipc, space, entry, after);
    return how->needs == SEND ? move_send(ipc, space, entry, after) : move_send_once(ipc, space, entry, after);
}

/* ---- taking ---- */

static void place_send(struct ipc *ipc, struct space *space, struct entry *entry, struct port *port) {
    if (entry_type(entry) & SEND) {
        if (entry->urefs < MACH_PORT_UREFS_MAX) entry->urefs++;
        port->srights--;
        port_unref(ipc, port);
        return;
    }
    bool fresh = !entry_type(entry);
    entry->bits |= SEND;
    entry->urefs = 1;
    if (fresh) space_index_add(space, entry);
    else port_unref(ipc, port);
}

static void place_receive(struct ipc *ipc, struct space *space, struct entry *entry, struct port *port) {
    if (entry_type(entry) & SEND) {
        space_index_remove(space, entry);
        port_unref(ipc, port);
    }
    entry->bits |= RECEIVE;
    port_set_receiver(port, space, entry_name(space, entry));
}

void right_place(struct ipc *ipc, struct space *space, struct entry *entry, struct port *port, uint8_t type,
                 uint64_t transfer) {
    if (!entry_type(entry)) {
        entry->object = port;
        entry->provenance = transfer;
    }
    if (type == MACH_MSG_TYPE_PORT_SEND) place_send(ipc, space, entry, port);
    else if (type == MACH_MSG_TYPE_PORT_RECEIVE) place_receive(ipc, space, entry, port);
    else entry->bits |= SEND_ONCE;
}

uint32_t right_take(struct ipc *ipc, struct space *space, struct port *port, uint8_t type, uint64_t transfer,
                    struct after *after, bool *dropped) {
    lock_assert_held(ipc->lock);
    if (!port_active(port)) {
        right_destroy(ipc, port, type, after);
        return MACH_PORT_DEAD;
    }
    struct entry *entry = type == MACH_MSG_TYPE_PORT_SEND_ONCE ? NULL : space_find(space, port);
    if (!entry) entry = space_take(space, ipc);
    *dropped = type == MACH_MSG_TYPE_PORT_SEND && entry->urefs == MACH_PORT_UREFS_MAX;
    if (*dropped) ipc->urefs_dropped++;
    right_place(ipc, space, entry, port, type, transfer);
    return entry_name(space, entry);
}

/* ---- ending ---- */

static void send_gone(struct ipc *ipc, struct port *port, struct after *after) {
    if (--port->srights == 0 && port_active(port) && port->extra && port->extra->no_senders) {
        struct port *notify = port->extra->no_senders;
        port->extra->no_senders = NULL;
        notify_no_senders(ipc, notify, port->rest->mscount, after);
    }
    port_unref(ipc, port);
}

/* The receive right is in nobody's hands: to the one who asked for it, or the port dies. */
static void receive_gone(struct ipc *ipc, struct port *port, struct after *after) {
    struct port_extra *extra = port->extra;
    if (!extra || !extra->port_destroyed) {
        port_die(ipc, port, after);
        return;
    }
    struct port *notify = extra->port_destroyed;
    struct cargo *cargo = extra->destroyed_cargo;
    extra->port_destroyed = NULL;
    extra->destroyed_cargo = NULL;
    notify_port_destroyed(ipc, notify, port, cargo, after);
}

void right_destroy(struct ipc *ipc, struct port *port, uint8_t type, struct after *after) {
    lock_assert_held(ipc->lock);
    if (type == MACH_MSG_TYPE_PORT_SEND) send_gone(ipc, port, after);
    else if (type == MACH_MSG_TYPE_PORT_SEND_ONCE) notify_send_once(ipc, port, after);
    else receive_gone(ipc, port, after);
}

void right_used(struct ipc *ipc, struct port *port, uint8_t type, struct after *after) {
    lock_assert_held(ipc->lock);
    if (type == MACH_MSG_TYPE_PORT_SEND) {
        send_gone(ipc, port, after);
        return;
    }
    port->sorights--;
    port_unref(ipc, port);
}

void right_bury(struct ipc *ipc, struct space *space, struct entry *entry) {
    struct port *port = entry->object;
    if (!port || entry_type(entry) & DEAD_NAME) return;
    if (entry_type(entry) & SEND) {
        space_index_remove(space, entry);
        port->srights--;
    } else {
        right_send_once_used(ipc);
        port->sorights--;
        entry->urefs = 1;
    }
    entry->bits = (entry->bits & ~ENTRY_TYPES) | DEAD_NAME;
    entry->object = NULL;
    entry->trace_stamp = 0;
    port_unref(ipc, port);
}

/* The name gives its receive right up. Who waits learns first that the port dies, where it does, not that the right left. */
static void receive_end(struct ipc *ipc, struct space *space, struct entry *entry, struct after *after) {
    struct port_extra *extra = ((struct port *)entry->object)->extra;
    if (extra && !extra->port_destroyed) waiters_wake_all(&extra->receivers, MACH_RCV_PORT_DIED);
    receive_gone(ipc, receive_leave(ipc, space, entry, after), after);
}

void right_destruct(struct ipc *ipc, struct space *space, struct entry *entry, uint32_t drop, struct after *after) {
    lock_assert_held(ipc->lock);
    struct port *last = drop ? send_drop(ipc, space, entry, drop, after) : NULL;
    if (last) send_gone(ipc, last, after);
    receive_end(ipc, space, entry, after);
}

void right_free(struct ipc *ipc, struct space *space, struct entry *entry, struct after *after) {
    lock_assert_held(ipc->lock);
    uint32_t type = entry_type(entry), name = entry_name(space, entry);
    request_name_deleted(ipc, entry, name, after);
    if (type & PORT_SET) {
        pset_destroy(ipc, entry->object);
        space_give(space, ipc, entry);
        return;
    }
    if (type & DEAD_NAME) dead_name_drop(ipc, space, entry, entry->urefs, after);
    if (type & SEND_ONCE) notify_send_once(ipc, move_send_once(ipc, space, entry, after), after);
    if (type & SEND) send_gone(ipc, send_drop(ipc, space, entry, entry->urefs, after), after);
    if (type & RECEIVE) receive_end(ipc, space, entry, after);
}

/* ---- user references ---- */

const uint32_t type_of_right[MACH_PORT_RIGHT_NUMBER] = {SEND, RECEIVE, SEND_ONCE, PORT_SET, DEAD_NAME, 0};

static int counted_delta(struct ipc *ipc, struct space *space, struct entry *entry, int64_t delta, struct after *after) {
    if (entry->urefs + delta < 0) return KERN_INVALID_VALUE;
    if (entry->urefs + delta > MACH_PORT_UREFS_MAX) return KERN_UREFS_OVERFLOW;
    if (delta >= 0) {
        entry->urefs = (uint16_t)(entry->urefs + delta);
    } else if (entry_type(entry) & DEAD_NAME) {
        dead_name_drop(ipc, space, entry, (uint32_t)-delta, after);
    } else {
        struct port *last = send_drop(ipc, space, entry, (uint32_t)-delta, after);
        if (last) send_gone(ipc, last, after);
    }
    return 0;
}

int right_delta(struct ipc *ipc, struct space *space, struct entry *entry, uint32_t right, int32_t delta,
                struct after *after) {
    if (right >= MACH_PORT_RIGHT_NUMBER) return KERN_INVALID_VALUE;
    uint32_t type = type_of_right[right];
    if (!(entry_type(entry) & type)) return KERN_INVALID_RIGHT;
    if (type & (SEND | DEAD_NAME)) return counted_delta(ipc, space, entry, delta, after);
    if (delta == 0) return 0;
    if (delta != -1) return KERN_INVALID_VALUE;
    if (type == RECEIVE) right_destruct(ipc, space, entry, 0, after);
    else right_free(ipc, space, entry, after);
    return 0;
}

int right_deallocate(struct ipc *ipc, struct space *space, struct entry *entry, struct after *after) {
    uint32_t type = entry_type(entry);
    if (type & (SEND | DEAD_NAME)) return counted_delta(ipc, space, entry, -1, after);
    if (!(type & (SEND_ONCE | PORT_SET))) return KERN_INVALID_RIGHT;
    right_free(ipc, space, entry, after);
    return 0;
}

#undef SEND
#undef RECEIVE
#undef SEND_ONCE
#undef PORT_SET
#undef DEAD_NAME
