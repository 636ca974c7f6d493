/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calls that sleep, and what wakes them: one small story each. Who should wake and does not is found by the alarm.
 */
#include "pympi.c"

#include "../scene.h"

#include <signal.h>

#define SECONDS 20

static struct pm_kernel *kernel;
static struct pm_task *server, *client;
static uint32_t server_sid, client_sid, port, right;
static uint32_t forbidden_source, forbidden_target; /* SIDs; set while nobody asks */

static int decide_by_label(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)context, (void)epoch;
    for (size_t i = 0; i < count; i++) {
        bool no = (forbidden_source && queries[i].ssid == forbidden_source) ||
                       (forbidden_target && queries[i].tsid == forbidden_target);
        queries[i].allowed = no && queries[i].tclass == PM_CLASS_MACH_PORT ? 0 : UINT32_MAX;
    }
    return 0;
}

static uint32_t new_queue(struct pm_task *task, uint32_t qlimit) {
    const struct pm_port_options options = {.flags = MPO_QLIMIT, .qlimit = qlimit, .trace_number = -1};
    int64_t name = pm_port_construct(task, task, &options);
    assert(name > 0);
    return (uint32_t)name;
}

static uint32_t send_right(uint32_t name, struct pm_task *to) { return given(server, name, MACH_MSG_TYPE_MAKE_SEND, to); }

/* A server with a port for one message, and a client who may send to it. */
static void begin_story(void) {
    alarm(SECONDS);
    forbidden_source = forbidden_target = 0;
    assert(pm_kernel_create(NULL, &kernel) == 0);
    server_sid = sid_named(kernel, "te/server");
    client_sid = sid_named(kernel, "te/client");
    server = new_task(kernel, "server", server_sid);
    client = new_task(kernel, "client", client_sid);
    assert(pm_kernel_set_decider(kernel, decide_by_label, NULL) == 0);
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    port = new_queue(server, 1);
    right = send_right(port, client);
}

static void finish_story(void) {
    expect_sound(kernel);
    pm_task_release(server);
    pm_task_release(client);
    pm_kernel_destroy(kernel);
    alarm(0);
}

/* ---- threads that sleep ---- */

struct job {
    pthread_t thread;
    struct pm_task *task;
    uint32_t name, number;
    uint64_t room;
    int64_t result;
    struct pm_wait wait;
};

static void *send_job(void *pointer) {
    struct job *job = pointer;
    job->result = pm_send(job->task, job->name, &job->number, sizeof job->number, 0, &job->wait);
    return NULL;
}

static void *receive_job(void *pointer) {
    struct job *job = pointer;
    job->result = pm_receive(job->task, job->name, &job->number, job->room, &job->wait);
    return NULL;
}

static uint32_t sleepers(struct pm_task *task) {
    uint32_t count = 0;
    kernel_lock(kernel);
    list_each(&task->space.waiters, node) count++;
    kernel_unlock(kernel);
    return count;
}

static void await_sleepers(struct pm_task *task, uint32_t count) {
    while (sleepers(task) != count) usleep(100);
}

/* Starts a job and returns when it sleeps. */
static void put_to_sleep(struct job *job, void *(*run)(void *)) {
    uint32_t before = sleepers(job->task);
    if (!job->wait.timeout_ns) job->wait.timeout_ns = -1;
    if (!job->room) job->room = sizeof job->number;
    assert(pthread_create(&job->thread, NULL, run, job) == 0);
    await_sleepers(job->task, before + 1);
}

static int64_t outcome(struct job *job) {
    assert(pthread_join(job->thread, NULL) == 0);
    return job->result;
}

static void send_number(uint32_t number) { assert(pm_send(client, right, &number, sizeof number, 0, NULL) == 0); }

static uint32_t receive_number(struct pm_task *task, uint32_t name) {
    uint32_t number;
    assert(pm_receive(task, name, &number, sizeof number, NULL) == sizeof number);
    return number;
}

/* ---- stories ---- */

static void test_a_port_that_dies_frees_its_sender(void) {
    struct job sender = {.task = client, .name = right};
    send_number(1);
    put_to_sleep(&sender, send_job);
    assert(pm_port_destroy(server, server, port) == 0);
    assert(outcome(&sender) == 0);
    assert(pm_port_type(client, client, right) == MACH_PORT_TYPE_DEAD_NAME);
}

