/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Deciders, handlers, drainers and release functions of an embedder that do what the API lets them do, and nobody would: they answer
 * nonsense, call back into the kernel, change its policy, end its tasks, destroy it. Nothing is allowed by mistake, nothing is lost.
 */
#include "scene.h"

#include <stdlib.h>

static struct pm_kernel *kernel;
static struct pm_task *server, *client;
static uint32_t inbox, outbox, plain;
static unsigned times;

static void begin(const struct pm_config *config) {
    assert(pm_kernel_create(config, &kernel) == 0);
    plain = sid_named(kernel, "plain");
    server = new_task(kernel, "server", plain);
    client = new_task(kernel, "client", plain);
    inbox = new_port(server);
    outbox = given(server, inbox, MACH_MSG_TYPE_MAKE_SEND, client);
    times = 0;
}

static void release_tasks(void) {
    pm_task_release(client);
    pm_task_release(server);
}

static void end(void) {
    expect_sound(kernel);
    release_tasks();
    pm_kernel_destroy(kernel);
}

static int send_one(const char *body) { return pm_send(client, outbox, body, strlen(body), 1, NULL); }

static void enforce(pm_decider decider, uint32_t flags) {
    assert(pm_kernel_set_decider(kernel, decider, NULL) == 0);
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED | flags) == 0);
}

#define ALL_FLAGS (PM_POLICY_LABELS_PORTS | PM_POLICY_LABELS_TASKS | PM_POLICY_CHECKS_RELABEL)

/* ---- deciders ---- */

static int scribble(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    unsigned char *bytes = (unsigned char *)queries;
    (void)context, (void)epoch;
    for (size_t i = 0; i < count * sizeof *queries; i++)
        if (rand() % 3) bytes[i] = (unsigned char)rand();
    return rand() % 4 ? 0 : rand() - RAND_MAX / 2;
}

/* Whatever is written over questions and answers, every call comes back with a code of Mach's, or with what it is for. */
static void test_questions_and_answers_are_written_over(void) {
    begin(NULL);
    enforce(scribble, ALL_FLAGS);
    srand(6);
    for (int i = 0; i < 5000; i++) {
        int code = send_one("x");
        assert(code == 0 || pm_code_name(code));
        struct pm_received received;
        code = pm_receive_message(server, inbox, 0, &received, NULL);
        assert(code == 0 || pm_code_name(code));
        if (!code) pm_message_free(received.message);
        int64_t name = pm_port_allocate(client, client, MACH_PORT_RIGHT_RECEIVE, 0);
        assert(name > 0 ? pm_port_type(client, client, (uint32_t)name) > 0 : pm_code_name((int)-name) != NULL);
        if (name > 0) assert(pm_port_mod_refs(client, client, (uint32_t)name, MACH_PORT_RIGHT_RECEIVE, -1) == 0);
        struct pm_task *child = NULL;
        code = pm_task_create(kernel, client, "child", 0, NULL, NULL, &child);
        assert(code == 0 ? child != NULL : pm_code_name(code) != NULL);
        if (child) pm_task_terminate(child, child), pm_task_release(child);
        code = pm_task_relabel(client, client, plain);
        assert(code >= 0 && pm_code_name(code));
    }
    assert(pm_kernel_set_policy(kernel, 0) == 0);
    end();
}

static int leave_unanswered(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)context, (void)queries, (void)count, (void)epoch;
    return times++, 0;
}

static void test_what_is_not_answered_is_refused(void) {
    begin(NULL);
    enforce(leave_unanswered, ALL_FLAGS);
    assert(send_one("x") == MACH_SEND_INVALID_DEST && times == 1);
    assert(pm_port_allocate(client, client, MACH_PORT_RIGHT_RECEIVE, 0) == -KERN_NO_ACCESS);
    assert(pm_task_relabel(client, client, sid_named(kernel, "other")) == KERN_NO_ACCESS);
    struct pm_decision decision;
    assert(pm_decide(kernel, plain, plain, PM_CLASS_MACH_PORT, &decision) == 0 && decision.allowed == 0);
    assert(stats_of(kernel).decider_failures == 0);
    end();
}

