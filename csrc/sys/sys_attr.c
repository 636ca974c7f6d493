/* SPDX-License-Identifier: BSD-2-Clause */
/* Attributes, contexts, guards, labels, handlers of ports. */
#include <string.h>

#include "sys/msg.h"

#define INSERT PM_MACH_TASK__insert_right
#define OBSERVE PM_MACH_TASK__observe
#define GET PM_MACH_PORT__get_attributes
#define SET PM_MACH_PORT__set_attributes

/* Calls on the receive right of a name. */
struct attr_call {
    struct call call;
    uint32_t name, a, flavor, count;
    uint64_t wide, wide2;
    const uint32_t *in;
    uint32_t *out;
    void *pointer, *pointer2;
    pm_handler handler;
};

#define RUN(operation, attempt, ...)                                                  \
    struct attr_call args = {.name = name, __VA_ARGS__};                              \
    int code = call_init(&args.call, caller, task, operation, name);                  \
    if (!code) code = call_run(&args.call, attempt)

/* The port whose receive right the name holds, once the caller may do this to it. */
static struct port *enter_port(struct call *call, uint32_t space_permission, uint32_t permission, int *code) {
    struct attr_call *args = (struct attr_call *)call;
    int entered = *code = call_enter(call, space_permission);
    if (entered && entered != CALL_MISS) return NULL;
    if (args->name == MACH_PORT_NULL || args->name == MACH_PORT_DEAD) {
        *code = entered ? entered : KERN_INVALID_RIGHT;
        return NULL;
    }
    struct entry *entry = call_receive_entry(call, args->name, code);
    if (!entry) {
        *code = entered ? entered : *code;
        return NULL;
    }
    struct port *port = entry->object;
    *code = call_check_port(call, port, permission, KERN_NO_ACCESS);
    if (!*code) *code = entered ? entered : call_ready(call);
    return *code ? NULL : port;
}

/* ==== attributes ================================================================================================= */

static uint32_t sets_of(const struct port *port) {
    uint32_t count = 0;
    for (const struct set_link *link = port_sets(port); link; link = link->next) count++;
    return count;
}

static void receive_status(const struct port *port, uint32_t *info) {
    const struct port_extra *extra = port->extra;
    const uint32_t words[MACH_PORT_RECEIVE_STATUS_COUNT] = {
        sets_of(port), port->seqno, port->rest->mscount, port->qlimit, port->msgcount, port->sorights,
        port->srights != 0, extra && extra->port_destroyed, extra && extra->no_senders,
        (port->flags & PORT_TEMPOWNER ? 1u : 0) | (port->flags & PORT_GUARDED ? 2u : 0) |
            (port->flags & PORT_STRICT ? 4u : 0) | (port->flags & PORT_IMPORTANCE ? 8u : 0) |
            (port->flags & PORT_IMMOVABLE ? 0x40u : 0)};
    memcpy(info, words, sizeof words);
}

static uint32_t requests_size(const struct port *port) {
    uint32_t count = 0;
    for (const struct request *request = port_requests(port); request; request = request->next) count++;
    return count;
}

static void put_limits(const struct port *port, uint32_t *info) { info[0] = port->qlimit; }
static void put_requests(const struct port *port, uint32_t *info) { info[0] = requests_size(port); }
static void put_info_ext(const struct port *port, uint32_t *info) {
    memset(info, 0, MACH_PORT_INFO_EXT_COUNT * sizeof *info);
    receive_status(port, info);
}

static const struct flavor {
    uint32_t number, count;
    void (*put)(const struct port *port, uint32_t *info);
} flavors[] = {
    {MACH_PORT_LIMITS_INFO, MACH_PORT_LIMITS_INFO_COUNT, put_limits},
    {MACH_PORT_RECEIVE_STATUS, MACH_PORT_RECEIVE_STATUS_COUNT, receive_status},
    {MACH_PORT_DNREQUESTS_SIZE, MACH_PORT_DNREQUESTS_SIZE_COUNT, put_requests},
    {MACH_PORT_INFO_EXT, MACH_PORT_INFO_EXT_COUNT, put_info_ext},
};

