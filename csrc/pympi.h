/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pympi: an embeddable, secured Mach IPC kernel. The one public header.
 *
 * A kernel holds tasks; a task holds port rights under names; messages and rights travel through ports; every controlled
 * operation is decided by mandatory access control and can be audited. Names, numbers and layouts are those of XNU's
 * mach/message.h and mach/port.h, so a program written for Mach needs little more than this header.
 *
 * Results. A function that returns int gives 0 or a Mach code. A function that returns int64_t gives a value, or a Mach code
 * negated. Unless its comment says otherwise, a function that fails has changed nothing.
 *
 * Callers. A call that acts on the space of a task takes `caller` first: the task that asks. Where caller and task differ,
 * mach_task permissions are asked as well.
 *
 * Threads. Every call may be made from any thread. The kernel has one lock, which is never held while a decider, handler,
 * drainer or release function runs. After fork() the child may only destroy and release; any other call gives PM_FORKED.
 *
 * The part between the marks is read by cffi as well: plain declarations only.
 */
#ifndef PYMPI_H
#define PYMPI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"       /* functions that are called as the structure they give */
#endif

#pragma GCC visibility push(default)    /* what is declared here is what a library offers */

/* cdef-begin */
#define PM_ABI_VERSION 1                /* of what is declared here; docs/embedding.md says when it is raised */

struct pm_kernel;
struct pm_task;
struct pm_message;

enum pm_code {
    KERN_SUCCESS = 0, KERN_NO_SPACE = 3, KERN_INVALID_ARGUMENT = 4, KERN_FAILURE = 5, KERN_RESOURCE_SHORTAGE = 6,
    KERN_NO_ACCESS = 8, KERN_ALREADY_IN_SET = 11, KERN_NOT_IN_SET = 12, KERN_NAME_EXISTS = 13, KERN_ABORTED = 14,
    KERN_INVALID_NAME = 15, KERN_INVALID_TASK = 16, KERN_INVALID_RIGHT = 17, KERN_INVALID_VALUE = 18,
    KERN_UREFS_OVERFLOW = 19, KERN_INVALID_CAPABILITY = 20, KERN_RIGHT_EXISTS = 21, KERN_TERMINATED = 37,
    KERN_NOT_SUPPORTED = 46, KERN_DENIED = 53,
    PM_FORKED = 0x70000001,             /* the kernel was made by another process */
    PM_AUDIT_FULL = 0x70000002,         /* the operation could not be recorded and was not done */
    PM_ABI_MISMATCH = 0x70000003,       /* the caller was compiled with the header of another library */

    MACH_SEND_IN_PROGRESS = 0x10000001, MACH_SEND_INVALID_DATA = 0x10000002, MACH_SEND_INVALID_DEST = 0x10000003,
    MACH_SEND_TIMED_OUT = 0x10000004, MACH_SEND_INVALID_VOUCHER = 0x10000005, MACH_SEND_INTERRUPTED = 0x10000007,
    MACH_SEND_MSG_TOO_SMALL = 0x10000008, MACH_SEND_INVALID_REPLY = 0x10000009, MACH_SEND_INVALID_RIGHT = 0x1000000a,
    MACH_SEND_INVALID_NOTIFY = 0x1000000b, MACH_SEND_INVALID_MEMORY = 0x1000000c, MACH_SEND_NO_BUFFER = 0x1000000d,
    MACH_SEND_TOO_LARGE = 0x1000000e, MACH_SEND_INVALID_TYPE = 0x1000000f, MACH_SEND_INVALID_HEADER = 0x10000010,
    MACH_SEND_INVALID_TRAILER = 0x10000011, MACH_SEND_INVALID_CONTEXT = 0x10000012, MACH_SEND_NO_GRANT_DEST = 0x10000016,
    MACH_SEND_MSG_FILTERED = 0x10000017,

    MACH_RCV_IN_PROGRESS = 0x10004001, MACH_RCV_INVALID_NAME = 0x10004002, MACH_RCV_TIMED_OUT = 0x10004003,
    MACH_RCV_TOO_LARGE = 0x10004004, MACH_RCV_INTERRUPTED = 0x10004005, MACH_RCV_PORT_CHANGED = 0x10004006,
    MACH_RCV_INVALID_NOTIFY = 0x10004007, MACH_RCV_INVALID_DATA = 0x10004008, MACH_RCV_PORT_DIED = 0x10004009,
    MACH_RCV_IN_SET = 0x1000400a, MACH_RCV_HEADER_ERROR = 0x1000400b, MACH_RCV_BODY_ERROR = 0x1000400c,
    MACH_RCV_INVALID_TYPE = 0x1000400d, MACH_RCV_SCATTER_SMALL = 0x1000400e, MACH_RCV_INVALID_TRAILER = 0x1000400f,
    MACH_RCV_INVALID_ARGUMENTS = 0x10004013,
    MACH_MSG_IPC_SPACE = 0x00002000, MACH_MSG_VM_SPACE = 0x00001000
};

enum pm_right_number {                  /* mach_port_right_t */
    MACH_PORT_RIGHT_SEND = 0, MACH_PORT_RIGHT_RECEIVE = 1, MACH_PORT_RIGHT_SEND_ONCE = 2,
    MACH_PORT_RIGHT_PORT_SET = 3, MACH_PORT_RIGHT_DEAD_NAME = 4, MACH_PORT_RIGHT_NUMBER = 6
};

enum pm_type {                          /* mach_port_type_t */
    MACH_PORT_TYPE_NONE = 0, MACH_PORT_TYPE_SEND = 0x10000, MACH_PORT_TYPE_RECEIVE = 0x20000,
    MACH_PORT_TYPE_SEND_ONCE = 0x40000, MACH_PORT_TYPE_PORT_SET = 0x80000, MACH_PORT_TYPE_DEAD_NAME = 0x100000,
    MACH_PORT_TYPE_SPREQUEST = 0x40000000
};
#define MACH_PORT_TYPE_DNREQUEST 0x80000000

#define MACH_PORT_NULL 0
#define MACH_PORT_DEAD 0xffffffff

enum pm_disposition {                   /* mach_msg_type_name_t */
    MACH_MSG_TYPE_MOVE_RECEIVE = 16, MACH_MSG_TYPE_MOVE_SEND = 17, MACH_MSG_TYPE_MOVE_SEND_ONCE = 18,
    MACH_MSG_TYPE_COPY_SEND = 19, MACH_MSG_TYPE_MAKE_SEND = 20, MACH_MSG_TYPE_MAKE_SEND_ONCE = 21,
    MACH_MSG_TYPE_PORT_NONE = 0, MACH_MSG_TYPE_PORT_RECEIVE = 16, MACH_MSG_TYPE_PORT_SEND = 17,
    MACH_MSG_TYPE_PORT_SEND_ONCE = 18
};

enum pm_descriptor_type {               /* mach_msg_descriptor_type_t */
    MACH_MSG_PORT_DESCRIPTOR = 0, MACH_MSG_OOL_DESCRIPTOR = 1, MACH_MSG_OOL_PORTS_DESCRIPTOR = 2,
    MACH_MSG_OOL_VOLATILE_DESCRIPTOR = 3, MACH_MSG_GUARDED_PORT_DESCRIPTOR = 4
};

