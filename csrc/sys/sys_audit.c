/* SPDX-License-Identifier: BSD-2-Clause */
/* The audit trail and ipctrace, from outside. */
#include <string.h>

#include "sys/kernel.h"

int pm_audit_select(struct pm_kernel *kernel, uint32_t tclass, uint32_t granted, uint32_t denied) {
    if (kernel_forked(kernel)) return PM_FORKED;
    if (tclass >= PM_CLASSES_MAX) return KERN_INVALID_ARGUMENT;
    kernel_lock(kernel);
    audit_select(&kernel->mac.audit, tclass, granted, denied);
    kernel_move_stamp(kernel);
    kernel_unlock(kernel);
    return 0;
}

int pm_audit_options(struct pm_kernel *kernel, int everything, int errors, int full) {
    if (kernel_forked(kernel)) return PM_FORKED;
    if (full < PM_AUDIT_DROP || full > PM_AUDIT_ABORT) return KERN_INVALID_ARGUMENT;
    kernel_lock(kernel);
    kernel->mac.audit.everything = everything;
    kernel->mac.audit.errors = errors;
    kernel->mac.audit.full = (enum pm_audit_full)full;
    kernel_move_stamp(kernel);
    kernel_unlock(kernel);
    return 0;
}

int64_t pm_audit_drain(struct pm_kernel *kernel, struct pm_audit_record *records, size_t capacity) {
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    kernel_lock(kernel);
    size_t count = audit_drain(&kernel->mac.audit, records, capacity);
    kernel_collect_sids(kernel);
    kernel_unlock(kernel);
    return (int64_t)count;
}

int pm_audit_set_drainer(struct pm_kernel *kernel, pm_drainer drainer, void *context) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    kernel->mac.audit.drainer = drainer;
    kernel->mac.audit.drainer_context = context;
    kernel_unlock(kernel);
    return 0;
}

int pm_audit_write(struct pm_kernel *kernel, const struct pm_audit_record *record) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    struct pm_audit_record filled = *record;
    filled.time = kernel->mac.clock(kernel);
    filled.epoch = kernel->mac.epoch;
    bool room = audit_has_room(&kernel->mac.audit, 1);
    audit_append(&kernel->mac.audit, &filled);
    mac_show(&kernel->mac, &filled, 0);
    kernel_unlock(kernel);
    return room ? 0 : PM_AUDIT_FULL;
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
