/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The path of a message. send_attempt and receive_attempt are to be read from top to bottom: resolve, check, reserve, and below
 * the line nothing can fail.
 */
#include <string.h>

#include "sys/msg.h"

/* ==== waiting ==================================================================================================== */

static bool may_wait(const struct pm_kernel *kernel, const struct pm_wait *wait) {
    return wait && wait->timeout_ns != 0 && kernel->clock != PM_CLOCK_SIMULATED;
}

static int64_t deadline_of(const struct pm_wait *wait) {
    if (!wait || wait->timeout_ns < 0) return -1;
    int64_t now = monotonic_ns();
    return wait->timeout_ns > INT64_MAX - now ? -1 : now + wait->timeout_ns;
}

enum sleep_outcome { SLEPT, SLEPT_TOO_LONG, SLEPT_INTERRUPTED };

static enum sleep_outcome sleep_on(struct waiter *waiter, const struct pm_wait *wait, int64_t deadline) {
    for (;;) {
        enum sleep_result result = sleeper_sleep(&waiter->sleeper, deadline);
        if (result == SLEEP_WOKEN) return SLEPT;
        if (result == SLEEP_TIMED_OUT) return SLEPT_TOO_LONG;
        if (wait->interrupted && wait->interrupted(wait->context)) return SLEPT_INTERRUPTED;
    }
}

/*
 * Purpose: sleep in a queue of waiters until there is reason to look again.
 * Conditions: locked on entry and exit, not between. The object that owns queue may be gone after.
 * Returns: 0, or the code that ends the wait; *woken tells whether a wake-up was used up.
 */
static int wait_in(struct pm_kernel *kernel, struct list *queue, struct space *space, const struct pm_wait *wait,
                   int64_t deadline, int timed_out, int interrupted, bool *woken) {
    struct waiter waiter;
    waiter_enter(&waiter, queue, space);
    kernel_unlock(kernel);
    enum sleep_outcome outcome = sleep_on(&waiter, wait, deadline);
    kernel_lock(kernel);
    int code = waiter.code;
    *woken = waiter.woken;
    waiter_leave(&waiter);
    if (code) return code;
    if (waiter.woken || outcome == SLEPT) return 0;
    return outcome == SLEPT_TOO_LONG ? timed_out : interrupted;
}

/* ==== sending ==================================================================================================== */

/* ---- resolve: names to entries, nothing changes but notes in the entries ---- */

static bool disposition_sends(uint32_t disposition) {
    return disposition >= MACH_MSG_TYPE_MOVE_SEND && disposition <= MACH_MSG_TYPE_MAKE_SEND_ONCE;
}

static int resolve_reply(struct send *send) {
    struct space *space = &send->call.task->space;
    send->reply_entry = NULL;
    if (send->reply == MACH_PORT_NULL || send->reply == MACH_PORT_DEAD) return 0;
    send->reply_how = disposition_of(send->reply_disposition);
    send->reply_entry = space_lookup(call_ipc(&send->call), space, send->reply);
    bool good = send->reply_entry && right_can_give(send->reply_entry, send->reply_how);
    return good ? 0 : MACH_SEND_INVALID_REPLY;
}

/* What to do with the destination's right where the caller did not say. */
static uint32_t dest_default(const struct entry *entry) {
    return entry_type(entry) & MACH_PORT_TYPE_SEND_ONCE ? MACH_MSG_TYPE_MOVE_SEND_ONCE : MACH_MSG_TYPE_COPY_SEND;
}

/* That the name denotes a port is asked before the reply is looked at, that its right will do after. */
static int resolve_dest(struct send *send) {
    struct entry *entry = space_lookup(call_ipc(&send->call), &send->call.task->space, send->dest);
    if (!entry || entry_type(entry) & MACH_PORT_TYPE_PORT_SET) return MACH_SEND_INVALID_DEST;
    send->dest_entry = entry;
    send->dest_how = disposition_of(send->dest_disposition ? send->dest_disposition : dest_default(entry));
    bool dead = entry_type(entry) & MACH_PORT_TYPE_DEAD_NAME;
    /* A sender that waited when the port died has sent; the message goes where the port went. */
    if (dead && !send->waited) return MACH_SEND_INVALID_DEST;
    send->dest_port = dead ? NULL : entry->object;
    return 0;
}

static int resolve_header(struct send *send) {
    int code = resolve_dest(send);
    if (!code) code = resolve_reply(send);
    if (code) return code;
    if (!right_can_give(send->dest_entry, send->dest_how)) return MACH_SEND_INVALID_DEST;
    const struct disposition *dest = send->dest_how, *reply = send->reply_how;
    bool same = send->reply_entry == send->dest_entry;
    if (same && (dest->needs | reply->needs) & MACH_PORT_TYPE_SEND_ONCE) return MACH_SEND_INVALID_DEST;
    if (same && dest->takes && reply->takes && send->dest_entry->urefs < 2) return MACH_SEND_INVALID_DEST;
    right_note(send->dest_entry, dest);
    if (send->reply_entry) right_note(send->reply_entry, reply);
    return 0;
}

