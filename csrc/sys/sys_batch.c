/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many messages in one call. The lock is kept for a slice of them that go by the shortest path; any other leaves it, goes by the
 * defining one, and takes it again. Each is an operation of its own, done in order: what becomes of one is in its result, and
 * changes nothing of the others.
 */
#include "sys/run.h"

#define BATCH_SLICE 64                  /* operations; who waits for the lock has it after so many */
#define LARGE 8192                      /* ports; as many as this, with what belongs to them, are not all in the nearer caches */

struct batch {
    struct pm_kernel *kernel;
    uint32_t left;                      /* of the slice */
};

static int batch_begin(struct batch *batch, struct pm_kernel *kernel) {
    if (kernel_forked(kernel)) return PM_FORKED;
    *batch = (struct batch){kernel, BATCH_SLICE};
    kernel_lock(kernel);
    kernel->refs++;
    return 0;
}

static void batch_end(struct batch *batch) { kernel_unref_unlock(batch->kernel); }

static void batch_rest(struct batch *batch) {
    bool wanted = lock_is_wanted(&batch->kernel->lock);
    kernel_unlock(batch->kernel);
    if (wanted) lock_step_back();
    kernel_lock(batch->kernel);
    batch->left = BATCH_SLICE;
}

/* After `count` operations, which is not more than were left. */
static inline void batch_next(struct batch *batch, uint32_t count) {
    batch->left -= count;
    if (pm_unlikely(!batch->left)) batch_rest(batch);
}

static inline uint32_t batch_most(const struct batch *batch, uint64_t count) {
    return count < batch->left ? (uint32_t)count : batch->left;
}

/* Around what needs the lock dropped; the task lives on. */
static void batch_leave(struct batch *batch, struct pm_task *task) {
    space_ref(&task->space);
    kernel_unlock(batch->kernel);
}

static void batch_return(struct batch *batch, struct pm_task *task) {
    kernel_lock(batch->kernel);
    space_unref(&batch->kernel->ipc, &task->space);
    batch->left = BATCH_SLICE;
}

/* ==== sending ==================================================================================================== */

/* A message to be sent. */
struct letter {
    const void *body;
    uint32_t size, dest, reply;         /* reply: a receive right, to which a send-once right goes along; 0 none */
    int32_t msgh_id;
    struct pm_right right;              /* disposition 0: none */
};

static struct pm_send_spec letter_spec(const struct letter *letter) {
    return (struct pm_send_spec){
        .dest = letter->dest, .body = letter->body, .size = letter->size, .msgh_id = letter->msgh_id, .reply = letter->reply,
        .reply_disposition = letter->reply ? MACH_MSG_TYPE_MAKE_SEND_ONCE : 0, .rights = &letter->right,
        .rights_count = letter->right.disposition != 0};
}

static pm_noinline int send_one_slowly(struct batch *batch, struct pm_task *task, const struct letter *letter, uint64_t *transfer) {
    struct pm_send_spec spec = letter_spec(letter);
    batch_leave(batch, task);
    int code = send_message(task, &spec, NULL, transfer);
    batch_return(batch, task);
    return code;
}

/* By the shortest path, what brings no right. False: nothing was touched. */
static pm_inline bool send_fast(const struct batch *batch, struct pm_task *task, uint32_t dest, const void *body, uint32_t size,
                                int32_t msgh_id) {
    return size <= BODY_POOLED && !batch->kernel->no_fast_path && fast_send(task, dest, body, size, msgh_id);
}

/* Which body is next, and where it is. The bodies are told of by a copy, which nothing that is written can change. */
struct cursor { struct pm_bodies bodies; uint64_t index, offset; };

static inline uint32_t cursor_size(const struct cursor *cursor) {
    const struct pm_bodies *bodies = &cursor->bodies;
    return bodies->sizes ? read_once(&bodies->sizes[cursor->index]) : (uint32_t)bodies->stride;
}

static inline void cursor_next(struct cursor *cursor, uint32_t size) {
    cursor->offset += cursor->bodies.stride ? cursor->bodies.stride : size;
    cursor->index++;
}

static inline bool lies_within(uint64_t offset, uint64_t length, uint64_t size) {
    return offset <= size && length <= size - offset;
}

/* Whether what is next lies in the buffer. */
static inline bool cursor_valid(const struct cursor *cursor, uint32_t size) {
    const struct pm_bodies *bodies = &cursor->bodies;
    return lies_within(cursor->offset, size, bodies->size) && (!bodies->stride || size <= bodies->stride);
}

static inline const void *cursor_body(const struct cursor *cursor) { return (const char *)cursor->bodies.data + cursor->offset; }

