/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mach_msg(): the wire layout of XNU's mach/message.h for 64-bit tasks, on both sides of the path in send.c and receive.c. A message is
 * read once, into a kmsg whose cargo holds names and copies; nothing of the sender's buffer is looked at again.
 */
#include <string.h>

#include "sys/msg.h"

struct wire_header { uint32_t bits, size, remote, local, voucher; int32_t id; };
struct wire_port { uint32_t name, pad; uint16_t pad2; uint8_t disposition, type; };
struct wire_ool { uint64_t address; uint8_t deallocate, copy, disposition, type; uint32_t size; };
struct wire_guarded { uint64_t context; uint16_t flags; uint8_t disposition, type; uint32_t name; };
struct wire_trailer {
    uint32_t type, size, seqno, sender[2], audit[8], context[2], ad, label;
};
_Static_assert(sizeof(struct wire_header) == 24 && sizeof(struct wire_port) == 12 && sizeof(struct wire_ool) == 16 &&
               sizeof(struct wire_guarded) == 16 && sizeof(struct wire_trailer) == 68, "sizes of mach/message.h");

#define BITS_COMPLEX 0x80000000u
#define BITS_USER 0x801f1f1fu
#define TYPE_OFFSET 11                  /* of the type byte, in every descriptor */
#define DISPOSITION_OFFSET 10

static const uint8_t descriptor_sizes[] = {12, 16, 16, 16, 16};

static uint32_t bits_remote(uint32_t bits) { return bits & 0x1f; }
static uint32_t bits_local(uint32_t bits) { return bits >> 8 & 0x1f; }
static uint32_t bits_voucher(uint32_t bits) { return bits >> 16 & 0x1f; }

/* ==== reading ==================================================================================================== */

struct reader {
    struct pm_task *task;
    uint8_t *buffer;
    uint32_t size, descriptors, rights, body;   /* body: where inline data begins */
    uint64_t memory;
    bool confined, carries_memory;
    struct wire_header header;
    uint8_t *table;                     /* our own copy of the descriptors: another thread may write the sender's */
    uint32_t table_size;
};

static int measure_ool(struct reader *reader, const uint8_t *at) {
    struct wire_ool ool;
    memcpy(&ool, at, sizeof ool);
    if (ool.copy > 1) return MACH_SEND_INVALID_TYPE;
    if (ool.size && !ool.address) return MACH_SEND_INVALID_MEMORY;
    reader->carries_memory = true;
    reader->memory += ool.size;
    return reader->memory > PM_MESSAGE_MAX ? MACH_SEND_TOO_LARGE : 0;
}

static int measure_ports(struct reader *reader, const uint8_t *at) {
    struct wire_ool ool;
    memcpy(&ool, at, sizeof ool);
    if (ool.copy > 1 || !disposition_of(ool.disposition)) return MACH_SEND_INVALID_TYPE;
    if (ool.size > PM_MESSAGE_PORTS_MAX - reader->rights) return MACH_SEND_TOO_LARGE;
    if (ool.size && !ool.address) return MACH_SEND_INVALID_MEMORY;
    reader->rights += ool.size;
    return 0;
}

static int measure_port(struct reader *reader, const uint8_t *at) {
    if (!disposition_of(at[DISPOSITION_OFFSET])) return MACH_SEND_INVALID_TYPE;
    return ++reader->rights > PM_MESSAGE_PORTS_MAX ? MACH_SEND_TOO_LARGE : 0;
}

static int measure_guarded(struct reader *reader, const uint8_t *at) {
    struct wire_guarded guarded;
    memcpy(&guarded, at, sizeof guarded);
    if (guarded.disposition != MACH_MSG_TYPE_MOVE_RECEIVE || guarded.flags & ~MACH_MSG_GUARD_FLAGS_MASK)
        return MACH_SEND_INVALID_TYPE;
    return ++reader->rights > PM_MESSAGE_PORTS_MAX ? MACH_SEND_TOO_LARGE : 0;
}

