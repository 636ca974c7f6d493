/* SPDX-License-Identifier: BSD-2-Clause */
/* Sending and receiving without the wire: inline bytes, rights by name, memory by reference. */
#include <string.h>

#include "sys/msg.h"

void message_drop(struct pm_kernel *kernel, struct kmsg *kmsg) {
    struct after after;
    after_init(&after);
    kernel_lock(kernel);
    kmsg_free(&kernel->ipc, kmsg, &after);
    kernel_leave(kernel, &after);
}

void message_received(struct pm_kernel *kernel, struct kmsg *kmsg) {
    struct after after;
    after_init(&after);
    kernel_lock(kernel);
    kmsg_free(&kernel->ipc, kmsg, &after);
    if (after_is_empty(&after)) {
        kernel_unref_unlock(kernel);
        return;
    }
    kernel_leave(kernel, &after);
    kernel_lock(kernel);
    kernel_unref_unlock(kernel);
}

static void release_nothing(struct kmsg *kmsg) {
    struct cargo *cargo = kmsg->cargo;
    if (!cargo) return;
    if (cargo->release) kmsg->body = kmsg->inside;
    cargo->release = NULL;
    for (uint32_t i = 0; i < cargo->descriptors_used; i++)
        if (cargo->descriptors[i].memory.release) cargo->descriptors[i].memory = (struct pm_memory){0};
}

/* kmsg and cargo for a spec, or NULL where memory is short. Body and memory are not read yet. */
static struct kmsg *kmsg_for_spec(struct pm_kernel *kernel, const struct pm_send_spec *spec) {
    uint32_t descriptors = spec->rights_count + spec->memory_count;
    bool cargo = descriptors || spec->release;
    kernel_lock(kernel);
    struct kmsg *kmsg = kmsg_create(&kernel->ipc, spec->release ? 0 : spec->size);
    kernel_unlock(kernel);
    if (!kmsg || !cargo) return kmsg;
    kmsg->cargo = cargo_create(&kernel->ipc, descriptors, spec->rights_count);
    if (kmsg->cargo) return kmsg;
    message_drop(kernel, kmsg);
    return NULL;
}

static void fill_cargo(struct kmsg *kmsg, const struct pm_send_spec *spec) {
    struct cargo *cargo = kmsg->cargo;
    kmsg->charge += (uint32_t)cargo->allocated;
    for (uint32_t i = 0; i < spec->rights_count; i++) {
        cargo->descriptors[i] = (struct descriptor){.type = MACH_MSG_PORT_DESCRIPTOR, .count = 1, .first = i,
                                                    .disposition = (uint8_t)spec->rights[i].disposition};
        cargo->rights[i] = (struct right_in_flight){.name = spec->rights[i].name,
                                                    .disposition = (uint8_t)spec->rights[i].disposition};
    }
    for (uint32_t i = 0; i < spec->memory_count; i++) {
        cargo->descriptors[spec->rights_count + i] =
            (struct descriptor){.type = MACH_MSG_OOL_DESCRIPTOR, .copy = 1, .deallocate = 1, .memory = spec->memory[i]};
        kmsg->charge += (uint32_t)spec->memory[i].size;
    }
    cargo->release = spec->release;
    cargo->release_context = spec->release_context;
}

static void fill_body(struct kmsg *kmsg, const struct pm_send_spec *spec) {
    kmsg->size = (uint32_t)spec->size;
    kmsg->msgh_id = spec->msgh_id;
    kmsg->voucher = spec->voucher;
    kmsg->charge = (uint32_t)spec->size;
    if (spec->release) kmsg->body = (char *)(uintptr_t)spec->body;
    else if (spec->size) memcpy(kmsg->body, spec->body, spec->size);
    if (kmsg->cargo) fill_cargo(kmsg, spec);
}

