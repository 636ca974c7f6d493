/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels, the decider, the policy's flags, questions asked from outside, interfaces. */
#include <string.h>

#include "sys/call.h"

/* ==== labels ===================================================================================================== */

static bool may_mint(struct pm_kernel *kernel, const struct pm_task *payer) {
    if (!payer || !payer->space.quota.sids || payer->space.usage.sids < payer->space.quota.sids) return true;
    kernel->ipc.quota_refusals++;
    return false;
}

static void charge_label(struct pm_kernel *kernel, uint32_t sid, struct pm_task *payer) {
    if (!payer) return;
    sids_find(&kernel->sids, sid)->payer = &payer->space;
    payer->space.usage.sids++;
    space_ref(&payer->space);
}

int64_t pm_sid_intern(struct pm_kernel *kernel, struct pm_task *payer, const char *text, size_t length) {
    bool fresh;
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    if (!text || !length || length > PM_LABEL_MAX || memchr(text, 0, length)) return -(int64_t)KERN_INVALID_ARGUMENT;
    kernel_lock(kernel);
    kernel_collect_sids(kernel);
    uint32_t sid = sids_intern(&kernel->sids, text, (uint32_t)length, &fresh);
    if (sid && fresh && !may_mint(kernel, payer)) {
        kernel_release_sid(kernel, sid);
        sid = 0;
    } else if (sid && fresh) {
        charge_label(kernel, sid, payer);
    }
    kernel_unlock(kernel);
    return sid ? (int64_t)sid : -(int64_t)KERN_RESOURCE_SHORTAGE;
}

int pm_sid_retain(struct pm_kernel *kernel, uint32_t sid) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    bool alive = sids_alive(&kernel->sids, sid);
    if (alive) sids_retain(&kernel->sids, sid);
    kernel_unlock(kernel);
    return alive ? 0 : KERN_INVALID_ARGUMENT;
}

int pm_sid_release(struct pm_kernel *kernel, uint32_t sid) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    bool alive = sids_alive(&kernel->sids, sid);
    if (alive) kernel_release_sid(kernel, sid);
    kernel_unlock(kernel);
    return alive ? 0 : KERN_INVALID_ARGUMENT;
}

int64_t pm_sid_text(struct pm_kernel *kernel, uint32_t sid, char *text, size_t size) {
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    kernel_lock(kernel);
    const struct sid_slot *slot = sids_find(&kernel->sids, sid);
    int64_t length = slot ? (int64_t)slot->length : -(int64_t)KERN_INVALID_ARGUMENT;
    if (slot && size) memcpy(text, slot->text, slot->length < size ? slot->length : size);
    kernel_unlock(kernel);
    return length;
}

/* ==== policy ===================================================================================================== */

int pm_kernel_set_decider(struct pm_kernel *kernel, pm_decider decider, void *context) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    kernel->mac.decider = decider;
    kernel->mac.decider_context = context;
    kernel_move_epoch(kernel);
    kernel_unlock(kernel);
    return 0;
}

int pm_kernel_set_policy(struct pm_kernel *kernel, uint32_t flags) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    kernel->mac.policy = flags;
    kernel_move_epoch(kernel);
    kernel_unlock(kernel);
    return 0;
}

int pm_kernel_set_native(struct pm_kernel *kernel, const struct pm_native *given) {
    struct native *native = NULL;
    if (kernel_forked(kernel)) return PM_FORKED;
    if (kernel->no_fast_path && given) return KERN_NOT_SUPPORTED;
    int code = given ? native_create(kernel->mac.heap, given, kernel->sids.seed, &native) : 0;
    kernel_lock(kernel);
    if (native && native->epoch != kernel->mac.epoch) code = KERN_ABORTED;
    mac_set_native(&kernel->mac, code ? NULL : native, given && given->keep_values);
    kernel_unlock(kernel);
    if (code) native_destroy(native);
    return code;
}