static void test_a_port_that_dies_wakes_its_receiver(void) {
    struct job receiver = {.task = server, .name = port};
    put_to_sleep(&receiver, receive_job);
    assert(pm_port_destroy(server, server, port) == 0);
    assert(outcome(&receiver) == -MACH_RCV_PORT_DIED);
}

static void test_a_port_that_moves_wakes_its_receiver(void) {
    struct job receiver = {.task = server, .name = port};
    put_to_sleep(&receiver, receive_job);
    assert(pm_port_transfer(server, port, MACH_MSG_TYPE_MOVE_RECEIVE, client) > 0);
    assert(outcome(&receiver) == -MACH_RCV_PORT_CHANGED);
}

static void test_a_port_that_moves_keeps_its_sender(void) {
    struct job sender = {.task = client, .name = right, .number = 2};
    send_number(1);
    put_to_sleep(&sender, send_job);
    int64_t moved = pm_port_transfer(server, port, MACH_MSG_TYPE_MOVE_RECEIVE, client);
    assert(moved == right);
    assert(receive_number(client, right) == 1);
    assert(outcome(&sender) == 0);
    assert(receive_number(client, right) == 2);
}

static void test_a_set_that_goes_wakes_its_receiver(void) {
    uint32_t set = new_set(server);
    struct job receiver = {.task = server, .name = set};
    put_to_sleep(&receiver, receive_job);
    assert(pm_port_destroy(server, server, set) == 0);
    assert(outcome(&receiver) == -MACH_RCV_PORT_CHANGED);
}

static void test_a_port_that_gets_a_handler_wakes_its_receiver(void) {
    struct job receiver = {.task = server, .name = port};
    put_to_sleep(&receiver, receive_job);
    assert(pm_port_set_handler(server, server, port, (pm_handler)(uintptr_t)1, NULL, 0) == 0);
    assert(outcome(&receiver) == -MACH_RCV_PORT_CHANGED);
}

static void test_a_task_that_dies_wakes_its_threads(void) {
    struct job sender = {.task = client, .name = right}, receiver = {.task = client};
    receiver.name = new_queue(client, 1);
    send_number(1);
    put_to_sleep(&sender, send_job);
    put_to_sleep(&receiver, receive_job);
    assert(pm_task_terminate(server, client) == 0);
    assert(outcome(&sender) == KERN_TERMINATED && outcome(&receiver) == -KERN_TERMINATED);
}

static void test_after_a_dead_sender_others_send(void) {
    struct job sender = {.task = client, .name = right};
    uint32_t mine = send_right(port, server);
    send_number(1);
    put_to_sleep(&sender, send_job);
    assert(pm_task_terminate(server, client) == 0);
    assert(outcome(&sender) == KERN_TERMINATED);
    receive_number(server, port);
    assert(pm_send(server, mine, "", 0, 0, NULL) == 0);
}

static void test_one_message_has_one_receiver(void) {
    struct job first = {.task = server, .name = port}, second = {.task = server, .name = port};
    put_to_sleep(&first, receive_job);
    put_to_sleep(&second, receive_job);
    send_number(7);
    assert(outcome(&first) == sizeof first.number && first.number == 7);
    assert(sleepers(server) == 1);
    send_number(8);
    assert(outcome(&second) == sizeof second.number && second.number == 8);
}

static void test_messages_that_join_a_set_wake_all_they_serve(void) {
    uint32_t set = new_set(server), limit = 3;
    struct job receivers[3];
    assert(pm_port_set_attributes(server, server, port, MACH_PORT_LIMITS_INFO, &limit, 1) == 0);
    for (uint32_t i = 0; i < 3; i++) send_number(i);
    for (int i = 0; i < 3; i++) {
        receivers[i] = (struct job){.task = server, .name = set};
        put_to_sleep(&receivers[i], receive_job);
    }
    assert(pm_port_insert_member(server, server, port, set) == 0);
    for (int i = 0; i < 3; i++) assert(outcome(&receivers[i]) == sizeof receivers[i].number);
}

static void test_a_member_that_leaves_is_heard_no_more(void) {
    uint32_t set = new_set(server), other = new_queue(server, 1);
    struct job receiver = {.task = server, .name = set};
    assert(pm_port_insert_member(server, server, port, set) == 0);
    assert(pm_port_insert_member(server, server, other, set) == 0);
    put_to_sleep(&receiver, receive_job);
    assert(pm_port_extract_member(server, server, port, set) == 0);
    send_number(1);
    assert(sleepers(server) == 1);
    uint32_t to_other = send_right(other, client), number = 2;
    assert(pm_send(client, to_other, &number, sizeof number, 0, NULL) == 0);
    assert(outcome(&receiver) == sizeof receiver.number && receiver.number == 2);
}

