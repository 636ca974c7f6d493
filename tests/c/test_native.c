/* SPDX-License-Identifier: BSD-2-Clause */
/* Decisions by tables: what they say, that nothing is read out of bounds whatever they hold, and how long they are in force. */
#include "pympi.c"

#include "scene.h"

#include <stdlib.h>

#define CLASSES 3
#define ALLOWED UINT32_MAX

static struct heap heap;

/* ---- tables by hand: two kinds and a group of both; who sends up is tested ---- */

enum { LOW_KIND, HIGH_KIND, BOTH, NUMBERS };
static const uint32_t groups_first[] = {0, 1, 2}, groups[] = {BOTH, BOTH};
static const uint32_t sets_first[] = {0, 1}, sets[] = {1u << HIGH_KIND};
static const struct pm_native_rule rules[] = {
    {LOW_KIND, HIGH_KIND, 1, 1, 0, 0, 0}, {LOW_KIND, HIGH_KIND, 1, 4, 8, 0, 0}, {BOTH, PM_NATIVE_SELF, 1, 2, 0, 16, 0},
    {HIGH_KIND, BOTH, 1, 7, 0, 0, 0}, {HIGH_KIND, LOW_KIND, 2, 7, 0, 0, 5}};
static const struct pm_native_step steps[] = {
    {PM_NATIVE_DOMINATES, PM_NATIVE_TARGET, 0, 0, 0}, {PM_NATIVE_SAME, 1, PM_NATIVE_TARGET + 1, 0, 0}, {PM_NATIVE_OR, 0, 0, 0, 0}};
static const struct pm_native_test tests[] = {{4, 0, 3}};
static const struct pm_native_class classes[CLASSES] = {{0, 0, 0, 0}, {0, 32, 0, 1}, {0, 0, 0, 0}};
static const uint8_t known[CLASSES] = {0, 1, 1};
static const struct pm_native_module module = {
    .rules = rules, .classes = classes, .tests = tests, .steps = steps, .groups_first = groups_first, .groups = groups,
    .sets_first = sets_first, .sets = sets, .rules_count = array_count(rules), .tests_count = 1, .steps_count = 3, .kinds = 2,
    .numbers = NUMBERS, .sets_count = 1};

static struct pm_native tables(const struct pm_native_module *modules, uint32_t count, uint32_t epoch) {
    return (struct pm_native){.modules = modules, .known = known, .modules_count = count, .classes_count = CLASSES, .epoch = epoch};
}

/* A label's words: one module, kind, second number, rank with one category word. */
#define WORDS 11
struct seen { uint32_t words[WORDS]; };
static struct seen seen(uint32_t kind, uint32_t number, uint32_t rank, uint32_t categories) {
    return (struct seen){{1, kind, number, 0, 7, 7, 7, rank, 0, 1, categories}};
}

struct labels { struct sids sids; uint32_t sid[2]; };

static void value_label(struct labels *labels, int which, uint64_t scheme, const uint32_t *words, size_t count) {
    struct values *values = NULL;
    assert(native_values(&heap, scheme, words, count, &values) == 0);
    struct sid_slot *slot = sids_find(&labels->sids, labels->sid[which]);
    sids_set_values(&labels->sids, slot, values, (uint32_t)values_size(values->count));
}

static void labels_init(struct labels *labels, struct seen source, struct seen target) {
    bool fresh;
    sids_init(&labels->sids, &heap, 0);
    labels->sid[0] = sids_intern(&labels->sids, "a", 1, &fresh);
    labels->sid[1] = sids_intern(&labels->sids, "b", 1, &fresh);
    value_label(labels, 0, 0, source.words, WORDS);
    value_label(labels, 1, 0, target.words, WORDS);
}

static bool decided(const struct pm_native *given, struct seen source, struct seen target, uint32_t tclass, struct avc_vector *vector) {
    struct native *native;
    struct labels labels;
    assert(native_create(&heap, given, 7, &native) == 0);
    labels_init(&labels, source, target);
    bool covered = native_decide(native, &labels.sids, labels.sid[0], labels.sid[1], tclass, vector);
    sids_destroy(&labels.sids);
    native_destroy(native);
    return covered;
}

