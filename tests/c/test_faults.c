/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that runs out. A scenario of single calls, every pm_* among them, is lived through once for each allocation: that
 * allocation fails alone, and in a second life with all that follow. A call that fails for it says so, leaves what tasks can
 * see as it was, and succeeds when it is made again with memory at hand. In the end everything was released exactly once.
 */
#include "pympi.c"

#include <assert.h>
#include <stdio.h>

struct world {
    struct pm_kernel *kernel;
    struct pm_task *server, *client, *child;
    uint32_t sids[4], interface;
    uint32_t names[20];
    uint64_t region, rule;
    struct pm_received received;
    uint32_t passed, released, handled;
    bool denies;
};

enum slot {
    PORT, OTHER, THIRD, SET, SECOND_SET, DEAD, CLIENT_SEND, CLIENT_ONCE, CLIENT_OTHER, CLIENT_REPLY, CLIENT_THIRD, EXTRACTED,
    HANDLER, CLIENT_HANDLER, NOTIFY, MOVED, LAST
};

/* ---- what can be seen of a kernel, as one number ---- */

static void see(uint64_t *sum, uint64_t value) { *sum = mix64(*sum * 31 + value + 1); }

static void see_bytes(uint64_t *sum, const void *data, size_t size) {
    for (size_t i = 0; i < size; i++) see(sum, ((const uint8_t *)data)[i]);
}

static void see_right(uint64_t *sum, const struct port *port, uint32_t type) {
    see(sum, port_valid(port) ? port->rest->id : (uintptr_t)port);
    see(sum, type);
}

static void see_message(uint64_t *sum, const struct kmsg *kmsg) {
    const struct cargo *cargo = kmsg->cargo;
    see_bytes(sum, kmsg->body, kmsg->size);
    see(sum, (uint64_t)kmsg->sid << 32 | (uint32_t)kmsg->msgh_id);
    see_right(sum, kmsg->reply, kmsg->reply_type);
    for (uint32_t i = 0; cargo && i < cargo->rights_used; i++) see_right(sum, cargo->rights[i].port, cargo->rights[i].type);
    for (uint32_t i = 0; cargo && i < cargo->descriptors_used; i++) see(sum, cargo->descriptors[i].memory.size);
}

static void see_port(uint64_t *sum, const struct port *port) {
    const uint32_t shown = PORT_ACTIVE | PORT_IN_TRANSIT | PORT_IN_SETS | PORT_EVENT | PORT_HANDLER | PORT_INTERFACE |
                           PORT_GUARDED | PORT_STRICT | PORT_IMMOVABLE | PORT_TEMPOWNER | PORT_IMPORTANCE | PORT_DENAP |
                           PORT_TELLS;
    const uint64_t words[] = {port->rest->id, port->flags & shown, port->sid, port->qlimit, port->srights, port->sorights, port->seqno,
                              port->msgcount, port->rest->interface, port->rest->mscount, port->rest->context, port->rest->receiver_name,
                              port->rest->trace_owner, port->rest->trace_kind, (uint32_t)port->rest->trace_number};
    for (size_t i = 0; i < array_count(words); i++) see(sum, words[i]);
    for (const struct request *request = port_requests(port); request; request = request->next) see(sum, request->name);
    for (const struct set_link *link = port_sets(port); link; link = link->next) see(sum, link->set->name);
    for (const struct kmsg *kmsg = port->first; kmsg; kmsg = kmsg->next) see_message(sum, kmsg);
    see_right(sum, port->extra ? port->extra->no_senders : NULL, 1);
    see_right(sum, port->extra ? port->extra->port_destroyed : NULL, 2);
    see_right(sum, port->extra ? port->extra->message : NULL, 3);
}

/* A name whose port died is a dead name, whether somebody looked or not. */
static void see_entry(uint64_t *sum, const struct space *space, const struct entry *entry) {
    uint32_t type = entry_type(entry);
    const struct port *port = type & (MACH_PORT_TYPE_PORT_SET | MACH_PORT_TYPE_DEAD_NAME) ? NULL : entry->object;
    bool dead = type & MACH_PORT_TYPE_DEAD_NAME || (port && !port_active(port));
    see(sum, entry_name(space, entry));
    see(sum, dead ? MACH_PORT_TYPE_DEAD_NAME : type);
    see(sum, dead && !entry->urefs ? 1 : entry->urefs);
    see(sum, entry->provenance);
    see(sum, entry->request ? entry->request->send_possible + 2u * entry->request->armed + 4u : 0);
    if (port && !dead) see_port(sum, port);
    if (type & MACH_PORT_TYPE_PORT_SET) see(sum, ((struct pset *)entry->object)->members_used);
}

static void see_task(uint64_t *sum, const struct pm_task *task) {
    const struct space *space = &task->space;
    see(sum, (uint64_t)space->sid << 1 | space->alive);
    for (uint32_t i = 1; i < space->used; i++)
        if (entry_type(&space->table[i])) see_entry(sum, space, &space->table[i]);
    for (size_t i = 0; i < array_count(task->special); i++) see_right(sum, task->special[i], 0);
    for (size_t i = 0; i < array_count(task->registered); i++) see_right(sum, task->registered[i], 0);
    see_bytes(sum, &space->usage, sizeof space->usage);
    see_bytes(sum, &space->quota, sizeof space->quota);
    see(sum, space->past_used);
    see(sum, space->in_flight);
    for (uint32_t i = 0; i < space->regions_used; i++) see(sum, space->regions[i].size);
}

