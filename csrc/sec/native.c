/* SPDX-License-Identifier: BSD-2-Clause */
#include "sec/native.h"

#include <string.h>

#define EVERYTHING UINT32_MAX
#define CHAIN_MAX 256                   /* rules that one look-up may walk past */
#define RULES_MAX (1u << 24)
#define EXEMPT (1u << 31)

/* What the words of values are, after the number of modules. */
struct sight { uint32_t numbers[PM_NATIVE_NUMBERS], levels[PM_NATIVE_LEVELS]; };
struct level { uint32_t rank, first, count, words[]; };
#define SIGHT_WORDS (sizeof(struct sight) / sizeof(uint32_t))
#define LEVEL_WORDS (sizeof(struct level) / sizeof(uint32_t))

/* The arrays are own copies. Behind what is given: an index of rules by hash (place + 1, 0 empty), and for each kind and group the
 * classes, modulo 64, in which a rule has it as source, and as target. */
struct native_module {
    struct pm_native_module given;
    uint32_t *index, index_room;
    uint64_t *source_classes, *target_classes, seed;
};

/* ---- memory: pieces of the heap that go together ---- */

struct piece { struct piece *next; size_t size; uint64_t words[]; };

static void *piece_new(struct native *native, size_t count, size_t size) {
    size_t whole = sizeof(struct piece) + count * size;
    struct piece *piece = heap_alloc(native->heap, whole);
    native->short_of_memory |= !piece;
    if (!piece) return NULL;
    *piece = (struct piece){native->pieces, whole};
    native->pieces = piece;
    native->bytes += whole;
    return memset(piece->words, 0, count * size);
}

static void *piece_copy(struct native *native, const void *array, size_t count, size_t size) {
    void *copy = piece_new(native, count, size);
    return copy && count ? memcpy(copy, array, count * size) : copy;
}

void native_destroy(struct native *native) {
    if (!native) return;
    for (struct piece *piece = native->pieces, *next; piece; piece = next) {
        next = piece->next;
        heap_free(native->heap, piece, piece->size);
    }
    heap_free(native->heap, native, sizeof *native);
}

/* ---- what is well-formed ---- */

/* Offsets that begin with 0 and never go down. */
static bool offsets_good(const uint32_t *first, uint32_t count) {
    if (first[0] || first[count] > RULES_MAX) return false;
    for (uint32_t i = 0; i < count; i++)
        if (first[i] > first[i + 1]) return false;
    return true;
}

/* Of copies, so that nothing changes any more after it was looked at. */
static bool groups_good(const struct pm_native_module *module) {
    uint64_t most = 0;
    for (uint32_t kind = 0; kind < module->kinds; kind++) {
        uint32_t count = module->groups_first[kind + 1] - module->groups_first[kind];
        if (count > most) most = count;
    }
    for (uint32_t i = 0; i < module->groups_first[module->kinds]; i++)
        if (module->groups[i] < module->kinds || module->groups[i] >= module->numbers) return false;
    return (most + 1) * (most + 2) <= PM_NATIVE_LOOKUPS_MAX;
}

static bool operand_good(uint8_t operand, uint32_t room) { return (operand & ~PM_NATIVE_TARGET) < (int)room; }

static bool step_good(const struct pm_native_module *module, const struct pm_native_step *step, uint32_t *depth) {
    uint32_t needs = step->operator_ == PM_NATIVE_NOT ? 1 : step->operator_ <= PM_NATIVE_OR ? 2 : 0;
    bool level = step->operator_ >= PM_NATIVE_DOMINATES;
    uint32_t room = level ? PM_NATIVE_LEVELS : PM_NATIVE_NUMBERS;
    if (step->operator_ >= PM_NATIVE_OPERATORS || *depth < needs) return false;
    *depth += 1 - needs;
    if (needs) return true;
    bool good = *depth <= PM_NATIVE_STACK && operand_good(step->left, room) && operand_good(step->right, room);
    return good && (step->operator_ != PM_NATIVE_IN || step->set < module->sets_count);
}

