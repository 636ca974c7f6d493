/* SPDX-License-Identifier: BSD-2-Clause */
#include "sec/selection.h"

#include <string.h>

#define MESSAGES (1u << PM_OP_SEND | 1u << PM_OP_RECEIVE)

/* ---- patterns ---- */

static bool inside_character(char byte) { return ((unsigned char)byte & 0xc0) == 0x80; }

static size_t character_end(const char *text, size_t size, size_t at) {
    for (at++; at < size && inside_character(text[at]); at++) continue;
    return at;
}

/* Where a part does not match, the last * takes one more byte and what follows it is tried anew. */
bool pattern_matches(const char *pattern, size_t length, const char *text, size_t size) {
    size_t p = 0, t = 0, star = length, tried = 0;
    while (t < size) {
        if (p < length && pattern[p] == '*') {
            star = p++;
            tried = t;
        } else if (p < length && (pattern[p] == '?' || pattern[p] == text[t])) {
            t = pattern[p] == '?' ? character_end(text, size, t) : t + 1;
            p++;
        } else if (star < length) {
            p = star + 1;
            t = ++tried;
        } else {
            return false;
        }
    }
    while (p < length && pattern[p] == '*') p++;
    return p == length;
}

static bool texts_match(const struct texts *texts, const char *text, size_t size) {
    for (size_t at = 0; at < texts->size; at += strlen(texts->text + at) + 1)
        if (pattern_matches(texts->text + at, strlen(texts->text + at), text, size)) return true;
    return false;
}

/* Where the value of a label that begins at `at` ends: at a comma that is not escaped. */
static size_t value_end(const char *text, size_t size, size_t at) {
    while (at < size && text[at] != ',') at += text[at] == '\\' && at + 1 < size ? 2 : 1;
    return at;
}

/* A label as a whole, or one of its values with the name of the module. */
static bool label_matches(const struct texts *texts, const char *text, size_t size) {
    if (texts_match(texts, text, size)) return true;
    for (size_t at = 0, end; at < size; at = end + 1) {
        end = value_end(text, size, at);
        if (texts_match(texts, text + at, end - at)) return true;
    }
    return false;
}

/* ---- rules ---- */

#define each_rule(selection, rule) \
    for (uint32_t at_ = 0; at_ < PM_AUDIT_RULES_MAX; at_++) \
        for (struct rule *rule = (selection)->rules[at_]; rule; rule = NULL)

void selection_init(struct selection *selection, struct heap *heap) {
    memset(selection, 0, sizeof *selection);
    selection->heap = heap;
    selection->stamp = 1;
    selection->first.bit = 1;
    selection->first.operations = UINT32_MAX;
    selection->rules[0] = &selection->first;
    selection->any_label = selection->any_task = 1;
}

static void rule_free(struct heap *heap, struct rule *rule) {
    heap_free(heap, rule->labels.text, rule->labels.size);
    heap_free(heap, rule->tasks.text, rule->tasks.size);
    heap_free(heap, rule->numbers, rule->numbers_count * sizeof *rule->numbers);
    heap_free(heap, rule, sizeof *rule);
}

void selection_destroy(struct selection *selection) {
    each_rule(selection, rule) if (rule != &selection->first) rule_free(selection->heap, rule);
    heap_free(selection->heap, selection->picks, selection->picks_room * sizeof *selection->picks);
}

/* True also where there is nothing to copy. */
static bool copied(struct heap *heap, void *to, const void *from, size_t size) {
    void *copy = size ? heap_alloc(heap, size) : NULL;
    if (copy) memcpy(copy, from, size);
    memcpy(to, &copy, sizeof copy);
    return copy || !size;
}

static struct rule *rule_new(struct heap *heap, const struct pm_audit_rule *wanted) {
    struct rule *rule = heap_alloc(heap, sizeof *rule);
    if (!rule) return NULL;
    memset(rule, 0, sizeof *rule);
    rule->operations = wanted->operations ? wanted->operations : UINT32_MAX;
    rule->labels.size = wanted->labels_size;
    rule->tasks.size = wanted->tasks_size;
    rule->numbers_count = wanted->numbers_count;
    if (copied(heap, &rule->labels.text, wanted->labels, wanted->labels_size) &&
        copied(heap, &rule->tasks.text, wanted->tasks, wanted->tasks_size) &&
        copied(heap, &rule->numbers, wanted->numbers, wanted->numbers_count * sizeof *wanted->numbers))
        return rule;
    rule_free(heap, rule);
    return NULL;
}