static void test_senders_go_in_the_order_they_came(void) {
    struct job senders[6];
    send_number(0);
    for (uint32_t i = 0; i < 6; i++) {
        senders[i] = (struct job){.task = client, .name = right, .number = i + 1};
        put_to_sleep(&senders[i], send_job);
    }
    for (uint32_t i = 0; i < 7; i++) {
        uint32_t number;
        const struct pm_wait patient = {.timeout_ns = -1};
        assert(pm_receive(server, port, &number, sizeof number, &patient) == sizeof number && number == i);
    }
    for (int i = 0; i < 6; i++) assert(outcome(&senders[i]) == 0);
}

static void test_nobody_overtakes_who_waits(void) {
    struct job sender = {.task = client, .name = right, .number = 2};
    uint32_t mine = send_right(port, server);
    send_number(1);
    put_to_sleep(&sender, send_job);
    assert(pm_send(server, mine, "", 0, 0, NULL) == MACH_SEND_TIMED_OUT);
    assert(receive_number(server, port) == 1);
    assert(outcome(&sender) == 0);
}

static void test_a_larger_queue_wakes_senders(void) {
    struct job sender = {.task = client, .name = right};
    uint32_t limit = 2;
    send_number(1);
    put_to_sleep(&sender, send_job);
    assert(pm_port_set_attributes(server, server, port, MACH_PORT_LIMITS_INFO, &limit, 1) == 0);
    assert(outcome(&sender) == 0);
}

/* Both failed for want of passing a wake-up on: the second would sleep beside a message, or a free place, for ever. */
static void test_a_message_too_large_for_one_is_for_the_next(void) {
    struct job small = {.task = server, .name = port, .room = 1}, good = {.task = server, .name = port};
    put_to_sleep(&small, receive_job);
    put_to_sleep(&good, receive_job);
    send_number(9);
    assert(outcome(&small) == -MACH_RCV_TOO_LARGE);
    assert(outcome(&good) == sizeof good.number && good.number == 9);
}

static void test_a_place_that_one_may_not_use_is_for_the_next(void) {
    struct job denied = {.task = client, .name = right}, good = {.task = server, .name = send_right(port, server)};
    send_number(1);
    put_to_sleep(&denied, send_job);
    put_to_sleep(&good, send_job);
    forbidden_source = client_sid;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    assert(pm_port_set_attributes(server, server, port, MACH_PORT_LIMITS_INFO, &(uint32_t){2}, 1) == 0);
    assert(outcome(&denied) == MACH_SEND_INVALID_DEST);
    assert(outcome(&good) == 0);
}

static void test_a_sender_that_slept_is_judged_by_the_new_policy(void) {
    struct job sender = {.task = client, .name = right};
    send_number(1);
    put_to_sleep(&sender, send_job);
    forbidden_source = client_sid;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    receive_number(server, port);
    assert(outcome(&sender) == MACH_SEND_INVALID_DEST);
    assert(pm_receive(server, port, NULL, 0, NULL) == -MACH_RCV_TIMED_OUT);
}

static void test_a_receiver_that_slept_is_judged_by_the_new_policy(void) {
    struct job receiver = {.task = server, .name = port};
    put_to_sleep(&receiver, receive_job);
    forbidden_source = server_sid;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    send_number(1);
    assert(outcome(&receiver) == -MACH_RCV_INVALID_NAME);
}

static void test_a_sender_that_slept_is_judged_by_the_new_label_of_the_port(void) {
    struct job sender = {.task = client, .name = right};
    uint32_t secret = sid_named(kernel, "te/secret");
    send_number(1);
    put_to_sleep(&sender, send_job);
    assert(pm_port_relabel(server, server, port, secret) == 0);
    forbidden_target = secret;
    receive_number(server, port);
    assert(outcome(&sender) == MACH_SEND_INVALID_DEST);
}

static void test_a_sender_relabelled_in_its_sleep_sends_as_what_it_is(void) {
    struct job sender = {.task = client, .name = right};
    struct pm_received received;
    uint32_t risen = sid_named(kernel, "te/risen");
    send_number(1);
    put_to_sleep(&sender, send_job);
    assert(pm_task_relabel(server, client, risen) == 0);
    receive_number(server, port);
    assert(outcome(&sender) == 0);
    assert(pm_receive_message(server, port, 0, &received, NULL) == 0);
    assert(received.sender_sid == risen && received.real_sid == risen);
    pm_message_free(received.message);
}

