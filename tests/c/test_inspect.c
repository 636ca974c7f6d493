/* SPDX-License-Identifier: BSD-2-Clause */
/* Walks: what they find, how they go on, and what happens meanwhile. */
#include "scene.h"

#define ROOM 64

static struct pm_kernel *kernel;
static struct pm_task *server, *client;
static struct pm_task_row tasks[ROOM];
static struct pm_port_row ports[ROOM];
static struct pm_right_row rights[ROOM];
static char text[4096];
static struct pm_mark before, after;

static struct pm_rows empty_rows(uint64_t room) {
    return (struct pm_rows){.tasks = tasks, .tasks_room = room, .ports = ports, .ports_room = room, .rights = rights,
                            .rights_room = room, .text = text, .text_room = room ? sizeof text : 0};
}

static void begin(void) {
    assert(pm_kernel_create(NULL, &kernel) == 0);
    uint32_t sid = sid_named(kernel, "te/a");
    server = new_task(kernel, "server", sid);
    client = new_task(kernel, "client", sid);
}

static void end(void) {
    expect_sound(kernel);
    pm_task_release(server);
    pm_task_release(client);
    pm_kernel_destroy(kernel);
}

static struct pm_rows walk_all(void) {
    struct pm_inspect walk;
    struct pm_rows rows = empty_rows(ROOM);
    assert(pm_inspect_begin(kernel, &walk, &before) == 0);
    assert(pm_inspect_read(&walk, &rows) == 0);
    assert(pm_inspect_end(&walk, &after) == 0);
    return rows;
}

static const struct pm_port_row *port_row(const struct pm_rows *rows, uint64_t id) {
    for (uint64_t i = 0; i < rows->ports_used; i++)
        if (ports[i].id == id) return &ports[i];
    return NULL;
}

static const struct pm_right_row *right_row(const struct pm_rows *rows, struct pm_task *task, uint32_t name) {
    for (uint64_t i = 0; i < rows->rights_used; i++)
        if (rights[i].task == pm_task_id(task) && rights[i].name == name) return &rights[i];
    return NULL;
}

static void test_who_is_at_the_other_end(void) {
    begin();
    uint32_t inbox = new_port(server), right = given(server, inbox, MACH_MSG_TYPE_MAKE_SEND, client);
    struct pm_rows rows = walk_all();
    assert(rows.tasks_used == 2 && rows.rights_used == 2 && rows.ports_used == 1);
    const struct pm_right_row *held = right_row(&rows, client, right);
    assert(held && held->types == MACH_PORT_TYPE_SEND && held->urefs == 1 && held->object == pm_port_id(client, right));
    assert(held->provenance == pm_port_provenance(client, right));
    const struct pm_port_row *port = port_row(&rows, held->object);
    assert(port && port->receiver == pm_task_id(server) && port->receiver_name == inbox && port->send_rights == 1);
    assert(port->maker == pm_task_id(server) && port->qlimit == MACH_PORT_QLIMIT_DEFAULT && port->flags & PM_PORT_ACTIVE);
    assert(rows.text_used == 12 && !memcmp(text, "serverclient", 12));
    assert(tasks[0].id == pm_task_id(server) && tasks[0].name_at == 0 && tasks[0].name_length == 6 && tasks[0].alive);
    assert(tasks[1].names == 1 && tasks[1].sid == pm_task_sid(client));
    end();
}

static void test_parent_identity_and_bootstrap(void) {
    struct pm_identity identity = {.audit_token = {1, 2, 3, 4, 5, 6, 7, 8}};
    struct pm_task *child;
    begin();
    uint32_t inbox = new_port(server), right = given(server, inbox, MACH_MSG_TYPE_MAKE_SEND, server);
    assert(pm_task_set_special_port(server, server, TASK_BOOTSTRAP_PORT, right) == 0);
    assert(pm_task_create(kernel, server, "child", 0, &identity, NULL, &child) == 0);
    struct pm_rows rows = walk_all();
    assert(rows.tasks_used == 3 && tasks[2].parent == pm_task_id(server) && tasks[0].parent == 0);
    assert(!memcmp(tasks[2].audit_token, identity.audit_token, sizeof identity.audit_token));
    assert(tasks[2].bootstrap == pm_port_id(server, inbox) && tasks[1].bootstrap == 0);
    pm_task_release(child);
    end();
}