static int (*const measures[])(struct reader *reader, const uint8_t *at) = {
    measure_port, measure_ool, measure_ports, measure_ool, measure_guarded};

static int measure_table(struct reader *reader) {
    uint32_t offset = 0;
    for (uint32_t i = 0; i < reader->descriptors; i++) {
        const uint8_t *at = reader->table + offset;
        if (reader->table_size - offset < 12) return MACH_SEND_MSG_TOO_SMALL;
        if (at[TYPE_OFFSET] >= array_count(descriptor_sizes)) return MACH_SEND_INVALID_TYPE;
        if (reader->table_size - offset < descriptor_sizes[at[TYPE_OFFSET]]) return MACH_SEND_MSG_TOO_SMALL;
        int code = measures[at[TYPE_OFFSET]](reader, at);
        if (code) return code;
        offset += descriptor_sizes[at[TYPE_OFFSET]];
    }
    reader->body += offset;
    return 0;
}

/* As much as the descriptors can be; where they end is known once they are measured. */
static int copy_table(struct reader *reader) {
    uint32_t room = reader->size - reader->body, most = 16 * reader->descriptors;
    reader->table_size = most < room ? most : room;
    if (!reader->table_size) return 0;
    reader->table = heap_alloc(&reader->task->kernel->heap, reader->table_size);
    if (!reader->table) return KERN_RESOURCE_SHORTAGE;
    memcpy(reader->table, reader->buffer + reader->body, reader->table_size);
    return 0;
}

static int measure_body(struct reader *reader) {
    reader->body = sizeof reader->header;
    if (!(reader->header.bits & BITS_COMPLEX)) return 0;
    if (reader->size < sizeof reader->header + 4) return MACH_SEND_MSG_TOO_SMALL;
    memcpy(&reader->descriptors, reader->buffer + sizeof reader->header, 4);
    reader->body += 4;
    if (reader->descriptors > (reader->size - reader->body) / 12) return MACH_SEND_MSG_TOO_SMALL;
    int code = copy_table(reader);
    return code ? code : measure_table(reader);
}

static int header_fault(const struct wire_header *header) {
    uint32_t dest = bits_remote(header->bits), reply = bits_local(header->bits), voucher = bits_voucher(header->bits);
    if (header->bits & ~BITS_USER || !disposition_sends(dest)) return MACH_SEND_INVALID_HEADER;
    if (reply ? !disposition_sends(reply) : header->local != MACH_PORT_NULL) return MACH_SEND_INVALID_HEADER;
    if (voucher && voucher != MACH_MSG_TYPE_MOVE_SEND && voucher != MACH_MSG_TYPE_COPY_SEND)
        return MACH_SEND_INVALID_VOUCHER;
    if (header->remote == MACH_PORT_NULL || header->remote == MACH_PORT_DEAD) return MACH_SEND_INVALID_DEST;
    bool same = header->remote == header->local;
    if (same && (dest == MACH_MSG_TYPE_MOVE_SEND_ONCE || reply == MACH_MSG_TYPE_MOVE_SEND_ONCE))
        return MACH_SEND_INVALID_DEST;
    /* There are no vouchers here, so none can be named. */
    return voucher && header->voucher != MACH_PORT_NULL && header->voucher != MACH_PORT_DEAD ? MACH_SEND_INVALID_VOUCHER : 0;
}

static int measure(struct reader *reader) {
    if (reader->size < sizeof reader->header || reader->size % 4) return MACH_SEND_MSG_TOO_SMALL;
    if (reader->size > PM_MESSAGE_MAX) return MACH_SEND_TOO_LARGE;
    memcpy(&reader->header, reader->buffer, sizeof reader->header);
    int code = measure_body(reader);
    return code ? code : header_fault(&reader->header);
}

