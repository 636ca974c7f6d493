/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is asked of whom, once, and what a refusal costs. The decider denies exactly one permission of one pair of labels; every
 * permission of the class is tried at every place, so a check that asks another's permission is found (SEDarwin asked copy_send
 * for move_send, XNU for move_send_once as well).
 */
#include "scene.h"

#include <stdbool.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define P(permission) PM_MACH_PORT__##permission
#define T(permission) PM_MACH_TASK__##permission
#define TAKE_REFUSED (MACH_RCV_BODY_ERROR | MACH_MSG_IPC_SPACE)

enum label { CLIENT, SERVER, TARGET, REPLY, BODY, MASK, LABELS };

static struct pm_kernel *kernel;
static struct pm_task *client, *server;
static uint32_t sids[LABELS], target, right, reply;

/* ---- the decider ---- */

struct denial { uint32_t ssid, tsid, tclass, bits; };
static struct denial denials[8];
static size_t denials_used, calls, asked_used;
static struct pm_query asked[64];
static uint32_t all_uncached, relabel_report, chosen;
static int32_t relabel_code;
static void (*meanwhile)(void); /* what else the decider does */

static uint32_t denied_of(const struct pm_query *query) {
    uint32_t bits = 0;
    for (size_t i = 0; i < denials_used; i++) {
        const struct denial *denial = &denials[i];
        if (denial->ssid == query->ssid && denial->tsid == query->tsid && denial->tclass == query->tclass) bits |= denial->bits;
    }
    return bits;
}

static int decide(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)context, (void)epoch;
    calls++;
    for (size_t i = 0; i < count; i++) {
        if (asked_used < COUNT(asked)) asked[asked_used++] = queries[i];
        queries[i].allowed = ~denied_of(&queries[i]);
        queries[i].uncached = all_uncached;
        queries[i].code = queries[i].kind == PM_QUERY_RELABEL ? relabel_code : 0;
        if (queries[i].kind == PM_QUERY_RELABEL) queries[i].report = relabel_report;
        if (queries[i].kind == PM_QUERY_LABEL_PORT) queries[i].label = chosen;
    }
    if (meanwhile) meanwhile();
    return 0;
}

static void set_policy(uint32_t flags) {
    assert(pm_kernel_set_policy(kernel, flags) == 0);
    calls = asked_used = 0;
}

static void deny(enum label source, enum label object, uint32_t tclass, uint32_t bits) {
    denials[denials_used++] = (struct denial){sids[source], sids[object], tclass, bits};
}

static void deny_only(enum label source, enum label object, uint32_t tclass, uint32_t bits) {
    denials_used = 0;
    deny(source, object, tclass, bits);
    set_policy(PM_POLICY_LOADED);
}

static void deny_nothing(void) {
    denials_used = 0;
    set_policy(PM_POLICY_LOADED);
}

/* ---- the scene: a client with a reply port, a server with a port; labels all differ ---- */

static uint32_t make_port(struct pm_task *task, enum label label) {
    const struct pm_port_options options = {.flags = MPO_QLIMIT, .qlimit = 100, .sid = sids[label], .trace_number = -1};
    int64_t name = pm_port_construct(task, task, &options);
    assert(name > 0);
    return (uint32_t)name;
}

static void open_scene(void) {
    static const char *const labels[LABELS] = {"te/client", "te/server", "te/target", "te/reply", "te/body", "te/mask"};
    assert(pm_kernel_create(NULL, &kernel) == 0);
    for (size_t i = 0; i < LABELS; i++) sids[i] = sid_named(kernel, labels[i]);
    client = new_task(kernel, "client", sids[CLIENT]);
    server = new_task(kernel, "server", sids[SERVER]);
    assert(pm_kernel_set_decider(kernel, decide, NULL) == 0);
    denials_used = 0;
    all_uncached = relabel_report = chosen = 0;
    relabel_code = 0;
    meanwhile = NULL;
    target = make_port(server, TARGET);
    right = given(server, target, MACH_MSG_TYPE_MAKE_SEND, client);
    reply = make_port(client, REPLY);
}

static void close_scene(void) {
    expect_sound(kernel);
    pm_task_release(client);
    pm_task_release(server);
    pm_kernel_destroy(kernel);
}

/* ---- one message with everything: a reply right, a body right, memory ---- */

static void keep_memory(void *context) { (void)context; }

static struct pm_right body_right(uint32_t disposition) {
    uint32_t port = make_port(client, BODY), name = port;
    if (disposition == MACH_MSG_TYPE_MOVE_SEND || disposition == MACH_MSG_TYPE_COPY_SEND)
        name = given(client, port, MACH_MSG_TYPE_MAKE_SEND, client);
    if (disposition == MACH_MSG_TYPE_MOVE_SEND_ONCE) name = given(client, port, MACH_MSG_TYPE_MAKE_SEND_ONCE, client);
    return (struct pm_right){name, disposition};
}

