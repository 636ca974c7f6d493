/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages and what they carry, whatever becomes of them: every release function runs once, every right arrives, comes back or
 * tells of its end.
 */
#include "scene.h"

static struct pm_kernel *kernel;
static struct pm_task *server, *client;
static uint32_t server_sid, port, right, released, forbidden;

static int decide(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)context, (void)epoch;
    for (size_t i = 0; i < count; i++) queries[i].allowed = queries[i].ssid == server_sid ? ~forbidden : UINT32_MAX;
    return 0;
}

static void begin(void) {
    assert(pm_kernel_create(NULL, &kernel) == 0);
    server_sid = sid_named(kernel, "te/server");
    server = new_task(kernel, "server", server_sid);
    client = new_task(kernel, "client", sid_named(kernel, "te/client"));
    port = new_port(server);
    right = given(server, port, MACH_MSG_TYPE_MAKE_SEND, client);
    assert(pm_kernel_set_decider(kernel, decide, NULL) == 0);
    released = forbidden = 0;
}

static void end(void) {
    expect_sound(kernel);
    pm_task_release(server);
    pm_task_release(client);
    pm_kernel_destroy(kernel);
}

static void count_release(void *context) {
    assert(context == &released);
    released++;
}

static const struct pm_memory memories[] = {{"one", 3, count_release, &released}, {"two", 3, count_release, &released}};

static int send_by_reference(uint32_t name) {
    const struct pm_send_spec spec = {.dest = name, .body = "body", .size = 4, .release = count_release,
                                      .release_context = &released, .memory = memories, .memory_count = 2};
    return pm_send_message(client, &spec, NULL);
}

/* ---- release functions run once ---- */

static void test_when_the_message_is_freed(void) {
    struct pm_received received;
    assert(send_by_reference(right) == 0 && pm_receive_message(server, port, 0, &received, NULL) == 0);
    assert(released == 0 && received.memory_count == 2 && !memcmp(received.memory[1].address, "two", 3));
    assert(!memcmp(received.body, "body", 4));
    pm_message_free(received.message);
    assert(released == 3);
}

static void test_when_only_its_bytes_are_wanted(void) {
    char body[4];
    assert(send_by_reference(right) == 0 && pm_receive(server, port, body, 4, NULL) == 4 && released == 3);
}

static void test_when_the_port_dies(void) {
    assert(send_by_reference(right) == 0 && pm_port_destroy(server, server, port) == 0 && released == 3);
}

static void test_when_the_receiver_dies(void) {
    assert(send_by_reference(right) == 0 && pm_task_terminate(server, server) == 0 && released == 3);
}

static void test_when_the_sender_dies_nothing_happens(void) {
    char body[4];
    assert(send_by_reference(right) == 0 && pm_task_terminate(client, client) == 0 && released == 0);
    assert(pm_receive(server, port, body, 4, NULL) == 4 && released == 3);
}

static void test_when_it_is_refused_to_the_receiver(void) {
    forbidden = PM_MACH_PORT__recv;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    assert(send_by_reference(right) == 0 && pm_receive(server, port, NULL, 0, NULL) == -MACH_RCV_INVALID_DATA);
    assert(released == 3);
}

static void test_never_when_it_was_not_sent(void) {
    assert(send_by_reference(12345) == MACH_SEND_INVALID_DEST && released == 0);
    for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT; i++) assert(send_by_reference(right) == 0);
    assert(send_by_reference(right) == MACH_SEND_TIMED_OUT && released == 0);
}

/* ---- rights ---- */

static uint32_t names_of(struct pm_task *task) { return (uint32_t)pm_port_names(task, task, NULL, NULL, 0); }

static void expect_told(struct pm_task *task, uint32_t name, int32_t id) {
    struct pm_received told;
    assert(pm_receive_message(task, name, 0, &told, NULL) == 0 && told.msgh_id == id);
    pm_message_free(told.message);
}

/* Kinds of rights that tell of their end, on their way in one message. */
struct cargo_of_all { uint32_t once, watched, moved, notify; };

static struct cargo_of_all send_all_kinds(void) {
    struct cargo_of_all all = {new_port(client), new_port(client), new_port(client), new_port(client)};
    uint32_t send = given(client, all.watched, MACH_MSG_TYPE_MAKE_SEND, client);
    assert(pm_port_request_notification(client, client, all.watched, MACH_NOTIFY_NO_SENDERS, 0, all.notify,
                                        MACH_MSG_TYPE_MAKE_SEND_ONCE) == 0);
    const struct pm_right rights[] = {{all.once, MACH_MSG_TYPE_MAKE_SEND_ONCE}, {send, MACH_MSG_TYPE_MOVE_SEND},
                                      {all.moved, MACH_MSG_TYPE_MOVE_RECEIVE}, {0, MACH_MSG_TYPE_COPY_SEND},
                                      {MACH_PORT_DEAD, MACH_MSG_TYPE_COPY_SEND}};
    const struct pm_send_spec spec = {.dest = right, .rights = rights, .rights_count = 5, .reply = all.once,
                                      .reply_disposition = MACH_MSG_TYPE_MAKE_SEND_ONCE};
    assert(pm_send_message(client, &spec, NULL) == 0);
    return all;
}

static void expect_all_told(const struct cargo_of_all *all) {
    for (int i = 0; i < 2; i++) expect_told(client, all->once, MACH_NOTIFY_SEND_ONCE);
    expect_told(client, all->notify, MACH_NOTIFY_NO_SENDERS);
    assert(stats_of(kernel).messages_queued == 0);
}

static void test_rights_of_a_message_that_dies_with_its_port_tell_so(void) {
    struct cargo_of_all all = send_all_kinds();
    assert(pm_port_destroy(server, server, port) == 0);
    expect_all_told(&all);
}

