/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The fast paths do what the defining path does: two kernels, one of them with no_fast_path, live through the same random
 * calls, under a policy that denies, audits and reports at random. Codes, bodies, audit records, traces and counts agree.
 * What one does in batches, the other does one at a time.
 *
 *     test_sys_fast [SEED [STEPS]]
 */
#include <assert.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pympi.h"

#define TASKS 4
#define PORTS 6
#define LABELS 8
#define RULES 3
#define WATCHES 2
#define BODY_MAX 20000 /* some fit inside a message, some a piece of a pool; the largest come from the heap */

struct world {
    struct pm_kernel *kernel;
    struct pm_task *tasks[TASKS];
    uint32_t sids[LABELS];
    uint32_t receive[PORTS], send[TASKS][PORTS]; /* 0: none */
    uint64_t rules[RULES]; /* 0: none */
    uint64_t watches[WATCHES]; /* 0: none */
    uint32_t sets[2];
    uint64_t handled; /* of all that handlers were given */
    int depth; /* of handlers that send */
};

static struct world worlds[2];
static uint64_t state, policy_seed, now_ns;
#define BATCH 160 /* more than two of the slices for which a batch keeps the lock */

static int strict; /* percent of questions in which something is refused, recorded or reported */
static int tabled; /* one of them decides about ports by tables */

static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

static uint32_t draw(uint32_t below)
{
    state += 0x9e3779b97f4a7c15u;
    return (uint32_t)(mix(state) % below);
}

static uint32_t chance(uint64_t *hash)
{
    *hash = mix(*hash + 1);
    return *hash % 100 < (uint64_t)strict ? (uint32_t)(*hash >> 32) : 0;
}

/* The same question has the same answer until the policy changes. */
static void answer(struct pm_query *query)
{
    uint64_t hash = mix(policy_seed ^ mix((uint64_t)query->ssid << 32 | query->tsid) ^ query->tclass);

    query->allowed = query->tclass == PM_CLASS_MACH_TASK ? UINT32_MAX : ~(chance(&hash) & chance(&hash));
    query->auditallow = chance(&hash);
    query->auditdeny = ~chance(&hash);
    query->report = tabled ? 0 : chance(&hash) & chance(&hash);
    query->uncached = tabled ? 0 : chance(&hash) & 1;
    query->code = 0;
}

static int decide(void *context, struct pm_query *queries, size_t count, uint32_t epoch)
{
    (void)context, (void)epoch;
    for (size_t i = 0; i < count; i++)
        answer(&queries[i]);
    return 0;
}

/* The answers about ports as rules, a kind for each label; what else is asked is not in the tables. */
static void load_tables(const struct world *world)
{
    static const uint32_t none[LABELS + 1], seen[] = { 1, 0, 0, 0, 7, 7, 7, 0, 0, 0 };
    static const uint8_t known[] = { 0, PM_CLASS_MACH_PORT };
    static const struct pm_native_class classes[2];
    struct pm_native_rule rules[LABELS * LABELS];
    struct pm_native_module module = { .rules = rules, .rules_count = LABELS * LABELS, .classes = classes, .groups_first = none,
                                       .groups = none, .kinds = LABELS, .numbers = LABELS, .sets_first = none, .sets = none };
    struct pm_native tables = { .modules = &module, .modules_count = 1, .known = known, .classes_count = 2 };

    for (uint32_t i = 0; i < LABELS * LABELS; i++) {
        struct pm_query query = { .ssid = world->sids[i / LABELS], .tsid = world->sids[i % LABELS], .tclass = PM_CLASS_MACH_PORT };
        answer(&query);
        rules[i] = (struct pm_native_rule){ i / LABELS, i % LABELS, PM_CLASS_MACH_PORT, query.allowed, query.auditallow,
                                            ~query.auditdeny, 0 };
    }
    tables.epoch = pm_kernel_epoch(world->kernel);
    assert(pm_kernel_set_native(world->kernel, &tables) == 0);
    for (uint32_t i = 0; i < LABELS; i++) {
        uint32_t words[10];
        memcpy(words, seen, sizeof words);
        words[1] = i;
        assert(pm_sid_set_values(world->kernel, world->sids[i], tables.epoch, words, 10) == 0);
    }
}

/* ---- both worlds, in step ---- */

#define EACH(world) for (struct world *world = worlds; world < worlds + 2; world++)

static struct pm_task *make_task(struct world *world, uint32_t number)
{
    struct pm_task *task;
    char name[16];

    snprintf(name, sizeof name, "task%u", number);
    assert(pm_task_create(world->kernel, NULL, name, world->sids[number], NULL, NULL, &task) == 0);
    return task;
}

