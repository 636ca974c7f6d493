/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What Python's inner loops call without a layer of Python in between: builtin functions bound to one right, and the base of the
 * Message class, which is the structure the core filled in. Written for CPython's limited API. It stands at the end of the
 * preamble that cffi generates, after the pm_block_ wrappers (build_ffi.py).
 *
 * The constructors borrow Python objects as `void *` and return a new reference as `void *`, NULL with no memory left. What does
 * not succeed is put into words, or waited for, by the Python callable `slow(code, name)` given at creation: it raises.
 *
 * cdef-begin and cdef-end mark what cffi reads.
 */
#ifndef PM_CALLABLES_H
#define PM_CALLABLES_H

#include <stdbool.h>
#include <structmember.h>
#include <time.h>

#define PM_RECEIVER_INLINE 4096         /* bytes of a message that receiver() takes without asking for memory */
#define PM_DELIVERED_IN_PART (MACH_RCV_BODY_ERROR | MACH_MSG_IPC_SPACE)

#if 0 /* for cffi */
/* cdef-begin */
void *pm_binding_held_task(struct pm_task *task);
void *pm_binding_lent(void *owner, uint64_t address, uint64_t size);
void *pm_received_type(void);
void *pm_received_wrap(void *type, void *task, const struct pm_received *received);
void pm_upcall_targets(void *targets);
int pm_python_handler(void *context, struct pm_received *received);
void *pm_callable_sender(void *owner, void *slow, struct pm_task *task, uint32_t dest, int32_t msgh_id, int64_t timeout_ns);
void *pm_callable_receiver(void *owner, void *slow, struct pm_task *task, uint32_t name, int64_t timeout_ns);
void *pm_callable_taker(void *owner, void *slow, void *type, struct pm_task *task, uint32_t name);
void *pm_callable_checker(void *owner, void *slow, struct pm_kernel **kernel, uint32_t tclass, uint32_t permissions);
void *pm_callable_caller(void *owner, void *slow, void *type, struct pm_task *task, uint32_t dest);
void *pm_callable_answerer(void *owner, void *slow, void *type, struct pm_task *task);
void *pm_callable_judge(void *owner, void *slow, void *type, struct pm_task *task, uint32_t tclass, uint32_t permissions);
void *pm_callable_rows_sender(void *owner, void *slow, struct pm_task *task);
void *pm_callable_rows_receiver(void *owner, void *slow, struct pm_task *task);
/* cdef-end */
#endif

/* ---- a task's handle as an object ----------------------------------------------------------------------------------- */

/*
 * Gives the handle back when nobody has the object any more, and not before: what ffi.gc() makes is finalized in any order with the
 * rest of a cycle that is garbage, where a generator may still ask the task something on its way out.
 */
struct pm_held {
    PyObject_HEAD
    struct pm_task *task;
};

static void pm_held_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject *error, *value, *traceback;

    PyErr_Fetch(&error, &value, &traceback);
    pm_task_release(((struct pm_held *)self)->task);
    PyErr_Restore(error, value, traceback);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyType_Slot pm_held_slots[] = {
    { Py_tp_dealloc, pm_held_dealloc },
    { 0, NULL },
};

static PyType_Spec pm_held_spec = {
    .name = "pympi._core.Held",
    .basicsize = sizeof(struct pm_held),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pm_held_slots,
};

/* Takes the handle over, also where there is no memory: NULL then. */
static void *pm_binding_held_task(struct pm_task *task)
{
    static PyObject *type;
    pm_gil gil = pm_gil_take();
    struct pm_held *held = NULL;

    if (type != NULL || (type = PyType_FromSpec(&pm_held_spec)) != NULL)
        held = (struct pm_held *)PyType_GenericAlloc((PyTypeObject *)type, 0);
    if (held != NULL)
        held->task = task;
    else
        pm_task_release(task);
    PyErr_Clear();
    pm_gil_drop(gil);
    return held;
}

/* ---- memory that somebody lends ------------------------------------------------------------------------------------- */

/* Bytes to look at, for as long as their owner lives, which this keeps; the same of a cycle holds as for a handle. */
struct pm_lent {
    PyObject_HEAD
    PyObject *owner;
    void *address;
    Py_ssize_t size;
};

static int pm_lent_buffer(PyObject *self, Py_buffer *view, int flags)
{
    struct pm_lent *lent = (struct pm_lent *)self;

    return PyBuffer_FillInfo(view, self, lent->address, lent->size, 1, flags);
}

static int pm_lent_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct pm_lent *)self)->owner);
    return 0;
}

static void pm_lent_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_CLEAR(((struct pm_lent *)self)->owner);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyType_Slot pm_lent_slots[] = {
    { Py_bf_getbuffer, pm_lent_buffer },
    { Py_tp_traverse, pm_lent_traverse },
    { Py_tp_dealloc, pm_lent_dealloc },
    { 0, NULL },
};

static PyType_Spec pm_lent_spec = {
    .name = "pympi._core.Lent",
    .basicsize = sizeof(struct pm_lent),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pm_lent_slots,
};

