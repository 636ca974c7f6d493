/* SPDX-License-Identifier: BSD-2-Clause */
/* Waiting for room, for a message, for records: the one place where a call sleeps. */
#include "sys/msg.h"

bool may_wait(const struct pm_kernel *kernel, const struct pm_wait *wait) {
    return wait && wait->timeout_ns != 0 && kernel->clock != PM_CLOCK_SIMULATED;
}

int64_t deadline_of(const struct pm_wait *wait) {
    if (!wait || wait->timeout_ns < 0) return -1;
    int64_t now = monotonic_ns();
    return wait->timeout_ns > INT64_MAX - now ? -1 : now + wait->timeout_ns;
}

const struct pm_wait *rest_of(const struct pm_wait *wait, int64_t deadline, struct pm_wait *rest) {
    if (!wait) return NULL;
    *rest = *wait;
    if (deadline >= 0 && rest->timeout_ns > 0) {
        int64_t left = deadline - monotonic_ns();
        rest->timeout_ns = left > 0 ? left : 0;
    }
    return rest;
}

enum sleep_outcome sleep_on(struct sleeper *sleeper, const struct pm_wait *wait, int64_t deadline) {
    for (;;) {
        enum sleep_result result = sleeper_sleep(sleeper, deadline);
        if (result == SLEEP_WOKEN) return SLEPT;
        if (result == SLEEP_TIMED_OUT) return SLEPT_TOO_LONG;
        if (wait->interrupted && wait->interrupted(wait->context)) return SLEPT_INTERRUPTED;
    }
}

void turn_leave(struct ipc *ipc, struct turn *turn) {
    if (!turn->queue) return;
    turn->queue = NULL;
    waiter_leave(&turn->waiter);
    if (turn->port) port_unref(ipc, turn->port);
}

void turn_take(struct ipc *ipc, struct turn *turn, struct list *queue, struct port *port, struct space *space) {
    if (turn->queue == queue && !list_empty(&turn->waiter.in_queue)) {
        waiter_again(&turn->waiter);
        return;
    }
    turn_leave(ipc, turn);
    if (turn->deadline == 0) turn->deadline = deadline_of(turn->wait);
    waiter_enter(&turn->waiter, queue, space);
    turn->queue = queue;
    turn->port = port;
    if (port) port_ref(port);
}

int turn_sleep(struct pm_kernel *kernel, struct turn *turn, int timed_out, int interrupted) {
    struct waiter *waiter = &turn->waiter;
    kernel_unlock(kernel);
    enum sleep_outcome outcome = sleep_on(&waiter->sleeper, turn->wait, turn->deadline);
    kernel_lock(kernel);
    int code = waiter->code;
    bool woken = waiter->woken;
    if (code && !turn->port) turn_leave(&kernel->ipc, turn);
    if (code || woken || outcome == SLEPT) return code;
    return outcome == SLEPT_TOO_LONG ? timed_out : interrupted;
}