static uint64_t seen(const struct world *world) {
    const struct pm_kernel *kernel = world->kernel;
    const struct ipc *ipc = &kernel->ipc;
    const uint64_t words[] = {ipc->names, ipc->messages, ipc->bytes, ipc->live_ports, ipc->live_sets, ipc->sent, ipc->received,
                              ipc->destroyed, ipc->notifications, kernel->sids.alive, kernel->mac.epoch, kernel->mac.policy,
                              kernel->interfaces.used, kernel->trace.on, kernel->trace.texts_used, world->released,
                              world->handled, ipc->kmsgs.reserved, pool_live(&ipc->kmsgs), pool_live(&ipc->requests),
                              pool_live(&ipc->links)};
    uint64_t sum = 0;
    for (size_t i = 0; i < array_count(words); i++) see(&sum, words[i]);
    list_each(&kernel->tasks, node) see_task(&sum, task_of(container_of(node, struct space, tasks)));
    return sum;
}

/* ---- steps: one call each; 0 or a code, negated; a step that fails leaves the world as it was ---- */

static int64_t keep(uint32_t *slot, int64_t result) {
    if (result >= 0) *slot = (uint32_t)result;
    return result < 0 ? result : 0;
}

#define STEP(name, call) static int64_t name(struct world *w) { return (call); }
#define STEP_NAME(name, slot, call) STEP(name, keep(&w->names[slot], call))
#define CODE(call) (-(int64_t)(call))
#define SELF(task) w->task, w->task

static void release(void *context) { ((struct world *)context)->released++; }

static int answer(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    const struct world *world = context;
    (void)epoch;
    for (size_t i = 0; i < count; i++) {
        queries[i].allowed = world->denies ? ~(uint32_t)PM_MACH_PORT__hold_send : UINT32_MAX;
        queries[i].auditallow = UINT32_MAX;
        queries[i].uncached = i % 2;
        queries[i].code = 0;
    }
    return 0;
}

static int handle(void *context, struct pm_received *received) {
    ((struct world *)context)->handled += received->size;
    return 0;
}

static int drainer(void *context) {
    struct pm_audit_record records[8];
    while (pm_audit_drain(((struct world *)context)->kernel, records, array_count(records)) > 0) continue;
    return 0;
}

STEP(intern_server, keep(&w->sids[0], pm_sid_intern(w->kernel, NULL, "te/server", 9)))
STEP(intern_client, keep(&w->sids[1], pm_sid_intern(w->kernel, NULL, "te/client", 9)))
STEP(create_server, CODE(pm_task_create(w->kernel, NULL, "server", w->sids[0], NULL, NULL, &w->server)))
STEP(create_client, CODE(pm_task_create(w->kernel, NULL, "client", w->sids[1], NULL, NULL, &w->client)))
STEP(intern_paid, keep(&w->sids[2], pm_sid_intern(w->kernel, w->client, "te/paid", 7)))
STEP(intern_paid_again, keep(&w->sids[3], pm_sid_intern(w->kernel, w->server, "te/other", 8)))
STEP(retain, CODE(pm_sid_retain(w->kernel, w->sids[2])))
STEP(release_sid, CODE(pm_sid_release(w->kernel, w->sids[2])))
STEP(set_decider, CODE(pm_kernel_set_decider(w->kernel, answer, w)))
STEP(load_policy, CODE(pm_kernel_set_policy(w->kernel, PM_POLICY_LOADED | PM_POLICY_LABELS_PORTS | PM_POLICY_LABELS_TASKS |
                                                           PM_POLICY_CHECKS_RELABEL)))
STEP(select_all, CODE(pm_audit_select(w->kernel, 0, UINT32_MAX, UINT32_MAX)))
STEP(set_drainer, CODE(pm_audit_set_drainer(w->kernel, drainer, w)))
STEP(full_blocks, CODE(pm_audit_options(w->kernel, 1, 1, PM_AUDIT_BLOCK, 0)))
STEP(full_drops, CODE(pm_audit_options(w->kernel, 1, 1, PM_AUDIT_DROP, 0)))
STEP(full_fails, CODE(pm_audit_options(w->kernel, 1, 1, PM_AUDIT_FAIL, 0)))
STEP(synchronous, CODE(pm_audit_options(w->kernel, 1, 1, PM_AUDIT_BLOCK, 1)))
STEP(halt, CODE(pm_audit_halt(w->kernel, 1)))
STEP(go_on, CODE(pm_audit_halt(w->kernel, 0)))
STEP(wake, CODE(pm_audit_wake(w->kernel)))
STEP(wait_for_records, pm_audit_wait(w->kernel, 1, NULL))
STEP(drain_all, drainer(w))

static int64_t make_rule(struct world *w) {
    const struct pm_audit_rule rule = {.labels = "te/s*", .labels_size = 6, .tasks = "*", .tasks_size = 2,
                                    .numbers = (uint32_t[]){1}, .numbers_count = 1};
    int64_t number = pm_audit_rule_add(w->kernel, &rule);
    if (number > 0) w->rule = (uint64_t)number;
    return number > 0 ? 0 : number;
}

