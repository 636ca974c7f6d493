/* SPDX-License-Identifier: BSD-2-Clause */
/* Sampling: what is kept for certain, what by chance, and whether what is said of it is true. */
#include "base/pool.c"
#include "sec/sample.c"

#include <assert.h>

#define SECOND UINT64_C(1000000000)

static struct heap heap;
static struct sample sample;
static uint64_t now;
static uint64_t tell_now(void *context) { return *(uint64_t *)context; }
static const struct sample_clock watch = {tell_now, &now};

static void begin(uint64_t budget, uint32_t one_in, uint32_t strata) {
    const struct pm_audit_sampling wanted = {.budget = budget, .period_ns = SECOND, .seed = 7, .one_in = one_in, .strata = strata};
    assert(sample_start(&sample, &heap, &wanted, watch));
    now = 0;
}

static struct pm_audit_record sent(uint32_t ssid, uint32_t size) {
    return (struct pm_audit_record){.effective_sid = ssid, .object_sid = 9, .tclass = PM_CLASS_MACH_PORT, .operation = PM_OP_SEND,
                                    .asked = PM_MACH_PORT__send, .size = size, .time = now};
}

/* For how many a record stands; 0: not kept. */
static uint32_t weight(struct pm_audit_record record) {
    struct sample_event event = sample_event_of(&record);
    uint32_t said;
    if (!sample_admits(&sample, &event, &said)) return 0;
    return said ? said >> PM_AUDIT_WEIGHT_SHIFT : 1;
}

static struct pm_audit_stratum row(size_t place) {
    static struct pm_audit_stratum rows[64];
    assert(sample_read(&sample, rows, array_count(rows)) > place);
    return rows[place];
}

static void test_the_first_of_each_meaning_is_kept(void) {
    begin(0, 1000, 32);
    for (uint32_t ssid = 1; ssid <= 10; ssid++) assert(weight(sent(ssid, 1)) == 1);
    struct pm_audit_record other = sent(1, 1);
    other.asked |= PM_MACH_PORT__copy_send;
    assert(weight(other) == 1);
    other.tclass = PM_CLASS_INTERFACE;
    assert(weight(other) == 1);
    other.object_sid = 10;
    assert(weight(other) == 1);
    other.peer_sid = 11;
    assert(weight(other) == 1);
    assert(sample.used == OVERFLOW_ROWS + 14);
}

static void test_messages_are_told_apart_where_asked(void) {
    struct pm_audit_record record = sent(1, 1);
    begin(0, 60000, 8);
    weight(record);
    record.msgh_id = 5;
    assert(!weight(record) && row(2).seen == 2 && row(2).msgh_id == 0);
    const struct pm_audit_sampling wanted = {.one_in = 60000, .strata = 8, .by_message = 1};
    assert(sample_start(&sample, &heap, &wanted, watch));
    assert(weight(record) == 1 && row(2).msgh_id == 5);
    record.msgh_id = 6;
    assert(weight(record) == 1);
}

static void test_what_matters_is_kept(void) {
    struct pm_audit_record record;
    begin(0, 60000, 32);
    for (int i = 0; i < 100; i++) {
        record = sent(1, 1);
        record.denied = 1;
        assert(weight(record) == 1);
        record = sent(1, 1);
        record.operation = PM_OP_GIVE;
        assert(weight(record) == 1);
        record.operation = PM_OP_SERVICE;
        assert(weight(record) == 1);
        record.operation = 77;
        assert(weight(record) == 1);
        record = sent(1, 1);
        record.result = 5;
        assert(weight(record) == 1);
        record = sent(1, 1);
        record.flags = PM_AUDIT_ERROR;
        assert(weight(record) == 1);
    }
    for (size_t i = OVERFLOW_ROWS; i < sample.used; i++)
        assert(row(i).flags == PM_STRATUM_CERTAIN && row(i).seen == row(i).kept && row(i).seen >= 100);
}

static void test_weights_add_up_to_what_was_seen(void) {
    begin(0, 50, 8);
    const uint32_t count = 200000;
    double total = 0, bytes = 0, exact = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t size = i % 97, stands_for = weight(sent(1, size));
        total += stands_for;
        bytes += (double)stands_for * size;
        exact += size;
    }
    /* five standard deviations of a sum of independent choices */
    assert((total - count) * (total - count) < 25 * 49.0 * count);
    assert((bytes - exact) * (bytes - exact) < 25 * 49.0 * count * 97 * 97 / 3);
    assert(row(2).seen == count && row(2).bytes == (uint64_t)exact && row(2).kept > count / 100 && row(2).kept < count / 25);
}

