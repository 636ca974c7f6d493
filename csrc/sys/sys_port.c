/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mach_port_*: the calls on names. Each is a struct of arguments, an attempt, and an entry point; sys/call.c makes the attempts.
 * Semantics and codes are XNU's (osfmk/ipc/mach_port.c), with the deviations that docs/architecture.md lists.
 */
#include <string.h>

#include "sys/msg.h"

#define INSERT PM_MACH_TASK__insert_right
#define EXTRACT PM_MACH_TASK__extract_right
#define OBSERVE PM_MACH_TASK__observe

static struct entry *lookup(struct call *call, uint32_t name) {
    return space_lookup(call_ipc(call), call_space(call), name);
}

/* Most calls: arguments a, b, wide, and one answer. */
struct name_call {
    struct call call;
    uint32_t name, a;
    int32_t delta;
    uint64_t wide, wide2;
    uint64_t answer;
    void *out;
    const void *in;
};

#define RUN(operation, attempt, ...)                                                  \
    struct name_call args = {.name = name, __VA_ARGS__};                              \
    int code = call_init(&args.call, caller, task, operation, name);                  \
    if (!code) code = call_run(&args.call, attempt)

/* ==== allocation ================================================================================================= */

struct port_call {
    struct call call;
    struct pm_port_options options;
    uint32_t right;
    uint32_t name;
};

static int ask_label(struct call *call, uint32_t *sid) {
    struct pm_kernel *kernel = call->kernel;
    *sid = call_space(call)->sid;
    if (!(kernel->mac.policy & PM_POLICY_LABELS_PORTS)) return 0;
    struct pm_query question = {.kind = PM_QUERY_LABEL_PORT, .ssid = call->caller->space.sid, .tsid = *sid,
                                .tclass = PM_CLASS_MACH_PORT};
    const struct pm_query *answer = mac_ask(&call->mac, &question);
    if (!answer) return CALL_MISS;
    if (answer->label ? !sids_alive(&kernel->sids, answer->label) : answer->code) return KERN_NO_ACCESS;
    if (answer->label) *sid = answer->label;
    return 0;
}

/* A label that was asked for, in place of the policy's, is a relabelling at birth. */
static int choose_label(struct call *call, uint32_t wanted, uint32_t *sid) {
    int code = ask_label(call, sid);
    if (code || !wanted || wanted == *sid) return code;
    if (!sids_alive(&call->kernel->sids, wanted)) return KERN_INVALID_ARGUMENT;
    code = call_check_relabel(call, &port_relabelling, *sid, wanted);
    *sid = wanted;
    return code;
}

static int new_entry(struct call *call, uint32_t name, struct entry **entry) {
    struct space *space = call_space(call);
    if (name) return space_take_named(space, call_ipc(call), name, entry);
    int code = space_reserve(space, call_ipc(call), 1);
    if (!code) *entry = space_take(space, call_ipc(call));
    return code;
}

static bool ports_left(struct call *call) {
    const struct space *space = call_space(call);
    if (!space->quota.ports || space->usage.ports < space->quota.ports) return true;
    call_ipc(call)->quota_refusals++;
    return false;
}

static void trace_place(struct space *space, struct port *port, const struct pm_port_options *options) {
    port->rest->trace_owner = options->trace_owner ? options->trace_owner : space->trace_identity;
    port->rest->trace_kind = options->trace_kind;
    port->rest->trace_number = options->trace_number >= 0 ? options->trace_number : (int32_t)++space->next_port_number;
}

static void apply_options(struct port *port, struct entry *entry, const struct pm_port_options *options) {
    uint32_t flags = options->flags;
    if (flags & MPO_QLIMIT) port->qlimit = options->qlimit;
    if (flags & MPO_INSERT_SEND_RIGHT) {
        entry->bits |= MACH_PORT_TYPE_SEND;
        entry->urefs = 1;
        port->srights = port->rest->mscount = 1;
    }
    port->rest->context = options->context;
    if (flags & MPO_CONTEXT_AS_GUARD) {
        port->flags |= PORT_GUARDED | (flags & MPO_STRICT ? PORT_STRICT : 0) |
                       (flags & MPO_IMMOVABLE_RECEIVE ? PORT_IMMOVABLE : 0);
    }
    if (flags & MPO_TEMPOWNER) port->flags |= PORT_TEMPOWNER;
    if (flags & MPO_IMPORTANCE_RECEIVER) port->flags |= PORT_IMPORTANCE;
    if (flags & MPO_DENAP_RECEIVER) port->flags |= PORT_DENAP;
    if (flags & MPO_REPLY_PORT) port->flags |= PORT_REPLY;
    if (flags & MPO_ENFORCE_REPLY_PORT_SEMANTICS) port->flags |= PORT_ENFORCES_REPLY;
}

