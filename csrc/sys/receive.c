/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a message is received. receive_attempt reads from top to bottom; a message is looked at before it is taken, so what backs
 * out loses nothing.
 */
#include "sys/msg.h"

static int check_use(struct receive *receive, struct entry *entry) {
    struct call *call = &receive->call;
    struct port *port = entry->object;
    site_of(&call->site, PM_OP_RECEIVE, entry, entry_name(&call->task->space, entry));
    call->site.flags = PM_AUDIT_RECEIVE;
    call->site.peer_sid = port->first ? port->first->sid : 0;
    call->site.msgh_id = port->first ? port->first->msgh_id : 0;
    call->site.size = port->first ? port->first->size : 0;
    return call_check_port(call, port, PM_MACH_PORT__use_recv, MACH_RCV_INVALID_NAME);
}

/* The first member that has messages and that the receiver may receive from; members it may not use wait for one who may. */
static int pick_member(struct receive *receive, struct pset *set, struct entry **entry) {
    int code = MACH_RCV_TIMED_OUT;
    list_each(&set->ready, node) {
        struct port *port = container_of(node, struct set_link, in_ready)->port;
        uint32_t records = receive->call.mac.records_used;
        *entry = &receive->call.task->space.table[port->rest->receiver_name >> 8];
        code = check_use(receive, *entry);
        if (code != MACH_RCV_INVALID_NAME || node->next == &set->ready) return code;
        receive->call.mac.records_used = records;
        receive->call.mac.denial.operation = PM_OP_NONE;
    }
    return code;
}

static int resolve_receive(struct receive *receive, struct entry **entry, struct pset **set) {
    struct entry *named = space_lookup(call_ipc(&receive->call), &receive->call.task->space, receive->name);
    *set = NULL;
    if (!named) return MACH_RCV_INVALID_NAME;
    if (entry_type(named) & MACH_PORT_TYPE_PORT_SET) {
        *set = named->object;
        return pick_member(receive, *set, entry);
    }
    if (!(entry_type(named) & MACH_PORT_TYPE_RECEIVE)) return MACH_RCV_INVALID_NAME;
    struct port *port = named->object;
    if (port->flags & PORT_HANDLER && !receive->handled) return MACH_RCV_INVALID_NAME;
    if (receive->handled && !mqueue_advance(port, receive->handled)) return MACH_RCV_TIMED_OUT;
    *entry = named;
    if (receive->handled && !receive->handled->sender) return 0;        /* the kernel tells the handler: nobody asks for it */
    int code = check_use(receive, named);
    return code ? code : port->first ? 0 : MACH_RCV_TIMED_OUT;
}

static int check_interpose(struct receive *receive) {
    struct call *call = &receive->call;
    if (!receive->effective_sid || receive->effective_sid == call->mac.real_sid) return 0;
    if (!sids_alive(&call->kernel->sids, receive->effective_sid)) return KERN_INVALID_ARGUMENT;
    int code = call_check(call, receive->effective_sid, PM_CLASS_MACH_PORT, PM_MACH_PORT__interpose,
                          MACH_RCV_INVALID_NAME);
    call->mac.sid = receive->effective_sid;
    return code;
}

static int check_sender(struct receive *receive, const struct kmsg *kmsg) {
    if (!kmsg->sender) return 0;
    int code = call_check(&receive->call, kmsg->sid, PM_CLASS_MACH_PORT, PM_MACH_PORT__recv, MACH_RCV_INVALID_DATA);
    mac_join(&receive->call.mac);
    return code;
}

/* May the receiver hold this right? A refusal costs the right alone. Rights to dead ports ask nothing. */
static bool may_take(struct receive *receive, const struct port *port, uint8_t type, uint64_t transfer) {
    struct call *call = &receive->call;
    if (!port_valid(port) || !port_active(port)) return true;
    struct mac_site site = {.operation = PM_OP_TAKE, .provenance = transfer, .peer_sid = call->site.peer_sid,
                            .flags = PM_AUDIT_RECEIVE, .msgh_id = call->site.msgh_id};
    site_port(&site, port);
    return mac_check(&call->mac, port->sid, PM_CLASS_MACH_PORT, taking_of(type)->take, &site) != MAC_DENIED;
}

