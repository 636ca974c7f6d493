/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/port.h"

#include <fcntl.h>
#include <unistd.h>
#ifndef PM_PORTABLE
#include <sys/eventfd.h>
#endif

#include "ipc/mqueue.h"
#include "ipc/notify.h"
#include "ipc/pset.h"
#include "ipc/right.h"

_Static_assert(sizeof(struct port) == 64, "a port is a cache line");

struct port *port_create(struct ipc *ipc, struct space *payer, uint32_t sid) {
    lock_assert_held(ipc->lock);
    if (!pool_reserve(&ipc->rests, 1)) return NULL;
    struct port *port = pool_take(&ipc->ports);
    if (!port) {
        pool_unreserve(&ipc->rests, 1);
        return NULL;
    }
    *port = (struct port){.refs = 1, .flags = PORT_ACTIVE, .sid = sid, .qlimit = MACH_PORT_QLIMIT_DEFAULT,
                          .rest = pool_take_reserved(&ipc->rests)};
    *port->rest = (struct port_rest){.id = ++ipc->next_port_id, .payer = payer};
    sids_retain(ipc->sids, sid);
    space_ref(payer);
    payer->usage.ports++;
    ipc->live_ports++;
    return port;
}

static void sid_drop(struct ipc *ipc, uint32_t sid) {
    struct space *payer = sids_release(ipc->sids, sid, ipc->mac->audit.sequence);
    if (!payer) return;
    payer->usage.sids--;
    space_unref(ipc, payer);
}

static void extra_free(struct ipc *ipc, struct port_extra *extra) {
    if (!extra) return;
    event_close(&extra->event);
    cargo_free(ipc, extra->destroyed_cargo);
    pool_give(&ipc->extras, extra);
}

__attribute__((no_sanitize_address)) bool port_is_live(const struct port *port) { return port->rest != NULL; }

void port_unref(struct ipc *ipc, struct port *port) {
    lock_assert_held(ipc->lock);
    if (--port->refs) return;
    sid_drop(ipc, port->sid);
    extra_free(ipc, port->extra);
    if (port_active(port)) port->rest->payer->usage.ports--;
    space_unref(ipc, port->rest->payer);
    pool_give(&ipc->rests, port->rest);
    port->rest = NULL;
    ipc->live_ports--;
    pool_give(&ipc->ports, port);
}

bool port_extra_reserve(struct ipc *ipc, struct port *port) {
    if (port->extra) return true;
    struct port_extra *extra = pool_take(&ipc->extras);
    if (!extra) return false;
    *extra = (struct port_extra){.event = {-1, -1}};
    list_init(&extra->senders);
    list_init(&extra->receivers);
    port->extra = extra;
    return true;
}

bool port_outdate(struct ipc *ipc, struct port *port) {
    if (!port->first && !(port->flags & PORT_HANDLER)) return true;
    if (!port_extra_reserve(ipc, port)) return false;
    port->extra->outdated = ipc->transfers;
    return true;
}

void port_relabel(struct ipc *ipc, struct port *port, uint32_t sid) {
    sids_retain(ipc->sids, sid);
    sid_drop(ipc, port->sid);
    port->sid = sid;
}

void port_set_receiver(struct port *port, struct space *space, uint32_t name) {
    if (port->flags & PORT_IN_TRANSIT) port->flags &= ~(uint32_t)PORT_IN_TRANSIT;
    port->rest->receiver = space;
    port->rest->receiver_name = name;
}

bool port_circular(const struct port *port, const struct port *dest) {
    while (dest != port && (dest->flags & PORT_IN_TRANSIT) && dest->rest->destination) dest = dest->rest->destination;
    return dest == port;
}

/* What both leaving and dying end: receivers have nothing to wait for here. */
static void receivers_dismiss(struct ipc *ipc, struct port *port, int code) {
    psets_leave(ipc, port);
    if (!port->extra) return;
    waiters_wake_all(&port->extra->receivers, code);
    event_close(&port->extra->event);
    port->flags &= ~(uint32_t)PORT_EVENT;
}

