/* SPDX-License-Identifier: BSD-2-Clause */
#include "sec/mac.h"

#include <string.h>

#define ALL UINT32_MAX
static const struct avc_vector everything_allowed = {.allowed = ALL, .auditdeny = ALL};

bool mac_init(struct mac *mac, struct heap *heap, const struct pm_config *config) {
    memset(mac, 0, sizeof *mac);
    mac->heap = heap;
    mac->epoch = mac->stamp = 1;
    watches_init(&mac->watches, heap);
    if (!avc_init(&mac->avc, heap, config->avc_entries ? config->avc_entries : 8192, config->seed)) return false;
    if (audit_init(&mac->audit, heap, config->audit_records ? config->audit_records : 16384)) return true;
    avc_destroy(&mac->avc);
    return false;
}

void mac_destroy(struct mac *mac) {
    native_destroy(mac->native);
    avc_destroy(&mac->avc);
    audit_destroy(&mac->audit);
    reports_stop(&mac->reports);
    watches_destroy(&mac->watches);
}

void mac_move_stamp(struct mac *mac) {
    mac->active = (mac->policy & PM_POLICY_LOADED) || mac->audit.selection.any_granted || mac->watches.any_granted;
    if (++mac->stamp) return;
    mac->stamp = 1;
    mac->stamps_began_anew = true;
}

void mac_set_native(struct mac *mac, struct native *native, bool keep_values) {
    native_destroy(mac->native);
    mac->native = native;
    if (!native) return;
    mac->scheme += !keep_values;
    native->scheme = mac->scheme;
}

void mac_move_epoch(struct mac *mac) {
    mac_set_native(mac, NULL, false);
    uint32_t next = mac->epoch + 1;
    if (next == 0) avc_flush(&mac->avc);
    __atomic_store_n(&mac->epoch, next ? next : 1, __ATOMIC_RELAXED);   /* pm_kernel_epoch() looks without the lock */
    mac_move_stamp(mac);
}

/* ---- an operation ---- */

void mac_op_init(struct mac_op *op, struct mac *mac, uint32_t sid, uint32_t task) {
    op->mac = mac;
    op->real_sid = op->sid = sid;
    op->task = task;
    op->epoch = mac->epoch;
    op->attempts = op->answered = op->queries_used = op->records_used = op->denials = 0;
    op->queries = op->inline_queries;
    op->queries_room = MAC_INLINE_QUERIES;
    op->records = op->inline_records;
    op->records_room = MAC_INLINE_RECORDS;
    op->index = NULL;
    op->index_room = 0;
    op->missed = op->short_of_memory = op->recorded = false;
    op->denial.operation = PM_OP_NONE;
}

static bool same_question(const struct pm_query *a, const struct pm_query *b) {
    return a->ssid == b->ssid && a->tsid == b->tsid && a->tclass == b->tclass && a->kind == b->kind &&
           (a->kind != PM_QUERY_RELABEL || a->label == b->label);
}

/* The slot of a question in the index, or the empty one where it belongs. */
static uint32_t *index_slot(const struct mac_op *op, const struct pm_query *question) {
    uint64_t pair = (uint64_t)question->ssid << 32 | question->tsid;
    for (uint32_t at = (uint32_t)mix64(pair ^ mix64(question->tclass ^ op->mac->avc.seed));; at++) {
        uint32_t *slot = &op->index[at & (op->index_room - 1)];
        if (!*slot || same_question(&op->queries[*slot - 1], question)) return slot;
    }
}

static void index_fill(struct mac_op *op) {
    memset(op->index, 0, op->index_room * sizeof *op->index);
    for (uint32_t i = 0; i < op->queries_used; i++) *index_slot(op, &op->queries[i]) = i + 1;
}

/* For twice the queries there is room for. Without memory for it, searching is slower and nothing else. */
static void index_renew(struct mac_op *op) {
    uint32_t room = round_up_power(2 * op->queries_room);
    heap_free(op->mac->heap, op->index, op->index_room * sizeof *op->index);
    op->index = heap_alloc(op->mac->heap, room * sizeof *op->index);
    op->index_room = op->index ? room : 0;
    if (op->index) index_fill(op);
}