/* What is wrong with a spec on its face, before any name is looked at. */
static int spec_fault(const struct pm_send_spec *spec) {
    uint64_t memory = spec->size;
    if (spec->dest_disposition && !disposition_sends(spec->dest_disposition)) return MACH_SEND_INVALID_HEADER;
    if (spec->reply ? !disposition_sends(spec->reply_disposition) : spec->reply_disposition != 0)
        return MACH_SEND_INVALID_HEADER;
    if (spec->dest == MACH_PORT_NULL || spec->dest == MACH_PORT_DEAD) return MACH_SEND_INVALID_DEST;
    if (spec->size > PM_MESSAGE_MAX || spec->rights_count > PM_MESSAGE_PORTS_MAX) return MACH_SEND_TOO_LARGE;
    if (spec->memory_count > PM_MESSAGE_PORTS_MAX) return MACH_SEND_TOO_LARGE;
    if (spec->size && !spec->body) return MACH_SEND_INVALID_DATA;
    if ((spec->rights_count && !spec->rights) || (spec->memory_count && !spec->memory)) return MACH_SEND_INVALID_DATA;
    for (uint32_t i = 0; i < spec->rights_count; i++)
        if (!disposition_of(spec->rights[i].disposition)) return MACH_SEND_INVALID_TYPE;
    for (uint32_t i = 0; i < spec->memory_count; i++) {
        if (!spec->memory[i].address && spec->memory[i].size) return MACH_SEND_INVALID_MEMORY;
        if (!spec->memory[i].release) return MACH_SEND_INVALID_MEMORY;
        memory += spec->memory[i].size;
        if (spec->memory[i].size > PM_MESSAGE_MAX || memory > PM_MESSAGE_MAX) return MACH_SEND_TOO_LARGE;
    }
    return 0;
}

int send_message(struct pm_task *task, const struct pm_send_spec *spec, const struct pm_wait *wait, uint64_t *transfer) {
    struct send send;
    *transfer = 0;
    int code = call_init(&send.call, task, task, PM_OP_SEND, spec->dest);
    if (code) return code;
    send.call.site.msgh_id = spec->msgh_id;
    code = spec_fault(spec);
    if (code) return call_refuse(&send.call, code);
    send.dest = spec->dest;
    send.dest_disposition = spec->dest_disposition;
    send.reply = spec->reply;
    send.reply_disposition = spec->reply_disposition;
    send.option = spec->option;
    send.effective_sid = spec->effective_sid;
    send.carries_memory = spec->memory_count || spec->release;
    send.hand_back = false;
    send.kmsg = kmsg_for_spec(task->kernel, spec);
    if (!send.kmsg) return call_refuse(&send.call, KERN_RESOURCE_SHORTAGE);
    fill_body(send.kmsg, spec);
    code = send_run(&send, wait);
    *transfer = send.call.transfer;
    if (!send.kmsg) return code;
    release_nothing(send.kmsg);
    message_drop(task->kernel, send.kmsg);
    return code;
}

int pm_send_message(struct pm_task *task, const struct pm_send_spec *spec, const struct pm_wait *wait) {
    uint64_t transfer;
    return send_message(task, spec, wait, &transfer);
}

uint64_t need_nothing(const struct receive *receive, const struct kmsg *kmsg) {
    (void)receive;
    (void)kmsg;
    return 0;
}

static uint64_t need_body(const struct receive *receive, const struct kmsg *kmsg) {
    (void)receive;
    return kmsg->size;
}

/* Where descriptors point to memory, for the reader. */
static void list_memories(struct cargo *cargo) {
    for (uint32_t i = 0; i < cargo->descriptors_used; i++)
        if (cargo->descriptors[i].memory.address) cargo->memories[cargo->memory_used++] = cargo->descriptors[i].memory;
}

static const struct pm_identity kernel_identity = {.security_token = {0, 1}};

/* Every field is named: clearing the whole first would cost as much again. */
void received_fill(struct pm_received *received, const struct receive *receive) {
    struct kmsg *kmsg = receive->kmsg;
    *received = (struct pm_received){
        .msgh_id = kmsg->msgh_id, .seqno = receive->seqno, .size = kmsg->size, .local = receive->local,
        .reply = receive->reply, .reply_disposition = receive->reply_disposition, .sender_sid = kmsg->sid,
        .real_sid = kmsg->real_sid, .sender_task = kmsg->sender ? kmsg->sender->id : 0, .access = kmsg->access,
        .tclass = receive->method.tclass, .permission = receive->method.permission,
        .method = receive->permitted, .denied = receive->denied, .voucher = kmsg->voucher,
        .transfer = kmsg->transfer, .context = receive->context, .body = kmsg->body,
        .message = (struct pm_message *)kmsg, .rights = NULL, .rights_count = 0, .memory = NULL, .memory_count = 0,
        .identity = kmsg->sender ? kmsg->sender->identity : kernel_identity};
    if (!kmsg->cargo) return;
    list_memories(kmsg->cargo);
    received->rights = kmsg->cargo->received;
    received->rights_count = kmsg->cargo->rights_used;
    received->memory = kmsg->cargo->memories;
    received->memory_count = kmsg->cargo->memory_used;
}