static void make_port(uint32_t port)
{
    uint32_t owner = port % 2, label = draw(LABELS), qlimit = draw(4) ? 1 + draw(6) : BATCH;

    EACH(world) {
        struct pm_port_options options = { .flags = MPO_QLIMIT, .qlimit = qlimit, .sid = world->sids[label],
                                           .trace_number = -1 };
        int64_t name = pm_port_construct(world->tasks[owner], world->tasks[owner], &options);
        world->receive[port] = name > 0 ? (uint32_t)name : 0; /* the policy may refuse the label */
        for (uint32_t task = 0; task < TASKS; task++) {
            int64_t send = pm_port_transfer(world->tasks[owner], world->receive[port], MACH_MSG_TYPE_MAKE_SEND,
                                            world->tasks[task]);
            world->send[task][port] = send > 0 ? (uint32_t)send : 0;
        }
    }
    assert(!memcmp(worlds[0].send, worlds[1].send, sizeof worlds[0].send));
    assert(!memcmp(worlds[0].receive, worlds[1].receive, sizeof worlds[0].receive));
}

static void make_worlds(void)
{
    static const uint8_t holes[5] = { 2 };

    EACH(world) {
        struct pm_config config = { .clock = PM_CLOCK_SIMULATED, .no_fast_path = world == worlds, .seed = 1,
                                    .audit_records = 64, .trace_paths = 16, .avc_entries = world == worlds ? 0 : 8 };
        assert(pm_kernel_create(&config, &world->kernel) == 0);
        for (uint32_t i = 0; i < LABELS; i++) {
            char text[16];
            int length = snprintf(text, sizeof text, "l/%u", i);
            world->sids[i] = (uint32_t)pm_sid_intern(world->kernel, NULL, text, (size_t)length);
        }
        for (uint32_t i = 0; i < TASKS; i++)
            world->tasks[i] = make_task(world, i);
        assert(pm_kernel_set_decider(world->kernel, decide, NULL) == 0);
        assert(pm_interface_create(world->kernel, 0, 5, 0, NULL) == 1);
        assert(pm_interface_create(world->kernel, 1, 40, PM_INTERFACE_ALLOW_UNKNOWN, holes) == 2);
    }
    for (uint32_t port = 0; port < PORTS; port++)
        make_port(port);
}

static void step_send(void)
{
    uint32_t task = draw(TASKS), port = draw(PORTS), size = draw(8) ? draw(160) : draw(4) ? draw(3000) : draw(BODY_MAX);
    uint32_t name = draw(50) ? worlds[0].send[task][port] : draw(1000);
    int32_t id = (int32_t)draw(5);
    char body[BODY_MAX];
    int codes[2];

    memset(body, (int)draw(256), size);
    for (int i = 0; i < 2; i++)
        codes[i] = pm_send(worlds[i].tasks[task], name, size ? body : NULL, size, id, NULL);
    assert(codes[0] == codes[1]);
}

/* What the fast path must leave to the other: a right, a reply port, another label, a send-once right. */
static void step_letter(void)
{
    uint32_t task = draw(TASKS), port = draw(PORTS), carried = draw(PORTS), label = draw(LABELS), what = draw(4);
    int codes[2];

    for (int i = 0; i < 2; i++) {
        struct world *world = &worlds[i];
        struct pm_right right = { world->send[task][carried], MACH_MSG_TYPE_COPY_SEND };
        struct pm_send_spec spec = { .dest = world->send[task][port], .msgh_id = 3, .body = "letter", .size = 6 };
        if (what == 0)
            spec.rights = &right, spec.rights_count = 1;
        if (what == 1)
            spec.reply = right.name, spec.reply_disposition = right.disposition;
        if (what == 2)
            spec.effective_sid = world->sids[label];
        if (what == 3) {
            int64_t once = pm_port_transfer(world->tasks[port % 2], world->receive[port], MACH_MSG_TYPE_MAKE_SEND_ONCE,
                                            world->tasks[task]);
            spec.dest = once > 0 ? (uint32_t)once : 0;
        }
        codes[i] = pm_send_message(world->tasks[task], &spec, NULL);
    }
    assert(codes[0] == codes[1]);
}

static void step_receive(void)
{
    uint32_t port = draw(PORTS), capacity = draw(6) ? BODY_MAX : draw(120);
    char bodies[2][BODY_MAX];
    int64_t sizes[2];

    for (int i = 0; i < 2; i++)
        sizes[i] = pm_receive(worlds[i].tasks[port % 2], worlds[i].receive[port], bodies[i], capacity, NULL);
    assert(sizes[0] == sizes[1]);
    assert(sizes[0] < 0 || !memcmp(bodies[0], bodies[1], (size_t)sizes[0]));
}

static struct pm_message *kept[2];

static void free_kept(void)
{
    for (int i = 0; i < 2; i++) {
        pm_message_free(kept[i]);
        kept[i] = NULL;
    }
}

static int same_received(const struct pm_received *a, const struct pm_received *b)
{
    return a->msgh_id == b->msgh_id && a->seqno == b->seqno && a->size == b->size && a->local == b->local &&
           a->reply == b->reply && a->reply_disposition == b->reply_disposition && a->sender_sid == b->sender_sid &&
           a->real_sid == b->real_sid && a->sender_task == b->sender_task && a->access == b->access &&
           a->method == b->method && a->tclass == b->tclass && a->permission == b->permission && a->rights_count == b->rights_count && a->memory_count == b->memory_count &&
           a->denied == b->denied && a->voucher == b->voucher && a->transfer == b->transfer &&
           a->context == b->context && !memcmp(&a->identity, &b->identity, sizeof a->identity) &&
           !memcmp(a->body, b->body, a->size);
}