STEP(rule, make_rule(w))
STEP(rule_selects, CODE(pm_audit_rule_select(w->kernel, w->rule, 0, UINT32_MAX, UINT32_MAX)))
STEP(end_rule, CODE(pm_audit_rule_remove(w->kernel, w->rule)))
STEP(sample, CODE(pm_audit_sample(w->kernel, &(struct pm_audit_sampling){.budget = 9, .period_ns = 9, .strata = 9})))
STEP(sample_others, CODE(pm_audit_sample(w->kernel, &(struct pm_audit_sampling){.one_in = 3, .strata = 5})))
STEP(sample_no_more, CODE(pm_audit_sample(w->kernel, NULL)))

static int64_t read_strata(struct world *w) {
    struct pm_audit_stratum rows[4];
    return pm_audit_strata(w->kernel, rows, 4) < 2;
}

STEP(strata, read_strata(w))
STEP(start_trace, CODE(pm_trace_start(w->kernel)))
STEP(stop_trace, CODE(pm_trace_stop(w->kernel)))
STEP(reset_trace, CODE(pm_trace_reset(w->kernel)))
STEP(make_child, CODE(pm_task_create(w->kernel, w->server, "child", 0, NULL, NULL, &w->child)))
STEP(end_child, CODE(pm_task_terminate(w->server, w->child)))
STEP(set_quota, CODE(pm_task_set_quota(w->client, &(struct pm_quota){.queued_bytes = 1 << 20, .memory = 1 << 20})))

static int64_t make_interface(struct world *w) {
    int64_t number = pm_interface_create(w->kernel, 400, 40, PM_INTERFACE_ALLOW_UNKNOWN, (uint8_t[5]){4});
    return keep(&w->interface, number);
}

static int64_t name_identity(struct world *w) {
    int64_t identity = pm_trace_identity(w->kernel, "mach_kernel", 11);
    return identity < 0 ? identity : 0;
}

static int64_t construct(struct world *w) {
    struct pm_port_options options = {.flags = MPO_QLIMIT | MPO_INSERT_SEND_RIGHT, .qlimit = 3, .sid = w->sids[3], .context = 7,
                                      .trace_number = -1};
    return keep(&w->names[PORT], pm_port_construct(w->server, w->server, &options));
}

STEP_NAME(allocate_other, OTHER, pm_port_allocate(SELF(server), MACH_PORT_RIGHT_RECEIVE, 0))
STEP_NAME(allocate_third, THIRD, pm_port_allocate(w->client, w->server, MACH_PORT_RIGHT_RECEIVE, 0))
STEP_NAME(allocate_named, LAST, pm_port_allocate(SELF(server), MACH_PORT_RIGHT_RECEIVE, 0x5003))
STEP_NAME(allocate_set, SET, pm_port_allocate(SELF(server), MACH_PORT_RIGHT_PORT_SET, 0))
STEP_NAME(allocate_set_named, SECOND_SET, pm_port_allocate(SELF(server), MACH_PORT_RIGHT_PORT_SET, 0x10003))
STEP_NAME(allocate_dead, DEAD, pm_port_allocate(SELF(server), MACH_PORT_RIGHT_DEAD_NAME, 0))
STEP_NAME(allocate_reply, CLIENT_REPLY, pm_port_allocate(SELF(client), MACH_PORT_RIGHT_RECEIVE, 0))
STEP_NAME(allocate_notify, NOTIFY, pm_port_allocate(SELF(server), MACH_PORT_RIGHT_RECEIVE, 0))
STEP_NAME(allocate_handler, HANDLER, pm_port_allocate(SELF(server), MACH_PORT_RIGHT_RECEIVE, 0))
STEP_NAME(give_send, CLIENT_SEND, pm_port_transfer(w->server, w->names[PORT], MACH_MSG_TYPE_COPY_SEND, w->client))
STEP_NAME(give_other, CLIENT_OTHER, pm_port_transfer(w->server, w->names[OTHER], MACH_MSG_TYPE_MAKE_SEND, w->client))
STEP_NAME(give_third, CLIENT_THIRD, pm_port_transfer(w->server, w->names[THIRD], MACH_MSG_TYPE_MAKE_SEND, w->client))
STEP_NAME(give_once, CLIENT_ONCE, pm_port_transfer(w->server, w->names[PORT], MACH_MSG_TYPE_MAKE_SEND_ONCE, w->client))
STEP_NAME(give_handler, CLIENT_HANDLER, pm_port_transfer(w->server, w->names[HANDLER], MACH_MSG_TYPE_MAKE_SEND, w->client))
STEP_NAME(extract, EXTRACTED, pm_port_extract_right(w->client, w->server, w->names[LAST], MACH_MSG_TYPE_MAKE_SEND, NULL))
STEP_NAME(move_receive, MOVED, pm_port_transfer(w->server, w->names[LAST], MACH_MSG_TYPE_MOVE_RECEIVE, w->client))
STEP(insert_named, CODE(pm_port_insert_right(w->server, w->client, 0x30003, w->names[THIRD], MACH_MSG_TYPE_MAKE_SEND_ONCE)))
STEP(insert_own, CODE(pm_port_insert_right(SELF(server), w->names[OTHER], w->names[OTHER], MACH_MSG_TYPE_MAKE_SEND)))

