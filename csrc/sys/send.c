/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a message is sent. send_attempt reads from top to bottom: resolve, check, reserve, and below the line nothing can fail.
 */
#include "sys/msg.h"

/* ---- resolve: names to entries, nothing changes but notes in the entries ---- */

bool disposition_sends(uint32_t disposition) {
    return disposition >= MACH_MSG_TYPE_MOVE_SEND && disposition <= MACH_MSG_TYPE_MAKE_SEND_ONCE;
}

static int resolve_reply(struct send *send) {
    struct space *space = &send->call.task->space;
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

/* XNU's defence against replies that are diverted: the right must be a fresh one, to a port that gives no other. */
static bool reply_fits(const struct send *send) {
    const struct entry *reply = send->reply_entry;
    if (!reply || !send->dest_port || !(send->dest_port->flags & PORT_ENFORCES_REPLY)) return true;
    return send->reply_how->give == PM_MACH_PORT__make_send_once && ((struct port *)reply->object)->flags & PORT_REPLY;
}

static int resolve_header(struct send *send) {
    send->dest_entry = send->reply_entry = NULL;        /* while the call waited the table may have moved */
    send->dest_port = NULL;
    int code = resolve_dest(send);
    if (!code) code = resolve_reply(send);
    if (code) return code;
    if (!right_can_give(send->dest_entry, send->dest_how)) return MACH_SEND_INVALID_DEST;
    if (!reply_fits(send)) return MACH_SEND_INVALID_REPLY;
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

/* The sender of a guarded descriptor says how the right is guarded now. */
static bool guard_known(const struct port *port, const struct descriptor *descriptor) {
    if (!(port->flags & PORT_GUARDED)) return true;
    return !(descriptor->guard_flags & MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND) &&
           port->rest->context == descriptor->guard_context;
}

static int resolve_guards(struct send *send) {
    struct cargo *cargo = send->kmsg->cargo;
    for (uint32_t i = 0; cargo && i < cargo->descriptors_used; i++) {
        const struct descriptor *descriptor = &cargo->descriptors[i];
        if (descriptor->type != MACH_MSG_GUARDED_PORT_DESCRIPTOR) continue;
        struct entry *entry = body_entry(send, &cargo->rights[descriptor->first]);
        if (entry && !guard_known(entry->object, descriptor)) return MACH_SEND_INVALID_RIGHT;
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

/* ---- check: use, give, carry and reply, each asked once ---- */

static int check_label(struct send *send) {
    struct call *call = &send->call;
    if (!send->effective_sid || send->effective_sid == call->mac.real_sid) return 0;
    if (!sids_alive(&call->kernel->sids, send->effective_sid)) return KERN_INVALID_ARGUMENT;
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
    enum mac_verdict verdict = mac_check(&call->mac, send->dest_port->sid, PM_CLASS_MACH_PORT, asked, &call->site);
    if (verdict != MAC_DENIED) return verdict == MAC_MISS ? CALL_MISS : 0;
    uint32_t denied = call->mac.denial.denied;
    if (denied & (PM_MACH_PORT__send | send->dest_how->give)) return MACH_SEND_INVALID_DEST;
    return denied & PM_MACH_PORT__carry_rights ? MACH_SEND_NO_GRANT_DEST : MACH_SEND_INVALID_MEMORY;
}

static int check_method(struct send *send) {
    return verdict_code(method_judge(&send->call, send->dest_port, send->kmsg, &send->call.site), MACH_SEND_MSG_FILTERED);
}

/* A right that is given away is another object than the destination, with a record of its own. */
static int check_give(struct send *send, const struct entry *entry, uint32_t name, uint32_t permissions, int refusal) {
    struct call *call = &send->call;
    const struct port *port = entry->object;
    struct mac_site site = call->site;
    site_of(&site, PM_OP_GIVE, entry, name);
    return verdict_code(mac_check(&call->mac, port->sid, PM_CLASS_MACH_PORT, permissions, &site), refusal);
}

static int check_reply(struct send *send) {
    if (!send->reply_entry || entry_type(send->reply_entry) & MACH_PORT_TYPE_DEAD_NAME) return 0;
    return check_give(send, send->reply_entry, send->reply, PM_MACH_PORT__set_reply | send->reply_how->give,
                      MACH_SEND_INVALID_REPLY);
}

/* The first refusal in this order stands, whatever else is still unknown: it gives nothing away. */
static int check_header(struct send *send) {
    static int (*const checks[])(struct send *) = {check_label, check_dest, check_method, check_reply};
    bool missed = false;
    if (!send->dest_port) return 0;
    site_of(&send->call.site, PM_OP_SEND, send->dest_entry, send->dest);
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
        int code = check_give(send, entry, right->name, disposition_of(right->disposition)->give, MACH_SEND_INVALID_RIGHT);
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

/* What only comes back was not given. */
static void trace_given(struct send *send, struct entry *entry, const struct port *port, uint32_t event) {
    if (send->call.kernel->trace.on && !send->handed_back) trace_event(send->call.kernel, &send->call.task->space, entry, port, event);
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
    else port->rest->destination = kmsg->dest;
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
        struct mac_site site = {.operation = PM_OP_SEND, .name = send->dest, .port = kmsg->dest->rest->id,
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
    if (!code) code = resolve_guards(send);
    if (code) return header ? header : code;
    code = check_body(send);
    return header ? header : code;
}

static int send_attempt(struct call *call) {
    struct send *send = (struct send *)call;
    struct kmsg *kmsg = send->kmsg;
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

static int wait_for_room(struct send *send, struct turn *turn) {
    struct pm_kernel *kernel = send->call.kernel;
    struct port *port = send->dest_port;
    if (!port_extra_reserve(&kernel->ipc, port)) return KERN_RESOURCE_SHORTAGE;
    turn_take(&kernel->ipc, turn, &port->extra->senders, port, &send->call.task->space);
    port->flags |= PORT_SENDERS_WAIT;
    int code = turn_sleep(kernel, turn, MACH_SEND_TIMED_OUT, MACH_SEND_INTERRUPTED);
    send->waited = true;
    return code == MACH_RCV_PORT_DIED ? 0 : code;
}

/* Whatever became of this sender: a place it was woken for and did not take is another's. */
static void leave_senders(struct send *send, struct turn *turn) {
    struct ipc *ipc = call_ipc(&send->call);
    struct port *port = turn->port;
    if (!turn->queue) return;
    port_ref(port);
    turn_leave(ipc, turn);
    if (list_empty(&port->extra->senders)) port->flags &= ~(uint32_t)PORT_SENDERS_WAIT;
    mqueue_has_room(ipc, port, &send->call.after);
    port_unref(ipc, port);
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
}

/* Nothing is asked: who gets the rights had them. Where even this finds no room, nothing has changed at all. */
static void hand_back(struct send *send) {
    struct call *call = &send->call;
    uint32_t rights = 2 + (send->kmsg->cargo ? send->kmsg->cargo->rights_used : 0);
    send->made_send_once = 0;
    if (space_reserve(&call->task->space, call_ipc(call), rights)) return;
    if (resolve_header(send) || resolve_body(send) || reserve_messages(send)) {
        forget_notes(send);
        return;
    }
    send->handed_back = true;
    call->transfer = ++call_ipc(call)->transfers;
    commit_header(send);
    commit_body(send);
    take_all_back(send);
}

static bool found_no_room(int code) {
    return code == MACH_SEND_TIMED_OUT || code == MACH_SEND_INTERRUPTED || code == MACH_SEND_NO_BUFFER;
}

static bool send_again(struct send *send, int *code, struct turn *turn) {
    if (*code == MACH_SEND_TIMED_OUT && may_wait(send->call.kernel, turn->wait)) {
        int waited = wait_for_room(send, turn);
        if (waited) *code = waited;
        return !waited;
    }
    if (*code == MACH_SEND_TIMED_OUT && send->option & MACH_SEND_NOTIFY) arm_send_possible(send);
    return call_again(&send->call, *code);
}

int send_run(struct send *send, const struct pm_wait *wait) {
    struct call *call = &send->call;
    struct turn turn;
    int code;
    turn_init(&turn, wait);
    send->waited = send->handed_back = false;
    call_begin(call);
    do {
        call_restart(call);
        code = send_attempt(call);
        if (call->mac.short_of_memory && code == CALL_MISS) code = KERN_RESOURCE_SHORTAGE;
    } while (pm_unlikely(code) && send_again(send, &code, &turn));
    leave_senders(send, &turn);
    if (pm_unlikely(found_no_room(code)) && send->hand_back) hand_back(send);
    return call_end(call, code);
}