static const struct flavor *flavor_of(uint32_t number) {
    for (size_t i = 0; i < array_count(flavors); i++)
        if (flavors[i].number == number) return &flavors[i];
    return NULL;
}

static int attempt_get_attributes(struct call *call) {
    struct attr_call *args = (struct attr_call *)call;
    const struct flavor *flavor = flavor_of(args->flavor);
    int code;
    struct port *port = enter_port(call, OBSERVE, GET, &code);
    if (!port) return code;
    if (!flavor) return KERN_INVALID_ARGUMENT;
    if (args->count < flavor->count) return KERN_FAILURE;
    flavor->put(port, args->out);
    args->count = flavor->count;
    return 0;
}

int pm_port_get_attributes(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t flavor, uint32_t *info,
                           uint32_t *count) {
    bool none = name == MACH_PORT_NULL || name == MACH_PORT_DEAD;
    if (flavor == MACH_PORT_LIMITS_INFO && none && caller && task) {
        *count = 0;
        return 0;
    }
    RUN(PM_OP_ATTRIBUTES, attempt_get_attributes, .flavor = flavor, .out = info, .count = *count);
    if (!code) *count = args.count;
    return code;
}

static int set_limit(struct attr_call *args, struct port *port) {
    if (args->count < MACH_PORT_LIMITS_INFO_COUNT) return KERN_FAILURE;
    if (args->in[0] > MACH_PORT_QLIMIT_MAX) return KERN_INVALID_VALUE;
    port->qlimit = args->in[0];
    mqueue_has_room(call_ipc(&args->call), port, &args->call.after);
    return 0;
}

static int set_flag(struct port *port, uint32_t flag) {
    port->flags |= flag;
    return 0;
}

static int attempt_set_attributes(struct call *call) {
    struct attr_call *args = (struct attr_call *)call;
    int code;
    struct port *port = enter_port(call, INSERT, SET, &code);
    if (!port) return code;
    switch (args->flavor) {
    case MACH_PORT_LIMITS_INFO: return set_limit(args, port);
    case MACH_PORT_TEMPOWNER: return set_flag(port, PORT_TEMPOWNER);
    case MACH_PORT_IMPORTANCE_RECEIVER: return set_flag(port, PORT_IMPORTANCE);
    case MACH_PORT_DENAP_RECEIVER: return set_flag(port, PORT_DENAP);
    default: return KERN_INVALID_ARGUMENT;
    }
}

int pm_port_set_attributes(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t flavor,
                           const uint32_t *info, uint32_t count) {
    RUN(PM_OP_ATTRIBUTES, attempt_set_attributes, .flavor = flavor, .in = info, .count = count);
    return code;
}

/* Tells whether a strict guard has this value, without revealing it. */
static int attempt_assert(struct call *call) {
    struct attr_call *args = (struct attr_call *)call;
    int code;
    struct port *port = enter_port(call, OBSERVE, GET, &code);
    if (!port) return code;
    if (args->flavor != MACH_PORT_GUARD_INFO) return KERN_INVALID_ARGUMENT;
    if (args->count < MACH_PORT_GUARD_INFO_COUNT) return KERN_FAILURE;
    uint64_t guard = args->in[0] | (uint64_t)args->in[1] << 32;
    if (port->flags & PORT_STRICT && port->rest->context == guard) return 0;
    return call_violation(call, &call->task->space, args->name, kGUARD_EXC_INCORRECT_GUARD, guard, KERN_INVALID_ARGUMENT);
}

int pm_port_assert_attributes(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t flavor,
                              const uint32_t *info, uint32_t count) {
    RUN(PM_OP_ATTRIBUTES, attempt_assert, .flavor = flavor, .in = info, .count = count);
    return code;
}

static int attempt_set_mscount(struct call *call) {
    int code;
    struct port *port = enter_port(call, INSERT, SET, &code);
    if (port) port->rest->mscount = ((struct attr_call *)call)->a;
    return code;
}