static int make_port(struct port_call *args, uint32_t sid) {
    struct call *call = &args->call;
    struct space *space = call_space(call);
    struct entry *entry;
    if (!ports_left(call)) return KERN_RESOURCE_SHORTAGE;
    struct port *port = port_create(call_ipc(call), space, sid);
    if (!port) return KERN_RESOURCE_SHORTAGE;
    int code = new_entry(call, args->options.name, &entry);
    if (code) {
        port_unref(call_ipc(call), port);
        return code;
    }
    entry->object = port;
    entry->bits |= MACH_PORT_TYPE_RECEIVE;
    port_set_receiver(port, space, entry_name(space, entry));
    trace_place(space, port, &args->options);
    apply_options(port, entry, &args->options);
    args->name = port->rest->receiver_name;
    return 0;
}

static int attempt_construct(struct call *call) {
    struct port_call *args = (struct port_call *)call;
    uint32_t sid;
    int code = call_enter(call, INSERT);
    if (code && code != CALL_MISS) return code;
    int labelled = choose_label(call, args->options.sid, &sid);
    if (labelled) return code ? code : labelled;
    code = call_ready(call);
    return code ? code : make_port(args, sid);
}

static bool at_most_one(uint32_t flags) { return !(flags & (flags - 1)); }

static int options_fault(const struct pm_port_options *options) {
    const uint32_t services = MPO_SERVICE_PORT | MPO_CONNECTION_PORT | MPO_TG_BLOCK_TRACKING;
    const uint32_t replies = MPO_REPLY_PORT | MPO_ENFORCE_REPLY_PORT_SEMANTICS | MPO_EXCEPTION_PORT |
                             MPO_PROVISIONAL_REPLY_PORT;
    if (!at_most_one(options->flags & services) || !at_most_one(options->flags & replies)) return KERN_INVALID_ARGUMENT;
    if (options->flags & (MPO_SERVICE_PORT | MPO_CONNECTION_PORT)) return KERN_INVALID_ARGUMENT;
    if (options->flags & MPO_REPLY_PORT && options->flags & MPO_INSERT_SEND_RIGHT) return KERN_INVALID_ARGUMENT;
    if (options->flags & MPO_QLIMIT && options->qlimit > MACH_PORT_QLIMIT_MAX) return KERN_INVALID_VALUE;
    return 0;
}

int64_t pm_port_construct(struct pm_task *caller, struct pm_task *task, const struct pm_port_options *options) {
    struct port_call args = {.options = *options, .right = MACH_PORT_RIGHT_RECEIVE};
    int code = options_fault(options);
    if (code) return -(int64_t)call_fail(caller, task, PM_OP_NAME, options->name, code);
    code = call_init(&args.call, caller, task, PM_OP_NAME, options->name);
    if (!code) code = call_run(&args.call, attempt_construct);
    return code ? -(int64_t)code : (int64_t)args.name;
}

static int attempt_allocate_other(struct call *call) {
    struct port_call *args = (struct port_call *)call;
    struct ipc *ipc = call_ipc(call);
    struct pset *set = NULL;
    struct entry *entry;
    int code = call_enter(call, INSERT);
    if (!code) code = call_ready(call);
    if (code) return code;
    if (args->right == MACH_PORT_RIGHT_PORT_SET && !(set = pset_create(ipc, call_space(call), 0)))
        return KERN_RESOURCE_SHORTAGE;
    code = new_entry(call, args->options.name, &entry);
    if (code && set) pset_destroy(ipc, set);
    if (code) return code;
    entry->object = set;
    entry->bits |= set ? MACH_PORT_TYPE_PORT_SET : MACH_PORT_TYPE_DEAD_NAME;
    entry->urefs = !set;
    args->name = entry_name(call_space(call), entry);
    if (set) set->name = args->name;
    return 0;
}