/* Who asked about the next message has no port any more that it would come to. */
static void stop_telling(struct ipc *ipc, struct port *port, struct after *after) {
    if (!(port->flags & PORT_TELLS)) return;
    port->flags &= ~(uint32_t)PORT_TELLS;
    notify_send_once(ipc, port->extra->message, after);
    port->extra->message = NULL;
}

void port_leave(struct ipc *ipc, struct port *port, struct after *after) {
    receivers_dismiss(ipc, port, MACH_RCV_PORT_CHANGED);
    stop_telling(ipc, port, after);
    port->seqno = port->rest->mscount = 0;
    port->rest->context = 0;
    port->flags &= ~(uint32_t)(PORT_GUARDED | PORT_STRICT | PORT_IMMOVABLE | PORT_HANDLER);
    port->flags |= PORT_IN_TRANSIT;
    port->rest->destination = NULL;
    port->rest->receiver_name = 0;
}

static void queue_doom(struct ipc *ipc, struct port *port, struct after *after) {
    ipc->messages -= port->msgcount;
    for (struct kmsg *kmsg = port->first, *next; kmsg; kmsg = next) {
        next = kmsg->next;
        ipc->bytes -= kmsg->size;
        after_doom(after, kmsg);
    }
    port->first = port->last = NULL;
    port->msgcount = 0;
}

/* The order is XNU's: who waits, no-senders, messages, dead names. */
void port_die(struct ipc *ipc, struct port *port, struct after *after) {
    lock_assert_held(ipc->lock);
    struct port_extra *extra = port->extra;
    receivers_dismiss(ipc, port, MACH_RCV_PORT_DIED);
    port->flags &= ~(uint32_t)(PORT_ACTIVE | PORT_IN_TRANSIT | PORT_HANDLER | PORT_GUARDED | PORT_STRICT);
    port->rest->receiver = NULL;
    port->rest->receiver_name = 0;
    port->rest->payer->usage.ports--;         /* what is left of it is kept by those who have its name */
    if (extra) {
        waiters_wake_all(&extra->senders, MACH_RCV_PORT_DIED);
        if (extra->no_senders) notify_send_once(ipc, extra->no_senders, after);
        if (extra->port_destroyed) notify_send_once(ipc, extra->port_destroyed, after);
        extra->no_senders = extra->port_destroyed = NULL;
    }
    stop_telling(ipc, port, after);
    queue_doom(ipc, port, after);
    port->rest->destination = NULL;           /* the next in the list of the dead */
    *after->dead_end = port;
    after->dead_end = &port->rest->destination;
}

/* ---- descriptors that an event loop can watch ---- */

static void set_quiet(int fd) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
}

bool event_open(struct event *event) {
#ifdef PM_PORTABLE
    int ends[2];
    if (pipe(ends)) return false;
    *event = (struct event){ends[0], ends[1]};
#else
    event->read_fd = event->write_fd = eventfd(0, 0);
    if (event->read_fd < 0) return false;
#endif
    set_quiet(event->read_fd);
    set_quiet(event->write_fd);
    return true;
}

void event_close(struct event *event) {
    if (event->read_fd < 0) return;
    event_signal(event);                /* who watches a duplicate shall look, and find the port gone */
    close(event->read_fd);
    if (event->write_fd != event->read_fd) close(event->write_fd);
    event->read_fd = event->write_fd = -1;
}

void event_signal(const struct event *event) {
    uint64_t one = 1;
    if (event->write_fd >= 0 && write(event->write_fd, &one, sizeof one) < 0) return;   /* full: readable already */
}

void event_clear(const struct event *event) {
    uint64_t count;
    while (event->read_fd >= 0 && read(event->read_fd, &count, sizeof count) > 0) continue;
}