enum pm_option {                        /* mach_msg_option_t */
    MACH_SEND_MSG = 0x1, MACH_RCV_MSG = 0x2, MACH_RCV_LARGE = 0x4, MACH_RCV_LARGE_IDENTITY = 0x8,
    MACH_SEND_TIMEOUT = 0x10, MACH_SEND_OVERRIDE = 0x20, MACH_SEND_INTERRUPT = 0x40, MACH_SEND_NOTIFY = 0x80,
    MACH_RCV_TIMEOUT = 0x100, MACH_STRICT_REPLY = 0x200, MACH_RCV_INTERRUPT = 0x400, MACH_RCV_VOUCHER = 0x800,
    MACH_RCV_GUARDED_DESC = 0x1000, MACH_RCV_SYNC_WAIT = 0x4000, MACH_SEND_FILTER_NONFATAL = 0x10000,
    MACH_SEND_TRAILER = 0x20000, MACH_SEND_NOIMPORTANCE = 0x40000
};

enum pm_trailer_element {               /* MACH_RCV_TRAILER_ELEMENTS(x): shifted left by 24 in the option */
    MACH_RCV_TRAILER_NULL = 0, MACH_RCV_TRAILER_SEQNO = 1, MACH_RCV_TRAILER_SENDER = 2, MACH_RCV_TRAILER_AUDIT = 3,
    MACH_RCV_TRAILER_CTX = 4, MACH_RCV_TRAILER_AV = 7, MACH_RCV_TRAILER_LABELS = 8
};

enum pm_notification {                  /* msgh_id of notifications */
    MACH_NOTIFY_PORT_DELETED = 65, MACH_NOTIFY_SEND_POSSIBLE = 66, MACH_NOTIFY_PORT_DESTROYED = 69,
    MACH_NOTIFY_NO_SENDERS = 70, MACH_NOTIFY_SEND_ONCE = 71, MACH_NOTIFY_DEAD_NAME = 72,
    PM_NOTIFY_MESSAGE = 80              /* ours: a message waits at a port; the name of its receive right */
};

enum pm_flavor {                        /* mach_port_flavor_t, with their counts in 32-bit words */
    MACH_PORT_LIMITS_INFO = 1, MACH_PORT_RECEIVE_STATUS = 2, MACH_PORT_DNREQUESTS_SIZE = 3, MACH_PORT_TEMPOWNER = 4,
    MACH_PORT_IMPORTANCE_RECEIVER = 5, MACH_PORT_DENAP_RECEIVER = 6, MACH_PORT_INFO_EXT = 7, MACH_PORT_GUARD_INFO = 8,
    MACH_PORT_LIMITS_INFO_COUNT = 1, MACH_PORT_RECEIVE_STATUS_COUNT = 10, MACH_PORT_DNREQUESTS_SIZE_COUNT = 1,
    MACH_PORT_INFO_EXT_COUNT = 17, MACH_PORT_GUARD_INFO_COUNT = 2
};

enum pm_construct_flag {                /* mach_port_options_t.flags, the part that means something here */
    MPO_CONTEXT_AS_GUARD = 0x01, MPO_QLIMIT = 0x02, MPO_TEMPOWNER = 0x04, MPO_IMPORTANCE_RECEIVER = 0x08,
    MPO_INSERT_SEND_RIGHT = 0x10, MPO_STRICT = 0x20, MPO_DENAP_RECEIVER = 0x40, MPO_IMMOVABLE_RECEIVE = 0x80,
    MPO_FILTER_MSG = 0x100, MPO_TG_BLOCK_TRACKING = 0x200, MPO_SERVICE_PORT = 0x400, MPO_CONNECTION_PORT = 0x800,
    MPO_REPLY_PORT = 0x1000, MPO_ENFORCE_REPLY_PORT_SEMANTICS = 0x2000, MPO_PROVISIONAL_REPLY_PORT = 0x4000,
    MPO_EXCEPTION_PORT = 0x8000
};

enum pm_guard_flag { MPG_STRICT = 1, MPG_IMMOVABLE_RECEIVE = 2 };       /* of mach_port_guard_with_flags */
enum pm_descriptor_guard {              /* mach_msg_guard_flags_t, of a guarded port descriptor */
    MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE = 1, MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND = 2,
    MACH_MSG_GUARD_FLAGS_MASK = 3
};

enum pm_guard_violation {               /* XNU's guard exception flavours */
    kGUARD_EXC_DESTROY = 1, kGUARD_EXC_MOD_REFS = 2, kGUARD_EXC_SET_CONTEXT = 4, kGUARD_EXC_UNGUARDED = 8,
    kGUARD_EXC_INCORRECT_GUARD = 16, kGUARD_EXC_IMMOVABLE = 32, kGUARD_EXC_INVALID_RIGHT = 256,
    kGUARD_EXC_INVALID_NAME = 512, kGUARD_EXC_INVALID_VALUE = 1024
};

enum pm_special_port {
    TASK_KERNEL_PORT = 1, TASK_HOST_PORT = 2, TASK_NAME_PORT = 3, TASK_BOOTSTRAP_PORT = 4, TASK_INSPECT_PORT = 5,
    TASK_READ_PORT = 6, TASK_SEATBELT_PORT = 7, TASK_ACCESS_PORT = 9, PM_SPECIAL_PORTS = 10, TASK_PORT_REGISTER_MAX = 3
};

enum pm_limit {
    MACH_PORT_QLIMIT_DEFAULT = 5, MACH_PORT_QLIMIT_MAX = 1024, MACH_PORT_UREFS_MAX = 65535,
    PM_MESSAGE_MAX = 50331648,          /* bytes in a message, headers and descriptors included */
    PM_MESSAGE_PORTS_MAX = 16383,       /* rights a message may carry */
    PM_LABEL_MAX = 4096,                /* bytes of a label's text */
    PM_TASK_NAME_MAX = 1023,            /* bytes of a task's name */
    PM_QUEUE_MAX = 65534,               /* messages on one port, send-once ones included */
    PM_HANDLER_DEPTH = 16
};

/* ---- life of a kernel -------------------------------------------------------------------------------------------- */

enum pm_clock { PM_CLOCK_COARSE = 0, PM_CLOCK_EXACT = 1, PM_CLOCK_SIMULATED = 2 };
enum pm_audit_full { PM_AUDIT_DROP = 0, PM_AUDIT_FAIL = 1, PM_AUDIT_BLOCK = 2, PM_AUDIT_ABORT = 3 };

struct pm_config {                      /* zero means: take the default */
    uint32_t avc_entries;               /* cached decisions, rounded up to a power of two; 8192 */
    uint32_t audit_records;             /* audit ring, rounded up to a power of two; 16384 */
    uint32_t trace_paths;               /* distinct communication paths; 65536 */
    uint32_t clock;                     /* enum pm_clock */
    uint32_t no_fast_path;              /* non-zero: only the defining path, for tests and comparison */
    uint32_t reserved;
    uint64_t seed;                      /* of the hash tables */
    uint64_t fault_at;                  /* non-zero: this allocation fails, counted from 1 */
    uint32_t fault_sticky;              /* non-zero: and all that follow */
    uint32_t reserved2;
};

/* The number that PM_ABI_VERSION had when the library was compiled. */
uint32_t pm_abi_version(void);
/* A code's name, "MACH_RCV_TIMED_OUT", without the bits that say which space was short; NULL for what is none of ours. */
const char *pm_code_name(int code);
/* 0 and a kernel in *kernel, KERN_RESOURCE_SHORTAGE, or KERN_INVALID_ARGUMENT for sizes out of range. In a program it is a macro
 * that says which header the program was compiled with: PM_ABI_MISMATCH where that is not the library's. */
