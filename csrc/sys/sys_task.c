/* SPDX-License-Identifier: BSD-2-Clause */
/* Tasks: life, label, quota, special and registered ports, memory. */
#include <string.h>

#include "sys/msg.h"

/* ==== life ======================================================================================================= */

struct create_call {
    struct call call;
    uint32_t sid;
    const char *name;
    size_t length;
    const struct pm_identity *identity;
    const struct pm_quota *quota;
    struct pm_task *made;
};

/* In cache lines, so that it begins on one. */
static size_t task_size(size_t length) { return (sizeof(struct pm_task) + length + 1 + 63) / 64 * 64; }

static struct pm_task *task_alloc(struct pm_kernel *kernel, const struct create_call *args) {
    struct pm_task *task = heap_alloc(&kernel->parts[PART_TASKS], task_size(args->length));
    if (!task) return NULL;
    memset(task, 0, sizeof *task);
    task->kernel = kernel;
    task->handles = 1;
    task->name_length = (uint32_t)args->length;
    memcpy(task->name, args->name, args->length);
    task->name[args->length] = 0;
    if (space_init(&task->space, &kernel->ipc)) {
        task->space.trace_identity = trace_identity(&kernel->trace, args->name, (uint32_t)args->length);
        if (task->space.trace_identity) return task;
    }
    space_destroy(&task->space, &kernel->ipc);
    heap_free(&kernel->parts[PART_TASKS], task, task_size(args->length));
    return NULL;
}

static struct port *inherit(struct port *port) {
    if (!port || !port_active(port)) return NULL;
    right_copy_send(port);
    return port;
}

static void inherit_ports(struct pm_task *task, const struct pm_task *parent) {
    for (size_t i = 0; i < array_count(task->special); i++) task->special[i] = inherit(parent->special[i]);
    for (size_t i = 0; i < array_count(task->registered); i++) task->registered[i] = inherit(parent->registered[i]);
}

static int make_task(struct create_call *args, struct pm_kernel *kernel, struct pm_task *parent, uint32_t sid) {
    struct selection *selection = &kernel->mac.audit.selection;
    if (kernel->next_task_id == UINT32_MAX) return KERN_NO_SPACE;
    if (!tasks_reserve(&kernel->by_id, kernel->next_task_id + 1)) return KERN_RESOURCE_SHORTAGE;
    if (!selection_pick(selection, kernel->next_task_id + 1, args->name, (uint32_t)args->length)) return KERN_RESOURCE_SHORTAGE;
    struct pm_task *task = task_alloc(kernel, args);
    if (!task) {
        selection_unpick(selection, kernel->next_task_id + 1);
        return KERN_RESOURCE_SHORTAGE;
    }
    struct space *space = &task->space;
    space->id = ++kernel->next_task_id;
    space->sid = sid;
    sids_retain(&kernel->sids, sid);
    if (args->identity) space->identity = *args->identity;
    else if (parent) space->identity = parent->space.identity;
    if (args->quota) space->quota = *args->quota;
    else if (parent) space->quota = parent->space.quota;
    if (parent) {
        task->parent = parent->space.id;
        inherit_ports(task, parent);
    }
    list_append(&kernel->tasks, &space->tasks);
    tasks_put(&kernel->by_id, space->id, task);
    kernel->tasks_alive++;
    space_ref(space);                   /* one for being alive, one for the handle */
    kernel->refs++;
    args->made = task;
    return 0;
}

/* The label that the policy has for a child. */
static int policy_label(struct call *call, uint32_t *sid) {
    struct pm_kernel *kernel = call->kernel;
    *sid = call->caller->space.sid;
    if (!(kernel->mac.policy & PM_POLICY_LABELS_TASKS)) return 0;
    struct pm_query question = {.kind = PM_QUERY_LABEL_TASK, .ssid = call->mac.sid, .tsid = call->mac.sid,
                                .tclass = PM_CLASS_MACH_TASK};
    const struct pm_query *answer = mac_ask(&call->mac, &question);
    if (!answer) return CALL_MISS;
    if (!answer->label && answer->code) return KERN_NO_ACCESS;
    if (answer->label) *sid = answer->label;
    return 0;
}

