/* SPDX-License-Identifier: BSD-2-Clause */
#include "sys/kernel.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint32_t kernel_fork_generation;
static pthread_once_t watch_fork_once = PTHREAD_ONCE_INIT;

static void child_forked(void) { kernel_fork_generation++; }
static void watch_fork(void) { pthread_atfork(NULL, NULL, child_forked); }

/* ---- time ---- */

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#ifdef CLOCK_REALTIME_COARSE
#define CLOCK_CHEAP CLOCK_REALTIME_COARSE
#else
#define CLOCK_CHEAP CLOCK_REALTIME
#endif

static uint64_t time_of(void *context) {
    const struct pm_kernel *kernel = context;
    if (kernel->clock == PM_CLOCK_SIMULATED) return __atomic_load_n(&kernel->now, __ATOMIC_RELAXED);
    return clock_ns(kernel->clock == PM_CLOCK_EXACT ? CLOCK_REALTIME : CLOCK_CHEAP);
}

static uint64_t exact_time_of(void *context) {
    const struct pm_kernel *kernel = context;
    return kernel->clock == PM_CLOCK_COARSE ? clock_ns(CLOCK_REALTIME) : time_of(context);
}

uint64_t pm_kernel_time(struct pm_kernel *kernel) { return time_of(kernel); }

int pm_kernel_set_time(struct pm_kernel *kernel, uint64_t now) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    int code = kernel->clock == PM_CLOCK_SIMULATED && now >= kernel->now ? 0 : KERN_INVALID_ARGUMENT;
    if (!code) __atomic_store_n(&kernel->now, now, __ATOMIC_RELAXED);
    kernel_unlock(kernel);
    return code;
}

/* ---- life ---- */

static void parts_init(struct pm_kernel *kernel) {
    for (enum part part = 0; part < PARTS; part++) kernel->parts[part].whole = &kernel->heap;
}

static void ipc_init(struct pm_kernel *kernel) {
    struct ipc *ipc = &kernel->ipc;
    struct heap *ports = &kernel->parts[PART_PORTS];
    *ipc = (struct ipc){.lock = &kernel->lock, .heap = &kernel->heap, .names_heap = &kernel->parts[PART_NAMES],
                        .messages_heap = &kernel->parts[PART_MESSAGES], .mac = &kernel->mac, .sids = &kernel->sids, .trace = &kernel->trace,
                        .interfaces = &kernel->interfaces};
    pool_init(&ipc->ports, ports, sizeof(struct port), 512);
    pool_init(&ipc->rests, ports, sizeof(struct port_rest), 512);
    pool_init(&ipc->extras, ports, sizeof(struct port_extra), 64);
    pool_init(&ipc->sets, ports, sizeof(struct pset), 64);
    pool_init(&ipc->links, ports, sizeof(struct set_link), 128);
    pool_init(&ipc->requests, ports, sizeof(struct request), 128);
    pool_init(&ipc->kmsgs, ipc->messages_heap, KMSG_SIZE, 256);
    for (uint32_t i = 0; i < BODY_POOLS; i++) pool_init(&ipc->bodies[i], ipc->messages_heap, BODY_LEAST << i, 128 >> i);
    list_init(&ipc->pending);
}

/* Labels that the embedder never gave back keep the tasks that pay for them. */
static void forgive_payers(struct pm_kernel *kernel) {
    for (uint32_t i = 1; i < kernel->sids.used; i++) {
        struct space *payer = kernel->sids.slots[i].payer;
        kernel->sids.slots[i].payer = NULL;
        if (payer) space_unref(&kernel->ipc, payer);
    }
}

