/* SPDX-License-Identifier: BSD-2-Clause */
/* Who watches: filters, losses, and that nothing is different for being watched. */
#include "scene.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct pm_kernel *kernel;
static struct pm_task *server, *client;
static uint32_t server_sid, client_sid, inbox, outlet;
static struct pm_audit_record seen[64];
static uint32_t receivers[64];
static uint64_t lost;

static int nothing_to_refused(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)epoch;
    for (size_t i = 0; i < count; i++) {
        int refused = queries[i].tsid == *(uint32_t *)context;
        queries[i].allowed = refused ? ~(uint32_t)PM_MACH_PORT__send : UINT32_MAX;
        queries[i].auditdeny = 0;       /* dontaudit */
        queries[i].code = 0;
    }
    return 0;
}

static void make(const struct pm_config *config) {
    assert(pm_kernel_create(config, &kernel) == 0);
    server_sid = sid_named(kernel, "server");
    client_sid = sid_named(kernel, "client");
    server = new_task(kernel, "server", server_sid);
    client = new_task(kernel, "client", client_sid);
    inbox = new_port(server);
    outlet = given(server, inbox, MACH_MSG_TYPE_MAKE_SEND, client);
}

static void unmake(void) {
    expect_sound(kernel);
    pm_task_release(server);
    pm_task_release(client);
    pm_kernel_destroy(kernel);
}

static uint64_t opened(uint32_t records, uint32_t tclass, uint32_t granted, uint32_t denied) {
    int64_t watch = pm_watch_open(kernel, records);
    assert(watch > 0 && pm_watch_select(kernel, (uint64_t)watch, tclass, granted, denied) == 0);
    return (uint64_t)watch;
}

static size_t drained(uint64_t watch) {
    int64_t count = pm_watch_drain(kernel, watch, seen, receivers, COUNT(seen), &lost);
    assert(count >= 0);
    return (size_t)count;
}

static int pass(uint32_t size) {
    char body[8] = "message";
    int code = pm_send(client, outlet, body, size, 7, NULL);
    return code ? code : pm_receive(server, inbox, body, sizeof body, NULL) == size ? 0 : -1;
}

static void test_a_message_is_seen_at_both_ends(void) {
    uint64_t watch = opened(16, 0, UINT32_MAX, UINT32_MAX);
    assert(pass(3) == 0 && drained(watch) == 2 && lost == 0);
    assert(seen[0].operation == PM_OP_SEND && seen[0].task == pm_task_id(client) && receivers[0] == pm_task_id(server));
    assert(seen[0].size == 3 && seen[0].msgh_id == 7 && seen[0].asked & PM_MACH_PORT__send && seen[0].sequence == 0);
    assert(seen[1].operation == PM_OP_RECEIVE && seen[1].asked == PM_MACH_PORT__use_recv && seen[1].sequence == 1);
    assert(seen[1].transfer == seen[0].transfer && seen[1].peer_sid == client_sid && seen[1].time >= seen[0].time);
    assert(drained(watch) == 0);
}

static void test_what_finds_no_room_is_counted(void) {
    uint64_t watch = opened(4, PM_CLASS_MACH_PORT, PM_MACH_PORT__send, 0), all = opened(64, PM_CLASS_MACH_PORT, PM_MACH_PORT__send, 0);
    for (int i = 0; i < 10; i++) assert(pass(3) == 0);
    assert(drained(watch) == 4 && lost == 6 && pass(3) == 0);
    assert(drained(watch) == 1 && seen[0].sequence == 10 && lost == 6);
    assert(drained(all) == 11 && lost == 0);
}

static void test_audit_is_what_it_was(void) {
    struct pm_audit_record records[8];
    opened(2, 0, UINT32_MAX, UINT32_MAX);
    assert(pm_audit_drain(kernel, records, COUNT(records)) == 0);
    assert(pm_audit_select(kernel, PM_CLASS_MACH_PORT, PM_MACH_PORT__use_recv | PM_MACH_PORT__recv, 0) == 0);
    assert(pass(3) == 0 && pm_audit_drain(kernel, records, COUNT(records)) == 1);
    assert(records[0].asked == (PM_MACH_PORT__use_recv | PM_MACH_PORT__recv));
    assert(pm_audit_select(kernel, PM_CLASS_MACH_PORT, PM_MACH_PORT__recv, 0) == 0);
    assert(pass(3) == 0 && pm_audit_drain(kernel, records, COUNT(records)) == 1 && records[0].asked == PM_MACH_PORT__recv);
}

