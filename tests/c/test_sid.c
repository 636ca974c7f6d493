/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels as numbers: interned once, resting when nobody wants them, never mistaken for each other. */
#include "base/pool.c"
#include "sec/sid.c"

#include <assert.h>
#include <stdio.h>

static struct heap heap;
static struct sids sids;

static uint32_t intern(const char *text) {
    bool fresh;
    uint32_t sid = sids_intern(&sids, text, (uint32_t)strlen(text), &fresh);
    assert(sid);
    return sid;
}

static void release_at(uint32_t sid, uint64_t now) { assert(sids_release(&sids, sid, now) == NULL); }

static void test_a_text_has_one_number(void) {
    uint32_t first = intern("te/a"), again = intern("te/a"), other = intern("te/b");
    assert(first == again && other != first && sids.alive == 2);
    assert(!memcmp(sids_find(&sids, first)->text, "te/a", 5));
    release_at(again, 0);
    assert(sids_alive(&sids, first));
    release_at(first, 0);
    assert(!sids_alive(&sids, first) && sids_find(&sids, first) && sids.resting == 1);
    release_at(other, 0);
}

static void test_a_resting_label_comes_back(void) {
    uint32_t sid = intern("te/rest");
    release_at(sid, 5);
    assert(intern("te/rest") == sid && sids_alive(&sids, sid));
    release_at(sid, 5);
    sids_retain(&sids, sid);
    assert(sids_alive(&sids, sid));
    release_at(sid, 5);
    sids_collect(&sids, 6);
}

static void test_labels_rest_as_long_as_records_may_name_them(void) {
    uint32_t early = intern("te/early"), late = intern("te/late");
    release_at(early, 10);
    release_at(late, 20);
    sids_collect(&sids, 10);
    assert(sids_find(&sids, early));
    sids_collect(&sids, 11);
    assert(!sids_find(&sids, early) && sids_find(&sids, late));
    sids_collect(&sids, 21);
    assert(sids.resting == 0);
}

static void test_no_more_rest_than_there_may(void) {
    char text[16];
    for (uint32_t i = 0; i <= SIDS_RESTING_MAX + 100; i++) {
        snprintf(text, sizeof text, "n/%u", i);
        release_at(intern(text), 1);
        sids_collect(&sids, 0);
    }
    assert(sids.resting == SIDS_RESTING_MAX);
    sids_collect(&sids, 2);
    assert(sids.resting == 0);
}

static void test_a_slot_used_again_has_another_number(void) {
    uint32_t before = intern("te/one");
    release_at(before, 0);
    sids_collect(&sids, 1);
    uint32_t after = intern("te/two");
    assert((before & INDEX_MASK) == (after & INDEX_MASK) && before != after);
    assert(!sids_find(&sids, before));
    release_at(before, 0); /* of nobody */
    assert(sids_alive(&sids, after));
    release_at(after, 0);
    sids_collect(&sids, 1);
}

static void test_generations_that_begin_anew_are_counted(void) {
    uint32_t first = intern("te/x"), sid = first;
    uint64_t wraps = sids.wraps;
    for (uint32_t i = 0; i < GENERATIONS; i++) {
        release_at(sid, 0);
        sids_collect(&sids, 1);
        sid = intern("te/x");
        assert((sid == first) == (i == GENERATIONS - 1));
    }
    assert(sids.wraps == wraps + 1);
    release_at(sid, 0);
    sids_collect(&sids, 1);
}

static void test_the_payer_is_told_when_it_pays_no_more(void) {
    int payer;
    uint32_t sid = intern("te/paid");
    sids_find(&sids, sid)->payer = &payer;
    sids_retain(&sids, sid);
    assert(sids_release(&sids, sid, 0) == NULL && sids_release(&sids, sid, 0) == &payer);
    assert(sids_find(&sids, sid)->payer == NULL);
    sids_collect(&sids, 1);
}

static void test_texts_are_compared_whole(void) {
    bool fresh;
    uint32_t shorter = sids_intern(&sids, "te/ab", 4, &fresh), longer = sids_intern(&sids, "te/ab", 5, &fresh);
    assert(shorter != longer && shorter == intern("te/a"));
    for (int i = 0; i < 2; i++) release_at(shorter, 0);
    release_at(longer, 0);
    sids_collect(&sids, 1);
}

static void test_without_memory_nothing_is_interned(void) {
    bool fresh;
    heap_fault(&heap, 1, true);
    assert(sids_intern(&sids, "te/none", 7, &fresh) == 0);
    heap_fault(&heap, 0, false);
    assert(sids.alive == 0);
}

int main(void) {
    sids_init(&sids, &heap, 1);
    assert(!sids_find(&sids, 0) && !sids_find(&sids, 1));
    test_a_text_has_one_number();
    test_a_resting_label_comes_back();
    test_labels_rest_as_long_as_records_may_name_them();
    test_no_more_rest_than_there_may();
    test_a_slot_used_again_has_another_number();
    test_generations_that_begin_anew_are_counted();
    test_the_payer_is_told_when_it_pays_no_more();
    test_texts_are_compared_whole();
    test_without_memory_nothing_is_interned();
    sids_destroy(&sids);
    assert(heap.bytes == 0);
    return 0;
}
