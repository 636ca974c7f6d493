/* SPDX-License-Identifier: BSD-2-Clause */
/* The audit trail and ipctrace, from outside. */
#include <string.h>

#include "sys/msg.h"

int pm_audit_select(struct pm_kernel *kernel, uint32_t tclass, uint32_t granted, uint32_t denied) {
    if (kernel_forked(kernel)) return PM_FORKED;
    if (tclass >= PM_CLASSES_MAX) return KERN_INVALID_ARGUMENT;
    kernel_lock(kernel);
    selection_select(&kernel->mac.audit.selection, &kernel->mac.audit.selection.first, tclass, granted, denied);
    kernel_move_stamp(kernel);
    kernel_unlock(kernel);
    return 0;
}

/* ---- rules ---- */

/* Patterns end by a zero byte, the last one too. */
static bool texts_good(const char *text, size_t size) {
    return size <= PM_AUDIT_RULE_TEXT_MAX && (!size || (text && !text[size - 1]));
}

static bool rule_good(const struct pm_audit_rule *rule) {
    return rule && texts_good(rule->labels, rule->labels_size) && texts_good(rule->tasks, rule->tasks_size) &&
           rule->numbers_count <= PM_AUDIT_RULE_NUMBERS_MAX && (rule->numbers || !rule->numbers_count);
}

static bool pick_all(struct pm_kernel *kernel) {
    list_each(&kernel->tasks, node) {
        const struct pm_task *task = task_of(container_of(node, struct space, tasks));
        if (!selection_pick(&kernel->mac.audit.selection, task->space.id, task->name, task->name_length)) return false;
    }
    return true;
}

static int64_t add_rule(struct pm_kernel *kernel, const struct pm_audit_rule *wanted) {
    struct selection *selection = &kernel->mac.audit.selection;
    if (selection_is_full(selection)) return -(int64_t)KERN_NO_SPACE;
    struct rule *rule = selection_add(selection, wanted);
    if (!rule) return -(int64_t)KERN_RESOURCE_SHORTAGE;
    if (pick_all(kernel)) return (int64_t)rule->number;
    selection_remove(selection, rule);
    return -(int64_t)KERN_RESOURCE_SHORTAGE;
}

int64_t pm_audit_rule_add(struct pm_kernel *kernel, const struct pm_audit_rule *rule) {
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    if (!rule_good(rule)) return -(int64_t)KERN_INVALID_ARGUMENT;
    kernel_lock(kernel);
    int64_t number = add_rule(kernel, rule);
    kernel_unlock(kernel);
    return number;
}

/* The rule of a number, with the lock taken; NULL without it where there is none. */
static struct rule *enter_rule(struct pm_kernel *kernel, uint64_t number, int *code) {
    *code = PM_FORKED;
    if (kernel_forked(kernel)) return NULL;
    kernel_lock(kernel);
    struct rule *rule = number ? selection_find(&kernel->mac.audit.selection, number) : NULL;
    *code = rule ? 0 : KERN_INVALID_NAME;
    if (!rule) kernel_unlock(kernel);
    return rule;
}

int pm_audit_rule_select(struct pm_kernel *kernel, uint64_t rule, uint32_t tclass, uint32_t granted, uint32_t denied) {
    int code;
    if (tclass >= PM_CLASSES_MAX) return KERN_INVALID_ARGUMENT;
    struct rule *found = enter_rule(kernel, rule, &code);
    if (!found) return code;
    selection_select(&kernel->mac.audit.selection, found, tclass, granted, denied);
    kernel_move_stamp(kernel);
    kernel_unlock(kernel);
    return 0;
}

int pm_audit_rule_remove(struct pm_kernel *kernel, uint64_t rule) {
    int code;
    struct rule *found = enter_rule(kernel, rule, &code);
    if (!found) return code;
    selection_remove(&kernel->mac.audit.selection, found);
    kernel_move_stamp(kernel);
    kernel_unlock(kernel);
    return 0;
}

/* ---- sampling ---- */

static bool sampling_good(const struct pm_audit_sampling *sampling) {
    bool budget = sampling->budget && sampling->budget <= UINT32_MAX && sampling->period_ns;
    bool rate = !sampling->budget && sampling->one_in && sampling->one_in <= SAMPLE_WEIGHT_MAX;
    return (budget || rate) && sampling->strata && sampling->strata <= SAMPLE_STRATA_MAX;
}

int pm_audit_sample(struct pm_kernel *kernel, const struct pm_audit_sampling *sampling) {
    if (kernel_forked(kernel)) return PM_FORKED;
    if (sampling && !sampling_good(sampling)) return KERN_INVALID_ARGUMENT;
    kernel_lock(kernel);
    struct mac *mac = &kernel->mac;
    bool done = audit_sample(&mac->audit, sampling, (struct sample_clock){mac->clock, mac->clock_context});
    kernel_unlock(kernel);
    return done ? 0 : KERN_RESOURCE_SHORTAGE;
}

int64_t pm_audit_strata(struct pm_kernel *kernel, struct pm_audit_stratum *rows, size_t capacity) {
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    if (!rows && capacity) return -(int64_t)KERN_INVALID_ARGUMENT;
    kernel_lock(kernel);
    int64_t count = (int64_t)sample_read(&kernel->mac.audit.sample, rows, capacity);
    kernel_unlock(kernel);
    return count;
}

/* ---- the trail ---- */