/* As a message, which is kept for a while: its sender may change its label or go on sending meanwhile. */
static void step_receive_message(void)
{
    uint32_t port = draw(PORTS), label = draw(20);
    struct pm_received received[2];
    int codes[2];

    free_kept();
    for (int i = 0; i < 2; i++) {
        struct pm_task *task = worlds[i].tasks[port % 2];
        uint32_t sid = label < LABELS ? worlds[i].sids[label] : 0;
        received[i].message = NULL;
        codes[i] = pm_receive_message(task, worlds[i].receive[port], sid, &received[i], NULL);
        kept[i] = received[i].message;
        if (kept[i])
            pm_message_refuse(task, &received[i]);
    }
    assert(codes[0] == codes[1] && !kept[0] == !kept[1]);
    assert(!kept[0] || same_received(&received[0], &received[1]));
}

/* ---- many at once in one world, one at a time in the other ---- */

#define DATA (BATCH * 64)

static struct pm_submission drawn_operation(void)
{
    static const uint32_t carried[] = { 0, 0, 0, MACH_MSG_TYPE_COPY_SEND, MACH_MSG_TYPE_MAKE_SEND_ONCE };
    const struct world *world = &worlds[0];
    uint32_t port = draw(PORTS), task = draw(TASKS), receives = draw(2), own = port % 2;
    uint32_t name = receives ? world->receive[port] : world->send[task][port];
    struct pm_submission op = { .op = draw(30) ? 1 + receives : draw(5), .name = draw(40) ? name : draw(2000),
                                .msgh_id = (int32_t)draw(5), .offset = draw(DATA + 30), .length = draw(60) ? draw(64) : draw(9000) };

    op.task = pm_task_id(world->tasks[receives ? own : task]) + (draw(60) ? 0 : draw(2000));
    op.reply = draw(8) ? 0 : world->receive[draw(PORTS)];
    op.disposition = receives ? 0 : carried[draw(5)];
    op.right = op.disposition == MACH_MSG_TYPE_COPY_SEND ? world->send[task][draw(PORTS)] : world->receive[draw(PORTS)];
    return op;
}

static void drop_what_came(const struct pm_submission *ops, uint32_t count)
{
    EACH(world)
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t j = 0; j < 2 && ops[i].op == PM_SUBMIT_RECEIVE && ops[i].sender; j++)
                pm_port_deallocate(world->tasks[ops[i].task - pm_task_id(world->tasks[0])],
                                   world->tasks[ops[i].task - pm_task_id(world->tasks[0])], j ? ops[i].reply : ops[i].right);
}

static void step_submit(void)
{
    static struct pm_submission ops[2][BATCH];
    static char data[2][DATA];
    uint32_t count = draw(41);
    int64_t done = 0;

    for (uint32_t i = 0; i < count; i++)
        ops[0][i] = ops[1][i] = drawn_operation();
    memset(data[0], (int)draw(256), DATA);
    memcpy(data[1], data[0], DATA);
    for (uint32_t i = 0; i < count; i++)
        done += pm_submit(worlds[0].kernel, &ops[0][i], 1, data[0], DATA);
    assert(pm_submit(worlds[1].kernel, ops[1], count, data[1], DATA) == done);
    assert(!memcmp(ops[0], ops[1], count * sizeof ops[0][0]));
    assert(!memcmp(data[0], data[1], DATA));
    drop_what_came(ops[0], count);
}

static void step_send_many(void)
{
    static char data[DATA];
    uint32_t task = draw(TASKS), port = draw(PORTS), sizes[BATCH], packed = draw(2);
    int32_t results[2][BATCH], ids[BATCH];
    int64_t sent[2] = { 0, 0 };
    struct pm_bodies many = { .data = data, .size = draw(20) ? DATA : draw(DATA), .stride = packed ? 0 : 64,
                              .count = draw(4) ? draw(12) : draw(BATCH), .sizes = sizes, .msgh_ids = draw(2) ? ids : NULL, .msgh_id = 2 };
    uint64_t offset = 0;
    int full = 0;

    memset(data, (int)draw(256), sizeof data);
    for (uint32_t i = 0; i < BATCH; i++)
        sizes[i] = draw(90) ? draw(65) : draw(2) ? 69 : draw(2600), ids[i] = (int32_t)draw(5);
    for (uint32_t i = 0; i < many.count; offset += packed ? sizes[i] : 64, i++) {
        int32_t id = many.msgh_ids ? ids[i] : 2;
        int holds = offset + sizes[i] <= many.size && (packed || sizes[i] <= 64);
        int32_t code = full ? MACH_SEND_TIMED_OUT : KERN_INVALID_ARGUMENT;
        if (!full && holds)
            code = pm_send(worlds[0].tasks[task], worlds[0].send[task][port], data + offset, sizes[i], id, NULL);
        full |= code == MACH_SEND_TIMED_OUT;
        sent[0] += code == 0;
        results[0][i] = code;
    }
    sent[1] = pm_send_many(worlds[1].tasks[task], worlds[1].send[task][port], &many, results[1]);
    assert(sent[0] == sent[1] && !memcmp(results[0], results[1], many.count * sizeof results[0][0]));
}

