/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mandatory access control: asks, remembers, records. Knows labels as SIDs, and neither ports nor messages.
 *
 * One struct mac_op accompanies each operation: it is the audit bracket and the scratch of answers. Checks of one pass either all
 * have an answer, remembered or from tables (sec/native.h), or the questions without one are collected; the operation then backs
 * out with nothing changed, drops the lock, has the decider answer them all at once (mac_resolve), takes the lock (mac_absorb) and
 * starts again. Answers that may not be cached live in the scratch alone. A pass is repeated at most MAC_ATTEMPTS times; after that
 * what is unanswered is denied.
 *
 * A hint is a vector remembered beside a right. `quiet` holds the permissions that are allowed and that nobody wants recorded, so
 * one comparison and one mask settle the common case; `loud` those that are allowed and recorded, with nothing else to report of
 * them. What is watched is in neither, nor what is recorded of some operations or tasks only. Whatever makes a hint out of date
 * moves `stamp`. Labels that meet in no right (who receives from whom) have their hints in the table `recent`, each pair in one
 * place.
 */
#ifndef PM_MAC_H
#define PM_MAC_H

#include "sec/audit.h"
#include "sec/avc.h"
#include "sec/native.h"
#include "sec/report.h"
#include "sec/watch.h"

#define MAC_ATTEMPTS 8
#define MAC_DECIDER_DEPTH 16
#define MAC_INLINE_QUERIES 8
#define MAC_INLINE_RECORDS 4

#define MAC_RECENT 256
#define MAC_REPORTS_MAX (1u << 20)

struct hint { uint32_t stamp, ssid, tsid, quiet, loud, allowed; };
/* The same of routines, which have classes of their own. All tasks share it, and what is recorded or watched of anybody is not quiet. */
struct method_hint { uint32_t stamp, ssid, tsid, tclass, quiet, allowed; };

struct mac {
    struct heap *heap;
    struct avc avc;
    struct audit audit;
    pm_decider decider;
    void *decider_context;
    uint32_t policy;                    /* enum pm_policy_flag */
    uint32_t epoch;                     /* of decisions */
    uint32_t stamp;                     /* of hints */
    bool active;                        /* false: no policy and nothing selected, hooks are skipped */
    bool stamps_began_anew;             /* hints of 2^32 stamps ago could match: forget them all */
    struct native *native;              /* decides what the cache does not know; NULL: the decider does. Goes with its epoch */
    const struct sids *sids;            /* whose values it looks at */
    uint64_t scheme, native_decisions;
    uint64_t hits, misses, calls, failures, denials, exhausted;
    uint64_t (*clock)(void *context), (*exact_clock)(void *context);
    void *clock_context;
    struct hint recent[MAC_RECENT];
    struct method_hint methods[MAC_RECENT];
    struct reports reports;
    struct watches watches;
};

/* What a check is about, for its record. */
struct mac_site {
    uint32_t operation, name;
    uint64_t port, provenance;
    uint32_t receiver;                  /* the task that has the receive right; for who watches */
    uint32_t peer_sid, size;
    int32_t msgh_id;
    uint32_t flags;
};

struct mac_record {
    struct pm_audit_record record;
    uint32_t receiver;
    bool trail;                         /* it goes into the audit trail; else it is for reports or who watches alone */
};

struct mac_op {
    struct mac *mac;
    uint32_t real_sid, sid, task;
    uint32_t epoch;                     /* of the answers in scratch */
    uint32_t attempts, answered, queries_used, queries_room, records_used, records_room, denials;
    bool missed, short_of_memory, recorded;     /* recorded: something in the audit trail */
    struct pm_denial denial;            /* operation PM_OP_NONE: none */
    pm_decider decider;                 /* as it was when the first question went without an answer */
    void *decider_context;
    struct pm_query *queries;
    struct mac_record *records;
    uint32_t *index, index_room;        /* of many queries, by hash; place + 1, 0 empty. A message can carry 16383 rights */
    struct pm_query inline_queries[MAC_INLINE_QUERIES];
    struct mac_record inline_records[MAC_INLINE_RECORDS];
};

enum mac_verdict { MAC_ALLOWED, MAC_DENIED, MAC_MISS };

bool mac_init(struct mac *mac, struct heap *heap, const struct pm_config *config) pm_must_check;
void mac_destroy(struct mac *mac);
void mac_move_epoch(struct mac *mac);
void mac_move_stamp(struct mac *mac);

void mac_op_init(struct mac_op *op, struct mac *mac, uint32_t sid, uint32_t task);
/* Begins a pass of the subject, whose label is sid: forgets records and misses of the pass before. The answers stay, unless label
 * or epoch are others than they were: both may change while an operation waits. */
void mac_op_restart(struct mac_op *op, uint32_t sid);
void mac_op_done(struct mac_op *op);

/*
 * Purpose: may op's subject do `permissions` to tsid; records it where it is selected.
 * Returns: MAC_MISS where the answer has to be asked for, or where it is a refusal and one that was asked for before it in this
 * pass has no answer yet; the caller goes on collecting or backs out.
 */
enum mac_verdict mac_check(struct mac_op *op, uint32_t tsid, uint32_t tclass, uint32_t permissions,
                           const struct mac_site *site);
/*
 * Purpose: may op's subject give something a new label: `permission` on that label, and the answer to a question of kind
 * PM_QUERY_RELABEL, which refuses it by its code. One check, so one record.
 * Returns: as mac_check; if MAC_DENIED, why in *code: the answer's own, KERN_NO_ACCESS where the permission is refused.
 */