static struct avc_vector decision(const struct pm_native_module *modules, uint32_t count, struct seen source, struct seen target) {
    struct pm_native given = tables(modules, count, 1);
    struct avc_vector vector;
    assert(decided(&given, source, target, 1, &vector));
    return vector;
}

static void expect(struct avc_vector vector, uint32_t allowed, uint32_t auditallow, uint32_t auditdeny, uint32_t report) {
    assert(vector.allowed == allowed && vector.auditallow == auditallow && vector.auditdeny == auditdeny && vector.report == report);
}

static void test_rules_groups_and_tests(void) {
    struct seen low = seen(LOW_KIND, 1, 0, 0), high = seen(HIGH_KIND, 2, 3, 9), aside = seen(HIGH_KIND, 2, 3, 16);
    expect(decision(&module, 1, low, high), 1 | 4 | 32, 8, ~(1u | 4 | 32), 0);
    expect(decision(&module, 1, high, low), 1 | 2 | 32, 0, ~(1u | 2 | 32), 0);      /* 4 needs to go up, or one number */
    expect(decision(&module, 1, high, aside), 1 | 2 | 4 | 32, 0, ~(7u | 32 | 16), 0);      /* numbers are the same */
    expect(decision(&module, 1, low, low), 2 | 32, 0, ~(2u | 32 | 16), 0);
}

static void test_what_narrows_leaves_what_one_rule_has(void) {
    struct pm_native given = tables(&module, 1, 1);
    struct avc_vector vector;
    assert(decided(&given, seen(HIGH_KIND, 0, 0, 0), seen(LOW_KIND, 0, 0, 0), 2, &vector));
    assert(vector.allowed == 5);
}

static void test_permissive_kinds_and_modules_report(void) {
    struct seen low = seen(LOW_KIND, 1, 0, 0), high = seen(HIGH_KIND, 2, 3, 9);
    struct pm_native_module soft = module;
    soft.permissive = 1;
    expect(decision(&soft, 1, high, low), ALLOWED, 0, ~(1u | 2 | 32), ~(1u | 2 | 32));
    expect(decision(&soft, 1, low, high), 1 | 4 | 32, 8, ~(1u | 4 | 32), 0);
    soft = module;
    soft.flags = PM_NATIVE_PERMISSIVE;
    expect(decision(&soft, 1, low, high), ALLOWED, 8, ~(1u | 4 | 32), ~(1u | 4 | 32));
}

static void test_several_modules_are_composed(void) {
    static const struct pm_native_class two[CLASSES] = {{0, 0, 0, 0}, {6, 0, 0, 0}, {0, 0, 0, 0}};
    const struct pm_native_module both[] = {module, {.classes = two, .groups_first = groups_first, .sets_first = sets_first}};
    const uint32_t words[] = {2, 0, 1, 0, 13, 13, 13, 0, 0, 0, 13, 13, 13, 0, 0, 0}, other[] = {2, 1, 2, 0, 13, 13, 13, 0, 0, 0, 13, 13, 13, 3, 0, 0};
    struct pm_native given = tables(both, 2, 1);
    struct native *native;
    struct labels labels;
    struct avc_vector vector;
    assert(native_create(&heap, &given, 7, &native) == 0);
    labels_init(&labels, seen(0, 0, 0, 0), seen(0, 0, 0, 0));
    assert(!native_decide(native, &labels.sids, labels.sid[0], labels.sid[1], 1, &vector));      /* values of one module */
    value_label(&labels, 0, 0, words, array_count(words));
    value_label(&labels, 1, 0, other, array_count(other));
    assert(native_decide(native, &labels.sids, labels.sid[0], labels.sid[1], 1, &vector));
    expect(vector, 4, 8, ~4u, 0);
    sids_destroy(&labels.sids);
    native_destroy(native);
}

