/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which method of its port a message asks for, and whether its sender may call it. Asked at the send; asked again at the receive
 * where the policy, the port's label or its interface have changed since: what is received is judged as things are then.
 */
#include "sys/msg.h"

static const struct interface *interface_of(const struct pm_kernel *kernel, const struct port *port) {
    return port->flags & PORT_INTERFACE ? interface_find(&kernel->interfaces, port->rest->interface) : NULL;
}

struct method method_of(const struct pm_kernel *kernel, const struct port *port, const struct kmsg *kmsg) {
    struct method method = {PM_CLASS_MACH_PORT, 0};
    const struct interface *interface = interface_of(kernel, port);
    if (interface) interface_method(interface, kmsg->msgh_id, &method);
    return method;
}

enum mac_verdict method_judge(struct call *call, const struct port *port, struct kmsg *kmsg, const struct mac_site *site) {
    struct mac_op *mac = &call->mac;
    const struct interface *interface = interface_of(call->kernel, port);
    struct method method = method_of(call->kernel, port, kmsg);
    struct mac_site about = *site;
    struct avc_vector vector;
    enum mac_verdict verdict = MAC_ALLOWED;
    about.operation = PM_OP_METHOD;
    if (method.permission) verdict = mac_check(mac, port->sid, method.tclass, method.permission, &about);
    else if (interface && !(interface->flags & PM_INTERFACE_ALLOW_UNKNOWN))
        verdict = mac_refuse(mac, port->sid, interface->tclass, PM_METHOD_UNKNOWN, &about);
    kmsg->access = mac_vector(mac, port->sid, method.tclass, &vector) ? vector.allowed : 0;
    kmsg->flags &= (uint16_t)~KMSG_METHOD;
    if (kmsg->access & method.permission) kmsg->flags |= KMSG_METHOD;
    return verdict;
}

enum mac_verdict method_judge_again(struct call *call, const struct port *port, struct kmsg *kmsg) {
    struct mac_op *mac = &call->mac;
    uint32_t real_sid = mac->real_sid, sid = mac->sid, task = mac->task;
    if (!kmsg->sender || !method_outdated(call_ipc(call), port, kmsg)) return MAC_ALLOWED;
    struct mac_site site = call->site;
    site.name = 0;                      /* the sender's name for the port is not known any more */
    mac->real_sid = kmsg->real_sid;
    mac->sid = kmsg->sid;
    mac->task = kmsg->sender->id;
    enum mac_verdict verdict = method_judge(call, port, kmsg, &site);
    mac->real_sid = real_sid;
    mac->sid = sid;
    mac->task = task;
    return verdict;
}

void receive_describe(const struct pm_kernel *kernel, struct receive *receive, const struct port *port) {
    const struct kmsg *kmsg = receive->kmsg;
    receive->method = kmsg->sender ? method_of(kernel, port, kmsg) : (struct method){PM_CLASS_MACH_PORT, 0};
    receive->permitted = kmsg->sender && (kmsg->flags & KMSG_METHOD || mac_unchecked(&kernel->mac));
}