static int send_everything(const struct pm_right *body, uint32_t effective) {
    const struct pm_memory memory = {"memory", 6, keep_memory, NULL};
    const struct pm_send_spec spec = {.dest = right, .reply = reply, .reply_disposition = MACH_MSG_TYPE_MAKE_SEND_ONCE,
                                      .msgh_id = 5, .rights = body, .rights_count = 1, .memory = &memory, .memory_count = 1,
                                      .effective_sid = effective};
    return pm_send_message(client, &spec, NULL);
}

static int receive_as(uint32_t effective, struct pm_received *received) {
    memset(received, 0, sizeof *received);
    return pm_receive_message(server, target, effective, received, NULL);
}

/* The reply right came to its end: its port is told so. */
static void expect_reply_told(void) {
    struct pm_received told;
    set_policy(0);
    assert(pm_receive_message(client, reply, 0, &told, NULL) == 0);
    assert(told.msgh_id == MACH_NOTIFY_SEND_ONCE && told.sender_task == 0);
    pm_message_free(told.message);
}

static void throw_away(struct pm_received *received) {
    for (uint32_t i = 0; i < received->rights_count; i++) pm_port_destroy(server, server, received->rights[i].name);
    if (received->reply) assert(pm_port_destroy(server, server, received->reply) == 0);
    expect_reply_told();
    pm_message_free(received->message);
}

/* Whatever was refused before, the message is there now, or is not. */
static void clean_up(bool queued) {
    struct pm_received received;
    set_policy(0);
    int code = receive_as(0, &received);
    assert(code == (queued ? 0 : MACH_RCV_TIMED_OUT));
    if (queued) throw_away(&received);
}

/* ---- each place asks for its own permissions and no other ---- */

struct place { enum label source, object; uint32_t bits; int send, receive; };
static const struct { uint32_t disposition, give, take; } dispositions[] = {
    {MACH_MSG_TYPE_MOVE_RECEIVE, P(move_recv), P(hold_recv)},
    {MACH_MSG_TYPE_MOVE_SEND, P(move_send), P(hold_send)},
    {MACH_MSG_TYPE_MOVE_SEND_ONCE, P(move_send_once), P(hold_send_once)},
    {MACH_MSG_TYPE_COPY_SEND, P(copy_send), P(hold_send)},
    {MACH_MSG_TYPE_MAKE_SEND, P(make_send), P(hold_send)},
    {MACH_MSG_TYPE_MAKE_SEND_ONCE, P(make_send_once), P(hold_send_once)},
};

static struct place expected_at(size_t disposition, enum label source, enum label object, uint32_t bit) {
    const struct place places[] = {
        {CLIENT, TARGET, P(send) | P(copy_send), MACH_SEND_INVALID_DEST, 0},
        {CLIENT, TARGET, P(carry_rights), MACH_SEND_NO_GRANT_DEST, 0},
        {CLIENT, TARGET, P(carry_memory), MACH_SEND_INVALID_MEMORY, 0},
        {CLIENT, REPLY, P(set_reply) | P(make_send_once), MACH_SEND_INVALID_REPLY, 0},
        {CLIENT, BODY, dispositions[disposition].give, MACH_SEND_INVALID_RIGHT, 0},
        {SERVER, TARGET, P(use_recv), 0, MACH_RCV_INVALID_NAME},
        {SERVER, CLIENT, P(recv), 0, MACH_RCV_INVALID_DATA},
        {SERVER, REPLY, P(hold_send_once), 0, TAKE_REFUSED},
        {SERVER, BODY, dispositions[disposition].take, 0, TAKE_REFUSED},
    };
    for (size_t i = 0; i < COUNT(places); i++)
        if (places[i].source == source && places[i].object == object && places[i].bits & bit) return places[i];
    return (struct place){source, object, bit, 0, 0};
}

static void expect(bool good, uint32_t disposition, const struct place *place, int code) {
    if (good) return;
    fprintf(stderr, "disposition %u, label %d to %d, bit %#x denied: %#x\n", disposition, place->source, place->object,
            place->bits, code);
    assert(false);
}

static void expect_received(uint32_t disposition, const struct place *place) {
    struct pm_received received;
    int code = receive_as(0, &received);
    expect(code == place->receive, disposition, place, code);
    if (code == 0 || code == TAKE_REFUSED) {
        assert(received.denied == (code != 0) && received.rights_count == 1);
        if (code) assert((place->object == REPLY ? received.reply : received.rights[0].name) == MACH_PORT_NULL);
        throw_away(&received);
    }
    if (code == MACH_RCV_INVALID_DATA) expect_reply_told();
    clean_up(code == MACH_RCV_INVALID_NAME);
}