static int64_t received_many(struct world *world, uint32_t port, struct pm_room room)
{
    return pm_receive_many(world->tasks[port % 2], world->receive[port], &room);
}

/* A call for each message, until one says that there is no more to be had. */
static int64_t received_singly(struct world *world, uint32_t port, struct pm_room room)
{
    struct pm_room one = { .stride = room.stride, .size = room.stride, .count = 1 };
    uint64_t got = 0;

    for (; got < room.count; got++) {
        one.data = (char *)room.data + got * room.stride;
        one.results = room.results + got;
        if (received_many(world, port, one) == 0)
            break;
    }
    return (int64_t)got;
}

static void step_receive_many(void)
{
    static char data[2][BATCH * 2600];
    struct pm_result results[2][BATCH] = { 0 };
    uint32_t port = draw(PORTS), count = draw(2) ? draw(12) : BATCH;
    uint32_t stride = draw(3) ? 100 : 2600;
    struct pm_room rooms[2];
    int64_t got[2];

    for (int i = 0; i < 2; i++)
        rooms[i] = (struct pm_room){ .data = data[i], .size = sizeof data[i], .stride = stride, .count = count, .results = results[i] };
    got[0] = received_singly(&worlds[0], port, rooms[0]);
    got[1] = received_many(&worlds[1], port, rooms[1]);
    assert(got[0] == got[1] && !memcmp(results[0], results[1], sizeof results[0]));
    assert(!memcmp(data[0], data[1], sizeof data[0]));
}

static uint64_t called_singly(struct pm_task *task, const uint32_t names[2], struct pm_bodies bodies, struct pm_room room)
{
    const char *data = bodies.data;
    uint64_t count = bodies.count, at = 0;

    bodies.count = room.count = 1;
    bodies.size = bodies.stride, room.size = room.stride;
    for (; at < count; at++, room.results++) {
        bodies.data = data + at * bodies.stride;
        if (pm_call_many(task, names[0], names[1], &bodies, &room, 0, NULL) == 0)
            break;
        room.data = (char *)room.data + room.stride;
    }
    return at;
}

static void step_call_many(void)
{
    static char data[BATCH * 8], rooms[2][BATCH * 16];
    struct pm_result results[2][BATCH] = { 0 };
    uint32_t task = draw(2), port = draw(PORTS), answers = draw(PORTS / 2) * 2 + task, count = draw(BATCH);
    const struct pm_bodies bodies = { .data = data, .size = sizeof data, .stride = 8, .count = count, .msgh_id = (int32_t)draw(5) };
    int64_t reached[2];

    memset(data, (int)draw(256), sizeof data);
    for (int i = 0; i < 2; i++) {
        const struct world *world = &worlds[i];
        const uint32_t names[2] = { world->send[task][port], world->receive[answers] };
        const struct pm_room room = { .data = rooms[i], .size = sizeof rooms[i], .stride = 16, .count = count, .results = results[i] };
        reached[i] = i ? pm_call_many(world->tasks[task], names[0], names[1], &bodies, &room, 0, NULL)
                       : (int64_t)called_singly(world->tasks[task], names, bodies, room);
    }
    assert(reached[0] == reached[1] && !memcmp(results[0], results[1], sizeof results[0]));
    assert(!memcmp(rooms[0], rooms[1], sizeof rooms[0]));
}

/* ---- what stands in the way of the fast paths ---- */

static void step_event(void)
{
    uint32_t port = draw(PORTS);
    int64_t fds[2];
    int ready[2];

    for (int i = 0; i < 2; i++) {
        fds[i] = pm_port_event_fd(worlds[i].tasks[port % 2], worlds[i].receive[port]);
        ready[i] = fds[i] < 0 ? (int)fds[i] : poll(&(struct pollfd){ .fd = (int)fds[i], .events = POLLIN }, 1, 0);
    }
    assert(ready[0] == ready[1]);
}

/* What handlers do to others, and to what they are called from. */
static void meddle(struct world *world, uint32_t port, uint64_t hash)
{
    static const char data[24];
    struct pm_bodies many = { .data = data, .size = sizeof data, .stride = 8, .count = 3 };
    struct pm_task *owner = world->tasks[port % 2], *other = world->tasks[2];
    uint32_t next = (uint32_t)(hash >> 8) % PORTS;
    int32_t codes[3];

    switch (hash % 16) {
    case 0: pm_send(owner, world->send[port % 2][next], data, 8, 2, NULL); break;
    case 1: pm_send_many(owner, world->send[port % 2][next], &many, codes); break;
    case 2: pm_port_mod_refs(owner, owner, world->receive[port], MACH_PORT_RIGHT_RECEIVE, -1); break;
    case 3: pm_task_relabel(other, other, world->sids[next]); break;
    case 4: pm_kernel_set_policy(world->kernel, PM_POLICY_LOADED); break;
    case 5: pm_port_set_handler(owner, owner, world->receive[port], NULL, NULL, 0); break;
    case 6: pm_task_terminate(other, other); break;
    default: break;
    }
}