static int move_epoch(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)context, (void)epoch;
    for (size_t i = 0; i < count; i++) queries[i].allowed = ~0u;
    times++;
    return pm_kernel_set_policy(kernel, PM_POLICY_LOADED);
}

static void test_a_decider_that_changes_the_policy_each_time_allows_nothing(void) {
    begin(NULL);
    enforce(move_epoch, 0);
    assert(send_one("x") == MACH_SEND_INVALID_DEST && times < 20);
    assert(stats_of(kernel).retries_exhausted > 0);
    end();
}

static int take_the_policy_away(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)context, (void)queries, (void)count, (void)epoch;
    times++;
    pm_kernel_set_decider(kernel, NULL, NULL);
    return pm_kernel_set_policy(kernel, 0);
}

static void test_a_decider_that_takes_the_policy_away_is_asked_once(void) {
    begin(NULL);
    enforce(take_the_policy_away, 0);
    assert(send_one("x") == 0 && times == 1);
    end();
}

static int destroy(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)context, (void)queries, (void)count, (void)epoch;
    pm_kernel_destroy(kernel);
    return 0;
}

static void test_a_decider_may_destroy_the_kernel(void) {
    begin(NULL);
    enforce(destroy, 0);
    int code = send_one("x");
    assert(code == KERN_INVALID_TASK || code == MACH_SEND_INVALID_DEST || code == KERN_TERMINATED);
    assert(!pm_task_alive(client));
    release_tasks();
    begin(NULL);
    enforce(destroy, 0);
    struct pm_decision decision;
    assert(pm_decide(kernel, plain, plain, PM_CLASS_MACH_PORT, &decision) == 0 && decision.allowed == 0);
    release_tasks();
}

/* ---- handlers ---- */

enum trouble { FAIL, FREE, SEND_ON, REPLACE, REMOVE, CLOSE_PORT, END_TASK, END_SENDER, DESTROY, TROUBLES };
static const int odd_results[] = {1, -1, 0x7fff0001, INT32_MIN, MACH_RCV_TIMED_OUT, PM_AUDIT_FULL};

static int trouble_maker(void *context, struct pm_received *received) {
    times++;
    switch ((enum trouble)(uintptr_t)context) {
    case FAIL: return odd_results[times % 6];
    case FREE: pm_message_free(received->message); received->message = NULL; return 0;
    case SEND_ON: send_one("again"); return 0;
    case REPLACE: return pm_port_set_handler(server, server, inbox, trouble_maker, (void *)FAIL, 3);
    case REMOVE: return pm_port_set_handler(server, server, inbox, NULL, NULL, 0);
    case CLOSE_PORT: return pm_port_mod_refs(server, server, inbox, MACH_PORT_RIGHT_RECEIVE, -1);
    case END_TASK: return pm_task_terminate(server, server);
    case END_SENDER: return pm_task_terminate(client, client);
    case DESTROY: pm_kernel_destroy(kernel); return 0;
    case TROUBLES: break;
    }
    return 0;
}

/* The message carries a right and memory, and asks for a reply, so that there is something to be lost. */
static void send_much(void) {
    uint32_t port = new_port(client);
    struct pm_right right = {port, MACH_MSG_TYPE_MAKE_SEND};
    struct pm_send_spec spec = {.dest = outbox, .reply = port, .reply_disposition = MACH_MSG_TYPE_MAKE_SEND_ONCE,
                                .body = "much", .size = 4, .rights = &right, .rights_count = 1};
    assert(pm_send_message(client, &spec, NULL) == 0);
}