static void try_one(size_t disposition, enum label source, enum label object, uint32_t bit) {
    struct place place = expected_at(disposition, source, object, bit);
    uint32_t value = dispositions[disposition].disposition;
    set_policy(0);
    struct pm_right body = body_right(value);
    deny_only(source, object, PM_CLASS_MACH_PORT, bit);
    int code = send_everything(&body, 0);
    expect(code == place.send, value, &place, code);
    if (code) clean_up(false);
    else expect_received(value, &place);
}

static void test_each_place_asks_for_its_own_permission(void) {
    static const enum label objects[] = {TARGET, REPLY, BODY, CLIENT, SERVER};
    for (size_t disposition = 0; disposition < COUNT(dispositions); disposition++)
        for (size_t object = 0; object < COUNT(objects); object++)
            for (uint32_t bit = 0; bit < 32; bit++) {
                try_one(disposition, CLIENT, objects[object], 1u << bit);
                try_one(disposition, SERVER, objects[object], 1u << bit);
            }
}

static int send_by(uint32_t name, uint32_t disposition) {
    const struct pm_send_spec spec = {.dest = name, .dest_disposition = disposition};
    return pm_send_message(client, &spec, NULL);
}

/* The destination's own disposition: a right is fresh for each, for some use it up. */
static void test_the_destination_asks_for_its_disposition(void) {
    for (size_t i = 1; i < COUNT(dispositions); i++)
        for (uint32_t bit = 0; bit < 32; bit++) {
            set_policy(0);
            struct pm_right dest = body_right(dispositions[i].disposition);
            deny_only(CLIENT, BODY, PM_CLASS_MACH_PORT, 1u << bit);
            bool refused = (dispositions[i].give | P(send)) & 1u << bit;
            assert(send_by(dest.name, dest.disposition) == (refused ? MACH_SEND_INVALID_DEST : 0));
        }
    set_policy(0);
}

static void test_an_effective_label_is_asked_first_and_then_asked_for(void) {
    struct pm_received received;
    set_policy(0);
    struct pm_right body = body_right(MACH_MSG_TYPE_MAKE_SEND);
    deny_only(CLIENT, MASK, PM_CLASS_MACH_PORT, P(specify));
    assert(send_everything(&body, sids[MASK]) == MACH_SEND_INVALID_DEST);
    deny_only(MASK, TARGET, PM_CLASS_MACH_PORT, P(send));
    assert(send_everything(&body, sids[MASK]) == MACH_SEND_INVALID_DEST);
    deny_only(CLIENT, TARGET, PM_CLASS_MACH_PORT, UINT32_MAX);
    assert(send_everything(&body, sids[MASK]) == 0);
    deny_only(SERVER, MASK, PM_CLASS_MACH_PORT, P(interpose));
    assert(receive_as(sids[MASK], &received) == MACH_RCV_INVALID_NAME);
    deny_only(SERVER, TARGET, PM_CLASS_MACH_PORT, UINT32_MAX);
    assert(receive_as(sids[MASK], &received) == 0);
    assert(received.sender_sid == sids[MASK] && received.real_sid == sids[CLIENT]);
    throw_away(&received);
    set_policy(0);
}

static void test_a_label_that_is_none_is_refused(void) {
    struct pm_right body = body_right(MACH_MSG_TYPE_MAKE_SEND);
    struct pm_received received;
    set_policy(0);
    assert(send_everything(&body, 12345) == KERN_INVALID_ARGUMENT);
    assert(receive_as(12345, &received) == KERN_INVALID_ARGUMENT);
}

static void test_methods_are_enforced_and_unknown_ones_refused(void) {
    int64_t interface = pm_interface_create(kernel, 400, 4, 0, (uint8_t[]){1u << 2});
    uint32_t tclass = (uint32_t)pm_interface_class(kernel, (uint32_t)interface);
    set_policy(0);
    assert(pm_port_set_interface(server, server, target, (uint32_t)interface) == 0);
    deny_only(CLIENT, TARGET, tclass, 2);
    assert(pm_send(client, right, "", 0, 400, NULL) == 0);
    assert(pm_send(client, right, "", 0, 401, NULL) == MACH_SEND_MSG_FILTERED);
    assert(pm_send(client, right, "", 0, 402, NULL) == MACH_SEND_MSG_FILTERED);    /* skipped: there is no such routine */
    assert(pm_send(client, right, "", 0, 403, NULL) == 0);
    assert(pm_send(client, right, "", 0, 404, NULL) == MACH_SEND_MSG_FILTERED);
    assert(pm_send(client, right, "", 0, 399, NULL) == MACH_SEND_MSG_FILTERED);
    for (int i = 0; i < 2; i++) assert(pm_receive(server, target, NULL, 0, NULL) == 0);
    set_policy(0);
    assert(pm_port_set_interface(server, server, target, 0) == 0);
}

