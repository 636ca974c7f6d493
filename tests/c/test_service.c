/* SPDX-License-Identifier: BSD-2-Clause */
/* Questions of servers about whoever sent them a message. */
#include "scene.h"

enum { CLIENT = 1000 };

static struct pm_kernel *kernel;
static struct pm_task *server;
static uint32_t client_sid, real_sid, object_sid, allowed, auditdeny;
static unsigned asked;

static int decide(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)context, (void)epoch;
    for (size_t i = 0; i < count; i++) {
        assert(queries[i].ssid == client_sid && queries[i].tsid == object_sid && queries[i].tclass == PM_CLASS_SERVICE);
        queries[i].allowed = allowed;
        queries[i].auditdeny = auditdeny;
        asked++;
    }
    return 0;
}

static struct pm_sender_question question_about(uint32_t permission) {
    return (struct pm_sender_question){.real_sid = real_sid, .sender_sid = client_sid, .sender_task = CLIENT, .msgh_id = 404,
                                       .transfer = 77, .size = 136, .tsid = object_sid, .tclass = PM_CLASS_SERVICE,
                                       .permissions = permission, .name = 5, .port = 9, .result = 1102};
}

static int64_t ask(uint32_t permission) {
    struct pm_sender_question question = question_about(permission);
    return pm_check_sender(server, &question);
}

static struct pm_audit_record only_record(void) {
    struct pm_audit_record records[2];
    assert(pm_audit_drain(kernel, records, 2) == 1);
    return records[0];
}

static void expect_question(const struct pm_audit_record *record, uint32_t denied, int32_t result) {
    assert(record->operation == PM_OP_SERVICE && record->real_sid == real_sid && record->effective_sid == client_sid);
    assert(record->task == CLIENT && record->object_sid == object_sid && record->name == 5 && record->port == 9);
    assert(record->msgh_id == 404 && record->transfer == 77 && record->size == 136);
    assert(record->asked == PM_SERVICE__look_up && record->denied == denied && record->result == result);
}

static void test_without_a_policy_everything_is_allowed_and_recorded(void) {
    assert(ask(PM_SERVICE__look_up) == 1);
    struct pm_audit_record record = only_record();
    expect_question(&record, 0, 1102);
}

static void test_the_policy_is_asked_once(void) {
    allowed = PM_SERVICE__look_up;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    for (int i = 0; i < 3; i++) assert(ask(PM_SERVICE__look_up) == 1);
    assert(asked == 1 && stats_of(kernel).audit_records == 3);
}

static void test_a_refusal_is_recorded_as_one(void) {
    auditdeny = UINT32_MAX;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    assert(ask(PM_SERVICE__look_up) == 0);
    struct pm_audit_record record = only_record();
    expect_question(&record, PM_SERVICE__look_up, KERN_NO_ACCESS);
}

static void test_a_policy_may_keep_refusals_quiet(void) {
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    assert(ask(PM_SERVICE__look_up) == 0 && stats_of(kernel).audit_records == 0);
}

static void test_what_is_not_selected_is_not_recorded(void) {
    assert(pm_audit_select(kernel, PM_CLASS_SERVICE, 0, 0) == 0);
    assert(ask(PM_SERVICE__look_up) == 1 && stats_of(kernel).audit_records == 0);
}

static void test_what_cannot_be_recorded_is_not_to_be_done(void) {
    assert(pm_audit_options(kernel, 0, 0, PM_AUDIT_FAIL, 0) == 0);
    int64_t verdict;
    do verdict = ask(PM_SERVICE__look_up);
    while (verdict == 1);
    assert(verdict == -(int64_t)PM_AUDIT_FULL);
}

static void test_bad_questions(void) {
    struct pm_sender_question question = question_about(PM_SERVICE__look_up);
    assert(pm_check_sender(NULL, &question) == -KERN_INVALID_TASK);
    question.tclass = 1u << 20;
    assert(pm_check_sender(server, &question) == -KERN_INVALID_ARGUMENT);
    assert(pm_task_terminate(server, server) == 0);
    assert(ask(PM_SERVICE__look_up) == -KERN_INVALID_TASK);
}

static void test_who_asks_from_outside_is_recorded_without_a_task(void) {
    auditdeny = UINT32_MAX;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    struct pm_sender_question question = {.real_sid = client_sid, .sender_sid = client_sid, .tsid = object_sid,
                                          .tclass = PM_CLASS_SERVICE, .permissions = PM_SERVICE__look_up, .name = 5};
    assert(pm_check_peer(kernel, &question) == 0);
    struct pm_audit_record record = only_record();
    assert(record.operation == PM_OP_SERVICE && record.task == 0 && record.effective_sid == client_sid && record.name == 5);
    assert(record.denied == PM_SERVICE__look_up && record.result == KERN_NO_ACCESS);
    allowed = PM_SERVICE__look_up;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    assert(pm_check_peer(kernel, &question) == 1);
    question.tclass = 1u << 20;
    assert(pm_check_peer(kernel, &question) == -KERN_INVALID_ARGUMENT);
}

static void run(void (*test)(void)) {
    struct pm_config config = {.audit_records = 64};
    assert(pm_kernel_create(&config, &kernel) == 0);
    assert(pm_kernel_set_decider(kernel, decide, NULL) == 0);
    real_sid = sid_named(kernel, "real"), client_sid = sid_named(kernel, "client"), object_sid = sid_named(kernel, "object");
    server = new_task(kernel, "server", real_sid);
    allowed = auditdeny = asked = 0;
    test();
    expect_sound(kernel);
    pm_task_release(server);
    pm_kernel_destroy(kernel);
}

int main(void) {
    static void (*const tests[])(void) = {
        test_without_a_policy_everything_is_allowed_and_recorded,
        test_the_policy_is_asked_once,
        test_a_refusal_is_recorded_as_one,
        test_a_policy_may_keep_refusals_quiet,
        test_what_is_not_selected_is_not_recorded,
        test_what_cannot_be_recorded_is_not_to_be_done,
        test_bad_questions,
        test_who_asks_from_outside_is_recorded_without_a_task,
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) run(tests[i]);
    return 0;
}