int pm_sid_set_values(struct pm_kernel *kernel, uint32_t sid, uint32_t epoch, const uint32_t *words, size_t count) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    const struct native *native = kernel->mac.native;
    struct sid_slot *slot = sids_find(&kernel->sids, sid);
    struct values *values = NULL;
    int code = !slot ? KERN_INVALID_ARGUMENT : !native || native->epoch != epoch ? KERN_ABORTED : 0;
    if (!code) code = native_values(kernel->sids.heap, native->scheme, words, count, &values);
    if (!code) sids_set_values(&kernel->sids, slot, values, (uint32_t)values_size(values->count));
    kernel_unlock(kernel);
    return code;
}

uint32_t pm_kernel_epoch(struct pm_kernel *kernel) { return __atomic_load_n(&kernel->mac.epoch, __ATOMIC_RELAXED); }

int pm_kernel_count_reports(struct pm_kernel *kernel, uint32_t rows) {
    if (kernel_forked(kernel)) return PM_FORKED;
    if (rows > MAC_REPORTS_MAX) return KERN_INVALID_ARGUMENT;
    kernel_lock(kernel);
    bool started = reports_start(&kernel->mac.reports, kernel->mac.heap, rows);
    kernel_unlock(kernel);
    return started ? 0 : KERN_RESOURCE_SHORTAGE;
}

int64_t pm_kernel_take_reports(struct pm_kernel *kernel, struct pm_report *rows, size_t capacity, uint64_t *lost) {
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    kernel_lock(kernel);
    int64_t count = -(int64_t)KERN_INVALID_ARGUMENT;
    if (capacity >= kernel->mac.reports.used) count = (int64_t)reports_take(&kernel->mac.reports, rows, lost);
    kernel_unlock(kernel);
    return count;
}

/* The reference is for a decider that destroys the kernel. */
static void op_begin(struct mac_op *op, struct pm_kernel *kernel, uint32_t ssid) {
    kernel_lock(kernel);
    kernel->refs++;
    mac_op_init(op, &kernel->mac, ssid, 0);
}

/* The vector of one pair as it is enforced, asking the decider as often as it takes. With the lock, which is dropped while the
 * decider runs. */
static int vector_of(struct mac_op *op, struct pm_kernel *kernel, uint32_t tsid, uint32_t tclass,
                     struct avc_vector *vector) {
    while (!mac_vector(op, tsid, tclass, vector)) {
        if (op->short_of_memory) return KERN_RESOURCE_SHORTAGE;
        kernel_unlock(kernel);
        mac_resolve(op);
        kernel_lock(kernel);
        mac_absorb(op);
    }
    mac_enforced(&kernel->mac, vector);
    return 0;
}

int pm_decide(struct pm_kernel *kernel, uint32_t ssid, uint32_t tsid, uint32_t tclass, struct pm_decision *decision) {
    struct mac_op op;
    struct avc_vector vector = {0};
    if (kernel_forked(kernel)) return PM_FORKED;
    if (tclass >= PM_CLASSES_MAX) return KERN_INVALID_ARGUMENT;
    op_begin(&op, kernel, ssid);
    int code = vector_of(&op, kernel, tsid, tclass, &vector);
    *decision = (struct pm_decision){vector.allowed, vector.auditallow, vector.auditdeny, vector.report,
                                     kernel->mac.epoch};
    mac_op_done(&op);
    kernel_unref_unlock(kernel);
    return code;
}

/* With the lock: what is enforced, where it is known without asking. */
static inline bool vector_at_hand(struct mac *mac, uint32_t ssid, uint32_t tsid, uint32_t tclass, struct avc_vector *vector) {
    if (!mac_known(mac, ssid, tsid, tclass, vector)) return false;
    mac_enforced(mac, vector);
    return true;
}