static bool by_label(const struct rule *rule) { return rule->labels.size; }
static bool by_task(const struct rule *rule) { return rule->tasks.size || rule->numbers_count; }

/* After a change of the masks of a rule. */
static void masks_renew(struct selection *selection, uint32_t first, uint32_t last) {
    for (uint32_t i = first; i <= last; i++) {
        selection->granted[i] = selection->first.granted[i];
        selection->denied[i] = selection->first.denied[i];
        if (pm_likely(!selection->filtered)) continue;
        each_rule(selection, rule) {
            selection->granted[i] |= rule->granted[i];
            selection->denied[i] |= rule->denied[i];
        }
    }
    selection->any_granted = false;
    for (uint32_t i = 0; i < PM_CLASSES_MAX; i++) selection->any_granted |= selection->granted[i] && i != PM_CLASS_SERVICE;
}

/* After a change of which rules there are: what was noted beside labels is not true any more. */
static void rules_renew(struct selection *selection) {
    selection->any_label = selection->any_task = 0;
    selection->filtered = false;
    each_rule(selection, rule) {
        if (!by_label(rule)) selection->any_label |= rule->bit;
        if (!by_task(rule)) selection->any_task |= rule->bit;
        selection->filtered |= rule != &selection->first;
    }
    masks_renew(selection, 0, PM_CLASSES_MAX - 1);
    if (++selection->stamp) return;
    selection->stamp = 1;
    for (uint32_t i = 1; i < selection->sids->used; i++) selection->sids->slots[i].rules_stamp = 0;
}

static uint32_t free_place(const struct selection *selection) {
    uint32_t place = 0;
    while (place < PM_AUDIT_RULES_MAX && selection->rules[place]) place++;
    return place;
}

bool selection_is_full(const struct selection *selection) { return free_place(selection) == PM_AUDIT_RULES_MAX; }

struct rule *selection_add(struct selection *selection, const struct pm_audit_rule *wanted) {
    uint32_t place = free_place(selection);
    struct rule *rule = rule_new(selection->heap, wanted);
    if (!rule) return NULL;
    rule->number = ++selection->numbers;
    rule->bit = 1u << place;
    selection->rules[place] = rule;
    rules_renew(selection);
    return rule;
}

void selection_remove(struct selection *selection, struct rule *rule) {
    for (uint32_t i = 1; i < PM_AUDIT_RULES_MAX; i++)
        if (selection->rules[i] == rule) selection->rules[i] = NULL;
    for (uint32_t i = 0; i < selection->picks_room; i++) selection->picks[i].rules &= ~rule->bit;
    rule_free(selection->heap, rule);
    rules_renew(selection);
}

struct rule *selection_find(struct selection *selection, uint64_t number) {
    each_rule(selection, rule) if (rule->number == number) return rule;
    return NULL;
}

void selection_select(struct selection *selection, struct rule *rule, uint32_t tclass, uint32_t granted, uint32_t denied) {
    uint32_t last = tclass ? tclass : PM_CLASSES_MAX - 1;
    for (uint32_t i = tclass; i <= last; i++) {
        rule->granted[i] = granted;
        rule->denied[i] = denied;
    }
    masks_renew(selection, tclass, last);
}

/* ---- tasks: those that some rule is about, by number ---- */

static bool is_about(const struct rule *rule, uint32_t task, const char *name, uint32_t length) {
    for (size_t i = 0; i < rule->numbers_count; i++)
        if (rule->numbers[i] == task) return true;
    return texts_match(&rule->tasks, name, length);
}

/* The place of a task, or the empty one where it belongs. */
static struct pick *pick_of(struct pick *picks, uint32_t room, uint32_t task) {
    uint32_t at = (uint32_t)mix64(task) & (room - 1);
    while (picks[at].task && picks[at].task != task) at = (at + 1) & (room - 1);
    return &picks[at];
}