int64_t pm_port_allocate(struct pm_task *caller, struct pm_task *task, uint32_t right, uint32_t name) {
    struct port_call args = {.options = {.name = name, .trace_number = -1}, .right = right};
    bool receive = right == MACH_PORT_RIGHT_RECEIVE;
    if (!receive && right != MACH_PORT_RIGHT_PORT_SET && right != MACH_PORT_RIGHT_DEAD_NAME)
        return -(int64_t)call_fail(caller, task, PM_OP_NAME, name, KERN_INVALID_VALUE);
    int code = call_init(&args.call, caller, task, PM_OP_NAME, name);
    if (!code) code = call_run(&args.call, receive ? attempt_construct : attempt_allocate_other);
    return code ? -(int64_t)code : (int64_t)args.name;
}

/* ==== questions ================================================================================================== */

/* With the pseudo-types that show a request. */
static uint32_t shown_type(const struct entry *entry) {
    uint32_t type = entry_type(entry);
    if (!entry->request) return type;
    return type | (entry->request->send_possible ? MACH_PORT_TYPE_SPREQUEST : MACH_PORT_TYPE_DNREQUEST);
}

static int attempt_type(struct call *call) {
    struct name_call *args = (struct name_call *)call;
    int code = call_enter(call, OBSERVE);
    if (!code) code = call_ready(call);
    if (code) return code;
    args->answer = MACH_PORT_TYPE_DEAD_NAME;
    if (args->name == MACH_PORT_DEAD) return 0;
    struct entry *entry = lookup(call, args->name);
    if (!entry) return KERN_INVALID_NAME;
    args->answer = shown_type(entry);
    return 0;
}

int64_t pm_port_type(struct pm_task *caller, struct pm_task *task, uint32_t name) {
    RUN(PM_OP_NAME, attempt_type);
    return code ? -(int64_t)code : (int64_t)args.answer;
}

struct names_call {
    struct call call;
    uint32_t *names, *types, capacity, count;
};

static int attempt_names(struct call *call) {
    struct names_call *args = (struct names_call *)call;
    struct space *space = call_space(call);
    int code = call_enter(call, OBSERVE);
    if (!code) code = call_ready(call);
    args->count = 0;
    for (uint32_t i = 1; !code && i < space->used; i++) {
        if (!entry_type(&space->table[i])) continue;
        uint32_t name = entry_name(space, &space->table[i]);
        struct entry *entry = lookup(call, name);
        if (args->count < args->capacity) {
            args->names[args->count] = name;
            args->types[args->count] = shown_type(entry);
        }
        args->count++;
    }
    return code;
}

int64_t pm_port_names(struct pm_task *caller, struct pm_task *task, uint32_t *names, uint32_t *types,
                      uint32_t capacity) {
    struct names_call args = {.names = names, .types = types, .capacity = capacity};
    int code = call_init(&args.call, caller, task, PM_OP_NAME, 0);
    if (!code) code = call_run(&args.call, attempt_names);
    return code ? -(int64_t)code : (int64_t)args.count;
}

static int attempt_get_refs(struct call *call) {
    struct name_call *args = (struct name_call *)call;
    int code = call_enter(call, OBSERVE);
    if (!code) code = call_ready(call);
    if (code) return code;
    if (args->a >= MACH_PORT_RIGHT_NUMBER) return KERN_INVALID_VALUE;
    args->answer = 1;
    if (!name_valid(args->name))
        return args->a == MACH_PORT_RIGHT_SEND || args->a == MACH_PORT_RIGHT_SEND_ONCE ? 0 : KERN_INVALID_NAME;
    struct entry *entry = lookup(call, args->name);
    if (!entry) return KERN_INVALID_NAME;
    uint32_t type = entry_type(entry) & type_of_right[args->a];
    if (!type) args->answer = 0;
    else if (type & (MACH_PORT_TYPE_SEND | MACH_PORT_TYPE_DEAD_NAME)) args->answer = entry->urefs;
    return 0;
}

int64_t pm_port_get_refs(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t right) {
    RUN(PM_OP_NAME, attempt_get_refs, .a = right);
    return code ? -(int64_t)code : (int64_t)args.answer;
}

/* ==== references ================================================================================================= */

static int guarded(struct call *call, const struct entry *entry, uint32_t name, uint32_t flavor) {
    const struct port *port = entry->object;
    if (!(entry_type(entry) & MACH_PORT_TYPE_RECEIVE) || !(port->flags & PORT_GUARDED)) return 0;
    site_port(&call->site, port);
    return call_violation(call, call_space(call), name, flavor, port->rest->context, KERN_INVALID_RIGHT);
}