int pm_kernel_create(const struct pm_config *config, struct pm_kernel **kernel);
int pm_kernel_create_as(uint32_t abi, const struct pm_config *config, struct pm_kernel **kernel);
/* Terminates every task and drops the caller's reference. Memory lives on until the last task and message handle is released; no
 * decider, handler or drainer is called after. */
void pm_kernel_destroy(struct pm_kernel *kernel);
/* Recounts everything from scratch. Returns how many faults were found, or PM_FORKED; up to size bytes of text, a line each,
 * in report. */
int pm_kernel_verify(struct pm_kernel *kernel, char *report, size_t size);
/* The at-th allocation from now fails, and with sticky all after it. 0 switches fault injection off. */
int pm_kernel_fault(struct pm_kernel *kernel, uint64_t at, int sticky);
/* How many allocations were asked for so far: the space which fault injection walks. */
uint64_t pm_kernel_allocations(struct pm_kernel *kernel);
/* Simulated clock only: set the time in nanoseconds (never backwards, else KERN_INVALID_ARGUMENT). */
int pm_kernel_set_time(struct pm_kernel *kernel, uint64_t now);
uint64_t pm_kernel_time(struct pm_kernel *kernel);

struct pm_stats {
    uint64_t tasks, ports, port_sets, names, messages_queued, bytes_queued, sids, memory;
    uint64_t sent, received, destroyed, notifications, transfers;
    uint64_t checks_avc, misses, decider_calls, decider_failures, denials, retries_exhausted;   /* hints are not counted */
    uint64_t avc_entries, avc_inserts, avc_evictions, avc_refused, epoch;
    uint64_t audit_records, audit_lost, trace_paths, trace_overflow;
    uint64_t urefs_dropped, circular, guard_violations, quota_refusals, handler_failures, handler_too_deep;
    /* What of the memory, in bytes, is for: tasks; their names; ports and sets; messages, but for memory that they carry; labels;
     * decisions and records; the trace. */
    uint64_t memory_tasks, memory_names, memory_ports, memory_messages, memory_labels, memory_mac, memory_trace;
    uint64_t native, native_decisions, native_labels, native_memory;    /* 1: tables are in force; the first are of the misses */
};
int pm_kernel_stats(struct pm_kernel *kernel, struct pm_stats *stats);

/* ---- looking at all of it ------------------------------------------------------------------------------------------ */

/* The kernel's counters at one moment. sequence moves whenever something was done: equal at two marks, nothing was. Ports and
 * port sets share their numbers, so they are counted together as objects. */
struct pm_mark {
    uint64_t sequence, time, objects_made, objects_gone, tasks_made, tasks_ended, sent, received, transfers, epoch;
    uint64_t names, ports;              /* that there are */
};
int pm_inspect_mark(struct pm_kernel *kernel, struct pm_mark *mark);

/* One row for each task, name and port. Objects are told by numbers, 0 none. */
struct pm_task_row {
    uint64_t queued_bytes, memory;
    uint64_t bootstrap;                 /* port */
    uint64_t name_at;                   /* its name, in the rows' text */
    uint32_t name_length, id, sid, alive, parent, names, ports, sids, notifications, in_flight;
    uint32_t audit_token[8];
};
enum pm_port_flag {
    PM_PORT_ACTIVE = 1, PM_PORT_IN_TRANSIT = 2, PM_PORT_HANDLER = 64, PM_PORT_GUARDED = 1024, PM_PORT_STRICT = 2048,
    PM_PORT_IMMOVABLE = 4096, PM_PORT_REPLY = 65536
};
struct pm_port_row {
    uint64_t id;
    uint64_t destination;               /* in transit: the port whose queue its receive right is in, where that is known */
    uint64_t queued_bytes;              /* of the first queued_summed messages */
    uint64_t no_senders, port_destroyed;        /* ports that these notifications go to */
    uint64_t set;                       /* one of those it is in */
    uint32_t sid, flags, receiver, receiver_name, queued, queued_summed, qlimit, seqno, mscount, send_rights,
        send_once_rights, sets, kind, owner, interface, maker, senders_waiting, receivers_waiting;
    int32_t number;                     /* in the trace; owner and kind are, too */
    uint32_t reserved;
};
struct pm_right_row {
    uint64_t object;                    /* port or set */
    uint64_t provenance, request_port;
    uint32_t task, name, types, urefs;
    uint32_t request;                   /* MACH_NOTIFY_DEAD_NAME, MACH_NOTIFY_SEND_POSSIBLE, 0 */
    uint32_t reserved;
};
/* Room for rows, and how much of it is used. */
struct pm_rows {
    struct pm_task_row *tasks; uint64_t tasks_room, tasks_used;
    struct pm_port_row *ports; uint64_t ports_room, ports_used;
    struct pm_right_row *rights; uint64_t rights_room, rights_used;
    char *text; uint64_t text_room, text_used;
};

/* A walk through everything there was when it began and still is when the walk comes by. Its fields are the core's. */
struct pm_inspect {
    struct pm_kernel *kernel;
    struct pm_task *task;
    uint32_t name, names, last_task, reserved;
    uint64_t port, ports, last_port;
};
int pm_inspect_begin(struct pm_kernel *kernel, struct pm_inspect *walk, struct pm_mark *mark);
/* Goes on, a slice at a time, until the end, 0, or until a row finds no room, KERN_NO_SPACE: make room, and go on. The lock is
 * held for a slice only; who waits for it has it before the next. Each row is consistent in itself. */
int pm_inspect_read(struct pm_inspect *walk, struct pm_rows *rows);
/* Due for each walk that was begun; the kernel lives until then. */
int pm_inspect_end(struct pm_inspect *walk, struct pm_mark *mark);
/* From the beginning, all at once: the kernel stands still for *stopped_ns. KERN_NO_SPACE where there was not room for every
 * row. mark: of that moment. */
int pm_inspect_stopped(struct pm_inspect *walk, struct pm_rows *rows, struct pm_mark *mark, uint64_t *stopped_ns);

/* ---- labels ------------------------------------------------------------------------------------------------------- */

/* Interns a label; the caller owns a reference. `payer` (may be NULL) is charged if the label is new.
 * -KERN_INVALID_ARGUMENT (empty, too long, NUL), -KERN_RESOURCE_SHORTAGE (memory, quota, 2^20 labels). */
int64_t pm_sid_intern(struct pm_kernel *kernel, struct pm_task *payer, const char *text, size_t length);
int pm_sid_retain(struct pm_kernel *kernel, uint32_t sid);
int pm_sid_release(struct pm_kernel *kernel, uint32_t sid);
/* Length of the label's text, of which at most size bytes are copied; -KERN_INVALID_ARGUMENT for an unknown SID. */
int64_t pm_sid_text(struct pm_kernel *kernel, uint32_t sid, char *text, size_t size);

/* ---- decisions ---------------------------------------------------------------------------------------------------- */