/* Another label than the policy's is a change of it at birth: beside `create` on the label itself, modules are asked. */
static int check_create(struct call *call, uint32_t given, uint32_t sid) {
    if (!sids_alive(&call->kernel->sids, sid)) return KERN_INVALID_ARGUMENT;
    if (sid == given) return call_check(call, sid, PM_CLASS_MACH_TASK, PM_MACH_TASK__create, KERN_NO_ACCESS);
    return call_check_change(call, PM_CLASS_MACH_TASK, PM_MACH_TASK__create, given, sid);
}

static int attempt_create(struct call *call) {
    struct create_call *args = (struct create_call *)call;
    uint32_t given, sid;
    int code = call_enter(call, 0);
    if (!code) code = policy_label(call, &given);
    if (code) return code;
    sid = args->sid ? args->sid : given;
    code = check_create(call, given, sid);
    if (!code) code = call_ready(call);
    return code ? code : make_task(args, call->kernel, call->caller, sid);
}

static int create_first(struct create_call *args, struct pm_kernel *kernel) {
    kernel_lock(kernel);
    int code = !kernel->alive ? KERN_TERMINATED : sids_alive(&kernel->sids, args->sid) ? 0 : KERN_INVALID_ARGUMENT;
    if (!code) code = make_task(args, kernel, NULL, args->sid);
    kernel_unlock(kernel);
    return code;
}

int pm_task_create(struct pm_kernel *kernel, struct pm_task *parent, const char *name, uint32_t sid,
                   const struct pm_identity *identity, const struct pm_quota *quota, struct pm_task **task) {
    struct create_call args = {.sid = sid, .name = name, .identity = identity, .quota = quota};
    if (!kernel || !name || !task || (parent && parent->kernel != kernel)) return KERN_INVALID_ARGUMENT;
    if (kernel_forked(kernel)) return PM_FORKED;
    args.length = strnlen(name, PM_TASK_NAME_MAX + 1);
    if (!args.length || args.length > PM_TASK_NAME_MAX) return KERN_INVALID_ARGUMENT;
    int code = parent ? call_init(&args.call, parent, parent, PM_OP_TASK, 0) : 0;
    if (!code) code = parent ? call_run(&args.call, attempt_create) : create_first(&args, kernel);
    if (!code) *task = args.made;
    return code;
}

static void drop_kept_ports(struct pm_kernel *kernel, struct port **ports, size_t count, struct after *after) {
    for (size_t i = 0; i < count; i++) {
        if (ports[i]) right_destroy(&kernel->ipc, ports[i], MACH_MSG_TYPE_PORT_SEND, after);
        ports[i] = NULL;
    }
}

void task_end(struct pm_kernel *kernel, struct pm_task *task, struct after *after) {
    struct space *space = &task->space;
    __atomic_store_n(&space->alive, false, __ATOMIC_RELAXED);   /* pm_task_alive() looks without the lock */
    kernel->tasks_alive--;
    list_each(&space->waiters, node) {
        struct waiter *waiter = container_of(node, struct waiter, in_space);
        list_remove(&waiter->in_queue);
        waiter->code = KERN_TERMINATED;
        waiter->woken = true;
        sleeper_wake(&waiter->sleeper);
    }
    for (uint32_t i = 1; i < space->used; i++) {
        if (!entry_type(&space->table[i])) continue;
        struct entry *entry = space_lookup(&kernel->ipc, space, entry_name(space, &space->table[i]));
        right_free(&kernel->ipc, space, entry, after);
    }
    drop_kept_ports(kernel, task->special, array_count(task->special), after);
    drop_kept_ports(kernel, task->registered, array_count(task->registered), after);
    regions_free(kernel, space);
    space_unref(&kernel->ipc, space);
}

void space_free(struct ipc *ipc, struct space *space) {
    struct pm_task *task = task_of(space);
    struct pm_kernel *kernel = task->kernel;
    list_remove(&space->tasks);
    tasks_remove(&kernel->by_id, space->id);
    selection_unpick(&kernel->mac.audit.selection, space->id);
    kernel_release_sid(kernel, space->sid);
    while (space->past_used) kernel_release_sid(kernel, space->past_sids[--space->past_used]);
    space_destroy(space, ipc);
    heap_free(&kernel->parts[PART_TASKS], task, task_size(task->name_length));
}