/* Copies out-of-line data, at the moment of sending. A confined task's regions cannot go away meanwhile. */
static int copy_memory(const struct reader *reader, void *to, uint64_t address, uint64_t size) {
    struct pm_kernel *kernel = reader->task->kernel;
    if (!reader->confined) {
        memcpy(to, (const void *)(uintptr_t)address, size);
        return 0;
    }
    kernel_lock(kernel);
    bool owned = region_contains(&reader->task->space, address, size);
    if (owned) memcpy(to, (const void *)(uintptr_t)address, size);
    kernel_unlock(kernel);
    return owned ? 0 : MACH_SEND_INVALID_MEMORY;
}

static int read_ool(const struct reader *reader, struct descriptor *descriptor, const struct wire_ool *ool) {
    descriptor->copy = ool->copy;
    descriptor->deallocate = ool->deallocate;
    descriptor->guard_context = ool->address;           /* the sender's, to be deallocated once it is sent */
    if (!ool->size) return 0;
    void *memory = heap_alloc(&reader->task->kernel->heap, ool->size);
    if (!memory) return KERN_RESOURCE_SHORTAGE;
    descriptor->memory = (struct pm_memory){.address = memory, .size = ool->size};
    return copy_memory(reader, memory, ool->address, ool->size);
}

static int read_ports(const struct reader *reader, struct cargo *cargo, struct descriptor *descriptor,
                      const struct wire_ool *ool) {
    uint32_t *names = ool->size ? heap_alloc(&reader->task->kernel->heap, 4 * (size_t)ool->size) : NULL;
    descriptor->copy = ool->copy;
    descriptor->deallocate = ool->deallocate;
    descriptor->guard_context = ool->address;
    descriptor->count = ool->size;
    if (ool->size && !names) return KERN_RESOURCE_SHORTAGE;
    int code = ool->size ? copy_memory(reader, names, ool->address, 4 * (uint64_t)ool->size) : 0;
    for (uint32_t i = 0; !code && i < ool->size; i++)
        cargo->rights[descriptor->first + i] = (struct right_in_flight){.name = names[i], .disposition = ool->disposition};
    heap_free(&reader->task->kernel->heap, names, 4 * (size_t)ool->size);
    return code;
}

static int read_descriptor(const struct reader *reader, struct cargo *cargo, struct descriptor *descriptor,
                           const uint8_t *at, uint32_t first) {
    struct wire_ool ool;
    struct wire_port port;
    struct wire_guarded guarded;
    *descriptor = (struct descriptor){.type = at[TYPE_OFFSET], .disposition = at[DISPOSITION_OFFSET], .first = first};
    switch (descriptor->type) {
    case MACH_MSG_OOL_DESCRIPTOR:
    case MACH_MSG_OOL_VOLATILE_DESCRIPTOR:
        memcpy(&ool, at, sizeof ool);
        descriptor->disposition = 0;
        return read_ool(reader, descriptor, &ool);
    case MACH_MSG_OOL_PORTS_DESCRIPTOR:
        memcpy(&ool, at, sizeof ool);
        return read_ports(reader, cargo, descriptor, &ool);
    case MACH_MSG_GUARDED_PORT_DESCRIPTOR:
        memcpy(&guarded, at, sizeof guarded);
        descriptor->guard_context = guarded.context;
        descriptor->guard_flags = guarded.flags;
        port.name = guarded.name;
        break;
    default:
        memcpy(&port, at, sizeof port);
    }
    descriptor->count = 1;
    cargo->rights[first] = (struct right_in_flight){.name = port.name, .disposition = descriptor->disposition};
    return 0;
}

static int read_cargo(const struct reader *reader, struct cargo *cargo) {
    const uint8_t *at = reader->table;
    uint32_t first = 0;
    for (uint32_t i = 0; i < reader->descriptors; i++) {
        int code = read_descriptor(reader, cargo, &cargo->descriptors[i], at, first);
        if (code) return code;
        first += cargo->descriptors[i].count;
        at += descriptor_sizes[at[TYPE_OFFSET]];
    }
    return 0;
}