static void test_a_handler_makes_trouble(void) {
    for (uintptr_t trouble = 0; trouble < TROUBLES; trouble++) {
        begin(NULL);
        assert(pm_port_set_handler(server, server, inbox, trouble_maker, (void *)trouble, 3) == 0);
        send_much();
        assert(times >= 1 && times <= PM_HANDLER_DEPTH);
        if (trouble == FAIL)
            for (int i = 0; i < 12; i++) send_much();
        if (trouble == FAIL) assert(stats_of(kernel).handler_failures == 13);
        if (trouble == DESTROY) release_tasks();
        else end();
    }
}

/* ---- drainers and release functions ---- */

static int drain_by_sending(void *context) {
    struct pm_audit_record records[4];
    (void)context;
    times++;
    send_one("from the drainer");
    pm_kernel_set_policy(kernel, 0);
    return pm_audit_drain(kernel, records, 4) < 0;
}

static int drain_by_destroying(void *context) {
    (void)context;
    if (times++ == 0) pm_kernel_destroy(kernel);
    return 0;
}

static void record_all(pm_drainer drainer) {
    begin(&(struct pm_config){.audit_records = 16});
    assert(pm_audit_select(kernel, 0, ~0u, ~0u) == 0);
    assert(pm_audit_options(kernel, 0, 1, PM_AUDIT_BLOCK, 0) == 0);
    assert(pm_audit_set_drainer(kernel, drainer, NULL) == 0);
}

static void test_a_drainer_sends(void) {
    char body[32];
    record_all(drain_by_sending);
    for (int i = 0; i < 100; i++) {
        int code = send_one("x");
        assert(code == 0 || code == PM_AUDIT_FULL || code == MACH_SEND_TIMED_OUT);
        pm_receive(server, inbox, body, sizeof body, NULL);
    }
    assert(times > 0);
    end();
}

static void test_a_drainer_may_destroy_the_kernel(void) {
    record_all(drain_by_destroying);
    int code = 0;
    for (int i = 0; i < 100 && !times; i++) {
        code = send_one("x");
        if (!times) pm_receive(server, inbox, &(char[8]){0}, 8, NULL);
    }
    assert(times >= 1 && !pm_task_alive(client));
    assert(code == 0 || pm_code_name(code));
    release_tasks();
}

static int count_drains(void *context) {
    (void)context;
    return times++, 0;
}

/* Tasks may be used after their kernel, what it called may not: its memory is its owner's again. */
static void test_nothing_is_called_after_the_kernel(void) {
    struct pm_sender_question question = {.real_sid = plain, .sender_sid = plain, .tsid = plain, .tclass = PM_CLASS_MACH_PORT,
                                          .permissions = PM_MACH_PORT__send};
    record_all(count_drains);
    assert(pm_audit_options(kernel, 0, 1, PM_AUDIT_BLOCK, 1) == 0);
    enforce(leave_unanswered, 0);
    pm_kernel_destroy(kernel);
    times = 0;
    assert(send_one("late") == KERN_INVALID_TASK);
    assert(pm_port_allocate(client, client, MACH_PORT_RIGHT_RECEIVE, 0) == -KERN_INVALID_TASK);
    assert(pm_check_sender(client, &question) == -KERN_INVALID_TASK);
    assert(times == 0);
    release_tasks();
}

static void release_by_sending(void *context) { times++, send_one(context ? "again" : "last"); }
static void release_by_destroying(void *context) { (void)context, times++, pm_kernel_destroy(kernel); }

static void send_by_reference(void (*release)(void *context)) {
    static char memory[4096];
    struct pm_send_spec spec = {.dest = outbox, .body = memory, .size = sizeof memory, .release = release};
    assert(pm_send_message(client, &spec, NULL) == 0);
    struct pm_received received;
    assert(pm_receive_message(server, inbox, 0, &received, NULL) == 0 && received.body == memory);
    pm_message_free(received.message);
    assert(times == 1);
}

static void test_release_functions_call_back(void) {
    begin(NULL);
    send_by_reference(release_by_sending);
    char body[8];
    assert(pm_receive(server, inbox, body, sizeof body, NULL) == 4 && memcmp(body, "last", 4) == 0);
    end();
    begin(NULL);
    send_by_reference(release_by_destroying);
    release_tasks();
}