STEP(join_set, CODE(pm_port_insert_member(SELF(server), w->names[PORT], w->names[SET])))
STEP(join_second, CODE(pm_port_insert_member(SELF(server), w->names[PORT], w->names[SECOND_SET])))
STEP(leave_second, CODE(pm_port_extract_member(SELF(server), w->names[PORT], w->names[SECOND_SET])))
STEP(move_member, CODE(pm_port_move_member(SELF(server), w->names[PORT], w->names[SECOND_SET])))
STEP(leave_all, CODE(pm_port_move_member(SELF(server), w->names[PORT], 0)))

static int64_t set_status(struct world *w) {
    uint32_t members[4];
    int64_t count = pm_port_get_set_status(w->server, w->server, w->names[SET], members, 4);
    return count < 0 ? count : 0;
}

static int64_t attributes(struct world *w) {
    uint32_t info[MACH_PORT_RECEIVE_STATUS_COUNT], count = MACH_PORT_RECEIVE_STATUS_COUNT;
    return CODE(pm_port_get_attributes(w->client, w->server, w->names[PORT], MACH_PORT_RECEIVE_STATUS, info, &count));
}

static int64_t context_of(struct world *w) {
    uint64_t context;
    return CODE(pm_port_get_context(w->client, w->server, w->names[PORT], &context));
}

static int64_t peek(struct world *w) {
    struct pm_peek found = {0};
    return CODE(pm_port_peek(w->server, w->server, w->names[PORT], 0, &found));
}

static int64_t event_fd(struct world *w) {
    int64_t fd = pm_port_event_fd(w->server, w->names[OTHER]);
    return fd < 0 ? fd : 0;
}

static const uint32_t guard_words[] = {5, 0}, limit_word = 2;
STEP(set_limit_2, CODE(pm_port_set_attributes(SELF(server), w->names[PORT], MACH_PORT_LIMITS_INFO, &limit_word, 1)))
STEP(assert_guard, CODE(pm_port_assert_attributes(SELF(server), w->names[OTHER], MACH_PORT_GUARD_INFO, guard_words, 2)))
STEP(set_mscount, CODE(pm_port_set_mscount(SELF(server), w->names[OTHER], 3)))
STEP(set_seqno, CODE(pm_port_set_seqno(SELF(server), w->names[OTHER], 3)))
STEP(set_context, CODE(pm_port_set_context(SELF(server), w->names[THIRD], 9)))
STEP(guard_other, CODE(pm_port_guard(SELF(server), w->names[OTHER], 5, MPG_STRICT)))
STEP(unguard_other, CODE(pm_port_unguard(SELF(server), w->names[OTHER], 5)))
STEP(guard_weakly, CODE(pm_port_guard(SELF(server), w->names[OTHER], 5, 0)))
STEP(swap_guards, CODE(pm_port_swap_guard(SELF(server), w->names[OTHER], 5, 6)))
STEP(unguard_swapped, CODE(pm_port_unguard(SELF(server), w->names[OTHER], 6)))
STEP(set_interface, CODE(pm_port_set_interface(SELF(server), w->names[OTHER], w->interface)))
STEP(set_handler, CODE(pm_port_set_handler(SELF(server), w->names[HANDLER], handle, w, 3)))
STEP(relabel_port, CODE(pm_port_relabel(w->client, w->server, w->names[OTHER], w->sids[1])))
STEP(relabel_task, CODE(pm_task_relabel(w->server, w->client, w->sids[3])))
STEP(relabel_back, CODE(pm_task_relabel(SELF(client), w->sids[1])))

static int64_t request(struct world *w, struct pm_task *task, uint32_t name, uint32_t id, uint32_t sync) {
    int64_t previous = pm_port_request_notification(w->server, task, name, id, sync, w->names[NOTIFY],
                                                    MACH_MSG_TYPE_MAKE_SEND_ONCE);
    return previous < 0 ? previous : 0;
}
STEP(ask_no_senders, request(w, w->server, w->names[PORT], MACH_NOTIFY_NO_SENDERS, 0))
STEP(ask_no_senders_again, request(w, w->server, w->names[PORT], MACH_NOTIFY_NO_SENDERS, 0))
STEP(ask_message, request(w, w->server, w->names[PORT], PM_NOTIFY_MESSAGE, 0))
STEP(ask_message_again, request(w, w->server, w->names[PORT], PM_NOTIFY_MESSAGE, 0))
STEP(ask_destroyed, request(w, w->server, w->names[THIRD], MACH_NOTIFY_PORT_DESTROYED, 0))
STEP(ask_dead_name, request(w, w->client, w->names[CLIENT_OTHER], MACH_NOTIFY_DEAD_NAME, 0))
STEP(ask_dead_name_again, request(w, w->client, w->names[CLIENT_OTHER], MACH_NOTIFY_DEAD_NAME, 0))
STEP(ask_dead_already, request(w, w->server, w->names[DEAD], MACH_NOTIFY_DEAD_NAME, 1))
STEP(ask_possible, request(w, w->client, w->names[CLIENT_SEND], MACH_NOTIFY_SEND_POSSIBLE, 1))

static int64_t cancel_dead_name(struct world *w) {
    int64_t previous = pm_port_request_notification(w->server, w->client, w->names[CLIENT_OTHER], MACH_NOTIFY_DEAD_NAME, 0, 0, 0);
    return previous < 0 ? previous : 0;
}

