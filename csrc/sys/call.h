/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The frame of every operation: takes the lock, makes attempts until one has all its answers, closes the audit bracket, works
 * off the consequences. An attempt is a function that either returns a code with nothing changed, or acts.
 */
#ifndef PM_CALL_H
#define PM_CALL_H

#include "sys/kernel.h"

/* Outcomes of an attempt that are no Mach codes; call_run handles them. */
enum { CALL_MISS = 0x7fff0001 };

struct call {
    struct pm_kernel *kernel;
    struct pm_task *caller, *task;
    struct mac_op mac;
    struct mac_site site, begun;        /* what is recorded of it: now, and as it was when the call began */
    struct after after;
    bool done;                          /* done in spite of a code that is not 0: records of grants are kept */
    uint64_t transfer;
    uint32_t drains;
    int refusal;
};

typedef int (*call_attempt)(struct call *call);

static inline struct ipc *call_ipc(const struct call *call) { return &call->kernel->ipc; }
static inline struct space *call_space(const struct call *call) { return &call->task->space; }
static inline bool name_valid(uint32_t name) { return name != MACH_PORT_NULL && name != MACH_PORT_DEAD; }

/* KERN_INVALID_TASK, PM_FORKED, or 0. */
int call_init(struct call *call, struct pm_task *caller, struct pm_task *task, uint32_t operation, uint32_t name);
/* The same for who is no task: caller and task are NULL. The kernel must be kept from going. */
int call_init_from_outside(struct call *call, struct pm_kernel *kernel, uint32_t operation, uint32_t name);
int call_run(struct call *call, call_attempt attempt);
/* A call whose arguments cannot be right whatever the state: fails with code, and is recorded as an error. */
int call_refuse(struct call *call, int code);
/* The same where no call has begun. */
int call_fail(struct pm_task *caller, struct pm_task *task, uint32_t operation, uint32_t name, int with);
/* Takes the lock and opens the audit bracket. */
void call_begin(struct call *call);
/* Begins an attempt: what the one before it noted is forgotten, but for the answers. */
void call_restart(struct call *call);
/* Between attempts, with the lock, which it drops for a while: true where the attempt is to be made again. */
bool call_again(struct call *call, int code);
/* Ends the call, with the lock, which it drops. Returns code. */
int call_end(struct call *call, int code);

/* Where records are synchronous: noted with the lock, then, without it, the drainer has its turn. Not for the records of what is
 * done by who drains. */
struct write_through { pm_drainer drainer; void *context; };
void write_through_note(struct write_through *through, const struct audit *audit, bool recorded);
void write_through(const struct write_through *through);

/* The code of a verdict: 0, CALL_MISS, or this one of a refusal. */
static inline int verdict_code(enum mac_verdict verdict, int refusal) {
    return verdict == MAC_ALLOWED ? 0 : verdict == MAC_MISS ? CALL_MISS : refusal;
}

/* For attempts: both tasks live, and the caller may do this to the task's space. */
int call_enter(struct call *call, uint32_t permission);
/* For attempts: a check whose refusal has this code; CALL_MISS. */
int call_check(struct call *call, uint32_t tsid, uint32_t tclass, uint32_t permissions, int refusal);
int call_check_port(struct call *call, const struct port *port, uint32_t permissions, int refusal);
/* What gives an object of a class another label, and the bits of its permissions for that. */
struct relabelling { uint32_t tclass, from, to; };
extern const struct relabelling port_relabelling, task_relabelling;
/* For attempts: something gets a new label: this permission on it, and what modules say of the change beside. Their code, or
 * KERN_NO_ACCESS; CALL_MISS. */
int call_check_change(struct call *call, uint32_t tclass, uint32_t permission, uint32_t old_sid, uint32_t new_sid);
/* For attempts: the object's label may change so: relabelfrom on the old one, and call_check_change of relabelto. */
int call_check_relabel(struct call *call, const struct relabelling *kind, uint32_t old_sid, uint32_t new_sid);
/* For attempts: the point of no return is near; 0, PM_AUDIT_FULL, or KERN_RESOURCE_SHORTAGE. */
int call_ready(struct call *call);
/* A guard violation: recorded and remembered. Returns code. */
int call_violation(struct call *call, struct space *space, uint32_t name, uint32_t flavor, uint64_t payload, int code);

/* Which port it is about. */
void site_port(struct mac_site *site, const struct port *port);
/* What is done to a name is recorded as that. */
void site_of(struct mac_site *site, uint32_t operation, const struct entry *entry, uint32_t name);

/* The entry of a name that holds the receive right, or NULL and in *code INVALID_NAME or INVALID_RIGHT. */
struct entry *call_receive_entry(struct call *call, uint32_t name, int *code);

#endif
