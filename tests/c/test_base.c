/* SPDX-License-Identifier: BSD-2-Clause */
/* Lists, heap and pools, the lock and the sleeper. */
#include "base/lock.c"
#include "base/pool.c"

#include "base/list.h"

#include <pthread.h>

static void test_a_list_keeps_its_order(void) {
    struct list head, nodes[3];
    list_init(&head);
    assert(list_empty(&head));
    for (int i = 0; i < 3; i++) list_append(&head, &nodes[i]);
    int seen = 0;
    list_each(&head, node) assert(node == &nodes[seen++]);
    assert(seen == 3);
    list_remove(&nodes[1]);
    list_remove(&nodes[1]); /* harmless */
    assert(head.next == &nodes[0] && head.next->next == &nodes[2]);
}

static void test_a_list_is_emptied_while_it_is_walked(void) {
    struct list head, nodes[3];
    list_init(&head);
    for (int i = 0; i < 3; i++) list_append(&head, &nodes[i]);
    list_each_safe(&head, node, following) list_remove(node);
    assert(list_empty(&head));
}

static void test_powers_of_two_are_rounded_up_to(void) {
    static const uint32_t cases[][2] = {{0, 1}, {1, 1}, {2, 2}, {3, 4}, {4, 4}, {1000, 1024}, {1u << 31, 1u << 31}};
    for (size_t i = 0; i < array_count(cases); i++) assert(round_up_power(cases[i][0]) == cases[i][1]);
}

static void test_the_heap_counts_what_is_out(void) {
    struct heap heap = {0};
    void *memory = heap_alloc(&heap, 100);
    assert(memory && heap.bytes == 100 && heap.asked == 1);
    memory = heap_grow(&heap, memory, 100, 300);
    assert(memory && heap.bytes == 300);
    heap_free(&heap, memory, 300);
    heap_free(&heap, NULL, 7);
    assert(heap.bytes == 0);
}

static void test_one_allocation_fails_or_all_from_one_on(void) {
    struct heap heap = {0};
    heap_fault(&heap, 2, false);
    void *first = heap_alloc(&heap, 8);
    assert(first && !heap_alloc(&heap, 8));
    void *third = heap_alloc(&heap, 8);
    assert(third);
    heap_fault(&heap, 1, true);
    assert(!heap_alloc(&heap, 8) && !heap_grow(&heap, first, 8, 16));
    heap_fault(&heap, 0, false);
    heap_free(&heap, first, 8);
    heap_free(&heap, third, 8);
    assert(heap.bytes == 0);
}

static void test_memory_of_whole_lines_begins_a_line(void) {
    struct heap heap = {0};
    void *memory = heap_alloc(&heap, 2 * LINE);
    assert((uintptr_t)memory % LINE == 0);
    heap_free(&heap, memory, 2 * LINE);
}

static void test_a_reserved_piece_is_there_when_memory_is_not(void) {
    struct heap heap = {0};
    struct pool pool;
    pool_init(&pool, &heap, 64, 2);
    assert(pool_reserve(&pool, 2) && pool.reserved == 2);
    heap_fault(&heap, 1, true);
    assert(!pool_take(&pool) && !pool_reserve(&pool, 1) && pool.reserved == 2);
    void *first = pool_take_reserved(&pool), *second = pool_take_reserved(&pool);
    assert(first && second && first != second && pool_live(&pool) == 2 && pool.reserved == 0);
    pool_give(&pool, first);
    assert(pool_take(&pool) == first);
    pool_give(&pool, first);
    pool_give(&pool, second);
    assert(pool_live(&pool) == 0);
    pool_destroy(&pool);
    assert(heap.bytes == 0);
}

static struct lock lock;
static uint64_t counter;

static void *count(void *unused) {
    for (int i = 0; i < 20000; i++) {
        lock_take(&lock);
        counter++;
        lock_drop(&lock);
    }
    return unused;
}

static void test_the_lock_lets_one_in(void) {
    pthread_t threads[4];
    lock_init(&lock);
    for (size_t i = 0; i < array_count(threads); i++) assert(pthread_create(&threads[i], NULL, count, NULL) == 0);
    for (size_t i = 0; i < array_count(threads); i++) assert(pthread_join(threads[i], NULL) == 0);
    assert(counter == 20000 * array_count(threads));
    lock_destroy(&lock);
}

static void *wake(void *sleeper) {
    sleeper_wake(sleeper);
    return NULL;
}

static void test_a_sleeper_is_woken_even_before_it_sleeps(void) {
    struct sleeper sleeper;
    pthread_t thread;
    sleeper_init(&sleeper);
    assert(pthread_create(&thread, NULL, wake, &sleeper) == 0);
    while (sleeper_sleep(&sleeper, -1) != SLEEP_WOKEN) continue;
    assert(pthread_join(thread, NULL) == 0);
    assert(sleeper_sleep(&sleeper, -1) == SLEEP_WOKEN);
    sleeper_destroy(&sleeper);
}

static void test_a_sleep_ends_at_its_deadline(void) {
    struct sleeper sleeper;
    sleeper_init(&sleeper);
    int64_t deadline = monotonic_ns() + 3000000;
    enum sleep_result result;
    do result = sleeper_sleep(&sleeper, deadline);
    while (result == SLEEP_SIGNAL);
    assert(result == SLEEP_TIMED_OUT && monotonic_ns() >= deadline);
    assert(sleeper_sleep(&sleeper, 0) == SLEEP_TIMED_OUT);
    sleeper_destroy(&sleeper);
}

int main(void) {
    test_a_list_keeps_its_order();
    test_a_list_is_emptied_while_it_is_walked();
    test_powers_of_two_are_rounded_up_to();
    test_the_heap_counts_what_is_out();
    test_one_allocation_fails_or_all_from_one_on();
    test_memory_of_whole_lines_begins_a_line();
    test_a_reserved_piece_is_there_when_memory_is_not();
    test_the_lock_lets_one_in();
    test_a_sleeper_is_woken_even_before_it_sleeps();
    test_a_sleep_ends_at_its_deadline();
    return 0;
}