enum pm_query_kind {
    PM_QUERY_ACCESS = 0,                /* vectors for (ssid, tsid, tclass) */
    PM_QUERY_LABEL_PORT = 1,            /* label of a new port: ssid issuer, tsid owner; answer a SID in `label` */
    PM_QUERY_LABEL_TASK = 2,            /* label of a new task: ssid parent, tsid = ssid */
    PM_QUERY_RELABEL = 3                /* may ssid change tsid to label; tclass the object's class; answer a code in `code`,
                                         * and all ones in `report` where something permissive refuses it */
};
struct pm_query {
    uint32_t kind, ssid, tsid, tclass, asked;
    uint32_t allowed, auditallow, auditdeny, report;    /* the answer; comes preset to: nothing allowed, denials audited */
    uint32_t label;                     /* borrowed by the core: it takes its own reference; 0 and code 0: as without policy */
    int32_t code;                       /* comes preset to KERN_NO_ACCESS: without a label nothing new is made */
    uint32_t uncached;                  /* answer: good for this operation only */
};
/* Called without any lock. Non-zero means failure: everything asked is denied. */
typedef int (*pm_decider)(void *context, struct pm_query *queries, size_t count, uint32_t epoch);
int pm_kernel_set_decider(struct pm_kernel *kernel, pm_decider decider, void *context);

enum pm_policy_flag { PM_POLICY_LOADED = 1, PM_POLICY_PERMISSIVE = 2, PM_POLICY_LABELS_PORTS = 4, PM_POLICY_LABELS_TASKS = 8,
                      PM_POLICY_CHECKS_RELABEL = 16 };
/* Sets what kind of policy is in force and moves the epoch: nothing decided before is used after. Without PM_POLICY_LOADED
 * everything is allowed and nothing is asked. */
int pm_kernel_set_policy(struct pm_kernel *kernel, uint32_t flags);
uint32_t pm_kernel_epoch(struct pm_kernel *kernel);

/* Counting operations that met reported permissions: a table of this many rows, for each (subject, object, class, permissions
 * asked and reported) one; 0 is off. What was counted is forgotten. KERN_RESOURCE_SHORTAGE: nothing has changed. */
struct pm_report { uint32_t ssid, tsid, tclass, report, operation, reserved; uint64_t count; };    /* operation: the first */
int pm_kernel_count_reports(struct pm_kernel *kernel, uint32_t rows);
/* Moves the rows out, and into *lost how many operations found no row; capacity is at least the rows there may be, else
 * -KERN_INVALID_ARGUMENT. SIDs are those of the time: who wants to know their labels keeps references. */
int64_t pm_kernel_take_reports(struct pm_kernel *kernel, struct pm_report *rows, size_t capacity, uint64_t *lost);

/*
 * Decisions by tables. A policy all of whose modules can be written as tables may be given to the core, which then decides by itself
 * what its cache does not know; the decider is asked what the tables do not cover. A question is covered if its class is known and
 * both labels have values of these tables. The modules' answers are composed: allowed is what all allow, auditallow what one has
 * recorded, auditdeny what one has recorded of those that refuse it.
 *
 * A module sees of each label three numbers, the first of which is its kind, and three levels. It allows what its class allows and
 * what rules say about both kinds; then tests take permissions away; then what its class grants is added. Kinds are numbered from
 * 0, groups of kinds behind them.
 */
enum pm_native_limit {
    PM_NATIVE_MODULES_MAX = 64,
    PM_NATIVE_NUMBERS = 3, PM_NATIVE_LEVELS = 3,        /* that a module sees of a label */
    PM_NATIVE_STACK = 32,               /* values that a test may hold at once */
    PM_NATIVE_STEPS_MAX = 1024,         /* of all tests of a class */
    PM_NATIVE_LOOKUPS_MAX = 65536,      /* that one question may need, by the groups of two kinds */
    PM_NATIVE_VALUE_MAX = 16384         /* words of a label's values */
};
#define PM_NATIVE_SELF 0xffffffff       /* as a rule's target: the source's own kind */
struct pm_native_rule {
    uint32_t source, target, tclass;    /* kinds, or groups of them */
    uint32_t allowed, auditallow, dontaudit;
    uint32_t narrowed;                  /* not 0: of everything allowed, only what one of such rules has here */
};
struct pm_native_class { uint32_t allowed, granted, tests_first, tests_count; };
struct pm_native_test { uint32_t permissions, steps_first, steps_count; };      /* these need that it is true */
enum pm_native_operator {               /* of a stack of truths */
    PM_NATIVE_NOT, PM_NATIVE_AND, PM_NATIVE_OR,
    PM_NATIVE_SAME,                     /* numbers left and right are equal */
    PM_NATIVE_IN,                       /* number left is in the set */
    PM_NATIVE_DOMINATES,                /* level left is as high as level right, and has all of its categories */
    PM_NATIVE_EQUAL,                    /* levels left and right are equal */
    PM_NATIVE_OPERATORS
};
#define PM_NATIVE_TARGET 16             /* added to an operand: of the target, not of the source */
struct pm_native_step { uint8_t operator_, left, right, reserved; uint32_t set; };
enum pm_native_flag { PM_NATIVE_PERMISSIVE = 1 };       /* what the module refuses is reported instead */
struct pm_native_module {
    const struct pm_native_rule *rules;
    const struct pm_native_class *classes;      /* as many as the tables have */
    const struct pm_native_test *tests;
    const struct pm_native_step *steps;
    const uint32_t *groups_first, *groups;      /* kind k is in groups[groups_first[k]] up to groups[groups_first[k+1]]: kinds+1 */
    const uint32_t *sets_first, *sets;          /* likewise of bits, words of 32 */
    uint32_t rules_count, tests_count, steps_count, kinds, numbers, sets_count;  /* numbers: of kinds and groups together */
    uint32_t permissive;                /* number of the set of kinds that are not refused anything, it is reported; plus 1, 0 none */
    uint32_t flags;                     /* enum pm_native_flag */
};
struct pm_native {
    const struct pm_native_module *modules;
    const uint8_t *known;               /* of each class, whether there is such a class */
    uint32_t modules_count, classes_count;
    uint32_t epoch;                     /* that they belong to */
    uint32_t keep_values;               /* non-zero: values of the last tables mean the same in these */
};
/* Puts tables in force until the epoch moves; NULL: none. KERN_INVALID_ARGUMENT: they are not well-formed, or beyond a limit;
 * KERN_ABORTED: the epoch is another; KERN_NOT_SUPPORTED: the kernel has no fast paths; KERN_RESOURCE_SHORTAGE. Then there are
 * none. */
int pm_kernel_set_native(struct pm_kernel *kernel, const struct pm_native *native);
/* Gives a label its values: how many modules; for each its numbers, and where in these words its levels are: rank (bit 31: exempt,
 * it dominates and is dominated by all), number of the first word of categories, how many words, these. It goes with the label.
 * KERN_INVALID_ARGUMENT: not well-formed, or no such label; KERN_ABORTED: tables of this epoch are not in force. */
int pm_sid_set_values(struct pm_kernel *kernel, uint32_t sid, uint32_t epoch, const uint32_t *words, size_t count);

struct pm_decision { uint32_t allowed, auditallow, auditdeny, report, epoch; };
/* The whole vector for (ssid, tsid, tclass) as it is enforced, through the cache; not audited. Of a permissive kernel it allows
 * all, and what is refused in word only is in report. */
int pm_decide(struct pm_kernel *kernel, uint32_t ssid, uint32_t tsid, uint32_t tclass, struct pm_decision *decision);
/* 1 allowed, 0 denied, negative code. Not audited. */
int64_t pm_check(struct pm_kernel *kernel, uint32_t ssid, uint32_t tsid, uint32_t tclass, uint32_t permissions);
/* count checks; verdicts 0 or 1 into results. */
int pm_check_many(struct pm_kernel *kernel, const uint32_t *ssids, const uint32_t *tsids, const uint32_t *classes,
                  const uint32_t *permissions, uint8_t *results, size_t count);