static void *pm_binding_lent(void *owner, uint64_t address, uint64_t size)
{
    static PyObject *type;
    pm_gil gil = pm_gil_take();
    struct pm_lent *lent = NULL;

    if (type != NULL || (type = PyType_FromSpec(&pm_lent_spec)) != NULL)
        lent = (struct pm_lent *)PyType_GenericAlloc((PyTypeObject *)type, 0);
    if (lent != NULL) {
        Py_INCREF((PyObject *)owner);
        lent->owner = owner;
        lent->address = (void *)(uintptr_t)address;
        lent->size = (Py_ssize_t)size;
    }
    PyErr_Clear();
    pm_gil_drop(gil);
    return lent;
}

/* ---- a message as an object ---------------------------------------------------------------------------------------- */

struct pm_received_object {
    PyObject_HEAD
    struct pm_received received;        /* owns received.message, if any */
    PyObject *task;
    PyObject *body;                     /* made when first asked for */
    PyObject *rights, *memory;          /* for Message: what it made of them */
    char replied;
};

#define PM_FIELD(name, type, field) { name, type, offsetof(struct pm_received_object, received.field), READONLY, NULL }
static PyMemberDef pm_received_members[] = {
    PM_FIELD("msgh_id", T_INT, msgh_id),
    PM_FIELD("seqno", T_UINT, seqno),
    PM_FIELD("size", T_UINT, size),
    PM_FIELD("local_name", T_UINT, local),
    PM_FIELD("reply_name", T_UINT, reply),
    PM_FIELD("reply_disposition", T_UINT, reply_disposition),
    PM_FIELD("sender_sid", T_UINT, sender_sid),
    PM_FIELD("real_sid", T_UINT, real_sid),
    PM_FIELD("sender_task", T_UINT, sender_task),
    PM_FIELD("access", T_UINT, access),
    PM_FIELD("method", T_UINT, method),
    PM_FIELD("tclass", T_UINT, tclass),
    PM_FIELD("permission", T_UINT, permission),
    PM_FIELD("denied", T_UINT, denied),
    PM_FIELD("voucher", T_UINT, voucher),
    PM_FIELD("transfer", T_ULONGLONG, transfer),
    PM_FIELD("context", T_ULONGLONG, context),
    { "task", T_OBJECT, offsetof(struct pm_received_object, task), READONLY, NULL },
    { "_rights", T_OBJECT, offsetof(struct pm_received_object, rights), 0, NULL },
    { "_memory", T_OBJECT, offsetof(struct pm_received_object, memory), 0, NULL },
    { "_replied", T_BOOL, offsetof(struct pm_received_object, replied), 0, NULL },
    { NULL, 0, 0, 0, NULL },
};

static PyObject *pm_received_body(PyObject *self, void *closure)
{
    struct pm_received_object *object = (struct pm_received_object *)self;

    (void)closure;
    if (object->body == NULL)
        object->body = PyBytes_FromStringAndSize(object->received.body, object->received.size);
    Py_XINCREF(object->body);
    return object->body;
}

/* A tuple of what `item` makes of 0 .. count-1. */
static PyObject *pm_tuple(const struct pm_received *received, uint32_t count,
                          PyObject *(*item)(const struct pm_received *received, uint32_t index))
{
    PyObject *tuple = PyTuple_New(count);

    for (uint32_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *value = item(received, i);
        if (value == NULL) {
            Py_DECREF(tuple);
            return NULL;
        }
        PyTuple_SetItem(tuple, i, value);
    }
    return tuple;
}

static PyObject *pm_right_pair(const struct pm_received *received, uint32_t index)
{
    return Py_BuildValue("(II)", received->rights[index].name, received->rights[index].disposition);
}

static PyObject *pm_memory_pair(const struct pm_received *received, uint32_t index)
{
    const struct pm_memory *memory = &received->memory[index];
    return Py_BuildValue("(KK)", (unsigned long long)(uintptr_t)memory->address, (unsigned long long)memory->size);
}

static PyObject *pm_audit_word(const struct pm_received *received, uint32_t index)
{
    return PyLong_FromUnsignedLong(received->identity.audit_token[index]);
}

static PyObject *pm_security_word(const struct pm_received *received, uint32_t index)
{
    return PyLong_FromUnsignedLong(received->identity.security_token[index]);
}

static PyObject *pm_received_rights(PyObject *self, void *closure)
{
    const struct pm_received *received = &((struct pm_received_object *)self)->received;

    (void)closure;
    return pm_tuple(received, received->rights_count, pm_right_pair);
}

static PyObject *pm_received_memory(PyObject *self, void *closure)
{
    const struct pm_received *received = &((struct pm_received_object *)self)->received;

    (void)closure;
    return pm_tuple(received, received->memory_count, pm_memory_pair);
}

static PyObject *pm_received_identity(PyObject *self, void *closure)
{
    const struct pm_received *received = &((struct pm_received_object *)self)->received;

    (void)closure;
    return Py_BuildValue("(NN)", pm_tuple(received, 8, pm_audit_word), pm_tuple(received, 2, pm_security_word));
}