/* All is refused; then one thing after the other is allowed. */
static void test_the_first_refusal_stands(void) {
    static const int codes[] = {MACH_SEND_INVALID_DEST, MACH_SEND_NO_GRANT_DEST, MACH_SEND_INVALID_MEMORY,
                                MACH_SEND_INVALID_REPLY, MACH_SEND_INVALID_RIGHT, 0};
    static const struct { enum label object; uint32_t bits; } refused[] = {
        {TARGET, P(send)}, {TARGET, P(carry_rights)}, {TARGET, P(carry_memory)}, {REPLY, P(set_reply)}, {BODY, P(make_send)}};
    set_policy(0);
    struct pm_right body = body_right(MACH_MSG_TYPE_MAKE_SEND);
    for (size_t allowed = 0; allowed < COUNT(codes); allowed++) {
        denials_used = 0;
        for (size_t i = allowed; i < COUNT(refused); i++) deny(CLIENT, refused[i].object, PM_CLASS_MACH_PORT, refused[i].bits);
        set_policy(PM_POLICY_LOADED);
        assert(send_everything(&body, 0) == codes[allowed]);
    }
    clean_up(true);
}

/* ---- how often is asked ---- */

static void expect_asked_once(size_t times) {
    assert(calls == times);
    for (size_t i = 0; i < asked_used; i++)
        for (size_t j = 0; j < i; j++)
            assert(asked[i].ssid != asked[j].ssid || asked[i].tsid != asked[j].tsid || asked[i].tclass != asked[j].tclass);
}

static void exchange_everything(size_t calls_each) {
    struct pm_received received;
    struct pm_right body = {make_port(client, BODY), MACH_MSG_TYPE_MAKE_SEND};
    calls = asked_used = 0;
    assert(send_everything(&body, 0) == 0);
    expect_asked_once(calls_each);
    calls = asked_used = 0;
    assert(receive_as(0, &received) == 0);
    expect_asked_once(calls_each);
    pm_message_free(received.message);
}

static void test_all_that_is_not_known_is_asked_at_once(void) {
    deny_nothing();
    exchange_everything(1);
    exchange_everything(0);
}

static void test_answers_that_may_not_be_kept_are_asked_for_each_time(void) {
    deny_nothing();
    all_uncached = 1;
    uint64_t inserts = stats_of(kernel).avc_inserts;
    exchange_everything(1);
    exchange_everything(1);
    assert(stats_of(kernel).avc_inserts == inserts);
    all_uncached = 0;
    set_policy(0);
}

/* ---- labels of send time ---- */

static void test_a_message_keeps_the_label_it_was_sent_under(void) {
    set_policy(0);
    assert(pm_send(client, right, "", 0, 1, NULL) == 0);
    assert(pm_task_relabel(client, client, sids[MASK]) == 0);
    assert(pm_send(client, right, "", 0, 2, NULL) == 0);
    deny_only(SERVER, CLIENT, PM_CLASS_MACH_PORT, P(recv));
    assert(pm_receive(server, target, NULL, 0, NULL) == -MACH_RCV_INVALID_DATA);
    assert(pm_receive(server, target, NULL, 0, NULL) == 0);
    set_policy(0);
    assert(pm_task_relabel(client, client, sids[CLIENT]) == 0);
}

/* ---- calls that are not messages ---- */

static uint32_t word[10], spare;
static int negated(int64_t result) { return result < 0 ? (int)-result : 0; }
#define CALL(name, call) static int name(void) { return (call); }
CALL(get_attributes, pm_port_get_attributes(server, server, target, MACH_PORT_RECEIVE_STATUS, word, &(uint32_t){10}))
CALL(set_attributes, pm_port_set_attributes(server, server, target, MACH_PORT_LIMITS_INFO, &(uint32_t){100}, 1))
CALL(set_seqno, pm_port_set_seqno(server, server, target, 0))
CALL(set_mscount, pm_port_set_mscount(server, server, target, 0))
CALL(set_context, pm_port_set_context(server, server, target, 0))
CALL(get_context, pm_port_get_context(server, server, target, &(uint64_t){0}))
CALL(set_interface, pm_port_set_interface(server, server, target, 0))
CALL(cancel_request, negated(pm_port_request_notification(server, server, target, MACH_NOTIFY_NO_SENDERS, 0, 0, 0)))
CALL(relabel_from, pm_port_relabel(server, server, target, sids[TARGET]))
CALL(observe_type, negated(pm_port_type(client, server, target)))
CALL(observe_names, negated(pm_port_names(client, server, NULL, NULL, 0)))
CALL(observe_refs, negated(pm_port_get_refs(client, server, target, MACH_PORT_RIGHT_SEND)))
CALL(allocate_there, negated(pm_port_allocate(client, server, MACH_PORT_RIGHT_DEAD_NAME, 0)))
CALL(insert_there, pm_port_insert_right(client, server, target, right, MACH_MSG_TYPE_COPY_SEND))
CALL(extract_there, negated(pm_port_extract_right(client, server, target, MACH_MSG_TYPE_MAKE_SEND, NULL)))
CALL(drop_there, pm_port_mod_refs(client, server, target, MACH_PORT_RIGHT_SEND, 0))
CALL(move_there, pm_port_move_member(client, server, target, spare))
CALL(set_special, pm_task_set_special_port(client, server, TASK_HOST_PORT, 0))
CALL(get_special, negated(pm_task_get_special_port(client, server, TASK_HOST_PORT)))
CALL(register_none, pm_ports_register(client, server, NULL, 0))
CALL(lookup_none, pm_ports_lookup(client, server, word, &(uint32_t){3}))
CALL(relabel_task, pm_task_relabel(client, server, sids[SERVER]))