static struct entry *body_entry(struct send *send, const struct right_in_flight *right) {
    bool real = right->name != MACH_PORT_NULL && right->name != MACH_PORT_DEAD;
    return real ? space_lookup(call_ipc(&send->call), &send->call.task->space, right->name) : NULL;
}

static int resolve_body(struct send *send) {
    struct cargo *cargo = send->kmsg->cargo;
    for (uint32_t i = 0; cargo && i < cargo->rights_used; i++) {
        struct right_in_flight *right = &cargo->rights[i];
        const struct disposition *how = disposition_of(right->disposition);
        if (right->name == MACH_PORT_NULL || right->name == MACH_PORT_DEAD) continue;
        struct entry *entry = body_entry(send, right);
        if (!entry || !right_can_give(entry, how)) return MACH_SEND_INVALID_RIGHT;
        right_note(entry, how);
        if (how->takes && how->needs == MACH_PORT_TYPE_RECEIVE && send->dest_port)
            send->circular |= port_circular(entry->object, send->dest_port);
        send->made_send_once += right->disposition == MACH_MSG_TYPE_MAKE_SEND_ONCE;
    }
    return 0;
}

static void forget_notes(struct send *send) {
    struct cargo *cargo = send->kmsg->cargo;
    if (send->dest_entry) right_forget(send->dest_entry);
    if (send->reply_entry) right_forget(send->reply_entry);
    for (uint32_t i = 0; cargo && i < cargo->rights_used; i++) {
        struct entry *entry = body_entry(send, &cargo->rights[i]);
        if (entry) right_forget(entry);
    }
}

/* ---- check: the questions of D9, each once ---- */

static void site_of_entry(struct call *call, uint32_t operation, const struct entry *entry, uint32_t name) {
    call->site.operation = operation;
    call->site.name = name;
    call->site.port = ((struct port *)entry->object)->id;
    call->site.provenance = entry->provenance;
}

static int check_label(struct send *send) {
    struct call *call = &send->call;
    if (!send->effective_sid || send->effective_sid == call->mac.real_sid) return 0;
    int code = call_check(call, send->effective_sid, PM_CLASS_MACH_PORT, PM_MACH_PORT__specify, MACH_SEND_INVALID_DEST);
    call->mac.sid = send->effective_sid;
    return code;
}

/* One question to the destination's label; which bit was refused tells the code. */
static int check_dest(struct send *send) {
    struct call *call = &send->call;
    const struct cargo *cargo = send->kmsg->cargo;
    uint32_t asked = PM_MACH_PORT__send | send->dest_how->give;
    if (cargo && cargo->rights_used) asked |= PM_MACH_PORT__carry_rights;
    if (send->carries_memory) asked |= PM_MACH_PORT__carry_memory;
    site_of_entry(call, PM_OP_SEND, send->dest_entry, send->dest);
    enum mac_verdict verdict = mac_check(&call->mac, send->dest_port->sid, PM_CLASS_MACH_PORT, asked, &call->site);
    if (verdict != MAC_DENIED) return verdict == MAC_MISS ? CALL_MISS : 0;
    uint32_t denied = call->mac.denial.denied;
    if (denied & (PM_MACH_PORT__send | send->dest_how->give)) return MACH_SEND_INVALID_DEST;
    return denied & PM_MACH_PORT__carry_rights ? MACH_SEND_NO_GRANT_DEST : MACH_SEND_INVALID_MEMORY;
}

static int verdict_code(enum mac_verdict verdict, int refusal) {
    return verdict == MAC_ALLOWED ? 0 : verdict == MAC_MISS ? CALL_MISS : refusal;
}

/* The sender's vector travels with the message: of the method's class, or of the port's. */
static int check_method(struct send *send) {
    struct call *call = &send->call;
    struct port *port = send->dest_port;
    const struct interface *interface = interface_find(&call->kernel->interfaces, port->interface);
    struct avc_vector vector;
    struct method method = {PM_CLASS_MACH_PORT, 0};
    bool known = interface && interface_method(interface, send->kmsg->msgh_id, &method);
    enum mac_verdict verdict = MAC_ALLOWED;
    if (interface && !known && !(interface->flags & PM_INTERFACE_ALLOW_UNKNOWN)) {
        call->site.operation = PM_OP_METHOD;
        verdict = mac_refuse(&call->mac, port->sid, interface->tclass, 0x80000000u, &call->site);
    } else if (known) {
        call->site.operation = PM_OP_METHOD;
        verdict = mac_check(&call->mac, port->sid, method.tclass, method.permission, &call->site);
    }
    send->kmsg->access = mac_vector(&call->mac, port->sid, method.tclass, &vector) ? vector.allowed : 0;
    if ((send->kmsg->access & method.permission) == method.permission) send->kmsg->flags |= KMSG_METHOD;
    return verdict_code(verdict, MACH_SEND_MSG_FILTERED);
}