static int attempt_mod_refs(struct call *call) {
    struct name_call *args = (struct name_call *)call;
    int code = call_enter(call, EXTRACT);
    if (!code) code = call_ready(call);
    if (code) return code;
    if (args->a >= MACH_PORT_RIGHT_NUMBER) return KERN_INVALID_VALUE;
    if (!name_valid(args->name))
        return args->a == MACH_PORT_RIGHT_SEND || args->a == MACH_PORT_RIGHT_SEND_ONCE ? 0 : KERN_INVALID_NAME;
    struct entry *entry = lookup(call, args->name);
    if (!entry) return KERN_INVALID_NAME;
    if (args->a == MACH_PORT_RIGHT_RECEIVE && args->delta == -1) code = guarded(call, entry, args->name, kGUARD_EXC_MOD_REFS);
    return code ? code : right_delta(call_ipc(call), call_space(call), entry, args->a, args->delta, &call->after);
}

int pm_port_mod_refs(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t right, int32_t delta) {
    RUN(PM_OP_NAME, attempt_mod_refs, .a = right, .delta = delta);
    return code;
}

static int attempt_deallocate(struct call *call) {
    struct name_call *args = (struct name_call *)call;
    int code = call_enter(call, EXTRACT);
    if (!code) code = call_ready(call);
    if (code || !name_valid(args->name)) return code;
    struct entry *entry = lookup(call, args->name);
    return entry ? right_deallocate(call_ipc(call), call_space(call), entry, &call->after) : KERN_INVALID_NAME;
}

int pm_port_deallocate(struct pm_task *caller, struct pm_task *task, uint32_t name) {
    RUN(PM_OP_NAME, attempt_deallocate);
    return code;
}

static int attempt_destroy(struct call *call) {
    struct name_call *args = (struct name_call *)call;
    int code = call_enter(call, EXTRACT);
    if (!code) code = call_ready(call);
    if (code || !name_valid(args->name)) return code;
    struct entry *entry = lookup(call, args->name);
    if (!entry) return KERN_INVALID_NAME;
    code = guarded(call, entry, args->name, kGUARD_EXC_DESTROY);
    if (!code) right_free(call_ipc(call), call_space(call), entry, &call->after);
    return code;
}

int pm_port_destroy(struct pm_task *caller, struct pm_task *task, uint32_t name) {
    RUN(PM_OP_NAME, attempt_destroy);
    return code;
}

static int destruct_fault(struct name_call *args, const struct entry *entry) {
    struct call *call = &args->call;
    const struct port *port = entry->object;
    if (args->delta && !(entry_type(entry) & MACH_PORT_TYPE_SEND)) return KERN_INVALID_RIGHT;
    if (args->delta > 0 || entry->urefs + (int64_t)args->delta < 0) return KERN_INVALID_VALUE;
    if ((port->flags & PORT_GUARDED ? port->rest->context : 0) == args->wide) return 0;
    return call_violation(call, call_space(call), args->name,
                          port->flags & PORT_GUARDED ? kGUARD_EXC_INCORRECT_GUARD : kGUARD_EXC_UNGUARDED, args->wide,
                          KERN_INVALID_ARGUMENT);
}

static int attempt_destruct(struct call *call) {
    struct name_call *args = (struct name_call *)call;
    int code = call_enter(call, EXTRACT);
    if (!code) code = call_ready(call);
    if (code) return code;
    struct entry *entry = call_receive_entry(call, args->name, &code);
    if (!entry) return code;
    code = destruct_fault(args, entry);
    if (!code) right_destruct(call_ipc(call), call_space(call), entry, (uint32_t)-args->delta, &call->after);
    return code;
}

int pm_port_destruct(struct pm_task *caller, struct pm_task *task, uint32_t name, int32_t srdelta, uint64_t guard) {
    RUN(PM_OP_NAME, attempt_destruct, .delta = srdelta, .wide = guard);
    return code;
}

/* ==== sets ======================================================================================================= */

/* The port and the set of a membership call; set_name 0 leaves *set NULL. */
static int resolve_member(struct call *call, uint32_t name, uint32_t set_name, struct port **port, struct pset **set) {
    if (!name_valid(name) || set_name == MACH_PORT_DEAD) return KERN_INVALID_RIGHT;
    struct entry *member = lookup(call, name), *group = set_name ? lookup(call, set_name) : NULL;
    if (!member || (set_name && !group)) return KERN_INVALID_NAME;
    if (!(entry_type(member) & MACH_PORT_TYPE_RECEIVE)) return KERN_INVALID_RIGHT;
    if (group && !(entry_type(group) & MACH_PORT_TYPE_PORT_SET)) return KERN_INVALID_RIGHT;
    *port = member->object;
    *set = group ? group->object : NULL;
    return 0;
}