void mac_op_restart(struct mac_op *op, uint32_t sid) {
    if (op->real_sid != sid || op->epoch != op->mac->epoch) op->answered = 0;
    op->real_sid = op->sid = sid;
    op->epoch = op->mac->epoch;
    op->records_used = op->denials = 0;
    op->queries_used = op->answered;
    op->missed = op->short_of_memory = false;
    op->denial.operation = PM_OP_NONE;
    if (op->index) index_fill(op);
}

void mac_op_done(struct mac_op *op) {
    heap_free(op->mac->heap, op->index, op->index_room * sizeof *op->index);
    if (op->queries != op->inline_queries) heap_free(op->mac->heap, op->queries, op->queries_room * sizeof *op->queries);
    if (op->records != op->inline_records) heap_free(op->mac->heap, op->records, op->records_room * sizeof *op->records);
}

/* Doubles an array that began inside the operation. */
static void *array_grow(struct mac_op *op, void *array, const void *inside, uint32_t *room, size_t size) {
    void *grown = heap_alloc(op->mac->heap, 2 * *room * size);
    if (!grown) {
        op->short_of_memory = true;
        return NULL;
    }
    memcpy(grown, array, *room * size);
    if (array != inside) heap_free(op->mac->heap, array, *room * size);
    *room *= 2;
    return grown;
}

/* ---- questions ---- */

static struct pm_query *scratch_find(struct mac_op *op, const struct pm_query *question) {
    if (op->index) {
        uint32_t place = *index_slot(op, question);
        return place ? &op->queries[place - 1] : NULL;
    }
    for (uint32_t i = 0; i < op->queries_used; i++)
        if (same_question(&op->queries[i], question)) return &op->queries[i];
    return NULL;
}

static void note_miss(struct mac_op *op, const struct pm_query *question) {
    op->missed = true;
    op->decider = op->mac->decider;
    op->decider_context = op->mac->decider_context;
    if (op->queries_used == op->queries_room) {
        void *grown = array_grow(op, op->queries, op->inline_queries, &op->queries_room, sizeof *op->queries);
        if (!grown) return;
        op->queries = grown;
        index_renew(op);
    }
    op->queries[op->queries_used++] = *question;
    if (op->index) *index_slot(op, question) = op->queries_used;
}

const struct pm_query *mac_ask(struct mac_op *op, const struct pm_query *question) {
    struct pm_query *known = scratch_find(op, question);
    if (known && known < op->queries + op->answered) return known;
    if (known) known->asked |= question->asked;
    else note_miss(op, question);
    op->missed = true;
    return NULL;
}

static void query_preset(struct pm_query *query, int32_t code) {
    query->allowed = query->auditallow = query->report = query->uncached = 0;
    query->auditdeny = ALL;
    query->code = code;
    if (query->kind != PM_QUERY_RELABEL) query->label = 0;
}

/* How many deciders this thread is inside of: one that asks what it is being asked would never come back. */
static _Thread_local unsigned decider_depth;

static bool decide(const struct mac_op *op, struct pm_query *queries, size_t count) {
    if (op->attempts >= MAC_ATTEMPTS || !op->decider || decider_depth >= MAC_DECIDER_DEPTH) return false;
    __atomic_add_fetch(&op->mac->calls, 1, __ATOMIC_RELAXED);
    decider_depth++;
    bool decided = op->decider(op->decider_context, queries, count, op->epoch) == 0;
    decider_depth--;
    return decided;
}

void mac_resolve(struct mac_op *op) {
    struct mac *mac = op->mac;
    struct pm_query *queries = op->queries + op->answered;
    size_t count = op->queries_used - op->answered;
    for (size_t i = 0; i < count; i++) query_preset(&queries[i], KERN_NO_ACCESS);
    bool failed = !decide(op, queries, count);
    for (size_t i = 0; failed && i < count; i++) {
        uint32_t label = queries[i].label;
        query_preset(&queries[i], KERN_NO_ACCESS);
        if (queries[i].kind == PM_QUERY_RELABEL) queries[i].label = label;
        queries[i].uncached = 1;
    }
    if (failed) __atomic_add_fetch(&mac->failures, 1, __ATOMIC_RELAXED);
}

