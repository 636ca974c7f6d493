/* SPDX-License-Identifier: BSD-2-Clause */
/* The wire: what is malformed is refused and changes nothing; what is well formed arrives, or comes back. */
#include "pympi.c"

#include "scene.h"

#include <signal.h>

static struct pm_kernel *kernel;
static struct pm_task *task;
static uint32_t port, other;

static void open_world(void) {
    assert(pm_kernel_create(NULL, &kernel) == 0);
    task = new_task(kernel, "task", sid_named(kernel, "te/a"));
    port = new_port(task);
    other = new_port(task);
}

static void close_world(void) {
    expect_sound(kernel);
    pm_task_release(task);
    pm_kernel_destroy(kernel);
}

struct message { struct wire_header header; uint32_t count; uint8_t memory[16], right[16]; };
_Static_assert(sizeof(struct message) == 60, "no padding before descriptors");
union room { struct message message; uint8_t bytes[sizeof(struct message) + 128]; };

static union room room;

static void put_memory(struct wire_ool ool) { memcpy(room.message.memory, &ool, sizeof ool); }
static void put_right(struct wire_guarded guarded) { memcpy(room.message.right, &guarded, sizeof guarded); }

static struct wire_ool memory_of(void) {
    struct wire_ool ool;
    memcpy(&ool, room.message.memory, sizeof ool);
    return ool;
}

static struct wire_guarded right_of(const union room *of) {
    struct wire_guarded guarded;
    memcpy(&guarded, of->message.right, sizeof guarded);
    return guarded;
}

/* A message to `port` with memory and the receive right of `other`; to be spoilt by the tests. */
static struct message *good_message(void) {
    memset(&room, 0, sizeof room);
    room.message = (struct message){.header = {.bits = BITS_COMPLEX | MACH_MSG_TYPE_MAKE_SEND, .remote = port, .id = 1}, .count = 2};
    put_memory((struct wire_ool){.type = MACH_MSG_OOL_DESCRIPTOR, .copy = 1});
    put_right((struct wire_guarded){.name = other, .disposition = MACH_MSG_TYPE_MOVE_RECEIVE,
                                    .type = MACH_MSG_GUARDED_PORT_DESCRIPTOR});
    return &room.message;
}

static int send_size(uint32_t size) { return pm_mach_msg(task, &room, MACH_SEND_MSG, size, 0, 0, 0, NULL); }
static int send_whole(void) { return send_size(sizeof(struct message)); }
static int receive_with(uint64_t option, uint32_t size) {
    return pm_mach_msg(task, &room, MACH_RCV_MSG | option, 0, size, port, 0, NULL);
}

static void expect_refused(int code, int wanted) {
    assert(code == wanted);
    assert(pm_port_type(task, task, other) == MACH_PORT_TYPE_RECEIVE);
    expect_sound(kernel);
    assert(receive_with(0, sizeof room) == MACH_RCV_TIMED_OUT);
}

/* ---- malformed ---- */

static void test_sizes_that_cannot_be(void) {
    static const uint32_t sizes[] = {0, 4, 23, 25, 27, 30, 40, 55};
    for (size_t i = 0; i < array_count(sizes); i++) {
        good_message();
        expect_refused(send_size(sizes[i]), MACH_SEND_MSG_TOO_SMALL);
    }
    good_message();
    expect_refused(send_size(PM_MESSAGE_MAX + 4), MACH_SEND_TOO_LARGE);
}

static void test_counts_of_descriptors_that_cannot_be(void) {
    static const uint32_t counts[] = {3, 4, 1000, 0x15555556, 0x80000000, UINT32_MAX};
    for (size_t i = 0; i < array_count(counts); i++) {
        good_message()->count = counts[i];
        expect_refused(send_whole(), MACH_SEND_MSG_TOO_SMALL);
    }
}

static void test_types_and_dispositions_that_are_none(void) {
    for (int type = 5; type < 256; type++) {
        good_message()->right[TYPE_OFFSET] = (uint8_t)type;
        expect_refused(send_whole(), MACH_SEND_INVALID_TYPE);
    }
    for (int disposition = 0; disposition < 256; disposition++) {
        if (disposition == MACH_MSG_TYPE_MOVE_RECEIVE) continue;
        good_message()->right[DISPOSITION_OFFSET] = (uint8_t)disposition;
        expect_refused(send_whole(), MACH_SEND_INVALID_TYPE);
    }
}