int pm_port_set_mscount(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t mscount) {
    RUN(PM_OP_ATTRIBUTES, attempt_set_mscount, .a = mscount);
    return code;
}

static int attempt_set_seqno(struct call *call) {
    int code;
    struct port *port = enter_port(call, INSERT, SET, &code);
    if (port) port->seqno = ((struct attr_call *)call)->a;
    return code;
}

int pm_port_set_seqno(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t seqno) {
    RUN(PM_OP_ATTRIBUTES, attempt_set_seqno, .a = seqno);
    return code;
}

/* ==== context and guard ========================================================================================== */

static int attempt_get_context(struct call *call) {
    int code;
    struct port *port = enter_port(call, OBSERVE, GET, &code);
    if (port) ((struct attr_call *)call)->wide = port->flags & PORT_STRICT ? 0 : port->rest->context;
    return code;
}

int pm_port_get_context(struct pm_task *caller, struct pm_task *task, uint32_t name, uint64_t *context) {
    RUN(PM_OP_ATTRIBUTES, attempt_get_context);
    if (!code) *context = args.wide;
    return code;
}

static int attempt_set_context(struct call *call) {
    struct attr_call *args = (struct attr_call *)call;
    int code;
    struct port *port = enter_port(call, INSERT, SET, &code);
    if (!port) return code;
    if (port->flags & PORT_STRICT)
        return call_violation(call, &call->task->space, args->name, kGUARD_EXC_SET_CONTEXT, args->wide,
                              KERN_INVALID_ARGUMENT);
    port->rest->context = args->wide;
    return 0;
}

int pm_port_set_context(struct pm_task *caller, struct pm_task *task, uint32_t name, uint64_t context) {
    RUN(PM_OP_ATTRIBUTES, attempt_set_context, .wide = context);
    return code;
}

static int attempt_guard(struct call *call) {
    struct attr_call *args = (struct attr_call *)call;
    int code;
    struct port *port = enter_port(call, INSERT, SET, &code);
    if (!port) return code;
    if (port->flags & PORT_GUARDED || port->rest->context) return KERN_INVALID_ARGUMENT;
    port->rest->context = args->wide;
    port->flags |= PORT_GUARDED | (args->a & MPG_STRICT ? PORT_STRICT : 0) |
                   (args->a & MPG_IMMOVABLE_RECEIVE ? PORT_IMMOVABLE : 0);
    return 0;
}

int pm_port_guard(struct pm_task *caller, struct pm_task *task, uint32_t name, uint64_t guard, uint32_t flags) {
    RUN(PM_OP_ATTRIBUTES, attempt_guard, .wide = guard, .a = flags);
    return code;
}

/* Both unguard and swap_guard name the present guard; a wrong one is a violation. */
static int guard_fault(struct call *call, const struct port *port, uint64_t guard) {
    struct attr_call *args = (struct attr_call *)call;
    if (port->flags & PORT_GUARDED && port->rest->context == guard) return 0;
    return call_violation(call, &call->task->space, args->name,
                          port->flags & PORT_GUARDED ? kGUARD_EXC_INCORRECT_GUARD : kGUARD_EXC_UNGUARDED, guard,
                          KERN_INVALID_ARGUMENT);
}

static int attempt_unguard(struct call *call) {
    int code;
    struct port *port = enter_port(call, INSERT, SET, &code);
    if (port) code = guard_fault(call, port, ((struct attr_call *)call)->wide);
    if (code || !port) return code;
    port->rest->context = 0;
    port->flags &= ~(uint32_t)(PORT_GUARDED | PORT_STRICT);     /* immovable stays */
    return 0;
}

int pm_port_unguard(struct pm_task *caller, struct pm_task *task, uint32_t name, uint64_t guard) {
    RUN(PM_OP_ATTRIBUTES, attempt_unguard, .wide = guard);
    return code;
}