static void test_levels(void) {
    static const struct pm_native_step step[] = {{PM_NATIVE_DOMINATES, 0, PM_NATIVE_TARGET, 0, 0}, {PM_NATIVE_EQUAL, 0, PM_NATIVE_TARGET, 0, 0}};
    static const struct pm_native_test test[] = {{1, 0, 1}, {2, 1, 1}};
    static const struct pm_native_class open[CLASSES] = {{0, 0, 0, 0}, {3, 0, 0, 2}, {0, 0, 0, 0}};
    const struct pm_native_module levels = {.classes = open, .tests = test, .steps = step, .groups_first = groups_first,
                                            .sets_first = sets_first, .tests_count = 2, .steps_count = 2};
    const struct { struct seen a, b; uint32_t allowed; } cases[] = {
        {seen(0, 0, 2, 5), seen(0, 0, 2, 5), 3}, {seen(0, 0, 2, 5), seen(0, 0, 1, 4), 1}, {seen(0, 0, 1, 5), seen(0, 0, 2, 5), 0},
        {seen(0, 0, 2, 4), seen(0, 0, 2, 5), 0}, {seen(0, 0, 2, 4), seen(0, 0, EXEMPT, 5), 1}, {seen(0, 0, EXEMPT, 5), seen(0, 0, 9, 5), 1}};
    for (size_t i = 0; i < array_count(cases); i++)
        assert(decision(&levels, 1, cases[i].a, cases[i].b).allowed == cases[i].allowed);
    struct seen far = seen(0, 0, 2, 1);                 /* the same category, as the lowest of a later word */
    far.words[8] = 40;
    assert(decision(&levels, 1, far, far).allowed == 3);
    assert(decision(&levels, 1, far, seen(0, 0, 2, 1)).allowed == 0 && decision(&levels, 1, seen(0, 0, 2, 1), far).allowed == 0);
    assert(decision(&levels, 1, seen(0, 0, 2, 1), seen(0, 0, 2, 0)).allowed == 1);
    struct seen none = seen(0, 0, 2, 5);                /* the word behind a level without categories is none of them */
    none.words[9] = 0;
    assert(decision(&levels, 1, none, seen(0, 0, 2, 5)).allowed == 0 && decision(&levels, 1, seen(0, 0, 2, 5), none).allowed == 1);
}

static void test_what_is_not_covered_is_not_answered(void) {
    struct pm_native given = tables(&module, 1, 1);
    struct avc_vector vector;
    struct seen low = seen(LOW_KIND, 0, 0, 0);
    assert(!decided(&given, low, low, 0, &vector) && !decided(&given, low, low, CLASSES, &vector));      /* no such class */
    assert(!decided(&given, seen(2, 0, 0, 0), low, 1, &vector) && !decided(&given, low, seen(UINT32_MAX, 0, 0, 0), 1, &vector));
}

/* ---- what is not well-formed ---- */

static int created(struct pm_native_module changed) {
    struct pm_native given = tables(&changed, 1, 1);
    struct native *native = NULL;
    int code = native_create(&heap, &given, 7, &native);
    if (!code) native_destroy(native);
    return code;
}
#define REFUSED(...) do { struct pm_native_module m = module; __VA_ARGS__; assert(created(m) == KERN_INVALID_ARGUMENT); } while (0)