static int attempt_terminate(struct call *call) {
    int code = call_enter(call, PM_MACH_TASK__terminate);
    if (!code) code = call_ready(call);
    if (!code) task_end(call->kernel, call->task, &call->after);
    return code;
}

int pm_task_terminate(struct pm_task *caller, struct pm_task *task) {
    struct call call;
    int code = call_init(&call, caller, task, PM_OP_TASK, 0);
    return code ? code : call_run(&call, attempt_terminate);
}

int pm_task_retain(struct pm_task *task) {
    struct pm_kernel *kernel = task->kernel;
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    task->handles++;
    space_ref(&task->space);
    kernel->refs++;
    kernel_unlock(kernel);
    return 0;
}

void pm_task_release(struct pm_task *task) {
    struct pm_kernel *kernel = task->kernel;
    if (kernel_forked(kernel)) return;
    kernel_lock(kernel);
    task->handles--;
    space_unref(&kernel->ipc, &task->space);
    kernel_unref_unlock(kernel);
}

/* Messages under way bear the label of send time, so it is kept until none is. A message that is never read must not make a task
 * that is relabelled again and again grow without end. */
#define PAST_LABELS_MAX 1024

static bool keep_past_label(struct ipc *ipc, struct space *space) {
    if (space->past_used < space->past_room) return true;
    if (space->past_used >= PAST_LABELS_MAX) return false;
    uint32_t room = space->past_room ? 2 * space->past_room : 4;
    uint32_t *grown = heap_grow(ipc->names_heap, space->past_sids, space->past_room * sizeof *grown, room * sizeof *grown);
    if (!grown) return false;
    space->past_sids = grown;
    space->past_room = room;
    return true;
}

struct relabel_call { struct call call; uint32_t sid; };

static int attempt_relabel_task(struct call *call) {
    struct relabel_call *args = (struct relabel_call *)call;
    struct space *space = &call->task->space;
    if (!space->alive || !call->caller->space.alive) return KERN_INVALID_TASK;
    if (!sids_alive(&call->kernel->sids, args->sid)) return KERN_INVALID_ARGUMENT;
    int code = call_check_relabel(call, &task_relabelling, space->sid, args->sid);
    if (!code) code = call_ready(call);
    if (!code && space->in_flight && !keep_past_label(call_ipc(call), space)) code = KERN_RESOURCE_SHORTAGE;
    if (code) return code;
    sids_retain(&call->kernel->sids, args->sid);
    if (space->in_flight) space->past_sids[space->past_used++] = space->sid;
    else kernel_release_sid(call->kernel, space->sid);
    __atomic_store_n(&space->sid, args->sid, __ATOMIC_RELAXED); /* so does pm_task_sid() */
    return 0;
}

int pm_task_relabel(struct pm_task *caller, struct pm_task *task, uint32_t sid) {
    struct relabel_call args = {.sid = sid};
    int code = call_init(&args.call, caller, task, PM_OP_RELABEL, 0);
    return code ? code : call_run(&args.call, attempt_relabel_task);
}

uint32_t pm_task_sid(struct pm_task *task) { return __atomic_load_n(&task->space.sid, __ATOMIC_RELAXED); }
uint32_t pm_task_id(struct pm_task *task) { return task->space.id; }
int pm_task_alive(struct pm_task *task) {
    return !kernel_forked(task->kernel) && __atomic_load_n(&task->space.alive, __ATOMIC_RELAXED);
}
const char *pm_task_name(struct pm_task *task) { return task->name; }

int pm_task_set_quota(struct pm_task *task, const struct pm_quota *quota) {
    if (kernel_forked(task->kernel)) return PM_FORKED;
    kernel_lock(task->kernel);
    task->space.quota = *quota;
    kernel_unlock(task->kernel);
    return 0;
}