/* A full trail fails what the trail wants, and not what is watched alone. */
static void test_a_full_trail_is_no_matter(void) {
    assert(pm_audit_options(kernel, 0, 0, PM_AUDIT_FAIL, 0) == 0);
    assert(pm_audit_select(kernel, PM_CLASS_MACH_PORT, PM_MACH_PORT__send, 0) == 0);
    int code = 0;
    for (int i = 0; i < 64 && !code; i++) code = pass(3);
    assert(code == PM_AUDIT_FULL);
    assert(pm_audit_select(kernel, 0, 0, 0) == 0);
    uint64_t watch = opened(16, 0, UINT32_MAX, UINT32_MAX);
    assert(pass(3) == 0 && drained(watch) == 2);
}

static void test_tasks_and_labels_are_left_out(void) {
    uint64_t by_task = opened(64, 0, UINT32_MAX, UINT32_MAX), by_label = opened(64, 0, UINT32_MAX, UINT32_MAX);
    uint32_t unwanted = pm_task_id(client);
    assert(pm_watch_leave_out(kernel, by_task, PM_WATCH_TASKS, &unwanted, 1) == 0);
    assert(pm_watch_leave_out(kernel, by_label, PM_WATCH_LABELS, &client_sid, 1) == 0);
    assert(pass(3) == 0 && drained(by_task) == 1 && seen[0].task == pm_task_id(server));
    assert(drained(by_label) == 2);                             /* what it was done to has another label */
    assert(pm_watch_leave_out(kernel, by_label, PM_WATCH_LABELS, &server_sid, 1) == 0);
    assert(pass(3) == 0 && drained(by_label) == 0);
    struct pm_task *other = new_task(kernel, "other", sid_named(kernel, "other"));
    new_port(other);
    uint32_t name = given(server, inbox, MACH_MSG_TYPE_MAKE_SEND, other);
    assert(pm_send(other, name, "", 0, 8, NULL) == 0);          /* a newcomer is wanted */
    size_t count = drained(by_label);
    assert(count && seen[count - 1].msgh_id == 8);
    pm_task_release(other);
}

static void test_denials_are_seen_whatever_is_audited(void) {
    uint32_t refused = server_sid;
    struct pm_audit_record record;
    assert(pm_kernel_set_decider(kernel, nothing_to_refused, &refused) == 0);
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    uint64_t watch = opened(16, 0, 0, UINT32_MAX), granted = opened(16, 0, UINT32_MAX, 0);
    assert(pass(3) == MACH_SEND_INVALID_DEST && drained(watch) == 1);
    assert(seen[0].denied == PM_MACH_PORT__send && seen[0].result == MACH_SEND_INVALID_DEST);
    assert(drained(granted) == 0 && pm_audit_drain(kernel, &record, 1) == 0);
}

static void test_errors_are_asked_for(void) {
    uint64_t with = opened(16, 0, 0, 0), without = opened(16, 0, UINT32_MAX, UINT32_MAX);
    assert(pm_audit_options(kernel, 0, 0, PM_AUDIT_DROP, 0) == 0);
    assert(pm_watch_errors(kernel, with, 1) == 0);
    assert(pm_send(client, 0xabcd03, "", 0, 1, NULL) == MACH_SEND_INVALID_DEST);
    struct pm_audit_record record;
    assert(drained(with) == 1 && seen[0].flags == PM_AUDIT_ERROR && seen[0].result == MACH_SEND_INVALID_DEST);
    assert(drained(without) == 0 && pm_audit_drain(kernel, &record, 1) == 0);
}

/* The trail was read and forgets labels; the watch was not. */
static void test_labels_are_known_until_they_were_read(void) {
    struct pm_audit_record records[8];
    char text[8];
    uint64_t watch = opened(16, 0, UINT32_MAX, 0);
    uint32_t sid = sid_named(kernel, "short");
    struct pm_task *task = new_task(kernel, "short", sid);
    uint32_t name = given(server, inbox, MACH_MSG_TYPE_MAKE_SEND, task);
    assert(pm_send(task, name, "", 0, 1, NULL) == 0 && pm_task_terminate(task, task) == 0);
    pm_task_release(task);
    pm_sid_release(kernel, sid);
    assert(pm_receive(server, inbox, text, sizeof text, NULL) == 0);
    assert(pm_audit_select(kernel, 0, UINT32_MAX, 0) == 0 && pass(3) == 0);
    for (int i = 0; i < 3; i++) assert(pm_audit_drain(kernel, records, COUNT(records)) >= 0);
    sid_named(kernel, "another");
    assert(drained(watch) && pm_sid_text(kernel, sid, text, sizeof text) == 5);
    assert(drained(watch) == 0 && drained(watch) == 0 && pm_audit_drain(kernel, records, COUNT(records)) >= 0);
    assert(pm_sid_text(kernel, sid, text, sizeof text) < 0);
}