struct place { struct world *world; uint32_t port; };
static struct place places[2][PORTS];

static int handle(void *context, struct pm_received *received)
{
    struct place *place = context;
    struct world *world = place->world;
    uint64_t hash = mix(received->transfer ^ received->size << 20 ^ (uint32_t)received->msgh_id);

    world->handled = mix(world->handled ^ hash ^ received->seqno ^ received->sender_task ^ received->access);
    if (received->reply && hash & 64) {
        struct pm_send_spec answer = { .dest = received->reply, .body = "answer", .size = 6 };
        pm_send_message(world->tasks[place->port % 2], &answer, NULL);
    }
    if (world->depth++ < 2)
        meddle(world, place->port, hash);
    world->depth--;
    return hash % 5 == 0;
}

static void step_handler(void)
{
    uint32_t port = draw(PORTS), on = draw(3);
    int codes[2];

    for (int i = 0; i < 2; i++) {
        struct pm_task *owner = worlds[i].tasks[port % 2];
        places[i][port] = (struct place){ &worlds[i], port };
        codes[i] = pm_port_set_handler(owner, owner, worlds[i].receive[port], on ? NULL : handle, &places[i][port], 0);
    }
    assert(codes[0] == codes[1]);
    assert(worlds[0].handled == worlds[1].handled);
}

static void step_set(void)
{
    uint32_t port = draw(PORTS), what = draw(6);
    char bodies[2][BODY_MAX];
    int64_t results[2];

    for (int i = 0; i < 2; i++) {
        struct world *world = &worlds[i];
        struct pm_task *owner = world->tasks[port % 2];
        uint32_t name = world->receive[port], set = world->sets[port % 2];
        memset(bodies[i], 0, sizeof bodies[i]);
        if (!set)
            world->sets[port % 2] = (uint32_t)(results[i] = pm_port_allocate(owner, owner, MACH_PORT_RIGHT_PORT_SET, 0));
        else
            results[i] = what == 0   ? pm_port_insert_member(owner, owner, name, set)
                         : what == 1 ? pm_port_extract_member(owner, owner, name, set)
                                     : pm_receive(owner, set, bodies[i], BODY_MAX, NULL);
    }
    assert(results[0] == results[1] && !memcmp(bodies[0], bodies[1], BODY_MAX));
}

/* Its senders have dead names from then on. */
static void step_death(void)
{
    uint32_t port = draw(PORTS);
    int codes[2];

    for (int i = 0; i < 2; i++) {
        struct pm_task *owner = worlds[i].tasks[port % 2];
        codes[i] = pm_port_mod_refs(owner, owner, worlds[i].receive[port], MACH_PORT_RIGHT_RECEIVE, -1);
    }
    assert(codes[0] == codes[1]);
}

/* Who has a send right asks to be told that its port died, or that there is room again. */
static void step_request(void)
{
    uint32_t task = draw(2), port = draw(PORTS), to = draw(PORTS / 2) * 2 + task, sync = draw(2);
    uint32_t id = draw(2) ? MACH_NOTIFY_DEAD_NAME : MACH_NOTIFY_SEND_POSSIBLE;
    int64_t previous[2];

    for (int i = 0; i < 2; i++) {
        struct world *world = &worlds[i];
        previous[i] = pm_port_request_notification(world->tasks[task], world->tasks[task], world->send[task][port], id, sync,
                                                   world->receive[to], MACH_MSG_TYPE_MAKE_SEND_ONCE);
    }
    assert(previous[0] == previous[1]);
}

/* A receive right goes along, and with it perhaps messages, which it was sent before. */
static void step_moved_port(void)
{
    uint32_t task = draw(2), port = draw(PORTS), filled = draw(3);
    int codes[2];

    for (int i = 0; i < 2; i++) {
        struct pm_task *sender = worlds[i].tasks[task];
        struct pm_port_options options = { .flags = MPO_INSERT_SEND_RIGHT, .sid = worlds[i].sids[port], .trace_number = -1 };
        int64_t name = pm_port_construct(sender, sender, &options);
        struct pm_right right = { name > 0 ? (uint32_t)name : 0, MACH_MSG_TYPE_MOVE_RECEIVE };
        struct pm_send_spec spec = { .dest = worlds[i].send[task][port], .body = "moved", .size = 5,
                                     .rights = &right, .rights_count = 1 };
        for (uint32_t j = 0; j < filled; j++)
            pm_send(sender, right.name, "inside", 6, 1, NULL);
        codes[i] = pm_send_message(sender, &spec, NULL);
        if (codes[i])
            pm_port_destroy(sender, sender, right.name);
    }
    assert(codes[0] == codes[1]);
}