static void remember(struct mac *mac, const struct pm_query *answer, uint32_t epoch) {
    if (answer->uncached || answer->kind != PM_QUERY_ACCESS) return;
    struct avc_entry entry = {answer->ssid, answer->tsid, answer->tclass, epoch,
                              {answer->allowed, answer->auditallow, answer->auditdeny, answer->report}};
    avc_insert(&mac->avc, mac->epoch, &entry);
}

void mac_absorb(struct mac_op *op) {
    struct mac *mac = op->mac;
    /* Answers of an epoch that is over are void, except the last, a refusal: an operation ends. */
    bool last = op->attempts++ >= MAC_ATTEMPTS;
    for (uint32_t i = op->answered; i < op->queries_used; i++) remember(mac, &op->queries[i], op->epoch);
    mac->exhausted += last;
    op->answered = last || op->epoch == mac->epoch ? op->queries_used : 0;
    op->epoch = mac->epoch;
}

pm_noinline bool mac_tabled(struct mac *mac, uint32_t ssid, uint32_t tsid, uint32_t tclass, struct avc_vector *vector) {
    if (!mac->native || !native_decide(mac->native, mac->sids, ssid, tsid, tclass, vector)) return false;
    mac->misses++;
    mac->native_decisions++;
    struct avc_entry entry = {ssid, tsid, tclass, mac->epoch, *vector};
    avc_insert(&mac->avc, mac->epoch, &entry);
    return true;
}

bool mac_vector(struct mac_op *op, uint32_t tsid, uint32_t tclass, struct avc_vector *vector) {
    struct mac *mac = op->mac;
    if (!(mac->policy & PM_POLICY_LOADED)) {
        *vector = everything_allowed;
        return true;
    }
    const struct avc_entry *entry = avc_find(&mac->avc, mac->epoch, op->sid, tsid, tclass);
    if (entry) {
        mac->hits++;
        *vector = entry->vector;
        return true;
    }
    if (mac_tabled(mac, op->sid, tsid, tclass, vector)) return true;
    struct pm_query question = {.kind = PM_QUERY_ACCESS, .ssid = op->sid, .tsid = tsid, .tclass = tclass};
    const struct pm_query *answer = mac_ask(op, &question);
    if (!answer) {
        mac->misses++;
        return false;
    }
    *vector = (struct avc_vector){answer->allowed, answer->auditallow, answer->auditdeny, answer->report};
    return true;
}

void mac_enforced(const struct mac *mac, struct avc_vector *vector) {
    if (!(mac->policy & PM_POLICY_PERMISSIVE)) return;
    vector->report |= ~vector->allowed;
    vector->allowed = ALL;
}

/* ---- records ---- */

static struct mac_record *record_new(struct mac_op *op) {
    if (op->records_used == op->records_room) {
        void *grown = array_grow(op, op->records, op->inline_records, &op->records_room, sizeof *op->records);
        if (!grown) return NULL;
        op->records = grown;
    }
    return &op->records[op->records_used++];
}

static void record_fill(struct pm_audit_record *record, const struct mac_op *op, const struct mac_site *site) {
    *record = (struct pm_audit_record){
        .provenance = site->provenance, .port = site->port, .real_sid = op->real_sid, .effective_sid = op->sid,
        .peer_sid = site->peer_sid, .task = op->task, .name = site->name, .operation = site->operation,
        .msgh_id = site->msgh_id, .size = site->size, .flags = site->flags, .epoch = op->mac->epoch,
        .sequence = 0, .time = 0, .transfer = 0, .object_sid = 0, .tclass = 0, .asked = 0, .denied = 0, .report = 0,
        .result = 0};
}