static int check_reply(struct send *send) {
    struct call *call = &send->call;
    if (!send->reply_entry || entry_type(send->reply_entry) & MACH_PORT_TYPE_DEAD_NAME) return 0;
    site_of_entry(call, PM_OP_GIVE, send->reply_entry, send->reply);
    return call_check_port(call, send->reply_entry->object, PM_MACH_PORT__set_reply | send->reply_how->give,
                           MACH_SEND_INVALID_REPLY);
}

/* The first refusal in this order stands, whatever else is still unknown: it gives nothing away. */
static int check_header(struct send *send) {
    static int (*const checks[])(struct send *) = {check_label, check_dest, check_method, check_reply};
    bool missed = false;
    if (!send->dest_port) return 0;
    for (size_t i = 0; i < array_count(checks); i++) {
        int code = checks[i](send);
        if (code && code != CALL_MISS) return missed ? CALL_MISS : code;
        missed |= code == CALL_MISS;
    }
    return missed ? CALL_MISS : 0;
}

static int check_body(struct send *send) {
    struct cargo *cargo = send->kmsg->cargo;
    for (uint32_t i = 0; cargo && i < cargo->rights_used; i++) {
        const struct right_in_flight *right = &cargo->rights[i];
        struct entry *entry = body_entry(send, right);
        if (!entry || entry_type(entry) & MACH_PORT_TYPE_DEAD_NAME) continue;
        site_of_entry(&send->call, PM_OP_GIVE, entry, right->name);
        int code = call_check_port(&send->call, entry->object, disposition_of(right->disposition)->give,
                                   MACH_SEND_INVALID_RIGHT);
        if (code && code != CALL_MISS) return code;
    }
    return send->call.mac.missed ? CALL_MISS : 0;
}

/* ---- reserve ---- */

static int reserve_queue(struct send *send) {
    struct space *space = &send->call.task->space;
    struct port *port = send->dest_port;
    if (space->quota.queued_bytes && space->usage.queued_bytes + send->kmsg->charge > space->quota.queued_bytes) {
        call_ipc(&send->call)->quota_refusals++;
        return MACH_SEND_NO_BUFFER;
    }
    if (!port || send->circular) return 0;
    if (port->flags & PORT_HANDLER) return handler_too_deep() ? MACH_SEND_NO_BUFFER : 0;
    /* Who waits longer goes first. */
    bool others = !send->waited && port->flags & PORT_SENDERS_WAIT && send->dest_how->result == MACH_MSG_TYPE_PORT_SEND;
    return others ? MACH_SEND_TIMED_OUT : mqueue_room(port, send->dest_how->result);
}

static int reserve_messages(struct send *send) {
    uint32_t made = send->made_send_once;
    made += send->dest_how->give == PM_MACH_PORT__make_send_once;
    made += send->reply_entry && send->reply_how->give == PM_MACH_PORT__make_send_once;
    send->made_send_once = made;
    return !made || pool_reserve(&call_ipc(&send->call)->kmsgs, made) ? 0 : KERN_RESOURCE_SHORTAGE;
}

/* ---- commit: below the point of no return ---- */

static void trace_given(struct send *send, struct entry *entry, const struct port *port, uint32_t event) {
    if (send->call.kernel->trace.on) trace_event(send->call.kernel, &send->call.task->space, entry, port, event);
}

static struct port *give(struct send *send, struct entry *entry, const struct disposition *how) {
    if (!(entry_type(entry) & MACH_PORT_TYPE_DEAD_NAME)) trace_given(send, entry, entry->object, how->event);
    return right_give(call_ipc(&send->call), &send->call.task->space, entry, how, &send->call.after);
}

/* The type arrives even where no port does. */
static void commit_reply(struct send *send) {
    const struct disposition *how = disposition_of(send->reply_disposition);
    send->kmsg->reply_type = how ? how->result : MACH_MSG_TYPE_PORT_NONE;
    if (send->reply_entry) send->kmsg->reply = give(send, send->reply_entry, how);
    else send->kmsg->reply = send->reply == MACH_PORT_DEAD ? PORT_DEAD : NULL;
}

/* What is copied must be copied before the same name is moved away. */
static void commit_header(struct send *send) {
    struct port *dest;
    if (send->dest_port) trace_given(send, send->dest_entry, send->dest_port, PM_EVENT_SEND);
    if (send->dest_how->takes) commit_reply(send);
    dest = give(send, send->dest_entry, send->dest_how);
    if (!send->dest_how->takes) commit_reply(send);
    send->kmsg->dest = port_valid(dest) ? dest : NULL;
    send->kmsg->dest_type = send->dest_how->result;
    if (send->kmsg->dest && send->kmsg->dest_type == MACH_MSG_TYPE_PORT_SEND_ONCE)
        right_send_once_used(call_ipc(&send->call));
}

/* A receive right that could never be reached again makes the whole message vanish. */
static void put_in_transit(struct send *send, struct port *port) {
    struct kmsg *kmsg = send->kmsg;
    if (!kmsg->dest || kmsg->flags & KMSG_CIRCULAR) return;
    if (port_circular(port, kmsg->dest)) kmsg->flags |= KMSG_CIRCULAR;
    else port->destination = kmsg->dest;
}