static inline int32_t cursor_msgh_id(const struct cursor *cursor) {
    return cursor->bodies.msgh_ids ? cursor->bodies.msgh_ids[cursor->index] : cursor->bodies.msgh_id;
}

static bool bodies_valid(const struct pm_bodies *bodies) {
    return (bodies->data || !bodies->size) && bodies->stride <= UINT32_MAX && (bodies->stride || bodies->sizes || !bodies->count);
}

static pm_noinline int send_next_slowly(struct batch *batch, struct pm_task *task, uint32_t dest, const void *body, uint32_t size,
                                        int32_t msgh_id) {
    const struct letter letter = {.body = body, .size = size, .dest = dest, .msgh_id = msgh_id};
    uint64_t transfer;
    return send_one_slowly(batch, task, &letter, &transfer);
}

static pm_inline int send_next(struct batch *batch, struct pm_task *task, uint32_t dest, const struct cursor *cursor, uint32_t size) {
    if (pm_unlikely(!cursor_valid(cursor, size))) return KERN_INVALID_ARGUMENT;
    const void *body = cursor_body(cursor);
    const int32_t msgh_id = cursor_msgh_id(cursor);
    if (pm_likely(send_fast(batch, task, dest, body, size, msgh_id))) return 0;
    return send_next_slowly(batch, task, dest, body, size, msgh_id);
}

/* What can go without another look at the right; returns how many. */
static pm_inline uint32_t send_many_fast(const struct batch *batch, struct pm_task *task, uint32_t dest, struct cursor *cursor,
                                         int32_t *codes) {
    const uint32_t most = batch_most(batch, cursor->bodies.count - cursor->index);
    struct sending run;
    if (!sending_begin(&run, task, dest)) return 0;
    while (run.count < most) {
        uint32_t size = cursor_size(cursor);
        if (!cursor_valid(cursor, size) || !sending_add(&run, cursor_body(cursor), size, cursor_msgh_id(cursor))) break;
        codes[cursor->index] = 0;
        cursor_next(cursor, size);
    }
    sending_end(&run);
    return run.count;
}

int64_t pm_send_many(struct pm_task *task, uint32_t dest, const struct pm_bodies *bodies, int32_t *codes) {
    struct cursor cursor = {.bodies = *bodies};
    struct batch batch;
    int64_t sent = 0;
    if (!task) return -(int64_t)KERN_INVALID_TASK;
    if (!bodies_valid(bodies) || (bodies->count && !codes)) return -(int64_t)KERN_INVALID_ARGUMENT;
    int code = batch_begin(&batch, task->kernel);
    if (code) return -(int64_t)code;
    bool full = false;                  /* none overtakes another */
    while (cursor.index < cursor.bodies.count) {
        uint32_t run = full ? 0 : send_many_fast(&batch, task, dest, &cursor, codes);
        sent += run;
        if (!run) {
            uint32_t size = cursor_size(&cursor);
            code = full ? MACH_SEND_TIMED_OUT : send_next(&batch, task, dest, &cursor, size);
            full |= code == MACH_SEND_TIMED_OUT;
            sent += code == 0;
            codes[cursor.index] = code;
            cursor_next(&cursor, size);
        }
        batch_next(&batch, run ? run : 1);
    }
    batch_end(&batch);
    return sent;
}

/* ==== receiving ================================================================================================== */

/* What is told of a received message beside its bytes. */
struct taken { struct pm_result result; uint32_t reply, right, disposition; };

/* Larger than any room: it is left alone, for who can take what it brings. */
#define NEED_MORE UINT32_MAX

static uint64_t need_plain(const struct receive *receive, const struct kmsg *kmsg) {
    (void)receive;
    bool plain = !kmsg->reply && (!kmsg->cargo || !kmsg->cargo->descriptors_used);
    return plain ? kmsg->size : NEED_MORE;
}

static uint64_t need_one_right(const struct receive *receive, const struct kmsg *kmsg) {
    const struct cargo *cargo = kmsg->cargo;
    (void)receive;
    bool one = !cargo || (cargo->descriptors_used <= 1 && cargo->descriptors_used == cargo->rights_used);
    return one ? kmsg->size : NEED_MORE;
}

static void describe_taken(struct taken *taken, const struct pm_received *received) {
    taken->result = (struct pm_result){
        .size = received->size, .sender = received->sender_task, .sender_sid = received->sender_sid,
        .seqno = received->seqno, .msgh_id = received->msgh_id, .transfer = received->transfer};
    taken->reply = received->reply;
    if (!received->rights_count) return;
    taken->right = received->rights[0].name;
    taken->disposition = received->rights[0].disposition;
}