static const struct { int (*call)(void); enum label source, object; uint32_t tclass, bits; } kernel_calls[] = {
    {get_attributes, SERVER, TARGET, PM_CLASS_MACH_PORT, P(get_attributes)},
    {get_context, SERVER, TARGET, PM_CLASS_MACH_PORT, P(get_attributes)},
    {set_attributes, SERVER, TARGET, PM_CLASS_MACH_PORT, P(set_attributes)},
    {set_seqno, SERVER, TARGET, PM_CLASS_MACH_PORT, P(set_attributes)},
    {set_mscount, SERVER, TARGET, PM_CLASS_MACH_PORT, P(set_attributes)},
    {set_context, SERVER, TARGET, PM_CLASS_MACH_PORT, P(set_attributes)},
    {set_interface, SERVER, TARGET, PM_CLASS_MACH_PORT, P(set_attributes)},
    {cancel_request, SERVER, TARGET, PM_CLASS_MACH_PORT, P(request_notification)},
    {relabel_from, SERVER, TARGET, PM_CLASS_MACH_PORT, P(relabelfrom) | P(relabelto)},
    {observe_type, CLIENT, SERVER, PM_CLASS_MACH_TASK, T(observe)},
    {observe_names, CLIENT, SERVER, PM_CLASS_MACH_TASK, T(observe)},
    {observe_refs, CLIENT, SERVER, PM_CLASS_MACH_TASK, T(observe)},
    {allocate_there, CLIENT, SERVER, PM_CLASS_MACH_TASK, T(insert_right)},
    {insert_there, CLIENT, SERVER, PM_CLASS_MACH_TASK, T(insert_right)},
    {insert_there, CLIENT, TARGET, PM_CLASS_MACH_PORT, P(copy_send)},
    {insert_there, SERVER, TARGET, PM_CLASS_MACH_PORT, P(hold_send)},
    {extract_there, CLIENT, SERVER, PM_CLASS_MACH_TASK, T(extract_right)},
    {extract_there, CLIENT, TARGET, PM_CLASS_MACH_PORT, P(make_send) | P(hold_send)},
    {drop_there, CLIENT, SERVER, PM_CLASS_MACH_TASK, T(extract_right)},
    {set_special, CLIENT, SERVER, PM_CLASS_MACH_TASK, T(set_special_port)},
    {get_special, CLIENT, SERVER, PM_CLASS_MACH_TASK, T(get_special_port)},
    {register_none, CLIENT, SERVER, PM_CLASS_MACH_TASK, T(set_special_port)},
    {lookup_none, CLIENT, SERVER, PM_CLASS_MACH_TASK, T(get_special_port)},
    {relabel_task, CLIENT, SERVER, PM_CLASS_MACH_TASK, T(relabelfrom) | T(relabelto)},
    {move_there, CLIENT, SERVER, PM_CLASS_MACH_TASK, T(insert_right)},
};

static void test_kernel_calls_ask_for_their_own_permission(void) {
    set_policy(0);
    spare = new_set(server);
    for (size_t i = 0; i < COUNT(kernel_calls); i++)
        for (uint32_t bit = 0; bit < 32; bit++) {
            deny_only(kernel_calls[i].source, kernel_calls[i].object, kernel_calls[i].tclass, 1u << bit);
            int code = kernel_calls[i].call(), wanted = kernel_calls[i].bits & 1u << bit ? KERN_NO_ACCESS : 0;
            if (code != wanted) fprintf(stderr, "call %zu, bit %u denied: %#x\n", i, bit, code);
            assert(code == wanted);
            assert(calls <= 1);
        }
    set_policy(0);
}

/* ---- what modules say of a change of label beside the permissions ---- */