static void commit_body(struct send *send) {
    struct cargo *cargo = send->kmsg->cargo;
    for (uint32_t i = 0; cargo && i < cargo->rights_used; i++) {
        struct right_in_flight *right = &cargo->rights[i];
        const struct disposition *how = disposition_of(right->disposition);
        struct entry *entry = body_entry(send, right);
        right->port = entry ? give(send, entry, how) : right->name == MACH_PORT_DEAD ? PORT_DEAD : NULL;
        right->type = how->result;
        if (right->type == MACH_MSG_TYPE_PORT_RECEIVE && port_valid(right->port)) put_in_transit(send, right->port);
    }
}

static void post_message(struct send *send) {
    struct ipc *ipc = call_ipc(&send->call);
    struct kmsg *kmsg = send->kmsg;
    send->kmsg = NULL;
    ipc->sent++;
    if (kmsg->flags & KMSG_CIRCULAR) {
        struct mac_site site = {.operation = PM_OP_SEND, .name = send->dest, .port = kmsg->dest->id,
                                .flags = PM_AUDIT_CIRCULAR, .msgh_id = kmsg->msgh_id, .size = kmsg->size};
        ipc->circular++;
        mac_note(&send->call.mac, &site, 0);
    }
    if (kmsg->dest && !(kmsg->flags & KMSG_CIRCULAR)) mqueue_post(ipc, kmsg, &send->call.after);
    else after_doom(&send->call.after, kmsg);
}

/* ---- the whole ---- */

static int prepare(struct send *send) {
    int header, code = resolve_header(send);
    if (code) return code;
    header = check_header(send);
    if (header && header != CALL_MISS) return header;
    code = resolve_body(send);
    if (code) return header ? header : code;
    code = check_body(send);
    return header ? header : code;
}

static int send_attempt(struct call *call) {
    struct send *send = (struct send *)call;
    struct kmsg *kmsg = send->kmsg;
    send->dest_entry = send->reply_entry = NULL;
    send->dest_port = NULL;
    send->made_send_once = 0;
    send->circular = false;
    call->site.msgh_id = kmsg->msgh_id;
    call->site.size = kmsg->size;
    kmsg->flags = 0;
    kmsg->access = UINT32_MAX;
    if (!call->task->space.alive || !call->kernel->alive) return KERN_INVALID_TASK;

    int code = prepare(send);
    if (!code) code = reserve_queue(send);
    if (!code) code = call_ready(call);
    if (!code) code = reserve_messages(send);
    if (code) {
        forget_notes(send);
        return code;
    }
    /* ------------------------------------------ point of no return ------------------------------------------ */
    call->transfer = kmsg->transfer = ++call_ipc(call)->transfers;
    kmsg_set_sender(kmsg, &call->task->space, call->mac.real_sid, call->mac.sid);
    commit_header(send);
    commit_body(send);
    post_message(send);
    return 0;
}

/* A full queue: note the wish to be told when it is not (MACH_SEND_NOTIFY). */
static void arm_send_possible(struct send *send) {
    struct entry *entry = space_lookup(call_ipc(&send->call), &send->call.task->space, send->dest);
    if (entry && entry->request && entry->request->send_possible) entry->request->armed = true;
}

static int wait_for_room(struct send *send, const struct pm_wait *wait, int64_t deadline) {
    struct pm_kernel *kernel = send->call.kernel;
    struct port *port = send->dest_port;
    bool woken = false;
    if (!port_extra_reserve(&kernel->ipc, port)) return KERN_RESOURCE_SHORTAGE;
    port_ref(port);
    port->flags |= PORT_SENDERS_WAIT;
    int code = wait_in(kernel, &port->extra->senders, &send->call.task->space, wait, deadline, MACH_SEND_TIMED_OUT,
                       MACH_SEND_INTERRUPTED, &woken);
    if (list_empty(&port->extra->senders)) port->flags &= ~(uint32_t)PORT_SENDERS_WAIT;
    if (code && woken) mqueue_has_room(&kernel->ipc, port, &send->call.after);
    port_unref(&kernel->ipc, port);
    send->waited = true;
    return code == MACH_RCV_PORT_DIED ? 0 : code;
}

/* ---- pseudo-receive: the rights of a message that found no room come out again, as if received ---- */

static uint32_t take_back(struct send *send, struct port *port, uint8_t type) {
    struct call *call = &send->call;
    bool dropped;
    if (!port) return MACH_PORT_NULL;
    if (port == PORT_DEAD) return MACH_PORT_DEAD;
    return right_take(call_ipc(call), &call->task->space, port, type, call->transfer, &call->after, &dropped);
}

