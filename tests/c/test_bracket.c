/* SPDX-License-Identifier: BSD-2-Clause */
/* The audit bracket of an operation: what is recorded, when, and what a full ring does to the operation. */
#include "scene.h"

#define RING 8
#define SEND_ASKED (PM_MACH_PORT__send | PM_MACH_PORT__copy_send)

static struct pm_kernel *kernel;
static struct pm_task *server, *client;
static uint32_t server_sid, client_sid, port, right, drains, denied, dontaudit, reported;
static struct pm_audit_record records[4 * RING];

static int decide(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)context, (void)epoch;
    for (size_t i = 0; i < count; i++) {
        queries[i].allowed = ~denied;
        queries[i].auditdeny = ~dontaudit;
        queries[i].report = reported;
    }
    return 0;
}

static size_t drain(void) {
    int64_t count = pm_audit_drain(kernel, records, 4 * RING);
    assert(count >= 0);
    return (size_t)count;
}

static void begin(int full) {
    const struct pm_config config = {.audit_records = RING, .clock = PM_CLOCK_SIMULATED};
    assert(pm_kernel_create(&config, &kernel) == 0);
    server_sid = sid_named(kernel, "te/server");
    client_sid = sid_named(kernel, "te/client");
    server = new_task(kernel, "server", server_sid);
    client = new_task(kernel, "client", client_sid);
    port = new_port(server);
    right = given(server, port, MACH_MSG_TYPE_MAKE_SEND, client);
    assert(pm_port_set_attributes(server, server, port, MACH_PORT_LIMITS_INFO, &(uint32_t){1000}, 1) == 0);
    assert(pm_kernel_set_decider(kernel, decide, NULL) == 0 && pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    assert(pm_audit_select(kernel, 0, UINT32_MAX, UINT32_MAX) == 0 && pm_audit_options(kernel, 0, 0, full, 0) == 0);
    denied = dontaudit = drains = reported = 0;
    drain();
}

static void end(void) {
    expect_sound(kernel);
    pm_task_release(server);
    pm_task_release(client);
    pm_kernel_destroy(kernel);
}

static int send_one(void) { return pm_send(client, right, "x", 1, 9, NULL); }
static int64_t receive_one(void) {
    char body;
    return pm_receive(server, port, &body, 1, NULL);
}

static void test_both_ends_bear_the_same_transfer(void) {
    begin(PM_AUDIT_DROP);
    assert(pm_kernel_set_time(kernel, 1234) == 0);
    assert(send_one() == 0 && receive_one() == 1 && drain() == 2);
    const struct pm_audit_record *sent = &records[0], *got = &records[1];
    assert(sent->operation == PM_OP_SEND && sent->asked == SEND_ASKED && sent->denied == 0 && sent->time == 1234);
    assert(sent->real_sid == client_sid && sent->object_sid == server_sid && sent->name == right && sent->msgh_id == 9);
    assert(got->operation == PM_OP_RECEIVE && got->asked == (PM_MACH_PORT__use_recv | PM_MACH_PORT__recv));
    assert(got->peer_sid == client_sid && got->real_sid == server_sid && got->name == port);
    assert(sent->transfer && sent->transfer == got->transfer && sent->port == got->port);
    assert(got->sequence == sent->sequence + 1 && sent->result == 0);
    assert(sent->provenance && !got->provenance);
    end();
}

static void test_a_denial_is_recorded_with_its_code(void) {
    begin(PM_AUDIT_DROP);
    denied = PM_MACH_PORT__send;
    assert(send_one() == MACH_SEND_INVALID_DEST && drain() == 1);
    assert(records[0].denied == PM_MACH_PORT__send && records[0].result == MACH_SEND_INVALID_DEST);
    assert(records[0].transfer == 0);
    end();
}

static void test_what_need_not_be_audited_is_not_unless_everything_is(void) {
    begin(PM_AUDIT_DROP);
    denied = dontaudit = PM_MACH_PORT__send;
    assert(pm_audit_select(kernel, 0, 0, UINT32_MAX) == 0);
    assert(send_one() == MACH_SEND_INVALID_DEST && drain() == 0);
    assert(pm_audit_options(kernel, 1, 0, PM_AUDIT_DROP, 0) == 0);
    assert(send_one() == MACH_SEND_INVALID_DEST && drain() == 1);
    end();
}

/* The first send has its answer from the decider, the second from the cache, the third from a hint. */
static void send_reported(uint32_t wanted) {
    for (int i = 0; i < 3; i++) assert(send_one() == 0);
    assert(drain() == 3);
    for (int i = 0; i < 3; i++) {
        assert(records[i].report == wanted && !records[i].denied);
        assert(!(records[i].flags & PM_AUDIT_REPORTED) == !wanted);
    }
}

static void test_what_need_not_be_audited_is_not_reported_unless_everything_is(void) {
    begin(PM_AUDIT_DROP);
    reported = dontaudit = PM_MACH_PORT__send;
    send_reported(0);
    assert(pm_audit_select(kernel, 0, 0, UINT32_MAX) == 0);
    for (int i = 0; i < 3; i++) assert(send_one() == 0);
    assert(drain() == 0);
    assert(pm_audit_options(kernel, 1, 0, PM_AUDIT_DROP, 0) == 0);
    send_reported(PM_MACH_PORT__send);
    reported |= PM_MACH_PORT__copy_send;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    assert(pm_audit_options(kernel, 0, 0, PM_AUDIT_DROP, 0) == 0);
    send_reported(PM_MACH_PORT__copy_send);
    end();
}

static void test_nothing_is_recorded_where_nothing_is_selected(void) {
    begin(PM_AUDIT_DROP);
    assert(pm_audit_select(kernel, 0, 0, 0) == 0);
    assert(send_one() == 0 && receive_one() == 1 && drain() == 0);
    end();
}

static void test_an_operation_that_fails_leaves_no_grant(void) {
    begin(PM_AUDIT_DROP);
    const struct pm_right rights[] = {{12345, MACH_MSG_TYPE_COPY_SEND}};
    const struct pm_send_spec spec = {.dest = right, .rights = rights, .rights_count = 1};
    assert(pm_send_message(client, &spec, NULL) == MACH_SEND_INVALID_RIGHT && drain() == 0);
    assert(pm_audit_options(kernel, 0, 1, PM_AUDIT_DROP, 0) == 0);
    assert(pm_send_message(client, &spec, NULL) == MACH_SEND_INVALID_RIGHT && drain() == 1);
    assert(records[0].flags == PM_AUDIT_ERROR && records[0].result == MACH_SEND_INVALID_RIGHT);
    end();
}

/* ---- the ring is full ---- */

static void fill_ring(void) {
    for (int i = 0; i < RING - 1; i++) assert(send_one() == 0);
}

static void test_what_cannot_be_recorded_is_not_done(void) {
    begin(PM_AUDIT_FAIL);
    fill_ring();
    assert(send_one() == PM_AUDIT_FULL && receive_one() == -PM_AUDIT_FULL);
    assert(pm_task_relabel(client, client, server_sid) == PM_AUDIT_FULL && pm_task_sid(client) == client_sid);
    assert(drain() == RING - 1);
    for (int i = 0; i < RING - 1; i++) assert(receive_one() == 1);
    assert(drain() == RING - 1 && receive_one() == -MACH_RCV_TIMED_OUT);
    end();
}

static void test_a_refusal_is_returned_though_it_cannot_be_recorded(void) {
    begin(PM_AUDIT_FAIL);
    fill_ring();
    denied = PM_MACH_PORT__send;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    assert(send_one() == MACH_SEND_INVALID_DEST && drain() == RING);
    assert(records[RING - 1].operation == PM_OP_LOSS && records[RING - 1].result == 1);
    denied = 0;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    assert(send_one() == 0 && drain() == 1 && records[0].operation == PM_OP_SEND);
    end();
}

static int drain_some(void *context) {
    drains++;
    assert(pm_audit_drain(kernel, records, 2) == 2);
    return context != NULL;
}

static void test_a_drainer_makes_room(void) {
    begin(PM_AUDIT_BLOCK);
    assert(pm_audit_set_drainer(kernel, drain_some, NULL) == 0);
    for (int i = 0; i < 4 * RING; i++) assert(send_one() == 0);
    assert(drains > RING);
    end();
}

static void test_without_a_drainer_that_works_the_operation_fails(void) {
    begin(PM_AUDIT_BLOCK);
    fill_ring();
    assert(send_one() == PM_AUDIT_FULL);
    assert(pm_audit_set_drainer(kernel, drain_some, &drains) == 0);
    assert(send_one() == PM_AUDIT_FULL && drains > 0);
    end();
}

static void test_losses_are_counted_where_they_are_accepted(void) {
    begin(PM_AUDIT_DROP);
    for (int i = 0; i < 3 * RING; i++) assert(send_one() == 0);
    assert(stats_of(kernel).audit_lost == 2 * RING + 1);
    assert(drain() == RING);                    /* the last one tells of the loss, though nothing followed */
    const struct pm_audit_record *loss = &records[RING - 1];
    assert(loss->operation == PM_OP_LOSS && (uint64_t)loss->result == loss->sequence - records[RING - 2].sequence - 1);
    assert(send_one() == 0 && drain() == 1 && records[0].sequence == loss->sequence + 1);
    end();
}

static void test_a_halted_trail_lets_nothing_be_done_that_it_would_record(void) {
    begin(PM_AUDIT_DROP);
    assert(pm_audit_set_drainer(kernel, drain_some, NULL) == 0 && pm_audit_halt(kernel, 1) == 0);
    assert(send_one() == PM_AUDIT_FULL && pm_task_relabel(client, client, server_sid) == PM_AUDIT_FULL);
    assert(pm_audit_write(kernel, &(struct pm_audit_record){.operation = PM_OP_SERVICE}) == PM_AUDIT_FULL);
    assert(drain() == 0 && drains == 0 && pm_task_sid(client) == client_sid);
    denied = PM_MACH_PORT__send;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    assert(send_one() == MACH_SEND_INVALID_DEST && drain() == 1 && records[0].denied == denied);
    denied = 0;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0 && pm_audit_select(kernel, 0, 0, UINT32_MAX) == 0);
    assert(send_one() == 0 && drain() == 0);
    assert(pm_audit_select(kernel, 0, UINT32_MAX, UINT32_MAX) == 0 && receive_one() == -PM_AUDIT_FULL);
    assert(pm_audit_halt(kernel, 0) == 0 && receive_one() == 1 && drain() == 1);
    end();
}