STEP(send_small, CODE(pm_send(w->client, w->names[CLIENT_SEND], "hello", 5, 1, NULL)))
STEP(serve_queued, CODE(pm_port_set_interface(SELF(server), w->names[PORT], w->interface)))
STEP(serve_queued_no_more, CODE(pm_port_set_interface(SELF(server), w->names[PORT], 0)))
STEP(send_handled, CODE(pm_send(w->client, w->names[CLIENT_HANDLER], "hello", 5, 1, NULL)))

static int64_t send_large(struct world *w) {
    static const char body[1000];
    return CODE(pm_send(w->client, w->names[CLIENT_SEND], body, sizeof body, 2, NULL));
}

static int64_t full(struct world *w) {
    int code = pm_send(w->client, w->names[CLIENT_SEND], "", 0, 1, NULL);
    return code == MACH_SEND_TIMED_OUT ? 0 : CODE(code);
}

static int64_t send_rights(struct world *w) {
    const struct pm_right rights[] = {{w->names[CLIENT_OTHER], MACH_MSG_TYPE_COPY_SEND},
                                      {w->names[CLIENT_REPLY], MACH_MSG_TYPE_MAKE_SEND},
                                      {w->names[CLIENT_REPLY], MACH_MSG_TYPE_MAKE_SEND_ONCE},
                                      {w->names[CLIENT_THIRD], MACH_MSG_TYPE_COPY_SEND},
                                      {w->names[MOVED], MACH_MSG_TYPE_MOVE_RECEIVE}};
    const struct pm_memory memory = {"memory", 6, release, w};
    const struct pm_send_spec spec = {.dest = w->names[CLIENT_SEND], .reply = w->names[CLIENT_REPLY],
                                      .reply_disposition = MACH_MSG_TYPE_MAKE_SEND_ONCE, .msgh_id = 3, .body = "body", .size = 4,
                                      .rights = rights, .rights_count = array_count(rights), .memory = &memory,
                                      .memory_count = 1, .release = release, .release_context = w,
                                      .effective_sid = w->sids[3]};
    int code = pm_send_message(w->client, &spec, NULL);
    if (!code) w->passed += 2;
    return CODE(code);
}

static int64_t call_itself(struct world *w) {
    const struct pm_send_spec spec = {.dest = w->names[NOTIFY], .dest_disposition = MACH_MSG_TYPE_MAKE_SEND, .body = "me",
                                      .size = 2};
    struct pm_received received;
    int code = pm_call(w->server, &spec, w->names[NOTIFY], &received, NULL);
    if (!code) pm_message_free(received.message);
    return CODE(code);
}

static int64_t receive_on(struct world *w, struct pm_task *task, uint32_t name) {
    struct pm_received received;
    int code = pm_receive_message(task, name, 0, &received, NULL);
    if (code == (MACH_RCV_BODY_ERROR | MACH_MSG_IPC_SPACE)) assert(w->denies);
    if (!code || code == (MACH_RCV_BODY_ERROR | MACH_MSG_IPC_SPACE)) pm_message_free(received.message);
    else return CODE(code);
    return 0;
}
STEP(receive_set, receive_on(w, w->server, w->names[SECOND_SET]))
STEP(receive_port, receive_on(w, w->server, w->names[PORT]))
STEP(receive_reply, receive_on(w, w->client, w->names[CLIENT_REPLY]))

static int64_t receive_body(struct world *w) {
    char body[1000];
    int64_t size = pm_receive(w->server, w->names[PORT], body, sizeof body, NULL);
    return size < 0 ? size : 0;
}

/* ---- many at once, of which there is one ---- */

static int64_t send_submitted(struct world *w) {
    struct pm_submission op = {.op = PM_SUBMIT_SEND, .task = pm_task_id(w->client), .name = w->names[CLIENT_SEND], .length = 3,
                               .reply = w->names[CLIENT_REPLY], .right = w->names[CLIENT_REPLY],
                               .disposition = MACH_MSG_TYPE_MAKE_SEND};
    char data[] = "op";
    int64_t done = pm_submit(w->kernel, &op, 1, data, sizeof data);
    return done < 0 ? done : CODE(op.result);
}

static int64_t receive_submitted(struct world *w) {
    char data[1000];
    struct pm_submission op = {.op = PM_SUBMIT_RECEIVE, .task = pm_task_id(w->server), .name = w->names[PORT],
                               .length = sizeof data};
    int64_t done = pm_submit(w->kernel, &op, 1, data, sizeof data);
    return done < 0 ? done : CODE(op.result);
}

static int64_t send_many(struct world *w) {
    const struct pm_bodies bodies = {.data = "many", .size = 4, .stride = 4, .count = 1};
    int32_t code;
    int64_t sent = pm_send_many(w->client, w->names[CLIENT_SEND], &bodies, &code);
    return sent < 0 ? sent : CODE(code);
}

static int64_t receive_many(struct world *w) {
    char data[1000];
    struct pm_result result;
    const struct pm_room room = {.data = data, .size = sizeof data, .stride = sizeof data, .count = 1, .results = &result};
    int64_t got = pm_receive_many(w->server, w->names[PORT], &room);
    return got < 0 ? got : CODE(result.code);
}

static int64_t start_denying(struct world *w) {
    w->denies = true;
    return CODE(pm_kernel_set_policy(w->kernel, PM_POLICY_LOADED));
}

static int64_t stop_denying(struct world *w) {
    w->denies = false;
    return CODE(pm_kernel_set_policy(w->kernel, PM_POLICY_LOADED));
}