static bool test_good(const struct pm_native_module *module, const struct pm_native_test *test) {
    uint32_t depth = 0, first = test->steps_first;
    if (first > module->steps_count || test->steps_count > module->steps_count - first) return false;
    if (test->steps_count > PM_NATIVE_STEPS_MAX) return false;
    for (uint32_t i = 0; i < test->steps_count; i++)
        if (!step_good(module, &module->steps[first + i], &depth)) return false;
    return depth == 1;
}

static bool class_good(const struct pm_native_module *module, const struct pm_native_class *tclass) {
    uint64_t steps = 0;
    uint32_t first = tclass->tests_first;
    if (first > module->tests_count || tclass->tests_count > module->tests_count - first) return false;
    if (tclass->tests_count > PM_NATIVE_STEPS_MAX) return false;
    for (uint32_t i = 0; i < tclass->tests_count; i++) steps += module->tests[first + i].steps_count;
    return steps <= PM_NATIVE_STEPS_MAX;
}

static bool table_rule_good(const struct native *native, const struct pm_native_module *module,
                            const struct pm_native_rule *rule) {
    bool target = rule->target < module->numbers || rule->target == PM_NATIVE_SELF;
    return rule->source < module->numbers && target && rule->tclass < native->classes_count;
}

static bool module_good(const struct native *native, const struct pm_native_module *module) {
    bool good = groups_good(module) && module->permissive <= module->sets_count;
    for (uint32_t i = 0; good && i < module->tests_count; i++) good = test_good(module, &module->tests[i]);
    for (uint32_t i = 0; good && i < native->classes_count; i++) good = class_good(module, &module->classes[i]);
    for (uint32_t i = 0; good && i < module->rules_count; i++) good = table_rule_good(native, module, &module->rules[i]);
    return good;
}

/* What can be told before anything is copied. */
static bool sizes_good(const struct pm_native_module *module) {
    if (module->rules_count > RULES_MAX || module->tests_count > RULES_MAX || module->steps_count > RULES_MAX ||
        module->numbers > RULES_MAX || module->sets_count > RULES_MAX)
        return false;
    return module->kinds <= module->numbers;
}

/* ---- rules by hash ---- */

static inline uint32_t rule_hash(const struct native_module *module, uint32_t source, uint32_t target, uint32_t tclass) {
    uint64_t key = (uint64_t)source << 40 | (uint64_t)tclass << 28 | (target & ((1u << 28) - 1));
    return (uint32_t)mix64(key ^ module->seed);
}

static inline bool rule_is(const struct pm_native_rule *rule, uint32_t source, uint32_t target, uint32_t tclass) {
    return rule->source == source && rule->target == target && rule->tclass == tclass;
}

static void rule_merge(struct pm_native_rule *into, const struct pm_native_rule *rule) {
    into->allowed |= rule->allowed;
    into->auditallow |= rule->auditallow;
    into->dontaudit |= rule->dontaudit;
    into->narrowed |= rule->narrowed;
}

/* Rules of one source, target and class become one. False where chance, or somebody, has too many rules in one place. */
static bool rule_enter(struct native_module *module, struct pm_native_rule *rules, uint32_t *used,
                       const struct pm_native_rule *rule) {
    uint32_t at = rule_hash(module, rule->source, rule->target, rule->tclass);
    for (uint32_t walked = 0; walked < CHAIN_MAX; walked++, at++) {
        uint32_t *place = &module->index[at & (module->index_room - 1)];
        if (*place && !rule_is(&rules[*place - 1], rule->source, rule->target, rule->tclass)) continue;
        if (*place) {
            rule_merge(&rules[*place - 1], rule);
        } else {
            rules[*used] = *rule;
            *place = ++*used;
        }
        return true;
    }
    return false;
}

static bool rules_index(struct native_module *module) {
    struct pm_native_rule *rules = (struct pm_native_rule *)(uintptr_t)module->given.rules;
    uint32_t used = 0;
    for (uint32_t i = 0; i < module->given.rules_count; i++) {
        struct pm_native_rule rule = rules[i];
        if (!rule_enter(module, rules, &used, &rule)) return false;
        uint64_t bit = (uint64_t)1 << (rule.tclass & 63);
        module->source_classes[rule.source] |= bit;
        if (rule.target != PM_NATIVE_SELF) module->target_classes[rule.target] |= bit;
    }
    return true;
}