int pm_audit_options(struct pm_kernel *kernel, int everything, int errors, int full, int synchronous) {
    if (kernel_forked(kernel)) return PM_FORKED;
    if (full < PM_AUDIT_DROP || full > PM_AUDIT_ABORT) return KERN_INVALID_ARGUMENT;
    kernel_lock(kernel);
    kernel->mac.audit.everything = everything;
    kernel->mac.audit.errors = errors;
    audit_options(&kernel->mac.audit, synchronous, (enum pm_audit_full)full);
    kernel_move_stamp(kernel);
    kernel_unlock(kernel);
    return 0;
}

int pm_audit_halt(struct pm_kernel *kernel, int on) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    audit_halt(&kernel->mac.audit, on);
    kernel_unlock(kernel);
    return 0;
}

/* One drains at a time; nobody else waits while it copies. */
int64_t pm_audit_drain(struct pm_kernel *kernel, struct pm_audit_record *records, size_t capacity) {
    struct audit *audit = &kernel->mac.audit;
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    lock_take(&kernel->draining);
    kernel_lock(kernel);
    if (capacity) audit_tell_loss(audit, kernel->mac.clock(kernel->mac.clock_context), kernel->mac.epoch);
    size_t count = audit_waiting(audit) < capacity ? audit_waiting(audit) : capacity;
    kernel_unlock(kernel);
    audit_copy(audit, records, count);
    kernel_lock(kernel);
    audit_taken(audit, count);
    kernel_collect_sids(kernel);
    kernel_unlock(kernel);
    lock_drop(&kernel->draining);
    return (int64_t)count;
}

/* Who waits keeps the kernel. */
int64_t pm_audit_wait(struct pm_kernel *kernel, uint32_t records, const struct pm_wait *wait) {
    struct audit *audit = &kernel->mac.audit;
    struct audit_waiter waiter;
    enum sleep_outcome outcome = SLEPT;
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    kernel_lock(kernel);
    kernel->refs++;
    if (may_wait(kernel, wait) && audit_wait_enter(audit, &waiter, records)) {
        kernel_unlock(kernel);
        outcome = sleep_on(&waiter.sleeper, wait, deadline_of(wait));
        kernel_lock(kernel);
        audit_wait_leave(audit, &waiter);
    }
    int64_t count = (int64_t)audit_waiting(audit);
    if (outcome == SLEPT_INTERRUPTED) count = -(int64_t)MACH_RCV_INTERRUPTED;
    if (!kernel->alive) count = -(int64_t)KERN_TERMINATED;
    kernel_unref_unlock(kernel);
    return count;
}

int pm_audit_wake(struct pm_kernel *kernel) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    audit_wake(&kernel->mac.audit);
    kernel_unlock(kernel);
    return 0;
}

int pm_audit_set_drainer(struct pm_kernel *kernel, pm_drainer drainer, void *context) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    kernel->mac.audit.drainer = drainer;
    kernel->mac.audit.drainer_context = context;
    kernel_unlock(kernel);
    return 0;
}

static int write_record(struct pm_kernel *kernel, const struct pm_audit_record *record) {
    struct audit *audit = &kernel->mac.audit;
    struct pm_audit_record filled = *record;
    bool room = audit_has_room(audit, 1);
    if (audit->halted) return PM_AUDIT_FULL;
    filled.time = kernel->mac.clock(kernel);
    filled.epoch = kernel->mac.epoch;
    audit_append(audit, &filled);
    mac_show(&kernel->mac, &filled, 0);
    return room ? 0 : PM_AUDIT_FULL;
}

int pm_audit_write(struct pm_kernel *kernel, const struct pm_audit_record *record) {
    struct write_through through;
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    int code = write_record(kernel, record);
    write_through_note(&through, &kernel->mac.audit, true);
    kernel_unlock(kernel);
    write_through(&through);
    return code;
}

/* ==== ipctrace =================================================================================================== */

int pm_trace_start(struct pm_kernel *kernel) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    int code = trace_start(&kernel->trace) ? 0 : KERN_RESOURCE_SHORTAGE;
    kernel_unlock(kernel);
    return code;
}

int pm_trace_stop(struct pm_kernel *kernel) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    kernel->trace.on = false;
    kernel_unlock(kernel);
    return 0;
}

int pm_trace_reset(struct pm_kernel *kernel) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    trace_reset(&kernel->trace);
    kernel_unlock(kernel);
    return 0;
}

int64_t pm_trace_read(struct pm_kernel *kernel, uint64_t first, struct pm_trace_record *records, size_t capacity) {
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    kernel_lock(kernel);
    uint64_t count = trace_read(&kernel->trace, first, records, capacity);
    kernel_unlock(kernel);
    return (int64_t)count;
}

int64_t pm_trace_identity(struct pm_kernel *kernel, const char *text, size_t length) {
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    if (!text || !length || length > PM_TASK_NAME_MAX || memchr(text, 0, length)) return -(int64_t)KERN_INVALID_ARGUMENT;
    kernel_lock(kernel);
    uint32_t identity = trace_identity(&kernel->trace, text, (uint32_t)length);
    kernel_unlock(kernel);
    return identity ? (int64_t)identity : -(int64_t)KERN_RESOURCE_SHORTAGE;
}

int64_t pm_trace_text(struct pm_kernel *kernel, uint32_t identity, char *text, size_t size) {
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    kernel_lock(kernel);
    const struct trace *trace = &kernel->trace;
    bool known = identity && identity < trace->texts_used;
    int64_t length = known ? (int64_t)trace->texts[identity].length : -(int64_t)KERN_INVALID_ARGUMENT;
    if (known && size) memcpy(text, trace->texts[identity].text, (size_t)length < size ? (size_t)length : size);
    kernel_unlock(kernel);
    return length;
}