static size_t records_of(struct pm_audit_record records[4]) {
    int64_t count = pm_audit_drain(kernel, records, 4);
    assert(count >= 0 && count < 4);
    return (size_t)count;
}

static int make_child(void) {
    struct pm_task *child = NULL;
    int code = pm_task_create(kernel, client, "child", sids[MASK], NULL, NULL, &child);
    if (!code) pm_task_release(child);
    return code;
}

static int make_masked_port(void) {
    const struct pm_port_options options = {.sid = sids[MASK], .trace_number = -1};
    int64_t name = pm_port_construct(client, client, &options);
    return name < 0 ? (int)-name : 0;
}

static int relabel_reply(void) { return pm_port_relabel(client, client, reply, sids[MASK]); }
static int relabel_client(void) { return pm_task_relabel(client, client, sids[MASK]); }

static const struct { int (*make)(void); uint32_t tclass, permission; } changes[] = {
    {make_child, PM_CLASS_MACH_TASK, T(create)},
    {make_masked_port, PM_CLASS_MACH_PORT, P(relabelto)},
    {relabel_reply, PM_CLASS_MACH_PORT, P(relabelto)},
    {relabel_client, PM_CLASS_MACH_TASK, T(relabelto)},
};

/* The one record of a change of label that was refused, or would have been. */
static void expect_change(size_t at, uint32_t policy, int code, bool denied, bool reported, uint32_t flags) {
    struct pm_audit_record records[4];
    open_scene();
    set_policy(policy | PM_POLICY_CHECKS_RELABEL);
    relabel_code = denied ? KERN_DENIED : 0;
    relabel_report = reported ? UINT32_MAX : 0;
    assert(changes[at].make() == code && records_of(records) == 1);
    assert(records[0].tclass == changes[at].tclass && records[0].asked == changes[at].permission);
    assert(records[0].denied == (denied ? changes[at].permission : 0));
    assert(records[0].report == (reported ? changes[at].permission : 0));
    assert(records[0].object_sid == sids[MASK] && records[0].flags == flags && records[0].result == code);
    close_scene();
}

static int two_rights(void) {
    const struct pm_right rights[] = {{make_port(client, BODY), MACH_MSG_TYPE_MAKE_SEND},
                                      {make_port(client, MASK), MACH_MSG_TYPE_MAKE_SEND}};
    const struct pm_send_spec spec = {.dest = right, .rights = rights, .rights_count = 2};
    int code = pm_send_message(client, &spec, NULL);
    for (size_t i = 0; i < 2; i++) pm_port_destroy(client, client, rights[i].name);
    return code;
}

static int relabel_to_mask(void) { return pm_port_relabel(server, server, target, sids[MASK]); }

/* Two refusals, of which the second is remembered and the first is not: the first counts all the same. */
static void test_what_is_remembered_refuses_nothing_before_its_turn(void) {
    static const struct {
        int (*call)(void);
        enum label caller;
        struct { enum label source, object; uint32_t bits; } first, second;
    } cases[] = {
        {two_rights, CLIENT, {CLIENT, BODY, P(make_send)}, {CLIENT, MASK, P(make_send)}},
        {insert_there, CLIENT, {CLIENT, TARGET, P(copy_send)}, {SERVER, TARGET, P(hold_send)}},
        {relabel_to_mask, SERVER, {SERVER, TARGET, P(relabelfrom)}, {SERVER, MASK, P(relabelto)}}};
    struct pm_decision decision;
    struct pm_denial denial;
    for (size_t i = 0; i < COUNT(cases); i++)
        for (int remembered = 0; remembered < 2; remembered++) {
            denials_used = 0;
            deny(cases[i].first.source, cases[i].first.object, PM_CLASS_MACH_PORT, cases[i].first.bits);
            deny(cases[i].second.source, cases[i].second.object, PM_CLASS_MACH_PORT, cases[i].second.bits);
            set_policy(PM_POLICY_LOADED);
            uint32_t ssid = sids[cases[i].second.source], tsid = sids[cases[i].second.object];
            if (remembered) assert(pm_decide(kernel, ssid, tsid, PM_CLASS_MACH_PORT, &decision) == 0);
            assert(cases[i].call() != 0);
            assert(pm_task_take_denial(cases[i].caller == CLIENT ? client : server, &denial) == 1);
            assert(denial.object_sid == sids[cases[i].first.object] && denial.denied == cases[i].first.bits);
        }
    set_policy(0);
}

static void test_a_change_of_label_is_refused_in_earnest_or_in_word(void) {
    for (size_t i = 0; i < COUNT(changes); i++) {
        for (uint32_t policy = 0; policy <= PM_POLICY_LOADED; policy++) {       /* with and without a module that decides */
            expect_change(i, policy, KERN_DENIED, true, false, 0);
            expect_change(i, policy, KERN_DENIED, true, true, PM_AUDIT_REPORTED);
            expect_change(i, policy, 0, false, true, PM_AUDIT_REPORTED);
            expect_change(i, policy | PM_POLICY_PERMISSIVE, 0, true, false, PM_AUDIT_PERMISSIVE);
        }
    }
}