static void test_malformed_tables_are_refused(void) {
    assert(created(module) == 0);
    REFUSED(m.rules = &(struct pm_native_rule){NUMBERS, 0, 1, 1, 0, 0, 0}; m.rules_count = 1);
    REFUSED(m.rules = &(struct pm_native_rule){0, NUMBERS, 1, 1, 0, 0, 0}; m.rules_count = 1);
    REFUSED(m.rules = &(struct pm_native_rule){0, 0, CLASSES, 1, 0, 0, 0}; m.rules_count = 1);
    REFUSED(m.groups = ((uint32_t[]){BOTH, NUMBERS}));
    REFUSED(m.groups = ((uint32_t[]){BOTH, HIGH_KIND}));
    REFUSED(m.groups_first = ((uint32_t[]){1, 1, 2}));
    REFUSED(m.groups_first = ((uint32_t[]){0, 2, 1}));
    REFUSED(m.sets_first = ((uint32_t[]){0, UINT32_MAX}));
    REFUSED(m.numbers = 1);
    REFUSED(m.kinds = m.numbers = UINT32_MAX);
    REFUSED(m.permissive = 2);
    REFUSED(m.tests = &(struct pm_native_test){1, 1, 3});
    REFUSED(m.tests = &(struct pm_native_test){1, 0, 2});              /* leaves two values */
    REFUSED(m.tests = &(struct pm_native_test){1, 0, 0});              /* and this none */
    REFUSED(m.tests = &(struct pm_native_test){1, UINT32_MAX, 3});
    REFUSED(m.classes = ((struct pm_native_class[CLASSES]){{0, 0, 0, 2}, {0, 0, 0, 0}, {0, 0, 0, 0}}));
    REFUSED(m.classes = ((struct pm_native_class[CLASSES]){{0, 0, UINT32_MAX, 2}, {0, 0, 0, 0}, {0, 0, 0, 0}}));
    const struct pm_native_step wrong[] = {
        {PM_NATIVE_OPERATORS, 0, 0, 0, 0}, {PM_NATIVE_NOT, 0, 0, 0, 0}, {PM_NATIVE_AND, 0, 0, 0, 0}, {PM_NATIVE_SAME, 3, 0, 0, 0},
        {PM_NATIVE_SAME, 0, 19, 0, 0}, {PM_NATIVE_SAME, 32, 0, 0, 0}, {PM_NATIVE_IN, 0, 0, 0, 1}, {PM_NATIVE_IN, 0, 240, 0, 0},
        {PM_NATIVE_DOMINATES, 0, 255, 0, 0}, {PM_NATIVE_EQUAL, 3, 0, 0, 0}};
    for (size_t i = 0; i < array_count(wrong); i++)
        REFUSED(m.steps = &wrong[i]; m.steps_count = 1; m.tests = &(struct pm_native_test){1, 0, 1});
    struct pm_native many = tables(&module, PM_NATIVE_MODULES_MAX + 1, 1);
    struct native *native;
    assert(native_create(&heap, &many, 7, &native) == KERN_INVALID_ARGUMENT);
}

static void test_work_is_bounded(void) {
    enum { MANY = 300 };
    static uint32_t first[2] = {0, MANY}, in[MANY];
    static struct pm_native_step deep[2 * PM_NATIVE_STEPS_MAX];
    for (uint32_t i = 0; i < MANY; i++) in[i] = 1 + i;
    REFUSED(m.groups_first = first; m.groups = in; m.kinds = 1; m.numbers = 1 + MANY; m.rules_count = 0);
    for (uint32_t i = 0; i < array_count(deep); i++) deep[i].operator_ = PM_NATIVE_SAME;
    for (uint32_t held = PM_NATIVE_STACK; held <= PM_NATIVE_STACK + 1; held++) {       /* so many truths, then one of them all */
        struct pm_native_module m = module;
        for (uint32_t i = 0; i < 2 * held - 1; i++) deep[i].operator_ = i < held ? PM_NATIVE_SAME : PM_NATIVE_AND;
        m.steps = deep;
        m.steps_count = 2 * held - 1;
        m.tests = &(struct pm_native_test){1, 0, m.steps_count};
        assert(created(m) == (held > PM_NATIVE_STACK ? KERN_INVALID_ARGUMENT : 0));
    }
    deep[0].operator_ = PM_NATIVE_SAME;
    for (uint32_t i = 1; i < array_count(deep); i++) deep[i].operator_ = PM_NATIVE_NOT;
    REFUSED(m.steps = deep; m.steps_count = PM_NATIVE_STEPS_MAX + 1; m.tests = &(struct pm_native_test){1, 0, m.steps_count});
}

