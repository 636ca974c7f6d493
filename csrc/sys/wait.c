/* SPDX-License-Identifier: BSD-2-Clause */
/* Waiting for room or for a message: the one place where a call sleeps. */
#include "sys/msg.h"

bool may_wait(const struct pm_kernel *kernel, const struct pm_wait *wait) {
    return wait && wait->timeout_ns != 0 && kernel->clock != PM_CLOCK_SIMULATED;
}

int64_t deadline_of(const struct pm_wait *wait) {
    if (!wait || wait->timeout_ns < 0) return -1;
    int64_t now = monotonic_ns();
    return wait->timeout_ns > INT64_MAX - now ? -1 : now + wait->timeout_ns;
}

enum sleep_outcome { SLEPT, SLEPT_TOO_LONG, SLEPT_INTERRUPTED };

static enum sleep_outcome sleep_on(struct waiter *waiter, const struct pm_wait *wait, int64_t deadline) {
    for (;;) {
        enum sleep_result result = sleeper_sleep(&waiter->sleeper, deadline);
        if (result == SLEEP_WOKEN) return SLEPT;
        if (result == SLEEP_TIMED_OUT) return SLEPT_TOO_LONG;
        if (wait->interrupted && wait->interrupted(wait->context)) return SLEPT_INTERRUPTED;
    }
}

int wait_in(struct pm_kernel *kernel, struct list *queue, struct space *space, const struct pm_wait *wait,
            int64_t deadline, int timed_out, int interrupted, bool *woken) {
    struct waiter waiter;
    waiter_enter(&waiter, queue, space);
    kernel_unlock(kernel);
    enum sleep_outcome outcome = sleep_on(&waiter, wait, deadline);
    kernel_lock(kernel);
    int code = waiter.code;
    *woken = waiter.woken;
    waiter_leave(&waiter);
    if (code) return code;
    if (waiter.woken || outcome == SLEPT) return 0;
    return outcome == SLEPT_TOO_LONG ? timed_out : interrupted;
}