/* Without the lock. */
static int take_slowly(struct pm_task *task, uint32_t name, void *body, uint32_t room, struct taken *taken,
                       uint64_t (*need)(const struct receive *receive, const struct kmsg *kmsg), const struct pm_wait *wait) {
    struct receive receive;
    struct pm_received received;
    *taken = (struct taken){0};
    receive_init(&receive, name);
    receive.need = need;
    receive.room = room < PM_MESSAGE_MAX ? room : PM_MESSAGE_MAX;
    int code = call_init(&receive.call, task, task, PM_OP_RECEIVE, name);
    if (!code) code = receive_run(&receive, wait);
    if (!receive.kmsg) return code;
    received_fill(&received, &receive);
    describe_taken(taken, &received);
    if (received.size) memcpy(body, received.body, received.size);
    message_received(task->kernel, receive.kmsg);
    return code;
}

static pm_noinline int take_one_slowly(struct batch *batch, struct pm_task *task, uint32_t name, void *body, uint32_t room,
                                       struct taken *taken,
                                       uint64_t (*need)(const struct receive *receive, const struct kmsg *kmsg)) {
    batch_leave(batch, task);
    int code = take_slowly(task, name, body, room, taken, need, NULL);
    batch_return(batch, task);
    return code;
}

/* Field by field: a structure that is made elsewhere and copied is read before it is written in full, and waited for. */
static inline void tell_result(struct pm_result *result, const struct kmsg *kmsg, uint32_t seqno) {
    result->code = 0;
    result->msgh_id = kmsg->msgh_id;
    result->size = kmsg->size;
    result->sender = kmsg->sender->id;
    result->sender_sid = kmsg->sid;
    result->seqno = seqno;
    result->transfer = kmsg->transfer;
}

/* By the shortest path. False: nothing was touched. */
static pm_inline bool take_fast(const struct batch *batch, struct pm_task *task, uint32_t name, void *body, uint32_t room,
                                struct pm_result *result) {
    struct pm_kernel *kernel = batch->kernel;
    struct entry *entry = kernel->no_fast_path ? NULL : fast_find(task, name, room);
    if (!entry) return false;
    struct kmsg *kmsg = fast_take(kernel, &task->space, entry);
    tell_result(result, kmsg, ((const struct port *)entry->object)->seqno - 1);
    fast_copy(body, kmsg->body, kmsg->size);
    fast_free(&kernel->ipc, kmsg);
    return true;
}

/* A refused message is destroyed and told of; what comes behind it can still be received. */
static bool goes_on(int code) { return !code || code == MACH_RCV_INVALID_DATA; }

static bool room_valid(const struct pm_room *room) {
    return room->stride && room->stride <= PM_MESSAGE_MAX && (room->data || !room->size) && (room->results || !room->count);
}

/* How many bodies the buffer holds. */
static inline uint64_t room_places(const struct pm_room *room) { return room->size / room->stride; }
static inline char *room_body(const struct pm_room *room, uint64_t index) { return (char *)room->data + index * room->stride; }

/* What can be taken without another look at the right; returns how many. */
static pm_inline uint32_t take_many_fast(const struct batch *batch, struct pm_task *task, uint32_t name,
                                         const struct pm_room *room, uint64_t first, uint64_t count) {
    const uint32_t most = batch_most(batch, count - first);
    struct receiving run;
    if (!receiving_begin(&run, task, name)) return 0;
    while (run.count < most) {
        const uint64_t index = first + run.count;
        struct kmsg *kmsg = receiving_next(&run, room->stride);
        if (!kmsg) break;
        tell_result(&room->results[index], kmsg, run.port->seqno + run.count - 1);
        fast_copy(room_body(room, index), kmsg->body, kmsg->size);
        fast_give(run.ipc, kmsg);
    }
    receiving_end(&run);
    return run.count;
}

static pm_noinline int receive_next_slowly(struct batch *batch, struct pm_task *task, uint32_t name, void *body, uint32_t room,
                                           struct pm_result *result) {
    struct taken taken;
    int code = take_one_slowly(batch, task, name, body, room, &taken, need_plain);
    *result = taken.result;
    return result->code = code;
}

static inline int receive_next(struct batch *batch, struct pm_task *task, uint32_t name, const struct pm_room *room, uint64_t index) {
    char *body = room_body(room, index);
    struct pm_result *result = &room->results[index];
    if (pm_likely(take_fast(batch, task, name, body, (uint32_t)room->stride, result))) return 0;
    return receive_next_slowly(batch, task, name, body, (uint32_t)room->stride, result);
}