static PyGetSetDef pm_received_getset[] = {
    { "body", pm_received_body, NULL, NULL, NULL },
    { "carried_rights", pm_received_rights, NULL, NULL, NULL },
    { "carried_memory", pm_received_memory, NULL, NULL, NULL },
    { "identity", pm_received_identity, NULL, NULL, NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static void pm_received_release(struct pm_received_object *object)
{
    struct pm_message *message = object->received.message;

    object->received.message = NULL;
    object->received.rights_count = object->received.memory_count = 0;
    if (message != NULL)
        pm_message_free(message);
}

/* Gives the core's part back; the body is kept. */
static PyObject *pm_received_free(PyObject *self, PyObject *unused)
{
    PyObject *body = pm_received_body(self, NULL);

    (void)unused;
    if (body == NULL)
        return NULL;
    Py_DECREF(body);
    pm_received_release((struct pm_received_object *)self);
    Py_RETURN_NONE;
}

static PyMethodDef pm_received_methods[] = {
    { "_free", pm_received_free, METH_NOARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static int pm_received_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct pm_received_object *object = (struct pm_received_object *)self;

    Py_VISIT(Py_TYPE(self));
    Py_VISIT(object->task);
    Py_VISIT(object->rights);
    Py_VISIT(object->memory);
    return 0;
}

static int pm_received_clear(PyObject *self)
{
    struct pm_received_object *object = (struct pm_received_object *)self;

    Py_CLEAR(object->rights);
    Py_CLEAR(object->memory);
    return 0;
}

static void pm_received_dealloc(PyObject *self)
{
    struct pm_received_object *object = (struct pm_received_object *)self;
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    pm_received_clear(self);
    pm_received_release(object);
    Py_CLEAR(object->body);
    Py_CLEAR(object->task);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *pm_received_refuse(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)type, (void)args, (void)kwargs;
    PyErr_SetString(PyExc_TypeError, "messages are made by receiving");
    return NULL;
}

static PyType_Slot pm_received_slots[] = {
    { Py_tp_members, pm_received_members },
    { Py_tp_getset, pm_received_getset },
    { Py_tp_methods, pm_received_methods },
    { Py_tp_new, pm_received_refuse },
    { Py_tp_traverse, pm_received_traverse },
    { Py_tp_clear, pm_received_clear },
    { Py_tp_dealloc, pm_received_dealloc },
    { 0, NULL },
};

static PyType_Spec pm_received_spec = {
    .name = "pympi._core.Received",
    .basicsize = sizeof(struct pm_received_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = pm_received_slots,
};

static void *pm_received_type(void)
{
    pm_gil gil = pm_gil_take();
    PyObject *type = PyType_FromSpec(&pm_received_spec);

    pm_gil_drop(gil);
    return type;
}

/* An empty message of a subclass of Received: a new reference or NULL with an exception set. */
static struct pm_received_object *pm_received_new(PyObject *type, PyObject *task)
{
    struct pm_received_object *object;

    object = (struct pm_received_object *)PyType_GenericAlloc((PyTypeObject *)type, 0);
    if (object != NULL) {
        Py_INCREF(task);
        object->task = task;
    }
    return object;
}

/* Takes received->message over. */
static void *pm_received_wrap(void *type, void *task, const struct pm_received *received)
{
    pm_gil gil = pm_gil_take();
    struct pm_received_object *object = pm_received_new(type, task);

    if (object == NULL)
        PyErr_Clear();
    else
        object->received = *received;
    pm_gil_drop(gil);
    return object;
}

/* ---- handlers in Python --------------------------------------------------------------------------------------------- */

static PyObject *pm_targets; /* a dict of _upcall.py: what is called, by its number */

static void pm_upcall_targets(void *targets)
{
    pm_gil gil = pm_gil_take();

    Py_INCREF((PyObject *)targets);
    pm_targets = targets;
    pm_gil_drop(gil);
}

/* What a number stands for: a new reference, or NULL. */
static PyObject *pm_target(void *context)
{
    PyObject *number = PyLong_FromVoidPtr(context), *target = NULL;

    if (number != NULL)
        target = PyDict_GetItemWithError(pm_targets, number);
    Py_XINCREF(target);
    Py_XDECREF(number);
    return target;
}

/* What an upcall raised, if anything, cannot be raised through the core. */
static void pm_upcall_raised(PyObject *where)
{
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        pm_binding_interrupt();
        PyErr_Clear();
    } else {
        PyErr_WriteUnraisable(where);
    }
}

/*
 * Calls function(message), which tells whether it handled it. The message is the core's until it has returned, and then the
 * object's; what one that was not handled brought is dropped there, where it is known what of it is used already.
 */
static bool pm_handled(PyObject *function, struct pm_received_object *message, struct pm_received *received)
{
    PyObject *answer;
    bool handled;

    message->received = *received;
    message->received.message = NULL;
    answer = PyObject_CallFunctionObjArgs(function, (PyObject *)message, NULL);
    message->received.message = received->message;
    received->message = NULL;
    if (answer == NULL)
        pm_upcall_raised(function);
    handled = answer == Py_True;
    Py_XDECREF(answer);
    if (!handled)
        received->rights_count = received->reply_disposition = 0;
    return handled;
}

/* As a pm_handler: `context` is the number of (class of messages, task, function). One that is gone handles nothing. */
static int pm_python_handler(void *context, struct pm_received *received)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *target = pm_target(context), *type, *task, *function;
    struct pm_received_object *message = NULL;
    bool handled = false;

    if (target != NULL && PyArg_ParseTuple(target, "OOO", &type, &task, &function))
        message = pm_received_new(type, task);
    if (message != NULL)
        handled = pm_handled(function, message, received);
    else if (PyErr_Occurred())
        pm_upcall_raised(target);
    Py_XDECREF((PyObject *)message);
    Py_XDECREF(target);
    PyGILState_Release(gil);
    return !handled;
}

/* ---- functions bound to a right ------------------------------------------------------------------------------------ */

struct pm_bound {
    PyObject_HEAD
    PyObject *owner;                    /* keeps task or kernel alive */
    PyObject *slow;
    PyObject *type;                     /* of messages, for those that take or give one */
    struct pm_task *task;
    struct pm_kernel **kernel;          /* NULL in there: closed */
    uint32_t name, tclass, permissions;
    int32_t msgh_id;
    int64_t timeout_ns;
};

static int pm_bound_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct pm_bound *bound = (struct pm_bound *)self;

    Py_VISIT(Py_TYPE(self));
    Py_VISIT(bound->owner);
    Py_VISIT(bound->slow);
    Py_VISIT(bound->type);
    return 0;
}

static void pm_bound_dealloc(PyObject *self)
{
    struct pm_bound *bound = (struct pm_bound *)self;
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_CLEAR(bound->slow);
    Py_CLEAR(bound->type);
    Py_CLEAR(bound->owner);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyType_Slot pm_bound_slots[] = {
    { Py_tp_traverse, pm_bound_traverse },
    { Py_tp_dealloc, pm_bound_dealloc },
    { 0, NULL },
};

static PyType_Spec pm_bound_spec = {
    .name = "pympi._core.Bound",
    .basicsize = sizeof(struct pm_bound),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pm_bound_slots,
};

/* A builtin function `method` of a Bound that is as `values` says: a new reference or NULL. */
static void *pm_bind(PyMethodDef *method, struct pm_bound values)
{
    static PyObject *type;
    struct pm_bound *bound;
    PyObject *function = NULL;
    pm_gil gil = pm_gil_take();

    if (type == NULL && (type = PyType_FromSpec(&pm_bound_spec)) == NULL)
        goto out;
    bound = (struct pm_bound *)PyType_GenericAlloc((PyTypeObject *)type, 0);
    if (bound == NULL)
        goto out;
    memcpy((char *)bound + sizeof(PyObject), (char *)&values + sizeof(PyObject), sizeof values - sizeof(PyObject));
    Py_INCREF(bound->owner);
    Py_INCREF(bound->slow);
    Py_XINCREF(bound->type);
    function = PyCFunction_New(method, (PyObject *)bound);
    Py_DECREF(bound);
out:
    PyErr_Clear();
    pm_gil_drop(gil);
    return function;
}

static PyObject *pm_slow(const struct pm_bound *bound, int64_t code)
{
    return PyObject_CallFunction(bound->slow, "iI", (int)code, bound->name);
}

/* An int argument that fits the C type, whose bounds are given; false with an exception set. */
static bool pm_int_argument(const char *what, PyObject *argument, long long low, long long high, long long *value)
{
    *value = PyLong_AsLongLong(argument);
    if (*value == -1 && PyErr_Occurred())
        return false;
    if (*value < low || *value > high) {
        PyErr_Format(PyExc_OverflowError, "%s is a number from %lld to %lld, not %lld", what, low, high, *value);
        return false;
    }
    return true;
}

/* send(body[, msgh_id[, timeout_ns]]) */
static PyObject *pm_bound_send(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    struct pm_bound *bound = (struct pm_bound *)self;
    long long msgh_id = bound->msgh_id, timeout_ns = bound->timeout_ns;
    char *body;
    Py_ssize_t size;
    int code;

    if (count < 1 || count > 3) {
        PyErr_Format(PyExc_TypeError, "expected 1 to 3 arguments (body, msgh_id, timeout_ns), not %zd", count);
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[0], &body, &size) < 0 ||
        (count > 1 && !pm_int_argument("msgh_id", args[1], INT32_MIN, INT32_MAX, &msgh_id)) ||
        (count > 2 && !pm_int_argument("timeout_ns", args[2], -1, INT64_MAX, &timeout_ns)))
        return NULL;
    code = pm_block_send(bound->task, bound->name, body, size, msgh_id, timeout_ns);
    if (pm_exception_left())
        return NULL;
    if (code != 0)
        return pm_slow(bound, code);
    Py_RETURN_NONE;
}

/* A message larger than what lies on the stack: tries until it fits, or cannot. */
static int64_t pm_receive_large(const struct pm_bound *bound, char **buffer)
{
    int64_t result = -MACH_RCV_TOO_LARGE;

    for (uint64_t room = 16 * PM_RECEIVER_INLINE; result == -MACH_RCV_TOO_LARGE; room *= 16) {
        PyMem_Free(*buffer);
        *buffer = PyMem_Malloc(room);
        if (*buffer == NULL)
            return -KERN_RESOURCE_SHORTAGE;
        result = pm_block_receive(bound->task, bound->name, *buffer, room, bound->timeout_ns);
        if (room > PM_MESSAGE_MAX)
            break;
    }
    return result;
}

/* receive() -> bytes */
static PyObject *pm_bound_receive(PyObject *self, PyObject *unused)
{
    struct pm_bound *bound = (struct pm_bound *)self;
    char inlined[PM_RECEIVER_INLINE], *large = NULL;
    PyObject *body = NULL;
    int64_t result = pm_block_receive(bound->task, bound->name, inlined, sizeof inlined, bound->timeout_ns);

    (void)unused;
    if (result == -MACH_RCV_TOO_LARGE)
        result = pm_receive_large(bound, &large);
    if (!pm_exception_left())
        body = result >= 0 ? PyBytes_FromStringAndSize(large ? large : inlined, result) : pm_slow(bound, -result);
    PyMem_Free(large);
    return body;
}

/* take(timeout_ns, effective_sid) -> message */
static PyObject *pm_bound_take(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    struct pm_bound *bound = (struct pm_bound *)self;
    struct pm_received_object *object;
    long long timeout_ns, sid;
    int code;

    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "expected 2 arguments (timeout_ns, effective_sid)");
        return NULL;
    }
    if (!pm_int_argument("timeout_ns", args[0], -1, INT64_MAX, &timeout_ns) || !pm_int_argument("effective_sid", args[1], 0, UINT32_MAX, &sid))
        return NULL;
    object = pm_received_new(bound->type, bound->owner);
    if (object == NULL)
        return NULL;
    code = pm_block_receive_message(bound->task, bound->name, (uint32_t)sid, &object->received, timeout_ns);
    if (!pm_exception_left()) {
        if (code == 0 || code == PM_DELIVERED_IN_PART)
            return (PyObject *)object;
        memset(&object->received, 0, sizeof object->received);
        Py_DECREF(object);
        return pm_slow(bound, code);
    }
    Py_DECREF(object);
    return NULL;
}