/* As it stands on the wire: also with a type of a reply that there is none of. */
static void step_wire(void)
{
    uint32_t task = draw(TASKS), port = draw(PORTS), type = draw(3) ? 0 : MACH_MSG_TYPE_MAKE_SEND_ONCE, dead = draw(4) == 0;
    int codes[2];

    for (int i = 0; i < 2; i++) {
        uint32_t message[] = { MACH_MSG_TYPE_COPY_SEND | type << 8, 28, worlds[i].send[task][port],
                               dead ? MACH_PORT_DEAD : 0, 0, 4, 7 };
        codes[i] = pm_mach_msg(worlds[i].tasks[task], message, MACH_SEND_MSG | MACH_SEND_TIMEOUT, 28, 0, 0, 0, NULL);
    }
    assert(codes[0] == codes[1]);
}

static void step_watch(void)
{
    uint32_t place = draw(WATCHES), granted = draw(2) ? draw(UINT32_MAX) : 0, denied = draw(UINT32_MAX), what = draw(4);
    uint32_t numbers[2][2], kind = draw(2);

    for (int i = 0; i < 2; i++) {
        struct world *world = &worlds[i];
        uint64_t *known = &world->watches[place];
        numbers[i][0] = kind ? world->sids[1] : 1, numbers[i][1] = kind ? world->sids[2] : 3;
        if (!*known)
            *known = (uint64_t)pm_watch_open(world->kernel, 32);
        else if (what == 0)
            assert(pm_watch_close(world->kernel, *known) == 0), *known = 0;
        else if (what == 1)
            assert(pm_watch_leave_out(world->kernel, *known, kind, numbers[i], 2) == 0);
        else
            assert(pm_watch_select(world->kernel, *known, 0, granted, denied) == 0);
    }
}

static void step_watched(void)
{
    static struct pm_audit_record records[2][32];
    uint32_t place = draw(WATCHES), receivers[2][32];
    uint64_t lost[2] = { 0, 0 };
    int64_t count[2];

    if (!worlds[0].watches[place])
        return;
    for (int i = 0; i < 2; i++)
        count[i] = pm_watch_drain(worlds[i].kernel, worlds[i].watches[place], records[i], receivers[i], 32, &lost[i]);
    assert(count[0] == count[1] && lost[0] == lost[1]);
    assert(!memcmp(records[0], records[1], (size_t)count[0] * sizeof records[0][0]));
    assert(!memcmp(receivers[0], receivers[1], (size_t)count[0] * sizeof receivers[0][0]));
}

/* ---- what changes who may do what, and what is recorded ---- */

static void step_policy(void)
{
    uint32_t flags = draw(8) ? PM_POLICY_LOADED | (draw(4) ? 0 : PM_POLICY_PERMISSIVE) : 0;

    policy_seed = draw(UINT32_MAX);
    strict = draw(3) ? (int)draw(30) : 0;
    tabled = draw(2) == 0;
    EACH(world)
        assert(pm_kernel_set_policy(world->kernel, flags) == 0);
    if (tabled)
        load_tables(&worlds[1]);
}

static void step_audit(void)
{
    uint32_t granted = draw(3) ? draw(UINT32_MAX) | draw(UINT32_MAX) : draw(2) ? UINT32_MAX : 0, denied = draw(UINT32_MAX);
    int everything = draw(2) == 0, full = draw(2) ? PM_AUDIT_DROP : PM_AUDIT_FAIL;

    EACH(world) {
        assert(pm_audit_select(world->kernel, 0, granted, denied) == 0);
        assert(pm_audit_options(world->kernel, everything, 1, full, 0) == 0);
    }
}

/* Who is recorded beside: by label, task and operation, each or none of it. */
static void step_rule(void)
{
    static const char labels[] = "l/[0-9]\0l/1\0l/2\0*/5", tasks[] = "task1\0*3";
    const uint32_t place = draw(RULES), granted = draw(UINT32_MAX), denied = draw(UINT32_MAX), tclass = draw(3);
    const uint32_t number = 1 + draw(9);
    const struct pm_audit_rule rule = {
        .labels = labels, .labels_size = draw(2) ? sizeof labels : 0, .tasks = tasks, .tasks_size = draw(3) ? 0 : sizeof tasks,
        .numbers = &number, .numbers_count = draw(3) == 0, .operations = draw(2) ? 0 : draw(UINT32_MAX) };
    int remove = worlds[0].rules[place] && draw(2);

    EACH(world) {
        uint64_t *known = &world->rules[place];
        if (remove)
            assert(pm_audit_rule_remove(world->kernel, *known) == 0);
        if (remove || !*known)
            *known = remove ? 0 : (uint64_t)pm_audit_rule_add(world->kernel, &rule);
        assert(remove || pm_audit_rule_select(world->kernel, *known, tclass, granted, denied) == 0);
    }
}

static void step_sample(void)
{
    const struct pm_audit_sampling sampling = { .budget = draw(2) ? 0 : 1 + draw(20), .period_ns = 1 + draw(2000), .seed = draw(100),
                                                .one_in = 1 + draw(9), .strata = 1 + draw(60), .by_message = draw(2) };
    int on = draw(3) != 0;

    EACH(world)
        assert(pm_audit_sample(world->kernel, on ? &sampling : NULL) == 0);
}