static inline void rule_add(const struct native_module *module, uint32_t source, uint32_t target, uint32_t tclass,
                            struct pm_native_rule *said) {
    for (uint32_t at = rule_hash(module, source, target, tclass);; at++) {
        uint32_t place = module->index[at & (module->index_room - 1)];
        if (!place) return;
        const struct pm_native_rule *rule = &module->given.rules[place - 1];
        if (!rule_is(rule, source, target, tclass)) continue;
        rule_merge(said, rule);
        return;
    }
}

/* ---- life ---- */

static int module_fill(struct native *native, struct native_module *module, const struct pm_native_module *given) {
    struct pm_native_module *own = &module->given;
    *own = *given;
    if (!sizes_good(own)) return KERN_INVALID_ARGUMENT;
    own->groups_first = piece_copy(native, given->groups_first, own->kinds + 1u, sizeof *own->groups_first);
    own->sets_first = piece_copy(native, given->sets_first, own->sets_count + 1u, sizeof *own->sets_first);
    if (native->short_of_memory) return KERN_RESOURCE_SHORTAGE;
    if (!offsets_good(own->groups_first, own->kinds) || !offsets_good(own->sets_first, own->sets_count))
        return KERN_INVALID_ARGUMENT;
    own->groups = piece_copy(native, given->groups, own->groups_first[own->kinds], sizeof *own->groups);
    own->sets = piece_copy(native, given->sets, own->sets_first[own->sets_count], sizeof *own->sets);
    own->rules = piece_copy(native, given->rules, own->rules_count, sizeof *own->rules);
    own->classes = piece_copy(native, given->classes, native->classes_count, sizeof *own->classes);
    own->tests = piece_copy(native, given->tests, own->tests_count, sizeof *own->tests);
    own->steps = piece_copy(native, given->steps, own->steps_count, sizeof *own->steps);
    module->index_room = round_up_power(2 * own->rules_count + 2);
    module->index = piece_new(native, module->index_room, sizeof *module->index);
    module->source_classes = piece_new(native, own->numbers, sizeof *module->source_classes);
    module->target_classes = piece_new(native, own->numbers, sizeof *module->target_classes);
    if (native->short_of_memory) return KERN_RESOURCE_SHORTAGE;
    return module_good(native, own) && rules_index(module) ? 0 : KERN_INVALID_ARGUMENT;
}

static int native_fill(struct native *native, const struct pm_native *given, uint64_t seed) {
    native->modules = piece_new(native, given->modules_count, sizeof *native->modules);
    native->known = piece_copy(native, given->known, given->classes_count, sizeof *native->known);
    int code = native->short_of_memory ? KERN_RESOURCE_SHORTAGE : 0;
    for (uint32_t i = 0; i < given->modules_count && !code; i++) {
        native->modules[i].seed = mix64(seed + i);
        code = module_fill(native, &native->modules[i], &given->modules[i]);
    }
    return code;
}

int native_create(struct heap *heap, const struct pm_native *given, uint64_t seed, struct native **made) {
    if (given->modules_count > PM_NATIVE_MODULES_MAX || given->classes_count > PM_CLASSES_MAX) return KERN_INVALID_ARGUMENT;
    struct native *native = heap_alloc(heap, sizeof *native);
    if (!native) return KERN_RESOURCE_SHORTAGE;
    *native = (struct native){.heap = heap, .modules_count = given->modules_count, .classes_count = given->classes_count,
                              .epoch = given->epoch, .bytes = sizeof *native};
    int code = native_fill(native, given, seed);
    if (code) native_destroy(native);
    else *made = native;
    return code;
}

/* ---- values ---- */