static int64_t pm_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* As pm_block_call(), but the GIL is kept as long as there is nothing to wait for: a handler answers at once. */
static int pm_ask(struct pm_task *task, const struct pm_send_spec *spec, uint32_t reply, struct pm_received *received,
                  int64_t timeout_ns)
{
    int64_t begin = timeout_ns > 0 ? pm_now_ns() : 0, left;
    int code = pm_send_message(task, spec, NULL);

    if (code == MACH_SEND_TIMED_OUT && timeout_ns != 0)
        return pm_block_call(task, spec, reply, received, timeout_ns);
    if (code != 0)
        return code;
    code = pm_receive_message(task, reply, 0, received, NULL);
    if (code != MACH_RCV_TIMED_OUT || timeout_ns == 0)
        return code;
    left = timeout_ns > 0 ? begin + timeout_ns - pm_now_ns() : -1;
    return timeout_ns > 0 && left <= 0 ? code : pm_block_receive_message(task, reply, 0, received, left);
}

/* call(body, msgh_id, timeout_ns, reply) -> message */
static PyObject *pm_bound_call(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    struct pm_bound *bound = (struct pm_bound *)self;
    struct pm_send_spec spec = { .dest = bound->name, .reply_disposition = MACH_MSG_TYPE_MAKE_SEND_ONCE };
    struct pm_received_object *object;
    long long msgh_id, timeout_ns, reply;
    char *body;
    Py_ssize_t size;
    int code;

    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "expected 4 arguments (body, msgh_id, timeout_ns, reply)");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[0], &body, &size) < 0 || !pm_int_argument("msgh_id", args[1], INT32_MIN, INT32_MAX, &msgh_id) ||
        !pm_int_argument("timeout_ns", args[2], -1, INT64_MAX, &timeout_ns) || !pm_int_argument("reply", args[3], 0, UINT32_MAX, &reply))
        return NULL;
    object = pm_received_new(bound->type, bound->owner);
    if (object == NULL)
        return NULL;
    spec.body = body, spec.size = (uint64_t)size, spec.msgh_id = (int32_t)msgh_id, spec.reply = (uint32_t)reply;
    code = pm_ask(bound->task, &spec, (uint32_t)reply, &object->received, timeout_ns);
    if (!pm_exception_left() && (code == 0 || code == PM_DELIVERED_IN_PART))
        return (PyObject *)object;
    if (code != 0 && code != PM_DELIVERED_IN_PART)
        memset(&object->received, 0, sizeof object->received);
    Py_DECREF(object);
    return PyErr_Occurred() ? NULL : pm_slow(bound, code);
}

