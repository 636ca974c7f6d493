/* SPDX-License-Identifier: BSD-2-Clause */
#include "ipc/pset.h"

#include "ipc/mqueue.h"

struct pset *pset_create(struct ipc *ipc, struct space *space, uint32_t name) {
    struct pset *set = pool_take(&ipc->sets);
    if (!set) return NULL;
    *set = (struct pset){.space = space, .id = ++ipc->next_port_id, .name = name, .event = {-1, -1}};
    list_init(&set->members);
    list_init(&set->ready);
    list_init(&set->receivers);
    ipc->live_sets++;
    return set;
}

void pset_destroy(struct ipc *ipc, struct pset *set) {
    waiters_wake_all(&set->receivers, MACH_RCV_PORT_CHANGED);
    while (!list_empty(&set->members)) pset_remove(ipc, list_first(&set->members, struct set_link, in_set));
    event_close(&set->event);
    set->id = 0;
    ipc->live_sets--;
    pool_give(&ipc->sets, set);
}

struct set_link *pset_find(const struct pset *set, const struct port *port) {
    for (struct set_link *link = port_sets(port); link; link = link->next)
        if (link->set == set) return link;
    return NULL;
}

static void link_ready(struct set_link *link) {
    if (list_empty(&link->in_ready)) list_append(&link->set->ready, &link->in_ready);
    waiters_wake_first(&link->set->receivers);
    event_signal(&link->set->event);
}

static void link_drained(struct set_link *link) {
    list_remove(&link->in_ready);
    if (list_empty(&link->set->ready)) event_clear(&link->set->event);
}

void pset_add(struct pset *set, struct port *port, struct set_link *link) {
    *link = (struct set_link){.next = port->extra->sets, .set = set, .port = port};
    list_init(&link->in_ready);
    port->extra->sets = link;
    port->flags |= PORT_IN_SETS;
    list_append(&set->members, &link->in_set);
    set->members_used++;
    if (port->first) link_ready(link);
}

void pset_remove(struct ipc *ipc, struct set_link *link) {
    struct set_link **at = &link->port->extra->sets;
    while (*at != link) at = &(*at)->next;
    *at = link->next;
    if (!link->port->extra->sets) link->port->flags &= ~(uint32_t)PORT_IN_SETS;
    link_drained(link);
    list_remove(&link->in_set);
    link->set->members_used--;
    pool_give(&ipc->links, link);
}

void psets_leave(struct ipc *ipc, struct port *port) {
    while (port_sets(port)) pset_remove(ipc, port_sets(port));
}

void psets_ready(struct port *port) {
    for (struct set_link *link = port_sets(port); link; link = link->next) link_ready(link);
}

void psets_drained(struct port *port) {
    for (struct set_link *link = port_sets(port); link; link = link->next) link_drained(link);
}