static void kernel_free(struct pm_kernel *kernel) {
    struct ipc *ipc = &kernel->ipc;
    forgive_payers(kernel);
    struct pool *pools[] = {&ipc->ports, &ipc->rests, &ipc->extras, &ipc->sets, &ipc->links, &ipc->requests, &ipc->kmsgs};
    for (size_t i = 0; i < array_count(pools); i++) pool_destroy(pools[i]);
    for (size_t i = 0; i < BODY_POOLS; i++) pool_destroy(&ipc->bodies[i]);
    tasks_destroy(&kernel->by_id);
    interfaces_destroy(&kernel->interfaces);
    trace_destroy(&kernel->trace);
    sids_destroy(&kernel->sids);
    mac_destroy(&kernel->mac);
    for (enum part part = 0; part < PARTS; part++) heap_assert_empty(&kernel->parts[part]);
    lock_destroy(&kernel->lock);
    lock_destroy(&kernel->draining);
    free(kernel);
}

#define TABLE_MAX (1u << 26)

static bool config_good(const struct pm_config *config) {
    return config->avc_entries <= TABLE_MAX && config->audit_records <= TABLE_MAX && config->trace_paths <= TABLE_MAX &&
           config->clock <= PM_CLOCK_SIMULATED;
}

/* On a cache line, so that what the path of a message counts lies the same way in every kernel. */
static struct pm_kernel *kernel_alloc(void) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, sizeof(struct pm_kernel))) return NULL;
    return memset(memory, 0, sizeof(struct pm_kernel));
}

uint32_t pm_abi_version(void) { return PM_ABI_VERSION; }

int (pm_kernel_create)(const struct pm_config *config, struct pm_kernel **result) {
    return pm_kernel_create_as(PM_ABI_VERSION, config, result);
}

int pm_kernel_create_as(uint32_t abi, const struct pm_config *config, struct pm_kernel **result) {
    static const struct pm_config defaults;
    if (abi != PM_ABI_VERSION) return PM_ABI_MISMATCH;
    if (!config) config = &defaults;
    if (!config_good(config)) return KERN_INVALID_ARGUMENT;
    pthread_once(&watch_fork_once, watch_fork);
    struct pm_kernel *kernel = kernel_alloc();
    if (!kernel) return KERN_RESOURCE_SHORTAGE;
    kernel->heap.fault_at = config->fault_at;
    kernel->heap.fault_sticky = config->fault_sticky;
    parts_init(kernel);
    if (!mac_init(&kernel->mac, &kernel->parts[PART_MAC], config)) {
        free(kernel);
        return KERN_RESOURCE_SHORTAGE;
    }
    kernel->mac.clock = time_of;
    kernel->mac.exact_clock = exact_time_of;
    kernel->mac.clock_context = kernel;
    kernel->fork_generation = kernel_fork_generation;
    kernel->refs = 1;
    kernel->alive = true;
    kernel->no_fast_path = config->no_fast_path;
    kernel->clock = config->clock;
    lock_init(&kernel->lock);
    lock_init(&kernel->draining);
    list_init(&kernel->tasks);
    tasks_init(&kernel->by_id, &kernel->parts[PART_TASKS]);
    sids_init(&kernel->sids, &kernel->parts[PART_LABELS], config->seed);
    kernel->mac.sids = kernel->mac.audit.selection.sids = &kernel->sids;
    trace_init(&kernel->trace, &kernel->parts[PART_TRACE], config->trace_paths ? config->trace_paths : 65536, config->seed);
    interfaces_init(&kernel->interfaces, &kernel->parts[PART_MAC]);
    ipc_init(kernel);
    *result = kernel;
    return 0;
}

bool kernel_unref_unlock(struct pm_kernel *kernel) {
    bool last = --kernel->refs == 0;
    kernel_unlock(kernel);
    if (last) kernel_free(kernel);
    return !last;
}

static void list_move(struct list *to, struct list *node) {
    list_remove(node);
    list_append(to, node);
}