static int read_message(const struct reader *reader, struct kmsg **result) {
    struct pm_kernel *kernel = reader->task->kernel;
    kernel_lock(kernel);
    struct kmsg *kmsg = kmsg_create(&kernel->ipc, reader->size - reader->body);
    kernel_unlock(kernel);
    if (!kmsg) return KERN_RESOURCE_SHORTAGE;
    *result = kmsg;
    memcpy(kmsg->body, reader->buffer + reader->body, kmsg->size);
    kmsg->msgh_id = reader->header.id;
    kmsg->voucher = bits_voucher(reader->header.bits) ? 0 : reader->header.voucher;
    kmsg->charge = kmsg->size + (uint32_t)reader->memory;
    if (!(reader->header.bits & BITS_COMPLEX)) return 0;
    kmsg->cargo = cargo_create(&kernel->ipc, reader->descriptors, reader->rights);
    if (!kmsg->cargo) return KERN_RESOURCE_SHORTAGE;
    kmsg->charge += (uint32_t)kmsg->cargo->allocated;
    return read_cargo(reader, kmsg->cargo);
}

/* ==== writing ==================================================================================================== */

struct writer { struct pm_task *task; uint8_t *at; uint64_t option; bool short_of_memory; };

static void put_bytes(struct writer *writer, const void *data, size_t size) {
    memcpy(writer->at, data, size);
    writer->at += size;
}

/* Data that arrives becomes a region of the task, to be deallocated by it. */
static uint64_t put_region(struct writer *writer, const void *data, uint64_t size, bool own) {
    struct pm_kernel *kernel = writer->task->kernel;
    struct space *space = &writer->task->space;
    void *memory = own ? (void *)(uintptr_t)data : size ? heap_alloc(&kernel->heap, size) : NULL;
    if (!size || !memory) {
        writer->short_of_memory |= size != 0;
        return 0;
    }
    if (!own) memcpy(memory, data, size);
    kernel_lock(kernel);
    bool good = space->alive && regions_reserve(kernel, space, 1);
    if (good) region_add(space, (uintptr_t)memory, size);
    kernel_unlock(kernel);
    if (good) return (uintptr_t)memory;
    writer->short_of_memory = true;
    if (!own) heap_free(&kernel->heap, memory, size);
    return 0;
}

static void put_ool(struct writer *writer, struct descriptor *descriptor) {
    struct pm_memory *memory = &descriptor->memory;
    struct wire_ool ool = {.deallocate = 1, .copy = 1, .type = descriptor->type, .size = (uint32_t)memory->size};
    bool own = !memory->release;
    ool.address = put_region(writer, memory->address, memory->size, own);
    if (ool.address && own) *memory = (struct pm_memory){0};    /* the task's from now on */
    if (!ool.address) ool.size = 0;
    put_bytes(writer, &ool, sizeof ool);
}

/* No room to tell the names in: nobody would know of these rights, so they go. */
static void strand_ports(struct writer *writer, const struct cargo *cargo, const struct descriptor *descriptor,
                         struct wire_ool *ool) {
    struct pm_received lost = {.rights = &cargo->received[descriptor->first], .rights_count = descriptor->count};
    for (uint32_t i = 0; i < descriptor->count; i++) {
        const struct right_in_flight *right = &cargo->rights[descriptor->first + i];
        cargo->received[descriptor->first + i] = (struct pm_received_right){right->name, right->type};
    }
    pm_message_refuse(writer->task, &lost);
    writer->short_of_memory = true;
    ool->size = 0;
}

