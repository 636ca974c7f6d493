/* SPDX-License-Identifier: BSD-2-Clause */
/* Watches, from outside. */
#include "sys/kernel.h"

int64_t pm_watch_open(struct pm_kernel *kernel, uint32_t records) {
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    if (records > WATCH_RECORDS_MAX) return -(int64_t)KERN_INVALID_ARGUMENT;
    kernel_lock(kernel);
    struct watches *watches = &kernel->mac.watches;
    int failure = watches->count == PM_WATCHES_MAX ? KERN_NO_SPACE : KERN_RESOURCE_SHORTAGE;
    const struct watch *watch = watch_open(watches, records, kernel->mac.audit.sequence);
    int64_t number = watch ? (int64_t)watch->number : -(int64_t)failure;    /* others may close it as soon as they can */
    kernel_unlock(kernel);
    return number;
}

/* The watch of a number, with the lock taken; NULL without it where there is none. */
static struct watch *enter(struct pm_kernel *kernel, uint64_t number, int *code) {
    *code = PM_FORKED;
    if (kernel_forked(kernel)) return NULL;
    kernel_lock(kernel);
    struct watch *watch = watch_find(&kernel->mac.watches, number);
    *code = watch ? 0 : KERN_INVALID_NAME;
    if (!watch) kernel_unlock(kernel);
    return watch;
}

/* What is watched has changed, so what hints say of it may have. */
static int leave_changed(struct pm_kernel *kernel) {
    kernel_move_stamp(kernel);
    kernel_unlock(kernel);
    return 0;
}

int pm_watch_select(struct pm_kernel *kernel, uint64_t watch, uint32_t tclass, uint32_t granted, uint32_t denied) {
    int code;
    if (tclass >= PM_CLASSES_MAX) return KERN_INVALID_ARGUMENT;
    struct watch *found = enter(kernel, watch, &code);
    if (!found) return code;
    watch_select(&kernel->mac.watches, found, tclass, granted, denied);
    return leave_changed(kernel);
}

int pm_watch_errors(struct pm_kernel *kernel, uint64_t watch, int errors) {
    int code;
    struct watch *found = enter(kernel, watch, &code);
    if (!found) return code;
    watch_errors(&kernel->mac.watches, found, errors);
    return leave_changed(kernel);
}

int pm_watch_leave_out(struct pm_kernel *kernel, uint64_t watch, uint32_t kind, const uint32_t *numbers, size_t count) {
    int code;
    if (kind >= PM_WATCH_KINDS || (!numbers && count)) return KERN_INVALID_ARGUMENT;
    struct watch *found = enter(kernel, watch, &code);
    if (!found) return code;
    watch_leave_out(found, kind, numbers, count);
    return leave_changed(kernel);
}

int64_t pm_watch_drain(struct pm_kernel *kernel, uint64_t watch, struct pm_audit_record *records, uint32_t *receivers,
                       size_t capacity, uint64_t *lost) {
    int code;
    struct watch *found = enter(kernel, watch, &code);
    if (!found) return -(int64_t)code;
    size_t count = watch_drain(found, records, receivers, capacity, kernel->mac.audit.sequence);
    *lost = found->lost;
    kernel_unlock(kernel);
    return (int64_t)count;
}

int pm_watch_close(struct pm_kernel *kernel, uint64_t watch) {
    int code;
    struct watch *found = enter(kernel, watch, &code);
    if (!found) return code;
    watch_close(&kernel->mac.watches, found);
    return leave_changed(kernel);
}
