/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is recorded: rules side by side, and what any of them wants is recorded. A rule has a mask of permissions for each class,
 * and may be about certain labels, tasks or operations alone. The first rule is about all of them: it is what is always there.
 *
 * What no rule wants of a class is settled by one mask, that of all of them together. Who a rule is about is found out once: for
 * a label when it is first met, and noted beside its text; for a task when it is made.
 */
#ifndef PM_SELECTION_H
#define PM_SELECTION_H

#include "base/pool.h"
#include "pympi.h"
#include "sec/sid.h"

#define PM_CLASSES_MAX 2048

struct texts { char *text; size_t size; };      /* patterns, a zero byte after each; NULL: none */
struct rule {
    uint64_t number;                    /* never that of another; 0 that of the first */
    uint32_t bit;                       /* among the rules that there are */
    uint32_t operations;                /* 1 << enum pm_operation */
    struct texts labels, tasks;
    uint32_t *numbers;                  /* of tasks */
    size_t numbers_count;
    uint32_t granted[PM_CLASSES_MAX], denied[PM_CLASSES_MAX];
};
struct pick { uint32_t task, rules; };          /* which rules are about a task; task 0: empty */
struct selection {
    struct heap *heap;
    const struct sids *sids;
    struct rule first, *rules[PM_AUDIT_RULES_MAX];      /* NULL: free */
    uint32_t any_label, any_task;       /* rules that are about whatever label, whatever task */
    bool filtered, any_granted;         /* there are more than the first; one of them wants more than acts of servers */
    uint32_t stamp;                     /* of what is noted beside labels */
    uint64_t numbers;                   /* given out so far */
    struct pick *picks;
    uint32_t picks_room, picks_used;
    uint32_t granted[PM_CLASSES_MAX], denied[PM_CLASSES_MAX];   /* of all rules */
};

void selection_init(struct selection *selection, struct heap *heap);
void selection_destroy(struct selection *selection);
bool selection_is_full(const struct selection *selection);
/* One with nothing selected; there is room for it. NULL where memory is short. Tasks that there are have to be picked. */
struct rule *selection_add(struct selection *selection, const struct pm_audit_rule *wanted) pm_must_check;
void selection_remove(struct selection *selection, struct rule *rule);
struct rule *selection_find(struct selection *selection, uint64_t number);
/* tclass 0: every class. */
void selection_select(struct selection *selection, struct rule *rule, uint32_t tclass, uint32_t granted, uint32_t denied);

/* Finds out which rules are about a task. False where memory is short. */
bool selection_pick(struct selection *selection, uint32_t task, const char *name, uint32_t length) pm_must_check;
void selection_unpick(struct selection *selection, uint32_t task);

/* What is to be recorded of an operation on an object of a class. */
struct selected { uint32_t granted, denied; };
struct selected selection_exact(const struct selection *selection, uint32_t task, uint32_t ssid, uint32_t tsid, uint32_t tclass,
                                uint32_t operation);
/* What is to be recorded of messages that are sent and received: permissions of mach_port. *unsure: those of which only the
 * operation itself can tell. task 0: whichever; rules about tasks then do not count: whom they want to see receive, by recv, has
 * use_recv among the unsure. */
uint32_t selection_of_messages(const struct selection *selection, uint32_t task, uint32_t ssid, uint32_t tsid, uint32_t *unsure);

/* Does a text match: * stands for any characters, ? for one. */
bool pattern_matches(const char *pattern, size_t length, const char *text, size_t size);

#endif