static void take_all_back(struct send *send) {
    struct kmsg *kmsg = send->kmsg;
    struct cargo *cargo = kmsg->cargo;
    if (kmsg->dest && kmsg->dest_type == MACH_MSG_TYPE_PORT_SEND_ONCE) call_ipc(&send->call)->kmsgs.reserved++;
    send->dest_name = kmsg->dest ? take_back(send, kmsg->dest, kmsg->dest_type) : MACH_PORT_DEAD;
    send->reply_name = take_back(send, kmsg->reply, kmsg->reply_type);
    for (uint32_t i = 0; cargo && i < cargo->rights_used; i++) {
        cargo->rights[i].name = take_back(send, cargo->rights[i].port, cargo->rights[i].type);
        cargo->rights[i].disposition = cargo->rights[i].type;
        cargo->rights[i].port = NULL;
    }
    kmsg->dest = kmsg->reply = NULL;
    send->handed_back = true;
}

/* Nothing is asked: who gets the rights had them. Where even this finds no room, nothing has changed at all. */
static void hand_back(struct send *send) {
    struct call *call = &send->call;
    uint32_t rights = 2 + (send->kmsg->cargo ? send->kmsg->cargo->rights_used : 0);
    send->made_send_once = 0;
    bool good = !space_reserve(&call->task->space, call_ipc(call), rights) && !resolve_header(send) && !resolve_body(send);
    if (!good || reserve_messages(send)) {
        forget_notes(send);
        return;
    }
    call->transfer = ++call_ipc(call)->transfers;
    commit_header(send);
    commit_body(send);
    take_all_back(send);
}

static bool found_no_room(int code) {
    return code == MACH_SEND_TIMED_OUT || code == MACH_SEND_INTERRUPTED || code == MACH_SEND_NO_BUFFER;
}

static bool send_again(struct send *send, int *code, const struct pm_wait *wait, int64_t *deadline) {
    if (*code == MACH_SEND_TIMED_OUT && may_wait(send->call.kernel, wait)) {
        if (*deadline == 0) *deadline = deadline_of(wait);
        int waited = wait_for_room(send, wait, *deadline);
        if (waited) *code = waited;
        return !waited;
    }
    if (*code == MACH_SEND_TIMED_OUT && send->option & MACH_SEND_NOTIFY) arm_send_possible(send);
    return call_again(&send->call, *code);
}

int send_run(struct send *send, const struct pm_wait *wait) {
    struct call *call = &send->call;
    int64_t deadline = 0;
    int code;
    send->waited = send->handed_back = false;
    kernel_lock(call->kernel);
    mac_op_init(&call->mac, &call->kernel->mac, call->task->space.sid, call->task->space.id);
    do {
        mac_op_restart(&call->mac, call->task->space.sid);
        code = send_attempt(call);
        if (call->mac.short_of_memory && code == CALL_MISS) code = KERN_RESOURCE_SHORTAGE;
    } while (pm_unlikely(code) && send_again(send, &code, wait, &deadline));
    if (pm_unlikely(found_no_room(code)) && send->hand_back) hand_back(send);
    return call_end(call, code);
}

/* ==== receiving ================================================================================================== */

static int check_use(struct receive *receive, struct entry *entry) {
    struct call *call = &receive->call;
    struct port *port = entry->object;
    site_of_entry(call, PM_OP_RECEIVE, entry, entry_name(&call->task->space, entry));
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
        *entry = &receive->call.task->space.table[port->receiver_name >> 8];
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
    if (((struct port *)named->object)->flags & PORT_HANDLER && !receive->for_handler) return MACH_RCV_INVALID_NAME;
    *entry = named;
    int code = check_use(receive, named);
    return code ? code : ((struct port *)named->object)->first ? 0 : MACH_RCV_TIMED_OUT;
}

static int check_interpose(struct receive *receive) {
    struct call *call = &receive->call;
    if (!receive->effective_sid || receive->effective_sid == call->mac.real_sid) return 0;
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
    struct mac_site site = {.operation = PM_OP_TAKE, .port = port->id, .provenance = transfer, .peer_sid = call->site.peer_sid,
                            .flags = PM_AUDIT_RECEIVE, .msgh_id = call->site.msgh_id};
    return mac_check(&call->mac, port->sid, PM_CLASS_MACH_PORT, taking_of(type)->take, &site) != MAC_DENIED;
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
    uint32_t name = right_take(call_ipc(call), &call->task->space, port, type, transfer, &call->after, &dropped);
    if (dropped) {
        struct mac_site site = {.operation = PM_OP_TAKE, .name = name, .port = port->id, .flags = PM_AUDIT_UREFS};
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
        port->context = descriptor->guard_context;
        port->flags |= PORT_GUARDED | (descriptor->guard_flags & MPG_STRICT ? PORT_STRICT : 0) |
                       (descriptor->guard_flags & MPG_IMMOVABLE_RECEIVE ? PORT_IMMOVABLE : 0);
    }
}

