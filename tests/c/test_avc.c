/* SPDX-License-Identifier: BSD-2-Clause */
/* The cache of decisions: what it finds is what was put there, under that key, in this epoch. */
#include "base/pool.c"
#include "sec/avc.c"

#include <assert.h>

#define SIDS 24
#define CLASSES 4
#define STEPS 400000

static struct heap heap;

static struct avc_entry answer(uint32_t ssid, uint32_t tsid, uint32_t tclass, uint32_t epoch, uint32_t allowed) {
    return (struct avc_entry){ssid, tsid, tclass, epoch, {.allowed = allowed}};
}

/* Keys, by number; SIDs that differ in high bits alone are among them. */
static uint32_t sid_of(uint32_t number) { return 1 + number % 6 + (number / 6) * 0x40000000u; }

static void test_random_load_finds_nothing_of_others(void) {
    static uint32_t known[SIDS][SIDS][CLASSES]; /* the last answer of this epoch */
    struct avc avc;
    uint32_t epoch = 1, found = 0;
    uint64_t state = 1;
    assert(avc_init(&avc, &heap, 64, 7));
    for (uint32_t step = 1; step <= STEPS; step++) {
        uint64_t dice = mix64(state++);
        uint32_t source = (uint32_t)dice % SIDS, object = (uint32_t)(dice >> 16) % SIDS, tclass = (uint32_t)(dice >> 32) % CLASSES;
        if (dice >> 50 == 0) epoch++;
        const struct avc_entry *entry = avc_find(&avc, epoch, sid_of(source), sid_of(object), tclass + 1);
        if (entry) assert(entry->vector.allowed == known[source][object][tclass]);
        found += entry != NULL;
        struct avc_entry made = answer(sid_of(source), sid_of(object), tclass + 1, epoch, step);
        avc_insert(&avc, epoch, &made);
        known[source][object][tclass] = step;
        assert(avc_find(&avc, epoch, made.ssid, made.tsid, made.tclass)->vector.allowed == step);
    }
    assert(found > 0 && avc.evictions > 0 && avc.inserts == STEPS);
    avc_destroy(&avc);
}

static void test_an_answer_of_another_epoch_is_refused_and_not_found(void) {
    struct avc avc;
    struct avc_entry old = answer(1, 2, 3, 4, 5);
    assert(avc_init(&avc, &heap, 16, 0));
    avc_insert(&avc, 5, &old);
    assert(avc.refused == 1 && avc.inserts == 0 && !avc_find(&avc, 5, 1, 2, 3) && !avc_find(&avc, 4, 1, 2, 3));
    avc_insert(&avc, 4, &old);
    assert(avc_find(&avc, 4, 1, 2, 3) && !avc_find(&avc, 5, 1, 2, 3));
    avc_flush(&avc);
    assert(!avc_find(&avc, 4, 1, 2, 3));
    avc_destroy(&avc);
}

static void test_a_set_holds_four_and_gives_one_up(void) {
    struct avc avc;
    uint32_t kept = 0;
    assert(avc_init(&avc, &heap, 1, 0));
    assert(avc.sets == 1);
    for (uint32_t i = 1; i <= 5; i++) {
        struct avc_entry made = answer(i, i, 1, 1, i);
        avc_insert(&avc, 1, &made);
    }
    for (uint32_t i = 1; i <= 5; i++) kept += avc_find(&avc, 1, i, i, 1) != NULL;
    assert(kept == AVC_WAYS && avc.evictions == 1 && avc_find(&avc, 1, 5, 5, 1));
    avc_destroy(&avc);
}

static void test_what_is_out_of_date_goes_first(void) {
    struct avc avc;
    assert(avc_init(&avc, &heap, 4, 0));
    for (uint32_t i = 1; i <= 4; i++) {
        struct avc_entry made = answer(i, i, 1, i == 3 ? 1 : 2, i);
        avc_insert(&avc, made.epoch, &made);
    }
    struct avc_entry fifth = answer(9, 9, 1, 2, 9);
    avc_insert(&avc, 2, &fifth);
    assert(avc.evictions == 0 && avc_find(&avc, 2, 9, 9, 1) && avc_find(&avc, 2, 4, 4, 1));
    avc_destroy(&avc);
}

/* Many clients with labels of their own, and one server: an eighth of the entries is in use, so none is in another's way. */
static void test_neighbouring_sids_spread_over_the_sets(void) {
    for (uint64_t seed = 0; seed < 16; seed++) {
        struct avc avc;
        assert(avc_init(&avc, &heap, 8192, seed));
        for (uint32_t sid = 1; sid <= 512; sid++) {
            struct avc_entry to = answer(sid, 7, 1, 1, 1), from = answer(7, sid, 1, 1, 1);
            avc_insert(&avc, 1, &to);
            avc_insert(&avc, 1, &from);
        }
        assert(avc.evictions <= 8);
        avc_destroy(&avc);
    }
}

int main(void) {
    test_random_load_finds_nothing_of_others();
    test_an_answer_of_another_epoch_is_refused_and_not_found();
    test_a_set_holds_four_and_gives_one_up();
    test_what_is_out_of_date_goes_first();
    test_neighbouring_sids_spread_over_the_sets();
    assert(heap.bytes == 0);
    return 0;
}