static void put_ports(struct writer *writer, const struct cargo *cargo, const struct descriptor *descriptor,
                      uint8_t disposition) {
    struct pm_kernel *kernel = writer->task->kernel;
    size_t size = 4 * (size_t)descriptor->count;
    uint32_t *names = size ? heap_alloc(&kernel->heap, size) : NULL;
    struct wire_ool ool = {.deallocate = 1, .copy = 1, .type = descriptor->type, .disposition = disposition,
                           .size = descriptor->count};
    for (uint32_t i = 0; names && i < descriptor->count; i++) names[i] = cargo->rights[descriptor->first + i].name;
    ool.address = names ? put_region(writer, names, size, true) : 0;
    if (names && !ool.address) heap_free(&kernel->heap, names, size);
    if (size && !ool.address) strand_ports(writer, cargo, descriptor, &ool);
    put_bytes(writer, &ool, sizeof ool);
}

static void put_guarded(struct writer *writer, const struct descriptor *descriptor, uint32_t name, uint8_t disposition) {
    struct wire_guarded guarded = {.context = descriptor->guard_context, .flags = descriptor->guard_flags,
                                   .disposition = disposition, .type = descriptor->type, .name = name};
    put_bytes(writer, &guarded, sizeof guarded);
}

static void put_port(struct writer *writer, uint32_t name, uint8_t disposition) {
    struct wire_port port = {.name = name, .disposition = disposition, .type = MACH_MSG_PORT_DESCRIPTOR};
    put_bytes(writer, &port, sizeof port);
}

static bool keeps_guard(uint64_t option, const struct descriptor *descriptor) {
    return descriptor->type == MACH_MSG_GUARDED_PORT_DESCRIPTOR && option & MACH_RCV_GUARDED_DESC;
}

static uint32_t descriptor_size(uint64_t option, const struct descriptor *descriptor) {
    bool plain = descriptor->type == MACH_MSG_GUARDED_PORT_DESCRIPTOR && !keeps_guard(option, descriptor);
    return descriptor_sizes[plain ? MACH_MSG_PORT_DESCRIPTOR : descriptor->type];
}

/* What a disposition says of a right that has arrived, or came back. */
static uint32_t returned(uint32_t disposition) {
    const struct disposition *how = disposition_of(disposition);
    return how ? how->result : 0;
}

static void put_descriptor(struct writer *writer, struct cargo *cargo, struct descriptor *descriptor) {
    const struct right_in_flight *right = &cargo->rights[descriptor->first];
    uint8_t disposition = (uint8_t)returned(descriptor->disposition);
    if (descriptor->type == MACH_MSG_OOL_PORTS_DESCRIPTOR) put_ports(writer, cargo, descriptor, disposition);
    else if (!descriptor->count) put_ool(writer, descriptor);
    else if (keeps_guard(writer->option, descriptor)) put_guarded(writer, descriptor, right->name, disposition);
    else put_port(writer, right->name, disposition);
}

/* Also one that says it has no descriptors; not one whose cargo only tells how to release the body. */
static bool is_complex(const struct kmsg *kmsg) {
    return kmsg->cargo && (kmsg->cargo->descriptors_used || !kmsg->cargo->release);
}

static void put_body(struct writer *writer, struct kmsg *kmsg) {
    struct cargo *cargo = kmsg->cargo;
    if (is_complex(kmsg)) {
        put_bytes(writer, &cargo->descriptors_used, 4);
        for (uint32_t i = 0; i < cargo->descriptors_used; i++) put_descriptor(writer, cargo, &cargo->descriptors[i]);
    }
    if (kmsg->size) put_bytes(writer, kmsg->body, kmsg->size);
}

static uint32_t wire_size(uint64_t option, const struct kmsg *kmsg) {
    const struct cargo *cargo = kmsg->cargo;
    uint32_t size = sizeof(struct wire_header) + kmsg->size;
    if (!is_complex(kmsg)) return size;
    for (uint32_t i = 0; i < cargo->descriptors_used; i++) size += descriptor_size(option, &cargo->descriptors[i]);
    return size + 4;
}