int64_t pm_check(struct pm_kernel *kernel, uint32_t ssid, uint32_t tsid, uint32_t tclass, uint32_t permissions) {
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    if (tclass >= PM_CLASSES_MAX) return -(int64_t)KERN_INVALID_ARGUMENT;
    kernel_lock(kernel);
    struct avc_vector vector;
    bool known = vector_at_hand(&kernel->mac, ssid, tsid, tclass, &vector);
    kernel_unlock(kernel);
    if (known) return (vector.allowed & permissions) == permissions;
    struct pm_decision decision;
    int code = pm_decide(kernel, ssid, tsid, tclass, &decision);
    return code ? -(int64_t)code : (decision.allowed & permissions) == permissions;
}

/* Each check is an operation of its own. */
static pm_noinline int vector_asked_for(struct mac_op *op, struct pm_kernel *kernel, uint32_t ssid, uint32_t tsid, uint32_t tclass,
                                        struct avc_vector *vector) {
    op->answered = op->attempts = 0;
    mac_op_restart(op, ssid);
    return vector_of(op, kernel, tsid, tclass, vector);
}

int pm_check_many(struct pm_kernel *kernel, const uint32_t *ssids, const uint32_t *tsids, const uint32_t *classes,
                  const uint32_t *permissions, uint8_t *results, size_t count) {
    struct mac_op op;
    int code = 0;
    if (kernel_forked(kernel)) return PM_FORKED;
    op_begin(&op, kernel, 0);
    for (size_t i = 0; i < count && !code; i++) {
        const uint32_t ssid = ssids[i], tsid = tsids[i], tclass = classes[i], asked = permissions[i];
        struct avc_vector vector;
        if (tclass >= PM_CLASSES_MAX) code = KERN_INVALID_ARGUMENT;
        else if (pm_unlikely(!vector_at_hand(&kernel->mac, ssid, tsid, tclass, &vector)))
            code = vector_asked_for(&op, kernel, ssid, tsid, tclass, &vector);
        if (!code) results[i] = (vector.allowed & asked) == asked;
    }
    mac_op_done(&op);
    kernel_unref_unlock(kernel);
    return code;
}

/* ==== the list of hooks ========================================================================================== */

#define PM_CLASS(CLASS, number, name) [number] = name,
static const char *const class_names[] = {
#include "sec/hooks.def"
};
#define PM_HOOK(CLASS, bit, permission, object, operation, sentence) \
    {PM_CLASS_##CLASS, bit, NULL, #permission, #object, #operation, sentence},
static struct pm_hook hooks[] = {
#include "sec/hooks.def"
};

const char *pm_class_name(uint32_t tclass) { return tclass < array_count(class_names) ? class_names[tclass] : NULL; }

const struct pm_hook *pm_hook(uint32_t index) {
    if (index >= array_count(hooks)) return NULL;
    hooks[index].class_name = pm_class_name(hooks[index].tclass);
    return &hooks[index];
}

/* ==== interfaces ================================================================================================= */

int64_t pm_interface_create(struct pm_kernel *kernel, int32_t base, uint32_t count, uint32_t flags, const uint8_t *holes) {
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    if (!count || (int64_t)base + count - 1 > INT32_MAX || count > PM_CLASSES_MAX * PM_ROUTINES_PER_CLASS)
        return -(int64_t)KERN_INVALID_ARGUMENT;
    kernel_lock(kernel);
    uint32_t number = interface_create(&kernel->interfaces, base, count, flags, holes);
    kernel_unlock(kernel);
    return number ? (int64_t)number : -(int64_t)KERN_RESOURCE_SHORTAGE;
}

int64_t pm_interface_class(struct pm_kernel *kernel, uint32_t interface) {
    if (kernel_forked(kernel)) return -(int64_t)PM_FORKED;
    kernel_lock(kernel);
    const struct interface *found = interface_find(&kernel->interfaces, interface);
    int64_t tclass = found ? (int64_t)found->tclass : -(int64_t)KERN_INVALID_ARGUMENT;
    kernel_unlock(kernel);
    return tclass;
}