int pm_task_usage(struct pm_task *task, struct pm_usage *usage) {
    if (kernel_forked(task->kernel)) return PM_FORKED;
    kernel_lock(task->kernel);
    *usage = task->space.usage;
    usage->names = task->space.names;
    kernel_unlock(task->kernel);
    return 0;
}

int pm_task_take_violation(struct pm_task *task, struct pm_violation *violation) {
    if (kernel_forked(task->kernel)) return 0;
    kernel_lock(task->kernel);
    *violation = task->space.violation;
    task->space.violation = (struct pm_violation){0};
    kernel_unlock(task->kernel);
    return violation->flavor != 0;
}

/* ==== special and registered ports =============================================================================== */

struct kept_call {
    struct call call;
    uint32_t which, count, names[TASK_PORT_REGISTER_MAX];
    struct entry *entries[TASK_PORT_REGISTER_MAX];
};

/* The send right behind a name of the caller, and whether the task may be given a copy of it. */
static int check_keep(struct kept_call *args, uint32_t i) {
    struct call *call = &args->call;
    uint32_t sid = call->mac.sid;
    args->entries[i] = NULL;
    if (args->names[i] == MACH_PORT_NULL || args->names[i] == MACH_PORT_DEAD) return 0;
    struct entry *entry = space_lookup(call_ipc(call), &call->caller->space, args->names[i]);
    if (!entry) return KERN_INVALID_NAME;
    if (!(entry_type(entry) & MACH_PORT_TYPE_SEND)) return KERN_INVALID_RIGHT;
    args->entries[i] = entry;
    int give = call_check_port(call, entry->object, PM_MACH_PORT__copy_send, KERN_NO_ACCESS);
    if (give && give != CALL_MISS) return give;
    call->mac.sid = call->task->space.sid;
    int take = call_check_port(call, entry->object, PM_MACH_PORT__hold_send, KERN_NO_ACCESS);
    call->mac.sid = sid;
    return take ? take : give;
}

static void replace_kept(struct call *call, struct port **slot, struct entry *entry) {
    if (*slot) right_destroy(call_ipc(call), *slot, MACH_MSG_TYPE_PORT_SEND, &call->after);
    *slot = entry ? entry->object : NULL;
    if (*slot) right_copy_send(*slot);
}

static int attempt_set_kept(struct call *call) {
    struct kept_call *args = (struct kept_call *)call;
    struct pm_task *task = call->task;
    if (!task->space.alive || !call->caller->space.alive) return KERN_INVALID_TASK;
    int code = call_check(call, task->space.sid, PM_CLASS_MACH_TASK, PM_MACH_TASK__set_special_port, KERN_NO_ACCESS);
    if (code && code != CALL_MISS) return code;
    for (uint32_t i = 0; i < args->count; i++) {
        int kept = check_keep(args, i);
        if (kept && kept != CALL_MISS) return call->mac.missed ? CALL_MISS : kept;
    }
    code = call_ready(call);
    for (uint32_t i = 0; !code && i < args->count; i++)
        replace_kept(call, args->which ? &task->special[args->which] : &task->registered[i], args->entries[i]);
    return code;
}

/* Arguments that are wrong on their face are refused, and so recorded, as whatever is wrong inside. */
static int run_kept(struct kept_call *args, bool good, call_attempt attempt) {
    return good ? call_run(&args->call, attempt) : call_refuse(&args->call, KERN_INVALID_ARGUMENT);
}

static bool is_special(uint32_t which) { return which && which < PM_SPECIAL_PORTS; }

int pm_task_set_special_port(struct pm_task *caller, struct pm_task *task, uint32_t which, uint32_t poly) {
    struct kept_call args = {.which = which, .count = 1, .names = {poly}};
    int code = call_init(&args.call, caller, task, PM_OP_TASK, poly);
    return code ? code : run_kept(&args, is_special(which), attempt_set_kept);
}

int pm_ports_register(struct pm_task *caller, struct pm_task *task, const uint32_t *names, uint32_t count) {
    struct kept_call args = {.count = TASK_PORT_REGISTER_MAX};
    bool good = count <= TASK_PORT_REGISTER_MAX && (names || !count);
    if (good && count) memcpy(args.names, names, count * sizeof *names);
    int code = call_init(&args.call, caller, task, PM_OP_TASK, 0);
    return code ? code : run_kept(&args, good, attempt_set_kept);
}