/* The method, if it has to be asked about anew. What the sender may not call any more is not received. */
static int check_method_again(struct receive *receive, const struct port *port, struct kmsg *kmsg) {
    return verdict_code(method_judge_again(&receive->call, port, kmsg), MACH_RCV_INVALID_DATA);
}

/* May this message be received at all? 0, CALL_MISS, or MACH_RCV_INVALID_DATA: it is to be destroyed. */
static int check_message(struct receive *receive, const struct port *port, struct kmsg *kmsg) {
    int sender = check_sender(receive, kmsg);
    if (sender == MACH_RCV_INVALID_DATA) return sender;
    int method = check_method_again(receive, port, kmsg);
    return sender ? sender : method;    /* a refusal counts once all before it is known */
}

static uint32_t check_takes(struct receive *receive, struct kmsg *kmsg, bool *reply_denied) {
    struct cargo *cargo = kmsg->cargo;
    uint32_t denied = 0;
    *reply_denied = false;
    if (!kmsg->sender) return 0;
    *reply_denied = port_valid(kmsg->reply) && !may_take(receive, kmsg->reply, kmsg->reply_type, kmsg->transfer);
    denied += *reply_denied;
    for (uint32_t i = 0; cargo && i < cargo->rights_used; i++) {
        struct right_in_flight *right = &cargo->rights[i];
        right->denied = !may_take(receive, right->port, right->type, kmsg->transfer);
        denied += right->denied;
    }
    return denied;
}

/* ---- below the point of no return ---- */

static uint32_t copyout(struct receive *receive, struct port *port, uint8_t type, bool denied, uint64_t transfer) {
    struct call *call = &receive->call;
    bool dropped = false;
    if (!port) return MACH_PORT_NULL;
    if (port == PORT_DEAD) return MACH_PORT_DEAD;
    if (denied) {
        right_destroy(call_ipc(call), port, type, &call->after);
        return MACH_PORT_NULL;
    }
    if (call->kernel->trace.on && port_active(port) && receive->kmsg->sender)
        trace_event(call->kernel, &call->task->space, NULL, port, taking_of(type)->event);
    uint64_t id = port->rest->id;
    uint32_t name = right_take(call_ipc(call), &call->task->space, port, type, transfer, &call->after, &dropped);
    if (pm_unlikely(call->mac.records_used)) mac_took(&call->mac, id, taking_of(type)->take, transfer, name);
    if (dropped) {
        struct mac_site site = {.operation = PM_OP_TAKE, .name = name, .port = port->rest->id, .flags = PM_AUDIT_UREFS};
        mac_note(&call->mac, &site, KERN_UREFS_OVERFLOW);
    }
    return name;
}

static void copyout_body(struct receive *receive, struct kmsg *kmsg) {
    struct cargo *cargo = kmsg->cargo;
    for (uint32_t i = 0; cargo && i < cargo->rights_used; i++) {
        struct right_in_flight *right = &cargo->rights[i];
        right->name = copyout(receive, right->port, right->type, right->denied, kmsg->transfer);
        right->port = NULL;
        cargo->received[i] = (struct pm_received_right){right->name, right->type};
    }
}

static void guard_received(struct receive *receive, struct kmsg *kmsg) {
    struct cargo *cargo = kmsg->cargo;
    for (uint32_t i = 0; cargo && i < cargo->descriptors_used; i++) {
        const struct descriptor *descriptor = &cargo->descriptors[i];
        if (descriptor->type != MACH_MSG_GUARDED_PORT_DESCRIPTOR) continue;
        struct entry *entry = space_entry(&receive->call.task->space, cargo->rights[descriptor->first].name);
        if (!entry || !(entry_type(entry) & MACH_PORT_TYPE_RECEIVE)) continue;
        struct port *port = entry->object;
        port->rest->context = descriptor->guard_context;
        bool immovable = descriptor->guard_flags & MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE;
        port->flags |= PORT_GUARDED | (immovable ? PORT_IMMOVABLE : 0);
    }
}