static void test_rights_of_a_message_that_is_refused_tell_so(void) {
    struct cargo_of_all all = send_all_kinds();
    forbidden = PM_MACH_PORT__recv;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    assert(pm_receive(server, port, NULL, 0, NULL) == -MACH_RCV_INVALID_DATA);
    expect_all_told(&all);
}

static void test_rights_that_are_refused_tell_so_and_the_rest_arrives(void) {
    struct cargo_of_all all = send_all_kinds();
    struct pm_received received;
    forbidden = PM_MACH_PORT__hold_send | PM_MACH_PORT__hold_send_once | PM_MACH_PORT__hold_recv;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    assert(pm_receive_message(server, port, 0, &received, NULL) == (MACH_RCV_BODY_ERROR | MACH_MSG_IPC_SPACE));
    assert(received.denied == 4 && received.reply == 0 && received.rights[4].name == MACH_PORT_DEAD);
    for (int i = 0; i < 4; i++) assert(received.rights[i].name == 0);
    assert(names_of(server) == 1);
    pm_message_free(received.message);
    expect_all_told(&all);
}

static void test_rights_nobody_takes_out_are_dropped_with_the_bytes(void) {
    struct cargo_of_all all = send_all_kinds();
    assert(pm_receive(server, port, NULL, 0, NULL) == 0 && names_of(server) == 1);
    expect_all_told(&all);
}

static void test_a_message_too_large_stays(void) {
    char body[4];
    assert(pm_send(client, right, "body", 4, 0, NULL) == 0);
    assert(pm_receive(server, port, body, 3, NULL) == -MACH_RCV_TOO_LARGE);
    assert(pm_receive(server, port, body, 4, NULL) == 4);
}

/* ---- queues and sets ---- */

static void test_send_once_rights_pass_a_full_queue(void) {
    for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT; i++) assert(pm_send(client, right, "", 0, 0, NULL) == 0);
    assert(pm_send(client, right, "", 0, 0, NULL) == MACH_SEND_TIMED_OUT);
    assert(pm_send(client, given(server, port, MACH_MSG_TYPE_MAKE_SEND_ONCE, client), "", 0, 0, NULL) == 0);
}

static void test_members_of_a_set_take_turns(void) {
    uint32_t set = new_set(server), other = new_port(server);
    uint32_t to_other = given(server, other, MACH_MSG_TYPE_MAKE_SEND, client);
    struct pm_received received;
    assert(pm_port_insert_member(server, server, port, set) == 0 && pm_port_insert_member(server, server, other, set) == 0);
    for (int i = 0; i < 3; i++) {
        assert(pm_send(client, right, "", 0, 0, NULL) == 0);
        assert(pm_send(client, to_other, "", 0, 0, NULL) == 0);
    }
    for (int i = 0; i < 6; i++) {
        assert(pm_receive_message(server, set, 0, &received, NULL) == 0);
        assert(received.local == (i % 2 ? other : port));
        pm_message_free(received.message);
    }
}

static void test_the_same_right_is_not_given_twice(void) {
    uint32_t own = new_port(client), once = given(client, own, MACH_MSG_TYPE_MAKE_SEND_ONCE, client);
    const struct pm_right twice[][2] = {{{own, MACH_MSG_TYPE_MOVE_RECEIVE}, {own, MACH_MSG_TYPE_MOVE_RECEIVE}},
                                        {{once, MACH_MSG_TYPE_MOVE_SEND_ONCE}, {once, MACH_MSG_TYPE_MOVE_SEND_ONCE}},
                                        {{own, MACH_MSG_TYPE_MOVE_RECEIVE}, {own, MACH_MSG_TYPE_MAKE_SEND}}};
    for (int i = 0; i < 3; i++) {
        const struct pm_send_spec spec = {.dest = right, .rights = twice[i], .rights_count = 2};
        assert(pm_send_message(client, &spec, NULL) == MACH_SEND_INVALID_RIGHT);
    }
    assert(names_of(client) == 3 && pm_kernel_verify(kernel, NULL, 0) == 0);
}

/* ---- a call with its reply ---- */

static int answer(void *context, struct pm_received *received) {
    (void)context;
    return pm_send(server, received->reply, "pong", 4, 0, NULL);
}

static void test_a_call_gets_its_reply(void) {
    uint32_t reply = new_port(client);
    struct pm_received received;
    assert(pm_port_set_handler(server, server, port, answer, NULL, 0) == 0);
    const struct pm_send_spec spec = {.dest = right, .reply = reply, .reply_disposition = MACH_MSG_TYPE_MAKE_SEND_ONCE};
    assert(pm_call(client, &spec, reply, &received, NULL) == 0 && received.size == 4 && !memcmp(received.body, "pong", 4));
    pm_message_free(received.message);
    assert(names_of(server) == 1 && names_of(client) == 2);
}

static void (*const tests[])(void) = {
    test_when_the_message_is_freed,
    test_when_only_its_bytes_are_wanted,
    test_when_the_port_dies,
    test_when_the_receiver_dies,
    test_when_the_sender_dies_nothing_happens,
    test_when_it_is_refused_to_the_receiver,
    test_never_when_it_was_not_sent,
    test_rights_of_a_message_that_dies_with_its_port_tell_so,
    test_rights_of_a_message_that_is_refused_tell_so,
    test_rights_that_are_refused_tell_so_and_the_rest_arrives,
    test_rights_nobody_takes_out_are_dropped_with_the_bytes,
    test_a_message_too_large_stays,
    test_send_once_rights_pass_a_full_queue,
    test_members_of_a_set_take_turns,
    test_the_same_right_is_not_given_twice,
    test_a_call_gets_its_reply,
};

int main(void) {
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        begin();
        tests[i]();
        end();
    }
    return 0;
}