static int attempt_swap_guard(struct call *call) {
    struct attr_call *args = (struct attr_call *)call;
    int code;
    struct port *port = enter_port(call, INSERT, SET, &code);
    if (port) code = guard_fault(call, port, args->wide);
    if (code || !port) return code;
    if (port->flags & PORT_STRICT) return KERN_INVALID_ARGUMENT;
    port->rest->context = args->wide2;
    return 0;
}

int pm_port_swap_guard(struct pm_task *caller, struct pm_task *task, uint32_t name, uint64_t old, uint64_t new_guard) {
    RUN(PM_OP_ATTRIBUTES, attempt_swap_guard, .wide = old, .wide2 = new_guard);
    return code;
}

/* ==== label, interface, handler, event =========================================================================== */

/* Only that the name denotes a port is asked, as in SEDarwin: any right will do. */
static int attempt_relabel(struct call *call) {
    struct attr_call *args = (struct attr_call *)call;
    struct entry *entry;
    int code = call_enter(call, INSERT);
    if (code && code != CALL_MISS) return code;
    entry = space_lookup(call_ipc(call), &call->task->space, args->name);
    if (!entry) return code ? code : KERN_INVALID_NAME;
    if (entry_type(entry) & (MACH_PORT_TYPE_PORT_SET | MACH_PORT_TYPE_DEAD_NAME)) return code ? code : KERN_INVALID_RIGHT;
    if (!sids_alive(&call->kernel->sids, args->a)) return code ? code : KERN_INVALID_ARGUMENT;
    struct port *port = entry->object;
    site_port(&call->site, port);
    int relabel = call_check_relabel(call, &port_relabelling, port->sid, args->a);
    if (relabel) return relabel;
    code = code ? code : call_ready(call);
    if (code) return code;
    if (!port_outdate(call_ipc(call), port)) return KERN_RESOURCE_SHORTAGE;
    port_relabel(call_ipc(call), port, args->a);
    return 0;
}

int pm_port_relabel(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t sid) {
    RUN(PM_OP_RELABEL, attempt_relabel, .a = sid);
    return code;
}

static int attempt_set_interface(struct call *call) {
    struct attr_call *args = (struct attr_call *)call;
    int code;
    struct port *port = enter_port(call, INSERT, SET, &code);
    if (!port) return code;
    if (args->a && !interface_find(&call->kernel->interfaces, args->a)) return KERN_INVALID_ARGUMENT;
    if (args->a != port->rest->interface && !port_outdate(call_ipc(call), port)) return KERN_RESOURCE_SHORTAGE;
    port->rest->interface = args->a;
    port->flags = args->a ? port->flags | PORT_INTERFACE : port->flags & ~(uint32_t)PORT_INTERFACE;
    return 0;
}

int pm_port_set_interface(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t interface) {
    RUN(PM_OP_ATTRIBUTES, attempt_set_interface, .a = interface);
    return code;
}

static int attempt_set_handler(struct call *call) {
    struct attr_call *args = (struct attr_call *)call;
    int code;
    struct port *port = enter_port(call, INSERT, SET, &code);
    if (!port) return code;
    if (args->handler && (port_sets(port) || port->first)) return KERN_INVALID_ARGUMENT;
    if (!port_extra_reserve(call_ipc(call), port)) return KERN_RESOURCE_SHORTAGE;
    if (args->handler) {                /* the queue is no more: nobody has anything to wait for */
        waiters_wake_all(&port->extra->receivers, MACH_RCV_PORT_CHANGED);
        waiters_wake_all(&port->extra->senders, 0);
    }
    port->extra->handler = args->handler;
    port->extra->handler_context = args->pointer;
    port->rest->trace_kind = args->handler ? args->a : port->rest->trace_kind;
    port->flags = args->handler ? port->flags | PORT_HANDLER : port->flags & ~(uint32_t)PORT_HANDLER;
    return 0;
}

