/* SPDX-License-Identifier: BSD-2-Clause */
/* A decider, a handler and a drainer in C, for a kernel that was made in Python. */
#include <pympi.h>
#include <string.h>

struct counts { unsigned decided, handled, drained, records; int answer; };

/* Allows everything but `send` from anybody to the label it is told of. */
int count_and_decide(void *context, struct pm_query *queries, size_t count, uint32_t epoch)
{
    struct counts *counts = context;

    (void)epoch;
    counts->decided += (unsigned)count;
    for (size_t i = 0; i < count; i++)
        queries[i].allowed = (int)queries[i].tsid == counts->answer ? ~(uint32_t)PM_MACH_PORT__send : ~0u;
    return 0;
}

int count_and_handle(void *context, struct pm_received *received)
{
    struct counts *counts = context;

    counts->handled += received->size == 5 && memcmp(received->body, "hello", 5) == 0;
    return counts->answer;
}

struct drained_from { struct pm_kernel *kernel; struct counts *counts; };

int count_and_drain(void *context)
{
    struct drained_from *from = context;
    struct pm_audit_record records[64];
    int64_t count = pm_audit_drain(from->kernel, records, 64);

    from->counts->drained++;
    from->counts->records += count > 0 ? (unsigned)count : 0;
    return count < 0;
}

/* A loop that is C's from beginning to end. How many went through. */
int64_t exchange(struct pm_task *sender, uint32_t right, struct pm_task *receiver, uint32_t port, int64_t times)
{
    char body[64] = "x";
    int64_t done = 0;

    for (int64_t i = 0; i < times; i++)
        done += pm_send(sender, right, body, sizeof body, 1, NULL) == 0 && pm_receive(receiver, port, body, 64, NULL) == 64;
    return done;
}