static void send_right(struct pm_task *from, uint32_t dest, uint32_t name, uint32_t disposition) {
    struct pm_right carried = {name, disposition};
    struct pm_send_spec spec = {.dest = dest, .body = "body", .size = 4, .rights = &carried, .rights_count = 1};
    assert(pm_send_message(from, &spec, NULL) == 0);
}

static void test_a_port_in_a_message_is_found(void) {
    begin();
    uint32_t inbox = new_port(server), right = given(server, inbox, MACH_MSG_TYPE_MAKE_SEND, client);
    uint32_t travels = new_port(client);
    uint64_t id = pm_port_id(client, travels);
    send_right(client, right, travels, MACH_MSG_TYPE_MOVE_RECEIVE);
    struct pm_rows rows = walk_all();
    const struct pm_port_row *port = port_row(&rows, id), *queue = port_row(&rows, pm_port_id(server, inbox));
    assert(port && port->flags & PM_PORT_IN_TRANSIT && !port->receiver && port->destination == queue->id);
    assert(queue->queued == 1 && queue->queued_summed == 1 && queue->queued_bytes == 4 && queue->send_rights == 2);
    assert(!right_row(&rows, client, travels));
    end();
}

static void test_what_died_is_told_from_what_lives(void) {
    begin();
    uint32_t inbox = new_port(server), right = given(server, inbox, MACH_MSG_TYPE_MAKE_SEND, client);
    uint32_t once = given(server, inbox, MACH_MSG_TYPE_MAKE_SEND_ONCE, client);
    uint64_t id = pm_port_id(server, inbox);
    assert(pm_port_destroy(server, server, inbox) == 0);
    struct pm_rows rows = walk_all();
    const struct pm_port_row *port = port_row(&rows, id);
    assert(port && !(port->flags & (PM_PORT_ACTIVE | PM_PORT_IN_TRANSIT)) && !port->receiver);
    const struct pm_right_row *send = right_row(&rows, client, right), *send_once = right_row(&rows, client, once);
    assert(send->types == MACH_PORT_TYPE_DEAD_NAME && send->urefs == 1 && send->object == id);
    assert(send_once->types == MACH_PORT_TYPE_DEAD_NAME && send_once->urefs == 1 && send_once->object == id);
    assert(pm_port_is_dead(client, right) == 1);        /* looked at: the port is forgotten */
    rows = walk_all();
    assert(right_row(&rows, client, right)->object == 0 && right_row(&rows, client, right)->urefs == 1);
    end();
}

static void test_notifications_sets_and_guards(void) {
    begin();
    uint32_t inbox = new_port(server), right = given(server, inbox, MACH_MSG_TYPE_MAKE_SEND, client);
    uint32_t told = new_port(client), set = new_set(server), hears = new_port(server);
    uint32_t id = MACH_NOTIFY_DEAD_NAME, make = MACH_MSG_TYPE_MAKE_SEND_ONCE;
    assert(pm_port_request_notification(client, client, right, id, 0, told, make) == 0);
    assert(pm_port_request_notification(server, server, inbox, MACH_NOTIFY_NO_SENDERS, 1, hears, make) == 0);
    assert(pm_port_insert_member(server, server, inbox, set) == 0);
    assert(pm_port_guard(server, server, inbox, 42, MPG_STRICT) == 0);
    struct pm_rows rows = walk_all();
    const struct pm_port_row *port = port_row(&rows, pm_port_id(server, inbox));
    assert(port->no_senders == pm_port_id(server, hears) && port->port_destroyed == 0);
    assert(port->sets == 1 && port->set == right_row(&rows, server, set)->object && port->set != 0);
    assert(port->flags & PM_PORT_GUARDED && port->flags & PM_PORT_STRICT);
    const struct pm_right_row *row = right_row(&rows, client, right);
    assert(row->request == MACH_NOTIFY_DEAD_NAME && row->request_port == pm_port_id(client, told));
    end();
}