/* ---- the wire ---- */

static int64_t allocate_memory(struct world *w) {
    int64_t address = pm_vm_allocate(w->client, 64);
    if (address > 0) w->region = (uint64_t)address;
    return address < 0 ? address : 0;
}
STEP(write_memory, CODE(pm_vm_write(w->client, w->region, "12345678", 8)))
STEP(free_memory, CODE(pm_vm_deallocate(w->client, w->region, 64)))

static int64_t read_memory(struct world *w) {
    char data[8];
    return CODE(pm_vm_read(w->client, w->region, data, 8));
}

struct wire_all {
    struct wire_header header;
    uint32_t count;
    struct wire_port port;
    struct wire_ool ool, ports;
    uint32_t inlined;
};
union wire_room { struct wire_all all; uint8_t bytes[sizeof(struct wire_all) + 256]; };

static void fill_wire(struct world *w, struct wire_all *all, const uint32_t *names) {
    *all = (struct wire_all){
        .header = {.bits = BITS_COMPLEX | MACH_MSG_TYPE_COPY_SEND | MACH_MSG_TYPE_MAKE_SEND_ONCE << 8, .size = sizeof *all,
                   .remote = w->names[CLIENT_SEND], .local = w->names[CLIENT_REPLY], .id = 5},
        .count = 3,
        .port = {.name = w->names[CLIENT_THIRD], .disposition = MACH_MSG_TYPE_COPY_SEND},
        .ool = {.address = w->region, .copy = 1, .type = MACH_MSG_OOL_DESCRIPTOR, .size = 16},
        .ports = {.address = (uintptr_t)names, .disposition = MACH_MSG_TYPE_COPY_SEND, .type = MACH_MSG_OOL_PORTS_DESCRIPTOR,
                  .size = 2},
        .inlined = 42};
}

static int64_t send_wire(struct world *w) {
    union wire_room room;
    const uint32_t names[] = {w->names[CLIENT_THIRD], w->names[CLIENT_OTHER]};
    fill_wire(w, &room.all, names);
    return CODE(pm_mach_msg(w->client, &room, MACH_SEND_MSG, sizeof room.all, 0, 0, 0, NULL));
}

/* Where a full queue hands a message back, its rights are names again. With too little memory for that it stays as it was. */
static int64_t wire_finds_no_room(struct world *w) {
    union wire_room room;
    const uint32_t names[] = {w->names[CLIENT_THIRD], w->names[CLIENT_OTHER]};
    fill_wire(w, &room.all, names);
    int code = pm_mach_msg(w->client, &room, MACH_SEND_MSG | MACH_SEND_TIMEOUT, sizeof room.all, 0, 0, 0, NULL);
    return code == MACH_SEND_TIMED_OUT ? 0 : CODE(code);
}

static int64_t receive_wire(struct world *w) {
    union wire_room room;
    int code = pm_mach_msg(w->server, &room, MACH_RCV_MSG, 0, sizeof room, w->names[PORT], 0, NULL);
    return code == (MACH_RCV_BODY_ERROR | MACH_MSG_IPC_SPACE) && w->denies ? 0 : CODE(code);
}

/* ---- the rest ---- */

STEP(set_special, CODE(pm_task_set_special_port(w->client, w->server, TASK_BOOTSTRAP_PORT, w->names[CLIENT_OTHER])))
STEP(ask_registered, CODE(pm_ports_lookup(w->client, w->server, (uint32_t[3]){0}, &(uint32_t){3})))
STEP(register_ports, CODE(pm_ports_register(w->client, w->server, (uint32_t[1]){w->names[CLIENT_OTHER]}, 1)))

static int64_t get_special(struct world *w) {
    int64_t name = pm_task_get_special_port(w->client, w->server, TASK_BOOTSTRAP_PORT);
    return name < 0 ? name : 0;
}

static int64_t ask_decision(struct world *w) {
    struct pm_decision decision;
    return CODE(pm_decide(w->kernel, w->sids[0], w->sids[3], PM_CLASS_SERVICE, &decision));
}

static int64_t check(struct world *w) {
    int64_t allowed = pm_check(w->kernel, w->sids[1], w->sids[3], PM_CLASS_SERVICE, 1);
    return allowed < 0 ? allowed : 0;
}

static int64_t check_many(struct world *w) {
    const uint32_t classes[] = {1, 2, 3}, permissions[] = {1, 1, 1};
    uint8_t results[3];
    return CODE(pm_check_many(w->kernel, w->sids, w->sids, classes, permissions, results, 3));
}

/* A kernel without fast paths takes no tables, and so no values. */
static int64_t unless_defining(const struct world *w, int code, int refusal) {
    return w->kernel->no_fast_path && code == refusal ? 0 : CODE(code);
}

static int64_t give_tables(struct world *w) {
    const uint8_t known[] = {1, 1, 1, 1, 1};
    const struct pm_native tables = {.known = known, .classes_count = sizeof known, .epoch = pm_kernel_epoch(w->kernel)};
    return unless_defining(w, pm_kernel_set_native(w->kernel, &tables), KERN_NOT_SUPPORTED);
}

static int64_t give_values(struct world *w) {
    const uint32_t nothing[] = {0};
    int code = pm_sid_set_values(w->kernel, w->sids[1], pm_kernel_epoch(w->kernel), nothing, 1);
    return unless_defining(w, code, KERN_ABORTED);
}