static uint32_t complex_bit(const struct kmsg *kmsg) {
    return is_complex(kmsg) ? BITS_COMPLEX : 0;
}

/* ==== send ======================================================================================================= */

static void put_back(struct send *send, uint8_t *buffer, const struct wire_header *sent) {
    struct writer writer = {.task = send->call.task, .at = buffer, .option = MACH_RCV_GUARDED_DESC};
    struct wire_header header = *sent;
    header.bits = returned(bits_remote(sent->bits)) | returned(bits_local(sent->bits)) << 8 | complex_bit(send->kmsg);
    header.size = wire_size(writer.option, send->kmsg);
    header.remote = send->dest_name;
    header.local = send->reply_name;
    put_bytes(&writer, &header, sizeof header);
    put_body(&writer, send->kmsg);
}

/* Memory that was to be deallocated at the sender is, once the message is on its way or handed back. */
static void deallocate_sent(struct pm_task *task, const struct reader *reader) {
    const uint8_t *at = reader->table;
    struct pm_kernel *kernel = task->kernel;
    for (uint32_t i = 0; i < reader->descriptors; i++, at += descriptor_sizes[at[TYPE_OFFSET]]) {
        struct wire_ool ool;
        bool memory = at[TYPE_OFFSET] != MACH_MSG_PORT_DESCRIPTOR && at[TYPE_OFFSET] != MACH_MSG_GUARDED_PORT_DESCRIPTOR;
        memcpy(&ool, at, memory ? sizeof ool : 0);
        if (!memory || !ool.deallocate || !ool.size) continue;
        uint64_t size = at[TYPE_OFFSET] == MACH_MSG_OOL_PORTS_DESCRIPTOR ? 4 * (uint64_t)ool.size : ool.size;
        kernel_lock(kernel);
        bool removed = region_remove(&task->space, ool.address, size);
        if (removed) heap_free(&kernel->heap, (void *)(uintptr_t)ool.address, size);
        kernel_unlock(kernel);
    }
}

static int send_read(struct reader *reader, struct send *send, uint64_t option, const struct pm_wait *wait) {
    struct pm_task *task = reader->task;
    struct kmsg *kmsg = NULL;
    int code = reader->buffer || !reader->size ? measure(reader) : MACH_SEND_INVALID_DATA;
    send->call.site.name = reader->header.remote;
    send->call.site.msgh_id = reader->header.id;
    if (!code) code = read_message(reader, &kmsg);
    if (code && kmsg) message_drop(task->kernel, kmsg);
    if (code) return call_refuse(&send->call, code);
    send->dest = reader->header.remote;
    send->dest_disposition = bits_remote(reader->header.bits);
    send->reply = reader->header.local;
    send->reply_disposition = bits_local(reader->header.bits);
    send->option = (uint32_t)option;
    send->effective_sid = 0;
    send->carries_memory = reader->carries_memory;
    send->hand_back = true;
    send->kmsg = kmsg;
    code = send_run(send, wait);
    if (!code || send->handed_back) deallocate_sent(task, reader);
    if (send->handed_back) put_back(send, reader->buffer, &reader->header);
    if (send->kmsg) message_drop(task->kernel, send->kmsg);
    return code;
}

static int wire_send(struct pm_task *task, uint8_t *buffer, uint64_t option, uint32_t size, const struct pm_wait *wait) {
    struct reader reader = {.task = task, .buffer = buffer, .size = size, .confined = option & PM_MSG_CONFINED};
    struct send send;
    int code = call_init(&send.call, task, task, PM_OP_SEND, 0);
    if (code) return code;
    code = send_read(&reader, &send, option, wait);
    heap_free(&task->kernel->heap, reader.table, reader.table_size);
    return code;
}

/* ==== receive ==================================================================================================== */

struct wire_receive { struct receive receive; uint64_t option; };