/* What a server asks about whoever sent it a message, and an object of the server's own (SELinux's avc_has_perm). The first
 * six say who and what was sent: struct pm_received has them. */
struct pm_sender_question {
    uint32_t real_sid, sender_sid, sender_task;
    int32_t msgh_id;
    uint64_t transfer;
    uint32_t size;
    uint32_t tsid, tclass, permissions; /* the object's label, and what is to be done to it */
    uint32_t name;                      /* for the record: what the server knows the object by, */
    uint64_t port;                      /* the port it is about, */
    int32_t result;                     /* and what will come of it, if it is allowed */
};
/* 1 allowed, 0 denied; recorded as PM_OP_SERVICE like any operation of the kernel's, in the name of the sender. -PM_AUDIT_FULL:
 * it could not be recorded and is not to be done. */
int64_t pm_check_sender(struct pm_task *task, const struct pm_sender_question *question);
/* The same of somebody who is no task and sent no message, such as a peer of a control socket: sender_task is 0. */
int64_t pm_check_peer(struct pm_kernel *kernel, const struct pm_sender_question *question);

/* The lines of hooks.def, numbered from 0; NULL after the last. */
struct pm_hook { uint32_t tclass, bit; const char *class_name, *permission, *object, *operation, *sentence; };
const struct pm_hook *pm_hook(uint32_t index);
const char *pm_class_name(uint32_t tclass);     /* of hooks.def; NULL for others */

/* ---- interfaces: methods of a port -------------------------------------------------------------------------------- */

enum { PM_INTERFACE_ALLOW_UNKNOWN = 1, PM_CLASS_INTERFACE = 16, PM_ROUTINES_PER_CLASS = 31 };
/* Declares routines base .. base+count-1; returns the interface's number (> 0). Its classes are numbered from
 * pm_interface_class() on, 31 routines each; routine i is bit i%31 of class i/31, bit 31 stands for ids it does not know: those outside, and those whose bit
 * is set in holes, of count bits, or NULL for none. Interfaces live as long as the kernel. */
int64_t pm_interface_create(struct pm_kernel *kernel, int32_t base, uint32_t count, uint32_t flags, const uint8_t *holes);
int64_t pm_interface_class(struct pm_kernel *kernel, uint32_t interface);
/* interface 0 removes it. Asks set_attributes. */
int pm_port_set_interface(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t interface);

/* ---- tasks -------------------------------------------------------------------------------------------------------- */

struct pm_quota {                       /* 0 = no limit */
    uint32_t ports, names, sids, notifications;
    uint64_t queued_bytes, memory;
};
struct pm_identity { uint32_t audit_token[8], security_token[2]; };     /* auid euid egid ruid rgid pid asid pidversion */

/* sid 0: the policy's label for a new task, else the parent's. Special and registered ports come from the parent.
 * `parent` may be NULL (sid must be given then, nothing is asked). The caller owns a handle: pm_task_release().
 * KERN_NO_SPACE: 2^32 tasks were made. */
int pm_task_create(struct pm_kernel *kernel, struct pm_task *parent, const char *name, uint32_t sid,
                   const struct pm_identity *identity, const struct pm_quota *quota, struct pm_task **task);
/* Destroys every right of the task, wakes what waits in it. Asks mach_task:terminate where caller differs. */
int pm_task_terminate(struct pm_task *caller, struct pm_task *task);
void pm_task_release(struct pm_task *task);
/* Another handle of a task, to be released as well. */
int pm_task_retain(struct pm_task *task);
int pm_task_relabel(struct pm_task *caller, struct pm_task *task, uint32_t sid);
uint32_t pm_task_sid(struct pm_task *task);
uint32_t pm_task_id(struct pm_task *task);      /* never used twice in a kernel */
int pm_task_alive(struct pm_task *task);
const char *pm_task_name(struct pm_task *task);
int pm_task_set_quota(struct pm_task *task, const struct pm_quota *quota);
struct pm_usage { uint32_t ports, names, sids, notifications; uint64_t queued_bytes, memory; };
int pm_task_usage(struct pm_task *task, struct pm_usage *usage);
/* Stores a copy of the send right `poly` of the caller's space (0: none). Asks set_special_port; hold_send of task. */
int pm_task_set_special_port(struct pm_task *caller, struct pm_task *task, uint32_t which, uint32_t poly);
/* A send right in the caller's space; 0 where none is set. */
int64_t pm_task_get_special_port(struct pm_task *caller, struct pm_task *task, uint32_t which);
int pm_ports_register(struct pm_task *caller, struct pm_task *task, const uint32_t *names, uint32_t count);
int pm_ports_lookup(struct pm_task *caller, struct pm_task *task, uint32_t *names, uint32_t *count);
/* The last guard violation of this task since the last call: 1 and its particulars, or 0. */
struct pm_violation { uint32_t name, flavor; uint64_t payload; };
int pm_task_take_violation(struct pm_task *task, struct pm_violation *violation);

/* What access control refused in the last call of this task by this thread that it made fail: 1 and its particulars, or 0.
 * Cleared by asking. */
struct pm_denial { uint32_t operation, tclass, asked, denied, real_sid, effective_sid, object_sid; };
int pm_task_take_denial(struct pm_task *task, struct pm_denial *denial);

/* Memory of a task, for out-of-line data. Addresses are real pointers. */
int64_t pm_vm_allocate(struct pm_task *task, uint64_t size);
int pm_vm_deallocate(struct pm_task *task, uint64_t address, uint64_t size);
int pm_vm_write(struct pm_task *task, uint64_t address, const void *data, uint64_t size);
int pm_vm_read(struct pm_task *task, uint64_t address, void *data, uint64_t size);

/* ---- names and rights: mach_port_* -------------------------------------------------------------------------------- */

struct pm_port_options {
    uint32_t flags;                     /* enum pm_construct_flag */
    uint32_t qlimit;
    uint64_t context;
    uint32_t sid;                       /* 0: the policy's label for a new port, else the owner's */
    uint32_t trace_owner;               /* pm_trace_identity(); 0: the owner's name */
    uint32_t trace_kind;                /* kernel-object kind; 0 none */
    int32_t trace_number;               /* -1: the next number of the owner */
    uint32_t name;                      /* 0: the kernel chooses */
    uint32_t reserved;
};
int64_t pm_port_allocate(struct pm_task *caller, struct pm_task *task, uint32_t right, uint32_t name);
int64_t pm_port_construct(struct pm_task *caller, struct pm_task *task, const struct pm_port_options *options);
int64_t pm_port_type(struct pm_task *caller, struct pm_task *task, uint32_t name);
/* Names and types, at most capacity; returns how many there are. */
int64_t pm_port_names(struct pm_task *caller, struct pm_task *task, uint32_t *names, uint32_t *types, uint32_t capacity);
int64_t pm_port_get_refs(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t right);
int pm_port_mod_refs(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t right, int32_t delta);
int pm_port_deallocate(struct pm_task *caller, struct pm_task *task, uint32_t name);
int pm_port_destroy(struct pm_task *caller, struct pm_task *task, uint32_t name);
int pm_port_destruct(struct pm_task *caller, struct pm_task *task, uint32_t name, int32_t srdelta, uint64_t guard);
int pm_port_insert_right(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t poly, uint32_t disposition);
/* The right as a name in the caller's space; its type in *type. */
int64_t pm_port_extract_right(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t disposition,
                              uint32_t *type);