/* The end of one task may free others, any of the list: no pointer to a next one is good after it. */
static void end_tasks(struct pm_kernel *kernel, struct after *after) {
    struct list ended;
    list_init(&ended);
    while (!list_empty(&kernel->tasks)) {
        struct space *space = list_first(&kernel->tasks, struct space, tasks);
        list_move(&ended, &space->tasks);
        if (space->alive) task_end(kernel, task_of(space), after);
    }
    while (!list_empty(&ended)) list_move(&kernel->tasks, ended.next);
}

/* In a forked child another thread may have held the lock for ever, so nothing is taken apart there. */
void pm_kernel_destroy(struct pm_kernel *kernel) {
    struct after after;
    if (kernel_forked(kernel)) return;
    after_init(&after);
    kernel_lock(kernel);
    kernel->alive = false;
    audit_wake(&kernel->mac.audit);
    end_tasks(kernel, &after);
    kernel_leave(kernel, &after);
    kernel_lock(kernel);
    kernel->mac.decider = NULL;         /* what they are called with may go now */
    kernel->mac.audit.drainer = NULL;
    kernel_unref_unlock(kernel);
}

/* ---- consequences ---- */

static void finish(struct pm_kernel *kernel, struct kmsg *finished) {
    for (struct kmsg *kmsg = finished; kmsg; kmsg = kmsg->next) kmsg_release(kmsg);
    kernel_lock(kernel);
    while (finished) {
        struct kmsg *next = finished->next;
        struct after none;
        after_init(&none);
        kmsg_free(&kernel->ipc, finished, &none);
        finished = next;
    }
    kernel_unlock(kernel);
}

void kernel_leave(struct pm_kernel *kernel, struct after *after) {
    if (pm_likely(after_is_empty(after))) {
        kernel_unlock(kernel);
        return;
    }
    after_settle(&kernel->ipc, after);
    struct kmsg *finished = after->finished;
    after->finished = NULL;
    bool handled = after->handled;
    if (handled) list_append(&kernel->ipc.pending, &after->pending);
    kernel->refs++;
    kernel_unlock(kernel);
    if (finished) finish(kernel, finished);
    if (handled) handlers_run(kernel, after);
    kernel_lock(kernel);
    kernel_unref_unlock(kernel);
}

/* ---- epochs, labels, trace ---- */

/* After 2^32 changes a remembered decision of the first would look fresh. */
static void forget_hints(struct pm_kernel *kernel) {
    kernel->mac.stamps_began_anew = false;
    memset(kernel->mac.recent, 0, sizeof kernel->mac.recent);
    memset(kernel->mac.methods, 0, sizeof kernel->mac.methods);
    list_each(&kernel->tasks, node) {
        struct space *space = container_of(node, struct space, tasks);
        for (uint32_t i = 0; i < space->used; i++) space->table[i].hint.stamp = 0;
    }
}

void kernel_move_stamp(struct pm_kernel *kernel) {
    mac_move_stamp(&kernel->mac);
    if (kernel->mac.stamps_began_anew) forget_hints(kernel);
}

void kernel_move_epoch(struct pm_kernel *kernel) {
    mac_move_epoch(&kernel->mac);
    kernel->ipc.outdated = kernel->ipc.transfers;
    if (kernel->mac.stamps_began_anew) forget_hints(kernel);
}

void kernel_collect_sids(struct pm_kernel *kernel) {
    struct mac *mac = &kernel->mac;
    uint64_t wraps = kernel->sids.wraps;
    sids_collect(&kernel->sids, watches_drained(&mac->watches, mac->audit.drained));
    if (pm_likely(kernel->sids.wraps == wraps)) return;
    watches_forget_labels(&mac->watches);               /* numbers are used again from here on */
    sample_forget_labels(&mac->audit.sample);
    kernel_move_epoch(kernel);
}

void kernel_release_sid(struct pm_kernel *kernel, uint32_t sid) {
    struct space *payer = sids_release(&kernel->sids, sid, kernel->mac.audit.sequence);
    if (!payer) return;
    payer->usage.sids--;
    space_unref(&kernel->ipc, payer);
}