static struct watch_event event_of(const struct pm_audit_record *record) {
    return (struct watch_event){.task = record->task, .ssid = record->effective_sid, .tsid = record->object_sid,
                                .tclass = record->tclass, .asked = record->asked, .denied = record->denied,
                                .report = record->report};
}

/* Keeps a record until the operation ends. Without memory for one that the trail is to have, there is no operation. */
static void record_keep(struct mac_op *op, const struct pm_audit_record *record, uint32_t receiver, bool trail) {
    bool short_of_memory = op->short_of_memory;
    struct mac_record *kept = record_new(op);
    if (kept) {
        *kept = (struct mac_record){*record, receiver, trail};
        return;
    }
    op->short_of_memory = short_of_memory || trail;
    struct watch_event event = event_of(record);
    watches_lose(&op->mac->watches, &event);
}

/* Of what is refused, or would be: what is worth a word. */
static uint32_t worth_telling(const struct mac *mac, const struct avc_vector *vector) {
    return mac->audit.everything ? ALL : vector->auditdeny;
}

/* What no rule wants of the class is settled by its mask; whether one does may depend on who it is about. */
static bool selected(const struct mac_op *op, const struct watch_event *event, uint32_t denied, const struct avc_vector *vector,
                     uint32_t operation) {
    const struct selection *selection = &op->mac->audit.selection;
    uint32_t granted = event->asked & ~denied, worth = worth_telling(op->mac, vector), refused = denied & worth;
    if (granted & (vector->auditallow | (vector->report & worth))) return true;
    uint32_t wanted = (granted & selection->granted[event->tclass]) | (refused & selection->denied[event->tclass]);
    if (pm_likely(!wanted || !selection->filtered)) return wanted;
    struct selected exact = selection_exact(selection, event->task, event->ssid, event->tsid, event->tclass, operation);
    return (granted & exact.granted) | (refused & exact.denied);
}

static void note_denial(struct mac_op *op, uint32_t tsid, uint32_t tclass, uint32_t asked, uint32_t denied,
                        const struct mac_site *site) {
    op->denials++;
    if (op->denial.operation != PM_OP_NONE) return;
    op->denial = (struct pm_denial){site->operation, tclass, asked, denied, op->real_sid, op->sid, tsid};
}

static enum mac_verdict judge(struct mac_op *op, uint32_t tsid, uint32_t tclass, uint32_t permissions,
                              const struct avc_vector *vector, const struct mac_site *site) {
    struct mac *mac = op->mac;
    uint32_t denied = permissions & ~vector->allowed, worth = worth_telling(mac, vector);
    bool permissive = denied && (mac->policy & PM_POLICY_PERMISSIVE);
    /* The first refusal counts, and is recorded: which that is must not depend on what is remembered. */
    if (denied && !permissive && op->missed) return MAC_MISS;
    uint32_t report = permissions & vector->report & worth, told = permissive ? denied & worth : denied;
    struct watch_event event = {op->task, op->sid, tsid, tclass, permissions, told, report};
    bool trail = selected(op, &event, denied, vector, site->operation);
    if (pm_unlikely(trail || (report && reports_on(&mac->reports)) || watches_want(&mac->watches, &event))) {
        struct pm_audit_record record;
        record_fill(&record, op, site);
        record.object_sid = tsid;
        record.tclass = tclass;
        record.asked = permissions;
        record.denied = told;
        record.report = report;
        record.flags |= (permissive && told ? PM_AUDIT_PERMISSIVE : 0) | (report ? PM_AUDIT_REPORTED : 0);
        record_keep(op, &record, site->receiver, trail);
    }
    if (!denied || permissive) return MAC_ALLOWED;
    note_denial(op, tsid, tclass, permissions, denied, site);
    return MAC_DENIED;
}

enum mac_verdict mac_check(struct mac_op *op, uint32_t tsid, uint32_t tclass, uint32_t permissions,
                           const struct mac_site *site) {
    return op->mac->active ? mac_check_always(op, tsid, tclass, permissions, site) : MAC_ALLOWED;
}