static void test_the_permission_comes_before_what_modules_say(void) {
    open_scene();
    relabel_code = KERN_DENIED;
    deny(CLIENT, MASK, PM_CLASS_MACH_PORT, P(relabelto));
    set_policy(PM_POLICY_LOADED | PM_POLICY_CHECKS_RELABEL);
    assert(relabel_reply() == KERN_NO_ACCESS);
    denials_used = 0;
    set_policy(PM_POLICY_LOADED | PM_POLICY_CHECKS_RELABEL);
    assert(relabel_reply() == KERN_DENIED);
    relabel_code = PM_FORKED;                                                   /* none of Mach's */
    assert(relabel_reply() == KERN_NO_ACCESS);
    close_scene();
}

static void test_a_chosen_label_that_is_gone_makes_no_port(void) {
    open_scene();
    chosen = sid_named(kernel, "te/chosen");
    set_policy(PM_POLICY_LABELS_PORTS);
    int64_t made = pm_port_allocate(client, client, MACH_PORT_RIGHT_RECEIVE, 0);
    assert(made > 0 && pm_port_destroy(client, client, (uint32_t)made) == 0);
    assert(pm_sid_release(kernel, chosen) == 0);
    assert(pm_port_allocate(client, client, MACH_PORT_RIGHT_RECEIVE, 0) == -KERN_NO_ACCESS);
    close_scene();
}

static void test_what_is_asked_is_told_as_it_is_enforced(void) {
    struct pm_decision decision;
    uint8_t verdict = 9;
    uint32_t tclass = PM_CLASS_MACH_PORT, permission = P(send);
    for (int permissive = 0; permissive < 2; permissive++) {
        open_scene();
        deny(CLIENT, TARGET, tclass, permission);
        set_policy(PM_POLICY_LOADED | (permissive ? PM_POLICY_PERMISSIVE : 0));
        assert(pm_check_many(kernel, &sids[CLIENT], &sids[TARGET], &tclass, &permission, &verdict, 1) == 0);
        assert(verdict == permissive);
        assert(pm_decide(kernel, sids[CLIENT], sids[TARGET], tclass, &decision) == 0);
        assert(decision.allowed == (permissive ? UINT32_MAX : ~permission));
        assert(decision.report == (permissive ? permission : 0));
        assert(pm_check(kernel, sids[CLIENT], sids[TARGET], tclass, permission) == permissive);
        assert(pm_check(kernel, sids[CLIENT], sids[TARGET], tclass, P(recv)) == 1);
        assert((pm_send(client, right, "x", 1, 0, NULL) == 0) == permissive);
        close_scene();
    }
}

static void test_a_task_is_made_and_ended_where_that_is_allowed(void) {
    struct pm_task *child;
    deny_only(CLIENT, MASK, PM_CLASS_MACH_TASK, T(create));
    assert(pm_task_create(kernel, client, "child", sids[MASK], NULL, NULL, &child) == KERN_NO_ACCESS);
    deny_only(SERVER, MASK, PM_CLASS_MACH_TASK, T(terminate));
    assert(pm_task_create(kernel, client, "child", sids[MASK], NULL, NULL, &child) == 0);
    assert(pm_task_terminate(server, child) == KERN_NO_ACCESS && pm_task_alive(child));
    assert(pm_task_terminate(client, child) == 0 && !pm_task_alive(child));
    pm_task_release(child);
    set_policy(0);
}

/* ---- deciders that misbehave ---- */

static int fail(void *context, struct pm_query *queries, size_t count, uint32_t epoch) {
    (void)context, (void)epoch;
    for (size_t i = 0; i < count; i++) queries[i].allowed = UINT32_MAX;
    return 1;
}

static void test_a_decider_that_fails_or_is_missing_denies(void) {
    assert(pm_kernel_set_decider(kernel, fail, NULL) == 0);
    set_policy(PM_POLICY_LOADED);
    assert(pm_send(client, right, "", 0, 0, NULL) == MACH_SEND_INVALID_DEST);
    assert(pm_kernel_set_decider(kernel, NULL, NULL) == 0);
    assert(pm_send(client, right, "", 0, 0, NULL) == MACH_SEND_INVALID_DEST);
    assert(pm_kernel_set_decider(kernel, decide, NULL) == 0);
    set_policy(0);
}

static void reload(void) { assert(pm_kernel_set_policy(kernel, PM_POLICY_LOADED) == 0); }

static void reload_once(void) {
    meanwhile = NULL;
    reload();
}