static int valued(const uint32_t *words, size_t count) {
    struct values *values = NULL;
    int code = native_values(&heap, 1, words, count, &values);
    if (!code) heap_free(&heap, values, values_size(values->count));
    return code;
}

static void test_malformed_values_are_refused(void) {
    struct seen good = seen(0, 0, 0, 0);
    assert(valued(good.words, WORDS) == 0);
    for (size_t count = 0; count < WORDS; count++) assert(valued(good.words, count) == KERN_INVALID_ARGUMENT);
    assert(valued(good.words, PM_NATIVE_VALUE_MAX + 1) == KERN_INVALID_ARGUMENT);
    const struct { uint32_t place, word; } changes[] = {{0, 2}, {0, UINT32_MAX}, {4, 9}, {5, WORDS}, {6, UINT32_MAX}, {8, UINT32_MAX}, {9, 2}, {9, UINT32_MAX}};
    for (size_t i = 0; i < array_count(changes); i++) {
        struct seen bad = good;
        bad.words[changes[i].place] = changes[i].word;
        assert(valued(bad.words, WORDS) == KERN_INVALID_ARGUMENT);
    }
}

/* ---- anything at all: refused, or decided within bounds ---- */

#define FUZZ_RULES 40
#define FUZZ_STEPS 12
static uint64_t state = 1;
static uint32_t dice(uint32_t sides) { return (uint32_t)(mix64(state++) % sides); }
static bool hostile;
static uint32_t often(uint32_t limit) { return !hostile || dice(60) ? dice(limit) : (uint32_t)mix64(state++); }

static void random_module(struct pm_native_module *m) {
    static uint32_t first[9], in[16], set_first[3], set[4];
    static struct pm_native_rule some[FUZZ_RULES];
    static struct pm_native_step step[FUZZ_STEPS];
    static struct pm_native_test test[4];
    static struct pm_native_class tclass[CLASSES];
    hostile = dice(2);
    *m = (struct pm_native_module){.rules = some, .classes = tclass, .tests = test, .steps = step, .groups_first = first, .groups = in,
                                   .sets_first = set_first, .sets = set, .rules_count = dice(FUZZ_RULES), .tests_count = 4,
                                   .steps_count = FUZZ_STEPS, .kinds = dice(9), .numbers = 12, .sets_count = 2,
                                   .permissive = dice(3)};
    for (int i = 1; i < 9; i++) first[i] = first[i - 1] + dice(3);
    for (int i = 0; i < 16; i++) in[i] = m->kinds + often(12 - m->kinds);
    for (int i = 1; i < 3; i++) set_first[i] = set_first[i - 1] + dice(3);
    for (int i = 0; i < FUZZ_RULES; i++)
        some[i] = (struct pm_native_rule){often(12), dice(5) ? often(12) : PM_NATIVE_SELF, often(CLASSES), dice(256), dice(256), dice(256), dice(2)};
    for (int i = 0; i < FUZZ_STEPS; i++)
        step[i] = (struct pm_native_step){(uint8_t)(i % 3 == 2 ? 1 + often(2) : 3 + often(4)), (uint8_t)(16 * dice(2) + often(3)), (uint8_t)(16 * dice(2) + often(3)), 0, often(2)};
    for (int i = 0; i < 4; i++) test[i] = (struct pm_native_test){dice(256), 3 * often(4), dice(2) ? 3 : 1};
    for (int i = 0; i < CLASSES; i++) tclass[i] = (struct pm_native_class){dice(256), dice(256), often(2), often(3)};
}

static void random_values(struct labels *labels, int which) {
    uint32_t words[40], count = 7 + dice(33);
    struct values *values = NULL;
    for (uint32_t i = 0; i < 40; i++) words[i] = often(i % 2 ? 12 : 3);
    words[0] = 1;
    for (int i = 4; i < 7; i++) words[i] = 7 + often(12);
    if (native_values(&heap, 0, words, count, &values)) return;
    sids_set_values(&labels->sids, sids_find(&labels->sids, labels->sid[which]), values, (uint32_t)values_size(values->count));
}

