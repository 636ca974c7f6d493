/* SPDX-License-Identifier: BSD-2-Clause */
/* Questions of servers: what whoever sent a message, or asks from outside, may do to an object of the server's own. */
#include "sys/call.h"

struct service_call {
    struct call call;
    const struct pm_sender_question *question;
    bool allowed;
};

static int attempt_question(struct service_call *args) {
    struct call *call = &args->call;
    const struct pm_sender_question *question = args->question;
    if (!call->kernel->alive || (call->task && !call->task->space.alive)) return KERN_INVALID_TASK;
    enum mac_verdict verdict = mac_check_always(&call->mac, question->tsid, question->tclass, question->permissions,
                                                &call->site);
    if (verdict == MAC_DENIED) return KERN_NO_ACCESS;
    int code = verdict == MAC_MISS ? CALL_MISS : call_ready(call);
    args->allowed = !code;
    return code;
}

/* As call_run, in the name of the sender. */
static int run_for_sender(struct service_call *args) {
    struct call *call = &args->call;
    const struct pm_sender_question *question = args->question;
    int code;
    kernel_lock(call->kernel);
    mac_op_init(&call->mac, &call->kernel->mac, question->real_sid, question->sender_task);
    do {
        mac_op_restart(&call->mac, question->real_sid);
        call->mac.sid = question->sender_sid;
        code = attempt_question(args);
        if (call->mac.short_of_memory && code == CALL_MISS) code = KERN_RESOURCE_SHORTAGE;
    } while (pm_unlikely(code) && call_again(call, code));
    call->done = args->allowed;
    call->transfer = question->transfer;
    return call_end(call, args->allowed ? question->result : code);
}

static int64_t verdict_of(const struct service_call *args, int code) {
    return args->allowed ? 1 : code == KERN_NO_ACCESS ? 0 : -(int64_t)code;
}

int64_t pm_check_sender(struct pm_task *task, const struct pm_sender_question *question) {
    struct service_call args = {.question = question};
    int code = call_init(&args.call, task, task, PM_OP_SERVICE, question->name);
    if (!code && question->tclass >= PM_CLASSES_MAX) code = KERN_INVALID_ARGUMENT;
    if (code) return -(int64_t)code;
    args.call.site.port = question->port;
    args.call.site.receiver = task->space.id;
    args.call.site.msgh_id = question->msgh_id;
    args.call.site.size = question->size;
    return verdict_of(&args, run_for_sender(&args));
}

int64_t pm_check_peer(struct pm_kernel *kernel, const struct pm_sender_question *question) {
    struct service_call args = {.question = question};
    int code = call_init_from_outside(&args.call, kernel, PM_OP_SERVICE, question->name);
    if (!code && question->tclass >= PM_CLASSES_MAX) code = KERN_INVALID_ARGUMENT;
    if (code) return -(int64_t)code;
    kernel_lock(kernel);
    kernel->refs++;                     /* for a decider that destroys the kernel */
    kernel_unlock(kernel);
    code = run_for_sender(&args);
    kernel_lock(kernel);
    kernel_unref_unlock(kernel);
    return verdict_of(&args, code);
}
