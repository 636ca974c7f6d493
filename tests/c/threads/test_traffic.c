/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads of C on one kernel: senders and receivers on one port, name churn, a verifier, a policy that moves. */
#include "../scene.h"

#include <pthread.h>

#define SENDERS 3
#define MESSAGES 2000
#define CHURNS 500
#define RELOADS 100

static struct pm_kernel *kernel;
static struct pm_task *server, *client;
static uint32_t port, right;
static uint32_t finished; /* atomic: senders that are done */

static const struct pm_wait FOREVER = { .timeout_ns = -1 };
static const struct pm_wait SHORTLY = { .timeout_ns = 50000000 };

static int allow_all(void *context, struct pm_query *queries, size_t count, uint32_t epoch)
{
    (void)context, (void)epoch;
    for (size_t i = 0; i < count; i++)
        queries[i].allowed = UINT32_MAX;
    return 0;
}

static void *send_all(void *unused)
{
    for (int32_t i = 0; i < MESSAGES; i++)
        assert(pm_send(client, right, &i, sizeof i, i, &FOREVER) == 0);
    __atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST);
    return unused;
}

/* Takes until nothing is there though all senders were done before it looked; returns how many. */
static void *receive_all(void *unused)
{
    intptr_t taken = 0;
    int32_t body;

    (void)unused;
    for (;;) {
        int last = __atomic_load_n(&finished, __ATOMIC_SEQ_CST) == SENDERS;
        int64_t size = pm_receive(server, port, &body, sizeof body, last ? NULL : &SHORTLY);
        if (size == -MACH_RCV_TIMED_OUT && last)
            return (void *)taken;
        if (size == -MACH_RCV_TIMED_OUT)
            continue;
        assert(size == sizeof body && body >= 0 && body < MESSAGES);
        taken++;
    }
}

static void *churn_names(void *unused)
{
    for (int i = 0; i < CHURNS; i++) {
        uint32_t name = new_port(server);
        given(server, name, MACH_MSG_TYPE_MAKE_SEND, client);
        assert(pm_port_mod_refs(server, server, name, MACH_PORT_RIGHT_RECEIVE, -1) == 0);
    }
    return unused;
}

static void *reload_and_verify(void *unused)
{
    for (int i = 0; i < RELOADS; i++) {
        assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
        assert(pm_kernel_verify(kernel, NULL, 0) == 0);
    }
    return unused;
}

static void set_up(void)
{
    assert(pm_kernel_create(NULL, &kernel) == 0);
    uint32_t sid = sid_named(kernel, "test");
    server = new_task(kernel, "server", sid);
    client = new_task(kernel, "client", sid);
    assert(pm_kernel_set_decider(kernel, allow_all, NULL) == 0);
    port = new_port(server);
    right = given(server, port, MACH_MSG_TYPE_MAKE_SEND, client);
}

int main(void)
{
    void *(*const work[])(void *) = { send_all, send_all, send_all, receive_all, receive_all,
                                      churn_names, reload_and_verify };
    enum { THREADS = sizeof work / sizeof work[0] };
    pthread_t threads[THREADS];
    intptr_t taken = 0;

    set_up();
    for (int i = 0; i < THREADS; i++)
        assert(pthread_create(&threads[i], NULL, work[i], NULL) == 0);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        assert(pthread_join(threads[i], &result) == 0);
        taken += (intptr_t)result;
    }
    assert(taken == SENDERS * MESSAGES);
    expect_sound(kernel);
    pm_kernel_destroy(kernel);
    pm_task_release(server);
    pm_task_release(client);
    return 0;
}