static void test_anything(void) {
    uint32_t made = 0, covered = 0;
    struct labels labels;
    labels_init(&labels, seen(0, 0, 0, 0), seen(1, 0, 0, 0));
    for (int i = 0; i < 60000; i++) {
        struct pm_native_module m;
        struct native *native;
        struct avc_vector vector;
        random_module(&m);
        struct pm_native given = tables(&m, 1, 1);
        if (native_create(&heap, &given, state, &native)) continue;
        made++;
        for (int j = 0; j < 8; j++) {
            random_values(&labels, j % 2);
            covered += native_decide(native, &labels.sids, labels.sid[0], labels.sid[1], dice(CLASSES + 1), &vector);
        }
        native_destroy(native);
    }
    sids_destroy(&labels.sids);
    assert(made > 10000 && covered > 10000);
}

/* ---- in a kernel ---- */

static uint32_t asked;
static int refuse_all(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)context, (void)epoch;
    asked += (uint32_t)count;
    for (size_t i = 0; i < count; i++) queries[i].uncached = 1;
    return 0;
}

static struct pm_kernel *policed(void) {
    struct pm_kernel *kernel;
    const struct pm_config config = {.avc_entries = 1};
    assert(pm_kernel_create(&config, &kernel) == 0 && pm_kernel_set_decider(kernel, refuse_all, NULL) == 0);
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    return kernel;
}

static int install(struct pm_kernel *kernel, uint32_t epoch, bool keep) {
    struct pm_native given = tables(&module, 1, epoch);
    given.keep_values = keep;
    return pm_kernel_set_native(kernel, &given);
}

static bool check_allowed(struct pm_kernel *kernel, uint32_t source, uint32_t target) {
    uint32_t before = asked;
    bool yes = pm_check(kernel, source, target, 1, 1) == 1;
    assert(!yes || asked == before);
    expect_sound(kernel);
    return yes;
}

static void test_how_long_tables_and_values_last(void) {
    struct pm_kernel *kernel = policed();
    uint32_t low = sid_named(kernel, "low"), high = sid_named(kernel, "high"), epoch = pm_kernel_epoch(kernel);
    struct seen lows = seen(LOW_KIND, 1, 0, 0), highs = seen(HIGH_KIND, 2, 3, 9);
    assert(pm_sid_set_values(kernel, low, epoch, lows.words, WORDS) == KERN_ABORTED);        /* no tables */
    assert(install(kernel, epoch + 1, false) == KERN_ABORTED && !stats_of(kernel).native);
    assert(install(kernel, epoch, false) == 0 && !check_allowed(kernel, low, high));
    assert(pm_sid_set_values(kernel, low, epoch, lows.words, WORDS) == 0 && !check_allowed(kernel, low, high));
    assert(pm_sid_set_values(kernel, high, epoch + 1, highs.words, WORDS) == KERN_ABORTED && !check_allowed(kernel, low, high));
    assert(pm_sid_set_values(kernel, high, epoch, highs.words, WORDS) == 0 && pm_sid_set_values(kernel, 99, epoch, highs.words, WORDS));
    assert(pm_sid_set_values(kernel, high, epoch, highs.words, 3) == KERN_INVALID_ARGUMENT);
    assert(check_allowed(kernel, low, high) && stats_of(kernel).native_decisions == 1);
    pm_kernel_set_policy(kernel, PM_POLICY_LOADED);
    assert(!check_allowed(kernel, low, high) && !stats_of(kernel).native);
    assert(install(kernel, epoch + 1, true) == 0 && check_allowed(kernel, low, high) && stats_of(kernel).native_labels == 2);
    assert(install(kernel, epoch + 1, false) == 0 && pm_kernel_set_native(kernel, NULL) == 0);
    pm_kernel_set_policy(kernel, PM_POLICY_LOADED);
    assert(install(kernel, epoch + 2, false) == 0 && !check_allowed(kernel, low, high));       /* values of another scheme */
    pm_kernel_destroy(kernel);
}