static void test_a_dead_name_is_told_once_however_late_it_is_asked(void) {
    uint32_t notify = new_queue(client, 5);
    struct job receiver = {.task = client, .name = notify};
    uint8_t body[12];
    assert(pm_port_request_notification(client, client, right, MACH_NOTIFY_DEAD_NAME, 0, notify,
                                        MACH_MSG_TYPE_MAKE_SEND_ONCE) == 0);
    put_to_sleep(&receiver, receive_job);
    assert(pm_port_destroy(server, server, port) == 0);
    assert(outcome(&receiver) == -MACH_RCV_TOO_LARGE);
    assert(pm_receive(client, notify, body, sizeof body, NULL) == sizeof body);
    assert(pm_receive(client, notify, body, sizeof body, NULL) == -MACH_RCV_TIMED_OUT);
}

static void test_no_senders_knows_how_many_were_made(void) {
    uint32_t notify = new_queue(server, 5), word;
    struct job receiver = {.task = server, .name = notify};
    uint8_t body[12];
    assert(pm_port_request_notification(server, server, port, MACH_NOTIFY_NO_SENDERS, 0, notify,
                                        MACH_MSG_TYPE_MAKE_SEND_ONCE) == 0);
    put_to_sleep(&receiver, receive_job);
    send_right(port, client);
    assert(pm_port_mod_refs(client, client, right, MACH_PORT_RIGHT_SEND, -2) == 0);
    assert(outcome(&receiver) == -MACH_RCV_TOO_LARGE);
    assert(pm_receive(server, notify, body, sizeof body, NULL) == sizeof body);
    memcpy(&word, body + 8, sizeof word);
    assert(word == 2);
}

static void test_waits_run_out(void) {
    const struct pm_wait brief = {.timeout_ns = 2000000};
    send_number(1);
    assert(pm_send(client, right, "", 0, 0, &brief) == MACH_SEND_TIMED_OUT);
    receive_number(server, port);
    assert(pm_receive(server, port, NULL, 0, &brief) == -MACH_RCV_TIMED_OUT);
}

static void no_action(int signal_number) { (void)signal_number; }
static int always(void *context) { return context != NULL; }

static void test_a_signal_ends_a_wait_that_wants_it(void) {
    struct job receiver = {.task = server, .name = port, .wait = {-1, always, &receiver}};
    const struct sigaction action = {.sa_handler = no_action};
    assert(sigaction(SIGUSR1, &action, NULL) == 0);
    put_to_sleep(&receiver, receive_job);
    while (sleepers(server)) {
        pthread_kill(receiver.thread, SIGUSR1);
        usleep(1000);
    }
    assert(outcome(&receiver) == -MACH_RCV_INTERRUPTED);
}

static void (*const stories[])(void) = {
    test_a_port_that_dies_frees_its_sender,
    test_a_port_that_dies_wakes_its_receiver,
    test_a_port_that_moves_wakes_its_receiver,
    test_a_port_that_moves_keeps_its_sender,
    test_a_set_that_goes_wakes_its_receiver,
    test_a_port_that_gets_a_handler_wakes_its_receiver,
    test_a_task_that_dies_wakes_its_threads,
    test_after_a_dead_sender_others_send,
    test_one_message_has_one_receiver,
    test_messages_that_join_a_set_wake_all_they_serve,
    test_a_member_that_leaves_is_heard_no_more,
    test_senders_go_in_the_order_they_came,
    test_nobody_overtakes_who_waits,
    test_a_larger_queue_wakes_senders,
    test_a_message_too_large_for_one_is_for_the_next,
    test_a_place_that_one_may_not_use_is_for_the_next,
    test_a_sender_that_slept_is_judged_by_the_new_policy,
    test_a_receiver_that_slept_is_judged_by_the_new_policy,
    test_a_sender_that_slept_is_judged_by_the_new_label_of_the_port,
    test_a_sender_relabelled_in_its_sleep_sends_as_what_it_is,
    test_a_dead_name_is_told_once_however_late_it_is_asked,
    test_no_senders_knows_how_many_were_made,
    test_waits_run_out,
    test_a_signal_ends_a_wait_that_wants_it,
};

int main(void) {
    for (size_t i = 0; i < array_count(stories); i++) {
        begin_story();
        stories[i]();
        finish_story();
    }
    return 0;
}