/* answer(message, body, msgh_id, timeout_ns[, name, disposition]): the reply right is used up */
static PyObject *pm_bound_answer(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    struct pm_bound *bound = (struct pm_bound *)self;
    struct pm_right right;
    struct pm_send_spec spec = { .rights = &right };
    struct pm_received_object *object;
    long long msgh_id, timeout_ns, name = 0, disposition = 0;
    char *body;
    Py_ssize_t size;
    int code;

    if ((count != 4 && count != 6) || PyObject_IsInstance(args[0], bound->type) != 1) {
        PyErr_SetString(PyExc_TypeError, "expected 4 or 6 arguments (message, body, msgh_id, timeout_ns[, name, disposition])");
        return NULL;
    }
    object = (struct pm_received_object *)args[0];
    if (PyBytes_AsStringAndSize(args[1], &body, &size) < 0 || !pm_int_argument("msgh_id", args[2], INT32_MIN, INT32_MAX, &msgh_id) ||
        !pm_int_argument("timeout_ns", args[3], -1, INT64_MAX, &timeout_ns) ||
        (count == 6 && (!pm_int_argument("name", args[4], 0, UINT32_MAX, &name) ||
                        !pm_int_argument("disposition", args[5], 0, UINT32_MAX, &disposition))))
        return NULL;
    right = (struct pm_right){ (uint32_t)name, (uint32_t)disposition };
    spec.dest = object->received.reply, spec.dest_disposition = object->received.reply_disposition;
    spec.body = body, spec.size = (uint64_t)size, spec.msgh_id = (int32_t)msgh_id, spec.rights_count = count == 6;
    code = pm_block_send_message(bound->task, &spec, timeout_ns);
    if (pm_exception_left())
        return NULL;
    if (code != 0)
        return PyObject_CallFunction(bound->slow, "iI", code, spec.dest);
    object->replied = 1;
    Py_RETURN_NONE;
}

