/* SPDX-License-Identifier: BSD-2-Clause */
#include "sys/call.h"

#define DRAINS_MAX 4                    /* that made no room */

static void call_clear(struct call *call, struct pm_kernel *kernel, uint32_t operation, uint32_t name) {
    call->kernel = kernel;
    call->caller = call->task = NULL;
    call->site = (struct mac_site){.operation = operation, .name = name};
    call->done = false;
    call->transfer = 0;
    call->drains = 0;
    after_init(&call->after);
}

int call_init(struct call *call, struct pm_task *caller, struct pm_task *task, uint32_t operation, uint32_t name) {
    if (!caller || !task || caller->kernel != task->kernel) return KERN_INVALID_TASK;
    if (kernel_forked(task->kernel)) return PM_FORKED;
    call_clear(call, task->kernel, operation, name);
    call->caller = caller;
    call->task = task;
    return 0;
}

int call_init_from_outside(struct call *call, struct pm_kernel *kernel, uint32_t operation, uint32_t name) {
    if (kernel_forked(kernel)) return PM_FORKED;
    call_clear(call, kernel, operation, name);
    return 0;
}

void call_begin(struct call *call) {
    kernel_lock(call->kernel);
    mac_op_init(&call->mac, &call->kernel->mac, call->caller->space.sid, call->caller->space.id);
    call->begun = call->site;
}

void call_restart(struct call *call) {
    mac_op_restart(&call->mac, call->caller->space.sid);
    call->site = call->begun;
}

/* The kernels whose drainers this thread is inside of. */
struct draining { const struct pm_kernel *kernel; const struct draining *outer; };
static _Thread_local const struct draining *draining;

static bool drains(const struct pm_kernel *kernel) {
    for (const struct draining *at = draining; at; at = at->outer)
        if (at->kernel == kernel) return true;
    return false;
}

static bool run_drainer(struct pm_kernel *kernel, pm_drainer drainer, void *context) {
    struct draining now = {kernel, draining};
    draining = &now;
    bool drained = drainer(context) == 0;
    draining = now.outer;
    return drained;
}

/* A drainer makes room in the ring; without one that does, the operation fails. So does what a drainer does itself: nobody would
 * make room for it but another drainer, inside of that one. */
static bool drain(struct call *call) {
    struct audit *audit = &call->kernel->mac.audit;
    pm_drainer drainer = audit->drainer;
    void *context = audit->drainer_context;
    if (audit->full != PM_AUDIT_BLOCK || audit->halted || !drainer || call->drains == DRAINS_MAX) return false;
    if (drains(call->kernel)) return false;
    uint64_t tail = audit->tail;
    kernel_unlock(call->kernel);
    bool drained = run_drainer(call->kernel, drainer, context);
    kernel_lock(call->kernel);
    call->drains = audit->tail == tail ? call->drains + 1 : 0;
    return drained;
}

void write_through_note(struct write_through *through, const struct audit *audit, bool recorded) {
    through->drainer = recorded && audit->synchronous ? audit->drainer : NULL;
    through->context = audit->drainer_context;
}

void write_through(const struct write_through *through) {
    static _Thread_local bool within;
    if (pm_likely(!through->drainer) || within) return;
    within = true;
    through->drainer(through->context);
    within = false;
}

bool call_again(struct call *call, int code) {
    if (code == PM_AUDIT_FULL) return drain(call);
    if (code != CALL_MISS) return false;
    kernel_unlock(call->kernel);
    mac_resolve(&call->mac);
    kernel_lock(call->kernel);
    mac_absorb(&call->mac);
    return true;
}

/* Why a call was refused is for the thread that made it: others may make calls of the same task. */
static _Thread_local struct { const struct pm_task *task; struct pm_denial denial; } refused;

/*
 * A refusal stands whether or not its record can be kept; so that it can, who drains may do so first. What the refusal destroyed
 * goes before that: others may look meanwhile.
 */
static void room_for_refusal(struct call *call) {
    const struct audit *audit = &call->kernel->mac.audit;
    uint32_t records = mac_trail_records(&call->mac) + 2;      /* one for an error, one for what was lost before */
    if (audit->full != PM_AUDIT_BLOCK || audit_has_room(audit, records)) return;
    kernel_leave(call->kernel, &call->after);
    after_init(&call->after);
    kernel_lock(call->kernel);
    while (!audit_has_room(audit, records) && drain(call)) continue;
}

int call_end(struct call *call, int code) {
    call->kernel->calls += call->caller != NULL;       /* a question from outside is no operation */
    if (pm_unlikely(code) && code != PM_AUDIT_FULL) room_for_refusal(call);     /* that one has waited for room already */
    struct write_through through;
    mac_commit(&call->mac, code, code == 0 || call->done, call->transfer, &call->site);
    write_through_note(&through, &call->kernel->mac.audit, call->mac.recorded);
    mac_op_done(&call->mac);
    kernel_leave(call->kernel, &call->after);
    write_through(&through);
    if (pm_unlikely(code || call->mac.denial.operation != PM_OP_NONE)) {
        refused.task = call->caller;
        refused.denial = call->mac.denial;
    }
    return code;
}