static uint32_t kept_of(uint32_t count, uint64_t over) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        now += over / count;
        kept += weight(sent(1, 1)) != 0;
    }
    return kept;
}

static void test_a_budget_is_kept_to(void) {
    begin(100, 0, 8);
    assert(kept_of(101, SECOND / 2) == 101);
    now = SECOND;
    kept_of(10000, SECOND);             /* the rate follows */
    for (int second = 0; second < 5; second++) {
        uint32_t kept = kept_of(10000, SECOND);
        assert(kept > 50 && kept < 160);
    }
    now += 100 * SECOND;                /* after a long rest there is no need to leave anything out */
    kept_of(16, SECOND / 100);          /* until the clock is looked at */
    assert(kept_of(80, SECOND / 2) == 80);
}

static void test_a_burst_goes_over_the_budget_by_little(void) {
    begin(100, 0, 8);
    uint32_t kept = kept_of(1000000, SECOND / 2);
    assert(kept >= 100 && kept < 600);
}

static void test_estimates_hold_though_the_rate_follows_the_load(void) {
    begin(200, 0, 8);
    double total = 0;
    uint64_t count = 0;
    for (uint32_t second = 0; second < 400; second++) {
        uint32_t load = second % 40 < 30 ? 100 : 20000;
        for (uint32_t i = 0; i < load; i++, count++) {
            now += SECOND / load;
            total += weight(sent(1, 1));
        }
    }
    assert(row(2).seen == count && total > 0.95 * (double)count && total < 1.05 * (double)count);
}

static void test_a_clock_that_is_set_back_is_no_new_time(void) {
    begin(10, 0, 8);
    now = 100 * SECOND;
    kept_of(10000, SECOND);
    now = 50 * SECOND;
    assert(kept_of(10000, SECOND / 2) < 200);
}

static void test_the_same_seed_keeps_the_same(void) {
    uint32_t first[2000];
    begin(20, 0, 8);
    for (uint32_t i = 0; i < 2000; i++) first[i] = (now += SECOND / 500, weight(sent(i % 3, 1)));
    begin(20, 0, 8);
    for (uint32_t i = 0; i < 2000; i++) assert(first[i] == (now += SECOND / 500, weight(sent(i % 3, 1))));
}

static void test_what_finds_no_row_is_counted_together(void) {
    begin(0, 50000, 6);                 /* with the two for overflow, eight */
    for (uint32_t ssid = 1; ssid <= 100; ssid++) weight(sent(ssid, 2));
    assert(sample.used == 8 && row(0).seen == 94 && row(0).bytes == 188 && row(0).flags == PM_STRATUM_OVERFLOW);
    struct pm_audit_record denied = sent(1000, 1);
    denied.denied = 1;
    assert(weight(denied) == 1 && weight(denied) == 1);
    assert(row(1).seen == 2 && row(1).kept == 2 && row(1).flags == (PM_STRATUM_OVERFLOW | PM_STRATUM_CERTAIN));
}

static void test_numbers_that_mean_other_labels_begin_anew(void) {
    begin(0, 50000, 8);
    weight(sent(1, 1));
    weight(sent(1, 1));
    sample_forget_labels(&sample);
    assert(weight(sent(1, 1)) == 1 && row(2).seen == 2 && row(3).seen == 1);
}

static void test_memory_that_runs_out_changes_nothing(void) {
    const struct pm_audit_sampling wanted = {.one_in = 2, .strata = 8};
    begin(0, 50000, 8);
    weight(sent(1, 1));
    for (uint64_t at = 1; at <= 2; at++) {
        heap_fault(&heap, at, false);
        assert(!sample_start(&sample, &heap, &wanted, watch) && row(2).seen == 1);
    }
    heap_fault(&heap, 0, false);
}

static void (*const tests[])(void) = {
    test_the_first_of_each_meaning_is_kept, test_messages_are_told_apart_where_asked, test_what_matters_is_kept,
    test_weights_add_up_to_what_was_seen, test_a_budget_is_kept_to, test_a_burst_goes_over_the_budget_by_little,
    test_estimates_hold_though_the_rate_follows_the_load, test_a_clock_that_is_set_back_is_no_new_time,
    test_the_same_seed_keeps_the_same, test_what_finds_no_row_is_counted_together,
    test_numbers_that_mean_other_labels_begin_anew, test_memory_that_runs_out_changes_nothing,
};

int main(void) {
    for (size_t i = 0; i < array_count(tests); i++) {
        tests[i]();
        sample_stop(&sample);
        assert(heap.bytes == 0 && !sample_on(&sample));
    }
    return 0;
}