/* 0: no such trailer. */
static uint32_t trailer_size(uint64_t option) {
    static const uint8_t sizes[16] = {8, 12, 20, 52, 60, 0, 0, 68, 68};
    return option >> 28 & 0xf ? 0 : sizes[option >> 24 & 0xf];
}

static uint64_t need_wire(const struct receive *receive, const struct kmsg *kmsg) {
    uint64_t option = ((const struct wire_receive *)receive)->option;
    return ((wire_size(option, kmsg) + 3) & ~3u) + trailer_size(option);
}

static void fill_trailer(struct wire_trailer *trailer, const struct pm_received *received, uint64_t option) {
    bool labels = (option >> 24 & 0xf) == MACH_RCV_TRAILER_LABELS;
    *trailer = (struct wire_trailer){.size = trailer_size(option), .seqno = received->seqno, .ad = received->method,
                                     .context = {(uint32_t)received->context, (uint32_t)(received->context >> 32)},
                                     .label = labels ? received->sender_sid : 0};
    memcpy(trailer->sender, received->identity.security_token, sizeof trailer->sender);
    memcpy(trailer->audit, received->identity.audit_token, sizeof trailer->audit);
}

static bool wire_deliver(struct wire_receive *wire, uint8_t *buffer) {
    struct receive *receive = &wire->receive;
    struct kmsg *kmsg = receive->kmsg;
    struct writer writer = {.task = receive->call.task, .at = buffer, .option = wire->option};
    struct pm_received received;
    struct wire_trailer trailer;
    received_fill(&received, receive);
    struct wire_header header = {.bits = received.reply_disposition | (uint32_t)kmsg->dest_type << 8 | complex_bit(kmsg),
                                 .size = wire_size(wire->option, kmsg), .remote = received.reply, .local = received.local,
                                 .voucher = received.voucher, .id = received.msgh_id};
    put_bytes(&writer, &header, sizeof header);
    put_body(&writer, kmsg);
    for (; (writer.at - buffer) % 4; writer.at++) *writer.at = 0;
    fill_trailer(&trailer, &received, wire->option);
    put_bytes(&writer, &trailer, trailer.size);
    return !writer.short_of_memory;
}

/* The message did not fit. Left in the queue: the caller learns how much room it takes; destroyed: the bare header comes. */
static void tell_too_large(const struct wire_receive *wire, uint8_t *buffer, uint32_t room) {
    const struct receive *receive = &wire->receive;
    bool identity = !receive->discard_too_large && wire->option & MACH_RCV_LARGE_IDENTITY;
    struct wire_header header = {.size = receive->needed - trailer_size(wire->option), .id = receive->too_large_id};
    if (room < sizeof header) return;
    if (receive->discard_too_large) header.size = sizeof header;
    if (identity || receive->discard_too_large) header.local = receive->local;
    memcpy(buffer, &header, sizeof header);
}

static int wire_receive(struct pm_task *task, uint8_t *buffer, uint64_t option, uint32_t room, uint32_t name,
                        const struct pm_wait *wait) {
    struct wire_receive wire = {.option = option};
    struct receive *receive = &wire.receive;
    *receive = (struct receive){.name = name, .room = room, .need = need_wire,
                                .discard_too_large = !(option & MACH_RCV_LARGE)};
    int code = call_init(&receive->call, task, task, PM_OP_RECEIVE, name);
    if (code) return code;
    if (!trailer_size(option)) return call_refuse(&receive->call, MACH_RCV_INVALID_TRAILER);
    if (room && !buffer) return call_refuse(&receive->call, MACH_RCV_INVALID_DATA);
    code = receive_run(receive, wait);
    if (code == MACH_RCV_TOO_LARGE) tell_too_large(&wire, buffer, room);
    if (!receive->kmsg) return code;
    if (!wire_deliver(&wire, buffer)) code = (code ? code : MACH_RCV_BODY_ERROR) | MACH_MSG_VM_SPACE;
    if (receive->kmsg->cargo) kmsg_release(receive->kmsg);
    message_received(task->kernel, receive->kmsg);
    return code;
}