/* From one task to another under a name the kernel chooses: `disposition` of `name` in from's space, held by to. */
int64_t pm_port_transfer(struct pm_task *from, uint32_t name, uint32_t disposition, struct pm_task *to);
int pm_port_insert_member(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t set);
int pm_port_extract_member(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t set);
int pm_port_move_member(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t after);
int64_t pm_port_get_set_status(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t *members,
                               uint32_t capacity);
/* *count: room in 32-bit words, then words written. */
int pm_port_get_attributes(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t flavor, uint32_t *info,
                           uint32_t *count);
int pm_port_set_attributes(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t flavor,
                           const uint32_t *info, uint32_t count);
int pm_port_assert_attributes(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t flavor,
                              const uint32_t *info, uint32_t count);
int pm_port_set_mscount(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t mscount);
int pm_port_set_seqno(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t seqno);
int pm_port_get_context(struct pm_task *caller, struct pm_task *task, uint32_t name, uint64_t *context);
int pm_port_set_context(struct pm_task *caller, struct pm_task *task, uint32_t name, uint64_t context);
int pm_port_guard(struct pm_task *caller, struct pm_task *task, uint32_t name, uint64_t guard, uint32_t flags);
int pm_port_unguard(struct pm_task *caller, struct pm_task *task, uint32_t name, uint64_t guard);
int pm_port_swap_guard(struct pm_task *caller, struct pm_task *task, uint32_t name, uint64_t old, uint64_t new_guard);
struct pm_peek { uint32_t seqno, size, trailer_size; int32_t msgh_id; uint8_t trailer[68]; };
/* peek->seqno: 0 for the first message, else the one wanted; option: trailer elements, at most AUDIT. */
int pm_port_peek(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t option, struct pm_peek *peek);
/* Returns the previous registration as a send-once name in the caller's space, or 0. `disposition`: MAKE_SEND_ONCE or
 * MOVE_SEND_ONCE of `notify` in the caller's space. On failure the caller keeps the notify right. */
int64_t pm_port_request_notification(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t id,
                                     uint32_t sync, uint32_t notify, uint32_t disposition);
int pm_port_relabel(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t sid);
int64_t pm_port_sid(struct pm_task *task, uint32_t name);
uint64_t pm_port_id(struct pm_task *task, uint32_t name);       /* never used twice in a kernel; 0 for no port */
/* Of a name: the transfer that created it (0: made here). */
uint64_t pm_port_provenance(struct pm_task *task, uint32_t name);
/* 1 for a dead name, 0 for any other and for none; asking is no failure. */
int pm_port_is_dead(struct pm_task *task, uint32_t name);
/* A descriptor that is readable while messages wait on this port or set (eventfd, else a pipe). Closed with the port. */
int64_t pm_port_event_fd(struct pm_task *task, uint32_t name);

/* ---- messages ------------------------------------------------------------------------------------------------------- */

/* A wait: timeout in nanoseconds, negative for ever; `interrupted` is asked when a signal came in. NULL wait: do not wait. */
struct pm_wait { int64_t timeout_ns; int (*interrupted)(void *context); void *context; };

struct pm_right { uint32_t name, disposition; };
struct pm_memory { const void *address; uint64_t size; void (*release)(void *context); void *context; };

/* What to send. Zero fields mean: none, or the default. */
struct pm_send_spec {
    uint32_t dest, dest_disposition;    /* default COPY_SEND, MOVE_SEND_ONCE for a send-once right */
    uint32_t reply, reply_disposition;
    int32_t msgh_id;
    uint32_t option;                    /* MACH_SEND_NOTIFY */
    const void *body; uint64_t size;
    const struct pm_right *rights; uint32_t rights_count;
    uint32_t effective_sid;             /* send under this label; asks specify */
    const struct pm_memory *memory; uint32_t memory_count;      /* each passed by reference */
    uint32_t voucher;
    void (*release)(void *context); void *release_context;      /* non-NULL: body itself goes by reference */
};
/* Inline bytes by COPY_SEND (or MOVE_SEND_ONCE): the short form of pm_send_message(), over the same code. */
int pm_send(struct pm_task *task, uint32_t dest, const void *body, uint64_t size, int32_t msgh_id,
            const struct pm_wait *wait);
/* On any code but 0 nothing has changed, and release functions are not called: the memory stays the caller's. */
int pm_send_message(struct pm_task *task, const struct pm_send_spec *spec, const struct pm_wait *wait);

struct pm_received_right { uint32_t name, disposition; };
struct pm_received {
    int32_t msgh_id;
    uint32_t seqno, size;
    uint32_t local, reply, reply_disposition;
    uint32_t sender_sid, real_sid;      /* at the time of sending: effective and real; 0 for the kernel */
    uint32_t sender_task;               /* pm_task_id, 0 for the kernel */
    uint32_t access;                    /* what the sender may do to the port: the vector of tclass */
    uint32_t tclass, permission;        /* the method that was asked about; mach_port and 0 where there is none */
    uint32_t method;                    /* 1: the sender may call it, or there is no policy; 0: it may not, or nothing was asked */
    uint32_t rights_count, memory_count, denied;        /* denied: rights that were refused to the receiver */
    uint32_t voucher;
    uint64_t transfer, context;
    const void *body;
    const struct pm_received_right *rights;
    const struct pm_memory *memory;     /* address and size; valid until pm_message_free */
    struct pm_identity identity;
    struct pm_message *message;         /* owns body, rights and memory: pm_message_free() */
};
/* Takes the next message of a port or set. 0, or MACH_RCV_BODY_ERROR|MACH_MSG_IPC_SPACE (delivered, some rights refused). */
int pm_receive_message(struct pm_task *task, uint32_t name, uint32_t effective_sid, struct pm_received *received,
                       const struct pm_wait *wait);
/* Only the inline bytes: the size, at most capacity. -MACH_RCV_TOO_LARGE leaves the message queued; rights and memory in
 * such a message are dropped (with their notifications). */
int64_t pm_receive(struct pm_task *task, uint32_t name, void *body, uint64_t capacity, const struct pm_wait *wait);
void pm_message_free(struct pm_message *message);
/* Drops the reply right and the rights that `received` lists, one reference each, guarded ports too (mach_msg_destroy). */
void pm_message_refuse(struct pm_task *task, const struct pm_received *received);
/* Send, then receive the reply on `reply` (a receive right of the task); the two halves are not one operation. */
int pm_call(struct pm_task *task, const struct pm_send_spec *spec, uint32_t reply, struct pm_received *received,
            const struct pm_wait *wait);

/* ---- many at once --------------------------------------------------------------------------------------------------- */

/* Bodies in one buffer, `stride` bytes apart; each has its own size, or stride bytes where sizes is NULL. Of bodies to be sent
 * stride may be 0: they lie one behind the other. One that does not lie in the buffer is KERN_INVALID_ARGUMENT. */
struct pm_bodies {
    const void *data; uint64_t size, stride, count;
    const uint32_t *sizes;
    const int32_t *msgh_ids;            /* NULL: msgh_id for all */
    int32_t msgh_id;
    uint32_t reserved;
};
/* Room for bodies that are received, `stride` bytes each, and what is told of them. */
struct pm_result {
    int32_t code, msgh_id;
    uint32_t size, sender, sender_sid, seqno;           /* sender: pm_task_id, 0 for the kernel */
    uint64_t transfer;
};
struct pm_room { void *data; uint64_t size, stride, count; struct pm_result *results; };
/* Each as pm_send() without a wait; a Mach code for each. Returns how many were sent. Once the queue is full none behind is sent:
 * MACH_SEND_TIMED_OUT. */