static bool level_good(const uint32_t *words, size_t count, uint32_t at) {
    if (at > count || count - at < LEVEL_WORDS) return false;
    const struct level *level = (const struct level *)&words[at];
    return level->first <= PM_NATIVE_VALUE_MAX && level->count <= count - at - LEVEL_WORDS;
}

static bool values_good(const uint32_t *words, size_t count) {
    if (words[0] > PM_NATIVE_MODULES_MAX || count - 1 < words[0] * SIGHT_WORDS) return false;
    const struct sight *sights = (const struct sight *)&words[1];
    for (uint32_t i = 0; i < words[0] * PM_NATIVE_LEVELS; i++)
        if (!level_good(words, count, sights[i / PM_NATIVE_LEVELS].levels[i % PM_NATIVE_LEVELS])) return false;
    return true;
}

int native_values(struct heap *heap, uint64_t scheme, const uint32_t *words, size_t count, struct values **made) {
    if (!count || count > PM_NATIVE_VALUE_MAX) return KERN_INVALID_ARGUMENT;
    struct values *values = heap_alloc(heap, values_size(count));
    if (!values) return KERN_RESOURCE_SHORTAGE;
    values->scheme = scheme;
    values->count = (uint32_t)count;
    memcpy(values->words, words, count * sizeof *words);        /* first, so that nothing changes after it was looked at */
    if (values_good(values->words, count)) {
        *made = values;
        return 0;
    }
    heap_free(heap, values, values_size(count));
    return KERN_INVALID_ARGUMENT;
}

/* ---- deciding ---- */

/* One side of a question, as one module sees it. */
struct side { const struct sight *sight; const uint32_t *words; };

static inline const struct level *level_of(const struct side *side, uint32_t place) {
    return (const struct level *)&side->words[side->sight->levels[place]];
}

/* Word `at` of the categories of a level. */
static inline uint32_t categories_at(const struct level *level, uint32_t at) {
    uint32_t place = at - level->first;
    return place < level->count ? level->words[place] : 0;
}

static bool has_categories(const struct level *level, const struct level *other) {
    for (uint32_t i = 0; i < other->count; i++)
        if (other->words[i] & ~categories_at(level, other->first + i)) return false;
    return true;
}

static bool level_dominates(const struct level *level, const struct level *other) {
    if ((level->rank | other->rank) & EXEMPT) return true;
    return level->rank >= other->rank && has_categories(level, other);
}

static bool level_equal(const struct level *level, const struct level *other) {
    return level->rank == other->rank && has_categories(level, other) && has_categories(other, level);
}

static bool in_set(const struct pm_native_module *module, uint32_t set, uint32_t number) {
    uint32_t first = module->sets_first[set], words = module->sets_first[set + 1] - first;
    return number / 32 < words && module->sets[first + number / 32] >> number % 32 & 1;
}

static bool step_holds(const struct pm_native_module *module, const struct pm_native_step *step, const struct side *sides) {
    const struct side *left = &sides[step->left / PM_NATIVE_TARGET], *right = &sides[step->right / PM_NATIVE_TARGET];
    uint32_t place = step->left % PM_NATIVE_TARGET, other = step->right % PM_NATIVE_TARGET;
    switch (step->operator_) {
    case PM_NATIVE_SAME: return left->sight->numbers[place] == right->sight->numbers[other];
    case PM_NATIVE_IN: return in_set(module, step->set, left->sight->numbers[place]);
    case PM_NATIVE_DOMINATES: return level_dominates(level_of(left, place), level_of(right, other));
    default: return level_equal(level_of(left, place), level_of(right, other));
    }
}

/* The stack is the bits of a word, its top the lowest. */
static bool test_holds(const struct pm_native_module *module, const struct pm_native_test *test, const struct side *sides) {
    uint32_t stack = 0;
    const struct pm_native_step *step = &module->steps[test->steps_first];
    for (const struct pm_native_step *end = step + test->steps_count; step < end; step++) {
        if (step->operator_ == PM_NATIVE_NOT) stack ^= 1;
        else if (step->operator_ == PM_NATIVE_AND) stack = stack >> 1 & (stack | ~1u);
        else if (step->operator_ == PM_NATIVE_OR) stack = stack >> 1 | (stack & 1);
        else stack = stack << 1 | step_holds(module, step, sides);
    }
    return stack & 1;
}