int64_t pm_receive_many(struct pm_task *task, uint32_t name, const struct pm_room *where) {
    struct batch batch;
    uint64_t index = 0;
    if (!task) return -(int64_t)KERN_INVALID_TASK;
    if (!room_valid(where)) return -(int64_t)KERN_INVALID_ARGUMENT;
    const struct pm_room room = *where;
    const uint64_t count = room.count < room_places(&room) ? room.count : room_places(&room);
    int code = batch_begin(&batch, task->kernel);
    if (code) return -(int64_t)code;
    while (index < count) {
        uint32_t run = take_many_fast(&batch, task, name, &room, index, count);
        if (!run && !goes_on(receive_next(&batch, task, name, &room, index))) break;
        index += run ? run : 1;
        batch_next(&batch, run ? run : 1);
    }
    if (index == count && count < room.count) room.results[index] = (struct pm_result){.code = KERN_INVALID_ARGUMENT};
    batch_end(&batch);
    return (int64_t)index;
}

/* ==== calling ==================================================================================================== */

/* The server, or whoever else had it, destroyed the right to answer. */
static bool tells_no_answer(const struct pm_result *result) {
    return !result->sender && result->msgh_id == MACH_NOTIFY_SEND_ONCE;
}

struct caller { struct pm_task *task; uint32_t dest, reply; const struct pm_wait *wait; int64_t deadline; bool asked; };

static int call_one(struct caller *caller, const struct letter *letter, void *body, uint32_t room, struct taken *taken) {
    struct pm_send_spec spec = letter_spec(letter);
    struct pm_wait rest;
    uint64_t transfer;
    int code = send_message(caller->task, &spec, rest_of(caller->wait, caller->deadline, &rest), &transfer);
    caller->asked = code == 0;
    if (code) return code;
    code = take_slowly(caller->task, letter->reply, body, room, taken, need_plain, rest_of(caller->wait, caller->deadline, &rest));
    return !code && tells_no_answer(&taken->result) ? MACH_RCV_PORT_DIED : code;
}

static int call_next(struct caller *caller, const struct cursor *cursor, uint32_t size, const struct pm_room *room) {
    struct taken taken = {0};
    uint64_t index = cursor->index;
    struct letter letter = {.size = size, .dest = caller->dest, .reply = caller->reply};
    bool holds = cursor_valid(cursor, size) && index < room_places(room);
    if (holds) letter.body = cursor_body(cursor), letter.msgh_id = cursor_msgh_id(cursor);
    caller->asked = false;
    int code = holds ? call_one(caller, &letter, room_body(room, index), (uint32_t)room->stride, &taken) : KERN_INVALID_ARGUMENT;
    room->results[index] = taken.result;
    room->results[index].code = code;
    return code;
}

/* The bodies before `first` are passed over. */
static struct cursor cursor_at(const struct pm_bodies *bodies, uint64_t first) {
    struct cursor cursor = {.bodies = *bodies};
    while (cursor.index < first) cursor_next(&cursor, cursor_size(&cursor));
    return cursor;
}

int64_t pm_call_many(struct pm_task *task, uint32_t dest, uint32_t reply, const struct pm_bodies *bodies,
                     const struct pm_room *room, uint64_t first, const struct pm_wait *wait) {
    struct caller caller = {.task = task, .dest = dest, .reply = reply, .wait = wait, .deadline = deadline_of(wait)};
    if (!task) return -(int64_t)KERN_INVALID_TASK;
    bool fit = bodies_valid(bodies) && room_valid(room) && bodies->count == room->count && first <= bodies->count;
    if (!fit) return -(int64_t)KERN_INVALID_ARGUMENT;
    struct cursor cursor = cursor_at(bodies, first);
    while (cursor.index < cursor.bodies.count) {
        uint32_t size = cursor_size(&cursor);
        int code = call_next(&caller, &cursor, size, room);
        if (caller.asked && code != MACH_RCV_PORT_DIED && !goes_on(code)) break;
        cursor_next(&cursor, size);
    }
    return (int64_t)cursor.index;
}

/* ==== many tasks ================================================================================================= */

static struct pm_task *task_of_op(const struct pm_kernel *kernel, const struct pm_submission *op) {
    return tasks_find(&kernel->by_id, read_once(&op->task));
}

static const struct entry *entry_of_op(const struct pm_kernel *kernel, const struct pm_submission *op) {
    const struct pm_task *task = task_of_op(kernel, op);
    const uint32_t index = read_once(&op->name) >> 8;
    return task && index < task->space.used ? &task->space.table[index] : NULL;
}

