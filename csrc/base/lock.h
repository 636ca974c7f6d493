/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's mutex, and a place for one thread to sleep. With futexes where there are any; with PM_PORTABLE by pthread.
 * A free lock costs one compare-and-swap to take and one exchange to drop, about half of a pthread mutex.
 */
#ifndef PM_LOCK_H
#define PM_LOCK_H

#include "base/base.h"

/* In builds for debugging a lock knows its owner, and whoever needs it held says so. */
#ifdef PM_DEBUG
#include <assert.h>
extern _Thread_local char lock_thread;  /* its address tells threads apart */
#define LOCK_OWNER const void *owner;
#define lock_own(owner) (*(owner) = &lock_thread)
#define lock_disown(owner) (*(owner) = NULL)
#define lock_assert_held(lock) assert((lock)->owner == &lock_thread)
#else
#define LOCK_OWNER
#define lock_own(owner) ((void)0)
#define lock_disown(owner) ((void)0)
#define lock_assert_held(lock) ((void)0)
#endif

#ifdef PM_PORTABLE
#include <pthread.h>
struct lock { pthread_mutex_t mutex; LOCK_OWNER };
struct sleeper { pthread_mutex_t mutex; pthread_cond_t wakeup; bool woken; };
static inline void lock_take(struct lock *lock) {
    pthread_mutex_lock(&lock->mutex);
    lock_own(&lock->owner);
}
static inline void lock_drop(struct lock *lock) {
    lock_disown(&lock->owner);
    pthread_mutex_unlock(&lock->mutex);
}
/* Whether others wait for this lock, which is held. pthread does not tell, so they may. */
static inline bool lock_is_wanted(const struct lock *lock) { return (void)lock, true; }
#else
struct lock { uint32_t word; LOCK_OWNER };      /* 0 free, 1 taken, 2 taken and somebody waits */
struct sleeper { uint32_t word; };      /* 0 asleep, 1 woken, 2 awake and looking */
void lock_wait(struct lock *lock);
void lock_wake(struct lock *lock);
static inline void lock_take(struct lock *lock) {
    uint32_t free = 0;
    if (pm_unlikely(!__atomic_compare_exchange_n(&lock->word, &free, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)))
        lock_wait(lock);
    lock_own(&lock->owner);
}
static inline void lock_drop(struct lock *lock) {
    lock_disown(&lock->owner);
    if (pm_unlikely(__atomic_exchange_n(&lock->word, 0, __ATOMIC_RELEASE) == 2)) lock_wake(lock);
}
static inline bool lock_is_wanted(const struct lock *lock) { return __atomic_load_n(&lock->word, __ATOMIC_RELAXED) == 2; }
#endif

void lock_init(struct lock *lock);
void lock_destroy(struct lock *lock);

/* Without the lock: lets others have it that were found to wait. */
void lock_step_back(void);

enum sleep_result { SLEEP_WOKEN, SLEEP_TIMED_OUT, SLEEP_SIGNAL };

void sleeper_init(struct sleeper *sleeper);
void sleeper_destroy(struct sleeper *sleeper);
void sleeper_wake(struct sleeper *sleeper);
/*
 * Purpose: sleep until woken, until `deadline` (monotonic_ns; negative: none), or until a signal may have come in.
 * Conditions: no lock held.
 * Returns: SLEEP_SIGNAL also now and then without a signal, where the system cannot tell; the caller looks and sleeps on.
 */
enum sleep_result sleeper_sleep(struct sleeper *sleeper, int64_t deadline);

int64_t monotonic_ns(void);

#endif