/* check(source_sid, target_sid) -> bool */
static PyObject *pm_bound_check(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    struct pm_bound *bound = (struct pm_bound *)self;
    long long ssid, tsid;
    int64_t verdict = -KERN_TERMINATED;

    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "expected 2 arguments (source_sid, target_sid)");
        return NULL;
    }
    if (!pm_int_argument("source_sid", args[0], 0, UINT32_MAX, &ssid) || !pm_int_argument("target_sid", args[1], 0, UINT32_MAX, &tsid))
        return NULL;
    if (*bound->kernel != NULL)
        verdict = pm_check(*bound->kernel, (uint32_t)ssid, (uint32_t)tsid, bound->tclass, bound->permissions);
    if (pm_exception_left())
        return NULL;
    return verdict < 0 ? pm_slow(bound, -verdict) : PyBool_FromLong(verdict != 0);
}

/* may(message, target_sid[, name, port, result]) -> bool */
static PyObject *pm_bound_judge(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    struct pm_bound *bound = (struct pm_bound *)self;
    struct pm_received *received;
    struct pm_sender_question question;
    long long tsid, name = 0, port = 0, result = 0;
    int64_t verdict;

    if ((count != 2 && count != 5) || PyObject_IsInstance(args[0], bound->type) != 1) {
        PyErr_SetString(PyExc_TypeError, "expected 2 or 5 arguments (message, target_sid[, name, port, result])");
        return NULL;
    }
    if (!pm_int_argument("target_sid", args[1], 0, UINT32_MAX, &tsid) ||
        (count == 5 && (!pm_int_argument("name", args[2], 0, UINT32_MAX, &name) || !pm_int_argument("port", args[3], 0, INT64_MAX, &port) ||
                        !pm_int_argument("result", args[4], INT32_MIN, INT32_MAX, &result))))
        return NULL;
    received = &((struct pm_received_object *)args[0])->received;
    question = (struct pm_sender_question){
        .real_sid = received->real_sid, .sender_sid = received->sender_sid, .sender_task = received->sender_task,
        .msgh_id = received->msgh_id, .transfer = received->transfer, .size = received->size,
        .tsid = (uint32_t)tsid, .tclass = bound->tclass, .permissions = bound->permissions,
        .name = (uint32_t)name, .port = (uint64_t)port, .result = (int32_t)result };
    verdict = pm_check_sender(bound->task, &question);
    if (pm_exception_left())
        return NULL;
    return verdict < 0 ? pm_slow(bound, -verdict) : PyBool_FromLong(verdict != 0);
}

/* ---- many messages -------------------------------------------------------------------------------------------------- */

#define PM_ROWS_LONG 1024               /* messages; so many give the GIL up meanwhile */

/* The memory of `object`, which nobody resizes or frees before it is released; None has none. */
static bool pm_lend(PyObject *object, Py_buffer *view, int flags)
{
    if (object == Py_None)
        return true;
    return PyObject_GetBuffer(object, view, flags) == 0;
}

/* Numbers of 32 bits, one for each message, or None. */
static bool pm_lend_numbers(PyObject *object, Py_buffer *view, uint64_t count)
{
    if (!pm_lend(object, view, PyBUF_SIMPLE))
        return false;
    if (view->obj == NULL || (uint64_t)view->len / 4 == count)
        return true;
    PyErr_SetString(PyExc_ValueError, "expected a number of 32 bits for each message");
    return false;
}

/* Rows of bytes, one for each message: what most batches are. Anything else has its stride and count told by batch.py. */
static bool pm_lend_rows(PyObject *object, Py_buffer *view, int flags, long long *stride, long long *count)
{
    if (PyObject_GetBuffer(object, view, PyBUF_ND | flags) < 0) {
        PyErr_Clear();
        return false;
    }
    if (view->ndim != 2 || view->itemsize != 1 || view->shape[0] > INT32_MAX || view->shape[1] < 1 || view->shape[1] > UINT32_MAX)
        return false;
    *count = view->shape[0];
    *stride = view->shape[1];
    return true;
}