static void fetch_task(const struct pm_kernel *kernel, const struct pm_submission *op) {
    const char *task = (const char *)task_of_op(kernel, op);
    __builtin_prefetch(task);
    __builtin_prefetch(task + 64);
}

static void fetch_entry(const struct pm_kernel *kernel, const struct pm_submission *op) {
    __builtin_prefetch(entry_of_op(kernel, op));
}

static void fetch_port(const struct pm_kernel *kernel, const struct pm_submission *op) {
    const struct entry *entry = entry_of_op(kernel, op);
    if (entry) __builtin_prefetch(entry->object);
}

/* Memory that operations will touch, all of a step before the next, which needs it: what is waited for is waited for together.
 * What is read for that may be out of date by the time of the operation; it is only a guess. */
static void look_ahead(const struct pm_kernel *kernel, const struct pm_submission *ops, uint64_t count) {
    static void (*const steps[])(const struct pm_kernel *, const struct pm_submission *) = {fetch_task, fetch_entry, fetch_port};
    if (count > BATCH_SLICE) count = BATCH_SLICE;
    for (size_t step = 0; step < array_count(steps); step++)
        for (uint64_t i = 0; i < count; i++) steps[step](kernel, &ops[i]);
}

static inline int submit_send(struct batch *batch, struct pm_task *task, struct pm_submission *out, const struct pm_submission *op,
                              const char *body) {
    const struct letter letter = {.body = body, .size = op->length, .dest = op->name, .reply = op->reply,
                                  .msgh_id = op->msgh_id, .right = {op->right, op->disposition}};
    bool plain = !op->reply && !op->disposition;
    if (pm_unlikely(!plain || !send_fast(batch, task, op->name, body, op->length, op->msgh_id)))
        return send_one_slowly(batch, task, &letter, &out->transfer);
    out->transfer = batch->kernel->ipc.transfers;
    return 0;
}

static inline int submit_receive(struct batch *batch, struct pm_task *task, struct pm_submission *out, const struct pm_submission *op,
                                 char *body) {
    struct taken taken = {0};
    int code = take_fast(batch, task, op->name, body, op->length, &taken.result)
                   ? 0 : take_one_slowly(batch, task, op->name, body, op->length, &taken, need_one_right);
    out->length = taken.result.size;
    out->msgh_id = taken.result.msgh_id;
    out->sender = taken.result.sender;
    out->sender_sid = taken.result.sender_sid;
    out->seqno = taken.result.seqno;
    out->transfer = taken.result.transfer;
    out->reply = taken.reply;
    out->right = taken.right;
    out->disposition = taken.disposition;
    return code;
}

/* Every field is read once, from a copy: whoever else writes to the array meanwhile can spoil only results. */
static inline int submit_one(struct batch *batch, struct pm_submission *out, char *data, uint64_t size) {
    const struct pm_submission op = *out;
    read_is_done();
    if (op.op == PM_SUBMIT_NOTHING) return 0;
    struct pm_task *task = tasks_find(&batch->kernel->by_id, op.task);
    if (!task || !task->space.alive) return KERN_INVALID_TASK;
    if (!lies_within(op.offset, op.length, size)) return KERN_INVALID_ARGUMENT;
    if (op.op == PM_SUBMIT_SEND) return submit_send(batch, task, out, &op, data + op.offset);
    if (op.op == PM_SUBMIT_RECEIVE) return submit_receive(batch, task, out, &op, data + op.offset);
    return KERN_INVALID_ARGUMENT;
}

/* Whether the caches may lack what operations will touch: ports, or tasks with their tables, whatever there is most of. */
static bool is_large(const struct pm_kernel *kernel) { return kernel->ipc.live_ports >= LARGE || kernel->tasks_alive >= LARGE; }

int64_t pm_submit(struct pm_kernel *kernel, struct pm_submission *ops, uint64_t count, void *data, uint64_t size) {
    struct batch batch;
    int64_t done = 0;
    if ((!ops && count) || (!data && size)) return -(int64_t)KERN_INVALID_ARGUMENT;
    int code = batch_begin(&batch, kernel);
    if (code) return -(int64_t)code;
    for (uint64_t i = 0; i < count; i++) {
        if (i % BATCH_SLICE == 0 && is_large(kernel)) look_ahead(kernel, &ops[i], count - i);
        code = submit_one(&batch, &ops[i], data, size);
        ops[i].result = code;
        done += code == 0;
        batch_next(&batch, 1);
    }
    batch_end(&batch);
    return done;
}
