/* SPDX-License-Identifier: BSD-2-Clause */
/* What bench_core.c offers to count.c and, through ctypes, to cases/core.py, whose `Options` mirrors the struct. */
#ifndef BENCH_H
#define BENCH_H
#include <stdint.h>

enum bench_audit { AUDIT_OFF, AUDIT_DRAINED, AUDIT_DRAIN_NOT_TIMED, AUDIT_DROPPED };

enum bench_watch { WATCH_NONE, WATCH_LEFT_OUT, WATCH_READ, WATCH_LOST };

/* What is recorded beside: a rule about a label that nobody bears, or a task that nobody is. */
enum bench_select { SELECT_NOTHING, SELECT_LABEL, SELECT_TASK };

struct bench_options {
    uint32_t policy; /* a decider that allows everything, and labels */
    uint32_t ports, port_labels, tasks, task_labels;
    uint32_t audit; /* enum bench_audit */
    uint32_t trace;
    uint32_t no_fast_path;
    uint32_t whole; /* receive messages with all that is known of them, and free them */
    uint32_t watch; /* enum bench_watch */
    uint32_t select; /* enum bench_select */
    uint32_t sample; /* records in a second that are kept of what is audited; 0: all */
};

struct bench;

uint32_t bench_options_size(void); /* for whoever mirrors the struct */
struct bench *bench_create(const struct bench_options *options);
const char *bench_failure(const struct bench *bench);
int64_t bench_run(struct bench *bench, uint32_t pairs);
void bench_counts(const struct bench *bench, int64_t counts[3]);
int64_t floor_run(uint32_t pairs, int sized);
#endif
