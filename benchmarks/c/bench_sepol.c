/* SPDX-License-Identifier: BSD-2-Clause */
/* libsepol's own compute_av in a loop, on a binary policy with its booleans as they are. */
#include "sepol.c"

#include <time.h>

struct pm_sepol_state *bench_open(const void *image, size_t size);
uint32_t bench_sid(struct pm_sepol_state *state, const char *context);
uint32_t bench_class(struct pm_sepol_state *state, const char *name);
int64_t bench_run(struct pm_sepol_state *state, const uint32_t *pairs, uint32_t size,
                  uint32_t tclass, int64_t count);

struct pm_sepol_state *bench_open(const void *image, size_t size)
{
    struct pm_sepol_log log;
    struct pm_sepol *policy = pm_sepol_open(image, size, &log);
    uint8_t booleans[1024] = { 0 };

    if (policy == NULL || tables(policy)->p_bools.nprim > sizeof(booleans))
        return NULL;
    for (uint32_t i = 0; i < tables(policy)->p_bools.nprim; i++)
        booleans[i] = (uint8_t)tables(policy)->bool_val_to_struct[i]->state;
    return pm_sepol_state_open(policy, booleans);
}

uint32_t bench_sid(struct pm_sepol_state *state, const char *context)
{
    return pm_sepol_sid(state, context);
}

uint32_t bench_class(struct pm_sepol_state *state, const char *name)
{
    return pm_sepol_class(state->policy, name);
}

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Decides about `count` pairs of SIDs, of `size` in turn. Returns the CPU time in ns; -1 on failure. */
int64_t bench_run(struct pm_sepol_state *state, const uint32_t *pairs, uint32_t size,
                  uint32_t tclass, int64_t count)
{
    struct sepol_av_decision decision;
    int failed = 0;
    int64_t start;

    enter_state(state);
    start = now();
    for (int64_t i = 0; i < count; i++) {
        const uint32_t *pair = pairs + 2 * (i % size);

        failed |= sepol_compute_av(pair[0], pair[1], (sepol_security_class_t)tclass, 0, &decision);
    }
    start = now() - start;
    leave();
    return failed ? -1 : start;
}