enum mac_verdict mac_check_change(struct mac_op *op, uint32_t permission, const struct pm_query *question,
                                  const struct mac_site *site, int32_t *code);
/* The same, even where no policy is loaded and nothing of the core's own classes is selected: for what servers ask. */
enum mac_verdict mac_check_always(struct mac_op *op, uint32_t tsid, uint32_t tclass, uint32_t permissions,
                                  const struct mac_site *site);
/* Denies without asking, as for a method that nobody declared. */
enum mac_verdict mac_refuse(struct mac_op *op, uint32_t tsid, uint32_t tclass, uint32_t permissions,
                            const struct mac_site *site);
/* Two granted records of this pass are one act: joins the last to the one before. */
void mac_join(struct mac_op *op);
/* The vector itself, unaudited. False: a miss was noted. */
bool mac_vector(struct mac_op *op, uint32_t tsid, uint32_t tclass, struct avc_vector *vector);
/* What can be said without asking: where no module is loaded all is allowed. False: neither cache nor tables know. */
bool mac_known(struct mac *mac, uint32_t ssid, uint32_t tsid, uint32_t tclass, struct avc_vector *vector);
/* What is not remembered, from the tables: the vector, which is remembered from then on; false where they do not have it. */
bool mac_tabled(struct mac *mac, uint32_t ssid, uint32_t tsid, uint32_t tclass, struct avc_vector *vector);
/* Takes tables of this epoch in place of those there are; NULL: none. keep_values: labels' values mean the same as before. */
void mac_set_native(struct mac *mac, struct native *native, bool keep_values);
/* Makes of what modules answer what is enforced: in a permissive kernel all is allowed, and refusals are reported. */
void mac_enforced(const struct mac *mac, struct avc_vector *vector);
/* A question that is not an access question; the answer, or NULL after noting a miss. */
const struct pm_query *mac_ask(struct mac_op *op, const struct pm_query *question);

/* Without the lock: asks the decider what was missed. */
void mac_resolve(struct mac_op *op);
/* With the lock: caches the answers, unless the epoch moved on; then they are void. */
void mac_absorb(struct mac_op *op);

/* How many records of this pass go into the audit trail. */
uint32_t mac_trail_records(const struct mac_op *op);
/* Room for the records of this pass, made before the point of no return. False: the operation must not be done. */
bool mac_reserve(struct mac_op *op) pm_must_check;
/* Below the point of no return: a right to this port, asked for by `permission`, came by a transfer to stand under this name. */
void mac_took(struct mac_op *op, uint64_t port, uint32_t permission, uint64_t transfer, uint32_t name);
/* Closes the bracket: granted records where the operation was done, denials always, an error record for other failures. */
void mac_commit(struct mac_op *op, int32_t result, bool done, uint64_t transfer, const struct mac_site *site);
/* Appends a record beside any check: guard violations, dropped references, circular messages. */
void mac_note(struct mac_op *op, const struct mac_site *site, int32_t result);
/* A record that was made elsewhere, for who watches. */
void mac_show(struct mac *mac, const struct pm_audit_record *record, uint32_t receiver);

/* No module decides: everything is allowed. */
static inline bool mac_unchecked(const struct mac *mac) { return !(mac->policy & PM_POLICY_LOADED); }

static inline bool hint_fresh(const struct mac *mac, const struct hint *hint, uint32_t ssid, uint32_t tsid) {
    return hint->stamp == mac->stamp && hint->ssid == ssid && hint->tsid == tsid;
}
static inline bool hint_good(const struct mac *mac, const struct hint *hint, uint32_t ssid, uint32_t tsid,
                             uint32_t permissions) {
    return hint_fresh(mac, hint, ssid, tsid) && (hint->quiet & permissions) == permissions;
}
enum hint_answer { HINT_UNKNOWN, HINT_QUIET, HINT_LOUD };
/* As hint_ask, where the hint is not good: fills it with what the cache knows of (ssid, tsid, mach_port). */
enum hint_answer hint_look(struct mac *mac, struct hint *hint, uint32_t task, uint32_t ssid, uint32_t tsid,
                           uint32_t permissions);
/* Allowed and unrecorded, allowed and recorded, or none of these as far as is known here. task: whose right remembers it; of a
 * hint that all tasks share, 0, and then nothing that is asked of it may be watched. */
static inline enum hint_answer hint_ask(struct mac *mac, struct hint *hint, uint32_t task, uint32_t ssid, uint32_t tsid,
                                        uint32_t permissions) {
    if (pm_likely(hint_good(mac, hint, ssid, tsid, permissions))) return HINT_QUIET;
    return hint_look(mac, hint, task, ssid, tsid, permissions);
}
static inline struct hint *mac_recent(struct mac *mac, uint32_t ssid, uint32_t tsid) {
    return &mac->recent[(ssid * 31 + tsid) & (MAC_RECENT - 1)];
}

/* What the cache, or the tables, know of (ssid, tsid, tclass); nothing is quiet where they do not. */
const struct method_hint *mac_method_look(struct mac *mac, struct method_hint *hint, uint32_t ssid, uint32_t tsid, uint32_t tclass);
static inline const struct method_hint *mac_method(struct mac *mac, uint32_t ssid, uint32_t tsid, uint32_t tclass) {
    struct method_hint *hint = &mac->methods[(ssid * 31 + tsid * 7 + tclass) & (MAC_RECENT - 1)];
    bool known = hint->stamp == mac->stamp && hint->ssid == ssid && hint->tsid == tsid && hint->tclass == tclass;
    return pm_likely(known) ? hint : mac_method_look(mac, hint, ssid, tsid, tclass);
}

#endif