static struct set_link *take_link(struct ipc *ipc, struct port *port) {
    return port_extra_reserve(ipc, port) ? pool_take(&ipc->links) : NULL;
}

static int attempt_insert_member(struct call *call) {
    struct name_call *args = (struct name_call *)call;
    struct port *port;
    struct pset *set;
    int code = call_enter(call, INSERT);
    if (!code) code = call_ready(call);
    if (!code) code = args->a ? resolve_member(call, args->name, args->a, &port, &set) : KERN_INVALID_RIGHT;
    if (code) return code;
    if (pset_find(set, port)) return KERN_ALREADY_IN_SET;
    if (port->flags & PORT_HANDLER) return KERN_INVALID_RIGHT;
    struct set_link *link = take_link(call_ipc(call), port);
    if (!link) return KERN_RESOURCE_SHORTAGE;
    pset_add(set, port, link);
    return 0;
}

int pm_port_insert_member(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t set) {
    RUN(PM_OP_NAME, attempt_insert_member, .a = set);
    return code;
}

static int attempt_extract_member(struct call *call) {
    struct name_call *args = (struct name_call *)call;
    struct port *port;
    struct pset *set;
    int code = call_enter(call, EXTRACT);
    if (!code) code = call_ready(call);
    if (!code) code = args->a ? resolve_member(call, args->name, args->a, &port, &set) : KERN_INVALID_RIGHT;
    if (code) return code;
    struct set_link *link = pset_find(set, port);
    if (!link) return KERN_NOT_IN_SET;
    pset_remove(call_ipc(call), link);
    return 0;
}

int pm_port_extract_member(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t set) {
    RUN(PM_OP_NAME, attempt_extract_member, .a = set);
    return code;
}

static int attempt_move_member(struct call *call) {
    struct name_call *args = (struct name_call *)call;
    struct ipc *ipc = call_ipc(call);
    struct port *port;
    struct pset *set;
    int code = call_enter(call, INSERT);
    if (!code) code = call_ready(call);
    if (!code) code = resolve_member(call, args->name, args->a, &port, &set);
    if (code) return code;
    if (!set && !port_sets(port)) return KERN_NOT_IN_SET;
    if (port->flags & PORT_HANDLER) return KERN_INVALID_RIGHT;
    struct set_link *link = set ? take_link(ipc, port) : NULL;
    if (set && !link) return KERN_RESOURCE_SHORTAGE;
    psets_leave(ipc, port);
    if (set) pset_add(set, port, link);
    return 0;
}

int pm_port_move_member(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t after) {
    RUN(PM_OP_NAME, attempt_move_member, .a = after);
    return code;
}

static void sort_words(uint32_t *words, uint32_t count) {
    for (uint32_t gap = count / 2; gap; gap /= 2)
        for (uint32_t i = gap; i < count; i++) {
            uint32_t word = words[i], at = i;
            for (; at >= gap && words[at - gap] > word; at -= gap) words[at] = words[at - gap];
            words[at] = word;
        }
}

static int attempt_set_status(struct call *call) {
    struct names_call *args = (struct names_call *)call;
    int code = call_enter(call, OBSERVE);
    if (!code) code = call_ready(call);
    if (code) return code;
    struct entry *entry = lookup(call, call->site.name);
    if (!name_valid(call->site.name)) return KERN_INVALID_RIGHT;
    if (!entry) return KERN_INVALID_NAME;
    if (!(entry_type(entry) & MACH_PORT_TYPE_PORT_SET)) return KERN_INVALID_RIGHT;
    struct pset *set = entry->object;
    args->count = 0;
    list_each(&set->members, node) {
        uint32_t member = container_of(node, struct set_link, in_set)->port->rest->receiver_name;
        if (args->count < args->capacity) args->names[args->count] = member;
        args->count++;
    }
    sort_words(args->names, args->count < args->capacity ? args->count : args->capacity);
    return 0;
}

int64_t pm_port_get_set_status(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t *members,
                               uint32_t capacity) {
    struct names_call args = {.names = members, .capacity = capacity};
    int code = call_init(&args.call, caller, task, PM_OP_NAME, name);
    if (!code) code = call_run(&args.call, attempt_set_status);
    return code ? -(int64_t)code : (int64_t)args.count;
}

#undef RUN
#undef INSERT
#undef EXTRACT
#undef OBSERVE
