/* SPDX-License-Identifier: BSD-2-Clause */
/* The verifier finds what it is there to find: each fact of a sound kernel is falsified in turn, and set right again. */
#include "pympi.c"

#include "scene.h"

static struct pm_kernel *kernel;
static struct pm_task *server, *client;
static uint32_t name, send_name, set_name;
static struct port *port;

static void build(void) {
    assert(pm_kernel_create(NULL, &kernel) == 0);
    uint32_t sid = sid_named(kernel, "te/a");
    server = new_task(kernel, "server", sid);
    client = new_task(kernel, "client", sid);
    name = new_port(server);
    set_name = new_set(server);
    send_name = given(server, name, MACH_MSG_TYPE_MAKE_SEND, client);
    given(server, name, MACH_MSG_TYPE_MAKE_SEND_ONCE, client);
    assert(pm_port_insert_member(server, server, name, set_name) == 0);
    assert(pm_send(client, send_name, "body", 4, 0, NULL) == 0);
    port = space_entry(&server->space, name)->object;
}

static int faults(void) { return pm_kernel_verify(kernel, NULL, 0); }

/* Wrong by one is wrong. */
#define FALSIFIED(fact)           \
    do {                          \
        (fact)++;                 \
        assert(faults() > 0);     \
        (fact)--;                 \
        assert(faults() == 0);    \
    } while (0)

static void test_counts_of_a_port(void) {
    FALSIFIED(port->refs);
    FALSIFIED(port->srights);
    FALSIFIED(port->sorights);
    FALSIFIED(port->msgcount);
    FALSIFIED(port->sid);
    FALSIFIED(port->rest->receiver_name);
}

static void test_counts_of_a_task(void) {
    FALSIFIED(server->space.names);
    FALSIFIED(client->space.bucket_used);
    FALSIFIED(server->space.usage.ports);
    FALSIFIED(client->space.usage.queued_bytes);
    FALSIFIED(client->space.sid);
    client->space.in_flight--;
    assert(faults() > 0);
    client->space.in_flight++;
}

static void test_counts_of_an_entry(void) {
    struct entry *entry = space_entry(&server->space, name);
    FALSIFIED(entry->urefs);
    FALSIFIED(entry->pending);
}

static void test_counts_of_the_kernel(void) {
    struct ipc *ipc = &kernel->ipc;
    FALSIFIED(kernel->tasks_alive);
    FALSIFIED(ipc->live_ports);
    FALSIFIED(ipc->live_sets);
    FALSIFIED(ipc->names);
    FALSIFIED(ipc->messages);
    FALSIFIED(ipc->bytes);
    FALSIFIED(ipc->kmsgs.reserved);
    FALSIFIED(((struct pset *)space_entry(&server->space, set_name)->object)->members_used);
}

static void test_lists(void) {
    struct set_link *link = port_sets(port);
    list_remove(&link->in_ready);
    assert(faults() > 0);
    list_append(&link->set->ready, &link->in_ready);
    struct kmsg *last = port->last;
    port->last = NULL;
    assert(faults() > 0);
    port->last = last;
    last->dest = NULL;
    assert(faults() > 0);
    last->dest = port;
    assert(faults() == 0);
}

static void test_a_report_names_what_is_off_and_fits(void) {
    char report[200], small[8];
    port->refs++;
    assert(pm_kernel_verify(kernel, report, sizeof report) == 1);
    assert(strstr(report, "port 1") && strstr(report, "references") && report[strlen(report) - 1] == '\n');
    assert(pm_kernel_verify(kernel, small, sizeof small) == 1 && small[0] == 0);
    port->refs--;
    assert(pm_kernel_verify(kernel, report, sizeof report) == 0 && report[0] == 0);
}

int main(void) {
    build();
    expect_sound(kernel);
    test_counts_of_a_port();
    test_counts_of_a_task();
    test_counts_of_an_entry();
    test_counts_of_the_kernel();
    test_lists();
    test_a_report_names_what_is_off_and_fits();
    pm_task_release(server);
    pm_task_release(client);
    pm_kernel_destroy(kernel);
    return 0;
}