static void test_a_row_at_a_time(void) {
    struct pm_inspect walk;
    uint64_t found[3] = {0};
    int code = KERN_NO_SPACE;
    begin();
    for (int i = 0; i < 5; i++) given(server, new_port(server), MACH_MSG_TYPE_MAKE_SEND, client);
    assert(pm_inspect_begin(kernel, &walk, &before) == 0);
    while (code == KERN_NO_SPACE) {
        struct pm_rows rows = empty_rows(1);
        code = pm_inspect_read(&walk, &rows);
        found[0] += rows.tasks_used;
        found[1] += rows.ports_used;
        found[2] += rows.rights_used;
        assert(rows.tasks_used + rows.ports_used + rows.rights_used > 0 || code == 0);
    }
    assert(code == 0 && pm_inspect_end(&walk, &after) == 0 && pm_inspect_end(&walk, &after) == 0);
    assert(found[0] == 2 && found[1] == 5 && found[2] == 10);
    assert(before.sequence == after.sequence && before.ports == 5 && before.names == 10);
    end();
}

static void test_no_room_for_a_name(void) {
    struct pm_inspect walk;
    struct pm_rows rows = empty_rows(ROOM);
    begin();
    rows.text_room = 7;
    assert(pm_inspect_begin(kernel, &walk, &before) == 0);
    assert(pm_inspect_read(&walk, &rows) == KERN_NO_SPACE && rows.tasks_used == 1);
    rows.text_used = rows.tasks_used = 0;
    assert(pm_inspect_read(&walk, &rows) == 0 && rows.tasks_used == 1 && tasks[0].id == pm_task_id(client));
    assert(pm_inspect_end(&walk, &after) == 0);
    end();
}

/* The walk stands at a task that ends and is let go; new ones come, ports go. */
static void test_meanwhile(void) {
    struct pm_inspect walk;
    struct pm_rows none = empty_rows(0), rows = empty_rows(ROOM);
    begin();
    uint32_t stays = new_port(client), goes = new_port(client);
    new_port(server);
    assert(pm_inspect_begin(kernel, &walk, &before) == 0);
    assert(pm_inspect_read(&walk, &none) == KERN_NO_SPACE && none.tasks_used == 0);
    assert(pm_task_terminate(server, server) == 0);
    pm_task_release(server);
    assert(pm_port_destroy(client, client, goes) == 0);
    struct pm_task *late = new_task(kernel, "late", pm_task_sid(client));
    new_port(late);
    assert(pm_inspect_read(&walk, &rows) == 0);
    assert(rows.tasks_used == 2 && !tasks[0].alive && tasks[1].id == pm_task_id(client));
    assert(rows.rights_used == 1 && rights[0].name == stays && rows.ports_used == 1);
    assert(pm_inspect_end(&walk, &after) == 0);
    assert(after.tasks_made - before.tasks_made == 1 && after.tasks_ended - before.tasks_ended == 1);
    assert(after.objects_made - before.objects_made == 1 && after.objects_gone - before.objects_gone == 2);
    assert(after.sequence > before.sequence && stats_of(kernel).tasks == 2);
    rows = walk_all();
    assert(rows.tasks_used == 2 && tasks[0].id == pm_task_id(client));
    server = late;
    end();
}

