/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How Python calls the core. This is the end of the preamble of the module that cffi generates:
 * Python.h and cffi's own definitions stand before it, the generated wrappers after it.
 *
 * cffi gives the GIL up around every call, which costs more than the call; beside a busy thread it
 * costs a thread switch, hundreds of times more. Our calls are short, so they keep it. Those that
 * may sleep go through a wrapper pm_block_<x> (build_ffi.py), which gives it up for the sleep.
 *
 * This redefines macros of cffi's, so cffi is pinned, and pympi/_ffi.py proves at import, through
 * pm_binding_holds_gil(), that the wrappers do what is said here. PM_STOCK leaves cffi as it comes.
 */
#ifndef PM_BINDING_H
#define PM_BINDING_H

#include <sched.h>

#ifndef PM_STOCK
#undef Py_BEGIN_ALLOW_THREADS
#undef Py_END_ALLOW_THREADS
#undef _cffi_save_errno
#undef _cffi_restore_errno
#define Py_BEGIN_ALLOW_THREADS {
#define Py_END_ALLOW_THREADS }
#define _cffi_save_errno() ((void)0)
#define _cffi_restore_errno() ((void)0)
#endif

/*
 * An exception that a signal handler raised while its thread slept in the core. It is raised by the
 * call itself: the last step of a generated wrapper makes a Python integer of the result, and that
 * step answers NULL, "an exception is set", where a wait left one.
 *
 * With the GIL kept nothing runs between a wait's end and that step, so one flag serves all
 * threads, and a call that does not wait pays one load for it. Otherwise the thread's own state is
 * asked.
 *
 * A Ctrl-C that came in a handler or a decider cannot be raised through the core either. It is
 * noted, and raised by the call whose upcall it came in, or by that thread's next one.
 */
static int pm_interrupt_noted;
static unsigned long pm_interrupt_thread;

static int pm_interrupt_left(void)
{
    if (!pm_interrupt_noted || pm_interrupt_thread != PyThread_get_thread_ident())
        return 0;
    pm_interrupt_noted = 0;
    PyErr_SetNone(PyExc_KeyboardInterrupt);
    return 1;
}

#if defined(PM_STOCK) || defined(Py_GIL_DISABLED)
#define pm_exception_left() (PyErr_Occurred() != NULL || pm_interrupt_left())
#define pm_exception_leave() ((void)0)
#define pm_exception_note() ((void)0)
#else
static int pm_exception_flag; /* an exception is set, or an interrupt noted */

static int pm_exception_take(void)
{
    int left = PyErr_Occurred() != NULL || pm_interrupt_left();

    pm_exception_flag = pm_interrupt_noted;
    return left;
}

static inline int pm_exception_left(void)
{
    return pm_exception_flag && pm_exception_take();
}

#define pm_exception_leave() (pm_exception_flag = 1)
#define pm_exception_note() (pm_exception_flag = 1)
#endif

/* Purpose: note a KeyboardInterrupt of this thread. Conditions: as in an upcall, the GIL is held. */
static void pm_binding_interrupt(void)
{
    pm_interrupt_thread = PyThread_get_thread_ident();
    pm_interrupt_noted = 1;
    pm_exception_note();
}

#undef _cffi_from_c_int
#define _cffi_from_c_int(x, type)                                                                  \
    (pm_exception_left()           ? (PyObject *)NULL                                              \
     : sizeof(type) < sizeof(long) ? PyLong_FromLong((long)(x))                                    \
     : (type)-1 > 0                ? PyLong_FromUnsignedLongLong((unsigned long long)(x))          \
                                   : PyLong_FromLongLong((long long)(x)))

/*
 * Around what needs the GIL although it is reached through a generated wrapper: the stock form's has
 * given it up, ours holds it.
 */
#ifdef PM_STOCK
typedef PyGILState_STATE pm_gil;
#define pm_gil_take() PyGILState_Ensure()
#define pm_gil_drop(state) PyGILState_Release(state)
#else
typedef int pm_gil;
#define pm_gil_take() 0
#define pm_gil_drop(state) ((void)(state))
#endif

/*
 * Whether the last thread to come out of a wait, or to go into one, has the GIL. A guess: what Python does elsewhere is not known
 * here. Who is woken by a thread that is about to give the GIL up looks for that first: to wait for the GIL itself is a sleep.
 */
#define PM_GIL_LOOKS 100
static int pm_gil_kept;

static inline void pm_gil_look(void)
{
    for (int i = 0; i < PM_GIL_LOOKS && __atomic_load_n(&pm_gil_kept, __ATOMIC_RELAXED); i++)
        sched_yield();
}

/* One wait of one thread: what the core is given, and what Python needs back afterwards. */
struct pm_pause {
    struct pm_wait wait;
    PyThreadState *thread; /* while the GIL is given up */
    PyObject *type, *value, *traceback; /* the exception of a signal handler, or NULL */
    pm_gil gil;
};

/*
 * Purpose: run the Python handlers of signals that came during the sleep.
 * Conditions: called by the core from a wait, its lock not held; the GIL is not held.
 * Returns: 0 to sleep on, 1 where a handler raised; the exception is kept for pm_pause_end(), since
 * none may be set while the core unwinds and perhaps calls Python.
 */
static int pm_pause_interrupted(void *context)
{
    struct pm_pause *pause = context;

    if (pause->type != NULL)
        return 1;
    PyEval_RestoreThread(pause->thread);
    if (PyErr_CheckSignals() != 0)
        PyErr_Fetch(&pause->type, &pause->value, &pause->traceback);
    pause->thread = PyEval_SaveThread();
    return pause->type != NULL;
}

/* Whether a result, of either convention of pympi.h, says that a wait was too short. */
static inline int pm_timed_out(int64_t result)
{
    int64_t code = result < 0 ? -result : result;
    return code == MACH_SEND_TIMED_OUT || code == MACH_RCV_TIMED_OUT;
}

/*
 * Purpose: give the GIL up and prepare a wait of timeout_ns nanoseconds, negative for ever.
 * Conditions: the calling thread is Python's; it holds the GIL, except in the stock form.
 */
static inline void pm_pause_begin(struct pm_pause *pause, int64_t timeout_ns)
{
    pause->wait = (struct pm_wait){ timeout_ns, pm_pause_interrupted, pause };
    pause->type = pause->value = pause->traceback = NULL;
    pause->gil = pm_gil_take();
    pause->thread = PyEval_SaveThread();
    __atomic_store_n(&pm_gil_kept, 0, __ATOMIC_RELAXED);
}

/*
 * Purpose: take the GIL back after a wait, and set the exception that a signal handler raised.
 * Conditions: as pm_pause_begin() left them; to be followed by the return to the generated wrapper.
 */
static inline void pm_pause_end(struct pm_pause *pause)
{
    pm_gil_look();
    PyEval_RestoreThread(pause->thread);
    __atomic_store_n(&pm_gil_kept, 1, __ATOMIC_RELAXED);
    if (pause->type != NULL) {
        PyErr_Restore(pause->type, pause->value, pause->traceback);
        pm_exception_leave();
    }
    pm_gil_drop(pause->gil);
}

/* Purpose: call PyGILState_Check, given by address since the limited API lacks it, from a wrapper. */
static int pm_binding_holds_gil(uintptr_t gilstate_check)
{
    return ((int (*)(void))gilstate_check)();
}

/* cffi defines it and declares it nowhere. */
PyMODINIT_FUNC PyInit__core(void);

/* Returns what kind of build this is: "release", or the sanitizers and switches it was made with. */
static const char *pm_binding_build(void)
{
    return PM_BUILD;
}

#endif