int64_t pm_send_many(struct pm_task *task, uint32_t dest, const struct pm_bodies *bodies, int32_t *codes);
/* Fills room, without a wait; returns how many results are final. The one behind those, if there is room for one, says why no more
 * were received. A message that was refused and destroyed takes a place, with MACH_RCV_INVALID_DATA. One that is larger than
 * stride, or brings rights or memory, stays queued: MACH_RCV_TOO_LARGE. */
int64_t pm_receive_many(struct pm_task *task, uint32_t name, const struct pm_room *room);
/* Calls one after the other from `first` on, each as pm_call() with a send-once right to `reply`; the wait is for all. Codes: of
 * the send where that failed; MACH_RCV_PORT_DIED where the right to answer was destroyed; of the receive. Returns count, or the
 * place of a call whose answer may still come to `reply`: who goes on behind it does so with another port. */
int64_t pm_call_many(struct pm_task *task, uint32_t dest, uint32_t reply, const struct pm_bodies *bodies,
                     const struct pm_room *room, uint64_t first, const struct pm_wait *wait);

/* An operation of any task, 64 bytes. */
enum pm_submit { PM_SUBMIT_NOTHING = 0, PM_SUBMIT_SEND = 1, PM_SUBMIT_RECEIVE = 2 };
struct pm_submission {
    uint32_t op;                        /* enum pm_submit */
    uint32_t task;                      /* pm_task_id */
    uint32_t name;                      /* where to; of which port or set */
    int32_t msgh_id;
    uint64_t offset;                    /* where the body is, or goes to */
    uint32_t length;                    /* of the body; what is received takes at most so much, and sets it */
    int32_t result;                     /* set: a Mach code */
    uint32_t reply;                     /* send: a receive right, to which a send-once right goes along; receive: set to the reply right */
    uint32_t right, disposition;        /* a right that it carries, if disposition is not 0; receive: set */
    uint32_t sender, sender_sid, seqno; /* receive: set */
    uint64_t transfer;                  /* set */
};
/* Does them in order, without a wait; returns how many have the result 0. A message that brings more than one right, or memory,
 * stays queued: MACH_RCV_TOO_LARGE. */
int64_t pm_submit(struct pm_kernel *kernel, struct pm_submission *ops, uint64_t count, void *data, uint64_t size);

/* The real wire layout. `buffer` holds the message and takes the one received: max(send_size, rcv_size) bytes of room, plus
 * 68 for a message that is handed back. Bit 32 of option: out-of-line memory must lie in regions of the task. */
#define PM_MSG_CONFINED 0x100000000
int pm_mach_msg(struct pm_task *task, void *buffer, uint64_t option, uint32_t send_size, uint32_t rcv_size,
                uint32_t rcv_name, uint32_t notify, const struct pm_wait *wait);

/* A handler instead of a queue. It runs in the sender's call, outside the lock, with the message received into the owner's
 * space; non-zero means failure: the rights it brought are destroyed. A handler that keeps the message sets received->message
 * to NULL and frees it later; else it is freed on return. NULL removes the handler. */
typedef int (*pm_handler)(void *context, struct pm_received *received);
int pm_port_set_handler(struct pm_task *caller, struct pm_task *task, uint32_t name, pm_handler handler, void *context,
                        uint32_t kind);

/* ---- audit ----------------------------------------------------------------------------------------------------------- */

enum pm_audit_flag { PM_AUDIT_PERMISSIVE = 1, PM_AUDIT_REPORTED = 2, PM_AUDIT_LOSS = 4, PM_AUDIT_ERROR = 8,
                     PM_AUDIT_GUARD = 16, PM_AUDIT_UREFS = 32, PM_AUDIT_CIRCULAR = 64, PM_AUDIT_RECEIVE = 128 };
enum { PM_AUDIT_WEIGHT_SHIFT = 16 };    /* of flags: for how many a record stands that was sampled by chance; 0: for itself */
struct pm_audit_record {                /* 104 bytes, version 1; fields are never renumbered */
    uint64_t sequence;                  /* counts records and losses: a gap is a loss */
    uint64_t time;                      /* ns */
    uint64_t transfer, provenance, port;
    uint32_t real_sid, effective_sid, object_sid, peer_sid;     /* peer: who sent what is received, or taken */
    uint32_t task, name, tclass, operation;                     /* operation: enum pm_operation */
    uint32_t asked, denied, report;
    int32_t msgh_id;
    uint32_t size, epoch, flags;
    int32_t result;                     /* the Mach code; for a loss record, how many were lost */
};
enum pm_operation {
    PM_OP_NONE, PM_OP_SEND, PM_OP_RECEIVE, PM_OP_GIVE, PM_OP_TAKE, PM_OP_METHOD, PM_OP_INSERT_RIGHT, PM_OP_EXTRACT_RIGHT,
    PM_OP_ATTRIBUTES, PM_OP_NOTIFICATION, PM_OP_RELABEL, PM_OP_TASK, PM_OP_NAME, PM_OP_GUARD, PM_OP_LOSS, PM_OP_SERVICE
};
/* Bits of granted and of denied operations of a class that are recorded; tclass 0 sets all classes. */
int pm_audit_select(struct pm_kernel *kernel, uint32_t tclass, uint32_t granted, uint32_t denied);

/* Beside that, rules: what any of them wants is recorded. A pattern has * for any characters and ? for one; a zero byte ends it.
 * It is about a label that matches as a whole or in one of its values ("te/u:r:app*"): of who does it, or of what it is done to;
 * and about a task by its name. A rule is about who matches one of its patterns or is among its numbers, and about everybody
 * where it has none; labels and tasks that come later are no exception. */
enum pm_audit_rule_limit { PM_AUDIT_RULES_MAX = 32, PM_AUDIT_RULE_TEXT_MAX = 65536, PM_AUDIT_RULE_NUMBERS_MAX = 65536 };
struct pm_audit_rule {
    const char *labels; size_t labels_size;             /* patterns */
    const char *tasks; size_t tasks_size;               /* patterns */
    const uint32_t *numbers; size_t numbers_count;      /* of tasks */
    uint32_t operations;                /* bits 1 << enum pm_operation; 0: all */
    uint32_t reserved;
};
/* The number of a new rule, with nothing selected. -KERN_NO_SPACE: there are as many as there may be, what pm_audit_select()
 * selects among them. */
int64_t pm_audit_rule_add(struct pm_kernel *kernel, const struct pm_audit_rule *rule);
/* As pm_audit_select(). KERN_INVALID_NAME: no such rule. */
int pm_audit_rule_select(struct pm_kernel *kernel, uint64_t rule, uint32_t tclass, uint32_t granted, uint32_t denied);
int pm_audit_rule_remove(struct pm_kernel *kernel, uint64_t rule);

/* Sampling: of what is selected, kept for certain are the first record of each stratum, rights that change hands, what is done to
 * tasks and labels, acts of servers, denials, errors and losses; of the rest `budget` records in period_ns on the kernel's clock,
 * or one in `one_in` where budget is 0, by chance from `seed`. Room in the ring is needed as if all were kept. */