enum mac_verdict mac_check_always(struct mac_op *op, uint32_t tsid, uint32_t tclass, uint32_t permissions,
                                  const struct mac_site *site) {
    struct avc_vector vector;
    if (!mac_vector(op, tsid, tclass, &vector)) return MAC_MISS;
    return judge(op, tsid, tclass, permissions, &vector, site);
}

enum mac_verdict mac_check_change(struct mac_op *op, uint32_t permission, const struct pm_query *question,
                                  const struct mac_site *site, int32_t *code) {
    struct avc_vector vector;
    const struct pm_query *answer = mac_ask(op, question);
    if (!mac_vector(op, question->label, question->tclass, &vector) || !answer) return MAC_MISS;
    *code = permission & ~vector.allowed ? KERN_NO_ACCESS : answer->code;
    uint32_t refused = answer->code ? permission : 0, reported = permission & answer->report;
    vector.allowed &= ~refused;
    vector.report |= reported;
    vector.auditdeny |= refused | reported;
    return judge(op, question->label, question->tclass, permission, &vector, site);
}

enum mac_verdict mac_refuse(struct mac_op *op, uint32_t tsid, uint32_t tclass, uint32_t permissions,
                            const struct mac_site *site) {
    static const struct avc_vector nothing_allowed = {.auditdeny = ALL};
    if (!(op->mac->policy & PM_POLICY_LOADED)) return MAC_ALLOWED;
    return judge(op, tsid, tclass, permissions, &nothing_allowed, site);
}

void mac_join(struct mac_op *op) {
    if (op->records_used < 2 || op->records[op->records_used - 2].trail != op->records[op->records_used - 1].trail) return;
    struct pm_audit_record *before = &op->records[op->records_used - 2].record, *last = &op->records[op->records_used - 1].record;
    if (before->denied || last->denied || before->port != last->port) return;
    if ((before->report || last->report) && before->object_sid != last->object_sid) return;    /* of whom is it said? */
    before->asked |= last->asked;
    before->report |= last->report;
    before->flags |= last->flags;
    op->records_used--;
}

void mac_show(struct mac *mac, const struct pm_audit_record *record, uint32_t receiver) {
    if (pm_likely(!mac->watches.count)) return;
    struct watch_event event = event_of(record);
    struct pm_audit_record shown = *record;
    shown.time = mac->exact_clock(mac->clock_context);
    watches_offer(&mac->watches, &event, &shown, receiver);
}

static void into_trail(struct mac_op *op, const struct pm_audit_record *record) {
    op->recorded = true;
    audit_append(&op->mac->audit, record);
}

static void note(struct mac_op *op, const struct mac_site *site, int32_t result, bool trail) {
    struct pm_audit_record record;
    record_fill(&record, op, site);
    record.time = op->mac->clock(op->mac->clock_context);
    record.result = result;
    if (trail) into_trail(op, &record);
    mac_show(op->mac, &record, site->receiver);
}

void mac_note(struct mac_op *op, const struct mac_site *site, int32_t result) { note(op, site, result, true); }

uint32_t mac_trail_records(const struct mac_op *op) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < op->records_used; i++) count += op->records[i].trail;
    return count;
}

bool mac_reserve(struct mac_op *op) {
    uint32_t records = op->records_used ? mac_trail_records(op) : 0;
    return !records || audit_reserve(&op->mac->audit, records);
}

/* Waits that ran out and rings that were full are outcomes, not faults. */
static bool worth_an_error_record(const struct mac_op *op, int32_t result) {
    return (op->mac->audit.errors || op->mac->watches.any_errors) && op->denial.operation == PM_OP_NONE &&
           result != MACH_SEND_TIMED_OUT && result != MACH_RCV_TIMED_OUT && result != MACH_SEND_INTERRUPTED &&
           result != MACH_RCV_INTERRUPTED && result != PM_AUDIT_FULL;
}

