/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loops over the core in C, for `pympi bench` and the benchmarks in a checkout: the core that Python has loaded is given by the
 * addresses of its functions, so both sides of a case run the same one. Each returns how many of its calls went wrong.
 */
#include <stdint.h>
#include <string.h>

#define LARGEST 65536

typedef int (*send_call)(void *task, uint32_t name, const void *body, uint64_t size, int32_t msgh_id, const void *wait);
typedef int64_t (*receive_call)(void *task, uint32_t name, void *body, uint64_t capacity, const void *wait);
typedef int64_t (*check_call)(void *kernel, uint32_t ssid, uint32_t tsid, uint32_t tclass, uint32_t permissions);

/* Who sends what to whom; size is at most LARGEST. */
struct way { send_call send; receive_call receive; void *sender, *receiver; uint32_t to, name, size; int32_t msgh_id; };
struct operation { void *task; uint64_t offset; uint32_t name, size, receives, reserved; };

uint64_t loop_pairs(const struct way *way, uint64_t pairs) {
    static _Thread_local _Alignas(64) char out[LARGEST], in[LARGEST];    /* threads that write to one are slower for it */
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < pairs; i++) {
        wrong += way->send(way->sender, way->to, out, way->size, way->msgh_id, NULL) != 0;
        wrong += way->receive(way->receiver, way->name, in, way->size, NULL) != way->size;
    }
    return wrong;
}

/* As a batch goes: `count` messages of `out`, one behind the other, are sent; then they are received into `in`. */
uint64_t loop_rows(const struct way *way, const char *out, char *in, uint64_t count, uint64_t times) {
    uint64_t wrong = 0;
    while (times--) {
        for (uint64_t i = 0; i < count; i++)
            wrong += way->send(way->sender, way->to, out + i * way->size, way->size, way->msgh_id, NULL) != 0;
        for (uint64_t i = 0; i < count; i++)
            wrong += way->receive(way->receiver, way->name, in + i * way->size, way->size, NULL) != way->size;
    }
    return wrong;
}

/* What pm_submit() is told, done one at a time. */
uint64_t loop_operations(const struct way *way, const struct operation *operations, uint64_t count, char *data) {
    uint64_t wrong = 0;
    for (const struct operation *each = operations; each < operations + count; each++) {
        if (each->receives)
            wrong += way->receive(each->task, each->name, data + each->offset, each->size, NULL) != each->size;
        else
            wrong += way->send(each->task, each->name, data + each->offset, each->size, 0, NULL) != 0;
    }
    return wrong;
}

uint64_t loop_checks(check_call check, void *kernel, const uint32_t *ssids, const uint32_t *tsids, uint32_t tclass,
                     uint32_t permissions, uint64_t count) {
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < count; i++) wrong += check(kernel, ssids[i], tsids[i], tclass, permissions) != 1;
    return wrong;
}

/*
 * What a send touches at the least, without any of what it does: the entry of a name, which tells the port, the port, and a buffer,
 * a line of 64 bytes each, in which something is counted; the body is copied. `order` says which entries. locked: an atomic
 * operation stands before each, as a lock does.
 */
uint64_t loop_lines(uint64_t (*entries)[8], uint64_t (*ports)[8], char (*buffers)[64], const uint32_t *order, const char *body,
                    uint64_t count, int locked) {
    uint32_t lock = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t *entry = entries[order[i]];
        if (locked) __atomic_exchange_n(&lock, 1, __ATOMIC_SEQ_CST);
        entry[0]++;
        ports[entry[1]][0]++;
        memcpy(buffers[i], body, 64);
    }
    return 0;
}

/* What needs a core and nothing else: no memory, no lock. Returns 0. */
uint64_t loop_computing(uint64_t count) {
    volatile uint64_t result;
    uint64_t state = count;
    for (uint64_t i = 0; i < count; i++) state = state * 6364136223846793005u + 1442695040888963407u;
    result = state;
    return result - state;
}

/* Looks at lines of which each tells the next; *at is where it stands. */
uint64_t loop_chase(const uint64_t (*lines)[8], uint64_t *at, uint64_t count) {
    uint64_t place = *at;
    while (count--) place = lines[place][0];
    *at = place;
    return 0;
}