/* The arguments of send_rows() behind the name; what is lent stands in views. */
static bool pm_rows_arguments(PyObject *const *args, Py_buffer views[3], struct pm_bodies *bodies)
{
    long long stride, count, msgh_id;

    if (!pm_int_argument("msgh_id", args[1], INT32_MIN, INT32_MAX, &msgh_id) || !pm_int_argument("stride", args[2], 0, UINT32_MAX, &stride) ||
        !pm_int_argument("count", args[3], 0, INT32_MAX, &count) || !pm_lend(args[0], &views[0], PyBUF_SIMPLE) ||
        !pm_lend_numbers(args[4], &views[1], (uint64_t)count) || !pm_lend_numbers(args[5], &views[2], (uint64_t)count))
        return false;
    *bodies = (struct pm_bodies){ .stride = (uint64_t)stride, .count = (uint64_t)count, .sizes = views[1].buf,
                                  .msgh_ids = views[2].buf, .msgh_id = (int32_t)msgh_id };
    return true;
}

/* The same, where there are no more arguments: rows of bytes. False with no exception: they are something else. */
static bool pm_rows_plain(PyObject *const *args, Py_buffer *view, struct pm_bodies *bodies)
{
    long long stride, count, msgh_id;

    if (!pm_int_argument("msgh_id", args[1], INT32_MIN, INT32_MAX, &msgh_id) || !pm_lend_rows(args[0], view, 0, &stride, &count))
        return false;
    *bodies = (struct pm_bodies){ .stride = (uint64_t)stride, .count = (uint64_t)count, .msgh_id = (int32_t)msgh_id };
    return true;
}

static int64_t pm_rows_send(const struct pm_bound *bound, uint32_t name, const struct pm_bodies *bodies, int32_t *codes)
{
    return (bodies->count < PM_ROWS_LONG ? pm_send_many : pm_long_send_many)(bound->task, name, bodies, codes);
}

/* None, where nothing was made and nothing is wrong. */
static PyObject *pm_or_none(PyObject *made)
{
    if (made != NULL || PyErr_Occurred())
        return made;
    Py_RETURN_NONE;
}

/* The array that tells what was done. An interrupt that was noted meanwhile is left for the next call: what is done is told. */
static PyObject *pm_rows_answer(const struct pm_bound *bound, uint32_t name, int64_t result, PyObject *array)
{
    if (result >= 0)
        return array;
    Py_DECREF(array);
    return pm_exception_left() ? NULL : PyObject_CallFunction(bound->slow, "iI", (int)-result, name);
}

/* send_rows(name, bodies, msgh_id[, stride, count, sizes, msgh_ids]) -> bytearray of codes, or None: not rows of bytes */
static PyObject *pm_bound_send_rows(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    struct pm_bound *bound = (struct pm_bound *)self;
    Py_buffer views[3] = { { 0 } };
    struct pm_bodies bodies;
    PyObject *codes = NULL;
    long long name;

    if (count != 3 && count != 7) {
        PyErr_SetString(PyExc_TypeError, "expected 3 or 7 arguments (name, bodies, msgh_id[, stride, count, sizes, msgh_ids])");
        return NULL;
    }
    if (pm_int_argument("name", args[0], 0, UINT32_MAX, &name) &&
        (count == 3 ? pm_rows_plain(args + 1, views, &bodies) : pm_rows_arguments(args + 1, views, &bodies)))
        codes = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)bodies.count * 4);
    if (codes != NULL) {
        bodies.data = views[0].buf;
        bodies.size = (uint64_t)views[0].len;
        codes = pm_rows_answer(bound, (uint32_t)name,
                               pm_rows_send(bound, (uint32_t)name, &bodies, (int32_t *)PyByteArray_AsString(codes)), codes);
    }
    for (int i = 0; i < 3; i++)
        PyBuffer_Release(&views[i]);
    return pm_or_none(codes);
}

/* (bytearray of results, why there are no more): `count` of the results are final, and if there is room the next one tells why. */
static PyObject *pm_rows_results(PyObject *results, uint64_t count, const struct pm_room *room)
{
    int stopped = count < room->count ? room->results[count].code : 0;

    if (count < room->count && PyByteArray_Resize(results, (Py_ssize_t)(count * sizeof(struct pm_result))) < 0) {
        Py_DECREF(results);
        return NULL;
    }
    return Py_BuildValue("(Ni)", results, stopped);
}

static PyObject *pm_rows_receive(const struct pm_bound *bound, uint32_t name, struct pm_room *room)
{
    PyObject *results = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(room->count * sizeof(struct pm_result)));
    int64_t count;

    if (results == NULL)
        return NULL;
    room->results = (struct pm_result *)PyByteArray_AsString(results);
    count = (room->count < PM_ROWS_LONG ? pm_receive_many : pm_long_receive_many)(bound->task, name, room);
    results = pm_rows_answer(bound, name, count, results);
    return results != NULL ? pm_rows_results(results, (uint64_t)count, room) : NULL;
}