static void test_records_of_servers_are_seen(void) {
    uint64_t watch = opened(16, PM_CLASS_SERVICE, UINT32_MAX, 0);
    struct pm_audit_record record = {.operation = PM_OP_SERVICE, .tclass = PM_CLASS_SERVICE, .asked = 1, .effective_sid = client_sid};
    assert(pm_audit_write(kernel, &record) == 0 && drained(watch) == 1 && seen[0].tclass == PM_CLASS_SERVICE && !receivers[0]);
    record.tclass = UINT32_MAX;
    assert(pm_audit_write(kernel, &record) == 0 && drained(watch) == 0);
}

static void test_a_closed_watch_is_gone(void) {
    uint64_t watch = opened(16, 0, UINT32_MAX, UINT32_MAX);
    assert(pm_watch_close(kernel, watch) == 0 && pm_watch_close(kernel, watch) == KERN_INVALID_NAME);
    assert(pm_watch_drain(kernel, watch, seen, receivers, 1, &lost) == -KERN_INVALID_NAME);
    assert(pm_watch_select(kernel, watch, 0, 0, 0) == KERN_INVALID_NAME && pm_watch_errors(kernel, watch, 1) == KERN_INVALID_NAME);
    assert(pm_watch_leave_out(kernel, watch, 0, NULL, 0) == KERN_INVALID_NAME && pass(3) == 0);
    uint64_t next = opened(16, 0, 0, 0);
    assert(next != watch && pm_watch_close(kernel, 0) == KERN_INVALID_NAME);
}

static void test_bounds(void) {
    assert(pm_watch_open(kernel, UINT32_MAX) == -KERN_INVALID_ARGUMENT);
    uint64_t watch = 0;
    for (int i = 0; i < PM_WATCHES_MAX; i++) watch = opened(0, 0, 0, 0);
    assert(pm_watch_open(kernel, 1) == -KERN_NO_SPACE);
    assert(pm_watch_select(kernel, watch, UINT32_MAX, 0, 0) == KERN_INVALID_ARGUMENT);
    assert(pm_watch_leave_out(kernel, watch, PM_WATCH_KINDS, NULL, 0) == KERN_INVALID_ARGUMENT);
    assert(pm_watch_leave_out(kernel, watch, PM_WATCH_TASKS, NULL, 1) == KERN_INVALID_ARGUMENT);
    assert(pm_watch_close(kernel, watch) == 0 && opened(1, 0, 0, 0));
}

static void test_short_memory(void) {
    for (uint64_t at = 1; at <= 2; at++) {
        assert(pm_kernel_fault(kernel, at, 0) == 0);
        assert(pm_watch_open(kernel, 16) == -KERN_RESOURCE_SHORTAGE);
    }
    assert(pm_kernel_fault(kernel, 0, 0) == 0);
    /* A message with many rights has more records than there is room for at once: they are lost, the message is not. */
    uint64_t watch = opened(64, 0, UINT32_MAX, 0);
    struct pm_right rights[8];
    for (size_t i = 0; i < COUNT(rights); i++) rights[i] = (struct pm_right){outlet, MACH_MSG_TYPE_COPY_SEND};
    const struct pm_send_spec spec = {.dest = outlet, .rights = rights, .rights_count = COUNT(rights)};
    assert(pm_send_message(client, &spec, NULL) == 0);
    size_t whole = drained(watch), asked = 0;
    for (uint64_t at = 1; at < 20; at++) {
        assert(pm_kernel_fault(kernel, at, 0) == 0);
        if (pm_send_message(client, &spec, NULL)) continue;
        assert(pm_kernel_fault(kernel, 0, 0) == 0);
        uint64_t before = lost;
        size_t count = drained(watch);
        assert(count + (lost - before) == whole);
        asked += lost > before;
    }
    assert(pm_kernel_fault(kernel, 0, 0) == 0 && asked);
}

static void (*const tests[])(void) = {
    test_a_message_is_seen_at_both_ends, test_what_finds_no_room_is_counted, test_audit_is_what_it_was,
    test_a_full_trail_is_no_matter, test_tasks_and_labels_are_left_out, test_denials_are_seen_whatever_is_audited,
    test_errors_are_asked_for, test_labels_are_known_until_they_were_read, test_records_of_servers_are_seen, test_a_closed_watch_is_gone, test_bounds,
    test_short_memory,
};

int main(void) {
    for (uint32_t slow = 0; slow < 2; slow++)
        for (size_t i = 0; i < COUNT(tests); i++) {
            const struct pm_config config = {.audit_records = 8, .no_fast_path = slow};
            make(&config);
            tests[i]();
            unmake();
        }
    return 0;
}