static int64_t types(struct world *w) {
    int64_t type = pm_port_type(w->client, w->server, w->names[PORT]);
    return type < 0 ? type : 0;
}

static int64_t names(struct world *w) {
    uint32_t all[8], kinds[8];
    int64_t count = pm_port_names(w->client, w->server, all, kinds, 8);
    return count < 0 ? count : 0;
}

static int64_t refs(struct world *w) {
    int64_t count = pm_port_get_refs(w->client, w->client, w->names[CLIENT_SEND], MACH_PORT_RIGHT_SEND);
    return count < 0 ? count : 0;
}

static int64_t fill_table(struct world *w) {
    int64_t name = pm_port_allocate(w->client, w->client, MACH_PORT_RIGHT_DEAD_NAME, 0);
    return name < 0 ? name : 0;
}

STEP(more_refs, CODE(pm_port_mod_refs(SELF(client), w->names[CLIENT_SEND], MACH_PORT_RIGHT_SEND, 2)))
STEP(fewer_refs, CODE(pm_port_deallocate(SELF(client), w->names[CLIENT_SEND])))
STEP(destroy_third, CODE(pm_port_mod_refs(w->client, w->server, w->names[THIRD], MACH_PORT_RIGHT_RECEIVE, -1)))
STEP(destroy_other, CODE(pm_port_destroy(SELF(server), w->names[OTHER])))
STEP(destruct_port, CODE(pm_port_destruct(SELF(server), w->names[PORT], -1, 0)))
STEP(end_server, CODE(pm_task_terminate(w->client, w->server)))

static const struct step { const char *name; int64_t (*run)(struct world *w); bool in_part; } steps[] = {
#define DO(name) {#name, name, false}
/* What is told to the receiver is told in part: Mach takes the message off the queue all the same. */
#define DO_IN_PART(name) {#name, name, true}
    DO(intern_server), DO(intern_client), DO(create_server), DO(create_client), DO(intern_paid), DO(intern_paid_again),
    DO(retain), DO(release_sid), DO(set_decider), DO(load_policy), DO(select_all), DO(set_drainer), DO(full_blocks),
    DO(name_identity), DO(start_trace), DO(make_interface), DO(construct), DO(allocate_other), DO(allocate_third),
    DO(allocate_named), DO(allocate_set), DO(allocate_set_named), DO(allocate_dead), DO(allocate_reply), DO(allocate_notify),
    DO(allocate_handler), DO(give_send), DO(give_other), DO(give_third), DO(give_once), DO(give_handler), DO(extract),
    DO(move_receive), DO(insert_named), DO(insert_own), DO(join_set), DO(join_second), DO(leave_second), DO(move_member),
    DO(set_status), DO(attributes), DO(context_of), DO(event_fd), DO(set_limit_2), DO(set_mscount), DO(set_seqno),
    DO(set_context), DO(guard_other), DO(assert_guard), DO(unguard_other), DO(guard_weakly), DO(swap_guards),
    DO(unguard_swapped), DO(set_interface), DO(set_handler), DO(ask_no_senders), DO(ask_no_senders_again), DO(ask_destroyed),
    DO(ask_message), DO(ask_message_again),
    DO(ask_dead_name), DO(ask_dead_name_again), DO(cancel_dead_name), DO(ask_dead_name), DO(ask_dead_already),
    DO(set_quota), DO(send_small), DO(send_large), DO(full), DO(serve_queued), DO(serve_queued_no_more),
    DO(ask_possible), DO(peek), DO(relabel_port), DO(relabel_task), DO(relabel_back), DO(receive_set), DO(leave_all), DO(receive_body), DO(send_rights), DO(receive_port), DO(send_handled),
    DO(allocate_memory), DO(write_memory), DO(read_memory), DO(send_wire), DO_IN_PART(receive_wire), DO(send_wire),
    DO(start_denying), DO_IN_PART(receive_wire), DO(stop_denying), DO(send_small), DO(send_small), DO(wire_finds_no_room),
    DO(receive_body), DO(send_submitted), DO(receive_submitted), DO(receive_submitted), DO(send_many), DO(receive_many), DO(free_memory), DO(call_itself), DO(set_special), DO(get_special), DO(register_ports),
    DO(ask_registered), DO(rule), DO(rule_selects), DO(sample), DO(make_child), DO(end_child), DO(ask_decision), DO(check), DO(check_many), DO(give_tables), DO(give_values), DO(types), DO(names), DO(refs),
    DO(more_refs), DO(fewer_refs), DO(fill_table), DO(fill_table), DO(fill_table), DO(fill_table), DO(fill_table),
    DO(fill_table), DO(fill_table), DO(fill_table), DO(full_fails), DO(drain_all), DO(synchronous), DO(names), DO(halt),
    DO(wake), DO(wait_for_records), DO(go_on), DO(sample_others), DO(send_small), DO(receive_body), DO(strata), DO(sample_no_more),
    DO(end_rule), DO(full_drops), DO(destroy_third),
    DO(destroy_other), DO(destruct_port), DO(end_server), DO(receive_reply), DO(stop_trace), DO(reset_trace),
};

/* ---- a life ---- */

static void verify(struct world *world, const char *step) {
    char report[2000];
    if (!pm_kernel_verify(world->kernel, report, sizeof report)) return;
    fprintf(stderr, "after %s:\n%s", step, report);
    abort();
}