void mac_took(struct mac_op *op, uint64_t port, uint32_t permission, uint64_t transfer, uint32_t name) {
    for (uint32_t i = 0; i < op->records_used; i++) {
        struct pm_audit_record *record = &op->records[i].record;
        bool meant = record->port == port && record->asked == permission && record->tclass == PM_CLASS_MACH_PORT;
        if (!meant || record->name) continue;
        record->name = name;
        record->provenance = transfer;
        return;
    }
}

static void commit_records(struct mac_op *op, int32_t result, bool done, uint64_t transfer) {
    uint64_t now = op->mac->clock(op->mac->clock_context);
    for (uint32_t i = 0; i < op->records_used; i++) {
        struct pm_audit_record *record = &op->records[i].record;
        if (!done && !record->denied) continue;
        if (record->report && reports_on(&op->mac->reports)) reports_count(&op->mac->reports, record);
        record->time = now;
        record->transfer = transfer;
        record->result = result;
        if (op->records[i].trail) into_trail(op, record);
        mac_show(op->mac, record, op->records[i].receiver);
    }
}

void mac_commit(struct mac_op *op, int32_t result, bool done, uint64_t transfer, const struct mac_site *site) {
    op->mac->denials += op->denials;
    if (pm_unlikely(op->records_used)) commit_records(op, result, done, transfer);
    if (pm_likely(done) || !worth_an_error_record(op, result)) return;
    struct mac_site error = *site;
    error.flags |= PM_AUDIT_ERROR;
    note(op, &error, result, op->mac->audit.errors);
}

bool mac_known(struct mac *mac, uint32_t ssid, uint32_t tsid, uint32_t tclass, struct avc_vector *vector) {
    *vector = everything_allowed;
    if (!(mac->policy & PM_POLICY_LOADED)) return true;
    const struct avc_entry *entry = avc_find(&mac->avc, mac->epoch, ssid, tsid, tclass);
    if (entry) *vector = entry->vector;
    return entry || mac_tabled(mac, ssid, tsid, tclass, vector);
}

static void hint_fill(struct mac *mac, struct hint *hint, uint32_t task, uint32_t ssid, uint32_t tsid) {
    struct avc_vector vector;
    hint->stamp = 0;
    if (!mac_known(mac, ssid, tsid, PM_CLASS_MACH_PORT, &vector)) return;
    uint32_t unsure, selected = selection_of_messages(&mac->audit.selection, task, ssid, tsid, &unsure);
    uint32_t recorded = vector.auditallow | selected;
    uint32_t watched = watches_granted(&mac->watches, task, ssid, tsid, PM_CLASS_MACH_PORT);
    uint32_t plain = vector.allowed & ~(vector.report & worth_telling(mac, &vector)) & ~watched & ~unsure;
    *hint = (struct hint){mac->stamp, ssid, tsid, plain & ~recorded, plain & recorded, vector.allowed};
}

enum hint_answer hint_look(struct mac *mac, struct hint *hint, uint32_t task, uint32_t ssid, uint32_t tsid,
                           uint32_t permissions) {
    if (!hint_fresh(mac, hint, ssid, tsid)) hint_fill(mac, hint, task, ssid, tsid);
    if (!hint_fresh(mac, hint, ssid, tsid) || permissions & ~(hint->quiet | hint->loud)) return HINT_UNKNOWN;
    return permissions & hint->loud ? HINT_LOUD : HINT_QUIET;
}

const struct method_hint *mac_method_look(struct mac *mac, struct method_hint *hint, uint32_t ssid, uint32_t tsid, uint32_t tclass) {
    struct avc_vector vector;
    *hint = (struct method_hint){0};
    if (mac->watches.any_granted || !mac_known(mac, ssid, tsid, tclass, &vector)) return hint;
    uint32_t told = vector.auditallow | (vector.report & worth_telling(mac, &vector)) | mac->audit.selection.granted[tclass];
    *hint = (struct method_hint){mac->stamp, ssid, tsid, tclass, vector.allowed & ~told, vector.allowed};
    return hint;
}