static void take_message(struct receive *receive, struct kmsg *kmsg, struct port *port, uint32_t port_name) {
    struct call *call = &receive->call;
    receive->kmsg = kmsg;
    call->kernel->refs++;
    receive->local = port_name;
    receive->seqno = port->seqno++;
    receive->context = port->flags & PORT_STRICT ? 0 : port->rest->context;
    receive_describe(call->kernel, receive, port);
    call_ipc(call)->received++;
    kmsg->dest = NULL;
    right_used(call_ipc(call), port, kmsg->dest_type, &call->after);
}

static void deliver(struct receive *receive, struct kmsg *kmsg, struct entry *entry, bool reply_denied) {
    struct call *call = &receive->call;
    struct port *port = entry->object;
    if (call->kernel->trace.on && kmsg->sender)
        trace_event(call->kernel, &call->task->space, entry, port, PM_EVENT_RECV);
    take_message(receive, kmsg, port, entry_name(&call->task->space, entry));
    receive->reply = copyout(receive, kmsg->reply, kmsg->reply_type, reply_denied, kmsg->transfer);
    receive->reply_disposition = kmsg->reply_type;
    kmsg->reply = NULL;
    copyout_body(receive, kmsg);
    guard_received(receive, kmsg);
}

/* Off the queue and away, with everything it carries. */
static void destroy_first(struct receive *receive, struct port *port) {
    struct call *call = &receive->call;
    struct kmsg *kmsg = mqueue_take(call_ipc(call), port, &call->after);
    call->transfer = kmsg->transfer;
    port->seqno++;
    after_doom(&call->after, kmsg);
}

static void take_turns(struct pset *set, struct port *port) {
    struct set_link *link = pset_find(set, port);
    list_remove(&link->in_ready);
    if (port->first) list_append(&set->ready, &link->in_ready);
}

static int too_large(struct receive *receive, const struct kmsg *kmsg, struct port *port, struct entry *entry) {
    receive->too_large_id = kmsg->msgh_id;
    receive->local = entry_name(&receive->call.task->space, entry);
    if (!receive->discard_too_large) return MACH_RCV_TOO_LARGE;
    receive->seqno = port->seqno;
    destroy_first(receive, port);
    return MACH_RCV_TOO_LARGE;
}

static uint32_t names_needed(const struct kmsg *kmsg) {
    return (port_valid(kmsg->reply) ? 1 : 0) + (kmsg->cargo ? kmsg->cargo->rights_used : 0);
}

/* Checks and takes the first message of the port whose receive right entry holds. */
static int receive_from(struct receive *receive, struct entry *entry, struct pset *set) {
    struct call *call = &receive->call;
    struct port *port = entry->object;
    struct kmsg *kmsg = port->first;
    uint32_t index = (uint32_t)(entry - call->task->space.table);
    bool reply_denied;

    int code = check_message(receive, port, kmsg);
    if (code == MACH_RCV_INVALID_DATA) {
        destroy_first(receive, port);
        return code;
    }
    receive->needed = (uint32_t)receive->need(receive, kmsg);
    if (!code && receive->needed > receive->room) return too_large(receive, kmsg, port, entry);
    receive->denied = check_takes(receive, kmsg, &reply_denied);
    code = call_ready(call);
    if (!code && names_needed(kmsg) && space_reserve(&call->task->space, call_ipc(call), names_needed(kmsg)))
        code = MACH_RCV_HEADER_ERROR | MACH_MSG_IPC_SPACE;
    if (code) return code;
    /* ------------------------------------------ point of no return ------------------------------------------ */
    call->done = true;
    call->transfer = kmsg->transfer;
    mqueue_take(call_ipc(call), port, &call->after);
    if (set) take_turns(set, port);
    deliver(receive, kmsg, &call->task->space.table[index], reply_denied);
    return receive->denied ? MACH_RCV_BODY_ERROR | MACH_MSG_IPC_SPACE : 0;
}