/* The i-th of what a kind is: itself, then its groups. */
static inline uint32_t number_of(const struct pm_native_module *module, uint32_t kind, uint32_t i) {
    return i ? module->groups[module->groups_first[kind] + i - 1] : kind;
}
static inline uint32_t numbers_of(const struct pm_native_module *module, uint32_t kind) {
    return 1 + module->groups_first[kind + 1] - module->groups_first[kind];
}

static void rules_look_up(const struct native_module *module, uint32_t source, uint32_t target, uint32_t tclass,
                    struct pm_native_rule *said) {
    const struct pm_native_module *given = &module->given;
    uint32_t sources = numbers_of(given, source), targets = numbers_of(given, target);
    for (uint32_t i = 0; i < sources; i++) {
        uint32_t one = number_of(given, source, i);
        if (!(module->source_classes[one] >> (tclass & 63) & 1)) continue;
        for (uint32_t j = 0; j < targets; j++) {
            uint32_t other = number_of(given, target, j);
            if (module->target_classes[other] >> (tclass & 63) & 1) rule_add(module, one, other, tclass, said);
        }
        if (source == target) rule_add(module, one, PM_NATIVE_SELF, tclass, said);
    }
}

/* False: a value is none of these tables. */
static bool module_decide(const struct native_module *module, const struct side *sides, uint32_t tclass,
                          struct avc_vector *vector) {
    const struct pm_native_module *given = &module->given;
    const struct pm_native_class *rules = &given->classes[tclass];
    uint32_t source = sides[0].sight->numbers[0], target = sides[1].sight->numbers[0];
    struct pm_native_rule said = {0};
    if (given->rules_count) {
        if (source >= given->kinds || target >= given->kinds) return false;
        rules_look_up(module, source, target, tclass, &said);
    }
    uint32_t allowed = said.allowed | rules->allowed;
    for (uint32_t i = 0; i < rules->tests_count; i++) {
        const struct pm_native_test *test = &given->tests[rules->tests_first + i];
        if (allowed & test->permissions && !test_holds(given, test, sides)) allowed &= ~test->permissions;
    }
    allowed |= rules->granted;
    if (said.narrowed) allowed &= said.narrowed;
    *vector = (struct avc_vector){.allowed = allowed, .auditallow = said.auditallow, .auditdeny = ~said.dontaudit};
    bool reported = given->flags & PM_NATIVE_PERMISSIVE || (given->permissive && in_set(given, given->permissive - 1, source));
    if (!reported) return true;
    vector->report = ~vector->allowed;
    vector->allowed = EVERYTHING;
    return true;
}

/* NULL where there are none of these tables. */
static const struct values *values_of(const struct native *native, const struct sids *sids, uint32_t sid) {
    const struct sid_slot *slot = sids_find(sids, sid);
    const struct values *values = slot ? slot->values : NULL;
    return values && values->scheme == native->scheme && values->words[0] == native->modules_count ? values : NULL;
}

bool native_decide(const struct native *native, const struct sids *sids, uint32_t ssid, uint32_t tsid, uint32_t tclass,
                   struct avc_vector *vector) {
    const struct values *source = values_of(native, sids, ssid), *target = values_of(native, sids, tsid);
    if (!source || !target || tclass >= native->classes_count || !native->known[tclass]) return false;
    *vector = (struct avc_vector){.allowed = EVERYTHING};
    for (uint32_t i = 0; i < native->modules_count; i++) {
        const struct side sides[] = {{(const struct sight *)&source->words[1] + i, source->words},
                                     {(const struct sight *)&target->words[1] + i, target->words}};
        struct avc_vector said;
        if (!module_decide(&native->modules[i], sides, tclass, &said)) return false;
        vector->allowed &= said.allowed;
        vector->auditallow |= said.auditallow;
        vector->auditdeny |= said.auditdeny & (~said.allowed | said.report);
        vector->report |= said.report;
    }
    return true;
}
