/* SPDX-License-Identifier: BSD-2-Clause */
/* Rules of what is recorded: patterns, who they are about, and what stands beside what. */
#include "base/lock.c"
#include "base/pool.c"
#include "sec/sid.c"

#include "sec/selection.c"

#include <assert.h>

#define PORT PM_CLASS_MACH_PORT
#define SENT PM_MACH_PORT__send
#define HELD PM_MACH_PORT__hold_send

static struct heap heap;
static struct sids sids;
static struct selection selection;

static bool matches(const char *pattern, const char *text) {
    return pattern_matches(pattern, strlen(pattern), text, strlen(text));
}

static uint32_t label(const char *text) {
    bool fresh;
    uint32_t sid = sids_intern(&sids, text, (uint32_t)strlen(text), &fresh);
    assert(sid);
    return sid;
}

static struct rule *add(const char *labels, const char *tasks, uint32_t number) {
    const struct pm_audit_rule wanted = {.labels = labels, .labels_size = labels ? strlen(labels) + 1 : 0, .tasks = tasks,
        .tasks_size = tasks ? strlen(tasks) + 1 : 0, .numbers = &number, .numbers_count = number != 0};
    struct rule *rule = selection_add(&selection, &wanted);
    assert(rule);
    selection_select(&selection, rule, PORT, SENT, SENT);
    return rule;
}

static void pick(uint32_t task, const char *name) { assert(selection_pick(&selection, task, name, (uint32_t)strlen(name))); }

static uint32_t wanted(uint32_t task, uint32_t ssid, uint32_t tsid) {
    struct selected selected = selection_exact(&selection, task, ssid, tsid, PORT, PM_OP_SEND);
    assert(selected.granted == selected.denied);
    return selected.granted;
}

static void test_patterns(void) {
    static const struct { const char *pattern, *text; bool good; } cases[] = {
        {"te/a", "te/a", true}, {"te/a", "te/ab", false}, {"te/a*", "te/ab", true}, {"*", "", true}, {"", "", true}, {"", "a", false},
        {"?", "", false}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"*a*b*", "xxaxxbxx", true}, {"*a*b", "xxaxxbxx", false},
        {"**", "abc", true}, {"a*", "a", true}, {"*a", "aaa", true}, {"*ab", "aab", true}, {"?", "\xd0\xb6", true},
        {"?b", "\xe2\x82\xac" "b", true}, {"??", "\xd0\xb6", false}, {"[ab]", "a", false}, {"[ab]", "[ab]", true},
    };
    for (size_t i = 0; i < array_count(cases); i++) assert(matches(cases[i].pattern, cases[i].text) == cases[i].good);
}

static void test_a_hostile_pattern_takes_no_time_out_of_proportion(void) {
    static char pattern[512], text[4096];
    for (size_t i = 0; i < sizeof pattern; i++) pattern[i] = i % 2 ? 'a' : '*';
    memset(text, 'a', sizeof text);
    pattern[sizeof pattern - 1] = 'b';
    assert(!pattern_matches(pattern, sizeof pattern, text, sizeof text));
}

static void test_a_value_of_a_label_is_enough(void) {
    const uint32_t both = label("mls/5:1,te/app"), escaped = label("te/a\\,b,x/c\\\\"), end = label("te/a\\");
    struct rule *rule = add("te/app", NULL, 0);
    assert(wanted(1, both, 0) == SENT && !wanted(1, escaped, 0));
    selection_remove(&selection, rule);
    rule = add("te/a\\,b", NULL, 0);
    assert(wanted(1, escaped, 0) == SENT && !wanted(1, both, 0));
    selection_remove(&selection, rule);
    rule = add("b", NULL, 0);
    assert(!wanted(1, escaped, 0) && !wanted(1, end, 0));
    selection_remove(&selection, rule);
    add("mls/5:1,te/*", NULL, 0);
    assert(wanted(1, both, 0) == SENT);
}

static void test_a_label_is_of_who_does_it_or_of_what_it_is_done_to(void) {
    const uint32_t a = label("te/a"), b = label("te/b");
    add("te/a", NULL, 0);
    assert(wanted(1, a, b) == SENT && wanted(1, b, a) == SENT && !wanted(1, b, b) && !wanted(1, b, 0) && !wanted(1, 0, 0));
    assert(wanted(1, label("te/later"), label("te/a")) == SENT);
}

static void test_a_number_of_a_label_that_means_another_is_looked_at_anew(void) {
    const uint32_t brief = label("te/brief");
    add("te/brief", NULL, 0);
    assert(wanted(1, brief, 0) == SENT);
    assert(!sids_release(&sids, brief, 0));
    sids_collect(&sids, 1);
    assert(!wanted(1, brief, 0) && !wanted(1, label("te/other"), 0));
}

static void test_tasks_by_name_and_number(void) {
    pick(1, "early");
    add(NULL, "late*", 0);
    add(NULL, NULL, 7);
    pick(2, "later");
    pick(7, "whoever");
    pick(8, "x");
    assert(!wanted(1, 0, 0) && wanted(2, 0, 0) == SENT && wanted(7, 0, 0) == SENT && !wanted(8, 0, 0));
    selection_unpick(&selection, 2);
    selection_unpick(&selection, 8);
    assert(!wanted(2, 0, 0) && selection.picks_used == 1);
}

static void test_many_tasks_come_and_go(void) {
    add(NULL, "*", 0);
    for (uint32_t task = 1; task <= 3000; task++) pick(task, "t");
    for (uint32_t task = 1; task <= 3000; task += 3) selection_unpick(&selection, task);
    for (uint32_t task = 1; task <= 3000; task++) assert(!wanted(task, 0, 0) == (task % 3 == 1));
    assert(selection.picks_used == 2000);
}