void trace_event(struct pm_kernel *kernel, struct space *space, struct entry *entry, const struct port *port,
                 uint32_t event) {
    struct trace *trace = &kernel->trace;
    uint32_t path;
    if (entry && entry->trace_stamp == trace->stamp) {
        path = entry->trace_path;
    } else {
        path = trace_path(trace, space->trace_identity, port->rest->trace_owner, port->rest->trace_kind, port->rest->trace_number);
        if (entry) {
            entry->trace_path = path;
            entry->trace_stamp = trace->stamp;
        }
    }
    trace_count(trace, path, event);
}

/* ---- faults and figures ---- */

int pm_kernel_fault(struct pm_kernel *kernel, uint64_t at, int sticky) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    heap_fault(&kernel->heap, at, sticky);
    kernel_unlock(kernel);
    return 0;
}

uint64_t pm_kernel_allocations(struct pm_kernel *kernel) {
    return __atomic_load_n(&kernel->heap.asked, __ATOMIC_RELAXED);
}

/* Of a counter that is added to without the lock. */
static uint64_t tally_now(const uint64_t *counter) { return __atomic_load_n(counter, __ATOMIC_RELAXED); }

static uint64_t part_now(const struct pm_kernel *kernel, enum part part) { return tally_now(&kernel->parts[part].bytes); }

int pm_kernel_stats(struct pm_kernel *kernel, struct pm_stats *stats) {
    if (kernel_forked(kernel)) return PM_FORKED;
    kernel_lock(kernel);
    const struct ipc *ipc = &kernel->ipc;
    const struct mac *mac = &kernel->mac;
    *stats = (struct pm_stats){
        .tasks = kernel->tasks_alive, .ports = ipc->live_ports, .port_sets = ipc->live_sets, .names = ipc->names, .messages_queued = ipc->messages,
        .bytes_queued = ipc->bytes, .sids = kernel->sids.alive, .memory = tally_now(&kernel->heap.bytes) + sizeof *kernel,
        .sent = ipc->sent, .received = ipc->received, .destroyed = ipc->destroyed, .notifications = ipc->notifications,
        .transfers = ipc->transfers, .checks_avc = mac->hits, .misses = mac->misses, .decider_calls = tally_now(&mac->calls),
        .decider_failures = tally_now(&mac->failures), .denials = mac->denials, .retries_exhausted = mac->exhausted,
        .avc_entries = (uint64_t)mac->avc.sets * AVC_WAYS, .avc_inserts = mac->avc.inserts,
        .avc_evictions = mac->avc.evictions, .avc_refused = mac->avc.refused, .epoch = mac->epoch,
        .audit_records = mac->audit.head, .audit_lost = mac->audit.lost_total,
        .trace_paths = kernel->trace.used - 1, .urefs_dropped = ipc->urefs_dropped, .circular = ipc->circular,
        .guard_violations = ipc->guard_violations, .quota_refusals = ipc->quota_refusals,
        .handler_failures = tally_now(&ipc->handler_failures), .handler_too_deep = ipc->handler_too_deep,
        .memory_tasks = part_now(kernel, PART_TASKS), .memory_names = part_now(kernel, PART_NAMES),
        .memory_ports = part_now(kernel, PART_PORTS), .memory_messages = part_now(kernel, PART_MESSAGES),
        .memory_labels = part_now(kernel, PART_LABELS), .memory_mac = part_now(kernel, PART_MAC),
        .memory_trace = part_now(kernel, PART_TRACE),
        .native = mac->native != NULL, .native_decisions = mac->native_decisions, .native_labels = kernel->sids.valued,
        .native_memory = kernel->sids.values_bytes + (mac->native ? mac->native->bytes : 0)};
    for (uint32_t event = 1; kernel->trace.room && event < PM_EVENTS; event++)
        stats->trace_overflow += kernel->trace.paths[0].count[event];
    kernel_unlock(kernel);
    return 0;
}