/* What it does itself is recorded too, and waits for the next call of the drainer. */
static int drain_all(void *context) {
    drains++;
    *(size_t *)context += drain();
    assert(pm_port_mod_refs(client, client, right, MACH_PORT_RIGHT_SEND, 1) == 0 && send_one() == 0);
    return 0;
}

static void test_synchronous_records_are_drained_before_the_call_returns(void) {
    size_t drained = 0;
    begin(PM_AUDIT_FAIL);
    assert(pm_audit_set_drainer(kernel, drain_all, &drained) == 0);
    assert(pm_audit_options(kernel, 0, 1, PM_AUDIT_FAIL, 1) == 0);
    assert(send_one() == 0 && drains == 1 && drained == 1);
    denied = PM_MACH_PORT__use_recv;
    assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0);
    assert(receive_one() == -MACH_RCV_INVALID_NAME && drains == 2 && drained == 3);
    assert(pm_port_type(client, client, 12345) == -KERN_INVALID_NAME && drains == 3 && drained == 5);
    assert(pm_audit_write(kernel, &(struct pm_audit_record){.operation = PM_OP_SERVICE}) == 0 && drains == 4 && drained == 7);
    assert(pm_port_type(client, client, right) > 0 && drains == 4);
    assert(pm_audit_options(kernel, 0, 1, PM_AUDIT_FAIL, 0) == 0 && send_one() == 0 && drains == 4);
    end();
}