static void test_label_and_task_both_have_to_match(void) {
    const uint32_t a = label("te/a"), b = label("te/b");
    add("te/a", "t", 0);
    pick(1, "t");
    pick(2, "u");
    assert(wanted(1, a, b) == SENT && !wanted(2, a, b) && !wanted(1, b, b));
}

static void test_a_rule_that_goes_leaves_nothing_to_the_next(void) {
    struct rule *rule = add(NULL, "t", 0);
    pick(1, "t");
    assert(wanted(1, 0, 0) == SENT && selection.any_granted);
    selection_remove(&selection, rule);
    assert(!wanted(1, 0, 0) && !selection.filtered && !selection.any_granted && !selection.granted[PORT]);
    add(NULL, "u", 0);
    assert(!wanted(1, 0, 0));
}

static void test_what_any_wants_is_wanted(void) {
    const uint32_t a = label("te/a");
    selection_select(&selection, &selection.first, PORT, HELD, HELD);
    add("te/a", NULL, 0);
    add("te/*", NULL, 0);
    assert(wanted(1, a, 0) == (SENT | HELD) && wanted(1, 0, 0) == HELD && selection.granted[PORT] == (SENT | HELD));
}

static void test_rules_may_be_about_operations(void) {
    const struct pm_audit_rule gives = {.operations = 1u << PM_OP_GIVE};
    struct rule *rule = selection_add(&selection, &gives);
    selection_select(&selection, rule, 0, UINT32_MAX, 0);
    assert(selection_exact(&selection, 1, 0, 0, PORT, PM_OP_GIVE).granted == UINT32_MAX);
    assert(!selection_exact(&selection, 1, 0, 0, PORT, PM_OP_SEND).granted);
}

/* A hint may be shared by tasks, and does not tell operations apart. */
static void test_messages_that_only_the_operation_can_tell_of(void) {
    const uint32_t a = label("te/a"), b = label("te/b");
    const struct pm_audit_rule sends = {.operations = 1u << PM_OP_SEND};
    uint32_t unsure;
    add("te/a", NULL, 0);
    add(NULL, "t", 0);
    pick(1, "t");
    assert(selection_of_messages(&selection, 1, b, b, &unsure) == SENT && !unsure);
    assert(selection_of_messages(&selection, 2, b, b, &unsure) == 0 && !unsure);
    assert(selection_of_messages(&selection, 2, b, a, &unsure) == SENT && !unsure);
    assert(selection_of_messages(&selection, 0, b, b, &unsure) == 0 && !unsure);
    assert(selection_of_messages(&selection, 0, a, b, &unsure) == SENT && !unsure);
    struct rule *received = add("te/none", "t", 0);
    selection_select(&selection, received, PORT, PM_MACH_PORT__recv, 0);
    pick(1, "t");
    assert(selection_of_messages(&selection, 1, b, b, &unsure) == SENT && unsure == PM_MACH_PORT__use_recv);
    assert(selection_of_messages(&selection, 2, b, b, &unsure) == 0 && !unsure);
    struct rule *rule = selection_add(&selection, &sends);
    selection_select(&selection, rule, PORT, HELD, 0);
    assert(selection_of_messages(&selection, 2, b, b, &unsure) == 0 && unsure == HELD);
}

static void test_there_are_only_so_many(void) {
    for (uint32_t i = 1; i < PM_AUDIT_RULES_MAX; i++) {
        assert(!selection_is_full(&selection));
        assert(selection_find(&selection, add("x", NULL, 0)->number));
    }
    assert(selection_is_full(&selection));
}

static void test_memory_that_runs_out_changes_nothing(void) {
    const struct pm_audit_rule rule = {.labels = "a", .labels_size = 2, .tasks = "b", .tasks_size = 2, .numbers = (uint32_t[]){1},
                                    .numbers_count = 1};
    for (uint64_t at = 1; at <= 4; at++) {
        heap_fault(&heap, at, false);
        assert(!selection_add(&selection, &rule) && !selection.filtered);
    }
    heap_fault(&heap, 0, false);
    add(NULL, "t", 0);
    heap_fault(&heap, 1, true);
    assert(!selection_pick(&selection, 1, "t", 1) && selection_pick(&selection, 1, "u", 1));
    heap_fault(&heap, 0, false);
    pick(1, "t");
}

static void test_what_is_noted_beside_labels_outlives_no_change(void) {
    const uint32_t a = label("te/a");
    selection.stamp = UINT32_MAX - 1;
    struct rule *rule = add("te/a", NULL, 0);
    assert(wanted(1, a, 0) == SENT);
    selection_remove(&selection, rule);
    assert(selection.stamp == 1 && !wanted(1, a, 0));
}

static void (*const tests[])(void) = {
    test_patterns, test_a_hostile_pattern_takes_no_time_out_of_proportion, test_a_value_of_a_label_is_enough,
    test_a_label_is_of_who_does_it_or_of_what_it_is_done_to, test_a_number_of_a_label_that_means_another_is_looked_at_anew,
    test_tasks_by_name_and_number, test_many_tasks_come_and_go, test_label_and_task_both_have_to_match,
    test_a_rule_that_goes_leaves_nothing_to_the_next, test_what_any_wants_is_wanted, test_rules_may_be_about_operations,
    test_messages_that_only_the_operation_can_tell_of, test_there_are_only_so_many, test_memory_that_runs_out_changes_nothing,
    test_what_is_noted_beside_labels_outlives_no_change,
};

int main(void) {
    for (size_t i = 0; i < array_count(tests); i++) {
        sids_init(&sids, &heap, 1);
        selection_init(&selection, &heap);
        selection.sids = &sids;
        tests[i]();
        selection_destroy(&selection);
        sids_destroy(&sids);
        assert(heap.bytes == 0);
    }
    return 0;
}