/* Nothing is refused, recorded or traced for a while: what goes by the shortest path is then most of it. */
static void step_quiet(void)
{
    uint32_t flags = draw(2) ? PM_POLICY_LOADED : 0;

    policy_seed = draw(UINT32_MAX);
    strict = 0;
    EACH(world) {
        assert(pm_kernel_set_policy(world->kernel, flags) == 0);
        assert(pm_audit_select(world->kernel, 0, 0, 0) == 0);
        assert(pm_trace_stop(world->kernel) == 0);
        for (uint32_t place = 0; place < RULES; place++, world->rules[place - 1] = 0)
            assert(!world->rules[place] || pm_audit_rule_remove(world->kernel, world->rules[place]) == 0);
    }
}

static void step_halt(void)
{
    int halted = draw(4) == 0;

    EACH(world)
        assert(pm_audit_halt(world->kernel, halted) == 0);
}

static void compare_strata(void)
{
    static struct pm_audit_stratum rows[2][64];
    int64_t count[2];

    for (int i = 0; i < 2; i++)
        count[i] = pm_audit_strata(worlds[i].kernel, rows[i], 64);
    assert(count[0] == count[1] && count[0] <= 64);
    assert(!memcmp(rows[0], rows[1], (size_t)count[0] * sizeof rows[0][0]));
}

static void step_drain(void)
{
    static struct pm_audit_record records[2][64];
    size_t capacity = 1 + draw(64);
    int64_t count[2];

    for (int i = 0; i < 2; i++)
        count[i] = pm_audit_drain(worlds[i].kernel, records[i], capacity);
    assert(count[0] == count[1]);
    assert(!memcmp(records[0], records[1], (size_t)count[0] * sizeof records[0][0]));
}

static void step_trace(void)
{
    static struct pm_trace_record records[2][512];
    int64_t count[2];
    uint32_t what = draw(4);

    for (int i = 0; i < 2; i++) {
        struct pm_kernel *kernel = worlds[i].kernel;
        assert((what == 0 ? pm_trace_start(kernel) : what == 1 ? pm_trace_stop(kernel) : 0) == 0);
        assert(what != 2 || pm_trace_reset(kernel) == 0);
        count[i] = pm_trace_read(kernel, 0, records[i], 512);
    }
    assert(count[0] == count[1] && count[0] <= 512);
    assert(!memcmp(records[0], records[1], (size_t)count[0] * sizeof records[0][0]));
}

static void step_relabel(void)
{
    uint32_t task = draw(TASKS), port = draw(PORTS), label = draw(LABELS), what = draw(2);
    int codes[2];

    for (int i = 0; i < 2; i++) {
        struct world *world = &worlds[i];
        struct pm_task *owner = world->tasks[port % 2];
        codes[i] = what ? pm_task_relabel(world->tasks[task], world->tasks[task], world->sids[label])
                        : pm_port_relabel(owner, owner, world->receive[port], world->sids[label]);
    }
    assert(codes[0] == codes[1]);
}

static void step_port(void)
{
    uint32_t port = draw(PORTS);
    int codes[2];

    for (int i = 0; i < 2; i++) {
        struct pm_task *owner = worlds[i].tasks[port % 2];
        codes[i] = pm_port_mod_refs(owner, owner, worlds[i].receive[port], MACH_PORT_RIGHT_RECEIVE, -1);
        for (uint32_t task = 0; task < TASKS; task++)
            pm_port_deallocate(worlds[i].tasks[task], worlds[i].tasks[task], worlds[i].send[task][port]);
    }
    assert(codes[0] == codes[1]);
    make_port(port);
}

/* What a port is sent from then on asks for routines of its interface, or for none; what is queued is judged again. */
static void step_interface(void)
{
    uint32_t port = draw(PORTS), interface = draw(3);
    int codes[2];

    for (int i = 0; i < 2; i++) {
        struct pm_task *owner = worlds[i].tasks[port % 2];
        codes[i] = pm_port_set_interface(owner, owner, worlds[i].receive[port], interface);
    }
    assert(codes[0] == codes[1]);
}

/* A strict guard hides the context from who receives. */
static void step_context(void)
{
    uint32_t port = draw(PORTS), what = draw(3);
    int codes[2];

    for (int i = 0; i < 2; i++) {
        struct pm_task *owner = worlds[i].tasks[port % 2];
        uint32_t name = worlds[i].receive[port];
        codes[i] = what == 0   ? pm_port_set_context(owner, owner, name, 7)
                   : what == 1 ? pm_port_guard(owner, owner, name, 7, MPG_STRICT)
                               : pm_port_unguard(owner, owner, name, 7);
    }
    assert(codes[0] == codes[1]);
}

/* A sender ends while its messages are queued; another takes its place. */
static void step_task(void)
{
    uint32_t number = 2 + draw(TASKS - 2);

    EACH(world) {
        struct pm_task **task = &world->tasks[number];
        assert(!pm_task_alive(*task) || pm_task_terminate(*task, *task) == 0);
        pm_task_release(*task);
        *task = make_task(world, number);
        memset(world->send[number], 0, sizeof world->send[number]);
        for (uint32_t port = 0; port < PORTS; port++) {
            int64_t send = pm_port_transfer(world->tasks[port % 2], world->receive[port], MACH_MSG_TYPE_MAKE_SEND, *task);
            world->send[number][port] = send > 0 ? (uint32_t)send : 0;
        }
    }
    assert(!memcmp(worlds[0].send, worlds[1].send, sizeof worlds[0].send));
}