/* receive_rows(name, out[, stride, count]) -> (bytearray of results, code), or None: not rows of bytes */
static PyObject *pm_bound_receive_rows(PyObject *self, PyObject *const *args, Py_ssize_t arguments)
{
    Py_buffer view = { 0 };
    PyObject *answer = NULL;
    long long name, stride, count;
    bool lent;

    if (arguments != 2 && arguments != 4) {
        PyErr_SetString(PyExc_TypeError, "expected 2 or 4 arguments (name, out[, stride, count])");
        return NULL;
    }
    if (!pm_int_argument("name", args[0], 0, UINT32_MAX, &name))
        return NULL;
    if (arguments == 2)
        lent = pm_lend_rows(args[1], &view, PyBUF_WRITABLE, &stride, &count);
    else
        lent = pm_int_argument("stride", args[2], 0, UINT32_MAX, &stride) && pm_int_argument("count", args[3], 0, INT32_MAX, &count) &&
               pm_lend(args[1], &view, PyBUF_WRITABLE);
    if (lent)
        answer = pm_rows_receive((struct pm_bound *)self, (uint32_t)name, &(struct pm_room){
            .data = view.buf, .size = (uint64_t)view.len, .stride = (uint64_t)stride, .count = (uint64_t)count });
    PyBuffer_Release(&view);
    return pm_or_none(answer);
}

#define PM_FAST(function) ((PyCFunction)(void (*)(void))(function))
static PyMethodDef pm_send_method = { "send", PM_FAST(pm_bound_send), METH_FASTCALL, "send(body[, msgh_id[, timeout_ns]])" };
static PyMethodDef pm_receive_method = { "receive", pm_bound_receive, METH_NOARGS, "receive() -> bytes" };
static PyMethodDef pm_take_method = { "take", PM_FAST(pm_bound_take), METH_FASTCALL, "take(timeout_ns, effective_sid)" };
static PyMethodDef pm_call_method = { "call", PM_FAST(pm_bound_call), METH_FASTCALL, "call(body, msgh_id, timeout_ns, reply)" };
static PyMethodDef pm_answer_method = { "answer", PM_FAST(pm_bound_answer), METH_FASTCALL,
                                        "answer(message, body, msgh_id, timeout_ns[, name, disposition])" };
static PyMethodDef pm_judge_method = { "may", PM_FAST(pm_bound_judge), METH_FASTCALL,
                                       "may(message, target_sid[, name, port, result])" };
static PyMethodDef pm_send_rows_method = { "send_rows", PM_FAST(pm_bound_send_rows), METH_FASTCALL,
                                           "send_rows(name, bodies, msgh_id[, stride, count, sizes, msgh_ids])" };
static PyMethodDef pm_receive_rows_method = { "receive_rows", PM_FAST(pm_bound_receive_rows), METH_FASTCALL,
                                              "receive_rows(name, out[, stride, count])" };
static PyMethodDef pm_check_method = { "check", PM_FAST(pm_bound_check), METH_FASTCALL, "check(source_sid, target_sid)" };

static void *pm_callable_sender(void *owner, void *slow, struct pm_task *task, uint32_t dest, int32_t msgh_id, int64_t timeout_ns)
{
    return pm_bind(&pm_send_method, (struct pm_bound){
        .owner = owner, .slow = slow, .task = task, .name = dest, .msgh_id = msgh_id, .timeout_ns = timeout_ns });
}

static void *pm_callable_receiver(void *owner, void *slow, struct pm_task *task, uint32_t name, int64_t timeout_ns)
{
    return pm_bind(&pm_receive_method, (struct pm_bound){
        .owner = owner, .slow = slow, .task = task, .name = name, .timeout_ns = timeout_ns });
}

static void *pm_callable_taker(void *owner, void *slow, void *type, struct pm_task *task, uint32_t name)
{
    return pm_bind(&pm_take_method, (struct pm_bound){
        .owner = owner, .slow = slow, .type = type, .task = task, .name = name });
}

static void *pm_callable_caller(void *owner, void *slow, void *type, struct pm_task *task, uint32_t dest)
{
    return pm_bind(&pm_call_method, (struct pm_bound){
        .owner = owner, .slow = slow, .type = type, .task = task, .name = dest });
}

static void *pm_callable_answerer(void *owner, void *slow, void *type, struct pm_task *task)
{
    return pm_bind(&pm_answer_method, (struct pm_bound){ .owner = owner, .slow = slow, .type = type, .task = task });
}

static void *pm_callable_rows_sender(void *owner, void *slow, struct pm_task *task)
{
    return pm_bind(&pm_send_rows_method, (struct pm_bound){ .owner = owner, .slow = slow, .task = task });
}

static void *pm_callable_rows_receiver(void *owner, void *slow, struct pm_task *task)
{
    return pm_bind(&pm_receive_rows_method, (struct pm_bound){ .owner = owner, .slow = slow, .task = task });
}

static void *pm_callable_judge(void *owner, void *slow, void *type, struct pm_task *task, uint32_t tclass, uint32_t permissions)
{
    return pm_bind(&pm_judge_method, (struct pm_bound){
        .owner = owner, .slow = slow, .type = type, .task = task, .tclass = tclass, .permissions = permissions });
}

static void *pm_callable_checker(void *owner, void *slow, struct pm_kernel **kernel, uint32_t tclass, uint32_t permissions)
{
    return pm_bind(&pm_check_method, (struct pm_bound){
        .owner = owner, .slow = slow, .kernel = kernel, .tclass = tclass, .permissions = permissions });
}

#endif