/* A copy of what the task keeps, for the caller. */
static int check_get(struct call *call, const struct port *port) {
    return port && port_active(port) ? call_check_port(call, port, PM_MACH_PORT__hold_send, KERN_NO_ACCESS) : 0;
}

static uint32_t copy_out(struct call *call, struct port *port) {
    bool dropped;
    if (!port || !port_active(port)) return MACH_PORT_NULL;
    if (!call->transfer) call->transfer = ++call_ipc(call)->transfers;
    right_copy_send(port);
    uint32_t name = right_take(call_ipc(call), &call->caller->space, port, MACH_MSG_TYPE_PORT_SEND, call->transfer,
                               &call->after, &dropped);
    if (pm_unlikely(call->mac.records_used)) mac_took(&call->mac, port->rest->id, PM_MACH_PORT__hold_send, call->transfer, name);
    return name;
}

static int attempt_get_kept(struct call *call) {
    struct kept_call *args = (struct kept_call *)call;
    struct pm_task *task = call->task;
    struct port **kept = args->which ? &task->special[args->which] : task->registered;
    if (!task->space.alive || !call->caller->space.alive) return KERN_INVALID_TASK;
    int code = call_check(call, task->space.sid, PM_CLASS_MACH_TASK, PM_MACH_TASK__get_special_port, KERN_NO_ACCESS);
    if (code && code != CALL_MISS) return code;
    for (uint32_t i = 0; i < args->count; i++) {
        int held = check_get(call, kept[i]);
        if (held && held != CALL_MISS) return code ? code : held;
    }
    code = call_ready(call);
    if (!code) code = space_reserve(&call->caller->space, call_ipc(call), args->count);
    for (uint32_t i = 0; !code && i < args->count; i++) args->names[i] = copy_out(call, kept[i]);
    return code;
}

int64_t pm_task_get_special_port(struct pm_task *caller, struct pm_task *task, uint32_t which) {
    struct kept_call args = {.which = which, .count = 1};
    int code = call_init(&args.call, caller, task, PM_OP_TASK, 0);
    if (!code) code = run_kept(&args, is_special(which), attempt_get_kept);
    return code ? -(int64_t)code : (int64_t)args.names[0];
}

int pm_ports_lookup(struct pm_task *caller, struct pm_task *task, uint32_t *names, uint32_t *count) {
    struct kept_call args = {.count = TASK_PORT_REGISTER_MAX};
    if (!names || !count || *count < TASK_PORT_REGISTER_MAX) return KERN_INVALID_ARGUMENT;
    int code = call_init(&args.call, caller, task, PM_OP_TASK, 0);
    if (!code) code = call_run(&args.call, attempt_get_kept);
    if (code) return code;
    memcpy(names, args.names, sizeof args.names);
    *count = TASK_PORT_REGISTER_MAX;
    return 0;
}

/* ==== memory ===================================================================================================== */

/* The first region that ends behind address. */
static uint32_t region_at(const struct space *space, uint64_t address) {
    uint32_t low = 0, high = space->regions_used;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (space->regions[middle].address + space->regions[middle].size > address) high = middle;
        else low = middle + 1;
    }
    return low;
}

bool region_contains(const struct space *space, uint64_t address, uint64_t size) {
    uint32_t i = region_at(space, address);
    if (i == space->regions_used || address < space->regions[i].address) return false;
    return size <= space->regions[i].size - (address - space->regions[i].address);
}

bool regions_reserve(struct pm_kernel *kernel, struct space *space, uint32_t count) {
    uint32_t room = space->regions_room ? space->regions_room : 8;
    if (space->regions_used + count <= space->regions_room) return true;
    while (room < space->regions_used + count) room *= 2;
    struct region *grown = heap_grow(kernel->ipc.names_heap, space->regions, space->regions_room * sizeof *grown,
                                     room * sizeof *grown);
    if (!grown) return false;
    space->regions = grown;
    space->regions_room = room;
    return true;
}