static bool delivered(const struct receive *receive) { return receive->kmsg != NULL; }

int receive_message(struct pm_task *task, uint32_t name, uint32_t effective_sid, struct pm_received *received,
                    const struct pm_wait *wait) {
    struct receive receive;
    receive_init(&receive, name);
    receive.effective_sid = effective_sid;
    receive.need = need_nothing;
    int code = call_init(&receive.call, task, task, PM_OP_RECEIVE, name);
    if (code) return code;
    code = receive_run(&receive, wait);
    if (!delivered(&receive)) return code;
    received_fill(received, &receive);
    return code;
}

void pm_message_free(struct pm_message *message) {
    if (!message) return;
    struct kmsg *kmsg = (struct kmsg *)message;
    struct pm_kernel *kernel = container_of(kmsg->ipc, struct pm_kernel, ipc);
    if (kernel_forked(kernel)) return;
    if (kmsg->cargo) kmsg_release(kmsg);
    message_received(kernel, kmsg);
}

struct refuse_call { struct call call; const struct pm_received *received; };

/* What came under this name goes, be it guarded, or dead by now because an earlier one of the message was its receive right. */
static void drop_name(struct call *call, uint32_t name, uint32_t disposition) {
    static const uint32_t rights[] = {MACH_PORT_RIGHT_RECEIVE, MACH_PORT_RIGHT_SEND, MACH_PORT_RIGHT_SEND_ONCE};
    struct space *space = &call->task->space;
    struct entry *entry = space_lookup(call_ipc(call), space, name);
    if (!entry || !disposition) return;
    bool dead = entry_type(entry) & MACH_PORT_TYPE_DEAD_NAME;
    uint32_t right = dead ? MACH_PORT_RIGHT_DEAD_NAME : rights[disposition - MACH_MSG_TYPE_PORT_RECEIVE];
    right_delta(call_ipc(call), space, entry, right, -1, &call->after);
}

static int attempt_refuse(struct call *call) {
    const struct pm_received *received = ((struct refuse_call *)call)->received;
    int code = call_enter(call, 0);
    if (!code) code = call_ready(call);
    if (code) return code;
    drop_name(call, received->reply, received->reply_disposition);
    for (uint32_t i = 0; i < received->rights_count; i++)
        drop_name(call, received->rights[i].name, received->rights[i].disposition);
    return 0;
}

void pm_message_refuse(struct pm_task *task, const struct pm_received *received) {
    struct refuse_call args;
    if (!received->reply_disposition && !received->rights_count) return;
    args.received = received;
    if (!call_init(&args.call, task, task, PM_OP_NAME, 0)) call_run(&args.call, attempt_refuse);
}

int64_t receive_bytes(struct pm_task *task, uint32_t name, void *body, uint64_t capacity,
                             const struct pm_wait *wait) {
    struct receive receive;
    struct pm_received received;
    receive_init(&receive, name);
    receive.need = need_body;
    receive.room = capacity;
    int code = call_init(&receive.call, task, task, PM_OP_RECEIVE, name);
    if (!code) code = receive_run(&receive, wait);
    if (code && !receive.call.done) return -(int64_t)code;
    received_fill(&received, &receive);
    pm_message_refuse(task, &received);
    if (received.size) memcpy(body, received.body, received.size);
    message_received(task->kernel, receive.kmsg);
    return received.size;
}

int pm_call(struct pm_task *task, const struct pm_send_spec *spec, uint32_t reply, struct pm_received *received,
            const struct pm_wait *wait) {
    int64_t deadline = deadline_of(wait);
    struct pm_wait rest;
    int code = pm_send_message(task, spec, wait);
    return code ? code : pm_receive_message(task, reply, 0, received, rest_of(wait, deadline, &rest));
}