static void test_headers_that_cannot_be(void) {
    static const struct { uint32_t bits, local; int code; } cases[] = {
        {BITS_COMPLEX, 0, MACH_SEND_INVALID_HEADER},
        {BITS_COMPLEX | 16, 0, MACH_SEND_INVALID_HEADER},
        {BITS_COMPLEX | 22, 0, MACH_SEND_INVALID_HEADER},
        {BITS_COMPLEX | 20 | 16 << 8, 3, MACH_SEND_INVALID_HEADER},
        {BITS_COMPLEX | 20, 3, MACH_SEND_INVALID_HEADER},
        {BITS_COMPLEX | 20 | 0x40000000, 0, MACH_SEND_INVALID_HEADER},
        {BITS_COMPLEX | 20 | 20 << 8, 0x77777703, MACH_SEND_INVALID_REPLY},
        {BITS_COMPLEX | 19, 0, MACH_SEND_INVALID_DEST},
    };
    for (size_t i = 0; i < array_count(cases); i++) {
        good_message()->header.bits = cases[i].bits;
        room.message.header.local = cases[i].local;
        expect_refused(send_whole(), cases[i].code);
    }
}

static void test_memory_that_is_nowhere(void) {
    good_message();
    put_memory((struct wire_ool){.size = 8, .type = MACH_MSG_OOL_DESCRIPTOR});
    expect_refused(send_whole(), MACH_SEND_INVALID_MEMORY);
    good_message();
    put_memory((struct wire_ool){.address = 8, .size = 1u << 31, .type = MACH_MSG_OOL_PORTS_DESCRIPTOR,
                                 .disposition = MACH_MSG_TYPE_COPY_SEND});
    expect_refused(send_whole(), MACH_SEND_TOO_LARGE);
    good_message();
    put_memory((struct wire_ool){.address = 4096, .size = 8, .type = MACH_MSG_OOL_DESCRIPTOR});
    expect_refused(pm_mach_msg(task, &room, MACH_SEND_MSG | PM_MSG_CONFINED, sizeof(struct message), 0, 0, 0, NULL),
                   MACH_SEND_INVALID_MEMORY);
}

static void test_trailers_that_are_none(void) {
    static const uint32_t elements[] = {5, 6, 9, 15, 1u << 4};
    for (size_t i = 0; i < array_count(elements); i++)
        assert(receive_with((uint64_t)elements[i] << 24, sizeof room) == MACH_RCV_INVALID_TRAILER);
}

/* ---- well formed ---- */

static void test_what_was_sent_arrives(void) {
    int64_t region = pm_vm_allocate(task, 8);
    assert(region > 0 && pm_vm_write(task, (uint64_t)region, "12345678", 8) == 0);
    good_message();
    put_memory((struct wire_ool){.address = (uint64_t)region, .size = 8, .deallocate = 1, .type = MACH_MSG_OOL_DESCRIPTOR});
    put_right((struct wire_guarded){.name = other, .disposition = MACH_MSG_TYPE_MOVE_RECEIVE, .context = 77,
                                    .type = MACH_MSG_GUARDED_PORT_DESCRIPTOR});
    assert(pm_mach_msg(task, &room, MACH_SEND_MSG | PM_MSG_CONFINED, sizeof(struct message), 0, 0, 0, NULL) == 0);
    assert(receive_with(MACH_RCV_GUARDED_DESC, sizeof room) == 0);
    const struct wire_guarded got = right_of(&room);
    assert(room.message.header.size == sizeof(struct message) && room.message.count == 2 && room.message.header.local == port);
    assert(got.context == 77 && got.disposition == MACH_MSG_TYPE_PORT_RECEIVE);
    char data[8];
    uint64_t there = memory_of().address;
    assert(pm_vm_read(task, there, data, 8) == 0 && !memcmp(data, "12345678", 8));
    assert(pm_vm_deallocate(task, (uint64_t)region, 8) == KERN_INVALID_ARGUMENT && pm_vm_deallocate(task, there, 8) == 0);
    other = got.name;
    assert(pm_port_unguard(task, task, other, 77) == 0);
}