static void test_a_kernel_without_fast_paths_takes_none(void) {
    struct pm_kernel *kernel;
    const struct pm_config config = {.no_fast_path = 1};
    assert(pm_kernel_create(&config, &kernel) == 0);
    assert(install(kernel, pm_kernel_epoch(kernel), false) == KERN_NOT_SUPPORTED && !stats_of(kernel).native);
    assert(pm_kernel_set_native(kernel, NULL) == 0);
    pm_kernel_destroy(kernel);
}

static void test_a_label_that_is_gone_takes_its_values_along(void) {
    struct pm_kernel *kernel = policed();
    uint32_t epoch = pm_kernel_epoch(kernel), low = sid_named(kernel, "low"), high = sid_named(kernel, "high");
    struct seen lows = seen(LOW_KIND, 1, 0, 0), highs = seen(HIGH_KIND, 2, 3, 9);
    struct pm_audit_record records[1];
    assert(install(kernel, epoch, false) == 0);
    assert(pm_sid_set_values(kernel, low, epoch, lows.words, WORDS) == 0 && pm_sid_set_values(kernel, high, epoch, highs.words, WORDS) == 0);
    assert(check_allowed(kernel, low, high));
    pm_sid_release(kernel, high);
    assert(check_allowed(kernel, low, high) && stats_of(kernel).native_labels == 2);         /* it rests */
    assert(pm_audit_write(kernel, &(struct pm_audit_record){.operation = PM_OP_SERVICE}) == 0);
    pm_audit_drain(kernel, records, 1);
    pm_audit_drain(kernel, records, 1);
    uint32_t again = sid_named(kernel, "another");
    assert((again & INDEX_MASK) == (high & INDEX_MASK) && again != high && stats_of(kernel).native_labels == 1);
    uint32_t before = asked;
    assert(pm_check(kernel, low, again, 1, 1) == 0 && asked > before);
    expect_sound(kernel);
    pm_kernel_destroy(kernel);
}

static void test_without_memory_there_are_none(void) {
    struct pm_kernel *kernel = policed();
    uint32_t epoch = pm_kernel_epoch(kernel), low = sid_named(kernel, "low");
    struct seen lows = seen(LOW_KIND, 1, 0, 0);
    uint64_t bytes = stats_of(kernel).memory, failed = 0;
    for (;; failed++) {
        assert(pm_kernel_fault(kernel, failed + 1, 0) == 0);
        int code = install(kernel, epoch, false);
        pm_kernel_fault(kernel, 0, 0);
        if (!code) break;
        assert(code == KERN_RESOURCE_SHORTAGE && !stats_of(kernel).native && stats_of(kernel).memory == bytes);
    }
    assert(failed > 10);
    pm_kernel_fault(kernel, 1, 0);
    assert(pm_sid_set_values(kernel, low, epoch, lows.words, WORDS) == KERN_RESOURCE_SHORTAGE && !stats_of(kernel).native_labels);
    assert(pm_sid_set_values(kernel, low, epoch, lows.words, WORDS) == 0);
    assert(stats_of(kernel).native_labels == 1 && stats_of(kernel).native_memory == stats_of(kernel).memory - bytes);
    expect_sound(kernel);
    pm_kernel_set_native(kernel, NULL);
    pm_kernel_destroy(kernel);
}

int main(void) {
    test_rules_groups_and_tests();
    test_what_narrows_leaves_what_one_rule_has();
    test_permissive_kinds_and_modules_report();
    test_several_modules_are_composed();
    test_levels();
    test_what_is_not_covered_is_not_answered();
    test_malformed_tables_are_refused();
    test_work_is_bounded();
    test_malformed_values_are_refused();
    test_anything();
    assert(heap.bytes == 0);
    test_how_long_tables_and_values_last();
    test_a_kernel_without_fast_paths_takes_none();
    test_a_label_that_is_gone_takes_its_values_along();
    test_without_memory_there_are_none();
    return 0;
}