void region_add(struct space *space, uint64_t address, uint64_t size) {
    uint32_t at = region_at(space, address);
    memmove(&space->regions[at + 1], &space->regions[at], (space->regions_used - at) * sizeof *space->regions);
    space->regions[at] = (struct region){address, size};
    space->regions_used++;
    space->usage.memory += size;
}

bool region_remove(struct space *space, uint64_t address, uint64_t size) {
    uint32_t at = region_at(space, address);
    if (at == space->regions_used || space->regions[at].address != address || space->regions[at].size != size) return false;
    memmove(&space->regions[at], &space->regions[at + 1], (space->regions_used - at - 1) * sizeof *space->regions);
    space->regions_used--;
    space->usage.memory -= size;
    return true;
}

void regions_free(struct pm_kernel *kernel, struct space *space) {
    for (uint32_t i = 0; i < space->regions_used; i++)
        heap_free(&kernel->heap, (void *)(uintptr_t)space->regions[i].address, space->regions[i].size);
    space->regions_used = 0;
    space->usage.memory = 0;
}

struct vm_call { struct call call; uint64_t address, size; const void *in; void *out; };

static int attempt_vm_allocate(struct call *call) {
    struct vm_call *args = (struct vm_call *)call;
    struct space *space = &call->task->space;
    if (!space->alive) return KERN_INVALID_TASK;
    if (!args->size || args->size > PM_MESSAGE_MAX) return KERN_INVALID_ARGUMENT;
    if (space->quota.memory && space->usage.memory + args->size > space->quota.memory) {
        call_ipc(call)->quota_refusals++;
        return KERN_NO_SPACE;
    }
    if (!regions_reserve(call->kernel, space, 1)) return KERN_RESOURCE_SHORTAGE;
    void *memory = heap_alloc(&call->kernel->heap, args->size);
    if (!memory) return KERN_RESOURCE_SHORTAGE;
    memset(memory, 0, args->size);
    args->address = (uintptr_t)memory;
    region_add(space, args->address, args->size);
    return 0;
}

static int attempt_vm_deallocate(struct call *call) {
    struct vm_call *args = (struct vm_call *)call;
    if (!call->task->space.alive) return KERN_INVALID_TASK;
    if (!region_remove(&call->task->space, args->address, args->size)) return KERN_INVALID_ARGUMENT;
    heap_free(&call->kernel->heap, (void *)(uintptr_t)args->address, args->size);
    return 0;
}

static int attempt_vm_copy(struct call *call) {
    struct vm_call *args = (struct vm_call *)call;
    void *memory = (void *)(uintptr_t)args->address;
    if (!call->task->space.alive) return KERN_INVALID_TASK;
    if (!args->size) return 0;
    if (!region_contains(&call->task->space, args->address, args->size)) return KERN_INVALID_ARGUMENT;
    if (args->in) memcpy(memory, args->in, args->size);
    else memcpy(args->out, memory, args->size);
    return 0;
}

static int vm_run(struct vm_call *args, struct pm_task *task, call_attempt attempt) {
    int code = call_init(&args->call, task, task, PM_OP_TASK, 0);
    return code ? code : call_run(&args->call, attempt);
}

int64_t pm_vm_allocate(struct pm_task *task, uint64_t size) {
    struct vm_call args = {.size = size};
    int code = vm_run(&args, task, attempt_vm_allocate);
    return code ? -(int64_t)code : (int64_t)args.address;
}

int pm_vm_deallocate(struct pm_task *task, uint64_t address, uint64_t size) {
    struct vm_call args = {.address = address, .size = size};
    return vm_run(&args, task, attempt_vm_deallocate);
}

int pm_vm_write(struct pm_task *task, uint64_t address, const void *data, uint64_t size) {
    struct vm_call args = {.address = address, .size = size, .in = data};
    return data || !size ? vm_run(&args, task, attempt_vm_copy) : KERN_INVALID_ARGUMENT;
}

int pm_vm_read(struct pm_task *task, uint64_t address, void *data, uint64_t size) {
    struct vm_call args = {.address = address, .size = size, .out = data};
    return data || !size ? vm_run(&args, task, attempt_vm_copy) : KERN_INVALID_ARGUMENT;
}