/* ==== peeking ==================================================================================================== */

struct peek_call { struct call call; struct pm_peek *peek; uint32_t option; };

/* A message's number is the port's next one plus its place in the queue; 0 asks for the first. */
static const struct kmsg *message_number(const struct port *port, uint32_t *seqno) {
    uint32_t place = *seqno ? *seqno - port->seqno : 0;
    const struct kmsg *kmsg = port->first;
    if (place >= port->msgcount) return NULL;
    *seqno = port->seqno + place;
    while (place--) kmsg = kmsg->next;
    return kmsg;
}

static void peek_fill(struct pm_peek *peek, const struct kmsg *kmsg, uint32_t option) {
    struct pm_received received = {.seqno = peek->seqno, .identity.security_token = {0, 1}};
    struct wire_trailer trailer;
    if (kmsg->sender) received.identity = kmsg->sender->identity;
    fill_trailer(&trailer, &received, option);
    peek->size = wire_size(MACH_RCV_GUARDED_DESC, kmsg) + trailer_size(0);      /* as the kernel counts it */
    peek->msgh_id = kmsg->msgh_id;
    peek->trailer_size = trailer.size;
    memcpy(peek->trailer, &trailer, trailer.size);
}

static int attempt_peek(struct call *call) {
    struct peek_call *args = (struct peek_call *)call;
    int entered = call_enter(call, PM_MACH_TASK__observe), code = KERN_INVALID_RIGHT;
    if (entered && entered != CALL_MISS) return entered;
    struct entry *entry = name_valid(call->site.name) ? call_receive_entry(call, call->site.name, &code) : NULL;
    if (!entry) return entered ? entered : code;
    const struct port *port = entry->object;
    code = call_check_port(call, port, PM_MACH_PORT__get_attributes, KERN_NO_ACCESS);
    if (!code) code = entered ? entered : call_ready(call);
    if (code) return code;
    if ((args->option >> 24 & 0xf) > MACH_RCV_TRAILER_AUDIT || !trailer_size(args->option)) return KERN_INVALID_VALUE;
    const struct kmsg *kmsg = message_number(port, &args->peek->seqno);
    if (kmsg) peek_fill(args->peek, kmsg, args->option);
    return kmsg ? 0 : KERN_FAILURE;
}

int pm_port_peek(struct pm_task *caller, struct pm_task *task, uint32_t name, uint32_t option, struct pm_peek *peek) {
    struct peek_call args = {.peek = peek, .option = option};
    int code = call_init(&args.call, caller, task, PM_OP_ATTRIBUTES, name);
    return code ? code : call_run(&args.call, attempt_peek);
}

/* ==== both ======================================================================================================= */

/* The timeout counts only where its option is given; without a wait at all, nothing waits. */
static const struct pm_wait *wait_for(const struct pm_wait *wait, bool limited, struct pm_wait *room) {
    if (!wait) return NULL;
    *room = *wait;
    if (!limited) room->timeout_ns = -1;
    return room;
}

int pm_mach_msg(struct pm_task *task, void *buffer, uint64_t option, uint32_t send_size, uint32_t rcv_size,
                uint32_t rcv_name, uint32_t notify, const struct pm_wait *wait) {
    struct pm_wait room;
    int code = 0;
    (void)notify;                       /* XNU's priority override: nothing here has priorities */
    if (!task) return KERN_INVALID_TASK;
    if (option & MACH_SEND_MSG)
        code = wire_send(task, buffer, option, send_size, wait_for(wait, option & MACH_SEND_TIMEOUT, &room));
    if (code || !(option & MACH_RCV_MSG)) return code;
    return wire_receive(task, buffer, option, rcv_size, rcv_name, wait_for(wait, option & MACH_RCV_TIMEOUT, &room));
}