/* ---- batches ---- */

#define MANY 100
static char bodies[MANY * 8];

static int64_t send_bodies(int32_t *codes) {
    const struct pm_bodies many = {.data = bodies, .size = sizeof bodies, .stride = 8, .count = MANY};
    return pm_send_many(client, outbox, &many, codes);
}

static int64_t submit_bodies(struct pm_submission *ops) {
    for (uint32_t i = 0; i < MANY; i++)
        ops[i] = (struct pm_submission){.op = PM_SUBMIT_SEND, .task = pm_task_id(client), .name = outbox, .length = 8,
                                        .right = outbox, .disposition = MACH_MSG_TYPE_COPY_SEND};
    return pm_submit(kernel, ops, MANY, bodies, sizeof bodies);
}

/* In the middle of a batch: what was done stays done, what could not be says why, each on its own. */
static int late_trouble(void *context, struct pm_received *received) {
    return received->seqno == 40 ? trouble_maker(context, received) : 0;
}

static void test_a_handler_makes_trouble_within_a_batch(void) {
    struct pm_submission ops[MANY];
    int32_t codes[MANY];
    for (uintptr_t trouble = 0; trouble < 2 * TROUBLES; trouble++) {
        begin(NULL);
        assert(pm_port_set_handler(server, server, inbox, late_trouble, (void *)(trouble / 2), 3) == 0);
        int64_t done = trouble % 2 ? submit_bodies(ops) : send_bodies(codes), good = 0;
        for (uint32_t i = 0; i < MANY; i++) {
            int32_t code = trouble % 2 ? ops[i].result : codes[i];
            assert(pm_code_name(code) && (code == 0 || i > 40));
            good += code == 0;
        }
        assert(done == good && times >= 1);
        if (trouble / 2 == DESTROY) release_tasks();
        else end();
    }
}

static void test_a_decider_destroys_the_kernel_of_a_batch(void) {
    struct pm_submission ops[MANY];
    int32_t codes[MANY];
    begin(NULL);
    enforce(destroy, 0);
    assert(send_bodies(codes) == 0 && codes[MANY - 1] == KERN_INVALID_TASK);
    release_tasks();
    begin(NULL);
    enforce(destroy, 0);
    assert(submit_bodies(ops) == 0 && ops[MANY - 1].result == KERN_INVALID_TASK);
    release_tasks();
}

static void test_batches_of_nothing(void) {
    struct pm_result result;
    const struct pm_bodies none = {0};
    const struct pm_room room = {.data = bodies, .size = 8, .stride = 8, .count = 1, .results = &result};
    assert(pm_send_many(NULL, 1, &none, NULL) == -KERN_INVALID_TASK);
    assert(pm_receive_many(NULL, 1, &room) == -KERN_INVALID_TASK);
    assert(pm_call_many(NULL, 1, 1, &none, &room, 0, NULL) == -KERN_INVALID_TASK);
    begin(NULL);
    assert(send_bodies(NULL) == -KERN_INVALID_ARGUMENT && stats_of(kernel).messages_queued == 0);
    end();
}

int main(void) {
    test_batches_of_nothing();
    test_a_handler_makes_trouble_within_a_batch();
    test_a_decider_destroys_the_kernel_of_a_batch();
    test_questions_and_answers_are_written_over();
    test_what_is_not_answered_is_refused();
    test_a_decider_that_changes_the_policy_each_time_allows_nothing();
    test_a_decider_that_takes_the_policy_away_is_asked_once();
    test_a_decider_may_destroy_the_kernel();
    test_a_handler_makes_trouble();
    test_a_drainer_sends();
    test_a_drainer_may_destroy_the_kernel();
    test_nothing_is_called_after_the_kernel();
    test_release_functions_call_back();
    return 0;
}