int pm_port_set_handler(struct pm_task *caller, struct pm_task *task, uint32_t name, pm_handler handler, void *context,
                        uint32_t kind) {
    RUN(PM_OP_ATTRIBUTES, attempt_set_handler, .handler = handler, .pointer = context, .a = kind);
    return code;
}

static int attempt_event_fd(struct call *call) {
    struct attr_call *args = (struct attr_call *)call;
    int code = call_enter(call, OBSERVE);
    if (!code) code = call_ready(call);
    if (code) return code;
    struct entry *entry = space_lookup(call_ipc(call), &call->task->space, args->name);
    if (!entry) return KERN_INVALID_NAME;
    struct port *port = entry->object;
    struct pset *set = entry->object;
    bool is_set = entry_type(entry) & MACH_PORT_TYPE_PORT_SET;
    if (!is_set && !(entry_type(entry) & MACH_PORT_TYPE_RECEIVE)) return KERN_INVALID_RIGHT;
    if (!is_set && !port_extra_reserve(call_ipc(call), port)) return KERN_RESOURCE_SHORTAGE;
    struct event *event = is_set ? &set->event : &port->extra->event;
    if (event->read_fd < 0) {
        if (!event_open(event)) return KERN_RESOURCE_SHORTAGE;
        if (!is_set) port->flags |= PORT_EVENT;
        if (is_set ? !list_empty(&set->ready) : port->first != NULL) event_signal(event);
    }
    args->a = (uint32_t)event->read_fd;
    return 0;
}

int64_t pm_port_event_fd(struct pm_task *task, uint32_t name) {
    struct pm_task *caller = task;
    RUN(PM_OP_NAME, attempt_event_fd);
    return code ? -(int64_t)code : (int64_t)args.a;
}

/* ---- facts about a name, for tools of the task itself ---- */

enum fact { FACT_SID, FACT_ID, FACT_PROVENANCE, FACT_DEAD };

static int attempt_fact(struct call *call) {
    struct attr_call *args = (struct attr_call *)call;
    int code = call_enter(call, OBSERVE);
    if (code) return code;
    struct entry *entry = space_lookup(call_ipc(call), &call->task->space, args->name);
    if (!entry) return args->flavor == FACT_SID ? KERN_INVALID_NAME : 0;
    bool is_port = entry_type(entry) & (MACH_PORT_TYPE_SEND | MACH_PORT_TYPE_RECEIVE | MACH_PORT_TYPE_SEND_ONCE);
    const struct port *port = is_port ? entry->object : NULL;
    switch ((enum fact)args->flavor) {
    case FACT_SID: args->wide = port ? port->sid : 0; break;
    case FACT_ID: args->wide = port ? port->rest->id : 0; break;
    case FACT_PROVENANCE: args->wide = entry->provenance; break;
    case FACT_DEAD: args->wide = (entry_type(entry) & MACH_PORT_TYPE_DEAD_NAME) != 0; break;
    }
    return port || args->flavor != FACT_SID ? 0 : KERN_INVALID_RIGHT;
}

int64_t pm_port_sid(struct pm_task *task, uint32_t name) {
    struct pm_task *caller = task;
    RUN(PM_OP_NAME, attempt_fact, .flavor = FACT_SID);
    return code ? -(int64_t)code : (int64_t)args.wide;
}

uint64_t pm_port_id(struct pm_task *task, uint32_t name) {
    struct pm_task *caller = task;
    RUN(PM_OP_NAME, attempt_fact, .flavor = FACT_ID);
    return code ? 0 : args.wide;
}

uint64_t pm_port_provenance(struct pm_task *task, uint32_t name) {
    struct pm_task *caller = task;
    RUN(PM_OP_NAME, attempt_fact, .flavor = FACT_PROVENANCE);
    return code ? 0 : args.wide;
}

int pm_port_is_dead(struct pm_task *task, uint32_t name) {
    struct pm_task *caller = task;
    RUN(PM_OP_NAME, attempt_fact, .flavor = FACT_DEAD);
    return !code && args.wide;
}

#undef RUN
#undef INSERT
#undef OBSERVE
#undef GET
#undef SET