/* Whoever sends next, on whatever path, tells the owner of it. */
static void step_message(void)
{
    uint32_t port = draw(PORTS), other = (port + 2) % PORTS;
    int64_t previous[2];

    for (int i = 0; i < 2; i++) {
        struct pm_task *owner = worlds[i].tasks[port % 2];
        previous[i] = pm_port_request_notification(owner, owner, worlds[i].receive[port], PM_NOTIFY_MESSAGE, 1,
                                                   worlds[i].receive[other], MACH_MSG_TYPE_MAKE_SEND_ONCE);
    }
    assert(previous[0] == previous[1]);
}

/* The last send right may be that of the message which is received: its owner is told, on another port. */
static void step_no_senders(void)
{
    uint32_t port = draw(PORTS), other = (port + 2) % PORTS;
    int64_t previous[2];

    for (int i = 0; i < 2; i++) {
        struct world *world = &worlds[i];
        struct pm_task *owner = world->tasks[port % 2];
        previous[i] = pm_port_request_notification(owner, owner, world->receive[port], MACH_NOTIFY_NO_SENDERS, 0,
                                                   world->receive[other], MACH_MSG_TYPE_MAKE_SEND_ONCE);
        for (uint32_t task = 0; task < TASKS; task++) {
            pm_port_deallocate(world->tasks[task], world->tasks[task], world->send[task][port]);
            world->send[task][port] = 0;
        }
    }
    assert(previous[0] == previous[1]);
}

static void step_quota(void)
{
    uint32_t task = draw(TASKS);
    struct pm_quota quota = { .queued_bytes = draw(3) ? 0 : 200 };

    EACH(world)
        assert(pm_task_set_quota(world->tasks[task], &quota) == 0);
}

static void step_clock(void)
{
    now_ns += draw(1000);
    EACH(world)
        assert(pm_kernel_set_time(world->kernel, now_ns) == 0);
}

/* What both paths count alike. How a decision was come by is their own affair. */
static void compare_stats(void)
{
    struct pm_stats stats[2];

    for (int i = 0; i < 2; i++) {
        struct pm_stats *s = &stats[i];
        assert(pm_kernel_stats(worlds[i].kernel, s) == 0);
        s->checks_avc = s->misses = s->decider_calls = s->avc_inserts = s->memory = 0;
        s->avc_evictions = s->avc_refused = s->avc_entries = 0;
        s->native = s->native_decisions = s->native_labels = s->native_memory = s->memory_mac = s->memory_labels = 0;
    }
    assert(!memcmp(&stats[0], &stats[1], sizeof stats[0]));
}

static void compare(void)
{
    char report[4096];

    compare_stats();
    compare_strata();
    EACH(world) {
        int faults = pm_kernel_verify(world->kernel, report, sizeof report);
        if (faults)
            fprintf(stderr, "%s", report);
        assert(faults == 0);
    }
}

static const struct {
    uint32_t weight;
    void (*step)(void);
} steps[] = { { 600, step_send },   { 400, step_receive }, { 200, step_receive_message },
              { 60, step_submit },  { 40, step_send_many }, { 90, step_receive_many },
              { 60, step_letter },  { 60, step_context },  { 40, step_drain },
              { 6, step_relabel }, { 12, step_clock },    { 8, step_audit },
              { 6, step_policy },   { 6, step_trace },     { 30, step_port },
              { 3, step_quota },    { 8, step_task },     { 2, step_no_senders },
              { 6, step_message },  { 8, step_rule },      { 4, step_sample },
              { 4, step_halt },     { 8, step_interface }, { 8, step_handler },
              { 30, step_set },     { 2, step_death },     { 10, step_request },
              { 10, step_moved_port }, { 30, step_wire },  { 4, step_watch },
              { 30, step_watched }, { 10, step_call_many }, { 8, step_event },
              { 20, step_quiet },      { 3, compare } };

/* With everything gone the worlds still count alike: no path has kept a label, or let one go. */
static void end_worlds(void)
{
    EACH(world) {
        for (uint32_t i = 0; i < TASKS; i++) {
            assert(!pm_task_alive(world->tasks[i]) || pm_task_terminate(world->tasks[i], world->tasks[i]) == 0);
            pm_task_release(world->tasks[i]);
        }
        for (uint32_t i = 0; i < LABELS; i++)
            assert(pm_sid_release(world->kernel, world->sids[i]) == 0);
    }
    compare();
    EACH(world)
        pm_kernel_destroy(world->kernel);
}

static void step(void)
{
    uint32_t total = 0, at = 0;

    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        total += steps[i].weight;
    total = draw(total);
    while (total >= steps[at].weight)
        total -= steps[at++].weight;
    steps[at].step();
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    uint32_t count = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : 100000;

    state = seed;
    make_worlds();
    for (uint32_t i = 0; i < count; i++)
        step();
    free_kept();
    compare();
    end_worlds();
    return 0;
}