struct pm_audit_sampling {
    uint64_t budget, period_ns, seed;
    uint32_t one_in, strata;            /* at most 65535; rows of the table, at most 2^20 */
    uint32_t by_message, reserved;      /* non-zero: messages of different msgh_id are different strata */
};
/* What was counted is forgotten. NULL: everything is kept again. */
int pm_audit_sample(struct pm_kernel *kernel, const struct pm_audit_sampling *sampling);
/* One row for each stratum. SIDs are those of the time. Overflow: it takes all that found no row. */
enum pm_stratum_flag { PM_STRATUM_CERTAIN = 1, PM_STRATUM_OVERFLOW = 2 };
struct pm_audit_stratum {
    uint64_t seen, kept, bytes;         /* records; bytes of all that were seen */
    uint64_t first;                     /* ns */
    uint32_t ssid, tsid, peer_sid, tclass, asked, operation;
    int32_t msgh_id;
    uint32_t flags;
};
/* Copies rows, at most capacity; returns how many there are, 0 where nothing is sampled. */
int64_t pm_audit_strata(struct pm_kernel *kernel, struct pm_audit_stratum *rows, size_t capacity);

/* everything: denials are recorded whatever dontaudit says. errors: calls that fail for other reasons than access. synchronous:
 * no operation that was recorded returns before the drainer was called. full: enum pm_audit_full. */
int pm_audit_options(struct pm_kernel *kernel, int everything, int errors, int full, int synchronous);
/* On: every operation that would be recorded fails with PM_AUDIT_FULL and is not done. What is refused is still refused as it is
 * without, and that is recorded. */
int pm_audit_halt(struct pm_kernel *kernel, int on);
/* Moves up to capacity records out of the ring; returns how many. Labels of records handed out stay known until the next call. */
int64_t pm_audit_drain(struct pm_kernel *kernel, struct pm_audit_record *records, size_t capacity);
/* Waits until so many records are in the ring (or it is full), until woken, or until the time is over; returns how many there
 * are. -MACH_RCV_INTERRUPTED: by a signal; -KERN_TERMINATED: the kernel was destroyed meanwhile. */
int64_t pm_audit_wait(struct pm_kernel *kernel, uint32_t records, const struct pm_wait *wait);
/* Ends the waits there are; where there is none, the next one does not wait. */
int pm_audit_wake(struct pm_kernel *kernel);
/* Called without any lock when the ring is full and `full` is PM_AUDIT_BLOCK, and it should drain; and after each recorded
 * operation where records are synchronous. Non-zero: failed; an operation that found no room is then not done, nor is one that the
 * drainer itself makes and that finds none. */
typedef int (*pm_drainer)(void *context);
int pm_audit_set_drainer(struct pm_kernel *kernel, pm_drainer drainer, void *context);
/* Appends a record made by a service of the embedder (the name server). sequence, time and epoch are filled in. PM_AUDIT_FULL:
 * it is lost, or, while the trail is halted, not written. */
int pm_audit_write(struct pm_kernel *kernel, const struct pm_audit_record *record);

/* ---- watching ------------------------------------------------------------------------------------------------------- */

/*
 * A watch is told of operations as they end, through a ring that loses what finds no room and counts it. It changes nothing: not
 * what is audited, nor whether an operation is done. Its records are audit records whose `sequence` counts what this watch wanted,
 * kept or lost; their time is exact wherever time is real. Watches go with their kernel.
 */
enum pm_watch_limit { PM_WATCHES_MAX = 16 };
enum pm_watch_kind { PM_WATCH_TASKS = 0, PM_WATCH_LABELS = 1, PM_WATCH_KINDS = 2 };
/* The number of a new watch, with nothing selected; records: room of its ring, rounded up to a power of two, at most 2^20.
 * -KERN_NO_SPACE: PM_WATCHES_MAX are open. */
int64_t pm_watch_open(struct pm_kernel *kernel, uint32_t records);
/* Bits of granted and of denied operations of a class that are wanted, whatever dontaudit says. What a permissive mode let pass
 * is denied here, what a permissive type or module did is both, where the policy has it told. tclass 0 sets all classes. A
 * receive that is granted is use_recv alone. KERN_INVALID_NAME: no such watch; so all below. */
int pm_watch_select(struct pm_kernel *kernel, uint64_t watch, uint32_t tclass, uint32_t granted, uint32_t denied);
/* Non-zero: also calls that fail for other reasons than access, and misuse of names and guards. */
int pm_watch_errors(struct pm_kernel *kernel, uint64_t watch, int errors);
/* Tasks, or labels by SID, that are not wanted: what such a task does; what bearers of such labels do to such labels. Who else
 * there is, or comes, stays wanted; so may these after a while, when others take their place in a table: what is drained has to
 * be looked at. */
int pm_watch_leave_out(struct pm_kernel *kernel, uint64_t watch, uint32_t kind, const uint32_t *numbers, size_t count);
/* Moves up to capacity records out; returns how many. receivers: for each, the task that has the receive right of its port, 0
 * none. *lost: how many found no room so far. Labels of records handed out stay known until the next call. */
int64_t pm_watch_drain(struct pm_kernel *kernel, uint64_t watch, struct pm_audit_record *records, uint32_t *receivers,
                       size_t capacity, uint64_t *lost);
int pm_watch_close(struct pm_kernel *kernel, uint64_t watch);

/* ---- ipctrace --------------------------------------------------------------------------------------------------------- */

enum pm_event {                         /* one for each use, give and take of a right */
    PM_EVENT_SEND = 1, PM_EVENT_RECV = 2, PM_EVENT_MAKE_SEND = 3, PM_EVENT_MAKE_SEND_ONCE = 4, PM_EVENT_COPY_SEND = 5,
    PM_EVENT_MOVE_SEND = 6, PM_EVENT_MOVE_SEND_ONCE = 7, PM_EVENT_MOVE_RECV = 8, PM_EVENT_HOLD_SEND = 9,
    PM_EVENT_HOLD_SEND_ONCE = 10, PM_EVENT_HOLD_RECV = 11, PM_EVENTS = 12
};
struct pm_trace_record { uint32_t event, task, owner, kind; int32_t number; uint32_t reserved; uint64_t count, order; };
int pm_trace_start(struct pm_kernel *kernel);
int pm_trace_stop(struct pm_kernel *kernel);
int pm_trace_reset(struct pm_kernel *kernel);
/* Records in order of first occurrence, from `first` on; returns how many there are in all. */
int64_t pm_trace_read(struct pm_kernel *kernel, uint64_t first, struct pm_trace_record *records, size_t capacity);
/* Number of a name of tasks and port owners in trace records, made if new. */
int64_t pm_trace_identity(struct pm_kernel *kernel, const char *text, size_t length);
int64_t pm_trace_text(struct pm_kernel *kernel, uint32_t identity, char *text, size_t size);
/* cdef-end */

/* Permissions and classes, from hooks.def: PM_MACH_PORT__send, PM_CLASS_MACH_PORT ... */
#define PM_CLASS(CLASS, number, name) PM_CLASS_##CLASS = number,
enum pm_class {
#include "sec/hooks.def"
    PM_CLASSES_FIXED
};
#define PM_HOOK(CLASS, bit, permission, object, operation, sentence) PM_##CLASS##__##permission = 1u << bit,
enum pm_permission {
#include "sec/hooks.def"
    PM_PERMISSION_NONE = 0
};

#pragma GCC visibility pop

#define pm_kernel_create(...) pm_kernel_create_as(PM_ABI_VERSION, __VA_ARGS__)

/* For who did not create the kernel it is given: 0, or PM_ABI_MISMATCH. */
static inline int pm_abi_check(void) { return pm_abi_version() == PM_ABI_VERSION ? 0 : PM_ABI_MISMATCH; }

#ifdef __cplusplus
#pragma GCC diagnostic pop
}
#endif
#endif
