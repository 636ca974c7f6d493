/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/lock.h"

#include <errno.h>
#include <time.h>

#ifdef PM_DEBUG
_Thread_local char lock_thread;
#endif

int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

#define STEP_BACK_NS 20000

/* Who waits is asleep: a lock dropped and taken again at once would be gone when it wakes. */
void lock_step_back(void) {
    const struct timespec moment = {0, STEP_BACK_NS};
    nanosleep(&moment, NULL);
}

#ifdef PM_PORTABLE

/* Signals do not interrupt pthread_cond_timedwait, so the sleeper looks up this often. */
#define SIGNAL_SLICE_NS INT64_C(50000000)

void lock_init(struct lock *lock) { pthread_mutex_init(&lock->mutex, NULL); }
void lock_destroy(struct lock *lock) { pthread_mutex_destroy(&lock->mutex); }

void sleeper_init(struct sleeper *sleeper) {
    pthread_mutex_init(&sleeper->mutex, NULL);
    pthread_cond_init(&sleeper->wakeup, NULL);
    sleeper->woken = false;
}

void sleeper_destroy(struct sleeper *sleeper) {
    pthread_cond_destroy(&sleeper->wakeup);
    pthread_mutex_destroy(&sleeper->mutex);
}

void sleeper_wake(struct sleeper *sleeper) {
    pthread_mutex_lock(&sleeper->mutex);
    sleeper->woken = true;
    pthread_cond_signal(&sleeper->wakeup);
    pthread_mutex_unlock(&sleeper->mutex);
}

/* The condition variable's clock is the real one: not every system lets it be chosen. */
static struct timespec realtime_after(int64_t ns) {
    struct timespec when;
    clock_gettime(CLOCK_REALTIME, &when);
    int64_t total = when.tv_nsec + ns % 1000000000;
    when.tv_sec += ns / 1000000000 + total / 1000000000;
    when.tv_nsec = total % 1000000000;
    return when;
}

enum sleep_result sleeper_sleep(struct sleeper *sleeper, int64_t deadline) {
    int64_t left = deadline < 0 ? SIGNAL_SLICE_NS : deadline - monotonic_ns();
    int64_t slice = left < SIGNAL_SLICE_NS ? left : SIGNAL_SLICE_NS;
    struct timespec until = realtime_after(slice > 0 ? slice : 0);
    pthread_mutex_lock(&sleeper->mutex);
    int code = 0;
    while (!sleeper->woken && code != ETIMEDOUT) code = pthread_cond_timedwait(&sleeper->wakeup, &sleeper->mutex, &until);
    bool woken = sleeper->woken;
    pthread_mutex_unlock(&sleeper->mutex);
    if (woken) return SLEEP_WOKEN;
    return deadline >= 0 && monotonic_ns() >= deadline ? SLEEP_TIMED_OUT : SLEEP_SIGNAL;
}

#else

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

static long futex(uint32_t *word, int operation, uint32_t value, const struct timespec *timeout) {
    return syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, timeout, NULL, FUTEX_BITSET_MATCH_ANY);
}

void lock_init(struct lock *lock) { *lock = (struct lock){0}; }
void lock_destroy(struct lock *lock) { (void)lock; }

/* It is held for a tenth of a microsecond mostly, and to sleep costs hundreds of times that. */
#define LOCK_LOOKS 100

static bool taken_meanwhile(struct lock *lock) {
    for (int i = 0; i < LOCK_LOOKS; i++) {
        uint32_t free = 0;
        if (!__atomic_load_n(&lock->word, __ATOMIC_RELAXED) &&
            __atomic_compare_exchange_n(&lock->word, &free, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return true;
        cpu_relax();
    }
    return false;
}

pm_noinline void lock_wait(struct lock *lock) {
    if (taken_meanwhile(lock)) return;
    while (__atomic_exchange_n(&lock->word, 2, __ATOMIC_ACQUIRE) != 0) futex(&lock->word, FUTEX_WAIT, 2, NULL);
}

pm_noinline void lock_wake(struct lock *lock) { futex(&lock->word, FUTEX_WAKE, 1, NULL); }

void sleeper_init(struct sleeper *sleeper) { __atomic_store_n(&sleeper->word, 0, __ATOMIC_RELAXED); }
void sleeper_destroy(struct sleeper *sleeper) { (void)sleeper; }

void sleeper_wake(struct sleeper *sleeper) {
    if (__atomic_exchange_n(&sleeper->word, 1, __ATOMIC_RELEASE) == 0) futex(&sleeper->word, FUTEX_WAKE, 1, NULL);
}

/*
 * To be woken from sleep takes some fifty microseconds where another core has to do it. So a thread first looks for a while, as
 * long as that was worth its while lately, and lets others run on its core meanwhile, where who wakes it may be. It looks for longer
 * than an answer takes from one who sleeps: two who ask each other would else sleep in turn for ever.
 */
#define LOOK_NS INT64_C(100000)
#define CREDIT_MOST 8
#define CREDIT_PROBE 64                 /* without any, one sleep in so many begins with a look */
static _Thread_local int credit = CREDIT_MOST / 2;

static bool worth_looking(void) {
    if (credit > 0) return true;
    if (credit-- > -CREDIT_PROBE) return false;
    credit = 1;
    return true;
}

static bool woken_meanwhile(struct sleeper *sleeper, int64_t deadline) {
    uint32_t asleep = 0, looking = 2;
    int64_t end = monotonic_ns() + LOOK_NS;
    if (deadline >= 0 && deadline < end) end = deadline;
    if (!worth_looking() || !__atomic_compare_exchange_n(&sleeper->word, &asleep, 2, false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE))
        return false;
    for (; monotonic_ns() < end; sched_yield())
        for (int i = 0; i < 8; i++) {
            if (__atomic_load_n(&sleeper->word, __ATOMIC_ACQUIRE) == 1) {
                if (credit < CREDIT_MOST) credit++;
                return true;
            }
            cpu_relax();
        }
    credit--;
    return !__atomic_compare_exchange_n(&sleeper->word, &looking, 0, false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE);
}

/*
 * A signal that comes just before the thread is asleep does not end the sleep. So none lasts longer than this before the caller
 * looks for signals.
 */
#define SIGNAL_SLICE_NS INT64_C(1000000000)

enum sleep_result sleeper_sleep(struct sleeper *sleeper, int64_t deadline) {
    if (woken_meanwhile(sleeper, deadline)) return SLEEP_WOKEN;
    int64_t slice = monotonic_ns() + SIGNAL_SLICE_NS;
    bool last = deadline >= 0 && deadline <= slice;
    if (last) slice = deadline;
    struct timespec until = {slice / 1000000000, slice % 1000000000};
    while (!__atomic_load_n(&sleeper->word, __ATOMIC_ACQUIRE)) {
        if (futex(&sleeper->word, FUTEX_WAIT_BITSET, 0, &until) == 0 || errno == EAGAIN) continue;
        if (errno == ETIMEDOUT) return last ? SLEEP_TIMED_OUT : SLEEP_SIGNAL;
        if (errno == EINTR) return SLEEP_SIGNAL;
    }
    return SLEEP_WOKEN;
}

#endif