static void test_the_kernel_goes_meanwhile(void) {
    struct pm_inspect walk;
    struct pm_rows none = empty_rows(0), rows = empty_rows(ROOM);
    begin();
    new_port(server);
    assert(pm_inspect_begin(kernel, &walk, &before) == 0);
    assert(pm_inspect_read(&walk, &none) == KERN_NO_SPACE);
    pm_task_release(server);
    pm_task_release(client);
    pm_kernel_destroy(kernel);
    assert(pm_inspect_read(&walk, &rows) == 0 && rows.rights_used == 0 && rows.ports_used == 0);
    assert(pm_inspect_end(&walk, &after) == 0);
}

static void test_marks_move_with_every_operation(void) {
    begin();
    uint32_t inbox = new_port(server), right = given(server, inbox, MACH_MSG_TYPE_MAKE_SEND, client);
    struct pm_mark now;
    char body[8];
    assert(pm_inspect_mark(kernel, &before) == 0 && pm_inspect_mark(kernel, &now) == 0);
    assert(now.sequence == before.sequence);
    assert(pm_send(client, right, "x", 1, 0, NULL) == 0 && pm_inspect_mark(kernel, &now) == 0);
    assert(now.sequence > before.sequence && now.sent == before.sent + 1);
    before = now;
    assert(pm_receive(server, inbox, body, sizeof body, NULL) == 1 && pm_inspect_mark(kernel, &now) == 0);
    assert(now.sequence > before.sequence && now.received == before.received + 1);
    before = now;
    assert(pm_port_deallocate(client, client, right) == 0 && pm_inspect_mark(kernel, &now) == 0);
    assert(now.sequence > before.sequence);
    end();
}

static void test_stopped(void) {
    uint64_t stopped = 0;
    struct pm_inspect walk;
    begin();
    given(server, new_port(server), MACH_MSG_TYPE_MAKE_SEND, client);
    struct pm_rows rows = empty_rows(1);
    assert(pm_inspect_begin(kernel, &walk, &before) == 0);
    assert(pm_inspect_stopped(&walk, &rows, &before, &stopped) == KERN_NO_SPACE);
    rows = empty_rows(ROOM);
    assert(pm_inspect_stopped(&walk, &rows, &before, &stopped) == 0 && stopped > 0);
    assert(rows.tasks_used == 2 && rows.rights_used == 2 && rows.ports_used == 1 && before.ports == 1);
    assert(pm_inspect_end(&walk, &after) == 0 && after.sequence == before.sequence);
    end();
}

static void test_a_long_queue_is_summed_in_part(void) {
    begin();
    uint32_t inbox = new_port(server), limit = MACH_PORT_QLIMIT_MAX;
    assert(pm_port_set_attributes(server, server, inbox, MACH_PORT_LIMITS_INFO, &limit, 1) == 0);
    uint32_t right = given(server, inbox, MACH_MSG_TYPE_MAKE_SEND, client);
    for (uint32_t i = 0; i < limit; i++) assert(pm_send(client, right, "ab", 2, 0, NULL) == 0);
    uint32_t once = given(server, inbox, MACH_MSG_TYPE_MAKE_SEND_ONCE, client);
    assert(pm_send(client, once, "ab", 2, 0, NULL) == 0);
    struct pm_rows rows = walk_all();
    const struct pm_port_row *port = port_row(&rows, pm_port_id(server, inbox));
    assert(port->queued == limit + 1 && port->queued_summed == limit && port->queued_bytes == (uint64_t)2 * limit);
    end();
}

int main(void) {
    test_who_is_at_the_other_end();
    test_parent_identity_and_bootstrap();
    test_a_port_in_a_message_is_found();
    test_what_died_is_told_from_what_lives();
    test_notifications_sets_and_guards();
    test_a_row_at_a_time();
    test_no_room_for_a_name();
    test_meanwhile();
    test_the_kernel_goes_meanwhile();
    test_marks_move_with_every_operation();
    test_stopped();
    test_a_long_queue_is_summed_in_part();
    return 0;
}