static bool picks_grow(struct selection *selection) {
    uint32_t room = selection->picks_room ? 2 * selection->picks_room : 64;
    struct pick *picks = heap_alloc(selection->heap, room * sizeof *picks);
    if (!picks) return false;
    memset(picks, 0, room * sizeof *picks);
    for (uint32_t i = 0; i < selection->picks_room; i++)
        if (selection->picks[i].task) *pick_of(picks, room, selection->picks[i].task) = selection->picks[i];
    heap_free(selection->heap, selection->picks, selection->picks_room * sizeof *picks);
    selection->picks = picks;
    selection->picks_room = room;
    return true;
}

bool selection_pick(struct selection *selection, uint32_t task, const char *name, uint32_t length) {
    uint32_t about = 0;
    if (pm_likely(!selection->filtered)) return true;
    each_rule(selection, rule) if (by_task(rule) && is_about(rule, task, name, length)) about |= rule->bit;
    if (!about) return true;
    if (2 * (selection->picks_used + 1) > selection->picks_room && !picks_grow(selection)) return false;
    struct pick *pick = pick_of(selection->picks, selection->picks_room, task);
    selection->picks_used += !pick->task;
    *pick = (struct pick){task, about};
    return true;
}

/* Whoever is behind it and would not be found over the gap moves up. */
void selection_unpick(struct selection *selection, uint32_t task) {
    struct pick *picks = selection->picks;
    uint32_t mask = selection->picks_room - 1;
    if (pm_likely(!selection->picks_used)) return;
    uint32_t gap = (uint32_t)(pick_of(picks, mask + 1, task) - picks);
    selection->picks_used -= picks[gap].task != 0;
    for (uint32_t at = gap; picks[at].task; at = (at + 1) & mask) {
        uint32_t home = (uint32_t)mix64(picks[at].task) & mask;
        if (at != gap && ((at - home) & mask) < ((at - gap) & mask)) continue;
        if (at != gap) picks[gap] = picks[at];
        picks[at] = (struct pick){0, 0};
        gap = at;
    }
}

/* ---- what is wanted ---- */

static uint32_t rules_of_task(const struct selection *selection, uint32_t task) {
    return selection->picks_used ? pick_of(selection->picks, selection->picks_room, task)->rules : 0;
}

static uint32_t rules_of_label(const struct selection *selection, uint32_t sid) {
    struct sid_slot *slot = sid ? sids_find(selection->sids, sid) : NULL;
    if (!slot) return 0;
    if (pm_unlikely(slot->rules_stamp != selection->stamp)) {
        slot->rules = 0;
        slot->rules_stamp = selection->stamp;
        each_rule(selection, rule)
            if (by_label(rule) && label_matches(&rule->labels, slot->text, slot->length)) slot->rules |= rule->bit;
    }
    return slot->rules;
}

/* A label is that of who does it, or of what it is done to. */
static uint32_t rules_of_labels(const struct selection *selection, uint32_t ssid, uint32_t tsid) {
    return selection->any_label | rules_of_label(selection, ssid) | rules_of_label(selection, tsid);
}

struct selected selection_exact(const struct selection *selection, uint32_t task, uint32_t ssid, uint32_t tsid, uint32_t tclass,
                                uint32_t operation) {
    uint32_t about = rules_of_labels(selection, ssid, tsid) & (selection->any_task | rules_of_task(selection, task));
    struct selected selected = {0, 0};
    each_rule(selection, rule) {
        if (!(rule->bit & about) || !(rule->operations >> operation & 1)) continue;
        selected.granted |= rule->granted[tclass];
        selected.denied |= rule->denied[tclass];
    }
    return selected;
}

uint32_t selection_of_messages(const struct selection *selection, uint32_t task, uint32_t ssid, uint32_t tsid, uint32_t *unsure) {
    uint32_t sure = selection->first.granted[PM_CLASS_MACH_PORT];
    *unsure = 0;
    if (pm_likely(!selection->filtered)) return sure;
    uint32_t labels = rules_of_labels(selection, ssid, tsid), tasks = selection->any_task | rules_of_task(selection, task);
    each_rule(selection, rule) {
        uint32_t granted = rule->granted[PM_CLASS_MACH_PORT], messages = rule->operations & MESSAGES;
        if (!(rule->bit & tasks) || !messages) continue;
        if (by_task(rule) && granted & PM_MACH_PORT__recv) *unsure |= PM_MACH_PORT__use_recv;
        if (!(rule->bit & labels)) continue;
        if (messages != MESSAGES) *unsure |= granted;
        else sure |= granted;
    }
    return sure & ~*unsure;
}
