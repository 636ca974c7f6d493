/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sampling by meaning: of what is selected, what is rare is recorded always, and what repeats itself is recorded to a budget.
 *
 * Records of one meaning are a stratum: who (label), on what (label), from whom (label), which permissions of which class. A table
 * counts for each how many there were and how many were kept. Kept for certain are the first of each, rights that change hands,
 * acts of servers, and whatever went wrong. Of the rest one in so many is kept, by chance, and bears in its flags for how many it
 * stands; so totals can be estimated from what was kept, by the inverse of the probability (D. G. Horvitz, D. J. Thompson, 1952),
 * though the rate follows the load: it depends on nothing but what was before.
 */
#ifndef PM_SAMPLE_H
#define PM_SAMPLE_H

#include "base/pool.h"
#include "pympi.h"

#define SAMPLE_STRATA_MAX (1u << 20)
#define SAMPLE_WEIGHT_MAX 0xffffu
#define SAMPLE_LOOK_EVERY 16            /* that are seen, at the clock */
#define SAMPLE_GOLDEN 0x9e3779b97f4a7c15u
#define SAMPLE_SILVER 0xd6e8feb86659fd93u
#define SAMPLE_BRONZE 0xa0761d6478bd642fu

/* What is about to be recorded, as far as it says to which stratum it belongs. */
struct sample_event { uint32_t ssid, tsid, peer_sid, tclass, asked, operation, size; int32_t msgh_id; bool certain; };
struct sample_clock { uint64_t (*now)(void *context); void *context; };

struct sample {
    struct heap *heap;
    struct sample_clock clock;
    struct pm_audit_stratum *rows;      /* NULL: off. The first two take what finds no room: by chance, for certain */
    uint32_t *index;                    /* twice as many places as rows; row + 1, 0 empty */
    uint32_t room, used;
    bool by_message;
    uint32_t one_in;                    /* is kept */
    uint64_t salt, state;               /* of the index, of chance */
    uint64_t budget, period;            /* records in so many nanoseconds; 0: one_in stays as it is */
    uint64_t began, seen, kept, enough; /* this period; who kept enough keeps fewer */
    uint32_t looked;                    /* of what was seen, at the last look at the clock */
};

/* NULL: off. What was counted is forgotten. False where memory is short: then nothing has changed. */
bool sample_start(struct sample *sample, struct heap *heap, const struct pm_audit_sampling *wanted,
                  struct sample_clock clock) pm_must_check;
void sample_stop(struct sample *sample);
static inline bool sample_on(const struct sample *sample) { return sample->rows != NULL; }
struct sample_event sample_event_of(const struct pm_audit_record *record);
/* Numbers of labels mean others from here on: the rows there are stay as they are. */
void sample_forget_labels(struct sample *sample);
/* Copies rows, at most capacity; returns how many there are. */
size_t sample_read(const struct sample *sample, struct pm_audit_stratum *rows, size_t capacity);

/* ---- what is done for each record ---- */

/* The row of what is met for the first time; place: its own in the index. */
struct pm_audit_stratum *sample_meet(struct sample *sample, const struct sample_event *event, int32_t msgh_id, uint32_t *place);
/* Looks at the clock: where a period is over, the rate is that which would have kept the budget in it. */
void sample_follow(struct sample *sample);
/* A burst that the rate was not made for halves it, again and again, each time for a quarter of the budget. */
void sample_halve(struct sample *sample);

static inline bool stratum_is_of(const struct pm_audit_stratum *row, const struct sample_event *event, int32_t msgh_id) {
    return row->ssid == event->ssid && row->tsid == event->tsid && row->peer_sid == event->peer_sid &&
           row->tclass == event->tclass && row->asked == event->asked && row->operation == event->operation &&
           row->msgh_id == msgh_id && !(row->flags & PM_STRATUM_CERTAIN) == !event->certain;
}

/* Multiplications that do not wait for each other, and one that who sends messages of chosen numbers cannot foresee. */
static inline uint32_t stratum_hash(const struct sample *sample, const struct sample_event *event, int32_t msgh_id) {
    uint64_t pair = ((uint64_t)event->ssid << 32 | event->tsid) * SAMPLE_GOLDEN;
    uint64_t act = ((uint64_t)event->asked << 32 | (event->tclass << 6 ^ event->operation << 1 ^ event->certain)) * SAMPLE_SILVER;
    uint64_t all = pair ^ (pair >> 32) ^ act ^ (act >> 29) ^ ((uint64_t)event->peer_sid << 32 | (uint32_t)msgh_id) * SAMPLE_BRONZE;
    return (uint32_t)(((all ^ sample->salt) * SAMPLE_GOLDEN) >> 32);
}

static inline uint32_t *stratum_place(const struct sample *sample, const struct sample_event *event, int32_t msgh_id) {
    for (uint32_t at = stratum_hash(sample, event, msgh_id);; at++) {
        uint32_t *place = &sample->index[at & (2 * sample->room - 1)];
        if (!*place || stratum_is_of(&sample->rows[*place - 1], event, msgh_id)) return place;
    }
}

/* The upper bits of a linear congruence (D. E. Knuth's constants of MMIX), against the rate. */
static inline bool chance_keeps(struct sample *sample) {
    sample->state = sample->state * 6364136223846793005u + 1442695040888963407u;
    return ((sample->state >> 32) * sample->one_in) >> 32 == 0;
}

static inline bool kept_by_chance(struct sample *sample) {
    if (sample->budget && sample->looked++ % SAMPLE_LOOK_EVERY == 0) sample_follow(sample);
    sample->seen++;
    return chance_keeps(sample);
}

/* Counts a record; whether it is to be kept, and then for how many it stands, as bits of its flags. What is kept may change the
 * rate for what comes, never for itself. */
static inline bool sample_admits(struct sample *sample, const struct sample_event *event, uint32_t *weight) {
    int32_t msgh_id = sample->by_message ? event->msgh_id : 0;
    uint32_t *place = stratum_place(sample, event, msgh_id);
    struct pm_audit_stratum *row = pm_likely(*place) ? &sample->rows[*place - 1] : sample_meet(sample, event, msgh_id, place);
    bool certain = row->seen++ == 0 || event->certain;
    row->bytes += event->size;
    *weight = 0;
    if (!certain && !kept_by_chance(sample)) return false;
    row->kept++;
    if (certain) return true;
    *weight = sample->one_in << PM_AUDIT_WEIGHT_SHIFT;
    if (++sample->kept >= sample->enough && sample->budget) sample_halve(sample);
    return true;
}

#endif