static void take_message(struct receive *receive, struct kmsg *kmsg, struct port *port, uint32_t port_name) {
    struct call *call = &receive->call;
    receive->kmsg = kmsg;
    call->kernel->refs++;
    receive->local = port_name;
    receive->seqno = port->seqno++;
    receive->context = port->flags & PORT_STRICT ? 0 : port->context;
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

    int code = check_sender(receive, kmsg);
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

static int receive_attempt(struct call *call) {
    struct receive *receive = (struct receive *)call;
    struct entry *entry;
    struct pset *set;
    if (!call->task->space.alive || !call->kernel->alive) return KERN_INVALID_TASK;
    int code = check_interpose(receive);
    if (code && code != CALL_MISS) return code;
    int resolved = resolve_receive(receive, &entry, &set);
    if (code || resolved) return code ? code : resolved;
    return receive_from(receive, entry, set);
}

static int wait_for_message(struct receive *receive, const struct pm_wait *wait, int64_t deadline) {
    struct call *call = &receive->call;
    struct pm_kernel *kernel = call->kernel;
    struct entry *entry = space_lookup(&kernel->ipc, &call->task->space, receive->name);
    bool woken, is_set = entry_type(entry) & MACH_PORT_TYPE_PORT_SET;
    if (is_set) {
        struct pset *set = entry->object;
        int code = wait_in(kernel, &set->receivers, &call->task->space, wait, deadline, MACH_RCV_TIMED_OUT,
                           MACH_RCV_INTERRUPTED, &woken);
        entry = space_lookup(&kernel->ipc, &call->task->space, receive->name);
        if (code && woken && entry && entry->object == set) waiters_wake_first(&set->receivers);
        return code;
    }
    struct port *port = entry->object;
    if (!port_extra_reserve(&kernel->ipc, port)) return KERN_RESOURCE_SHORTAGE;
    port_ref(port);
    port->flags |= PORT_RECEIVERS_WAIT;
    int code = wait_in(kernel, &port->extra->receivers, &call->task->space, wait, deadline, MACH_RCV_TIMED_OUT,
                       MACH_RCV_INTERRUPTED, &woken);
    if (list_empty(&port->extra->receivers)) port->flags &= ~(uint32_t)PORT_RECEIVERS_WAIT;
    if (code && woken && port->first) waiters_wake_first(&port->extra->receivers);
    port_unref(&kernel->ipc, port);
    return code;
}

static bool receive_again(struct receive *receive, int *code, const struct pm_wait *wait, int64_t *deadline) {
    if (*code != MACH_RCV_TIMED_OUT || !may_wait(receive->call.kernel, wait)) return call_again(&receive->call, *code);
    if (*deadline == 0) *deadline = deadline_of(wait);
    int waited = wait_for_message(receive, wait, *deadline);
    if (waited) *code = waited;
    return !waited;
}

int receive_run(struct receive *receive, const struct pm_wait *wait) {
    struct call *call = &receive->call;
    int64_t deadline = 0;
    int code;
    receive->kmsg = NULL;
    receive->denied = 0;
    kernel_lock(call->kernel);
    mac_op_init(&call->mac, &call->kernel->mac, call->task->space.sid, call->task->space.id);
    do {
        mac_op_restart(&call->mac, call->task->space.sid);
        code = receive_attempt(call);
        if (call->mac.short_of_memory && code == CALL_MISS) code = KERN_RESOURCE_SHORTAGE;
    } while (pm_unlikely(code) && receive_again(receive, &code, wait, &deadline));
    return call_end(call, code);
}

/* ==== the short calls ============================================================================================ */

void message_drop(struct pm_kernel *kernel, struct kmsg *kmsg) {
    struct after after;
    after_init(&after);
    kernel_lock(kernel);
    kmsg_free(&kernel->ipc, kmsg, &after);
    kernel_leave(kernel, &after);
}

void message_received(struct pm_kernel *kernel, struct kmsg *kmsg) {
    struct after after;
    after_init(&after);
    kernel_lock(kernel);
    kmsg_free(&kernel->ipc, kmsg, &after);
    if (after_is_empty(&after)) {
        kernel_unref_unlock(kernel);
        return;
    }
    kernel_leave(kernel, &after);
    kernel_lock(kernel);
    kernel_unref_unlock(kernel);
}

static void release_nothing(struct kmsg *kmsg) {
    struct cargo *cargo = kmsg->cargo;
    if (!cargo) return;
    if (cargo->release) kmsg->body = kmsg->inside;
    cargo->release = NULL;
    for (uint32_t i = 0; i < cargo->descriptors_used; i++)
        if (cargo->descriptors[i].memory.release) cargo->descriptors[i].memory = (struct pm_memory){0};
}

/* kmsg and cargo for a spec, or NULL where memory is short. Body and memory are not read yet. */
static struct kmsg *kmsg_for_spec(struct pm_kernel *kernel, const struct pm_send_spec *spec) {
    uint32_t descriptors = spec->rights_count + spec->memory_count;
    bool cargo = descriptors || spec->release;
    kernel_lock(kernel);
    struct kmsg *kmsg = kmsg_create(&kernel->ipc, spec->release ? 0 : spec->size);
    kernel_unlock(kernel);
    if (!kmsg || !cargo) return kmsg;
    kmsg->cargo = cargo_create(&kernel->ipc, descriptors, spec->rights_count);
    if (kmsg->cargo) return kmsg;
    message_drop(kernel, kmsg);
    return NULL;
}

static void fill_cargo(struct kmsg *kmsg, const struct pm_send_spec *spec) {
    struct cargo *cargo = kmsg->cargo;
    for (uint32_t i = 0; i < spec->rights_count; i++) {
        cargo->descriptors[i] = (struct descriptor){.type = MACH_MSG_PORT_DESCRIPTOR, .count = 1, .first = i,
                                                    .disposition = (uint8_t)spec->rights[i].disposition};
        cargo->rights[i] = (struct right_in_flight){.name = spec->rights[i].name,
                                                    .disposition = (uint8_t)spec->rights[i].disposition};
    }
    for (uint32_t i = 0; i < spec->memory_count; i++) {
        cargo->descriptors[spec->rights_count + i] =
            (struct descriptor){.type = MACH_MSG_OOL_DESCRIPTOR, .copy = 1, .deallocate = 1, .memory = spec->memory[i]};
        kmsg->charge += (uint32_t)spec->memory[i].size;
    }
    cargo->release = spec->release;
    cargo->release_context = spec->release_context;
}

static void fill_body(struct kmsg *kmsg, const struct pm_send_spec *spec) {
    kmsg->size = (uint32_t)spec->size;
    kmsg->msgh_id = spec->msgh_id;
    kmsg->voucher = spec->voucher;
    kmsg->charge = (uint32_t)spec->size;
    if (spec->release) kmsg->body = (char *)(uintptr_t)spec->body;
    else if (spec->size) memcpy(kmsg->body, spec->body, spec->size);
    if (kmsg->cargo) fill_cargo(kmsg, spec);
}

/* What is wrong with a spec on its face, before any name is looked at. */
static int spec_fault(const struct pm_send_spec *spec) {
    uint64_t memory = spec->size;
    if (spec->dest_disposition && !disposition_sends(spec->dest_disposition)) return MACH_SEND_INVALID_HEADER;
    if (spec->reply ? !disposition_sends(spec->reply_disposition) : spec->reply_disposition != 0)
        return MACH_SEND_INVALID_HEADER;
    if (spec->dest == MACH_PORT_NULL || spec->dest == MACH_PORT_DEAD) return MACH_SEND_INVALID_DEST;
    if (spec->size > PM_MESSAGE_MAX || spec->rights_count > PM_MESSAGE_PORTS_MAX) return MACH_SEND_TOO_LARGE;
    if (spec->memory_count > PM_MESSAGE_PORTS_MAX) return MACH_SEND_TOO_LARGE;
    if (spec->size && !spec->body) return MACH_SEND_INVALID_DATA;
    if ((spec->rights_count && !spec->rights) || (spec->memory_count && !spec->memory)) return MACH_SEND_INVALID_DATA;
    for (uint32_t i = 0; i < spec->rights_count; i++)
        if (!disposition_of(spec->rights[i].disposition)) return MACH_SEND_INVALID_TYPE;
    for (uint32_t i = 0; i < spec->memory_count; i++) {
        if (!spec->memory[i].address && spec->memory[i].size) return MACH_SEND_INVALID_MEMORY;
        if (!spec->memory[i].release) return MACH_SEND_INVALID_MEMORY;
        memory += spec->memory[i].size;
        if (spec->memory[i].size > PM_MESSAGE_MAX || memory > PM_MESSAGE_MAX) return MACH_SEND_TOO_LARGE;
    }
    return 0;
}

int pm_send_message(struct pm_task *task, const struct pm_send_spec *spec, const struct pm_wait *wait) {
    struct send send;
    int code = call_init(&send.call, task, task, PM_OP_SEND, spec->dest);
    if (code) return code;
    send.call.site.msgh_id = spec->msgh_id;
    code = spec_fault(spec);
    if (code) return call_refuse(&send.call, code);
    send.dest = spec->dest;
    send.dest_disposition = spec->dest_disposition;
    send.reply = spec->reply;
    send.reply_disposition = spec->reply_disposition;
    send.option = spec->option;
    send.effective_sid = spec->effective_sid;
    send.carries_memory = spec->memory_count || spec->release;
    send.hand_back = false;
    send.kmsg = kmsg_for_spec(task->kernel, spec);
    if (!send.kmsg) return call_refuse(&send.call, KERN_RESOURCE_SHORTAGE);
    fill_body(send.kmsg, spec);
    code = send_run(&send, wait);
    if (!send.kmsg) return code;
    release_nothing(send.kmsg);
    message_drop(task->kernel, send.kmsg);
    return code;
}

uint64_t need_nothing(const struct receive *receive, const struct kmsg *kmsg) {
    (void)receive;
    (void)kmsg;
    return 0;
}

static uint64_t need_body(const struct receive *receive, const struct kmsg *kmsg) {
    (void)receive;
    return kmsg->size;
}

/* Where descriptors point to memory, for the reader. */
static void list_memories(struct cargo *cargo) {
    for (uint32_t i = 0; i < cargo->descriptors_used; i++)
        if (cargo->descriptors[i].memory.address) cargo->memories[cargo->memory_used++] = cargo->descriptors[i].memory;
}

void received_fill(struct pm_received *received, const struct receive *receive) {
    struct kmsg *kmsg = receive->kmsg;
    *received = (struct pm_received){
        .msgh_id = kmsg->msgh_id, .seqno = receive->seqno, .size = kmsg->size, .local = receive->local,
        .reply = receive->reply, .reply_disposition = receive->reply_disposition, .sender_sid = kmsg->sid,
        .real_sid = kmsg->real_sid, .sender_task = kmsg->sender ? kmsg->sender->id : 0, .access = kmsg->access,
        .method = kmsg->flags & KMSG_METHOD, .denied = receive->denied, .voucher = kmsg->voucher,
        .transfer = kmsg->transfer, .context = receive->context, .body = kmsg->body,
        .message = (struct pm_message *)kmsg};
    if (kmsg->sender) received->identity = kmsg->sender->identity;
    else received->identity.security_token[1] = 1;
    if (!kmsg->cargo) return;
    list_memories(kmsg->cargo);
    received->rights = kmsg->cargo->received;
    received->rights_count = kmsg->cargo->rights_used;
    received->memory = kmsg->cargo->memories;
    received->memory_count = kmsg->cargo->memory_used;
}

static bool delivered(const struct receive *receive) { return receive->kmsg != NULL; }

int receive_message(struct pm_task *task, uint32_t name, uint32_t effective_sid, struct pm_received *received,
                    const struct pm_wait *wait) {
    struct receive receive;
    receive_init(&receive, name);
    receive.effective_sid = effective_sid;
    receive.need = need_nothing;
    int code = call_init(&receive.call, task, task, PM_OP_RECEIVE, name);
    if (code) return code;
    code = receive_run(&receive, wait);
    if (!delivered(&receive)) return code;
    received_fill(received, &receive);
    return code;
}

void pm_message_free(struct pm_message *message) {
    if (!message) return;
    struct kmsg *kmsg = (struct kmsg *)message;
    struct pm_kernel *kernel = container_of(kmsg->ipc, struct pm_kernel, ipc);
    if (kernel_forked(kernel)) return;
    if (kmsg->cargo) kmsg_release(kmsg);
    message_received(kernel, kmsg);
}

struct refuse_call { struct call call; const struct pm_received *received; };

/* What came under this name goes, be it guarded, or dead by now because an earlier one of the message was its receive right. */
static void drop_name(struct call *call, uint32_t name, uint32_t disposition) {
    static const uint32_t rights[] = {MACH_PORT_RIGHT_RECEIVE, MACH_PORT_RIGHT_SEND, MACH_PORT_RIGHT_SEND_ONCE};
    struct space *space = &call->task->space;
    struct entry *entry = space_lookup(call_ipc(call), space, name);
    if (!entry || !disposition) return;
    bool dead = entry_type(entry) & MACH_PORT_TYPE_DEAD_NAME;
    uint32_t right = dead ? MACH_PORT_RIGHT_DEAD_NAME : rights[disposition - MACH_MSG_TYPE_PORT_RECEIVE];
    right_delta(call_ipc(call), space, entry, right, -1, &call->after);
}

static int attempt_refuse(struct call *call) {
    const struct pm_received *received = ((struct refuse_call *)call)->received;
    int code = call_enter(call, 0);
    if (!code) code = call_ready(call);
    if (code) return code;
    drop_name(call, received->reply, received->reply_disposition);
    for (uint32_t i = 0; i < received->rights_count; i++)
        drop_name(call, received->rights[i].name, received->rights[i].disposition);
    return 0;
}

void message_refuse(struct pm_task *task, const struct pm_received *received) {
    struct refuse_call args = {.received = received};
    if (!call_init(&args.call, task, task, PM_OP_NAME, 0)) call_run(&args.call, attempt_refuse);
}

int64_t receive_bytes(struct pm_task *task, uint32_t name, void *body, uint64_t capacity,
                             const struct pm_wait *wait) {
    struct receive receive = {.name = name, .need = need_body, .room = capacity};
    struct pm_received received;
    int code = call_init(&receive.call, task, task, PM_OP_RECEIVE, name);
    if (!code) code = receive_run(&receive, wait);
    if (code && !receive.call.done) return -(int64_t)code;
    received_fill(&received, &receive);
    message_refuse(task, &received);
    if (received.size) memcpy(body, received.body, received.size);
    message_received(task->kernel, receive.kmsg);
    return received.size;
}

int pm_call(struct pm_task *task, const struct pm_send_spec *spec, uint32_t reply, struct pm_received *received,
            const struct pm_wait *wait) {
    int64_t deadline = deadline_of(wait);
    int code = pm_send_message(task, spec, wait);
    if (code) return code;
    struct pm_wait rest = wait ? *wait : (struct pm_wait){0};
    if (deadline >= 0 && rest.timeout_ns > 0) {
        int64_t left = deadline - monotonic_ns();
        rest.timeout_ns = left > 0 ? left : 0;
    }
    return pm_receive_message(task, reply, 0, received, wait ? &rest : NULL);
}