int pm_task_take_denial(struct pm_task *task, struct pm_denial *denial) {
    bool found = !kernel_forked(task->kernel) && refused.task == task && refused.denial.operation != PM_OP_NONE;
    if (found) *denial = refused.denial;
    refused.task = NULL;
    return found;
}

int call_run(struct call *call, call_attempt attempt) {
    int code;
    call_begin(call);
    do {
        call_restart(call);
        code = attempt(call);
        if (call->mac.short_of_memory && code == CALL_MISS) code = KERN_RESOURCE_SHORTAGE;
    } while (pm_unlikely(code) && call_again(call, code));
    return call_end(call, code);
}

static int attempt_refusal(struct call *call) {
    bool alive = call->kernel->alive && call->task->space.alive && call->caller->space.alive;
    return alive ? call->refusal : KERN_INVALID_TASK;
}

int call_refuse(struct call *call, int code) {
    call->refusal = code;
    return call_run(call, attempt_refusal);
}

int call_fail(struct pm_task *caller, struct pm_task *task, uint32_t operation, uint32_t name, int with) {
    struct call call;
    int code = call_init(&call, caller, task, operation, name);
    return code ? code : call_refuse(&call, with);
}

int call_enter(struct call *call, uint32_t permission) {
    if (!call->kernel->alive || !call->task->space.alive || !call->caller->space.alive) return KERN_INVALID_TASK;
    if (call->task == call->caller) return 0;
    return call_check(call, call->task->space.sid, PM_CLASS_MACH_TASK, permission, KERN_NO_ACCESS);
}

int call_check(struct call *call, uint32_t tsid, uint32_t tclass, uint32_t permissions, int refusal) {
    return verdict_code(mac_check(&call->mac, tsid, tclass, permissions, &call->site), refusal);
}

int call_check_port(struct call *call, const struct port *port, uint32_t permissions, int refusal) {
    site_port(&call->site, port);
    return call_check(call, port->sid, PM_CLASS_MACH_PORT, permissions, refusal);
}

const struct relabelling port_relabelling = {PM_CLASS_MACH_PORT, PM_MACH_PORT__relabelfrom, PM_MACH_PORT__relabelto};
const struct relabelling task_relabelling = {PM_CLASS_MACH_TASK, PM_MACH_TASK__relabelfrom, PM_MACH_TASK__relabelto};

/* A code that is none of Mach's would make the call go round for ever. */
static int mach_code(int32_t code) { return code < 0 || code >= PM_FORKED ? KERN_NO_ACCESS : code; }

int call_check_change(struct call *call, uint32_t tclass, uint32_t permission, uint32_t old_sid, uint32_t new_sid) {
    if (!(call->kernel->mac.policy & PM_POLICY_CHECKS_RELABEL))
        return call_check(call, new_sid, tclass, permission, KERN_NO_ACCESS);
    struct pm_query question = {.kind = PM_QUERY_RELABEL, .ssid = call->mac.sid, .tsid = old_sid, .label = new_sid,
                                .tclass = tclass};
    int32_t code;
    enum mac_verdict verdict = mac_check_change(&call->mac, permission, &question, &call->site, &code);
    return verdict_code(verdict, mach_code(code));
}

int call_check_relabel(struct call *call, const struct relabelling *kind, uint32_t old_sid, uint32_t new_sid) {
    int from = call_check(call, old_sid, kind->tclass, kind->from, KERN_NO_ACCESS);
    if (from && from != CALL_MISS) return from;
    int to = call_check_change(call, kind->tclass, kind->to, old_sid, new_sid);
    return to ? to : from;
}

int call_ready(struct call *call) {
    if (call->mac.missed) return CALL_MISS;
    if (call->mac.short_of_memory) return KERN_RESOURCE_SHORTAGE;
    return mac_reserve(&call->mac) ? 0 : PM_AUDIT_FULL;
}

int call_violation(struct call *call, struct space *space, uint32_t name, uint32_t flavor, uint64_t payload, int code) {
    struct mac_site site = {.operation = PM_OP_GUARD, .name = name, .port = call->site.port,
                            .receiver = call->site.receiver, .flags = PM_AUDIT_GUARD, .size = flavor};
    space->violation = (struct pm_violation){name, flavor, payload};
    call->kernel->ipc.guard_violations++;
    mac_note(&call->mac, &site, code);
    return code;
}

void site_port(struct mac_site *site, const struct port *port) {
    site->port = port->rest->id;
    site->receiver = port_received(port) ? port->rest->receiver->id : 0;
}

void site_of(struct mac_site *site, uint32_t operation, const struct entry *entry, uint32_t name) {
    site->operation = operation;
    site->name = name;
    site_port(site, entry->object);
    site->provenance = entry->provenance;
}

struct entry *call_receive_entry(struct call *call, uint32_t name, int *code) {
    struct entry *entry = space_lookup(&call->kernel->ipc, &call->task->space, name);
    *code = !entry ? KERN_INVALID_NAME : entry_type(entry) & MACH_PORT_TYPE_RECEIVE ? 0 : KERN_INVALID_RIGHT;
    if (*code) return NULL;
    site_port(&call->site, entry->object);
    call->site.provenance = entry->provenance;
    return entry;
}