static void test_a_wait_for_records_does_not_block_where_time_is_simulated(void) {
    const struct pm_wait for_ever = {.timeout_ns = -1};
    begin(PM_AUDIT_DROP);
    assert(pm_audit_wait(kernel, 1, &for_ever) == 0 && pm_audit_wait(kernel, 1, NULL) == 0);
    assert(send_one() == 0 && pm_audit_wait(kernel, 5, &for_ever) == 1 && pm_audit_wake(kernel) == 0);
    end();
}

/* A pair of labels that was asked about a drain ago is still in words; a label nobody bears any more, until the next. */
static void test_labels_of_records_are_known_until_the_next_drain(void) {
    char text[16];
    begin(PM_AUDIT_DROP);
    uint32_t brief = sid_named(kernel, "te/brief");
    assert(pm_task_relabel(client, client, brief) == 0 && send_one() == 0);
    assert(pm_task_relabel(client, client, client_sid) == 0 && receive_one() == 1);
    assert(pm_sid_release(kernel, brief) == 0 && drain() > 0);
    assert(pm_sid_text(kernel, brief, text, sizeof text) == 8 && !memcmp(text, "te/brief", 8));
    assert(pm_sid_retain(kernel, brief) == KERN_INVALID_ARGUMENT);
    assert(send_one() == 0 && receive_one() == 1 && drain() == 2 && drain() == 0);
    assert(pm_sid_text(kernel, brief, text, sizeof text) < 0);
    end();
}

int main(void) {
    test_both_ends_bear_the_same_transfer();
    test_a_denial_is_recorded_with_its_code();
    test_what_need_not_be_audited_is_not_unless_everything_is();
    test_what_need_not_be_audited_is_not_reported_unless_everything_is();
    test_nothing_is_recorded_where_nothing_is_selected();
    test_an_operation_that_fails_leaves_no_grant();
    test_what_cannot_be_recorded_is_not_done();
    test_a_refusal_is_returned_though_it_cannot_be_recorded();
    test_a_drainer_makes_room();
    test_without_a_drainer_that_works_the_operation_fails();
    test_losses_are_counted_where_they_are_accepted();
    test_a_halted_trail_lets_nothing_be_done_that_it_would_record();
    test_synchronous_records_are_drained_before_the_call_returns();
    test_a_wait_for_records_does_not_block_where_time_is_simulated();
    test_labels_of_records_are_known_until_the_next_drain();
    return 0;
}