static void test_a_policy_that_moves_while_it_is_asked(void) {
    deny_nothing();
    meanwhile = reload_once;
    assert(pm_send(client, right, "", 0, 0, NULL) == 0);
    deny_nothing();
    meanwhile = reload;
    assert(pm_send(client, right, "", 0, 0, NULL) == MACH_SEND_INVALID_DEST);
    assert(calls == 8);
    meanwhile = NULL;
    assert(stats_of(kernel).retries_exhausted > 0);
    set_policy(0);
    assert(pm_receive(server, target, NULL, 0, NULL) == 0);
}

static void send_too(void) {
    meanwhile = NULL;
    assert(pm_send(client, right, "", 0, 7, NULL) == 0);
    assert(pm_receive(server, target, NULL, 0, NULL) == 0);
}

static void test_a_decider_may_send(void) {
    deny_nothing();
    meanwhile = send_too;
    assert(pm_send(client, right, "", 0, 1, NULL) == 0);
    assert(pm_receive(server, target, NULL, 0, NULL) == 0);
    set_policy(0);
}

static size_t refused_within;
static void ask_the_same(void) {
    refused_within += pm_check(kernel, sids[CLIENT], sids[TARGET], PM_CLASS_MACH_PORT, P(send)) == 0;
}

/* The innermost question is not put to it any more; the others have its answers. */
static void test_a_decider_that_asks_itself_is_denied_in_the_end(void) {
    deny_nothing();
    all_uncached = 1;
    meanwhile = ask_the_same;
    refused_within = 0;
    assert(pm_check(kernel, sids[CLIENT], sids[TARGET], PM_CLASS_MACH_PORT, P(send)) == 1);
    assert(calls > 1 && calls <= 16 && refused_within == 1);
    all_uncached = 0;
    meanwhile = NULL;
    set_policy(0);
}

static uint32_t doomed;
static void destroy_doomed(void) {
    meanwhile = NULL;
    assert(pm_port_destroy(server, server, doomed) == 0);
}

static void test_the_port_may_die_while_it_is_asked_about(void) {
    set_policy(0);
    doomed = make_port(server, TARGET);
    uint32_t to_doomed = given(server, doomed, MACH_MSG_TYPE_MAKE_SEND, client);
    deny_nothing();
    meanwhile = destroy_doomed;
    assert(pm_send(client, to_doomed, "", 0, 0, NULL) == MACH_SEND_INVALID_DEST);
    assert(pm_port_type(client, client, to_doomed) == MACH_PORT_TYPE_DEAD_NAME);
    doomed = make_port(server, TARGET);
    set_policy(PM_POLICY_LOADED);
    meanwhile = destroy_doomed;
    assert(pm_receive(server, doomed, NULL, 0, NULL) == -MACH_RCV_INVALID_NAME);
    set_policy(0);
}

static void end_client(void) {
    meanwhile = NULL;
    assert(pm_task_terminate(client, client) == 0);
}

static void end_server(void) {
    meanwhile = NULL;
    assert(pm_task_terminate(server, server) == 0);
}

static void test_the_task_may_die_while_it_is_asked_about(void) {
    deny_nothing();
    meanwhile = end_server;
    assert(pm_send(client, right, "", 0, 0, NULL) == MACH_SEND_INVALID_DEST);
    deny_nothing();
    meanwhile = end_client;
    assert(pm_port_relabel(client, client, reply, sids[MASK]) == KERN_INVALID_TASK);
}

int main(void) {
    open_scene();
    test_each_place_asks_for_its_own_permission();
    test_the_destination_asks_for_its_disposition();
    test_an_effective_label_is_asked_first_and_then_asked_for();
    test_a_label_that_is_none_is_refused();
    test_methods_are_enforced_and_unknown_ones_refused();
    test_the_first_refusal_stands();
    test_all_that_is_not_known_is_asked_at_once();
    test_answers_that_may_not_be_kept_are_asked_for_each_time();
    test_a_message_keeps_the_label_it_was_sent_under();
    test_kernel_calls_ask_for_their_own_permission();
    test_what_is_remembered_refuses_nothing_before_its_turn();
    test_a_task_is_made_and_ended_where_that_is_allowed();
    test_a_decider_that_fails_or_is_missing_denies();
    test_a_policy_that_moves_while_it_is_asked();
    test_a_decider_may_send();
    test_a_decider_that_asks_itself_is_denied_in_the_end();
    test_the_port_may_die_while_it_is_asked_about();
    test_the_task_may_die_while_it_is_asked_about();
    close_scene();
    test_a_change_of_label_is_refused_in_earnest_or_in_word();
    test_the_permission_comes_before_what_modules_say();
    test_a_chosen_label_that_is_gone_makes_no_port();
    test_what_is_asked_is_told_as_it_is_enforced();
    return 0;
}