static void test_room_that_is_too_small(void) {
    good_message()->header.bits = MACH_MSG_TYPE_MAKE_SEND;
    assert(send_size(24) == 0 && receive_with(MACH_RCV_LARGE, 31) == MACH_RCV_TOO_LARGE);
    assert(room.message.header.size == 24);
    assert(receive_with(MACH_RCV_LARGE, 32) == 0);
    good_message()->header.bits = MACH_MSG_TYPE_MAKE_SEND;
    assert(send_size(24) == 0 && receive_with(0, 31) == MACH_RCV_TOO_LARGE && receive_with(0, 32) == MACH_RCV_TIMED_OUT);
}

/* ---- a message that finds no room ---- */

static int is_interrupted(void *flag) { return __atomic_load_n((int *)flag, __ATOMIC_SEQ_CST); }
static void no_action(int signal_number) { (void)signal_number; }

static int interrupted;
static void *send_until_interrupted(void *buffer) {
    const struct pm_wait wait = {-1, is_interrupted, &interrupted};
    int code = pm_mach_msg(task, buffer, MACH_SEND_MSG, sizeof(struct message), 0, 0, 0, &wait);
    return (void *)(intptr_t)code;
}

static bool somebody_sleeps(void) {
    kernel_lock(kernel);
    bool sleeps = !list_empty(&task->space.waiters);
    kernel_unlock(kernel);
    return sleeps;
}

/* Signals until the sleeper noticed: one may come before it sleeps. */
static int interrupt(pthread_t thread) {
    const struct sigaction action = {.sa_handler = no_action};
    void *code;
    assert(sigaction(SIGUSR1, &action, NULL) == 0);
    __atomic_store_n(&interrupted, 1, __ATOMIC_SEQ_CST);
    while (somebody_sleeps()) {
        pthread_kill(thread, SIGUSR1);
        sched_yield();
    }
    assert(pthread_join(thread, &code) == 0);
    return (int)(intptr_t)code;
}

static void fill_queue(void) {
    for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT; i++) {
        good_message()->header.bits = MACH_MSG_TYPE_MAKE_SEND;
        assert(send_size(24) == 0);
    }
}

static void empty_queue(void) {
    for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT; i++) assert(receive_with(0, sizeof room) == 0);
}

static void test_its_rights_come_back(void) {
    fill_queue();
    good_message();
    const struct pm_wait brief = {.timeout_ns = 1000000};
    assert(pm_mach_msg(task, &room, MACH_SEND_MSG | MACH_SEND_TIMEOUT, sizeof(struct message), 0, 0, 0, &brief) ==
           MACH_SEND_TIMED_OUT);
    other = right_of(&room).name;
    assert(pm_port_type(task, task, other) == MACH_PORT_TYPE_RECEIVE);
    assert((room.message.header.bits & 0x1f) == MACH_MSG_TYPE_PORT_SEND && room.message.header.remote == port);
    empty_queue();
}

/* While it slept the table of names moved and its right went away: it wrote to where the table had been. */
static void test_the_names_may_change_while_it_waits(void) {
    union room sent;
    pthread_t thread;
    uint32_t right = new_port(task);
    assert(pm_port_insert_right(task, task, right, right, MACH_MSG_TYPE_MAKE_SEND) == 0);
    assert(pm_port_set_attributes(task, task, right, MACH_PORT_LIMITS_INFO, &(uint32_t){0}, 1) == 0);
    good_message()->header.remote = right;
    sent = room;
    assert(pthread_create(&thread, NULL, send_until_interrupted, &sent) == 0);
    while (!somebody_sleeps()) sched_yield();
    assert(pm_port_mod_refs(task, task, right, MACH_PORT_RIGHT_SEND, -1) == 0);
    int64_t moved = pm_port_extract_right(task, task, other, MACH_MSG_TYPE_MAKE_SEND, NULL);
    for (int i = 0; i < 500; i++) new_port(task);
    assert(moved == other && pm_port_destroy(task, task, other) == 0);
    assert(interrupt(thread) == MACH_SEND_INTERRUPTED);
    assert(!memcmp(&sent, &room, sizeof(struct message)));
    other = new_port(task);
}

int main(void) {
    open_world();
    test_sizes_that_cannot_be();
    test_counts_of_descriptors_that_cannot_be();
    test_types_and_dispositions_that_are_none();
    test_headers_that_cannot_be();
    test_memory_that_is_nowhere();
    test_trailers_that_are_none();
    test_what_was_sent_arrives();
    test_room_that_is_too_small();
    test_its_rights_come_back();
    test_the_names_may_change_while_it_waits();
    close_world();
    return 0;
}