/* Something has no answer yet: asks whatever else will be asked of this message, so that all is answered at once. */
static int collect(struct receive *receive, struct entry *entry) {
    const struct port *port = entry->object;
    struct kmsg *kmsg = port->first;
    bool reply_denied;
    if (kmsg && check_message(receive, port, kmsg) != MACH_RCV_INVALID_DATA) check_takes(receive, kmsg, &reply_denied);
    return CALL_MISS;
}

static int receive_attempt(struct call *call) {
    struct receive *receive = (struct receive *)call;
    struct entry *entry = NULL;
    struct pset *set;
    if (!call->task->space.alive || !call->kernel->alive) return KERN_INVALID_TASK;
    int code = check_interpose(receive);
    if (code && code != CALL_MISS) return code;
    int resolved = resolve_receive(receive, &entry, &set);
    if (resolved == CALL_MISS || (code && !resolved)) return collect(receive, entry);
    if (code || resolved) return code ? code : resolved;
    return receive_from(receive, entry, set);
}

static int wait_for_message(struct receive *receive, struct turn *turn) {
    struct call *call = &receive->call;
    struct ipc *ipc = call_ipc(call);
    struct space *space = &call->task->space;
    struct entry *entry = space_lookup(ipc, space, receive->name);
    bool is_set = entry_type(entry) & MACH_PORT_TYPE_PORT_SET;
    struct port *port = is_set ? NULL : entry->object;
    if (port && !port_extra_reserve(ipc, port)) return KERN_RESOURCE_SHORTAGE;
    struct list *queue = is_set ? &((struct pset *)entry->object)->receivers : &port->extra->receivers;
    turn_take(ipc, turn, queue, port, space);
    if (port) port->flags |= PORT_RECEIVERS_WAIT;
    return turn_sleep(call->kernel, turn, MACH_RCV_TIMED_OUT, MACH_RCV_INTERRUPTED);
}

/* Whatever became of this receiver: a message it was woken for and did not take is another's. */
static void leave_receivers(struct receive *receive, struct turn *turn) {
    struct ipc *ipc = call_ipc(&receive->call);
    struct list *queue = turn->queue;
    struct port *port = turn->port;
    if (!queue) return;
    if (port) port_ref(port);
    turn_leave(ipc, turn);
    if (port && list_empty(queue)) port->flags &= ~(uint32_t)PORT_RECEIVERS_WAIT;
    bool left = port ? port->first != NULL : !list_empty(&container_of(queue, struct pset, receivers)->ready);
    if (left) waiters_wake_first(queue);
    if (port) port_unref(ipc, port);
}

static bool receive_again(struct receive *receive, int *code, struct turn *turn) {
    if (*code != MACH_RCV_TIMED_OUT || !may_wait(receive->call.kernel, turn->wait))
        return call_again(&receive->call, *code);
    int waited = wait_for_message(receive, turn);
    if (waited) *code = waited;
    return !waited;
}

int receive_run(struct receive *receive, const struct pm_wait *wait) {
    struct call *call = &receive->call;
    struct turn turn;
    int code;
    turn_init(&turn, wait);
    receive->kmsg = NULL;
    receive->denied = 0;
    call_begin(call);
    do {
        call_restart(call);
        code = receive_attempt(call);
        if (call->mac.short_of_memory && code == CALL_MISS) code = KERN_RESOURCE_SHORTAGE;
    } while (pm_unlikely(code) && receive_again(receive, &code, &turn));
    leave_receivers(receive, &turn);
    return call_end(call, code);
}
