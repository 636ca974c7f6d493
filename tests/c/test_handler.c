/* SPDX-License-Identifier: BSD-2-Clause */
/* Handler ports: who runs, as whom, how deep; what becomes of messages that nobody handled. */
#include "scene.h"

static struct pm_kernel *kernel;
static struct pm_task *server, *client;
static uint32_t port, right;
static uint32_t handled, verdict;
static int64_t nested;
static struct pm_message *kept;

static int handle(void *context, struct pm_received *received) {
    assert(context == &handled && received->sender_task == pm_task_id(client));
    handled++;
    return (int)verdict;
}

static int handle_and_keep(void *context, struct pm_received *received) {
    (void)context;
    handled++;
    kept = received->message;
    received->message = NULL;
    return 0;
}

static int handle_and_call_itself(void *context, struct pm_received *received) {
    (void)context, (void)received;
    handled++;
    nested = pm_send(client, right, "", 0, 0, NULL);
    return 0;
}

static int handle_and_die(void *context, struct pm_received *received) {
    (void)context, (void)received;
    handled++;
    return pm_task_terminate(server, server);
}

static struct pm_stats stats_now(void) { return stats_of(kernel); }

static void begin(pm_handler handler) {
    assert(pm_kernel_create(NULL, &kernel) == 0);
    uint32_t sid = sid_named(kernel, "te/a");
    server = new_task(kernel, "server", sid);
    client = new_task(kernel, "client", sid);
    port = new_port(server);
    right = given(server, port, MACH_MSG_TYPE_MAKE_SEND, client);
    assert(pm_port_set_handler(server, server, port, handler, &handled, 7) == 0);
    handled = verdict = 0;
    kept = NULL;
}

static void end(void) {
    expect_sound(kernel);
    pm_task_release(server);
    pm_task_release(client);
    pm_kernel_destroy(kernel);
}

/* A right to the client's own port; its name. */
static uint32_t send_with_right(void) {
    uint32_t own = new_port(client);
    const struct pm_right rights[] = {{own, MACH_MSG_TYPE_MAKE_SEND_ONCE}};
    const struct pm_send_spec spec = {.dest = right, .rights = rights, .rights_count = 1};
    assert(pm_send_message(client, &spec, NULL) == 0);
    return own;
}

static void test_a_handler_runs_in_the_call_of_the_sender(void) {
    begin(handle);
    assert(pm_send(client, right, "hello", 5, 1, NULL) == 0 && handled == 1);
    assert(stats_now().messages_queued == 0 && stats_now().received == 1);
    end();
}

static void test_rights_for_a_handler_that_fails_are_destroyed(void) {
    begin(handle);
    verdict = 1;
    uint32_t own = send_with_right();
    struct pm_received told;
    assert(pm_receive_message(client, own, 0, &told, NULL) == 0 && told.msgh_id == MACH_NOTIFY_SEND_ONCE);
    pm_message_free(told.message);
    assert(stats_now().handler_failures == 1 && pm_port_names(server, server, NULL, NULL, 0) == 1);
    end();
}

static void test_a_message_may_be_kept(void) {
    begin(handle_and_keep);
    send_with_right();
    assert(kept && handled == 1 && pm_port_names(server, server, NULL, NULL, 0) == 2);
    pm_message_free(kept);
    end();
}

static void test_handlers_within_handlers_end_at_a_depth(void) {
    begin(handle_and_call_itself);
    assert(pm_send(client, right, "", 0, 0, NULL) == 0);
    assert(handled == PM_HANDLER_DEPTH && nested == 0);
    assert(stats_now().messages_queued == 0);
    end();
}

static void test_nobody_receives_from_a_handler_port(void) {
    begin(handle);
    assert(pm_receive(server, port, NULL, 0, NULL) == -MACH_RCV_INVALID_NAME);
    end();
}

static void test_a_handler_port_joins_no_set_and_does_not_move(void) {
    begin(handle);
    uint32_t set = new_set(server);
    assert(pm_port_insert_member(server, server, port, set) == KERN_INVALID_RIGHT);
    assert(pm_port_transfer(server, port, MACH_MSG_TYPE_MOVE_RECEIVE, client) < 0);
    end();
}

/* Its receive right in a notification kept the handler, and the next message took the way there for its receiver. */
static void test_a_port_that_comes_back_destroyed_has_no_handler(void) {
    begin(handle);
    uint32_t notify = new_port(server);
    struct pm_received back;
    assert(pm_port_request_notification(server, server, port, MACH_NOTIFY_PORT_DESTROYED, 0, notify,
                                        MACH_MSG_TYPE_MAKE_SEND_ONCE) == 0);
    assert(pm_port_mod_refs(server, server, port, MACH_PORT_RIGHT_RECEIVE, -1) == 0);
    assert(pm_send(client, right, "x", 1, 0, NULL) == 0 && handled == 0);
    assert(pm_receive_message(server, notify, 0, &back, NULL) == 0 && back.rights_count == 1);
    char body;
    assert(pm_receive(server, back.rights[0].name, &body, 1, NULL) == 1);
    pm_message_free(back.message);
    end();
}

static void test_a_handler_may_end_its_own_task(void) {
    begin(handle_and_die);
    send_with_right();
    assert(handled == 1 && !pm_task_alive(server));
    assert(pm_send(client, right, "", 0, 0, NULL) == MACH_SEND_INVALID_DEST);
    end();
}

static void test_without_its_handler_a_port_has_a_queue(void) {
    begin(handle);
    assert(pm_port_set_handler(server, server, port, NULL, NULL, 0) == 0);
    assert(pm_send(client, right, "", 0, 0, NULL) == 0 && handled == 0);
    assert(pm_port_set_handler(server, server, port, handle, &handled, 0) == KERN_INVALID_ARGUMENT);
    assert(pm_receive(server, port, NULL, 0, NULL) == 0);
    end();
}

int main(void) {
    test_a_handler_runs_in_the_call_of_the_sender();
    test_rights_for_a_handler_that_fails_are_destroyed();
    test_a_message_may_be_kept();
    test_handlers_within_handlers_end_at_a_depth();
    test_nobody_receives_from_a_handler_port();
    test_a_handler_port_joins_no_set_and_does_not_move();
    test_a_port_that_comes_back_destroyed_has_no_handler();
    test_a_handler_may_end_its_own_task();
    test_without_its_handler_a_port_has_a_queue();
    return 0;
}