static bool for_memory(int64_t result) {
    return result == -KERN_RESOURCE_SHORTAGE || result == -(MACH_RCV_HEADER_ERROR | MACH_MSG_IPC_SPACE);
}

static bool in_part(int64_t result) { return (-result & MACH_MSG_VM_SPACE) != 0; }

static void must(bool good, const char *what, const char *step, uint64_t at, int64_t result) {
    if (good) return;
    fprintf(stderr, "%s: %s (allocation %llu, result %lld)\n", step, what, (unsigned long long)at, (long long)-result);
    abort();
}

/* For one step all free pieces are as if they were kept for somebody: whoever wants one asks for memory. */
static int64_t run_stinted(struct world *world, const struct step *step) {
    struct ipc *ipc = &world->kernel->ipc;
    struct pool *pools[] = {&ipc->ports, &ipc->rests, &ipc->extras, &ipc->sets, &ipc->links, &ipc->requests, &ipc->kmsgs};
    size_t hidden[array_count(pools)];
    for (size_t i = 0; i < array_count(pools); i++) {
        hidden[i] = pools[i]->free_count - pools[i]->reserved;
        pools[i]->reserved += hidden[i];
    }
    int64_t result = step->run(world);
    for (size_t i = 0; i < array_count(pools); i++) pools[i]->reserved -= hidden[i];
    return result;
}

/* Faults are off on return, or on again for good where they were. */
static void live_through(struct world *world, const struct step *step, uint64_t at, bool sticky) {
    uint64_t before = seen(world);
    int64_t result = run_stinted(world, step);
    if (result) {
        must(at != 0, "fails with all memory in the world", step->name, at, result);
        must(for_memory(result) || (step->in_part && in_part(result)), "fails, and says something else", step->name, at, result);
        verify(world, step->name);
        pm_kernel_fault(world->kernel, 0, 0);
        if (!step->in_part || !in_part(result)) {
            must(seen(world) == before, "fails and changes something", step->name, at, result);
            result = step->run(world);
            must(!result, "fails a second time", step->name, at, result);
        }
        if (sticky) pm_kernel_fault(world->kernel, 1, 1);
    }
    verify(world, step->name);
}

/* Pools that grow by one piece at a time ask for memory wherever they could. */
static void stint(struct ipc *ipc) {
    struct pool *pools[] = {&ipc->ports, &ipc->rests, &ipc->extras, &ipc->sets, &ipc->links, &ipc->requests, &ipc->kmsgs};
    for (size_t i = 0; i < array_count(pools); i++) pools[i]->per_chunk = 1;
}

static void expect_empty(const struct world *world) {
    const struct ipc *ipc = &world->kernel->ipc;
    const struct pool *pools[] = {&ipc->ports, &ipc->rests, &ipc->extras, &ipc->sets, &ipc->links, &ipc->requests, &ipc->kmsgs};
    for (size_t i = 0; i < array_count(pools); i++) assert(pool_live(pools[i]) == 0);
    assert(ipc->kmsgs.reserved == 0 && ipc->names == 0 && ipc->messages == 0 && ipc->bytes == 0);
    assert(world->released == world->passed);
}

/* A reference more keeps the kernel to be looked at when everything in it is gone. */
static void end(struct world *world) {
    struct pm_kernel *kernel = world->kernel;
    kernel->refs++;
    if (world->child) pm_task_release(world->child);
    if (world->client) pm_task_release(world->client);
    if (world->server) pm_task_release(world->server);
    pm_kernel_destroy(kernel);
    expect_empty(world);
    kernel_lock(kernel);
    kernel_unref_unlock(kernel);
}

static uint64_t live(uint64_t at, bool sticky) {
    struct world world = {0};
    const struct pm_config config = {.avc_entries = 4, .audit_records = 32, .seed = 1, .no_fast_path = at % 2};
    uint64_t asked;
    assert(pm_kernel_create(&config, &world.kernel) == 0);
    stint(&world.kernel->ipc);
    pm_kernel_fault(world.kernel, at, sticky);
    for (size_t i = 0; i < array_count(steps); i++) live_through(&world, &steps[i], at, sticky);
    pm_kernel_fault(world.kernel, 0, 0);
    asked = pm_kernel_allocations(world.kernel);
    end(&world);
    return asked;
}

static void test_each_allocation_fails(bool sticky) {
    uint64_t all = live(0, false);
    assert(all >= 100);
    for (uint64_t at = 1; at <= all; at++) live(at, sticky);
}

static void test_a_kernel_is_made_whole_or_not_at_all(bool sticky) {
    uint64_t at = 0;
    int code = KERN_RESOURCE_SHORTAGE;
    while (code == KERN_RESOURCE_SHORTAGE) {
        const struct pm_config config = {.fault_at = ++at, .fault_sticky = sticky};
        struct pm_kernel *kernel = NULL;
        code = pm_kernel_create(&config, &kernel);
        assert((code == 0) == (kernel != NULL));
        if (kernel) pm_kernel_destroy(kernel);
    }
    assert(code == 0 && at > 2);
}

int main(void) {
    for (int sticky = 0; sticky < 2; sticky++) {
        test_a_kernel_is_made_whole_or_not_at_all(sticky);
        test_each_allocation_fails(sticky);
    }
    return 0;
}
